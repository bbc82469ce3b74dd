"""Settings of `perceptual evaluate`."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated

from perceptual.config.checks import Range, check
from perceptual.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Options of `perceptual evaluate sr`."""

    data: Path | None = None
    """A folder of images, or of subfolders. Each subfolder is one data set. A data set may contain folders x2, x4 or
    image_SRF_4, as the usual benchmarks do. Files named ..._LR and folders named LR... are skipped. Default: the free
    sample photos of scikit-image."""
    scales: Annotated[tuple[int, ...], Range(2, 64)] = (4, 8)
    """Scales to measure at, 2 to 64."""
    networks: tuple[Path, ...] = ()
    """Trained networks of your own or of other programs (.pth, .safetensors) to measure in addition to the shipped
    ones, each at its own scale."""
    distances: tuple[str, ...] = ()
    """Perceptual distances to measure: names of loss networks, or lpips (AlexNet), lpips@vgg, lpips@squeeze; default:
    those of all loss networks that have their weights on this computer."""
    weights: tuple[str, ...] = ()
    """Weight files of loss networks, as NAME=FILE. Others come from the cache."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ...; auto: a CUDA GPU if there is one, else the CPU."""

    def __post_init__(self) -> None:
        check(self)
        object.__setattr__(self, "data", self.data and Path(os.path.expanduser(self.data)))
        if not self.scales or len(set(self.scales)) < len(self.scales):
            raise ConfigError("scales is empty or contains a number twice: give each scale once, such as 4 8.")
