"""Folded grids: convolutions on cells of 2 x 2 pixels give what the plain ones give, up to the picture's edge."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from perceptual.fast.folding import cells, doubled_kernel, fill_padding, folded_kernel, transposed_kernel

PADDINGS = ("reflect", "replicate")
close = torch.testing.assert_close


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def fold(image: Tensor) -> Tensor:
    """(1, C, 2 h, 2 w) -> (h, w, 2, 2, C), by the definition."""
    _, channels, height, width = image.shape
    return image[0].view(channels, height // 2, 2, width // 2, 2).permute(1, 3, 2, 4, 0).contiguous()


def as_image(grid: Tensor) -> Tensor:
    """(rows, columns, fold, fold, C) -> (1, fold * fold * C, rows, columns), what a convolution reads."""
    return grid.flatten(2).permute(2, 0, 1)[None]


def as_grid(image: Tensor, fold: int = 2) -> Tensor:
    """What a convolution gives, (1, fold * fold * C, rows, columns), as a grid."""
    grid = image[0].permute(1, 2, 0)
    return grid.reshape(*grid.shape[:2], fold, fold, -1)


def framed(grid: Tensor, mode: str, before: int, behind: int) -> Tensor:
    """The grid with a frame on all four sides."""
    rows, columns = (side + before + behind for side in grid.shape[:2])
    out = grid.new_full((rows, columns, *grid.shape[2:]), -1)
    out[before : rows - behind, before : columns - behind] = grid
    fill_padding(out, mode, before, behind)
    fill_padding(out.transpose(0, 1).transpose(2, 3), mode, before, behind)
    return out


# --- the grid and its frame


def test_a_folded_pixel_holds_row_column_and_channel_in_that_order() -> None:
    image = torch.arange(2 * 4 * 6.0).view(1, 2, 4, 6)  # 24 * channel + 6 * row + column
    grid = fold(image)
    assert grid.shape == (2, 3, 2, 2, 2)
    assert grid[0, 0].flatten().tolist() == [0, 24, 1, 25, 6, 30, 7, 31]
    assert grid[1, 2, 1, 0].tolist() == [6 * 3 + 4, 24 + 6 * 3 + 4]


def test_cells_lead_from_one_fold_to_the_other_and_back() -> None:
    image = torch.randn(1, 3, 6, 10)
    plain = image[0].permute(1, 2, 0)[:, :, None, None]
    folded, back = torch.empty(3, 5, 2, 2, 3), torch.empty(6, 10, 1, 1, 3)
    cells(folded).copy_(cells(plain))
    assert torch.equal(folded, fold(image))
    cells(back).copy_(cells(folded))
    assert torch.equal(back, plain)


def test_cells_are_a_view_of_a_part_of_a_grid_too() -> None:
    whole = torch.zeros(6, 8, 1, 1, 2)
    cells(whole[2:4, 1:5])[0, 1, 1, 0] = 7  # second row of the first cell, first column of the second
    assert whole.nonzero()[:, :2].unique(dim=0).tolist() == [[3, 3]]


@pytest.mark.parametrize(
    ("mode", "expected"), [("reflect", [3, 2, 1, 2, 3, 4, 3]), ("replicate", [1, 1, 1, 2, 3, 4, 4])]
)
def test_the_frame_of_a_plain_grid_is_that_of_a_hand(mode: str, expected: list[float]) -> None:
    grid = torch.tensor([0.0, 0, 1, 2, 3, 4, 0]).view(7, 1, 1, 1, 1)
    fill_padding(grid, mode, 2, 1)
    assert grid.flatten().tolist() == expected


@pytest.mark.parametrize(
    ("mode", "expected"), [("reflect", [3, 2, 1, 2, 3, 4, 5, 6, 5, 4]), ("replicate", [1, 1, 1, 2, 3, 4, 5, 6, 6, 6])]
)
def test_the_frame_of_a_folded_grid_counts_pixels_and_not_cells(mode: str, expected: list[float]) -> None:
    grid = torch.tensor([0.0, 0, 1, 2, 3, 4, 5, 6, 0, 0]).view(5, 1, 2, 1, 1).repeat(1, 1, 1, 2, 1)
    fill_padding(grid, mode, 1, 1)
    assert grid[:, 0, :, 0].flatten().tolist() == expected
    assert torch.equal(grid[..., 0, :], grid[..., 1, :])  # columns in the cell are not touched


@pytest.mark.parametrize("mode", PADDINGS)
@pytest.mark.parametrize("by", [1, 2])
@settings(deadline=None, max_examples=20)
@given(height=st.integers(5, 9), width=st.integers(5, 9), before=st.integers(0, 2), behind=st.integers(0, 2))
def test_a_framed_grid_is_the_padded_picture(
    by: int, mode: str, height: int, width: int, before: int, behind: int
) -> None:
    image = torch.arange(2.0 * by * height * by * width).view(1, 2, by * height, by * width)
    padded = F.pad(image, (by * before, by * behind) * 2, mode=mode)
    turn = fold if by == 2 else as_plain
    assert torch.equal(framed(turn(image), mode, before, behind), turn(padded))


def as_plain(image: Tensor) -> Tensor:
    return image[0].permute(1, 2, 0)[:, :, None, None].contiguous()


# --- convolutions: another order of up to 243 products of normal numbers, so sums of up to 60 differ by some 1e-5


@pytest.mark.parametrize("mode", PADDINGS)
@pytest.mark.parametrize("size", [1, 3, 5, 7, 9])
def test_a_folded_kernel_does_what_the_plain_one_does(size: int, mode: str) -> None:
    image, weight = torch.randn(1, 3, 12, 14), torch.randn(5, 3, size, size)
    expected = F.conv2d(F.pad(image, (size // 2,) * 4, mode=mode), weight)
    folded = folded_kernel(weight)
    reach = folded.shape[-1] // 2
    assert folded.shape[:2] == (4 * 5, 4 * 3)
    found = F.conv2d(as_image(framed(fold(image), mode, reach, reach)), folded)
    close(as_grid(found), fold(expected), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("size", "reach"), [(1, 0), (3, 1), (5, 1), (7, 2), (9, 2)])
def test_a_folded_kernel_is_no_larger_than_it_must_be(size: int, reach: int) -> None:
    folded = folded_kernel(torch.ones(1, 1, size, size))
    assert folded.shape == (4, 4, 2 * reach + 1, 2 * reach + 1)
    assert torch.equal(folded.sum((1, 2, 3)), torch.full((4,), float(size**2)))  # every tap is there once


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_a_doubled_kernel_is_doubling_and_the_convolution_behind_it(mode: str, padding: str) -> None:
    image, weight = torch.randn(1, 3, 7, 9), torch.randn(4, 3, 3, 3)
    doubled = F.interpolate(image, scale_factor=2, mode=mode)
    expected = F.conv2d(F.pad(doubled, (1,) * 4, mode=padding), weight)
    small = framed(as_plain(image), "replicate", 1, 1)  # which the nearest pixel makes of a reflected frame too
    found, expected = as_grid(F.conv2d(as_image(small), doubled_kernel(weight, mode))), fold(expected)
    if (mode, padding) == ("bilinear", "reflect"):
        found, expected = found[1:-1, 1:-1], expected[1:-1, 1:-1]
    close(found, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("columns", ["first", "inner", "last"])
@pytest.mark.parametrize("rows", ["first", "inner", "last"])
def test_the_outermost_pixels_of_reflected_bilinear_doubling_have_kernels_of_their_own(rows: str, columns: str) -> None:
    image, weight = torch.randn(1, 3, 6, 8), torch.randn(4, 3, 3, 3)
    doubled = F.interpolate(image, scale_factor=2, mode="bilinear")
    expected = F.conv2d(F.pad(doubled, (1,) * 4, mode="reflect"), weight)
    pairs = {"first": slice(0, 2), "inner": slice(None), "last": slice(-2, None)}  # of small pixels
    ends = {"first": slice(0, 1), "inner": slice(2, -2), "last": slice(-1, None)}  # of large ones
    kernel = doubled_kernel(weight, "bilinear", rows, columns)
    phases = [2 if part == "inner" else 1 for part in (rows, columns)]
    assert kernel.shape == (4 * phases[0] * phases[1], 3, phases[0] + 1, phases[1] + 1)
    found = F.conv2d(image[..., pairs[rows], pairs[columns]], kernel)[0]
    height, width = found.shape[-2:]
    found = found.view(*phases, 4, height, width).permute(2, 3, 0, 4, 1).reshape(4, phases[0] * height, -1)
    close(found, expected[0, :, ends[rows], ends[columns]], rtol=1e-5, atol=1e-4)


def test_a_doubled_kernel_of_ones_weighs_each_small_pixel_by_its_share() -> None:
    kernel = doubled_kernel(torch.ones(1, 1, 3, 3), "nearest")  # 3 pixels in a row are 1 of one pixel and 2 of another
    assert kernel[0, 0].tolist() == [[1, 2, 0], [2, 4, 0], [0, 0, 0]]
    assert kernel[3, 0].tolist() == [[0, 0, 0], [0, 4, 2], [0, 2, 1]]
    assert doubled_kernel(torch.ones(1, 1, 3, 3), "bilinear").sum((1, 2, 3)).tolist() == [9, 9, 9, 9]


@pytest.mark.parametrize("size", [(5, 7), (1, 4), (1, 1)])
def test_a_transposed_kernel_is_the_convolution_of_stride_one_half_up_to_the_edge(size: tuple[int, int]) -> None:
    image, weight = torch.randn(1, 4, *size), torch.randn(4, 3, 3, 3)
    expected = F.conv_transpose2d(image, weight, stride=2, padding=1, output_padding=1)
    found = F.conv2d(F.pad(image, (0, 1, 0, 1)), transposed_kernel(weight))
    close(as_grid(found), fold(expected), rtol=1e-5, atol=1e-4)


def test_a_transposed_kernel_has_each_of_the_nine_taps_once() -> None:
    kernel = transposed_kernel(torch.arange(1, 10.0).view(1, 1, 3, 3))
    assert kernel[0, 0].tolist() == [[5, 0], [0, 0]]  # an even pixel sees the centre alone
    assert kernel[3, 0].tolist() == [[9, 7], [3, 1]]
    assert sorted(kernel[kernel > 0].tolist()) == list(range(1, 10))
