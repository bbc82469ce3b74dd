"""Settings of super-resolution: training, upscaling and evaluation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from perceptual.config.checks import Range
from perceptual.config.common import ModelOptions
from perceptual.errors import ConfigError

UpscalePrecision = Literal["auto", "float32", "bfloat16"]
Enlargement = Annotated[float, Range(0.01, 64)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class UpscaleOptions(ModelOptions):
    """The options that a call of `Upscaler` accepts in addition to the image."""

    scale: Enlargement | None = None
    """Factor of enlargement, 0.01 to 64, and at most the scale of the network; default: the scale of the network. For a
    smaller factor its result is reduced by bicubic interpolation."""
    match_histogram: bool = False
    """Match the colour histograms of the result to those of the input, as in the paper (section 4.2)."""
    precision: UpscalePrecision = "auto"
    """float32, bfloat16, or auto: bfloat16 for pictures of 8 bits, where this processor is measured to be faster with
    it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class UpscaleConfig(ModelOptions):
    """Options of `perceptual upscale`."""

    scale: Enlargement | None = None
    """Factor of enlargement, 0.01 to 64; default: 4, or the scale of your own network. For a factor between the scales
    of the networks, the next larger network is used and its result is reduced by bicubic interpolation."""
    loss: str = "auto"
    """The shipped network: pixel is closest to the original, feature looks sharpest, photo cleans compressed and noisy
    pictures, srcnn is the baseline; auto takes photo for pictures that look compressed, noisy or aliased, else
    pixel. Not together with --network."""
    denoise: Annotated[float, Range(0, 1)] | None = None
    """How much noise and compression the network photo removes, 0 to 1; default: 1. For --loss photo and auto."""
    network: Path | None = None
    """A trained network of your own or of another program (.pth, .safetensors), instead of a shipped one."""
    match_histogram: bool = False
    """Match the colour histograms of the result to those of the input, as in the paper (section 4.2)."""
    precision: UpscalePrecision = "auto"
    """float32, bfloat16, or auto: bfloat16 for pictures of 8 bits, where this processor is measured to
    be faster with it."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ...; auto: a CUDA GPU if there is one, else the CPU."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network is not None and self.loss != UpscaleConfig.loss:
            raise ConfigError("--loss has no effect together with --network: leave --loss out.")
        if self.denoise is not None and (self.network is not None or self.loss not in ("auto", "photo")):
            raise ConfigError("--denoise is for --loss photo and auto: leave it out.")

    @property
    def options(self) -> UpscaleOptions:
        """The options for enlarging each picture."""
        return UpscaleOptions(
            scale=self.scale, tile=self.tile, match_histogram=self.match_histogram, precision=self.precision
        )
