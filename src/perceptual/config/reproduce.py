"""Settings of `perceptual reproduce`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

from perceptual.config.checks import Range, check
from perceptual.errors import ConfigError


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
    """A folder with the paintings; the file names are the names of the styles. Default: the Gram matrices that are
    shipped. They fit the default networks; the network gallery needs this folder."""
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
