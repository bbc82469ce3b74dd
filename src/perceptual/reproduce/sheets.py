"""Figures 6 and 7: photo, painting, and the results of the baseline and of our network side by side."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import torch
from torch import Tensor

from perceptual.events import Step
from perceptual.reproduce.lab import Comparison, Lab, Work
from perceptual.reproduce.report import Report, sheet

NETWORK = "gallery"
STYLES = ("starry_night", "wave", "the_scream", "composition_vii")


def compare(
    lab: Lab, name: str, plan: Sequence[Work], *, styles: Sequence[str], paper: str
) -> Generator[Step, None, Report]:
    """Paint the k-th photo in the k-th style by both methods, or with --full all photos in all styles.

    A generator of Steps that returns the Report.
    """
    (work, *_) = plan
    comparisons = [lab.comparison(NETWORK, style) for style in lab.config.styles or styles]
    yield from lab.fetch(comparisons[0].layers)
    photographs = lab.photographs(work.images, work.size)
    chosen = [photographs if lab.config.full else [photographs[k % len(photographs)]] for k in range(len(comparisons))]
    lab.total = work.iterations * sum(map(len, chosen))
    rows: list[dict[str, Any]] = []
    lines: list[list[tuple[str, Tensor | str]]] = []
    for comparison, group in zip(comparisons, chosen, strict=True):
        for photograph_name, photograph in group:
            curve = yield from comparison.curve(photograph, work.iterations)
            ours = comparison.ours(photograph)
            rows.append(_row(comparison, photograph_name, photograph, ours, curve.totals))
            painting = lab.painting(comparison.style, comparison.recipe)
            line: list[tuple[str, Tensor | str]] = [(photograph_name, photograph), (comparison.style, painting)]
            line.append((f"optimisation, {work.iterations} iterations", curve.picture))
            lines.append([*line, ("our network, one pass", ours)])
    return Report(
        name,
        f"Figure {name[-1]}: style transfer at {work.size} px",
        sheet(lines, inches=max(2.6, work.size / 150)),  # at 150 dpi no image is reduced
        rows,
        rows,
        paper,
        "The table shows the objective (eq. 5) of each image. Judge the quality of the images by eye.",
        [
            f"Photos: {lab.describe_photographs()}, the middle squares (the paper: MS-COCO); {work.iterations} "
            "iterations of the baseline (the paper: 500).",
            *comparisons[0].describe_setup(),
            *lab.notes,
        ],
    )


def _row(
    comparison: Comparison, name: str, photograph: Tensor, ours: Tensor, totals: Sequence[float]
) -> dict[str, Any]:
    with torch.no_grad():
        objective = comparison.objective(photograph)
        own, network = objective(photograph)["total"].item(), objective(ours)["total"].item()
    below = next((k for k, total in enumerate(totals) if total < network), None)
    return {
        "style": comparison.style,
        "photograph": name,
        "px": photograph.shape[-1],
        "objective at the photograph": own,
        "at the baseline's end": totals[-1],
        "at our network's": network,
        "iterations that equal it": f"more than {len(totals) - 1}" if below is None else below,
    }
