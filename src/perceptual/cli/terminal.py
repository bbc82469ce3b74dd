"""Output on the terminal while a command works: messages, progress bars, and stopping by Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from perceptual.cli import results

if TYPE_CHECKING:
    from perceptual.events import Step

FAILED, USAGE, INTERRUPTED = 1, 2, 130  # exit codes

_console = Console(stderr=True, highlight=False, soft_wrap=True)
_quiet = _silent = False


_UNSEEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str, *, lines: bool = False) -> str:
    """Replace control characters by escapes such as \\u001b, for example those that clear a terminal or reverse text.

    File names, cards and replies of servers may contain such characters. lines: keep line breaks; otherwise they
    become \\u000a.
    """
    text = text if lines else text.replace("\n", "\\u000a")
    return _UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def be_quiet(quiet: bool) -> None:
    """Print errors and requested results only, from now on, or everything again."""
    global _quiet, _silent
    _quiet, _silent = quiet, False


def is_quiet() -> bool:
    """Whether --quiet was given."""
    return _quiet


def be_silent() -> None:
    """Print nothing at all from now on, not even errors: another process of the same training prints them."""
    global _quiet, _silent
    _quiet = _silent = True


def say(text: str, *, lines: bool = False) -> None:
    """Print a message on stderr, made safe by `printable`, unless --quiet was given. A closed terminal is ignored."""
    if not _quiet:
        complain(text, lines=lines)


def complain(text: str, *, lines: bool = False) -> None:
    """Print an error on stderr, made safe by `printable`. A closed terminal is ignored."""
    if _silent:
        return
    with suppress(OSError):
        _console.print(printable(text, lines=lines), markup=False, emoji=False)


def fail(error: object) -> None:
    """Print an error in one sentence on stderr. It is the "error" of the document of --json."""
    results.put(error=str(error))
    complain(f"perceptual: {error}")


def show(text: object, *, lines: bool = False) -> None:
    """Print a requested result on stdout, made safe by `printable`, and flush. With --json it is kept for the end."""
    if results.wanted():
        results.line(str(text))
    elif not _silent:
        print(printable(str(text), lines=lines), flush=True)


def show_document(code: int) -> int:
    """Print the document of --json on stdout, if it was asked for. Returns the exit code."""
    if results.wanted() and not _silent:
        print(results.document(code), flush=True)
    return code


def tell(text: object) -> None:
    """Print a line about a result of longer work, like `show`, but do not stop the work if printing fails.

    With --quiet nothing is printed; with --json the line goes to stderr. A closed pipe, as in `| head -1`, is ignored.
    Other errors, such as a full disk, are reported once.
    """
    if results.wanted():
        results.line(str(text))
        say(str(text))
        return
    if _quiet:
        return
    try:
        show(text)
    except OSError as error:
        drop_stdout()
        if not isinstance(error, BrokenPipeError):
            complain(f"perceptual: {cannot_print(error)}")


def cannot_print(error: OSError) -> str:
    """The error message for a stdout that cannot be written."""
    return f"The results cannot be printed ({(error.strerror or str(error)).lower()}): redirect them to another place."


def drop_stdout() -> None:
    """Discard everything that is printed on stdout from now on, including the flush when Python exits."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def stop_in_imports() -> None:
    """At Ctrl-C while a module loads, print one line and end the process, with exit code 130.

    KeyboardInterrupt is not enough there: PyTorch and others catch it while they try whether NumPy is installed. The
    work then fails later, because a module is half loaded. Outside of imports KeyboardInterrupt is raised.
    """

    def note(number: int, frame: FrameType | None) -> None:
        outer = frame
        while outer is not None:
            if outer.f_code.co_filename.startswith("<frozen importlib."):
                results.put(error="stopped.")
                with suppress(OSError):
                    os.write(2, b"perceptual: stopped.\n")  # sys.stderr is redirected while the words are parsed
                    show_document(INTERRUPTED)
                os._exit(INTERRUPTED)
            outer = outer.f_back
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, note)


@contextmanager
def stop_on_signal(*, launched: bool = False) -> Generator[list[int], None, None]:
    """Collect Ctrl-C, SIGTERM and SIGHUP in a list, so that work can stop after the current step.

    A second signal raises KeyboardInterrupt at once.

    launched: a launcher started several processes. It passes signals on, also those that the processes have already,
        and sends SIGTERM to all as soon as one has ended. So further signals are ignored, until the program ends. The
        launcher itself stops the processes if they take too long.
    """
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        if received and not launched:
            raise KeyboardInterrupt
        if not received:
            say("Stopping after this step." + ("" if launched else " Press Ctrl-C again to stop at once."))
        received.append(number)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup ignores it
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items() if not launched else ():
            signal.signal(number, handler)


def with_bar(
    steps: Iterator[Step], title: str, done: int = 0, *, unit: str = "", brief: bool = False
) -> Generator[Step, None, None]:
    """Yield the steps, and show a progress bar with losses and remaining time. Without a terminal, print a line at most
    every 30 s.

    title: text before the bar. done: steps that were done by an earlier run. unit: what a step is, such as "frames", to
    show the rate in units per second instead of the losses. brief: for one of many pieces of work: the bar is removed
    at its end, and no line is printed in the first 30 seconds.
    """
    if _quiet:
        yield from steps
        return
    if not _console.is_terminal:
        yield from _with_lines(steps, title, done, unit=unit, brief=brief)
        return
    began = time.monotonic()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}% {task.fields[note]}", markup=False),
    )
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=_console, transient=brief) as progress:
        bar = None
        for step in steps:
            if bar is None:  # created late, so that work without steps shows no bar
                bar = progress.add_task(title, completed=done, note="")
            if step.message:
                say(step.message, lines=True)
            note = f"step {step.index} {_losses(step)}" if step.losses else ""
            note = _rate(step.index - done, began, unit) if unit else note
            progress.update(bar, completed=step.index, total=step.total, note=note)
            yield step


def _with_lines(steps: Iterator[Step], title: str, done: int, *, unit: str, brief: bool) -> Iterator[Step]:
    """`with_bar` without a terminal."""
    began = time.monotonic()
    printed_at, printed_index = began if brief else 0.0, done
    for step in steps:
        if step.message:
            say(step.message, lines=True)
        ends = step.index == step.total and not brief
        if (time.monotonic() - printed_at > 30 or ends) and step.index != printed_index:
            printed_at, printed_index = time.monotonic(), step.index
            note = _rate(step.index - done, began, unit) if unit else _losses(step)
            left = ""
            if step.total:
                left = f"{(printed_at - began) / max(1, step.index - done) * (step.total - step.index):.0f} s left"
            say(f"{title} {step.index}/{step.total or '?'}  {note}  {left}".rstrip())
        yield step


def _rate(count: int, began: float, unit: str) -> str:
    return f"{count / max(1e-3, time.monotonic() - began):.1f} {unit} per second"


def _losses(step: Step) -> str:
    return " ".join(
        f"{name} {value:.4g}" for name, value in step.losses.items() if name == "total" or len(step.losses) < 4
    )
