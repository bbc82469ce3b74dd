"""Seconds per image at x4: x4_pixel, the paper's architecture, SRCNN, bicubic; and tiles against the whole.

python benchmarks/upscale.py [SIDE ...]       sides of the square input in pixels (64, 128, 256)
"""

import sys

import torch
from timing import in_turn

from perceptual.apply.upscaler import Upscaler
from perceptual.checkpoints import Card
from perceptual.measure.super_resolution import bicubic
from perceptual.networks import TransformationNetwork
from perceptual.tasks.upscale import upscale_recipe

SCALE = 4


def upscaler(recipe: str) -> Upscaler:
    """A network of a recipe, with weights by chance: they cost the same."""
    config = upscale_recipe(recipe, SCALE).network
    return Upscaler(TransformationNetwork(config), Card("upscale", config))


sides = [int(side) for side in sys.argv[1:]] or [64, 128, 256]
ours, papers, srcnn = Upscaler.load("x4_pixel"), upscaler("paper"), upscaler("srcnn")


def row(side: int) -> str:
    """The line of the table for a square input."""
    picture = torch.rand(1, 3, side, side)
    seconds = in_turn(
        {
            "ours": lambda: ours.upscale(picture, tile=0),
            "paper": lambda: papers.upscale(picture, tile=0),
            "srcnn": lambda: srcnn.upscale(picture, tile=0),
            "bicubic": lambda: bicubic(SCALE)(picture),
            "tiles": lambda: ours.upscale(picture, tile=side // 2),
        },
        rounds=5,
    )
    own = seconds["ours"]
    ratios = " | ".join(f"{seconds[name] / own:.2f}" for name in ("paper", "srcnn", "bicubic", "tiles"))
    return f"| {side} x {side} | {own:.3f} | {ratios} |"


print(f"threads: {torch.get_num_threads()}")
print("| input | ours, s | paper's / ours | SRCNN / ours | bicubic / ours | tiles of half the side / whole |")
print("| --- | --- | --- | --- | --- | --- |")
for side in sides:
    print(row(side), flush=True)
