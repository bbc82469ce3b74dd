"""losses: named terms and their weighted sum, relative weights, several styles; mostly on a made-up loss network."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceptual.functional import (
    feature_distance,
    gram_distance,
    gram_matrix,
    total_variation,
)
from perceptual.losses import (
    PIXELS,
    STYLE_CONVENTIONS,
    FeatureLoss,
    PerceptualLoss,
    PixelLoss,
    StyleLoss,
    Term,
    TotalVariation,
)

CONVENTIONS = ("paper", "code", "gatys")
SHALLOW, DEEP = "stub:shallow", "stub:deep"
# Sums of up to a few thousand values in float32, whose order the processor and the size of the batch decide.
close = functools.partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)


class Stub(nn.Module):
    """Stands for LossNetworks: two small random layers by name; remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("first", torch.randn(4, 3, 3, 3, generator=generator))
        self.register_buffer("second", torch.randn(6, 4, 3, 3, generator=generator))
        self.asked: list[tuple[str, ...]] = []

    def forward(self, image: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        self.asked.append(tuple(layers))
        shallow = F.relu(F.conv2d(image, self.first.to(image), padding=1))
        deep = F.relu(F.conv2d(F.max_pool2d(shallow, 2), self.second.to(image), padding=1))
        return {name: value for name, value in ((SHALLOW, shallow), (DEEP, deep)) if name in layers}


def pictures(count: int, height: int = 12, width: int = 16, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def scalar(value: float) -> Tensor:
    return torch.tensor(value)


def style_term(layer: str, styles: Tensor, convention: str = "code") -> StyleLoss:
    return StyleLoss(layer, StyleLoss.gram(Stub()(styles, [layer])[layer], convention), convention=convention)


def stub_loss(
    content: float = 1.0, style: float = 4.0, tv: float = 0.5, *, styles: int = 1, convention: str = "code"
) -> PerceptualLoss:
    """Content at the deep layer, style at both, and total variation; the styles are pictures of another size."""
    paintings = pictures(styles, 20, 10, seed=99)
    terms: dict[str, tuple[Term, float]] = {
        "content": (FeatureLoss(DEEP), content),
        "style shallow": (style_term(SHALLOW, paintings, convention), style / 2),
        "style deep": (style_term(DEEP, paintings, convention), style / 2),
        "tv": (TotalVariation(), tv),
    }
    return PerceptualLoss(terms, networks=Stub())  # type: ignore[arg-type]


def shares(loss: PerceptualLoss, values: dict[str, Tensor], style: int = 0) -> dict[str, float]:
    """What each term adds to the total, for one style."""
    found = {}
    for name, references in loss.references().items():
        reference = references[style if len(references) > 1 else 0]
        found[name] = loss.weights[name] * values[name].item() / reference
    return found


# --- terms without a loss network


def test_the_total_is_the_weighted_sum_of_named_unweighted_means() -> None:
    output, target = pictures(2, seed=1), pictures(2, seed=2)
    loss = PerceptualLoss({"pixels": (PixelLoss(), 3.0), "tv": (TotalVariation(), 1e-6)})
    values = loss(output, target)
    assert list(values) == ["pixels", "tv", "total"]
    assert all(value.shape == () for value in values.values())
    close(values["pixels"], F.mse_loss(output, target))
    close(values["tv"], 255**2 * total_variation(output).mean())
    close(values["total"], 3 * values["pixels"] + 1e-6 * values["tv"])
    assert loss.networks is None


def test_total_variation_is_on_0_to_255_pixels() -> None:
    identity = torch.eye(10).expand(2, 3, 10, 10)
    close(PerceptualLoss({"tv": (TotalVariation(), 1.0)})(identity)["tv"], scalar(3 * 36 * 255.0**2))


def test_total_variation_alone_needs_no_target() -> None:
    assert PerceptualLoss({"tv": (TotalVariation(), 2.0)})(torch.full((1, 3, 4, 4), 0.5))["total"] == 0


def test_a_term_of_weight_zero_is_named_but_adds_nothing() -> None:
    output, target = pictures(1, seed=1), pictures(1, seed=2)
    values = PerceptualLoss({"pixels": (PixelLoss(), 0.0), "tv": (TotalVariation(), 1.0)})(output, target)
    assert values["pixels"] > 0
    close(values["total"], values["tv"])


def test_a_batch_counts_the_mean_of_its_images() -> None:
    output, target = pictures(3, seed=1), pictures(3, seed=2)
    loss = stub_loss()
    whole, alone = loss(output, target), [loss(output[k : k + 1], target[k : k + 1]) for k in range(3)]
    for name, value in whole.items():
        close(value, torch.stack([values[name] for values in alone]).mean())


# --- terms of a loss network


def test_every_term_is_its_function_of_the_features() -> None:
    output, target, paintings = pictures(2, seed=1), pictures(2, seed=2), pictures(1, 20, 10, seed=99)
    values, stub, names = stub_loss()(output, target), Stub(), (SHALLOW, DEEP)
    seen, goal, painted = stub(output, names), stub(target, names), stub(paintings, names)
    close(values["content"], feature_distance(seen[DEEP], goal[DEEP]).mean())
    for name, layer in (("style shallow", SHALLOW), ("style deep", DEEP)):
        close(values[name], gram_distance(gram_matrix(seen[layer]), gram_matrix(painted[layer]), "mean").mean())
    weighted = 1 * values["content"] + 2 * (values["style shallow"] + values["style deep"]) + 0.5 * values["tv"]
    close(values["total"], weighted)


def test_each_image_passes_the_networks_once_and_the_target_no_deeper_than_needed() -> None:
    terms: dict[str, tuple[Term, float]] = {
        "content": (FeatureLoss(SHALLOW), 1.0),
        "again": (FeatureLoss(SHALLOW), 1.0),
        "style": (style_term(DEEP, pictures(1)), 1.0),
        "pixels": (PixelLoss(), 1.0),
    }
    stub = Stub()
    PerceptualLoss(terms, networks=stub)(pictures(1), pictures(1))  # type: ignore[arg-type]
    assert sorted(stub.asked) == [(SHALLOW,), (SHALLOW, DEEP)]


def test_content_is_zero_for_the_target_itself() -> None:
    photograph = pictures(2)
    assert stub_loss()(photograph, photograph)["content"] == 0


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_style_is_zero_for_the_style_image_itself(convention: str) -> None:
    painting, loss = pictures(1, 20, 10, seed=99), stub_loss(convention=convention)
    values = loss(painting, pictures(1, 20, 10))
    assert values["style shallow"] == values["style deep"] == 0
    assert loss(pictures(1, 20, 10), pictures(1, 20, 10))["style deep"] > 0


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_style_image_may_have_another_size(convention: str) -> None:
    tile = pictures(1, 6, 7, seed=99)
    features = tile.repeat(1, 1, 3, 2)  # the same statistics on a larger area
    term = StyleLoss(PIXELS, StyleLoss.gram(features, convention), convention=convention)
    close(term.compare({PIXELS: tile}, {}), torch.zeros(1), atol=1e-10, rtol=0)


def test_conventions_differ_by_their_factors() -> None:
    features, goal = pictures(2, seed=1), pictures(1, seed=2)  # C = 3
    paper, code, gatys = (
        StyleLoss(PIXELS, StyleLoss.gram(goal, convention), convention=convention).compare({PIXELS: features}, {})
        for convention in CONVENTIONS
    )
    close(code, paper / 3**2)  # the mean over C x C
    close(gatys, paper * 3**2 / (4 * 3**2))  # Gram C times larger, then a quarter of the mean
    assert tuple(STYLE_CONVENTIONS) == CONVENTIONS


@pytest.mark.parametrize("autocast", [False, True], ids=["plain", "autocast"])
def test_one_hot_weights_select_their_own_style(autocast: bool) -> None:
    paintings = pictures(3, seed=99)
    term, features = style_term(DEEP, paintings), Stub()(paintings, [DEEP])
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        close(term.compare(features, {}, torch.eye(3)), torch.zeros(3), atol=1e-12, rtol=0)
        assert (term.compare(features, {}, torch.eye(3).roll(1, 0)) > 1e-9).all()


def test_without_style_weights_the_first_style_is_meant() -> None:
    output, target, loss = pictures(4), pictures(4, seed=1), stub_loss(styles=3)
    first = torch.eye(3)[:1].expand(4, 3)
    close(loss(output, target), loss(output, target, first))
    loss.calibrate([pictures(4, seed=5)])  # now each style has its own reference too
    close(loss(output, target), loss(output, target, first))


def test_mixed_style_weights_aim_at_the_mixed_gram() -> None:
    features, paintings = pictures(2), pictures(2, seed=99)
    term = StyleLoss(PIXELS, StyleLoss.gram(paintings, "code"), convention="code")
    grams, mix = gram_matrix(paintings), torch.tensor([[0.25, 0.75]]).expand(2, 2)
    goal = 0.25 * grams[:1] + 0.75 * grams[1:]
    close(
        term.compare({PIXELS: features}, {}, mix), gram_distance(gram_matrix(features), goal.expand(2, -1, -1), "mean")
    )


# --- gradients


@pytest.mark.parametrize("name", ["content", "style shallow", "style deep", "tv", "total"])
def test_gradients_reach_the_output(name: str) -> None:
    output = pictures(2, seed=1).requires_grad_()
    stub_loss()(output, pictures(2, seed=2))[name].backward()
    assert output.grad is not None
    assert (output.grad != 0).any(dim=3).any(dim=2).all()


@pytest.mark.parametrize("term", [PixelLoss(), FeatureLoss(DEEP)], ids=["pixels", "features"])
def test_gradients_reach_a_target_that_requires_them(term: Term) -> None:
    output, target = pictures(1, seed=1).requires_grad_(), pictures(1, seed=2).requires_grad_()
    PerceptualLoss({"term": (term, 1.0)}, networks=Stub())(output, target)["total"].backward()  # type: ignore[arg-type]
    assert output.grad is not None
    assert target.grad is not None
    assert target.grad.any()


def test_gradients_are_those_of_finite_differences() -> None:
    loss, target = stub_loss(style=2.0, tv=1e-6).double(), pictures(1, 4, 6, seed=2).double()
    output = pictures(1, 4, 6, seed=1).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, target)["total"], (output,))


def test_output_and_target_are_not_changed() -> None:
    output, target = pictures(2, seed=1), pictures(2, seed=2)
    before = output.clone(), target.clone()
    stub_loss()(output, target)
    assert torch.equal(output, before[0])
    assert torch.equal(target, before[1])


# --- relative weights


def test_before_calibration_every_reference_is_one() -> None:
    assert stub_loss(styles=2).references() == {
        "content": [1.0],
        "style shallow": [1.0, 1.0],
        "style deep": [1.0, 1.0],
        "tv": [1.0],
    }


def test_on_the_photographs_themselves_each_share_is_exactly_its_weight() -> None:
    photographs, loss = pictures(4), stub_loss(content=1.0, style=4.0, tv=0.5)
    loss.calibrate([photographs])
    values = loss(photographs, photographs)
    share = shares(loss, values)
    assert share["content"] == 0
    assert share["style shallow"] == pytest.approx(2.0, rel=1e-5)  # the style weight of 4 is of the layers' mean
    assert share["style deep"] == pytest.approx(2.0, rel=1e-5)
    assert share["tv"] == pytest.approx(0.5, rel=1e-5)
    close(values["total"], scalar(4.5))


def test_against_the_next_photograph_the_contents_share_is_its_weight() -> None:
    photographs, loss = pictures(4), stub_loss(content=3.0, style=0.0, tv=0.0)
    loss.calibrate([photographs])
    close(loss(photographs, photographs.roll(1, 0))["total"], scalar(3.0))


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_relative_totals_do_not_depend_on_the_size_of_the_features(factor: float) -> None:
    photographs, output, totals = pictures(4), pictures(4, seed=7), []
    for scale in (1.0, factor):
        stub, paintings = Stub(), pictures(1, seed=99)
        stub.first *= scale
        term = StyleLoss(DEEP, StyleLoss.gram(stub(paintings, [DEEP])[DEEP]))
        loss = PerceptualLoss({"content": (FeatureLoss(DEEP), 1.0), "style": (term, 4.0)}, networks=stub)  # type: ignore[arg-type]
        loss.calibrate([photographs])
        totals.append(loss(output, photographs)["total"])
    close(totals[1], totals[0], rtol=1e-4, atol=0)


def test_each_style_has_a_reference_of_its_own() -> None:
    photographs, loss = pictures(4), stub_loss(content=1.0, style=4.0, tv=0.0, styles=3)
    references = loss.calibrate([photographs])["style deep"]
    assert len(set(references)) == 3
    for style in range(3):
        weights = F.one_hot(torch.full((4,), style), 3).float()
        values = loss(photographs, photographs, weights)
        assert values["style deep"].item() == pytest.approx(references[style], rel=1e-5)
        close(values["total"], scalar(4.0))


def test_images_of_different_styles_in_one_batch_use_their_own_references() -> None:
    photographs, loss = pictures(4), stub_loss(tv=0.0, styles=2)
    loss.calibrate([photographs])
    totals = [
        loss(photographs[k : k + 1], photographs[k : k + 1], torch.eye(2)[k % 2][None])["total"] for k in range(4)
    ]
    mixed = loss(photographs, photographs, torch.eye(2).repeat(2, 1))["total"]
    close(mixed, torch.stack(totals).mean())


def test_autocast_does_not_round_the_references() -> None:
    class One(Term):
        def compare(self, output: object, target: object, style: Tensor | None = None) -> Tensor:
            return torch.ones(2)

    loss = PerceptualLoss({"one": (One(references=2), 1.0)})
    loss.set_references({"one": [1.003, 1e-9]})
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            close(loss(pictures(2), style=torch.eye(2))["total"], scalar((1 / 1.003 + 1e9) / 2), rtol=1e-6, atol=0)
            close(loss(pictures(2), style=torch.eye(2)[:1])["total"], scalar(1 / 1.003), rtol=1e-6, atol=0)


def test_references_are_means_over_all_photographs_however_batched() -> None:
    photographs = pictures(6)
    one, two = stub_loss(), stub_loss()
    one.calibrate([photographs])
    two.calibrate(iter([photographs[:2], photographs[2:]]))
    for name in ("style shallow", "style deep", "tv"):
        assert two.references()[name] == pytest.approx(one.references()[name], rel=1e-5)


def test_references_survive_a_card() -> None:
    photographs, loss, other = pictures(4), stub_loss(styles=2), stub_loss(styles=2)
    returned = loss.calibrate([photographs])
    assert returned == loss.references()
    other.set_references(json.loads(json.dumps(returned)))
    assert other.references() == returned
    style = torch.eye(2).repeat(2, 1)
    close(other(photographs, photographs, style), loss(photographs, photographs, style), atol=0, rtol=0)


def test_a_reference_of_zero_counts_as_one() -> None:
    loss = PerceptualLoss({"pixels": (PixelLoss(), 1.0), "tv": (TotalVariation(), 1.0)})
    assert loss.calibrate([torch.full((2, 3, 4, 4), 0.5)]) == {"pixels": [1.0], "tv": [1.0]}
    loss.set_references({"pixels": [0.0], "tv": [2.0]})
    assert loss.references() == {"pixels": [1.0], "tv": [2.0]}


def test_calibration_leaves_no_gradients() -> None:
    loss = stub_loss()
    loss.calibrate([pictures(2).requires_grad_()])
    assert not any(term.reference.requires_grad for term in loss.terms.values())
