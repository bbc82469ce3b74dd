"""Optimisation: what can go wrong, style targets, small images and real weights."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from conftest import SHARED
from PIL import Image
from test_optimize import BOTH, finish, from_noise, picture, settings_of, spoiled, totals
from torch import Tensor, nn

from perceptual import images
from perceptual.checkpoints import gallery, read_card, save_targets, shipped
from perceptual.config import LossConfig, OptimizeConfig
from perceptual.errors import CheckpointError, ConfigError, ImageError, TrainingError
from perceptual.losses import (
    PIXELS,
    FeatureLoss,
    PerceptualLoss,
    PixelLoss,
    StyleLoss,
    TotalVariation,
    full_name,
    style_targets,
    style_transfer_loss,
)
from perceptual.losses.architectures import ARCHITECTURES, smallest_side
from perceptual.losses.networks import Features, LossNetwork, LossNetworks, trim
from perceptual.optimize import Objective, Optimization, invert, optimize_style, white_noise
from perceptual.reproduce import sheets
from perceptual.tasks.style import Style, read_painting

# --- what can go wrong


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_objective_that_is_no_number_ends_the_work_and_keeps_what_was_reached(value: float) -> None:
    work = from_noise(spoiled(3, value), method="adam")
    with pytest.raises(TrainingError, match="style is not a finite number"):
        finish(work)
    assert len(work.trace) == 3
    assert work.best.shape == (1, 3, 6, 8)
    assert 3 * work.best.square().mean().item() == pytest.approx(totals(work)[-1], rel=1e-5)


@BOTH
def test_an_objective_that_is_no_number_at_the_start_leaves_nothing(method: str) -> None:
    work = from_noise(spoiled(0), method=method)
    with pytest.raises(TrainingError, match="after 0 iterations"):
        finish(work)
    assert work.best.numel() == 0


def test_lbfgs_stops_where_the_objective_is_no_number_any_more() -> None:
    work = from_noise(spoiled(4))
    assert finish(work)[-1].message is not None
    assert all(math.isfinite(total) for total in totals(work))


def test_memory_running_out_is_one_sentence_and_other_errors_stay() -> None:
    def failing(text: str) -> Callable[[float], Objective]:
        def terms(image: Tensor) -> dict[str, Tensor]:
            raise RuntimeError(text)

        return lambda scale: terms

    with pytest.raises(TrainingError, match="choose a smaller --size"):
        finish(from_noise(failing("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        finish(from_noise(failing("shapes differ")))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"size": 31}, "size"),
        ({"style_size": 31}, "style-size"),
        ({"iterations": 0}, "iterations"),
        ({"history": 0}, "history"),
        ({"scales": 0}, "scales"),
        ({"seed": -1}, "seed"),
        ({"preview_every": -1}, "preview-every"),
        ({"learning_rate": 0.0}, "learning-rate"),
        ({"learning_rate": math.nan}, "learning-rate"),
        ({"learning_rate": 0.1}, "--method adam"),
        ({"method": "adam", "history": 5}, "--method lbfgs"),
        ({"method": "sgd"}, "lbfgs, adam"),
        ({"init": "photograph"}, "noise, content"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        OptimizeConfig(**values)


# --- goals and style targets


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up weights of VGG-16's first three convolutions, to relu2_1."""
    generator, state = torch.Generator().manual_seed(0), {}
    for index, (channels, filters) in {0: (3, 64), 2: (64, 64), 5: (64, 128)}.items():
        spread = (2 / (9 * channels)) ** 0.5
        state[f"features.{index}.weight"] = torch.randn(filters, channels, 3, 3, generator=generator) * spread
        state[f"features.{index}.bias"] = torch.zeros(filters)
    path = tmp_path_factory.mktemp("weights") / "made_up.safetensors"
    safetensors.torch.save_file(state, path)
    return path


SHALLOW = LossConfig(("relu1_2",), ("relu1_1", "vgg16:relu2_1"))


def test_a_goal_stands_for_the_target(vgg_file: Path) -> None:
    loss = style_transfer_loss(SHALLOW, [picture(seed=2)], paths={"vgg16": vgg_file})
    output, target = picture(seed=3), picture(seed=4)
    goal = loss.goal(target.requires_grad_())
    assert not any(value.requires_grad for value in goal.values())
    whole, kept = loss(output, target), loss(output, goal)
    assert whole.keys() == kept.keys()
    assert [name for name in whole if not torch.equal(whole[name], kept[name])] == []
    assert kept["content relu1_2"] > 0


def test_a_goal_holds_no_more_than_the_terms_compare_with() -> None:
    assert set(PerceptualLoss({"pixels": (PixelLoss(), 1.0)}).goal(picture())) == {PIXELS}
    assert FeatureLoss("relu1_1").target_layers == ("vgg16:relu1_1",)
    assert TotalVariation().target_layers == ()


@pytest.mark.parametrize("convention", ["paper", "gatys"])
def test_style_targets_stand_for_the_painting(vgg_file: Path, convention: str) -> None:
    config = LossConfig(SHALLOW.content_layers, SHALLOW.style_layers, style_convention=convention)
    paths, painting, other = {"vgg16": vgg_file}, picture(10, 15, seed=5), picture(15, 10, seed=6)
    networks = LossNetworks([full_name(layer) for layer in SHALLOW.style_layers], paths=paths)
    targets = style_targets(config, painting, networks)
    features = networks(painting)
    assert targets.keys() == features.keys() == {"vgg16:relu1_1", "vgg16:relu2_1"}
    assert all(torch.equal(gram, StyleLoss.gram(features[name], convention)) for name, gram in targets.items())
    output, target, second = picture(8, 9, seed=3), picture(8, 9, seed=4), torch.tensor([[0.0, 1.0]])
    one = style_transfer_loss(config, [other, painting], paths=paths)(output, target, second)
    two = style_transfer_loss(config, [other, targets], paths=paths)(output, target, second)
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


# --- the smallest image of a layer


def stages_of(network: str) -> list[tuple[str, nn.Module]]:
    with torch.device("meta"):  # shapes only
        return ARCHITECTURES[network](network)


@pytest.mark.parametrize(
    ("network", "layer", "side"),
    [
        ("vgg16", "relu1_2", 1),
        ("vgg16", "relu2_2", 2),
        ("vgg16", "relu3_3", 4),
        ("vgg19", "relu5_1", 16),
        ("vgg19-distilled", "relu4_3", 16),
        ("vgg19-distilled", "relu5_1", 32),
        ("squeezenet1_0", "fire9", 21),
        ("squeezenet1_1", "fire9", 17),
    ],
)
def test_a_layer_has_its_smallest_image(network: str, layer: str, side: int) -> None:
    assert smallest_side(trim(network, stages_of(network.replace("-", "_")), (layer,))) == side


@pytest.mark.parametrize("network", sorted(set(ARCHITECTURES) - {"vgg19"}))  # which is vgg16 again
def test_the_smallest_image_passes_every_layer_and_a_smaller_one_does_not(network: str) -> None:
    stages = stages_of(network)

    def fits(side: int, count: int) -> bool:
        x = torch.empty(1, 3, side, side, device="meta")
        try:
            for _, stage in stages[:count]:
                x = stage(x)
        except RuntimeError:
            return False
        return x.numel() > 0

    for count in range(1, len(stages) + 1):
        side = smallest_side(stages[:count])
        assert fits(side, count)
        assert side == 1 or not fits(side - 1, count)


def test_an_image_too_small_for_a_layer_is_an_error_that_says_how_large(vgg_file: Path) -> None:
    network = LossNetwork("vgg16", ("relu1_1", "relu2_1"), path=vgg_file)
    assert network.smallest == {"relu1_1": 1, "relu2_1": 2}
    with pytest.raises(ImageError, match=r"9 x 1 px is too small .* vgg16: .* at least 2 px"):
        network(torch.zeros(1, 3, 1, 9))
    assert network(torch.zeros(1, 3, 2, 2))["relu2_1"].shape == (1, 128, 1, 1)
    assert network(torch.zeros(1, 3, 1, 9), ("relu1_1",))["relu1_1"].shape == (1, 64, 1, 9)
    assert network(torch.zeros(1, 3, 1, 9), ()) == {}


def test_a_content_or_painting_too_small_is_an_image_error(vgg_file: Path) -> None:
    paths, tall = {"vgg16": vgg_file}, torch.rand(1, 3, 64, 1)
    for content, style in ((tall, picture()), (picture(), tall)):
        loss = LossConfig(("relu1_1",), ("relu2_1",))
        with pytest.raises(ImageError, match="1 x 40 px"):
            finish(optimize_style(content, style, loss=loss, config=settings_of(), paths=paths))


# --- the shipped targets


def layers_of(style: str) -> set[str]:
    """Those of the recipe `fast`; for the styles of Figures 6 and 7 also those of their network."""
    layers = {*Style.recipe("fast").loss.style_layers} - {"vgg16:relu4_3"} | {"vgg19-distilled:relu4_3"}
    if style in sheets.STYLES:
        layers |= {*read_card(gallery(video=True)[style]).settings["loss"]["style_layers"]}
    return {full_name(layer) for layer in layers}


@pytest.mark.parametrize("style", sorted(gallery()))
def test_every_style_of_the_gallery_has_targets_of_its_objective(style: str) -> None:
    targets = shipped.targets(style)
    assert layers_of(style) <= targets.keys()
    for gram in targets.values():
        assert gram.shape == (1, gram.shape[-1], gram.shape[-1])
        assert torch.equal(gram, gram.mT)
        assert gram.isfinite().all()
        assert (gram.diagonal(dim1=1, dim2=2) >= 0).all()
        assert gram.abs().amax() == gram.diagonal(dim1=1, dim2=2).amax() > 0  # Cauchy and Schwarz


def test_the_targets_of_no_two_styles_are_alike() -> None:
    grams = [shipped.targets(style)["vgg16:relu2_2"] for style in gallery()]
    apart = [(a - b).abs().amax() / b.abs().amax() for a, b in itertools.combinations(grams, 2)]
    assert min(apart) > 0.01


def put_targets(monkeypatch: pytest.MonkeyPatch, folder: Path, targets: Mapping[str, Features]) -> None:
    """Make `targets` those that come with the package."""
    save_targets(folder / "targets" / "gallery.safetensors", targets)
    monkeypatch.setattr(shipped.resources, "files", lambda package: folder)


def test_targets_are_kept_to_eleven_bits_of_the_largest_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.randn(2, 5, 8, 8, generator=torch.Generator().manual_seed(0))
    grams = [scale * StyleLoss.gram(features[k : k + 1]) for k, scale in enumerate((1e-12, 1e12))]
    written = {"one": {"vgg16:relu1_2": grams[0], PIXELS: grams[1]}, "two": {"vgg16:relu1_2": grams[1]}}
    put_targets(monkeypatch, tmp_path, written)
    for style, by_layer in written.items():
        read = shipped.targets(style)
        assert read.keys() == by_layer.keys()
        for layer, gram in by_layer.items():
            top = gram.abs().amax().item()
            assert (read[layer] - gram).abs().amax().item() <= 2**-11 * top
            assert read[layer].abs().amax().item() == pytest.approx(top, rel=1e-6)


@pytest.mark.parametrize("style", ["no_such_style", "", "wav", "wave "])
def test_targets_of_an_unknown_style_are_a_checkpoint_error(style: str) -> None:
    with pytest.raises(CheckpointError, match=f"no shipped style targets for '{style}': give the painting"):
        shipped.targets(style)


def test_targets_that_are_not_installed_are_a_checkpoint_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped.resources, "files", lambda package: tmp_path)
    with pytest.raises(CheckpointError, match=r"gallery\.safetensors"):
        shipped.targets("wave")


# --- with real weights


@pytest.mark.shared
class TestRealWeights:
    LOSS = LossConfig(
        ("relu2_2",), ("relu1_2", "relu2_2", "relu3_3"), weighting="relative", style_weight=8.0, tv_weight=0.02
    )

    def paint(self, content: Tensor, iterations: int, **values: Any) -> Optimization:
        config = settings_of(size=64, iterations=iterations, **values)
        work = optimize_style(content, shipped.targets("starry_night"), loss=self.LOSS, config=config)
        finish(work)
        return work

    def test_style_transfer_leaves_less_than_a_tenth_of_the_objective_and_is_the_same_again(
        self, pretrained: Path, photograph: Image.Image
    ) -> None:
        content = images.from_any(photograph)
        work = self.paint(content, 10)
        assert totals(work)[-1] < 0.1 * totals(work)[0]
        assert work.best.shape == (1, 3, 43, 64)
        assert json.dumps(work.trace)
        assert totals(self.paint(content, 3)) == totals(work)[:4]

    def test_a_picture_that_is_its_own_half_turn_is_painted_too(self, pretrained: Path) -> None:
        across = torch.arange(64) - 31.5
        disc = (across[:, None].square() + across.square() < 400).float().expand(1, 3, 64, 64)
        work = self.paint(disc, 5, init="content")
        assert totals(work)[-1] < 0.5 * totals(work)[0]

    def test_a_picture_comes_back_from_its_features(self, pretrained: Path, photograph: Image.Image) -> None:
        content = images.resize(images.from_any(photograph), longer_side=64)
        work = invert(content, "relu2_2", config=settings_of(size=64, iterations=20))
        finish(work)
        noise = white_noise((43, 64), 0)
        assert (work.best - content).abs().mean() < 0.3 * (noise - content).abs().mean()

    def test_the_shipped_targets_are_those_of_the_painting(self, pretrained: Path) -> None:
        file = SHARED / "data" / "styles" / "starry_night.jpg"
        if not file.is_file():
            pytest.skip("the paintings are not part of this repository")
        ours = shipped.targets("starry_night")
        config = LossConfig((), tuple(ours))
        found = style_targets(config, read_painting(file, Style.recipe("fast")), LossNetworks(tuple(ours)))
        for layer, gram in ours.items():
            assert (gram - found[layer]).abs().amax() < 1e-3 * found[layer].abs().amax(), layer


@pytest.mark.parametrize(
    ("settings", "half"),
    [
        ({"method": "adam"}, True),
        ({"method": "lbfgs"}, False),
        ({"method": "lbfgs", "precision": "bfloat16"}, True),
        ({"method": "adam", "precision": "float32"}, False),
    ],
)
def test_adam_takes_bfloat16_where_it_is_faster_and_l_bfgs_stays_in_float32(
    vgg_file: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], half: bool
) -> None:
    monkeypatch.setattr("perceptual.devices.faster_in_bfloat16", lambda: True)
    made: list[PerceptualLoss] = []

    def kept(*args: Any, **others: Any) -> PerceptualLoss:
        made.append(style_transfer_loss(*args, **others))
        return made[-1]

    monkeypatch.setattr("perceptual.optimize.style_transfer_loss", kept)
    config = OptimizeConfig(size=32, iterations=2, device="cpu", preview_every=0, **settings)
    run = optimize_style(picture(), picture(seed=2), loss=SHALLOW, config=config, paths={"vgg16": vgg_file})
    steps = list(run.run())
    assert steps[-1].losses["total"] < steps[0].losses["total"]
    assert made[0].networks is not None
    assert {each.dtype for each in made[0].networks.networks["vgg16"].stages.parameters()} == {
        torch.bfloat16 if half else torch.float32
    }
