"""resampling: MATLAB's imresize by hand, by a dense matrix and by the files of the benchmarks; blur and crops."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from perceptual.errors import ConfigError
from perceptual.resampling import degrade, gaussian_blur, gaussian_mean, imresize, modcrop

few = settings(max_examples=25, deadline=None)
sides = st.integers(1, 12)
scales = st.sampled_from([1 / 8, 1 / 4, 1 / 3, 1 / 2, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0])
seeds = st.integers(0, 2**32 - 1)
close = torch.testing.assert_close
# Keys's kernel at 0.25, 0.75, 1.25 and 1.75 is 111, 29, -9 and -3 of 128: what doubling and halving are made of.
IMPULSE = torch.tensor([-3, -9, 29, 111, 111, 29, -9, -3], dtype=torch.float64) / 128


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_levels(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


# --- the files of the benchmarks


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "scale", "count"),
    [
        *[(name, scale, count) for name, count in (("Set5", 5), ("Set14", 14)) for scale in (2, 3, 4)],
        pytest.param("BSD100", 4, 100, marks=pytest.mark.slow),
    ],
)
def test_the_low_resolution_files_of_the_benchmarks_come_out_bit_for_bit(name: str, scale: int, count: int) -> None:
    folder = SHARED / "data" / "sr" / name / f"x{scale}"
    if not folder.is_dir():
        pytest.skip("the pictures of the benchmarks are not part of this repository")
    files = sorted(folder.glob("*_HR.png"))
    assert len(files) == count
    assert [file.name for file in files if not np.array_equal(low_by_imresize(file, scale), low_of(file))] == []


def low_by_imresize(high: Path, scale: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return imresize(np.array(Image.open(high)), 1 / scale)


def low_of(high: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(Image.open(high.with_name(high.name.replace("_HR", "_LR"))))


# --- imresize: known answers


def test_doubling_an_impulse_gives_keyss_kernel() -> None:
    line = torch.zeros(1, 12, dtype=torch.float64)
    line[0, 6] = 1
    expected = torch.zeros(24, dtype=torch.float64)
    expected[9:17] = IMPULSE
    close(imresize(line, size=(1, 24))[0], expected, atol=1e-12, rtol=0)
    close(imresize(line.T, size=(24, 1))[:, 0], expected, atol=1e-12, rtol=0)


def test_halving_an_impulse_gives_the_kernel_twice_as_wide_and_half_as_high() -> None:
    for place in range(4, 12):  # the output at o looks at 2 o - 3 ... 2 o + 4
        line = torch.zeros(1, 16, dtype=torch.float64)
        line[0, place] = 1
        expected = [IMPULSE[place - (2 * o - 3)] / 2 if 0 <= place - (2 * o - 3) < 8 else 0.0 for o in range(8)]
        close(imresize(line, size=(1, 8))[0], torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0)


def test_the_border_is_repeated() -> None:
    line = torch.zeros(1, 8, dtype=torch.float64)
    line[0, 0] = 1  # as if the pixels at -1, -2 ... were 1 too: 137 = -3 + 29 + 111, 102 = -9 + 111, 26 = -3 + 29
    close(imresize(line, size=(1, 16))[0, :6] * 128, torch.tensor([137.0, 102, 26, -9, -3, 0]).double())


def test_levels_are_rounded_half_up_and_stay_in_range() -> None:
    step = torch.tensor([[0, 0, 0, 0, 255, 255, 255, 255]], dtype=torch.uint8)
    expected = [0] * 7 + [52, 203] + [255] * 7  # 0, -3, -9, 26, 102, 137, 131, 128 of 128; 51.8 and 203.2
    assert imresize(step, size=(1, 16))[0].tolist() == expected
    assert imresize(torch.tensor([[1, 2]], dtype=torch.uint8), size=(1, 1)).item() == 2  # 1.5
    assert imresize(torch.tensor([[2, 3]], dtype=torch.uint8), size=(1, 1)).item() == 3  # 2.5, not to even


def test_levels_are_rounded_after_the_rows_and_again_after_the_columns() -> None:
    picture = torch.tensor([[1, 0], [0, 0]], dtype=torch.uint8)  # 0.5 becomes 1, and 0.5 of that 1 again; not 0.25
    assert imresize(picture, 0.5).item() == 1
    assert imresize(picture.double(), 0.5).item() == pytest.approx(0.25)


def test_floats_are_not_clamped_and_keep_their_type() -> None:
    for dtype in (torch.float32, torch.float64):
        edge = torch.tensor([[0.0, 0, 0, 0, 1, 1, 1, 1]], dtype=dtype)
        large = imresize(edge, 2.0)
        assert large.dtype == dtype
        close(large.amin(), torch.tensor(-9 / 128, dtype=dtype))
        close(large.amax(), torch.tensor(137 / 128, dtype=dtype))


def test_a_ramp_stays_a_ramp_when_enlarged() -> None:
    ramp = torch.arange(16, dtype=torch.float64).expand(5, 16)
    for scale in (2, 3, 4, 8):
        places = (torch.arange(16 * scale, dtype=torch.float64) + 0.5) / scale - 0.5
        inside = slice(2 * scale, -2 * scale)
        close(imresize(ramp, float(scale))[0, inside], places[inside])
        close(imresize(ramp**2, float(scale))[0, inside], places[inside] ** 2)  # and a parabola a parabola
        close(imresize(ramp.T, float(scale))[inside, 0], places[inside])


def test_a_ramp_stays_a_ramp_when_made_smaller_by_a_whole_number() -> None:
    ramp = torch.arange(48, dtype=torch.float64).expand(48, 48)
    for scale in (2, 3, 4):
        close(imresize(ramp, 1 / scale)[0, 2:-2], (torch.arange(48 / scale).double() * scale + (scale - 1) / 2)[2:-2])


@pytest.mark.parametrize(
    ("side", "scale", "expected"),
    [
        *[(480, 1 / 3, 160), (481, 1 / 3, 161), (12, 1 / 3, 4), (13, 1 / 3, 5), (7, 1 / 2, 4), (8, 1 / 8, 1)],
        *[(1, 1 / 8, 1), (5, 1.5, 8), (10, 0.7, 7), (50, 1.1, 55), (49, 1 / 49, 1), (3, 4.0, 12)],
    ],
)
def test_a_side_is_rounded_up_but_for_what_floats_add(side: int, scale: float, expected: int) -> None:
    assert imresize(torch.zeros(side, 3), scale).shape[0] == expected
    assert imresize(torch.zeros(2, side), scale).shape[1] == expected


def test_every_multiple_is_divided_exactly() -> None:
    for scale in (2, 3, 4, 5, 6, 7, 8):
        for length in (1, 2, 37, 160, 341):
            assert imresize(torch.zeros(1, length * scale), 1 / scale).shape == (1, length)


def test_a_size_resizes_each_axis_by_its_own_scale() -> None:
    picture = random(2, 3, 6, 8)
    stretched = imresize(picture, size=(12, 4))
    assert stretched.shape == (2, 3, 12, 4)
    close(stretched, imresize(imresize(picture, size=(6, 4)), size=(12, 4)))
    close(imresize(picture, size=(12, 16)), imresize(picture, 2.0))


def test_the_stronger_reduction_goes_first() -> None:
    picture = random_levels(12, 12)  # rounding between the axes tells the order
    columns_first = imresize(imresize(picture, size=(12, 3)), size=(6, 3))
    rows_first = imresize(imresize(picture, size=(3, 12)), size=(3, 6))
    assert torch.equal(imresize(picture, size=(6, 3)), columns_first)
    assert torch.equal(imresize(picture, size=(3, 6)), rows_first)
    assert torch.equal(imresize(picture, 0.5), imresize(imresize(picture, size=(6, 12)), size=(6, 6)))


# --- imresize: properties


def matrix(length: int, out: int, scale: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """(out, length): the weights of MATLAB's imresize along one axis, entry by entry."""
    wide = min(scale, 1.0)
    weights = np.zeros((out, length))
    for row in range(out):
        place = (row + 0.5) / scale - 0.5
        for tap in range(math.floor(place - 3 / wide), math.ceil(place + 3 / wide) + 1):
            x = abs(wide * (place - tap))
            value = 1.5 * x**3 - 2.5 * x**2 + 1 if x <= 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0
            weights[row, min(max(tap, 0), length - 1)] += value
    return weights / weights.sum(1, keepdims=True)


@few
@given(sides, sides, scales, seeds)
def test_it_is_a_matrix_on_either_side(height: int, width: int, scale: float, seed: int) -> None:
    picture = random(height, width, seed=seed)
    out = imresize(picture, scale)
    down, across = matrix(height, out.shape[0], scale), matrix(width, out.shape[1], scale)
    close(out, torch.from_numpy(down @ picture.numpy() @ across.T), atol=1e-10, rtol=1e-10)
    close(imresize(picture.float(), scale), out.float(), atol=1e-5, rtol=1e-5)


@few
@given(sides, sides, scales, seeds)
def test_both_roundings_are_those_of_the_matrices(height: int, width: int, scale: float, seed: int) -> None:
    picture = random_levels(height, width, seed=seed)
    out = imresize(picture, scale)
    rows = matrix(height, out.shape[0], scale) @ picture.numpy()
    exact = np.clip(np.floor(rows + 0.5), 0, 255) @ matrix(width, out.shape[1], scale).T
    near_half = np.abs(rows - np.floor(rows) - 0.5).min() < 1e-6  # where the last bit of a float decides
    assert near_half or np.abs(out.numpy() - np.clip(exact, 0, 255)).max() <= 0.5 + 1e-6


@few
@given(sides, sides, scales, st.integers(0, 255))
def test_a_constant_picture_stays_constant(height: int, width: int, scale: float, level: int) -> None:
    levels = torch.full((3, height, width), level, dtype=torch.uint8)
    assert imresize(levels, scale).eq(level).all()
    floats = torch.full((3, height, width), level / 255)
    close(
        imresize(floats, scale), imresize(floats, scale).new_tensor(level / 255).expand(imresize(floats, scale).shape)
    )


@few
@given(sides, sides, scales, seeds)
def test_arrays_give_what_tensors_give(height: int, width: int, scale: float, seed: int) -> None:
    for shape in ((height, width), (height, width, 3), (height, width, 1)):
        levels = random_levels(*shape, seed=seed).numpy()
        tensor = torch.from_numpy(levels.copy()).movedim((0, 1), (-2, -1))
        out = imresize(levels, scale)
        assert isinstance(out, np.ndarray)
        assert out.dtype == np.uint8
        assert out.shape[2:] == shape[2:]
        assert out.flags.c_contiguous
        assert np.array_equal(out, imresize(tensor, scale).movedim((-2, -1), (0, 1)).numpy())
    floats = np.ones((height, width, 3), np.float32) * 0.25
    assert imresize(floats, scale).dtype == np.float32


@few
@given(sides, sides, scales, seeds)
def test_mirroring_and_turning_before_is_mirroring_and_turning_after(
    height: int, width: int, scale: float, seed: int
) -> None:
    picture = random(3, height, width, seed=seed)
    small = imresize(picture, scale)
    close(imresize(picture.mT, scale), small.mT)
    if small.shape[-1] == width * scale:  # MATLAB's grid begins at the left: else it is cut at the right
        close(imresize(picture.flip(-1), scale), small.flip(-1))


def test_scale_one_is_the_same_picture_and_another_one() -> None:
    for picture in (random(3, 5, 6), random_levels(3, 5, 6)):
        same = imresize(picture, 1.0)
        assert torch.equal(same, picture)
        assert same.data_ptr() != picture.data_ptr()


def test_arguments_are_not_changed() -> None:
    for picture in (random(1, 3, 8, 8), random_levels(1, 3, 8, 8)):
        before = picture.clone()
        imresize(picture, 0.5)
        imresize(picture, 2.0)
        assert torch.equal(picture, before)
    array = random_levels(8, 8).numpy()
    before_array = array.copy()
    imresize(array, 0.5)[:] = 7
    assert np.array_equal(array, before_array)


def test_any_dimensions_before_the_last_two_are_kept() -> None:
    picture = random(2, 3, 4, 8, 6)
    close(imresize(picture, 0.5)[1, 2, 3], imresize(picture[1, 2, 3], 0.5))


def test_gradients_go_through() -> None:
    picture = random(1, 2, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: imresize(x, 0.5), (picture,))
    assert torch.autograd.gradcheck(lambda x: imresize(x, 2.0), (picture,))


def test_arrays_that_may_not_be_written_are_taken_without_a_warning() -> None:
    picture = np.asarray(Image.fromarray(random_levels(8, 8).numpy()))
    assert not picture.flags.writeable
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # else only the first one of the process is told
    try:
        assert np.array_equal(imresize(picture, 0.5), imresize(picture.copy(), 0.5))
    finally:
        torch.set_warn_always(always)


# --- imresize: errors


def test_a_scale_or_a_size_is_wanted() -> None:
    for arguments in ({}, {"scale": 2.0, "size": (4, 4)}):
        with pytest.raises(ConfigError, match=r"^imresize needs either a scale or a size: give one of them\.$"):
            imresize(torch.zeros(4, 4), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(0, 4), (4, 0), (-1, 4)])
def test_a_size_without_pixels_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=rf"A picture of 6 x 5 px cannot be resized to {size[1]} x {size[0]}\."):
        imresize(torch.zeros(5, 6), size=size)


@pytest.mark.parametrize("scale", [0.0, -1.0, 1e-12])
def test_a_scale_that_leaves_no_pixels_is_refused(scale: float) -> None:
    with pytest.raises(ConfigError, match="A picture of 6 x 5 px cannot be resized"):
        imresize(torch.zeros(5, 6), scale)


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_scale_that_is_no_number_is_refused(scale: float) -> None:
    with pytest.raises(ConfigError, match="cannot be resized"):
        imresize(torch.zeros(5, 6), scale)


def test_a_picture_without_pixels_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be resized"):
        imresize(torch.zeros(0, 6), 2.0)


def test_a_picture_without_pixels_is_refused_by_size_too() -> None:
    with pytest.raises(ConfigError, match="cannot be resized"):
        imresize(torch.zeros(0, 6), size=(4, 4))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int16])
def test_whole_numbers_other_than_levels_are_refused_or_resized(dtype: torch.dtype) -> None:
    try:
        small = imresize(torch.full((8, 8), 100, dtype=dtype), 0.5)
    except ConfigError:
        return
    assert torch.equal(small, torch.full((4, 4), 100, dtype=dtype))


# --- degrade


@few
@given(sides, sides, st.sampled_from([1, 2, 3, 4, 8]), seeds, st.sampled_from([0.0, 1.0]))
def test_the_degraded_picture_has_levels_of_a_file(height: int, width: int, scale: int, seed: int, blur: float) -> None:
    low = degrade(random(2, 3, height * scale, width * scale, seed=seed).float(), scale, blur=blur)
    assert low.shape == (2, 3, height, width)
    assert low.min() >= 0
    assert low.max() <= 1
    close(low * 255, (low * 255).round(), atol=1e-4, rtol=0)
    assert torch.equal((low * 255 + 0.5).floor() / 255, low)


@few
@given(sides, sides, st.sampled_from([2, 3, 4, 8]), seeds)
def test_without_blur_it_is_imresize_to_one_level(height: int, width: int, scale: int, seed: int) -> None:
    levels = 64 + random_levels(1, 3, height * scale, width * scale, seed=seed) // 2  # what overshoots is not cut off
    low = degrade(levels.float() / 255, scale)
    assert (low * 255 - imresize(levels, 1 / scale).float()).abs().max() < 1.001  # which rounds after the rows too


def test_a_blur_comes_before_the_reduction() -> None:
    picture = random(1, 3, 16, 16)
    assert torch.equal(degrade(picture, 4, blur=1.0), degrade(gaussian_blur(picture, 1.0), 4))
    stripes = (torch.arange(16) % 8 < 4).double().expand(1, 3, 16, 16)
    assert degrade(stripes, 2, blur=2.0).std() < degrade(stripes, 2).std()


def test_half_a_level_is_rounded_up() -> None:
    assert torch.equal(
        degrade(torch.full((1, 3, 4, 4), 0.5, dtype=torch.float64), 2) * 255, torch.full((1, 3, 2, 2), 128.0).double()
    )


def test_what_is_no_multiple_is_refused_with_the_mend() -> None:
    for height, width in ((8, 9), (9, 8)):
        with pytest.raises(
            ConfigError, match=f"^{width} x {height} px is not a multiple of 4: crop it first with `modcrop`"
        ):
            degrade(torch.zeros(1, 3, height, width), 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: imresize(x, "2"), "scale of imresize is '2'"),
        (lambda x: imresize(x, size=7), "size of imresize is 7: give two whole numbers"),
        (lambda x: imresize(x, size=(7,)), "give two whole numbers"),
        (lambda x: imresize(x, size=(7, 7.5)), "give two whole numbers"),
        (lambda x: imresize(x[0, 0, 0], 2), r"not \(6,\)"),
        (lambda x: imresize([1.0], 2), "not list"),
        (lambda x: degrade(x, 0), "The scale is 0: give a whole number"),
        (lambda x: degrade(x, 2.0), r"The scale is 2\.0: give a whole number"),
        (lambda x: modcrop(x, 0), "The scale is 0: give a whole number"),
        (lambda x: modcrop(x, 1.5), r"The scale is 1\.5: give a whole number"),
    ],
)
def test_arguments_that_cannot_be_are_one_sentence(make: Callable[[Tensor], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make(torch.zeros(1, 3, 6, 6))
    assert str(caught.value).endswith(".")


# --- modcrop, blur


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9))
def test_modcrop_cuts_at_the_bottom_and_right_to_multiples(height: int, width: int, scale: int) -> None:
    picture = torch.arange(height * width).view(1, height, width)
    cropped = modcrop(picture, scale)
    rows, columns = cropped.shape[-2:]
    assert rows % scale == columns % scale == 0
    assert 0 <= height - rows < scale
    assert 0 <= width - columns < scale
    assert torch.equal(cropped, picture[:, :rows, :columns])
    assert torch.equal(modcrop(cropped, scale), cropped)


@few
@given(st.floats(0.3, 3.0), seeds)
def test_a_blurred_impulse_is_a_gaussian_that_sums_to_one(sigma: float, seed: int) -> None:
    picture = torch.zeros(1, 2, 41, 41, dtype=torch.float64)
    row, column = 14 + seed % 13, 14 + seed // 13 % 13
    picture[0, 1, row, column] = 1
    blurred = gaussian_blur(picture, sigma)
    assert not blurred[0, 0].any()  # channels do not mix
    close(blurred.sum(), torch.tensor(1.0).double())
    assert blurred[0, 1].argmax() == row * 41 + column
    ratio = blurred[0, 1, row, column + 1] / blurred[0, 1, row, column]
    close(ratio, torch.tensor(math.exp(-0.5 / sigma**2)).double())
    close(blurred[0, 1, row + 1, column + 1] / blurred[0, 1, row, column], ratio**2)
    beyond = math.ceil(4 * sigma) + 1
    assert blurred[0, 1, row, column + beyond - 1] > 0
    assert column + beyond >= 41 or blurred[0, 1, row, column + beyond] == 0


@few
@given(sides, sides, st.floats(0.3, 3.0))
def test_blur_keeps_the_size_and_a_constant(height: int, width: int, sigma: float) -> None:
    picture = torch.full((1, 3, height, width), 0.3)
    close(gaussian_blur(picture, sigma), picture)


def test_gaussian_means_are_taken_where_the_window_fits_whole() -> None:
    picture = random(2, 3, 11, 13)
    means = gaussian_mean(picture, 1.5, 5)
    assert means.shape == (2, 3, 1, 3)
    offsets = torch.arange(-5, 6, dtype=torch.float64)
    kernel = torch.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    close(means[1, 2, 0, 1], (picture[1, 2, :, 1:12] * kernel).sum() / kernel.sum())
