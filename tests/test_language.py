"""`perceptual.losses.language`: one line of text as the objective of every task, by answers that can be read off it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perceptual.config import LossConfig
from perceptual.errors import ConfigError
from perceptual.losses import (
    TERMS,
    FeatureLoss,
    GridLoss,
    Materials,
    StyleLoss,
    TermSpec,
    build_terms,
    check_weights,
    layers_of,
    objective_of,
    parse_objective,
)
from perceptual.tasks.style_recipes import StyleRecipe

SEVERAL = ("vgg19:relu1_1", "vgg19:relu2_1@2", "vgg16:relu3_3")
EXAMPLE = "content@vgg16:relu2_2=1,style@vgg16:relu1_2+relu2_2=2,tv=0.02"


def test_the_example_of_the_docstring() -> None:
    assert parse_objective(EXAMPLE) == (
        TermSpec("content", ("vgg16:relu2_2",), 1.0),
        TermSpec("style", ("vgg16:relu1_2", "vgg16:relu2_2"), 2.0),
        TermSpec("tv", (), 0.02),
    )
    assert layers_of(parse_objective(EXAMPLE)) == ("vgg16:relu2_2", "vgg16:relu1_2")
    assert layers_of(parse_objective(EXAMPLE), "style") == ("vgg16:relu1_2", "vgg16:relu2_2")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("style@relu1_2", TermSpec("style", ("relu1_2",))),
        ("style@vgg19:relu1_1+relu2_1@2+vgg16:relu3_3", TermSpec("style", SEVERAL)),
        ("l1 : 0.5", TermSpec("l1", (), 0.5)),
        ("distance@vgg19=3", TermSpec("distance", ("vgg19",), 3.0)),
        ("distance:vgg19", TermSpec("distance", ("vgg19",), 1.0, "distance:vgg19")),
        ("vgg16:relu3_3=0.25", TermSpec("feature", ("vgg16:relu3_3",), 0.25, "vgg16:relu3_3")),
        ("relu3_3:0.25", TermSpec("feature", ("relu3_3",), 0.25, "relu3_3")),
        ("feature", TermSpec("feature")),
    ],
)  # fmt: skip
def test_spellings(text: str, expected: TermSpec) -> None:
    assert parse_objective(text) == (expected,)


def test_weights_that_are_all_0_are_refused() -> None:
    nothing = LossConfig(content_weight=0, style_weight=0, tv_weight=0)
    with pytest.raises(ConfigError, match="All weights of the losses are 0"):
        check_weights(objective_of(nothing))
    with pytest.raises(ConfigError, match="All weights of the losses are 0"):
        StyleRecipe(loss=nothing)
    assert StyleRecipe(loss=nothing, temporal_weight=1).temporal_weight == 1


def test_equal_terms_add_up() -> None:
    assert parse_objective("l1=0.5,tv=1,l1=0.25") == (TermSpec("l1", (), 0.75), TermSpec("tv"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no objective"),
        ("l1=", "is no objective"),
        ("l1=x", "is no objective"),
        ("l1=nan", "is no objective"),
        ("l1=-1", "is no objective"),
        ("l1=2e12", "is no objective"),
        ("l1=1=2", "is no objective"),
        ("l1,,tv", "is no objective"),
        ("l1=0,tv=0", "are all 0"),
        ("sharpness=1", "There is no loss 'sharpness'; choose content, style, tv"),
        ("tv@vgg16:relu1_2", "takes no layers"),
        ("sharpness@vgg16:relu1_2", "There is no loss 'sharpness'"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        parse_objective(text)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@given(
    st.dictionaries(st.sampled_from([t for t in TERMS if not TERMS[t].takes_layers]), st.floats(1e-6, 1e6), min_size=1)
)
def test_weights_survive_writing_and_reading(weights: dict[str, float]) -> None:
    text = ",".join(f"{name}={weight!r}" for name, weight in weights.items())
    assert {spec.kind: spec.weight for spec in parse_objective(text)} == weights


def test_the_flags_for_layers_and_weights_are_shorthands() -> None:
    config = LossConfig(("vgg16:relu2_2",), ("vgg16:relu1_2", "vgg16:relu2_2"), style_weight=2.0, tv_weight=0.02)
    assert objective_of(config) == parse_objective(EXAMPLE)
    assert objective_of(LossConfig(loss=EXAMPLE)) == parse_objective(EXAMPLE)


def test_a_term_is_built_for_every_layer_and_relative_weights_are_shared_among_them() -> None:
    grams = {f"vgg16:relu{k}_2": torch.eye(3)[None] for k in (1, 2)}
    specs = parse_objective(EXAMPLE)
    names = ["content vgg16:relu2_2", "style vgg16:relu1_2", "style vgg16:relu2_2", "tv"]
    for relative, weights in ((False, [1, 2, 2, 0.02]), (True, [1, 5 * 2 / 2, 5 * 2 / 2, 0.02])):
        terms = build_terms(specs, Materials(grams=grams), relative=relative)
        assert [(name, weight) for name, (_, weight) in terms.items()] == list(zip(names, weights, strict=True))
    assert isinstance(terms[names[0]][0], FeatureLoss)
    assert isinstance(terms[names[1]][0], StyleLoss)


def test_the_grid_has_the_period_of_the_scale() -> None:
    (term, _) = build_terms(parse_objective("grid"), Materials(scale=8))["grid"]
    assert isinstance(term, GridLoss)
    assert term.period == 8


def test_a_style_without_paintings_is_refused() -> None:
    with pytest.raises(ConfigError, match="choose texture"):
        build_terms(parse_objective("style@vgg16:relu1_2"), Materials())
    with pytest.raises(ConfigError, match="lacks the Gram matrix of vgg16:relu1_2"):
        build_terms(parse_objective("style@vgg16:relu1_2"), Materials(grams={"vgg16:relu2_2": torch.eye(3)[None]}))
