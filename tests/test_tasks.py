"""`perceptual.tasks`: a task of 40 lines, registered by one, is trained, saved, loaded and applied by the command."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from perceptual import checkpoints, cli, images
from perceptual.config import NetworkConfig, Range, TrainConfig, check
from perceptual.errors import ConfigError
from perceptual.tasks import TASKS, TaskEntry, find_task
from perceptual.tasks.base import Task

# --- the toy task: everything that a new task needs


@dataclasses.dataclass(frozen=True)
class DenoiseRecipe:
    """The settings of `perceptual train denoise`."""

    network: NetworkConfig = NetworkConfig("c3s1-8 c3s1-3", norm="none", padding="reflect", output="linear")
    loss: str = "pixel"
    """The objective."""
    train: TrainConfig = TrainConfig(steps=3, batch=2, size=32, workers=0)
    sigma: Annotated[float, Range(0, 1)] = 0.1
    """Standard deviation of the noise, 0 to 1."""

    def __post_init__(self) -> None:
        check(self)


class Denoise(Task):
    """Noise in, photograph out."""

    name = "denoise"
    Settings = DenoiseRecipe
    recipes = {"fast": ("two layers", DenoiseRecipe())}  # noqa: RUF012

    def inputs(self, pixels: Tensor, index: int) -> Tensor:
        noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(index))
        return pixels + self.settings.sigma * noise.to(pixels.device)


# --- its tests


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with photographs, in which the toy task is registered."""
    module = ModuleType("toy_denoise")
    module.Denoise = Denoise  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy_denoise", module)
    monkeypatch.setitem(TASKS, "denoise", TaskEntry("toy_denoise:Denoise", "remove noise from photographs"))
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    Path("photos").mkdir()
    for k in range(3):
        small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        small.resize((64, 48), Image.Resampling.BICUBIC).save(f"photos/{k}.png")
    return tmp_path


def test_a_task_of_40_lines_is_trained_saved_and_loaded_by_the_command(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "--data photos --out denoise.safetensors --device cpu --sigma 0.2 --loss pixel=1,l1=0.5"
    assert cli.main(["train", "denoise", *words.split()]) == 0
    assert "Training denoise by pixel=1,l1=0.5 on 3 photographs" in capsys.readouterr().err
    network, card = checkpoints.load("denoise.safetensors", task="denoise")
    assert (card.task, card.steps, card.settings["sigma"], card.recipe) == ("denoise", 3, 0.2, "fast")
    assert set(card.changed) == {"sigma", "loss"}
    assert card.weights == {"pixel": 1.0, "l1": 0.5}
    assert network.scale == 1
    lines = [json.loads(line) for line in Path("denoise.jsonl").read_text().splitlines()]
    assert lines[-1]["total"] == pytest.approx(lines[-1]["pixel"] + 0.5 * lines[-1]["l1"], rel=1e-5)


def test_the_command_applies_the_network_of_any_task(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "denoise", "--data", "photos", "--out", "denoise.safetensors", "--device", "cpu"]) == 0
    Path("odd").mkdir()
    with Image.open("photos/0.png") as photo:
        photo.crop((0, 0, 37, 21)).save("odd/a.png")
    assert cli.main(["apply", "photos", "odd", "--network", "denoise.safetensors", "-o", "out", "--device", "cpu"]) == 0
    network, _ = checkpoints.load("denoise.safetensors")
    for name, size in (("0.png", (64, 48)), ("a.png", (37, 21))):
        source = Path("odd" if name == "a.png" else "photos", name)
        with torch.no_grad():
            expected = network(images.read(source).pixels).clamp(0, 1)
        made = images.read(Path("out", name)).pixels
        assert (made.shape[-1], made.shape[-2]) == size
        assert (made - expected).abs().max() <= 0.51 / 255  # a file holds whole levels
    words = ["--network", "denoise.safetensors", "--device", "cpu"]
    assert cli.main(["apply", "odd", "-o", "tiles", "--tile", "16", *words]) == 0
    assert (images.read("tiles/a.png").pixels - images.read("out/a.png").pixels).abs().max() <= 1.01 / 255
    assert cli.main(["apply", "odd", "--network", "gallery", "-o", "out", "--tile", "16", "--device", "cpu"]) == 1
    assert "takes no --tile: leave it out." in capsys.readouterr().err


def test_the_help_of_the_command_knows_the_task_and_its_flags(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "denoise", "--help"])
    shown = capsys.readouterr().out
    assert "--sigma" in shown
    assert "two layers" in shown
    assert cli.main(["--help"]) == 0
    assert "remove noise from photographs" in capsys.readouterr().out


def test_an_unknown_task_is_refused_and_the_known_ones_listed() -> None:
    with pytest.raises(ConfigError, match=r"There is no task .colour.; the tasks are style, upscale\."):
        find_task("colour")


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_recipes_a_model_and_its_own_name(name: str) -> None:
    task = find_task(name)
    assert task.name == name
    assert task.recipes
    for _, settings in task.recipes.values():
        assert isinstance(settings, task.Settings)
