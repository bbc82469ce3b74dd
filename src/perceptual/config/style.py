"""Settings of style transfer: objectives, training, painting, optimisation and the paper's experiments."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Literal, TypedDict

from perceptual.config.checks import Range, check
from perceptual.config.common import Count, CountOrNone, NetworkConfig, Rate, Seed, TrainCommand, TrainConfig, Weight
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
    """The objective of style transfer (paper, eq. 5): content, style and total variation, by layer and weight."""

    content_layers: tuple[str, ...] = ("vgg16:relu2_2",)
    """Layers of the feature reconstruction loss, as NETWORK:LAYER."""
    style_layers: tuple[str, ...] = ("vgg16:relu1_2", "vgg16:relu2_2", "vgg16:relu3_3", "vgg16:relu4_3")
    """Layers of the style reconstruction loss, as NETWORK:LAYER; several networks may stand together. NETWORK:LAYER@2
    compares picture and painting at half their size."""
    weighting: Weighting = "absolute"
    """absolute: weights as in the paper. relative: each term is first divided by its reference value, see losses."""
    content_weight: Weight = 1.0
    """Weight of the content term, 0 to 1e+12 (the sum over its layers)."""
    style_weight: Weight = 1e-3
    """Weight of each layer's style term, 0 to 1e+12; under relative weighting, of their mean, and 1 is a plain
    choice."""
    tv_weight: Weight = 1e-5
    """Weight of total variation, 0 to 1e+12: of its sum on 0..255 pixels, or under relative weighting of its
    reference."""
    style_convention: StyleConvention = "paper"
    """paper: eq. 4 as printed (sum over C x C). code: its mean, as the authors' code, whose style weights
    of about 5 go with it. gatys: a quarter of the mean, with Gram matrices over H x W."""
    lattice_weight: Weight = 0.0
    """Weight of the penalty on grids of 2 and 4 pixels in the output, 0 to 1e+12, see `functional.lattice_energy`."""

    def __post_init__(self) -> None:
        check(self)
        if not self.content_layers and not self.style_layers:
            raise ConfigError("A loss needs at least one content layer or one style layer.")


@dataclasses.dataclass(frozen=True)
class StyleRecipe:
    """A named set of settings for `perceptual train style`."""

    network: NetworkConfig = NetworkConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    style_size: TrainedSide = 512
    """Longer side to which a larger painting is scaled before its Gram matrices are taken, 32 to 16,384 pixels;
    smaller ones stay. It sets the size of the strokes."""
    temporal_weight: Weight = 0.0
    """Weight, 0 to 1e+12, of the difference between paintings of a picture and of the same moved a little, with noise,
    one moved along: for video. Under relative weighting 1 counts the difference of two photographs."""
    style_factors: Annotated[tuple[float, ...], Range(0.01, 100)] = ()
    """A factor of the style weight for each --style, 0.01 to 100, in their order; 1 for all when left out. Relative
    weights only."""

    def __post_init__(self) -> None:
        check(self)
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
    strength: Share = 1.0
    """From 0, the photograph, to 1, the full style."""
    keep_colors: bool = False
    """Keep the photograph's colours and paint only in lightness."""
    style_scale: StyleScale = 1.0
    """Size of the strokes, 0.0625 to 16. 4 gives a picture of 2048 px strokes as large, relative to it, as 1 gives one
    of 512."""
    size: Side | None = None
    """Longer side of the output, 1 to 100,000 pixels; the input's own size when left out."""
    noise: Annotated[float, Range(0, 2)] = 1.0
    """How much of the network's own noise goes in, from 0 to 2: it decides where strokes lie in flat areas."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ...; auto takes a CUDA GPU where there is one."""
    precision: Precision = "auto"
    """auto takes what the processor computes fastest: int8 where it multiplies bytes, else float32. int8 differs from
    float32 (PSNR of 46 to 52 dB as a rule, 29 at worst), most in dark and flat pictures."""
    skip_existing: bool = False
    """Leave outputs that exist as they are, to go on with an interrupted folder."""

    def __post_init__(self) -> None:
        check(self)


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
    search: str | None = None
    """Train a network for each value of one weight, such as tv_weight=1e-6,1e-5,1e-4, and compare them on --held-out:
    a table of all terms, and the pictures side by side. So the paper chose the weight of total variation (section 4.1).
    Each network is trained for all of --steps."""
    held_out: Path | None = None
    """A folder of photographs that are not trained on, for --search."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "style", tuple(Path(os.path.expanduser(path)) for path in self.style))
        object.__setattr__(self, "held_out", self.held_out and Path(os.path.expanduser(self.held_out)))
        if self.held_out and not self.search:
            raise ConfigError("--held-out is for --search: add --search tv_weight=1e-6,1e-5,1e-4, or leave it out.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizeConfig:
    """How `perceptual optimize` makes a picture; what it minimises has settings of its own."""

    size: TrainedSide | None = 512
    """Longer side of the result, 32 to 16,384 pixels; in Python, None keeps the image's own size."""
    iterations: Count = 500
    """Iterations, 1 to 100,000,000, at each of the sizes of --scales."""
    method: Literal["lbfgs", "adam"] = "lbfgs"
    """lbfgs: projected L-BFGS, as in the paper. adam: Adam, clipped to the valid range after each step."""
    learning_rate: Rate = 0.02
    """Adam's learning rate on pixels of [0, 1], 1e-12 to 1; with --method adam only."""
    history: Annotated[int, Range(1, 1000)] = 10
    """Steps that L-BFGS remembers, 1 to 1,000; with --method lbfgs only."""
    init: Literal["noise", "content"] = "noise"
    """Begin with white noise, as in the paper, or with the content image."""
    seed: Seed = 0
    """Seed of the white noise, 0 to 4,294,967,295."""
    scales: Annotated[int, Range(1, 10)] = 1
    """Sizes to go through, 1 to 10, coarse to fine, each twice the one before; the last is the result's."""
    style_size: TrainedSide | None = None
    """Longer side to which the painting is scaled, 32 to 16,384 pixels, the result's when left out. It sets the size of
    the strokes."""
    preview_every: CountOrNone = 50
    """Iterations between preview pictures, up to 100,000,000; 0 for none."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ...; auto takes a CUDA GPU where there is one."""

    def __post_init__(self) -> None:
        check(self)
        if self.method == "lbfgs" and self.learning_rate != OptimizeConfig.learning_rate:
            raise ConfigError("--learning-rate is Adam's, and L-BFGS has none: add --method adam, or leave it out.")
        if self.method == "adam" and self.history != OptimizeConfig.history:
            raise ConfigError("--history is that of L-BFGS, and Adam has none: add --method lbfgs, or leave it out.")


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
    sizes: Annotated[tuple[int, ...], Range(32, 8192)] = ()
    """Sides of the pictures, 32 to 8,192 pixels."""
    images: Annotated[tuple[int, ...], Range(1, 100_000)] = ()
    """Photographs, 1 to 100,000: one number for all sizes, or one for each."""
    iterations: Annotated[tuple[int, ...], Range(1, 100_000_000)] = ()
    """Iterations of L-BFGS, or steps of training, 1 to 100,000,000: one number for all sizes, or one for each."""
    full: bool = False
    """The paper's numbers, where this computer has the days."""
    weights: tuple[str, ...] = ()
    """Weight files of loss networks as NAME=FILE; others are taken from the cache or downloaded."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ...; auto takes a CUDA GPU where there is one."""

    def __post_init__(self) -> None:
        check(self)
        if len(set(self.sizes)) < len(self.sizes):
            raise ConfigError("sizes has a number twice: give each size once.")
