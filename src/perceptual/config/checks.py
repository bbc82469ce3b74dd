"""One check for the fields of every settings dataclass: each value has the right type, and each number is in range.

A range is written next to the type, as in `steps: Annotated[int, Range(1, 100)]`. For a list, the range applies to
each number in it. `__post_init__` calls `check`, which raises a ConfigError of one sentence for any other value.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from perceptual.errors import ConfigError, shown

LOCAL = frozenset(("127.0.0.1", "localhost", "::1"))
"""The names of this computer that no other computer can reach."""


@dataclasses.dataclass(frozen=True)
class Range:
    """The smallest and the largest number that a setting accepts, both included."""

    least: float
    most: float

    def __str__(self) -> str:
        return f"{written(self.least)} to {written(self.most)}"


LARGEST = sys.float_info.max


def written(number: float) -> str:
    """A bound of a range as text, for error messages and --help: 10,000,000, 0.9 or 1e-12."""
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raise a ConfigError that lists the allowed values unless `value` is one of them."""
    if value not in allowed:
        raise ConfigError(f"{name} is {shown(value)}; choose one of {', '.join(allowed)}.")


def check(config: Any) -> None:
    """Check every field of a settings dataclass against its type and range.

    Values are converted where the field's type asks for it: a list to a tuple, text to a Path, and NumPy numbers to
    Python numbers.

    Raises:
        ConfigError: a value has the wrong type or is out of range.
    """
    kind: Any = type(config)
    for name, hint in field_hints(kind).items():
        value = getattr(config, name)
        kept = _fitting(name.replace("_", "-"), value, hint)
        if kept is not value:
            object.__setattr__(config, name, kept)


def check_token(token: str | None) -> None:
    """Refuse the token of a server if it is too short, or cannot be in a header or an address.

    Raises:
        ConfigError: it has fewer than 16 characters, or others than visible ones of ASCII.
    """
    if token is not None and len(token) < 16:
        raise ConfigError("The token is too short: give 16 characters or more to --token, or leave it out.")
    if token is not None and not all("!" <= each <= "~" for each in token):
        raise ConfigError("The token has spaces, line breaks or letters outside ASCII: give another one.")


def changed(kind: Any, options: Any, changes: Mapping[str, Any]) -> Any:
    """A new object of options, of the frozen dataclass `kind`, with some of its fields changed.

    Raises:
        TypeError: a change names no field of `kind`, or `options` is of another type. ConfigError: a refused value.
    """
    names = [field.name for field in dataclasses.fields(kind)]
    if unknown := sorted(set(changes) - set(names)):
        raise TypeError(f"There is no option {unknown[0]!r}: choose from {', '.join(names)}.")
    if type(options) is not kind:
        raise TypeError(f"The options are of type {type(options).__name__}: give them as {kind.__name__} or by name.")
    return dataclasses.replace(options, **changes)


@lru_cache(maxsize=64)
def field_hints(kind: Any) -> dict[str, Any]:
    """The type of each field of a dataclass, with its `Range`."""
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _fitting(name: str, value: Any, hint: Any, limits: Range | None = None) -> Any:
    """The value converted to the type `hint`; raises a ConfigError that names the field if it does not fit."""
    if get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        limits = next((extra for extra in extras if isinstance(extra, Range)), limits)
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        wanted = next(each for each in inner if each is not type(None))
        return None if value is None else _fitting(name, value, wanted, limits)
    if origin is Literal:
        one_of(name, value, inner)
        return value
    if origin in _GROUPS:
        return _GROUPS[origin](name, value, inner, limits)
    if hint in (int, float):
        return _number(name, value, hint, limits)
    kinds, what = _PLAIN.get(hint, (hint, "a group of settings"))
    if not isinstance(value, kinds):
        raise ConfigError(f"{name} is {shown(value)}; it must be {what}.")
    return Path(value) if hint is Path else value


_PLAIN: dict[Any, tuple[Any, str]] = {
    bool: (bool, "true or false"),
    str: ((str, os.PathLike), "text"),
    Path: ((str, os.PathLike), "a path"),
}


def _number(name: str, value: Any, kind: Any, limits: Range | None) -> float:
    wanted: Any = Integral if kind is int else Real
    least, most = (limits.least, limits.most) if limits else (-LARGEST, LARGEST)
    if not isinstance(value, wanted) or isinstance(value, bool) or not least <= value <= most:
        what = f"a {'whole ' * (kind is int)}number from {limits}" if limits else "a finite number"
        raise ConfigError(f"{name} is {shown(value)}; it must be {what}.")
    return value if isinstance(value, (int, float)) else float(value) if kind is float else int(value)


def _tuple(name: str, value: Any, inner: tuple[Any, ...], limits: Range | None) -> tuple[Any, ...]:
    kept = _list(name, value, inner, limits)
    return value if isinstance(value, tuple) and all(a is b for a, b in zip(kept, value, strict=True)) else tuple(kept)


def _list(name: str, value: Any, inner: tuple[Any, ...], limits: Range | None) -> Any:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{name} is {shown(value)}; it must be a list.")
    return [_fitting(name, each, inner[0], limits) for each in value]


def _mapping(name: str, value: Any, inner: tuple[Any, ...], limits: Range | None) -> Any:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} is {shown(value)}; it must be a table of names and values.")
    for key, each in value.items():
        _fitting(name, key, inner[0])
        _fitting(name, each, inner[1], limits)
    return value


_GROUPS: dict[Any, Callable[[str, Any, tuple[Any, ...], Range | None], Any]] = {
    tuple: _tuple,
    Sequence: _list,
    Mapping: _mapping,
}
