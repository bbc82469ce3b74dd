"""Settings and recipes: defaults in one place, nothing wrong gets in, and the paper's numbers are the paper's."""

from __future__ import annotations

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perceptual.config import LossConfig, NetworkConfig, StylizeConfig, TrainConfig, differences, from_dict, to_dict
from perceptual.errors import ConfigError
from perceptual.losses.architectures import ARCHITECTURES
from perceptual.losses.networks import split_layer, split_scale
from perceptual.losses.weights import PRETRAINED
from perceptual.networks import TransformationNetwork
from perceptual.tasks.style import Style, TrainStyleCommand
from perceptual.tasks.style_recipes import STYLE_RECIPES, StyleRecipe

CHECKED = (NetworkConfig, LossConfig, TrainConfig, StyleRecipe)
HINTS = [(kind, name, hint) for kind in CHECKED for name, hint in typing.get_type_hints(kind).items()]
NUMBERS = [(kind, name) for kind, name, hint in HINTS if hint in (int, float)]
CHOICES = [
    (kind, name, typing.get_args(hint)) for kind, name, hint in HINTS if typing.get_origin(hint) is typing.Literal
]

EVERY_KIND: list[Any] = [
    NetworkConfig("c3s1-8 c3s1-3", "conditional_instance", "zero", 3, 150.0),
    LossConfig(("vgg19:relu4_2",), (), "relative", 0.5, 0.0, 1e-3, "gatys"),
    TrainConfig(10, 1, 64, 1e-4, "cosine", 4, 2e-3, "squash", 7, "bfloat16", True, 0, 5, 0, 6),
    StyleRecipe(NetworkConfig(norm="instance"), LossConfig(tv_weight=0.0), TrainConfig(steps=1), 256, 0.5),
    StylizeConfig(style="wave.safetensors", name="wave", strength=0.5, keep_colors=True, size=640),
]

networks = st.builds(
    NetworkConfig,
    norm=st.just("conditional_instance"),
    padding=st.sampled_from(["zero", "reflect", "replicate", "reflect-start", "reflect-crop"]),
    styles=st.integers(1, 1000),
    tanh_scale=st.floats(1e-6, 1e6),
)
layers = st.lists(st.sampled_from(["vgg16:relu1_1", "fire5", "é"]), min_size=1).map(tuple)
weight = st.floats(0, 1e12)
losses = st.builds(
    LossConfig,
    content_layers=layers,
    style_layers=layers,
    content_weight=st.floats(1e-6, 1e12),  # all weights 0 are refused
    style_weight=weight,
    tv_weight=weight,
)
trainings = st.builds(
    TrainConfig,
    steps=st.integers(1, 100_000_000),
    seed=st.integers(0, 2**32 - 1),
    learning_rate=st.floats(1e-12, 1),
    compile=st.booleans(),
    keep_photos=st.booleans(),
)


def assert_one_sentence(error: BaseException) -> None:
    assert "\n" not in str(error)
    assert str(error).endswith(".")


@pytest.mark.parametrize("config", EVERY_KIND, ids=lambda config: type(config).__name__)
def test_every_config_survives_json(config: Any) -> None:
    default = type(config)()
    assert sum(getattr(config, f.name) != getattr(default, f.name) for f in dataclasses.fields(config)) >= 4
    assert from_dict(type(config), json.loads(json.dumps(to_dict(config)))) == config


@settings(deadline=None, max_examples=30)
@given(
    st.builds(
        StyleRecipe,
        network=networks,
        loss=losses,
        train=trainings,
        style_size=st.integers(32, 16_384),
        temporal_weight=weight,
    )
)
def test_every_recipe_that_can_be_made_survives_json(recipe: StyleRecipe) -> None:
    assert from_dict(StyleRecipe, json.loads(json.dumps(to_dict(recipe)))) == recipe


def test_a_dictionary_is_plain_and_nested_like_the_config() -> None:
    values = to_dict(StyleRecipe())
    names = ["network", "loss", "train", "style_size", "temporal_weight", "style_factors", "loss_shift"]
    assert list(values) == names
    assert values["loss"]["content_layers"] == ["vgg16:relu2_2"]
    assert to_dict(TrainStyleCommand(data=Path("photos")))["data"] == "photos"


def test_what_a_dictionary_leaves_out_is_the_default() -> None:
    assert from_dict(StyleRecipe, {"train": {"steps": 3}}) == StyleRecipe(train=TrainConfig(steps=3))


@pytest.mark.parametrize("values", [{"colour": 1}, {"train": {"colour": 1}}], ids=["outside", "nested"])
def test_an_unknown_key_is_refused_and_the_known_ones_listed(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="'colour'") as caught:
        from_dict(StyleRecipe, values)
    assert_one_sentence(caught.value)
    for known in to_dict(TrainConfig() if "train" in values else StyleRecipe()):
        assert known in str(caught.value)


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(("kind", "name"), NUMBERS, ids=[name for _, name in NUMBERS])
def test_a_number_out_of_range_is_refused_by_its_flag(kind: type, name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"\b{name.replace('_', '-')} is {value}") as caught:
        kind(**{name: value})
    assert_one_sentence(caught.value)


@pytest.mark.parametrize(
    ("kind", "name", "lowest"),
    [
        (NetworkConfig, "styles", 1),
        (LossConfig, "style_weight", 0),
        (TrainConfig, "steps", 1),
        (TrainConfig, "batch", 1),
        (TrainConfig, "size", 32),
        (TrainConfig, "workers", 0),
        (TrainConfig, "preview_every", 0),
        (TrainConfig, "save_every", 1),
        (StyleRecipe, "style_size", 32),
        (StyleRecipe, "temporal_weight", 0),
        (StyleRecipe, "loss_shift", 0),
    ],
)
def test_the_lowest_value_is_accepted_and_the_next_is_not(kind: type, name: str, lowest: int) -> None:
    assert getattr(kind(**{name: lowest}), name) == lowest
    with pytest.raises(ConfigError, match=f"must be a (whole )?number from {lowest} to "):
        kind(**{name: lowest - 1})


@pytest.mark.parametrize(("kind", "name", "allowed"), CHOICES, ids=[name for _, name, _ in CHOICES])
def test_a_choice_is_one_of_its_type_and_another_is_refused_by_its_flag(
    kind: type, name: str, allowed: tuple[str, ...]
) -> None:
    assert [getattr(kind(**{name: value}), name) for value in allowed] == list(allowed)
    with pytest.raises(ConfigError, match=f"^{name.replace('_', '-')} is 'nonsense'") as caught:
        kind(**{name: "nonsense"})
    assert_one_sentence(caught.value)
    assert all(value in str(caught.value) for value in allowed)


def test_what_contradicts_is_refused() -> None:
    with pytest.raises(ConfigError, match="2 styles need norm conditional_instance, not batch"):
        NetworkConfig(styles=2)
    with pytest.raises(ConfigError, match="at least one content layer or one style layer"):
        LossConfig(content_layers=(), style_layers=())


@pytest.mark.parametrize("weight", [0.1, 1e-9])
def test_training_for_video_needs_crops_that_have_an_inside(weight: float) -> None:
    """A known motion may bring in 16 px from each side, which are left out."""
    assert StyleRecipe(train=TrainConfig(size=48), temporal_weight=weight).train.size == 48
    assert StyleRecipe(train=TrainConfig(size=32)).train.size == 32
    with pytest.raises(ConfigError, match="The temporal loss needs crops of 48 px or more, and --size is 47") as caught:
        StyleRecipe(train=TrainConfig(size=47), temporal_weight=weight)
    with pytest.raises(ConfigError, match="The temporal loss needs crops of 48 px"):
        StyleRecipe(train=TrainConfig(size=47), loss=LossConfig(loss="content=1,temporal=1"))
    assert_one_sentence(caught.value)


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().steps = 1  # type: ignore[misc]


def test_the_paper_recipe_has_the_papers_network() -> None:
    """Supplement, Table 1; spatial batch normalisation; a scaled tanh to [0, 255] (section 3.1)."""
    network = Style.recipe("paper").network
    assert network.architecture == "c9s1-32 d64 d128 r128*5 u64 u32 c9s1-3"
    assert (network.norm, network.padding, network.styles, network.tanh_scale) == ("batch", "zero", 1, 127.5)


def test_the_authors_recipe_differs_from_the_papers_as_their_code_does() -> None:
    """Their train.lua: start padding, 150 tanh, content at the ReLU of conv3_3, total variation 1e-6."""
    paper, authors = (to_dict(Style.recipe(name)) for name in ("paper", "authors"))
    assert differences(paper, authors) == {
        "network.padding": ("zero", "reflect-start"),
        "network.tanh_scale": (127.5, 150),
        "loss.content_layers": (["vgg16:relu2_2"], ["vgg16:relu3_3"]),
        "loss.tv_weight": (1e-5, 1e-6),
    }


def test_the_paper_recipe_has_the_papers_loss() -> None:
    """Section 4.1: content at relu2_2, style at four layers of VGG-16; total variation between 1e-6 and 1e-4."""
    loss = Style.recipe("paper").loss
    assert loss.content_layers == ("vgg16:relu2_2",)
    assert loss.style_layers == tuple(f"vgg16:relu{layer}" for layer in ("1_2", "2_2", "3_3", "4_3"))
    assert (loss.weighting, loss.content_weight, loss.style_weight) == ("absolute", 1.0, 5.0)
    assert 1e-6 <= loss.tv_weight <= 1e-4


def test_the_paper_recipe_has_the_papers_training() -> None:
    """Section 4.1: Adam 1e-3, 40,000 steps of 4 pictures, each resized to 256 x 256, no decay of the rate."""
    train = Style.recipe("paper").train
    assert (train.learning_rate, train.decay, train.steps, train.batch, train.size) == (1e-3, "none", 40_000, 4, 256)
    assert train.crop == "squash"


def test_recipes_for_pictures_are_not_trained_for_films() -> None:
    """Each step would paint twice as many pictures."""
    assert StyleRecipe().temporal_weight == 0
    assert {Style.recipe(name).temporal_weight for name in ("fast", "sketch", "own", "paper")} == {0}


def test_an_unknown_recipe_is_refused_and_the_known_ones_listed() -> None:
    with pytest.raises(ConfigError, match="'rembrandt'") as caught:
        Style.recipe("rembrandt")
    assert_one_sentence(caught.value)
    assert {"fast", "paper", "authors"} <= set(STYLE_RECIPES)
    assert all(name in str(caught.value) for name in STYLE_RECIPES)


def test_the_default_recipe_of_the_command_exists() -> None:
    assert TrainStyleCommand().recipe in STYLE_RECIPES


@pytest.mark.parametrize("name", STYLE_RECIPES)
def test_the_network_of_a_recipe_can_be_built_and_keeps_the_size(name: str) -> None:
    with torch.device("meta"):
        assert TransformationNetwork(Style.recipe(name).network).scale == 1


@pytest.mark.parametrize("name", STYLE_RECIPES)
def test_the_layers_of_a_recipe_exist(name: str) -> None:
    loss = Style.recipe(name).loss
    for layer in (*loss.content_layers, *loss.style_layers):
        network, stage = split_layer(split_scale(layer)[0])
        kind = PRETRAINED[network].network
        with torch.device("meta"):
            assert stage in dict(ARCHITECTURES[kind](kind))
