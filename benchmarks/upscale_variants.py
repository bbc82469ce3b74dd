"""What each choice of the x4 network is worth: variants trained alike, for the same time, then measured.

python benchmarks/upscale_variants.py TRAIN SETS SECONDS [VARIANT ...]

TRAIN holds photographs to learn from, SETS high-resolution pictures to measure on (PSNR on Y, means over all pictures).
Each variant trains by absolute error with Adam, whose rate falls to zero as the time runs out: the same seconds for
all, so that cheap steps are worth their price.
"""

import math
import statistics
import sys
import time
from dataclasses import replace

import torch

from perceptual.apply.upscaler import Upscaler
from perceptual.checkpoints import Card
from perceptual.config import NetworkConfig
from perceptual.data import Photographs
from perceptual.functional import absolute_distance
from perceptual.measure.metrics import psnr
from perceptual.measure.super_resolution import bicubic, pair, read_sets
from perceptual.networks import TransformationNetwork
from perceptual.resampling import degrade
from perceptual.tasks.upscale import SUPER_RESOLUTION, upscale_recipe

SCALE = 4
OURS = upscale_recipe("fast", SCALE).network
VARIANTS: dict[str, NetworkConfig] = {
    "the paper's": NetworkConfig(architecture=SUPER_RESOLUTION[SCALE], padding="zero"),
    "without batch norm": NetworkConfig(architecture=SUPER_RESOLUTION[SCALE], padding="zero", norm="none"),
    "and bicubic residual": NetworkConfig(
        architecture=SUPER_RESOLUTION[SCALE], padding="zero", norm="none", output="bicubic"
    ),
    "and pixel shuffle (ours)": OURS,
    "ours, 32 channels": replace(OURS, architecture="c3s1-32 r32*6 s4-3"),
    "ours, 3 blocks": replace(OURS, architecture="c3s1-64 r64*3 s4-3"),
}


def train(config: NetworkConfig, photographs: Photographs, seconds: float) -> tuple[TransformationNetwork, int]:
    """Train for a time; the network and its steps. Reading pictures is not counted."""
    torch.manual_seed(0)
    network = TransformationNetwork(config).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters())
    spent, steps = 0.0, 0
    while spent < seconds:
        high = torch.stack([photographs[16 * steps + k][0] for k in range(16)])
        began = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = 0.5e-3 * (1 + math.cos(math.pi * spent / seconds))
        optimizer.zero_grad()
        absolute_distance(network(degrade(high, SCALE)), high).mean().backward()
        optimizer.step()
        spent, steps = spent + time.perf_counter() - began, steps + 1
    return network.eval(), steps


def main(train_folder: str, sets_folder: str, seconds: float, names: list[str]) -> None:
    """Print a row for each variant."""
    photographs = Photographs(train_folder, 96, crop="native")
    sets = read_sets(sets_folder, SCALE)
    pairs = [pair(original, SCALE) for group in sets.values() for original in group]
    base = statistics.mean(psnr(bicubic(SCALE)(low), high, border=SCALE) for high, low in pairs)
    print(f"{seconds:g} s each, threads: {torch.get_num_threads()}, {len(pairs)} pictures; bicubic {base:.2f} dB")
    print("| network | parameters | steps | PSNR | over bicubic |")
    print("| --- | --- | --- | --- | --- |")
    for name in names or VARIANTS:
        network, steps = train(VARIANTS[name], photographs, seconds)
        upscaler = Upscaler(network, Card("upscale", VARIANTS[name]))
        value = statistics.mean(
            psnr(upscaler.upscale(low.expand(-1, 3, -1, -1)), high, border=SCALE) for high, low in pairs
        )
        size = sum(p.numel() for p in network.parameters())
        print(f"| {name} | {size} | {steps} | {value:.2f} | {value - base:+.2f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4:])
