"""Architecture strings: the layers of a network as one line of text. The notation is in `perceptual.networks`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from perceptual.errors import ConfigError, shown

STYLE = "c9s1-32 d64 d128 r128*5 u64 u32 c9s1-3"
LAYERS, FILTERS, KERNEL, STRIDE, SHUFFLE = 200, 4096, 31, 8, 16
WEIGHTS = 100_000_000
"""Limits of an architecture, so that a small file cannot use up the memory or compute for hours."""


@dataclass(frozen=True)
class Layer:
    """One layer of an architecture string.

    kind: one of c d r n u U B x s p. filters: number of output channels. kernel: side in pixels. stride: in pixels.
    grow: factor by which the layer enlarges the image, before the stride reduces it.
    """

    kind: str
    filters: int
    kernel: int = 3
    stride: int = 1
    grow: int = 1


_TOKEN = re.compile(
    r"(?:c(?P<kernel>\d{1,6})s(?P<stride>\d{1,6})-(?P<c>\d{1,6})|(?P<shuffle>[sp])(?P<times_side>\d{1,6})-(?P<s>\d{1,6})"
    r"|(?P<kind>[drnuUBx])(?P<filters>\d{1,6}))(?:\*(?P<times>[1-9]\d{0,2}))?",
    re.ASCII,
)


def parse_architecture(text: str, channels: int = 3) -> tuple[Layer, ...]:
    """Parse an architecture string. `R128` and `C128` of the authors' code mean r128 and n128.

    channels: number of channels of the input and output image, 3 or 1.

    Raises:
        ConfigError: a word is not a layer, a limit is exceeded, or the text does not end in a convolution of stride 1
            to `channels` channels.
    """
    layers: list[Layer] = []
    where = f"architecture {shown(text, 200)}"
    for word in text.replace(",", " ").split():
        match = _TOKEN.fullmatch(re.sub(r"^R", "r", re.sub(r"^C", "n", word)))
        if match is None:
            raise ConfigError(
                f"{shown(word)} in the {where} is not a layer: write c9s1-32, d64, r128*5, n128, u64, U64, B64, x64, "
                "s4-3 or p2-12."
            )
        layer = _layer(match)
        if min(layer.filters, layer.stride, layer.grow) < 1 or layer.kernel % 2 == 0:
            raise ConfigError(f"{word!r} in the {where} needs an odd kernel, and a stride and filters of 1 or more.")
        layers += [layer] * int(match["times"] or 1)
        _check_limits(word, layer, where)
        if len(layers) > LAYERS:
            raise ConfigError(f"The {where} has more than {LAYERS} layers: leave some out.")
    last = layers[-1] if layers else None
    if last is None or last.kind not in "cs" or last.stride > 1 or last.filters != channels:
        word = {3: "3 channels", 1: "1 channel"}[channels]
        raise ConfigError(f"The {where} must end in a convolution to {word} of stride 1, such as c9s1-{channels}.")
    if (weights := _count_weights(layers, channels, where)) > WEIGHTS:
        raise ConfigError(f"The {where} has {weights:,} weights; {WEIGHTS:,} are the most: give fewer filters.")
    return tuple(layers)


def _count_weights(layers: Sequence[Layer], width: int, where: str) -> int:
    """The number of filter weights. Checks that each layer fits the `width` channels before it."""
    weights = 0
    for layer in layers:
        if layer.kind in "rnx" and layer.filters != width:
            raise ConfigError(
                f"The block {layer.kind}{layer.filters} in the {where} follows {width} channels; they must be equal."
            )
        if layer.kind == "p" and layer.filters != width * layer.stride**2:
            raise ConfigError(
                f"p{layer.stride}-{layer.filters} in the {where} follows {width} channels: write "
                f"p{layer.stride}-{width * layer.stride**2}."
            )
        convolutions = {"r": 2, "n": 2, "x": 0, "p": 0}.get(layer.kind, 1)
        shuffled = layer.grow if layer.kind == "s" else 1
        weights += convolutions * width * layer.filters * (layer.kernel * shuffled) ** 2
        width = layer.filters
    return weights


def _check_limits(word: str, layer: Layer, where: str) -> None:
    limits = {"filters": FILTERS, "kernel": KERNEL, "stride": STRIDE, "grow": SHUFFLE}
    for name, most in limits.items():
        if (value := getattr(layer, name)) > most:
            kind = {"filters": "filters", "grow": "times a side"}.get(name, f"as its {name}")
            raise ConfigError(f"{word!r} in the {where} has {value} {kind}; {most:,} is the most.")


def _layer(match: re.Match[str]) -> Layer:
    if match["shuffle"] == "s":
        return Layer("s", int(match["s"]), grow=int(match["times_side"]))
    if match["shuffle"]:
        return Layer("p", int(match["s"]), kernel=1, stride=int(match["times_side"]))
    if match["c"]:
        return Layer("c", int(match["c"]), int(match["kernel"]), int(match["stride"]))
    kind = match["kind"]
    stride, grow = 2 if kind == "d" else 1, 2 if kind in "uUBx" else 1
    return Layer(kind, int(match["filters"]), 1 if kind == "x" else 3, stride, grow)
