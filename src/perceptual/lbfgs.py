"""Projected L-BFGS: minimise a function over a box, on whatever device the variables lie.

The paper minimises equation 5 by "projected L-BFGS by clipping the image y to the range [0, 255] at each iteration"
(section 4.1). To clip behind the back of an optimiser that knows nothing of it (`torch.optim.LBFGS`) gives it wrong
curvature: the step that it remembers is not the step that was taken. Here the step, the curvature and the sufficient
decrease are those of the clipped points. Every point is inside the box, and no accepted one is worse than the last.

SciPy's L-BFGS-B does as well per evaluation (`benchmarks/lbfgs.py`), but works on the CPU alone, in float64, and its
own share of an iteration at 512 x 512 px is a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

Function = Callable[[Tensor], tuple[float, Tensor]]

DECREASE = 1e-4  # share of the decrease that the slope promises which a step must bring (Armijo's rule)
CURVATURE = 1e-8  # pairs whose s and y are nearer to a right angle than this cosine say nothing about the curvature
FIRST_MOVE = 0.05  # mean change of a variable in a step that no curvature is known for, as a share of the box
TRIES = 20  # shorter and shorter steps before a direction is given up


@dataclass(frozen=True)
class Point:
    """x, inside the box, with the function's value and gradient there."""

    x: Tensor
    value: float
    gradient: Tensor


def minimize(
    function: Function, start: Tensor, *, low: float = 0.0, high: float = 1.0, history: int = 10
) -> Iterator[Point]:
    """Yield the start, clipped, then a better point after each iteration; ends when no step is better any more.

    function: x -> (value, gradient), finite at the start; where it is not, the step is too long. Its last call before a
        point is yielded was at that point.
    history: pairs of steps and gradient changes that are remembered, each twice the memory of x.

    The direction is L-BFGS's on the free variables, those not at a bound that the gradient pushes them against
    (Bertsekas, 1982; Schmidt et al., 2009); the step is shortened until it decreases the function enough.
    """
    x = start.detach().clamp(low, high)
    point = Point(x, *function(x))
    yield point
    pairs: list[tuple[Tensor, Tensor]] = []
    while True:
        x, gradient = point.x, point.gradient
        free = (~(((x <= low) & (gradient > 0)) | ((x >= high) & (gradient < 0)))).to(x)
        direction, step = _direction(gradient, free, pairs), 1.0
        if direction is None:
            pairs, direction = [], -gradient * free
            step = FIRST_MOVE * (high - low) / max(float(direction.abs().mean()), 1e-30)
        new = _search(function, point, direction, step, (low, high))
        if new is not None:
            s, y = new.x - x, new.gradient - gradient
            if float((s * y).sum()) > CURVATURE * float(s.norm() * y.norm()):
                pairs = [*pairs, (s, y)][-history:]
            point = new
            yield point
        elif pairs:
            pairs = []  # once more along the gradient itself
        else:
            return


def _search(function: Function, point: Point, direction: Tensor, step: float, box: tuple[float, float]) -> Point | None:
    """The first point, from `step` along the direction on backwards, clipped, that is enough lower; None without."""
    for _ in range(TRIES):
        x = (point.x + step * direction).clamp(*box)
        slope = float((point.gradient * (x - point.x)).sum())
        if not slope < 0:  # a stationary point, or rounding
            return None
        value, gradient = function(x)
        lower = value <= point.value + DECREASE * slope and value < point.value
        if lower and bool(gradient.isfinite().all()):
            return Point(x, value, gradient)
        curve = 2 * (value - point.value - slope)  # of the parabola through both values and the slope
        step *= min(0.5, max(0.1, -slope / curve)) if math.isfinite(curve) and curve > 0 else 0.1
    return None


def _direction(gradient: Tensor, free: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> Tensor | None:
    """Minus the inverse Hessian that the pairs tell of, times the gradient, both among the free variables (two-loop
    recursion); None when they tell nothing."""
    q = -gradient * free
    known = []
    for s, y in pairs:
        s, y = s * free, y * free
        curvature = (s * y).sum()
        if curvature > CURVATURE * s.norm() * y.norm():
            known.append((s, y, curvature))
    if not known:
        return None
    shares = []
    for s, y, curvature in reversed(known):
        shares.append((s * q).sum() / curvature)
        q = q - shares[-1] * y
    s, y, curvature = known[-1]
    q = q * (curvature / (y * y).sum())
    for (s, y, curvature), share in zip(known, reversed(shares), strict=True):
        q = q + s * (share - (y * q).sum() / curvature)
    return q
