"""The losses and gradients of a training step on a CUDA GPU, from a CUDA graph.

A step of the recipe `gallery` starts about 2,000 kernels. Without a graph, the CPU needs longer to start them than the
GPU needs to run them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from perceptual.gpu import Graphs
from perceptual.tasks.base import Task


class StepGraph:
    """Computes the terms of a step and sets the gradients of the parameters, as `backward` does.

    The first steps run without a graph, see `Graphs`. It is made for the parameters that are trained now: make a new
    one when `requires_grad` of a parameter changes.

    task: its `compute` must not wait for the GPU, and all its random numbers must come from `draw`. network: as the
    training loop calls it. autocast: makes the context of the training's precision.
    """

    def __init__(self, task: Task, network: nn.Module, autocast: Callable[[], AbstractContextManager[None]]) -> None:
        self.task, self.network, self.autocast = task, network, autocast
        self.parameters = [each for each in network.parameters() if each.requires_grad]
        self.names: list[str] = []
        self.graphs = Graphs(self._compute)

    def __call__(self, pixels: Tensor, *drawn: Tensor | None) -> dict[str, Tensor]:
        """pixels: photos (N, 3, H, W) on the GPU. drawn: the result of `Task.draw`. Returns {term: scalar}."""
        values, *gradients = self.graphs(pixels, *drawn)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        return dict(zip(self.names, values.unbind(), strict=True))

    def _compute(self, pixels: Tensor, *drawn: Tensor | None) -> tuple[Tensor, ...]:
        with self.autocast():
            terms = self.task.compute(self.network, pixels, *drawn)
        self.names = list(terms)
        gradients = torch.autograd.grad(terms["total"], self.parameters, allow_unused=True, materialize_grads=True)
        return torch.stack([value.detach().float() for value in terms.values()]), *gradients
