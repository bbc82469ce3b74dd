"""The passes over memory of fast inference: statistics of a grid, its conversion, sums for residual blocks, and
convolutions of levels.

Each is one pass in kernels.c, where PyTorch's operations need three to five. Without compiled kernels (see library.py)
PyTorch's operations do the same here.

Grids have the shape (rows, columns, fold, fold, C), see folding.py.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from perceptual.fast.folding import cells, fill_padding
from perceptual.fast.library import compiled as compiled

Vector = NDArray[np.float32]
TOP = 4095
"""The largest level that is stored in int16. A sum of products with filters in int16 fits into 32 bits."""
UNITS = {255: 4, TOP: 2}
"""Largest level -> the number of channels that one instruction multiplies and adds up."""
_SIZES = {torch.uint8: 1, torch.int16: 2, torch.float32: 4}
_BLOCK = 16
"""Number of filters that fit into one vector register."""


@dataclass(eq=False)
class Range:
    """Statistics of a grid: the number of pixels; mean, variance, minimum and maximum of each channel, (C,) each."""

    count: int
    mean: Vector
    variance: Vector
    low: Vector
    high: Vector

    def combined_with(self, other: Range) -> Range:
        """The statistics of both parts together (Chan, Golub and LeVeque, The American Statistician 37, 1983)."""
        count = self.count + other.count
        step, share = other.mean - self.mean, np.float32(other.count / count)
        variance = self.variance * (1 - share) + other.variance * share + step**2 * share * (1 - share)
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return Range(count, self.mean + step * share, variance, low, high)


def measure(grid: Tensor) -> Range:
    """The statistics of a grid in float32 or bfloat16."""
    rows, columns, fold, _, channels = grid.shape
    library = compiled()
    narrow = grid.dtype == torch.bfloat16
    if library is not None and grid.is_contiguous():
        out = np.empty((4, channels), np.float32)
        library.measure(grid.data_ptr(), narrow, rows * columns, fold * fold * channels, fold * fold, out.ctypes.data)
        return Range(rows * columns * fold * fold, *out)
    flat = grid.reshape(rows * columns, fold * fold * channels).float()
    mean, variance = (x.view(-1, channels) for x in torch.batch_norm_update_stats(flat, None, None, 0.0))
    spread = variance.mean(0) + mean.var(0, correction=0)  # within each place of a cell, plus between the places
    low, high = flat.amin(0).view(-1, channels).amin(0), flat.amax(0).view(-1, channels).amax(0)
    return Range(rows * columns * fold * fold, *(x.numpy() for x in (mean.mean(0), spread, low, high)))


def encode(values: Tensor, multiply: Vector, add: Vector, target: Tensor, *, relu: bool) -> None:
    """Write values * multiply + add into another grid.

    values: a grid in float32 or bfloat16. multiply, add: (C,), one factor and one summand for each channel.
    target: a grid of the same pixels, with the same fold or another one, in uint8, int16, float16 or float32. In uint8
        values are clamped to [0, 255], in int16 to [0, 4095], and their fraction is dropped.
    relu: replace negative values with 0.
    """
    library = compiled()
    same = values.shape[2] == target.shape[2]
    if library is None or target.dtype not in _SIZES or not values.is_contiguous():
        values = torch.addcmul(torch.from_numpy(add), values.float(), torch.from_numpy(multiply))
        if not target.is_floating_point():
            values = values.clamp_(0, 255 if target.dtype == torch.uint8 else TOP)
        elif relu:
            values = values.clamp_(min=0)
        (target if same else cells(target)).copy_(values if same else cells(values))
        return
    channels = values.shape[-1]
    if target.dtype == torch.uint8 and not same and values.shape[2] == 2 and target.stride(1) == channels:
        levels = torch.empty(values.shape, dtype=torch.uint8)
        encode(values, multiply, add, levels, relu=relu)  # with cells in long runs, which is faster
        library.unfold(levels.data_ptr(), *values.shape[:2], 2 * channels, target.data_ptr(), target.stride(0))
        return
    shape: tuple[int, ...] = (len(values), 1, 1)
    steps: tuple[int, ...] = (values.stride(0), 0, 0, target.stride(0), 0, 0)
    length = values.stride(0)
    if not same:
        x, out = cells(values), cells(target)
        shape, steps, length = x.shape[:3], (*x.stride()[:3], *out.stride()[:3]), 2 * channels
    times = math.gcd(length // channels, max(1, 64 // channels))
    both = np.concatenate([np.tile(multiply, times), np.tile(add, times)], dtype=np.float32)
    start, period = both.ctypes.data, times * channels
    pointers = values.data_ptr(), values.dtype == torch.bfloat16, start, start + 4 * period, target.data_ptr()
    numbers = (ctypes.c_long * 3)(*shape), (ctypes.c_long * 6)(*steps), length, period
    library.encode(*pointers, _SIZES[target.dtype], *numbers, 0.0 if relu else -3.4e38)


def fold(levels: Tensor, target: Tensor) -> None:
    """Copy the levels of a picture, (C, H, W), into a grid of the same pixels, (H / 2, W / 2, 2, 2, C)."""
    library = compiled()
    if library is None or {levels.dtype, target.dtype} != {torch.uint8} or levels.stride(2) != 1:
        cells(target).copy_(cells(levels.permute(1, 2, 0)[:, :, None, None]))
        return
    planes = levels.data_ptr(), *levels.shape[:1], *levels.stride()[:2]
    library.fold(*planes, *target.shape[:2], target.data_ptr(), target.stride(0))


def pad(grid: Tensor, mode: str, above: int, below: int, left: int, right: int) -> None:
    """Fill the padding of a grid in place, with the values that F.pad would give.

    grid: contiguous. mode: "reflect" or "replicate". The numbers are rows and columns of padding, in cells.
    """
    library = compiled()
    if library is None:
        fill_padding(grid, mode, above, below)
        fill_padding(grid.transpose(0, 1).transpose(2, 3), mode, left, right)
        return
    assert grid.is_contiguous()
    numbers = *grid.shape[:3], grid.element_size() * grid.shape[-1], above, below, left, right, mode == "reflect"
    library.pad(grid.data_ptr(), (ctypes.c_long * 9)(*numbers))


def accumulate(stream: Tensor, values: Tensor, multiply: Vector) -> tuple[Vector, Vector]:
    """Add values * multiply to the stream in place; returns its new minimum and maximum by channel, (C,) each.

    stream, values: (rows, columns, C). multiply: (C,).
    """
    library = compiled()
    if library is not None and stream.dtype == torch.float32 and stream.is_contiguous() and values.is_contiguous():
        found = np.empty((2, stream.shape[-1]), np.float32)
        pixels = stream.shape[0] * stream.shape[1]
        pointers = stream.data_ptr(), values.data_ptr(), multiply.ctypes.data
        library.accumulate(*pointers, pixels, stream.shape[-1], found.ctypes.data)
        return found[0], found[1]
    stream.copy_(torch.addcmul(stream.float(), values, torch.from_numpy(multiply)))
    return extremes(stream)


def extremes(grid: Tensor) -> tuple[Vector, Vector]:
    """Minimum and maximum of each channel, (C,) each; channels are the last dimension."""
    flat = grid.flatten(0, -2)
    return flat.amin(0).float().numpy(), flat.amax(0).float().numpy()


def quantise(weight: Tensor, scale: Vector) -> tuple[Tensor, Tensor]:
    """Scale filters by input channel and round them to int8; returns (filters in int8, dequantisation scales (O,)).

    weight: (O, I, K, K). scale: one factor for each input channel, repeated if there are fewer than I.
    The largest weight of each filter becomes 127 or -127: weight * scale = int8 value * dequantisation scale.
    """
    library = compiled()
    filters, channels, size, _ = weight.shape
    if library is not None and weight.is_contiguous():
        levels, factors = torch.empty(weight.shape, dtype=torch.int8), torch.empty(filters)
        each = np.tile(np.repeat(scale, size * size), channels // len(scale))
        library.quantise(weight.data_ptr(), each.ctypes.data, filters, len(each), levels.data_ptr(), factors.data_ptr())
        return levels, factors
    weight = weight * torch.from_numpy(scale).repeat(channels // len(scale))[:, None, None]
    factors = weight.abs().amax((1, 2, 3)).clamp_min_(1e-12) / 127
    return weight.div_(factors[:, None, None, None]).round_().to(torch.int8), factors


def convolves(channels: int, top: int) -> bool:
    """Whether `convolve` can read levels up to `top` of so many channels here: with AVX-512 VNNI or AVX-VNNI."""
    library = compiled()
    return library is not None and channels % UNITS[top] == 0 and bool(library.convolves())


def ordered(filters: Tensor, unit: int) -> Tensor:
    """Filters (variants, O, I, K, K) in the order of memory of `pack`: (variants, blocks, K, K, I / unit, 16, unit).

    The last block is filled up with zeros. I must be a multiple of unit, as `convolves` requires.
    """
    variants, count, channels, size, _ = filters.shape
    filters = F.pad(filters, (0, 0, 0, 0, 0, 0, 0, -count % _BLOCK))
    filters = filters.view(variants, -1, _BLOCK, channels // unit, unit, size, size)
    return filters.permute(0, 1, 5, 6, 3, 2, 4).contiguous()


@dataclass(frozen=True, eq=False)
class Levels:
    """Filters as `convolve` reads them: integers in the order of `ordered`, the dequantisation scale of each filter
    (variants, blocks * 16), and what is added to its output, (blocks * 16,). `count` is the number of filters.
    """

    filters: Tensor
    factors: Tensor
    bias: Tensor
    count: int


def pack(weight: Tensor, scale: Vector, bias: Tensor | None, count: int) -> Levels:
    """Scale filters by input channel and round them to int8 (in the order for unit 4) or int16 (unit 2).

    weight: from `ordered`, `count` filters without those that fill up the last block. scale: (I,). bias: (count,).
    """
    variants, blocks, size, _, groups, _, unit = weight.shape
    levels = torch.empty(weight.shape, dtype=torch.int8 if unit == UNITS[255] else torch.int16)
    factors = torch.empty(variants, blocks * _BLOCK)
    numbers = variants * blocks, size * size, groups * unit, unit
    library = compiled()
    assert library is not None
    library.pack(weight.data_ptr(), scale.ctypes.data, *numbers, levels.data_ptr(), factors.data_ptr())
    return Levels(levels, factors, _filled(bias, count), count)


def levels_of(filters: Tensor, factors: Tensor, bias: Tensor | None) -> Levels:
    """Filters that are whole numbers already, as `convolve` reads them: (O, I, K, K) in int8.

    factors: the dequantisation scale of each filter, (O,). bias: (O,).
    """
    count = len(filters)
    return Levels(ordered(filters[None], UNITS[255]), _filled(factors, count)[None], _filled(bias, count), count)


def _filled(values: Tensor | None, count: int) -> Tensor:
    """One value for each of `count` filters, or zeros, filled up with zeros to a whole number of blocks."""
    return torch.zeros(count + -count % _BLOCK) if values is None else F.pad(values, (0, -count % _BLOCK))


def convolve(
    x: Tensor, levels: Levels, stride: int, fold: int, *, narrow: bool, ends: tuple[bool, bool]
) -> tuple[Tensor, Range]:
    """Convolve a padded grid; returns a grid of floats (rows, columns, fold, fold, C), or bfloat16, and its statistics.

    x: a grid in uint8 or int16, contiguous. narrow: write bfloat16. ends: whether the first row and the last row
    are those of the picture. Where there are nine variants of the filters, they take those for them; the first and the
    last column always do.
    """
    library = compiled()
    assert library is not None
    assert x.is_contiguous()
    variants, _, size, *_ = levels.filters.shape
    pixel, line = x.element_size() * x[0, 0].numel(), x.element_size() * x[0].numel()
    rows, columns = ((side - size) // stride + 1 for side in x.shape[:2])
    channels = levels.count // fold**2
    y = torch.empty(rows, columns, fold, fold, channels, dtype=torch.bfloat16 if narrow else torch.float32)
    found = np.empty((4, channels), np.float32)
    numbers = (ctypes.c_long * 14)(
        *(rows, columns, levels.count, stride * line, stride * pixel, line, size, size * pixel),
        *(levels.filters.shape[-1], variants, fold**2, narrow, 0 if ends[0] else -1, rows - 1 if ends[1] else -1),
    )
    tensors = (each.data_ptr() for each in (x, levels.filters, levels.factors, levels.bias, y))
    library.convolve(*tensors, numbers, found.ctypes.data)
    return y, Range(rows * columns * fold * fold, *found)


def enlarge(levels: Tensor, more: Tensor, factor: int, scale: int) -> Tensor | None:
    """Enlarge bytes by bicubic interpolation, add 127.5 times the result of a network, and round to bytes.

    levels: (3, H, W) in uint8, contiguous. more: (rows, columns, 3 * factor^2), contiguous, in float32 or bfloat16, in
    the order of a pixel shuffle by `factor`. It covers the result, (3, scale * H, scale * W). None if a value of `more`
    is not finite.
    """
    library = compiled()
    assert library is not None
    assert levels.is_contiguous()
    assert more.is_contiguous()
    _, height, width = levels.shape
    assert more.shape[0] * factor >= scale * height
    assert more.shape[1] * factor >= scale * width
    out = torch.empty(3, scale * height, scale * width, dtype=torch.uint8)
    narrow = more.dtype == torch.bfloat16
    numbers = narrow, more.shape[1], factor, scale
    finite = library.enlarge(levels.data_ptr(), height, width, more.data_ptr(), *numbers, out.data_ptr())
    return out if finite else None
