"""Replies to requests that are not fulfilled: a status, a kind for the metrics, and one sentence."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

# fmt: off
Kind = Literal[
    "body", "picture", "token", "site", "not_found", "method", "format", "too_large", "option", "busy", "stopping",
    "timeout", "gone", "bug",
]
# fmt: on


class Refused(Exception):
    """A request that is not fulfilled.

    status: of HTTP. kind: for the metrics and for programs. The text is one sentence for the user. headers: further
    headers of the reply.
    """

    def __init__(self, status: int, kind: Kind, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.status, self.kind, self.headers = status, kind, {k.replace("_", "-"): v for k, v in headers.items()}


@dataclass(frozen=True)
class Error:
    """The JSON of a reply to a request that is not fulfilled."""

    kind: str = field(metadata={"description": "what went wrong, in one word for programs"})
    error: str = field(metadata={"description": "what went wrong and what to do, in one sentence"})


def gone() -> Refused:
    """The client does not wait for the answer."""
    return Refused(499, "gone", "The client closed the connection.")


def as_options(sentence: str, names: set[str]) -> str:
    """A sentence of the command with the names of options as requests write them: keep_colors, not --keep-colors."""
    spelled = {name.replace("_", "-"): name for name in names}

    def rename(match: re.Match[str]) -> str:
        return spelled.get(match[2], match[0])

    return re.sub(r"(?<![\w-])(--)?([a-z][a-z-]*[a-z])(?![\w-])", rename, sentence)
