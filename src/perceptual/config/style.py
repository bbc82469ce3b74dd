"""Settings of style transfer: objectives, training, painting, optimisation and the paper's experiments."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Literal, TypedDict

from perceptual.config.common import NetworkConfig, TrainCommand, TrainConfig, at_least, between, one_of
from perceptual.errors import ConfigError

StyleConvention = Literal["paper", "code", "gatys"]
Weighting = Literal["relative", "absolute"]
Precision = Literal["auto", "int8", "float32"]


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The objective of style transfer (paper, eq. 5): content, style and total variation, by layer and weight."""

    content_layers: tuple[str, ...] = ("vgg16:relu2_2",)
    """Layers of the feature reconstruction loss, as NETWORK:LAYER."""
    style_layers: tuple[str, ...] = ("vgg16:relu1_2", "vgg16:relu2_2", "vgg16:relu3_3", "vgg16:relu4_3")
    """Layers of the style reconstruction loss, as NETWORK:LAYER; several networks may stand together. NETWORK:LAYER@2
    compares picture and painting at half their size."""
    weighting: Weighting = "absolute"
    """absolute: weights as in the paper. relative: each term is first divided by its reference value, see losses."""
    content_weight: float = 1.0
    """Weight of the content term (the sum over its layers)."""
    style_weight: float = 1e-3
    """Weight of each layer's style term; under relative weighting, of their mean, and 1 is a plain choice."""
    tv_weight: float = 1e-5
    """Weight of total variation: of its sum on 0..255 pixels, or under relative weighting of its reference."""
    style_convention: StyleConvention = "paper"
    """paper: eq. 4 as printed (sum over C x C). code: its mean, as the authors' code, whose style weights
    of about 5 go with it. gatys: a quarter of the mean, with Gram matrices over H x W."""
    lattice_weight: float = 0.0
    """Weight of the penalty on grids of 2 and 4 pixels in the output, see `functional.lattice_energy`."""

    def __post_init__(self) -> None:
        one_of("weighting", self.weighting, ("relative", "absolute"))
        one_of("style-convention", self.style_convention, ("paper", "code", "gatys"))
        for name in ("content_weight", "style_weight", "tv_weight", "lattice_weight"):
            at_least(name.replace("_", "-"), getattr(self, name), 0)
        if not self.content_layers and not self.style_layers:
            raise ConfigError("A loss needs at least one content layer or one style layer.")


@dataclasses.dataclass(frozen=True)
class StyleRecipe:
    """A named set of settings for `perceptual train style`."""

    network: NetworkConfig = NetworkConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    style_size: int = 512
    """Longer side to which a larger painting is scaled before its Gram matrices are taken, in pixels; smaller ones
    stay. It sets the size of the strokes."""
    temporal_weight: float = 0.0
    """Weight of the difference between paintings of a picture and of the same moved a little, with noise, one moved
    along: for video. Under relative weighting 1 counts the difference of two photographs."""
    style_factors: tuple[float, ...] = ()
    """A factor of the style weight for each --style, in their order; 1 for all when left out. Relative weights only."""

    def __post_init__(self) -> None:
        at_least("style-size", self.style_size, 32)
        at_least("temporal-weight", self.temporal_weight, 0)
        for factor in self.style_factors:
            at_least("style-factors", factor, 0.01)
        if self.style_factors and self.loss.weighting != "relative":
            raise ConfigError("--style-factors needs --weighting relative.")
        if self.loss.lattice_weight and self.train.size < 48:
            raise ConfigError(f"--lattice-weight needs crops of 48 px or more, and --size is {self.train.size}.")
        if self.temporal_weight and self.train.size < 48:
            raise ConfigError(f"--temporal-weight needs crops of 48 px or more, and --size is {self.train.size}.")


class PaintOptions(TypedDict, total=False):
    """What a call of `Stylizer` takes beside the image; `StylizeConfig` says what each means, and its range."""

    style: str | None
    strength: float
    keep_colors: bool
    style_scale: float
    size: int | None
    noise: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class StylizeConfig:
    """How `perceptual stylize` paints."""

    style: str = "starry_night"
    """A shipped style by name (`perceptual styles` lists them), the path of a trained network, or a blend of several
    that share one network, such as starry_night:0.7,wave:0.3."""
    name: str | None = None
    """Which style of a network that holds several, or a blend of them; else what --style says, or the first."""
    strength: float = 1.0
    """From 0, the photograph, to 1, the full style."""
    keep_colors: bool = False
    """Keep the photograph's colours and paint only in lightness."""
    style_scale: float = 1.0
    """Size of the strokes. 4 gives a picture of 2048 px strokes as large, relative to it, as 1 gives one of 512."""
    size: int | None = None
    """Longer side of the output in pixels; the input's own size when left out."""
    noise: float = 1.0
    """How much of the network's own noise goes in, from 0 to 2: it decides where strokes lie in flat areas."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ...; auto takes a CUDA GPU where there is one."""
    precision: Precision = "auto"
    """auto takes what the processor computes fastest: int8 (above 40 dB PSNR against float32) where it multiplies
    bytes, else float32."""
    skip_existing: bool = False
    """Leave outputs that exist as they are, to go on with an interrupted folder."""

    def __post_init__(self) -> None:
        one_of("precision", self.precision, ("auto", "int8", "float32"))
        if not 0 <= self.strength <= 1:
            raise ConfigError(
                f"strength is {self.strength}; give a number from 0, the photograph, to 1, the full style."
            )
        if not 1 / 16 <= self.style_scale <= 16:
            raise ConfigError(f"style-scale is {self.style_scale}; give a number from 0.0625 to 16.")
        at_least("size", 1 if self.size is None else self.size, 1)
        between("noise", self.noise, 0, 2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainStyleConfig(TrainCommand):
    """What `perceptual train style` reads and writes; the recipe's settings stand beside it."""

    style: tuple[Path, ...] = ()
    """The painting; several of them make one network of several styles (--norm conditional_instance)."""
    out: Path | None = None
    """The checkpoint to write, wave.safetensors for wave.jpg when left out; log, previews and state lie beside it."""
    recipe: str = "fast"
    """A named set of settings, which any of the other flags changes; own when --from is given and this is not."""
    start_from: str | None = None
    """A trained network to begin with, shipped (gallery) or a file. Styles of the same name go on from there; others
    begin with the mean of its styles, or with the one that is named here (wave)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "style", tuple(Path(os.path.expanduser(path)) for path in self.style))


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizeConfig:
    """How `perceptual optimize` makes a picture; what it minimises has settings of its own."""

    size: int | None = 512
    """Longer side of the result in pixels; in Python, None keeps the image's own size."""
    iterations: int = 500
    """Iterations, at each of the sizes of --scales."""
    method: Literal["lbfgs", "adam"] = "lbfgs"
    """lbfgs: projected L-BFGS, as in the paper. adam: Adam, clipped to the valid range after each step."""
    learning_rate: float = 0.02
    """Adam's learning rate, on [0, 1] pixels."""
    history: int = 10
    """Steps that L-BFGS remembers."""
    init: Literal["noise", "content"] = "noise"
    """Begin with white noise, as in the paper, or with the content image."""
    seed: int = 0
    """Seed of the white noise."""
    scales: int = 1
    """Sizes to go through, coarse to fine, each twice the one before; the last is the result's."""
    style_size: int | None = None
    """Longer side to which the painting is scaled, the result's when left out. It sets the size of the strokes."""
    preview_every: int = 50
    """Iterations between preview pictures; 0 for none."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ...; auto takes a CUDA GPU where there is one."""

    def __post_init__(self) -> None:
        one_of("method", self.method, ("lbfgs", "adam"))
        one_of("init", self.init, ("noise", "content"))
        for name in ("iterations", "history", "scales"):
            at_least(name, getattr(self, name), 1)
        for name in ("seed", "preview_every"):
            at_least(name.replace("_", "-"), getattr(self, name), 0)
        at_least("size", 32 if self.size is None else self.size, 32)
        at_least("style-size", 32 if self.style_size is None else self.style_size, 32)
        at_least("learning-rate", self.learning_rate, 1e-12)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReproduceConfig:
    """What `perceptual reproduce` works on, and how much of it; each experiment has its own defaults."""

    photos: Path | None = None
    """A folder of photographs; the free samples of scikit-image when left out."""
    network: str | None = None
    """A trained network, shipped or a file, whose objective and styles are used."""
    styles: tuple[str, ...] = ()
    """Styles of the network, by name."""
    paintings: Path | None = None
    """A folder with the paintings, under the names of the styles; for shipped styles their Gram matrices come along."""
    sizes: tuple[int, ...] = ()
    """Sides of the pictures in pixels."""
    images: tuple[int, ...] = ()
    """Photographs: one number for all sizes, or one for each."""
    iterations: tuple[int, ...] = ()
    """Iterations of L-BFGS, or steps of training: one number for all sizes, or one for each."""
    full: bool = False
    """The paper's numbers, where this computer has the days."""
    weights: tuple[str, ...] = ()
    """Weight files of loss networks as NAME=FILE; others are taken from the cache or downloaded."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ...; auto takes a CUDA GPU where there is one."""

    def __post_init__(self) -> None:
        for name, least in (("sizes", 32), ("images", 1), ("iterations", 1)):
            for value in getattr(self, name):
                at_least(name, value, least)
        if len(set(self.sizes)) < len(self.sizes):
            raise ConfigError("sizes has a number twice: give each size once.")
