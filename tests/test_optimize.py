"""optimize: equation 5 over the pixels of one image, and what it stands on: goals, style targets, smallest images.

Most tests run on an objective of the pixels and their Gram matrices, which needs no pretrained weights.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from perceptual import images, optimize
from perceptual.config import LossConfig, OptimizeConfig
from perceptual.errors import ConfigError, ImageError
from perceptual.events import Step
from perceptual.losses import (
    PIXELS,
    LatticeLoss,
    PerceptualLoss,
    PixelLoss,
    StyleLoss,
    Term,
    TotalVariation,
)
from perceptual.losses.networks import Features
from perceptual.optimize import Objective, Optimization, invert, optimize_style, texture, white_noise

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
    return OptimizeConfig(
        **{"size": 40, "iterations": 12, "preview_every": 0, "device": "cpu", "precision": "float32", **values}
    )


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
    assert references["tv"] == [pytest.approx(TotalVariation()(noise).item())]


def test_the_reference_of_the_lattice_is_always_1() -> None:
    content = torch.rand(1, 3, 48, 48)
    terms = PerceptualLoss({"lattice": (LatticeLoss(), 1.0)}, relative=True)
    assert optimize.measure_references(terms, content, torch.rand(1, 3, 48, 48)) == {"lattice": [1.0]}


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


@pytest.mark.parametrize("image", [torch.rand(3, 8, 8), torch.rand(1, 1, 8, 8), 255 * torch.ones(1, 3, 8, 8)])
def test_images_of_another_shape_or_range_are_refused(image: Tensor) -> None:
    for work in (lambda: optimize_style(image, picture()), lambda: optimize_style(picture(), image)):
        with pytest.raises(ImageError, match=r"The (content|style image) has"):
            work()
    for work in (lambda: invert(image), lambda: texture(image)):
        with pytest.raises(ImageError):
            work()


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
