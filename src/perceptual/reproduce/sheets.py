"""Figures 6 and 7: photograph, style, the baseline's painting and our network's side by side, at 256 and at 512 px.

Both sides are measured at deeper layers of VGG-16 too, where a whole one is at hand: these are no part of the content
target, so neither side was made for them.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import torch
from torch import Tensor

from perceptual.events import Step
from perceptual.losses import FeatureLoss, PerceptualLoss
from perceptual.reproduce.lab import Judge, Lab, Work
from perceptual.reproduce.report import Report, sheet

NETWORK = "gallery"
DEEP = ("relu4_3", "relu5_1", "relu5_3")
STYLES = ("starry_night", "wave", "the_scream", "composition_vii")

TOLD = "The table has the objective (eq. 5) of each picture; what the pictures look like is to be judged by eye."
DEEP_TOLD = (
    " The last columns have the feature reconstruction loss (eq. 2) at deeper layers of VGG-16, the baseline's / our "
    "network's. 0 is the photograph, and 1 is as far from it as the photograph turned by 180 degrees."
)


def compare(
    lab: Lab, name: str, plan: Sequence[Work], *, styles: Sequence[str], paper: str
) -> Generator[Step, None, Report]:
    """Paint each style's photographs by both methods: the k-th style the k-th one, or all of them in full."""
    (work, *_) = plan
    judges = [lab.judge(NETWORK, style) for style in lab.config.styles or styles]
    yield from lab.fetch(judges[0].layers)
    photographs = lab.photographs(work.images, work.size)
    chosen = [photographs if lab.config.full else [photographs[k % len(photographs)]] for k in range(len(judges))]
    lab.total, deep = work.iterations * sum(map(len, chosen)), _deep_loss(lab)
    rows, lines = list[dict[str, Any]](), list[list[tuple[str, Tensor | str]]]()
    for judge, mine in zip(judges, chosen, strict=True):
        for photograph_name, photograph in mine:
            curve = yield from judge.curve(photograph, work.iterations)
            ours = judge.ours(photograph)
            told = _distances(deep, photograph, curve.picture, ours)
            rows.append(_row(judge, photograph_name, photograph, ours, curve.totals) | told)
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
        TOLD + (DEEP_TOLD if deep else ""),
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


def _deep_loss(lab: Lab) -> PerceptualLoss | None:
    """The feature reconstruction loss at the deeper layers of VGG-16; None where no whole VGG-16 is at hand."""
    network = next((name for name in ("vgg16", "vgg16-torchvision") if lab.reaches(name, DEEP[-1])), None)
    if network is None:
        return None
    layers = [f"{network}:{layer}" for layer in DEEP]
    return PerceptualLoss({layer: (FeatureLoss(layer), 1.0) for layer in layers}, paths=lab.paths)


@torch.no_grad()
def _distances(deep: PerceptualLoss | None, photograph: Tensor, baselines: Tensor, ours: Tensor) -> dict[str, str]:
    """By layer, how far both paintings are from the photograph, all (1, 3, H, W), as shares of its half turn's."""
    if deep is None:
        return {}
    goal = deep.goal(photograph)
    turned, theirs, mine = (deep(picture, goal) for picture in (photograph.flip(2, 3), baselines, ours))
    return {
        layer: " / ".join(f"{float(each[layer] / turned[layer].clamp_min(1e-12)):.3f}" for each in (theirs, mine))
        for layer, _ in deep.named_terms()
    }
