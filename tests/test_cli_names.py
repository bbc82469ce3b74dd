"""Names of styles as people write them, and files of other programs."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import assert_one_sentence
from PIL import Image

from perceptual import checkpoints, cli
from perceptual.apply import Stylizer
from perceptual.checkpoints import find_network, find_style, guess, written_as
from perceptual.errors import CheckpointError, ConfigError

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("typed", "style"),
    [
        ("Starry Night", "starry_night"),
        ("starry-night", "starry_night"),
        ("  WAVE ", "wave"),
        ("The  Scream", "the_scream"),
        ("Olive_Trees", "olive_trees"),
    ],
)
def test_a_style_is_found_however_it_is_spelt(typed: str, style: str) -> None:
    assert find_style(typed) == find_style(style)


@pytest.mark.parametrize(
    ("typed", "hint"), [("stary_night", "starry_night"), ("scream", "the_scream"), ("Water Lillies", "water_lilies")]
)
def test_a_misspelt_style_gets_a_suggestion(typed: str, hint: str) -> None:
    with pytest.raises(CheckpointError, match=rf"^There is no style '{typed}' \(did you mean {hint}\?\): give "):
        find_style(typed)


def test_a_word_like_no_style_gets_the_list_alone() -> None:
    with pytest.raises(CheckpointError, match=r"^There is no style 'zzzzzz': give a trained network, or one of "):
        find_style("zzzzzz")


def test_names_are_compared_without_case_blanks_and_hyphens() -> None:
    assert written_as("The-Wave", ["a", "the_wave"]) == "the_wave"
    assert written_as("the_wav", ["a", "the_wave"]) is None
    assert written_as("My Style", ["My-Style"]) == "My-Style"
    assert guess("my stlye", ["My_Style", "other"]) == " (did you mean My_Style?)"
    assert guess("zzz", ["My_Style"]) == ""


def test_a_file_is_meant_before_another_spelling_of_a_shipped_style(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_style: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("Wave").write_bytes(tiny_style.read_bytes())
    assert find_style("Wave") == (Path("Wave"), None)
    assert find_style("wave")[1] == "wave"


def test_the_ending_of_a_file_of_ones_own_is_suggested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_style: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.safetensors").write_bytes(tiny_style.read_bytes())
    with pytest.raises(CheckpointError, match=r"did you mean mine\.safetensors\?"):
        find_style("mine")


def test_styles_of_a_loaded_network_are_found_and_suggested_too(tiny_style: Path) -> None:
    stylizer = Stylizer.load(tiny_style, device="cpu")
    assert stylizer.size(8, 8, stylizer.options(style="One")) == (8, 8)
    assert stylizer._weights("Two:1,ONE:3").tolist() == [[0.75, 0.25]]
    with pytest.raises(ConfigError, match=r"has no style 'onee' \(did you mean one\?\); it has one, two\.$"):
        stylizer._weights("onee")


def test_networks_for_enlarging_forgive_too() -> None:
    assert find_network("X4-Pixel", task="upscale") == find_network("x4_pixel", task="upscale")
    with pytest.raises(CheckpointError, match=r"There is no network 'x4_pixl' \(did you mean x4_pixel\?\)"):
        find_network("x4_pixl", task="upscale")


def test_a_file_of_the_same_name_as_a_shipped_style_is_named(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_style: Path, photograph: Image.Image
) -> None:
    monkeypatch.chdir(tmp_path)
    photograph.resize((32, 24)).save("a.png")
    words = ["stylize", "a.png", "--device", "cpu", "-o", "b.png", "--style"]
    assert cli.main([*words, "wave"]) == 0
    assert "your own file" not in capsys.readouterr().err
    Path("wave.safetensors").write_bytes(tiny_style.read_bytes())
    assert cli.main([*words, "wave"]) == 0
    line = "wave is the shipped style; your own file is --style wave.safetensors."
    assert capsys.readouterr().err.splitlines()[0] == line
    assert cli.main([*words, "wave.safetensors"]) == 0
    assert "shipped style" not in capsys.readouterr().err


# --- files of other programs


@pytest.mark.parametrize("ending", [".onnx", ".h5", ".TFLITE"])
def test_a_format_that_cannot_be_read_is_not_sent_to_convert(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"candy{ending}"
    path.write_bytes(b"a graph")
    with pytest.raises(CheckpointError, match=r"in a format that perceptual cannot read \(\.\w+\): give"):
        checkpoints.read_card(path)


@pytest.mark.parametrize("ending", [".model", ".pth", ".t7", ".ckpt", ".bin", ".PTH"])
def test_a_file_of_another_program_is_named_as_such(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photograph: Image.Image, ending: str
) -> None:
    monkeypatch.chdir(tmp_path)
    photograph.save("x.png")
    path = tmp_path / f"candy{ending}"
    path.write_bytes(b"PK\x03\x04 no safetensors")
    with pytest.raises(CheckpointError, match=r"is a checkpoint of another program and has no card: .*convert`\.$"):
        checkpoints.read_card(path)
    with pytest.raises(CheckpointError, match=r"is a checkpoint of another program, in a format|is damaged"):
        checkpoints.load(path)
    for words in (["stylize", "x.png", "--style"], ["apply", "x.png", "--network"], ["styles"]):
        assert cli.main([*words, str(path), *(["-o", "y.png"] if len(words) > 1 else [])]) == 1
        assert_one_sentence(capsys.readouterr().err, str(path))


def test_safetensors_of_another_program_are_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    header = b'{"__metadata__":{"format":"pt"}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match="because it has no card: give a file that `perceptual train` wrote"):
        checkpoints.read_card(path)
    with pytest.raises(CheckpointError, match="contains no named tensors"):
        checkpoints.load(path)


@pytest.mark.parametrize(
    ("typed", "task", "advice"),
    [
        ("x4_pixel", "style", "that is the name of a network for `perceptual upscale`"),
        ("wave", "upscale", "that is the name of a network for `perceptual stylize`"),
        ("Gallery", "upscale", "that is the name of a network for `perceptual stylize`"),
        ("mine.safetensors", "style", "there is no file of that name; check the folder and the spelling"),
        ("models/candy.pth", "style", "there is no file of that name; check the folder and the spelling"),
        ("models", "upscale", "that is a folder; give a trained network in it"),
    ],
)
def test_the_sentence_about_a_name_says_what_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, task: str, advice: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()
    with pytest.raises(CheckpointError) as caught:
        find_network(typed, task=task)
    assert str(caught.value).endswith(f": {advice}.")
    assert "one of" not in str(caught.value)


def test_any_network_is_applied_by_the_name_of_a_style(
    tmp_path: Path, photograph: Image.Image, capsys: pytest.CaptureFixture[str]
) -> None:
    photograph.resize((32, 24)).save(tmp_path / "a.png")
    for command in (["apply", "--network"], ["stylize", "--style"]):
        out = str(tmp_path / f"{command[0]}.png")
        assert cli.main([command[0], str(tmp_path / "a.png"), command[1], "Wave", "-o", out]) == 0
    assert (tmp_path / "apply.png").read_bytes() == (tmp_path / "stylize.png").read_bytes()
    assert cli.main(["apply", str(tmp_path / "a.png"), "--network", "wav", "-o", out]) == 1
    assert "There is no network 'wav' (did you mean wave?)" in capsys.readouterr().err
