"""Settings of super-resolution: training, upscaling and evaluation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

from perceptual.config.checks import Range
from perceptual.config.common import ModelOptions
from perceptual.errors import ConfigError

Enlargement = Annotated[float, Range(0.01, 64)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class UpscaleOptions(ModelOptions):
    """The options that a call of `Upscaler` accepts in addition to the image."""

    scale: Enlargement | None = None
    """Factor of enlargement, 0.01 to 64, and at most the scale of the network; default: the scale of the network. For a
    smaller factor its result is reduced by bicubic interpolation."""
    match_histogram: bool = False
    """Match the colour histograms of the result to those of the input, as in the paper (section 4.2)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class UpscaleConfig(ModelOptions):
    """Options of `perceptual upscale`."""

    scale: Enlargement | None = None
    """Factor of enlargement, 0.01 to 64; default: 4, or the scale of your own network. For a factor between the scales
    of the networks, the next larger network is used and its result is reduced by bicubic interpolation."""
    loss: str = "pixel"
    """The loss that the shipped network was trained with: pixel is closest to the original, feature looks sharpest,
    srcnn is the baseline. Not together with --network."""
    network: Path | None = None
    """A trained network of your own or of another program (.pth, .safetensors), instead of a shipped one."""
    match_histogram: bool = False
    """Match the colour histograms of the result to those of the input, as in the paper (section 4.2)."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ...; auto: a CUDA GPU if there is one, else the CPU."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network is not None and self.loss != UpscaleConfig.loss:
            raise ConfigError("--loss has no effect together with --network: leave --loss out.")

    @property
    def options(self) -> UpscaleOptions:
        """The options for enlarging each picture."""
        return UpscaleOptions(scale=self.scale, tile=self.tile, match_histogram=self.match_histogram)
