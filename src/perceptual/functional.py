"""The mathematics of perceptual losses as pure functions on tensors, without state and modules.

Images are RGB float [0, 1], (N, 3, H, W); features are (N, C, H, W). A loss is one number per image, (N,). float16 and
bfloat16 inputs are computed in float32; float64 stays float64. Other types raise a TypeError, other shapes a
ValueError.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Array = np.ndarray[Any, np.dtype[Any]]
"""A numpy array of any dtype."""

LATTICE_SIDE = 48
"""Smallest height and width of an image for `lattice_energy`, in pixels."""

CPU = torch.device("cpu")
NOISE_TILE = 1024
"""Height and width of the noise pattern of `noise_field` in pixels; beyond them it repeats."""


def feature_distance(output: Tensor, target: Tensor) -> Tensor:
    """Feature reconstruction loss (paper, eq. 2): squared error divided by C * H * W, for each image: (N,).

    output, target: (N, C, H, W) with equal C, H and W; a target with N = 1 is compared with all outputs. Half-precision
    inputs are summed in float32.

    Raises:
        ValueError: the shapes do not match. TypeError: not tensors of floats.
    """
    one, other = _pair(output, target)
    return (one - other).square().mean(dim=(1, 2, 3))


def normalised_distance(output: Tensor, target: Tensor, channels: Tensor | None = None) -> Tensor:
    """Squared difference of features that are scaled to length 1 at each position, for each image: (N,).

    It is summed over channels and averaged over positions (Zhang et al., 2018, eq. 1). Without channel weights it is 0
    to 4, and 0 to 2 for features that are not negative.

    output, target: (N, C, H, W), as in `feature_distance`. channels: (1, C, 1, 1), weight of each channel; 1 by
        default.

    Raises:
        ValueError: the shapes do not match. TypeError: not tensors of floats.
    """
    one, other = (x / (x.norm(dim=1, keepdim=True) + 1e-10) for x in _pair(output, target))
    squares = (one - other).square()
    weighted = squares if channels is None else squares * channels.to(squares)
    total: Tensor = weighted.sum(dim=1)
    return total.mean(dim=(1, 2))


def gram_matrix(features: Tensor, scale: str = "paper") -> Tensor:
    """Gram matrix of features (N, C, H, W) -> (N, C, C), symmetric and positive semi-definite (paper, eq. 3).

    scale: "paper" divides by C * H * W (eq. 3 and the authors' code), "gatys" by H * W, "none" does not divide.

    The products are accumulated in float32 (float64 for float64) for every input type, also under autocast. At 1024 x
    1024 pixels a sum in bfloat16 would lose the small terms, and a sum in float16 would overflow.

    Raises:
        ValueError: an unknown scale, or another shape. TypeError: not a tensor of floats.
    """
    n, c, h, w = _checked(features).shape
    divisor = _choice("scale", scale, {"paper": c * h * w, "gatys": h * w, "none": 1})
    with torch.autocast(features.device.type, enabled=False):
        rows = features.permute(0, 2, 3, 1).reshape(n, h * w, c)  # a view when the memory is channels_last
        if rows.dtype == torch.bfloat16:
            product: Tensor = _GramOfHalf.apply(rows)  # type: ignore[no-untyped-call]
            return product / divisor
        rows = single(rows)
        return rows.transpose(1, 2) @ rows / divisor


class _GramOfHalf(torch.autograd.Function):
    """R^T R of bfloat16 rows (N, P, C), summed in float32. The backward pass is one product in bfloat16.

    Autograd would compute two products in float32. The gradient is scaled to a maximum of 1 before it is rounded.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        exact = rows.float()
        return exact.transpose(1, 2) @ exact

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (rows,) = ctx.saved_tensors
        both = gradient + gradient.transpose(1, 2)
        largest = both.abs().amax((1, 2), keepdim=True).clamp_min(1e-30)
        product: Tensor = rows @ (both / largest).to(rows.dtype)
        return product * largest.to(rows.dtype)


def gram_distance(output: Tensor, target: Tensor, reduction: str = "sum") -> Tensor:
    """Style reconstruction loss between Gram matrices (N, C, C) (paper, eq. 4), for each image: (N,).

    reduction: "sum" is the squared Frobenius norm of eq. 4; "mean" divides it by C * C, as in the authors' code;
    "quarter" is a quarter of the mean; with Gram matrices of scale="gatys" it is the loss of Gatys et al. (2015).

    Raises:
        ValueError: an unknown reduction, or shapes that do not match. TypeError: not tensors of floats.
    """
    one, other = _pair(output, target, "NCC")
    channels = output.shape[-1]
    divisor = _choice("reduction", reduction, {"sum": 1, "mean": channels**2, "quarter": 4 * channels**2})
    return (one - other).square().sum(dim=(1, 2)) / divisor


def pixel_distance(output: Tensor, target: Tensor) -> Tensor:
    """Pixel loss (paper, section 3.3): squared error divided by C * H * W, for each image: (N,).

    For pixels in [0, 1] it is 0 to 1. output, target and errors: as in `feature_distance`.
    """
    return feature_distance(output, target)


def absolute_distance(output: Tensor, target: Tensor) -> Tensor:
    """Absolute error divided by C * H * W, for each image: (N,).

    It blurs less than the squared error (Lim et al., 2017). For pixels in [0, 1] it is 0 to 1.

    output, target and errors: as in `feature_distance`.
    """
    one, other = _pair(output, target)
    return (one - other).abs().mean(dim=(1, 2, 3))


def total_variation(image: Tensor) -> Tensor:
    """Sum of squared differences of neighbouring pixels in both directions and all channels, for each image: (N,).

    The regulariser of the paper (section 3.3). The paper prints no formula: this is that of Mahendran and Vedaldi
    (2015) with beta = 2. Example: 36 for a 10 x 10 identity matrix. For pixels in [0, 1] it is 255 ** 2
    times smaller than for the paper's pixels of 0..255.
    """
    image = _exact(image)
    down = (image[..., 1:, :] - image[..., :-1, :]).square().sum(dim=(1, 2, 3))
    across = (image[..., :, 1:] - image[..., :, :-1]).square().sum(dim=(1, 2, 3))
    return down + across


def grid_energy(difference: Tensor, period: int) -> Tensor:
    """Mean square of the pattern that repeats every `period` pixels in a difference of images (N, C, H, W): (N,).

    Computed in half-overlapping squares of 8 x 8 periods: the mean at each position within the period, minus the mean
    over all positions. A grid drawn by a network adds up there, while the content of the images averages out.

    Raises:
        ValueError: a side is smaller than `period`, or `period` is less than 1.
    """
    difference = _exact(difference)
    if min(period, *difference.shape[-2:]) < max(1, period):
        raise ValueError(f"A period of {period} pixels does not fit the shape {tuple(difference.shape)}: give a period "
                         "of 1 or more, and images that are at least as large.")  # fmt: skip
    height, width = (side - side % period for side in difference.shape[-2:])
    places = F.pixel_unshuffle(difference[..., :height, :width], period)
    window = min(8, *places.shape[-2:])
    means = F.avg_pool2d(places, window, max(1, window // 2))
    means = means.reshape(len(means), difference.shape[1], period**2, -1)
    squares: Tensor = (means - means.mean(2, keepdim=True)).square()
    return squares.mean((1, 2, 3))


def lattice_energy(image: Tensor) -> Tensor:
    """Strength of patterns that repeat every 2 or 4 pixels in images (N, 3, H, W): (N,); 0 if there is no such grid.

    There are 15 frequencies that are multiples of a quarter of the sampling frequency. For each, the power of luma is
    divided by the power of the frequencies around it; the logarithm minus 0.3 is clipped at 0, and the 15 values are
    averaged. A network that halves the image twice can draw such a grid in flat areas; feature losses do not see it.

    Raises:
        ValueError: a side is smaller than LATTICE_SIDE pixels.
    """
    gray = luma(_exact(image))[:, 0]
    height, width = gray.shape[-2:]
    if min(height, width) < LATTICE_SIDE:
        raise ValueError(f"An image of {width} x {height} px is too small for lattice_energy: give {LATTICE_SIDE} px "
                         "or more on each side.")  # fmt: skip
    window = torch.outer(*(torch.hann_window(side, device=gray.device) for side in (height, width)))
    gray = (gray - gray.mean((1, 2), keepdim=True)) * window
    power = (torch.fft.fft2(gray).abs().square() + 1e-8).flatten(1)
    at = power[:, _around(height, width, 1, gray.device)].mean(2)
    near = power.detach()[:, _around(height, width, 10, gray.device)].mean(2)
    return F.relu(torch.log(at / near) - 0.3).mean(1)


def _around(height: int, width: int, radius: int, device: torch.device) -> Tensor:
    """The frequencies of `lattice_energy` with those up to `radius` away, (15, places), as indices of the spectrum."""
    which = torch.arange(1, 16, device=device)[:, None]
    near = torch.arange(-radius, radius + 1, device=device)
    y = (which // 4 * height // 4 + near) % height
    x = (which % 4 * width // 4 + near) % width
    return (y[:, :, None] * width + x[:, None, :]).flatten(1)


def reduced(image: Tensor, scale: int) -> Tensor:
    """Reduce an image (N, C, H, W): (N, C, H / scale, W / scale). scale: a power of two. Each halving uses the binomial
    filter 1 3 3 1."""
    if scale == 1:
        return image
    with torch.autocast(image.device.type, enabled=False):  # autocast would round pixels to 8 bits
        while scale > 1:
            taps = image.new_full((4,), 0.125)
            taps[1:3] = 0.375  # not from a list, for which a GPU would have to wait
            kernel = torch.outer(taps, taps).expand(image.shape[1], 1, 4, 4)
            image = F.conv2d(F.pad(image, (1,) * 4, mode="reflect"), kernel, stride=2, groups=image.shape[1])
            scale //= 2
    return image


def padded_side(side: int, multiple: int, minimum: int) -> int:
    """The smallest multiple of `multiple` that is at least `side` and `minimum`, in pixels.

    side: an int; a tensor while `torch.jit.trace` runs, and a torch.SymInt while `torch.export` runs.
    """
    least = side.clamp_min(minimum) if isinstance(side, Tensor) else torch.sym_max(side, minimum)  # type: ignore[no-untyped-call]
    padded: int = (least + multiple - 1) // multiple * multiple
    return padded


def edges(x: Tensor, height: int, width: int) -> Tensor:
    """(N, C, h, w) -> (N, C, height, width): cropped, or continued with the last row and column.

    It is what `F.pad` and a slice do, but works for sides that are variables of a traced or exported network.
    """
    for axis, side in ((2, height), (3, width)):
        x = x.index_select(axis, torch.arange(side, device=x.device).clamp(max=x.shape[axis] - 1))
    return x


def bicubic_by_convolution(image: Tensor, scale: int) -> Tensor:
    """(N, C, H, W) -> (N, C, scale * H, scale * W): bicubic interpolation (Keys, 1981, a = -0.5) as a convolution.

    It is what `F.interpolate` does with mode="bicubic" and antialias=True. Not every runtime for exported networks
    computes that operation in the same way at the edges of the image. The weights of pixels outside it are left out.
    """
    phases = (torch.arange(scale, dtype=torch.float64)[:, None] + 0.5) / scale - 0.5
    away = torch.arange(-2, 3) - phases  # distance to the five nearest pixels, (scale, 5)
    taps = keys_kernel(away)
    weight = (taps[:, None, :, None] * taps[None, :, None, :]).reshape(scale**2, 1, 5, 5).to(image)
    channels = image.shape[1]
    total = F.conv2d(image, weight.repeat(channels, 1, 1, 1), padding=2, groups=channels)
    inside = F.conv2d(torch.ones_like(image[:1, :1]), weight, padding=2)
    return F.pixel_shuffle(total, scale) / F.pixel_shuffle(inside, scale)


def keys_kernel(x: Tensor) -> Tensor:
    """The kernel of bicubic interpolation (Keys, 1981) with a = -0.5, at distances x in pixels of any shape."""
    x = x.abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x <= 1, near, torch.where(x <= 2, far, 0.0))


@lru_cache(maxsize=1)
def noise_tile() -> Tensor:
    """The pattern of `noise_field`, (1, 1, NOISE_TILE, NOISE_TILE), on the CPU."""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(1, 1, NOISE_TILE, NOISE_TILE, device="cpu")
    for size in (1, 4, 16):
        cells = torch.randn(1, 1, NOISE_TILE // size, NOISE_TILE // size, generator=generator, device="cpu")
        if size > 1:  # the pattern must continue across its edges
            cells = F.interpolate(F.pad(cells, (2,) * 4, mode="circular"), scale_factor=size, mode="bicubic")
            cells = cells[..., 2 * size : -2 * size, 2 * size : -2 * size]
        total += cells
    return total / 3**0.5


def noise_field(height: int, width: int, top: int = 0, left: int = 0, device: torch.device = CPU) -> Tensor:
    """Noise (1, 1, height, width) with mean 0 and grains of 1, 4 and 16 pixels. It depends only on the position.

    top, left: position of the first pixel in the pattern, which repeats every NOISE_TILE pixels. device: where the
    result is; the pattern is copied there once.
    """
    rows = torch.arange(top, top + height, device=device) % NOISE_TILE
    columns = torch.arange(left, left + width, device=device) % NOISE_TILE
    tile = noise_tile() if device.type == "cpu" else _noise_tile_on(device)
    return tile.index_select(2, rows).index_select(3, columns)


@lru_cache(maxsize=1)
def _noise_tile_on(device: torch.device) -> Tensor:
    return noise_tile().to(device)


def bleed(image: Tensor, alpha: Tensor) -> Tensor:
    """Replace the colours of fully transparent pixels by those of the nearest visible pixels: (N, C, H, W).

    image: (N, C, H, W) in [0, 1]; alpha: (N, 1, H, W) in [0, 1]. Pixels with alpha 0 have arbitrary colours, often
    black, which a network or a filter would mix into the visible edge. They get the mean of the visible pixels of the
    smallest block of 2, 4, 8 ... pixels that has any. An image without visible pixels becomes 0.
    """
    exact = _exact(image)  # in half precision the shares of large blocks would be 0
    visible = (alpha > 0).to(exact.dtype)
    levels = [(exact * visible, visible)]
    while max(levels[-1][1].shape[-2:]) > 1:
        height, width = levels[-1][1].shape[-2:]
        total, weight = (F.avg_pool2d(F.pad(part, (0, width % 2, 0, height % 2)), 2) for part in levels[-1])
        levels.append((total, weight))
    total, weight = levels.pop()
    filled = total / weight.clamp_min(1e-12)
    for total, weight in reversed(levels):
        height, width = weight.shape[-2:]
        larger = filled.repeat_interleave(2, 2).repeat_interleave(2, 3)[..., :height, :width]
        filled = torch.where(weight > 0, total / weight.clamp_min(1e-12), larger)
    return torch.where(alpha > 0, image, filled.to(image.dtype))


def luma(image: Tensor) -> Tensor:
    """Luma of RGB images: (N, 3, H, W) -> (N, 1, H, W), full range, ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B.

    Raises:
        ValueError: not (N, 3, H, W). TypeError: not a tensor of floats.
    """
    image = _rgb(image)
    return 0.299 * image[:, :1] + 0.587 * image[:, 1:2] + 0.114 * image[:, 2:3]


def crossfade(one: Tensor, other: Tensor, share: float) -> Tensor:
    """Mix two images (N, C, H, W) and keep their contrast. share: part of the second image, 0 to 1.

    The standard deviation of each channel is the mix of the two standard deviations. Without this, a mix of two images
    with different details has less contrast than each of them, and a photo with a little style would be further from
    the style than the photo itself.
    """
    mixed = torch.lerp(one, other, share)
    spreads = [image.std(dim=(2, 3), correction=0, keepdim=True) for image in (one, other, mixed)]
    contrast = torch.lerp(spreads[0], spreads[1], share) / spreads[2].clamp_min(1e-6)
    mean = mixed.mean(dim=(2, 3), keepdim=True)
    return torch.where(spreads[2] > 1e-6, mean + (mixed - mean) * contrast, mixed)


def mix(style: Tensor, values: Tensor) -> Tensor:
    """Weighted sums of values (styles, ...) with weights (N, styles): (N, ...).

    It is not written as a matrix product, because autocast would round that.
    """
    weights = style.to(values).reshape(*style.shape, *[1] * (values.ndim - 1))
    return (weights * values).sum(1)


def _exact(x: Tensor) -> Tensor:
    """Check (N, C, H, W) and convert it to float32; float64 is kept."""
    return single(_checked(x))


def _pair(output: Tensor, target: Tensor, axes: str = "NCHW") -> tuple[Tensor, Tensor]:
    """Check two tensors and convert them to float32 or keep float64. Only N may differ, and only if one N is 1."""
    one, other = single(_checked(output, axes)), single(_checked(target, axes))
    if one.shape[1:] != other.shape[1:] or (len(one) != len(other) and 1 not in (len(one), len(other))):
        raise ValueError(f"The shapes {tuple(one.shape)} and {tuple(other.shape)} do not match: give tensors of the "
                         "same shape, or one with N = 1.")  # fmt: skip
    return one, other


def single(x: Tensor) -> Tensor:
    """Half precision becomes float32; other kinds are kept."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _checked(x: Tensor, axes: str = "NCHW") -> Tensor:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"Losses need tensors of floats, not {kind}: divide pixel levels by 255.")
    if x.ndim != len(axes):
        raise ValueError(f"The shape is {tuple(x.shape)}: give ({', '.join(axes)}); for a single image give x[None].")
    return x


def _rgb(image: Tensor) -> Tensor:
    channels = _checked(image).shape[1]
    if isinstance(channels, int) and channels != 3:  # it is no int while the caller is traced
        raise ValueError(f"The shape is {tuple(image.shape)}: give RGB images, (N, 3, H, W).")
    return image


def _choice(name: str, value: str, choices: dict[str, int]) -> int:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(choices)}.")
    return choices[value]
