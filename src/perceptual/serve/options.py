"""The options of a request: from text to a settings dataclass, and as parameters in the OpenAPI document."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from perceptual.checkpoints import guess
from perceptual.config import Range, field_docs, field_hints
from perceptual.errors import ConfigError
from perceptual.serve.refusals import Refused, as_options

T = TypeVar("T")

_SWITCH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


def options_from(kind: Callable[..., T], given: Iterable[tuple[str, str]]) -> T:
    """The options of a request. kind: their dataclass. given: (name, text) of each option.

    Raises:
        Refused: status 422 for an option that is unknown, given twice or out of range.
    """
    plain = {name: _split(hint)[0] for name, hint in field_hints(kind).items()}
    values: dict[str, Any] = {}
    for name, text in given:
        if name not in plain:
            sentence = f"There is no option {name[:80]!r}{guess(name[:80], plain)}: choose from {', '.join(plain)}."
            raise Refused(422, "option", sentence)
        if name in values:
            raise Refused(422, "option", f"The option {name} is given twice: leave one of them out.")
        values[name] = _value(text, plain[name])
    try:
        return kind(**values)
    except ConfigError as error:
        raise Refused(422, "option", as_options(str(error), set(plain))) from error


def parameters(kind: Any) -> list[dict[str, Any]]:
    """The options of a request as parameters of its query, for the OpenAPI document."""
    found, meanings = list[dict[str, Any]](), field_docs(kind)
    for name, hint in sorted(field_hints(kind).items()):
        plain, limits = _split(hint)
        default = getattr(kind, name)
        schema: dict[str, Any] = {"type": _TYPES.get(plain, "string")}
        if plain not in _TYPES:
            schema["enum"] = list(typing.get_args(plain))
        if limits is not None:
            schema |= {"minimum": limits.least, "maximum": limits.most}
        if default is not None:
            schema["default"] = default
        text = " ".join(meanings.get(name, "").split())
        found.append({"name": name, "in": "query", "required": False, "description": text, "schema": schema})
    return found


def _split(hint: Any, limits: Range | None = None) -> tuple[Any, Range | None]:
    """The plain type of a field, and its range."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _split(inner[0], next((each for each in inner[1:] if isinstance(each, Range)), limits))
    if origin in (typing.Union, types.UnionType):
        return _split(next(each for each in inner if each is not type(None)), limits)
    return hint, limits


def _value(text: str, plain: Any) -> Any:
    """The value of a text. A text that does not fit is left as it is: the dataclass refuses it with a sentence."""
    if plain is bool:
        return _SWITCH.get(text.lower(), text)
    try:
        return plain(text) if plain in (int, float) else text
    except ValueError:
        return text
