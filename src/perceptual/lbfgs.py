"""Projected L-BFGS: minimise a function over a box, on any device.

The paper minimises equation 5 by a projected L-BFGS that clips the image to [0, 255] at each iteration (section 4.1).
It does not say more. `torch.optim.LBFGS` does not know that its result was clipped: it stores a step that was not
taken, so its curvature is wrong. Departure from the paper: here the step, the curvature and the sufficient decrease are
computed from the clipped points. Every point is inside the box, and the function never increases.

SciPy's L-BFGS-B needs as many evaluations (`benchmarks/lbfgs.py`), but it runs only on the CPU in float64, and takes a
second per iteration at 512 x 512 px in addition to the function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

Function = Callable[[Tensor], tuple[float, Tensor]]

DECREASE = 1e-4  # a step must achieve this share of the decrease that the slope predicts (Armijo's rule)
CURVATURE = 1e-8  # pairs (s, y) with a smaller cosine of their angle are ignored: they hold no curvature information
FIRST_MOVE = 0.05  # mean change of a variable in a step without curvature information, as a share of the box
TRIES = 20  # number of shortened steps that are tried before a direction is given up


@dataclass(frozen=True)
class Point:
    """A point x inside the box, with the value and the gradient of the function at x."""

    x: Tensor
    value: float
    gradient: Tensor


def minimize(
    function: Function, start: Tensor, *, low: float = 0.0, high: float = 1.0, history: int = 10
) -> Iterator[Point]:
    """Minimise a function over a box. Yields the clipped start, then a better point after each iteration. Ends when no
    step lowers the function.

    function: x -> (value, gradient). Both must be finite at the start; elsewhere, a step to a non-finite value is
        shortened. The last call before a point is yielded is at that point.
    start: any shape. low, high: bounds of all variables.
    history: number of pairs of steps and gradient changes to keep; each needs twice the memory of x.

    The direction is that of L-BFGS on the free variables. A variable is not free if it is at a bound and the gradient
    pushes it outwards (Bertsekas, 1982; Schmidt et al., 2009). The step is shortened until the decrease is sufficient.
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
            pairs = []  # try again along the gradient
        else:
            return


def _search(function: Function, point: Point, direction: Tensor, step: float, box: tuple[float, float]) -> Point | None:
    """Shorten `step` along the direction until the clipped point is sufficiently lower; None if no step is."""
    for _ in range(TRIES):
        x = (point.x + step * direction).clamp(*box)
        slope = float((point.gradient * (x - point.x)).sum())
        if not slope < 0:  # a stationary point, or rounding
            return None
        value, gradient = function(x)
        lower = value <= point.value + DECREASE * slope and value < point.value
        if lower and bool(gradient.isfinite().all()):
            return Point(x, value, gradient)
        curve = 2 * (value - point.value - slope)  # second derivative of the parabola through both values and the slope
        step *= min(0.5, max(0.1, -slope / curve)) if math.isfinite(curve) and curve > 0 else 0.1
    return None


def _direction(gradient: Tensor, free: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> Tensor | None:
    """Minus the approximate inverse Hessian times the gradient, for the free variables (two-loop recursion); None if no
    pair has curvature information."""
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
