"""Style networks of jcjohnson/fast-neural-style, the code of the paper's authors, as a TransformationNetwork.

Their networks read and write BGR levels from which the mean colour of ImageNet is subtracted. Ours do the same with
output "caffe", in the order RGB: the filters of the first and last convolution are put in that order. A model for
padding reflect-start begins with one reflection padding, and its blocks do not pad.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from perceptual.checkpoints.foreign.torch7 import LuaObject
from perceptual.config import NetworkConfig
from perceptual.errors import CheckpointError
from perceptual.networks import TransformationNetwork

EPS = 1e-5


def network_of(checkpoint: Any) -> TransformationNetwork:
    """Build the network from the content of a .t7 file that their `train.lua` wrote.

    Raises:
        CheckpointError: it is not such a file, or a layer or an option is not supported.
    """
    options = checkpoint.get("opt", {}) if isinstance(checkpoint, dict) else {}
    model = checkpoint.get("model") if isinstance(checkpoint, dict) else checkpoint
    if not isinstance(model, LuaObject) or _kind(model) != "Sequential":
        raise CheckpointError("It is not a model of fast-neural-style: give a file that its train.lua wrote.")
    method = options.get("preprocessing") or "vgg" if isinstance(options, dict) else "vgg"
    if method != "vgg":
        raise CheckpointError(f"Its preprocessing is {str(method)[:40]!r}; only vgg is supported.")
    try:
        walk = _Walk(list(_parts(model)))
        network = TransformationNetwork(walk.config())
        if network.start_pad != walk.start:
            raise CheckpointError(f"It pads {walk.start} px at the start, but its blocks take {network.start_pad}.")
        network.load_state_dict(walk.tensors)
    except (KeyError, AttributeError, TypeError, ValueError, RuntimeError, IndexError, OverflowError) as error:
        raise CheckpointError("Its layers are not those of fast-neural-style: get the file again.") from error
    return network


def _kind(module: Any) -> str:
    return str(module.kind).rpartition(".")[2]


def _parts(module: LuaObject) -> Iterator[LuaObject]:
    """The modules inside a container, in order."""
    inside = module.fields["modules"]
    return (inside[float(k)] for k in range(1, len(inside) + 1))


def _number(module: LuaObject, name: str, default: float = 0) -> int:
    value = module.fields.get(name, default)
    if value != int(value):
        raise ValueError(name)
    return int(value)


class _Walk:
    """Goes through the modules of a model, and collects the words of the architecture and the tensors."""

    def __init__(self, modules: list[LuaObject]) -> None:
        self.modules, self.words = modules, list[str]()
        self.tensors: dict[str, Tensor] = {}
        self.norms: set[str] = set()
        self.start, self.tanh = 0, 0.0
        if _kind(modules[0]) == "SpatialReflectionPadding":
            self.start = _number(self.modules.pop(0), "pad_l")
        width = 3
        while self.modules and _kind(self.modules[0]) != "Tanh":
            width = self._layer(self.modules.pop(0), f"layers.{len(self.words)}", width)
        tail = [_kind(module) for module in self.modules]
        if tail[:2] != ["Tanh", "MulConstant"] or tail[2:] not in ([], ["TotalVariation"]):
            raise ValueError("the end")
        self.tanh = float(self.modules[1].fields["constant_scalar"])
        for name in ("layers.0.conv.weight", f"layers.{len(self.words) - 1}.conv.weight"):  # BGR to RGB
            self.tensors[name] = self.tensors[name].flip(1 if ".0." in name else 0)
        last = f"layers.{len(self.words) - 1}.conv.bias"
        self.tensors[last] = self.tensors[last].flip(0)

    def config(self) -> NetworkConfig:
        """The structure of the network."""
        (norm,) = self.norms
        text = " ".join(self.words)
        if norm not in ("batch", "instance"):
            raise ValueError(norm)
        padding = "reflect-start-crop"
        return NetworkConfig(text, norm, padding, tanh_scale=self.tanh, output="caffe")  # type: ignore[arg-type]

    def _layer(self, module: LuaObject, name: str, width: int) -> int:
        """Add one layer, with the norm and ReLU after it. Returns its number of filters."""
        kind = _kind(module)
        if kind == "Sequential":
            return self._block(module, name, width)
        if kind == "SpatialUpSamplingNearest":
            if _number(module, "scale_factor") != 2:
                raise CheckpointError("It enlarges by another factor than 2, which is not supported.")
            self.words.append(f"x{width}")
        elif kind == "SpatialFullConvolution":
            self._convolution(module, name, transposed=True)
            width = _number(module, "nOutputPlane")
            self.words.append(f"u{width}")
        else:
            kernel, stride = self._convolution(module, name, padded=True)
            width = _number(module, "nOutputPlane")
            self.words.append(f"d{width}" if (kernel, stride) == (3, 2) else f"c{kernel}s{stride}-{width}")
        if _kind(self.modules[0]) != "Tanh":
            self._norm(self.modules.pop(0), name)
            self._expect(self.modules, "ReLU")
        return width

    def _block(self, module: LuaObject, name: str, width: int) -> int:
        """Add a residual block, or the same block without its shortcut."""
        inside = list(_parts(module))
        residual = _kind(inside[0]) == "ConcatTable"
        if residual:
            (body, shortcut), kinds = _parts(inside[0]), [_kind(each) for each in inside]
            if kinds != ["ConcatTable", "CAddTable"] or _kind(shortcut) != "ShaveImage":
                raise CheckpointError("Its residual blocks pad, which is not supported: only reflect-start is.")
            inside = list(_parts(body))
        for part in ("first", "second"):
            self._convolution(inside.pop(0), f"{name}.{part}", padded=False)
            self._norm(inside.pop(0), f"{name}.{part}")
            if part == "first":
                self._expect(inside, "ReLU")
        if inside:
            raise ValueError("a block")
        if not residual:
            self._expect(self.modules, "ReLU")
        self.words.append(f"{'r' if residual else 'n'}{width}")
        return width

    def _expect(self, modules: list[LuaObject], kind: str) -> None:
        if _kind(modules.pop(0)) != kind:
            raise ValueError(kind)

    def _convolution(
        self, module: LuaObject, name: str, *, padded: bool = True, transposed: bool = False
    ) -> tuple[int, int]:
        """Add the tensors of a convolution. Returns its kernel and its stride."""
        if _kind(module) not in ("SpatialConvolution", "SpatialConvolutionMM", "SpatialFullConvolution"):
            raise CheckpointError(f"It has a layer {module.kind[:60]}, which is not supported.")
        kernel, stride, pad = _number(module, "kW"), _number(module, "dW"), _number(module, "padW")
        if [_number(module, each) for each in ("kH", "dH", "padH")] != [kernel, stride, pad]:
            raise CheckpointError("It has a convolution that is not square, which is not supported.")
        if pad != (kernel // 2 if padded else 0):
            raise CheckpointError("Its padding is not reflect-start, the only one that is supported.")
        if transposed and (kernel, stride, _number(module, "adjW"), _number(module, "adjH")) != (3, 2, 1, 1):
            raise CheckpointError("It enlarges by a convolution that is not 3x3 of stride 1/2, which is not supported.")
        filters, channels = _number(module, "nOutputPlane"), _number(module, "nInputPlane")
        shape = (channels, filters) if transposed else (filters, channels)
        self.tensors[f"{name}.conv.weight"] = module.fields["weight"].float().reshape(*shape, kernel, kernel)
        self.tensors[f"{name}.conv.bias"] = module.fields["bias"].float()
        return kernel, stride

    def _norm(self, module: LuaObject, name: str) -> None:
        """Add the tensors of a normalisation."""
        kind = {"InstanceNormalization": "instance", "SpatialBatchNormalization": "batch"}[_kind(module)]
        if abs(float(module.fields["eps"]) - EPS) > 1e-12:
            raise CheckpointError(f"Its norms have an epsilon other than {EPS:g}, which is not supported.")
        self.norms.add(kind)
        for part in ("weight", "bias"):
            value = module.fields[part].float()
            self.tensors[f"{name}.norm.{part}"] = value[None] if kind == "instance" else value
        if kind == "batch":
            for part in ("running_mean", "running_var"):
                self.tensors[f"{name}.norm.{part}"] = module.fields[part].float()
            self.tensors[f"{name}.norm.num_batches_tracked"] = torch.tensor(0)
