"""optimize: equation 5 over the pixels of one image, and what it stands on: goals, style targets, smallest images.

Most tests run on an objective of the pixels and their Gram matrices, which needs no pretrained weights.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from conftest import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from perceptual import images, optimize
from perceptual.checkpoints import gallery, read_card, save_targets, shipped
from perceptual.config import LossConfig, OptimizeConfig
from perceptual.errors import CheckpointError, ConfigError, ImageError, TrainingError
from perceptual.events import Step
from perceptual.losses import (
    PIXELS,
    FeatureLoss,
    PerceptualLoss,
    PixelLoss,
    StyleLoss,
    Term,
    TotalVariation,
    full_name,
    style_targets,
    style_transfer_loss,
)
from perceptual.losses.architectures import ARCHITECTURES, smallest_side
from perceptual.losses.networks import Features, LossNetwork, LossNetworks, trim
from perceptual.optimize import Objective, Optimization, invert, optimize_style, texture, white_noise
from perceptual.tasks.style import Style, read_painting

close = torch.testing.assert_close
BOTH = pytest.mark.parametrize("method", ["lbfgs", "adam"])


def stub(
    config: LossConfig, styles: Sequence[Tensor | Features], *, device: torch.device | str = "cpu", **_: object
) -> PerceptualLoss:
    """Stands for style_transfer_loss: every layer is the pixels, and the names of the terms are those of the kinds."""
    terms: dict[str, tuple[Term, float]] = {}
    if config.content_layers:
        terms["content"] = (PixelLoss(), config.content_weight)
    if config.style_layers:
        grams = [style[PIXELS] if isinstance(style, dict) else StyleLoss.gram(style) for style in styles]
        terms["style"] = (StyleLoss(PIXELS, torch.cat(grams)), config.style_weight)
    if config.tv_weight:
        terms["tv"] = (TotalVariation(), config.tv_weight)
    return PerceptualLoss(terms, relative=config.weighting == "relative").to(device)


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimize, "style_transfer_loss", stub)


def picture(height: int = 32, width: int = 40, seed: int = 1) -> Tensor:
    """A smooth picture, unlike noise."""
    small = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    return images.resize(small, size=(height, width))


def settings_of(**values: Any) -> OptimizeConfig:
    return OptimizeConfig(**{"size": 40, "iterations": 12, "preview_every": 0, "device": "cpu", **values})


def finish(work: Optimization) -> list[Step]:
    return list(work.run())


def inside(image: Tensor) -> bool:
    return bool(((image >= 0) & (image <= 1)).all())


def totals(work: Optimization) -> list[float]:
    return [line["total"] for line in work.trace]


KINDS: dict[str, Callable[[OptimizeConfig], Optimization]] = {
    "style": lambda config: optimize_style(picture(), picture(24, 24, seed=2), config=config),
    "inversion": lambda config: invert(picture(), config=config),
    "texture": lambda config: texture(picture(), config=config),
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


def towards(goal: Tensor) -> Callable[[float], Objective]:
    """The mean squared distance from a picture of the final size, which may lie outside [0, 1]."""

    def objective(scale: float) -> Objective:
        here = images.scaled_size(goal.shape[-2], goal.shape[-1], scale)
        at_scale = torch.nn.functional.interpolate(goal, size=here)

        def terms(image: Tensor) -> dict[str, Tensor]:
            return {"total": (image - at_scale).square().mean()}

        return terms

    return objective


def from_noise(objective: Callable[[float], Objective], size: tuple[int, int] = (6, 8), **values: Any) -> Optimization:
    """An optimisation of any objective."""
    return Optimization(objective, lambda size: white_noise(size, 0), size, settings_of(**values))


def spoiled(at: int, value: float = math.nan) -> Callable[[float], Objective]:
    """An objective that is not a number from its evaluation `at` on, counted from 0."""
    calls = itertools.count()

    def terms(image: Tensor) -> dict[str, Tensor]:
        style = image.square().mean() * (value if next(calls) >= at else 1)
        return {"style": style, "total": 3 * style}

    return lambda scale: terms


# --- every kind descends


@EVERY_KIND
@BOTH
@pytest.mark.usefixtures("stubbed")
def test_every_kind_descends(kind: str, method: str) -> None:
    work = KINDS[kind](settings_of(method=method))
    finish(work)
    assert min(totals(work)) < 0.5 * totals(work)[0]
    if method == "lbfgs":
        assert totals(work) == sorted(totals(work), reverse=True)


@EVERY_KIND
@pytest.mark.usefixtures("stubbed")
def test_the_trace_has_every_term_of_the_start_and_of_each_iteration(kind: str) -> None:
    work = KINDS[kind](settings_of(iterations=3))
    steps = finish(work)
    named = {"style": {"content", "style", "tv"}, "inversion": {"content", "tv"}, "texture": {"style"}}[kind]
    assert [line["iteration"] for line in work.trace] == [step.index for step in steps] == [0, 1, 2, 3]
    for line, step in zip(work.trace, steps, strict=True):
        assert set(line) - set(step.losses) == {"iteration", "scale", "evaluations", "seconds"}
        assert set(step.losses) == {*named, "total"}
        assert step.losses == {name: line[name] for name in step.losses}
    counts = [line["evaluations"] for line in work.trace]
    assert counts[0] == 1
    assert all(after > before for before, after in itertools.pairwise(counts))


@pytest.mark.usefixtures("stubbed")
def test_the_total_is_the_weighted_sum_of_terms_over_their_references() -> None:
    references = {"content": [0.5], "style": [0.25], "tv": [1000.0]}
    loss = LossConfig(weighting="relative", content_weight=3.0, style_weight=2.0, tv_weight=0.1)
    work = optimize_style(picture(), picture(seed=2), loss=loss, config=settings_of(), references=references)
    finish(work)
    for line in work.trace:
        whole = 3 * line["content"] / 0.5 + 2 * line["style"] / 0.25 + 0.1 * line["tv"] / 1000
        assert line["total"] == pytest.approx(whole)


@pytest.mark.usefixtures("stubbed")
def test_references_that_do_not_fit_are_refused() -> None:
    work = optimize_style(picture(), picture(), config=settings_of(), references={"content": [1.0]})
    with pytest.raises(ConfigError, match="'style' must be 1 finite"):
        finish(work)


def test_relative_weights_are_measured_on_the_content_and_its_half_turn() -> None:
    """Pixels 0 0 1 and their half turn 1 0 0 differ in two of three by 1; the variation of 0 0 1 is 1 a channel."""
    content = torch.tensor([0.0, 0.0, 1.0]).expand(1, 3, 1, 3)
    terms = PerceptualLoss({"content": (PixelLoss(), 1.0), "tv": (TotalVariation(), 1.0)}, relative=True)
    references = optimize.measure_references(terms, content, torch.rand(1, 3, 1, 3))
    assert references == {"content": [pytest.approx(2 / 3)], "tv": [pytest.approx(3 * 255**2)]}


def test_a_term_that_vanishes_on_the_content_is_measured_on_white_noise() -> None:
    gray, noise = torch.full((1, 3, 4, 4), 0.5), white_noise((4, 4), 0)
    terms = PerceptualLoss({"content": (PixelLoss(), 1.0), "tv": (TotalVariation(), 1.0)}, relative=True)
    references = optimize.measure_references(terms, gray, noise)
    assert references["content"] == [pytest.approx((noise - 0.5).square().mean().item(), rel=1e-5)]
    assert references["tv"] == [pytest.approx(TotalVariation()({PIXELS: noise}, {}, None).item())]


@pytest.mark.usefixtures("stubbed")
def test_an_inversion_is_1_where_the_picture_is_as_far_as_its_half_turn() -> None:
    content = picture()
    terms = invert(content, tv_weight=0, config=settings_of()).objective(1.0)
    close(terms(content.flip(2, 3))["total"], torch.tensor(1.0))


@pytest.mark.usefixtures("stubbed")
def test_a_texture_is_1_where_its_style_is_that_of_white_noise() -> None:
    work = texture(picture(), config=settings_of(seed=5))
    # The image lies in memory otherwise than the noise that was measured. The sums of 1280 products then go in another
    # order, and the two Gram matrices are so alike that their difference loses a digit.
    assert next(work.run()).losses["total"] == pytest.approx(1, rel=1e-4)


# --- what is evaluated, and what is kept


@BOTH
def test_the_minimum_over_the_box_is_found(method: str) -> None:
    goal = 3 * white_noise((6, 8), 7) - 1
    work = from_noise(towards(goal), method=method, iterations=150)
    finish(work)
    # The mean over 144 values does not tell in float32 whether one of them is off by this much.
    close(work.best, goal.clamp(0, 1), atol=5e-3, rtol=0)


@BOTH
def test_nothing_outside_0_to_1_is_ever_evaluated(method: str) -> None:
    objective, seen = towards(3 * white_noise((6, 8), 7) - 1)(1.0), []

    def watched(image: Tensor) -> dict[str, Tensor]:
        seen.append(image.detach().clone())
        return objective(image)

    finish(from_noise(lambda scale: watched, method=method, **({"learning_rate": 0.3} if method == "adam" else {})))
    assert len(seen) > 10
    assert all(map(inside, seen))
    assert any((image == 0).any() and (image == 1).any() for image in seen)


@EVERY_KIND
@BOTH
@pytest.mark.usefixtures("stubbed")
def test_the_recorded_objective_is_that_of_the_projected_image(kind: str, method: str) -> None:
    work = KINDS[kind](settings_of(method=method))
    objective = work.objective(1.0)
    for step in work.run():
        if step.losses["total"] == min(totals(work)):
            found = objective(work.best)
            assert {name: value.item() for name, value in found.items()} == pytest.approx(step.losses, rel=1e-5)


@pytest.mark.usefixtures("stubbed")
@settings(max_examples=10, deadline=None)
@given(st.integers(1, 50), st.integers(1, 50), st.integers(32, 50), st.integers(1, 3), st.sampled_from(list(KINDS)))
def test_best_is_inside_0_to_1_and_has_the_asked_size(
    height: int, width: int, size: int, scales: int, kind: str
) -> None:
    content, config = picture(height, width), settings_of(size=size, scales=scales, iterations=2)
    make = {"style": lambda: optimize_style(content, picture(), config=config)}
    work = make.get(kind, lambda: {"inversion": invert, "texture": texture}[kind](content, config=config))()
    for _ in work.run():
        assert work.best.shape == (1, 3, *images.scaled_size(height, width, size / max(height, width)))
        assert inside(work.best)
    assert max(work.best.shape) == size


@pytest.mark.usefixtures("stubbed")
def test_without_a_size_the_result_has_the_contents() -> None:
    work = optimize_style(picture(33, 47), picture(), config=settings_of(size=None, iterations=1))
    finish(work)
    assert work.best.shape == (1, 3, 33, 47)


@pytest.mark.usefixtures("stubbed")
def test_a_texture_of_targets_is_a_square() -> None:
    work = texture({PIXELS: StyleLoss.gram(picture())}, config=settings_of(iterations=5))
    finish(work)
    assert work.best.shape == (1, 3, 40, 40)
    assert totals(work)[-1] < totals(work)[0]


def test_there_is_no_best_before_the_first_step() -> None:
    work = from_noise(towards(torch.zeros(1, 3, 6, 8)))
    assert work.best.numel() == 0
    assert work.trace == []


def test_adam_keeps_the_best_and_not_the_last() -> None:
    goal = torch.full((1, 3, 6, 8), 0.5)
    work = from_noise(towards(goal), method="adam", learning_rate=0.7, iterations=9)  # far too large a step
    finish(work)
    last, least = totals(work)[-1], min(totals(work))
    assert least < last
    assert towards(goal)(1.0)(work.best)["total"].item() == pytest.approx(least, rel=1e-5)


def test_ending_early_leaves_the_best_so_far() -> None:
    work = from_noise(towards(torch.zeros(1, 3, 6, 8)), scales=2)
    with closing(work.run()) as steps:
        last = list(itertools.islice(steps, 5))[-1]
    assert (last.index, len(work.trace)) == (4, 5)
    assert work.best.shape == (1, 3, 6, 8)
    assert work.best.isfinite().all()


def test_previews_come_at_their_interval_and_are_the_best() -> None:
    work = from_noise(towards(torch.zeros(1, 3, 6, 8)), preview_every=3, method="adam", iterations=7)
    with_preview = []
    for step in work.run():
        if step.preview is not None:
            with_preview.append(step.index)
            assert torch.equal(step.preview, work.best)
    assert with_preview == [3, 6]


def test_an_optimum_ends_the_work_and_says_so() -> None:
    work = from_noise(towards(white_noise((6, 8), 0)), iterations=50)
    steps = finish(work)
    assert steps[-1].message == "No step lowers the objective after iteration 0."
    assert len(work.trace) == 1


# --- where it begins


def test_white_noise_is_that_of_its_seed() -> None:
    assert torch.equal(white_noise((5, 4), 3), white_noise((5, 4), 3))
    assert not torch.equal(white_noise((5, 4), 3), white_noise((5, 4), 4))
    noise = white_noise((100, 100), 0)
    assert 0 <= noise.min() < 0.01 < 0.99 < noise.max() <= 1
    assert noise.mean().item() == pytest.approx(0.5, abs=0.01)


@EVERY_KIND
@pytest.mark.usefixtures("stubbed")
def test_it_begins_with_the_noise_of_its_seed(kind: str) -> None:
    for seed in (0, 7):
        work = KINDS[kind](settings_of(seed=seed))
        next(work.run())
        assert torch.equal(work.best, white_noise(tuple(work.best.shape[-2:]), seed))


@pytest.mark.usefixtures("stubbed")
@BOTH
def test_the_content_as_start_is_where_it_begins(method: str) -> None:
    content = picture()
    work = optimize_style(content, picture(seed=2), config=settings_of(init="content", method=method))
    first = next(work.run())
    assert torch.equal(work.best, content)
    assert first.losses["content"] == 0 < first.losses["style"]


@pytest.mark.usefixtures("stubbed")
@BOTH
def test_the_pictures_given_are_not_changed(method: str) -> None:
    content, style = picture(), picture(seed=2)
    before = content.clone(), style.clone()
    finish(optimize_style(content, style, config=settings_of(init="content", method=method, iterations=3)))
    assert torch.equal(content, before[0])
    assert torch.equal(style, before[1])


@pytest.mark.usefixtures("stubbed")
def test_inverting_from_the_content_itself_finds_nothing_to_do() -> None:
    work = invert(picture(), tv_weight=0, config=settings_of(init="content"))
    finish(work)
    assert [line["content"] for line in work.trace] == [0]
    assert torch.equal(work.best, picture())


def test_a_texture_cannot_begin_with_its_content() -> None:
    with pytest.raises(ConfigError, match="--init"):
        texture(picture(), config=settings_of(init="content"))


# --- scales


def test_scales_go_from_coarse_to_fine_and_the_start_is_made_once() -> None:
    goal, seen, starts = torch.rand(1, 3, 25, 40), [], []

    def objective(scale: float) -> Objective:
        terms = towards(goal)(scale)

        def watched(image: Tensor) -> dict[str, Tensor]:
            seen.append((scale, tuple(image.shape[-2:])))
            return terms(image)

        return watched

    def start(size: tuple[int, int]) -> Tensor:
        starts.append(size)
        return white_noise(size, 0)

    work = Optimization(objective, start, (25, 40), settings_of(scales=3, iterations=2, method="adam"))
    steps = finish(work)
    assert list(dict.fromkeys(seen)) == [(0.25, (6, 10)), (0.5, (12, 20)), (1.0, (25, 40))]
    assert starts == [(6, 10)]
    assert [line["scale"] for line in work.trace] == [0.25] * 3 + [0.5] * 3 + [1.0] * 3
    assert [step.index for step in steps] == [0, 1, 2, 2, 3, 4, 4, 5, 6]  # each size has a start of its own
    assert {step.total for step in steps} == {6}


@pytest.mark.usefixtures("stubbed")
def test_each_size_begins_with_the_best_of_the_last() -> None:
    work = optimize_style(picture(), picture(seed=2), config=settings_of(scales=2, iterations=4))
    steps = work.run()
    assert [step.index for step in itertools.islice(steps, 5)] == [0, 1, 2, 3, 4]
    coarse = work.best
    assert (next(steps).index, work.trace[-1]["scale"]) == (4, 1)
    assert torch.equal(work.best, coarse)


def test_a_coarse_objective_is_not_compared_with_a_finer_one() -> None:
    def objective(scale: float) -> Objective:
        return lambda image: {"total": image.square().mean() + (10 if scale == 1 else 0)}

    work = from_noise(objective, scales=2, iterations=3, method="adam")
    finish(work)
    fine = [line["total"] for line in work.trace if line["scale"] == 1]
    assert min(fine) < fine[0]
    assert objective(1)(work.best)["total"].item() == pytest.approx(min(fine), abs=1e-6)


@pytest.mark.usefixtures("stubbed")
def test_content_and_painting_are_scaled_with_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    paintings: list[tuple[int, ...]] = []

    def watched(config: LossConfig, styles: Sequence[Tensor], **kwargs: Any) -> PerceptualLoss:
        paintings.append(tuple(styles[0].shape[-2:]))
        return stub(config, styles, **kwargs)

    monkeypatch.setattr(optimize, "style_transfer_loss", watched)
    finish(optimize_style(picture(), picture(30, 60), config=settings_of(iterations=1, scales=2)))
    finish(optimize_style(picture(), picture(30, 60), config=settings_of(iterations=1, scales=2, style_size=64)))
    assert paintings == [(10, 20), (20, 40), (16, 32), (32, 64)]


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


def layers_of_the_gallery() -> set[str]:
    card = read_card(next(iter(gallery().values())))
    return {full_name(layer) for layer in card.settings["loss"]["style_layers"]}


@pytest.mark.parametrize("style", sorted(gallery()))
def test_every_style_of_the_gallery_has_targets_of_its_objective(style: str) -> None:
    targets = shipped.targets(style)
    assert layers_of_the_gallery() <= targets.keys()
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
    with pytest.raises(CheckpointError, match=f"targets of '{style}' do not come with perceptual: give its painting"):
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
