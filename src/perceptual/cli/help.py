"""`perceptual COMMAND --help`: everyday options first, the others below; and the parsing of a command's words."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import tyro

from perceptual.cli.flags import REQUIRED, Flag, described, groups, shown
from perceptual.cli.terminal import fail, show
from perceptual.cli.usage import empty_path, sentence
from perceptual.config import weight_paths
from perceptual.errors import ConfigError, PerceptualError

T = TypeVar("T")

LINES = 100
"""A longer page gives one sentence for each option that is not for every day."""
COLUMN = 26
HELP, HELP_ALL = ("-h", "--help"), "--help-all"


_SETTINGS = "\0settings"


class WrongCommandLine(ConfigError):
    """The words of a command are wrong by themselves. Raised before any file is opened; the exit code is 2."""


@contextlib.contextmanager
def words(kind: type[PerceptualError] = ConfigError) -> Iterator[None]:
    """Errors of this kind in the block are about the words of the command: the block opens no file.

    Raises:
        WrongCommandLine: in place of an error of that kind.
    """
    try:
        yield
    except kind as error:
        raise WrongCommandLine(str(error)) from error


class _Settings(Exception):
    """Raised in place of a command's work, with the dataclass of its settings and its defaults."""


def settings_of(run: Callable[[Sequence[str]], int]) -> tuple[Any, Any]:
    """The dataclass that a command reads its words into, and an instance with its defaults, or None."""
    try:
        run([_SETTINGS])
    except _Settings as found:
        return found.args[0], found.args[1]
    raise TypeError(f"{run} does not parse its words.")


def parse(kind: type[T], arguments: Sequence[str], command: str, default: T | None = None) -> T:
    """The settings of a command from its words. On --help it prints a page and ends the process with exit code 0.

    kind: the dataclass of the settings. Its `everyday`, a tuple of names of fields, says which options come first.
    command: its name, such as "train style". default: an instance with the defaults; None for those of the class.

    Raises:
        WrongCommandLine: a value is out of range, options contradict each other, or --weights names no loss network.
        SystemExit: with code 2 for an unknown option, a missing word or a value of another type.
    """
    if _SETTINGS in arguments:
        raise _Settings(kind, default)
    if {*HELP, HELP_ALL} & set(arguments):
        width = max(60, min(100, shutil.get_terminal_size().columns))
        lines = page(kind, command, default, width=width)
        if len(lines) > LINES and HELP_ALL not in arguments:
            lines = page(kind, command, default, width=width, brief=True)
        show("\n".join(lines), lines=True)
        raise SystemExit(0)
    may_be_empty = any(not word or word.endswith("=") for word in arguments)
    if may_be_empty and (empty := empty_path(_flags(kind, default), arguments)):
        fail(f"{empty} See `perceptual {command} --help`.")
        raise SystemExit(2)
    printed = io.StringIO()
    try:
        with words(), contextlib.redirect_stderr(printed):
            if default is None:
                config = tyro.cli(kind, args=arguments, prog=f"perceptual {command}")
            else:
                config = tyro.cli(kind, args=arguments, prog=f"perceptual {command}", default=default)
            check_weights(getattr(config, "weights", ()))
            return config
    except SystemExit:
        fail(f"{sentence(printed.getvalue(), _flags(kind, default), arguments)} See `perceptual {command} --help`.")
        raise


def check_weights(pairs: Iterable[str]) -> None:
    """Check the NAME=FILE of --weights. The learned weights of LPIPS are "lpips".

    Raises:
        ConfigError: a part has no "=", or there is no loss network of that name.
    """
    if paths := weight_paths(pairs):
        from perceptual.losses.weights import PRETRAINED

        if unknown := [name for name in paths if name not in (*PRETRAINED, "lpips")]:
            raise ConfigError(f"--weights names {unknown[0]!r}; choose one of {', '.join(PRETRAINED)} or lpips.")


def _flags(kind: Any, default: Any) -> list[Flag]:
    return [flag for _, each in groups(kind, default) for flag in each]


def page(kind: Any, command: str, default: Any = None, *, width: int = 80, brief: bool = False) -> list[str]:
    """The lines of --help. brief: one line for each option that is not for every day."""
    (_, own), *inner = groups(kind, default)
    names = getattr(kind, "everyday", tuple(flag.field for flag in own))
    every = [flag for _, flags in (("", own), *inner) for flag in flags if flag.field in names or not flag.words]
    every.sort(key=lambda flag: (bool(flag.words), names.index(flag.field) if flag.field in names else 0))
    about, examples = described(kind)
    positional = [flag.value + " ..." * flag.kind.startswith("list") for flag in every if not flag.words]
    lines = [" ".join(("usage: perceptual", command, *positional, "[options]")), ""]
    for paragraph in about.split("\n\n"):
        lines += [*textwrap.wrap(paragraph, width, break_on_hyphens=False), ""]
    lines += _table(every, width)
    for heading, flags in (("More options", own), *inner):
        if rest := [flag for flag in flags if flag not in every]:
            lines += ["", re.split(r":|\.(?= [A-Z]|$)", heading)[0] + ":", *_table(rest, width, brief=brief)]
    lines += ["", "For every command:", "  -h, --help              print this page"]
    lines += [f"  {HELP_ALL:23} print this page with every option in full"] * brief
    lines += ["  --quiet, --json         print errors and results only; print results as JSON"]
    return [*lines, "", "Examples:", *(f"  {example}" for example in examples)] if examples else lines


def _table(flags: Iterable[Flag], width: int, *, brief: bool = False) -> Iterator[str]:
    for flag in flags:
        words = flag.words
        if len(words) > 1 and words[-1].startswith("--no-") and flag.default is not True:
            words = words[:-1]
        name = "  " + " ".join(filter(None, (", ".join(words), flag.value)))
        if brief:
            yield f"{name:{COLUMN - 2}}  {_short(flag, width - max(COLUMN, len(name) + 2))}"
            continue
        text = textwrap.wrap(_meaning(flag), width - COLUMN, break_on_hyphens=False) or [""]
        if len(name) <= COLUMN - 2:
            name += " " * (COLUMN - len(name)) + text.pop(0)
        yield name
        yield from (" " * COLUMN + line for line in text)


def _meaning(flag: Flag) -> str:
    """What a flag does, the words that it takes, and its default."""
    text = flag.meaning
    if any(choice not in text for choice in flag.choices):
        text = f"{text.rstrip('.')} ({', '.join(flag.choices)})."
    if flag.default is REQUIRED:
        return f"{text} (required)" if flag.words else text
    return text if "default:" in text.lower() else text + _default(flag)


def _default(flag: Flag) -> str:
    return "" if flag.default is False or not shown(flag.default) else f" [{shown(flag.default)}]"


def _short(flag: Flag, width: int) -> str:
    """The first sentence of a flag's meaning, or the words that it takes, on one line."""
    text = re.split(r"(?<=\.) (?=[A-Z`])", flag.meaning)[0]
    if flag.choices and text.startswith(flag.choices):
        text = f"One of {', '.join(flag.choices)}."
    default = _default(flag)
    if len(text) + len(default) <= width:
        return text + default
    default = default if len(default) < width // 4 else ""
    return textwrap.shorten(text, width - len(default), placeholder=" ...") + default
