"""Super-resolution of pictures as people have them: aliased, noisy and compressed, against bicubic interpolation.

python benchmarks/upscale_photo.py FOLDER [--scale 4] [--side 512] [--networks FILE ...] [--denoise 0.5 ...]
    [--realesrgan animevideov3 x4plus]

Each picture of the folder, its middle square of at most SIDE pixels, is made small in several ways, and enlarged by
each method. The table has the mean PSNR on Y (dB) and the mean LPIPS (AlexNet; smaller is closer) against the original,
and for how many pictures a method is below bicubic interpolation in PSNR, and in LPIPS. --realesrgan adds Real-ESRGAN
at x4; realesrgan.py says what it needs.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import realesrgan
import torch
from torch import Tensor
from torch.nn import functional as F

from perceptual import Upscaler, images
from perceptual.degradation import degrade_like_photos
from perceptual.images import finding
from perceptual.measure.metrics import PerceptualDistance, psnr
from perceptual.measure.super_resolution import Method, bicubic, own_methods
from perceptual.resampling import degrade, modcrop


def noisy(small: Tensor, sigma: float) -> Tensor:
    """Add Gaussian noise. sigma: in levels of 255."""
    noise = torch.randn(small.shape, generator=torch.Generator().manual_seed(0))
    return ((small * 255 + sigma * noise).round() / 255).clamp(0, 1)


def ways(scale: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """How the small pictures are made: {name: function of (1, 3, H, W) in [0, 1]}."""
    reduce = lambda x: degrade(x, scale)  # noqa: E731
    return {
        "bicubic": reduce,
        "aliased": lambda x: F.interpolate(x, scale_factor=1 / scale, mode="bilinear", antialias=False),
        "JPEG 80": lambda x: images.through_jpeg(reduce(x), 80),
        "JPEG 50": lambda x: images.through_jpeg(reduce(x), 50),
        "JPEG 30": lambda x: images.through_jpeg(reduce(x), 30),
        "noise 4": lambda x: noisy(reduce(x), 4),
        "noise 12": lambda x: noisy(reduce(x), 12),
        "at random": lambda x: degrade_like_photos(x, scale, seed=1, index=int((x * 255).round().long().sum())),
    }


def originals(folder: str, side: int, scale: int) -> Iterator[Tensor]:
    """The middle squares of the pictures, (1, 3, h, w) in [0, 1]."""
    for file in finding.find([folder]):
        pixels = images.read(file.path).pixels
        top, left = (max(0, (extent - side) // 2) for extent in pixels.shape[-2:])
        yield modcrop(pixels[..., top : top + side, left : left + side], scale)


def main() -> None:
    """Print a table for each way to make the pictures small."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--networks", type=Path, nargs="*", default=[])
    parser.add_argument("--realesrgan", nargs="*", default=[], choices=list(realesrgan.MODELS))
    parser.add_argument("--denoise", type=float, nargs="*", default=[])
    arguments = parser.parse_args()
    scale = arguments.scale
    methods: dict[str, Method] = {"bicubic": bicubic(scale)}
    for loss in ("pixel", "feature", "photo", "auto"):
        methods[loss] = Upscaler.at_scale(scale, loss).upscale
    for share in arguments.denoise:
        methods[f"photo, denoise {share:g}"] = Upscaler.at_scale(scale, "photo", denoise=share).upscale
    methods |= own_methods(arguments.networks).get(scale, {})
    if scale == 4:
        methods |= realesrgan.methods(arguments.realesrgan)
    distance = PerceptualDistance.lpips("alex")
    pictures = list(originals(arguments.folder, arguments.side, scale))
    print(f"{len(pictures)} pictures at x{scale}: PSNR / LPIPS (pictures below bicubic in PSNR, in LPIPS)\n")
    print(f"| small pictures | {' | '.join(methods)} |")
    print("| --- " * (len(methods) + 1) + "|")
    for name, shrink in ways(scale).items():
        values: dict[str, list[tuple[float, float]]] = {method: [] for method in methods}
        for high in pictures:
            small = (shrink(high) * 255).round() / 255
            for method, enlarge in methods.items():
                large = (enlarge(small).clamp(0, 1) * 255).round() / 255
                values[method].append((psnr(large, high, border=scale), float(distance(large, high))))
        cells = []
        for rows in values.values():
            means = [statistics.mean(column) for column in zip(*rows, strict=True)]
            pairs = list(zip(rows, values["bicubic"], strict=True))
            worse = sum(own[0] < other[0] for own, other in pairs), sum(own[1] > other[1] for own, other in pairs)
            cells.append(f"{means[0]:.2f} / {means[1]:.3f} ({worse[0]}, {worse[1]})")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    with torch.no_grad():
        main()
