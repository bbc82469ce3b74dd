"""Figure 3: a photo reconstructed from its features at one layer at a time (feature reconstruction, eq. 2)."""

from __future__ import annotations

from collections.abc import Generator

from torch import Tensor

from perceptual.config import INVERT_TV, OptimizeConfig
from perceptual.events import Step
from perceptual.optimize import invert
from perceptual.reproduce.lab import Curve, Lab, Work, digest
from perceptual.reproduce.report import Report, sheet

ABOUT = "a photo reconstructed from its features, layer by layer"
IGNORED = ("network", "styles", "paintings")
LAYERS = ("vgg16:relu2_2", "vgg16:relu3_3", "vgg16:relu4_3", "vgg16:relu5_1", "vgg16:relu5_3")
DEFAULT, FULL = (Work(256, 1, 200),), (Work(256, 1, 500),)


def run(lab: Lab) -> Generator[Step, None, Report]:
    """Reconstruct and draw. A generator of Steps that returns the Report."""
    plan = lab.plan(DEFAULT, FULL)
    yield from lab.fetch(LAYERS)
    layers = lab.reachable(LAYERS)
    lab.total = sum(work.images * work.iterations for work in plan) * len(layers)
    rows, lines = [], []
    for work in plan:
        for name, photograph in lab.photographs(work.images, work.size):
            line = [(f"{name}, {work.size} px", photograph)]
            for layer, used in layers.items():
                curve = yield from _rebuild(lab, photograph, used, work.iterations)
                distance = (curve.picture - photograph).square().mean().item()
                row = {"photograph": name, "px": work.size, "the paper's layer": layer, "layer": used}
                rows.append({**row, **curve.summary(), "pixel distance": distance})
                line.append((used, curve.picture))
            lines.append(line)
    return Report(
        "figure3",
        "Figure 3: feature reconstruction",
        sheet(lines),
        rows,
        rows,
        "From early layers the image is visually indistinguishable; from higher ones content and overall spatial "
        "structure are preserved, but colour, texture and exact shape are not.",
        "The table shows the objective and the mean squared difference of the pixels from the photo. The objective is "
        "1 if the features are as far away as those of the photo turned upside down.",
        [
            f"Photos: {lab.describe_photographs()}, the middle square.",
            f"Weight of total variation: {INVERT_TV}, relative to the photo; the paper does not print its weight.",
            *lab.notes,
        ],
    )


def _rebuild(lab: Lab, photograph: Tensor, layer: str, iterations: int) -> Generator[Step, None, Curve]:
    config = OptimizeConfig(size=None, iterations=iterations, preview_every=0, device=lab.config.device)
    identity = {"photograph": digest(photograph), "layer": layer, "iterations": iterations, "tv": INVERT_TV}
    identity |= {"weights": lab.hashes([layer])}
    optimisation = invert(photograph, layer, config=config, paths=lab.paths)
    return (yield from lab.optimize(optimisation, lab.part("invert", identity)))
