"""Settings that do not fit an experiment: they are not passed over, and what is told of them is true."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_cli_reproduce import (  # noqa: F401  the fixtures come with them
    LOSS,
    STYLES,
    Run,
    blank_figures,
    loss_networks,
    network,
    no_download,
    numbers,
    out,
    page,
    photos,
    run,
    shallow,
    small,
    taken,
)

from perceptual import checkpoints, images, optimize
from perceptual.config import LossConfig, ReproduceConfig, to_dict
from perceptual.optimize import white_noise
from perceptual.reproduce.lab import Lab
from perceptual.reproduce.report import command
from perceptual.tasks.style_recipes import StyleRecipe


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    blank_figures(monkeypatch)


def with_card(network: Path, path: Path, loss: LossConfig = LOSS, **card: Any) -> Path:
    """The tiny network with another card."""
    made, old = checkpoints.load(network)
    checkpoints.save(path, made, replace(old, **{"settings": to_dict(StyleRecipe(made.config, loss)), **card}))
    return path


def test_images_on_the_cpu_are_judged_on_the_device_of_the_loss(
    network: Path,
    loss_networks: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """meta stands for a GPU."""
    monkeypatch.setattr(optimize, "choose_device", torch.device)
    file = with_card(
        network, tmp_path / "plain.safetensors", replace(LOSS, weighting="absolute", style_layers=()), references={}
    )
    comparison = Lab(ReproduceConfig(network=str(file), device="cpu"), tmp_path, loss_networks).comparison("", "wave")
    comparison.stylizer.device = torch.device("meta")
    photograph = white_noise((32, 32), 1)
    assert comparison.objective(photograph)(photograph)["total"].device.type == "meta"


def test_neither_page_nor_numbers_have_a_path_of_this_machine(
    run: Run,
    small: list[object],
    network: Path,
    out: Path,
    tmp_path: Path,
) -> None:
    assert run("figure5", *small, "--network", network)[0] == 0
    for text in (page(out, "figure5"), (out / "figure5.json").read_text(encoding="utf-8")):
        assert network.name in text
        assert str(network.parent) not in text
        assert str(tmp_path) not in text


def test_a_run_again_gives_the_same_numbers_to_the_last_digit(
    run: Run,
    small: list[object],
    out: Path,
) -> None:
    assert run("figure3", *small)[0] == 0
    first = numbers(out, "figure3")["rows"]
    assert run("figure3", *small)[0] == 0
    assert numbers(out, "figure3")["rows"] == first


@pytest.mark.parametrize("name", ["figure3", "figure4"])
def test_damaged_weights_are_not_told_as_short_ones(
    run: Run,
    small: list[object],
    out: Path,
    photos: Path,
    name: str,
) -> None:
    words = [f"vgg16={photos / '0.png'}" if str(word).startswith("vgg16=") else word for word in taken(name, small)]
    code, _, err = run(name, *words)
    assert code == 1
    assert "is not a weights file" in err
    assert not list(out.glob("*.md"))


@pytest.mark.parametrize("lacking", [{"styles": (), "references": {}}, {"settings": {}, "references": {}}], ids=str)
def test_a_card_that_names_no_style_or_no_objective_is_refused(
    run: Run,
    small: list[object],
    network: Path,
    tmp_path: Path,
    lacking: dict[str, Any],
) -> None:
    code, _, err = run("figure5", *small, "--network", with_card(network, tmp_path / "bare.safetensors", **lacking))
    assert code == 1
    assert "has no style or no objective" in err


def test_times_of_another_objective_are_taken_anew(
    run: Run,
    small: list[object],
    network: Path,
    out: Path,
    tmp_path: Path,
) -> None:
    loss = replace(LOSS, style_layers=("vgg19-distilled:relu4_3",), weighting="absolute")
    other = with_card(network, tmp_path / "other.safetensors", loss, references={})
    assert run("table1", *taken("table1", small), "--network", network)[0] == 0
    assert run("table1", *taken("table1", small), "--network", other)[0] == 0
    assert len(list((out / "parts").glob("times_*.part"))) == 2


@pytest.mark.parametrize("name", ["figure3", "figure4"])
def test_other_weights_make_other_parts(
    run: Run,
    small: list[object],
    out: Path,
    tmp_path: Path,
    loss_networks: dict[str, Path],
    name: str,
) -> None:
    small = taken(name, small)
    assert run(name, *small)[0] == 0
    count = len(list((out / "parts").iterdir()))
    other = {key: value.flip(0) for key, value in torch.load(loss_networks["vgg16"], weights_only=True).items()}
    torch.save(other, tmp_path / "other.pth")
    words = [f"vgg16={tmp_path / 'other.pth'}" if str(word).startswith("vgg16=") else word for word in small]
    assert run(name, *words)[0] == 0
    assert len(list((out / "parts").iterdir())) > count


@pytest.mark.usefixtures("shallow")
def test_another_painting_trains_the_supplement_anew(
    run: Run,
    small: list[object],
    out: Path,
    tmp_path: Path,
) -> None:
    assert run("supplement-figure2", *taken("supplement-figure2", small))[0] == 0
    images.write(tmp_path / "museum" / "wave.png", white_noise((64, 64), 3))
    assert run("supplement-figure2", *taken("supplement-figure2", small), "--paintings", tmp_path / "museum")[0] == 0
    assert len(list((out / "parts").glob("residual_*.safetensors"))) == 2


@pytest.mark.usefixtures("shallow")
def test_the_supplement_does_not_call_another_style_the_papers(
    run: Run,
    small: list[object],
    out: Path,
) -> None:
    assert (
        run("supplement-figure2", *taken("supplement-figure2", small), "--styles", "starry_night", "--iterations", 1)[0]
        == 0
    )
    assert "1889 (the paper: The Great Wave)" in page(out, "supplement-figure2")


@pytest.mark.parametrize("name", ["figure4", "figure6", "figure7", "supplement-figure2"])
def test_a_second_size_is_refused_where_there_is_one(
    run: Run,
    small: list[object],
    network: Path,
    name: str,
) -> None:
    code, _, err = run(name, *taken(name, [*small, "--network", network]), "--styles", "wave", "--sizes", 32, 48)
    assert code == 1
    assert "one size" in err


@pytest.mark.parametrize("name", ["figure5", "table1", "supplement-figure2"])
def test_several_styles_are_refused_where_there_is_one(
    run: Run,
    small: list[object],
    network: Path,
    name: str,
) -> None:
    code, _, err = run(name, *taken(name, [*small, "--network", network]), "--styles", *STYLES)
    assert code == 1
    assert "one style" in err


def test_an_unknown_loss_network_is_refused(run: Run, small: list[object], network: Path) -> None:
    at = small.index("--weights")
    code, _, err = run("figure5", *small[: at + 1], "vgg=missing.pth", *small[at + 1 :], "--network", network)
    assert code == 2
    assert "'vgg'" in err


def test_few_iterations_tell_of_no_plateau(run: Run, small: list[object], network: Path, out: Path) -> None:
    assert run("figure5", *small, "--network", network)[0] == 0
    assert "the last" not in page(out, "figure5")


def test_a_damaged_part_is_made_again(run: Run, small: list[object], network: Path, out: Path) -> None:
    assert run("figure5", *small, "--network", network)[0] == 0
    first = numbers(out, "figure5")["rows"]
    (part,) = (out / "parts").iterdir()
    part.write_bytes(part.read_bytes()[:100])
    assert run("figure5", *small, "--network", network)[0] == 0
    assert numbers(out, "figure5")["rows"] == first


def test_a_folder_that_cannot_be_made_is_one_sentence(
    run: Run,
    small: list[object],
    network: Path,
    photos: Path,
) -> None:
    code, _, err = run("figure5", *small, "--network", network, "--out", photos / "0.png" / "out")
    assert code == 1
    assert "is a file, not a folder" in err


def test_the_command_can_be_pasted() -> None:
    words = shlex.split(command("figure5", ReproduceConfig(photos=Path("my photos"), sizes=(256, 512), full=True)))
    assert words[5:] == ["--photos", "my photos/", "--sizes", "256", "512", "--full"]
