"""The flags of a command as data, made from its dataclass: for --help, shell completion and the reference."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from perceptual.config import Range, field_docs, field_hints


class Flag(NamedTuple):
    """One flag or positional argument of a command.

    words: such as ("-o", "--out"); empty for a positional argument. value: a word that stands for its value; empty for
    a switch. kind: what it takes, in words. choices: the words that it takes, if they are few. default: None for none,
    REQUIRED if it must be given. meaning: what it does, on one line. field: its name in the dataclass.
    """

    words: tuple[str, ...]
    value: str
    kind: str
    choices: tuple[str, ...]
    default: Any
    meaning: str
    field: str


REQUIRED = dataclasses.MISSING
_VALUES = {bool: "", int: "NUMBER", float: "NUMBER", str: "TEXT", Path: "PATH"}
_KINDS = {bool: "yes or no", int: "whole number", float: "number", str: "text", Path: "path"}


def groups(kind: Any, default: Any = None) -> list[tuple[str, list[Flag]]]:
    """The flags of a dataclass, then those of each dataclass inside it: (heading, flags); the first has no heading.

    default: an instance with the defaults, or None for those of the class. Positional arguments come first.
    """
    hints, meanings = field_hints(kind), field_docs(kind)
    flags, inner = list[Flag](), list[tuple[str, list[Flag]]]()
    for field in dataclasses.fields(kind):
        value = getattr(default, field.name) if default is not None else _default(field)
        if dataclasses.is_dataclass(value):
            (_, own), *rest = groups(type(value), value)
            inner += [(" ".join((inspect.getdoc(value) or "").split("\n\n")[0].split()), own), *rest]
        else:
            flags.append(_flag(field.name, hints[field.name], value, meanings.get(field.name, "")))
    return [("", sorted(flags, key=lambda flag: bool(flag.words))), *inner]


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default_factory() if callable(field.default_factory) else field.default


def _flag(name: str, hint: Any, default: Any, meaning: str) -> Flag:
    """The flag of one field; tyro's own annotations name and place it."""
    extras = hint.__metadata__ if typing.get_origin(hint) is typing.Annotated else ()
    named = next((each for each in extras if hasattr(each, "aliases")), None)
    words: tuple[str, ...] = ()
    plain, many = _plain(hint)
    if tyro.conf.Positional not in extras:
        flag = f"--{(named and named.name) or name.replace('_', '-')}"
        words = (*((named and named.aliases) or ()), flag, *((f"--no-{flag[2:]}",) if plain is bool else ()))
    choices = typing.get_args(plain) if typing.get_origin(plain) is typing.Literal else ()
    value = "NAME" if choices else _VALUES[plain]
    value = (named and named.metavar) or (f"{value} ..." if many else value)
    meaning = " ".join(((named and named.help) or meaning).split())
    kind = _KINDS[Path] if value == _VALUES[Path] else kind_of(hint)
    return Flag(words, value, kind, choices, default, meaning, name)


def _plain(hint: Any) -> tuple[Any, bool]:
    """The type inside Annotated, an optional value or a list; and whether it is a list."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _plain(inner[0])
    if origin in (typing.Union, types.UnionType):
        return _plain(next(each for each in inner if each is not type(None)))
    return (_plain(inner[0])[0], True) if origin is tuple else (hint, False)


def kind_of(hint: Any, limits: Range | None = None) -> str:
    """The values that a setting takes, in words."""
    if typing.get_origin(hint) is typing.Annotated:
        hint, *extras = typing.get_args(hint)
        limits = next((each for each in extras if isinstance(each, Range)), limits)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return kind_of(next(each for each in inner if each is not type(None)), limits)
    if origin is typing.Literal:
        return ", ".join(f"`{each}`" for each in inner)
    if origin is tuple:
        return f"list: {kind_of(inner[0], limits)}"
    return _KINDS[hint] + (f", {limits}" if limits else "")


def shown(value: Any) -> str:
    """A default in words; empty for none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in ("", ()):
        return ""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def described(kind: Any) -> tuple[str, list[str]]:
    """The docstring of a command without its examples, with one line a paragraph; and the examples."""
    text, _, rest = (inspect.getdoc(kind) or "").partition("Example:")
    examples = re.split(r"\s(?=perceptual [a-z])", " " + " ".join(rest.split()))
    paragraphs = [" ".join(each.split()) for each in text.split("\n\n")]
    return "\n\n".join(filter(None, paragraphs)), [each for each in examples if each]
