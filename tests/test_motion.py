"""motion: known motions by hand, optical flow of films whose motion is known, and paintings that hold still."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data
from torch import Tensor
from torch.nn import functional as F

from perceptual.errors import ImageError
from perceptual.motion import (
    MARGIN,
    Array,
    Flow,
    Steady,
    SteadyDetail,
    carry,
    inner,
    move,
    pixels_of,
    places_of,
    random_motion,
    tensor_of,
    visible,
)

few = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)
shifts = st.integers(-6, 6)
close = torch.testing.assert_close
STILL = torch.tensor([[1.0, 0, 0], [0, 1, 0]])


def shift(x: float, y: float = 0.0) -> Tensor:
    """The motion that takes each pixel from its place and (x, y) further: the picture goes the other way."""
    return torch.tensor([[1.0, 0, x], [0, 1, y]])


def inverse(motion: Tensor) -> Tensor:
    matrix = torch.linalg.inv(motion[:, :2])
    return torch.cat([matrix, -matrix @ motion[:, 2:]], dim=1)


def levels(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def texture(height: int, width: int, seed: int = 0) -> Tensor:
    """Blots about six pixels wide, uint8 (1, 3, H, W): detail enough to follow at any size."""
    blots = levels(1, 3, height // 6 + 2, width // 6 + 2, seed=seed).float()
    return F.interpolate(blots, size=(height, width), mode="bicubic").clamp(0, 255).to(torch.uint8)


def grey(level: int, height: int = 24, width: int = 32) -> Tensor:
    return torch.full((1, 3, height, width), level, dtype=torch.uint8)


def grid(height: int, width: int) -> Tensor:
    """The place of each pixel itself, (H, W, 2)."""
    return places_of(STILL, height, width)


def found(first: Tensor, second: Tensor) -> tuple[Array, Array]:
    """What Flow sees from one frame to the next."""
    flow = Flow()
    assert flow(first) is None
    seen = flow(second)
    assert seen is not None
    return seen


def pan(steps: int, by: int, height: int = 60, width: int = 80, seed: int = 0) -> list[Tensor]:
    """A film of a camera that goes `by` pixels to the right from frame to frame."""
    wall = texture(height, width + steps * by, seed)
    return [wall[..., k * by : k * by + width] for k in range(steps)]


# --- known motions


@few
@given(seeds)
def test_a_motion_is_a_function_of_its_seed_and_small(seed: int) -> None:
    motion = random_motion(random.Random(seed), 256)
    assert motion.shape == (2, 3)
    assert torch.equal(motion, random_motion(random.Random(seed), 256))
    scale, angle = math.hypot(*motion[:, 0].tolist()), math.atan2(motion[1, 0], motion[0, 0])
    close(motion[0, :2], torch.stack([motion[1, 1], -motion[1, 0]]))  # zoom and turn, no shear
    assert abs(scale - 1) <= 0.02 + 1e-6
    assert abs(math.degrees(angle)) <= 1 + 1e-5
    assert motion[:, 2].abs().max() <= 6


def test_half_of_the_motions_are_whole_pixels_each_way() -> None:
    motions = torch.stack([random_motion(random.Random(seed), 256) for seed in range(400)])
    whole = (motions == motions.round()).flatten(1).all(1)
    assert 150 < whole.sum() < 250
    assert torch.equal(motions[whole][:, :, :2], torch.eye(2).expand(int(whole.sum()), 2, 2))
    assert motions[whole][:, :, 2].amin(0).tolist() == [-6, -6]
    assert motions[whole][:, :, 2].amax(0).tolist() == [6, 6]


@few
@given(seeds)
def test_no_motion_brings_what_is_outside_into_the_inner_part_of_256_pixels(seed: int) -> None:
    places = places_of(random_motion(random.Random(seed), 256), 256, 256)
    inside = inner(places.permute(2, 0, 1))
    assert inside.shape == (2, 256 - 2 * MARGIN, 256 - 2 * MARGIN)
    assert 1 <= inside.min() <= inside.max() <= 254  # where a bicubic neighbourhood is whole


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 8), (5, 1), (23, 31), (24, 30)])
def test_the_motion_of_nothing_gives_the_picture_back(height: int, width: int) -> None:
    image = levels(2, 3, height, width).float() / 255
    close(move(image, STILL), image, atol=1e-5, rtol=0)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    close(grid(height, width), torch.stack([columns, rows], -1).float())


@few
@given(shifts, shifts, st.integers(13, 40), st.integers(13, 40), seeds)
def test_a_motion_of_whole_pixels_is_slicing(x: int, y: int, height: int, width: int, seed: int) -> None:
    image = levels(1, 3, height, width, seed=seed)
    moved = 255 * move(image.float() / 255, shift(x, y))
    close(moved[..., 6:-6, 6:-6], image[..., 6 + y : height - 6 + y, 6 + x : width - 6 + x].float(), atol=0.05, rtol=0)


@pytest.mark.parametrize("side", [64, 256, 1024])
def test_whole_pixels_are_exact_to_the_bit_at_sizes_of_training(side: int) -> None:
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    assert torch.equal(move(image, shift(5, -3))[..., 8:-8, 8:-8], image[..., 5:-11, 13 : side - 3])


def test_what_comes_from_outside_repeats_the_edge() -> None:
    image = levels(1, 3, 20, 20).float()
    moved = move(image, shift(6, 0))
    close(moved[..., -6:], image[..., -1:].expand(-1, -1, -1, 6), atol=1e-2, rtol=0)
    moved = move(image, shift(0, -4))
    close(moved[..., :4, :], image[..., :1, :].expand(-1, -1, 4, -1), atol=1e-2, rtol=0)


@pytest.mark.parametrize("side", [16, 17])
def test_a_quarter_turn_is_about_the_centre(side: int) -> None:
    image = torch.rand(1, 2, side, side, generator=torch.Generator().manual_seed(0))
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0]])  # (x, y) shows what was at (-y, x)
    close(move(image, quarter), image.rot90(1, (2, 3)), atol=1e-4, rtol=0)


@few
@given(seeds, st.integers(40, 70), st.integers(40, 70))
def test_a_slope_moves_with_its_places(seed: int, height: int, width: int) -> None:
    """A picture that holds its own coordinates shows, moved, the places that it was moved from."""
    motion = random_motion(random.Random(seed), 256)
    coordinates = grid(height, width).permute(2, 0, 1)[None]
    places = places_of(motion, height, width).permute(2, 0, 1)[None]
    close(inner(move(coordinates, motion)), inner(places), atol=0.06, rtol=0)  # bicubic of -0.75 bends slopes a little


@few
@given(seeds, st.integers(1, 50), st.integers(1, 50))
def test_the_inverse_motion_leads_back(seed: int, height: int, width: int) -> None:
    motion = random_motion(random.Random(seed), 256)
    back = inverse(motion)
    centre = torch.tensor([width - 1, height - 1]) / 2
    places = (places_of(motion, height, width) - centre) @ back[:, :2].T + back[:, 2] + centre
    close(places, grid(height, width), atol=1e-3, rtol=0)


@pytest.mark.parametrize("seed", range(6))
def test_moved_there_and_back_a_picture_is_itself_inside(seed: int) -> None:
    motion = random_motion(random.Random(seed), 256)
    picture = texture(90, 110).float() / 255
    back = move(move(picture, motion), inverse(motion))
    assert (inner(back) - inner(picture)).abs().mean() < 0.01
    assert (inner(move(picture, motion)) - inner(picture)).abs().mean() > 0.03


def test_each_picture_of_a_batch_moves_alike_whatever_its_channels_and_memory() -> None:
    batch, motion = torch.rand(3, 5, 20, 24, generator=torch.Generator().manual_seed(0)), shift(1.5, -0.5)
    moved = move(batch, motion)
    close(moved, torch.cat([move(batch[k : k + 1], motion) for k in range(3)]))
    close(moved, move(batch.contiguous(memory_format=torch.channels_last), motion))
    close(moved[..., ::2, :], move(batch.transpose(2, 3).contiguous().transpose(2, 3), motion)[..., ::2, :])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_under_autocast_places_are_not_rounded(dtype: torch.dtype) -> None:
    image, motion = torch.rand(1, 3, 40, 300, generator=torch.Generator().manual_seed(0)), shift(0.5)
    with torch.autocast("cpu", torch.bfloat16):
        moved = move(image.to(dtype), motion)
    assert moved.dtype == torch.float32
    close(moved, move(image.to(dtype).float(), motion))


def test_gradients_go_back_where_the_pixels_came_from() -> None:
    image = torch.rand(1, 3, 24, 26).requires_grad_()
    weights = torch.rand(1, 3, 12, 14)
    (weights * move(image, shift(4, -3))[..., 6:-6, 6:-6]).sum().backward()
    assert image.grad is not None
    close(image.grad[..., 3:15, 10:24], weights, atol=1e-4, rtol=0)
    assert image.grad.abs().sum() == pytest.approx(weights.sum().item(), rel=1e-3)  # and none elsewhere


def test_inner_leaves_the_margin_out() -> None:
    image = levels(1, 3, 2 * MARGIN + 5, 2 * MARGIN + 1)
    assert torch.equal(inner(image), image[:, :, MARGIN : MARGIN + 5, MARGIN : MARGIN + 1])


# --- pictures carried along


def test_pixels_and_tensors_are_views_of_each_other() -> None:
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    tensor = tensor_of(pixels)
    assert tensor.shape == (1, 3, 4, 5)
    assert np.shares_memory(pixels_of(tensor), pixels)
    planes = tensor.contiguous()
    assert np.array_equal(pixels_of(planes), pixels)
    assert pixels_of(planes).flags.c_contiguous
    assert pixels_of(planes[..., 1:4, ::2]).tolist() == pixels[1:4, ::2].tolist()
    with pytest.raises(ImageError, match=r"has the shape \(2, 3, 4, 5\)"):
        pixels_of(tensor.repeat(2, 1, 1, 1))


@few
@given(shifts, shifts, seeds)
def test_carried_by_whole_pixels_levels_are_exact(x: int, y: int, seed: int) -> None:
    picture = levels(1, 3, 17, 22, seed=seed)
    carried = carry(picture, places_of(shift(x, y), 17, 22).numpy())
    assert torch.equal(carried[..., 6:-6, 6:-6], picture[..., 6 + y : 11 + y, 6 + x : 16 + x])


@pytest.mark.parametrize("seed", range(8))
def test_carrying_levels_is_moving_the_picture(seed: int) -> None:
    motion, picture = random_motion(random.Random(seed), 256), texture(70, 90)
    carried = carry(picture, places_of(motion, 70, 90).numpy()).float()
    moved = (255 * move(picture.float() / 255, motion)).clamp(0, 255)
    assert (inner(carried) - inner(moved)).abs().max() < 4  # the one knows 32 places from pixel to pixel, the other all


def test_visible_is_what_was_in_the_picture() -> None:
    assert visible(grid(5, 7).numpy()).tolist() == [[1.0] * 7] * 5
    assert visible(places_of(shift(3, 0), 5, 7).numpy()).tolist() == [[1.0] * 4 + [0.0] * 3] * 5
    assert visible(places_of(shift(-2, 0), 5, 7).numpy()).tolist() == [[0.0] * 2 + [1.0] * 5] * 5
    assert visible(places_of(shift(0, 1), 5, 7).numpy()).tolist() == [[1.0] * 7] * 4 + [[0.0] * 7]
    assert visible(grid(1, 1).numpy()).tolist() == [[1.0]]
    assert visible(places_of(shift(0.5), 1, 1).numpy()).tolist() == [[0.0]]


# --- optical flow


@pytest.mark.parametrize(
    ("height", "width", "by"), [(120, 160, 3), (97, 131, -5), (61, 40, 2), (600, 900, 3), (451, 901, -3), (900, 50, 3)]
)
def test_a_known_pan_is_found(height: int, width: int, by: int) -> None:
    """Pictures of more than 448 px are looked at smaller."""
    wall = texture(height, width + 20)
    first, second = wall[..., 10 : 10 + width], wall[..., 10 + by : 10 + by + width]
    places, trust = found(first, second)
    assert (places.shape, trust.shape) == ((height, width, 2), (height, width))
    assert places.dtype == trust.dtype == np.float32
    assert np.median(places - grid(height, width).numpy(), (0, 1)) == pytest.approx([by, 0], abs=0.3)
    inside = trust[8:-8, 8:-8]
    assert inside.mean() > 0.98
    outside = trust[:, -by:] if by > 0 else trust[:, :-by]
    assert outside[:, 0 if by < 0 else -1].mean() < 0.1  # it was not in the frame before


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_a_known_motion_is_found(seed: int) -> None:
    motion, first = random_motion(random.Random(seed), 256), texture(144, 176)
    second = (255 * move(first.float() / 255, motion)).round().clamp(0, 255).to(torch.uint8)
    places, trust = found(first, second)
    off = np.abs(places - places_of(motion, 144, 176).numpy())[MARGIN:-MARGIN, MARGIN:-MARGIN]
    assert np.median(off) < 0.3
    assert trust[MARGIN:-MARGIN, MARGIN:-MARGIN].mean() > 0.95
    carried = carry(first, places).float()
    assert (inner(carried) - inner(second.float())).abs().mean() < 5 < (inner(first) * 1.0 - inner(second)).abs().mean()


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (1, 300), (300, 1), (15, 17), (16, 16), (17, 47), (8, 1000)])
def test_a_still_frame_stands_still_at_any_size(size: tuple[int, int]) -> None:
    places, trust = found(texture(*size), texture(*size))
    assert np.array_equal(places, grid(*size).numpy())
    assert (trust == 1).all()


def test_small_noise_is_trusted_and_stands_still() -> None:
    first = texture(100, 120)
    noise = torch.randint(-3, 4, first.shape, generator=torch.Generator().manual_seed(1))
    places, trust = found(first, (first + noise).clamp(0, 255).to(torch.uint8))
    assert np.abs(np.median(places - grid(100, 120).numpy(), (0, 1))).max() < 0.1
    assert trust.mean() > 0.99


def test_the_first_frame_and_the_first_of_another_size_have_none_before() -> None:
    flow = Flow()
    assert [flow(texture(*size)) is None for size in ((40, 50), (40, 50), (50, 40), (50, 40))] == [True, False] * 2


def test_from_dark_to_light_nothing_is_trusted() -> None:
    _, trust = found(grey(0), grey(255))
    assert (trust == 0).all()


def test_trust_fades_from_6_to_18_levels() -> None:
    """Of a flat wall that grows lighter, in which nothing can be seen to move."""
    shares = [float(found(grey(100), grey(100 + more))[1][12, 16]) for more in (0, 6, 9, 12, 15, 18, 40)]
    assert shares == pytest.approx([1, 1, 0.75, 0.5, 0.25, 0, 0])


def square(at: int) -> Tensor:
    """A light square of 40 pixels before a dark wall."""
    frame = texture(120, 160, 3) // 2
    frame[..., 40:80, at : at + 40] = texture(40, 40, 4) // 4 + 180
    return frame


def test_behind_what_moved_away_nothing_is_trusted() -> None:
    places, trust = found(square(40), square(48))
    assert trust[42:78, 41:47].mean() < 0.25  # the wall that comes to light
    assert trust[44:76, 52:80].mean() > 0.9  # the square, which went along
    assert trust[:, 110:].mean() > 0.99
    assert trust[:20].mean() > 0.99
    assert np.median((places - grid(120, 160).numpy())[44:76, 52:80, 0]) == pytest.approx(-8, abs=1.5)


def views(picture: Tensor) -> dict[str, Tensor]:
    """One picture (1, 3, H, W) as it may lie in memory."""
    wide = torch.zeros(1, 3, picture.shape[2] + 3, 2 * picture.shape[3], dtype=picture.dtype)
    wide[..., 3:, ::2] = picture
    return {
        "planes": picture.contiguous(),
        "pixels": tensor_of(pixels_of(picture).copy()),
        "channels_last": picture.contiguous(memory_format=torch.channels_last),
        "part": wide[..., 3:, ::2],
        "turned": picture.transpose(2, 3).contiguous().transpose(2, 3),
    }


@pytest.mark.parametrize("kind", views(grey(0)))
def test_it_does_not_matter_how_pictures_lie_in_memory(kind: str) -> None:
    film, paintings = pan(3, 3), pan(3, 3, seed=7)
    plain, other = Steady(0.5), Steady(0.5)
    for frame, painting in zip(film, paintings, strict=True):
        ours, theirs = views(frame)[kind], views(painting)[kind]
        kept = ours.clone(), theirs.clone()
        assert torch.equal(other(ours, theirs), plain(frame, painting))
        assert torch.equal(ours, kept[0])  # and nothing is written into them
        assert torch.equal(theirs, kept[1])


# --- steadier paintings


def test_a_blend_of_a_still_frame_is_the_mean() -> None:
    steady, frame = Steady(0.5), texture(24, 32)
    assert torch.equal(steady(frame, grey(100)), grey(100))
    assert torch.equal(steady(frame, grey(110)), grey(105))
    assert torch.equal(steady(frame, grey(95)), grey(100))


@pytest.mark.parametrize(("amount", "level"), [(0.25, 160), (0.5, 140), (0.75, 120), (0.9, 108)])
def test_the_amount_is_the_share_of_the_painting_before(amount: float, level: int) -> None:
    steady, frame = Steady(amount), texture(24, 32)
    steady(frame, grey(100))
    assert torch.equal(steady(frame, grey(180)), grey(level))


def test_after_n_frames_one_minus_a_half_to_the_n_of_the_way_is_done() -> None:
    steady, frame = Steady(0.5), texture(24, 32)
    steady(frame, grey(0))
    for n in range(1, 8):
        level = steady(frame, grey(255)).float()
        assert (level - 255 * (1 - 0.5**n)).abs().max() <= 1  # levels are rounded once in every frame


@given(st.floats(0.05, 0.95), st.integers(0, 255), st.integers(0, 255))
@settings(max_examples=40, deadline=None)
def test_a_blend_lies_between_the_two(amount: float, before: int, now: int) -> None:
    steady, frame = Steady(amount), texture(20, 20)
    steady(frame, grey(before, 20, 20))
    blend = steady(frame, grey(now, 20, 20)).float()
    assert (blend - (amount * before + (1 - amount) * now)).abs().max() <= 0.51
    assert min(before, now) <= blend.min() <= blend.max() <= max(before, now)


def test_equal_paintings_stay_bit_for_bit() -> None:
    steady, frame, painting = Steady(0.8), texture(60, 80), texture(60, 80, 9)
    for _ in range(5):
        assert torch.equal(steady(frame, painting), painting)


def test_an_amount_of_nothing_gives_the_painting_itself() -> None:
    steady = Steady(0)
    for k in range(3):
        painting = levels(1, 3, 24, 32, seed=k)
        assert steady(texture(24, 32), painting) is painting


def test_the_first_painting_is_left_as_it_is() -> None:
    painting = levels(1, 3, 24, 32)
    assert torch.equal(Steady(0.9)(texture(24, 32), painting), painting)


def test_nothing_blends_across_a_cut() -> None:
    steady, after = Steady(0.9), texture(24, 32, 5)
    steady(grey(0), grey(0))
    assert torch.equal(steady(grey(255), after), after)
    assert torch.equal(steady(grey(255), grey(0))[..., 0, 0], (0.9 * after[..., 0, 0].float()).round().to(torch.uint8))


def test_little_blends_between_two_photographs() -> None:
    """Here and there one looks like the other; a tenth of a painting at most may be seen through the next."""
    photographs = [Image.fromarray(picture).resize((320, 180)) for picture in (data.chelsea(), data.astronaut())]
    first, second = (tensor_of(np.array(photograph)) for photograph in photographs)
    steady = Steady(0.9)
    steady(first, grey(0, 180, 320))
    assert (steady(second, grey(255, 180, 320)) < 250).float().mean() < 0.1


def test_behind_what_moved_away_there_is_no_ghost() -> None:
    steady = Steady(0.5)
    steady(square(40), square(40))
    ghost = (steady(square(48), square(48)).float() - square(48).float())[..., 42:78, 41:47].abs()
    assert ghost.mean() < 5
    assert (square(40).float() - square(48).float())[..., 42:78, 41:47].abs().mean() > 100  # which half would show


def test_a_painting_that_goes_along_stays_sharp_and_noise_in_it_is_halved() -> None:
    film, clean = pan(12, 3), pan(12, 3, seed=7)
    steady, errors = Steady(0.5), []
    for k, (frame, painting) in enumerate(zip(film, clean, strict=True)):
        noise = torch.randint(-12, 13, painting.shape, generator=torch.Generator().manual_seed(k))
        noisy = (painting // 2 + 64 + noise).to(torch.uint8)
        wrong = (noisy, steady(frame, noisy))
        errors.append([(w.float() - painting // 2 - 64)[..., 8:-8, 8:-8].square().mean().sqrt() for w in wrong])
    before, after = torch.tensor(errors[6:]).mean(0)
    assert after < 0.7 * before  # 1 / sqrt(3) by the share alone, and interpolation smooths
    assert before == pytest.approx(math.sqrt(52), rel=0.05)


@pytest.mark.parametrize(
    "forget",
    [lambda steady: steady.reset(), lambda steady: steady(texture(30, 20), levels(1, 3, 30, 20))],
    ids=["reset", "another size"],
)
def test_what_was_before_is_forgotten(forget: Callable[[Steady], object]) -> None:
    steady, frame = Steady(0.5), texture(24, 32)
    steady(frame, grey(0))
    forget(steady)
    assert torch.equal(steady(frame, grey(200)), grey(200))
    assert torch.equal(steady(frame, grey(100)), grey(150))


def test_a_change_to_a_size_that_is_looked_at_alike_is_one() -> None:
    """Both are scaled to 448 x 224 for flow."""
    steady = Steady(0.5)
    steady(texture(450, 900), grey(0, 450, 900))
    assert torch.equal(steady(texture(500, 1000), grey(200, 500, 1000)), grey(200, 500, 1000))


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (1, 40), (15, 33), (31, 17), (500, 9)])
def test_films_of_any_size_are_steadied(size: tuple[int, int]) -> None:
    steady, frame = Steady(0.5), texture(*size)
    steady(frame, grey(60, *size))
    assert torch.equal(steady(frame, grey(80, *size)), grey(70, *size))


# --- steadier enlargements


def enlarged(frame: Tensor, scale: float = 4) -> Tensor:
    """The frame with every pixel repeated: no detail."""
    return F.interpolate(frame.float(), scale_factor=scale, mode="nearest").to(torch.uint8)


def detail(strength: int, height: int = 96, width: int = 128, seed: int | None = None) -> Tensor:
    """Levels that vanish when each 4 x 4 block is averaged: a checkerboard, or random signs for each pair of pixels."""
    signs = torch.ones(1, 1, height, width // 2)
    if seed is not None:
        signs = torch.randint(0, 2, signs.shape, generator=torch.Generator().manual_seed(seed)) * 2.0 - 1
    return torch.stack([signs, -signs], dim=-1).reshape(1, 1, height, width) * strength


def with_detail(frame: Tensor, pattern: Tensor) -> Tensor:
    return (enlarged(frame).float() + pattern).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("amount", [0.25, 0.5, 0.75])
def test_the_amount_is_the_share_of_the_detail_before(amount: float) -> None:
    steady, frame = SteadyDetail(amount), grey(100)
    before = with_detail(frame, detail(40))
    assert torch.equal(steady(frame, before), before)
    assert torch.equal(steady(frame, enlarged(frame)), with_detail(frame, detail(40) * amount))


@pytest.mark.parametrize("change", [-40, -6, -2, 1, 5, 60])
def test_a_change_of_light_is_not_delayed(change: int) -> None:
    """Levels that remain when the picture is reduced are not detail."""
    steady = SteadyDetail(0.9)
    steady(grey(100), enlarged(grey(100)))
    after = grey(100 + change)
    assert torch.equal(steady(after, enlarged(after)), enlarged(after))


def test_equal_enlargements_stay_bit_for_bit() -> None:
    steady, frame = SteadyDetail(0.8), texture(24, 32)
    picture = with_detail(frame, detail(30, seed=1))
    for _ in range(4):
        assert torch.equal(steady(frame, picture), picture)


def test_detail_that_is_new_in_each_frame_flickers_less_and_the_rest_moves_on() -> None:
    """The large picture moves by 4 pixels per frame, and the small one by 1; the detail is noise."""
    steady, errors = SteadyDetail(0.5), []
    for k, frame in enumerate(pan(10, 1)):
        clean = enlarged(frame)
        noisy = with_detail(frame, detail(20, clean.shape[-2], clean.shape[-1], seed=k))
        made = steady(frame, noisy)
        errors.append([(one.float() - clean)[..., 16:-16, 16:-16].square().mean().sqrt() for one in (noisy, made)])
    before, after = torch.tensor(errors[5:]).mean(0)
    assert after < 0.75 * before  # 1 / sqrt(3) by the share alone


def test_behind_what_moved_away_no_detail_remains() -> None:
    steady = SteadyDetail(0.9)
    steady(square(40), enlarged(square(40)))
    right = enlarged(square(48)).float()
    ghost = (steady(square(48), enlarged(square(48))).float() - right)[..., 168:312, 164:188].abs()
    assert ghost.mean() < 2
    assert (enlarged(square(40)) - right)[..., 168:312, 164:188].abs().mean() > 100


def test_no_detail_is_taken_across_a_cut() -> None:
    first, second = (
        tensor_of(np.array(Image.fromarray(picture).resize((160, 90))))
        for picture in (data.chelsea(), data.astronaut())
    )
    steady, after = SteadyDetail(0.9), enlarged(second)
    steady(first, with_detail(first, detail(40, 360, 640, seed=2)))
    changed = (steady(second, after) != after).float().mean()
    assert changed < 0.1  # here and there one photo looks like the other


@pytest.mark.parametrize("size", [(24, 32), (24, 40), (12, 16), (1, 1)])
def test_without_an_enlargement_there_is_no_detail(size: tuple[int, int]) -> None:
    steady, frame = SteadyDetail(0.9), grey(100)
    steady(frame, levels(1, 3, *size))
    picture = levels(1, 3, *size, seed=1)
    assert steady(frame, picture) is picture


@pytest.mark.parametrize(
    "forget",
    [SteadyDetail.reset, lambda steady: steady(grey(100, 30, 20), grey(100, 120, 80))],
    ids=["reset", "another size"],
)
def test_detail_of_before_is_forgotten(forget: Callable[[SteadyDetail], object]) -> None:
    steady, frame = SteadyDetail(0.5), grey(100)
    steady(frame, with_detail(frame, detail(40)))
    forget(steady)
    assert torch.equal(steady(frame, enlarged(frame)), enlarged(frame))


@pytest.mark.parametrize("small", [(1, 1), (7, 9), (15, 33), (720, 9)])
@pytest.mark.parametrize("scale", [1.7, 4])
def test_videos_of_any_size_are_enlarged_steadily(small: tuple[int, int], scale: float) -> None:
    size = [math.ceil(side * scale) for side in small]
    steady, frame = SteadyDetail(0.5), grey(90, *small)
    steady(frame, grey(90, *size))
    assert torch.equal(steady(frame, grey(94, *size)), grey(94, *size))


def test_frames_too_large_to_warp_are_left_as_they_are() -> None:
    steady, frame = SteadyDetail(0.5), grey(100, 2, 9000)
    for k in range(2):
        picture = grey(100 + k, 8, 36_000)
        assert steady(frame, picture) is picture


def test_an_amount_of_nothing_gives_the_enlargement_itself() -> None:
    steady, frame = SteadyDetail(0), grey(100)
    for k in range(3):
        picture = levels(1, 3, 96, 128, seed=k)
        assert steady(frame, picture) is picture
