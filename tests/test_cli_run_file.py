"""`perceptual train --config`: what a run writes beside its checkpoint repeats it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import torch
from conftest import assert_one_sentence
from PIL import Image
from test_cli import run

from perceptual.checkpoints import read_card
from perceptual.cli import run_file

Capture = pytest.CaptureFixture[str]


def settings(capsys: Capture, *words: object) -> dict[str, object]:
    """What `perceptual train style` resolves these words to."""
    code, out, err = run(capsys, "train", "style", *words, "--dry-run")
    assert code == 0, err
    found: dict[str, object] = json.loads(out)
    return found


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photograph: Image.Image) -> Path:
    """A working folder with photos/, painting.png, and vgg.pth, which holds two random layers of VGG-16."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for index in range(3):
        photograph.rotate(10 * index).resize((64, 48)).save(f"photos/{index}.png")
    photograph.rotate(180).resize((64, 48)).save("painting.png")
    generator = torch.Generator().manual_seed(0)
    state = {
        "features.0.weight": 0.1 * torch.randn(64, 3, 3, 3, generator=generator),
        "features.0.bias": torch.zeros(64),
        "features.2.weight": 0.05 * torch.randn(64, 64, 3, 3, generator=generator),
        "features.2.bias": torch.zeros(64),
    }
    torch.save(state, "vgg.pth")
    return tmp_path


TRAIN = "--style painting.png --data photos --out first.safetensors --weights vgg16=vgg.pth --device cpu --steps 2"
TRAIN += " --architecture c3s1-4,c3s1-3 --content-layers vgg16:relu1_1 --style-layers vgg16:relu1_2 --size 32"
TRAIN += " --style-size 48 --workers 0 --preview-every 0"
WORDS = [word.replace(",", " ") if "c3s1" in word else word for word in TRAIN.split()]


def test_a_run_is_repeated_and_changed_by_its_file(capsys: Capture) -> None:
    code, _, err = run(capsys, "train", "style", *WORDS)
    assert code == 0, err
    code, _, err = run(capsys, "train", "style", "--config", "first.toml", "--out", "again.safetensors")
    assert code == 0, err
    assert Path("again.safetensors").read_bytes() == Path("first.safetensors").read_bytes()
    words = ["--config", "first.toml", "--out", "other.safetensors", "--seed", "3", "--steps", "1"]
    assert run(capsys, "train", "style", *words)[0] == 0
    card = read_card("other.safetensors")
    assert (card.steps, card.settings["train"]["seed"], card.settings["train"]["size"]) == (1, 3, 32)
    assert tomllib.loads(Path("other.toml").read_text())["settings"]["train"]["seed"] == 3


def test_the_file_says_everything_that_the_run_was(capsys: Capture) -> None:
    resolved = settings(capsys, *WORDS)
    assert run(capsys, "train", "style", *WORDS)[0] == 0
    held = tomllib.loads(Path("first.toml").read_text())
    assert held.pop("task") == "style"
    kept = {k: v for k, v in resolved.items() if k not in run_file.LEFT_OUT and v is not None}
    assert held == kept
    again = settings(capsys, "--config", "first.toml")
    assert {k: v for k, v in again.items() if k != "config"} == {k: v for k, v in resolved.items() if k != "config"}


def test_a_short_file_changes_its_recipe(capsys: Capture) -> None:
    Path("mine.toml").write_text(
        'recipe = "paper"\nstyle = ["painting.png"]\n[settings.train]\nsteps = 7\nlearning_rate = 1\n'
    )
    paper = settings(capsys, "--recipe", "paper", "--style", "painting.png", "--steps", "7", "--learning-rate", "1")
    assert settings(capsys, "--config", "mine.toml")["settings"] == paper["settings"]
    assert settings(capsys, "--config", "mine.toml", "--steps", "8")["settings"]["train"]["steps"] == 8  # type: ignore[index]


def test_the_scale_of_a_file_settles_the_network(capsys: Capture) -> None:
    Path("x2.toml").write_text('task = "upscale"\nscale = 2\n')
    code, out, err = run(capsys, "train", "upscale", "--config=x2.toml", "--dry-run")
    assert code == 0, err
    assert json.loads(out)["settings"]["network"]["architecture"].endswith("s2-3")
    assert json.loads(out)["out"] == "x2.safetensors"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("stepz = 3", "has an unknown setting 'stepz'; choose from data, out, recipe"),
        ("[settings.train]\nstepz = 3", "has an unknown setting 'settings.train.stepz'; choose from steps, batch"),
        ("[settings.train]\nsteps = 'many'", "steps is 'many'; it must be a whole number from 1 to 100,000,000"),
        ("settings = 3", "settings must be a table"),
        ("[data]\nx = 3", "data must be a value, not a table"),
        ("resume = true", "unknown setting 'resume'"),
        ("task = 'upscale'", "is for `perceptual train upscale`, not for `perceptual train style`"),
        ("recipe = 'none'", "There is no recipe 'none'"),
        ("recipe = 3", "There is no recipe '3'"),
        ("no toml", "cannot be read"),
        ("style = 'painting.png'", "style is 'painting.png'; it must be a list"),
    ],
)
def test_a_bad_file_is_one_sentence(capsys: Capture, text: str, part: str) -> None:
    Path("bad.toml").write_text(text)
    code, out, err = run(capsys, "train", "style", "--config", "bad.toml", "--dry-run")
    assert (code, out) == (1, "")
    assert_one_sentence(err, "--config bad.toml", part)


def test_mistakes_around_the_file_are_one_sentence(capsys: Capture) -> None:
    assert_one_sentence(run(capsys, "train", "style", "--config", "no.toml")[2], "no.toml cannot be read (no such file")
    Path("bytes.toml").write_bytes(b"\xff\xfe")
    assert_one_sentence(run(capsys, "train", "style", "--config", "bytes.toml")[2], "cannot be read")
    Path("a.toml").write_text("")
    words = ["--config", "a.toml", "--recipe", "paper"]
    assert_one_sentence(run(capsys, "train", "style", *words)[2], "leave one of them out")


def test_a_file_of_the_user_is_not_replaced(capsys: Capture) -> None:
    Path("first.toml").write_text("# mine\n")
    code, _, err = run(capsys, "train", "style", *WORDS)
    assert code == 1
    assert_one_sentence(err, "first.toml exists", "--overwrite")
    assert Path("first.toml").read_text() == "# mine\n"
    assert run(capsys, "train", "style", *WORDS, "--overwrite")[0] == 0


def test_a_file_with_comments_stays_if_it_says_the_same(capsys: Capture) -> None:
    assert run(capsys, "train", "style", *WORDS)[0] == 0
    text = "# my comment\n" + Path("first.toml").read_text()
    Path("first.safetensors").unlink()
    Path("first.jsonl").unlink(missing_ok=True)
    Path("first.toml").write_text(text)
    code, _, err = run(capsys, "train", "style", "--config", "first.toml", "--seed", "5")
    assert code == 1
    assert_one_sentence(err, "first.toml would be replaced", "--overwrite")
    assert run(capsys, "train", "style", "--config", "first.toml")[0] == 0
    assert Path("first.toml").read_text() == text


def test_a_file_that_is_not_utf8_is_one_sentence(capsys: Capture) -> None:
    Path("first.toml").write_bytes(b'about = "Caf\xe9"\n')
    code, _, err = run(capsys, "train", "style", *WORDS, "--config", "first.toml")
    assert code == 1
    assert_one_sentence(err, "first.toml would be replaced", "--overwrite")


@pytest.mark.parametrize(
    "value", ["a b", 'quo"te \\ back', "Zoë 神 🌊", "\x7f\x01\n\t", 1, 1e-05, 1e16, True, [], ["a", "b"]]
)
def test_values_survive_the_file(value: object) -> None:
    assert tomllib.loads(f"x = {run_file._toml(value)}") == {"x": value}
