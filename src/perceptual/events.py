"""`Step`, the progress report of every long-running function. The caller displays it and decides when to stop."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from torch import Tensor

_T = TypeVar("_T")


@dataclass(frozen=True)
class Step:
    """The progress of a long-running function.

    index: units of work done so far (optimiser steps, bytes, frames); 0 before the first.
    total: units of work in total, None if unknown.
    losses: unweighted loss terms by name, and "total", the weighted sum; empty if there are none.
    preview: RGB float [0, 1], (N, 3, H, W), on the CPU; None for most steps.
    message: one sentence for the user, or None.
    result: the product of the work, such as a picture, on the last Step; else None.
    """

    index: int
    total: int | None = None
    losses: Mapping[str, float] = field(default_factory=dict)
    preview: Tensor | None = None
    message: str | None = None
    result: Any = None

    def then(self, function: Callable[[Any], Any]) -> Step:
        """This Step with `function(result)` in place of its result; itself if it carries no result."""
        return self if self.result is None else replace(self, result=function(self.result))


def finish(work: Generator[Step, None, _T]) -> _T:
    """Run a generator of Steps to its end, ignore the Steps, and return its value."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            value: _T = stop.value
            return value
