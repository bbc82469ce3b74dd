"""The terms of perceptual losses: small modules that look at the features of an output and of a target by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from perceptual.errors import ConfigError, ImageError
from perceptual.functional import (
    LATTICE_SIDE,
    absolute_distance,
    feature_distance,
    gram_distance,
    gram_matrix,
    grid_energy,
    lattice_energy,
    mix,
    normalised_distance,
    total_variation,
)
from perceptual.losses.networks import Features, distance_layers, split_layer

PIXELS = "pixels"
STYLE_CONVENTIONS = {"paper": ("paper", "sum"), "code": ("paper", "mean"), "gatys": ("gatys", "quarter")}


@dataclass(frozen=True)
class Materials:
    """What terms depend on beside the output and the target image.

    scale: how many times the network enlarges. grams: Gram matrices (styles, C, C) of the paintings by NETWORK:LAYER.
    convention: scaling of Gram matrices, a key of `STYLE_CONVENTIONS`.
    """

    scale: int = 1
    grams: Mapping[str, Tensor] = field(default_factory=dict)
    convention: str = "paper"


class Term(nn.Module):
    """One term of an objective: (features of the output, features of the target, style weights) -> (N,).

    layers, target_layers: the features that it needs, as NETWORK:LAYER or "pixels".
    reference: buffer (1,) or (styles,), what relative weighting divides the term by; 1 until calibrated.

    Class attributes: `takes_layers`, whether an objective may name layers for it (`losses.language`);
    `relative_weight`, the factor of its weight under relative weighting.
    """

    takes_layers: ClassVar[bool] = False
    relative_weight: ClassVar[float] = 1.0
    reference: Tensor

    def __init__(self, layers: Sequence[str] = (), target_layers: Sequence[str] = (), references: int = 1) -> None:
        super().__init__()
        self.layers, self.target_layers = tuple(map(full_name, layers)), tuple(map(full_name, target_layers))
        self.register_buffer("reference", torch.ones(references))

    @classmethod
    def build(cls, layer: str | None, materials: Materials) -> Self:
        """The term for one layer of an objective; None means the term's own default."""
        return cls(layer) if layer else cls()

    @classmethod
    def needs(cls, layer: str | None) -> tuple[str, ...]:
        """The layers of loss networks that `build` with this layer compares, as NETWORK:LAYER."""
        return ()

    def forward(self, output: Features, target: Features, style: Tensor | None) -> Tensor:
        raise NotImplementedError

    def measure(self, photographs: Features) -> Tensor:
        """The reference value of relative weighting on a batch of photographs: (1,) or (styles,)."""
        others = {name: value.roll(1, 0) for name, value in photographs.items()}
        value: Tensor = self(photographs, others, None)
        return value.mean(0, keepdim=True)


class FeatureLoss(Term):
    """Feature reconstruction loss at one layer (paper, eq. 2)."""

    takes_layers = True

    @classmethod
    def needs(cls, layer: str | None) -> tuple[str, ...]:
        """The layer itself, vgg16:relu2_2 where it is None."""
        return (full_name(layer or "vgg16:relu2_2"),)

    def __init__(self, layer: str = "vgg16:relu2_2") -> None:
        super().__init__((layer,), (layer,))

    def forward(self, output: Features, target: Features, style: Tensor | None = None) -> Tensor:
        return feature_distance(output[self.layers[0]], target[self.layers[0]])


class PixelLoss(Term):
    """Squared error over C * H * W of the images themselves, on [0, 1] pixels (paper, section 3.2)."""

    def __init__(self) -> None:
        super().__init__((PIXELS,), (PIXELS,))

    def forward(self, output: Features, target: Features, style: Tensor | None = None) -> Tensor:
        return feature_distance(output[PIXELS], target[PIXELS])


class AbsoluteLoss(PixelLoss):
    """Absolute error over C * H * W of the images themselves, on [0, 1] pixels."""

    def forward(self, output: Features, target: Features, style: Tensor | None = None) -> Tensor:
        return absolute_distance(output[PIXELS], target[PIXELS])


class DistanceLoss(Term):
    """The perceptual distance of `metrics.PerceptualDistance`: normalised features, the mean over some layers."""

    takes_layers = True

    @classmethod
    def needs(cls, layer: str | None) -> tuple[str, ...]:
        """The layers that are compared in the network of this name, vgg16 where it is None."""
        return tuple(distance_layers(layer or "vgg16"))

    def __init__(self, network: str = "vgg16") -> None:
        layers = distance_layers(network)
        super().__init__(layers, layers)

    def forward(self, output: Features, target: Features, style: Tensor | None = None) -> Tensor:
        return torch.stack([normalised_distance(output[layer], target[layer]) for layer in self.layers]).mean(0)


class TextureLoss(Term):
    """Style reconstruction loss (paper, eq. 4) from the target picture itself, the mean over some layers.

    Each layer counts relative to the size of the target's Gram matrix (after Sajjadi et al., EnhanceNet, 2017).
    """

    takes_layers = True

    @classmethod
    def needs(cls, layer: str | None) -> tuple[str, ...]:
        """The layers that are compared in the network of this name, vgg16 where it is None."""
        return tuple(distance_layers(layer or "vgg16"))

    def __init__(self, network: str = "vgg16") -> None:
        layers = distance_layers(network)
        super().__init__(layers, layers)

    def forward(self, output: Features, target: Features, style: Tensor | None = None) -> Tensor:
        values = []
        for layer in self.layers:
            goal = gram_matrix(target[layer])
            values.append(gram_distance(gram_matrix(output[layer]), goal) / goal.square().sum((1, 2)).clamp_min(1e-12))
        return torch.stack(values).mean(0)


class GridLoss(Term):
    """What repeats every `period` pixels in the difference of the images: the cross-hatch that feature losses leave.

    A feature loss hardly sees it, because the loss network pools; this term sees nothing else.

    Args:
        period: in pixels; images must have as many on each side.
    """

    def __init__(self, period: int) -> None:
        if not isinstance(period, int) or period < 1:
            raise ConfigError(f"The period of a GridLoss is {period!r}; give a whole number of pixels, 1 or more.")
        super().__init__((PIXELS,), (PIXELS,))
        self.period = period

    @classmethod
    def build(cls, layer: str | None, materials: Materials) -> Self:
        """With the scale of the network as its period."""
        return cls(materials.scale)

    def forward(self, output: Features, target: Features, style: Tensor | None = None) -> Tensor:
        _check_side(output[PIXELS], self.period)
        return grid_energy(output[PIXELS] - target[PIXELS], self.period)


class StyleLoss(Term):
    """Style reconstruction loss at one layer (paper, eq. 3 and 4).

    Args:
        layer: NETWORK:LAYER.
        targets: Gram matrices of the style images, (styles, C, C), under the same convention; `gram` makes one.
        convention: "paper" (eq. 4 as printed), "code" (its mean over C x C) or "gatys".

    Raises:
        ConfigError: an unknown convention, or targets of another shape; when called, of another layer.
    """

    takes_layers = True
    relative_weight = 5.0  # chosen by eye: with equal weights a trained network hardly leaves the photograph
    targets: Tensor

    @classmethod
    def build(cls, layer: str | None, materials: Materials) -> Self:
        """Compares with the Gram matrices in `materials`."""
        if not materials.grams:
            raise ConfigError("The loss style compares with paintings, and there are none here: choose texture.")
        full = full_name(layer or "vgg16:relu2_2")
        if full not in materials.grams:
            raise ConfigError(f"A style lacks the Gram matrix of {full}: make it by style_targets.")
        return cls(full if layer is None else layer, materials.grams[full], materials.convention)

    @classmethod
    def needs(cls, layer: str | None) -> tuple[str, ...]:
        """The layer itself, vgg16:relu2_2 where it is None."""
        return (full_name(layer or "vgg16:relu2_2"),)

    def __init__(self, layer: str, targets: Tensor, convention: str = "paper") -> None:
        if convention not in STYLE_CONVENTIONS:
            raise ConfigError(f"convention is {convention!r}; choose one of {', '.join(STYLE_CONVENTIONS)}.")
        if targets.ndim != 3 or not len(targets) or targets.shape[1] != targets.shape[2]:
            raise ConfigError(f"The targets of a StyleLoss have the shape {tuple(targets.shape)}: give Gram matrices, "
                              "(styles, C, C), as StyleLoss.gram makes them.")  # fmt: skip
        super().__init__((layer,), (), len(targets))
        self.convention = convention
        self.register_buffer("targets", targets)

    @staticmethod
    def gram(features: Tensor, convention: str = "paper") -> Tensor:
        """Gram matrices (N, C, C) of features (N, C, H, W), scaled as the convention wants."""
        return gram_matrix(features, STYLE_CONVENTIONS[convention][0])

    def forward(self, output: Features, target: Features, style: Tensor | None = None) -> Tensor:
        gram = self._gram_of(output)
        goal = self.targets[:1] if style is None else mix(style, self.targets)
        return gram_distance(gram, goal.expand_as(gram), STYLE_CONVENTIONS[self.convention][1])

    def _gram_of(self, features: Features) -> Tensor:
        layer = self.layers[0]
        if features[layer].shape[1] != self.targets.shape[-1]:
            raise ConfigError(f"{layer} has {features[layer].shape[1]} channels, and the targets of its StyleLoss have "
                              f"{self.targets.shape[-1]}: make them from features of this layer.")  # fmt: skip
        return self.gram(features[layer], self.convention)

    def measure(self, photographs: Features) -> Tensor:
        """The mean distance of photographs from each style: (styles,)."""
        gram = self._gram_of(photographs)
        reduction = STYLE_CONVENTIONS[self.convention][1]
        return torch.stack([gram_distance(gram, goal.expand_as(gram), reduction).mean() for goal in self.targets])


class TotalVariation(Term):
    """Total variation (paper, section 3.2), summed, on 0..255 pixels as the paper's strengths 1e-6 to 1e-4 expect."""

    def __init__(self) -> None:
        super().__init__((PIXELS,))

    def forward(self, output: Features, target: Features, style: Tensor | None = None) -> Tensor:
        return 255**2 * total_variation(output[PIXELS])


class LatticeLoss(Term):
    """How much the output repeats every 2 or 4 pixels (`functional.lattice_energy`); 0 where no grid shows.

    Its reference is always 1: photographs have none of it.
    """

    def __init__(self) -> None:
        super().__init__((PIXELS,))

    def forward(self, output: Features, target: Features, style: Tensor | None = None) -> Tensor:
        _check_side(output[PIXELS], LATTICE_SIDE)
        return lattice_energy(output[PIXELS])

    def measure(self, photographs: Features) -> Tensor:
        """Always 1: (1,)."""
        return torch.ones(1)


class TemporalLoss(Term):
    """Squared difference of two paintings of a moving picture, one moved along (after Ruder et al., 2016).

    It looks at "moved", the painting of the moved picture, and "carried", the moved painting of the first, which the
    caller of `PerceptualLoss` gives beside the output; both without what a motion brings in from outside.
    """

    def forward(self, output: Features, target: Features, style: Tensor | None = None) -> Tensor:
        if "moved" not in output or "carried" not in output:
            raise ConfigError("A TemporalLoss compares two paintings: call the loss with beside={'moved': ..., "
                              "'carried': ...}.")  # fmt: skip
        return feature_distance(output["moved"], output["carried"])

    def measure(self, photographs: Features) -> Tensor:
        """The mean distance between one photograph and the next: (1,)."""
        pixels = photographs[PIXELS]
        return feature_distance(pixels, pixels.roll(1, 0)).mean(0, keepdim=True)


TERMS: dict[str, type[Term]] = {
    "content": FeatureLoss,
    "style": StyleLoss,
    "tv": TotalVariation,
    "feature": FeatureLoss,
    "pixel": PixelLoss,
    "l1": AbsoluteLoss,
    "distance": DistanceLoss,
    "texture": TextureLoss,
    "grid": GridLoss,
    "lattice": LatticeLoss,
    "temporal": TemporalLoss,
}
"""The terms that an objective may name, see `losses.language`."""


def full_name(layer: str) -> str:
    """ "relu3_3" -> "vgg16:relu3_3", the paper's loss network; "pixels" and full names as they are."""
    return layer if layer == PIXELS else ":".join(split_layer(layer))


def _check_side(image: Tensor, least: int) -> None:
    if min(image.shape[-2:]) < least:
        raise ImageError(f"An image of {image.shape[-1]} x {image.shape[-2]} px is too small to look for a grid: "
                         f"each side must have at least {least} px.")  # fmt: skip
