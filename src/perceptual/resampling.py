"""MATLAB's bicubic `imresize`, which makes the low-resolution images of super-resolution and is the baseline.

Keys's kernel with a = -0.5, stretched when reducing (antialiasing). It reproduces the files of the benchmarks exactly:
rows first, then columns; 8-bit levels are rounded half up after each direction; the border is repeated (newer releases
of MATLAB mirror it).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from perceptual.errors import ConfigError
from perceptual.functional import keys_kernel

Pixels = TypeVar("Pixels", Tensor, "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]")


def imresize(image: Pixels, scale: float | None = None, *, size: tuple[int, int] | None = None) -> Pixels:
    """Resize like MATLAB's imresize(image, scale) or imresize(image, size): bicubic with antialiasing.

    image: a tensor (..., H, W) or a NumPy array (H, W) or (H, W, C). uint8 is computed in float64 and rounded half up
        after each direction, as in MATLAB; floats keep their type and are not clamped.
    scale: output size / input size; the output has ceil(H * scale) rows. size: (height, width), instead of `scale`.

    Raises:
        ConfigError: both or neither of `scale` and `size` are given, one is invalid or leaves no pixels, or `image` is
            not an image.
    """
    _check(image, scale, size)
    if isinstance(image, np.ndarray):
        planes = torch.from_numpy(np.array(np.moveaxis(image, (0, 1), (-2, -1)), order="C"))
        done = imresize(planes, scale, size=size).numpy()
        return cast(Pixels, np.ascontiguousarray(np.moveaxis(done, (-2, -1), (0, 1))))
    whole = image.dtype == torch.uint8
    height, width = image.shape[-2:]
    scales = (scale, scale) if scale is not None else (1.0, 1.0)
    if size is None and 0 < scales[0] < math.inf:
        size = (_ceil(height * scales[0]), _ceil(width * scales[1]))
    elif size and min(height, width) > 0:
        scales = (size[0] / height, size[1] / width)
    if size is None or min(height, width, *size) < 1:
        wanted = f"{size[1]} x {size[0]}" if size else f"{scales[0]:g} times that"
        raise ConfigError(f"A picture of {width} x {height} px cannot be resized to {wanted}.")
    out = image.double() if whole else image
    for axis in sorted((0, 1), key=lambda axis: scales[axis]):  # the stronger reduction first; rows first if equal
        out = _along(out, axis - 2, size[axis], scales[axis])
        if whole:
            out = (out + 0.5).floor().clamp(0, 255)
    return out.to(image.dtype)


def degrade(image: Tensor, scale: int, *, blur: float = 0.0) -> Tensor:
    """Make a low-resolution image for super-resolution: (N, 3, H, W) in [0, 1] -> (N, 3, H / scale, W / scale).

    blur: sigma in pixels of a Gaussian blur before the bicubic reduction. The paper trains with 1.0 (section 4.2); the
    benchmarks and our networks use 0. The result is rounded half up to 8-bit levels, as in a file. `imresize` of uint8
    also rounds and clips between rows and columns, which differs at edges between black and white.

    Raises:
        ConfigError: H or W is not a multiple of the scale, or the scale is not a whole number of 1 or more.
    """
    _check_scale(scale)
    height, width = image.shape[-2:]
    if height % scale or width % scale:
        raise ConfigError(f"{width} x {height} px is not a multiple of {scale}: crop it first with `modcrop`.")
    if blur:
        image = gaussian_blur(image, blur)
    return ((imresize(image, 1 / scale) * 255 + 0.5).floor() / 255).clamp(0, 1)


def modcrop(image: Tensor, scale: int) -> Tensor:
    """Crop (..., H, W) at the bottom and right to multiples of `scale`.

    Raises:
        ConfigError: the scale is not a whole number of 1 or more.
    """
    _check_scale(scale)
    height, width = image.shape[-2:]
    return image[..., : height - height % scale, : width - width % scale]


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """Blur (N, C, H, W) with a Gaussian of `sigma` pixels, truncated at four sigma; the border is repeated."""
    radius = math.ceil(4 * sigma)
    return gaussian_mean(F.pad(image, (radius,) * 4, mode="replicate"), sigma, radius)


def gaussian_mean(image: Tensor, sigma: float, radius: int) -> Tensor:
    """Gaussian means of (N, C, H, W) over windows of 2 * radius + 1 pixels, only where the window fits completely:
    (N, C, H - 2 * radius, W - 2 * radius). Autocast has no effect: half precision is too coarse for SSIM."""
    offsets = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(image.shape[1], 1, -1)
    with torch.autocast(image.device.type, enabled=False):
        down = F.conv2d(image, kernel[..., None], groups=image.shape[1])
        return F.conv2d(down, kernel[..., None, :], groups=image.shape[1])


def _along(image: Tensor, axis: int, length: int, scale: float) -> Tensor:
    """Resample one axis to `length`: each output pixel is a weighted sum of the nearest 4 / scale pixels."""
    stretch = min(scale, 1.0)
    place = (torch.arange(length, dtype=torch.float64) + 0.5) / scale - 0.5
    first = torch.floor(place - 2 / stretch).long()
    taps = first[:, None] + torch.arange(math.ceil(4 / stretch) + 2)
    weights = keys_kernel(stretch * (place[:, None] - taps))
    weights = weights / weights.sum(1, keepdim=True)
    used = weights.any(0)
    weights = weights[:, used].to(image)
    taps = taps[:, used].clamp(0, image.shape[axis] - 1).to(image.device)
    shape = [1] * image.ndim
    shape[axis] = length
    out = torch.zeros((), dtype=image.dtype, device=image.device)
    for tap, weight in zip(taps.T, weights.T, strict=True):
        out = out + image.index_select(axis, tap) * weight.reshape(shape)
    return out


def _check(image: object, scale: float | None, size: tuple[int, int] | None) -> None:
    """Check the arguments of `imresize`."""
    if (scale is None) == (size is None):
        raise ConfigError("imresize needs either a scale or a size: give one of them.")
    if scale is not None and not isinstance(scale, (int, float)):
        raise ConfigError(f"The scale of imresize is {scale!r}: give a number, such as 0.5.")
    if size is not None and (not isinstance(size, Sequence) or len(size) != 2 or not all(map(_whole, size))):
        raise ConfigError(f"The size of imresize is {size!r}: give two whole numbers, (height, width).")
    if not isinstance(image, (np.ndarray, Tensor)) or image.ndim < 2:
        kind = tuple(image.shape) if isinstance(image, (np.ndarray, Tensor)) else type(image).__name__
        raise ConfigError(f"imresize takes a tensor (..., H, W) or an array (H, W) or (H, W, C), not {kind}.")
    if isinstance(image, Tensor) and image.dtype != torch.uint8 and not image.is_floating_point():
        raise ConfigError(f"imresize takes uint8 or floating-point pixels, not {image.dtype}: convert them first.")


def _whole(value: object) -> bool:
    return isinstance(value, (int, np.integer))


def _check_scale(scale: int) -> None:
    if not _whole(scale) or scale < 1:
        raise ConfigError(f"The scale is {scale!r}: give a whole number, 1 or more.")


def _ceil(value: float) -> int:
    """Round up, but ignore rounding errors of floating point: 480 * (1 / 3) is 160."""
    return math.ceil(value - 1e-9)
