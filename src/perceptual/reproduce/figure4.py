"""Figure 4: textures from the Gram matrices of a painting (style reconstruction, eq. 4), of each layer and of all."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

from torch import Tensor

from perceptual.checkpoints import shipped
from perceptual.config import LossConfig, OptimizeConfig
from perceptual.events import Step
from perceptual.losses.networks import Features
from perceptual.optimize import texture
from perceptual.reproduce.lab import Curve, Lab, Work, digest
from perceptual.reproduce.report import Report, sheet
from perceptual.tasks.style_recipes import StyleRecipe

ABOUT = "textures with the style of a painting, for each layer and for all layers"
IGNORED = ("photos", "network", "images")
DEFAULT, FULL = (Work(256, 1, 200),), (Work(256, 1, 500),)


def run(lab: Lab) -> Generator[Step, None, Report]:
    """Reconstruct and draw. A generator of Steps that returns the Report."""
    (work, *_) = lab.plan(DEFAULT, FULL, one_size=True)
    styles = lab.config.styles or ("starry_night",)
    yield from lab.fetch(LossConfig.style_layers)
    known = None if lab.config.paintings else shipped.targets(styles[0])
    used = tuple(lab.reachable(LossConfig.style_layers, known).values())
    recipe = StyleRecipe(loss=replace(LossConfig(), style_layers=used))
    choices = [*((layer,) for layer in used), used]
    lab.total = len(styles) * len(choices) * work.iterations
    rows, lines = [], []
    for style in styles:
        targets = lab.style_targets(style, recipe)
        line: list[tuple[str, Tensor | str]] = [("painting", lab.painting(style, recipe))]
        for layers in choices:
            curve = yield from _rebuild(lab, targets, layers, work)
            label = layers[0] if len(layers) == 1 else f"all {len(layers)}"
            rows.append({"style": style, "px": work.size, "layers": label, **curve.summary()})
            line.append((label, curve.picture))
        lines.append(line)
    return Report(
        "figure4",
        "Figure 4: style reconstruction",
        sheet(lines),
        rows,
        rows,
        "The image preserves stylistic features but not the spatial structure; reconstruction from higher layers "
        "transfers larger-scale structure.",
        "The table shows the style reconstruction loss. The loss of each layer is divided by its value at white noise, "
        "and the mean over the layers is multiplied by 5, so the first value is 5.",
        [
            "Style: " + ", ".join(lab.title(style) for style in styles) + ".",
            "No total variation; the paper does not print its weight.",
            *lab.notes,
        ],
    )


def _rebuild(lab: Lab, targets: Features, layers: tuple[str, ...], work: Work) -> Generator[Step, None, Curve]:
    config = OptimizeConfig(size=work.size, iterations=work.iterations, preview_every=0, device=lab.config.device)
    identity = {"target": [digest(targets[layer]) for layer in layers], "layers": layers, **work._asdict()}
    identity |= {"weights": lab.hashes(layers)}
    optimisation = texture(targets, layers, config=config, paths=lab.paths)
    return (yield from lab.optimize(optimisation, lab.part("texture", identity)))
