"""Training for super-resolution: losses in units of bicubic's error, exact resume, beginning from another scale."""

from __future__ import annotations

import json
import random
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from perceptual import checkpoints, files
from perceptual.config import NetworkConfig, TrainConfig, from_dict, named_weights, to_dict
from perceptual.data import Photographs
from perceptual.errors import CheckpointError, ConfigError, DataError, TrainingError
from perceptual.functional import Array
from perceptual.losses import (
    AbsoluteLoss,
    FeatureLoss,
    Materials,
    build_terms,
    parse_objective,
    reconstruction_loss,
)
from perceptual.networks import TransformationNetwork, enlarge
from perceptual.resampling import degrade
from perceptual.tasks.base import Task
from perceptual.tasks.upscale import UPSCALE_RECIPES, Upscale, UpscaleRecipe, network_at, upscale_recipe
from perceptual.train import Trainer, side_path

close = torch.testing.assert_close
BICUBIC = NetworkConfig("c3s1-8 s2-3", norm="none", padding="zero", output="bicubic")
TRAIN = TrainConfig(
    **{"steps": 6, "batch": 2, "size": 32, "workers": 0, "tick_every": 1, "preview_every": 3, "save_every": 2},
    **{"crop": "native", "decay": "cosine", "precision": "float32"},
)
RECIPE = UpscaleRecipe(network=BICUBIC, train=TRAIN)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures of 60 x 48 px, with detail that bicubic interpolation loses."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for index in range(5):
        small = rng.integers(0, 256, (16, 20, 3), dtype=np.uint8)
        Image.fromarray(small).resize((60, 48), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def small_vgg(tmp_path: Path) -> Path:
    """VGG-16's first group with made-up weights."""
    generator, state = torch.Generator().manual_seed(0), {}
    for index, channels in ((0, 3), (2, 64)):
        weight = 0.1 * torch.randn(64, channels, 3, 3, generator=generator)
        state |= {f"features.{index}.weight": weight, f"features.{index}.bias": torch.zeros(64)}
    safetensors.torch.save_file(state, tmp_path / "vgg.safetensors")
    return tmp_path / "vgg.safetensors"


def photographs(folder: Path, recipe: UpscaleRecipe = RECIPE) -> Photographs:
    return Photographs(folder, recipe.train.size, seed=recipe.train.seed, crop=recipe.train.crop)


def task_of(folder: Path, recipe: UpscaleRecipe = RECIPE, **more: Any) -> Task:
    return Upscale(recipe, photographs(folder, recipe), **more)


def with_zero_weights(task: Task) -> Task:
    for parameter in task.network.parameters():
        parameter.data.zero_()
    return task


def train(
    out: Path,
    folder: Path,
    recipe: UpscaleRecipe = RECIPE,
    *,
    resume: bool = False,
    stop_at: int = 0,
    begin: Path | None = None,
    **more: Any,
) -> Trainer:
    task = task_of(folder, recipe, **more)
    task = task.start_from(begin) if begin else task
    trainer = Trainer(task, recipe.train, out, device="cpu")
    trainer.begin(resume=resume)
    with closing(trainer.run(photographs(folder, recipe))) as run:
        for step in run:
            if step.index == stop_at:
                break
    return trainer


def log_of(out: Path) -> list[dict[str, float]]:
    lines = side_path(out, ".jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds_per_step"} for line in lines]


def assert_equal_weights(a: Path, b: Path) -> None:
    one, other = (safetensors.torch.load_file(path) for path in (a, b))
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


# --- the losses


def test_the_absolute_loss_is_the_mean_absolute_difference() -> None:
    """By hand: differences of 0.1 and -0.3 in half of the pixels each give 0.2; of 0.5 everywhere, 0.5."""
    target = torch.full((2, 3, 2, 2), 0.5)
    output = target.clone()
    output[0, :, 0] += 0.1
    output[0, :, 1] -= 0.3
    output[1] -= 0.5
    close(AbsoluteLoss(reduction="none")(output, target), torch.tensor([0.2, 0.5]))


def test_the_names_of_a_loss_are_its_terms_and_anything_else_is_a_layer() -> None:
    text = "pixel:1,l1:2,tv:3,feature:4,vgg19:relu4_2:5,relu3_3:6"
    terms = build_terms(parse_objective(text), Materials(scale=4))
    kinds = [(name, type(term).__name__, weight) for name, (term, weight) in terms.items()]
    assert kinds == [
        *(("pixel", "PixelLoss", 1), ("l1", "AbsoluteLoss", 2), ("tv", "TotalVariation", 3)),
        *(("feature", "FeatureLoss", 4), ("vgg19:relu4_2", "FeatureLoss", 5), ("relu3_3", "FeatureLoss", 6)),
    ]
    layers = [term.layers[0] for term, _ in terms.values() if type(term) is FeatureLoss]
    assert layers == ["vgg16:relu2_2", "vgg19:relu4_2", "vgg16:relu3_3"]


def test_a_reconstruction_loss_without_features_needs_no_loss_network() -> None:
    loss = reconstruction_loss({"pixel": 2.0, "l1": 3.0}, 4)
    assert loss.networks is None
    assert loss.weights == {"pixel": 2.0, "l1": 3.0}
    terms = loss(torch.full((1, 3, 4, 4), 0.6), torch.full((1, 3, 4, 4), 0.5))
    close(torch.stack(list(terms.values())), torch.tensor([0.01, 0.1, 2 * 0.01 + 3 * 0.1]))  # pixel, l1, total


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pixel", {"pixel": 1.0}),
        ("feature:1,pixel:0.1", {"feature": 1.0, "pixel": 0.1}),
        (" l1 : 2 , tv ", {"l1": 2.0, "tv": 1.0}),
        ("vgg16:relu2_2", {"vgg16:relu2_2": 1.0}),
        ("vgg16:relu2_2:0.5,relu3_3:0.25", {"vgg16:relu2_2": 0.5, "relu3_3": 0.25}),
        ("pixel:0.5,pixel:0.25", {"pixel": 0.75}),
        ("pixel:0,l1", {"pixel": 0.0, "l1": 1.0}),
    ],
)
def test_weights_by_name_are_read(text: str, expected: dict[str, float]) -> None:
    found = {spec.name or spec.kind: spec.weight for spec in parse_objective(text)}
    assert found == expected
    assert UpscaleRecipe(loss=text).loss == text


@pytest.mark.parametrize(
    "text", ["", "pixel,", ",", ":2", "pixel:-1", "pixel:nan", "pixel:inf", "pixel:0", "l1:0,tv:0"]
)
def test_wrong_weights_are_one_sentence(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        UpscaleRecipe(loss=text)
    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


# --- references: 1 is as bad as bicubic interpolation


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("blur", [0.0, 1.0])
@pytest.mark.parametrize(("loss", "total"), [("pixel", 1.0), ("l1", 1.0), ("pixel:2,l1:3", 5.0)])
def test_the_bicubic_enlargement_itself_has_a_loss_of_the_weights(
    pictures: Path, loss: str, total: float, blur: float, scale: int
) -> None:
    network = replace(BICUBIC, architecture=f"c3s1-8 s{scale}-3")
    recipe = replace(RECIPE, loss=loss, blur=blur, network=network)
    task = with_zero_weights(task_of(pictures, recipe))
    dataset = photographs(pictures, recipe)
    with torch.no_grad():
        terms = [task.objective(task.network, dataset[k][0][None], k) for k in range(len(dataset))]
    assert sum(float(term["total"]) for term in terms) / len(terms) == pytest.approx(total, rel=1e-4)
    references = task.loss.references()
    for name in named_weights(loss):
        mean = sum(float(term[name]) for term in terms) / len(terms)
        assert references[name] == [pytest.approx(mean, rel=1e-4)]


def test_the_references_are_the_mean_error_of_bicubic_interpolation(pictures: Path) -> None:
    dataset = photographs(pictures)
    errors = []
    for k in range(5):
        high = dataset[k][0][None]
        difference = enlarge(degrade(high, 2), 2) - high
        errors.append([float(difference.square().mean()), float(difference.abs().mean())])
    pixel, absolute = np.mean(errors, axis=0)
    references = task_of(pictures, replace(RECIPE, loss="pixel:0.1,l1")).loss.references()
    assert references == {"pixel": [pytest.approx(pixel, rel=1e-5)], "l1": [pytest.approx(absolute, rel=1e-5)]}


def test_a_feature_loss_too_is_about_one_for_bicubic_interpolation(pictures: Path, small_vgg: Path) -> None:
    """About, for the pictures are seen from a corner that changes."""
    recipe = replace(RECIPE, loss="vgg16:relu1_2")
    task = with_zero_weights(task_of(pictures, recipe, paths={"vgg16": small_vgg}))
    dataset = photographs(pictures, recipe)
    with torch.no_grad():
        terms = [task.objective(task.network, dataset[k][0][None], k) for k in range(len(dataset))]
    assert sum(float(term["total"]) for term in terms) / len(terms) == pytest.approx(1, abs=0.1)
    assert task.card(0).loss_networks == {"vgg16": files.sha256_of(small_vgg)}


def test_a_flat_picture_counts_as_it_is(tmp_path: Path) -> None:
    """Bicubic interpolation makes no error there, and nothing is divided by 0."""
    Image.new("RGB", (40, 40), (51, 102, 204)).save(tmp_path / "flat.png")
    task = task_of(tmp_path, replace(RECIPE, network=replace(BICUBIC, output="linear")))
    terms = task.objective(task.network, photographs(tmp_path)[0][0][None], 0)
    assert terms["total"].isfinite()


def test_the_objective_is_a_function_of_the_picture_and_its_number(pictures: Path, small_vgg: Path) -> None:
    task = task_of(pictures, replace(RECIPE, loss="vgg16:relu1_1"), paths={"vgg16": small_vgg})
    pixels = torch.stack([photographs(pictures)[k][0] for k in range(2)])
    with torch.no_grad():
        values = [float(task.objective(task.network, pixels, index)["total"]) for index in (0, 1, 2, 3, 0, 1, 2, 3)]
    assert values[:4] == values[4:]
    assert len(set(values)) > 1  # the corner changes


def test_a_preview_shows_bicubic_interpolation_and_the_network(pictures: Path) -> None:
    task = with_zero_weights(task_of(pictures))
    bicubic, network = task.preview().chunk(2)
    assert bicubic.shape == (4, 3, 32, 32)
    close(network, bicubic)
    assert task.network.training


# --- training


@pytest.mark.parametrize("loss", ["pixel", "l1"])
def test_training_gets_better_than_bicubic_interpolation(tmp_path: Path, pictures: Path, loss: str) -> None:
    out = tmp_path / "net.safetensors"
    longer = replace(TRAIN, steps=60, batch=4, learning_rate=1e-2, preview_every=0, save_every=60)
    train(out, pictures, replace(RECIPE, loss=loss, train=longer))
    totals = [line["total"] for line in log_of(out)]
    assert len(totals) == 60
    assert np.mean(totals[-5:]) < 0.9 < totals[0]
    card = checkpoints.read_card(out)
    assert (card.task, card.steps, card.network, card.data) == ("upscale", 60, BICUBIC, "5 photographs")
    assert card.weights == {loss: 1.0}
    assert card.settings["loss"] == loss
    assert from_dict(UpscaleRecipe, card.settings) == replace(RECIPE, loss=loss, train=longer)
    assert not side_path(out, ".state").exists()


@pytest.mark.parametrize("stop_at", [1, 2, 5])
def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path, pictures: Path, stop_at: int) -> None:
    train(tmp_path / "whole.safetensors", pictures)
    out = tmp_path / "parts.safetensors"
    train(out, pictures, stop_at=stop_at)
    assert checkpoints.read_card(out).steps == stop_at
    train(out, pictures, resume=True)
    assert_equal_weights(tmp_path / "whole.safetensors", out)
    assert log_of(tmp_path / "whole.safetensors") == log_of(out)


def test_a_feature_loss_of_the_papers_kind_of_network_resumes_bit_for_bit_too(
    tmp_path: Path, pictures: Path, small_vgg: Path
) -> None:
    network = NetworkConfig("c3s1-4 r4 u4 c3s1-3", norm="batch", padding="zero")
    recipe = replace(RECIPE, network=network, loss="vgg16:relu1_2:0.7,pixel:0.1", blur=1.0)
    whole, parts, paths = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors", {"vgg16": small_vgg}
    train(whole, pictures, recipe, paths=paths)
    train(parts, pictures, recipe, paths=paths, stop_at=3)
    train(parts, pictures, recipe, paths=paths, resume=True)
    assert_equal_weights(whole, parts)
    assert log_of(whole) == log_of(parts)
    assert list(log_of(whole)[0]) == ["step", "vgg16:relu1_2", "pixel", "total", "learning_rate"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "l1"}, "loss was pixel and is now l1"),
        ({"blur": 1.0}, "blur was 0.0 and is now 1.0"),
        ({"network": replace(BICUBIC, output="linear")}, "network.output was bicubic and is now linear"),
        ({"train": replace(TRAIN, crop="random")}, "train.crop was native and is now random"),
    ],
)
def test_resuming_with_other_settings_is_refused_by_name(
    tmp_path: Path, pictures: Path, change: dict[str, Any], message: str
) -> None:
    out = tmp_path / "net.safetensors"
    train(out, pictures, stop_at=2)
    with pytest.raises(TrainingError, match=message):
        train(out, pictures, replace(RECIPE, **change), resume=True)


def test_the_first_weights_are_a_function_of_the_seed(pictures: Path) -> None:
    states = []
    for seed in (0, 0, 1):
        torch.rand(3)
        states.append(task_of(pictures, replace(RECIPE, train=replace(TRAIN, seed=seed))).network.state_dict())
    name = "layers.0.conv.weight"
    assert torch.equal(states[0][name], states[1][name])
    assert not torch.equal(states[0][name], states[2][name])


# --- what does not fit


@pytest.mark.parametrize(("architecture", "size"), [("c3s1-8 s3-3", 32), ("c3s1-8 s5-3", 32), ("c3s1-8 s4-3", 34)])
def test_crops_that_are_no_multiple_of_the_scale_are_refused(pictures: Path, architecture: str, size: int) -> None:
    recipe = replace(RECIPE, network=replace(BICUBIC, architecture=architecture), train=replace(TRAIN, size=size))
    with pytest.raises(ConfigError, match=rf"^--size is {size}; give a multiple of the network's scale of \d\.$"):
        task_of(pictures, recipe)


def test_a_network_that_does_not_enlarge_is_refused_by_what_is_wrong(pictures: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        task_of(pictures, replace(RECIPE, network=replace(BICUBIC, architecture="c3s1-8 c3s1-3")))
    assert "--size" not in str(caught.value)


def test_an_unknown_loss_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="There is no loss 'sharpness'; choose content, style"):
        replace(RECIPE, loss="sharpness")


def test_a_folder_without_a_picture_that_can_be_read_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.png"):
        task_of(tmp_path)


# --- beginning from another scale


@pytest.fixture
def x4(tmp_path: Path, pictures: Path) -> Path:
    recipe = replace(RECIPE, network=replace(BICUBIC, architecture="c3s1-8 r8 s4-3"))
    out = tmp_path / "x4.safetensors"
    train(out, pictures, replace(recipe, train=replace(TRAIN, steps=2, preview_every=0)))
    return out


X8 = replace(RECIPE, network=replace(BICUBIC, architecture="c3s1-8 r8 s8-3"))


def test_a_network_for_x8_begins_with_the_body_of_one_for_x4_and_its_card_says_so(x4: Path, pictures: Path) -> None:
    fresh = task_of(pictures, X8).network.state_dict()
    task = task_of(pictures, X8).start_from(x4)
    state, body = task.network.state_dict(), safetensors.torch.load_file(x4)
    last = {"layers.2.conv.weight", "layers.2.conv.bias"}
    assert {name for name, value in state.items() if torch.equal(value, fresh[name])} == last
    for name in state.keys() - last:
        assert torch.equal(state[name], body[name]), name
    assert state["layers.2.conv.weight"].shape == (192, 8, 3, 3)
    assert body["layers.2.conv.weight"].shape == (48, 8, 3, 3)
    began = task.card(7).began_from
    assert began.startswith("6 of 8 tensors of x4.safetensors: 2 steps of recipe")
    assert files.sha256_of(x4) in began
    assert task.card(7).steps == 7
    assert task.identity["began_from"] == began


def test_the_same_scale_begins_with_all_of_it(x4: Path, pictures: Path) -> None:
    same = replace(X8, network=replace(BICUBIC, architecture="c3s1-8 r8 s4-3"), loss="l1")
    task = task_of(pictures, same).start_from(x4)
    for name, value in safetensors.torch.load_file(x4).items():
        assert torch.equal(task.network.state_dict()[name], value)
    assert task.card(0).began_from.startswith("8 of 8 tensors")


def test_the_papers_x8_shares_all_but_the_ends_with_its_x4(tmp_path: Path, pictures: Path) -> None:
    """c9s1-4 r4*4 u4 u4 | c9s1-3 against c9s1-4 r4*4 u4 u4 | u4 c9s1-3: the last layer of x4 meets x8's third u4."""
    config, larger = (NetworkConfig(f"c9s1-4 r4*4{' u4' * doublings} c9s1-3", padding="zero") for doublings in (2, 3))
    network = TransformationNetwork(config)
    path = tmp_path / "x4.safetensors"
    checkpoints.save(path, network, checkpoints.Card(task="upscale", network=config, began_from="long ago"))
    task = task_of(pictures, replace(RECIPE, network=larger)).start_from(path)
    state = task.network.state_dict()
    for name, value in network.state_dict().items():
        if not name.startswith("layers.7"):
            assert torch.equal(state[name], value), name
    assert state["layers.7.conv.weight"].shape != network.state_dict()["layers.7.conv.weight"].shape
    assert task.card(0).began_from.endswith(", itself from long ago")


def test_a_run_that_began_from_another_network_resumes_bit_for_bit(tmp_path: Path, x4: Path, pictures: Path) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    train(whole, pictures, X8, begin=x4)
    train(parts, pictures, X8, begin=x4, stop_at=3)
    with pytest.raises(TrainingError, match="began_from was 6 of 8"):
        train(parts, pictures, X8, resume=True)
    train(parts, pictures, X8, begin=x4, resume=True)
    assert_equal_weights(whole, parts)
    assert checkpoints.read_card(parts).began_from.startswith("6 of 8 tensors")


def test_a_network_of_other_layers_and_one_for_style_are_refused(
    tmp_path: Path, x4: Path, tiny_style: Path, pictures: Path
) -> None:
    other = replace(RECIPE, network=replace(BICUBIC, architecture="c5s1-6 s2-3"))
    with pytest.raises(ConfigError, match=r"x4\.safetensors shares no layer"):
        task_of(pictures, other).start_from(x4)
    with pytest.raises(CheckpointError, match="is a network for 'style', not for upscale"):
        task_of(pictures).start_from(tiny_style)
    with pytest.raises(CheckpointError, match="There is no network"):
        task_of(pictures).start_from(tmp_path / "missing.safetensors")


def test_networks_of_batch_norm_that_share_no_layer_are_refused_too(tmp_path: Path, pictures: Path) -> None:
    one, other = (NetworkConfig(text, "batch", "zero") for text in ("c3s1-8 s2-3", "c5s1-6 s4-3"))
    path = tmp_path / "one.safetensors"
    checkpoints.save(path, TransformationNetwork(one), checkpoints.Card(task="upscale", network=one))
    with pytest.raises(ConfigError, match="shares no layer"):
        task_of(pictures, replace(RECIPE, network=other)).start_from(path)


# --- crops at the picture's own resolution


def save_places(path: Path, width: int, height: int) -> Array:
    """Each pixel tells its place: red its column, green its row."""
    y, x = np.mgrid[:height, :width]
    array = np.stack([x, y, np.full_like(x, 77)], -1).astype(np.uint8)
    Image.fromarray(array).save(path)
    return array


def crop_of(dataset: Photographs, k: int) -> Array:
    levels = dataset[k][0].permute(1, 2, 0).numpy() * 255
    assert np.abs(levels - levels.round()).max() < 1e-4
    return levels.round().astype(np.uint8)


def symmetries(array: Array) -> list[Array]:
    return [np.rot90(each, quarter) for each in (array, array[:, ::-1]) for quarter in range(4)]


def symmetry_of(crop: Array, whole: Array) -> int:
    """Which of the 8 symmetries makes `crop` a part of `whole`, by number; -1 when none does."""
    windows = np.lib.stride_tricks.sliding_window_view(whole, crop.shape).reshape(-1, *crop.shape)
    return next((n for n, each in enumerate(symmetries(crop)) if (windows == each).all((1, 2, 3)).any()), -1)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), k=st.integers(0, 1000), width=st.integers(8, 40), height=st.integers(8, 40))
def test_a_native_crop_is_a_part_of_the_picture_turned_or_flipped(
    tmp_path_factory: pytest.TempPathFactory, seed: int, k: int, width: int, height: int
) -> None:
    folder = tmp_path_factory.mktemp("native")
    whole = save_places(folder / "places.png", width, height)
    crop = crop_of(Photographs(folder, 8, seed=seed, crop="native"), k)
    assert crop.shape == (8, 8, 3)
    assert symmetry_of(crop, whole) >= 0


def test_native_crops_come_from_everywhere_and_in_all_eight_symmetries(tmp_path: Path) -> None:
    whole = save_places(tmp_path / "places.png", 20, 12)
    dataset = Photographs(tmp_path, 8, crop="native")
    crops = [crop_of(dataset, k) for k in range(200)]
    assert {symmetry_of(crop, whole) for crop in crops} == set(range(8))
    assert {int(crop[..., 0].min()) for crop in crops} == set(range(13))  # columns 0 to 12 are left edges
    assert {int(crop[..., 1].min()) for crop in crops} == set(range(5))


def test_a_small_picture_is_continued_in_mirrors(tmp_path: Path) -> None:
    """By hand: three columns of 10, 20 and 30 become 10 20 30 30 20 10 10 20."""
    column = np.array([10, 20, 30], np.uint8)
    Image.fromarray(np.broadcast_to(column[None, :, None], (8, 3, 3)).copy()).save(tmp_path / "small.png")
    expected = np.broadcast_to(np.array([10, 20, 30, 30, 20, 10, 10, 20], np.uint8)[None, :, None], (8, 8, 3))
    dataset = Photographs(tmp_path, 8, crop="native")
    for k in range(8):
        assert any(np.array_equal(crop_of(dataset, k), each) for each in symmetries(expected))


@pytest.mark.parametrize("size", [(1, 1), (8, 1), (1, 30), (7, 9)])
def test_pictures_from_one_pixel_up_give_whole_crops(tmp_path: Path, size: tuple[int, int]) -> None:
    save_places(tmp_path / "small.png", *size)
    crop = crop_of(Photographs(tmp_path, 8, crop="native"), 0)
    assert crop.shape == (8, 8, 3)
    assert {tuple(pixel[:2]) for pixel in crop.reshape(-1, 3)} <= {
        (x, y) for x in range(size[0]) for y in range(size[1])
    }


def test_native_crop_k_is_a_function_of_seed_and_k_alone(pictures: Path) -> None:
    first = Photographs(pictures, 16, seed=3, crop="native")
    expected = {k: first[k][0] for k in range(20)}
    second = Photographs(pictures, 16, seed=3, crop="native")
    random.seed(1)
    for k in random.Random(0).sample(range(20), 20):
        assert torch.equal(second[k][0], expected[k])
    other = Photographs(pictures, 16, seed=4, crop="native")
    assert sum(torch.equal(other[k][0], expected[k]) for k in range(20)) < 3


@pytest.mark.parametrize(("side", "native"), [(63, True), (200, False)])
def test_a_jpeg_is_cropped_at_its_own_resolution_until_it_is_eight_times_larger(
    tmp_path: Path, side: int, native: bool
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.jpg", quality=95)
    with Image.open(tmp_path / "noise.jpg") as image:
        whole = np.asarray(image.convert("RGB"))
    assert (symmetry_of(crop_of(Photographs(tmp_path, 8, crop="native"), 0), whole) >= 0) == native


# --- recipes


def test_the_paper_recipe_has_the_papers_training() -> None:
    """Section 4.2: 288 x 288 crops, blurred with sigma 1, Adam 1e-3 without decay, 200,000 steps of 4."""
    recipe = upscale_recipe("paper", 4)
    train = recipe.train
    assert (train.learning_rate, train.decay, train.steps, train.batch, train.size) == (1e-3, "none", 200_000, 4, 288)
    assert (recipe.blur, train.crop) == (1.0, "native")
    assert (recipe.network.norm, recipe.network.output, recipe.network.tanh_scale) == ("batch", "tanh", 127.5)


@pytest.mark.parametrize("name", ["fast", "srcnn"])
@settings(max_examples=15, deadline=None)
@given(scale=st.integers(2, 16))
def test_every_scale_has_a_network_and_crops_that_are_multiples_of_it(name: str, scale: int) -> None:
    recipe = upscale_recipe(name, scale)
    assert recipe.train.size % scale == 0
    assert recipe.train.size >= 32
    with torch.device("meta"):
        assert TransformationNetwork(recipe.network).scale == scale
    assert from_dict(UpscaleRecipe, json.loads(json.dumps(to_dict(recipe)))) == recipe


@pytest.mark.parametrize("scale", [3, 5, 6, 16])
def test_the_papers_network_doubles_and_says_so_of_other_scales(scale: int) -> None:
    with pytest.raises(
        ConfigError,
        match=rf"^The paper's network has no version for --scale {scale}: choose 2, 4 or 8",
    ):
        upscale_recipe("paper", scale)


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_crops_of_288_px_suit_every_scale_of_the_paper(scale: int) -> None:
    assert upscale_recipe("paper", scale).train.size == 288


@pytest.mark.parametrize("scale", [-4, 0, 1, 17])
def test_a_scale_out_of_range_is_refused(scale: int) -> None:
    with pytest.raises(ConfigError, match=f"--scale is {scale}; choose a whole number from 2 to 16"):
        upscale_recipe("fast", scale)


def test_an_unknown_recipe_is_refused_and_the_known_ones_listed() -> None:
    with pytest.raises(ConfigError, match="'edsr'") as caught:
        upscale_recipe("edsr", 4)
    assert all(name in str(caught.value) for name in UPSCALE_RECIPES)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_blur_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match="blur is"):
        UpscaleRecipe(blur=value)


def test_the_layers_are_those_of_the_network_to_start_from() -> None:
    of = checkpoints.read_card(checkpoints.find_network("x4_pixel", task="upscale")).network
    settings = Upscale.defaults({"--from": "x4_pixel", "--scale": "8"}.get)["settings"]
    assert settings.network == replace(of, architecture=of.architecture.replace(" s4-3", " s8-3"))
    assert TransformationNetwork(settings.network).scale == 8
    assert settings.train == upscale_recipe("fast", 8).train
    named = Upscale.defaults({"--from": "x4_pixel", "--scale": "8", "--recipe": "video"}.get)["settings"]
    assert named == upscale_recipe("video", 8)


def test_a_network_that_computes_at_half_the_size_keeps_that_at_another_scale() -> None:
    of = checkpoints.read_card(checkpoints.find_network("x2_video", task="upscale")).network
    made = network_at("x2_video", 3)
    assert made == replace(of, architecture=of.architecture.replace(" s4-3", " s6-3"))
    assert TransformationNetwork(made).scale == 3


def test_a_network_without_pixel_shuffle_fits_its_own_scale_only() -> None:
    of = checkpoints.read_card(checkpoints.find_network("x4_srcnn", task="upscale")).network
    assert network_at("x4_srcnn", 4) == of
    assert network_at("x4_srcnn", 2) is None
