"""lbfgs: the least value of a function over a box, reached without ever leaving the box or going up."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from torch import Tensor

from perceptual.lbfgs import Function, Point, minimize

close = torch.testing.assert_close
wide = st.floats(-3, 3)
few = settings(max_examples=25, deadline=None)


def with_gradient(value: Callable[[Tensor], Tensor]) -> Function:
    def function(x: Tensor) -> tuple[float, Tensor]:
        x = x.detach().requires_grad_()
        result = value(x)
        return result.item(), torch.autograd.grad(result, x)[0]

    return function


def quadratic(matrix: Tensor, goal: Tensor) -> Function:
    return with_gradient(lambda x: (x - goal) @ matrix @ (x - goal) / 2)


def rosenbrock(x: Tensor) -> Tensor:
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def descend(function: Function, start: Tensor, most: int = 300, **options: float) -> list[Point]:
    return list(itertools.islice(minimize(function, start, **options), most))


@few
@given(st.lists(st.tuples(st.floats(1, 100), wide, st.floats(0, 1)), min_size=1, max_size=8))
def test_a_separable_quadratic_is_least_at_its_clipped_centre(variables: list[tuple[float, float, float]]) -> None:
    curvature, centre, start = vector(*itertools.chain(*zip(*variables, strict=True))).view(3, -1)
    last = descend(quadratic(curvature.diag(), centre), start)[-1]
    close(last.x, centre.clamp(0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", range(5))
def test_it_finds_the_minimum_that_scipy_finds_in_about_as_many_iterations(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(20, 20, generator=generator, dtype=torch.float64)
    matrix = factor @ factor.T + 0.1 * torch.eye(20)
    function = quadratic(matrix, 2 * torch.rand(20, generator=generator, dtype=torch.float64) - 0.5)
    points = descend(function, torch.full((20,), 0.5, dtype=torch.float64))
    ours = points[-1]

    def of_numpy(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = function(torch.from_numpy(x))
        return value, gradient.numpy()

    settings = {"ftol": 1e-15, "gtol": 1e-10}
    theirs = optimize.minimize(
        of_numpy, np.full(20, 0.5), jac=True, method="L-BFGS-B", bounds=[(0, 1)] * 20, options=settings
    )
    bound = int(((ours.x == 0) | (ours.x == 1)).sum())
    assert 0 < bound < 20  # the box matters, and is not all
    assert ours.value == pytest.approx(theirs.fun, rel=1e-6)
    close(ours.x, torch.from_numpy(theirs.x), atol=1e-3, rtol=0)
    assert len(points) < 1.6 * theirs.nit + 4


@pytest.mark.parametrize("history", [1, 2, 5, 500])
def test_rosenbrocks_valley_is_followed_to_its_end(history: int) -> None:
    last = descend(with_gradient(rosenbrock), vector(-1.2, 1), low=-2, high=2, history=history)[-1]
    close(last.x, vector(1, 1), atol=1e-4, rtol=0)


def test_rosenbrocks_valley_is_followed_to_the_edge_of_the_box() -> None:
    last = descend(with_gradient(rosenbrock), vector(-1.2, 0.3), low=-2, high=0.5)[-1]
    close(last.x, vector(0.5, 0.25), atol=1e-4, rtol=0)  # on the valley's floor, y = x^2
    assert last.value == pytest.approx(0.25)  # (1 - 0.5)^2


@few
@given(
    st.lists(st.tuples(wide, wide, wide, wide), min_size=2, max_size=6),
    st.floats(-2, 0),
    st.floats(0.1, 2),
    st.integers(1, 4),
)
def test_it_never_leaves_the_box_and_never_goes_up(
    numbers: list[tuple[float, float, float, float]], low: float, high: float, history: int
) -> None:
    """On functions with several hills, from starts anywhere; points that are only tried lie inside the box too."""
    slope, height, pace, start = vector(*itertools.chain(*zip(*numbers, strict=True))).view(4, -1)
    hills, tried = with_gradient(lambda x: (slope * x + height * (pace * x).sin()).sum() + x.prod()), []

    def function(x: Tensor) -> tuple[float, Tensor]:
        tried.append(x)
        return hills(x)

    points = descend(function, start, 30, low=low, high=high, history=history)
    assert torch.equal(points[0].x, start.clamp(low, high))
    assert all(((low <= x) & (x <= high)).all() for x in tried)
    values = [point.value for point in points]
    assert all(after < before for before, after in itertools.pairwise(values))


def test_a_plane_is_least_in_a_corner_and_there_it_ends() -> None:
    plane = with_gradient(lambda x: x @ vector(3, -1, 0.5, -7))
    points = descend(plane, torch.full((4,), 0.5, dtype=torch.float64))
    assert len(points) < 30
    assert points[-1].x.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("start", [(0.5, 0.5), (0.25, 1.0)], ids=["inside", "at the edge"])
def test_it_ends_at_once_where_no_step_is_better(start: tuple[float, float]) -> None:
    centre = vector(*start) + vector(0, start[1] == 1)  # for the edge, a centre beyond it
    bowl, tried = quadratic(torch.eye(2, dtype=torch.float64), centre), []

    def function(x: Tensor) -> tuple[float, Tensor]:
        tried.append(x.tolist())
        return bowl(x)

    points = minimize(function, vector(*start))
    assert next(points).x.tolist() == list(start)
    with pytest.raises(StopIteration):
        next(points)
    assert tried == [list(start)]


def test_it_ends_when_the_minimum_is_reached() -> None:
    points = descend(quadratic(torch.diag(vector(1, 30, 9)), vector(0.2, 0.7, 4)), vector(0, 0, 0))
    # The least value is 40.5, of which a double knows 7e-15: a step of less than 1e-7 need not lower it.
    close(points[-1].x, vector(0.2, 0.7, 1), atol=1e-6, rtol=0)
    assert len(points) < 50


def test_a_direction_that_fails_is_not_the_end() -> None:
    """From here L-BFGS's own direction leads uphill after two steps; the gradient leads to where cos 3x = -1/3."""
    hills = with_gradient(lambda x: 2 * (3 * x).sin().sum() + 2 * x.prod())
    last = descend(hills, vector(-1, 0.5), low=-1)[-1]
    close(last.x, vector(-math.acos(-1 / 3) / 3, 1), atol=1e-6, rtol=0)


def test_not_a_number_shortens_the_step() -> None:
    tried: list[float] = []
    barrier = with_gradient(lambda x: (x - 0.01 * (x - 0.02).log()).sum())  # none below 0.02, and least at 0.03

    def function(x: Tensor) -> tuple[float, Tensor]:
        value, gradient = barrier(x)
        tried.append(value)
        return value, gradient

    points = descend(function, vector(0.06, 0.05))
    assert any(value != value for value in tried)
    assert all(point.value == point.value for point in points)
    close(points[-1].x, vector(0.03, 0.03), atol=1e-6, rtol=0)


def test_a_gradient_of_not_a_number_shortens_the_step() -> None:
    slope = with_gradient(lambda x: (x - 0.03).square().sum())

    def function(x: Tensor) -> tuple[float, Tensor]:
        value, gradient = slope(x)
        return value, gradient if x.min() > 0.025 else gradient * float("nan")

    close(descend(function, vector(0.07, 0.07))[-1].x, vector(0.03, 0.03), atol=1e-6, rtol=0)


def test_the_last_evaluation_was_at_the_point_that_is_yielded() -> None:
    """So whoever iterates may keep what the function found on its way, such as the terms of a sum."""
    calls: list[Tensor] = []
    valley = with_gradient(rosenbrock)

    def function(x: Tensor) -> tuple[float, Tensor]:
        calls.append(x.clone())
        return valley(x)

    yielded = 0
    for point in itertools.islice(minimize(function, vector(-1.2, 1), low=-2, high=2), 20):
        yielded += 1
        assert torch.equal(calls[-1], point.x)
        value, gradient = valley(point.x)
        assert (point.value, point.gradient.tolist()) == (value, gradient.tolist())
    assert len(calls) > yielded == 20  # some steps were too long and tried again


def test_the_start_is_not_changed() -> None:
    start = vector(-4, 0.5, 9)
    descend(quadratic(torch.eye(3, dtype=torch.float64), vector(0.1, 0.2, 0.3)), start)
    assert start.tolist() == [-4, 0.5, 9]


STEEP = 2.0**40


@pytest.mark.parametrize("factor", [2.0**-40, 2.0**20, STEEP])
def test_the_unit_of_the_function_does_not_matter(factor: float) -> None:
    plain = descend(with_gradient(rosenbrock), vector(-1.2, 1), low=-2, high=2)
    scaled = descend(with_gradient(lambda x: factor * rosenbrock(x)), vector(-1.2, 1), low=-2, high=2)
    assert [point.x.tolist() for point in scaled] == [point.x.tolist() for point in plain]


def test_variables_may_have_any_shape_and_type() -> None:
    goal = torch.linspace(-0.5, 1.5, 24).view(1, 3, 2, 4).to(memory_format=torch.channels_last)
    last = descend(with_gradient(lambda x: (x - goal).square().sum()), torch.zeros(1, 3, 2, 4))[-1]
    assert (last.x.shape, last.x.dtype) == (goal.shape, torch.float32)
    close(last.x, goal.clamp(0, 1))
