"""What a person at a terminal sees while a command works: messages, bars, and Ctrl-C between two steps."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from perceptual.events import Step

FAILED, USAGE, INTERRUPTED = 1, 2, 130  # exit codes

_console = Console(stderr=True, highlight=False, soft_wrap=True)


_UNSEEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str, *, lines: bool = False) -> str:
    """Text with control characters, such as those that colour or clear a terminal or turn text round, as \\u001b.

    Names of files, cards and answers of servers may hold them. lines: line breaks stay; else they are \\u000a.
    """
    text = text if lines else text.replace("\n", "\\u000a")
    return _UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def say(text: str, *, lines: bool = False) -> None:
    """Print a line on stderr, or several, as `printable`; a terminal that has gone is no reason to end."""
    with suppress(OSError):
        _say(_console, text, lines=lines)


def show(text: object, *, lines: bool = False) -> None:
    """Print a line of what was asked for on stdout, or several, as `printable`, at once."""
    print(printable(str(text), lines=lines), flush=True)


def tell(text: object) -> None:
    """Print a line about a result of longer work, as `show`.

    A reader that has gone, as in `| head -1`, has what it wants, and the work goes on. What a full disk lacks is said
    once.
    """
    try:
        show(text)
    except OSError as error:
        drop_stdout()
        if not isinstance(error, BrokenPipeError):
            say(f"perceptual: {cannot_print(error)}")


def _say(console: Console, text: str, *, lines: bool = False) -> None:
    console.print(printable(text, lines=lines), markup=False, emoji=False)


def cannot_print(error: OSError) -> str:
    """The sentence for a stdout that takes no more."""
    return f"The list of results cannot be printed ({(error.strerror or str(error)).lower()}): send it somewhere else."


def drop_stdout() -> None:
    """Send what is printed from now on nowhere, also what Python prints at its end."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextmanager
def stop_on_signal() -> Generator[list[int], None, None]:
    """Collect Ctrl-C, SIGTERM and the end of the terminal in a list, so that work can end between two steps; a second
    one ends it at once.
    """
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        say("Stopping after this step; once more stops at once.")

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def with_bar(
    steps: Iterator[Step], title: str, done: int = 0, *, unit: str = "", brief: bool = False
) -> Generator[Step, None, None]:
    """Pass steps on, showing a bar with losses and time left on a terminal, and a plain line now and then elsewhere.

    unit: what the steps count, such as frames, to say how many of them come in a second. brief: for one of many pieces
        of work: its bar goes away at its end, and there are no lines in its first 30 seconds.
    """
    began = time.monotonic()
    if not _console.is_terminal:
        printed_at, printed = began if brief else 0.0, done
        for step in steps:
            if step.message:
                say(step.message)
            ends = step.index == step.total and not brief
            if (time.monotonic() - printed_at > 30 or ends) and step.index != printed:
                printed_at, printed = time.monotonic(), step.index
                note = _rate(step.index - done, began, unit) if unit else _losses(step)
                left = ""
                if step.total:
                    left = f"{(printed_at - began) / max(1, step.index - done) * (step.total - step.index):.0f} s left"
                say(f"{title} {step.index}/{step.total or '?'}  {note}  {left}".rstrip())
            yield step
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}% {task.fields[note]}", markup=False),
    )
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=_console, transient=brief) as progress:
        bar = None
        for step in steps:
            if bar is None:  # no bar for work that ends before its first step
                bar = progress.add_task(title, completed=done, note="")
            if step.message:
                _say(progress.console, step.message)
            note = f"step {step.index} {_losses(step)}" if step.losses else ""
            note = _rate(step.index - done, began, unit) if unit else note
            progress.update(bar, completed=step.index, total=step.total, note=note)
            yield step


def _rate(count: int, began: float, unit: str) -> str:
    return f"{count / max(1e-3, time.monotonic() - began):.1f} {unit} a second"


def _losses(step: Step) -> str:
    return " ".join(
        f"{name} {value:.4g}" for name, value in step.losses.items() if name == "total" or len(step.losses) < 4
    )
