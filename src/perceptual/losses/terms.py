"""The terms of perceptual losses: small modules that compare an output and a target, by pixels or by features.

Images are RGB, float, in [0, 1]. The docstring of each term describes its value for one image. See `Term` for a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

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
from perceptual.losses.base import PIXELS, Materials, Networks, Paths, Reduction, Term, full_name, reduce
from perceptual.losses.inputs import OUTPUTS, PICTURES, check_image, check_target
from perceptual.losses.networks import Features, LossNetworks, distance_layers

STYLE_CONVENTIONS = {"paper": ("paper", "sum"), "code": ("paper", "mean"), "gatys": ("gatys", "quarter")}

PATCH = 16
"""Side of the patches of TextureLoss in training (Sajjadi et al., EnhanceNet, 2017, section 4.2.3)."""


class FeatureLoss(Term):
    """Feature reconstruction loss at one layer (paper, eq. 2): the squared error of features, divided by C * H * W.

    layer: NETWORK:LAYER. The unit is that of the features of this loss network, so values of two networks or layers do
        not compare. reduction, paths, networks: see `Term`.
    """

    takes_layers = True

    def __init__(
        self,
        layer: str = "vgg16:relu2_2",
        *,
        reduction: Reduction = "mean",
        paths: Paths | None = None,
        networks: Networks | None = None,
    ) -> None:
        super().__init__((layer,), (layer,), reduction=reduction, paths=paths, networks=networks)

    def compare(self, output: Features, target: Features, style: Tensor | None = None) -> Tensor:
        return feature_distance(output[self.layers[0]], target[self.layers[0]])


class PixelLoss(Term):
    """Squared error of the pixels in [0, 1], divided by C * H * W (paper, section 3.3).

    For images in [0, 1] it is 0 to 1, and the mean over the batch equals `torch.nn.functional.mse_loss`. reduction: see
    `Term`.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__((PIXELS,), (PIXELS,), reduction=reduction)

    def compare(self, output: Features, target: Features, style: Tensor | None = None) -> Tensor:
        return feature_distance(output[PIXELS], target[PIXELS])


class AbsoluteLoss(PixelLoss):
    """Absolute error of the pixels in [0, 1], divided by C * H * W: 0 to 1 for such images. reduction: see `Term`."""

    def compare(self, output: Features, target: Features, style: Tensor | None = None) -> Tensor:
        return absolute_distance(output[PIXELS], target[PIXELS])


class NetworkLoss(Term):
    """Base class of terms that compare several layers of one loss network.

    network: a loss network, such as "vgg16". layers: its layers, such as ("relu1_2", "relu2_2"); default: one at each
        resolution, or all layers of your own network. reduction, paths, networks: see `Term`.
    """

    takes_layers = True

    @classmethod
    def needs(cls, layer: str | None) -> tuple[str, ...]:
        """The layers that are compared in the network of this name, vgg16 where it is None."""
        return tuple(distance_layers(layer or "vgg16"))

    def __init__(
        self,
        network: str = "vgg16",
        layers: Sequence[str] = (),
        *,
        reduction: Reduction = "mean",
        paths: Paths | None = None,
        networks: Networks | None = None,
    ) -> None:
        if isinstance(layers, str) or ":" in str(network):
            raise ConfigError(
                f'network is {network!r} and layers is {layers!r}; give them as "vgg16" and ("relu1_2", "relu2_2").'
            )
        compared = [f"{network}:{layer}" for layer in layers] or distance_layers(network, networks)
        super().__init__(compared, compared, reduction=reduction, paths=paths, networks=networks)


class DistanceLoss(NetworkLoss):
    """The distance of two images in a loss network: 0 for equal images, smaller for images that look more similar.

    At each layer the feature vectors are scaled to length 1 at every position. Their squared difference is summed over
    channels and averaged over positions (Zhang et al., 2018, eq. 1, without learned weights), then averaged over the
    layers. With features that are not negative, as after a ReLU, it is 0 to 2.

    network: a loss network, such as "vgg16". layers: its layers, such as ("relu1_2", "relu2_2"); default: one at each
        resolution, or all layers of your own network. reduction, paths, networks: see `Term`.
    """

    def compare(self, output: Features, target: Features, style: Tensor | None = None) -> Tensor:
        return torch.stack([normalised_distance(output[layer], target[layer]) for layer in self.layers]).mean(0)


class TextureLoss(NetworkLoss):
    """Style reconstruction loss (paper, eq. 4) with the target image as the style, averaged over several layers.

    Each layer is divided by the squared norm of the target's Gram matrix (after Sajjadi et al., EnhanceNet, 2017). So
    the loss is 0 for equal images, and 1 for an output without any features.

    network: a loss network, such as "vgg16". layers: its layers, such as ("relu1_2", "relu2_2"); default: one at each
        resolution, or all layers of your own network. patch: the images are divided into patches of this side, counted
        in positions of the finest layer, and the patches are compared and averaged. None: the whole image is compared.
        `perceptual train upscale --loss texture=1` takes patches of 16 positions, as EnhanceNet does.
        reduction, paths, networks: see `Term`.
    """

    def __init__(
        self,
        network: str = "vgg16",
        layers: Sequence[str] = (),
        *,
        patch: int | None = None,
        reduction: Reduction = "mean",
        paths: Paths | None = None,
        networks: Networks | None = None,
    ) -> None:
        super().__init__(network, layers, reduction=reduction, paths=paths, networks=networks)
        if patch is not None and (not isinstance(patch, int) or patch < 1):
            raise ConfigError(f"The patch of TextureLoss is {patch!r}; give a whole number of 1 or more, or None.")
        self.patch = patch

    @classmethod
    def build(cls, layer: str | None, materials: Materials) -> Self:
        """With patches of `PATCH` positions."""
        return cls(layer or "vgg16", patch=PATCH)

    def compare(self, output: Features, target: Features, style: Tensor | None = None) -> Tensor:
        height, width = (max(target[layer].shape[side] for layer in self.layers) for side in (-2, -1))
        parts = (1, 1) if self.patch is None else (max(1, height // self.patch), max(1, width // self.patch))
        values = []
        for layer in self.layers:
            made, wanted = (gram_matrix(_in_patches(features[layer], *parts)) for features in (output, target))
            wanted = wanted.repeat(len(made) // len(wanted), 1, 1)  # a batch of one target
            shares = gram_distance(made, wanted) / wanted.square().sum((1, 2)).clamp_min(1e-12)
            values.append(shares.view(len(output[layer]), -1).mean(1))
        return torch.stack(values).mean(0)


def _in_patches(features: Tensor, rows: int, columns: int) -> Tensor:
    """Divide features (N, C, H, W) into rows x columns patches, (N * rows * columns, C, h, w).

    Positions at the right and at the bottom that do not fill a patch are left out. Fewer patches are made where a side
    has fewer positions.
    """
    n, channels, height, width = features.shape
    rows, columns = min(rows, height), min(columns, width)
    h, w = height // rows, width // columns
    patches = features[..., : rows * h, : columns * w].reshape(n, channels, rows, h, columns, w)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, h, w)


class GridLoss(Term):
    """Strength of the pattern that repeats every `period` pixels in the difference between output and target.

    Networks trained with a feature loss can draw such a cross-hatch pattern. Feature losses hardly see it, because the
    loss network pools. It is the mean square of the pattern, 0 to 1 for images in [0, 1]; see
    `functional.grid_energy`.

    Args:
        period: in pixels; each side of the images must be at least this long.
        reduction: see `Term`.

    Raises:
        ConfigError: `period` is not a whole number of 1 or more. ImageError: when called, an image is too small.
    """

    def __init__(self, period: int, *, reduction: Reduction = "mean") -> None:
        if not isinstance(period, int) or period < 1:
            raise ConfigError(f"The period of GridLoss is {period!r}; give a whole number of pixels, 1 or more.")
        super().__init__((PIXELS,), (PIXELS,), reduction=reduction)
        self.period = period

    def extra_repr(self) -> str:
        """What `print(loss)` shows between the brackets."""
        return f"period={self.period}, {super().extra_repr()}"

    @classmethod
    def build(cls, layer: str | None, materials: Materials) -> Self:
        """With the scale of the network as its period."""
        if materials.scale == 1:
            raise ConfigError("The loss grid needs a network that enlarges, but this task has none: choose lattice.")
        return cls(materials.scale)

    def compare(self, output: Features, target: Features, style: Tensor | None = None) -> Tensor:
        _check_side(output[PIXELS], self.period)
        return grid_energy(output[PIXELS] - target[PIXELS], self.period)


class StyleLoss(Term):
    """Style reconstruction loss at one layer (paper, eq. 3 and 4): the squared distance of Gram matrices.

    `StyleLoss.from_image(painting)` makes one from a painting. It needs no target: `loss(output)`. With several styles,
    `loss(output, style=weights)` mixes them.

    Args:
        layer: NETWORK:LAYER.
        targets: Gram matrices of the style images, (styles, C, C), computed by `gram` with the same convention.
        convention: "paper" (eq. 4 as printed), "code" (the mean over C x C) or "gatys".
        reduction, paths, networks: see `Term`.

    Raises:
        ConfigError: unknown convention, or wrong shape of the targets; when called, the targets are of another layer.
    """

    takes_layers = True
    relative_weight = 5.0  # chosen by eye: with equal weights a trained network hardly changes the photo
    targets: Tensor

    @classmethod
    def build(cls, layer: str | None, materials: Materials) -> Self:
        """Compares with the Gram matrices in `materials`."""
        if not materials.grams:
            raise ConfigError("The loss style needs a painting, but this task has none: choose texture.")
        (full,) = cls.needs(layer)
        if full not in materials.grams:
            raise ConfigError(f"A style lacks the Gram matrix of {full}: make it with style_targets.")
        return cls(full if layer is None else layer, materials.grams[full], convention=materials.convention)

    def __init__(
        self,
        layer: str,
        targets: Tensor,
        *,
        convention: str = "paper",
        reduction: Reduction = "mean",
        paths: Paths | None = None,
        networks: Networks | None = None,
    ) -> None:
        _check_convention(convention)
        if targets.ndim != 3 or not len(targets) or targets.shape[1] != targets.shape[2]:
            raise ConfigError(f"The targets of StyleLoss have the shape {tuple(targets.shape)}: give Gram matrices, "
                              "(styles, C, C), made by StyleLoss.gram.")  # fmt: skip
        super().__init__((layer,), references=len(targets), reduction=reduction, paths=paths, networks=networks)
        self.convention = convention
        self.register_buffer("targets", targets)

    @classmethod
    @torch.no_grad()
    def from_image(
        cls,
        image: Tensor,
        layer: str = "vgg16:relu2_2",
        *,
        convention: str = "paper",
        reduction: Reduction = "mean",
        paths: Paths | None = None,
        networks: Networks | None = None,
    ) -> Self:
        """The style loss of one painting, or of several of one size.

        image: (styles, 3, h, w), RGB, float, [0, 1], of any size. The term is on the device of the image. The other
            arguments: as of the class.

        Raises:
            ConfigError: an unknown layer or convention. WeightsError: the weights of the loss network are missing.
            TypeError, ImageError: not a tensor of floats in [0, 1] of this shape, or too small for the layer.
        """
        check_image(image, "style image", PICTURES)
        _check_convention(convention)
        layer = full_name(layer)
        loaded = LossNetworks([layer], paths=paths, networks=networks).to(image.device)
        targets = cls.gram(loaded(image)[layer], convention)
        term = cls(layer, targets, convention=convention, reduction=reduction, paths=paths, networks=networks)
        term._loaded.append(loaded)
        return term.to(image.device)

    @staticmethod
    def gram(features: Tensor, convention: str = "paper") -> Tensor:
        """Gram matrices (N, C, C) of features (N, C, H, W), with the scale of the convention."""
        return gram_matrix(features, STYLE_CONVENTIONS[convention][0])

    def compare(self, output: Features, target: Features, style: Tensor | None = None) -> Tensor:
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
    """Total variation (paper, section 3.3), summed over pixels of 0..255 as in the paper (weights 1e-6 to 1e-4).

    The images are in [0, 1] as everywhere. The result is 255 ** 2 times `functional.total_variation`. It is a sum over
    pixels, so it grows with the size of the image. It needs no target: `TotalVariation()(output)`. reduction: see
    `Term`.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__((PIXELS,), reduction=reduction)

    def compare(self, output: Features, target: Features, style: Tensor | None = None) -> Tensor:
        return 255**2 * total_variation(output[PIXELS])


class LatticeLoss(Term):
    """Strength of patterns in the output that repeat every 2 or 4 pixels (`functional.lattice_energy`).

    It is 0 if there is no such pattern, and has no unit: it is the mean logarithm of a ratio of powers. Its reference
    is always 1, because photos have no such pattern. It needs no target. reduction: see `Term`.

    Raises:
        ImageError: when called, an image is too small.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__((PIXELS,), reduction=reduction)

    def compare(self, output: Features, target: Features, style: Tensor | None = None) -> Tensor:
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
    brings in from outside. Called alone, it takes the two images: `TemporalLoss()(moved, carried)`.

    Raises:
        ConfigError: when called, one of the two images is missing.
    """

    def forward(self, output: Tensor, target: Tensor | None = None, style: Tensor | None = None) -> Tensor:
        self._values(output, "output", OUTPUTS)
        return reduce(self.compare({"moved": output, "carried": check_target(output, target)}, {}), self.reduction)

    def compare(self, output: Features, target: Features, style: Tensor | None = None) -> Tensor:
        if "moved" not in output or "carried" not in output:
            raise ConfigError("TemporalLoss compares two images: call the loss with beside={'moved': ..., "
                              "'carried': ...}.")  # fmt: skip
        return feature_distance(output["moved"], output["carried"])

    def measure(self, photographs: Features) -> Tensor:
        """The mean distance between each photo and the next one in the batch: (1,)."""
        pixels = photographs[PIXELS]
        return feature_distance(pixels, pixels.roll(1, 0)).mean(0, keepdim=True)


def _check_convention(convention: str) -> None:
    if convention not in STYLE_CONVENTIONS:
        raise ConfigError(f"convention is {convention!r}; choose one of {', '.join(STYLE_CONVENTIONS)}.")


def _check_side(image: Tensor, least: int) -> None:
    if min(image.shape[-2:]) < least:
        raise ImageError(f"An image of {image.shape[-1]} x {image.shape[-2]} px is too small for the grid losses: each "
                         f"side must have at least {least} px.")  # fmt: skip
