"""Settings of super-resolution: training, upscaling and evaluation."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated

from perceptual.config.checks import Range, check
from perceptual.config.common import ModelOptions, NetworkConfig, TrainCommand, TrainConfig, named_weights
from perceptual.errors import ConfigError

Enlargement = Annotated[float, Range(0.01, 64)]


@dataclasses.dataclass(frozen=True)
class UpscaleRecipe:
    """A named set of settings for `perceptual train upscale`; begin with one of `recipes.upscale_recipe`."""

    network: NetworkConfig = NetworkConfig()
    loss: str = "pixel"
    """pixel (squared error), l1 (absolute error), feature (vgg16:relu2_2, as in the paper) or another NETWORK:LAYER,
    distance (normalised features at several layers), texture (their Gram matrices), grid (what repeats with the scale),
    tv; or several with weights, such as feature:1,l1:0.5. Each counts in units of bicubic interpolation's error."""
    train: TrainConfig = TrainConfig()
    blur: Annotated[float, Range(0, 16)] = 0.0
    """Sigma of a Gaussian blur, 0 to 16 pixels, before the bicubic reduction that makes small pictures; the paper has
    1."""

    def __post_init__(self) -> None:
        check(self)
        named_weights(self.loss)


@dataclasses.dataclass(frozen=True, kw_only=True)
class UpscaleOptions(ModelOptions):
    """What a call of `Upscaler` takes beside the image."""

    scale: Enlargement | None = None
    """How many times larger the result is, 0.01 to 64, and at most what the network does; that when left out. A smaller
    scale makes the network's result smaller by bicubic interpolation."""
    match_histogram: bool = False
    """Match each channel's histogram to the input's afterwards, as in the paper (section 4.2)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class UpscaleConfig:
    """How `perceptual upscale` enlarges."""

    scale: Enlargement | None = None
    """How many times larger, 0.01 to 64; 4 when left out, or what a network of your own does. Between the networks'
    scales the next larger one is taken, and the result made smaller by bicubic interpolation."""
    loss: str = "pixel"
    """The loss that the shipped network was trained by: pixel is truest to the picture, feature looks sharpest; or
    srcnn, the baseline. Leave it out where --network is given."""
    network: Path | None = None
    """A trained network of your own, in place of a shipped one."""
    tile: Annotated[int, Range(0, 65_536)] | None = None
    """Side of the tiles in pixels of the input, 16 to 65,536, or 0 for none; 512, or less where memory is short, when
    left out."""
    match_histogram: bool = False
    """Match the colours' histograms to the input's afterwards, as in the paper (section 4.2)."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ...; auto takes a CUDA GPU where there is one."""

    def __post_init__(self) -> None:
        check(self)
        if self.network is not None and self.loss != UpscaleConfig.loss:
            raise ConfigError("--network names the network itself, where --loss does nothing: leave --loss out.")
        _ = self.options  # which refuses a tile that is too small

    @property
    def options(self) -> UpscaleOptions:
        """How each picture is enlarged."""
        return UpscaleOptions(scale=self.scale, tile=self.tile, match_histogram=self.match_histogram)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainUpscaleConfig(TrainCommand):
    """What `perceptual train upscale` reads and writes; the recipe's settings stand beside it."""

    scale: Annotated[int, Range(2, 16)] = 4
    """How many times larger the network makes a picture: 2 to 16, or 2, 4 or 8 under the recipe paper."""
    out: Path | None = None
    """The checkpoint to write, x4.safetensors for --scale 4 when left out; log, previews and state lie beside it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What `perceptual evaluate sr` measures."""

    data: Path | None = None
    """A folder of pictures, or of folders of them, each a set of its own, also with folders x2, x4 or image_SRF_4
    inside as in the usual benchmarks; files named ..._LR and folders named LR... are left out. The free samples of
    scikit-image when left out."""
    scales: Annotated[tuple[int, ...], Range(2, 64)] = (4, 8)
    """Scales to measure at, 2 to 64."""
    networks: tuple[Path, ...] = ()
    """Trained networks of your own to measure beside the shipped ones, each at its own scale."""
    distances: tuple[str, ...] = ()
    """Perceptual distances to measure: loss networks, or lpips; those whose weights are on this computer when left
    out."""
    weights: tuple[str, ...] = ()
    """Weight files of loss networks as NAME=FILE; others are taken from the cache."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ...; auto takes a CUDA GPU where there is one."""

    def __post_init__(self) -> None:
        check(self)
        object.__setattr__(self, "data", self.data and Path(os.path.expanduser(self.data)))
        if not self.scales or len(set(self.scales)) < len(self.scales):
            raise ConfigError("scales has no number, or one twice: give each scale once, such as 4 8.")
