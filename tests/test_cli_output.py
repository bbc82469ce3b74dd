"""Where the command writes pictures: beside the input, in folders, to stdout; and what happens to files that exist."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import assert_one_sentence
from PIL import Image
from test_cli import run

from perceptual import cli
from perceptual.apply import plan_outputs
from perceptual.config import SaveConfig
from perceptual.errors import ConfigError, OutputError

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photograph: Image.Image, tiny_style: Path) -> Path:
    """A working folder with photos/0.jpg to photos/2.jpg, a.jpg, and tiny.safetensors."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for index in range(3):
        photograph.rotate(10 * index).resize((64, 48)).save(f"photos/{index}.jpg")
    photograph.resize((64, 48)).save("a.jpg", dpi=(72, 72))
    Path("tiny.safetensors").write_bytes(tiny_style.read_bytes())
    return tmp_path


STYLIZE = ("--style", "tiny.safetensors", "--device", "cpu")


def sizes(folder: str) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in Path(folder).iterdir()}


# --- without -o


def test_without_out_a_picture_is_written_beside_the_input(capsys: Capture) -> None:
    code, out, err = run(capsys, "stylize", "a.jpg", *STYLIZE)
    assert (code, out) == (0, "a_tiny.jpg\n"), err
    with Image.open("a_tiny.jpg") as painted:
        assert (painted.format, painted.size) == ("JPEG", (64, 48))


def test_a_name_that_is_taken_gets_a_number(capsys: Capture) -> None:
    Path("a_tiny.jpg").write_bytes(b"mine")
    Path("a_tiny_2.jpg").write_bytes(b"mine too")
    assert run(capsys, "stylize", "a.jpg", *STYLIZE)[1] == "a_tiny_3.jpg\n"
    assert (Path("a_tiny.jpg").read_bytes(), Path("a_tiny_2.jpg").read_bytes()) == (b"mine", b"mine too")
    assert run(capsys, "stylize", "a.jpg", *STYLIZE, "--skip-existing")[1] == "a_tiny.jpg (exists, skipped)\n"
    assert run(capsys, "stylize", "a.jpg", *STYLIZE, "--overwrite")[1] == "a_tiny.jpg\n"
    assert Path("a_tiny.jpg").read_bytes() != b"mine"


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["stylize", *STYLIZE, "--name", "Two"], "a_two.jpg"),
        (["stylize", *STYLIZE, "--name", "one:1,two:2"], "a_one_two.jpg"),
        (["stylize", *STYLIZE, "--suffix", "_blue", "--format", "png"], "a_blue.png"),
        (["upscale", "--scale", "2", "--device", "cpu"], "a_x2.jpg"),
        (["apply", "--network", "tiny.safetensors", "--device", "cpu"], "a_tiny.jpg"),
    ],
)
def test_the_name_says_what_was_done(capsys: Capture, words: list[str], name: str) -> None:
    assert run(capsys, words[0], "a.jpg", *words[1:])[:2] == (0, f"{name}\n")


def test_several_files_are_written_beside_themselves(capsys: Capture) -> None:
    code, out, _ = run(capsys, "stylize", "photos/0.jpg", "photos/1.jpg", "a.jpg", *STYLIZE)
    assert (code, out.split()) == (0, ["photos/0_tiny.jpg", "photos/1_tiny.jpg", "a_tiny.jpg"])


@pytest.mark.parametrize("out", ["out.v2/", "new.jpg/"])
def test_a_name_that_ends_with_a_slash_is_a_folder(capsys: Capture, out: str) -> None:
    code, said, err = run(capsys, "stylize", "a.jpg", *STYLIZE, "-o", out)
    assert (code, said) == (0, f"{out}a.jpg\n"), err
    assert run(capsys, "stylize", "photos", *STYLIZE, "-o", f"many{out}")[0] == 0
    assert len(os.listdir(f"many{out}")) == 3


def test_two_inputs_with_one_name_get_two_outputs(photograph: Image.Image) -> None:
    photograph.save("a.gif")
    photograph.save("a.png")
    pairs = plan_outputs(["a.gif", "a.png"], None, mark="_x", existing="refuse")
    assert [str(target) for _, target in pairs] == ["a_x.png", "a_x_2.png"]


@pytest.mark.parametrize("entry", ["photos", "photos/*.jpg"])
def test_a_folder_needs_out(capsys: Capture, entry: str) -> None:
    code, _, err = run(capsys, "stylize", entry, *STYLIZE)
    assert code == 1
    assert_one_sentence(err, entry, "-o FOLDER")
    assert len(list(Path("photos").iterdir())) == 3


def test_without_a_mark_the_input_is_not_replaced() -> None:
    with pytest.raises(OutputError, match="would overwrite its input"):
        plan_outputs(["a.jpg"], None, existing="replace")
    assert plan_outputs(["a.jpg"], None, existing="refuse") == [(Path("a.jpg"), Path("a_2.jpg"))]


# --- into a folder


def test_results_in_a_folder_are_kept(capsys: Capture) -> None:
    assert run(capsys, "stylize", "photos", *STYLIZE, "-o", "out")[0] == 0
    before = {path: path.read_bytes() for path in Path("out").iterdir()}
    code, out, err = run(capsys, "stylize", "photos", *STYLIZE, "--name", "two", "-o", "out")
    assert (code, out) == (1, "")
    assert_one_sentence(err, "out/0.jpg exists (and 2 more)", "--overwrite", "--skip-existing")
    assert {path: path.read_bytes() for path in Path("out").iterdir()} == before
    Path("out/1.jpg").unlink()
    assert "1 written, 2 skipped" in run(capsys, "stylize", "photos", *STYLIZE, "-o", "out", "--skip-existing")[2]
    assert "3 written" in run(capsys, "stylize", "photos", *STYLIZE, "--name", "two", "-o", "out", "--overwrite")[2]
    assert all(path.read_bytes() != data for path, data in before.items())


def test_a_suffix_keeps_two_styles_in_one_folder(capsys: Capture) -> None:
    for name in ("one", "two"):
        assert run(capsys, "stylize", "photos", *STYLIZE, "--name", name, "--suffix", f"_{name}", "-o", "out")[0] == 0
    assert sorted(sizes("out")) == [f"{k}_{name}.jpg" for k in range(3) for name in ("one", "two")]


def test_one_existing_file_is_named_without_a_count(capsys: Capture) -> None:
    Path("out").mkdir()
    Path("out/a.jpg").write_bytes(b"mine")
    assert_one_sentence(run(capsys, "stylize", "a.jpg", *STYLIZE, "-o", "out")[2], "out/a.jpg exists: add ")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["a.jpg", "photos/a.jpg", "-o", "out"], "photos/a.jpg has the same output out/a.jpg as a.jpg"),
        (["a.jpg", "a.png", "-o", "out", "--format", "png"], "a.png has the same output out/a.png as a.jpg"),
        (["a.jpg", "a.png", "--format", "png", "--overwrite"], "a.png has the same output a_tiny.png as a.jpg"),
        (["photos/0.jpg", "photos/a.jpg", "-o", "linked"], "photos/a.jpg has the same output linked/a.jpg as photos/0"),
        (
            ["a.jpg", "a_b.jpg", "-o", ".", "--suffix", "_b", "--overwrite"],
            "of a.jpg would overwrite the input a_b.jpg",
        ),
        (["a.jpg", "a.png", "--style", "all", "-o", "out", "--format", "png"], "a.png has the same output out/a.png"),
    ],
)
@pytest.mark.parametrize("command", ["stylize", "upscale"])
def test_two_inputs_with_one_output_are_refused_before_anything_is_written(
    capsys: Capture, command: str, words: list[str], part: str
) -> None:
    for name in ("photos/a.jpg", "a_b.jpg"):
        Path(name).write_bytes(Path("a.jpg").read_bytes())
    with Image.open("a.jpg") as image:
        image.save("a.png")
    Path("linked").mkdir()
    Path("linked/0.jpg").symlink_to("a.jpg")
    style = [] if "--style" in words else ["--style", "tiny.safetensors"]
    before = sorted(Path().rglob("*"))
    if command == "upscale":
        style, words = [], [word for word in words if word not in ("--style", "all")]
        part = part.replace("a_tiny.png", "a_x4.png")
    code, out, err = run(capsys, command, *words, *style, "--device", "cpu")
    assert (code, out) == (1, "")
    assert_one_sentence(err, part)
    assert sorted(Path().rglob("*")) == before


def test_a_file_that_out_names_is_replaced(capsys: Capture) -> None:
    Path("b.png").write_bytes(b"old")
    assert run(capsys, "stylize", "a.jpg", *STYLIZE, "-o", "b.png")[0] == 0
    assert Path("b.png").read_bytes() != b"old"


def test_files_are_painted_into_their_own_folder_under_another_name(capsys: Capture) -> None:
    code, out, _ = run(capsys, "stylize", "a.jpg", *STYLIZE, "-o", ".", "--suffix", "_b")
    assert (code, out) == (0, "a_b.jpg\n")
    assert_one_sentence(run(capsys, "stylize", "a.jpg", *STYLIZE, "-o", ".")[2], "would overwrite its input")


@pytest.mark.parametrize(
    ("exit_code", "words", "part"),
    [
        (1, ["-o", "b.png", "--suffix", "_x"], "leave --suffix and --format out"),
        (1, ["-o", "b.png", "--format", "jpg"], "leave --suffix and --format out"),
        (2, ["--suffix", "x/y"], "part of a file name"),
        (2, ["--overwrite", "--skip-existing"], "contradict each other"),
        (2, ["--quality", "101"], "quality is 101; it must be a whole number from 1 to 100"),
        (2, ["--dpi", "0"], "dpi is 0.0; it must be a number from 1 to 65,535"),
        (2, ["photos", "-o", "-"], "is for one picture"),
        (2, ["--strength", "2"], "strength is 2.0"),
    ],
)
def test_contradictions_are_one_sentence(capsys: Capture, exit_code: int, words: list[str], part: str) -> None:
    code, out, err = run(capsys, "stylize", "a.jpg", *words, *STYLIZE)
    assert (code, out) == (exit_code, "")
    assert_one_sentence(err, part)
    assert sorted(os.listdir(".")) == ["a.jpg", "photos", "tiny.safetensors"]


def test_checks_of_the_other_settings_still_run(capsys: Capture) -> None:
    assert_one_sentence(run(capsys, "apply", "a.jpg", "--network", "gallery", "--tile", "3")[2], "tile is 3")
    words = ["upscale", "a.jpg", "--network", "x.safetensors", "--loss", "feature"]
    assert_one_sentence(run(capsys, *words)[2], "--loss has no effect")
    with pytest.raises(ConfigError, match="contradict"):
        SaveConfig(overwrite=True, skip_existing=True)


# --- quality and resolution


def test_quality_makes_jpegs_smaller(capsys: Capture) -> None:
    for quality in (10, 95):
        assert run(capsys, "stylize", "a.jpg", *STYLIZE, "-o", f"{quality}.jpg", "--quality", quality)[0] == 0
    assert Path("10.jpg").stat().st_size < 0.5 * Path("95.jpg").stat().st_size
    run(capsys, "stylize", "a.jpg", *STYLIZE, "-o", "usual.jpg")
    assert Path("usual.jpg").read_bytes() == Path("95.jpg").read_bytes()


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_the_resolution_is_written_to_the_header_and_the_exif(
    capsys: Capture, ending: str, photograph: Image.Image
) -> None:
    exif = Image.Exif()
    exif.update({271: "Camera", 282: 72.0, 283: 72.0, 296: 2})
    photograph.resize((64, 48)).save("b.jpg", exif=exif, dpi=(72, 72))
    assert run(capsys, "stylize", "b.jpg", *STYLIZE, "-o", f"c.{ending}", "--dpi", "300")[0] == 0
    with Image.open(f"c.{ending}") as painted:
        kept = painted.getexif()
        assert (float(kept[282]), float(kept[283]), kept[296], kept[271]) == (300, 300, 2, "Camera")
        if ending != "webp":  # it has no header for it
            assert painted.info["dpi"] == pytest.approx((300, 300), abs=0.02)


# --- stdin and stdout


def picture(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image


def pipe(*words: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "perceptual", *map(str, words)]
    return subprocess.run(command, input=stdin, capture_output=True, check=False)


def test_a_picture_goes_from_stdin_to_stdout(capsys: Capture) -> None:
    run(capsys, "stylize", "a.jpg", *STYLIZE, "-o", "b.png")
    done = pipe("stylize", "-", *STYLIZE, "-o", "-", stdin=Path("a.jpg").read_bytes())
    assert (done.returncode, picture(done.stdout).format) == (0, "PNG"), done.stderr
    assert done.stdout == Path("b.png").read_bytes()
    assert b"1 written, 0 skipped, 0 failed" in done.stderr
    assert sorted(os.listdir(".")) == ["a.jpg", "b.png", "photos", "tiny.safetensors"]


class Bytes(io.TextIOWrapper):
    """A stream that is no terminal."""


def streams(monkeypatch: pytest.MonkeyPatch, stdin: bytes = b"", *, terminal: bool = False) -> io.BytesIO:
    """stdin and stdout as bytes in memory; returns the buffer of stdout."""
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(stdin), isatty=lambda: terminal))
    monkeypatch.setattr(
        sys, "stdout", SimpleNamespace(buffer=out, isatty=lambda: terminal, flush=lambda: None, write=lambda text: None)
    )
    return out


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["-"], "PNG"),
        (["-", "--format", "jpg"], "JPEG"),
        (["-", "-o", "-", "--format", "webp"], "WEBP"),
        (["a.jpg", "-o", "-"], "PNG"),
        (["a.jpg", "-o", "-", "--format", "tiff"], "TIFF"),
    ],
)
def test_stdout_gets_png_or_the_format_asked_for(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, words: list[str], kind: str
) -> None:
    out = streams(monkeypatch, Path("a.jpg").read_bytes())
    assert cli.main(["stylize", *words, *STYLIZE]) == 0
    assert (picture(out.getvalue()).format, picture(out.getvalue()).size) == (kind, (64, 48))
    assert "1 written" in capsys.readouterr().err


def test_stdin_goes_to_a_file(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    out = streams(monkeypatch, Path("a.jpg").read_bytes())
    assert cli.main(["stylize", "-", "-o", "b.jpg", *STYLIZE]) == 0
    assert out.getvalue() == b""
    assert picture(Path("b.jpg").read_bytes()).size == (64, 48)


@pytest.mark.parametrize(
    ("exit_code", "words", "stdin", "part"),
    [
        (1, ["-"], b"", "stdin is empty"),
        (1, ["-"], b"no picture", "stdin is not an image"),
        (2, ["-", "a.jpg"], b"", "stdin (-) is for one picture"),
        (2, ["a.jpg", "photos", "-o", "-"], b"", "stdout (-) is for one picture"),
        (2, ["-", "--suffix", "_x"], b"", "stdout has no name"),
    ],
)
def test_mistakes_with_streams_are_one_sentence(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, exit_code: int, words: list[str], stdin: bytes, part: str
) -> None:
    out = streams(monkeypatch, stdin)
    assert cli.main(["stylize", *words, *STYLIZE]) == exit_code
    assert out.getvalue() == b""
    assert part in capsys.readouterr().err.splitlines()[0]


def test_an_animation_on_stdin_is_called_stdin(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, stored = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")], io.BytesIO()
    frames[0].save(stored, "GIF", save_all=True, append_images=frames[1:])
    streams(monkeypatch, stored.getvalue())
    assert cli.main(["stylize", "-", "-o", "b.png", *STYLIZE]) == 0
    assert capsys.readouterr().err.startswith("stdin holds 2 pictures: only the first is used")


def test_a_terminal_gets_no_picture(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    streams(monkeypatch, terminal=True)
    assert cli.main(["stylize", "a.jpg", "-o", "-", *STYLIZE]) == 1
    assert_one_sentence(capsys.readouterr().err, "stdout is a terminal")
    assert cli.main(["stylize", "-", "-o", "b.png", *STYLIZE]) == 1
    assert_one_sentence(capsys.readouterr().err, "stdin, which is a terminal")
