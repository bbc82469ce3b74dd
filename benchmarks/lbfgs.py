"""Optimisers of equation 5 over [0, 1]: ours, SciPy's L-BFGS-B, and torch.optim.LBFGS clipped behind its back.

python benchmarks/lbfgs.py [SIZE] [ITERATIONS]

All begin with the same white noise and minimise the same objective: scikit-image's astronaut at SIZE (128) in the style
of The Starry Night, VGG-16 to relu3_3 (found by PERCEPTUAL_WEIGHTS). For each: the objective of the clipped image by
iteration, the evaluations, and the milliseconds that an iteration takes beside them, with their ratio to ours.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import numpy as np
import skimage.data
import torch
from scipy.optimize import Bounds, minimize
from torch import Tensor

from perceptual import images, lbfgs
from perceptual.checkpoints import shipped
from perceptual.config import BASELINE_LOSS
from perceptual.losses import style_transfer_loss
from perceptual.optimize import measure_references, white_noise

size = int(sys.argv[1]) if len(sys.argv) > 1 else 128
iterations = int(sys.argv[2]) if len(sys.argv) > 2 else 200
marks = [k for k in (10, 25, 50, 100, 200, 300, 500) if k <= iterations]

photograph = images.resize(images.from_any(skimage.data.astronaut()), size=(size, size))
loss = style_transfer_loss(
    replace(BASELINE_LOSS, style_layers=("relu1_2", "relu2_2", "relu3_3")), [shipped.targets("starry_night")]
)
start = white_noise((size, size), 0)
loss.set_references(measure_references(loss, photograph, start))
goal = loss.goal(photograph)
spent = {"evaluations": 0, "seconds": 0.0}


def objective(x: Tensor) -> tuple[float, Tensor]:
    """Value and gradient, counted and timed."""
    began = time.perf_counter()
    pixels = x.detach().requires_grad_()
    total = loss(pixels, goal)["total"]
    (gradient,) = torch.autograd.grad(total, pixels)
    value = total.item()
    spent["seconds"] += time.perf_counter() - began
    spent["evaluations"] += 1
    return value, gradient


def ours() -> list[float]:
    """perceptual.lbfgs."""
    return [point.value for point in islice(lbfgs.minimize(objective, start), 1, iterations + 1)]


def scipy() -> list[float]:
    """SciPy's L-BFGS-B, float64 on the CPU, ten remembered steps too."""
    values: list[float] = []

    def function(v: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = objective(torch.from_numpy(v).float().view(start.shape))
        return value, gradient.double().numpy().ravel()

    def note(intermediate_result: object) -> None:
        values.append(float(intermediate_result.fun))  # type: ignore[attr-defined]

    options = {"maxiter": iterations, "maxfun": 10**6, "maxcor": 10, "ftol": 0, "gtol": 0}
    first = start.double().numpy().ravel()
    minimize(function, first, jac=True, method="L-BFGS-B", bounds=Bounds(0, 1), callback=note, options=options)
    return values


def clipped(line_search: str | None) -> list[float]:
    """torch.optim.LBFGS with its image clipped after every iteration, as is often done; its value is then measured."""
    x = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [x], max_iter=1, history_size=10, tolerance_grad=0, tolerance_change=0, line_search_fn=line_search
    )
    values = []

    def closure() -> Tensor:
        value, x.grad = objective(x)
        return torch.tensor(value)

    for _ in range(iterations):
        optimizer.step(closure)
        with torch.no_grad():
            x.clamp_(0, 1)
            began = time.perf_counter()
            values.append(loss(x, goal)["total"].item() if len(values) + 1 in marks else float("nan"))
            spent["seconds"] += time.perf_counter() - began
    return values


optimisers: dict[str, Callable[[], list[float]]] = {
    "perceptual.lbfgs": ours,
    "SciPy L-BFGS-B": scipy,
    "torch, clipped": lambda: clipped(None),
    "torch strong_wolfe, clipped": lambda: clipped("strong_wolfe"),
}
print(f"{size} px, objective at the photograph {loss(photograph, goal)['total'].item():.3f}")
print(f"| optimiser | {' | '.join(f'after {k}' for k in marks)} | evaluations | ms beside them | ratio |")
print(f"| --- |{' --- |' * (len(marks) + 3)}")
base = 0.0
for name, optimise in optimisers.items():
    spent.update(evaluations=0, seconds=0.0)
    began = time.perf_counter()
    values = optimise()
    own = 1000 * (time.perf_counter() - began - spent["seconds"]) / max(1, len(values))
    base = base or own
    found = [f"{values[k - 1]:.3f}" if k <= len(values) else "ended" for k in marks]
    print(f"| {name} | {' | '.join(found)} | {spent['evaluations']} | {own:.1f} | {own / base:.1f} |", flush=True)
