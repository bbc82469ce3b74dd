"""The passes over memory: the compiled ones and PyTorch's own agree, with each other and with arithmetic by hand."""

from __future__ import annotations

import ctypes
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from perceptual.fast import build, kernels
from perceptual.fast.folding import cells
from perceptual.fast.kernels import Range, Vector, accumulate, encode, extremes, measure, quantise

pytestmark = pytest.mark.usefixtures("one_thread", "seed")
CHANNELS = [3, 12, 16, 20, 64]  # the compiled ones take 16 at a time
close = torch.testing.assert_close


needs_compiler = pytest.mark.skipif(build.find_compiler() is None, reason="needs Linux and a C compiler")


@pytest.fixture(params=[*build.variants(), "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, built: dict[str, ctypes.CDLL]) -> str:
    """The test runs with each variant of the compiled kernels, and without any."""
    if request.param != "plain" and request.param not in built:
        pytest.skip("there is no C compiler, or this processor lacks the instructions")
    monkeypatch.setattr(kernels, "compiled", lambda: built.get(request.param))
    return str(request.param)


def truth(grid: Tensor) -> Range:
    flat = grid.double().flatten(0, -2).numpy()
    vectors = (flat.mean(0), flat.var(0), flat.min(0), flat.max(0))
    return Range(len(flat), *(vector.astype(np.float32) for vector in vectors))


def agree(one: Range, other: Range, tolerance: float = 1e-5) -> None:
    assert one.count == other.count
    spread = np.sqrt(other.variance).max()
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-6, atol=tolerance * spread)
    np.testing.assert_allclose(one.variance, other.variance, rtol=1e-4, atol=1e-10)
    assert np.array_equal(one.low, other.low)
    assert np.array_equal(one.high, other.high)


# --- measuring


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fold", [1, 2])
@pytest.mark.parametrize("channels", CHANNELS)
def test_measuring_gives_mean_variance_and_both_ends_by_channel(
    way: str, channels: int, fold: int, kind: torch.dtype
) -> None:
    grid = torch.randn(33, 17, fold, fold, channels) * torch.linspace(0.1, 30, channels) + torch.arange(channels)
    agree(measure(grid.to(kind)), truth(grid.to(kind)))


@pytest.mark.parametrize("rows", [1, 2, 129])  # 128 pixels at a time
def test_measuring_takes_any_number_of_pixels(way: str, rows: int) -> None:
    grid = torch.randn(rows, 1, 1, 1, 20)
    agree(measure(grid), truth(grid))


@pytest.mark.parametrize("fold", [1, 2])
def test_a_grid_that_counts_has_the_mean_and_variance_of_the_text_book(way: str, fold: int) -> None:
    pixels = 5 * 7 * fold**2
    found = measure(torch.arange(3.0 * pixels).view(5, 7, fold, fold, 3))  # channel c: c, c + 3, c + 6, ...
    last = 3.0 * (pixels - 1)
    assert found.count == pixels
    assert found.low.tolist() == [0, 1, 2]
    assert found.high.tolist() == [last, last + 1, last + 2]
    np.testing.assert_allclose(found.mean, last / 2 + np.arange(3), rtol=1e-6)
    np.testing.assert_allclose(found.variance, 9 * (pixels**2 - 1) / 12, rtol=1e-5)


def test_the_places_of_a_cell_count_as_pixels_of_one_channel(way: str) -> None:
    grid = torch.zeros(9, 5, 2, 2, 3)
    grid[:, :, 1, 1, 2] = 4  # a quarter of the last channel
    found = measure(grid)
    np.testing.assert_allclose(found.mean, [0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(found.variance, [0, 0, 3], atol=1e-5)
    assert found.high.tolist() == [0, 0, 4]


@pytest.mark.parametrize("value", [1e4, -1e4, 0.0, 0.1])
@pytest.mark.parametrize("fold", [1, 2])
def test_a_constant_grid_has_no_variance_whatever_its_mean(way: str, fold: int, value: float) -> None:
    found = measure(torch.full((33, 47, fold, fold, 20), value))
    np.testing.assert_allclose(found.mean, value, rtol=1e-5)
    assert (np.abs(found.variance) < 1e-6).all()  # which NaN is not


def test_a_small_variance_is_found_beside_a_large_mean(way: str) -> None:
    grid = 1e4 + torch.randn(65, 33, 1, 1, 16)
    np.testing.assert_allclose(measure(grid).variance, truth(grid).variance, rtol=1e-3)


def test_no_variance_is_negative_though_the_first_pixel_is_unlike_all_others(way: str) -> None:
    grid = torch.full((512, 512, 1, 1, 16), 8.17527961730957)
    grid[0, 0] = 0
    assert (measure(grid).variance >= 0).all()


def test_a_part_of_a_grid_that_is_not_contiguous_is_measured_too(way: str) -> None:
    grid = torch.randn(20, 30, 2, 2, 12)
    agree(measure(grid[3:11, 5:18]), truth(grid[3:11, 5:18]))


def test_several_threads_find_what_one_finds(way: str) -> None:
    grid = torch.randn(64, 48, 2, 2, 16)
    one = measure(grid)
    torch.set_num_threads(2)
    try:
        agree(measure(grid), one)
    finally:
        torch.set_num_threads(1)


def test_two_grids_can_be_measured_at_once(way: str) -> None:
    grids = [torch.randn(40, 30, 1, 1, 16) + k for k in range(2)]
    alone = [measure(grid) for grid in grids]
    start = threading.Barrier(2)

    def many(k: int) -> list[Range]:
        start.wait()
        return [measure(grids[k]) for _ in range(20)]

    with ThreadPoolExecutor(2) as pool:
        for k, found in enumerate(pool.map(many, range(2))):
            for each in found:
                agree(each, alone[k])


def vector(*values: float) -> Vector:
    return np.array(values, np.float32)


def test_the_range_of_two_parts_is_that_of_the_whole_by_hand() -> None:
    one = Range(2, vector(1), vector(1), vector(0), vector(2))  # 0 2
    other = Range(1, vector(7), vector(0), vector(7), vector(7))  # 7
    both = one.combined_with(other)  # 0 2 7: mean 3, variance (9 + 1 + 16) / 3
    assert both.count == 3
    np.testing.assert_allclose([*both.mean, *both.variance, *both.low, *both.high], [3, 26 / 3, 0, 7], rtol=1e-6)


@settings(deadline=None, max_examples=25)
@given(sizes=st.lists(st.integers(1, 40), min_size=2, max_size=4), mean=st.sampled_from([0.0, 5.0, -300.0]))
def test_the_range_of_all_parts_is_that_of_the_whole(sizes: list[int], mean: float) -> None:
    parts = [mean + k + torch.randn(rows, 3, 2, 2, 5) for k, rows in enumerate(sizes)]
    known = measure(parts[0])
    for part in parts[1:]:
        known = known.combined_with(measure(part))
    agree(known, truth(torch.cat(parts)))


# --- encoding


def grid_of(image: Tensor, fold: int) -> Tensor:
    """(rows, columns, C) as a new grid."""
    rows, columns, channels = image.shape
    grid = torch.empty(rows // fold, columns // fold, fold, fold, channels, dtype=image.dtype)
    (grid if fold == 1 else cells(grid)).copy_(image[:, :, None, None] if fold == 1 else cells(image[:, :, None, None]))
    return grid


def numbers(rows: int, columns: int, channels: int) -> Tensor:
    """Quarters from -32 to 32: exact in 16 bits, and a few products and sums of them in float32."""
    return torch.randint(-128, 129, (rows, columns, channels)) / 4


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("values", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32, torch.float16])
@pytest.mark.parametrize(("fold", "to"), [(1, 1), (1, 2), (2, 1), (2, 2)])
@pytest.mark.parametrize("channels", CHANNELS)
def test_encoding_multiplies_adds_cuts_off_and_goes_from_fold_to_fold(
    way: str, channels: int, fold: int, to: int, kind: torch.dtype, values: torch.dtype, relu: bool
) -> None:
    rows, columns = (7, 13) if fold == to == 1 else (6, 14)
    image = numbers(rows, columns, channels)
    multiply = 2.0 ** (torch.arange(channels) % 3 - 1)
    add = torch.full((channels,), 0.5 if relu else 90.5)  # uint8 without ReLU: its callers stay within 0 to 255
    expected = image * multiply + add
    expected = expected.clamp(min=0) if relu else expected
    frame = torch.full((rows // to + 3, columns // to + 3, to, to, channels), 77, dtype=kind)
    target = frame[1 : rows // to + 1, 2 : columns // to + 2]
    grid = grid_of(image.to(values), fold)
    encode(grid, multiply.numpy(), add.numpy(), target, relu=relu)
    assert torch.equal(target, grid_of(expected.to(kind), to))
    assert torch.equal(grid, grid_of(image.to(values), fold))
    target.fill_(77)
    assert (frame == 77).all()  # nothing beside the target was written


@pytest.mark.parametrize("fold", [1, 2])
def test_bytes_are_cut_off_at_both_ends_and_below_the_point(way: str, fold: int) -> None:
    image = torch.tensor([-9.0, -0.25, 0, 0.99, 1, 254.5, 255.5, 256, 300, 1e6]).repeat(2, 1)[..., None]
    target = torch.empty(1, 5, 2, 2, 1, dtype=torch.uint8)
    encode(grid_of(image, fold), vector(1), vector(0), target, relu=True)
    assert cells(target)[0, 0].flatten().tolist() == [0, 0, 0, 0, 1, 254, 255, 255, 255, 255]


@pytest.mark.parametrize("channels", [3, 4])
def test_a_picture_is_folded_into_a_part_of_a_grid(way: str, channels: int) -> None:
    whole = torch.randint(0, 256, (channels, 12, 10), dtype=torch.uint8)
    frame = torch.full((6, 9, 2, 2, channels), 77, dtype=torch.uint8)
    target = frame[1:5, 2:7]
    kernels.fold(whole[:, 2:10], target)
    assert torch.equal(target, grid_of(whole[:, 2:10].permute(1, 2, 0), 2))
    target.fill_(77)
    assert (frame == 77).all()


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
@pytest.mark.parametrize("fold", [1, 2])
@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.float32])
@pytest.mark.parametrize("around", [(1, 1, 1, 1), (0, 2, 2, 1), (2, 0, 1, 0)])
def test_the_padding_is_that_of_the_picture(
    way: str, mode: str, fold: int, kind: torch.dtype, around: tuple[int, int, int, int]
) -> None:
    above, below, left, right = around
    image = torch.randint(0, 99, (10, 12, 5))
    rows, columns = 10 // fold, 12 // fold
    grid = torch.full((rows + above + below, columns + left + right, fold, fold, 5), 77, dtype=kind)
    grid[above : above + rows, left : left + columns] = grid_of(image.to(kind), fold)
    kernels.pad(grid, mode, *around)
    padding = [fold * each for each in (left, right, above, below)]
    expected = F.pad(image.permute(2, 0, 1)[None].float(), padding, mode=mode)[0].permute(1, 2, 0)
    assert torch.equal(grid, grid_of(expected.to(kind), fold))


def test_values_that_are_not_contiguous_are_encoded_too(way: str) -> None:
    image = numbers(8, 10, 12)
    values = grid_of(image, 2)[:, 1:4]
    target = torch.empty(4, 3, 2, 2, 12)
    encode(values, np.ones(12, np.float32), np.zeros(12, np.float32), target, relu=True)
    assert torch.equal(target, grid_of(image[:, 2:8].clamp(min=0), 2))


def test_pixels_of_a_picture_are_written_where_they_lie(way: str) -> None:
    picture = torch.zeros(1, 3, 8, 6, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    image = torch.randint(0, 256, (4, 6, 3)).float()
    target = picture[0, :, 2:6].permute(1, 2, 0)[:, :, None, None]
    encode(grid_of(image, 2), np.ones(3, np.float32), np.full(3, 0.5, np.float32), target, relu=True)
    assert torch.equal(picture[0, :, 2:6].permute(1, 2, 0).float(), image)
    assert not picture[..., :2, :].any()
    assert not picture[..., 6:, :].any()


# --- adding to the stream


@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
@pytest.mark.parametrize("channels", CHANNELS)
def test_the_stream_takes_a_multiple_and_tells_its_ends(way: str, channels: int, kind: torch.dtype) -> None:
    stream, values = numbers(5, 9, channels).to(kind), numbers(5, 9, channels)
    before = values.clone()
    multiply = 2.0 ** (torch.arange(channels) % 3 - 1)
    expected = stream.float() + values * multiply
    low, high = accumulate(stream, values, multiply.numpy())
    assert stream.dtype == kind
    assert torch.equal(stream.float(), expected)
    assert torch.equal(values, before)
    assert low.tolist() == expected.amin((0, 1)).tolist()
    assert high.tolist() == expected.amax((0, 1)).tolist()


def test_ends_are_the_least_and_the_largest_of_each_channel() -> None:
    low, high = extremes(torch.tensor([[[1.0, -5]], [[3, 2]], [[2, 0]]]))
    assert (low.tolist(), high.tolist()) == ([1, -5], [3, 2])


# --- quantising


def test_the_largest_weight_of_a_filter_is_level_127(way: str) -> None:
    weight = torch.tensor([[127.0, -64], [0.5, -1], [0, 0]])[..., None, None]
    levels, factors = quantise(weight, vector(1))
    assert levels.dtype == torch.int8
    assert levels[:2, :, 0, 0].tolist() == [[127, -64], [64, -127]]  # 63.5 is rounded to the even or away from 0: 64
    assert not levels[2].any()
    close(factors[:2], torch.tensor([1, 1 / 127]))


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("channels", CHANNELS)
def test_levels_times_factors_are_the_scaled_weight_to_half_a_level(way: str, channels: int, size: int) -> None:
    weight, scale = torch.randn(9, 2 * channels, size, size), 0.01 + torch.rand(channels)
    levels, factors = quantise(weight, scale.numpy())
    scaled = weight * scale.repeat(2)[:, None, None]  # the scale is repeated for the places of a cell
    off = (levels * factors[:, None, None, None] - scaled).abs() / factors[:, None, None, None]
    assert off.max() < 0.5001
    assert torch.equal(levels.abs().amax((1, 2, 3)), torch.full((9,), 127, dtype=torch.int8))


def test_weights_that_are_not_contiguous_are_quantised_too(way: str) -> None:
    weight = torch.randn(4, 6, 3, 3)
    levels, factors = quantise(weight, np.ones(6, np.float32))
    turned, again = quantise(weight.contiguous(memory_format=torch.channels_last), np.ones(6, np.float32))
    assert (levels.int() - turned.int()).abs().max() <= 1  # the two ways round a tie each in its own direction
    close(factors, again)
