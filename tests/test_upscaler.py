"""Upscaler: tiles that equal the whole, kinds and sizes, scales between, and what is refused; histogram matching."""

from __future__ import annotations

import functools
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from perceptual import checkpoints, images
from perceptual.apply import tiles
from perceptual.apply.tiles import EDGE
from perceptual.apply.upscaler import Upscaler, match_histograms
from perceptual.checkpoints import Card, shipped
from perceptual.config import NetworkConfig, UpscaleOptions
from perceptual.errors import CheckpointError, ConfigError, ImageError
from perceptual.networks import TransformationNetwork

few = settings(max_examples=12, deadline=None)
seeds = st.integers(0, 2**32 - 1)
CPU = torch.device("cpu")

SHUFFLE = NetworkConfig("c3s1-8 r8*2 s4-3", norm="none", padding="zero", output="bicubic")
SRCNN = NetworkConfig(
    "c9s1-8 c5s1-8 c5s1-1", norm="none", padding="replicate", output="linear", channels="luma", enlarge=4
)
CONFIGS = {
    "shuffle": SHUFFLE,
    "srcnn": SRCNN,
    "luma-bicubic": NetworkConfig("c3s1-4 r4 s2-1", norm="none", padding="reflect", output="bicubic", channels="luma"),
    "paper-x4": NetworkConfig("c9s1-4 r4*2 u4 u4 c9s1-3", padding="reflect-start"),
    "down-up": NetworkConfig("c3s1-4 d8 r8 u8 B8 c3s1-3", padding="reflect"),
    "down-down-up": NetworkConfig("c3s1-4 d4 d8 B8 U4 u4 c3s1-3", padding="replicate"),
    "nearest": NetworkConfig("c3s1-4 U4 c5s1-4 U4 c3s1-3", padding="zero", output="linear"),
    "enlarged-down": NetworkConfig("c3s1-4 d8 n8 U4 c3s1-3", padding="zero", output="bicubic", enlarge=3),
    "shuffle-down": NetworkConfig("c3s1-4 s4-4 c3s2-4 c3s1-3", norm="batch", padding="reflect"),
}


@functools.cache
def network(name: str, gain: float = 1.0) -> TransformationNetwork:
    """An untrained network whose norms have seen something; gain: of its convolutions, above what they begin with."""
    torch.manual_seed(0)
    net = TransformationNetwork(CONFIGS[name])
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.02, 0.2)
            nn.init.uniform_(module.bias, -0.2, 0.2)
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.weight.data *= gain
    return net.eval()


def make(name: str = "shuffle", gain: float = 1.0) -> Upscaler:
    net = network(name, gain)
    return Upscaler(net, Card(task="upscale", network=net.config), device="cpu")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def windows(made: Upscaler, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Collects the height and width of every window that the network sees from now on."""
    seen: list[tuple[int, int]] = []
    forward = made.network.forward

    def recording(x: Tensor, style: Tensor | None = None) -> Tensor:
        seen.append((x.shape[-2], x.shape[-1]))
        return forward(x, style)

    monkeypatch.setattr(made.network, "forward", recording)
    return seen


# --- tiles


@pytest.mark.parametrize("name", CONFIGS)
@few
@given(height=st.integers(1, 90), width=st.integers(1, 90), tile=st.integers(16, 64), seed=seeds)
@example(height=90, width=33, tile=16, seed=0)
@example(height=17, width=90, tile=16, seed=1)
@example(height=1, width=65, tile=16, seed=2)
@example(height=49, width=77, tile=17, seed=3)
def test_tiles_equal_the_whole(name: str, height: int, width: int, tile: int, seed: int) -> None:
    made, image = make(name, 2.0), random(1, 3, height, width, seed=seed)
    whole = made.upscale(image, tile=0)
    tiled = made.upscale(image, tile=tile)
    assert whole.shape == (1, 3, made.network.scale * height, made.network.scale * width)
    # 1/255 was promised. Bicubic enlargement knows a place at 90 px to 4e-6 px only, and the network makes that larger.
    assert (tiled - whole).abs().max() < 2e-4


@pytest.mark.parametrize("name", CONFIGS)
def test_the_whole_is_the_networks_own_output(name: str) -> None:
    """Under zero padding: of the picture with mirrors at its edges, so that the network sees no zeros near it."""
    made, image = make(name), random(1, 3, 21, 30)
    scale, edge = made.network.scale, EDGE if made.network.config.padding == "zero" else 0
    edge += -edge % made.network.multiple
    with torch.no_grad():
        continued = np.pad(image.numpy(), ((0, 0), (0, 0), *[(edge, EDGE * (edge > 0))] * 2), mode="symmetric")
        expected = made.network(torch.from_numpy(continued)).clamp(0, 1)
        expected = expected[..., scale * edge :, scale * edge :][..., : scale * 21, : scale * 30]
    assert torch.allclose(made.upscale(image, tile=0), expected, atol=1e-5)
    assert expected.std() > 1e-3


@pytest.mark.parametrize("name", CONFIGS)
def test_nothing_beyond_reach_matters_and_something_half_as_far_does(name: str) -> None:
    """Gradients through weights that are all positive cancel nowhere, so they show all that a pixel depends on."""
    net = TransformationNetwork(CONFIGS[name]).eval()
    assert net.reach is not None
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            nn.init.constant_(module.bias, 1)
    middle = net.multiple * math.ceil((net.reach + 3) / net.multiple)
    image = torch.full((1, 3, 5, 2 * middle), 0.5, requires_grad=True)
    output = net._through_layers(first_input(net, image), None)
    far = 0
    for place in range(net.scale * middle, net.scale * (middle + net.multiple)):
        (gradient,) = torch.autograd.grad(output[0, :, 2 * net.scale, place].sum(), image, retain_graph=True)
        touched = gradient.abs().sum((0, 1, 2)).nonzero().flatten()
        far = max(far, int((touched - place // net.scale).abs().max()))
    assert net.reach / 2 <= far <= net.reach  # a halo is dear, so it is not much too wide either


def first_input(net: TransformationNetwork, image: Tensor) -> Tensor:
    """What a network's first layer is given."""
    size = (net.config.enlarge * image.shape[-2], net.config.enlarge * image.shape[-1])
    large = nn.functional.interpolate(image, size=size, mode="bicubic", antialias=True)
    return large.mean(1, keepdim=True) if net.luma else large


@pytest.mark.parametrize("name", CONFIGS)
def test_too_small_a_halo_would_show(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, image = make(name, 2.0), random(1, 3, 50, 70)
    whole = made.upscale(image, tile=0)
    assert (made.upscale(image, tile=16) - whole).abs().max() < 2e-4
    monkeypatch.setattr(made.network, "reach", 1)
    assert (made.upscale(image, tile=16) - whole).abs().max() > 1 / 255


def test_each_window_is_a_tile_with_reach_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = make("shuffle")
    seen, reach = windows(made, monkeypatch), made.network.reach
    assert reach is not None
    made.upscale(random(1, 3, 20, 100), tile=32)
    expected = [min(100 + EDGE, 32 * k + 32 + reach) - max(-EDGE, 32 * k - reach) for k in range(4)]
    assert seen == [(20 + 2 * EDGE, width) for width in expected]  # 20 px fit with their halo


def test_windows_begin_at_multiples_of_what_the_network_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    made = make("down-down-up")
    assert made.network.multiple == 4
    for first, _, start, _ in tiles.pieces(200, 17, made.network):
        assert start % 4 == 0
        assert start == 0 or start <= first - (made.network.reach or 0)


@given(st.integers(1, 300), st.integers(16, 80))
def test_pieces_cover_a_side_once(length: int, tile: int) -> None:
    net = network("down-up")
    pieces = list(tiles.pieces(length, tile, net))
    assert [first for first, *_ in pieces] == list(range(0, length, tile))
    assert [last for _, last, *_ in pieces] == [*range(tile, length, tile), length]
    assert all(start <= first < last <= end for first, last, start, end in pieces)
    edge = EDGE if net.config.padding == "zero" else 0
    assert pieces[0][2] == -edge - (-edge % net.multiple)
    assert pieces[-1][3] == length + edge


@pytest.mark.parametrize("norm", ["instance", "conditional_instance"])
def test_a_network_with_a_norm_over_the_whole_image_cannot_be_tiled(norm: str) -> None:
    config = NetworkConfig("c3s1-4 u4 c3s1-3", norm=norm, padding="zero")  # type: ignore[arg-type]
    made = Upscaler(TransformationNetwork(config), Card(task="upscale", network=config), device="cpu")
    image = random(3, 20, 24)
    with pytest.raises(ConfigError, match=r"^This network cannot be tiled, because .*: give --tile 0\.$"):
        made(image, tile=16)
    assert made(image, tile=0).shape == made(image).shape == (3, 40, 48)


@pytest.mark.parametrize(
    ("tile", "fix"),
    [
        (1, "give at least 16 pixels, or 0 for no tiles"),
        (15, "give at least 16 pixels, or 0 for no tiles"),
        (-1, "it must be a whole number from 0 to 65,536"),
    ],
)
def test_a_tile_that_is_too_small_is_refused(tile: int, fix: str) -> None:
    with pytest.raises(ConfigError, match=rf"^tile is {tile}; {fix}\.$"):
        make()(random(3, 8, 8), tile=tile)


# --- memory


def needed(made: Upscaler, tile: int, height: int, width: int) -> float:
    """Bytes for a tile of that side and for the result."""
    around = tile + 2 * (made.network.reach or 0)
    result = 2 * 4 * 3 * height * width * made.network.scale**2
    return made.network.memory(min(height + 2 * EDGE, around), min(width + 2 * EDGE, around)) + result


@pytest.mark.parametrize(("fits", "side"), [(16, 16), (30, 25), (50, 50), (100, 100), (200, 200)])
def test_tiles_are_as_large_as_the_free_memory_allows(fits: int, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made, image = make("shuffle", 2.0), random(1, 3, 200, 180)
    whole = made.upscale(image, tile=0)
    monkeypatch.setattr(tiles, "free_memory", lambda device: needed(made, fits, 200, 180) + 1)
    seen = windows(made, monkeypatch)
    assert torch.allclose(made.upscale(image), whole, atol=1e-4)
    assert len(seen) == math.ceil(200 / side) * math.ceil(180 / side)  # halved from the whole until it fits


def test_a_picture_larger_than_the_largest_tile_is_cut_even_when_memory_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = make("shuffle")
    monkeypatch.setattr(tiles, "LARGEST_TILE", 32)
    monkeypatch.setattr(tiles, "free_memory", lambda device: math.inf)
    seen = windows(made, monkeypatch)
    made.upscale(random(1, 3, 40, 70))
    assert len(seen) == 2 * 3
    seen.clear()
    made.upscale(random(1, 3, 40, 70), tile=0)
    assert seen == [(40 + 2 * EDGE, 70 + 2 * EDGE)]


@pytest.mark.parametrize("tile", [None, 0, 16, 64])
def test_a_picture_too_large_for_the_memory_is_one_sentence(tile: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make("shuffle")
    monkeypatch.setattr(tiles, "free_memory", lambda device: 1e5)
    with pytest.raises(
        ImageError,
        match=r"^A picture of 64 x 60 px needs .* GB of memory and 0\.0 GB are free: give a smaller [^.]*\.$",
    ):
        made(random(3, 60, 64), tile=tile)


def test_tiles_that_were_asked_for_are_not_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    made, image = make("shuffle"), random(3, 200, 180)
    monkeypatch.setattr(tiles, "free_memory", lambda device: needed(made, 50, 200, 180) + 1)
    assert made(image, tile=50).shape == (3, 800, 720)
    for tile in (0, 100):
        with pytest.raises(ImageError, match="give a smaller --tile"):
            made(image, tile=tile)


def test_a_network_without_tiles_is_refused_when_the_whole_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    config = NetworkConfig("c3s1-4 u4 c3s1-3", norm="instance", padding="zero")
    made = Upscaler(TransformationNetwork(config), Card(task="upscale", network=config), device="cpu")
    monkeypatch.setattr(tiles, "free_memory", lambda device: 1e5)
    with pytest.raises(ImageError, match="needs about"):
        made(random(3, 60, 64))


def test_a_network_without_tiles_is_not_advised_to_take_smaller_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    config = NetworkConfig("c3s1-4 u4 c3s1-3", norm="instance", padding="zero")
    made = Upscaler(TransformationNetwork(config), Card(task="upscale", network=config), device="cpu")
    monkeypatch.setattr(tiles, "free_memory", lambda device: 1e5)
    with pytest.raises(ImageError) as caught:
        made(random(3, 60, 64))
    assert "--tile" not in str(caught.value)


# --- kinds and sizes


@pytest.mark.parametrize("name", ["shuffle", "srcnn", "down-up"])
@settings(max_examples=15, deadline=None)
@given(height=st.integers(1, 20), width=st.integers(1, 20))
def test_the_result_is_exactly_scale_times_as_large(name: str, height: int, width: int) -> None:
    made = make(name)
    assert made.scale == made.network.scale
    assert made(random(3, height, width)).shape == (3, made.scale * height, made.scale * width)


def test_pil_numpy_and_tensor_give_their_own_kind_and_the_same_picture() -> None:
    made = functools.partial(make(), precision="float32")
    array = (random(14, 18, 3) * 255).byte().numpy()
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1) / 255
    from_pil, from_numpy, from_tensor = made(Image.fromarray(array)), made(array), made(tensor)
    assert isinstance(from_pil, Image.Image)
    assert from_pil.mode == "RGB"
    assert from_pil.size == (72, 56)
    assert from_numpy.dtype == np.uint8
    assert np.array_equal(np.asarray(from_pil), from_numpy)
    assert from_tensor.dtype == torch.float32
    assert torch.allclose(from_tensor.permute(1, 2, 0), torch.from_numpy(from_numpy.copy()) / 255, atol=0.5001 / 255)


def test_images_of_8_bits_in_memory_are_enlarged_as_files_are(tmp_path: Path) -> None:
    made = make()
    array = (random(14, 18, 3) * 255).byte().numpy()
    Image.fromarray(array).save(tmp_path / "small.png")
    from_file = made.upscale(images.read(tmp_path / "small.png", levels=True).pixels)[0].permute(1, 2, 0).numpy()
    levels = torch.from_numpy(array.copy()).permute(2, 0, 1)
    for result in (made(array), np.asarray(made(Image.fromarray(array))), made(levels).permute(1, 2, 0).numpy()):
        assert np.array_equal(result, from_file)


@pytest.mark.parametrize(
    ("picture", "shape"),
    [
        (np.zeros((5, 6, 3), np.float64), (20, 24, 3)),
        (np.zeros((5, 6, 3), np.uint16), (20, 24, 3)),
        (np.zeros((2, 5, 6, 3), np.uint8), (2, 20, 24, 3)),
        (np.zeros((5, 6), np.uint8), (20, 24, 3)),
        (torch.zeros(3, 5, 6).half(), (3, 20, 24)),
        (torch.zeros(2, 3, 5, 6), (2, 3, 20, 24)),
        (torch.zeros(3, 5, 6, dtype=torch.uint8), (3, 20, 24)),
    ],
)
def test_every_kind_keeps_its_type(
    picture: Tensor | np.ndarray[tuple[int, ...], np.dtype[np.uint8]], shape: tuple[int, ...]
) -> None:
    large = make()(picture)
    assert type(large) is type(picture)
    assert large.dtype == picture.dtype
    assert tuple(large.shape) == shape


def test_alpha_is_enlarged_with_its_picture() -> None:
    picture = Image.fromarray((random(10, 12, 4) * 255).byte().numpy())
    half = Image.fromarray(np.pad(np.full((10, 6), 255, np.uint8), ((0, 0), (0, 6))))
    for alpha in (Image.new("L", (12, 10), 77), half):
        picture.putalpha(alpha)
        large = make()(picture)
        assert large.mode == "RGBA"
        assert large.size == (48, 40)
        found, expected = np.asarray(large)[..., 3].astype(int), np.kron(np.asarray(alpha), np.ones((4, 4), int))
        assert np.abs(found - expected)[:, [*range(16), *range(32, 48)]].max() == 0  # the edge itself is soft
        if alpha is not half:  # with nothing invisible, the colours are those of the picture without alpha
            assert np.array_equal(np.asarray(large)[..., :3], np.asarray(make()(picture.convert("RGB"))))


@pytest.mark.parametrize("name", ["x4_pixel", "x4_feature", "x4_photo", "x8_pixel", "x8_feature", "x2_photo"])
def test_shipped_networks_keep_grey_grey_and_flat_flat(name: str) -> None:
    made = Upscaler.load(name, device="cpu")
    grey = (random(1, 1, 24, 20) * 255).round().expand(-1, 3, -1, -1) / 255
    for kind in (grey, (grey * 255).to(torch.uint8)):
        large = made.upscale(kind)
        assert torch.equal(large[:, 0], large[:, 1])
        assert torch.equal(large[:, 0], large[:, 2])
    for colour in ((255, 255, 255), (255, 0, 0), (51, 204, 102), (0, 0, 255), (3, 3, 3)):
        flat = torch.tensor(colour, dtype=torch.uint8)[None, :, None, None].expand(1, 3, 20, 30)
        off = made.upscale(flat).int() - flat[..., :1, :1].int()
        assert off.abs().max() <= 1, (colour, off.abs().max())


def test_alpha_of_a_shape_is_nearer_to_the_shape_than_by_bicubic_interpolation() -> None:
    fine = torch.zeros(1, 1, 128, 128)
    rows, columns = torch.meshgrid(torch.arange(128), torch.arange(128), indexing="ij")
    fine[0, 0] = ((rows - 63.5) ** 2 + (columns - 63.5) ** 2 < 45**2) * ((rows + 2 * columns) % 64 > 20)
    small = nn.functional.avg_pool2d(fine, 4)
    large = Upscaler.load("x4_pixel", device="cpu").apply_alpha(small, UpscaleOptions())
    bicubic = nn.functional.interpolate(small, size=(128, 128), mode="bicubic", antialias=True).clamp(0, 1)
    assert (large - fine).square().mean() < 0.8 * (bicubic - fine).square().mean()
    assert (large[..., :12, :12] == 0).all()


def test_a_batch_is_enlarged_image_by_image() -> None:
    batch = random(3, 3, 9, 11)
    large = make()(batch)
    assert torch.allclose(large[1:2], make()(batch[1:2]), atol=1e-6)


def test_arguments_are_not_changed() -> None:
    image = random(1, 3, 20, 33)
    before = image.clone()
    for options in ({}, {"tile": 16}, {"match_histogram": True}):
        make()(image, **options)  # type: ignore[arg-type]
        assert torch.equal(image, before)


def test_results_lie_within_0_and_1_and_ask_for_no_gradient() -> None:
    made = make("shuffle", 4.0)
    with torch.no_grad():
        assert made.network(random(1, 3, 20, 20)).max() > 1
    large = made(random(1, 3, 20, 20))
    assert large.min() >= 0
    assert large.max() <= 1
    assert not large.requires_grad


@pytest.mark.parametrize("picture", ["a.png", None, torch.zeros(4, 5), torch.full((3, 4, 5), math.nan)])
def test_what_is_no_picture_is_refused(picture: object) -> None:
    with pytest.raises(ImageError):
        make()(picture)


# --- loading, scales between


def save(path: Path, config: NetworkConfig, task: str = "upscale", value: float | None = None) -> Path:
    torch.manual_seed(0)
    net = TransformationNetwork(config)
    if value is not None:
        next(net.parameters()).data.flatten()[0] = value
    checkpoints.save(path, net, Card(task=task, network=config))
    return path


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Networks of our own in the place of those that come with the package."""
    found = {}
    for name in ("x2_pixel", "x4_feature", "x4_pixel", "x4_srcnn"):
        config = NetworkConfig(f"c3s1-4 s{name[1]}-3", norm="none", padding="zero", output="bicubic")
        found[name] = save(tmp_path / f"{name}.safetensors", config)
    monkeypatch.setattr(shipped, "networks", lambda task: found if task == "upscale" else {})
    return found


def test_networks_are_loaded_by_name_and_by_path(shelf: dict[str, Path]) -> None:
    image = random(1, 3, 9, 12)
    by_name, by_path = Upscaler.load("x4_pixel", device="cpu"), Upscaler.load(shelf["x4_pixel"], device="cpu")
    assert by_name.scale == by_path.scale == 4
    assert by_name.card.task == "upscale"
    assert not by_name.network.training
    assert torch.equal(by_name(image), by_path(image))
    assert torch.equal(Upscaler.load(device="cpu")(image), by_name(image))


@pytest.mark.parametrize(
    ("scale", "network_scale"), [(0.5, 2), (1, 2), (1.5, 2), (2, 2), (2.001, 4), (3, 4), (3.7, 4), (4, 4)]
)
def test_the_next_larger_network_serves_a_scale_between(
    shelf: dict[str, Path], scale: float, network_scale: int
) -> None:
    made, image = Upscaler.at_scale(scale, device="cpu"), random(1, 3, 9, 12)
    assert made.network.scale == network_scale
    assert made.scale == scale
    large = made(image)
    assert large.shape == (1, 3, *images.scaled_size(9, 12, scale))
    full = Upscaler.load(f"x{network_scale}_pixel", device="cpu")(image)
    assert torch.equal(large, images.resize(full, size=images.scaled_size(9, 12, scale)))


def test_a_network_is_chosen_by_its_loss(shelf: dict[str, Path]) -> None:
    assert Upscaler.at_scale(2, "feature", device="cpu").network.scale == 4
    assert Upscaler.at_scale(4, "srcnn", device="cpu").scale == 4
    with pytest.raises(
        ConfigError, match=r"^There is no shipped network with the loss 'l1'; choose one of feature, pixel, srcnn\.$"
    ):
        Upscaler.at_scale(4, "l1")


@pytest.mark.parametrize("scale", [4.5, 64, math.inf])
def test_a_scale_that_no_network_makes_is_refused(shelf: dict[str, Path], scale: float) -> None:
    with pytest.raises(
        ConfigError, match=r"^scale is .*; the shipped networks with the loss pixel enlarge up to 4 times\.$"
    ):
        Upscaler.at_scale(scale)


def test_a_scale_between_works_with_tiles_alpha_and_histograms(shelf: dict[str, Path]) -> None:
    made = Upscaler.at_scale(3, device="cpu")
    picture = Image.fromarray((random(20, 40, 4) * 255).byte().numpy())
    for options in ({}, {"tile": 16}, {"match_histogram": True}):
        large = made(picture, **options)  # type: ignore[arg-type]
        assert large.size == (120, 60)
        assert large.mode == "RGBA"


def test_a_style_network_is_refused(tiny_style: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is a network for 'style', not for upscale: choose another file\.$"):
        Upscaler.load(tiny_style)


def test_an_unknown_name_lists_what_is_shipped(shelf: dict[str, Path]) -> None:
    with pytest.raises(
        CheckpointError,
        match=r"^There is no network 'x16': give .*, or one of x2_pixel, x4_feature, x4_pixel, x4_srcnn\.$",
    ):
        Upscaler.load("x16")


def test_weights_that_are_not_numbers_are_told(tmp_path: Path) -> None:
    made = Upscaler.load(save(tmp_path / "nan.safetensors", SHUFFLE, value=math.nan), device="cpu")
    for tile in (None, 0, 16):
        with pytest.raises(
            CheckpointError,
            match=r"^The output of the network contains values that are not numbers",
        ):
            made(random(3, 20, 24), tile=tile)


def test_values_that_are_infinite_are_told() -> None:
    net = TransformationNetwork(SHUFFLE)
    list(net.parameters())[-1].data.fill_(math.inf)  # the last bias
    made = Upscaler(net, Card(task="upscale", network=SHUFFLE), device="cpu")
    with pytest.raises(CheckpointError, match="not numbers"):
        made(random(3, 20, 24))


# --- histograms


@few
@given(st.integers(2, 12), st.integers(2, 12), seeds)
def test_pixels_of_the_same_number_get_the_references_values_in_their_own_order(
    height: int, width: int, seed: int
) -> None:
    reference, image = random(1, 3, height, width, seed=seed), random(1, 3, height, width, seed=seed + 1) ** 3
    assume(all(len(channel.unique()) == height * width for both in (image[0], reference[0]) for channel in both))
    matched = match_histograms(image, reference)
    assert matched.dtype == image.dtype
    for before, after, wanted in zip(image[0], matched[0], reference[0], strict=True):
        assert torch.allclose(after.flatten().sort().values, wanted.flatten().sort().values, atol=1e-6)
        assert torch.equal(before.flatten().argsort(), after.flatten().argsort())


@few
@given(st.integers(8, 12), st.integers(8, 12), st.integers(2, 4), seeds)
def test_quantiles_of_a_larger_picture_become_the_references(height: int, width: int, scale: int, seed: int) -> None:
    reference = random(1, 3, height, width, seed=seed)
    large = 0.2 + 0.3 * random(1, 3, scale * height, scale * width, seed=seed + 1)
    matched = match_histograms(large, reference)
    levels = torch.linspace(0.1, 0.9, 9)
    found, wanted = (torch.quantile(x[0].flatten(1), levels, dim=1) for x in (matched, reference))
    step = reference[0].flatten(1).sort(1).values.diff(dim=1).max()  # between one value of the reference and the next
    assert (found - wanted).abs().max() <= step + 1e-6
    assert matched.amin() >= reference.amin() - 1e-6
    assert matched.amax() <= reference.amax() + 1e-6


def test_a_picture_matched_to_itself_stays() -> None:
    image = random(1, 3, 9, 8)
    assert torch.allclose(match_histograms(image, image), image, atol=1e-6)


def test_channels_are_matched_each_by_itself() -> None:
    reference = random(1, 3, 8, 8) * torch.tensor([0.1, 0.5, 1.0]).view(1, 3, 1, 1)
    matched = match_histograms(random(1, 3, 8, 8, seed=1), reference)
    assert torch.allclose(matched.amax((2, 3)), reference.amax((2, 3)), atol=1e-6)


def test_the_enlarged_picture_has_the_histogram_of_its_input_when_asked() -> None:
    made, image = make("paper-x4"), random(2, 3, 16, 16)
    plain, matched = made(image), made(image, match_histogram=True)
    levels = torch.linspace(0.1, 0.9, 9)
    for k in range(2):  # each by itself
        found, other, wanted = (torch.quantile(x[k].flatten(1), levels, dim=1) for x in (matched, plain, image))
        assert (found - wanted).abs().max() < 0.03
        assert (other - wanted).abs().max() > 0.1
        assert torch.allclose(matched[k : k + 1], match_histograms(plain[k : k + 1], image[k : k + 1]))


def test_without_scikit_image_the_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)  # type: ignore[arg-type]
    with pytest.raises(
        ConfigError, match=r"^Matching histograms needs scikit-image: pip install 'perceptual\[histogram\]'\.$"
    ):
        make()(random(3, 8, 8), match_histogram=True)
    assert make()(random(3, 8, 8)).shape == (3, 32, 32)


@pytest.mark.parametrize("scale", [0, -1, float("nan"), "2", None])
def test_a_scale_that_cannot_be_is_one_sentence(scale: Any) -> None:
    with pytest.raises(ConfigError, match=r"^scale is .*; give a number above 0, such as 2\.$"):
        Upscaler.at_scale(scale)


def test_a_name_that_is_no_text_is_one_sentence() -> None:
    with pytest.raises(CheckpointError, match=r"^4 is not the name of a network: give text or a path\.$"):
        Upscaler.load(4)  # type: ignore[arg-type]
