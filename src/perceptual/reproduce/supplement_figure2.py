"""The supplement's Figure 2: training loss of the paper's network with residual and with non-residual blocks."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from perceptual import images
from perceptual.apply import Stylizer
from perceptual.config import TrainConfig, to_dict
from perceptual.data import Photographs, square
from perceptual.events import Step
from perceptual.reproduce.lab import Lab, Work, digest, samples
from perceptual.reproduce.report import Report, new_figure
from perceptual.tasks.style import Style
from perceptual.tasks.style_recipes import StyleRecipe
from perceptual.train import Trainer, side_path

ABOUT = "training loss with and without residual connections"
IGNORED = ("network", "images")
STYLE = "wave"
DEFAULT, FULL = (Work(96, 1, 1000),), (Work(256, 1, 40_000),)
BLOCKS = {"residual": "r128*5", "non-residual": "n128*5"}
TICK = 5  # steps between two values of a curve


def run(lab: Lab) -> Generator[Step, None, Report]:
    """Train both networks and draw. A generator of Steps that returns the Report."""
    (work, *_) = lab.plan(DEFAULT, FULL, one_size=True)
    base = Style.recipe("paper" if lab.config.full else "sketch")
    yield from lab.fetch((*base.loss.content_layers, *base.loss.style_layers))
    train = TrainConfig(steps=work.iterations, size=work.size, crop="squash", tick_every=TICK, preview_every=0)
    style = lab.one_style(STYLE)
    lab.total = len(BLOCKS) * work.iterations
    curves, pictures = {}, {}
    photograph = square(samples()[0][1], 256)  # a free photo, because the training photos may not be redistributable
    folder = _folder(lab)
    for name, blocks in BLOCKS.items():
        network = replace(Style.recipe("paper").network, architecture=f"c9s1-32 d64 d128 {blocks} u64 u32 c9s1-3")
        recipe = replace(base, network=network, train=train)
        file = yield from _train(lab, name, recipe, style, folder)
        lines = side_path(file, ".jsonl").read_text(encoding="utf-8").splitlines()
        curves[name] = {line["step"]: line["total"] for line in map(json.loads, lines)}
        pictures[name] = Stylizer.load(file, device=lab.config.device).stylize(photograph)
    summary = _summary(curves)
    return Report(
        "supplement-figure2",
        "Supplement, Figure 2: residual and non-residual networks",
        _draw(curves, {"photograph": photograph, **pictures}),
        [{"step": step, **{name: curve[step] for name, curve in curves.items()}} for step in curves["residual"]],
        summary,
        "The residual network trains faster; after 40,000 steps both reach similar training losses.",
        "The table shows the mean training loss over each fifth of the run. The figure also shows the sample photo in "
        "the style at the end.",
        [
            f"{work.iterations} steps at {work.size} px, batch {train.batch}, Adam at {train.learning_rate:g} (the "
            "paper: 40,000 at 256 px).",
            f"Trained on {len(Photographs(folder, 32))} photos: {lab.describe_photographs()} (the paper: MS-COCO).",
            f"Layers: content {', '.join(base.loss.content_layers)}; style {', '.join(base.loss.style_layers)}; "
            f"{base.loss.weighting} weights.",
            f"Style: {lab.title(style)}{', as in the paper' if style == STYLE else ' (the paper: The Great Wave)'}.",
            *lab.notes,
        ],
    )


def _folder(lab: Lab) -> Path:
    """The folder of photos to train on. Without --photos, the sample photos are written to a folder."""
    if lab.config.photos:
        return lab.config.photos
    folder = lab.out / "parts" / "photographs"
    for name, pixels in samples():
        if not (folder / f"{name}.png").exists():
            images.write(folder / f"{name}.png", pixels)
    return folder


def _train(lab: Lab, name: str, recipe: StyleRecipe, style: str, folder: Path) -> Generator[Step, None, Path]:
    """Train a network, or continue an interrupted run. A generator of Steps that returns the checkpoint."""
    targets = lab.style_targets(style, recipe)
    identity = {
        "recipe": to_dict(recipe),
        "targets": {layer: digest(gram) for layer, gram in targets.items()},
        "photos": os.path.realpath(folder) if lab.config.photos else "samples",
        "weights": lab.hashes((*recipe.loss.content_layers, *recipe.loss.style_layers)),
    }
    file = lab.part(name, identity).with_suffix(".safetensors")
    state = side_path(file, ".state")
    if not file.exists() or state.exists():
        train = recipe.train
        dataset = Photographs(folder, train.size, seed=train.seed, crop=train.crop)
        task = Style({style: ("", targets)}, recipe, dataset, paths=lab.paths)
        trainer = Trainer(task, train, file, device=lab.config.device)
        trainer.begin(resume=state.exists(), overwrite=True)
        for step in trainer.run(dataset):
            yield replace(step, index=lab.done + step.index, total=lab.total)
    lab.done += recipe.train.steps
    yield Step(lab.done, lab.total)
    return file


def _summary(curves: dict[str, dict[int, float]]) -> list[dict[str, Any]]:
    rows = []
    fifths = min(5, *map(len, curves.values()))
    for fifth in range(fifths):
        row: dict[str, Any] = {}
        for name, curve in curves.items():
            steps = sorted(curve)
            mine = steps[fifth * len(steps) // fifths : (fifth + 1) * len(steps) // fifths]
            row = {"steps": f"{mine[0]} to {mine[-1]}", **row, name: statistics.fmean(curve[step] for step in mine)}
        rows.append({**row, "non-residual / residual": row["non-residual"] / row["residual"]})
    return rows


def _draw(curves: dict[str, dict[int, float]], pictures: dict[str, Tensor]) -> Any:
    figure = new_figure(11, 3.4)
    axes = figure.subplots(1, 4, width_ratios=(1.8, 1, 1, 1))
    for colour, (name, curve) in zip(("C0", "C1"), curves.items(), strict=True):
        steps, values = list(curve), list(curve.values())
        axes[0].plot(steps, values, color=colour, alpha=0.25, lw=0.8)
        smooth = [statistics.fmean(values[max(0, k - 9) : k + 1]) for k in range(len(values))]
        axes[0].plot(steps, smooth, color=colour, label=name)
    axes[0].set(yscale="log", xlabel="steps", ylabel="training loss")
    axes[0].legend(fontsize=8)
    for axis, (name, picture) in zip(axes[1:], pictures.items(), strict=True):
        axis.imshow(picture[0].permute(1, 2, 0).clamp(0, 1).numpy())
        axis.set_title(name, fontsize=9)
        axis.axis("off")
    return figure
