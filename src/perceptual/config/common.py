"""The settings that every task shares, and the checks, reading and comparing of settings."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

from perceptual.errors import ConfigError

Norm = Literal["batch", "instance", "conditional_instance", "none"]
Padding = Literal["zero", "reflect", "replicate", "reflect-start"]

_T = TypeVar("_T")


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raise a ConfigError that lists the allowed values unless `value` is one of them."""
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}; choose one of {', '.join(allowed)}.")


def at_least(name: str, value: float, minimum: float) -> None:
    """Raise a ConfigError unless `value` is a number of at least `minimum` (not-a-number is not)."""
    if not value >= minimum or value == float("inf"):
        raise ConfigError(f"{name} is {value}; it must be at least {minimum:g}.")


def between(name: str, value: float, minimum: float, maximum: float) -> None:
    """Raise a ConfigError unless `value` is a number from `minimum` to `maximum`."""
    if not minimum <= value <= maximum:
        raise ConfigError(f"{name} is {value}; it must be from {minimum:g} to {maximum:g}.")


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """What an image transformation network is made of; it goes into the card of every checkpoint."""

    architecture: str = "c9s1-32 d64 d128 r128*5 u64 u32 c9s1-3"
    """Layers as one line of text; see `perceptual.networks`."""
    norm: Norm = "batch"
    """batch (the paper), instance, conditional_instance (one gamma and beta per style), or none."""
    padding: Padding = "reflect-start"
    """zero, reflect or replicate in every convolution; reflect-start pads the image once, as the authors' code."""
    styles: int = 1
    """Number of styles that the network holds (conditional_instance only)."""
    tanh_scale: float = 127.5
    """Half the output's range in 0..255 units: 127.5 is the paper's [0, 255]; the authors' code has 150."""
    output: Literal["tanh", "linear", "bicubic"] = "tanh"
    """tanh (the paper), linear, or bicubic: linear, and added to the bicubic enlargement of the input."""
    channels: Literal["rgb", "luma"] = "rgb"
    """rgb, or luma: the network sees and makes luma alone, and the colours are enlarged by bicubic interpolation."""
    enlarge: int = 1
    """Bicubic enlargement before the first layer, as in SRCNN."""
    noise: float = 0.0
    """Strength of the noise that is added to the input, for style: without it a network draws a grid in flat areas."""

    def __post_init__(self) -> None:
        one_of("norm", self.norm, ("batch", "instance", "conditional_instance", "none"))
        one_of("output", self.output, ("tanh", "linear", "bicubic"))
        one_of("channels", self.channels, ("rgb", "luma"))
        at_least("enlarge", self.enlarge, 1)
        if self.enlarge != int(self.enlarge):
            raise ConfigError(f"enlarge is {self.enlarge}; it must be a whole number.")
        one_of("padding", self.padding, ("zero", "reflect", "replicate", "reflect-start"))
        at_least("styles", self.styles, 1)
        between("noise", self.noise, 0, 1)
        at_least("tanh-scale", self.tanh_scale, 1e-6)
        if self.styles > 1 and self.norm != "conditional_instance":
            raise ConfigError(f"{self.styles} styles need norm conditional_instance, not {self.norm}.")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How a network is trained; the losses and the network have their own settings."""

    steps: int = 40_000
    """Optimiser steps."""
    batch: int = 4
    """Images per step (and per process, when there are several)."""
    size: int = 256
    """Side of the square training crops, in pixels."""
    learning_rate: float = 1e-3
    """Adam's learning rate."""
    decay: Literal["none", "cosine", "tail"] = "none"
    """none keeps the learning rate (the paper); cosine lowers it to zero at the last step; tail keeps it, and lowers it
    to zero in a straight line over the last 30 %."""
    style_steps: int = 0
    """So many steps come first that learn only gamma and beta, which make a style: for a trained network (--from)."""
    style_learning_rate: float = 2e-2
    """Adam's learning rate in those; --decay goes for them by themselves."""
    crop: Literal["random", "squash", "native"] = "random"
    """random: shorter side to between `size` and 1.15 x `size`, then crop. squash: resize to a square (the paper, for
    style). native: crop without resizing (the paper, for super-resolution), turned and flipped; a JPEG of 8 times the
    size or more is first halved while that leaves 4 times, as such pictures are seldom sharp to the pixel."""
    seed: int = 0
    """Seed of the initial weights, the order of the pictures, the crops and the flips."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto takes the fastest that the device computes natively."""
    compile: bool = False
    """Compile with torch.compile on a GPU: about two minutes to start. On a CPU it is left out."""
    workers: int = 2
    """Processes that read pictures; 0 reads in the main process."""
    tick_every: int = 50
    """Steps between lines of the log."""
    preview_every: int = 500
    """Steps between preview pictures; 0 for none."""
    save_every: int = 500
    """Steps between saves of the state that --resume goes on from."""
    warmup: int = 0
    """Steps over which the learning rate first rises from zero."""
    ema: float = 0.0
    """Above 0 the checkpoint holds the moving average of the weights: 0.99 averages about the last 100 steps."""

    def __post_init__(self) -> None:
        one_of("precision", self.precision, ("auto", "float32", "bfloat16", "float16"))
        one_of("decay", self.decay, ("none", "cosine", "tail"))
        one_of("crop", self.crop, ("random", "squash", "native"))
        for name in ("steps", "batch", "tick_every", "save_every"):
            at_least(name.replace("_", "-"), getattr(self, name), 1)
        if not 0 <= self.ema < 1:
            raise ConfigError(f"ema is {self.ema}; it must be at least 0 and below 1.")
        for name in ("workers", "preview_every", "seed", "style_steps", "warmup"):
            at_least(name.replace("_", "-"), getattr(self, name), 0)
        at_least("size", self.size, 32)
        at_least("learning-rate", self.learning_rate, 1e-12)
        at_least("style-learning-rate", self.style_learning_rate, 1e-12)


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


def named_weights(text: str, kind: str = "list of losses", example: str = "feature:1,l1:0.5") -> dict[str, float]:
    """The weights in "pixel:0.1,vgg16:relu2_2", by name; a name without a number weighs 1, twins add up.

    Raises:
        ConfigError: a part has no name, or a weight is not a number from 0 up, or all weights are 0.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, weight = part.strip(), 1.0
        before, colon, number = name.rpartition(":")
        with suppress(ValueError):  # a colon without a number behind it belongs to the name
            name, weight = (before.strip(), float(number)) if colon else (name, 1.0)
        if not name or not 0 <= weight < float("inf"):
            raise ConfigError(f'{text!r} is no {kind}: write "{example}".')
        found[name] = found.get(name, 0) + weight
    if not 0 < sum(found.values()) < float("inf"):
        raise ConfigError(f"The weights in {text!r} are all 0, or too large: give shares such as 0.7 and 0.3.")
    return found


def to_dict(config: Any) -> dict[str, Any]:
    """Plain dictionary of a config, nested configs included; paths become text, tuples lists."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def from_dict(kind: type[_T], values: Mapping[str, Any]) -> _T:
    """Rebuild a config of numbers, words and configs from `to_dict`'s result; paths stay text.

    Raises:
        ConfigError: a key is unknown, or a value is refused.
    """
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ConfigError(f"Unknown setting {unknown[0]!r}; the known ones are {', '.join(sorted(fields))}.")
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
