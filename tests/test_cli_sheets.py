"""Sheets of all styles: `stylize --style all` and `suggest`; print sizes, hints, and labelled pictures."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from conftest import assert_one_sentence
from PIL import Image
from test_cli import run

from perceptual import cli, images
from perceptual.apply import Stylizer, Upscaler
from perceptual.checkpoints import gallery
from perceptual.cli.hints import Hints, pixels_of
from perceptual.config import PaintOptions
from perceptual.measure import content

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photograph: Image.Image) -> Path:
    """A working folder with photo.jpg, and no weights on this computer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERCEPTUAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PERCEPTUAL_WEIGHTS", raising=False)
    photograph.resize((96, 64)).save("photo.jpg")
    return tmp_path


# --- the sheet itself


def test_a_sheet_holds_the_pictures_row_by_row_with_labels_below() -> None:
    colours = [torch.full((1, 3, 20, 90), value) for value in (0.0, 0.2, 0.4)]
    sheet = images.labelled_sheet([(name, each) for name, each in zip("abc", colours, strict=True)], 2, 90)
    strip = 12
    assert sheet.shape[-2:] == images.sheet_size(3, 2, 20, 90) == (2 * (20 + strip), 180)
    for k, colour in enumerate(colours):
        top, left = k // 2 * (20 + strip), k % 2 * 90
        assert torch.allclose(sheet[..., top : top + 20, left : left + 90], colour, atol=0.5 / 255)
        label = sheet[..., top + 20 : top + 20 + strip, left : left + 90]
        assert label.min() < 0.3  # text on white
        assert label[..., 0, 0].min() == 1
    assert sheet[..., 20 + strip :, 90:].min() == 1  # the empty place


def test_pictures_of_another_size_are_shown_as_large_as_the_first() -> None:
    sheet = images.labelled_sheet([("a", torch.zeros(1, 3, 10, 20)), ("b", torch.zeros(1, 3, 70, 50))], 2, 40)
    assert sheet.shape[-2:] == (20 + 12, 80)
    assert sheet[..., :20, :].max() == 0


# --- all styles


def test_all_styles_make_one_sheet_with_the_original_first(capsys: Capture) -> None:
    code, out, err = run(capsys, "stylize", "photo.jpg", "--style", "all", "-o", "sheet.png", "--device", "cpu")
    assert (code, out) == (0, "sheet.png\n"), err
    with Image.open("sheet.png") as sheet, Image.open("photo.jpg") as photo:
        rows = -(-(len(gallery()) + 1) // 4)
        assert sheet.size == (4 * 96, rows * (64 + 12))
        assert np.array_equal(np.asarray(sheet)[:64, :96], np.asarray(photo))


def test_options_hold_for_every_style_of_the_sheet(capsys: Capture) -> None:
    words = ["stylize", "photo.jpg", "--style", "all", "--device", "cpu", "--strength", "0", "--size", "48"]
    assert run(capsys, *words, "-o", "sheet.png")[0] == 0
    with Image.open("sheet.png") as sheet:
        pixels = np.asarray(sheet)
        assert sheet.width == 4 * 48
    assert all(np.array_equal(pixels[:32, :48], pixels[:32, k * 48 : (k + 1) * 48]) for k in range(4))


def test_a_sheet_lies_beside_its_photo_and_has_no_transparency(capsys: Capture, photograph: Image.Image) -> None:
    image = photograph.resize((48, 32)).convert("RGBA")
    image.putalpha(128)
    image.save("glass.png")
    assert run(capsys, "stylize", "glass.png", "--style", "all", "--device", "cpu")[1] == "glass_all.png\n"
    with Image.open("glass_all.png") as sheet:
        assert sheet.mode == "RGB"
        on_white = Image.alpha_composite(Image.new("RGBA", (48, 32), "white"), image).convert("RGB")
        assert np.abs(np.asarray(sheet, int)[:32, :48] - np.asarray(on_white, int)).max() <= 1


def test_one_style_out_of_all_is_a_contradiction(capsys: Capture) -> None:
    code, _, err = run(capsys, "stylize", "photo.jpg", "--style", "all", "--name", "wave")
    assert code == 2
    assert_one_sentence(err, "leave --name out")


# --- suggest


def test_a_photo_too_small_to_compare_is_one_sentence(capsys: Capture) -> None:
    Image.new("RGB", (40, 4)).save("thin.png")
    code, _, err = run(capsys, "suggest", "thin.png", "--device", "cpu")
    assert code == 1
    assert "Styles cannot be compared on 40 x 4 px: each side must have at least 11 px." in err


def test_without_weights_the_order_is_that_of_ssim(capsys: Capture) -> None:
    code, out, err = run(capsys, "suggest", "photo.jpg", "--device", "cpu")
    assert code == 0, err
    *lines, measure, file = out.splitlines()
    assert measure == "(1 - SSIM of luma; smaller keeps more of the photo)"
    assert file == "photo_all.jpg"
    values = [float(line.split()[-1]) for line in lines]
    assert values == sorted(values)
    assert {line.split()[1] for line in lines} == set(gallery())
    stylizer, photo = Stylizer.load("gallery", device="cpu"), images.read("photo.jpg").pixels
    first = lines[0].split()[1]
    painting = stylizer.stylize(photo, style=first)
    assert values[0] == pytest.approx(1 - content.ssim(painting, photo), abs=0.002)


@pytest.mark.shared
def test_with_weights_the_order_is_that_of_the_content_loss(capsys: Capture, pretrained: Path) -> None:
    code, out, err = run(capsys, "suggest", "photo.jpg", "-o", "sheet.png", "--device", "cpu")
    assert code == 0, err
    assert "(content distance at squeezenet1_1:fire5; smaller" in out
    assert out.splitlines()[-1] == "sheet.png"


@pytest.mark.shared
def test_the_photo_itself_is_at_distance_zero_and_upside_down_at_one(pretrained: Path, photograph: Image.Image) -> None:
    photo = images.from_any(photograph)
    found, _ = content.content_distances(photo, {"turned": photo.flip(2, 3), "grey": photo * 0 + 0.5, "same": photo})
    assert next(iter(found)) == "same"
    assert found["same"] == 0
    assert found["turned"] == pytest.approx(1)


def test_the_order_goes_to_stderr_when_stdout_gets_the_sheet(
    capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["suggest", "photo.jpg", "-o", "-", "--device", "cpu"]) == 0
    out, err = capsysbinary.readouterr()
    assert out.startswith(b"\x89PNG")
    assert b"SSIM of luma" in err


@pytest.mark.parametrize(
    ("exit_code", "words", "part"),
    [
        (2, ["."], "looks at one photo"),
        (2, ["photo.jpg", "photo.jpg"], "looks at one photo"),
        (1, ["missing.jpg"], "missing.jpg does not exist"),
        (2, ["photo.jpg", "--weights", "vgg=x"], "--weights names 'vgg'"),
        (2, ["photo.jpg", "--size", "8"], "size is 8; it must be a whole number from 16 to 4,096"),
    ],
)
def test_mistakes_are_one_sentence(capsys: Capture, exit_code: int, words: list[str], part: str) -> None:
    code, out, err = run(capsys, "suggest", *words)
    assert (code, out) == (exit_code, "")
    assert_one_sentence(err, part)


# --- print sizes and hints


@pytest.mark.parametrize(
    ("length", "dpi", "pixels"),
    [("30cm", 300, 3543), ("300 mm", 300, 3543), ("12in", 300, 3600), ("2.54cm", 72, 72), ("800px", None, 800)],
)
def test_a_print_size_in_pixels(length: str, dpi: float | None, pixels: int) -> None:
    assert pixels_of(length, dpi) == pixels


@pytest.mark.parametrize(
    ("words", "size"),
    [
        (["--width", "200px"], (200, 133)),
        (["--width", "2cm", "--dpi", "254"], (200, 133)),
        (["--width", "1in", "--dpi", "150"], (150, 100)),
    ],
)
def test_the_width_is_that_of_the_output(
    capsys: Capture, tiny_style: Path, words: list[str], size: tuple[int, int]
) -> None:
    base = ["stylize", "photo.jpg", "--style", tiny_style, "--device", "cpu", "-o", "p.png"]
    code, _, err = run(capsys, *base, *words)
    assert code == 0, err
    with Image.open("p.png") as painted:
        assert painted.size == size
        assert ("dpi" in painted.info) == ("--dpi" in words)


@pytest.mark.parametrize(
    ("size", "width", "expected"),
    [((128, 12), "100cm", (11811, 1107)), ((12, 8), "5px", (5, 3))],
    ids=["a panorama", "small"],
)
def test_the_width_of_a_wide_picture_is_not_taken_for_its_height(
    capsys: Capture, tiny_style: Path, size: tuple[int, int], width: str, expected: tuple[int, int]
) -> None:
    Image.new("RGB", size).save("wide.png")
    words = ["wide.png", "--style", tiny_style, "--device", "cpu", "-o", "p.png", "--width", width, "--dpi", "300"]
    code, _, err = run(capsys, "stylize", *words)
    assert code == 0, err
    with Image.open("p.png") as painted:
        assert painted.size == expected


@pytest.mark.parametrize(("size", "expected"), [((128, 1), (256, 2)), ((1, 1), (2, 2))])
def test_upscale_gives_the_width_to_lines_and_points(
    capsys: Capture, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    Image.new("RGB", size).save("line.png")
    words = ["line.png", "-o", "u.png", "--width", f"{expected[0]}px", "--loss", "pixel", "--device", "cpu"]
    code, _, err = run(capsys, "upscale", *words)
    assert code == 0, err
    with Image.open("u.png") as enlarged:
        assert enlarged.size == expected


def test_a_picture_that_would_grow_too_much_fails_alone(capsys: Capture) -> None:
    Path("several").mkdir()
    for number, size in enumerate([(64, 48), (2, 2), (100, 80)]):
        Image.new("RGB", size).save(f"several/{number}.png")
    code, out, err = run(capsys, "upscale", "several", "--width", "256px", "-o", "large", "--device", "cpu")
    assert code == 1
    assert out.split() == ["large/0.png", "large/2.png"]
    assert "failed: several/1.png: scale is 128; the shipped networks with the loss pixel enlarge up to 8 times." in err


def test_the_width_of_an_upright_picture_is_exact(capsys: Capture, tiny_style: Path, photograph: Image.Image) -> None:
    photograph.resize((37, 81)).save("upright.png")
    words = ["upright.png", "--style", tiny_style, "--device", "cpu", "-o", "p.png", "--width", "50px"]
    assert run(capsys, "stylize", *words)[0] == 0
    with Image.open("p.png") as painted:
        assert painted.size == (50, 109)


@pytest.mark.parametrize(
    ("exit_code", "words", "part"),
    [
        (2, ["--width", "30cm"], "--width 30cm needs the resolution of the print: add --dpi 300."),
        (2, ["--width", "wide"], "width is 'wide'; give a length such as 30cm, 12in or 2000px."),
        (2, ["--width", "30m", "--dpi", "300"], "width is '30m'"),
        (2, ["--width", "0px"], "it must be 1 to 100,000 px"),
        (2, ["--width", "30cm", "--dpi", "300", "--size", "300"], "leave one of them out"),
        (2, ["--width", "30px", "--style", "all"], "not --width"),
    ],
)
def test_bad_widths_are_one_sentence(capsys: Capture, exit_code: int, words: list[str], part: str) -> None:
    code, _, err = run(capsys, "stylize", "photo.jpg", *words)
    assert code == exit_code
    assert_one_sentence(err, part)


def test_a_large_picture_gets_one_hint_about_its_strokes(capsys: Capture, tiny_style: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (2048, 16)).save(name)
    words = ["stylize", "a.png", "b.png", "photo.jpg", "--style", tiny_style, "--device", "cpu", "-o", "out"]
    hint = (
        "Strokes will look small on 2048 x 16 px: try --style-scale 2, which makes them as large as on a picture of "
        "1024 px."
    )
    assert run(capsys, *words)[2].splitlines().count(hint) == 1
    assert "Strokes" not in run(capsys, *words, "--overwrite", "--style-scale", "2")[2]
    assert "Strokes" not in run(capsys, *words, "--overwrite", "--size", "512")[2]


def test_the_hint_names_no_size_of_strokes_that_is_refused(capsys: Capture) -> None:
    sized = SimpleNamespace(size=lambda *_: (75_000, 100_000), memory=lambda *_: 0.0)
    Hints().before(cast(Any, sized), 48, 64, PaintOptions())
    assert "try --style-scale 16, which makes them as large as on a picture of 6250 px." in capsys.readouterr().err
    assert PaintOptions(style_scale=16).style_scale == 16


def test_the_memory_for_a_large_picture_is_said_before_the_work(
    capsys: Capture, tiny_style: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["stylize", "photo.jpg", "--style", tiny_style, "--device", "cpu", "-o", "p.png"]
    assert "memory" not in run(capsys, *words)[2]
    monkeypatch.setattr("perceptual.cli.hints.MUCH_MEMORY", 1e3)
    assert re.match(r"A picture of 96 x 64 px needs about \d+\.\d GB of memory\.", run(capsys, *words)[2])
    words = ["upscale", "photo.jpg", "-o", "large.png", "--device", "cpu"]
    said = run(capsys, *words)[2]
    assert re.match(r"A picture of 96 x 64 px that becomes 384 x 256 px needs about \d+\.\d GB of memory\.", said)


def test_a_larger_picture_needs_more_memory(tiny_style: Path) -> None:
    stylizer, upscaler = Stylizer.load(tiny_style, device="cpu"), Upscaler.load("x4_pixel", device="cpu")
    for model in (stylizer, upscaler):
        small, large = (model.memory(side, side, model.defaults) for side in (500, 5000))
        assert 0 < small < large / 4
    assert upscaler.memory(5000, 5000, upscaler.defaults) > 2 * 4 * 3 * 20_000**2  # the result and a copy, in float32
    plain = stylizer.options()
    assert stylizer.memory(900, 900, stylizer.options(keep_colors=True)) >= stylizer.memory(900, 900, plain)
