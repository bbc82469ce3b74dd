"""Detects a training run that diverged, and keeps the best weights of the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

FACTOR = 3.0
"""A run has diverged if all values of its last window are more than this many times its first and its best value."""


class Divergence:
    """Means of the objective over windows of steps.

    Args:
        steps: number of steps of the whole run. A window is a fifth of them, at most 20 steps.

    Attributes:
        first: the objective of the untrained network.
        last: the mean of the objective over the last complete window. low: its smallest value there, because one step
            with difficult photos is no sign of divergence.
        best: the smallest value of `first` and of all window means.
        step: the step of `best`.
        weights: copies of the network's tensors at that step.
    """

    def __init__(self, steps: int) -> None:
        self.window = max(1, min(20, steps // 5))
        self.first = self.last = self.low = self.best = 0.0
        self.step = 0
        self.weights: dict[str, Tensor] = {}
        self._totals: list[float] = []

    def begin(self, weights: Mapping[str, Tensor]) -> None:
        """Copy the network's tensors before the first step. Does nothing in a resumed run."""
        if not self.weights:
            self.weights = _copies(weights)

    def add(self, total: float, step: int, weights: Callable[[], Mapping[str, Tensor]]) -> None:
        """Add the objective of one step.

        total: the objective, computed before the update of the step. step: number of steps done. weights: a function
            that returns the network's current tensors.
        """
        if not self.first:
            self.first = self.last = self.low = self.best = total
        self._totals.append(total)
        if len(self._totals) < self.window:
            return
        self.last, self.low = sum(self._totals) / len(self._totals), min(self._totals)
        self._totals.clear()
        if self.last < self.best:
            self.best, self.step, self.weights = self.last, step, _copies(weights())

    @property
    def diverged(self) -> bool:
        """True if the smallest value of the last window is more than FACTOR times the first and the best value."""
        return self.low > FACTOR * max(self.first, self.best) > 0

    def describe(self, out: Path) -> str:
        """The message of a run that diverged. out: the checkpoint, which contains the best weights."""
        return (
            f"The training diverged: its objective rose from {self.first:.4g} to {self.last:.4g}. {out} contains the "
            f"best weights, those of step {self.step}: lower --learning-rate."
        )

    def numbers(self) -> dict[str, float]:
        """The numbers that a resumed run needs. It also needs `weights`."""
        return {"first": self.first, "last": self.last, "low": self.low, "best": self.best, "step": self.step}

    def restore(self, numbers: Mapping[str, float], weights: Mapping[str, Tensor]) -> None:
        """Restore the saved results of `numbers()` and of `weights`."""
        names = ("first", "last", "low", "best")
        self.first, self.last, self.low, self.best = (float(numbers.get(name, 0)) for name in names)
        self.step, self.weights = int(numbers.get("step", 0)), dict(weights)


def _copies(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in weights.items()}
