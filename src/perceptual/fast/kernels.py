"""The passes over memory of fast inference: statistics of a grid, its conversion, and sums for residual blocks.

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

from perceptual.fast.folding import cells
from perceptual.fast.library import compiled as compiled

Vector = NDArray[np.float32]
_SIZES = {torch.uint8: 1, torch.float32: 4}


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
    target: a grid of the same pixels, with the same fold or another one, in uint8, float16 or float32. In uint8 values
        are clamped to [0, 255] and their fraction is dropped.
    relu: replace negative values with 0.
    """
    library = compiled()
    same = values.shape[2] == target.shape[2]
    if library is None or target.dtype not in _SIZES or not values.is_contiguous():
        values = torch.addcmul(torch.from_numpy(add), values.float(), torch.from_numpy(multiply))
        if target.dtype == torch.uint8:
            values = values.clamp_(0, 255)
        elif relu:
            values = values.clamp_(min=0)
        (target if same else cells(target)).copy_(values if same else cells(values))
        return
    channels = values.shape[-1]
    if same:
        shape: tuple[int, ...] = (len(values), 1, 1)
        steps: tuple[int, ...] = (values.stride(0), 0, 0, target.stride(0), 0, 0)
        length = values.stride(0)
    else:
        x, out = cells(values), cells(target)
        shape, steps, length = x.shape[:3], (*x.stride()[:3], *out.stride()[:3]), 2 * channels
    times = math.gcd(length // channels, max(1, 64 // channels))
    both = np.concatenate([np.tile(multiply, times), np.tile(add, times)], dtype=np.float32)
    start, period = both.ctypes.data, times * channels
    library.encode(
        *(
            values.data_ptr(),
            values.dtype == torch.bfloat16,
            start,
            start + 4 * period,
            target.data_ptr(),
            _SIZES[target.dtype],
        ),
        *((ctypes.c_long * 3)(*shape), (ctypes.c_long * 6)(*steps), length, period, 0.0 if relu else -3.4e38),
    )


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
