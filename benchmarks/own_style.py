"""A new style, learnt from scratch or from a trained network: the objective against time, as a curve and a plot.

python benchmarks/own_style.py train PAINTING DATA VAL -o CURVE.jsonl [--from gallery] [--recipe NAME] [--steps N] ...
python benchmarks/own_style.py plot CURVE.jsonl ... -o curves.png

The objective is that of the recipe, on one crop of each photograph in VAL, of the size that is trained on; the clock
stands while it is measured. Seconds begin before the painting is read, so that they hold all set-up.
"""

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from perceptual.data import Photographs
from perceptual.tasks.base import calibrate
from perceptual.tasks.style import Style, read_paintings
from perceptual.train import Trainer

MARKS = (5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 400, 600, 800, 1000, 1500, 2000, 3000, 4000, 5000, 7000, 10000)


def train(arguments: argparse.Namespace) -> None:
    """Write one line for each mark: step, seconds, objective on the validation photographs."""
    began, paused = time.monotonic(), 0.0
    recipe = Style.recipe(arguments.recipe)
    style_steps = arguments.style_steps if arguments.start else 0
    settings = replace(recipe.train, steps=arguments.steps, size=arguments.size, style_steps=style_steps, workers=1)
    if arguments.start:
        settings = replace(settings, learning_rate=arguments.rate)
    recipe = replace(recipe, train=settings, network=replace(recipe.network, norm="conditional_instance"))
    if arguments.layers:
        recipe = replace(recipe, loss=replace(recipe.loss, style_layers=tuple(arguments.layers)))
    dataset = Photographs(arguments.data, settings.size)
    task = Style(read_paintings([arguments.painting], recipe), recipe, dataset)
    if arguments.references:  # so that runs on different photographs have one objective
        calibrate(task.loss, Photographs(arguments.references, settings.size))
    if arguments.start:
        task = task.start_from(arguments.start)
    seen = Photographs(arguments.val, settings.size)
    photographs = [seen[k][0][None] for k in range(min(arguments.photographs, len(seen)))]

    @torch.no_grad()
    def objective() -> float:
        task.network.eval()
        totals = [task.loss(task.network(p), p)["total"].item() for p in photographs]
        task.network.train()
        return sum(totals) / len(totals)

    with torch.no_grad():
        untouched = sum(task.loss(p, p)["total"].item() for p in photographs) / len(photographs)
    label = arguments.label or ("from " + Path(arguments.start).stem if arguments.start else "from scratch")
    about = {"painting": arguments.painting.stem, "label": label, "photographs": untouched, "data": len(dataset)}
    with tempfile.TemporaryDirectory() as folder, open(arguments.out, "w", encoding="utf-8") as file:
        print(json.dumps(about), file=file, flush=True)
        trainer = Trainer(task, settings, Path(folder) / "network.safetensors", device="cpu")
        trainer.begin(overwrite=True)
        for step in trainer.run(dataset):
            if step.index in MARKS or step.index == settings.steps:
                stopped = time.monotonic()
                value = objective()
                line = {"step": step.index, "seconds": round(stopped - began - paused, 2), "objective": value}
                print(json.dumps(line), file=file, flush=True)
                print(f"{arguments.painting.stem:16} {label:24} {line}", flush=True)
                paused += time.monotonic() - stopped
        if arguments.network:
            shutil.move(trainer.out, arguments.network)


def plot(arguments: argparse.Namespace) -> None:
    """Draw the curves, one panel for each painting."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    curves = [[json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] for path in arguments.curves]
    paintings = list(dict.fromkeys(about["painting"] for about, *_ in curves))
    figure, axes = plt.subplots(1, len(paintings), figsize=(4.2 * len(paintings), 3.6), sharey=True, squeeze=False)
    for axis, painting in zip(axes[0], paintings, strict=True):
        for about, *points in curves:
            if about["painting"] == painting:
                seconds = [arguments.clock.get(about["label"], 0) * p["step"] or p["seconds"] for p in points]
                axis.loglog(seconds, [p["objective"] for p in points], marker=".", label=about["label"])
        axis.axvline(300, color="0.8", zorder=0)
        axis.set(title=painting, xlabel="seconds on two CPU cores")
        axis.grid(True, which="both", alpha=0.2)
    axes[0][0].set_ylabel("objective on photographs not trained on")
    axes[0][0].legend()
    figure.tight_layout()
    figure.savefig(arguments.out, dpi=110)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
commands = parser.add_subparsers(required=True)
training = commands.add_parser("train")
training.set_defaults(run=train)
training.add_argument("painting", type=Path)
training.add_argument("data", type=Path)
training.add_argument("val", type=Path)
training.add_argument("-o", "--out", type=Path, required=True)
training.add_argument("--from", dest="start")
training.add_argument("--style-steps", type=int, default=100, help="with --from: steps that learn gamma and beta alone")
training.add_argument("--recipe", default="sketch")
training.add_argument("--layers", nargs="+", help="style layers in place of the recipe's")
training.add_argument("--steps", type=int, default=10_000)
training.add_argument("--size", type=int, default=256)
training.add_argument("--rate", type=float, default=2e-3, help="with --from: learning rate of all weights")
training.add_argument("--photographs", type=int, default=24)
training.add_argument("--references", help="photographs to measure the relative weights on, when not DATA")
training.add_argument("--label")
training.add_argument("--network", type=Path, help="keep the trained network here")
plotting = commands.add_parser("plot")
plotting.set_defaults(run=plot)
plotting.add_argument("curves", type=Path, nargs="+")
plotting.add_argument("-o", "--out", type=Path, required=True)
plotting.add_argument("--clock", type=json.loads, default={}, help='{"label": seconds per step}, measured by itself')
given = parser.parse_args()
given.run(given)
