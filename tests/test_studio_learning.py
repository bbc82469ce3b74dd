"""Own styles in the studio: learning, stopping, going on after a restart, renaming, deleting, adding."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from studio import browser, count, failure, give, page, server, text  # noqa: F401  (fixtures)

pytest.importorskip("gradio")

from perceptual import Stylizer, checkpoints
from perceptual.config import StudioConfig
from perceptual.errors import ConfigError, ImageError
from perceptual.studio.jobs import Job
from perceptual.studio.learning import Choice, choice_of, learn, missing_weights, prepare, run_folder
from perceptual.studio.studio import Studio


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Crops of 32 px, and a loss network of two layers; its weights are not where they would be looked for."""
    recipe_of = Choice.recipe

    def recipe(choice: Choice) -> Any:
        recipe = recipe_of(choice)
        train = replace(recipe.train, size=32, preview_every=1, save_every=1)
        loss = replace(recipe.loss, content_layers=("vgg16:relu1_1",), style_layers=("vgg16:relu1_1", "vgg16:relu1_2"))
        return replace(recipe, train=train, loss=replace(loss, lattice_weight=0), style_size=64)

    monkeypatch.setattr(Choice, "recipe", recipe)
    monkeypatch.setenv("PERCEPTUAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PERCEPTUAL_WEIGHTS", raising=False)


@pytest.fixture
def weights(tmp_path: Path) -> tuple[str, ...]:
    """The option --weights, with weights by chance for the first two convolutions of VGG-16."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"features.0": (64, 3, 3, 3), "features.2": (64, 64, 3, 3)}
    state = {f"{name}.weight": torch.randn(shape, generator=generator) / 20 for name, shape in shapes.items()}
    state |= {f"{name}.bias": torch.zeros(64) for name in shapes}
    safetensors.torch.save_file(state, tmp_path / "vgg16.safetensors")
    return (f"vgg16={tmp_path / 'vgg16.safetensors'}",)


@pytest.fixture
def painting(tmp_path: Path) -> Path:
    """A painting of coloured noise."""
    path = tmp_path / "My Painting.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 100, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path, photograph: Image.Image) -> list[Path]:
    """Three photos."""
    paths = [tmp_path / f"photo {k}.jpg" for k in range(3)]
    for k, path in enumerate(paths):
        photograph.convert("RGB").crop((10 * k, 0, 10 * k + 90, 90)).save(path)
    return paths


@pytest.fixture
def studio(tmp_path: Path, weights: tuple[str, ...]) -> Iterator[Studio]:
    """A studio without a server."""
    opened = Studio.open(StudioConfig(folder=tmp_path / "studio", weights=weights, device="cpu"))
    yield opened
    opened.close()


def finished(job: Job) -> Job:
    """The job after it has run in this thread."""
    job.run()
    return job


def test_a_style_is_learned_and_paints(studio: Studio, painting: Path, photos: list[Path]) -> None:
    out = prepare(studio, Choice(name="My Painting", steps=3), painting, photos)
    assert out == studio.folder.styles / "My_Painting.safetensors"
    job = finished(Job("Learning", "own", learn(studio, out)))
    assert (job.status, job.message, job.results) == ("done", "", (out,))
    assert sorted(job.losses) == [1, 2, 3]
    assert set(job.losses[3]) >= {"total", "tv"}
    assert job.preview is not None
    assert out.stat().st_size < 40_000
    assert checkpoints.read_card(out).styles == ("my_painting",)
    assert "My_Painting" in studio.models.styles()
    picture = torch.rand(1, 3, 64, 64)
    painted = studio.models.stylizer({"My_Painting": 1.0}).stylize(picture)
    assert torch.equal(painted, Stylizer.load(out, device="cpu").stylize(picture))
    assert studio.folder.unfinished() == []


def test_a_stopped_style_goes_on_as_if_it_had_not_been_stopped(
    studio: Studio, painting: Path, photos: list[Path], tmp_path: Path
) -> None:
    whole = prepare(studio, Choice(name="whole", steps=4), painting, photos)
    assert finished(Job("Learning", "own", learn(studio, whole))).status == "done"
    out = prepare(studio, Choice(name="part", steps=4), painting, photos)
    job = Job("Learning", "own", learn(studio, out))
    report = job.report

    def stop_after_two(step: Any) -> None:
        if step.index == 2:
            job.stop()
        report(step)

    job.report = stop_after_two  # type: ignore[method-assign]
    assert finished(job).status == "stopped"
    assert studio.folder.unfinished() == ["part"]
    assert Stylizer.load(out, device="cpu").styles == ("part",)  # what is there can be used

    again = Studio.open(StudioConfig(folder=tmp_path / "studio", weights=studio.config.weights, device="cpu"))
    job = finished(Job("Learning", "own", learn(again, out, resume=True)))
    assert (job.status, sorted(job.losses)) == ("done", [3, 4])
    first, second = (safetensors.torch.load_file(path) for path in (whole, out))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_style_that_waited_when_the_page_ended_can_begin(studio: Studio, painting: Path, photos: list[Path]) -> None:
    out = prepare(studio, Choice(name="later", steps=2), painting, photos)
    assert studio.folder.unfinished() == ["later"]
    job = finished(Job("Learning", "own", learn(studio, out, resume=True)))
    assert (job.status, sorted(job.losses)) == ("done", [1, 2])
    assert studio.folder.unfinished() == []


def test_without_photos_the_samples_are_taken(studio: Studio, painting: Path) -> None:
    out = prepare(studio, Choice(name="a"), painting, [])
    names = sorted(path.name for path in (run_folder(out) / "photos").iterdir())
    assert names == ["astronaut.png", "chelsea.png", "coffee.png", "rocket.png"]


def test_no_style_replaces_another(studio: Studio, painting: Path, photos: list[Path]) -> None:
    outs = [prepare(studio, Choice(name="a"), painting, photos) for _ in range(3)]
    assert [out.name for out in outs] == ["a.safetensors", "a_2.safetensors", "a_3.safetensors"]
    assert choice_of(outs[2]).name == "a_3"


def test_what_is_no_picture_leaves_nothing(studio: Studio, painting: Path, photos: list[Path], tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.png"
    garbage.write_bytes(random.Random(0).randbytes(3000))
    for one, others in ((garbage, photos), (painting, [*photos, garbage])):
        with pytest.raises(ImageError, match=r"garbage\.png"):
            prepare(studio, Choice(name="a"), one, others)
        assert list(studio.folder.styles.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["", "{}", '{"name": 3}', '{"name": "a", "steps": "x"}', '{"name": "a", "steps": 0}', "[1]"]
)
def test_a_damaged_run_is_one_sentence(studio: Studio, painting: Path, photos: list[Path], text: str) -> None:
    out = prepare(studio, Choice(name="a"), painting, photos)
    (run_folder(out) / "choice.json").write_text(text)
    with pytest.raises(ConfigError):
        choice_of(out)
    job = finished(Job("Learning", "own", learn(studio, out)))
    assert job.status == "failed"
    assert "Unexpected" not in job.message


def test_missing_weights_are_named(tmp_path: Path, weights: tuple[str, ...]) -> None:
    assert missing_weights(StudioConfig(folder=tmp_path)) == ["vgg16"]
    assert missing_weights(StudioConfig(folder=tmp_path, weights=weights)) == []


def test_a_person_learns_renames_and_deletes_a_style(
    tmp_path: Path, page: Any, painting: Path, photos: list[Path], weights: tuple[str, ...]
) -> None:
    with server(tmp_path / "s", weights=weights, device="cpu") as address:
        page.goto(address.url)
        page.get_by_role("tab", name="Own style").click()
        give(page, "own-painting", painting)
        give(page, "own-photos", *photos)
        page.wait_for_function("document.querySelector('#own-name textarea, #own-name input').value === 'my_painting'")
        page.fill("#own-steps input[type=number]", "10")
        page.keyboard.press("Tab")
        page.click("#own-go")
        text(page, "#own-progress", "is finished")
        count(page, "#own-preview img", 1)
        assert (tmp_path / "s" / "styles" / "my_painting.safetensors").is_file()
        page.get_by_role("tab", name="Paint", exact=True).click()
        give(page, "paint-photos", photos[0])
        page.locator("#paint-wall button", has_text="my_painting").first.click()
        page.get_by_role("tab", name="Own style").click()
        page.click("#own-style input")
        page.get_by_role("option", name="my_painting").click()
        page.fill("#own-new-name textarea, #own-new-name input", "sun")
        page.click("#own-rename")
        page.wait_for_function("document.querySelector('#own-style input').value === 'sun'")
        assert (tmp_path / "s" / "styles" / "sun.safetensors").is_file()
        page.click("#own-delete")
        assert "Tick" in failure(page)
        page.get_by_label("Yes, delete it for ever").check()
        page.click("#own-delete")
        page.wait_for_selector("#own-delete", state="hidden")
        assert list((tmp_path / "s" / "styles").iterdir()) == []


def test_a_person_stops_and_goes_on_after_a_restart(
    tmp_path: Path, page: Any, painting: Path, photos: list[Path], weights: tuple[str, ...]
) -> None:
    styles = tmp_path / "s" / "styles"
    with server(tmp_path / "s", weights=weights, device="cpu") as address:
        page.goto(address.url)
        page.get_by_role("tab", name="Own style").click()
        give(page, "own-painting", painting)
        give(page, "own-photos", *photos)
        page.wait_for_function("document.querySelector('#own-name textarea, #own-name input').value === 'my_painting'")
        page.fill("#own-steps input[type=number]", "2000")
        page.keyboard.press("Tab")
        page.click("#own-go")
        text(page, "#own-progress", "of 2000")
        page.click("#own-stop")
        text(page, "#own-progress", "was stopped")
        steps = checkpoints.read_card(styles / "my_painting.safetensors").steps
        assert 0 < steps < 2000
        page.goto("about:blank")  # a page that loses its server reports an error
    with server(tmp_path / "s", weights=weights, device="cpu") as address:
        page.goto(address.url)
        page.get_by_role("tab", name="Own style").click()
        page.click("#own-style input")
        page.get_by_role("option", name="my_painting").click()
        page.click("#own-resume")
        text(page, "#own-progress", "of 2000")
        page.click("#own-stop")
        text(page, "#own-progress", "was stopped")
        assert checkpoints.read_card(styles / "my_painting.safetensors").steps > steps
        assert (styles / "my_painting.state").is_file()
        page.goto("about:blank")


def test_a_style_file_is_added_and_garbage_is_refused(tmp_path: Path, page: Any, tiny_style: Path) -> None:
    garbage = tmp_path / "garbage.safetensors"
    garbage.write_bytes(random.Random(0).randbytes(3000))
    with server(tmp_path / "s", device="cpu") as address:
        page.goto(address.url)
        page.get_by_role("tab", name="Own style").click()
        text(page, "#own-needs", "Learning needs the weights of vgg16")
        give(page, "own-add", garbage)
        assert "garbage.safetensors" in failure(page)
        assert list((tmp_path / "s" / "styles").iterdir()) == []
        page.reload()
        page.get_by_role("tab", name="Own style").click()
        give(page, "own-add", tiny_style)
        page.wait_for_selector("#own-export")
        assert (tmp_path / "s" / "styles" / f"{tiny_style.stem}.safetensors").read_bytes() == tiny_style.read_bytes()
