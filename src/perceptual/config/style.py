"""Settings of style transfer: objective, training, painting, optimisation, and the paper's experiments."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from perceptual.config.checks import Range, check
from perceptual.config.common import Count, CountOrNone, Rate, Seed, Weight
from perceptual.errors import ConfigError

StyleConvention = Literal["paper", "code", "gatys"]
Weighting = Literal["relative", "absolute"]
Precision = Literal["auto", "int8", "float32"]
Side = Annotated[int, Range(1, 100_000)]
TrainedSide = Annotated[int, Range(32, 16_384)]
Share = Annotated[float, Range(0, 1)]
StyleScale = Annotated[float, Range(0.0625, 16)]


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
    distance, texture, lattice, temporal)."""

    def __post_init__(self) -> None:
        check(self)
        if not self.content_layers and not self.style_layers:
            raise ConfigError("A loss needs at least one content layer or one style layer.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaintOptions:
    """The options that a call of `Stylizer` accepts in addition to the image."""

    style: str | None = None
    """One of the network's styles by name, or a blend of them such as starry_night:0.7,wave:0.3; default: the style
    that was loaded."""
    strength: Share = 1.0
    """Strength of the style, from 0 (the photo) to 1 (the full style)."""
    keep_colors: bool = False
    """Keep the colours of the photo and take only the lightness from the painted result."""
    style_scale: StyleScale = 1.0
    """Size of the strokes, 0.0625 to 16; 1 is the size that the network was trained for. At 4, the strokes in a photo
    of 2048 px are as large, relative to the photo, as the strokes in a photo of 512 px at 1."""
    size: Side | None = None
    """Longer side of the output, 1 to 100,000 pixels; default: the size of the input."""
    noise: Annotated[float, Range(0, 2)] = 1.0
    """Strength of the noise that some networks add to their input, from 0 to 2, relative to the trained strength. It
    decides where strokes lie in flat areas."""
    precision: Precision = "auto"
    """auto: the fastest on this processor, which is int8 if the processor has instructions for it, else float32. int8
    results differ from float32 (PSNR 46 to 51 dB for most photos, 29 at worst), most in dark and flat photos."""

    def __post_init__(self) -> None:
        check(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StylizeConfig:
    """Options of `perceptual stylize`."""

    style: str = "starry_night"
    """A shipped style by name (`perceptual styles` lists them), the path of a trained network, or a blend of styles of
    one network, such as starry_night:0.7,wave:0.3."""
    name: str | None = None
    """The style to use, or a blend of styles, if the network has several; default: the style that --style names, else
    the first."""
    strength: Share = PaintOptions.strength
    """Strength of the style, from 0 (the photo) to 1 (the full style)."""
    keep_colors: bool = PaintOptions.keep_colors
    """Keep the colours of the photo and take only the lightness from the painted result."""
    style_scale: StyleScale = PaintOptions.style_scale
    """Size of the strokes, 0.0625 to 16. At 4, the strokes in a photo of 2048 px are as large, relative to the photo,
    as the strokes in a photo of 512 px at 1."""
    size: Side | None = PaintOptions.size
    """Longer side of the output, 1 to 100,000 pixels; default: the size of the input."""
    noise: Annotated[float, Range(0, 2)] = PaintOptions.noise
    """Strength of the noise that some networks add to their input, from 0 to 2, relative to the trained strength. It
    decides where strokes lie in flat areas."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ...; auto: a CUDA GPU if there is one, else the CPU."""
    precision: Precision = PaintOptions.precision
    """auto: the fastest on this processor, which is int8 if the processor has instructions for it, else float32. int8
    results differ from float32 (PSNR 46 to 51 dB for most photos, 29 at worst), most in dark and flat photos."""

    def __post_init__(self) -> None:
        check(self)

    @property
    def options(self) -> PaintOptions:
        """The options for painting each picture."""
        same = ("strength", "keep_colors", "style_scale", "size", "noise", "precision")
        return PaintOptions(style=self.name, **{name: getattr(self, name) for name in same})


_RELATIVE = LossConfig(weighting="relative", style_weight=1.0, tv_weight=0.02)
BASELINE_LOSS = dataclasses.replace(_RELATIVE, style_weight=5.0)
"""The objective of `perceptual optimize style`; its style weight was chosen by eye, beside 2, 10 and 40."""
INVERT_TV = 0.01
"""Weight of total variation in `perceptual optimize invert`, relative to that of the picture."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizeConfig:
    """Options of `perceptual optimize`. The objective has settings of its own."""

    size: TrainedSide | None = 512
    """Longer side of the result, 32 to 16,384 pixels. In Python, None keeps the size of the image."""
    iterations: Count = 500
    """Number of iterations at each size of --scales, 1 to 100,000,000."""
    method: Literal["lbfgs", "adam"] = "lbfgs"
    """lbfgs: projected L-BFGS, as in the paper. adam: Adam; pixels are clipped to the valid range after each step."""
    learning_rate: Rate = 0.02
    """Adam's learning rate for pixels in [0, 1], 1e-12 to 1. Only for --method adam."""
    history: Annotated[int, Range(1, 1000)] = 10
    """Number of previous steps that L-BFGS keeps, 1 to 1,000. Only for --method lbfgs."""
    init: Literal["noise", "content"] = "noise"
    """Start from white noise, as in the paper, or from the content image."""
    seed: Seed = 0
    """Seed of the white noise, 0 to 4,294,967,295."""
    scales: Annotated[int, Range(1, 10)] = 1
    """Number of sizes to optimise at, 1 to 10, from coarse to fine. Each is twice as large as the one before; the last
    is --size."""
    style_size: TrainedSide | None = None
    """Longer side to which the painting is scaled, 32 to 16,384 pixels; default: the size of the result. It sets the
    size of the strokes."""
    preview_every: CountOrNone = 50
    """Iterations between preview images, 0 to 100,000,000; 0: no previews."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ...; auto: a CUDA GPU if there is one, else the CPU."""

    def __post_init__(self) -> None:
        check(self)
        if self.method == "lbfgs" and self.learning_rate != OptimizeConfig.learning_rate:
            raise ConfigError("--learning-rate is Adam's, and L-BFGS has none: add --method adam, or leave it out.")
        if self.method == "adam" and self.history != OptimizeConfig.history:
            raise ConfigError("--history is that of L-BFGS, and Adam has none: add --method lbfgs, or leave it out.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReproduceConfig:
    """Options of `perceptual reproduce`. Each experiment has its own defaults."""

    photos: Path | None = None
    """A folder of photos; default: the free sample photos of scikit-image."""
    network: str | None = None
    """A trained network, as the name of a shipped one or a file. Its objective and its styles are used."""
    styles: tuple[str, ...] = ()
    """Names of styles of the network."""
    paintings: Path | None = None
    """A folder with the paintings; the file names are the names of the styles. Shipped styles need none: their Gram
    matrices are included."""
    sizes: Annotated[tuple[int, ...], Range(32, 8192)] = ()
    """Sides of the images, 32 to 8,192 pixels."""
    images: Annotated[tuple[int, ...], Range(1, 100_000)] = ()
    """Number of photos, 1 to 100,000: one number for all sizes, or one for each size."""
    iterations: Annotated[tuple[int, ...], Range(1, 100_000_000)] = ()
    """Number of L-BFGS iterations or training steps, 1 to 100,000,000: one number for all sizes, or one for each
    size."""
    full: bool = False
    """Use as many photos and iterations as the paper. This can take days."""
    weights: tuple[str, ...] = ()
    """Weight files of loss networks, as NAME=FILE. Others come from the cache or are downloaded."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ...; auto: a CUDA GPU if there is one, else the CPU."""

    def __post_init__(self) -> None:
        check(self)
        if len(set(self.sizes)) < len(self.sizes):
            raise ConfigError("sizes contains a number twice: give each size once.")
