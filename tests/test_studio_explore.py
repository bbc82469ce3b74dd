"""The tabs for researchers: optimisation and the loss explorer; and features as pictures."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from studio import browser, count, failure, give, page, server, text  # noqa: F401  (fixtures)

pytest.importorskip("gradio")

from perceptual.config import StudioConfig, weight_paths
from perceptual.errors import ConfigError
from perceptual.functional import gram_matrix
from perceptual.losses import LossNetwork
from perceptual.measure.features import activation_sheet, gram_picture
from perceptual.studio import shown
from perceptual.studio.jobs import Job
from perceptual.studio.optimizing import Explorer, available, baseline
from perceptual.studio.studio import Studio
from perceptual.studio.tabs.optimize import _Work

SHAPES = {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256), 14: (256, 256),
          17: (512, 256), 19: (512, 512), 21: (512, 512)}  # fmt: skip


@pytest.fixture(autouse=True)
def no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is in the cache."""
    monkeypatch.setenv("PERCEPTUAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PERCEPTUAL_WEIGHTS", raising=False)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The option --weights, with VGG-16 by chance, up to relu4_3."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for index, shape in SHAPES.items():
        weight = torch.randn(*shape, 3, 3, generator=generator) * (2 / (9 * shape[1])) ** 0.5
        state |= {f"features.{index}.weight": weight, f"features.{index}.bias": torch.zeros(shape[0])}
    path = tmp_path_factory.mktemp("weights") / "vgg16.safetensors"
    safetensors.torch.save_file(state, path)
    return (f"vgg16={path}",)


@pytest.fixture
def picture(tmp_path: Path, photograph: Image.Image) -> Path:
    """A small photo."""
    path = tmp_path / "photo.png"
    photograph.convert("RGB").resize((96, 64)).save(path)
    return path


def test_channels_are_sorted_and_scaled() -> None:
    """Three channels of 1 x 2 pixels: by mean 3, 1 and 0; each from black to white, one of one value is black."""
    channels = torch.tensor([[[[0.0, 2.0]], [[3.0, 3.0]], [[1.0, -1.0]]]])
    sheet = activation_sheet(channels, count=4, side=2)
    assert sheet.shape == (1, 3, 4, 6)
    assert torch.equal(sheet[0, 0], sheet[0, 2])
    assert sheet[0, 0, 0].tolist() == [0, 0, 1, 1, 0, 1]  # channel 1, a white gap, channel 0
    assert sheet[0, 0, 3].tolist() == [1, 0, 1, 1, 1, 1]  # channel 2, and an empty cell


def test_only_the_most_active_channels_are_shown() -> None:
    assert activation_sheet(torch.rand(1, 64, 5, 5), count=16, side=10).shape == (1, 3, 4 * 12 - 2, 4 * 12 - 2)
    assert activation_sheet(torch.rand(1, 1, 5, 10), count=16, side=10).shape == (1, 3, 5, 10)


def test_the_gram_matrix_is_shown_by_its_square_root() -> None:
    features = torch.rand(1, 4, 6, 7)
    shown = gram_picture(features, side=8)
    gram = gram_matrix(features)[0]
    assert shown.shape == (1, 3, 8, 8)
    torch.testing.assert_close(shown[0, 0, ::2, ::2] ** 2, gram / gram.max())
    assert torch.equal(gram_picture(torch.zeros(1, 4, 6, 7)), torch.zeros(1, 3, 512, 512))


def test_negative_numbers_of_a_gram_matrix_are_red() -> None:
    """Two channels of one pixel, 2 and -1: the products are 4, -2 and 1, so the shares are 1, a half and a quarter."""
    picture = gram_picture(torch.tensor([2.0, -1.0]).view(1, 2, 1, 1), side=2)
    expected = [[[1, 0.5**0.5], [0.5**0.5, 0.5]], [[1, 0], [0, 0.5]], [[1, 0], [0, 0.5]]]
    torch.testing.assert_close(picture[0], torch.tensor(expected))


def test_networks_with_weights_are_found(tmp_path: Path, weights: tuple[str, ...]) -> None:
    assert available(StudioConfig(folder=tmp_path)) == []
    assert available(StudioConfig(folder=tmp_path, weights=weights)) == ["vgg16"]


def test_the_explorer_knows_the_layers_of_the_file(tmp_path: Path, weights: tuple[str, ...]) -> None:
    explorer, pixels = Explorer(StudioConfig(folder=tmp_path, weights=weights, device="cpu")), torch.rand(1, 3, 32, 48)
    assert explorer.layers("vgg16")[-2:] == ["relu4_3", "pool4"]
    found = explorer.features(pixels, "vgg16:relu2_2")
    assert torch.equal(found, LossNetwork("vgg16", ["relu2_2"], path=weight_paths(weights)["vgg16"])(pixels)["relu2_2"])
    with pytest.raises(ConfigError, match="do not contain the layer 'relu5_1'"):
        explorer.features(pixels, "vgg16:relu5_1")


def test_the_objective_moves_to_another_network() -> None:
    loss = baseline("vgg19", 7.0)
    assert loss.content_layers == ("vgg19:relu2_2",)
    assert loss.style_layers[-1] == "vgg19:relu4_3"
    assert loss.style_weight == 7.0
    with pytest.raises(ConfigError, match="choose a VGG network"):
        baseline("squeezenet1_1", 1.0)


def test_losses_are_drawn_as_shares_of_their_first_values() -> None:
    job = Job("a", "b", lambda job: [])
    job.losses = {1: {"style vgg16:relu1_2": 4.0, "tv": 0.0}, 2: {"style vgg16:relu1_2": 1.0, "tv": 3.0}}
    drawn = shown.curves(job).value
    assert drawn["data"] == [[1, 1.0, "style relu1_2"], [2, 0.25, "style relu1_2"]]
    assert not shown.curves(None).visible
    job.losses[3] = {"style vgg16:relu1_2": 0.0}
    drawn = shown.curves(job, log=True).value  # 0 has no logarithm
    assert drawn["data"] == [[1, 0.0, "style relu1_2"], [2, pytest.approx(-0.60206, abs=1e-5), "style relu1_2"]]


def test_a_stopped_optimisation_keeps_the_best(tmp_path: Path, picture: Path, weights: tuple[str, ...]) -> None:
    studio = Studio.open(StudioConfig(folder=tmp_path / "s", weights=weights, device="cpu"))
    _Work(studio).optimise(str(picture), str(picture), "vgg16", 64, 1000, 5)
    (job,) = studio.jobs.all()
    while job.index < 2:
        assert job.status in ("waiting", "running"), job.message
        time.sleep(0.01)
    job.stop()
    studio.close()
    assert job.status == "stopped"
    (out,) = job.results
    with Image.open(out) as made:
        assert made.size == (64, 43)
    assert {"total", "tv"} <= set(job.losses[1])


def test_a_person_optimises_and_explores(tmp_path: Path, page: Any, picture: Path, weights: tuple[str, ...]) -> None:
    with server(tmp_path / "s", weights=weights, device="cpu") as address:
        page.goto(address.url)
        page.get_by_role("tab", name="By optimisation").click()
        give(page, "optimize-photo", picture)
        give(page, "optimize-painting", picture)
        for field, value in (("size", "64"), ("iterations", "10")):
            page.fill(f"#optimize-{field} input[type=number]", value)
            page.keyboard.press("Tab")
        page.click("#optimize-go")
        text(page, "#optimize-progress", "is finished")
        count(page, "#optimize-preview img", 1)
        with Image.open(tmp_path / "s" / "results" / "photo_photo.png") as made:
            assert made.size == (64, 43)
        page.get_by_role("tab", name="Loss explorer").click()
        give(page, "explore-photo", picture)
        count(page, "#explore-activations img", 1)
        count(page, "#explore-gram img", 1)
        for field, value in (("size", "64"), ("iterations", "10")):
            page.fill(f"#explore-{field} input[type=number]", value)
            page.keyboard.press("Tab")
        page.click("#explore-invert")
        text(page, "#explore-progress", "is finished")
        with Image.open(tmp_path / "s" / "results" / "photo_invert_relu3_3.png") as made:
            assert np.asarray(made).std() > 1


def test_a_person_changes_network_and_layer(tmp_path: Path, page: Any, picture: Path, weights: tuple[str, ...]) -> None:
    both = (*weights, weights[0].replace("vgg16=", "vgg16-torchvision="))  # another preprocessing, so other features
    seen = "document.querySelector('#explore-activations img')?.src"
    with server(tmp_path / "s", weights=both, device="cpu") as address:
        page.goto(address.url)
        page.get_by_role("tab", name="Loss explorer").click()
        give(page, "explore-photo", picture)
        count(page, "#explore-activations img", 1)
        for field, option in (("network", "vgg16"), ("layer", "conv1_1")):
            before = page.evaluate(seen)
            page.click(f"#explore-{field} input")
            page.get_by_role("option", name=option, exact=True).click()
            page.wait_for_function(f"before => {seen} !== before", arg=before)
        page.click("#explore-layer input")
        assert page.get_by_role("option", name="pool4", exact=True).is_visible()
        assert page.get_by_role("option", name="relu5_1", exact=True).count() == 0  # not in the file
        page.keyboard.press("Escape")
        page.locator("#tab-explore button, button", has_text="The same as a command").last.click()
        command = text(page, "#explore-command", "perceptual optimize invert")
        assert "--layer vgg16:conv1_1 --size 192 --iterations 100" in command


def test_garbage_is_one_sentence_in_the_explorer(tmp_path: Path, page: Any, weights: tuple[str, ...]) -> None:
    (tmp_path / "garbage.png").write_bytes(b"no picture" * 100)
    with server(tmp_path / "s", weights=weights, device="cpu") as address:
        page.goto(address.url)
        page.get_by_role("tab", name="Loss explorer").click()
        give(page, "explore-photo", tmp_path / "garbage.png")
        assert "garbage.png" in failure(page)


def test_without_weights_the_tabs_say_so(tmp_path: Path, page: Any, picture: Path) -> None:
    with server(tmp_path / "s", device="cpu") as address:
        page.goto(address.url)
        page.get_by_role("tab", name="By optimisation").click()
        give(page, "optimize-photo", picture)
        give(page, "optimize-painting", picture)
        page.click("#optimize-go")
        assert "No loss network is on this computer" in failure(page)
