"""perceptual upscale, train upscale and evaluate sr as a user meets them: files, exit codes, and one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import assert_one_sentence
from PIL import Image, ImageCms
from test_cli import run
from torch import nn

from perceptual import checkpoints, images
from perceptual.apply import Upscaler, tiles
from perceptual.checkpoints import shipped
from perceptual.config import NetworkConfig
from perceptual.networks import TransformationNetwork, enlarge

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


@pytest.mark.parametrize(
    ("words", "size"),
    [
        (["--width", "200px"], (200, 160)),
        (["--width", "0.5in", "--dpi", "300"], (150, 120)),
        (["--width", "30px"], (30, 24)),
    ],
)
def test_the_width_is_that_of_the_output(capsys: Capture, words: list[str], size: tuple[int, int]) -> None:
    code, _, err = run(capsys, "upscale", "photos/0.png", "--network", "x4.safetensors", "-o", "p.png", *words)
    assert code == 0, err
    with Image.open("p.png") as large:
        assert large.size == size


def test_a_width_takes_the_shipped_network_for_the_scale_of_each_picture(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = save_network("x8", "c3s1-4 s8-3")
    ship(monkeypatch, {"x4_pixel": Path("x4.safetensors"), "x8_pixel": large})
    Image.new("RGB", (120, 30), "red").save("photos/wide.png")
    words = ["photos/0.png", "photos/wide.png", "--width", "400px", "-o", "out", "--device", "cpu"]
    code, _, err = run(capsys, "upscale", *words)
    assert code == 0, err
    with Image.open("out/0.png") as first, Image.open("out/wide.png") as other:
        assert (first.size, other.size) == ((400, 320), (400, 100))
    pixels = images.read("photos/0.png").pixels
    expected = Upscaler.load(large).upscale(pixels, scale=400 / 60)
    assert (images.read("out/0.png").pixels - expected.clamp(0, 1)).abs().max() < 1.1 / 255
    code, _, err = run(capsys, "upscale", "photos/0.png", "--width", "700px", "-o", "p.png")
    assert code == 1
    assert "scale is 11.6667; the shipped networks with the loss pixel enlarge up to 8 times" in err


def test_without_a_name_the_output_says_its_width(capsys: Capture) -> None:
    assert run(capsys, "upscale", "photos/0.png", "--network", "x4.safetensors", "--width", "100px")[0] == 0
    with Image.open("photos/0_100px.png") as large:
        assert large.size == (100, 80)


@pytest.mark.parametrize(
    ("exit_code", "words", "part"),
    [
        (2, ["--width", "100px", "--scale", "2"], "--width and --scale both set the size"),
        (2, ["--width", "10cm"], "--width 10cm needs the resolution of the print: add --dpi 300."),
        (1, ["--width", "241px"], "scale is 4.017; this network enlarges up to 4 times: choose one for a larger scale"),
    ],
)
def test_bad_widths_are_one_sentence(capsys: Capture, exit_code: int, words: list[str], part: str) -> None:
    code, _, err = run(capsys, "upscale", "photos/0.png", "--network", "x4.safetensors", "-o", "p.png", *words)
    assert code == exit_code
    assert part in err


def upscale(capsys: Capture, *words: object, network: str = "x4") -> tuple[int, str, str]:
    exact = ("--precision", "float32", "--device", "cpu")
    return run(capsys, "upscale", *words, "--network", f"{network}.safetensors", *exact)


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
    assert "3 written, 0 skipped" in upscale(capsys, "photos", "-o", "out", "--overwrite")[2]


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
    ("exit_code", "words", "parts"),
    [
        (1, "photos/0.png --network style.safetensors -o x.png", "is a network for 'style', not for upscale"),
        (1, "photos/0.png --network missing.safetensors -o x.png", "There is no network 'missing.safetensors'"),
        (1, "photos/0.png --network photos/1.png -o x.png", "is a picture, not a trained network"),
        (1, "photos/0.png --network broken.safetensors -o x.png", "broken.safetensors"),
        (1, "photos/0.png --network x4.safetensors -o photos/0.png", "would overwrite its input"),
        (1, "photos --network x4.safetensors -o photos", "photos"),
        (1, "photos --network x4.safetensors -o x.png", "give a folder to write to"),
        (1, "photos/0.png --network x4.safetensors -o x.xyz", "has no ending that can be written"),
        (1, "missing.png --network x4.safetensors -o x.png", "missing.png"),
        (2, "--network x4.safetensors -o x.png", "Give at least one image"),
        (2, "photos/0.png --network x4.safetensors -o x.png --scale 0", "scale is 0"),
        (2, "photos/0.png --network x4.safetensors -o x.png --scale -1", "scale is -1"),
        (2, "photos/0.png --network x4.safetensors -o x.png --scale nan", "scale is nan"),
        (2, "photos/0.png --network x4.safetensors -o x.png --scale inf", "scale is inf"),
        (2, "photos/0.png --network x4.safetensors -o x.png --tile 15", "tile is 15"),
        (2, "photos/0.png --network x4.safetensors -o x.png --tile -1", "tile is -1"),
        (1, "photos/0.png --network x4.safetensors -o x.png --device abacus", "no device 'abacus'"),
        (1, "photos/0.png --network whole.safetensors -o x.png --tile 16", "cannot be tiled"),
        (1, "photos/0.png -o x.png", "There is no shipped network"),
    ],
)
def test_mistakes_get_one_sentence_and_a_failing_exit_code(
    capsys: Capture, exit_code: int, words: str, parts: str
) -> None:
    save_network("style", "c3s1-4 c3s1-3", task="style")
    save_network("whole", norm="instance")
    Path("broken.safetensors").write_bytes(Path("x4.safetensors").read_bytes()[:-100])
    before = Path("photos/0.png").read_bytes()
    code, out, err = run(capsys, "upscale", *words.split())
    assert code == exit_code
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
    assert code == 2
    assert "scale is 100.0; it must be a number from 0.01 to 64." in err
