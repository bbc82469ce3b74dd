"""Degradation: makes small images like those that people have, for training super-resolution.

A network that was trained on bicubic reductions only takes noise and the blocks of JPEG for detail, and sharpens them.
`degrade_like_photos` makes blurred, aliased, noisy and compressed images instead. It is the first-order degradation of
Real-ESRGAN (Wang et al., 2021, section 3.1) with its four operations in random order (BSRGAN, Zhang et al., 2021).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from perceptual import images
from perceptual.resampling import degrade, imresize

CLEAN = 0.15
"""Share of images that are only reduced by bicubic interpolation."""
BLUR, NOISE, JPEG, AGAIN = 0.6, 0.6, 0.7, 0.3
"""Probability of a blur, of noise, of a JPEG compression, and of another one at the end."""
WIDEST_BLUR = 0.6
"""Largest sigma of the blur, in pixels of the small image."""
STRONGEST_NOISE = 25 / 255
"""Largest standard deviation of the noise, in units of [0, 1]."""
QUALITY = (30, 95)
"""Range of the quality of a JPEG."""
RADIUS = 7


def degrade_like_photos(pixels: Tensor, scale: int, *, seed: int, index: int = 0) -> Tensor:
    """Make low-resolution images (N, 3, H / scale, W / scale) from photos (N, 3, H, W), both in [0, 1].

    Every image gets its own degradation, which depends only on the seed and its number. The result is on the device of
    the photos and has levels of 8 bits.

    scale: 2 or more. H and W are multiples of it. seed, index: of the training stream; image k has the number
        index + k.
    """
    made = []
    for k, image in enumerate(torch.split(pixels.float().cpu(), 1)):
        rng = random.Random(f"degrade {seed} {index + k}")
        made.append(degrade(image, scale) if rng.random() < CLEAN else _degraded(image, scale, rng))
    return torch.cat(made).to(pixels.device, pixels.dtype)


def _degraded(image: Tensor, scale: int, rng: random.Random) -> Tensor:
    small = image.shape[-2] // scale, image.shape[-1] // scale
    steps: list[Callable[[Tensor], Tensor]] = [lambda x: _shrink(x, small, rng)]
    if rng.random() < BLUR:
        steps.append(lambda x: _blur(x, scale * x.shape[-1] / image.shape[-1], rng))
    if rng.random() < NOISE:
        steps.append(lambda x: _add_noise(x, rng))
    if rng.random() < JPEG:
        steps.append(lambda x: _compress(x, rng))
    rng.shuffle(steps)
    if rng.random() < AGAIN:
        steps.append(lambda x: _compress(x, rng))
    for step in steps:
        image = step(image)
    return ((image * 255 + 0.5).floor() / 255).clamp(0, 1)


def _shrink(image: Tensor, size: tuple[int, int], rng: random.Random) -> Tensor:
    """Reduce the size by a common filter. Those without antialiasing leave jagged edges, as in many files."""
    kind = rng.choices(("bicubic", "area", "bilinear", "aliased bicubic", "nearest-exact"), (4, 2, 2, 1, 1))[0]
    if kind == "bicubic":
        return imresize(image, size=size)
    if kind == "aliased bicubic":
        return F.interpolate(image, size, mode="bicubic", antialias=False)
    return F.interpolate(image, size, mode=kind)


def _blur(image: Tensor, pixel: float, rng: random.Random) -> Tensor:
    """Blur by a Gaussian, round or longer in one direction. pixel: side of a pixel of the small image."""
    widest = WIDEST_BLUR * pixel
    first = rng.uniform(0.1, widest)
    second = first if rng.random() < 0.5 else rng.uniform(0.1, widest)
    angle = rng.uniform(0, math.pi)
    offsets = torch.arange(-RADIUS, RADIUS + 1, dtype=image.dtype)
    y, x = torch.meshgrid(offsets, offsets, indexing="ij")
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    kernel = torch.exp(-0.5 * ((along / first) ** 2 + (across / second) ** 2))
    kernel = (kernel / kernel.sum()).expand(image.shape[1], 1, -1, -1)
    padded = F.pad(image, (RADIUS,) * 4, mode="reflect" if min(image.shape[-2:]) > RADIUS else "replicate")
    return F.conv2d(padded, kernel, groups=image.shape[1])


def _add_noise(image: Tensor, rng: random.Random) -> Tensor:
    """Add noise of one strength, or noise that grows with the brightness (shot noise); of each channel or of grey."""
    sigma = STRONGEST_NOISE * rng.random() ** 2
    generator = torch.Generator().manual_seed(rng.getrandbits(63))
    channels = image.shape[1] if rng.random() < 0.6 else 1
    noise = torch.randn(1, channels, *image.shape[-2:], generator=generator)
    strength = image.clamp(0, 1).sqrt() * 1.5 if rng.random() < 0.5 else 1.0
    return (image + sigma * strength * noise).clamp(0, 1)


def _compress(image: Tensor, rng: random.Random) -> Tensor:
    return images.through_jpeg(image.clamp(0, 1), rng.randint(*QUALITY), full_colour=rng.random() < 0.3)
