"""Every number that a user can set has a range from both sides: in its sentence, and in --help."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import itertools
import pkgutil
import re
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import perceptual.cli
import perceptual.config
import perceptual.tasks
from perceptual.config import (
    NetworkConfig,
    OptimizeConfig,
    Range,
    StylizeConfig,
    TrainConfig,
    UpscaleConfig,
    VideoConfig,
    WebcamConfig,
    from_dict,
)
from perceptual.config.checks import written
from perceptual.errors import ConfigError, shown
from perceptual.tasks.upscale import TrainUpscaleCommand, UpscaleRecipe

MODULES = [
    importlib.import_module(f"{package.__name__}.{found.name}")
    for package in (perceptual.config, perceptual.cli, perceptual.tasks)
    for found in pkgutil.iter_modules(package.__path__)
    if found.name not in ("__main__", "checks")
]
CONFIGS = [
    value
    for module in MODULES
    for value in vars(module).values()
    if inspect.isclass(value) and dataclasses.is_dataclass(value) and value.__module__ == module.__name__
]
NEEDED: dict[str, Any] = (
    {"out": Path("out.png"), "inputs": ("x",), "input": Path("x")}
    | dict.fromkeys(("name", "network"), "x")
    | dict.fromkeys(("content", "style", "image", "painting"), Path("x"))
)


def kinds(hint: Any) -> set[Any]:
    """The types that a hint is made of."""
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal or not inner:
        return {hint}
    return set().union(*(kinds(each) for each in inner if not isinstance(each, Range)))


def numbers() -> list[tuple[type, str, Any, Range | None]]:
    """(config, field, type, range) of every field that holds numbers."""
    found = []
    for kind in CONFIGS:
        for name, hint in typing.get_type_hints(kind, include_extras=True).items():
            if {int, float} & kinds(hint):
                extras = getattr(hint, "__metadata__", ())
                inside = [x for each in typing.get_args(hint) for x in getattr(each, "__metadata__", ())]
                limits = [each for each in (*extras, *inside) if isinstance(each, Range)]
                found.append((kind, name, hint, limits[0] if len(limits) == 1 else None))
    return found


NUMBERS = numbers()
IDS = [f"{kind.__name__}.{name}" for kind, name, _, _ in NUMBERS]


def made(kind: type, **values: Any) -> Any:
    """A config, with what it needs beside these values."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    missing = [n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING]
    return kind(**{name: NEEDED[name] for name in missing}, **values)


def refusal(kind: type, **values: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        made(kind, **values)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert len(text) < 300
    return text


def test_all_settings_are_walked() -> None:
    assert {"TrainConfig", "WebcamConfig", "_Invert", "LossConfig", "ReproduceConfig"} <= {k.__name__ for k in CONFIGS}
    assert len(NUMBERS) > 80


@pytest.mark.parametrize(("kind", "name", "hint", "limits"), NUMBERS, ids=IDS)
def test_every_number_has_two_bounds(kind: type, name: str, hint: Any, limits: Range | None) -> None:
    assert limits is not None
    assert -float("inf") < limits.least < limits.most < float("inf")
    if int in kinds(hint):
        assert (type(limits.least), type(limits.most)) == (int, int)


@pytest.mark.parametrize(("kind", "name", "hint", "limits"), NUMBERS, ids=IDS)
def test_a_number_outside_is_refused_by_its_name_and_both_bounds(
    kind: type, name: str, hint: Any, limits: Range
) -> None:
    step = 1 if int in kinds(hint) else max(1e-9, abs(limits.most) * 1e-6)
    beyond = [limits.least - step, limits.most + step, 10**5000, -(10**5000), float("inf"), float("nan"), "x", True]
    for value in beyond:
        text = refusal(kind, **{name: (value,) if tuple in map(typing.get_origin, typing.get_args(hint)) else value})
        assert text.startswith(name.replace("_", "-") + " is ")
        assert f" number from {written(limits.least)} to {written(limits.most)}." in text


@pytest.mark.parametrize(("kind", "name", "hint", "limits"), NUMBERS, ids=IDS)
def test_help_says_both_bounds(kind: type, name: str, hint: Any, limits: Range) -> None:
    """The docstring of the field is its help; a class that inherits the field inherits the docstring."""
    for owner in kind.__mro__:
        if name in vars(owner).get("__annotations__", {}):
            text = docstring(owner, name)
            for bound in (limits.least, limits.most):
                assert re.search(rf"(?<![\d.,]){re.escape(written(bound))}(?![\d,.]*\d)", text), text
            return
    pytest.fail("the field has no owner")


def docstring(kind: type, name: str) -> str:
    tree = ast.parse(inspect.getsource(kind))
    body = tree.body[0].body  # type: ignore[attr-defined]
    for field, after in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and ast.unparse(field.target) == name:
            return " ".join(ast.literal_eval(after.value).split()) if isinstance(after, ast.Expr) else ""
    return ""


def test_both_ends_of_a_range_belong_to_it() -> None:
    assert TrainConfig(steps=100_000_000, batch=4096, seed=0).seed == 0
    assert StylizeConfig(strength=1, style_scale=0.0625, noise=2).noise == 2
    assert UpscaleConfig(scale=64, tile=16).tile == 16


def test_numbers_of_numpy_are_taken_as_pythons() -> None:
    config = TrainConfig(steps=np.int64(3), learning_rate=np.float32(0.5))  # type: ignore[arg-type]
    assert (type(config.steps), type(config.learning_rate), config.learning_rate) == (int, float, 0.5)
    assert type(StylizeConfig(strength=np.float64(0.5)).strength) is np.float64  # which is a float


def test_lists_and_text_become_what_a_field_holds() -> None:
    assert VideoConfig(network="x.safetensors").network == Path("x.safetensors")  # type: ignore[arg-type]
    assert from_dict(UpscaleRecipe, {"train": {"steps": 3}}).train.steps == 3
    assert TrainUpscaleCommand(weights=["vgg16=x"]).weights == ("vgg16=x",)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        (NetworkConfig, {"architecture": 5}, "architecture is 5; it must be text."),
        (NetworkConfig, {"architecture": None}, "architecture is None; it must be text."),
        (TrainConfig, {"compile": 1}, "compile is 1; it must be true or false."),
        (TrainUpscaleCommand, {"weights": "vgg16=x"}, "weights is 'vgg16=x'; it must be a list."),
        (TrainUpscaleCommand, {"weights": [5]}, "weights is 5; it must be text."),
        (TrainUpscaleCommand, {"data": 5}, "data is 5; it must be a path."),
        (UpscaleRecipe, {"train": {}}, "train is {}; it must be a group of settings."),
        (UpscaleRecipe, {"loss": 5}, "loss is 5; it must be text."),
        (VideoConfig, {"start": "9" * 5000}, "start is '999"),
        (WebcamConfig, {"mirror": "yes"}, "mirror is 'yes'; it must be true or false."),
        (OptimizeConfig, {"size": "512"}, "size is '512'; it must be a whole number from 32 to 16,384."),
    ],
)
def test_a_value_of_another_type_is_refused(kind: type, values: dict[str, Any], says: str) -> None:
    assert refusal(kind, **values).startswith(says)


@pytest.mark.parametrize("values", [5, None, [], "x", {5: 1}])
def test_settings_that_are_no_table_are_refused(values: Any) -> None:
    with pytest.raises(ConfigError):
        from_dict(TrainConfig, values or 0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5, "5"),
        (10**5000, "a number of about 5001 digits"),
        ("a\x1b[31m\n", r"'a\x1b[31m\n'"),
        ("x" * 500, "'" + "x" * 75 + " ..."),
        ([10**5000], "a list"),
    ],
    ids=range(5),
)
def test_a_value_is_quoted_short_on_one_line_and_without_control_characters(value: object, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"upscale": 2, "precision": "int8"}, "--precision has no effect"),
        ({"network": Path("x"), "loss": "nonsense"}, "--loss has no effect together with --network"),
        ({"network": Path("x"), "loss": "feature"}, "--loss has no effect"),
        ({"loss": "feature"}, "--loss has no effect"),
    ],
)
def test_what_would_be_passed_over_in_a_film_is_refused(values: dict[str, Any], says: str) -> None:
    assert says in refusal(VideoConfig, **values)


@pytest.mark.parametrize("number", ["1e13", "9" * 5000, "inf", "nan", "-1"])
def test_weights_by_name_have_a_range(number: str) -> None:
    assert refusal(UpscaleRecipe, loss=f"l1:{number}").endswith(", with weights from 0 to 1e+12.")
    assert UpscaleRecipe(loss="l1:1e12").loss == "l1:1e12"


def test_a_loss_beside_a_network_of_ones_own_is_refused() -> None:
    assert "--loss has no effect" in refusal(UpscaleConfig, network=Path("x"), loss="feature")
    assert UpscaleConfig(network=Path("x"), loss="auto").network == Path("x")
