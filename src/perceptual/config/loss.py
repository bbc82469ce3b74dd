"""Settings of the objective of style transfer."""

from __future__ import annotations

import dataclasses
from typing import Literal

from perceptual.config.checks import check
from perceptual.config.common import Weight
from perceptual.errors import ConfigError

StyleConvention = Literal["paper", "code", "gatys"]
Weighting = Literal["relative", "absolute"]


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The objective of style transfer (paper, eq. 5): layers and weights of content, style and total variation."""

    content_layers: tuple[str, ...] = ("vgg16:relu2_2",)
    """Layers of the feature reconstruction loss, as NETWORK:LAYER."""
    style_layers: tuple[str, ...] = ("vgg16:relu1_2", "vgg16:relu2_2", "vgg16:relu3_3", "vgg16:relu4_3")
    """Layers of the style reconstruction loss, as NETWORK:LAYER. Layers of several networks can be combined.
    NETWORK:LAYER@2 compares output and painting at half their size."""
    weighting: Weighting = "absolute"
    """absolute: weights as in the paper. relative: each term is first divided by its reference value; see
    `perceptual.losses`."""
    content_weight: Weight = 1.0
    """Weight of the content term, 0 to 1e+12. With absolute weighting the layers are summed, with relative weighting
    averaged."""
    style_weight: Weight = 1e-3
    """Weight of the style term of each layer, 0 to 1e+12. With relative weighting: weight of the mean over the layers;
    1 is a good start."""
    tv_weight: Weight = 1e-5
    """Weight of total variation, 0 to 1e+12. With absolute weighting it is summed over pixels of 0..255; with relative
    weighting it is divided by its reference value."""
    style_convention: StyleConvention = "paper"
    """Scale of the style loss. paper: eq. 4 as printed, a sum over C x C. code: the mean over C x C, as in the authors'
    code, which uses style weights of about 5. gatys: a quarter of the mean, with Gram matrices divided by H x W."""
    lattice_weight: Weight = 0.0
    """Weight of the penalty on grids of 2 and 4 pixels in the output, 0 to 1e+12; see
    `perceptual.functional.lattice_energy`."""
    loss: str = ""
    """The whole objective in one line, in place of the layers and weights above, such as
    content@vgg16:relu2_2=1,style@vgg16:relu1_2+relu2_2=2,tv=0.02 (terms: content, style, tv, feature, pixel, l1,
    distance, lpips, ssim, texture, lattice, temporal)."""

    def __post_init__(self) -> None:
        check(self)
        if not self.content_layers and not self.style_layers:
            raise ConfigError("A loss needs at least one content layer or one style layer.")
