"""Super-resolution networks of other programs: results, tiles, memory, cards, and files that are refused."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from foreign import (
    TransformerNet,
    compact,
    compact_state,
    esrgan,
    esrgan_names,
    esrgan_state,
    span,
    span_state,
)
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from perceptual import Upscaler, checkpoints, cli
from perceptual.apply import tiles
from perceptual.checkpoints.foreign import upscalers
from perceptual.errors import CheckpointError, ConfigError, ImageError
from perceptual.measure.super_resolution import own_methods

Capture = pytest.CaptureFixture[str]
State = dict[str, Tensor]
pytestmark = pytest.mark.usefixtures("seed")

# name: (tensors for a scale of 4, what the network computes)
NETWORKS: dict[str, tuple[Callable[[], State], Callable[[State, Tensor], Tensor]]] = {
    "esrgan": (esrgan_state, esrgan),
    "compact": (compact_state, compact),
    "span": (span_state, span),
    "span without mean": (lambda: span_state(norm=False), span),
}


def in_range(name: str) -> State:
    """Tensors of a network whose result is mostly inside [0, 1], so that clamping hides nothing."""
    state = NETWORKS[name][0]()
    last = {"esrgan": "conv_last", "compact": "body.8"}.get(name, "upsampler.0")
    if name == "span":  # it multiplies its input by 255
        state |= {key: value / 100 for key, value in state.items() if key.startswith(("conv_1.sk", "conv_1.conv.2"))}
    state[f"{last}.weight"] *= 0.1
    state[f"{last}.bias"] = state[f"{last}.bias"] * 0.1 + (0 if name == "compact" else 0.5)
    return state


def saved(path: Path, state: Mapping[str, Tensor], **header: str) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(dict(state), path, header or None)
    else:
        torch.save(dict(state), path)
    return path


# --- the same result as their own code


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_a_network_gives_what_its_own_code_gives(tmp_path: Path, name: str, ending: str) -> None:
    state, x = in_range(name), torch.rand(1, 3, 21, 34)
    made = Upscaler.load(saved(tmp_path / f"a{ending}", state), device="cpu")
    expected = NETWORKS[name][1](state, x)
    assert expected.std() > 0.01
    assert expected.clamp(0, 1).sub(expected).abs().mean() < 0.02
    assert made.network.scale == 4
    torch.testing.assert_close(made.upscale(x), expected.clamp(0, 1), atol=2e-4, rtol=0)


@pytest.mark.parametrize("layout", ["old", "middle"])
@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_older_names_of_esrgan_are_read(tmp_path: Path, layout: str, scale: int) -> None:
    state, x = esrgan_state(scale), torch.rand(1, 3, 9, 12)
    state["conv_last.bias"] += 0.5
    made = Upscaler.load(saved(tmp_path / "a.pth", esrgan_names(state, layout)), device="cpu")
    assert made.network.scale == scale
    torch.testing.assert_close(made.upscale(x), esrgan(state, x).clamp(0, 1), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("scale", "fold"), [(2, 2), (1, 4)])
def test_real_esrgan_with_folded_pixels_takes_every_size(tmp_path: Path, scale: int, fold: int) -> None:
    state = esrgan_state(scale, fold)
    state["conv_last.bias"] += 0.5
    made = Upscaler.load(saved(tmp_path / "a.pth", {"params_ema": state}["params_ema"]), device="cpu")
    for height, width in ((16, 20), (17, 22), (3, 1)):
        x = torch.rand(1, 3, height, width)
        mode = "reflect" if min(height, width) >= fold else "replicate"
        padded = F.pad(x, (0, -width % fold, 0, -height % fold), mode=mode)
        expected = esrgan(state, padded, fold)[..., : scale * height, : scale * width].clamp(0, 1)
        torch.testing.assert_close(made.upscale(x), expected, atol=1e-4, rtol=0)


# --- tiles and memory


@pytest.mark.parametrize("name", ["compact", "span"])
def test_tiles_equal_the_whole_where_the_reach_is_known(tmp_path: Path, name: str) -> None:
    made = Upscaler.load(saved(tmp_path / "a.pth", in_range(name)), device="cpu")
    assert made.network.reach is not None
    x = torch.rand(1, 3, 90, 75)
    torch.testing.assert_close(made.upscale(x, tile=32), made.upscale(x, tile=0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["esrgan", "compact", "span"])
def test_the_reach_is_right(tmp_path: Path, name: str) -> None:
    """A pixel outside the reach changes nothing."""
    state = esrgan_state(4, blocks=1) if name == "esrgan" else in_range(name)
    network = checkpoints.load(saved(tmp_path / "a.pth", state))[0].double()
    reach = network.reach
    assert reach is not None
    x = torch.rand(1, 3, 2 * reach + 9, 5).double()
    other = x.clone()
    other[..., reach + 4 + reach + 1 :, :] += 1
    rows = slice(0, 4 * (reach + 5))
    with torch.no_grad():
        assert torch.equal(network(x)[..., rows, :], network(other)[..., rows, :])


class Global(nn.Module):
    """Doubles the size. Each pixel also depends on the mean of the whole picture."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2) * 0.9 + 0.1 * x.mean((2, 3), keepdim=True)


def overlapped(body: nn.Module, **traits: Any) -> Upscaler:
    network = upscalers.ForeignNetwork(body, upscalers.Traits("test", 2, **traits)).eval()
    return Upscaler(network, checkpoints.Card(task="upscale", network=network.config), device="cpu")


@pytest.mark.parametrize("levels", [False, True])
def test_tiles_of_a_global_network_fade_into_each_other(levels: bool) -> None:
    made, grey = overlapped(Global()), torch.rand(1, 3, 1, 1).expand(1, 3, 300, 260)
    grey = (255 * grey).byte() if levels else grey
    tiled, whole = (made.upscale(grey, tile=side) for side in (64, 0))
    assert (tiled.float() - whole.float()).abs().max() <= (1 if levels else 1e-6)  # the mean of every tile is the same
    ramp = torch.linspace(0, 1, 300).view(1, 1, 300, 1).expand(1, 3, 300, 260)
    tiled = made.upscale(ramp, tile=64)
    steps = tiled.diff(dim=2).abs().max()
    assert steps < 1 / 300 + 0.1 * 64 / 300 / 30  # no jump at any seam: the change of the means is spread over 64 px


def test_tiles_of_a_local_network_of_unknown_reach_equal_the_whole() -> None:
    made, x = overlapped(nn.Upsample(scale_factor=2, mode="bilinear")), torch.rand(1, 3, 150, 301)
    torch.testing.assert_close(made.upscale(x, tile=40), made.upscale(x, tile=0), atol=1e-5, rtol=0)
    with pytest.raises(ConfigError, match="cannot be tiled"):
        overlapped(Global(), tileable=False).upscale(x, tile=40)


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Upscaler.load(saved(tmp_path / "a.pth", in_range("compact")), device="cpu")
    x, sides = torch.rand(1, 3, 200, 200), []
    whole, small = made.network.memory(200, 200), made.network.memory(48, 48)
    result = 2 * 4 * 3 * 200 * 200 * 16
    assert whole > 4 * 3 * 16 * 200 * 200  # the result at least
    monkeypatch.setattr(tiles, "free_memory", lambda device: result + small)
    forward = made.network.forward
    monkeypatch.setattr(made.network, "forward", lambda x, *a: sides.append(max(x.shape[-2:])) or forward(x, *a))
    made.upscale(x)
    assert 16 <= max(sides) <= 48
    monkeypatch.setattr(tiles, "free_memory", lambda device: 1000)
    with pytest.raises(ImageError, match="needs about"):
        made.upscale(x)


# --- the command


def test_the_command_takes_the_file_and_shows_licence_and_tags(tmp_path: Path, capsys: Capture) -> None:
    header = {"modelspec.license": "CC-BY-4.0", "modelspec.author": "Ana", "modelspec.tags": "photo, 4x"}
    path = saved(tmp_path / "4x_ana.safetensors", in_range("compact"), **header)
    pixels = (np.random.default_rng(0).random((20, 24, 4)) * 255).astype(np.uint8)
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels).save(tmp_path / "in" / "alpha.png")
    Image.fromarray(pixels[..., :3]).save(tmp_path / "in" / "plain.png")
    words = ["upscale", str(tmp_path / "in"), "--network", str(path), "-o", str(tmp_path / "out")]
    assert cli.main(words) == 0
    said = capsys.readouterr().err
    assert "Compact x4 (8 filters, 3 layers, photo, 4x) by Ana; licence: CC-BY-4.0." in said
    for name, mode in (("alpha.png", "RGBA"), ("plain.png", "RGB")):
        with Image.open(tmp_path / "out" / name) as large:
            assert (large.size, large.mode) == ((96, 80), mode)
    assert cli.main([*words, "--scale", "2", "--overwrite"]) == 0
    with Image.open(tmp_path / "out" / "plain.png") as large:
        assert large.size == (48, 40)


def test_sixteen_bits_stay_sixteen_bits(tmp_path: Path) -> None:
    import cv2

    path = saved(tmp_path / "a.pth", in_range("compact"))
    deep = (np.random.default_rng(0).random((20, 24, 3)) * 65535).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    out = tmp_path / "large.png"
    assert cli.main(["upscale", str(tmp_path / "deep.png"), "--network", str(path), "-o", str(out)]) == 0
    large = cv2.imread(str(out), cv2.IMREAD_UNCHANGED)
    assert (large.dtype, large.shape) == (np.uint16, (80, 96, 3))
    assert len(np.unique(large)) > 256


def test_evaluate_sr_measures_it_beside_the_shipped_networks(tmp_path: Path) -> None:
    path, x = saved(tmp_path / "theirs.pth", in_range("compact")), torch.rand(1, 3, 12, 13)
    methods = own_methods([path], device="cpu")
    assert [(scale, [*found]) for scale, found in methods.items()] == [(4, ["theirs"])]
    assert methods[4]["theirs"](x).shape == (1, 3, 48, 52)


def test_tasks_are_not_mixed_up(tmp_path: Path) -> None:
    style = saved(tmp_path / "style.pth", TransformerNet().state_dict())
    upscaler = saved(tmp_path / "upscaler.pth", compact_state())
    with pytest.raises(CheckpointError, match="is a network for 'style', not for upscale"):
        Upscaler.load(style, device="cpu")
    with pytest.raises(CheckpointError, match="is a network for 'upscale', not for style"):
        checkpoints.load(upscaler, task="style")
    with pytest.raises(ConfigError, match="Compact cannot be written as a file of perceptual"):
        checkpoints.save(tmp_path / "x.safetensors", *checkpoints.load(upscaler))
    assert not (tmp_path / "x.safetensors").exists()


# --- files that are refused


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(path, task="upscale")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def without_spandrel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)


@pytest.mark.usefixtures("without_spandrel")
@pytest.mark.parametrize("name", NETWORKS)
def test_wrong_shapes_and_missing_tensors_are_refused(tmp_path: Path, name: str) -> None:
    good = NETWORKS[name][0]()
    used = [key for key in good if ".eval_conv." not in key]
    for key in used[:: max(3, len(used) // 8)]:
        for wrong in (torch.zeros(()), torch.zeros(2, 2), torch.zeros(5, 3, 3, 3)):
            assert refusal(saved(tmp_path / "a.pth", {**good, key: wrong})).startswith(str(tmp_path))
        path = saved(tmp_path / "a.pth", {k: v for k, v in good.items() if k != key})
        if not key.endswith(".sk.weight"):  # without it, the convolution .eval_conv is used
            assert "pip install 'perceptual[models]'" in refusal(path)


@pytest.mark.usefixtures("without_spandrel")
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_truncated_files_are_refused(tmp_path: Path, ending: str) -> None:
    path = saved(tmp_path / f"a{ending}", compact_state())
    data = path.read_bytes()
    for length in (0, 7, 90, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        assert "damaged" in refusal(path)


@pytest.mark.usefixtures("without_spandrel")
def test_a_small_file_that_claims_a_huge_network_takes_no_memory(tmp_path: Path) -> None:
    state = compact_state()
    state["body.0.weight"] = torch.zeros(200_000, 3, 3, 3)  # the next layer would have 360 billion weights
    assert "not those of Compact" in refusal(saved(tmp_path / "a.pth", state))
    state = {**compact_state(), "extra": torch.zeros(1).expand(1 << 40)}
    assert "claims 1,099," in refusal(saved(tmp_path / "a.pth", state))


# --- spandrel


class Unsupported(Exception):
    pass


def fake_spandrel(**changes: Any) -> ModuleType:
    """A module with the names of spandrel that are used. It knows networks of one tensor, "bicubic"."""
    module = ModuleType("spandrel")

    class Descriptor(SimpleNamespace):
        pass

    class Loader:
        def __init__(self, device: str) -> None:
            assert device == "cpu"

        def load_from_state_dict(self, state: State) -> Any:
            if "bicubic" not in state:
                raise Unsupported
            needs = SimpleNamespace(multiple_of=8, minimum=16, square=False)
            model = nn.Upsample(scale_factor=2, mode="nearest")
            values = {
                "model": model, "_call_fn": lambda model, x: model(x), "scale": 2, "tags": ["1nf"], "purpose": "SR",
                "architecture": SimpleNamespace(name="SwinIR"), "input_channels": 3, "output_channels": 3,
                "size_requirements": needs, "tiling": 1,
            }  # fmt: skip
            return Descriptor(**{**values, **changes})

    module.ModelLoader, module.ImageModelDescriptor = Loader, Descriptor
    module.UnsupportedModelError, module.ModelTiling = Unsupported, SimpleNamespace(INTERNAL=3)
    return module


def test_other_networks_come_through_spandrel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.pth", {"bicubic": torch.zeros(1)})
    monkeypatch.setitem(sys.modules, "spandrel", fake_spandrel())
    made = Upscaler.load(path, device="cpu")
    assert made.card.about == "SwinIR x2 (1nf)"
    assert (made.network.reach, made.network.overlap, made.network.multiple) == (None, 64, 8)
    x = torch.rand(1, 3, 5, 19)
    torch.testing.assert_close(made.upscale(x), x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert "spandrel does not know it either" in refusal(saved(path, {"other": torch.zeros(1)}))
    for changes, says in (
        ({"input_channels": 1}, "does not make RGB from RGB"),
        ({"scale": 99}, "for scale 99"),
        ({"scale": 3}, "which is not its scale 3"),
    ):
        monkeypatch.setitem(sys.modules, "spandrel", fake_spandrel(**changes))
        assert says in refusal(saved(path, {"bicubic": torch.zeros(1)}))


@pytest.mark.usefixtures("without_spandrel")
def test_without_spandrel_the_sentence_names_it(tmp_path: Path) -> None:
    said = refusal(saved(tmp_path / "a.pth", {"other": torch.zeros(1)}))
    assert said.endswith("spandrel knows more: pip install 'perceptual[models]'.")
