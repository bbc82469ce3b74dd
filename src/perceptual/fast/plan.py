"""The steps of fast inference: a TransformationNetwork as a row of convolutions on folded grids, and their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceptual.fast import kernels
from perceptual.fast.folding import doubled_kernel, folded_kernel, transposed_kernel
from perceptual.fast.kernels import Vector
from perceptual.networks import Block, ConvolutionLayer, TransformationNetwork


@dataclass(frozen=True, eq=False)
class Step:
    """One convolution: (rows, columns, fold, fold, C) in, framed by mode; `weight` is (O, C, K, K) for folded grids."""

    layer: ConvolutionLayer
    weight: Tensor
    fold: int
    fold_out: int
    mode: str
    before: int
    """Rows and columns of the frame above and to the left, on the grid."""
    stride: int = 1
    edges: Mapping[tuple[str, str], Tensor] = field(default_factory=dict)
    """Kernels for the outermost pixels, where they are not those of `weight`: by rows and columns."""
    residual: str = ""
    """How it stands to the stream of residual blocks: "first" reads it, "second" adds to it."""

    @property
    def kernel(self) -> int:
        """Its side, on the grid."""
        return self.weight.shape[-1]


def plan(network: TransformationNetwork) -> list[Step] | None:
    """The steps of a network, None where it has parts that they do not know: such a network must run as it is."""
    config, layers, specs = network.config, list(network.layers), network.layers_spec
    kinds = [spec.kind for spec in specs]
    known = "instance" in config.norm and config.padding in ("reflect", "replicate") and config.output != "bicubic"
    known = known and set(kinds) <= set("cdrnuUB") and all(spec.kernel >= spec.stride for spec in specs)
    stride_one = all(specs[i].stride == 1 and kinds[i] == "c" for i in (0, -1))
    # Blocks beside a folded grid: no recipe has them, and the stream would have to change its fold.
    folded_blocks = kinds[-2:-1] == ["r"] or any(
        before in "uUB" or k == 0 for k, (before, kind) in enumerate(pairwise(kinds)) if kind == "r"
    )
    if not known or not stride_one or folded_blocks or network.multiple % 2 or network.scale != 1 or network.luma:
        return None
    steps: list[Step] = []
    for layer, kind in zip(layers, kinds, strict=True):
        if isinstance(layer, Block):
            for part, role in ((layer.first, "first"), (layer.second, "second")):
                steps.append(_step(part, "c", config.padding, residual=role if layer.residual else ""))
        else:
            steps.append(_step(layer, kind, config.padding, folded=layer in (layers[0], layers[-1])))
    return steps


def _step(layer: nn.Module, kind: str, padding: str, *, residual: str = "", folded: bool = False) -> Step:
    assert isinstance(layer, ConvolutionLayer)
    assert isinstance(layer.conv, nn.Conv2d | nn.ConvTranspose2d)
    weight = layer.conv.weight.detach().float().contiguous()
    if kind == "u":
        return Step(layer, transposed_kernel(weight), 1, 2, "zero", 0)
    if kind in "UB":
        mode = str(layer.doubling)
        sides = ("inner", "first", "last") if (mode, padding) == ("bilinear", "reflect") else ("inner",)
        kernels = {(r, c): doubled_kernel(weight, mode, r, c) for r in sides for c in sides}
        return Step(layer, kernels.pop(("inner", "inner")), 1, 2, "replicate", 1, edges=kernels)
    if folded:
        weight = folded_kernel(weight)
        return Step(layer, weight, 2, 2, padding, weight.shape[-1] // 2)
    return Step(layer, weight, 1, 1, padding, weight.shape[-1] // 2, stride=layer.conv.stride[0], residual=residual)


class Weights:
    """The weights of a step for levels of a given worth, in int8 or float32.

    zero: the level whose true value is 0.
    """

    def __init__(self, step: Step, scale: Vector, constant: Vector, in_bytes: bool) -> None:
        channels = step.weight.shape[1] // step.fold**2
        self.scale, self.stride = np.array(np.broadcast_to(scale, channels)), [step.stride] * 2
        zero = np.array(np.broadcast_to(-constant / self.scale, channels))
        self.zero = torch.from_numpy(np.clip(np.floor(zero + 0.5), 0, 255) if in_bytes else zero)
        self.narrow = step.fold_out == 2 and step.layer.norm is not None  # the largest grids, which wait for the memory
        self.weight, self.parts, self.bias = step.weight, None, None
        if not in_bytes or step.mode == "zero":
            self.weight = step.weight * torch.from_numpy(self.scale).repeat(step.fold**2)[:, None, None]
        if step.mode == "zero":  # here constants do not vanish: the phases of a cell see different parts of the kernel
            self.bias = -(self.weight.sum((2, 3)) @ self.zero)
        if in_bytes:
            levels, worth = kernels.quantise(step.weight, self.scale)
            packed = torch.ops.onednn.qconv_prepack(levels, worth, 1.0, 0, self.stride, [0, 0], [1, 1], 1, None)
            self.parts = packed, worth, torch.zeros(len(worth), dtype=torch.int32)
        else:
            self.weight = self.weight.contiguous(memory_format=torch.channels_last)

    def convolve(self, image: Tensor) -> Tensor:
        """(1, C, H, W) in channels_last -> (1, O, h, w) in float32, or bfloat16 from bytes where `narrow`."""
        if self.parts is None:
            return F.conv2d(image, self.weight, self.bias, self.stride)
        x, weights = (image, 1.0, 0), (*self.parts, self.bias)
        kind = torch.bfloat16 if self.narrow else torch.float32
        as_floats: tuple[Any, ...] = (1.0, 0, kind, "none", [], "")
        y: Tensor = torch.ops.onednn.qconv2d_pointwise(*x, *weights, self.stride, [0, 0], [1, 1], 1, *as_floats)
        return y
