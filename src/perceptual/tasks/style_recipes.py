"""The settings of `perceptual train style`, and the recipes. A recipe is a named set of settings."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Annotated

from perceptual.config import LossConfig, NetworkConfig, Range, TrainConfig, Weight, check
from perceptual.config.common import TrainedSide
from perceptual.config.optimize import RELATIVE_LOSS
from perceptual.errors import ConfigError
from perceptual.losses import check_weights, objective_of


@dataclasses.dataclass(frozen=True)
class StyleRecipe:
    """The settings of `perceptual train style`: network, objective, training, and how paintings are read."""

    network: NetworkConfig = NetworkConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    style_size: TrainedSide = 512
    """Longer side of the painting when its Gram matrices are computed, 32 to 16,384 pixels. A larger painting is scaled
    down to it; a smaller one stays as it is. It sets the size of the strokes."""
    temporal_weight: Weight = 0.0
    """Weight of the temporal loss against flicker in videos, 0 to 1e+12. It compares the results for a photo and for a
    slightly moved, noisy copy of it. With relative weighting, 1 is the difference between two photos."""
    style_factors: Annotated[tuple[float, ...], Range(0.01, 100)] = ()
    """Factors of the style weight, 0.01 to 100, one for each --style in the same order; default: 1 for each. Needs
    relative weighting."""
    loss_shift: Annotated[int, Range(0, 256)] = 0
    """The losses see a random crop of the painted photo. Its sides are this many pixels shorter, 0 to 256. The zero
    padding of a loss network makes edges look different to it. With random crops the network cannot learn where these
    edges are, so it does not paint a frame there."""

    def __post_init__(self) -> None:
        check(self)
        if self.style_factors and self.loss.weighting != "relative":
            raise ConfigError("--style-factors needs --weighting relative.")
        if self.loss.lattice_weight and self.train.size < 48:
            raise ConfigError(f"--lattice-weight needs crops of 48 px or more, and --size is {self.train.size}.")
        if self.train.size - self.loss_shift < 48 and self.loss_shift:
            least = 48 + self.loss_shift
            raise ConfigError(
                f"--loss-shift {self.loss_shift} needs --size {least} or more: give that size, or a smaller shift."
            )
        specs = objective_of(self.loss)
        if not self.temporal_weight:
            check_weights(specs)
        temporal = self.temporal_weight or "temporal" in [spec.kind for spec in specs]
        if temporal and self.train.size < 48:
            raise ConfigError(f"The temporal loss needs crops of 48 px or more, and --size is {self.train.size}.")


# Departures from the paper's network: half the filters, instance norm, 5x5 kernels at both ends, bilinear doubling,
# reflection in every convolution, 150 tanh. docs/departures.md gives the reasons.
_LEAN = NetworkConfig(
    architecture="c5s1-16 d32 d64 r64*5 B32 B16 c5s1-3", norm="instance", padding="reflect", tanh_scale=150
)
_SHORT = TrainConfig(steps=5_000, batch=1, learning_rate=2e-3, decay="cosine")
_DISTILLED = tuple(f"vgg19-distilled:{layer}" for layer in ("relu1_2", "relu2_2", "relu3_3", "relu4_3"))


_VGG = tuple(f"vgg16-torchvision:{layer}" for layer in ("relu1_2", "relu2_2", "relu3_3", "relu4_3"))
GALLERY_NOISE = 0.06

_PAPER = StyleRecipe(
    network=NetworkConfig(padding="zero"),  # with the activation sizes of the supplement's Table 1
    # Departure from eq. 4: a mean in place of the sum, as in the authors' code. The style weight of 5 fits the mean.
    # Departure from section 4.1: one weight of total variation, 1e-5. The paper chooses it for each style.
    loss=LossConfig(style_convention="code", style_weight=5.0),
    train=TrainConfig(crop="squash", precision="float32"),
)

_GALLERY_LOSS = replace(
    RELATIVE_LOSS,
    content_layers=("vgg16-torchvision:relu3_3",),
    style_layers=(*_VGG, *(f"{layer}@2" for layer in _VGG)),
    lattice_weight=0.3,
)

STYLE_RECIPES: dict[str, tuple[str, StyleRecipe]] = {
    "fast": (
        "a small network, trained with the paper's layers, for a computer without a GPU",
        StyleRecipe(network=_LEAN, loss=RELATIVE_LOSS, train=_SHORT),
    ),
    "sketch": (
        "as fast, with a quicker loss network (vgg19-distilled: give its file)",
        StyleRecipe(
            network=_LEAN,
            loss=replace(RELATIVE_LOSS, content_layers=("vgg19-distilled:relu2_2",), style_layers=_DISTILLED),
            train=_SHORT,
        ),
    ),
    "own": (
        "a new style for a trained network (--from gallery): trains gamma and beta, in minutes without a GPU; further "
        "--steps train all weights",
        StyleRecipe(
            network=replace(_LEAN, norm="conditional_instance"),
            # Twice the weight of the gallery, because there are few steps.
            loss=replace(_GALLERY_LOSS, style_weight=2.0),
            train=replace(_SHORT, steps=300, style_steps=300, preview_every=50, save_every=50),
        ),
    ),
    "gallery": (
        "the settings of the shipped gallery: style layers at two sizes, noise against grids; days without a GPU",
        StyleRecipe(
            network=replace(_LEAN, norm="conditional_instance", noise=GALLERY_NOISE),
            loss=_GALLERY_LOSS,
            train=replace(_SHORT, steps=250_000, batch=2, learning_rate=1e-3, decay="tail", warmup=20, ema=0.999),
            style_size=1024,  # tools/paintings.py scales each painting to its own size
        ),
    ),
    "paper": (
        "the paper's network, objective and schedule (supplement, Table 1; section 4.1); hours on a GPU, days on a CPU",
        _PAPER,
    ),
    "authors": (
        "as paper, but as in the authors' code: one reflection at the start, 150 tanh, content at relu3_3",
        replace(
            _PAPER,
            network=NetworkConfig(padding="reflect-start", tanh_scale=150),
            loss=replace(_PAPER.loss, content_layers=("vgg16:relu3_3",), tv_weight=1e-6),
        ),
    ),
}
