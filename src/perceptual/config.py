"""Every setting with its default, in frozen dataclasses: the only source of defaults; they make the command's flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from perceptual.errors import ConfigError

Norm = Literal["batch", "instance", "conditional_instance"]
Padding = Literal["zero", "reflect", "replicate", "reflect-start"]
StyleConvention = Literal["paper", "code", "gatys"]
Weighting = Literal["relative", "absolute"]

_T = TypeVar("_T")


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raise a ConfigError that lists the allowed values unless `value` is one of them."""
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}; choose one of {', '.join(allowed)}.")


def at_least(name: str, value: float, minimum: float) -> None:
    """Raise a ConfigError unless `value` is a number of at least `minimum` (not-a-number is not)."""
    if not value >= minimum or value == float("inf"):
        raise ConfigError(f"{name} is {value}; it must be at least {minimum:g}.")


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """What an image transformation network is made of; it goes into the card of every checkpoint."""

    architecture: str = "c9s1-32 d64 d128 r128*5 u64 u32 c9s1-3"
    """Layers as one line of text; see `perceptual.networks`."""
    norm: Norm = "batch"
    """batch (the paper), instance, or conditional_instance (one gamma and beta per style)."""
    padding: Padding = "reflect-start"
    """zero, reflect or replicate in every convolution; reflect-start pads the image once, as the authors' code."""
    styles: int = 1
    """Number of styles that the network holds (conditional_instance only)."""
    tanh_scale: float = 127.5
    """Half the output's range in 0..255 units: 127.5 is the paper's [0, 255]; the authors' code has 150."""

    def __post_init__(self) -> None:
        one_of("norm", self.norm, ("batch", "instance", "conditional_instance"))
        one_of("padding", self.padding, ("zero", "reflect", "replicate", "reflect-start"))
        at_least("styles", self.styles, 1)
        at_least("tanh-scale", self.tanh_scale, 1e-6)
        if self.styles > 1 and self.norm != "conditional_instance":
            raise ConfigError(f"{self.styles} styles need norm conditional_instance, not {self.norm}.")


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The objective of style transfer (paper, eq. 5): content, style and total variation, by layer and weight."""

    content_layers: tuple[str, ...] = ("vgg16:relu2_2",)
    """Layers of the feature reconstruction loss, as NETWORK:LAYER."""
    style_layers: tuple[str, ...] = ("vgg16:relu1_2", "vgg16:relu2_2", "vgg16:relu3_3", "vgg16:relu4_3")
    """Layers of the style reconstruction loss, as NETWORK:LAYER; several networks may stand together."""
    weighting: Weighting = "absolute"
    """absolute: weights as in the paper. relative: each term is first divided by its reference value, see losses."""
    content_weight: float = 1.0
    """Weight of the content term (the sum over its layers)."""
    style_weight: float = 1e-3
    """Weight of each layer's style term; under relative weighting, of their mean, and 1 is a plain choice."""
    tv_weight: float = 1e-5
    """Weight of total variation: of its sum on 0..255 pixels, or under relative weighting of its reference."""
    style_convention: StyleConvention = "paper"
    """paper: eq. 4 as printed (sum over C x C). code: its mean, as the authors' code, whose style weights
    of about 5 go with it. gatys: a quarter of the mean, with Gram matrices over H x W."""

    def __post_init__(self) -> None:
        one_of("weighting", self.weighting, ("relative", "absolute"))
        one_of("style-convention", self.style_convention, ("paper", "code", "gatys"))
        for name in ("content_weight", "style_weight", "tv_weight"):
            at_least(name.replace("_", "-"), getattr(self, name), 0)
        if not self.content_layers and not self.style_layers:
            raise ConfigError("A loss needs at least one content layer or one style layer.")


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
    decay: Literal["none", "cosine"] = "none"
    """none keeps the learning rate (the paper); cosine lowers it to zero at the last step."""
    style_steps: int = 0
    """So many steps come first that learn only gamma and beta, which make a style: for a trained network (--from)."""
    style_learning_rate: float = 2e-2
    """Adam's learning rate in those; --decay goes for them by themselves."""
    crop: Literal["random", "squash"] = "random"
    """random: shorter side to between `size` and 1.15 x `size`, then crop. squash: resize to a square (the paper)."""
    seed: int = 0
    """Seed of the initial weights, the order of the pictures, the crops and the flips."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto takes the fastest that the device computes natively."""
    compile: bool = False
    """Compile with torch.compile, where a compiler is there: about two minutes to start, for runs on a GPU."""
    workers: int = 2
    """Processes that read pictures; 0 reads in the main process."""
    tick_every: int = 50
    """Steps between lines of the log."""
    preview_every: int = 500
    """Steps between preview pictures; 0 for none."""
    save_every: int = 500
    """Steps between saves of the state that --resume goes on from."""

    def __post_init__(self) -> None:
        one_of("precision", self.precision, ("auto", "float32", "bfloat16", "float16"))
        one_of("decay", self.decay, ("none", "cosine"))
        one_of("crop", self.crop, ("random", "squash"))
        for name in ("steps", "batch", "tick_every", "save_every"):
            at_least(name.replace("_", "-"), getattr(self, name), 1)
        for name in ("workers", "preview_every", "seed", "style_steps"):
            at_least(name.replace("_", "-"), getattr(self, name), 0)
        at_least("size", self.size, 32)
        at_least("learning-rate", self.learning_rate, 1e-12)
        at_least("style-learning-rate", self.style_learning_rate, 1e-12)


@dataclasses.dataclass(frozen=True)
class StyleRecipe:
    """A named set of settings for `perceptual train style`."""

    network: NetworkConfig = NetworkConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    style_size: int = 512
    """Longer side to which a larger painting is scaled before its Gram matrices are taken, in pixels; smaller ones
    stay. It sets the size of the strokes."""

    def __post_init__(self) -> None:
        at_least("style-size", self.style_size, 32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StylizeConfig:
    """How `perceptual stylize` paints."""

    style: str = "starry_night"
    """A shipped style by name (`perceptual styles` lists them), the path of a trained network, or a blend of several
    that share one network, such as starry_night:0.7,wave:0.3."""
    name: str | None = None
    """Which style of a network that holds several, or a blend of them; else what --style says, or the first."""
    strength: float = 1.0
    """From 0, the photograph, to 1, the full style."""
    keep_colors: bool = False
    """Keep the photograph's colours and paint only in lightness."""
    style_scale: float = 1.0
    """Size of the strokes. 4 gives a picture of 2048 px strokes as large, relative to it, as 1 gives one of 512."""
    size: int | None = None
    """Longer side of the output in pixels; the input's own size when left out."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ...; auto takes a CUDA GPU where there is one."""
    skip_existing: bool = False
    """Leave outputs that exist as they are, to go on with an interrupted folder."""

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ConfigError(
                f"strength is {self.strength}; give a number from 0, the photograph, to 1, the full style."
            )
        if not 1 / 16 <= self.style_scale <= 16:
            raise ConfigError(f"style-scale is {self.style_scale}; give a number from 0.0625 to 16.")
        at_least("size", 1 if self.size is None else self.size, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainStyleConfig:
    """What `perceptual train style` reads and writes; the recipe's settings stand beside it."""

    style: tuple[Path, ...] = ()
    """The painting; several of them make one network of several styles (--norm conditional_instance)."""
    data: Path | None = None
    """A folder of photographs, searched through; any sizes."""
    out: Path | None = None
    """The checkpoint to write, wave.safetensors for wave.jpg when left out; log, previews and state lie beside it."""
    recipe: str = "fast"
    """A named set of settings, which any of the other flags changes; own when --from is given and this is not."""
    resume: bool = False
    """Go on from the state that an interrupted run with the same --out left."""
    start_from: str | None = None
    """A trained network to begin with, shipped (gallery) or a file. Styles of the same name go on from there; others
    begin with the mean of its styles, or with the one that is named here (wave)."""
    overwrite: bool = False
    """Begin anew although --out exists."""
    weights: tuple[str, ...] = ()
    """Weight files of loss networks as NAME=FILE; others are taken from the cache or downloaded."""
    about: str = ""
    """One line about the style, for the card inside the checkpoint."""
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
            object.__setattr__(self, name, path and path.expanduser())
        object.__setattr__(self, "style", tuple(path.expanduser() for path in self.style))
        if self.out is not None and self.out.suffix != ".safetensors":
            raise ConfigError(f"--out is {self.out}; it must end in .safetensors, such as {self.out.stem}.safetensors.")
        if (
            self.out is not None
            and self.start_from is not None
            and self.out.resolve() == Path(self.start_from).expanduser().resolve()
        ):
            raise ConfigError("--out and --from are the same file: choose another --out.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizeConfig:
    """How `perceptual optimize` makes a picture; what it minimises has settings of its own."""

    size: int | None = 512
    """Longer side of the result in pixels; in Python, None keeps the image's own size."""
    iterations: int = 500
    """Iterations, at each of the sizes of --scales."""
    method: Literal["lbfgs", "adam"] = "lbfgs"
    """lbfgs: projected L-BFGS, as in the paper. adam: Adam, clipped to the valid range after each step."""
    learning_rate: float = 0.02
    """Adam's learning rate, on [0, 1] pixels."""
    history: int = 10
    """Steps that L-BFGS remembers."""
    init: Literal["noise", "content"] = "noise"
    """Begin with white noise, as in the paper, or with the content image."""
    seed: int = 0
    """Seed of the white noise."""
    scales: int = 1
    """Sizes to go through, coarse to fine, each twice the one before; the last is the result's."""
    style_size: int | None = None
    """Longer side to which the painting is scaled, the result's when left out. It sets the size of the strokes."""
    preview_every: int = 50
    """Iterations between preview pictures; 0 for none."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ...; auto takes a CUDA GPU where there is one."""

    def __post_init__(self) -> None:
        one_of("method", self.method, ("lbfgs", "adam"))
        one_of("init", self.init, ("noise", "content"))
        for name in ("iterations", "history", "scales"):
            at_least(name, getattr(self, name), 1)
        for name in ("seed", "preview_every"):
            at_least(name.replace("_", "-"), getattr(self, name), 0)
        at_least("size", 32 if self.size is None else self.size, 32)
        at_least("style-size", 32 if self.style_size is None else self.style_size, 32)
        at_least("learning-rate", self.learning_rate, 1e-12)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReproduceConfig:
    """What `perceptual reproduce` works on, and how much of it; each experiment has its own defaults."""

    photos: Path | None = None
    """A folder of photographs; the free samples of scikit-image when left out."""
    network: str | None = None
    """A trained network, shipped or a file, whose objective and styles are used."""
    styles: tuple[str, ...] = ()
    """Styles of the network, by name."""
    paintings: Path | None = None
    """A folder with the paintings, under the names of the styles; for shipped styles their Gram matrices come along."""
    sizes: tuple[int, ...] = ()
    """Sides of the pictures in pixels."""
    images: tuple[int, ...] = ()
    """Photographs: one number for all sizes, or one for each."""
    iterations: tuple[int, ...] = ()
    """Iterations of L-BFGS, or steps of training: one number for all sizes, or one for each."""
    full: bool = False
    """The paper's numbers, where this computer has the days."""
    weights: tuple[str, ...] = ()
    """Weight files of loss networks as NAME=FILE; others are taken from the cache or downloaded."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ...; auto takes a CUDA GPU where there is one."""

    def __post_init__(self) -> None:
        for name, least in (("sizes", 32), ("images", 1), ("iterations", 1)):
            for value in getattr(self, name):
                at_least(name, value, least)
        if len(set(self.sizes)) < len(self.sizes):
            raise ConfigError("sizes has a number twice: give each size once.")


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
