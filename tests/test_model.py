"""Model, which every task's model builds on: kinds and sizes, options, Steps, tiles, and the caller's network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from torch import Tensor

from perceptual import checkpoints
from perceptual.apply import Model, Stylizer, Upscaler, tiles
from perceptual.checkpoints import Card
from perceptual.cli import terminal
from perceptual.cli.pictures import Files, apply_to_files
from perceptual.cli.terminal import with_bar
from perceptual.config import ModelOptions, NetworkConfig, PaintOptions, UpscaleOptions
from perceptual.errors import CheckpointError, ConfigError, ImageError
from perceptual.events import Step, finish
from perceptual.fast.inference import Inference
from perceptual.networks import TransformationNetwork

CONFIG = NetworkConfig("c3s1-4 d4 r4 U4 c3s1-3", norm="none", padding="reflect", output="bicubic")


class Denoiser(Model[ModelOptions]):
    """All that a new task has to write where its network keeps the size."""

    task = "upscale"


def network_of(config: NetworkConfig = CONFIG) -> TransformationNetwork:
    torch.manual_seed(0)
    return TransformationNetwork(config).eval()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "denoise.safetensors"
    checkpoints.save(path, network_of(), Card(task="upscale", network=CONFIG))
    return path


@pytest.fixture(scope="module")
def model(file: Path) -> Denoiser:
    return Denoiser.load(file, device="cpu")


@pytest.fixture
def banded(tiny_style: Path, monkeypatch: pytest.MonkeyPatch) -> Stylizer:
    """A stylizer that paints all but the smallest pictures in bands."""
    monkeypatch.setattr("perceptual.apply.stylizer.WHOLE", 1 << 12)
    monkeypatch.setattr("perceptual.apply.stylizer.BAND", 5000)
    monkeypatch.setattr(Inference, "pays", lambda self, height, width: min(height, width) >= 64)
    return Stylizer.load(tiny_style, device="cpu", precision="float32")


# --- a model of one line


@settings(deadline=None, max_examples=20)
@given(height=st.integers(1, 40), width=st.integers(1, 40))
def test_a_subclass_that_names_its_task_takes_pictures_of_any_size(model: Denoiser, height: int, width: int) -> None:
    picture = torch.rand(3, height, width)
    with torch.no_grad():
        expected = network_of()(picture[None])[0].clamp(0, 1)
    assert torch.allclose(model(picture), expected, atol=1e-5)


def test_it_takes_pictures_of_every_kind(model: Denoiser) -> None:
    array = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    for image in (Image.fromarray(array), array, array / 255, torch.rand(3, 9, 13), torch.rand(2, 3, 9, 13)):
        made = model(image)
        assert type(made) is type(image)
        assert np.shape(made) == np.shape(image)
    assert np.array_equal(np.asarray(model(Image.fromarray(array))), model(array))


def test_a_picture_keeps_its_alpha(model: Denoiser) -> None:
    array = np.random.default_rng(0).integers(1, 256, (9, 13, 4), dtype=np.uint8)
    made = model(Image.fromarray(array))
    assert made.mode == "RGBA"
    assert np.array_equal(np.asarray(made)[..., 3], array[..., 3])


def test_tiles_equal_the_whole(model: Denoiser) -> None:
    picture = torch.rand(1, 3, 50, 71)
    assert (model(picture, tile=16) - model(picture, tile=0)).abs().max() < 2e-4


def test_the_task_of_the_file_must_be_the_model_s_own(file: Path, tiny_style: Path) -> None:
    with pytest.raises(CheckpointError, match="is a network for 'style', not for upscale"):
        Denoiser.load(tiny_style)
    assert type(Model.load(tiny_style)) is Model  # which names no task and takes each


def test_a_picture_too_large_for_the_memory_is_refused(model: Denoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "free_memory", lambda device: 1e4)
    with pytest.raises(
        ImageError, match=r"^A picture of 40 x 30 px needs about .* GB are free: give a smaller picture"
    ):
        model(torch.rand(3, 30, 40))


def test_values_that_are_not_numbers_are_refused() -> None:
    network = network_of()
    next(network.parameters()).data.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="not numbers"):
        Denoiser(network, Card(task="upscale", network=CONFIG))(torch.rand(3, 8, 8))


# --- options


@pytest.mark.parametrize(
    ("kind", "options"), [(Stylizer, PaintOptions), (Upscaler, UpscaleOptions), (Denoiser, ModelOptions)]
)
def test_an_unknown_option_is_one_sentence_with_the_known_ones(kind: type[Model], options: type) -> None:
    made = kind(network_of(), Card(task="upscale", network=CONFIG), device="cpu")
    known = ", ".join(field.name for field in dataclasses.fields(options))
    for refused in (lambda: made(torch.rand(3, 8, 8), tyle=16), lambda: kind(made.network, made.card, tyle=16)):
        with pytest.raises(TypeError, match=rf"^There is no option 'tyle': choose from {known}\.$"):
            refused()
    with pytest.raises(TypeError, match=rf"^The options are of type dict: give them as {options.__name__} or by name"):
        made(torch.rand(3, 8, 8), {"tile": 16})
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.defaults.size = 1


def test_options_go_as_one_object_by_name_or_both(tiny_style: Path) -> None:
    stylizer, picture = Stylizer.load(tiny_style, device="cpu"), torch.rand(1, 3, 16, 20)
    expected = stylizer(picture, style="two", strength=0.5)
    assert torch.equal(stylizer(picture, PaintOptions(style="two", strength=0.5)), expected)
    assert torch.equal(stylizer(picture, PaintOptions(style="two"), strength=0.5), expected)
    assert torch.equal(stylizer.stylize(picture, PaintOptions(style="two", strength=0.5)), expected)
    assert not torch.allclose(stylizer(picture), expected, atol=1e-3)


def test_defaults_hold_where_a_call_says_nothing(tiny_style: Path) -> None:
    picture = torch.rand(1, 3, 16, 20)
    plain, other = Stylizer.load(tiny_style), Stylizer.load(tiny_style, style="two", precision="float32")
    assert other.precision == "float32"
    assert torch.equal(other(picture), plain(picture, style="two"))
    assert torch.equal(other(picture, style="one"), plain(picture))
    with pytest.raises(ConfigError, match="strength is 2; it must be a number from 0 to 1"):
        Stylizer.load(tiny_style, strength=2)


def test_what_was_an_attribute_cannot_be_set(tiny_style: Path) -> None:
    with pytest.raises(AttributeError):
        Stylizer.load(tiny_style).precision = "float32"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Upscaler(network_of(), Card(task="upscale", network=CONFIG)).scale = 1.0  # type: ignore[misc]


def test_the_scale_is_an_option_of_the_call() -> None:
    upscaler, picture = Upscaler.load("x4_pixel", device="cpu"), torch.rand(1, 3, 8, 10)
    assert upscaler(picture, scale=3).shape == (1, 3, 24, 30)
    assert torch.equal(upscaler(picture, scale=3), Upscaler.at_scale(3, device="cpu")(picture))
    assert upscaler(picture).shape == (1, 3, 32, 40)
    with pytest.raises(ConfigError, match=r"^scale is 5; this network enlarges up to 4 times: choose one"):
        upscaler(picture, scale=5)


# --- the caller's network


def test_the_caller_s_network_stays_as_it_is_unless_it_is_given_away() -> None:
    network, card = network_of().train(), Card(task="upscale", network=CONFIG)
    model = Denoiser(network, card, device="cpu")
    assert network.training
    assert not model.network.training
    assert Denoiser(network, card, device="cpu", copy=False).network is network


@pytest.mark.parametrize("kind", [Denoiser, Upscaler, Stylizer])
def test_loading_copies_no_network(
    kind: type[Model], file: Path, tiny_style: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perceptual.apply.model.deepcopy", None)
    kind.load(tiny_style if kind is Stylizer else file)


# --- files


def always(options: ModelOptions) -> Callable[[int, int], ModelOptions]:
    """The same options for pictures of every size."""
    return lambda height, width: options


def test_any_model_runs_over_files(model: Denoiser, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    array = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    for name in ("a.png", "b.png"):
        Image.fromarray(array).save(tmp_path / "in" / name)
    (tmp_path / "in" / "c.png").write_bytes(b"")
    files, options = Files(inputs=(str(tmp_path / "in"),), out=str(tmp_path / "out")), ModelOptions()
    assert apply_to_files(lambda: model, files, options, always(options), title="denoising", mark="denoised") == 1
    assert "2 written, 0 skipped, 1 failed" in capsys.readouterr().err
    for name in ("a.png", "b.png"):
        with Image.open(tmp_path / "out" / name) as made:
            assert np.array_equal(np.asarray(made), model(array))


def test_options_that_the_network_cannot_do_are_refused_before_the_first_file(tmp_path: Path, tiny_style: Path) -> None:
    Image.new("RGB", (20, 24)).save(tmp_path / "a.png")
    files = Files(inputs=(str(tmp_path / "a.png"),), out=str(tmp_path / "b.png"))
    with pytest.raises(ConfigError, match="cannot be tiled"):
        apply_to_files(
            lambda: Model.load(tiny_style),
            files,
            ModelOptions(tile=16),
            lambda height, width: ModelOptions(tile=16),
            title="painting",
            mark="painted",
        )
    assert not (tmp_path / "b.png").exists()


def test_only_a_picture_of_several_tiles_has_a_bar(
    model: Denoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (48, 32)).save(tmp_path / "a.png")
    for tile, bar in ((0, False), (16, True)):
        screen = StringIO()
        monkeypatch.setattr(terminal, "_console", Console(file=screen, force_terminal=True, width=100))
        files = Files(inputs=(str(tmp_path / "a.png"),), out=str(tmp_path / "b.png"))
        options = ModelOptions(tile=tile)
        assert apply_to_files(lambda: model, files, options, always(options), title="denoising", mark="x") == 0
        assert ("denoising" in screen.getvalue()) == bar
        assert "written" in screen.getvalue()


def test_elsewhere_than_on_a_terminal_a_short_work_of_many_prints_no_lines(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [Step(k, 4) for k in range(5)]
    assert list(with_bar(iter(steps), "denoising", brief=True)) == steps
    assert capsys.readouterr().err == ""
    assert list(with_bar(iter(steps), "denoising")) == steps
    assert "denoising 4/4" in capsys.readouterr().err


# --- Steps


def counts(steps: list[Step]) -> list[tuple[int, int | None]]:
    return [(step.index, step.total) for step in steps]


def test_there_is_a_step_after_each_tile_and_the_last_one_has_the_result(model: Denoiser) -> None:
    picture = torch.rand(3, 32, 48)
    steps = list(model.steps(picture, tile=16))
    assert counts(steps) == [(k, 6) for k in range(7)]
    assert [step.result is None for step in steps] == [True] * 6 + [False]
    assert torch.equal(steps[-1].result, model(picture, tile=16))
    assert torch.equal(finish(model.steps(picture, tile=16)), steps[-1].result)
    assert counts(list(model.steps(picture))) == [(0, 1), (1, 1)]


def test_steps_of_several_pictures_are_counted_together(model: Denoiser) -> None:
    steps = list(model.run(torch.rand(3, 3, 16, 32), tile=16))
    assert counts(steps) == [(k, 6) for k in range(7)]
    assert steps[-1].result.shape == (3, 3, 16, 32)


@pytest.mark.parametrize("how", [{}, {"style_scale": 0.5}, {"strength": 0.5, "keep_colors": True}])
def test_bands_are_steps(banded: Stylizer, how: dict[str, float]) -> None:
    picture = (torch.rand(1, 3, 203, 178) * 255).byte()
    steps = list(banded.run(picture, **how))
    total = steps[0].total
    assert total is not None
    assert total > 10
    assert counts(steps) == [(k, total) for k in range(total + 1)]
    assert steps[-1].result.dtype == torch.uint8
    assert torch.equal(steps[-1].result, banded.stylize(picture, **how))
    assert counts(list(banded.run(picture[..., :60, :]))) == [(0, 1), (1, 1)]


def test_steps_of_a_picture_end_in_its_kind(banded: Stylizer) -> None:
    picture = Image.new("RGBA", (150, 120), (200, 30, 40, 128))
    *_, last = banded.steps(picture)
    assert last.result.mode == "RGBA"
    assert np.array_equal(np.asarray(last.result), np.asarray(banded(picture)))


def test_work_that_is_left_costs_nothing_more(model: Denoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    monkeypatch.setattr(model.network, "forward", lambda x: seen.append(x) or x)
    work = model.steps(torch.rand(3, 32, 48), tile=16)
    while next(work).index < 2:
        pass
    work.close()
    assert len(seen) == 2


def test_values_that_are_not_numbers_are_blamed_on_the_picture(tiny_style: Path) -> None:
    stylizer = Stylizer.load(tiny_style, device="cpu")
    for side, value in ((40, float("nan")), (200, float("nan")), (40, float("inf"))):
        picture = torch.rand(1, 3, side, side)
        picture[0, 0, 3, 4] = value
        with pytest.raises(ImageError, match=r"The image has values that are not finite \(NaN or infinity\)"):
            stylizer.apply(picture)
