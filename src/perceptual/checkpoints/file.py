"""Reads and writes checkpoints: safetensors files with a network and its card. Reading never runs code."""

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
from perceptual.checkpoints.foreign import ForeignNetwork, is_foreign, load_foreign
from perceptual.checkpoints.tensors import read, write
from perceptual.config import NetworkConfig, to_dict
from perceptual.errors import CheckpointError, ConfigError, shown
from perceptual.networks import TransformationNetwork

_FLOATS = ("F16", "BF16", "F32", "F64")  # allowed types of weights
_OTHER_NETWORK = "does not contain the network that its card describes: get the file again"


def save(path: str | Path, network: TransformationNetwork, card: Card, *, half: bool = False) -> None:
    """Write a network and its card to a file.

    If the card has a `base`, only gamma and beta are written, which takes a few kilobytes. To read such a file, `load`
    needs the file of the base network too.

    half: store the weights as float16. `load` converts them to float32.

    Raises:
        OutputError: the file cannot be written. An existing file with this name is not changed.
        ConfigError: it is a super-resolution network of another program: its own file is the one to keep.
    """
    if isinstance(network, ForeignNetwork):
        raise ConfigError(f"{network.name} cannot be written as a file of perceptual: keep its own file and use that.")
    tensors = network.style_parameters() if card.base else network.state_dict()
    state = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    if half:
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    metadata = {"format": "pt", CARD_KEY: json.dumps(to_dict(card), ensure_ascii=False)}
    write(path, state, metadata)


def load(path: str | Path, *, task: str | None = None) -> tuple[TransformationNetwork, Card]:
    """Read a network and its card. The network is in float32, on the CPU and in evaluation mode.

    Style networks of other programs are converted; see `load_foreign`.

    task: if given, the network must be for this task.

    Raises:
        CheckpointError: the file is missing, damaged, not a checkpoint of perceptual, or for another task. Or it
            contains only gamma and beta, and the base network is neither shipped nor in the same folder.
    """
    foreign = load_foreign(path) if is_foreign(path) else None
    card = foreign[1] if foreign else read_card(path)
    if task and card.task != task:
        raise CheckpointError(f"{path} is a network for {shown(card.task)}, not for {task}: choose another file.")
    if foreign:
        return foreign
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
    """The network of a card, on the meta device. Checks that the header of the file has the same tensors."""
    try:
        with torch.device("meta"):
            network = TransformationNetwork(card.network)
    except ConfigError as error:
        raise CheckpointError(f"{path} {_OTHER_NETWORK} ({str(error).rstrip('.')}).") from error
    wanted = network.style_parameters() if card.base else network.state_dict()
    with safetensors.safe_open(str(path), "pt") as file:
        held = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (this is not a dict)
        if {name: each.get_shape() for name, each in held.items()} != _shapes(wanted):
            raise CheckpointError(f"{path} {_OTHER_NETWORK}.")
        for name, value in wanted.items():
            if held[name].get_dtype() not in (_FLOATS if value.is_floating_point() else ("I64",)):
                raise CheckpointError(
                    f"{path} stores {name} as {held[name].get_dtype()}, not a type of weights: get the file again."
                )
    return network


def body_digest(network: TransformationNetwork) -> str:
    """SHA-256 of the architecture and of all weights in float32 except gamma and beta.

    Styles of networks with the same digest can be blended.
    """
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


def join(
    loaded: Sequence[tuple[TransformationNetwork, Card]], names: Sequence[str] = ()
) -> tuple[TransformationNetwork, Card]:
    """Combine the styles of several networks in one network.

    loaded: networks with their cards, as `load` returns them. Returns the new network, and the card of the first one
        with the names of all styles, in order. If a name is used twice, the second one gets a number: "wave 2".
    names: what the user calls each network, for the error message; default: the names of its styles.

    Raises:
        ConfigError: the networks differ in more than gamma and beta, they have no gamma and beta, or a card has another
            number of styles than its network.
    """
    networks, cards = [network for network, _ in loaded], [card for _, card in loaded]
    styles: list[str] = []
    for network, card in loaded:
        if card.styles and len(card.styles) != network.styles:
            raise ConfigError(
                f"A card names {len(card.styles)} styles, but its network has {network.styles}: get the file again."
            )
        for name in card.styles or ("style",) * network.styles:
            numbered = (f"{name} {k}" for k in itertools.count(2))
            styles.append(next(n for n in itertools.chain([name], numbered) if n not in styles))
    if not all(network.style_parameters() for network in networks):
        raise ConfigError("Networks with batch norm cannot be blended: train with --norm conditional_instance.")
    if len({body_digest(network) for network in networks}) > 1:
        held = " and ".join(names or [", ".join(card.styles) or "a style without a name" for card in cards])
        raise ConfigError(
            f"{held} cannot be blended, because they belong to different networks: choose styles of one network."
        )
    config = dataclasses.replace(
        networks[0].config, norm="conditional_instance", styles=sum(network.styles for network in networks)
    )
    joined = TransformationNetwork(config)
    rows = {k: torch.cat([n.get_parameter(k).detach() for n in networks]) for k in networks[0].style_parameters()}
    joined.load_state_dict({**networks[0].state_dict(), **rows})
    titles = {style: title for card in reversed(cards) for style, title in card.titles.items()}
    return joined.eval(), dataclasses.replace(cards[0], network=config, styles=tuple(styles), titles=titles, base="")


def _base_of(path: str | Path, card: Card) -> TransformationNetwork:
    """The base network of a file that contains only gamma and beta: a shipped one, or one in the same folder."""
    for candidate in (*shipped.networks("style").values(), *sorted(Path(path).parent.glob("*.safetensors"))):
        try:
            if not read_card(candidate).base:
                network, _ = load(candidate)
                if body_digest(network) == card.base:
                    return network
        except CheckpointError:
            continue
    raise CheckpointError(
        f"{path} contains only gamma and beta, and the network that it was trained from was not found: put the file of "
        "that network into the same folder, or train again with --from gallery (it started from "
        f"{shown(card.began_from, 300)})."
    )


def save_targets(path: str | Path, targets: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write Gram matrices as float16, each divided by its largest absolute entry.

    targets: {style: {NETWORK:LAYER: (1, C, C)}}.

    Raises:
        OutputError: the file cannot be written.
    """
    state: dict[str, Tensor] = {}
    for style, grams in targets.items():
        for layer, gram in grams.items():
            top = gram.abs().amax().clamp_min(1e-30)
            state |= {f"{style} {layer}": (gram / top).half(), f"{style} {layer} top": top}
    write(path, state, {"format": "pt"})
