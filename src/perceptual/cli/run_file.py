"""`perceptual train --config run.toml`: the settings of a run as a file, as training writes it beside a checkpoint."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from perceptual.config import to_dict
from perceptual.errors import ConfigError, OutputError, shown
from perceptual.files import exists, write_beside

LEFT_OUT = frozenset({"config", "resume", "overwrite", "dry_run", "search", "held_out"})
"""Flags that say how to start a run, not what it is."""


def read(path: str | Path, task: str, known: Any) -> dict[str, Any]:
    """The settings in a file, checked against those that `perceptual train TASK` knows.

    known: an instance of the command's settings, with the nested ones in `settings`.

    Raises:
        ConfigError: no file, no TOML, a file of another task, or an unknown setting.
    """
    try:
        values = tomllib.loads(Path(os.path.expanduser(path)).read_text(encoding="utf-8", errors="surrogateescape"))
    except (OSError, ValueError, RecursionError) as error:
        reason = str(getattr(error, "strerror", None) or error).splitlines()[0].rstrip(".").lower()
        raise ConfigError(f"--config {path} cannot be read ({reason}): give a TOML file of a run.") from error
    if (other := values.pop("task", task)) != task:
        raise ConfigError(f"--config {path} is for `perceptual train {other}`, not for `perceptual train {task}`.")
    names = {key: value for key, value in to_dict(known).items() if key not in LEFT_OUT}
    _check(values, names, str(path), "")
    return values


def _check(values: Mapping[str, Any], known: Mapping[str, Any], path: str, table: str) -> None:
    """Raise a ConfigError if a key is unknown, or a table stands where a value does."""
    for key, value in values.items():
        if key not in known:
            names = ", ".join(known)
            raise ConfigError(f"--config {path} has an unknown setting {shown(table + key)}; choose from {names}.")
        if isinstance(known[key], Mapping) != isinstance(value, Mapping):
            kind = "a table" if isinstance(known[key], Mapping) else "a value, not a table"
            raise ConfigError(f"--config {path}: {table}{key} must be {kind}.")
        if isinstance(value, Mapping):
            _check(value, known[key], path, f"{table}{key}.")


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with some of them changed."""
    found = dict(base)
    for key, value in changes.items():
        found[key] = merged(base[key], value) if isinstance(value, Mapping) else value
    return found


def text(task: str, config: Any) -> str:
    """The settings of a run as TOML."""
    values = {"task": task, **to_dict(config)}
    values = {key: value for key, value in values.items() if key not in LEFT_OUT and value is not None}
    head = [f"# perceptual train {task} --config THIS_FILE repeats this run. Flags on the command line win.", ""]
    return "\n".join([*head, *_lines(values, "")]) + "\n"


def _lines(values: Mapping[str, Any], table: str) -> Iterator[str]:
    for key, value in values.items():
        if not isinstance(value, Mapping):
            yield f"{key} = {_toml(value)}"
    for key, value in values.items():
        if isinstance(value, Mapping):
            name = f"{table}.{key}" if table else key
            yield from ("", f"[{name}]", *_lines(value, name))


def _toml(value: Any) -> str:
    """A value as TOML. Its text has the escapes of JSON, except for DEL."""
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def check_new(path: Path, source: Path | None, written: str, *, replace: bool) -> None:
    """Check before the work that the file of a run replaces nothing else.

    source: the file that --config named. It stays as it is if it says the same as the run.

    Raises:
        OutputError: another file is there, or `source` itself, which says something else; and not `replace`.
    """
    if replace or not exists(path):
        return
    if source is None or not path.is_file() or not os.path.samefile(path, os.path.expanduser(source)):
        raise OutputError(f"{path} exists: choose another --out, or add --overwrite.")
    if not _same(path, written):
        raise OutputError(
            f"{path} would be replaced by the settings with the flags on the command line: change the file instead, "
            "choose another --out, or add --overwrite."
        )


def _same(path: Path, written: str) -> bool:
    return tomllib.loads(path.read_text(encoding="utf-8", errors="surrogateescape")) == tomllib.loads(written)


def write(path: Path, written: str) -> None:
    """Write the file of a run, unless it is there and says the same, perhaps with comments."""
    try:
        if path.is_file() and _same(path, written):
            return
    except ValueError:  # no TOML
        pass
    with write_beside(path) as temporary:
        temporary.write_text(written, encoding="utf-8", errors="surrogateescape")
