"""Convolutions of levels by the compiled kernels: exact sums of products, and statistics of what is written."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from perceptual.config import NetworkConfig
from perceptual.fast import build, kernels
from perceptual.fast.plan import plan
from perceptual.networks import TransformationNetwork

pytestmark = pytest.mark.usefixtures("one_thread", "seed")
TOPS = {torch.uint8: 255, torch.int16: kernels.TOP}


@pytest.fixture(params=list(build.variants()), autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, built: dict[str, ctypes.CDLL]) -> None:
    """The test runs with each variant of the compiled kernels."""
    found = built.get(request.param)
    if found is None or not found.convolves():
        pytest.skip("there is no C compiler, or this processor lacks the instructions")
    monkeypatch.setattr(kernels, "compiled", lambda: found)


def whole_numbers(filters: int, channels: int, variants: int = 1) -> Tensor:
    """Filters of whole numbers up to 127, which each filter has once: their dequantisation scale is 1 in int8."""
    weight = torch.randint(-127, 128, (variants, filters, channels, 3, 3)).float()
    weight[:, :, 0, 0, 0] = 127
    return weight


def convolved(
    x: Tensor, weight: Tensor, *, stride: int = 1, fold: int = 1, narrow: bool = False, scale: Tensor | None = None
) -> tuple[Tensor, kernels.Range]:
    """x: (rows, columns, C), with its padding. weight: (variants, O, C, 3, 3)."""
    unit = kernels.UNITS[TOPS[x.dtype]]
    each = np.ones(x.shape[-1], np.float32) if scale is None else scale.numpy()
    levels = kernels.pack(kernels.ordered(weight, unit), each, None, weight.shape[1])
    grid = x[:, :, None, None]
    return kernels.convolve(grid, levels, stride, fold, narrow=narrow, ends=(True, True))


def expected(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    return F.conv2d(x.permute(2, 0, 1)[None].double(), weight.double(), None, stride)[0].permute(1, 2, 0)


def grid(rows: int, columns: int, channels: int, kind: torch.dtype = torch.uint8) -> Tensor:
    return torch.randint(0, TOPS[kind] + 1, (rows, columns, channels)).to(kind)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("columns", [5, 12, 31, 57])  # less than a tile, tiles that overlap, several tiles
@pytest.mark.parametrize(("filters", "channels"), [(3, 4), (12, 8), (16, 4), (40, 12), (64, 16), (128, 4)])
def test_products_of_bytes_are_added_exactly(filters: int, channels: int, columns: int, stride: int) -> None:
    x, weight = grid(7, columns, channels), whole_numbers(filters, channels)
    y, _ = convolved(x, weight, stride=stride)
    assert torch.equal(y[:, :, 0, 0].double(), expected(x, weight[0], stride))


@pytest.mark.parametrize("channels", [2, 6, 64])
def test_products_of_twelve_bits_are_added_within_a_level_of_the_filters(channels: int) -> None:
    x, weight = grid(6, 40, channels, torch.int16), torch.randn(1, 32, channels, 3, 3)
    y, _ = convolved(x, weight, stride=2)
    true = expected(x, weight[0], 2)
    most = min(32767, (2**31 - 1) // (kernels.TOP * 9 * channels))
    half = weight.abs().amax() / most / 2  # of a level of a filter
    assert (y[:, :, 0, 0] - true).abs().max() <= 1.01 * half * kernels.TOP * 9 * channels
    assert (y[:, :, 0, 0] - true).norm() <= 4e-3 * true.norm()


@pytest.mark.parametrize("kind", TOPS)
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_products_do_not_overflow(kind: torch.dtype, sign: int) -> None:
    x, weight = torch.full((3, 30, 128), TOPS[kind], dtype=kind), torch.full((1, 16, 128, 3, 3), float(sign))
    y, _ = convolved(x, weight)
    torch.testing.assert_close(y, torch.full_like(y, sign * TOPS[kind] * 9 * 128))


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize(("filters", "fold"), [(12, 2), (48, 1), (64, 2)])
def test_the_statistics_are_those_of_what_is_written(filters: int, fold: int, narrow: bool) -> None:
    y, found = convolved(grid(19, 33, 8), whole_numbers(filters, 8) / 7 + 3, fold=fold, narrow=narrow)
    true = kernels.measure(y)
    assert found.count == true.count
    np.testing.assert_allclose(found.mean, true.mean, rtol=1e-5)
    np.testing.assert_allclose(found.variance, true.variance, rtol=1e-4)
    assert np.array_equal(found.low, true.low)
    assert np.array_equal(found.high, true.high)


def test_a_flat_grid_has_no_variance() -> None:
    _, found = convolved(torch.full((9, 40, 8), 200, dtype=torch.uint8), whole_numbers(16, 8))
    assert np.array_equal(found.low, found.high)
    assert (found.variance <= 1e-9 * found.mean**2).all()


def test_narrow_results_are_rounded_as_by_pytorch() -> None:
    x, weight = grid(8, 50, 16), torch.randn(1, 64, 16, 3, 3)
    assert torch.equal(convolved(x, weight, narrow=True)[0], convolved(x, weight)[0].bfloat16())


def test_several_threads_write_what_one_writes() -> None:
    x, weight = grid(23, 50, 16), torch.randn(1, 128, 16, 3, 3)
    alone, _ = convolved(x, weight)
    torch.set_num_threads(3)  # the fixture one_thread sets it back
    together, found = convolved(x, weight)
    assert torch.equal(alone, together)
    np.testing.assert_allclose(found.mean, kernels.measure(alone).mean, rtol=1e-5)


def test_channels_carry_their_scale() -> None:
    x, weight = grid(6, 30, 4), torch.randn(1, 16, 4, 3, 3)
    scale = torch.tensor([0.5, 1, 2, 4])
    y, _ = convolved(x, weight, scale=scale)
    true = expected(x, weight[0] * scale[:, None, None])
    assert (y[:, :, 0, 0] - true).norm() <= 0.01 * true.norm()


def test_each_place_of_a_picture_has_its_own_filters() -> None:
    x, weight = grid(7, 32, 4), whole_numbers(16, 4, variants=9)
    y, _ = convolved(x, weight)
    places = [slice(0, 1), slice(1, -1), slice(-1, None)]
    for number, filters in enumerate(weight):
        rows, columns = places[number // 3], places[number % 3]
        assert torch.equal(y[:, :, 0, 0].double()[rows, columns], expected(x, filters)[rows, columns])


def test_bilinear_doubling_and_its_convolution_are_nine_kinds_of_filters() -> None:
    network = TransformationNetwork(NetworkConfig("c3s1-4 d8 r8 B4 c3s1-3", "instance", "reflect"))
    network.eval().requires_grad_(False)
    convolutions = plan(network)
    assert convolutions is not None
    (doubling,) = [each for each in convolutions if each.edges]
    image = torch.rand(1, 8, 6, 5)
    doubled = F.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)
    true = F.conv2d(F.pad(doubled, (1,) * 4, mode="reflect"), doubling.module.conv.weight)
    padded, places = F.pad(image, (1,) * 4, mode="replicate"), [slice(0, 1), slice(1, -1), slice(-1, None)]
    for number, filters in enumerate(doubling.variants):
        rows, columns = places[number // 3], places[number % 3]
        cells = F.conv2d(padded, filters)[0].view(2, 2, 4, 6, 5)[..., rows, columns]
        for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
            torch.testing.assert_close(cells[i, j], true[0, :, i::2, j::2][:, rows, columns])


def test_other_numbers_of_channels_are_left_to_pytorch() -> None:
    assert not kernels.convolves(6, 255)
    assert not kernels.convolves(5, kernels.TOP)
