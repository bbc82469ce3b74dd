"""functional: answers that can be worked out by hand, properties that hold for any features, and gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from perceptual.functional import (
    NOISE_TILE,
    absolute_distance,
    bleed,
    crossfade,
    feature_distance,
    gram_distance,
    gram_matrix,
    grid_energy,
    lattice_energy,
    luma,
    noise_field,
    normalised_distance,
    pixel_distance,
    reduced,
    total_variation,
)

SCALES = ("paper", "gatys", "none")
# Two channels of 1 x 2 pixels: (1, 2) and (3, 4). Products: 1 + 4 = 5, 3 + 8 = 11, 9 + 16 = 25.
SIMPLE = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
SIMPLE_GRAM = torch.tensor([[[5.0, 11.0], [11.0, 25.0]]])

few = settings(max_examples=25, deadline=None)
shapes = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 7), st.integers(1, 7))
seeds = st.integers(0, 2**32 - 1)


def random(shape: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def close(actual: Tensor, expected: object, **tolerance: float) -> None:
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), **tolerance)  # type: ignore[arg-type]


# --- known answers


@pytest.mark.parametrize("channels", [1, 3])
def test_total_variation_of_a_10x10_identity_is_36_per_channel(channels: int) -> None:
    close(total_variation(torch.eye(10).expand(2, channels, 10, 10)), [36.0 * channels] * 2)


def test_total_variation_sums_squares_of_both_directions() -> None:
    image = torch.tensor([[[[0.0, 1.0, 3.0], [2.0, 2.0, 2.0]]]])
    close(total_variation(image), [(4 + 1 + 1) + (1 + 4 + 0 + 0)])  # down, then across


def test_total_variation_of_a_single_pixel_is_zero() -> None:
    close(total_variation(torch.ones(2, 3, 1, 1)), [0.0, 0.0])


@pytest.mark.parametrize(("scale", "divisor"), [("none", 1), ("gatys", 1 * 2), ("paper", 2 * 1 * 2)])
def test_gram_of_simple_features_under_each_scale(scale: str, divisor: int) -> None:
    close(gram_matrix(SIMPLE, scale), SIMPLE_GRAM / divisor)


def test_gram_is_scaled_as_the_paper_by_default() -> None:
    close(gram_matrix(SIMPLE), gram_matrix(SIMPLE, "paper"))


def test_gram_treats_each_image_by_itself() -> None:
    close(gram_matrix(torch.cat([SIMPLE, 2 * SIMPLE]), "none"), torch.cat([SIMPLE_GRAM, 4 * SIMPLE_GRAM]))


def test_gram_of_a_constant_channel_under_gatys_does_not_depend_on_the_size() -> None:
    for side in (1, 5, 32):
        close(gram_matrix(torch.full((1, 2, side, side), 3.0), "gatys"), [[[9.0, 9.0], [9.0, 9.0]]])


@pytest.mark.parametrize(("reduction", "expected"), [("sum", 30.0), ("mean", 30 / 4), ("quarter", 30 / 16)])
def test_gram_distance_under_each_reduction(reduction: str, expected: float) -> None:
    difference = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])  # squares add up to 30
    close(gram_distance(SIMPLE_GRAM + difference, SIMPLE_GRAM, reduction), [expected])


def test_gram_distance_is_the_squared_frobenius_norm_by_default() -> None:
    a, b = random((2, 5, 5), 1), random((2, 5, 5), 2)
    close(gram_distance(a, b), torch.linalg.matrix_norm(a - b).square())


def test_the_code_convention_is_the_papers_over_c_squared() -> None:
    a, b = gram_matrix(random((2, 6, 4, 5), 1)), gram_matrix(random((2, 6, 4, 5), 2))
    close(gram_distance(a, b, "mean"), gram_distance(a, b, "sum") / 6**2)


def test_the_gatys_layer_loss_is_their_equation() -> None:
    f, s = random((1, 3, 4, 5), 1), random((1, 3, 4, 5), 2)  # N = 3 maps of M = 20 positions
    loss = gram_distance(gram_matrix(f, "gatys"), gram_matrix(s, "gatys"), "quarter")
    squares = (torch.einsum("nchw,ndhw->cd", f, f) - torch.einsum("nchw,ndhw->cd", s, s)).square().sum()
    close(loss, [squares / (4 * 3**2 * 20**2)])


@pytest.mark.parametrize("distance", [feature_distance, pixel_distance])
def test_distance_of_constants_is_the_square_of_their_difference(distance: Callable[..., Tensor]) -> None:
    output = torch.tensor([2.0, 5.0]).view(2, 1, 1, 1).expand(2, 3, 4, 5)
    close(distance(output, torch.full((2, 3, 4, 5), 3.0)), [1.0, 4.0])


def test_feature_distance_divides_one_different_value_by_chw() -> None:
    output = torch.zeros(1, 2, 3, 4)
    output[0, 1, 2, 3] = 12.0
    close(feature_distance(output, torch.zeros(1, 2, 3, 4)), [12.0**2 / 24])


def test_a_target_of_one_image_serves_a_whole_batch() -> None:
    output, target = random((3, 2, 4, 4), 1), random((1, 2, 4, 4), 2)
    close(feature_distance(output, target), feature_distance(output, target.repeat(3, 1, 1, 1)))
    g, goal = gram_matrix(output), gram_matrix(target)
    close(gram_distance(g, goal), gram_distance(g, goal.repeat(3, 1, 1)))


def test_luma_is_that_of_bt601() -> None:
    colours = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [1.0, 1.0, 1.0], [0.2, 0.4, 0.6]]).view(5, 3, 1, 1)
    expected = torch.tensor([0.299, 0.587, 0.114, 1.0, 0.0598 + 0.2348 + 0.0684]).view(5, 1, 1, 1)
    close(luma(colours), expected)


# --- properties


@few
@given(shapes, seeds, st.sampled_from(SCALES))
def test_gram_is_symmetric_and_positive_semi_definite(shape: tuple[int, ...], seed: int, scale: str) -> None:
    gram = gram_matrix(random(shape, seed), scale)
    close(gram, gram.transpose(1, 2))
    values = torch.linalg.eigvalsh(gram)
    assert (values >= -1e-12 * values[:, -1:].clamp_min(1)).all()


@few
@given(shapes, seeds, st.sampled_from(SCALES))
def test_gram_does_not_see_where_things_are(shape: tuple[int, ...], seed: int, scale: str) -> None:
    features = random(shape, seed)
    order = torch.randperm(shape[2] * shape[3], generator=torch.Generator().manual_seed(seed))
    close(gram_matrix(features.flatten(2)[..., order].view(shape), scale), gram_matrix(features, scale))


@few
@given(shapes, seeds)
def test_gram_and_distances_are_zero_only_between_equals(shape: tuple[int, ...], seed: int) -> None:
    a, b = random(shape, seed), random(shape, seed + 1)
    assert (feature_distance(a, a) == 0).all()
    assert (feature_distance(a, b) > 0).all()
    close(feature_distance(a, b), feature_distance(b, a))
    assert (gram_distance(gram_matrix(a), gram_matrix(a)) == 0).all()
    assert (gram_distance(gram_matrix(a), gram_matrix(b)) > 0).all()


@few
@given(shapes, seeds, st.floats(-100, 100))
def test_total_variation_is_zero_for_a_constant_and_only_then(shape: tuple[int, ...], seed: int, value: float) -> None:
    image = torch.full(shape, value, dtype=torch.float64)
    assert (total_variation(image) == 0).all()
    if shape[2] * shape[3] > 1:
        n, c, y, x = (seed % size for size in shape)
        image[n, c, y, x] += 1
        assert torch.equal(total_variation(image) > 0, torch.arange(shape[0]) == n)


@few
@given(shapes, seeds, st.floats(-100, 100))
def test_total_variation_does_not_see_an_added_constant(shape: tuple[int, ...], seed: int, value: float) -> None:
    image = random(shape, seed)
    close(total_variation(image + value), total_variation(image), atol=1e-9, rtol=1e-9)


@few
@given(shapes, seeds)
def test_total_variation_survives_mirroring_and_turning(shape: tuple[int, ...], seed: int) -> None:
    image = random(shape, seed)
    for other in (image.flip(2), image.flip(3), image.transpose(2, 3)):
        close(total_variation(other), total_variation(image))


# --- gradients


@pytest.mark.parametrize(
    "function",
    [
        feature_distance,
        lambda a, b: gram_distance(gram_matrix(a, "paper"), gram_matrix(b, "paper"), "sum"),
        lambda a, b: gram_distance(gram_matrix(a, "gatys"), gram_matrix(b, "gatys"), "quarter"),
        lambda a, b: total_variation(a) + 2 * total_variation(b),
        lambda a, b: luma(a) * luma(b),
        lambda a, b: normalised_distance(a, b),
        lambda a, b: absolute_distance(a, b),
        lambda a, b: grid_energy(a - b, 2),
    ],
    ids=["feature_distance", "style-paper", "style-gatys", "total_variation", "luma", "normalised", "absolute", "grid"],
)
def test_gradient_is_that_of_finite_differences(function: Callable[..., Tensor]) -> None:
    inputs = tuple(random((2, 3, 3, 4), seed).requires_grad_() for seed in (1, 2))
    assert torch.autograd.gradcheck(function, inputs)


# --- precision, memory layout


@pytest.mark.parametrize("autocast", [False, True], ids=["plain", "autocast"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_style_loss_in_half_precision_is_right_at_1024_by_1024(dtype: torch.dtype, autocast: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(1, 4, 1024, 1024, generator=generator).mul_(top).to(dtype) for top in (40, 44))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        for scale in ("paper", "none"):  # "none" reaches 6e8, far beyond float16's 65504
            gram, goal = gram_matrix(a, scale), gram_matrix(b, scale)
            exact, exact_goal = gram_matrix(a.double(), scale), gram_matrix(b.double(), scale)
            assert gram.dtype == torch.float32
            close(gram.double(), exact, rtol=1e-3, atol=0)
            close(gram_distance(gram, goal).double(), gram_distance(exact, exact_goal), rtol=1e-2, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize(
    "function",
    [lambda x: feature_distance(x, x.flip(0)), lambda x: gram_distance(x[:, 0], x[:, 1]), total_variation],
    ids=["feature_distance", "gram_distance", "total_variation"],
)
def test_sums_in_half_precision_are_taken_in_float32(function: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    x = (300 * random((2, 2, 64, 64))).to(dtype)  # the squares overflow float16
    result = function(x)
    assert result.dtype == torch.float32
    close(result.double(), function(x.double()), rtol=1e-5, atol=0)


FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "feature_distance": feature_distance,
    "pixel_distance": pixel_distance,
    "gram_matrix": lambda a, b: torch.cat([gram_matrix(x, scale) for x in (a, b) for scale in SCALES]),
    "total_variation": lambda a, b: total_variation(a) + total_variation(b),
    "luma": lambda a, b: torch.cat([luma(a), luma(b)]),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_channels_last_gives_what_contiguous_gives(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    a, b = random((2, 3, 8, 9), 1), random((2, 3, 8, 9), 2)
    last = torch.channels_last
    close(function(a.contiguous(memory_format=last), b.contiguous(memory_format=last)), function(a, b))


@pytest.mark.parametrize("function", [*FUNCTIONS.values(), lambda a, b: gram_distance(a[:, 0], b[:, 0])])
def test_arguments_are_not_changed(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    a, b = random((2, 3, 8, 9), 1), random((2, 3, 8, 9), 2)
    before = a.clone(), b.clone()
    function(a, b)
    assert torch.equal(a, before[0])
    assert torch.equal(b, before[1])


@given(share=st.floats(0, 1), seed=st.integers(0, 99))
def test_a_crossfade_has_the_mixed_means_and_the_mixed_spreads(share: float, seed: int) -> None:
    one, other = torch.rand(2, 1, 3, 6, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    faded = crossfade(one, other, share)
    for measure in (torch.mean, torch.std):
        ends = measure(one, dim=(2, 3)), measure(other, dim=(2, 3))
        assert torch.allclose(measure(faded, dim=(2, 3)), torch.lerp(*ends, share))


def test_a_crossfade_of_flat_images_is_flat_and_its_ends_are_the_images() -> None:
    flat, picture = torch.full((1, 3, 4, 5), 0.25), torch.rand(1, 3, 4, 5)
    assert torch.allclose(crossfade(flat, flat + 0.5, 0.5), flat + 0.25)
    assert torch.allclose(crossfade(flat, picture, 0.0), flat)
    assert torch.allclose(crossfade(flat, picture, 1.0), picture, atol=1e-6)


# --- what repeats with the scale of super-resolution


def test_a_grid_has_the_energy_of_its_places_less_their_mean() -> None:
    grid = torch.zeros(1, 1, 64, 64)
    grid[..., ::4, ::4] = 0.5  # one place of sixteen
    by_hand = ((0.5 - 0.5 / 16) ** 2 + 15 * (0.5 / 16) ** 2) / 16
    assert grid_energy(grid, 4).item() == pytest.approx(by_hand)


@pytest.mark.parametrize("side", [64, 66, 20, 4])
def test_what_does_not_repeat_within_the_period_is_no_grid(side: int) -> None:
    assert grid_energy(torch.full((2, 3, side, side), 0.7), 4).tolist() == pytest.approx([0, 0], abs=1e-12)
    slow = torch.zeros(1, 1, 64, 64)
    slow[..., ::4, ::8], slow[..., ::4, 4::8] = 1, -1  # twice the period: it adds up to nothing
    assert grid_energy(slow, 4).item() == pytest.approx(0, abs=1e-12)


def test_noise_averages_out_and_a_grid_does_not() -> None:
    noise = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)) - 0.5
    grid = torch.zeros(1, 3, 256, 256)
    grid[..., ::4, ::4] = 1
    assert noise.square().mean() > grid.square().mean()
    assert grid_energy(grid, 4) > 20 * grid_energy(noise, 4)


def test_each_image_has_a_grid_of_its_own() -> None:
    images = torch.rand(3, 3, 33, 47, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([grid_energy(image[None], 4) for image in images])
    assert torch.allclose(grid_energy(images, 4), alone)


# --- grids of the network's strides, smaller images, noise


def test_noise_photographs_and_flat_pictures_have_no_lattice() -> None:
    noise = torch.rand(8, 3, 128, 96, generator=torch.Generator().manual_seed(0))
    assert lattice_energy(noise).mean() < 0.15  # a peak above its surroundings by e ** 0.3 is rare in noise
    assert lattice_energy(torch.full((1, 3, 64, 64), 0.5)).item() == 0


@pytest.mark.parametrize("period", [2, 4])
def test_dots_at_the_period_of_the_strides_are_a_lattice(period: int) -> None:
    image = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    dotted = image.clone()
    dotted[..., ::period, ::period] += 0.5
    assert lattice_energy(dotted) > 0.2 + lattice_energy(image)


def test_the_gradient_of_the_lattice_takes_it_away() -> None:
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    image[..., ::4, ::4] += 0.5
    image.requires_grad_()
    before = lattice_energy(image)
    (gradient,) = torch.autograd.grad(before.sum(), image)
    assert lattice_energy(image.detach() - gradient / gradient.abs().max() * 0.01) < before


def test_a_flat_image_stays_flat_and_a_checkerboard_vanishes_when_reduced() -> None:
    flat = torch.full((1, 3, 12, 20), 0.25)
    close(reduced(flat, 4), torch.full((1, 3, 3, 5), 0.25), rtol=0, atol=1e-6)
    board = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(6, 8)[None, None]
    inner = reduced(board, 2)[..., 1:-1, 1:-1]  # 1 - 3 + 3 - 1 is 0
    close(inner, torch.full_like(inner, 0.5), rtol=0, atol=1e-6)
    assert reduced(board, 1) is board


def test_the_noise_is_the_same_for_the_same_place_and_repeats_by_the_tile() -> None:
    field = noise_field(60, 50)
    assert field.shape == (1, 1, 60, 50)
    assert torch.equal(noise_field(20, 10, 30, 40), field[..., 30:50, 40:50])
    assert torch.equal(noise_field(8, 8, NOISE_TILE + 3, 7), noise_field(8, 8, 3, NOISE_TILE + 7))
    whole = noise_field(NOISE_TILE, NOISE_TILE)
    assert abs(whole.mean()) < 0.05
    assert 0.7 < whole.std() < 1.1  # cells of 4 and 16 pixels lose a little by interpolation
    edge = (whole[..., :, 0] - whole[..., :, -1]).square().mean()
    close(edge, (whole[..., :, 1:] - whole[..., :, :-1]).square().mean(), rtol=0.15, atol=0)


def test_the_gram_of_bfloat16_has_the_gradient_of_float32() -> None:
    features = torch.randn(2, 24, 9, 11, generator=torch.Generator().manual_seed(0)).bfloat16()  # exact in both
    goal = gram_matrix(torch.randn(2, 24, 9, 11, generator=torch.Generator().manual_seed(1)))
    gradients = []
    for kind in (torch.bfloat16, torch.float32):
        x = features.detach().clone().to(kind).requires_grad_()
        gram_distance(gram_matrix(x), goal).sum().backward()
        assert x.grad is not None
        gradients.append(x.grad.float().flatten())
    assert torch.cosine_similarity(*gradients, dim=0) > 0.999
    close(gradients[0].norm() / gradients[1].norm(), torch.tensor(1.0), rtol=0.01, atol=0)


# --- what cannot be computed

LEVELS, ONE, PAIR = torch.ones(1, 3, 4, 4, dtype=torch.uint8), torch.ones(3, 4, 4), torch.ones(1, 3, 4, 4)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: total_variation(LEVELS), TypeError, "floats, not torch.uint8"),
        (lambda: gram_matrix(LEVELS), TypeError, "floats, not torch.uint8"),
        (lambda: feature_distance(LEVELS, LEVELS), TypeError, "floats, not torch.uint8"),
        (lambda: luma(LEVELS), TypeError, "floats, not torch.uint8"),
        (lambda: feature_distance(PAIR, [1.0]), TypeError, "floats, not list"),  # type: ignore[arg-type]
        (lambda: total_variation(ONE), ValueError, r"The shape is \(3, 4, 4\): give \(N, C, H, W\)"),
        (lambda: gram_matrix(ONE), ValueError, r"give \(N, C, H, W\)"),
        (lambda: gram_distance(PAIR, PAIR), ValueError, r"give \(N, C, C\)"),
        (lambda: luma(PAIR[:, :1]), ValueError, "give RGB images"),
        (lambda: feature_distance(PAIR, PAIR[..., :1]), ValueError, "do not match: give tensors of the same shape"),
        (lambda: feature_distance(PAIR.repeat(2, 1, 1, 1), PAIR.repeat(3, 1, 1, 1)), ValueError, "do not match"),
        (lambda: gram_matrix(PAIR, "papre"), ValueError, "scale is 'papre'; choose one of paper, gatys, none"),
        (lambda: gram_distance(ONE, ONE, "max"), ValueError, "reduction is 'max'; choose one of sum, mean, quarter"),
        (lambda: grid_energy(PAIR, 5), ValueError, "A period of 5 pixels does not fit"),
        (lambda: grid_energy(PAIR, 0), ValueError, "A period of 0 pixels does not fit"),
        (lambda: lattice_energy(PAIR), ValueError, "An image of 4 x 4 px is too small"),
    ],
)
def test_what_cannot_be_computed_is_one_sentence(
    make: Callable[[], Tensor], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        make()
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_hidden_colours_become_those_of_the_nearest_visible_pixel_in_every_precision(kind: torch.dtype) -> None:
    image = torch.rand(1, 3, 600, 4, generator=torch.Generator().manual_seed(0)).to(kind)
    assert torch.equal(bleed(image, torch.zeros(1, 1, 600, 4)), torch.zeros_like(image))  # nothing is visible
    alpha = torch.zeros(1, 1, 600, 4)
    alpha[..., 599, 3] = 1
    torch.testing.assert_close(bleed(image, alpha), image[..., 599:, 3:].expand_as(image), atol=1e-3, rtol=1e-2)
