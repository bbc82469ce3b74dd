"""Figures 6 and 7: photo, painting, and the results of the baseline and of our network side by side, at 256 and 512 px.

If the complete weights of VGG-16 are on this computer, both results are also measured at its deeper layers. These
layers are not in the content loss, so neither method optimises them.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import torch
from torch import Tensor

from perceptual.events import Step
from perceptual.losses import FeatureLoss, PerceptualLoss
from perceptual.reproduce.lab import Comparison, Lab, Work
from perceptual.reproduce.report import Report, sheet

NETWORK = "gallery_video"  # its style targets for these styles are shipped; for all styles they would need 15 MB
DEEP = ("relu4_3", "relu5_1", "relu5_3")
STYLES = ("wave", "the_scream", "udnie", "composition_vii")

TABLE_ABOUT = "The table shows the objective (eq. 5) of each image. Judge the quality of the images by eye."
DEEP_ABOUT = (
    " The last columns show the feature loss (eq. 2) at deeper layers of VGG-16: baseline / our network. "
    "0 is the photograph, and 1 is as far away as the photograph turned by 180 degrees."
)


def compare(
    lab: Lab, name: str, plan: Sequence[Work], *, styles: Sequence[str], paper: str
) -> Generator[Step, None, Report]:
    """Paint photo k in style k by both methods; with --full, paint all photos in all styles.

    A generator of Steps that returns the Report.
    """
    (work, *_) = plan
    comparisons = [lab.comparison(NETWORK, style) for style in lab.config.styles or styles]
    yield from lab.fetch(comparisons[0].layers)
    photographs = lab.photographs(work.images, work.size)
    chosen = [photographs if lab.config.full else [photographs[k % len(photographs)]] for k in range(len(comparisons))]
    lab.total, deep = work.iterations * sum(map(len, chosen)), _deep_loss(lab)
    rows, lines = list[dict[str, Any]](), list[list[tuple[str, Tensor | str]]]()
    for comparison, group in zip(comparisons, chosen, strict=True):
        for photograph_name, photograph in group:
            curve = yield from comparison.curve(photograph, work.iterations)
            ours = comparison.ours(photograph)
            distances = _distances(deep, photograph, curve.picture, ours)
            rows.append(_row(comparison, photograph_name, photograph, ours, curve.totals) | distances)
            painting = (comparison.style, lab.painting(comparison.style, comparison.recipe))
            baseline = (f"optimisation, {work.iterations} iterations", curve.picture)
            lines.append([(photograph_name, photograph), painting, baseline, ("our network, one pass", ours)])
    return Report(
        name,
        f"Figure {name[-1]}: style transfer at {work.size} px",
        sheet(lines, inches=max(2.6, work.size / 150)),  # wide enough for full resolution at 150 dpi
        rows,
        rows,
        paper,
        TABLE_ABOUT + (DEEP_ABOUT if deep else ""),
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


def _deep_loss(lab: Lab) -> PerceptualLoss | None:
    """The feature reconstruction loss at deeper layers of VGG-16; None without its complete weights."""
    network = next((name for name in ("vgg16", "vgg16-torchvision") if lab.has_layer(name, DEEP[-1])), None)
    if network is None:
        return None
    layers = [f"{network}:{layer}" for layer in DEEP]
    return PerceptualLoss({layer: (FeatureLoss(layer), 1.0) for layer in layers}, paths=lab.paths)


@torch.no_grad()
def _distances(deep: PerceptualLoss | None, photograph: Tensor, baselines: Tensor, ours: Tensor) -> dict[str, str]:
    """{layer: "baseline / ours"}: distances from the photo, divided by that of the photo turned by 180 degrees.

    All images are (1, 3, H, W) in [0, 1].
    """
    if deep is None:
        return {}
    goal = deep.goal(photograph)
    turned, theirs, mine = (deep(picture, goal) for picture in (photograph.flip(2, 3), baselines, ours))
    return {
        layer: " / ".join(f"{float(each[layer] / turned[layer].clamp_min(1e-12)):.3f}" for each in (theirs, mine))
        for layer, _ in deep.named_terms()
    }
