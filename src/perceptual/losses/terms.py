"""The terms of perceptual losses: small modules that compare the features of an output and a target by layer name."""

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
    """Base class of the terms of an objective.

    A call maps (features of the output, features of the target, style weights (N, styles) or None) to one loss per
    image, (N,).

    Args:
        layers, target_layers: layers of the output and of the target that the term needs, as NETWORK:LAYER or "pixels".
        references: number of reference values, 1 or the number of styles.

    Attributes: `reference`, a buffer (1,) or (styles,): relative weighting divides the term by it. It is 1 before
    `PerceptualLoss.calibrate`.

    Class attributes: `takes_layers`, True if an objective can name layers for the term (`losses.language`);
    `relative_weight`, a factor of its weight under relative weighting.
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
        """The reference value for relative weighting, from the features of a batch of photos: (1,) or (styles,).

        By default it is the mean loss between each photo and the next one in the batch.
        """
        others = {name: value.roll(1, 0) for name, value in photographs.items()}
        value: Tensor = self(photographs, others, None)
        return value.mean(0, keepdim=True)


class FeatureLoss(Term):
    """Feature reconstruction loss at one layer (paper, eq. 2). layer: NETWORK:LAYER."""

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
    """Squared error of the pixels in [0, 1], divided by C * H * W (paper, section 3.2)."""

    def __init__(self) -> None:
        super().__init__((PIXELS,), (PIXELS,))

    def forward(self, output: Features, target: Features, style: Tensor | None = None) -> Tensor:
        return feature_distance(output[PIXELS], target[PIXELS])


class AbsoluteLoss(PixelLoss):
    """Absolute error of the pixels in [0, 1], divided by C * H * W."""

    def forward(self, output: Features, target: Features, style: Tensor | None = None) -> Tensor:
        return absolute_distance(output[PIXELS], target[PIXELS])


class DistanceLoss(Term):
    """The distance of `perceptual.PerceptualDistance`: normalised features, averaged over several layers.

    network: a loss network, such as "vgg16".
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
        return torch.stack([normalised_distance(output[layer], target[layer]) for layer in self.layers]).mean(0)


class TextureLoss(Term):
    """Style reconstruction loss (paper, eq. 4) with the target image as the style, averaged over several layers.

    Each layer is divided by the squared norm of the target's Gram matrix (after Sajjadi et al., EnhanceNet, 2017).

    network: a loss network, such as "vgg16".
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
            gram = gram_matrix(target[layer])
            values.append(gram_distance(gram_matrix(output[layer]), gram) / gram.square().sum((1, 2)).clamp_min(1e-12))
        return torch.stack(values).mean(0)


class GridLoss(Term):
    """Strength of the pattern that repeats every `period` pixels in the difference between output and target.

    Networks trained with a feature loss can draw such a cross-hatch pattern. Feature losses hardly see it, because the
    loss network pools.

    Args:
        period: in pixels; each side of the images must be at least this long.

    Raises:
        ConfigError: `period` is not a whole number of 1 or more. ImageError: when called, an image is too small.
    """

    def __init__(self, period: int) -> None:
        if not isinstance(period, int) or period < 1:
            raise ConfigError(f"The period of GridLoss is {period!r}; give a whole number of pixels, 1 or more.")
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
        targets: Gram matrices of the style images, (styles, C, C), computed by `gram` with the same convention.
        convention: "paper" (eq. 4 as printed), "code" (the mean over C x C) or "gatys".

    Raises:
        ConfigError: unknown convention, or wrong shape of the targets; when called, the targets are of another layer.
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
            raise ConfigError(f"The targets of StyleLoss have the shape {tuple(targets.shape)}: give Gram matrices, "
                              "(styles, C, C), made by StyleLoss.gram.")  # fmt: skip
        super().__init__((layer,), (), len(targets))
        self.convention = convention
        self.register_buffer("targets", targets)

    @staticmethod
    def gram(features: Tensor, convention: str = "paper") -> Tensor:
        """Gram matrices (N, C, C) of features (N, C, H, W), with the scale of the convention."""
        return gram_matrix(features, STYLE_CONVENTIONS[convention][0])

    def forward(self, output: Features, target: Features, style: Tensor | None = None) -> Tensor:
        gram = self._gram_of(output)
        target_gram = self.targets[:1] if style is None else mix(style, self.targets)
        return gram_distance(gram, target_gram.expand_as(gram), STYLE_CONVENTIONS[self.convention][1])

    def _gram_of(self, features: Features) -> Tensor:
        layer = self.layers[0]
        if features[layer].shape[1] != self.targets.shape[-1]:
            raise ConfigError(f"{layer} has {features[layer].shape[1]} channels, but the targets of its StyleLoss have "
                              f"{self.targets.shape[-1]}: compute them from features of this layer.")  # fmt: skip
        return self.gram(features[layer], self.convention)

    def measure(self, photographs: Features) -> Tensor:
        """The mean distance of the photos from each style: (styles,)."""
        gram = self._gram_of(photographs)
        reduction = STYLE_CONVENTIONS[self.convention][1]
        return torch.stack([gram_distance(gram, target.expand_as(gram), reduction).mean() for target in self.targets])


class TotalVariation(Term):
    """Total variation (paper, section 3.2), summed over pixels of 0..255 as in the paper (weights 1e-6 to 1e-4)."""

    def __init__(self) -> None:
        super().__init__((PIXELS,))

    def forward(self, output: Features, target: Features, style: Tensor | None = None) -> Tensor:
        return 255**2 * total_variation(output[PIXELS])


class LatticeLoss(Term):
    """Strength of patterns in the output that repeat every 2 or 4 pixels (`functional.lattice_energy`).

    It is 0 if there is no such pattern. Its reference is always 1, because photos have no such pattern.

    Raises:
        ImageError: when called, an image is too small.
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
    """Squared difference between the result for a moved image and the moved result for the image (after Ruder et al.,
    2016). It trains networks that do not flicker in videos.

    It compares two images (N, 3, H, W) that the caller passes to `PerceptualLoss` as `beside`: "moved", the result for
    the moved image, and "carried", the moved result for the original image. Both are without the margin that the motion
    brings in from outside.

    Raises:
        ConfigError: when called, one of the two images is missing.
    """

    def forward(self, output: Features, target: Features, style: Tensor | None = None) -> Tensor:
        if "moved" not in output or "carried" not in output:
            raise ConfigError("TemporalLoss compares two images: call the loss with beside={'moved': ..., "
                              "'carried': ...}.")  # fmt: skip
        return feature_distance(output["moved"], output["carried"])

    def measure(self, photographs: Features) -> Tensor:
        """The mean distance between each photo and the next one in the batch: (1,)."""
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
    """Add the paper's loss network to a layer without one: "relu3_3" -> "vgg16:relu3_3". Other names are unchanged."""
    return layer if layer == PIXELS else ":".join(split_layer(layer))


def _check_side(image: Tensor, least: int) -> None:
    if min(image.shape[-2:]) < least:
        raise ImageError(f"An image of {image.shape[-1]} x {image.shape[-2]} px is too small for the grid losses: each "
                         f"side must have at least {least} px.")  # fmt: skip
