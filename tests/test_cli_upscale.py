"""perceptual upscale, train upscale and evaluate sr as a user meets them: files, exit codes, and one sentence."""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import assert_one_sentence
from PIL import Image, ImageCms
from test_cli import run
from torch import nn

import perceptual
from perceptual import checkpoints, files, images
from perceptual.apply import tiles
from perceptual.checkpoints import shipped
from perceptual.config import NetworkConfig
from perceptual.errors import ConfigError
from perceptual.measure.super_resolution import own_methods, read_sets
from perceptual.networks import TransformationNetwork, enlarge
from perceptual.reproduce import super_resolution

Capture = pytest.CaptureFixture[str]
FAST = ["--architecture", "c3s1-4 s4-3", "--size", "32", "--batch", "2", "--steps", "4", "--workers", "0"]
FAST += ["--tick-every", "1", "--preview-every", "0", "--device", "cpu", "--precision", "float32"]


def save_network(name: str, architecture: str = "c3s1-4 s4-3", *, zero: bool = False, **settings: Any) -> Path:
    """A network with a card in NAME.safetensors; zero: all weights 0, which leaves the bicubic enlargement."""
    torch.manual_seed(len(name))
    chosen = {"norm": "none", "padding": "replicate", "output": "bicubic", **settings}
    task = chosen.pop("task", "upscale")
    config = NetworkConfig(architecture, **chosen)
    network = TransformationNetwork(config)
    for parameter in network.parameters() if zero else ():
        nn.init.zeros_(parameter)
    told = {"train": {"batch": 1, "size": 32}, "loss": "pixel"}
    path = Path(f"{name}.safetensors")
    checkpoints.save(path, network, checkpoints.Card(task=task, network=config, settings=told, data="nothing"))
    return path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photograph: Image.Image) -> Path:
    """The working folder: photos/, networks of random and of zero weights; none is shipped, and no weights are here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERCEPTUAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PERCEPTUAL_WEIGHTS", raising=False)
    ship(monkeypatch, {})
    Path("photos").mkdir()
    for index in range(3):
        photograph.crop((20 * index, 10, 20 * index + 60, 58)).save(f"photos/{index}.png")
    save_network("x4")
    save_network("zero", zero=True)
    return tmp_path


def ship(monkeypatch: pytest.MonkeyPatch, networks: dict[str, Path]) -> None:
    """Let these be the networks for super-resolution that come with the package."""
    styles = dict(shipped.networks("style"))

    monkeypatch.setattr(shipped, "networks", lambda task: networks if task == "upscale" else styles)


def upscale(capsys: Capture, *words: object, network: str = "x4") -> tuple[int, str, str]:
    return run(capsys, "upscale", *words, "--network", f"{network}.safetensors", "--device", "cpu")


def pixels(path: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    with Image.open(path) as image:
        return np.asarray(image).astype(np.float32)


# --- perceptual upscale


def test_one_file_becomes_four_times_as_large_by_the_network(capsys: Capture) -> None:
    code, out, err = upscale(capsys, "photos/0.png", "-o", "large.png")
    assert code == 0, err
    assert out == "large.png\n"
    assert "1 written, 0 skipped, 0 failed" in err
    network, _ = checkpoints.load("x4.safetensors")
    with torch.no_grad():
        expected = network(images.read("photos/0.png").pixels).clamp(0, 1)[0].permute(1, 2, 0) * 255
    assert pixels("large.png").shape == (192, 240, 3)
    assert np.abs(pixels("large.png") - expected.numpy()).max() < 0.51


def test_zero_weights_write_the_bicubic_enlargement(capsys: Capture) -> None:
    upscale(capsys, "photos/0.png", "-o", "large.png", network="zero")
    expected = enlarge(images.read("photos/0.png").pixels, 4).clamp(0, 1)[0].permute(1, 2, 0) * 255
    assert np.abs(pixels("large.png") - expected.numpy()).max() < 0.51


def test_a_folder_is_mirrored_and_formats_that_are_only_read_become_png(capsys: Capture) -> None:
    Path("photos/deep").mkdir()
    Image.new("L", (5, 4), 100).save("photos/deep/a.gif")
    code, out, _ = upscale(capsys, "photos", "-o", "out")
    assert code == 0
    assert out.split() == ["out/0.png", "out/1.png", "out/2.png", "out/deep/a.png"]
    assert pixels("out/deep/a.png").shape == (16, 20, 3)


def test_alpha_is_kept_and_enlarged(capsys: Capture) -> None:
    with Image.open("photos/0.png") as image:
        image.putalpha(Image.linear_gradient("L").resize(image.size))
        image.save("a.png")
    code, _, err = upscale(capsys, "a.png", "-o", "large.png")
    assert code == 0, err
    large, small = pixels("large.png"), pixels("a.png")
    assert large.shape == (192, 240, 4)
    blocks = large[..., 3].reshape(48, 4, 60, 4).mean((1, 3))
    assert np.abs(blocks - small[..., 3]).max() < 14  # the range of 5 rows of 256 levels over 48
    upscale(capsys, "photos/0.png", "-o", "opaque.png")
    assert np.array_equal(large[..., :3], pixels("opaque.png"))


def test_the_colour_profile_and_exif_are_kept(capsys: Capture) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    with Image.open("photos/0.png") as image:
        exif = image.getexif()
        exif[0x010E] = "a cat"
        image.save("a.jpg", icc_profile=profile, exif=exif)
    for name in ("large.jpg", "large.png"):
        code, _, err = upscale(capsys, "a.jpg", "-o", name)
        assert code == 0, err
        with Image.open(name) as large:
            assert large.size == (240, 192)
            assert large.info["icc_profile"] == profile
            assert large.getexif()[0x010E] == "a cat"


def test_a_picture_on_its_side_is_enlarged_upright(capsys: Capture) -> None:
    with Image.open("photos/0.png") as image:
        exif = image.getexif()
        exif[0x0112] = 6
        image.save("a.jpg", exif=exif)
    upscale(capsys, "a.jpg", "-o", "large.png")
    with Image.open("large.png") as large:
        assert large.size == (192, 240)
        assert large.getexif().get(0x0112, 1) == 1


def test_sixteen_bits_stay_sixteen(capsys: Capture) -> None:
    ramp = torch.linspace(0.2, 0.21, 32).expand(1, 3, 8, 32)
    images.write("deep.png", images.Picture(ramp, bit_depth=16))
    code, _, err = upscale(capsys, "deep.png", "-o", "large.png", network="zero")
    assert code == 0, err
    large = images.read("large.png")
    assert large.bit_depth == 16
    assert (large.pixels - enlarge(images.read("deep.png").pixels, 4)).abs().max() < 1 / 65535
    assert len(large.pixels.unique()) > 100  # 8 bits have 3 levels there


@pytest.mark.parametrize("mode", ["L", "1", "LA", "P", "CMYK"])
def test_pictures_of_other_modes_are_enlarged(capsys: Capture, mode: str) -> None:
    with Image.open("photos/0.png") as image:
        image.convert("L").convert(mode).save("a.tif")
    code, _, err = upscale(capsys, "a.tif", "-o", "large.png", network="zero")
    assert code == 0, err
    large = pixels("large.png")[..., :3]
    assert large.shape == (192, 240, 3)
    assert np.ptp(large, axis=2).max() <= 1  # grey


def test_a_picture_of_one_pixel_is_enlarged(capsys: Capture) -> None:
    Image.new("RGB", (1, 1), (10, 200, 30)).save("a.png")
    assert upscale(capsys, "a.png", "-o", "large.png", network="zero")[0] == 0
    assert np.array_equal(pixels("large.png"), np.broadcast_to([10, 200, 30], (4, 4, 3)))


@pytest.mark.parametrize(
    ("scale", "size"), [("3", (180, 144)), ("2.5", (150, 120)), ("4", (240, 192)), ("0.5", (30, 24))]
)
def test_a_scale_between_is_the_networks_made_smaller(capsys: Capture, scale: str, size: tuple[int, int]) -> None:
    code, _, err = upscale(capsys, "photos/0.png", "--scale", scale, "-o", "large.png")
    assert code == 0, err
    network, _ = checkpoints.load("x4.safetensors")
    with torch.no_grad():
        whole = network(images.read("photos/0.png").pixels).clamp(0, 1)
    expected = images.resize(whole, size=size[::-1])[0].permute(1, 2, 0) * 255
    assert pixels("large.png").shape == (*size[::-1], 3)
    assert np.abs(pixels("large.png") - expected.numpy()).max() < 0.51


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("c3s1-4 s4-3", {}),
        ("c9s1-4 r4*2 u4 u4 c9s1-3", {"norm": "batch", "output": "tanh", "padding": "zero"}),
        ("c9s1-4 c5s1-4 c5s1-1", {"channels": "luma", "enlarge": 3, "output": "linear"}),
        ("c3s1-4 d4 r4 U4 s2-3", {"padding": "reflect"}),
        ("c3s4-4 s8-3", {}),
    ],
)
def test_tiles_leave_no_seams(capsys: Capture, architecture: str, settings: dict[str, Any]) -> None:
    path = save_network("tiled", architecture, **settings)
    network, card = checkpoints.load(path)
    for name, value in network.named_parameters():
        if name.endswith("conv.weight"):
            value.data.abs_()  # so that what a tile lacks is seen
    network.layers[-1].conv.weight.data *= 0.1
    checkpoints.save(path, network, card)
    noise = np.random.default_rng(0).integers(0, 256, (24, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save("noise.png")
    for tile in ("0", "16", "19"):
        code, _, err = upscale(capsys, "noise.png", "--tile", tile, "-o", f"{tile}.png", network="tiled")
        assert code == 0, err
        assert np.abs(pixels("0.png") - pixels(f"{tile}.png")).max() <= 1
    assert np.ptp(pixels("0.png")) > 20


def test_little_free_memory_makes_tiles_and_too_little_a_sentence(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 100, 3), dtype=np.uint8)).save("noise.png")
    network, _ = checkpoints.load("x4.safetensors")
    sizes: list[tuple[int, ...]] = []
    forward = TransformationNetwork.forward

    def seen(self: TransformationNetwork, x: torch.Tensor, style: torch.Tensor | None = None) -> torch.Tensor:
        sizes.append(tuple(x.shape[-2:]))
        return forward(self, x, style)

    monkeypatch.setattr(TransformationNetwork, "forward", seen)
    result = 2 * 4 * 3 * 90 * 100 * 16  # bytes of what comes out, and of a copy
    for name, free in (("whole", 1e12), ("tiles", result + network.memory(40, 40))):
        monkeypatch.setattr(tiles, "free_memory", lambda device, free=free: free)
        code, _, err = upscale(capsys, "noise.png", "-o", f"{name}.png")
        assert code == 0, err
    assert np.abs(pixels("whole.png") - pixels("tiles.png")).max() <= 1
    assert (90, 100) in sizes
    assert len(sizes) > 8
    assert max(max(size) for size in sizes if size != (90, 100)) <= 40
    monkeypatch.setattr(tiles, "free_memory", lambda device: result + network.memory(10, 10))
    code, _, err = upscale(capsys, "noise.png", "-o", "none.png")
    assert code == 1
    assert "A picture of 100 x 90 px needs about" in err
    assert "Traceback" not in err
    assert not Path("none.png").exists()


def test_matching_histograms_brings_the_colours_back(capsys: Capture) -> None:
    network, card = checkpoints.load("zero.safetensors")
    network.layers[-1].conv.bias.data[:16] = 0.2  # red is 0.1 too light everywhere
    checkpoints.save("zero.safetensors", network, card)
    for flags in ([], ["--match-histogram"]):
        upscale(capsys, "photos/0.png", "-o", f"{len(flags)}.png", *flags, network="zero")
    small = pixels("photos/0.png").mean((0, 1))
    assert (pixels("0.png").mean((0, 1)) - small)[0] > 15
    assert np.abs(pixels("1.png").mean((0, 1)) - small).max() < 1.5


def test_existing_outputs_are_skipped_when_asked(capsys: Capture) -> None:
    Path("out").mkdir()
    Path("out/1.png").write_bytes(b"mine")
    code, out, err = upscale(capsys, "photos", "-o", "out", "--skip-existing")
    assert code == 0
    assert "2 written, 1 skipped, 0 failed" in err
    assert "out/1.png (exists, skipped)" in out
    assert Path("out/1.png").read_bytes() == b"mine"
    assert "3 written, 0 skipped" in upscale(capsys, "photos", "-o", "out")[2]


def test_a_damaged_file_in_a_folder_is_named_and_the_others_are_written(capsys: Capture) -> None:
    Path("photos/broken.png").write_bytes(Path("photos/0.png").read_bytes()[:200])
    code, out, err = upscale(capsys, "photos", "-o", "out")
    assert code == 1
    assert out.split() == ["out/0.png", "out/1.png", "out/2.png"]
    assert "3 written, 0 skipped, 1 failed" in err
    assert "broken.png" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not Path("out/broken.png").exists()


def test_the_shipped_network_of_a_loss_and_scale_is_taken(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = {f"x{n}_pixel": save_network(f"x{n}_pixel", f"c3s1-4 s{n}-3", zero=True) for n in (2, 4)}
    ship(monkeypatch, {**networks, "x4_feature": Path("x4.safetensors")})
    for words, side in (((), 240), (("--scale", "2"), 120), (("--scale", "3"), 180), (("--loss", "feature"), 240)):
        code, _, err = run(capsys, "upscale", "photos/0.png", *words, "-o", "large.png", "--device", "cpu")
        assert code == 0, err
        assert pixels("large.png").shape[1] == side
    for words, part in ((("--scale", "8"), "up to 4 times"), (("--loss", "gan"), "choose one of feature, pixel")):
        code, _, err = run(capsys, "upscale", "photos/0.png", *words, "-o", "other.png", "--device", "cpu")
        assert code == 1
        assert_one_sentence(err, part)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("photos/0.png --network style.safetensors -o x.png", "is a network for style, not for upscale"),
        ("photos/0.png --network missing.safetensors -o x.png", "There is no network 'missing.safetensors'"),
        ("photos/0.png --network photos/1.png -o x.png", "is a picture, not a trained network"),
        ("photos/0.png --network broken.safetensors -o x.png", "broken.safetensors"),
        ("photos/0.png --network x4.safetensors -o photos/0.png", "would overwrite its input"),
        ("photos --network x4.safetensors -o photos", "photos"),
        ("photos --network x4.safetensors -o x.png", "give a folder to write to"),
        ("photos/0.png --network x4.safetensors -o x.xyz", "has no ending that can be written"),
        ("missing.png --network x4.safetensors -o x.png", "missing.png"),
        ("--network x4.safetensors -o x.png", "Give at least one image"),
        ("photos/0.png --network x4.safetensors -o x.png --scale 0", "scale is 0"),
        ("photos/0.png --network x4.safetensors -o x.png --scale -1", "scale is -1"),
        ("photos/0.png --network x4.safetensors -o x.png --scale nan", "scale is nan"),
        ("photos/0.png --network x4.safetensors -o x.png --scale inf", "scale is inf"),
        ("photos/0.png --network x4.safetensors -o x.png --tile 15", "tile is 15"),
        ("photos/0.png --network x4.safetensors -o x.png --tile -1", "tile is -1"),
        ("photos/0.png --network x4.safetensors -o x.png --device abacus", "no device 'abacus'"),
        ("photos/0.png --network whole.safetensors -o x.png --tile 16", "cannot be tiled"),
        ("photos/0.png -o x.png", "No network"),
    ],
)
def test_mistakes_get_one_sentence_and_exit_code_1(capsys: Capture, words: str, parts: str) -> None:
    save_network("style", "c3s1-4 c3s1-3", task="style")
    save_network("whole", norm="instance")
    Path("broken.safetensors").write_bytes(Path("x4.safetensors").read_bytes()[:-100])
    before = Path("photos/0.png").read_bytes()
    code, out, err = run(capsys, "upscale", *words.split())
    assert code == 1
    assert out == ""
    assert_one_sentence(err, parts)
    assert not Path("x.png").exists()
    assert Path("photos/0.png").read_bytes() == before


def test_a_scale_that_is_no_number_exits_2(capsys: Capture) -> None:
    code, _, err = upscale(capsys, "photos/0.png", "-o", "x.png", "--scale", "abc")
    assert code == 2
    assert "--scale" in err
    assert "Traceback" not in err


def test_a_scale_that_is_too_large_is_refused_by_what_is_wrong(capsys: Capture) -> None:
    code, _, err = upscale(capsys, "photos/0.png", "-o", "x.png", "--scale", "100")
    assert code == 1
    assert "scale is 100.0; it must be a number from 0.01 to 64." in err


# --- perceptual train upscale


def train(capsys: Capture, *words: object, data: str = "photos", out: str = "mine.safetensors") -> tuple[int, str, str]:
    return run(capsys, "train", "upscale", "--data", data, "--out", out, *FAST, *words)


def test_a_network_is_trained_and_then_enlarges(capsys: Capture) -> None:
    code, out, err = train(capsys, "--loss", "pixel:1,l1:0.5", "--about", "tiny", "--preview-every", "2")
    assert code == 0, err
    assert out == ""
    assert "Training x4 by pixel:1,l1:0.5 on 3 photographs with float32 on cpu, eager." in err
    assert "Wrote mine.safetensors after 4 steps." in err
    card = checkpoints.read_card("mine.safetensors")
    assert (card.task, card.steps, card.recipe, card.about, card.data) == (
        "upscale",
        4,
        "fast",
        "tiny",
        "3 photographs",
    )
    assert {"network.architecture", "loss", "train.size", "train.steps"} <= set(card.changed)
    assert "train.crop" not in card.changed
    assert card.weights == {"pixel": 1.0, "l1": 0.5}
    assert [len(card.references[name]) for name in ("pixel", "l1")] == [1, 1]
    assert len(Path("mine.jsonl").read_text().splitlines()) == 4
    assert sorted(path.name for path in Path("mine.previews").iterdir()) == ["000002.png", "000004.png"]
    assert pixels("mine.previews/000002.png").shape == (64, 96, 3)  # three pictures, bicubic above the network's
    code, _, err = upscale(capsys, "photos/0.png", "-o", "large.png", network="mine")
    assert code == 0, err


def test_without_a_name_the_network_is_called_by_its_scale(capsys: Capture) -> None:
    words = ["--data", "photos", *FAST, "--scale", "2", "--architecture", "c3s1-4 s2-3"]
    code, _, err = run(capsys, "train", "upscale", *words)
    assert code == 0, err
    assert checkpoints.load("x2.safetensors")[0].scale == 2


def test_a_network_for_x8_begins_with_one_for_x4(capsys: Capture) -> None:
    words = ["--scale", "8", "--architecture", "c3s1-4 s8-3", "--from", "x4.safetensors"]
    assert train(capsys, *words)[0] == 0
    assert checkpoints.read_card("mine.safetensors").began_from.startswith("2 of 4 tensors of x4.safetensors")


def test_dry_run_prints_the_resolved_settings(capsys: Capture) -> None:
    code, out, err = run(capsys, "train", "upscale", "--recipe", "paper", "--scale", "8", "--steps", "7", "--dry-run")
    told = json.loads(out)
    assert (code, err) == (0, "")
    assert (told["scale"], told["recipe"], told["out"], told["data"]) == (8, "paper", "x8.safetensors", None)
    settings = told["settings"]
    assert settings["network"]["architecture"] == "c9s1-64 r64*4 u64 u64 u64 c9s1-3"
    assert (settings["blur"], settings["loss"]) == (1.0, "pixel")
    assert [settings["train"][key] for key in ("steps", "batch", "size", "crop")] == [7, 4, 288, "native"]
    assert not list(Path().glob("*.jsonl"))


@pytest.mark.parametrize(
    ("words", "layers", "scale"),
    [
        (["--scale", "3"], "c3s1-64 r64*6 s3-3", 3),
        (["--scale=5"], "c3s1-64 r64*6 s5-3", 5),
        (["--scale", "3", "--recipe", "srcnn"], "c9s1-64 c5s1-32 c5s1-1", 3),
        ([], "c3s1-64 r64*6 s4-3", 4),
    ],
)
def test_a_scale_decides_the_layers_and_the_crops(capsys: Capture, words: list[str], layers: str, scale: int) -> None:
    settings = json.loads(run(capsys, "train", "upscale", *words, "--dry-run")[1])["settings"]
    assert settings["network"]["architecture"] == layers
    assert settings["train"]["size"] % scale == 0


def first_group_of_vgg() -> Path:
    """VGG-16's layers up to relu1_2 with made-up weights."""
    return made_up_vgg([(0, 3, 64), (2, 64, 64)])


def made_up_vgg(layers: list[tuple[int, int, int]]) -> Path:
    generator, state = torch.Generator().manual_seed(0), {}
    for index, channels, filters in layers:
        weight = torch.randn(filters, channels, 3, 3, generator=generator) * (2 / 9 / channels) ** 0.5
        state |= {f"features.{index}.weight": weight, f"features.{index}.bias": torch.zeros(filters)}
    safetensors.torch.save_file(state, "vgg.safetensors")
    return Path("vgg.safetensors")


def test_a_feature_loss_takes_the_weights_that_are_given(capsys: Capture) -> None:
    path = first_group_of_vgg()
    code, _, err = train(capsys, "--loss", "vgg16:relu1_2:0.9,pixel:0.1", "--weights", f"vgg16={path}")
    assert code == 0, err
    card = checkpoints.read_card("mine.safetensors")
    assert card.loss_networks == {"vgg16": files.sha256_of(path)}
    assert card.weights == {"vgg16:relu1_2": 0.9, "pixel": 0.1}


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("--data photos --loss sharpness", "no loss 'sharpness'"),
        ("--data photos --loss vgg17:relu2_2", "no loss network 'vgg17'"),
        ("--data photos --loss pixel:-1", "is no objective"),
        ("--data photos --loss pixel:0", "are all 0"),
        ("--data photos --loss vgg16:relu9_9", "relu9_9"),
        ("--data photos --loss feature --weights vgg16=missing.pth", "missing.pth"),
        ("--data photos --loss feature --weights vgg16=vgg.safetensors", "vgg.safetensors"),
        ("--data photos --loss feature --weights vgg16", "--weights takes NAME=FILE"),
        ("", "--data FOLDER"),
        ("--data missing", "The data folder missing"),
        ("--data empty", "contains no images"),
        ("--data photos --scale 0", "--scale is 0"),
        ("--data photos --scale 1", "--scale is 1"),
        ("--data photos --scale 17", "--scale is 17"),
        ("--data photos --scale -4", "--scale is '-4'"),
        ("--data photos --scale x", "--scale is 'x'"),
        ("--data photos --scale 2.5", "--scale is '2.5'"),
        ("--data photos --scale 3 --recipe paper", "choose 2, 4 or 8"),
        ("--data photos --scale 5 --recipe paper", "choose 2, 4 or 8"),
        ("--data photos --recipe edsr", "There is no recipe 'edsr'"),
        ("--data photos --size 34", "--size is 34; give a multiple of the network's scale of 4"),
        ("--data photos --size 16", "size is 16"),
        ("--data photos --blur -1", "blur is -1"),
        ("--data photos --architecture nonsense", "'nonsense'"),
        ("--data photos --channels luma", "1 channel"),
        ("--data photos --enlarge 0", "enlarge is 0"),
        ("--data photos --from missing", "There is no network 'missing'"),
        ("--data photos --from style.safetensors", "for style, not for upscale"),
        ("--data photos --from mine.safetensors", "--out and --from are the same file"),
        ("--data photos --out x4.safetensors", "x4.safetensors exists"),
        ("--data photos --out x4.safetensors --resume", "nothing to resume"),
        ("--data photos --out mine.png", "must end in .safetensors"),
    ],
)
def test_mistakes_in_training_get_one_sentence_and_exit_code_1(capsys: Capture, words: str, parts: str) -> None:
    save_network("style", "c3s1-4 c3s1-3", task="style")
    first_group_of_vgg()
    Path("empty").mkdir()
    given = words.split()
    fast = [] if "--recipe" in given or "--architecture" in given else FAST
    code, out, err = run(capsys, "train", "upscale", "--out", "mine.safetensors", *fast, *given)
    assert (code, out) == (1, "")
    assert_one_sentence(err, parts)
    assert not list(Path().glob("mine*"))


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_leaves_a_state_that_resumes_bit_for_bit(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, signal_number: int
) -> None:
    from perceptual import train as module

    assert train(capsys, "--preview-every", "1", out="whole.safetensors")[0] == 0
    keep = module.save_preview

    def stop(out: Path, step: perceptual.Step) -> None:
        keep(out, step)
        if step.index == 2:
            signal.raise_signal(signal_number)

    before = signal.getsignal(signal_number)
    monkeypatch.setattr(module, "save_preview", stop)
    code, _, err = train(capsys, "--preview-every", "1")
    assert code == 130, err
    assert signal.getsignal(signal_number) is before
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "Stopped early; the same command with --resume goes on from here."
    assert checkpoints.read_card("mine.safetensors").steps == 2
    assert Path("mine.state").exists()
    assert_one_sentence(train(capsys, "--preview-every", "1")[2], "--resume")
    monkeypatch.setattr(module, "save_preview", keep)
    code, _, err = train(capsys, "--preview-every", "1", "--resume", data=str(Path("photos").absolute()))
    assert code == 0, err
    whole, parts = (safetensors.torch.load_file(f"{name}.safetensors") for name in ("whole", "mine"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
    assert not Path("mine.state").exists()


def test_gamma_and_beta_alone_are_refused_for_a_network_without_them(capsys: Capture) -> None:
    code, _, err = train(capsys, "--style-steps", "2")
    assert code == 1
    assert_one_sentence(err, "--style-steps")


def test_an_architecture_of_another_scale_than_asked_for_is_refused(capsys: Capture) -> None:
    code, _, err = train(capsys, "--architecture", "c3s1-4 s2-3", "--scale", "4")
    assert code == 1
    assert_one_sentence(err, "--scale")


def test_weights_for_a_loss_that_needs_none_are_refused_by_a_whole_sentence(capsys: Capture) -> None:
    code, _, err = train(capsys, "--weights", f"vgg16={first_group_of_vgg()}")
    assert code == 1
    assert "use ." not in err


def test_a_style_network_without_norms_can_be_gone_on_from(capsys: Capture) -> None:
    save_network("plain", "c3s1-4 c3s1-3", task="style", output="tanh")
    words = ["--style", "photos/1.png", "--data", "photos", "--from", "plain.safetensors", "--style-steps", "0"]
    words += ["--content-layers", "vgg16:relu1_1", "--style-layers", "vgg16:relu1_2", "--steps", "1", "--size", "32"]
    words += ["--workers", "0", "--weights", f"vgg16={first_group_of_vgg()}", "--out", "new.safetensors"]
    code, _, err = run(capsys, "train", "style", *words)
    assert code in (0, 1)
    assert "Traceback" not in err


# --- perceptual evaluate sr


@pytest.fixture
def sets(photograph: Image.Image) -> Path:
    """Two sets: one of pictures, a grey one among them, and one in the folders of the usual benchmarks."""
    for place in ("sr/Ours", "sr/Set5/x2", "sr/Set5/x4"):
        Path(place).mkdir(parents=True)
    photograph.crop((0, 0, 61, 50)).save("sr/Ours/colour.png")
    photograph.crop((60, 20, 110, 70)).convert("L").save("sr/Ours/grey.png")
    for scale, left in ((2, 0), (4, 70)):
        photograph.crop((left, 30, left + 48, 90)).save(f"sr/Set5/x{scale}/img_001_SRF_{scale}_HR.png")
        photograph.crop((left, 30, left + 12, 45)).save(f"sr/Set5/x{scale}/img_001_SRF_{scale}_LR.png")
    return Path("sr")


@pytest.fixture
def no_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the figures' files empty: painting them takes seconds."""
    pytest.importorskip("matplotlib")

    def savefig(figure: object, path: Path, **options: object) -> None:
        Path(path).touch()

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", savefig)


def evaluate(capsys: Capture, *words: object) -> tuple[int, str, str]:
    return run(capsys, "evaluate", "sr", "--out", "out", "--device", "cpu", *words)


def told(name: str = "figure8") -> dict[str, Any]:
    return json.loads(Path(f"out/{name}.json").read_text())


def cropped(path: str, scale: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(path) as image:
        array = np.asarray(image)
    return array[: array.shape[0] // scale * scale, : array.shape[1] // scale * scale]


def test_a_page_a_sheet_and_the_numbers_of_every_picture_are_written(capsys: Capture, sets: Path) -> None:
    code, out, err = evaluate(capsys, "--data", sets, "--scales", "4", "--networks", "x4.safetensors")
    assert code == 0, err
    assert out.split() == [f"out/figure8.{end}" for end in ("md", "png", "pdf", "csv", "json")]
    assert sorted(path.name for path in Path("out").iterdir()) == sorted(Path(line).name for line in out.split())
    with Image.open("out/figure8.png") as sheet:
        assert min(sheet.size) > 300
    assert Path("out/figure8.pdf").read_bytes().startswith(b"%PDF")
    with open("out/figure8.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["set"], row["image"], row["method"]) for row in rows] == [
        (name, image, method)
        for name, image in (("Ours", "colour"), ("Ours", "grey"), ("Set5", "img_001_SRF_4_HR"))
        for method in ("bicubic", "x4")
    ]
    assert {row["scale"] for row in rows} == {"4"}
    page = Path("out/figure8.md").read_text()
    assert page.startswith("# Super-resolution x4 (Figure 8)")
    assert "--data sr/ --scales 4 --networks x4.safetensors" in page
    assert "distance" not in page.partition("**Here.**")[0]  # no weights are here
    table = err[err.index("| set |") :].splitlines()
    assert all(line in page for line in table if line.startswith("|"))


@pytest.mark.usefixtures("no_sheet")
def test_the_numbers_are_those_of_psnr_and_ssim_by_hand(capsys: Capture, sets: Path) -> None:
    evaluate(capsys, "--data", sets, "--scales", "4", "--networks", "x4.safetensors")
    found = {(row["image"], row["method"]): row for row in told()["rows"]}
    own = perceptual.Upscaler.load("x4.safetensors", device="cpu")
    values: dict[str, list[float]] = {"bicubic": [], "x4": []}
    for name in ("colour", "grey"):
        high = cropped(f"sr/Ours/{name}.png", 4)
        low = perceptual.imresize(high, 1 / 4)
        colour = low if low.ndim == 3 else np.repeat(low[..., None], 3, axis=2)
        for method, large in (("bicubic", perceptual.imresize(low, 4.0)), ("x4", own(colour))):
            psnr = perceptual.psnr(large, high, border=4)
            assert found[name, method]["psnr"] == pytest.approx(psnr, abs=1e-3)
            assert found[name, method]["ssim"] == pytest.approx(perceptual.ssim(large, high, border=4), abs=1e-4)
            values[method].append(psnr)
    table = {(line["set"], line["method"]): line for line in told()["table"]}
    for method, numbers in values.items():
        assert float(table["Ours", method]["PSNR"]) == pytest.approx(np.mean(numbers), abs=0.006)
        assert table["Ours", method]["images"] == 2
    # and once without any of ours: luma by ITU-R BT.601, 4 pixels of border left out
    high = cropped("sr/Ours/colour.png", 4)
    large = perceptual.imresize(perceptual.imresize(high, 1 / 4), 4.0)
    error = ((large / 255.0 - high / 255.0) @ [65.481, 128.553, 24.966])[4:-4, 4:-4]
    assert found["colour", "bicubic"]["psnr"] == pytest.approx(10 * np.log10(255**2 / np.mean(error**2)), abs=1e-3)


@pytest.mark.usefixtures("no_sheet")
@pytest.mark.parametrize(
    ("scale", "taken", "name"), [(2, 2, "super-resolution-x2"), (4, 4, "figure8"), (8, 2, "figure9")]
)
def test_of_the_benchmarks_folders_that_of_the_scale_is_taken_and_low_resolution_left_out(
    capsys: Capture, photograph: Image.Image, scale: int, taken: int, name: str
) -> None:
    for folder in (2, 4):
        Path(f"sr/Set5/x{folder}").mkdir(parents=True)
        photograph.crop((0, 0, 64, 48)).save(f"sr/Set5/x{folder}/img_{folder}_HR.png")
        photograph.crop((0, 0, 16, 12)).save(f"sr/Set5/x{folder}/img_{folder}_LR.png")
    code, _, err = evaluate(capsys, "--data", "sr", "--scales", scale)
    assert code == 0, err
    assert [(row["set"], row["image"]) for row in told(name)["rows"]] == [("Set5", f"img_{taken}_HR")]


@pytest.mark.usefixtures("no_sheet")
def test_a_figure_that_the_command_did_not_write_is_replaced_only_when_asked(capsys: Capture) -> None:
    Path("out").mkdir()
    Path("out/figure8.png").write_bytes(b"mine")
    words = ["--data", "photos", "--scales", "4"]
    code, _, err = evaluate(capsys, *words)
    assert code == 1
    assert_one_sentence(err, "out/figure8.png exists", "--overwrite")
    assert [path.name for path in Path("out").iterdir()] == ["figure8.png"]
    assert Path("out/figure8.png").read_bytes() == b"mine"
    assert evaluate(capsys, *words, "--overwrite")[0] == 0
    assert evaluate(capsys, *words)[0] == 0  # its own


@pytest.mark.usefixtures("no_sheet")
def test_a_folder_of_pictures_is_one_set_of_its_name(capsys: Capture) -> None:
    assert evaluate(capsys, "--data", "photos", "--scales", "4")[0] == 0
    assert {row["set"] for row in told()["rows"]} == {"photos"}
    assert [line["images"] for line in told()["table"]] == [3]


@pytest.mark.usefixtures("no_sheet")
def test_each_scale_has_a_page_and_networks_are_measured_at_their_own(capsys: Capture) -> None:
    save_network("small", "c3s1-4 s2-3")
    words = ["--scales", "2", "4", "--networks", "small.safetensors", "x4.safetensors"]
    code, out, err = evaluate(capsys, "--data", "photos", *words)
    assert code == 0, err
    assert len(out.split()) == 10
    assert [line["method"] for line in told("super-resolution-x2")["table"]] == ["bicubic", "small"]
    assert [line["method"] for line in told("figure8")["table"]] == ["bicubic", "x4"]


@pytest.mark.usefixtures("no_sheet")
def test_the_shipped_networks_come_in_the_papers_order_beside_its_figures(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, sets: Path
) -> None:
    names = ("x4_feature", "x4_pixel", "x4_srcnn", "x8_pixel")
    ship(monkeypatch, {name: save_network(name, f"c3s1-4 s{name[1]}-3", zero=True) for name in names})
    assert evaluate(capsys, "--data", sets, "--scales", "4")[0] == 0
    lines = [line for line in told()["table"] if line["set"] == "Set5"]
    assert [line["method"] for line in lines] == ["bicubic", "SRCNN", "pixel loss", "feature loss"]
    assert [line["the paper's"] for line in lines] == [
        *("28.43 / 0.8114", "30.48 / 0.8628", "28.40 / 0.8205", "27.09 / 0.7680"),
    ]
    assert {line["the paper's"] for line in told()["table"] if line["set"] == "Ours"} == {"-"}
    assert "x4_srcnn: c3s1-4 s4-3, 0 steps" in Path("out/figure8.md").read_text()


@pytest.mark.usefixtures("no_sheet")
def test_perceptual_distances_are_measured_with_the_weights_that_are_given(capsys: Capture) -> None:
    sizes = [(0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128), (10, 128, 256), (12, 256, 256), (14, 256, 256)]
    path = made_up_vgg(sizes)
    code, _, err = evaluate(capsys, "--data", "photos", "--scales", "4", "--weights", f"vgg16={path}")
    assert code == 0, err
    high = cropped("photos/0.png", 4)
    large = perceptual.imresize(perceptual.imresize(high, 1 / 4), 4.0)
    expected = float(perceptual.PerceptualDistance("vgg16", paths={"vgg16": path})(large, high))
    assert told()["rows"][0]["vgg16"] == pytest.approx(expected, rel=1e-3)
    shown = np.mean([row["vgg16"] for row in told()["rows"]])
    assert float(told()["table"][0]["distance in vgg16"]) == pytest.approx(shown, abs=6e-5)
    assert "distance in vgg16" in Path("out/figure8.md").read_text()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("--data missing", "missing is not a folder"),
        ("--data photos/0.png", "is not a folder"),
        ("--data empty", "empty contains no images"),
        ("--data small", "dot is too small to be measured at x4"),
        ("--data broken", "broken/a.png"),
        ("--data photos --distances vgg17", "'vgg17'"),
        ("--data photos --distances vgg16", "vgg16"),
        ("--data photos --distances vgg16 --weights vgg16=vgg.safetensors", "vgg"),
        ("--data photos --weights vgg16", "--weights takes NAME=FILE"),
        ("--data photos --networks missing.safetensors", "There is no network 'missing.safetensors'"),
        ("--data photos --networks style.safetensors", "is a network for style"),
        ("--data photos --scales 1", "scales is 1"),
        ("--data photos --scales 4 4", "a number twice"),
        ("--data photos --networks x4.safetensors --device abacus", "no device 'abacus'"),
        ("--data photos --out photos/0.png", "is a file"),
    ],
)
def test_mistakes_in_measuring_get_one_sentence_and_exit_code_1(capsys: Capture, words: str, parts: str) -> None:
    save_network("style", "c3s1-4 c3s1-3", task="style")
    first_group_of_vgg()
    for name in ("empty", "small", "broken"):
        Path(name).mkdir()
    Image.new("RGB", (40, 18)).save("small/dot.png")  # 11 and twice 4 is 19
    Path("broken/a.png").write_bytes(Path("photos/0.png").read_bytes()[:300])
    scales = [] if "--scales" in words else ["--scales", "4"]
    code, out, err = run(capsys, "evaluate", "sr", "--out", "out", *scales, *words.split())
    assert (code, out) == (1, "")
    assert_one_sentence(err, parts)
    assert not list(Path().glob("out/*"))


@pytest.mark.usefixtures("no_sheet")
def test_ctrl_c_leaves_the_pages_of_the_scales_that_are_done(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    measure: Callable[..., Any] = super_resolution.measure

    def stopped(sets: Any, scale: int, *more: Any) -> Any:
        for step in (work := measure(sets, scale, *more)):
            if scale == 8:
                signal.raise_signal(signal.SIGINT)
                yield step
                pytest.fail("it went on")
        return (yield from work) or pytest.fail("nothing")

    def either(sets: Any, scale: int, *more: Any) -> Any:
        return stopped(sets, scale, *more) if scale == 8 else measure(sets, scale, *more)

    monkeypatch.setattr(super_resolution, "measure", either)
    code, _, err = evaluate(capsys, "--data", "photos", "--scales", "4", "8")
    assert code == 130, err
    assert "nothing of this scale was written" in err
    assert {path.stem for path in Path("out").iterdir()} == {"figure8"}


def test_a_folder_of_low_resolution_pictures_alone_is_a_sentence(capsys: Capture) -> None:
    Path("low").mkdir()
    Path("photos/0.png").rename("low/img_001_LR.png")
    code, _, err = evaluate(capsys, "--data", "low", "--scales", "4")
    assert code == 1
    assert_one_sentence(err, "low")


def test_one_set_of_the_benchmarks_can_be_given_by_itself(sets: Path) -> None:
    found = read_sets(sets / "Set5", 4)
    assert {name: [original.name for original in originals] for name, originals in found.items()} == {
        "Set5": ["img_001_SRF_4_HR"]
    }


def test_two_networks_of_one_name_are_both_measured_or_refused() -> None:
    Path("other").mkdir()
    try:
        methods = own_methods([Path("x4.safetensors"), save_network("other/x4")], device="cpu")
    except ConfigError:
        return
    assert len(methods[4]) == 2


@pytest.mark.usefixtures("no_sheet")
def test_a_network_called_bicubic_does_not_stand_for_bicubic_interpolation(capsys: Capture) -> None:
    Path("one").mkdir()
    Path("photos/0.png").rename("one/a.png")
    high = cropped("one/a.png", 4)
    expected = perceptual.psnr(perceptual.imresize(perceptual.imresize(high, 1 / 4), 4.0), high, border=4)
    save_network("bicubic")
    code, _, err = evaluate(capsys, "--data", "one", "--scales", "4", "--networks", "bicubic.safetensors")
    if code:
        assert_one_sentence(err, "bicubic")
    else:
        shown = [row["psnr"] for row in told()["rows"] if row["method"] == "bicubic"]
        assert shown == [pytest.approx(expected, abs=1e-3)]


@pytest.mark.usefixtures("no_sheet")
def test_a_network_of_a_scale_that_is_not_measured_is_told_of(capsys: Capture) -> None:
    save_network("small", "c3s1-4 s2-3")
    _, _, err = evaluate(capsys, "--data", "photos", "--scales", "4", "--networks", "small.safetensors")
    assert "small" in err


@pytest.mark.usefixtures("no_sheet")
def test_the_numbers_of_a_flat_picture_are_json(capsys: Capture) -> None:
    """Bicubic interpolation makes no error there: the PSNR is infinite."""
    Path("flat").mkdir()
    Image.new("RGB", (40, 40), (51, 102, 204)).save("flat/a.png")
    assert evaluate(capsys, "--data", "flat", "--scales", "4")[0] == 0

    def refuse(word: str) -> float:
        raise AssertionError(f"{word} is no JSON")

    json.loads(Path("out/figure8.json").read_text(), parse_constant=refuse)


# --- the supplement's figures 3 and 4


@pytest.fixture
def three_sets(photograph: Image.Image) -> Path:
    for name, count in (("Set5", 2), ("BSD100", 6)):
        Path(f"three/{name}").mkdir(parents=True)
        for index in range(count):
            photograph.rotate(7 * index).crop((30, 30, 94, 78)).save(f"three/{name}/{index}.png")
    return Path("three")


@pytest.mark.usefixtures("no_sheet")
def test_the_supplements_figure_4_takes_the_picture_that_the_paper_has(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, three_sets: Path
) -> None:
    from perceptual.reproduce import supplement_figure4

    high = cropped("three/BSD100/4.png", 4)
    value = perceptual.psnr(perceptual.imresize(perceptual.imresize(high, 1 / 4), 4.0), high, border=4)
    monkeypatch.setitem(supplement_figure4.PAPER, "BSD100", {"bicubic": (value, 0.5)})
    monkeypatch.setitem(supplement_figure4.PAPER, "Set5", {"bicubic": (99.0, 0.5)})
    code, _, err = run(capsys, "reproduce", "supplement-figure4", "--out", "out", "--photos", three_sets)
    assert code == 0, err
    lines = {(row["set"], row["method"]): row for row in told("supplement-figure4")["table"]}
    assert {row["picture"] for (name, _), row in lines.items() if name == "BSD100"} == {"4"}
    assert lines["BSD100", "bicubic"]["the paper's"] == f"{value:.2f} / 0.5000"
    assert lines["Set5", "bicubic"]["the paper's"] == "-"
    page = Path("out/supplement-figure4.md").read_text()
    assert "- Set5: none has the paper's PSNR by bicubic interpolation" in page
    assert "BSD100: none" not in page


@pytest.mark.usefixtures("no_sheet")
def test_the_supplements_figure_3_shows_pictures_of_bsd100(capsys: Capture, three_sets: Path) -> None:
    code, _, err = run(capsys, "reproduce", "supplement-figure3", "--out", "out", "--photos", three_sets)
    assert code == 0, err
    rows = told("supplement-figure3")["rows"]
    assert {(row["set"], row["image"], row["scale"]) for row in rows} == {("BSD100", str(k), 8) for k in range(4)}
