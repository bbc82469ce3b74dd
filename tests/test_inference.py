"""Fast inference paints what the network itself paints: folded, in bands, in bytes, and as a Stylizer uses it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data
from torch import Tensor

from perceptual import images
from perceptual.apply import Stylizer
from perceptual.apply.stylizer import MARGIN
from perceptual.checkpoints import Card, gallery
from perceptual.config import NetworkConfig
from perceptual.devices import multiplies_bytes
from perceptual.errors import CheckpointError, ConfigError
from perceptual.events import Step
from perceptual.fast import inference, kernels, painting, reads_bytes
from perceptual.fast.inference import Inference
from perceptual.fast.plan import plan
from perceptual.functional import noise_field
from perceptual.memory import keep_memory
from perceptual.networks import InstanceNorm, TransformationNetwork

pytestmark = pytest.mark.usefixtures("one_thread", "seed")
ARCHITECTURES = [
    "c5s1-8 d16 d16 r16*2 B8 B8 c5s1-3",
    "c9s1-8 d16 d16 r16 u8 u8 c9s1-3",
    "c3s1-8 d16 n16 U8 c3s1-3",
    "c9s1-4 d8 d8 r8 U8 B4 c9s1-3",
]
PADDINGS = ["reflect", "replicate"]
ONE = torch.ones(1, 1)
needs_bytes = pytest.mark.skipif(not reads_bytes(), reason="this processor has no instructions for 8-bit products")
close = torch.testing.assert_close


def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "compiled", lambda: None)


@pytest.fixture(params=["compiled", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The test runs with the compiled kernels and without them."""
    if request.param == "plain":
        without_kernels(monkeypatch)
    elif kernels.compiled() is None:
        pytest.skip("there are no compiled kernels")
    return str(request.param)


@pytest.fixture
def compiled() -> None:
    if kernels.compiled() is None:
        pytest.skip("there are no compiled kernels")


def network(
    architecture: str, padding: str = "reflect", output: str = "tanh", *, styles: int = 1
) -> TransformationNetwork:
    torch.manual_seed(0)
    norm = "conditional_instance" if styles > 1 else "instance"
    config = NetworkConfig(architecture, norm, padding, styles, output=output)  # type: ignore[arg-type]
    net = TransformationNetwork(config).eval().requires_grad_(False)
    for module in net.modules():
        if isinstance(module, InstanceNorm):
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.3)
    return net


def psnr(one: Tensor, other: Tensor) -> float:
    """Of float pictures, over all channels; metrics.psnr would round them to levels first."""
    return float(-10 * torch.log10((one - other).square().mean()))


def levels_of(picture: Tensor) -> Tensor:
    return (picture * 255 + 0.5).floor().to(torch.uint8)


# --- in float32: the network's own arithmetic in another order


@pytest.mark.parametrize("size", [(67, 90), (64, 64), (101, 77)])
@pytest.mark.parametrize("output", ["tanh", "linear"])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_in_float32_the_painting_is_the_networks(
    way: str, architecture: str, padding: str, output: str, size: tuple[int, int]
) -> None:
    net, picture = network(architecture, padding, output), torch.rand(1, 3, *size)
    painted = Inference(net, "float32")(picture, ONE)
    assert painted.shape == picture.shape
    close(painted, net(picture, ONE).clamp(0, 1), rtol=0, atol=1e-4)


@settings(deadline=None, max_examples=12)
@given(height=st.integers(12, 70), width=st.integers(12, 70), band=st.sampled_from([None, 300, 1000]))
@example(height=13, width=69, band=None)
def test_any_size_is_painted_as_by_the_network(height: int, width: int, band: int | None) -> None:
    net, picture = network(ARCHITECTURES[3]), torch.rand(1, 3, height, width)
    close(Inference(net, "float32")(picture, ONE, band=band), net(picture, ONE).clamp(0, 1), rtol=0, atol=5e-3)


@pytest.mark.parametrize("size", [(101, 77), (160, 112)])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_in_bands_the_painting_is_that_of_the_whole(
    way: str, architecture: str, padding: str, size: tuple[int, int]
) -> None:
    fast, picture = Inference(network(architecture, padding), "float32"), torch.rand(1, 3, *size)
    whole = fast(picture, ONE)
    for band in (1500, 4000):
        assert psnr(fast(picture, ONE, band=band), whole) >= 60


def test_a_picture_with_other_halves_has_the_norms_of_the_whole_in_bands(way: str) -> None:
    picture = torch.cat([0.1 * torch.rand(1, 3, 80, 96), 0.7 + 0.3 * torch.rand(1, 3, 80, 96)], 2)
    net = network(ARCHITECTURES[0])
    expected = net(picture, ONE).clamp(0, 1)
    assert psnr(Inference(net, "float32")(picture, ONE, band=1600), expected) >= 60


def test_activations_that_are_not_kept_are_computed_anew(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(painting, "KEPT", 0)
    for architecture in ARCHITECTURES:
        fast, picture = Inference(network(architecture), "float32"), torch.rand(1, 3, 101, 77)
        assert psnr(fast(picture, ONE, band=1500), fast(picture, ONE)) >= 60


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_levels_in_are_levels_out_within_one_of_the_float_painting(way: str, architecture: str, padding: str) -> None:
    fast, levels = Inference(network(architecture, padding), "float32"), torch.randint(0, 256, (1, 3, 67, 90)).byte()
    painted = fast(levels, ONE)
    assert painted.dtype == torch.uint8
    assert (painted.float() - 255 * fast(levels / 255, ONE)).abs().max() <= 1
    assert psnr(fast(levels, ONE, band=1500) / 255, painted / 255) >= 55


def test_the_picture_is_not_changed(way: str) -> None:
    for picture in (torch.rand(1, 3, 64, 66), torch.randint(0, 256, (1, 3, 64, 66)).byte()):
        before = picture.clone()
        Inference(network(ARCHITECTURES[0]))(picture, ONE)
        assert torch.equal(picture, before)


def test_a_picture_may_lie_in_memory_in_any_order(way: str) -> None:
    fast, picture = Inference(network(ARCHITECTURES[0]), "float32"), torch.rand(1, 3, 64, 80)
    expected = fast(picture, ONE)
    for turned in (
        picture.contiguous(memory_format=torch.channels_last),
        torch.cat([picture, picture], 3)[..., :80],
        picture.transpose(2, 3).contiguous().transpose(2, 3),
    ):
        close(fast(turned, ONE), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shares", [[1, 0, 0], [0, 0, 1], [0.2, 0.5, 0.3]])
def test_styles_and_blends_of_them_are_the_networks(way: str, shares: list[float]) -> None:
    net, picture, style = network(ARCHITECTURES[1], styles=3), torch.rand(1, 3, 64, 70), torch.tensor([shares])
    fast = Inference(net, "float32")
    close(fast(picture, style), net(picture, style).clamp(0, 1), rtol=0, atol=1e-4)
    assert psnr(fast(picture, style), fast(picture, torch.eye(3)[1:2])) < 40  # and it is not every style's


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("precision", ["float32", pytest.param("int8", marks=needs_bytes)])
def test_a_picture_of_one_colour_is_painted_as_by_the_network(precision: str, value: float) -> None:
    stylizer, picture = Stylizer.load("starry_night"), torch.full((1, 3, 96, 96), value)
    with torch.no_grad():
        expected = stylizer.network(picture, stylizer._weights(None)).clamp(0, 1)
    assert psnr(Inference(stylizer.network, precision)(picture, stylizer._weights(None)), expected) >= 30


# --- in bytes


@pytest.fixture(scope="module")
def astronaut() -> Tensor:
    picture = Image.fromarray(data.astronaut()).resize((256, 256), Image.Resampling.BICUBIC)
    return images.from_any(picture)


@needs_bytes
@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("name", sorted(gallery()))
def test_in_bytes_a_shipped_style_is_above_40_decibels(name: str, astronaut: Tensor) -> None:
    stylizer = Stylizer.load(name)
    fast, style = Inference(stylizer.network, "int8"), stylizer._weights(None)
    with torch.no_grad():
        expected = stylizer.network(astronaut, style).clamp(0, 1)
    whole = fast(astronaut, style)
    assert psnr(whole, expected) >= 40
    assert psnr(fast(astronaut, style, band=20_000), whole) >= 42
    assert torch.equal(fast(astronaut, style), whole)  # bit for bit


@needs_bytes
def test_in_bytes_the_compiled_passes_change_little(
    compiled: None, astronaut: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    stylizer = Stylizer.load("starry_night_solo")
    fast, style = Inference(stylizer.network, "int8"), stylizer._weights(None)
    expected = fast(astronaut, style)
    levels = fast(levels_of(astronaut), style)
    assert (levels.float() - 255 * expected).abs().max() <= 1
    without_kernels(monkeypatch)
    fast = Inference(stylizer.network, "int8")
    assert psnr(fast(astronaut, style), expected) >= 42
    assert psnr(fast(astronaut, style, band=20_000), expected) >= 42


@needs_bytes
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_in_bytes_every_kind_of_layer_comes_near_the_network(way: str, architecture: str, padding: str) -> None:
    net, picture = network(architecture, padding), images.from_any(data.astronaut())[..., 60:161, 180:257]
    fast, expected = Inference(net, "int8"), net(picture, ONE).clamp(0, 1)
    assert psnr(fast(picture, ONE), expected) >= 35
    assert psnr(fast(picture, ONE, band=1500), expected) >= 35


@needs_bytes
def test_bytes_are_what_is_taken_where_there_are_instructions_for_them() -> None:
    fast = Inference(network(ARCHITECTURES[0]))
    assert fast.precision == "int8"
    assert 255 in fast.tops
    assert not any(Inference(network(ARCHITECTURES[0]), "float32").tops)


def test_bytes_are_for_networks_that_our_convolutions_take_where_pytorch_has_none(
    compiled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on processors with AVX-VNNI, but without AVX-512."""
    monkeypatch.setattr("perceptual.fast.plan.multiplies_bytes", lambda: False)
    ours = kernels.convolves(4, 255)
    assert reads_bytes([4, 64]) == ours
    assert not reads_bytes([6, 64])
    assert Inference(network(ARCHITECTURES[0])).precision == ("int8" if ours else "float32")


def test_elsewhere_it_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "reads_bytes", lambda channels: False)
    assert Inference(network(ARCHITECTURES[0])).precision == "float32"


# --- which networks


UNKNOWN = {
    "batch norm": NetworkConfig("c3s1-4 d4 U4 c3s1-3", "batch", "reflect"),
    "no norm": NetworkConfig("c3s1-4 d4 U4 c3s1-3", "none", "reflect"),
    "zero padding": NetworkConfig("c3s1-4 d4 U4 c3s1-3", "instance", "zero"),
    "padded at the start": NetworkConfig("c3s1-4 d4 r4 U4 c3s1-3", "instance", "reflect-start"),
    "super-resolution": NetworkConfig("c3s1-4 d4 U4 U4 c3s1-3", "instance", "reflect"),
    "enlarged first": NetworkConfig("c3s1-4 d4 U4 c3s1-3", "instance", "reflect", enlarge=2),
    "luma": NetworkConfig("c3s1-4 d4 U4 c3s1-1", "instance", "reflect", channels="luma"),
    "bicubic": NetworkConfig("c3s1-4 d4 U4 c3s1-3", "instance", "reflect", output="bicubic"),
    "one layer": NetworkConfig("c3s1-3", "instance", "reflect"),
    "never halved": NetworkConfig("c3s1-4 r4 c3s1-3", "instance", "reflect"),
    "strided first": NetworkConfig("c3s2-4 U4 c3s1-3", "instance", "reflect"),
    "shuffled last": NetworkConfig("c3s1-4 d4 s2-3", "instance", "reflect"),
}


@pytest.mark.parametrize("why", UNKNOWN)
def test_networks_with_other_parts_are_left_to_themselves(why: str) -> None:
    net = TransformationNetwork(UNKNOWN[why]).eval()
    assert plan(net) is None
    with pytest.raises(ValueError, match="does not support this network"):
        Inference(net)


@pytest.mark.parametrize(
    "architecture",
    [
        "c3s1-8 c5s2-8 u8 c1s1-3",
        "c1s1-8 d8 c3s1-8 n8 U8 c3s1-8 c3s1-3",  # plain layers at every size
        "c3s1-8 U8 d8 d8 B8 c3s1-3",  # larger than the picture on the way
        "c3s1-8 d8 r8 n8 r8 U8 c3s1-3",
        "c3s1-8 d8 c3s1-8 r8 c3s1-8 r8 U8 c3s1-3",  # two rows of residual blocks
        "c3s1-8 d8 r8 d8 r8 U8 U8 c3s1-3",  # and of two sizes
        "c3s1-8 r8 d8 U8 c3s1-3",  # residual blocks behind a folded layer
        "c3s1-8 d8 r8 U8 r8 c3s1-3",
        "c3s1-8 d8 s2-8 c3s1-3",
        "c3s1-8 c1s2-8 U8 c3s1-3",  # kernels that leave the last row out
        "c3s1-8 c3s4-8 U8 U8 c3s1-3",
    ],
)
def test_unusual_orders_of_layers_are_painted_as_by_the_network_or_left_to_it(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_kernels(monkeypatch)  # which would write beyond a grid that is too small
    net, picture = network(architecture), torch.rand(1, 3, 101, 77)
    if plan(net) is not None:
        fast, expected = Inference(net, "float32"), net(picture, ONE).clamp(0, 1)
        close(fast(picture, ONE), expected, rtol=0, atol=1e-4)
        assert psnr(fast(picture, ONE, band=1500), expected) >= 60


def test_small_pictures_are_left_to_the_network(compiled: None) -> None:
    fast = Inference(network(ARCHITECTURES[0]), "float32")
    assert fast.pays(200, 200)
    assert not fast.pays(100, 100)
    assert not fast.pays(63, 10_000)


def test_without_compiled_passes_float32_pays_for_large_pictures_only(monkeypatch: pytest.MonkeyPatch) -> None:
    without_kernels(monkeypatch)
    fast = Inference(network(ARCHITECTURES[0]), "float32")
    assert not fast.pays(1000, 1000)
    assert fast.pays(4000, 3000)


def test_a_large_picture_needs_less_memory_in_bands_than_in_the_network() -> None:
    stylizer = Stylizer.load("starry_night")
    for side in (4000, 8000, 16_000):
        assert Inference(stylizer.network).memory(side, side) < stylizer.network.memory(side, side) / 2


# --- as a Stylizer uses it


def stylizer_of(net: TransformationNetwork, **defaults: str) -> Stylizer:
    return Stylizer(net, Card(task="style", network=net.config), device="cpu", **defaults)


@pytest.fixture
def bands(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The `band` of every painting of Inference from here on."""
    seen: list[int | None] = []
    paint = Inference.paint

    def spy(
        self: Inference, picture: Tensor, style: Tensor, noise: Tensor | None = None, *, band: int | None = None
    ) -> Generator[Step, None, Tensor]:
        seen.append(band)
        return paint(self, picture, style, noise, band=band)

    monkeypatch.setattr(Inference, "paint", spy)
    return seen


def test_a_stylizer_in_float32_paints_what_its_network_paints(
    compiled: None, tiny_style: Path, bands: list[int | None]
) -> None:
    stylizer, picture = Stylizer.load(tiny_style, device="cpu", precision="float32"), torch.rand(1, 3, 171, 180)
    painted = stylizer.stylize(picture, style="two")
    assert bands == [None]
    with torch.no_grad():
        close(painted, stylizer.network(picture, torch.eye(2)[1:]).clamp(0, 1), rtol=0, atol=1e-4)


def with_margin(picture: Tensor) -> Tensor:
    """With the mirror image around it that networks with noise get; the pixels at the edges come twice."""
    return torch.from_numpy(np.pad(picture.numpy(), [(0, 0), (0, 0), (MARGIN,) * 2, (MARGIN,) * 2], mode="symmetric"))


def test_a_stylizer_takes_the_best_of_the_processor(compiled: None, astronaut: Tensor, bands: list[int | None]) -> None:
    stylizer = Stylizer.load("wave", device="cpu")
    assert stylizer.precision == "auto"
    painted = stylizer.stylize(astronaut)
    assert bands == [None]
    fast = stylizer._fast("auto")
    assert fast is not None
    assert fast.precision == ("int8" if reads_bytes() else "float32")
    with torch.no_grad():
        expected = stylizer.network(with_margin(astronaut), stylizer._weights(None)).clamp(0, 1)
    assert psnr(painted, expected[..., MARGIN:-MARGIN, MARGIN:-MARGIN]) >= 38


def test_a_stylizer_leaves_a_small_picture_to_its_network(tiny_style: Path, bands: list[int | None]) -> None:
    stylizer, picture = Stylizer.load(tiny_style, device="cpu"), torch.rand(1, 3, 63, 90)
    with torch.no_grad():
        expected = stylizer.network(picture.contiguous(memory_format=torch.channels_last), torch.eye(2)[:1])
    assert torch.equal(stylizer.stylize(picture), expected.clamp(0, 1))
    assert bands == []


def test_a_stylizer_leaves_what_is_smaller_than_the_padding_to_its_network(compiled: None) -> None:
    net, picture = network("c3s1-4 d4*4 c9s1-4 U4*4 c3s1-3"), torch.rand(1, 3, 64, 400)
    assert net.minimum > 64  # 5 pixels of a sixteenth of the size
    stylizer = stylizer_of(net, precision="float32")
    close(stylizer.stylize(picture), net(picture, ONE).clamp(0, 1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("side", [60, 170])
def test_levels_given_to_a_stylizer_are_levels_of_the_float_painting(
    compiled: None, tiny_style: Path, side: int
) -> None:
    stylizer = Stylizer.load(tiny_style, device="cpu", precision="float32")
    levels = torch.randint(0, 256, (2, 3, side, side + 7)).byte()
    painted, expected = stylizer.stylize(levels), stylizer.stylize(levels / 255)
    assert painted.dtype == torch.uint8
    assert painted.shape == levels.shape
    assert (painted.int() - levels_of(expected).int()).abs().max() <= 1


@pytest.mark.parametrize(
    "how", [{}, {"strength": 0.0}, {"strength": 0.5}, {"keep_colors": True}, {"style_scale": 2.0}, {"size": 40}]
)
def test_levels_stay_levels_whatever_is_asked_for(tiny_style: Path, how: dict[str, float]) -> None:
    levels = torch.randint(0, 256, (1, 3, 60, 50)).byte()
    painted = Stylizer.load(tiny_style, device="cpu").stylize(levels, **how)  # type: ignore[arg-type]
    assert painted.dtype == torch.uint8
    if how == {"strength": 0.0}:
        assert torch.equal(painted, levels)


def test_a_stylizer_paints_a_large_picture_in_bands(
    way: str, tiny_style: Path, bands: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stylizer, picture = Stylizer.load(tiny_style, device="cpu", precision="float32"), torch.rand(1, 3, 203, 178)
    with torch.no_grad():
        whole = stylizer.network(picture, torch.eye(2)[:1]).clamp(0, 1)
    monkeypatch.setattr("perceptual.apply.stylizer.WHOLE", 1 << 12)
    monkeypatch.setattr("perceptual.apply.stylizer.BAND", 5000)
    monkeypatch.setattr(Inference, "pays", lambda self, height, width: True)
    assert psnr(stylizer.stylize(picture), whole) >= 45
    assert psnr(stylizer.stylize(levels_of(picture)) / 255, whole) >= 45
    assert bands == [5000, 5000]


@pytest.mark.parametrize("side", [80, 170])
def test_a_network_whose_numbers_overflow_is_refused(compiled: None, side: int) -> None:
    net = network(ARCHITECTURES[2])
    net.layers[0].conv.weight.fill_(1e38)
    stylizer = stylizer_of(net, precision="float32")
    with pytest.raises(CheckpointError, match="damaged"):
        stylizer.stylize(torch.rand(1, 3, side, side))


def test_int8_is_refused_where_there_are_no_instructions_for_it(
    tiny_style: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "reads_bytes", lambda channels: False)
    monkeypatch.setattr("perceptual.apply.stylizer.reads_bytes", lambda: False)
    stylizer = Stylizer.load(tiny_style, device="cpu")
    with pytest.raises(ConfigError, match="no int8 instructions"):
        stylizer.stylize(torch.rand(1, 3, 64, 64), precision="int8")


def test_bytes_are_multiplied_only_where_the_processor_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_vnni_supported", "_is_avx512_vnni_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert not multiplies_bytes()


@needs_bytes
def test_bytes_are_not_multiplied_where_sums_of_products_are_cut_off() -> None:
    code = "from perceptual.devices import multiplies_bytes; print(multiplies_bytes())"
    without_vnni = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}
    done = subprocess.run([sys.executable, "-c", code], env=without_vnni, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_memory_is_not_kept_on_other_systems_nor_against_the_users_word(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_memory()
    monkeypatch.setattr("ctypes.CDLL", None)  # from here on it must not be called
    with monkeypatch.context() as users:
        users.setenv("MALLOC_MMAP_THRESHOLD_", "131072")
        keep_memory()
    monkeypatch.setattr("sys.platform", "darwin")
    keep_memory()


# --- levels of files


def test_the_levels_of_a_file_are_255_times_its_pixels(tmp_path: Path, photograph: Image.Image) -> None:
    photograph.save(tmp_path / "a.png")
    levels = images.read(tmp_path / "a.png", levels=True).pixels
    assert levels.dtype == torch.uint8
    assert np.array_equal(levels[0].permute(1, 2, 0).numpy(), np.asarray(photograph))
    pixels = images.read(tmp_path / "a.png").pixels
    assert pixels.dtype == torch.float32
    assert torch.equal(levels, (255 * pixels).round().byte())
    assert torch.equal(images.unit(levels), pixels)
    assert torch.equal(images.like(pixels, levels), levels)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_levels_are_written_as_they_are(tmp_path: Path, mode: str) -> None:
    every = torch.arange(256).byte().view(1, 1, 16, 16)
    levels = torch.cat([every, every.flip(2), every.flip(3)], 1)
    alpha = torch.arange(256).clamp(min=1).view(1, 1, 16, 16) / 255 if mode == "RGBA" else None  # all is visible
    images.write(tmp_path / "a.png", images.Picture(levels, alpha))
    again = images.read(tmp_path / "a.png", levels=True)
    assert torch.equal(again.pixels, levels)
    with Image.open(tmp_path / "a.png") as file:
        assert file.mode == mode
    if alpha is not None:
        assert again.alpha is not None
        close(again.alpha, alpha)


def test_sixteen_bits_stay_floats(tmp_path: Path) -> None:
    pixels = torch.arange(3 * 64 * 64).view(1, 3, 64, 64) * 5 % 65536 / 65535
    images.write(tmp_path / "a.png", images.Picture(pixels, bit_depth=16))
    found = images.read(tmp_path / "a.png", levels=True)
    assert found.bit_depth == 16
    assert found.pixels.dtype == torch.float32
    close(found.pixels, pixels, rtol=0, atol=1e-6)


def test_floats_stay_floats_where_the_other_has_no_levels() -> None:
    pixels = torch.rand(1, 3, 2, 2)
    assert torch.equal(images.unit(pixels), pixels)
    assert torch.equal(images.like(pixels, pixels), pixels)
    half = torch.tensor([0.5 / 255, 0.49 / 255, 2.0, -1.0]).view(1, 1, 2, 2)
    assert images.like(half, torch.zeros(1, dtype=torch.uint8)).flatten().tolist() == [1, 0, 255, 0]


@pytest.mark.parametrize("rows", [96, 100, 140])
def test_bands_before_a_folded_last_layer_hold_whole_cells(rows: int) -> None:
    fast = Inference(network("c3s1-8 d8 U8 c3s1-4 c3s1-3"), "float32")
    picture = torch.rand(1, 3, rows, 76)
    for band in (1300, 1800, 2700):
        assert psnr(fast(picture, ONE, band=band), fast(picture, ONE)) >= 60


def test_a_block_right_before_the_last_layer_is_left_to_the_network() -> None:
    assert plan(network("c3s1-8 d8 U8 U8 d8 r8 c3s1-3")) is None


def test_the_network_s_noise_is_in_the_fast_way_too_and_can_be_left_out(compiled: None) -> None:
    torch.manual_seed(0)
    config = NetworkConfig("c3s1-8 d16 r16 B8 c3s1-3", norm="conditional_instance", padding="reflect", noise=0.2)
    network = TransformationNetwork(config).eval()
    stylizer = Stylizer(network, Card(task="style", network=config), device="cpu", precision="float32")
    picture = torch.rand(1, 3, 170, 190)
    with torch.no_grad():
        for amount in (1.0, 0.5, 0.0):
            field = amount * noise_field(170 + 2 * MARGIN, 190 + 2 * MARGIN)
            exact = network(with_margin(picture), None, field).clamp(0, 1)[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
            close(stylizer.stylize(picture, noise=amount), exact, rtol=0, atol=1e-3)
    one, other = (stylizer.stylize(picture, noise=amount) for amount in (0.0, 1.0))
    assert (one - other).abs().mean() > 1e-3
