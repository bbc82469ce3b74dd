"""--json: the results of a command as one JSON document.

A command puts its facts here while it works, whether or not --json was given. `cli.main` prints the document at the
end, and nothing else is printed on stdout then. Messages and progress bars stay on stderr.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

MEANINGS = {
    0: "all went well",
    1: "an error, or a file failed",
    2: "the command line is wrong",
    130: "stopped by Ctrl-C",
}
"""What the exit codes mean."""

_facts: dict[str, Any] = {}
_lines: list[str] = []
_wanted, _began = False, 0.0


def begin(*, wanted: bool) -> None:
    """Start an empty document. wanted: whether it will be printed, because --json was given."""
    global _wanted, _began
    _facts.clear()
    _lines.clear()
    _wanted, _began = wanted, time.monotonic()


def wanted() -> bool:
    """Whether --json was given."""
    return _wanted


def put(**facts: Any) -> None:
    """Set facts of the document, such as steps=500. Paths become text; numbers that are not finite become null."""
    _facts.update(facts)


def add(name: str, entry: Any) -> None:
    """Append an entry to a list of the document, such as one file to "files"."""
    _facts.setdefault(name, []).append(entry)


def line(text: str) -> None:
    """Keep text that the command prints without --json. The document has it as "lines" if it has no other facts."""
    _lines.extend(text.splitlines())


def document(code: int) -> str:
    """The document as text. code: the exit code of the command."""
    head = {
        "command": _facts.get("command"),
        "exit_code": code,
        "meaning": MEANINGS.get(code, ""),
        "error": _facts.get("error"),
        "seconds": round(time.monotonic() - _began, 3),
    }
    facts = {name: value for name, value in _facts.items() if name not in head}
    if _lines and not facts:
        facts["lines"] = _lines
    return json.dumps(_plain({**head, **facts}), indent=2, allow_nan=False)  # ASCII, so any terminal can print it


def _plain(value: Any) -> Any:
    """The value in types of JSON."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, Sequence):
        return [_plain(each) for each in value]
    return str(value)
