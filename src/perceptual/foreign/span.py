"""SPAN: swift parameter-free attention network (Wan et al., 2023, arXiv 2311.12770)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceptual.foreign.base import ForeignModule, conv, shuffled_scale

MEAN = (0.4488, 0.4371, 0.4040)
"""Mean colour, RGB in [0, 1], that is subtracted from the input."""


def _merged(state: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """One convolution 3x3 for the four that were trained in its place: 1x1, 3x3 and 1x1 in a row, beside one of 1x1."""
    if f"{name}.sk.weight" not in state:
        return state[f"{name}.eval_conv.weight"], state[f"{name}.eval_conv.bias"]
    (a, b), (c, d), (e, f) = [(state[f"{name}.conv.{k}.weight"], state[f"{name}.conv.{k}.bias"]) for k in range(3)]
    if {each.ndim for each in (b, d, f, state[f"{name}.sk.bias"])} != {1}:
        raise ValueError(f"a bias of {name}")
    weight = torch.einsum("om,mnij,nc->ocij", e[..., 0, 0], c, a[..., 0, 0])
    bias = torch.einsum("om,m->o", e[..., 0, 0], torch.einsum("mnij,n->m", c, b) + d) + f
    beside = F.pad(state[f"{name}.sk.weight"], (1, 1, 1, 1))
    return weight + beside, bias + state[f"{name}.sk.bias"]


class _Attention(nn.Module):
    """Three convolutions; the result weights itself by its sigmoid, which needs no parameters."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.c1_r, self.c2_r, self.c3_r = (conv(channels, channels) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the result, and the activations after the first convolution."""
        first = F.silu(self.c1_r(x))
        out: Tensor = self.c3_r(F.silu(self.c2_r(first)))
        return (out + x) * (torch.sigmoid(out) - 0.5), first


class SPAN(ForeignModule):
    """Six attention blocks at the small size, then a pixel shuffle."""

    name = "SPAN"
    keys = ("conv_1.eval_conv.weight", "block_1.c1_r.eval_conv.weight", "conv_cat.weight", "upsampler.0.weight")

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__(state)
        filters = state["conv_1.weight"].shape[0]
        self.scale, self.reach = shuffled_scale(state["upsampler.0.weight"].shape[0]), 1 + 6 * 3 + 1 + 1
        self.normalises = "no_norm" not in state
        if not self.normalises:
            self.register_buffer("no_norm", torch.zeros(1))
        self.conv_1, self.conv_2 = conv(3, filters), conv(filters, filters)
        for k in range(1, 7):
            self.add_module(f"block_{k}", _Attention(filters))
        self.conv_cat = conv(4 * filters, filters, 1)
        self.upsampler = nn.Sequential(conv(filters, 3 * self.scale**2), nn.PixelShuffle(self.scale))
        self.tags = (f"{filters} filters",)

    @classmethod
    def renamed(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors with each group of four convolutions merged into one."""
        names = ["conv_1", "conv_2", *(f"block_{k}.c{j}_r" for k in range(1, 7) for j in (1, 2, 3))]
        merged = {name: _merged(state, name) for name in names}
        kept = {name: value for name, value in state.items() if not name.startswith(tuple(f"{n}." for n in names))}
        for name, (weight, bias) in merged.items():
            kept |= {f"{name}.weight": weight, f"{name}.bias": bias}
        return kept

    def forward(self, x: Tensor) -> Tensor:
        if self.normalises:
            x = (x - torch.tensor(MEAN, device=x.device, dtype=x.dtype).view(1, 3, 1, 1)) * 255
        first = out = self.conv_1(x)
        after_first = inside_last = out
        for k in range(1, 7):
            out, inside_last = self.get_submodule(f"block_{k}")(out)
            after_first = out if k == 1 else after_first
        together = torch.cat([first, self.conv_2(out), after_first, inside_last], 1)
        large: Tensor = self.upsampler(self.conv_cat(together))
        return large
