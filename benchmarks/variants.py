"""What width, up-sampling, padding and kernels are worth: small networks trained alike, then measured.

python benchmarks/variants.py PAINTINGS DATA VAL [STEPS] [SIZE]      (recipe sketch; its weights must be here)

Each variant learns all PAINTINGS (a folder) in one network, from the same seed and pictures. The objective is that of
the recipe, on photographs not trained on; checkerboard and frame are those of artefacts.py; seconds are medians.
"""

import itertools
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from artefacts import checkerboard, edge

from perceptual.data import Photographs
from perceptual.tasks.style import Style, read_paintings
from perceptual.train import Trainer

LEAN = Style.recipe("sketch").network.architecture
VARIANTS = {
    "lean": (LEAN, "reflect"),
    "nearest up-sampling": (LEAN.replace("B", "U"), "reflect"),
    "stride-1/2 convolutions": (LEAN.replace("B", "u"), "reflect"),
    "zero padding": (LEAN, "zero"),
    "replicate padding": (LEAN, "replicate"),
    "reflection at the start": (LEAN, "reflect-start"),
    "9x9 kernels": (LEAN.replace("c5", "c9"), "reflect"),
    "three blocks": (LEAN.replace("*5", "*3"), "reflect"),
    "half as wide again": ("c5s1-24 d48 d96 r96*5 B48 B24 c5s1-3", "reflect"),
    "twice as wide": ("c5s1-32 d64 d128 r128*5 B64 B32 c5s1-3", "reflect"),
}

paintings, data, val = sys.argv[1:4]
steps, size = (int(sys.argv[k]) if len(sys.argv) > k else default for k, default in ((4, 600), (5, 128)))
files = sorted(Path(paintings).iterdir())
seen = Photographs(val, 256, crop="squash")
photographs = [seen[k][0][None] for k in range(min(24, len(seen)))]
own_edges = torch.stack([edge(p) for p in photographs])
print(f"{len(files)} paintings, {steps} steps at {size} px; measured on {len(photographs)} photographs at 256 px")
print("| network | objective | checkerboard | frame: luma | seconds per step | seconds per picture |")
print("| --- | --- | --- | --- | --- | --- |")
for name, (architecture, padding) in VARIANTS.items():
    recipe = Style.recipe("sketch")
    network = replace(recipe.network, architecture=architecture, padding=padding, norm="conditional_instance")
    recipe = replace(recipe, network=network, train=replace(recipe.train, steps=steps, size=size, workers=1))
    dataset = Photographs(data, size)
    task = Style(read_paintings(files, recipe), recipe, dataset)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(task, recipe.train, Path(folder) / "network.safetensors", device="cpu")
        trainer.begin()
        clock = [time.perf_counter() for _ in trainer.run(dataset)]
    task.network.eval()
    totals, checks, frames, seconds = [], [], [], []
    with torch.no_grad():
        for k, photograph in enumerate(photographs):
            style = torch.nn.functional.one_hot(torch.tensor([k % len(files)]), len(files)).float()
            began = time.perf_counter()
            painted = task.network(photograph.contiguous(memory_format=torch.channels_last), style).clamp(0, 1)
            seconds.append(time.perf_counter() - began)
            small = torch.nn.functional.interpolate(photograph, size=(size, size), mode="area")
            totals.append(task.loss(task.network(small, style), small, style)["total"].item())
            checks.append(checkerboard(painted))
            frames.append(edge(painted))
    ratio = (torch.stack(frames) / own_edges).log().median(0).values[::2]  # luma
    step = median(later - earlier for earlier, later in itertools.pairwise(clock))
    print(
        f"| {name} | {sum(totals) / len(totals):.3f} | {sum(checks) / len(checks):.2f} "
        f"| {ratio[ratio.abs().argmax()].exp():.3f} | {step:.3f} | {median(seconds):.3f} |",
        flush=True,
    )
