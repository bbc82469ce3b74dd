"""The settings that every task shares, and the checks, reading and comparing of settings."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from perceptual.config.checks import Range, check
from perceptual.errors import ConfigError, shown

Norm = Literal["batch", "instance", "conditional_instance", "none"]
Padding = Literal["zero", "reflect", "replicate", "reflect-start"]

Seed = Annotated[int, Range(0, 2**32 - 1)]
Count = Annotated[int, Range(1, 100_000_000)]
CountOrNone = Annotated[int, Range(0, 100_000_000)]
Rate = Annotated[float, Range(1e-12, 1)]
Weight = Annotated[float, Range(0, 1e12)]

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """What an image transformation network is made of; it goes into the card of every checkpoint."""

    architecture: str = "c9s1-32 d64 d128 r128*5 u64 u32 c9s1-3"
    """Layers as one line of text; see `perceptual.networks`: 200 layers, 4,096 filters and 100,000,000 weights at
    most."""
    norm: Norm = "batch"
    """batch (the paper), instance, conditional_instance (one gamma and beta per style), or none."""
    padding: Padding = "reflect-start"
    """zero, reflect or replicate in every convolution; reflect-start pads the image once, as the authors' code."""
    styles: Annotated[int, Range(1, 10_000)] = 1
    """Number of styles that the network holds, 1 to 10,000 (more than 1 under conditional_instance only)."""
    tanh_scale: Annotated[float, Range(1e-6, 1e6)] = 127.5
    """Half the output's range in 0..255 units, 1e-06 to 1e+06: 127.5 is the paper's [0, 255]; the authors' code has
    150."""
    output: Literal["tanh", "linear", "bicubic"] = "tanh"
    """tanh (the paper), linear, or bicubic: linear, and added to the bicubic enlargement of the input."""
    channels: Literal["rgb", "luma"] = "rgb"
    """rgb, or luma: the network sees and makes luma alone, and the colours are enlarged by bicubic interpolation."""
    enlarge: Annotated[int, Range(1, 16)] = 1
    """Bicubic enlargement before the first layer, 1 to 16 times, as in SRCNN."""
    noise: Annotated[float, Range(0, 1)] = 0.0
    """Strength of the noise that is added to the input, 0 to 1, for style: without it a network draws a grid in flat
    areas."""

    def __post_init__(self) -> None:
        check(self)
        if self.styles > 1 and self.norm != "conditional_instance":
            raise ConfigError(f"{self.styles} styles need norm conditional_instance, not {self.norm}.")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How a network is trained; the losses and the network have their own settings."""

    steps: Count = 40_000
    """Optimiser steps, 1 to 100,000,000."""
    batch: Annotated[int, Range(1, 4096)] = 4
    """Images per step, 1 to 4,096 (and per process, when there are several)."""
    size: Annotated[int, Range(32, 8192)] = 256
    """Side of the square training crops, 32 to 8,192 pixels."""
    learning_rate: Rate = 1e-3
    """Adam's learning rate, 1e-12 to 1."""
    decay: Literal["none", "cosine", "tail"] = "none"
    """none keeps the learning rate (the paper); cosine lowers it to zero at the last step; tail keeps it, and lowers it
    to zero in a straight line over the last 30 %."""
    style_steps: CountOrNone = 0
    """So many steps, 0 to 100,000,000, come first that learn only gamma and beta, which make a style: for a trained
    network (--from)."""
    style_learning_rate: Rate = 2e-2
    """Adam's learning rate in those, 1e-12 to 1; --decay goes for them by themselves."""
    crop: Literal["random", "squash", "native"] = "random"
    """random: shorter side to between `size` and 1.15 x `size`, then crop. squash: resize to a square (the paper, for
    style). native: crop without resizing (the paper, for super-resolution), turned and flipped; a JPEG of 8 times the
    size or more is first halved while that leaves 4 times, as such pictures are seldom sharp to the pixel."""
    seed: Seed = 0
    """Seed of the initial weights, the order of the pictures, the crops and the flips, 0 to 4,294,967,295."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto takes the fastest that the device computes natively."""
    compile: bool = False
    """Compile with torch.compile on a GPU: about two minutes to start. On a CPU it is left out."""
    workers: Annotated[int, Range(0, 256)] = 2
    """Processes that read pictures, 0 to 256; 0 reads in the main process."""
    tick_every: Count = 50
    """Steps between lines of the log, 1 to 100,000,000."""
    preview_every: CountOrNone = 500
    """Steps between preview pictures, up to 100,000,000; 0 for none."""
    save_every: Count = 500
    """Steps between saves of the state that --resume goes on from, 1 to 100,000,000."""
    warmup: CountOrNone = 0
    """Steps over which the learning rate first rises from zero, 0 to 100,000,000."""
    ema: Annotated[float, Range(0, 0.999999)] = 0.0
    """From 0 to 0.999999; above 0 the checkpoint holds the moving average of the weights: 0.99 averages about the last
    100 steps."""

    def __post_init__(self) -> None:
        check(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainCommand:
    """What every `perceptual train` reads and writes; the recipe's settings stand beside it."""

    data: Path | None = None
    """A folder of photographs, searched through; any sizes."""
    out: Path | None = None
    """The checkpoint to write; log, previews and state lie beside it."""
    recipe: str = "fast"
    """A named set of settings, which any of the other flags changes."""
    resume: bool = False
    """Go on from the state that an interrupted run with the same --out left."""
    start_from: str | None = None
    """A trained network to begin with."""
    overwrite: bool = False
    """Begin anew although --out exists."""
    weights: tuple[str, ...] = ()
    """Weight files of loss networks as NAME=FILE; others are taken from the cache or downloaded."""
    about: str = ""
    """One line about the network, for the card inside the checkpoint."""
    licence: str = ""
    """Terms under which you pass the network on, for its card."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ...; auto takes a CUDA GPU where there is one."""
    tensorboard: bool = False
    """Write TensorBoard logs beside the checkpoint."""
    dry_run: bool = False
    """Print the resolved settings and stop."""

    def __post_init__(self) -> None:
        check(self)
        for name in ("data", "out"):
            path = getattr(self, name)
            object.__setattr__(self, name, path and Path(os.path.expanduser(path)))
        if self.out is not None and self.out.suffix != ".safetensors":
            raise ConfigError(f"--out is {self.out}; it must end in .safetensors, such as {self.out.stem}.safetensors.")
        if (
            self.out is not None
            and self.start_from is not None
            and os.path.realpath(self.out) == os.path.realpath(os.path.expanduser(self.start_from))
        ):
            raise ConfigError("--out and --from are the same file: choose another --out.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """How a trained network is applied to a picture, where its model has no options of its own."""

    tile: Annotated[int, Range(0, 65_536)] | None = None
    """Side of the tiles in pixels of the input, 16 to 65,536, or 0 for none; 512, or less where memory is short, when
    left out."""

    def __post_init__(self) -> None:
        check(self)
        if self.tile is not None and 0 < self.tile < 16:
            raise ConfigError(f"tile is {self.tile}; give at least 16 pixels, or 0 for no tiles.")


def named_weights(text: str, kind: str = "list of losses", example: str = "feature:1,l1:0.5") -> dict[str, float]:
    """The weights in "pixel:0.1,vgg16:relu2_2", by name; a name without a number weighs 1, twins add up.

    Raises:
        ConfigError: a part has no name, or a weight is not a number from 0 to 1e12, or all weights are 0.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, weight = part.strip(), 1.0
        before, colon, number = name.rpartition(":")
        with suppress(ValueError):  # a colon without a number behind it belongs to the name
            name, weight = (before.strip(), float(number)) if colon else (name, 1.0)
        if not name or not 0 <= weight <= 1e12:
            raise ConfigError(f'{shown(text)} is no {kind}: write "{example}", with weights from 0 to 1e+12.')
        found[name] = found.get(name, 0) + weight
    if not sum(found.values()):
        raise ConfigError(f"The weights in {shown(text)} are all 0: give shares such as 0.7 and 0.3.")
    return found


def to_dict(config: Any) -> dict[str, Any]:
    """Plain dictionary of a config, nested configs included; paths become text, tuples lists."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def from_dict(kind: type[_T], values: Mapping[str, Any]) -> _T:
    """Rebuild a config of numbers, words and configs from `to_dict`'s result; paths stay text.

    Raises:
        ConfigError: a key is unknown, or a value is refused.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"The settings are {shown(values)}; they must be a table of names and values.")
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(map(str, set(values) - set(fields)))
    if unknown:
        raise ConfigError(f"Unknown setting {shown(unknown[0])}; the known ones are {', '.join(sorted(fields))}.")
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        default = fields[name].default
        if dataclasses.is_dataclass(default) and isinstance(value, Mapping):
            arguments[name] = from_dict(type(default), value)
        else:
            arguments[name] = tuple(value) if isinstance(value, list) else value
    return kind(**arguments)


def differences(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """{dotted key: (value here, value there)} for what differs between two nested dictionaries."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in [*one, *(k for k in other if k not in one)]:
        here, there = one.get(key), other.get(key)
        if isinstance(here, Mapping) and isinstance(there, Mapping):
            found |= differences(here, there, f"{prefix}{key}.")
        elif here != there:
            found[prefix + key] = (here, there)
    return found


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value
