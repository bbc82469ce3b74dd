"""How values become bytes: ranges, sums of filters, and how coarse bytes are, against arithmetic by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from perceptual.fast.kernels import Vector, quantise
from perceptual.fast.rounding import (
    NOISE,
    balanced,
    common_values,
    level_range,
    rectified_variance,
    sample,
    too_coarse,
)

pytestmark = pytest.mark.usefixtures("one_thread", "seed")


def vector(*values: float) -> Vector:
    return np.array(values, np.float32)


# --- common values


def test_the_common_value_of_a_flat_part_is_found() -> None:
    grid = torch.rand(40, 50, 2) * 10
    grid[:20, :, 0] = 7  # half of the picture
    grid[:, 30:, 1] = -3  # two fifths
    assert common_values(sample(grid)).tolist() == [7, -3]


def test_the_common_value_of_values_in_steps_of_equal_size_is_one_of_them() -> None:
    grid = torch.arange(12.0).view(3, 4, 1)
    assert common_values(sample(grid))[0] in range(12)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float16])
def test_common_values_of_levels_and_of_halves(kind: torch.dtype) -> None:
    assert common_values(sample(torch.full((8, 9, 3), 5, dtype=kind))).tolist() == [5, 5, 5]


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 2), (3, 1)])
def test_tiny_grids_are_no_error(size: tuple[int, int]) -> None:
    grid = torch.full((*size, 2), 3.0)
    assert common_values(sample(grid)).tolist() == [3, 3]


# --- ranges


def test_a_range_without_a_common_value_has_255_steps() -> None:
    scale, lowest = level_range(vector(-1, 0), vector(1, 51), 255)
    np.testing.assert_allclose(scale, [2 / 255, 0.2], rtol=1e-6)
    np.testing.assert_array_equal(lowest, [-1, 0])


@pytest.mark.parametrize("top", [255, 4095])
def test_a_level_expresses_the_common_value(top: int) -> None:
    low, high, common = vector(-1, 0, 2), vector(1, 10, 2), vector(0.1234, 0, 2)
    scale, lowest = level_range(low, high, top, common)
    level = (common - lowest) / scale
    np.testing.assert_allclose(level, np.round(level), atol=2e-3)
    assert (lowest <= low).all()
    assert (lowest + top * scale >= high - 1e-6).all()


# --- filters


def sums_and_errors(weight: Tensor, scale: Vector, levels: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """The largest error of the sum of a filter's taps in one channel, and the largest error of a weight, in levels."""
    places = weight.shape[1] // len(scale)
    scaled = weight * torch.from_numpy(scale).repeat(places)[:, None, None]
    error = scaled / factors[:, None, None, None] - levels
    return error.unflatten(1, (places, len(scale))).sum((1, 3, 4)).abs().max(), error.abs().max()


@pytest.mark.parametrize("places", [1, 4])
def test_balanced_filters_keep_their_sums(places: int) -> None:
    weight, scale = torch.randn(8, 3 * places, 5, 5), vector(0.5, 1, 2)
    levels, factors = balanced(weight, scale)
    off, largest = sums_and_errors(weight, scale, levels, factors)
    assert levels.dtype == torch.int8
    assert off <= 0.5 + 1e-3
    assert largest <= 1
    plain, _ = sums_and_errors(weight, scale, *quantise(weight, scale))
    assert plain > 0.5


def test_an_edge_filter_gives_nothing_where_the_picture_is_flat() -> None:
    weight = torch.randn(4, 1, 3, 3)
    weight -= weight.mean((2, 3), keepdim=True)
    levels, _ = balanced(weight, vector(1))
    assert levels.sum((1, 2, 3)).tolist() == [0, 0, 0, 0]


def test_places_without_a_tap_stay_zero() -> None:
    weight = torch.randn(8, 4, 3, 3) * (torch.rand(8, 4, 3, 3) < 0.5)
    levels, _ = balanced(weight, vector(1))
    assert not levels[weight == 0].any()


# --- how coarse bytes are


def test_bytes_are_too_coarse_for_little_variance_in_a_wide_range() -> None:
    low, high = vector(0, 0), vector(255, 255)  # steps of 1, so the rounding error has the variance 1/12
    limit = 1 / 12 / NOISE[255]
    assert too_coarse(low, high, vector(0.9 * limit, 0.9 * limit), 255)
    assert not too_coarse(low, high, vector(1.1 * limit, 1.1 * limit), 255)


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (2.0, 0.5), (-1.0, 3.0), (0.7, 0.0)])
def test_the_variance_of_a_rectified_normal_variable(mean: float, deviation: float) -> None:
    drawn = (mean + deviation * torch.randn(400_000, dtype=torch.float64)).clamp(min=0)
    found = rectified_variance(vector(mean), vector(deviation))
    np.testing.assert_allclose(found, float(drawn.var()), rtol=0.02, atol=1e-6)
