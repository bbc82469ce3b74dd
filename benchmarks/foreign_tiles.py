"""Tiles of a super-resolution network against the picture in one piece: the difference, and the memory.

python benchmarks/foreign_tiles.py NETWORK PICTURE [TILE ...]      NETWORK: a .pth or .safetensors file

The picture is cut to 256 x 160 px, so that it can be computed in one piece. The memory is the estimate for one piece,
and the peak that was seen.
"""

import resource
import sys

import torch

from perceptual import Upscaler, images, keep_memory, psnr

keep_memory()
name, file, *sides = sys.argv[1:]
upscaler = Upscaler.load(name, device="cpu")
picture = images.read(file).pixels[..., :160, :256]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
whole = upscaler.upscale(picture, tile=0)
seen = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
network = upscaler.network
print(f"{upscaler.card.about}: reach {network.reach}, overlap {network.overlap}")
print(f"memory in one piece: estimate {network.memory(*picture.shape[-2:]) / 1e6:.0f} MB, seen {seen / 1e6:.0f} MB")
print("| tile | largest difference in levels | PSNR in dB |\n| --- | --- | --- |")
for side in map(int, sides or ["32", "64"]):
    tiled = upscaler.upscale(picture, tile=side)
    worst = 255 * float((tiled - whole).abs().max())
    print(
        f"| {side} | {worst:.3f} | {'equal' if torch.equal(tiled, whole) else f'{psnr(tiled, whole):.1f}'} |",
        flush=True,
    )
