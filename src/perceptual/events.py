"""Step: what every long piece of work yields, so that the caller owns the bar, the log and the stopping."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from torch import Tensor

_T = TypeVar("_T")


@dataclass(frozen=True)
class Step:
    """One tick of a long piece of work.

    index: units done so far (optimiser steps, bytes, frames), counted from 1; 0 is "about to begin".
    total: units in all, or None when that is not known.
    losses: named, unweighted terms, and "total" for the weighted sum; empty where there is nothing to tell.
    preview: RGB float [0, 1], (N, 3, H, W), on the CPU, on the ticks that carry one.
    message: something worth telling a person, as one sentence.
    result: what the work made, on the last Step of work that makes one thing, such as a picture; else None.
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
    """Run long work to its end, for those who need no Steps; returns its value."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            value: _T = stop.value
            return value
