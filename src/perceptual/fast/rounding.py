"""How values become bytes in fast inference: ranges and filters that are exact where the picture is flat.

In a flat part of a picture (a black sky, a white page) all values of a channel are equal. They all get the same
rounding error, so the errors of neighbours do not average out in a convolution. The functions here avoid that error
for the most common value of each channel.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from perceptual.fast import kernels
from perceptual.fast.kernels import Vector

SAMPLES = 16
"""Rows, and columns, of the sample that `common_values` looks at."""


def common_values(grid: Tensor) -> Vector:
    """About the most common value of each channel, (C,): the middle of the shortest interval with a quarter of them.

    It looks at 16 x 16 to 31 x 31 places of the grid, so it costs little.

    grid: (rows, columns, C) with at least two rows and two columns.

    The shortest interval with a share of the values: Andrews et al., Robust Estimates of Location, 1972 ("shorth").
    """
    rows, columns = (range(n)[n // (2 * SAMPLES) :: max(1, n // SAMPLES)] for n in grid.shape[:2])
    sample = grid[rows.start :: rows.step, columns.start :: columns.step]
    values = np.ascontiguousarray(sample.reshape(-1, grid.shape[-1]).float().numpy().T)
    values.sort(axis=1)
    share = max(2, values.shape[1] // 4)
    first = (values[:, share - 1 :] - values[:, : values.shape[1] - share + 1]).argmin(1)
    common: Vector = values[np.arange(len(values)), first + share // 2]
    return common


def level_range(low: Vector, high: Vector, top: int, common: Vector | None = None) -> tuple[Vector, Vector]:
    """Scale and lowest value of levels 0 to `top` that cover a range, (C,) each: value = level * scale + lowest.

    low, high: smallest and largest value of each channel, (C,). common: values that a level is to express without an
    error, within the range, (C,). They cost one of the steps.
    """
    least = np.float32(1e-12)
    if common is None:
        return np.maximum((high - low) / np.float32(top), least), low
    scale = np.maximum((high - low) / np.float32(top - 1), least)
    place = (common - low) / scale  # in steps
    lowest: Vector = (low - (np.ceil(place) - place) * scale).astype(np.float32, copy=False)
    return scale, lowest


def balanced(weight: Tensor, fold: int) -> tuple[Tensor, Tensor]:
    """Round filters to int8 so that their sums stay exact; returns (filters in int8, dequantisation scales (O,)).

    As `kernels.quantise` without scales. Then the sum over the taps of each filter and channel is corrected to half a
    level: the weights that were rounded farthest in the wrong direction are rounded to their other side. So a flat part
    of a picture gets nearly the output that it has in float32, also where a filter looks for edges.

    weight: (O, I, K, K) for grids with cells of side `fold`.
    """
    levels, factors = kernels.quantise(weight, np.ones(weight.shape[1], np.float32))
    exact = weight / factors[:, None, None, None]
    filters, channels, size, _ = weight.shape
    by_channel = filters, fold**2, channels // fold**2, size**2
    exact, rounded = (x.view(by_channel).transpose(1, 2).flatten(2) for x in (exact, levels.float()))
    missing = exact - rounded
    steps = missing.sum(2, keepdim=True).round()
    wanted = torch.where(exact == 0, -torch.inf, missing * steps.sign())  # zeros stay: they are no taps of the layer
    rank = wanted.argsort(2, descending=True).argsort(2)
    rounded = (rounded + steps.sign() * (rank < steps.abs())).clamp_(-127, 127)
    back = rounded.view(by_channel[0], by_channel[2], by_channel[1], by_channel[3]).transpose(1, 2)
    return back.reshape(weight.shape).to(torch.int8), factors
