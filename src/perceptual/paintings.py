"""The paintings that a style network learns: read, scaled and checked against the settings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from perceptual import images
from perceptual.config import StyleRecipe
from perceptual.errors import ConfigError
from perceptual.files import sha256_of
from perceptual.networks import parse_architecture


def style_name(path: str | Path) -> str:
    """The name of a style from its file: "The Wave.jpg" -> "the_wave"."""
    return re.sub(r"[^\w]+", "_", Path(path).stem.lower()).strip("_") or "style"


def read_paintings(styles: Sequence[str | Path], recipe: StyleRecipe) -> dict[str, tuple[str, Tensor]]:
    """{name: (SHA-256 of the file, pixels at the recipe's size)}; checks the recipe against them before any work.

    Raises:
        ConfigError: several styles under another norm, two of one name, an architecture that is none, or gamma and beta
            to be learnt alone in one that has none.
        ImageError: a painting cannot be read.
    """
    names, norm = [style_name(path) for path in styles], recipe.network.norm
    layers = parse_architecture(recipe.network.architecture, 1 if recipe.network.channels == "luma" else 3)
    normed = len(layers) > 1 and "instance" in norm  # the last layer has no norm
    if recipe.train.style_steps and not normed:
        raise ConfigError("Gamma and beta make a style under instance norm only: give --style-steps 0.")
    if not names or len(set(names)) < len(names):
        raise ConfigError("Give at least one style image, and no two of the same name.")
    if len(names) > 1 and norm != "conditional_instance":
        raise ConfigError(f"{len(names)} styles in one network need --norm conditional_instance, not {norm}.")
    if recipe.network.styles not in (1, len(names)):
        raise ConfigError(f"--styles is {recipe.network.styles} but {len(names)} --style given: leave --styles out.")
    pixels = [read_painting(path, recipe) for path in styles]
    return {name: (sha256_of(path), p) for name, path, p in zip(names, styles, pixels, strict=True)}


def read_painting(path: str | Path, recipe: StyleRecipe) -> Tensor:
    """A painting (1, 3, H, W) of the recipe's size, or of its own when that is smaller.

    Raises:
        ImageError: it cannot be read.
    """
    pixels = images.read(path).pixels
    return images.resize(pixels, longer_side=min(recipe.style_size, max(pixels.shape[-2:])))
