"""Settings of super-resolution: training, upscaling and evaluation."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated

from perceptual.config.checks import Range, check
from perceptual.config.common import NetworkConfig, TrainCommand, TrainConfig, named_weights
from perceptual.errors import ConfigError

Enlargement = Annotated[float, Range(0.01, 64)]


@dataclasses.dataclass(frozen=True)
class UpscaleRecipe:
    """A named set of settings for `perceptual train upscale`; `recipes.upscale_recipe` returns the built-in ones."""

    network: NetworkConfig = NetworkConfig()
    loss: str = "pixel"
    """pixel (squared error), l1 (absolute error), feature (vgg16:relu2_2, as in the paper) or another NETWORK:LAYER,
    distance (normalised features of several layers), texture (Gram matrices of these layers), grid (errors that repeat
    every --scale pixels), tv; or several with weights, such as feature:1,l1:0.5. Each term is divided by its value for
    bicubic interpolation."""
    train: TrainConfig = TrainConfig()
    blur: Annotated[float, Range(0, 16)] = 0.0
    """Sigma of a Gaussian blur, 0 to 16 pixels, applied before the bicubic reduction that makes the small images. The
    paper uses 1."""

    def __post_init__(self) -> None:
        check(self)
        named_weights(self.loss)


@dataclasses.dataclass(frozen=True, kw_only=True)
class UpscaleConfig:
    """Options of `perceptual upscale`."""

    scale: Enlargement | None = None
    """Factor of enlargement, 0.01 to 64; default: 4, or the scale of your own network. For a factor between the scales
    of the networks, the next larger network is used and its result is reduced by bicubic interpolation."""
    loss: str = "pixel"
    """The loss that the shipped network was trained with: pixel is closest to the original, feature looks sharpest,
    srcnn is the baseline. Not together with --network."""
    network: Path | None = None
    """A trained network of your own, instead of a shipped one."""
    tile: Annotated[int, Range(0, 65_536)] | None = None
    """Side of the tiles in pixels of the input, 16 to 65,536, or 0 for no tiles; default: 512, or less if memory is
    short."""
    match_histogram: bool = False
    """Match the colour histograms of the result to those of the input, as in the paper (section 4.2)."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ...; auto: a CUDA GPU if there is one, else the CPU."""
    skip_existing: bool = False
    """Skip inputs that already have an output file, to continue an interrupted run over a folder."""

    def __post_init__(self) -> None:
        check(self)
        if self.network is not None and self.loss != UpscaleConfig.loss:
            raise ConfigError("--loss has no effect together with --network: leave --loss out.")
        if self.tile is not None and 0 < self.tile < 16:
            raise ConfigError(f"tile is {self.tile}; give at least 16 pixels, or 0 for no tiles.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainUpscaleConfig(TrainCommand):
    """The input and output files of `perceptual train upscale`. The recipe has settings of its own."""

    scale: Annotated[int, Range(2, 16)] = 4
    """Factor by which the network enlarges, 2 to 16. The recipe paper allows 2, 4 and 8 only."""
    out: Path | None = None
    """The checkpoint file to write; default: x4.safetensors for --scale 4. The log, the previews and the training state
    are written next to it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Options of `perceptual evaluate sr`."""

    data: Path | None = None
    """A folder of images, or of subfolders, each of which is one data set. A data set may contain folders x2, x4 or
    image_SRF_4, as the usual benchmarks do. Files named ..._LR and folders named LR... are skipped. Default: the free
    sample photos of scikit-image."""
    scales: Annotated[tuple[int, ...], Range(2, 64)] = (4, 8)
    """Scales to measure at, 2 to 64."""
    networks: tuple[Path, ...] = ()
    """Trained networks of your own to measure in addition to the shipped ones, each at its own scale."""
    distances: tuple[str, ...] = ()
    """Perceptual distances to measure: names of loss networks, or lpips; default: all that have their weights on this
    computer."""
    weights: tuple[str, ...] = ()
    """Weight files of loss networks, as NAME=FILE. Others come from the cache."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ...; auto: a CUDA GPU if there is one, else the CPU."""

    def __post_init__(self) -> None:
        check(self)
        object.__setattr__(self, "data", self.data and Path(os.path.expanduser(self.data)))
        if not self.scales or len(set(self.scales)) < len(self.scales):
            raise ConfigError("scales is empty or contains a number twice: give each scale once, such as 4 8.")
