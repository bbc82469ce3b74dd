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
"""Rows, and columns, of a sample; up to 31 if a side is not a multiple of 16."""
NOISE = {255: 2.4e-4, kernels.TOP: 1.8e-6}
"""Largest level -> largest rounding error, as a share of the variance. A layer with more reads finer levels, or floats.
The limit for 12 bits is lower, because sensitive layers use 12 bits."""


def sample(grid: Tensor) -> Vector:
    """The values of each channel at 16 x 16 to 31 x 31 places of a grid, (C, places). It costs little.

    grid: (rows, columns, C).
    """
    rows, columns = (slice(n // (2 * SAMPLES), None, max(1, n // SAMPLES)) for n in grid.shape[:2])
    values: Vector = np.ascontiguousarray(grid[rows, columns].reshape(-1, grid.shape[-1]).float().numpy().T)
    return values


def common_values(values: Vector) -> Vector:
    """About the most common value of each channel, (C,): the middle of the shortest interval with a quarter of them.

    values: (C, places).

    Similar to the "shorth" (Andrews et al., Robust Estimates of Location, 1972), with a quarter in place of a half.
    """
    values = np.sort(values, axis=1)
    share = max(1, values.shape[1] // 4)
    first = (values[:, share - 1 :] - values[:, : values.shape[1] - share + 1]).argmin(1)
    common: Vector = values[np.arange(len(values)), first + share // 2]
    return common


def rectified_variance(mean: Vector, deviation: Vector) -> Vector:
    """Variance of max(x, 0) for a normal variable x with this mean and standard deviation, (C,) each."""
    at = torch.from_numpy(mean / np.maximum(deviation, np.float32(1e-12)))
    above = torch.special.ndtr(at).numpy()
    density = deviation * np.exp(-0.5 * at.numpy() ** 2) / np.float32(np.sqrt(2 * np.pi))
    first = mean * above + density
    variance: Vector = np.maximum((mean**2 + deviation**2) * above + mean * density - first**2, 0)
    return variance


def too_coarse(low: Vector, high: Vector, variance: Vector, top: int) -> bool:
    """Whether levels 0 to `top` between `low` and `high` are too few for channels with this variance, (C,) each.

    The rounding error of a level has the variance step**2 / 12. A picture that is mostly flat, such as a photo taken at
    night, has little variance in a wide range.
    """
    reach = high - low
    return bool(reach @ reach > 12 * top**2 * NOISE[top] * variance.sum())


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


def balanced(weight: Tensor, scale: Vector) -> tuple[Tensor, Tensor]:
    """As `kernels.quantise`, but the sums of the filters stay exact.

    The sum over the taps of each filter and channel is corrected to half a level: the weights that were rounded
    farthest in the wrong direction are rounded to their other side. So a flat part of a picture gets nearly the output
    that it has in float32, also where a filter looks for edges.
    """
    levels, factors = kernels.quantise(weight, scale)
    filters, places = len(weight), weight.shape[1] // len(scale)  # places: pixels of a cell
    exact = weight * torch.from_numpy(scale).repeat(places)[:, None, None] / factors[:, None, None, None]
    by_channel = filters, places, len(scale), weight[0, 0].numel()
    exact, rounded = (x.reshape(by_channel).transpose(1, 2).flatten(2) for x in (exact, levels.float()))
    missing = exact - rounded
    steps = missing.sum(2, keepdim=True).round()
    wanted = torch.where(exact == 0, -torch.inf, missing * steps.sign())  # zeros stay: they are no taps of the layer
    rank = wanted.argsort(2, descending=True).argsort(2)
    rounded = (rounded + steps.sign() * (rank < steps.abs())).clamp_(-127, 127)
    rounded = rounded.view(filters, len(scale), places, -1).transpose(1, 2)
    return rounded.reshape(weight.shape).to(torch.int8), factors
