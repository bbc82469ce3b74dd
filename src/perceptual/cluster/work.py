"""The work on one file, wherever it is: fetch it, convert it by the function of the local command, store the result."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path, PurePosixPath
from typing import Any

from perceptual.cluster.names import as_url, fetch, store
from perceptual.errors import PerceptualError


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of one file. The names and their meanings are those of `apply.Outcome`.

    source, target: paths or URLs. facts: more for the document of --json. warning: what the user should know about a
    result that was written, such as damage in a video.
    """

    source: str
    target: str
    skipped: bool = False
    error: str | None = None
    frames: int = 1
    size: tuple[int, int] | None = None
    seconds: float = 0.0
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    warning: str | None = None


Convert = Callable[[Path, Path], Result]
"""Converts one file into another, both on this machine. It raises a PerceptualError, or returns a Result with one."""
Results = Generator["Result | None", None, None]
"""A Result for each file. None from time to time while there is none, so that the caller can stop."""
Start = Callable[[], Convert]
"""Loads what the work needs, such as a network, and returns the function that does it. It travels to each worker."""


def do(source: str, target: str, convert: Convert, alone: AbstractContextManager[Any] | None = None) -> Result:
    """Convert one file; any failure becomes the error of the Result.

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
            made, error, warning = Result(source, target), str(failure), None
        except Exception as failure:  # one bad file must not end a run over a million
            text = " ".join(str(failure).split())
            made, warning = Result(source, target), None
            error = f"an unexpected error, {type(failure).__name__}: {text}; please report it."

    def renamed(text: str | None) -> str | None:
        return text and text.replace(str(here), source).replace(str(there), target)

    error = renamed(error)
    if error and source not in error:
        error = f"{source}: {error}"
    took = time.monotonic() - began
    return dataclasses.replace(made, source=source, target=target, error=error, warning=renamed(warning), seconds=took)


def work_here(pairs: Sequence[tuple[str, str]], start: Start) -> Results:
    """Convert files one after the other in this process. Yields a Result for each.

    Raises:
        PerceptualError: `start` cannot load what the work needs.
    """
    if pairs:
        convert = start()
        for source, target in pairs:
            yield do(source, target, convert)
