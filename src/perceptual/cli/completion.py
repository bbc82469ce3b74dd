"""`perceptual --print-completion SHELL`: a script that completes commands, flags and the words that flags take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from perceptual.cli.flags import groups
from perceptual.cli.help import WrongCommandLine, settings_of
from perceptual.errors import shown

Command = Callable[[Sequence[str]], int]
ALWAYS = ("--help", "--quiet", "--json")

_BASH = """_perceptual() {
    local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" command="${COMP_WORDS[1]}" words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="FIRST"
    else
        case "$command" in GROUPS) [ "$COMP_CWORD" -eq 2 ] || command="$command ${COMP_WORDS[2]}" ;; esac
        case "$command $prev" in
VALUES
            *) case "$command" in
FLAGS
            esac ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o default -F _perceptual perceptual
"""


class Entry(NamedTuple):
    """A command: what it does, its flags, and the words of those flags that take one of a few."""

    about: str
    flags: tuple[str, ...]
    words: Mapping[str, tuple[str, ...]]


def script(shell: str, commands: Mapping[str, tuple[Command, str]]) -> str:
    """The script for bash, zsh or fish.

    Raises:
        WrongCommandLine: another shell.
    """
    entries = {name: _entry(*command) for name, command in commands.items() if not name.startswith("-")}
    if shell == "fish":
        return "\n".join(_fish(entries)) + "\n"
    if shell not in ("bash", "zsh"):
        raise WrongCommandLine(
            f"There is no completion for {shown(shell)}: give bash, zsh or fish to --print-completion."
        )
    return "autoload -U +X bashcompinit && bashcompinit\n" * (shell == "zsh") + _bash(entries)


def _entry(run: Command, about: str) -> Entry:
    from perceptual.checkpoints import gallery

    flags = [flag for _, each in groups(*settings_of(run)) for flag in each if flag.words]
    words = {word: flag.choices for flag in flags if flag.choices for word in flag.words}
    if any(flag.words == ("--style",) and flag.kind == "text" for flag in flags):
        words["--style"] = tuple(gallery())
    return Entry(about, (*(word for flag in flags for word in flag.words), *ALWAYS), words)


def _groups(entries: Mapping[str, Entry]) -> dict[str, list[str]]:
    """{"train": ["style", "upscale"]}: the first words that a second one may follow."""
    found: dict[str, list[str]] = {}
    for first, second in (name.split() for name in entries if " " in name):
        found.setdefault(first, []).append(second)
    return found


def _bash(entries: Mapping[str, Entry]) -> str:
    values, flags, grouped = list[str](), list[str](), _groups(entries)
    for name, entry in entries.items():
        values += [f'            "{name} {flag}") words="{" ".join(each)}" ;;' for flag, each in entry.words.items()]
        more = " ".join(grouped.get(name, ()))
        dashed = f'case "$cur" in -*) words="{" ".join(entry.flags)}" ;; *) words="{more}" ;; esac'
        flags.append(f'                "{name}") {dashed} ;;')
    flags += [f'                "{k}") words="{" ".join(v)} --help" ;;' for k, v in grouped.items() if k not in entries]
    parts = {
        "FIRST": " ".join(dict.fromkeys(name.split()[0] for name in entries)) + " --help --version",
        "GROUPS": "|".join(grouped),
        "VALUES": "\n".join(values),
        "FLAGS": "\n".join(flags),
    }
    text = _BASH
    for key, part in parts.items():
        text = text.replace(key, part)
    return text


def _fish(entries: Mapping[str, Entry]) -> Iterator[str]:
    yield "complete -c perceptual -n __fish_use_subcommand -f"
    for first in dict.fromkeys(name.split()[0] for name in entries):
        about = entries[first].about if first in entries else f"{first} ..."
        yield f"complete -c perceptual -n __fish_use_subcommand -a {first} -d {_quoted(about)}"
    for name, entry in entries.items():
        first, *second = name.split()
        seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in (first, *second))
        if second:
            after = f"'__fish_seen_subcommand_from {first}'"
            yield f"complete -c perceptual -n {after} -a {second[0]} -d {_quoted(entry.about)}"
        for flag in entry.flags:
            kind = f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
            values = f" -x -a {_quoted(' '.join(entry.words[flag]))}" if flag in entry.words else ""
            yield f"complete -c perceptual -n '{seen}' {kind}{values}"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
