"""The settings that every task shares, and functions that read, write and compare settings."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from perceptual.config.checks import Range, check
from perceptual.errors import ConfigError, shown

Norm = Literal["batch", "instance", "conditional_instance", "none"]
Padding = Literal["zero", "reflect", "replicate", "reflect-start", "reflect-crop", "reflect-start-crop", "same-crop"]

Seed = Annotated[int, Range(0, 2**32 - 1)]
Count = Annotated[int, Range(1, 100_000_000)]
CountOrNone = Annotated[int, Range(0, 100_000_000)]
Rate = Annotated[float, Range(1e-12, 1)]
Weight = Annotated[float, Range(0, 1e12)]
TrainedSide = Annotated[int, Range(32, 16_384)]

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """The structure of an image transformation network. It is stored in the card of every checkpoint."""

    architecture: str = "c9s1-32 d64 d128 r128*5 u64 u32 c9s1-3"
    """The layers as one line of text; `perceptual.networks` explains the notation. At most 200 layers, 4,096 filters
    per layer and 100,000,000 weights."""
    norm: Norm = "batch"
    """Normalisation layers: batch (as in the paper), instance, conditional_instance (one gamma and beta per style), or
    none."""
    padding: Padding = "reflect-start"
    """zero, reflect or replicate: pad in every convolution. reflect-start: pad the image once at the start, as the
    authors' code does. Names with -crop are for networks of other programs: if a side is no multiple of the strides,
    the image is not padded; the layers round the side up, and the result is cropped. same is TensorFlow's SAME, with
    black around the image."""
    styles: Annotated[int, Range(1, 10_000)] = 1
    """Number of styles in the network, 1 to 10,000. More than 1 needs norm conditional_instance."""
    tanh_scale: Annotated[float, Range(1e-6, 1e6)] = 127.5
    """Half the range of the output, in units of 0..255, 1e-06 to 1e+06. 127.5 gives the paper's range [0, 255]; the
    authors' code uses 150."""
    output: Literal["tanh", "linear", "bicubic", "caffe"] = "tanh"
    """Last operation: tanh (as in the paper), linear, bicubic (linear, added to a bicubic enlargement of the input), or
    caffe (tanh, plus the mean colour of ImageNet, which is also subtracted from the input; as in the authors' code)."""
    channels: Literal["rgb", "luma"] = "rgb"
    """rgb: the network processes all three channels. luma: it processes luma only, and the colours are enlarged by
    bicubic interpolation."""
    enlarge: Annotated[int, Range(1, 16)] = 1
    """Factor of bicubic enlargement before the first layer, 1 to 16, as in SRCNN."""
    noise: Annotated[float, Range(0, 1)] = 0.0
    """Strength of the noise added to the input, 0 to 1, for style transfer. Without noise a network draws a grid in
    flat areas."""

    def __post_init__(self) -> None:
        check(self)
        if self.output == "caffe" and self.channels == "luma":
            raise ConfigError("output caffe is for networks of RGB: choose --output tanh or --channels rgb.")
        if self.styles > 1 and self.norm != "conditional_instance":
            raise ConfigError(f"{self.styles} styles need norm conditional_instance, not {self.norm}.")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How a network is trained. The losses and the network have settings of their own."""

    steps: Count = 40_000
    """Number of optimiser steps, 1 to 100,000,000."""
    batch: Annotated[int, Range(1, 4096)] = 4
    """Images per step, 1 to 4,096. Several processes share them equally."""
    size: Annotated[int, Range(32, 8192)] = 256
    """Side of the square training crops, 32 to 8,192 pixels."""
    learning_rate: Rate = 1e-3
    """Adam's learning rate, 1e-12 to 1."""
    decay: Literal["none", "cosine", "tail"] = "none"
    """none: constant learning rate (as in the paper). cosine: decays to zero at the last step. tail: constant, then
    decays linearly to zero over the last 30 % of the steps."""
    style_steps: CountOrNone = 0
    """Number of initial steps, 0 to 100,000,000, that train only the normalisation's gamma and beta, which define a
    style. Needs a trained network (--from)."""
    style_learning_rate: Rate = 2e-2
    """Adam's learning rate in the steps of --style-steps, 1e-12 to 1. --decay applies to these steps separately."""
    crop: Literal["random", "squash", "native"] = "random"
    """random: resize the shorter side to between `size` and 1.15 x `size`, then crop. squash: resize to a square (the
    paper, for style transfer). native: crop without resizing (the paper, for super-resolution), then rotate and flip;
    a large JPEG is read at 1/2, 1/4 or 1/8 of its size if 4 times `size` is left, because large photos are rarely sharp
    in every pixel."""
    seed: Seed = 0
    """Seed of the initial weights, the order of the photos, the crops and the flips, 0 to 4,294,967,295."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the computation. auto: the fastest that the device supports natively."""
    compile: bool = False
    """Use torch.compile on a GPU. It takes about two minutes to start. Ignored on a CPU."""
    workers: Annotated[int, Range(0, 256)] = 2
    """Number of processes that read photos, 0 to 256; 0: the main process reads them. With several training processes:
    for each of them."""
    tick_every: Count = 50
    """Steps between log lines, 1 to 100,000,000."""
    preview_every: CountOrNone = 500
    """Steps between preview images, 0 to 100,000,000; 0: no previews."""
    save_every: Count = 500
    """Steps between saves of the training state, from which --resume continues, 1 to 100,000,000."""
    warmup: CountOrNone = 0
    """Number of steps at the start in which the learning rate rises from zero, 0 to 100,000,000."""
    ema: Annotated[float, Range(0, 0.999999)] = 0.0
    """Decay of an exponential moving average of the weights, 0 to 0.999999; 0: no average. The checkpoint holds the
    average. 0.99 averages roughly the last 100 steps."""
    keep_photos: bool = False
    """Keep the decoded photos on the GPU, if it waits for photos. --workers is not used then."""

    def __post_init__(self) -> None:
        check(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainCommand:
    """The input and output files of every `perceptual train` command. The recipe has settings of its own."""

    data: Path | None = None
    """A folder of photos. Subfolders are searched too."""
    out: Path | None = None
    """The checkpoint file to write. The log, the previews and the training state are written next to it."""
    recipe: str = "fast"
    """A named set of settings. The other flags change single settings of it."""
    config: Path | None = None
    """A TOML file with settings, such as the one that training writes beside the checkpoint. Flags on the command line
    win."""
    resume: bool = False
    """Continue an interrupted run that had the same --out."""
    start_from: str | None = None
    """A trained network to start from."""
    overwrite: bool = False
    """Start again from the beginning even if --out exists."""
    weights: tuple[str, ...] = ()
    """Weight files of loss networks, as NAME=FILE. Others come from the cache or are downloaded."""
    about: str = ""
    """One line that describes the network, for the card inside the checkpoint."""
    licence: str = ""
    """The licence under which you publish the network, for its card."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ...; auto: a CUDA GPU if there is one, else the CPU."""
    tensorboard: bool = False
    """Write TensorBoard logs next to the checkpoint."""
    dry_run: bool = False
    """Print the final settings and stop."""

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
    """Side of the tiles in pixels of the input, 16 to 65,536, or 0 for no tiles; default: 512, or less if memory is
    short."""

    def __post_init__(self) -> None:
        check(self)
        if self.tile is not None and 0 < self.tile < 16:
            raise ConfigError(f"tile is {self.tile}; give at least 16 pixels, or 0 for no tiles.")


def named_weights(text: str) -> dict[str, float]:
    """Parse a blend of styles, such as "starry_night:0.7,wave:0.3", into {name: weight}.

    A name without a number has weight 1. The weights of a repeated name are added.

    Raises:
        ConfigError: a part has no name, a weight is not a number from 0 to 1e12, or all weights are 0.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, weight = part.strip(), 1.0
        before, colon, number = name.rpartition(":")
        with suppress(ValueError):  # a colon that no number follows is part of the name
            name, weight = (before.strip(), float(number)) if colon else (name, 1.0)
        if not name or not 0 <= weight <= 1e12:
            example = '"starry_night:0.7,wave:0.3"'
            raise ConfigError(f"{shown(text)} is not a blend of styles: write {example}, with weights from 0 to 1e+12.")
        found[name] = found.get(name, 0) + weight
    if not sum(found.values()):
        raise ConfigError(f"The weights in {shown(text)} are all 0: give weights such as 0.7 and 0.3.")
    return found


def weight_paths(pairs: Iterable[str]) -> dict[str, Path]:
    """Parse the NAME=FILE of --weights into {name of loss network: file}.

    Raises:
        ConfigError: a part has no "=".
    """
    paths = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not equals:
            raise ConfigError(f"--weights takes NAME=FILE, such as vgg16=vgg16-00b39a1b.pth, not {pair!r}.")
        paths[name] = Path(os.path.expanduser(path))
    return paths


def to_dict(config: Any) -> dict[str, Any]:
    """A config as a dictionary, nested configs included. Paths become text and tuples become lists."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def from_dict(kind: type[_T], values: Mapping[str, Any]) -> _T:
    """Rebuild a config from the result of `to_dict`. It may hold numbers, text and nested configs.

    Raises:
        ConfigError: a key is unknown, or a value is invalid.
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
    """Compare two nested dictionaries: {dotted key: (value in one, value in the other)} for every difference."""
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
