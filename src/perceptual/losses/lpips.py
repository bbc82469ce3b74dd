"""LPIPS 0.1 (Zhang et al., 2018) as a term: the perceptual distance with learned channel weights."""

from __future__ import annotations

from typing import Self

from torch import Tensor

from perceptual.functional import normalised_distance
from perceptual.losses.base import Materials, Paths, Reduction
from perceptual.losses.networks import Features
from perceptual.losses.terms import DistanceLoss
from perceptual.losses.weights.heads import LPIPS_LAYERS, load_heads, lpips_network


class LPIPS(DistanceLoss):
    """LPIPS 0.1 (Zhang et al., 2018), the distance of the package `lpips`: 0 for equal images.

    At each layer the feature vectors are scaled to length 1 at every position. Their squared difference is multiplied
    by the learned weight of the channel, summed over channels, averaged over positions, and summed over the layers. The
    images are in [0, 1], not in [-1, 1] as in the package. The values are the same.

    Args:
        network: "alex" (AlexNet, the default of the package), "vgg" (VGG-16) or "squeeze" (SqueezeNet 1.1), with
            torchvision's weights.
        reduction: see `Term`.
        paths: files by name, for what is not in the cache: the loss network (alexnet-torchvision, vgg16-torchvision or
            squeezenet1_1-torchvision), and "lpips" for the learned weights. Those are also found in an installed
            package lpips or torchmetrics.

    Raises:
        ConfigError: another network. WeightsError: the learned weights are missing; when called, the loss network is.
    """

    def __init__(self, network: str = "alex", *, reduction: Reduction = "mean", paths: Paths | None = None) -> None:
        trunk = lpips_network(network)
        super().__init__(trunk, LPIPS_LAYERS[trunk][1], reduction=reduction, paths=paths)
        for k, value in enumerate(load_heads(trunk, (paths or {}).get("lpips"))):
            self.register_buffer(f"channels{k}", value, persistent=False)  # stored in its own file

    @classmethod
    def needs(cls, layer: str | None) -> tuple[str, ...]:
        """The layers that are compared in this network: "alex" where it is None."""
        trunk = lpips_network(layer or "alex")
        return tuple(f"{trunk}:{name}" for name in LPIPS_LAYERS[trunk][1])

    @classmethod
    def build(cls, layer: str | None, materials: Materials) -> Self:
        """LPIPS of this network: "alex" where it is None."""
        return cls(layer or "alex", paths=materials.paths)

    def compare(self, output: Features, target: Features, style: Tensor | None = None) -> Tensor:
        total = output[self.layers[0]].new_zeros(())
        for k, layer in enumerate(self.layers):
            total = total + normalised_distance(output[layer], target[layer], getattr(self, f"channels{k}"))
        return total
