"""ESRGAN: residual in residual dense blocks (Wang et al., 2018, arXiv 1809.00219), and Real-ESRGAN (2021)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceptual.foreign.base import LARGEST, ForeignModule, conv, count

SHARE = 0.2
"""Factor of each residual."""
_BLOCK = r"(\d+)\.(?:RDB|rdb)(\d)\.conv(\d)(?:\.0)?\.(weight|bias)"


def _rename(name: str, blocks: int, ups: int) -> str:
    """The name of a tensor here, for its name in ESRGAN's first code (model.0), second (RRDB_trunk), or Real-ESRGAN."""
    if match := re.fullmatch(rf"(?:model\.1\.sub|RRDB_trunk|body)\.{_BLOCK}", name):
        return "body.{}.rdb{}.conv{}.{}".format(*match.groups())
    old = {"model.0": "conv_first", f"model.1.sub.{blocks}": "conv_body"}
    old |= {f"model.{3 * k}": f"conv_up{k}" for k in range(1, ups + 1)}
    old |= {f"model.{3 * ups + 2}": "conv_hr", f"model.{3 * ups + 4}": "conv_last"}
    old |= {"trunk_conv": "conv_body", "HRconv": "conv_hr", **{f"upconv{k}": f"conv_up{k}" for k in range(1, ups + 1)}}
    layer, _, kind = name.rpartition(".")
    return f"{old.get(layer, layer)}.{kind}"


class _Dense(nn.Module):
    """Five convolutions; each reads the block's input and the results of those before it."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        for k in range(1, 6):
            self.add_module(f"conv{k}", conv(channels + (k - 1) * growth, growth if k < 5 else channels))

    def forward(self, x: Tensor) -> Tensor:
        parts = [x]
        for k in range(1, 5):
            parts.append(F.leaky_relu(self.get_submodule(f"conv{k}")(torch.cat(parts, 1)), 0.2))
        out: Tensor = self.get_submodule("conv5")(torch.cat(parts, 1))
        return x + SHARE * out


class _Block(nn.Module):
    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (_Dense(channels, growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.rdb3(self.rdb2(self.rdb1(x)))
        return x + SHARE * out


class ESRGAN(ForeignModule):
    """The generator of ESRGAN. Those of Real-ESRGAN for scale 2 or 1 fold 2 x 2 or 4 x 4 pixels into channels first."""

    name = "ESRGAN"

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__(state)
        filters, channels = state["conv_first.weight"].shape[:2]
        growth, blocks = state["body.0.rdb1.conv1.weight"].shape[0], count(state, "body.", ".rdb1.conv1.weight")
        self.ups, self.fold = count(state, "conv_up", ".weight", first=1), math.isqrt(channels // 3)
        if channels != 3 * self.fold**2 or (2**self.ups) % self.fold or not 1 <= 2**self.ups // self.fold <= LARGEST:
            raise ValueError(f"{channels} channels")
        self.scale, self.multiple = 2**self.ups // self.fold, self.fold
        self.conv_first, self.conv_body = conv(channels, filters), conv(filters, filters)
        self.body = nn.Sequential(*(_Block(filters, growth) for _ in range(blocks)))
        for k in range(1, self.ups + 1):
            self.add_module(f"conv_up{k}", conv(filters, filters))
        self.conv_hr, self.conv_last = conv(filters, filters), conv(filters, 3)
        after = sum(2.0**-k for k in range(1, self.ups + 1)) + 2 * 2.0**-self.ups
        self.reach = self.fold * math.ceil(2 + 15 * blocks + after)
        self.tags = (f"{filters} filters", f"{blocks} blocks")

    @classmethod
    def recognises(cls, state: Mapping[str, Tensor]) -> bool:
        """Whether tensors have the names of ESRGAN, in one of its three layouts."""
        first = ("model.1.sub.0.RDB1.conv1.0.weight", "RRDB_trunk.0.RDB1.conv1.weight", "body.0.rdb1.conv1.weight")
        return any(name in state for name in first) and not any("conv1x1" in name for name in state)

    @classmethod
    def renamed(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors under the names of Real-ESRGAN."""
        layers = [int(match[1]) for name in state if (match := re.fullmatch(r"model\.(\d+)\.weight", name))]
        ups = (max(layers) - 4) // 3 if layers else count(state, "upconv", ".weight", first=1)
        blocks = count(state, "model.1.sub.", ".RDB1.conv1.0.weight")
        return {_rename(name, blocks, ups): value for name, value in state.items()}

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_first(F.pixel_unshuffle(x, self.fold) if self.fold > 1 else x)
        x = x + self.conv_body(self.body(x))
        for k in range(1, self.ups + 1):
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = F.leaky_relu(self.get_submodule(f"conv_up{k}")(x), 0.2)
        out: Tensor = self.conv_last(F.leaky_relu(self.conv_hr(x), 0.2))
        return out
