"""metrics: PSNR and SSIM by hand, by scikit-image and by the published table; distances on made-up weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from perceptual.errors import ConfigError, ImageError
from perceptual.measure import metrics
from perceptual.measure.metrics import psnr, ssim, y_channel
from perceptual.measure.super_resolution import bicubic, pair, read_sets

few = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)
SUM_Y = 65.481 + 128.553 + 24.966  # 219: what white has more than black
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def random_levels(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def flat(level: int, channels: int = 3, side: int = 16) -> Tensor:
    return torch.full((1, channels, side, side), level, dtype=torch.uint8)


def near(levels: Tensor, spread: int, seed: int) -> Tensor:
    noise = torch.randint(-spread, spread + 1, levels.shape, generator=torch.Generator().manual_seed(seed))
    return (levels + noise).clamp(0, 255).to(torch.uint8)


def as_array(levels: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return levels[0].permute(1, 2, 0).numpy().copy()


def y_of(levels: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Written once more, for one picture of 8-bit levels."""
    red, green, blue = levels[0].numpy().astype(np.float64) / 255
    return 16 + 65.481 * red + 128.553 * green + 24.966 * blue


# --- Y


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((0, 0, 0), 16.0),
        ((1, 1, 1), 235.0),
        ((1, 0, 0), 81.481),
        ((0, 1, 0), 144.553),
        ((0, 0, 1), 40.966),
        ((0.5, 0.5, 0.5), 125.5),
        ((1, 1, 0), 210.034),
    ],
)
def test_y_is_matlabs_and_is_not_rounded(colour: tuple[float, float, float], expected: float) -> None:
    image = torch.tensor(colour, dtype=torch.float64).view(1, 3, 1, 1).expand(2, 3, 2, 3)
    torch.testing.assert_close(y_channel(image), torch.full((2, 1, 2, 3), expected, dtype=torch.float64))


def test_y_keeps_the_type_and_the_argument() -> None:
    image = random(1, 3, 4, 5)
    before = image.clone()
    assert y_channel(image).dtype == torch.float32
    assert torch.equal(image, before)


# --- PSNR


@given(st.integers(1, 255), st.integers(0, 254))
def test_psnr_of_a_constant_difference_of_grey_levels(difference: int, level: int) -> None:
    level = min(level, 255 - difference)
    dark, light = flat(level, 1), flat(level + difference, 1)
    assert psnr(dark, light) == pytest.approx(20 * math.log10(255 / difference))
    assert psnr(light, dark) == psnr(dark, light)


@given(st.integers(1, 255), st.integers(0, 254))
def test_psnr_of_colours_is_that_of_their_y_or_of_all_three_channels(difference: int, level: int) -> None:
    level = min(level, 255 - difference)
    dark, light = flat(level), flat(level + difference)
    assert psnr(dark, light) == pytest.approx(20 * math.log10(255 / (difference * SUM_Y / 255)))
    assert psnr(dark, light, color="rgb") == pytest.approx(20 * math.log10(255 / difference))


def test_psnr_of_one_channel_weighs_it_by_y_or_by_a_third() -> None:
    black, red = flat(0), flat(0)
    red[:, 0] = 255
    assert psnr(red, black) == pytest.approx(20 * math.log10(255 / 65.481))
    assert psnr(red, black, color="rgb") == pytest.approx(10 * math.log10(3))


def test_psnr_of_one_wrong_pixel_is_that_of_its_share() -> None:
    one = flat(100, 1, side=10)
    one[..., 3, 4] = 110
    assert psnr(one, flat(100, 1, side=10)) == pytest.approx(10 * math.log10(255**2 / (10**2 / 100)))


def test_y_is_of_floats_and_three_channels() -> None:
    with pytest.raises(TypeError, match=r"is of type torch\.uint8"):
        y_channel(flat(100))
    with pytest.raises(ImageError, match="has the shape"):
        y_channel(flat(100)[:, :1].float() / 255)


def test_equal_pictures_have_infinite_psnr_and_an_ssim_of_one() -> None:
    image = random_levels(2, 3, 16, 16)
    for color in ("y", "rgb"):
        assert psnr(image, image, color=color) == math.inf
        assert ssim(image, image, color=color) == pytest.approx(1)


def test_the_mean_of_a_batch_is_of_decibels_not_of_errors() -> None:
    target = flat(100, 1).repeat(2, 1, 1, 1)
    output = torch.cat([flat(101, 1), flat(110, 1)])
    assert psnr(output, target) == pytest.approx(20 * math.log10(255) - 10)  # differences 1 and 10: 0 and 20 dB less
    both = [ssim(output[k : k + 1], target[k : k + 1]) for k in range(2)]
    assert ssim(output, target) == pytest.approx(sum(both) / 2)


@few
@given(seeds, st.sampled_from(["y", "rgb"]), st.integers(0, 3))
def test_psnr_is_scikit_images(seed: int, color: metrics.Color, border: int) -> None:
    target = random_levels(1, 3, 13, 17, seed=seed)
    output = near(target, 20, seed + 1)
    inside = (..., slice(border, 13 - border), slice(border, 17 - border))
    one, other = (y_of(x)[inside] if color == "y" else x.numpy()[inside] for x in (output, target))
    expected = peak_signal_noise_ratio(other, one, data_range=255)
    assert psnr(output, target, color=color, border=border) == pytest.approx(expected)


# --- SSIM


@given(st.integers(0, 255), st.integers(0, 255))
def test_ssim_of_constants_is_that_of_their_means(one: int, other: int) -> None:
    expected = (2 * one * other + C1) / (one**2 + other**2 + C1)
    assert ssim(flat(one, 1, 11), flat(other, 1, 11)) == pytest.approx(expected, abs=1e-9)
    ys = [16 + level * SUM_Y / 255 for level in (one, other)]
    expected_y = (2 * ys[0] * ys[1] + C1) / (ys[0] ** 2 + ys[1] ** 2 + C1)
    assert ssim(flat(one, 3, 11), flat(other, 3, 11)) == pytest.approx(expected_y, abs=1e-9)


def test_ssim_of_a_negative_is_negative() -> None:
    stripes = ((torch.arange(22) % 2) * 200).to(torch.uint8).expand(1, 1, 22, 22)
    assert ssim(stripes, 200 - stripes) < -0.9


@few
@given(seeds, st.integers(11, 20), st.integers(11, 20), st.integers(0, 60))
def test_ssim_is_scikit_images(seed: int, height: int, width: int, spread: int) -> None:
    target = random_levels(1, 3, height, width, seed=seed)
    output = near(target, spread, seed + 1)
    settings_ = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    # scikit-image averages where its window of 11 x 11 fits whole, as we do
    assert ssim(output, target) == pytest.approx(structural_similarity(y_of(output), y_of(target), **settings_))
    colours = structural_similarity(as_array(output).astype(float), as_array(target).astype(float), channel_axis=2,
                                    **settings_)  # fmt: skip
    assert ssim(output, target, color="rgb") == pytest.approx(colours)
    grey = structural_similarity(as_array(output)[..., 0] * 1.0, as_array(target)[..., 0] * 1.0, **settings_)
    assert ssim(output[:, :1], target[:, :1]) == pytest.approx(grey)


@few
@given(seeds, st.integers(0, 60))
def test_ssim_is_symmetric_and_at_most_one(seed: int, spread: int) -> None:
    target = random_levels(1, 3, 14, 12, seed=seed)
    output = near(target, spread, seed + 1)
    assert ssim(output, target) == pytest.approx(ssim(target, output))
    assert ssim(output, target) <= 1 + 1e-12


def test_ssim_needs_a_whole_window_within_the_border() -> None:
    image = random_levels(1, 3, 15, 20)
    assert ssim(image, image, border=2) == pytest.approx(1)
    with pytest.raises(ImageError, match=r"^SSIM needs at least 11 x 11 pixels, not 14 x 9: give a larger image"):
        ssim(image, image, border=3)


# --- what both do before


def test_floats_are_rounded_half_up_to_levels() -> None:
    half = torch.full((1, 1, 11, 11), 0.5)  # 127.5
    assert psnr(half, flat(128, 1, 11)) == math.inf
    assert psnr(half, flat(127, 1, 11)) == pytest.approx(20 * math.log10(255))
    almost = torch.full((1, 3, 11, 11), 99.9 / 255)
    assert psnr(almost, flat(100, 3, 11)) == math.inf
    assert ssim(almost, flat(100, 3, 11)) == pytest.approx(1)
    assert psnr(flat(100, 3, 11), almost, color="rgb") == math.inf


def test_what_overshoots_is_cut_off_first() -> None:
    assert psnr(torch.full((1, 3, 4, 4), 1.2), flat(255, 3, 4)) == math.inf
    assert psnr(torch.full((1, 3, 4, 4), -0.2), flat(0, 3, 4)) == math.inf


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_kinds_of_picture_agree(measure: Callable[..., float]) -> None:
    target = random_levels(1, 3, 16, 18)
    output = near(target, 30, seed=1)
    expected = measure(output, target)
    kinds: list[Callable[[Tensor], object]] = [
        lambda x: x[0],
        lambda x: x.float() / 255,
        lambda x: x.double() / 255,
        as_array,
        lambda x: as_array(x) / 255,
        lambda x: as_array(x).astype(np.uint16) * 257,
        lambda x: Image.fromarray(as_array(x)),
    ]
    for kind in kinds:
        assert measure(kind(output), kind(target)) == pytest.approx(expected, abs=1e-12)
        assert measure(kind(output), target) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_a_grey_target_is_taken_as_it_is(measure: Callable[..., float]) -> None:
    target = random_levels(1, 1, 16, 18)
    output = near(target, 30, seed=1)
    expected = measure(output, target)
    array = as_array(output)[..., 0], as_array(target)[..., 0]
    assert measure(*array) == pytest.approx(expected)
    assert measure(*map(Image.fromarray, array)) == pytest.approx(expected)
    assert measure(output.expand(-1, 3, -1, -1), target) == pytest.approx(expected)  # its luma is the grey
    assert measure(output, target, color="rgb") == pytest.approx(expected)
    alpha = Image.merge("LA", [Image.fromarray(array[1]), Image.new("L", (18, 16), 9)])
    assert measure(array[0], alpha) == pytest.approx(expected)


def test_a_coloured_output_is_measured_against_a_grey_target_by_its_luma() -> None:
    red = flat(0)
    red[:, 0] = 100
    assert psnr(red, flat(0, 1)) == pytest.approx(20 * math.log10(255 / 29.9))
    assert psnr(red, flat(0, 1), color="rgb") == pytest.approx(20 * math.log10(255 / 29.9))


def test_a_grey_output_has_the_y_of_its_three_equal_channels() -> None:
    grey, target = random_levels(1, 1, 16, 18), random_levels(1, 3, 16, 18, seed=1)
    for color in ("y", "rgb"):
        assert psnr(grey, target, color=color) == psnr(grey.expand(-1, 3, -1, -1), target, color=color)


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_the_border_is_left_out_on_every_side(measure: Callable[..., float]) -> None:
    target = random_levels(1, 3, 20, 22)
    output = near(target, 30, seed=1)
    inside = measure(output[..., 4:-4, 4:-4], target[..., 4:-4, 4:-4])
    framed = output.clone()
    framed[..., :4, :], framed[..., -4:, :], framed[..., :4], framed[..., -4:] = 0, 0, 255, 255
    assert measure(framed, target, border=4) == pytest.approx(inside)
    assert measure(framed, target, border=3) < inside


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_arguments_are_not_changed(measure: Callable[..., float]) -> None:
    for output, target in ((random(1, 3, 12, 12), random(1, 3, 12, 12, seed=1)), (random(12, 12, 3).numpy(),) * 2):
        before = [np.asarray(each).copy() for each in (output, target)]
        measure(output, target)
        assert all(np.array_equal(old, each) for old, each in zip(before, (output, target), strict=True))


@pytest.mark.parametrize("measure", [psnr, ssim])
@pytest.mark.parametrize(
    ("error", "message", "arguments", "options"),
    [
        (ConfigError, r"color is 'Y'; choose y or rgb\.", (flat(0), flat(0)), {"color": "Y"}),
        (ConfigError, r"border is -1; give 0 or more pixels\.", (flat(0), flat(0)), {"border": -1}),
        (
            ConfigError,
            r"border is 2\.0; give a whole number of pixels, such as 4\.",
            (flat(0), flat(0)),
            {"border": 2.0},
        ),
        (ConfigError, r"border is '2'; give a whole number", (flat(0), flat(0)), {"border": "2"}),
        (ConfigError, r"border is None; give a whole number", (flat(0), flat(0)), {"border": None}),
        (ImageError, r"px leaves no pixels of 16 x 16 px", (flat(0), flat(0)), {"border": 10**30}),
        (
            ImageError,
            r"differ in size or number \(1 of 16 x 16 px and 1 of 8 x 8 px\): compare",
            (flat(0), flat(0, side=8)),
            {},
        ),
        (ImageError, "differ in size or number", (flat(0), flat(0).repeat(2, 1, 1, 1)), {}),
        (
            ImageError,
            r"A border of 8 px leaves no pixels of 16 x 16 px: give a sm",
            (flat(0), flat(0)),
            {"border": 8},
        ),
        (ImageError, r"A str is not an image", ("a.png", flat(0)), {}),
        (ImageError, r"A NoneType is not an image", (flat(0), None), {}),
        (ImageError, r"divide by 255", (flat(200).float(), flat(0)), {}),
        (ImageError, r"NaN", (torch.full((1, 3, 16, 16), math.nan), flat(0)), {}),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(
    measure: Callable[..., float],
    error: type[Exception],
    message: str,
    arguments: tuple[object, object],
    options: dict[str, object],
) -> None:
    with pytest.raises(error, match=message) as caught:
        measure(*arguments, **options)
    assert str(caught.value).endswith(".")


# --- the published table of bicubic interpolation


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "scale", "count", "decibels", "similarity"),
    [
        ("Set5", 4, 5, 28.43, 0.8111),
        pytest.param("Set14", 4, 14, 26.00, 0.7029, marks=pytest.mark.slow),
        ("Set5", 8, 5, 24.40, 0.6581),
        pytest.param("Set14", 8, 14, 23.09, 0.5639, marks=pytest.mark.slow),
        pytest.param("BSD100", 4, 100, 25.96, 0.6681, marks=pytest.mark.slow),
    ],
)
def test_bicubic_interpolation_has_its_published_numbers(
    name: str, scale: int, count: int, decibels: float, similarity: float
) -> None:
    folder = SHARED / "data" / "sr"
    if not folder.is_dir():
        pytest.skip("the pictures of the benchmarks are not part of this repository")
    originals = read_sets(folder, scale)[name]
    assert len(originals) == count
    values = []
    for original in originals:
        high, low = pair(original, scale)
        large = bicubic(scale)(low.expand(-1, 3, -1, -1))
        values.append((psnr(large, high, border=scale), ssim(large, high, border=scale)))
    means = np.mean(values, axis=0)
    assert means[0] == pytest.approx(decibels, abs=0.01)
    assert means[1] == pytest.approx(similarity, abs=0.0005)
