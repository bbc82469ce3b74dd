"""Checkpoints: a network in safetensors with its card inside. Reading one runs no code."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from perceptual.checkpoints import shipped
from perceptual.checkpoints.card import CARD_KEY, Card, read_card
from perceptual.checkpoints.tensors import read, write
from perceptual.config import NetworkConfig, to_dict
from perceptual.errors import CheckpointError, ConfigError
from perceptual.networks import TransformationNetwork

_FLOATS = ("F16", "BF16", "F32", "F64")  # what weights may be kept in
_OTHER_NETWORK = "does not hold the network that its card describes: get the file again"


def save(path: str | Path, network: TransformationNetwork, card: Card, *, half: bool = False) -> None:
    """Write a network and its card; `half` stores float16, which is read back as float32.

    With a `base` in the card only gamma and beta are written, a few kilobytes; reading needs the base again.

    Raises:
        OutputError: the file cannot be written; an older file of that name is still there.
    """
    tensors = network.style_parameters() if card.base else network.state_dict()
    state = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    if half:
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    metadata = {"format": "pt", CARD_KEY: json.dumps(to_dict(card), ensure_ascii=False)}
    write(path, state, metadata)


def load(path: str | Path, *, task: str | None = None) -> tuple[TransformationNetwork, Card]:
    """Read a network, in float32 and evaluation mode, and its card.

    Raises:
        CheckpointError: the file is missing, damaged, not a checkpoint of ours, or for another task than `task`; or it
            holds a style only, and the network that it was learnt with is neither shipped nor beside it.
    """
    card = read_card(path)
    if task and card.task != task:
        raise CheckpointError(f"{path} is a network for {card.task}, not for {task}: choose another file.")
    network = _described(path, card)
    state = read(path)
    if card.base:
        state = {**_base_of(path, card).state_dict(), **state}
        if _shapes(state) != _shapes(network.state_dict()):
            raise CheckpointError(f"{path} {_OTHER_NETWORK}.")
    network.to_empty(device="cpu").load_state_dict(state)
    return network.eval(), card


def _shapes(state: Mapping[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in state.items()}


def _described(path: str | Path, card: Card) -> TransformationNetwork:
    """The network of a card, without memory for its weights, once the file's header has the same tensors."""
    try:
        with torch.device("meta"):
            network = TransformationNetwork(card.network)
    except ConfigError as error:
        raise CheckpointError(f"{path} {_OTHER_NETWORK} ({str(error).rstrip('.')}).") from error
    wanted = network.style_parameters() if card.base else network.state_dict()
    with safetensors.safe_open(str(path), "pt") as file:
        held = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
        if {name: each.get_shape() for name, each in held.items()} != _shapes(wanted):
            raise CheckpointError(f"{path} {_OTHER_NETWORK}.")
        for name, value in wanted.items():
            if held[name].get_dtype() not in (_FLOATS if value.is_floating_point() else ("I64",)):
                raise CheckpointError(
                    f"{path} holds {name} as {held[name].get_dtype()}, which is no type of weights: get the file again."
                )
    return network


def body_digest(network: TransformationNetwork) -> str:
    """SHA-256 of a network's layers and weights in float32, gamma and beta left out: styles of one body can blend."""
    config = network.config
    rest = (config.output, config.channels, config.enlarge)
    plain = (NetworkConfig.output, NetworkConfig.channels, NetworkConfig.enlarge)
    text = f"{config.architecture} {config.padding} {float(config.tanh_scale)}{'' if rest == plain else rest}"
    if config.noise:
        text += f" noise {float(config.noise)}"
    digest = hashlib.sha256(text.encode())
    styles = network.style_parameters()
    for name, value in sorted(network.state_dict().items()):
        if name not in styles:
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def join(loaded: Sequence[tuple[TransformationNetwork, Card]]) -> tuple[TransformationNetwork, Card]:
    """One network that holds the styles of several, in their order; its card is the first one's with all names.

    A name that is there already gets a number: a second "wave" is "wave 2".

    Raises:
        ConfigError: they differ in more than gamma and beta, have none, or hold another number of styles than their
            card names.
    """
    networks, cards = [network for network, _ in loaded], [card for _, card in loaded]
    names: list[str] = []
    for network, card in loaded:
        if card.styles and len(card.styles) != network.styles:
            raise ConfigError(f"A card names {len(card.styles)} styles, and its network holds {network.styles}.")
        for name in card.styles or ("style",) * network.styles:
            numbered = (f"{name} {k}" for k in itertools.count(2))
            names.append(next(n for n in itertools.chain([name], numbered) if n not in names))
    if not all(network.style_parameters() for network in networks):
        raise ConfigError("Networks of batch norm cannot be blended: train with --norm conditional_instance.")
    if len({body_digest(network) for network in networks}) > 1:
        held = " and ".join(", ".join(card.styles) or "a style without a name" for card in cards)
        raise ConfigError(f"{held} cannot be blended: they are styles of different networks.")
    config = dataclasses.replace(
        networks[0].config, norm="conditional_instance", styles=sum(network.styles for network in networks)
    )
    joined = TransformationNetwork(config)
    rows = {k: torch.cat([n.get_parameter(k).detach() for n in networks]) for k in networks[0].style_parameters()}
    joined.load_state_dict({**networks[0].state_dict(), **rows})
    titles = {style: title for card in reversed(cards) for style, title in card.titles.items()}
    return joined.eval(), dataclasses.replace(cards[0], network=config, styles=tuple(names), titles=titles, base="")


def _base_of(path: str | Path, card: Card) -> TransformationNetwork:
    """The network that a file of gamma and beta was learnt with: a shipped one, or one in the same folder."""
    for candidate in (*shipped.networks("style").values(), *sorted(Path(path).parent.glob("*.safetensors"))):
        try:
            if not read_card(candidate).base:
                network, _ = load(candidate)
                if body_digest(network) == card.base:
                    return network
        except CheckpointError:
            continue
    raise CheckpointError(
        f"{path} holds a style only, and the whole network that it was learnt with is not here: put that file into the "
        f"same folder, or train the style again with --from gallery (it began with {card.began_from})."
    )


def save_targets(path: str | Path, targets: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write Gram matrices by style and layer, each (1, C, C), in float16 relative to its largest entry."""
    state: dict[str, Tensor] = {}
    for style, grams in targets.items():
        for layer, gram in grams.items():
            top = gram.abs().amax().clamp_min(1e-30)
            state |= {f"{style} {layer}": (gram / top).half(), f"{style} {layer} top": top}
    write(path, state, {"format": "pt"})
