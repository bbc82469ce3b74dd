"""Grids and colours of super-resolution: what each network adds that the original picture has not.

python benchmarks/upscale_artefacts.py FOLDER [NETWORK.safetensors ...]      FOLDER holds high-resolution pictures

grid       A network that enlarges f times can repeat itself every f, f / 2 ... 2 px. The power spectrum of the result's
           luma at those frequencies over that of the frequencies beside them, the mean over the middle squares of 256
           px of the pictures; the originals' own beside it. As near to the originals' as it can be is no grid.
histogram  PSNR and perceptual distance with the paper's histogram matching to the low-resolution input, less those
           without: whether it helps.
"""

import statistics
import sys
from pathlib import Path

from artefacts import checkerboard

from perceptual.apply.upscaler import match_histograms
from perceptual.measure.metrics import psnr
from perceptual.measure.super_resolution import distances_at_hand, own_methods, pair, read_sets, shipped_methods


def main(folder: str, networks: list[Path]) -> None:
    """Print a row for each way to enlarge, at x4 and x8."""
    distances = distances_at_hand(["vgg16"])
    print("| scale | method | grid (originals) | PSNR, dB | matched, less that | vgg16 distance | matched, less that |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for scale in (4, 8):
        originals = [original for group in read_sets(folder, scale).values() for original in group]
        methods = shipped_methods(scale) | own_methods(networks).get(scale, {})
        periods = tuple(p for p in (8, 4, 2) if p <= scale)
        for name, enlarge in methods.items():
            rows = []
            for original in originals:
                high, low = pair(original, scale)
                if high.shape[1] < 3 or min(high.shape[-2:]) < 256:
                    continue
                large = enlarge(low)
                matched = match_histograms(large, low)
                top, left = ((side - 256) // 2 // scale * scale for side in high.shape[-2:])
                square = (..., slice(top, top + 256), slice(left, left + 256))
                gain = psnr(matched, high, border=scale) - psnr(large, high, border=scale)
                far = float(distances["vgg16"](large.clamp(0, 1), high))
                nearer = float(distances["vgg16"](matched.clamp(0, 1), high)) - far
                own = checkerboard(high[square], periods)
                rows.append(
                    (checkerboard(large[square], periods), own, psnr(large, high, border=scale), gain, far, nearer)
                )
            grid, own, value, gain, far, nearer = (statistics.mean(column) for column in zip(*rows, strict=True))
            measured = f"{grid:.2f} ({own:.2f}) | {value:.2f} | {gain:+.3f} | {far:.4f} | {nearer:+.4f}"
            print(f"| {scale} | {name} | {measured} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], [Path(name) for name in sys.argv[2:]])
