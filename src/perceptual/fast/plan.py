"""A TransformationNetwork as a list of convolutions on folded grids, and their filters in int8, int16 or float32."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceptual.devices import multiplies_bytes
from perceptual.fast import kernels
from perceptual.fast.folding import doubled_kernel, folded_kernel, transposed_kernel
from perceptual.fast.kernels import Vector
from perceptual.fast.rounding import balanced
from perceptual.networks import Block, ConvolutionLayer, TransformationNetwork


@dataclass(eq=False)
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
    _ordered: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)
    _balanced: tuple[bytes, Tensor, Tensor] | None = field(default=None, init=False, repr=False)

    @property
    def kernel(self) -> int:
        """Side of the filters, in cells."""
        return self.weight.shape[-1]

    @cached_property
    def variants(self) -> Tensor:
        """The filters for each place of a picture, (1 or 9, O, I, K, K): for inner pixels, or for the first, the inner
        and the last rows, each times the same of columns.
        """
        if not self.edges:
            return self.weight[None]
        inner = self.weight.view(2, 2, -1, *self.weight.shape[1:])
        found = []
        for rows in _PLACES:
            for columns in _PLACES:
                filters = inner.clone()
                for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):  # the pixels of a cell
                    row = rows if _PLACES[rows][0] == i else "inner"
                    column = columns if _PLACES[columns][0] == j else "inner"
                    if (row, column) in self.edges:
                        part = self.edges[row, column]
                        part = part.view(2 - (row != "inner"), 2 - (column != "inner"), -1, *part.shape[1:])
                        part = part[i if row == "inner" else 0, j if column == "inner" else 0]
                        (top, left), (height, width) = (_PLACES[row][1], _PLACES[column][1]), part.shape[-2:]
                        filters[i, j] = 0
                        filters[i, j, ..., top : top + height, left : left + width] = part
                found.append(filters.flatten(0, 2))
        return torch.stack(found)

    def ordered(self, unit: int) -> Tensor:
        """`variants` in the order that `kernels.pack` reads, made at the first call for this unit."""
        if unit not in self._ordered:
            self._ordered[unit] = kernels.ordered(self.variants, unit)
        return self._ordered[unit]

    def balanced(self, scale: Vector) -> tuple[Tensor, Tensor]:
        """As `rounding.balanced`. The filters for the last scale are kept: the first layer always has the same one."""
        key, kept = scale.tobytes(), self._balanced
        if kept is None or kept[0] != key:
            kept = self._balanced = key, *balanced(self.weight, scale)
        return kept[1], kept[2]


_PLACES = {"first": (0, 1), "inner": (-1, 0), "last": (1, 0)}
"""Row or column of the outermost pixel in its cell, and the first tap of its filters in the window of 3 taps."""


def reads_bytes(channels: Iterable[int] = (64,)) -> bool:
    """Whether convolutions of so many channels can read bytes here, with exact sums: our own, or PyTorch's."""
    return all(kernels.convolves(each, 255) for each in channels) or multiplies_bytes()


def largest_level(convolution: Convolution, in_bytes: bool) -> int:
    """The largest level that a convolution reads: 255 in uint8, 4,095 in int16, or 0 where it reads floats.

    in_bytes: whether 8 bits are precise enough for its input.
    """
    top = 255 if in_bytes else kernels.TOP
    return top if in_bytes or kernels.convolves(convolution.weight.shape[1], top) else 0


def supports(network: TransformationNetwork) -> bool:
    """Whether fast inference can run a network; others run layer by layer in PyTorch."""
    return plan(network) is not None


def plan(network: TransformationNetwork) -> list[Convolution] | None:
    """The convolutions of a network in their order; None if it has a part that fast inference does not support."""
    config, layers, specs = network.config, list(network.layers), network.layers_spec
    kinds = [spec.kind for spec in specs]
    known = (
        "instance" in config.norm
        and network.padding in ("reflect", "replicate")
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
    """The filters of one convolution for one picture, in int8, int16 or float32.

    The convolution reads levels: the true value of channel c is level * scale[c] + constant[c]. The filters carry the
    scale. `zero` is the level of the true value 0, (C,), where the padding is zero.

    top: the largest level, see `largest_level`.
    common: levels that are common in the input, (C,), given for the first layer. The convolution of these levels is
        subtracted from the result; the norm removes such a constant anyway. So flat parts of a bright picture have
        small values, and bfloat16 is exact enough for them.
    """

    def __init__(
        self, convolution: Convolution, scale: Vector, constant: Vector, top: int, *, common: Vector | None = None
    ) -> None:
        fold, weight, self.layer = convolution.fold, convolution.weight, convolution
        channels = weight.shape[1] // fold**2
        self.scale = scale if len(scale) == channels else np.full(channels, scale)
        self.stride = [convolution.stride] * 2
        # The largest grids are limited by memory bandwidth: there the products of bytes are written as bfloat16.
        self.narrow = convolution.fold_out == 2 and convolution.module.norm is not None and top == 255
        self.weight, self.bias = weight, None
        self.packed: tuple[Tensor, ...] | None = None
        self.levels: kernels.Levels | None = None
        each = self.scale if fold == 1 else np.tile(self.scale, fold**2)
        if not top or convolution.mode == "zero":
            self.weight = weight * torch.from_numpy(each)[:, None, None]
        if convolution.mode == "zero":  # here the norm does not remove constants: each place of a cell sees other taps
            zero = np.array(np.broadcast_to(-constant / self.scale, channels))
            self.zero = torch.from_numpy(np.clip(np.floor(zero + 0.5), 0, top) if top else zero)
            self.bias = -(self.weight.sum((2, 3)) @ self.zero)
        if convolution.module.norm is None:
            bias = convolution.module.conv.bias
            assert isinstance(bias, Tensor)
            bias = bias.detach().repeat(convolution.fold_out**2)
            self.bias = bias if self.bias is None else self.bias + bias
        if not top:
            self.weight = self.weight.contiguous(memory_format=torch.channels_last)
        elif top == 255 and (common is not None or convolution.module.norm is None):
            # An error in the sum of a filter would change edges in the first layer and colours in the last one.
            levels, factors = convolution.balanced(self.scale)
            if common is not None:
                self.bias = -factors * (levels.sum((2, 3)).float() @ torch.from_numpy(common).repeat(fold**2))
            self._take(levels, factors)
        elif kernels.convolves(weight.shape[1], top):
            self.levels = kernels.pack(convolution.ordered(kernels.UNITS[top]), each, self.bias, len(weight))
        else:
            self._take(*kernels.quantise(weight, self.scale))

    def _take(self, levels: Tensor, factors: Tensor) -> None:
        """Keep filters in int8 for `convolve`, with the dequantisation scales (O,)."""
        if kernels.convolves(levels.shape[1], 255):
            self.levels = kernels.levels_of(levels, factors, self.bias)
            return
        packed = torch.ops.onednn.qconv_prepack(levels, factors, 1.0, 0, self.stride, [0, 0], [1, 1], 1, None)
        self.packed = packed, factors, torch.zeros(len(factors), dtype=torch.int32)

    def convolve(self, x: Tensor, at_top: bool, at_bottom: bool) -> tuple[Tensor, kernels.Range | None]:
        """Convolve levels without padding; returns (rows, columns, fold, fold, O), and their statistics where they are
        known.

        The result is in float32, or in bfloat16 if `narrow` is set.

        x: (rows, columns, fold, fold, C). at_top, at_bottom: the rows contain the first or the last of the picture.
        """
        fold = self.layer.fold_out
        if self.levels is not None:
            return kernels.convolve(
                x, self.levels, self.layer.stride, fold, narrow=self.narrow, ends=(at_top, at_bottom)
            )
        image = x.flatten(2).permute(2, 0, 1)[None]
        if self.packed is None:
            y = F.conv2d(image, self.weight, self.bias, self.stride)
        else:
            kind = torch.bfloat16 if self.narrow else torch.float32
            filters = (image, 1.0, 0, *self.packed, self.bias, self.stride, [0, 0], [1, 1], 1)
            as_floats: tuple[Any, ...] = (1.0, 0, kind, "none", [], "")
            y = torch.ops.onednn.qconv2d_pointwise(*filters, *as_floats)
        y = y[0].permute(1, 2, 0)
        y = y.view(*y.shape[:2], fold, fold, -1)
        if self.layer.edges:
            self._fix_edges(x[:, :, 0, 0], y, at_top, at_bottom)
        return y, None

    def _fix_edges(self, x: Tensor, y: Tensor, at_top: bool, at_bottom: bool) -> None:
        """Compute the outermost pixels after bilinear doubling again, in place in y.

        The network pads the doubled image by reflection. Here the small image was padded by replication.

        x: (rows + 2, columns + 2, C), the small image with its padding. y: (rows, columns, 2, 2, O).
        """
        scale = torch.from_numpy(self.scale)[:, None, None]
        everything = slice(None)
        of_x = {"inner": everything, "first": slice(1, 3), "last": slice(-3, -1)}
        of_y = {
            "inner": (everything, everything),
            "first": (slice(1), slice(1)),
            "last": (slice(-1, None), slice(1, 2)),
        }
        for (rows, columns), kernel in self.layer.edges.items():
            if (rows == "first" and not at_top) or (rows == "last" and not at_bottom):
                continue
            part = x[of_x[rows], of_x[columns]].float().permute(2, 0, 1)[None]
            out = F.conv2d(part, kernel * scale)[0].permute(1, 2, 0)
            (row, place), (column, at) = of_y[rows], of_y[columns]
            target = y[row, column, place, at]
            target.copy_(out.view(*out.shape[:2], *target.shape[2:]))
