"""Steady enlarging: what blending the detail of the frame before does to flicker, to truth and to speed.

python benchmarks/upscale_video.py VIDEO ... [--frames 12] [--scale 4] [--networks NAME ...] [--steady AMOUNT ...]

The frames of each VIDEO are reduced by the scale with MATLAB's bicubic `imresize`, in 8 bits. They are enlarged by each
network, plain (0) and steadied by each AMOUNT, and compared with the original frames:

error   temporal error in levels of 0..255 (`perceptual.temporal_error`); the first row is that of the original frames
dB      PSNR of the Y channel, without a border of `scale` pixels, the mean over the frames
LPIPS   distance of AlexNet on the last frame, smaller is better; only if PERCEPTUAL_WEIGHTS finds its weights
rate    frames per second of network and steadying one after the other; `perceptual video` does both at the same time
ratio   that rate divided by the rate of the plain network in the same run

Original frames wider or higher than 960 px are scaled to 960 px first.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from perceptual import PerceptualDistance, Upscaler, imresize, psnr, temporal_error
from perceptual.errors import WeightsError
from perceptual.motion import SteadyDetail
from perceptual.resampling import modcrop
from perceptual.video import Reader

SIDE = 960


def frames_of(path: Path, count: int, scale: int) -> list[torch.Tensor]:
    """The first frames of a video, uint8 (1, 3, H, W), sides that the scale divides."""
    with Reader(path) as reader:
        large = max(reader.info.width, reader.info.height) > SIDE
    with Reader(path, size=SIDE if large else None) as reader:
        return [modcrop(frame.pixels, scale).clone() for frame in itertools.islice(reader, count)]


def lpips() -> Callable[[torch.Tensor, torch.Tensor], float] | None:
    """LPIPS, or None without its weights."""
    try:
        distance = PerceptualDistance.lpips("alex")
    except WeightsError:
        return None
    return lambda one, other: float(distance(one, other))


@torch.no_grad()
def main() -> None:
    """Print a table for each video."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--networks", nargs="+", default=["x4_pixel", "x4_feature"])
    parser.add_argument("--steady", nargs="+", type=float, default=[0.25, 0.5, 0.75, 0.9])
    options = parser.parse_args()
    distance = lpips()
    for path in options.videos:
        originals = frames_of(path, options.frames, options.scale)
        small = [imresize(frame, 1 / options.scale) for frame in originals]
        height, width = originals[0].shape[-2:]
        print(f"\n| {path.stem}, {width}x{height} | error | dB | LPIPS | rate | ratio |\n|{' --- |' * 6}")
        print(f"| original | {temporal_error(originals, originals):.2f} | | | | |", flush=True)
        for name in options.networks:
            upscaler = Upscaler.load(name, scale=options.scale)
            upscaler.upscale(small[0])  # the first call is slower
            began = time.perf_counter()
            plain = [upscaler.upscale(frame) for frame in small]
            alone = time.perf_counter() - began
            for amount in (0, *options.steady):
                settle, began = SteadyDetail(amount), time.perf_counter()
                made = [settle(frame, large) for frame, large in zip(small, plain, strict=True)]
                took = alone + time.perf_counter() - began
                pairs = zip(made, originals, strict=True)
                values = [f"{temporal_error(originals, made):.2f}"]
                values += [f"{statistics.mean(psnr(*pair, border=options.scale) for pair in pairs):.2f}"]
                values += [f"{distance(made[-1], originals[-1]):.4f}" if distance else ""]
                values += [f"{len(small) / took:.1f}", f"{alone / took:.2f}"]
                print(f"| {name}{f', steady {amount:g}' * bool(amount)} | {' | '.join(values)} |", flush=True)


if __name__ == "__main__":
    main()
