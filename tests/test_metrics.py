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
        (ImageError, r"differ in size or number \(16 x 16 and 8 x 8 px\): compare", (flat(0), flat(0, side=8)), {}),
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
<<<<<<< HEAD
=======


# --- distances of features


def test_normalised_distance_by_hand() -> None:
    one = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)  # 0.6 and 0.8
    other = torch.tensor([0.0, 7.0]).view(1, 2, 1, 1)  # 0 and 1
    assert float(normalised_distance(one, other)) == pytest.approx(0.6**2 + 0.2**2)
    assert float(normalised_distance(one, -one)) == pytest.approx(4)
    channels = torch.tensor([10.0, 1000.0]).view(1, 2, 1, 1)
    assert float(normalised_distance(one, other, channels)) == pytest.approx(10 * 0.6**2 + 1000 * 0.2**2)
    places = torch.cat([one, other], dim=3), torch.cat([one, one], dim=3)
    assert float(normalised_distance(*places)) == pytest.approx((0.6**2 + 0.2**2) / 2)  # the mean over the places


def test_distances_give_one_number_for_each_image() -> None:
    one, other = random(3, 4, 5, 6), random(3, 4, 5, 6, seed=1)
    for distance in (normalised_distance, absolute_distance):
        assert distance(one, other).shape == (3,)
        torch.testing.assert_close(distance(one, other)[1:2], distance(one[1:2], other[1:2]))
        torch.testing.assert_close(distance(one, other[:1])[2:], distance(one[2:], other[:1]))  # one target serves all


@few
@given(seeds, st.floats(0.01, 100), st.integers(1, 5))
def test_features_count_by_their_direction_only(seed: int, factor: float, channels: int) -> None:
    one, other = random(2, channels, 3, 4, seed=seed) + 0.01, random(2, channels, 3, 4, seed=seed + 1) + 0.01
    distance = normalised_distance(one, other)
    factors = factor * (1 + random(2, 1, 3, 4, seed=seed + 2))  # another one at each place
    torch.testing.assert_close(normalised_distance(factors * one, other), distance, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(normalised_distance(other, one), distance)
    assert (distance <= 2 + 1e-5).all()  # features are not negative: a right angle is the widest
    assert normalised_distance(one, factor * one).abs().max() < 1e-6


def test_features_that_are_all_zero_have_no_direction_and_no_gradient_of_nan() -> None:
    zeros, ones = torch.zeros(1, 4, 2, 2, requires_grad=True), torch.ones(1, 4, 2, 2)
    assert normalised_distance(zeros, zeros).tolist() == [0]
    assert normalised_distance(zeros, ones).tolist() == pytest.approx([1])
    normalised_distance(zeros, ones).sum().backward()
    assert zeros.grad is not None
    assert zeros.grad.isfinite().all()


@few
@given(seeds)
def test_absolute_distance_is_the_mean_of_absolute_differences(seed: int) -> None:
    one, other = random(2, 3, 4, 5, seed=seed), random(2, 3, 4, 5, seed=seed + 1)
    expected = [np.abs(a - b).mean() for a, b in zip(one.numpy(), other.numpy(), strict=True)]
    torch.testing.assert_close(absolute_distance(one, other), torch.tensor(expected))
    assert float(absolute_distance(torch.full((1, 2, 3, 3), 0.25), torch.full((1, 2, 3, 3), 1.0))) == 0.75


@pytest.mark.parametrize("distance", [normalised_distance, absolute_distance])
def test_gradients_of_distances_are_those_of_finite_differences(distance: Callable[..., Tensor]) -> None:
    inputs = tuple((random(2, 3, 3, 4, seed=seed).double() + 0.1).requires_grad_() for seed in (1, 2))
    assert torch.autograd.gradcheck(distance, inputs)


@pytest.mark.parametrize("distance", [normalised_distance, absolute_distance])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_distances_in_half_precision_are_summed_in_float32(distance: Callable[..., Tensor], dtype: torch.dtype) -> None:
    one, other = ((300 * random(1, 64, 40, 40, seed=seed)).to(dtype) for seed in (1, 2))
    result = distance(one, other)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), distance(one.double(), other.double()), rtol=1e-5, atol=0)


# --- PerceptualDistance


def made_up(network: str, deepest: str) -> dict[str, Tensor]:
    """Random weights of a loss network by torchvision's keys, up to a layer."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    with torch.device("meta"):
        stages = ARCHITECTURES[network](network)
    for index, (name, stage) in enumerate(stages):
        for key, parameter in stage.named_parameters():
            fan_in = parameter[0].numel() if parameter.ndim == 4 else 100
            values = torch.randn(parameter.shape, generator=generator) * (2 / fan_in) ** 0.5
            state[f"features.{index}.{key}"] = values
        if name == deepest:
            break
    return state


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "vgg.safetensors"
    safetensors.torch.save_file(made_up("vgg16", "relu2_2"), path)
    return path


@pytest.fixture(scope="module")
def squeezenet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "squeezenet.safetensors"
    safetensors.torch.save_file(made_up("squeezenet1_1", "fire9"), path)
    return path


@pytest.fixture(scope="module")
def distance(vgg_file: Path) -> PerceptualDistance:
    return PerceptualDistance("vgg16", ("relu1_2", "relu2_2"), paths={"vgg16": vgg_file})


def test_perceptual_distance_of_equal_pictures_is_zero(distance: PerceptualDistance) -> None:
    image = random(1, 3, 16, 20)
    assert distance(image, image) == 0
    assert distance(image, image).shape == ()


def test_perceptual_distance_is_symmetric(distance: PerceptualDistance) -> None:
    one, other = random(1, 3, 16, 20), random(1, 3, 16, 20, seed=1)
    assert float(distance(one, other)) == pytest.approx(float(distance(other, one)))
    assert distance(one, other) > 0


def test_perceptual_distance_grows_with_noise(distance: PerceptualDistance) -> None:
    image, noise = (
        0.3 + 0.4 * random(1, 3, 24, 24),
        torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(2)),
    )
    values = [float(distance((image + spread * noise).clamp(0, 1), image)) for spread in (0.0, 0.02, 0.05, 0.1, 0.2)]
    assert values == sorted(values)
    assert len(set(values)) == 5


def test_perceptual_distance_is_the_mean_over_layers_and_images(distance: PerceptualDistance, vgg_file: Path) -> None:
    one, other = random(2, 3, 16, 20), random(2, 3, 16, 20, seed=1)
    networks = LossNetworks(["vgg16:relu1_2", "vgg16:relu2_2"], paths={"vgg16": vgg_file})
    with torch.no_grad():
        features = networks(one), networks(other)
    layers = [normalised_distance(features[0][name], features[1][name]) for name in features[0]]
    assert float(distance(one, other)) == pytest.approx(float(torch.stack(layers).mean()))
    each = [float(distance(one[k : k + 1], other[k : k + 1])) for k in range(2)]
    assert float(distance(one, other)) == pytest.approx(sum(each) / 2, rel=1e-5)


def test_perceptual_distance_does_not_see_the_length_of_features(tmp_path: Path, distance: PerceptualDistance) -> None:
    """Weights and biases of the last convolution times 3 scale relu2_2, and nothing changes."""
    state = made_up("vgg16", "relu2_2")
    for key in ("features.7.weight", "features.7.bias"):  # conv2_2
        state[key] = 3 * state[key]
    safetensors.torch.save_file(state, tmp_path / "scaled.safetensors")
    scaled = PerceptualDistance("vgg16", ("relu1_2", "relu2_2"), paths={"vgg16": tmp_path / "scaled.safetensors"})
    one, other = random(1, 3, 16, 20), random(1, 3, 16, 20, seed=1)
    assert float(scaled(one, other)) == pytest.approx(float(distance(one, other)), rel=1e-5)


def test_perceptual_distance_takes_pictures_of_any_kind(distance: PerceptualDistance) -> None:
    one, other = random_levels(1, 3, 16, 20), random_levels(1, 3, 16, 20, seed=1)
    expected = float(distance(one, other))
    assert distance(as_array(one), Image.fromarray(as_array(other))) == pytest.approx(expected)
    assert float(distance(one[0].float() / 255, as_array(other))) == pytest.approx(expected)
    grey = one[:, :1]
    assert float(distance(grey, other)) == pytest.approx(float(distance(grey.expand(-1, 3, -1, -1), other)))


def test_perceptual_distance_of_different_sizes_is_one_sentence(distance: PerceptualDistance) -> None:
    with pytest.raises(ImageError, match="differ in size"):
        distance(random(1, 3, 16, 20), random(1, 3, 16, 24))


@pytest.mark.parametrize(("layer", "width"), [("relu2_2", 21), ("relu1_2", 1)])
def test_perceptual_distance_does_not_compare_different_sizes_in_silence(
    vgg_file: Path, layer: str, width: int
) -> None:
    distance = PerceptualDistance("vgg16", (layer,), paths={"vgg16": vgg_file})
    with pytest.raises(ImageError, match="differ in size"):
        distance(random(1, 3, 16, 20), random(1, 3, 16, width))


def test_a_picture_too_small_for_the_layers_is_refused(distance: PerceptualDistance) -> None:
    with pytest.raises(ImageError, match="too small for the layers of vgg16"):
        distance(random(1, 3, 1, 1), random(1, 3, 1, 1))


def test_layers_are_chosen_by_network() -> None:
    for name, layers in DISTANCE_LAYERS.items():
        assert set(layers) <= set(layer_names(name))
    for name, (_, layers) in LPIPS_LAYERS.items():
        assert set(layers) <= set(layer_names(name))


def test_default_layers_are_those_of_the_table(squeezenet_file: Path) -> None:
    for name in ("squeezenet1_1", "squeezenet1_1-torchvision"):
        made = PerceptualDistance(name, paths={name: squeezenet_file})
        assert made.layers == [f"{name}:{layer}" for layer in DISTANCE_LAYERS["squeezenet1_1"]]


@pytest.mark.parametrize("layers", [(), ("relu1_1",)])
def test_an_unknown_network_is_refused(layers: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"'alexnet'; choose one of vgg16, .*squeezenet1_1"):
        PerceptualDistance("alexnet", layers)


def test_an_unknown_layer_is_refused(vgg_file: Path) -> None:
    with pytest.raises(ConfigError, match="vgg16 has no layer 'relu9_9'"):
        PerceptualDistance("vgg16", ("relu9_9",), paths={"vgg16": vgg_file})


def test_missing_weights_say_where_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEPTUAL_CACHE", str(tmp_path))
    monkeypatch.delenv("PERCEPTUAL_WEIGHTS", raising=False)
    with pytest.raises(WeightsError, match="not on this machine"):
        PerceptualDistance("vgg16")


# --- LPIPS

SQUEEZE = "squeezenet1_1-torchvision"
WIDTHS = (64, 128, 256, 384, 384, 512, 512)


def learnt_weights() -> dict[str, Tensor]:
    return {f"lin{k}.model.1.weight": random(1, width, 1, 1, seed=k) for k, width in enumerate(WIDTHS)}


@pytest.fixture
def lpips_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `lpips` that may not be imported: only its files are wanted."""
    folder = tmp_path / "lpips" / "weights" / "v0.1"
    folder.mkdir(parents=True)
    (tmp_path / "lpips" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    torch.save(learnt_weights(), folder / "squeeze.pth")
    monkeypatch.delitem(sys.modules, "lpips", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("PERCEPTUAL_WEIGHTS", raising=False)
    monkeypatch.setenv("PERCEPTUAL_CACHE", str(tmp_path / "cache"))
    return folder


def test_lpips_weighs_channels_and_adds_layers(lpips_folder: Path, squeezenet_file: Path) -> None:
    distance = PerceptualDistance.lpips(SQUEEZE, paths={SQUEEZE: squeezenet_file})
    one, other = random(2, 3, 40, 48), random(2, 3, 40, 48, seed=1)
    layers = [f"{SQUEEZE}:{layer}" for layer in ("relu1", "fire3", "fire5", "fire6", "fire7", "fire8", "fire9")]
    networks = LossNetworks(layers, paths={SQUEEZE: squeezenet_file})
    with torch.no_grad():
        features = networks(one), networks(other)
    expected = 0.0
    for layer, weights in zip(layers, learnt_weights().values(), strict=True):
        a, b = (x[layer] / x[layer].square().sum(1, keepdim=True).sqrt() for x in features)
        places = torch.nn.functional.conv2d((a - b) ** 2, weights)  # the package's own 1 x 1 convolution
        expected += float(places.mean())
    assert float(distance(one, other)) == pytest.approx(expected, rel=1e-5)
    assert distance(one, one) == 0


def holds_a_tensor(value: object) -> bool:
    """Whether an attribute of a module is a tensor, or a list of some, that `module.to(device)` does not know."""
    return isinstance(value, Tensor) or (isinstance(value, (list, tuple)) and any(map(holds_a_tensor, value)))


def test_lpips_moves_as_a_whole(lpips_folder: Path, squeezenet_file: Path) -> None:
    distance = PerceptualDistance.lpips(SQUEEZE, paths={SQUEEZE: squeezenet_file})
    keys = list(distance.state_dict())
    hidden = [value for module in distance.modules() for value in vars(module).values() if holds_a_tensor(value)]
    assert hidden == []
    assert sum(name.startswith("term.channels") for name, _ in distance.named_buffers()) == len(distance.layers) == 7
    assert {tensor.device.type for tensor in (*distance.to("meta").buffers(), *distance.parameters())} == {"meta"}
    assert not [key for key in keys if "channels" in key]  # files of weights stay as they were


def test_lpips_prepares_pictures_as_the_package_does(squeezenet_file: Path) -> None:
    """Its layer of shift and scale on [-1, 1] is torchvision's mean and deviation on [0, 1]."""
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    network = LossNetworks([f"{SQUEEZE}:relu1"], paths={SQUEEZE: squeezenet_file}).networks[SQUEEZE]
    torch.testing.assert_close(network.mean.flatten(), (1 + shift) / 2)
    torch.testing.assert_close(network.std.flatten(), scale / 2)


def test_lpips_of_vgg_reads_its_own_file(lpips_folder: Path, vgg_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LPIPS_LAYERS, "vgg16-torchvision", ("vgg", ("relu1_2", "relu2_2")))  # as deep as the file goes
    ones = {"lin0.model.1.weight": torch.ones(1, 64, 1, 1), "lin1.model.1.weight": torch.zeros(1, 128, 1, 1)}
    torch.save(ones, lpips_folder / "vgg.pth")
    distance = PerceptualDistance.lpips(paths={"vgg16-torchvision": vgg_file})
    plain = PerceptualDistance("vgg16-torchvision", ("relu1_2",), paths={"vgg16-torchvision": vgg_file})
    one, other = random(1, 3, 16, 20), random(1, 3, 16, 20, seed=1)
    assert float(distance(one, other)) == pytest.approx(float(plain(one, other)), rel=1e-5)


def test_lpips_without_its_file_says_so(lpips_folder: Path) -> None:
    (lpips_folder / "squeeze.pth").unlink()
    with pytest.raises(WeightsError, match=r"squeeze\.pth is missing: install the package lpips again\.$"):
        PerceptualDistance.lpips(SQUEEZE)


@pytest.mark.parametrize("damage", ["cut", "other keys"])
def test_a_damaged_file_of_lpips_says_so(lpips_folder: Path, squeezenet_file: Path, damage: str) -> None:
    file = lpips_folder / "squeeze.pth"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:99])
    else:
        torch.save({"lin0.weight": torch.ones(1)}, file)
    with pytest.raises(WeightsError, match=re.escape(str(file))):
        PerceptualDistance.lpips(SQUEEZE, paths={SQUEEZE: squeezenet_file})


def test_lpips_without_its_weights_says_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEPTUAL_CACHE", str(tmp_path))
    monkeypatch.delenv("PERCEPTUAL_WEIGHTS", raising=False)
    for package in ("lpips", "torchmetrics"):
        monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match=r"pip install torchmetrics, or give a file: paths=\{'lpips': FILE\}\.$"):
        PerceptualDistance.lpips()


@pytest.mark.parametrize("network", ["vgg16", "alexnet", "squeezenet1_0-torchvision"])
def test_lpips_of_a_network_that_it_was_not_learnt_for_is_refused(network: str) -> None:
    with pytest.raises(
        ConfigError, match=f"LPIPS does not support the network '{network}'; choose one of alex, vgg, squeeze"
    ):
        PerceptualDistance.lpips(network)


@pytest.mark.parametrize("extra", ["lpips", "histogram"])
def test_the_extras_that_sentences_name_are_there(extra: str) -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert extra in project["optional-dependencies"]


# --- temporal error


def blots(height: int, width: int, seed: int = 0) -> Tensor:
    """Detail enough to follow, as levels (1, 3, height, width)."""
    small = random_levels(1, 3, height // 6 + 2, width // 6 + 2, seed=seed).float()
    large = torch.nn.functional.interpolate(small, size=(height, width), mode="bicubic")
    return large.clamp(0, 255).to(torch.uint8)


def pan(wall: Tensor, steps: int = 5, by: int = 3) -> list[Tensor]:
    """The frames, 80 px wide, of a camera that goes `by` pixels to the right from one to the next."""
    return [wall[..., k * by : k * by + 80] for k in range(steps)]


def places(x: float, y: float = 0.0, height: int = 64, width: int = 80) -> Tensor:
    return places_of(torch.tensor([[1.0, 0, x], [0, 1, y]]), height, width)


FRAMES, PAINTED = pan(blots(64, 100)), pan(blots(64, 100, seed=7))
STILL = [blots(64, 80)] * 3


def grey(level: int) -> Tensor:
    return torch.full((1, 3, 64, 80), level, dtype=torch.uint8)


def test_paintings_that_pan_along_have_no_temporal_error() -> None:
    assert temporal_error(FRAMES, PAINTED, motion=[places(3)] * 4) == 0
    assert temporal_error(FRAMES, FRAMES, motion=[places(3)] * 4) == 0


@pytest.mark.parametrize("by", [1, 2, 5])
def test_a_painting_that_stands_while_the_film_pans_is_in_error(by: int) -> None:
    wall, painted = blots(64, 80 + 5 * by), blots(64, 80, seed=7)
    expected = (painted[..., by:].float() - painted[..., :-by].float()).square().mean().sqrt().item()
    error = temporal_error(pan(wall, 3, by), [painted] * 3, motion=[places(by)] * 2)
    assert error == pytest.approx(expected, rel=1e-5)


def test_the_motion_of_a_film_is_found_where_it_is_not_known() -> None:
    assert temporal_error(FRAMES, PAINTED) < 2
    assert temporal_error(FRAMES, [PAINTED[0]] * 5) > 30


def test_levels_of_100_and_110_in_turn_have_a_temporal_error_of_10() -> None:
    assert temporal_error(STILL, [grey(100), grey(110), grey(100)]) == 10
    assert temporal_error(STILL, [grey(100), grey(110), grey(100)], motion=[places(0)] * 2) == 10
    assert temporal_error(STILL, STILL) == 0


def test_it_is_the_root_of_the_mean_square_and_its_mean_over_the_film() -> None:
    half = grey(100)
    half[..., :40] = 120  # a difference of 20 in half of the pixels
    assert temporal_error(STILL[:2], [grey(100), half]) == pytest.approx(math.sqrt(20**2 / 2))
    red = grey(100)
    red[:, 0] = 130  # and of 30 in one of three channels
    assert temporal_error(STILL[:2], [grey(100), red]) == pytest.approx(math.sqrt(30**2 / 3))
    assert temporal_error(STILL, [grey(100), red, red]) == pytest.approx(math.sqrt(30**2 / 3) / 2)


@few
@given(st.integers(0, 255), st.integers(0, 255), st.integers(-6, 6), st.integers(-6, 6))
def test_flat_paintings_differ_by_their_levels_whatever_moves(one: int, other: int, x: int, y: int) -> None:
    error = temporal_error(STILL[:2], [grey(one), grey(other)], motion=[places(x, y)])
    assert error == pytest.approx(abs(one - other), rel=1e-5)


def test_what_was_not_visible_before_does_not_count() -> None:
    paintings = [painting.clone() for painting in PAINTED[:2]]
    paintings[1][..., -3:] = 255 - paintings[1][..., -3:]  # what came in at the right
    assert temporal_error(FRAMES[:2], paintings, motion=[places(3)]) == 0
    paintings[1][..., -4] = 255 - paintings[1][..., -4]
    assert temporal_error(FRAMES[:2], paintings, motion=[places(3)]) > 10


def test_a_cut_counts_nothing() -> None:
    frames = [grey(0), grey(0), grey(255), grey(255)]
    assert temporal_error(frames, [grey(100), grey(110), grey(0), grey(20)]) == 15  # the mean of 10 and 20


def test_films_may_be_of_any_kind_of_picture_and_come_one_by_one() -> None:
    expected = temporal_error(FRAMES, PAINTED)
    kinds: list[Callable[[Tensor], object]] = [
        lambda x: x[0],
        lambda x: x.float() / 255,
        as_array,
        lambda x: as_array(x) / 255,
        lambda x: Image.fromarray(as_array(x)),
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    ]
    for kind in kinds:
        films = ((kind(picture) for picture in film) for film in (FRAMES, PAINTED))
        assert temporal_error(*films) == pytest.approx(expected, rel=1e-5)


def test_films_are_read_once_and_not_kept() -> None:
    def film(pictures: list[Tensor]) -> Iterator[Tensor]:
        for picture in pictures:
            copy = picture.clone()
            yield copy
            copy.fill_(0)

    assert temporal_error(film(FRAMES), film(PAINTED), motion=iter([places(3)] * 4)) == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (8, 8), (15, 17), (33, 31)])
def test_films_of_any_size_have_a_temporal_error(size: tuple[int, int]) -> None:
    frame, paintings = blots(*size), [torch.full((1, 3, *size), level, dtype=torch.uint8) for level in (100, 110)]
    assert temporal_error([frame, frame], paintings) == 10
    assert temporal_error([frame, frame], paintings, motion=[places(0, 0, *size)]) == 10


@pytest.mark.parametrize(
    ("frames", "paintings", "message"),
    [
        ([], [], "No pixel is visible in two frames: give at least two frames"),
        (STILL[:1], STILL[:1], "No pixel is visible in two frames: give at least two frames"),
        ([grey(0), grey(255)], [grey(0), grey(255)], "No pixel is visible in two frames"),
        (STILL[:2], [grey(0), grey(0)[..., :70]], r"differ in size or number \(80 x 64 and 70 x 64 px\)"),
        ([STILL[0], "b.png"], [grey(0), grey(0)], "A str is not an image"),
        (
            STILL[:2],
            [grey(0), grey(0).repeat(2, 1, 1, 1)],
            "Frame 2 is a batch of 2 images: give the frames one by one",
        ),
        ([grey(0).repeat(3, 1, 1, 1)] * 2, [grey(0)] * 2, "Frame 1 is a batch of 3 images: give the frames one by one"),
    ],
    ids=["none", "one", "a cut only", "sizes", "no picture", "a batch of paintings", "a batch of frames"],
)
def test_a_film_without_temporal_error_is_one_sentence(
    frames: list[object], paintings: list[object], message: str
) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        temporal_error(frames, paintings)
    assert str(caught.value).endswith(".")
>>>>>>> 61e9744fa27d2a51e019b0d8d2482a1a96808e73
