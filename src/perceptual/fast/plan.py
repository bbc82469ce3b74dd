"""A TransformationNetwork as a list of convolutions on folded grids, and their filters in int8 or float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceptual.fast import kernels
from perceptual.fast.folding import doubled_kernel, folded_kernel, transposed_kernel
from perceptual.fast.kernels import Vector
from perceptual.fast.rounding import balanced
from perceptual.networks import Block, ConvolutionLayer, TransformationNetwork


@dataclass(frozen=True, eq=False)
class Convolution:
    """One convolution of the plan. It reads a padded grid (rows, columns, fold, fold, C)."""

    module: ConvolutionLayer
    """The layer of the network that it stands for."""
    weight: Tensor
    """The filters for folded grids, (O, I, K, K) in float32."""
    fold: int
    """1 or 2: side of the cells of the grid that is read."""
    fold_out: int
    """1 or 2: side of the cells of the grid that is written."""
    mode: str
    """Padding: "reflect", "replicate" or "zero"."""
    before: int
    """Rows of padding above and columns of padding to the left, in cells."""
    stride: int = 1
    edges: Mapping[tuple[str, str], Tensor] = field(default_factory=dict)
    """Filters for the outermost pixels where `weight` does not apply, by position: (rows, columns)."""
    residual: str = ""
    """In a residual block: "first" reads the block's input, "second" adds its output to that. Else ""."""

    @property
    def kernel(self) -> int:
        """Side of the filters, in cells."""
        return self.weight.shape[-1]

    @cached_property
    def balanced(self) -> tuple[Tensor, Tensor]:
        """The filters in int8 and their scales, see `rounding.balanced`."""
        return balanced(self.weight, self.fold)


def supports(network: TransformationNetwork) -> bool:
    """Whether fast inference can run a network; others run layer by layer in PyTorch."""
    return plan(network) is not None


def plan(network: TransformationNetwork) -> list[Convolution] | None:
    """The convolutions of a network in their order; None if it has a part that fast inference does not support."""
    config, layers, specs = network.config, list(network.layers), network.layers_spec
    kinds = [spec.kind for spec in specs]
    known = "instance" in config.norm and network.padding in ("reflect", "replicate")
    known = (
        known
        and config.output in ("tanh", "linear")
        and set(kinds) <= set("cdrnuUB")
        and all(spec.kernel >= spec.stride for spec in specs)
    )
    stride_one = all(specs[i].stride == 1 and kinds[i] == "c" for i in (0, -1))
    # Residual blocks next to a folded grid are not supported: no recipe has them, and the stream would change its fold.
    folded_blocks = kinds[-2:-1] == ["r"] or any(
        before in "uUB" or k == 0 for k, (before, kind) in enumerate(pairwise(kinds)) if kind == "r"
    )
    if not known or not stride_one or folded_blocks or network.multiple % 2 or network.scale != 1 or network.luma:
        return None
    convolutions: list[Convolution] = []
    for layer, kind in zip(layers, kinds, strict=True):
        if isinstance(layer, Block):
            for part, role in ((layer.first, "first"), (layer.second, "second")):
                convolutions.append(_convolution(part, "c", network.padding, residual=role if layer.residual else ""))
        else:
            outermost = layer in (layers[0], layers[-1])
            convolutions.append(_convolution(layer, kind, network.padding, folded=outermost))
    return convolutions


def _convolution(
    module: nn.Module, kind: str, padding: str, *, residual: str = "", folded: bool = False
) -> Convolution:
    """kind: the letter of the layer in the architecture string. folded: it reads and writes folded grids."""
    assert isinstance(module, ConvolutionLayer)
    assert isinstance(module.conv, nn.Conv2d | nn.ConvTranspose2d)
    weight = module.conv.weight.detach().float().contiguous()
    if kind == "u":
        return Convolution(module, transposed_kernel(weight), 1, 2, "zero", 0)
    if kind in "UB":
        mode = str(module.doubling)
        sides = ("inner", "first", "last") if (mode, padding) == ("bilinear", "reflect") else ("inner",)
        edges = {(r, c): doubled_kernel(weight, mode, r, c) for r in sides for c in sides}
        return Convolution(module, edges.pop(("inner", "inner")), 1, 2, "replicate", 1, edges=edges)
    if folded:
        weight = folded_kernel(weight)
        return Convolution(module, weight, 2, 2, padding, weight.shape[-1] // 2)
    half = weight.shape[-1] // 2
    return Convolution(module, weight, 1, 1, padding, half, stride=module.conv.stride[0], residual=residual)


class Filters:
    """The filters of one convolution for one picture, in int8 or float32.

    The convolution reads levels: the true value of channel c is level * scale[c] + constant[c]. The filters carry the
    scale. `zero` is the level of the true value 0, (C,).

    common: levels that are common in the input, (C,), for a layer with one scale for all channels. The convolution of
        these levels is subtracted from the result, which the norm does not notice. So flat parts of a bright picture
        have small values, and bfloat16 is exact enough for them.
    """

    def __init__(
        self,
        convolution: Convolution,
        scale: Vector,
        constant: Vector,
        in_bytes: bool,
        *,
        common: Vector | None = None,
    ) -> None:
        fold, weight = convolution.fold, convolution.weight
        channels = weight.shape[1] // fold**2
        self.scale, self.stride = np.array(np.broadcast_to(scale, channels)), [convolution.stride] * 2
        zero = np.array(np.broadcast_to(-constant / self.scale, channels))
        self.zero = torch.from_numpy(np.clip(np.floor(zero + 0.5), 0, 255) if in_bytes else zero)
        # The largest grids are limited by memory bandwidth: their values are written as bfloat16.
        self.narrow = convolution.fold_out == 2 and convolution.module.norm is not None
        self.weight, self.packed, self.bias = weight, None, None
        if not in_bytes or convolution.mode == "zero":
            self.weight = weight * torch.from_numpy(self.scale).repeat(fold**2)[:, None, None]
        if convolution.mode == "zero":  # here the norm does not remove constants: each place of a cell sees other taps
            self.bias = -(self.weight.sum((2, 3)) @ self.zero)
        if in_bytes:
            if common is None:
                levels, factors = kernels.quantise(weight, self.scale)
            else:
                levels, factors = convolution.balanced
                factors = factors * float(scale[0])
                self.bias = -factors * (levels.sum((2, 3)).float() @ torch.from_numpy(common).repeat(fold**2))
            packed = torch.ops.onednn.qconv_prepack(levels, factors, 1.0, 0, self.stride, [0, 0], [1, 1], 1, None)
            self.packed = packed, factors, torch.zeros(len(factors), dtype=torch.int32)
        else:
            self.weight = self.weight.contiguous(memory_format=torch.channels_last)

    def convolve(self, image: Tensor) -> Tensor:
        """Convolve levels (1, C, H, W), in channels_last, without padding; returns (1, O, h, w).

        The result is in float32, or in bfloat16 if the levels are uint8 and `narrow` is set.
        """
        if self.packed is None:
            return F.conv2d(image, self.weight, self.bias, self.stride)
        x, filters = (image, 1.0, 0), (*self.packed, self.bias)
        kind = torch.bfloat16 if self.narrow else torch.float32
        as_floats: tuple[Any, ...] = (1.0, 0, kind, "none", [], "")
        y: Tensor = torch.ops.onednn.qconv2d_pointwise(*x, *filters, self.stride, [0, 0], [1, 1], 1, *as_floats)
        return y
