"""Compact: the small network of Real-ESRGAN (SRVGGNetCompact), for animation and for video."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from perceptual.foreign.base import ForeignModule, conv, shuffled_scale


class Compact(ForeignModule):
    """Convolutions and PReLUs at the small size, then a pixel shuffle; added to nearest-neighbour enlargement."""

    name = "Compact"
    keys = ("body.0.weight", "body.1.weight", "body.2.weight")

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__(state)
        last = max(int(name.split(".")[1]) for name in state)
        filters = state["body.0.weight"].shape[0]
        self.scale = shuffled_scale(state[f"body.{last}.weight"].shape[0])
        layers: list[nn.Module] = [conv(3, filters), nn.PReLU(filters)]
        for _ in range(last // 2 - 1):
            layers += [conv(filters, filters), nn.PReLU(filters)]
        self.body = nn.Sequential(*layers, conv(filters, 3 * self.scale**2))
        self.reach = last // 2 + 1
        self.tags = (f"{filters} filters", f"{last // 2 - 1} layers")

    def forward(self, x: Tensor) -> Tensor:
        base = F.interpolate(x, scale_factor=self.scale, mode="nearest")
        return F.pixel_shuffle(self.body(x), self.scale) + base
