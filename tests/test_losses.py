"""losses: named terms and their weighted sum, relative weights, several styles; mostly on a made-up loss network."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceptual import images
from perceptual.config import LossConfig
from perceptual.errors import ConfigError, ImageError
from perceptual.functional import (
    feature_distance,
    gram_distance,
    gram_matrix,
    grid_energy,
    lattice_energy,
    total_variation,
)
from perceptual.losses import (
    PIXELS,
    STYLE_CONVENTIONS,
    DistanceLoss,
    FeatureLoss,
    GridLoss,
    LatticeLoss,
    PerceptualLoss,
    PixelLoss,
    StyleLoss,
    TemporalLoss,
    Term,
    TextureLoss,
    TotalVariation,
    style_transfer_loss,
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
def test_no_gradient_reaches_the_target(term: Term) -> None:
    output, target = pictures(1, seed=1).requires_grad_(), pictures(1, seed=2).requires_grad_()
    PerceptualLoss({"term": (term, 1.0)}, networks=Stub())(output, target)["total"].backward()  # type: ignore[arg-type]
    assert output.grad is not None
    assert target.grad is None


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


# --- errors


def test_a_loss_without_terms_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one term"):
        PerceptualLoss({})


def test_a_term_called_total_is_refused() -> None:
    with pytest.raises(ConfigError, match='name "total" is taken'):
        PerceptualLoss({"total": (TotalVariation(), 1.0)})


@pytest.mark.parametrize("target", [None, pictures(1, 12, 17)], ids=["missing", "of another size"])
def test_a_target_that_does_not_fit_is_an_error(target: Tensor | None) -> None:
    with pytest.raises(ConfigError, match="give an image of the same height and width as the output"):
        PerceptualLoss({"pixels": (PixelLoss(), 1.0)})(pictures(1), target)


def test_calibrating_on_single_photographs_is_an_error() -> None:
    with pytest.raises(ConfigError, match="at least 2 photos"):
        stub_loss().calibrate([pictures(2), pictures(1)])


def test_calibrating_on_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match="need photos"):
        stub_loss().calibrate([])


@pytest.mark.parametrize("name", ["relu3.3", "pop", "keys", "items", "training", "", " ", "a.b.c", "_modules", "é"])
def test_a_term_may_have_any_name(name: str) -> None:
    loss = PerceptualLoss({name: (PixelLoss(), 2.0), "tv": (TotalVariation(), 0.0)})
    values = loss(torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 4))
    assert {key: value.item() for key, value in values.items()} == {name: 1, "tv": 0, "total": 2}
    assert list(loss.references()) == [name, "tv"]
    loss.load_state_dict(loss.state_dict())


def test_names_that_pytorch_would_confuse_stay_apart() -> None:
    loss = PerceptualLoss({"a.b": (PixelLoss(), 1.0), "a_b": (PixelLoss(), 2.0), "a_b_": (PixelLoss(), 4.0)})
    assert loss(torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 4))["total"] == 7
    loss.set_references({"a.b": [1.0], "a_b": [2.0], "a_b_": [4.0]})
    assert loss.references() == {"a.b": [1.0], "a_b": [2.0], "a_b_": [4.0]}


def test_plain_names_are_the_keys_of_the_state() -> None:
    keys = list(PerceptualLoss({"content vgg16:relu2_2": (PixelLoss(), 1.0)}).state_dict())
    assert keys == ["terms.content vgg16:relu2_2.reference"]


@pytest.mark.parametrize(
    ("term", "error", "message"),
    [
        (PixelLoss(), TypeError, r"The term 'a' is given as PixelLoss: give \(term, weight\)"),
        (("pixel", 1.0), TypeError, "The term 'a' is a str"),
        ((PixelLoss(), float("nan")), ConfigError, "The weight of 'a' is nan"),
        ((PixelLoss(), "1"), ConfigError, "The weight of 'a' is '1'"),
    ],
)
def test_what_is_no_term_with_its_weight_is_refused(term: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        PerceptualLoss({"a": term})  # type: ignore[dict-item]


WHOLE = torch.full((1, 3, 64, 64), 0.5)


@pytest.mark.parametrize("which", ["output", "target"])
@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        ((WHOLE * 255).byte(), TypeError, r"is of type torch.uint8: give a tensor of floats in \[0, 1\]"),
        (WHOLE.long(), TypeError, "is of type torch.int64"),
        (WHOLE.numpy(), TypeError, "is of type ndarray"),
        (WHOLE[0], ImageError, r"has the shape \(3, 64, 64\), not \(N, 3, H, W\): for a single image"),
        (WHOLE[:, :1], ImageError, r"has the shape \(1, 1, 64, 64\)"),
        (WHOLE[:0], ImageError, r"has the shape \(0, 3, 64, 64\)"),
        (WHOLE * 255, ImageError, r"has values from 127.5 to 127.5: give values in \[0, 1\]"),
    ],
    ids=["uint8", "int64", "numpy", "one image", "grey", "none", "levels"],
)
def test_an_image_that_losses_do_not_take_is_one_sentence(
    which: str, image: Tensor, error: type[Exception], message: str
) -> None:
    loss = PerceptualLoss({"pixels": (PixelLoss(), 1.0), "tv": (TotalVariation(), 1.0)})
    pair = (image, WHOLE) if which == "output" else (WHOLE, image)
    with pytest.raises(error, match=f"The {which} {message}") as caught:
        loss(*pair)
    assert str(caught.value).endswith(".")


def test_photographs_of_levels_and_styles_of_levels_are_refused(vgg_file: Path) -> None:
    with pytest.raises(ImageError, match="batch of photographs has values"):
        stub_loss().calibrate([255 * pictures(2)])
    with pytest.raises(ImageError, match="style image has values"):
        style_transfer_loss(TWO_STYLE_LAYERS, [255 * pictures(1)], paths={"vgg16": vgg_file})
    with pytest.raises(ConfigError, match="at least one style"):
        style_transfer_loss(TWO_STYLE_LAYERS, [], paths={"vgg16": vgg_file})


def test_training_may_leave_the_range_for_a_while() -> None:
    """What a network makes at its worst is for the training to judge; only the first output says how pixels count."""
    loss = PerceptualLoss({"pixels": (PixelLoss(), 1.0)})
    assert loss(WHOLE * 3, WHOLE)["total"] == 1
    assert loss(WHOLE * 101, WHOLE)["total"] == 2500


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floats_of_any_precision_are_taken(dtype: torch.dtype) -> None:
    loss = PerceptualLoss({"pixels": (PixelLoss(), 1.0), "tv": (TotalVariation(), 1.0)})
    total = loss(WHOLE.to(dtype), (WHOLE / 2).to(dtype))["total"]
    assert (total.item(), total.dtype) == (1 / 16, torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize(
    ("target", "style", "message"),
    [
        (pictures(3), None, "3 targets do not fit 2 outputs"),
        ({}, None, "The target lacks stub:deep"),
        (pictures(2), torch.ones(2, 3), r"style weights have the shape \(2, 3\): give \(2, 1\)"),
        (pictures(2), torch.ones(1), r"style weights have the shape \(1,\)"),
    ],
)
def test_targets_and_styles_that_do_not_fit_are_one_sentence(
    target: Tensor | dict[str, Tensor], style: Tensor | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        stub_loss()(pictures(2), target, style)


@pytest.mark.parametrize(("term", "side"), [(GridLoss(8), 7), (LatticeLoss(), 47)])
def test_an_image_without_room_for_a_grid_is_one_sentence(term: Term, side: int) -> None:
    loss = PerceptualLoss({"grid": (term, 1.0)})
    with pytest.raises(ImageError, match=f"An image of {side} x 64 px is too small for the grid losses"):
        loss(WHOLE[..., :side], WHOLE[..., :side])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GridLoss(0), "period of GridLoss is 0"),
        (lambda: GridLoss(2.5), "period of GridLoss is 2.5"),  # type: ignore[arg-type]
        (
            lambda: StyleLoss(DEEP, torch.ones(2, 3, 3), convention="papre"),
            "convention is 'papre'; choose one of paper",
        ),
        (lambda: StyleLoss(DEEP, torch.ones(3, 3)), r"have the shape \(3, 3\): give Gram matrices"),
        (lambda: StyleLoss(DEEP, torch.ones(1, 6, 4)), "give Gram matrices"),
        (lambda: PerceptualLoss({"t": (TemporalLoss(), 1.0)})(WHOLE), "compares two images"),
        (
            lambda: PerceptualLoss({"s": (StyleLoss(DEEP, torch.ones(1, 4, 4)), 1.0)}, networks=Stub())(WHOLE),  # type: ignore[arg-type]
            "stub:deep has 6 channels, but the targets of its StyleLoss have 4",
        ),
    ],
)
def test_a_term_that_cannot_be_is_one_sentence(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make()
    assert str(caught.value).endswith(".")


# --- style_transfer_loss


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up weights of VGG-16's first two convolutions."""
    generator, state = torch.Generator().manual_seed(0), {}
    for index, channels in ((0, 3), (2, 64)):
        weight = torch.randn(64, channels, 3, 3, generator=generator) * (2 / (9 * channels)) ** 0.5
        state |= {f"features.{index}.weight": weight, f"features.{index}.bias": torch.zeros(64)}
    path = tmp_path_factory.mktemp("weights") / "made_up.safetensors"
    safetensors.torch.save_file(state, path)
    return path


TWO_STYLE_LAYERS = LossConfig(
    content_layers=("vgg16:relu1_2",), style_layers=("vgg16:relu1_1", "vgg16:relu1_2"), content_weight=2, style_weight=6
)


def test_absolute_weights_stand_at_each_layer_and_relative_ones_at_their_mean(vgg_file: Path) -> None:
    names = ["content vgg16:relu1_2", "style vgg16:relu1_1", "style vgg16:relu1_2", "tv"]
    for weighting, expected in (
        ("absolute", [2, 6, 6, 1e-5]),
        ("relative", [2, *[StyleLoss.relative_weight * 6 / 2] * 2, 1e-5]),
    ):
        config = LossConfig(**{**vars(TWO_STYLE_LAYERS), "weighting": weighting})
        loss = style_transfer_loss(config, [pictures(1)], paths={"vgg16": vgg_file})
        assert loss.weights == dict(zip(names, expected, strict=True))


def test_total_variation_of_weight_zero_is_left_out(vgg_file: Path) -> None:
    config = LossConfig(**{**vars(TWO_STYLE_LAYERS), "tv_weight": 0})
    assert "tv" not in style_transfer_loss(config, [pictures(1)], paths={"vgg16": vgg_file}).weights


def test_styles_of_several_sizes_make_one_loss(vgg_file: Path) -> None:
    paintings = [pictures(1, 12, 16, seed=1), pictures(1, 9, 21, seed=2)]
    loss = style_transfer_loss(TWO_STYLE_LAYERS, paintings, paths={"vgg16": vgg_file})
    for k, painting in enumerate(paintings):
        own, other = (loss(painting, painting, torch.eye(2)[i : i + 1]) for i in (k, 1 - k))
        assert own["content vgg16:relu1_2"] == own["style vgg16:relu1_1"] == 0 < other["style vgg16:relu1_1"]


def test_layers_without_a_network_are_vgg16s(vgg_file: Path) -> None:
    bare = LossConfig(
        content_layers=("relu1_2",), style_layers=("relu1_1", "relu1_2"), content_weight=2, style_weight=6
    )
    output, target, painting = pictures(1, seed=1), pictures(1, seed=2), pictures(1, seed=3)
    totals = [
        style_transfer_loss(config, [painting], paths={"vgg16": vgg_file})(output, target)["total"]
        for config in (bare, TWO_STYLE_LAYERS)
    ]
    close(totals[0], totals[1])


def test_moving_the_loss_moves_all_that_it_compares_with(vgg_file: Path) -> None:
    loss = style_transfer_loss(TWO_STYLE_LAYERS, [pictures(1)], paths={"vgg16": vgg_file}).to("meta")
    assert {tensor.device.type for tensor in (*loss.buffers(), *loss.parameters())} == {"meta"}
    assert not list(filter(lambda p: p.requires_grad, loss.parameters()))


@pytest.mark.shared
class TestRealWeights:
    CONFIG = LossConfig(
        content_layers=("vgg19-distilled:relu2_2",),
        style_layers=tuple(f"vgg19-distilled:relu{layer}" for layer in ("1_2", "2_2", "3_3", "4_3")),
        weighting="relative",
        style_weight=0.8,
        tv_weight=0.1,
    )

    @pytest.fixture
    def photographs(self, pretrained: Path) -> Tensor:
        paths = sorted((pretrained.parent / "data/content").glob("*.jpg"))[:4]
        read = [images.resize(images.read(path).pixels, longer_side=96) for path in paths]
        return torch.cat([pixels[..., :64, :64] for pixels in read])

    @pytest.fixture
    def loss(self, pretrained: Path, photographs: Tensor) -> PerceptualLoss:
        painting = images.resize(images.read(pretrained.parent / "data/styles/wave.jpg").pixels, longer_side=96)
        loss = style_transfer_loss(self.CONFIG, [painting])
        loss.calibrate([photographs])
        return loss

    def test_photographs_are_as_far_from_the_style_as_the_weights_say(
        self, loss: PerceptualLoss, photographs: Tensor
    ) -> None:
        values = loss(photographs, photographs)
        share = shares(loss, values)
        styles = [share[name] for name in share if name.startswith("style")]
        assert share["content vgg19-distilled:relu2_2"] == 0
        assert styles == pytest.approx([StyleLoss.relative_weight * 0.8 / 4] * 4, rel=1e-4)
        assert values["total"].item() == pytest.approx(StyleLoss.relative_weight * 0.8 + 0.1, rel=1e-4)

    def test_a_few_steps_on_the_pixels_bring_style_at_little_cost_of_content(
        self, loss: PerceptualLoss, photographs: Tensor
    ) -> None:
        target = photographs[:1]
        output = target.clone().requires_grad_()
        optimizer = torch.optim.Adam([output], lr=0.02)
        totals = []
        for _ in range(15):
            optimizer.zero_grad()
            values = loss(output, target)
            values["total"].backward()
            optimizer.step()
            totals.append(values["total"].item())
        assert totals[-1] < 0.6 * totals[0]
        assert 0 < shares(loss, values)["content vgg19-distilled:relu2_2"] < 1


def test_relative_weights_without_references_are_refused() -> None:
    loss = PerceptualLoss({"pixel": (PixelLoss(), 1.0)}, relative=True)
    with pytest.raises(ConfigError, match="calibrate"):
        loss(pictures(1), pictures(1))
    loss.calibrate([pictures(4)])
    assert loss(pictures(1), pictures(1))["total"] == 0


@pytest.mark.parametrize("references", [{}, {"pixel": [1.0, 2.0]}, {"pixel": [float("nan")]}])
def test_references_that_do_not_fit_are_refused(references: dict[str, list[float]]) -> None:
    with pytest.raises(ConfigError, match="'pixel' must be 1 finite"):
        PerceptualLoss({"pixel": (PixelLoss(), 1.0)}).set_references(references)


# --- the losses of super-resolution


def made_up(term: Term, seed: int) -> dict[str, Tensor]:
    """Features of two images at the layers of a term, of as many channels as sizes."""
    generator = torch.Generator().manual_seed(seed)
    return {layer: torch.randn(2, 3 + k, 8 >> k, 8 >> k, generator=generator) for k, layer in enumerate(term.layers)}


@pytest.mark.parametrize("make", [DistanceLoss, TextureLoss])
def test_losses_of_several_layers_are_nothing_between_equals_and_know_their_network(make: type[Term]) -> None:
    term = make()
    assert term.layers == ("vgg16:relu1_2", "vgg16:relu2_2", "vgg16:relu3_3")
    features, others = made_up(term, 0), made_up(term, 1)
    assert term.compare(features, features, None).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert (term.compare(features, others, None) > 0.1).all()
    with pytest.raises(ConfigError, match="There is no loss network 'nothing'"):
        make("nothing")


def test_distance_looks_at_directions_and_texture_at_no_place() -> None:
    distance, texture = DistanceLoss(), TextureLoss()
    features, others = made_up(distance, 0), made_up(distance, 1)
    larger = {layer: 7 * value for layer, value in features.items()}
    moved = {layer: value.flip(-1).transpose(-1, -2) for layer, value in features.items()}
    close(distance.compare(larger, others, None), distance.compare(features, others, None))
    assert (distance.compare(moved, features, None) > 0.1).all()
    close(texture.compare(moved, features, None), torch.zeros(2), atol=1e-6, rtol=0)
    close(texture.compare({layer: 0 * value for layer, value in features.items()}, features, None), torch.ones(2))


def test_the_grid_is_that_of_the_difference() -> None:
    term = GridLoss(4)
    image = pictures(2, 32, 32)
    grid = torch.zeros_like(image)
    grid[..., ::4, 1::4] = 0.1
    assert term.compare({PIXELS: image}, {PIXELS: image}, None).tolist() == [0, 0]
    close(term.compare({PIXELS: image + grid}, {PIXELS: image}, None), grid_energy(grid, 4))


# --- what lies beside the output: the temporal term


def two_frames(count: int = 2) -> dict[str, Tensor]:
    """Paintings of a moved picture, and the moved paintings of the first."""
    return {"moved": pictures(count, 5, 7, seed=3), "carried": pictures(count, 5, 7, seed=4)}


def with_temporal(loss: PerceptualLoss, weight: float) -> PerceptualLoss:
    terms = {name: (term, loss.weights[name]) for name, term in loss.named_terms()}
    relative = not loss.calibrated
    return PerceptualLoss({**terms, "temporal": (TemporalLoss(), weight)}, networks=loss.networks, relative=relative)


def test_the_temporal_term_is_the_squared_difference_of_what_moved_and_what_was_carried() -> None:
    term, frames = TemporalLoss(), two_frames()
    assert (term.layers, term.target_layers) == ((), ())
    close(term.compare(frames, {}), (frames["moved"] - frames["carried"]).square().mean((1, 2, 3)))
    assert term.compare({"moved": frames["moved"], "carried": frames["moved"]}, {}).tolist() == [0, 0]
    levels = {"moved": torch.full((1, 3, 4, 4), 110 / 255), "carried": torch.full((1, 3, 4, 4), 100 / 255)}
    close(255 * term.compare(levels, {}).sqrt(), torch.tensor([10.0]))


def test_a_term_that_is_added_counts_with_its_weight_beside_the_others() -> None:
    output, target, frames = pictures(2, seed=1), pictures(2, seed=2), two_frames()
    plain, loss = stub_loss()(output, target), with_temporal(stub_loss(), 3.0)
    values = loss(output, target, beside=frames)
    assert list(values) == ["content", "style shallow", "style deep", "tv", "temporal", "total"]
    assert loss.weights["temporal"] == 3.0
    close(values["temporal"], F.mse_loss(frames["moved"], frames["carried"]))
    close(values["total"], plain["total"] + 3 * values["temporal"])
    assert all(torch.equal(values[name], plain[name]) for name in plain if name != "total")


def test_what_lies_beside_changes_no_other_term() -> None:
    output, target = pictures(2, seed=1), pictures(2, seed=2)
    plain, beside = stub_loss()(output, target), stub_loss()(output, target, beside=two_frames())
    assert all(torch.equal(plain[name], beside[name]) for name in plain)


def test_gradients_of_the_temporal_term_reach_both_paintings_and_not_the_output() -> None:
    frames = {name: value.requires_grad_() for name, value in two_frames(1).items()}
    output = pictures(1, seed=1).requires_grad_()
    with_temporal(stub_loss(), 1.0)(output, pictures(1, seed=2), beside=frames)["temporal"].backward()
    assert output.grad is None
    assert frames["moved"].grad is not None
    assert frames["carried"].grad is not None
    close(frames["moved"].grad, -frames["carried"].grad)
    close(frames["moved"].grad, 2 / (3 * 5 * 7) * (frames["moved"] - frames["carried"]).detach())


def test_relative_to_photographs_the_temporal_term_of_two_of_them_is_its_weight() -> None:
    photographs, loss = pictures(4), with_temporal(stub_loss(content=0.0, style=0.0, tv=0.0), 2.5)
    references = loss.calibrate([photographs])
    assert references["temporal"] == [pytest.approx(F.mse_loss(photographs, photographs.roll(1, 0)).item(), rel=1e-5)]
    strangers = {"moved": photographs, "carried": photographs.roll(1, 0)}
    close(loss(photographs, photographs, beside=strangers)["total"], scalar(2.5))
    still = {"moved": photographs, "carried": photographs}
    assert loss(photographs, photographs, beside=still)["total"] == 0


def test_several_styles_share_one_temporal_reference() -> None:
    photographs, loss = pictures(4), with_temporal(stub_loss(content=0.0, style=0.0, tv=0.0, styles=3), 2.0)
    assert len(loss.calibrate([photographs])["temporal"]) == 1
    strangers = {"moved": photographs, "carried": photographs.roll(1, 0)}
    style = F.one_hot(torch.tensor([0, 1, 2, 0]), 3).float()
    close(loss(photographs, photographs, style, beside=strangers)["total"], scalar(2.0))


def test_the_temporal_term_in_half_precision_is_summed_in_float32() -> None:
    frames = {name: (100 * value).half() for name, value in two_frames().items()}
    value = TemporalLoss().compare(frames, {})
    assert value.dtype == torch.float32
    close(value, (frames["moved"].float() - frames["carried"].float()).square().mean((1, 2, 3)))


def test_the_lattice_is_a_term_whose_reference_is_1() -> None:
    dotted = pictures(2, 64, 64)
    dotted[..., ::4, ::4] = 1
    loss = PerceptualLoss({"lattice": (LatticeLoss(), 2.0)}, relative=True)
    assert loss.calibrate([pictures(4, 64, 64)]) == {"lattice": [1.0]}
    values = loss(dotted)
    close(values["lattice"], lattice_energy(dotted).mean())
    close(values["total"], 2 * values["lattice"])
