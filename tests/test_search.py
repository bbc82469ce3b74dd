"""perceptual train style --search: a network for each value of a weight, compared on photographs held out."""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import assert_one_sentence
from PIL import Image
from test_cli import run as run_command

from perceptual import checkpoints, images
from perceptual.config import LossConfig, NetworkConfig
from perceptual.errors import ConfigError
from perceptual.losses import PerceptualLoss, PixelLoss, TotalVariation
from perceptual.networks import TransformationNetwork
from perceptual.tasks.style_recipes import StyleRecipe
from perceptual.train.search import compare, parse_search, read_held_out, trials

Run = Callable[..., tuple[int, str, str]]


def test_a_search_is_a_weight_and_its_values() -> None:
    assert parse_search("tv_weight=1e-6,1e-5, 1e-4") == ("tv_weight", (1e-6, 1e-5, 1e-4))
    assert parse_search("tv-weight=0,1") == ("tv_weight", (0, 1))


@pytest.mark.parametrize(
    "text",
    ["", "tv_weight", "tv_weight=1", "tv_weight=1,1", "tv_weight=-1,1", "tv_weight=nan,1", "x=1,2"],
)
def test_another_search_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="such as tv_weight=1e-6,1e-5,1e-4"):
        parse_search(text)


def test_each_value_has_settings_and_a_file_of_its_own() -> None:
    found = trials(Path("a/wave.safetensors"), StyleRecipe(), "tv_weight=1e-06,0.5")
    assert [path for path, _ in found.values()] == [
        Path("a/wave_tv_weight_1e-06.safetensors"),
        Path("a/wave_tv_weight_0.5.safetensors"),
    ]
    assert [recipe.loss.tv_weight for _, recipe in found.values()] == list(found) == [1e-6, 0.5]


def test_a_weight_that_the_objective_replaces_is_not_searched() -> None:
    whole = StyleRecipe(loss=LossConfig(loss="content=1,tv=0.02"))
    with pytest.raises(ConfigError, match="--search changes a weight that --loss replaces: leave --loss out"):
        trials(Path("wave.safetensors"), whole, "tv_weight=1,2")


def test_held_out_photographs_are_squares_and_not_those_of_training(tmp_path: Path, photograph: Image.Image) -> None:
    for folder in ("data/inside", "other"):
        (tmp_path / folder).mkdir(parents=True)
        photograph.save(tmp_path / folder / "a.png")
    assert read_held_out(tmp_path / "other", tmp_path / "data", 40).shape == (1, 3, 40, 40)
    for inside in ("data", "data/inside", "."):
        with pytest.raises(ConfigError, match="give another folder to --held-out"):
            read_held_out(tmp_path / inside, tmp_path / "data", 40)
    with pytest.raises(ConfigError, match="--held-out"):
        read_held_out(None, tmp_path / "data", 40)


def test_the_terms_are_means_over_the_photographs_of_what_each_network_paints(tmp_path: Path) -> None:
    """A network of zeros paints everything middle gray: no variation, and the photographs' distance from gray."""
    config = NetworkConfig("c3s1-3", norm="none", padding="reflect")
    network = TransformationNetwork(config)
    for parameter in network.parameters():
        parameter.data.zero_()
    checkpoints.save(tmp_path / "gray.safetensors", network, checkpoints.Card(task="style", network=config))
    photographs = torch.stack([torch.full((3, 16, 16), value) for value in (0.5, 0.7, 0.9)])
    loss = PerceptualLoss({"pixels": (PixelLoss(), 3.0), "tv": (TotalVariation(), 1.0)})
    rows, sheet = compare({0.5: tmp_path / "gray.safetensors"}, photographs, loss, "tv_weight")
    expected = sum(float(loss(torch.full((1, 3, 16, 16), 0.5), each[None])["pixels"]) for each in photographs) / 3
    assert rows == [{"tv_weight": 0.5, "pixels": pytest.approx(expected, rel=1e-5), "tv": pytest.approx(0, abs=1e-6)}]
    assert sheet.shape == (1, 3, 48, 32)
    assert torch.equal(sheet[..., :16], torch.cat(photographs.split(1), dim=2))
    assert sheet[..., 16:].allclose(torch.tensor(0.5))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photograph: Image.Image) -> Path:
    """Photographs to train on, others to compare on, and a painting, in the working folder."""
    monkeypatch.chdir(tmp_path)
    for name, count in (("data", 3), ("held", 2)):
        Path(name).mkdir()
        for index in range(count):
            photograph.rotate(7 * index).resize((60, 50)).save(f"{name}/{index}.png")
    photograph.save("wave.png")
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    words = "train style --style wave.png --data data --held-out held --device cpu --steps 2 --size 32 --batch 1"
    small = "--workers 0 --preview-every 0 --style-layers vgg19-distilled:relu1_1 --content-layers"
    network = ["--architecture", "c3s1-4 c3s1-3"]
    return partial(run_command, capsys, *words.split(), *network, *small.split(), "vgg19-distilled:relu1_1")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--search", "tv_weight=1"], "give one of tv_weight"),
        ([], "--held-out is for --search"),
        (
            ["--search", "tv_weight=1,2", "--loss", "pixel=1"],
            "--loss is the whole objective",
        ),
        (["--search", "tv_weight=1,2", "--held-out", "None"], "add --held-out FOLDER"),
    ],
)
def test_mistakes_are_one_sentence_before_any_work(run: Run, words: list[str], told: str) -> None:
    code, _, err = run(*words)
    assert code == 2
    assert_one_sentence(err, told)
    assert not list(Path().glob("*.safetensors"))


@pytest.mark.shared
@pytest.mark.usefixtures("folder", "pretrained")
def test_a_search_trains_each_value_and_leaves_a_table_and_a_sheet(run: Run) -> None:
    words = ["--search", "tv_weight=0,0.5"]
    code, out, err = run(*words)
    assert code == 0, err
    assert "| tv_weight |" in out
    made = ["wave_tv_weight_0.safetensors", "wave_tv_weight_0.5.safetensors"]
    cards = [checkpoints.read_card(Path(name)) for name in made]
    assert [card.settings["loss"]["tv_weight"] for card in cards] == [0, 0.5]
    assert [card.steps for card in cards] == [2, 2]
    with open("wave.search.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["tv_weight"]) for row in rows] == [0, 0.5]
    assert all(float(value) >= 0 for row in rows for value in row.values())
    assert "tv" in rows[0]
    sheet = images.read("wave.search.png")
    assert (sheet.height, sheet.width) == (2 * 32, 3 * 32)
    before = [Path(name).read_bytes() for name in made]
    code, _, err = run(*words)
    assert code == 1
    assert_one_sentence(err, "wave.search.csv exists")
    Path(made[1]).unlink()
    Path("wave_tv_weight_0.5.jsonl").unlink()
    assert run(*words, "--resume")[0] == 0  # goes on with what is missing
    assert [Path(name).read_bytes() for name in made] == before
    for others, told in (
        (["--style-weight", "9"], "with loss.style_weight 1.0, and not 9.0"),
        (["--seed", "4"], "with train.seed 0, and not 4"),
    ):
        code, _, err = run(*words, *others, "--resume")
        assert code == 1
        assert_one_sentence(err, f"wave_tv_weight_0.safetensors was trained {told}")
    _, _, err = run(*words, "--resume", "--architecture", "c3s1-5 c3s1-3")
    assert_one_sentence(err, "was trained with network.architecture c3s1-4 c3s1-3, and not c3s1-5 c3s1-3")
    assert run(*words, "--resume", "--tick-every", "1")[0] == 0
    Image.open("wave.png").rotate(90).save("wave.png")
    assert_one_sentence(run(*words, "--resume")[2], "was trained on other paintings")
