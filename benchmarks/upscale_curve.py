"""PSNR by training step: checkpoints of runs, each measured on sets of pictures; a table, and a plot.

python benchmarks/upscale_curve.py SETS PLOT.png CHECKPOINT.safetensors ...

Copies of a run's checkpoint, taken while it trained; those whose architecture and loss are alike make one curve. The
learning rate falls over the whole run, so a copy from its middle is worse than a run that ends there.
"""

import statistics
import sys
from pathlib import Path

from matplotlib.figure import Figure

from perceptual.apply.upscaler import Upscaler
from perceptual.checkpoints import read_card
from perceptual.events import finish
from perceptual.measure.super_resolution import bicubic, evaluate, means, read_sets


def main(folder: str, plot: str, files: list[Path]) -> None:
    """Print a row for each checkpoint, and draw a curve for each run and set."""
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    bases: dict[int, dict[str, float]] = {}
    print("| run | steps | set | PSNR | over bicubic |")
    print("| --- | --- | --- | --- | --- |")
    for file in sorted(files, key=lambda path: read_card(path).steps):
        upscaler = Upscaler.load(file)
        scale, card = upscaler.network.scale, upscaler.card
        methods = {"network": upscaler.upscale} | ({} if scale in bases else {"bicubic": bicubic(scale)})
        run = f"x{scale} by {card.settings['loss']}, recipe {card.recipe}"
        work = evaluate(read_sets(folder, scale), methods, scale)
        lines = means(finish(work))
        for line in lines:
            if line["method"] == "bicubic":
                bases.setdefault(scale, {})[line["set"]] = line["psnr"]
        for line in lines:
            if line["method"] == "network":
                gain = line["psnr"] - bases[scale][line["set"]]
                curves.setdefault(line["set"], {}).setdefault(run, []).append((card.steps, gain))
                print(f"| {run} | {card.steps} | {line['set']} | {line['psnr']:.2f} | {gain:+.2f} |", flush=True)
    figure = Figure((4 * len(curves), 3.8), layout="constrained")
    for axis, (name, runs) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        for run, points in runs.items():
            axis.plot(*zip(*points, strict=True), marker=".", label=run)
        axis.set(title=name, xlabel="steps", ylabel="dB over bicubic")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=7)
    figure.savefig(plot, dpi=120)
    print(f"{statistics.mean(len(runs) for runs in curves.values()):.0f} runs: {plot}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], [Path(name) for name in sys.argv[3:]])
