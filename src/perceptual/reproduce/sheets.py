"""Figures 6 and 7: photograph, style, the baseline's painting and our network's side by side, at 256 and at 512 px."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import torch
from torch import Tensor

from perceptual.events import Step
from perceptual.reproduce.lab import Judge, Lab, Work
from perceptual.reproduce.report import Report, sheet

NETWORK = "gallery"
STYLES = ("starry_night", "wave", "the_scream", "composition_vii")


def compare(
    lab: Lab, name: str, plan: Sequence[Work], *, styles: Sequence[str], paper: str
) -> Generator[Step, None, Report]:
    """Paint each style's photographs by both methods: the k-th style the k-th one, or all of them in full."""
    (work, *_) = plan
    judges = [lab.judge(NETWORK, style) for style in lab.config.styles or styles]
    yield from lab.fetch(judges[0].layers)
    photographs = lab.photographs(work.images, work.size)
    chosen = [photographs if lab.config.full else [photographs[k % len(photographs)]] for k in range(len(judges))]
    lab.total = work.iterations * sum(map(len, chosen))
    rows: list[dict[str, Any]] = []
    lines: list[list[tuple[str, Tensor | str]]] = []
    for judge, mine in zip(judges, chosen, strict=True):
        for photograph_name, photograph in mine:
            curve = yield from judge.curve(photograph, work.iterations)
            ours = judge.ours(photograph)
            rows.append(_row(judge, photograph_name, photograph, ours, curve.totals))
            lines.append(
                [
                    (photograph_name, photograph),
                    (judge.style, lab.painting(judge.style, judge.recipe)),
                    (f"optimisation, {work.iterations} iterations", curve.picture),
                    ("our network, one pass", ours),
                ]
            )
    return Report(
        name,
        f"Figure {name[-1]}: style transfer at {work.size} px",
        sheet(lines, inches=max(2.6, work.size / 150)),  # at 150 dots an inch no picture is made smaller
        rows,
        rows,
        paper,
        "The table has the objective (eq. 5) of each picture; what the pictures look like is to be judged by eye.",
        [
            f"Photographs: {lab.told_photographs()}, their middle squares (the paper: MS-COCO); {work.iterations} "
            "iterations of the baseline (the paper: 500).",
            *judges[0].set_up(),
            *lab.notes,
        ],
    )


def _row(judge: Judge, name: str, photograph: Tensor, ours: Tensor, totals: Sequence[float]) -> dict[str, Any]:
    with torch.no_grad():
        objective = judge.objective(photograph)
        own, mine = objective(photograph)["total"].item(), objective(ours)["total"].item()
    below = next((k for k, total in enumerate(totals) if total < mine), None)
    return {
        "style": judge.style,
        "photograph": name,
        "px": photograph.shape[-1],
        "objective at the photograph": own,
        "at the baseline's end": totals[-1],
        "at our network's": mine,
        "iterations that equal it": f"more than {len(totals) - 1}" if below is None else below,
    }
