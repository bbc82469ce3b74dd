"""The commands for the weights of loss networks, and functions that other commands use to get them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from perceptual.cli import results
from perceptual.cli.help import WrongCommandLine, parse
from perceptual.cli.terminal import say, show, tell, with_bar
from perceptual.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Weights:
    """List the loss networks, with a description and the location of the weight file.

    `perceptual weights fetch NAME` downloads weights.
    Example: perceptual weights vgg16
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = ()
    """Names of loss networks: list these with their layers. Default: all networks without layers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Fetch:
    """Download the weights of loss networks and check their SHA-256. An interrupted download is continued.

    Example: perceptual weights fetch vgg16
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Names of loss networks; `perceptual weights` lists them."""


def weights(arguments: Sequence[str]) -> int:
    """perceptual weights: list the loss networks, their weight files and their layers. Returns the exit code."""
    wanted = parse(_Weights, arguments, "weights").names
    from perceptual.losses.weights import PRETRAINED, locate

    for name in wanted or PRETRAINED:
        found = locate(name)
        results.add("loss_networks", {"name": name, "file": found, "about": PRETRAINED[name].about})
        place = found or "not on this computer"
        show(f"{name:24} {place}")
        show(f"{'':24} {PRETRAINED[name].about}")
        if wanted:
            from perceptual.losses.networks import layer_names

            show(f"{'':24} {' '.join(layer_names(name))}")
    return 0


def fetch(arguments: Sequence[str]) -> int:
    """perceptual weights fetch NAME ...: download weights of loss networks into the cache. Returns the exit code."""
    from perceptual.losses.weights import fetch as fetch_weights
    from perceptual.losses.weights import locate

    wanted = parse(_Fetch, arguments, "weights fetch").names
    if not wanted:
        raise WrongCommandLine("Name the loss networks to fetch, such as vgg16; `perceptual weights` lists them.")
    for name in wanted:
        for _ in with_bar(fetch_weights(name), name):
            pass
        results.add("loss_networks", {"name": name, "file": locate(name)})
        tell(locate(name))
    return 0


def fetch_missing(layers: Sequence[str], paths: dict[str, Path]) -> None:
    """Say what is missing, and download missing weights of the loss networks of some layers, with a progress bar.

    layers: as NETWORK:LAYER. paths: weight files by network, which are not downloaded.

    Raises:
        ConfigError: a layer is unknown, or `paths` has a network that no layer uses. WeightsError: a download failed.
    """
    from perceptual.losses.networks import check_layer, missing_networks, split_layer
    from perceptual.losses.weights import before_download
    from perceptual.losses.weights import fetch as fetch_weights
    from perceptual.losses.weights.heads import LPIPS_LAYERS

    networks = list(dict.fromkeys(split_layer(layer)[0] for layer in layers))
    for name in paths:
        if name not in networks and not (name == "lpips" and set(networks) & set(LPIPS_LAYERS)):
            raise ConfigError(f"--weights names {name!r}, but the losses use {', '.join(networks) or 'none'}.")
    for layer in layers:
        check_layer(layer)
    missing = missing_networks(layers, paths)
    for text in [before_download(name) for name in missing]:  # all of them first: one may not be downloadable
        say(text)
    for name in missing:
        for _ in with_bar(fetch_weights(name), f"downloading {name}"):
            pass
