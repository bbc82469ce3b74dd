"""The work on one file, wherever it is: fetch it, convert it by the function of the local command, store the result."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path, PurePosixPath
from typing import Any

from perceptual.apply import Outcome
from perceptual.cluster.names import as_url, fetch, store
from perceptual.errors import PerceptualError

Convert = Callable[[Path, Path], Outcome]
"""Converts one file into another, both on this machine. It raises a PerceptualError, or returns an Outcome with one."""
Results = Generator[Outcome | None, None, None]
"""An Outcome for each file. None from time to time while there is none, so that the caller can stop."""
Start = Callable[[], Convert]
"""Loads what the work needs, such as a network, and returns the function that does it. It travels to each worker."""


def do(source: str, target: str, convert: Convert, alone: AbstractContextManager[Any] | None = None) -> Outcome:
    """Convert one file; any failure becomes the error of the Outcome.

    alone: is held while `convert` works, and not while the file is fetched and stored. So a second thread can fetch
        the next file meanwhile.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="perceptual-") as folder:
        here = Path(folder, "input" + PurePosixPath(source).suffix) if as_url(source) else Path(source)
        there = Path(folder, "output" + PurePosixPath(target).suffix) if as_url(target) else Path(target)
        try:
            if as_url(source):
                fetch(source, here)
            with alone or nullcontext():
                made = convert(here, there)
            if made.error is None and as_url(target):
                store(there, target)
            error, warning = made.error, made.warning
        except PerceptualError as failure:
            made, error, warning = Outcome(source, target), str(failure), None
        except Exception as failure:  # one bad file must not end a run over a million
            text = " ".join(str(failure).split())
            made, warning = Outcome(source, target), None
            error = f"an unexpected error, {type(failure).__name__}: {text}; please report it."

    def renamed(text: str | None) -> str | None:
        return text and text.replace(str(here), source).replace(str(there), target)

    error = renamed(error)
    if error and source not in error:
        error = f"{source}: {error}"
    took = time.monotonic() - began
    return dataclasses.replace(made, source=source, target=target, error=error, warning=renamed(warning), seconds=took)


def work_here(pairs: Sequence[tuple[str, str]], start: Start) -> Results:
    """Convert files one after the other in this process. Yields an Outcome for each.

    Raises:
        PerceptualError: `start` cannot load what the work needs.
    """
    if pairs:
        convert = start()
        for source, target in pairs:
            yield do(source, target, convert)
