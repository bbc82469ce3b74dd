"""Notices a training run that ends far worse than it began, and keeps the weights from when it was best."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

FACTOR = 3.0
"""How many times its first and its best value the last mean of the objective must be for the run to have diverged."""


class Divergence:
    """Means of the objective over windows of steps.

    Args:
        steps: of the whole run; a window is a fifth of them, at most 20.

    Attributes: `first`, the objective of the untrained network; `last`, the mean of the last whole window; `best`, the
    least of these; `step`, the step that `best` belongs to; `weights`, copies of the network's tensors at that step.
    """

    def __init__(self, steps: int) -> None:
        self.window = max(1, min(20, steps // 5))
        self.first = self.last = self.best = 0.0
        self.step = 0
        self.weights: dict[str, Tensor] = {}
        self._totals: list[float] = []

    def begin(self, weights: Mapping[str, Tensor]) -> None:
        """Keep the tensors of the network before its first step; does nothing in a run that goes on."""
        if not self.weights:
            self.weights = _copies(weights)

    def add(self, total: float, step: int, weights: Callable[[], Mapping[str, Tensor]]) -> None:
        """Count the objective of one step, computed before its update; weights: gives the network's tensors now."""
        if not self.first:
            self.first = self.last = self.best = total
        self._totals.append(total)
        if len(self._totals) < self.window:
            return
        self.last = sum(self._totals) / len(self._totals)
        self._totals.clear()
        if self.last < self.best:
            self.best, self.step, self.weights = self.last, step, _copies(weights())

    @property
    def diverged(self) -> bool:
        """Whether the last window is far worse than the beginning and the best."""
        return self.last > FACTOR * max(self.first, self.best) > 0

    def numbers(self) -> dict[str, float]:
        """What a resumed run needs beside `weights`."""
        return {"first": self.first, "last": self.last, "best": self.best, "step": self.step}

    def restore(self, numbers: Mapping[str, float], weights: Mapping[str, Tensor]) -> None:
        """Go on from what `numbers` and `weights` held."""
        self.first, self.last, self.best = (float(numbers.get(name, 0)) for name in ("first", "last", "best"))
        self.step, self.weights = int(numbers.get("step", 0)), dict(weights)


def _copies(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in weights.items()}
