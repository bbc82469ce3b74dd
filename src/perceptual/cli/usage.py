"""What is wrong with a command line, in one sentence. tyro finds the mistake, and its text is replaced here."""

from __future__ import annotations

import difflib
import itertools
import os
import re
from collections.abc import Sequence

from perceptual.cli.flags import REQUIRED, Flag


def sentence(printed: str, flags: Sequence[Flag], arguments: Sequence[str]) -> str:
    """One sentence about a mistake in the words of a command.

    printed: what tyro printed about it. flags: all flags of the command. arguments: its words.
    """
    text = _without_box(printed)
    known = {word: flag for flag in flags for word in (*flag.words, *([] if flag.words else [flag.value]))}
    before = arguments[: arguments.index("--")] if "--" in arguments else arguments
    for word in before:
        if word.startswith("--") and plain_flag(word) not in {*known, "--"}:
            return _no_option(word, known)
    if found := re.match(r"Unrecognized options: (.*?)(, |; |$)", text):
        return _too_many(found[1], known, arguments)
    if found := re.match(r"invalid choice '(.*)' for argument '(.*?)'", text):
        name, flag = _named(found[2], known)
        return f"{name} is {found[1]!r}; choose one of {', '.join(flag.choices)}." if flag else text
    if found := re.match(r"Error parsing (\S+): ", text):
        name, flag = _named(found[1], known)
        return f"{name} takes {_kind(flag)}, not {_given(flag, arguments)!r}." if flag else text
    if found := re.match(r"Missing value for argument '(.*?)'", text):
        name, flag = _named(found[1], known)
        return f"{name} needs a value: {name} {flag.value}." if flag and flag.words else f"{name.upper()} is missing."
    if text.startswith("Missing from "):
        missing = [flag for flag in flags if flag.default is REQUIRED and not _is_given(flag, printed, arguments)]
        names = [" ".join(filter(None, (*flag.words[-1:], flag.value))) for flag in missing]
        if names:
            *first, last = names
            return f"{', '.join(first)} and {last} are missing." if first else f"{last} is missing."
    return text


NAMES = {"--from", "--search", "--recipe", "--style", "--network"}
"""Flags with a name or a path as their value. An empty one has no meaning."""


def empty_path(flags: Sequence[Flag], arguments: Sequence[str]) -> str | None:
    """One sentence if a path or a name is empty, as in `-o "$UNSET"`: it would mean the current folder, or be ignored.
    Else None."""
    paths = {word for flag in flags if flag.kind == "path" for word in flag.words} | NAMES
    for word, following in itertools.zip_longest(arguments, arguments[1:]):
        name, equals, value = word.partition("=")
        if plain_flag(name) in paths and (following == "" if not equals else not value):
            return f"The value of {name} is empty: give a name."
    return None


def plain_flag(word: str) -> str:
    """A flag without its value and in tyro's spelling: --style_scale=2 is --style-scale."""
    return word.partition("=")[0].replace("_", "-")


def _no_option(word: str, known: dict[str, Flag]) -> str:
    """The sentence about a flag that the command does not have."""
    bare = [name.lstrip("-") for name in known if name.startswith("--")]
    close = difflib.get_close_matches(plain_flag(word).lstrip("-"), bare, n=1)
    file = f" For the file of this name write ./{word}." if os.path.exists(word) else ""
    return f"There is no option {plain_flag(word)}{f' (did you mean --{close[0]}?)' if close else ''}.{file}"


def _too_many(word: str, known: dict[str, Flag], arguments: Sequence[str]) -> str:
    """The sentence about a word that no option takes."""
    if word.startswith("-"):
        return _no_option(word, known)
    previous = arguments[arguments.index(word) - 1] if word in arguments[1:] else ""
    switch = known.get(plain_flag(previous))
    if switch is not None and not switch.value:
        return f"{previous} takes no value: leave {word!r} out."
    return f"{word!r} is one word too many: leave it out."


def _named(name: str, known: dict[str, Flag]) -> tuple[str, Flag | None]:
    """A flag and its name, from the name that tyro prints, such as -o/--out."""
    name = name.rpartition("/")[2]
    return name, known.get(name) or known.get(name.upper())


def _kind(flag: Flag) -> str:
    """The values that a flag takes, in words, such as "a number from 0 to 1"."""
    if flag.kind.startswith("list: "):
        kind, comma, limits = flag.kind.removeprefix("list: ").partition(", ")
        return f"{kind}s{comma and ' from '}{limits}"
    return f"a {flag.kind.replace(', ', ' from ', 1)}"


def _given(flag: Flag, arguments: Sequence[str]) -> str:
    """The value that a flag has in the words of a command; of a list, all of them."""
    for index in reversed(range(len(arguments))):
        if plain_flag(arguments[index]) in flag.words:
            _, equals, value = arguments[index].partition("=")
            rest = arguments[index + 1 :]
            end = next((k for k, word in enumerate(rest) if re.match(r"-\D", word)), len(rest))
            return value if equals else " ".join(rest[: end if flag.kind.startswith("list: ") else 1])
    return " ".join(arguments)


def _is_given(flag: Flag, printed: str, arguments: Sequence[str]) -> bool:
    """Whether a required flag is among the words, or a positional argument is not among those that tyro misses."""
    if flag.words:
        return any(plain_flag(word) in flag.words for word in arguments)
    return flag.value not in {line.strip("│ ") for line in printed.splitlines()}


def _without_box(text: str) -> str:
    """What is wrong with the command line, on one line, out of the box that tyro draws around it.

    The box is of spaces and hyphens, with its title on a line of its own, where stdout is not UTF-8.
    """
    lines = [line.strip("│ ") for line in text.splitlines() if not line.startswith(("╭", "╰"))]
    parts = "\n".join("" if set(line) <= set("─-") else line for line in lines).split("\n\n")
    hints = ("For full helptext", "Argument helptext")
    wrong = [" ".join(part.split()) for part in parts if part.strip() and not part.startswith(hints)]
    return "; ".join(wrong if "│" in text else wrong[1:]) or " ".join(text.split())
