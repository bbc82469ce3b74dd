"""What a person at a terminal sees while a command works: messages, bars, and Ctrl-C between two steps."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from perceptual.events import Step

FAILED, USAGE, INTERRUPTED = 1, 2, 130  # exit codes

_console = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Print a line on stderr, as it is; a terminal that has gone is no reason to end."""
    with suppress(OSError):
        _console.print(escape(text))


def tell(text: str) -> None:
    """Print a line of results on stdout, at once; a reader that has gone, or a full disk, is no reason to end the work.

    A reader that has gone, as in `| head -1`, has what it wants. What a full disk lacks is said once.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        drop_stdout()
        if not isinstance(error, BrokenPipeError):
            say(f"perceptual: {cannot_print(error)}")


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


def with_bar(steps: Iterator[Step], title: str, done: int = 0, *, unit: str = "") -> Generator[Step, None, None]:
    """Pass steps on, showing a bar with losses and time left on a terminal, and a plain line now and then elsewhere.

    unit: what the steps count, such as frames, to say how many of them come in a second.
    """
    began = time.monotonic()
    if not _console.is_terminal:
        shown, told = 0.0, done
        for step in steps:
            if step.message:
                say(step.message)
            if (time.monotonic() - shown > 30 or step.index == step.total) and step.index != told:
                shown, told = time.monotonic(), step.index
                note = _rate(step.index - done, began, unit) if unit else _losses(step)
                left = ""
                if step.total:
                    left = f"{(shown - began) / max(1, step.index - done) * (step.total - step.index):.0f} s left"
                say(f"{title} {step.index}/{step.total or '?'}  {note}  {left}".rstrip())
            yield step
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}% {task.fields[note]}"),
    )
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=_console) as progress:
        bar = None
        for step in steps:
            if bar is None:  # no bar for work that ends before its first step
                bar = progress.add_task(title, completed=done, note="")
            if step.message:
                progress.console.print(escape(step.message))
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
