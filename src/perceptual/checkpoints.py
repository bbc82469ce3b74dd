"""Checkpoints: safetensors with a readable card inside. Nothing in them is code, and reading them runs none."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import struct
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from perceptual import finding
from perceptual.config import NetworkConfig, Range, check, from_dict, to_dict
from perceptual.errors import CheckpointError, ConfigError, shown
from perceptual.files import write_beside
from perceptual.networks import TransformationNetwork

CARD_KEY, STATE_KEY = "perceptual_card", "perceptual_state"
FORMAT = 1
_FLOATS = ("F16", "BF16", "F32", "F64")  # what weights may be kept in
_OTHER_NETWORK = "does not hold the network that its card describes: get the file again"


@dataclasses.dataclass(frozen=True)
class Card:
    """What a network is, how it came to be and under which terms; JSON in the header of its file."""

    task: Literal["style", "upscale"]
    """What the network does."""
    network: NetworkConfig
    styles: tuple[str, ...] = ()
    """Names of the styles that it holds, in their order."""
    titles: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Painting, painter and year by style, for people."""
    about: str = ""
    """One line for people."""
    steps: Annotated[int, Range(0, 1_000_000_000_000)] = 0
    """Optimiser steps it was trained for."""
    recipe: str = ""
    changed: tuple[str, ...] = ()
    """Settings that were not the recipe's own."""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The recipe's resolved settings: losses, training, sizes."""
    began_from: str = ""
    """Where its first weights came from, when not from chance: steps, recipe and SHA-256 of that file."""
    base: str = ""
    """For a file that holds only gamma and beta: `body_digest` of the network that the rest comes from."""
    loss_networks: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """SHA-256 of the weight file of each loss network."""
    references: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    """Reference values of the relative weights, by term and style."""
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """What each term counts: the objective is the sum of weight * term / reference."""
    paintings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """SHA-256 of the image file of each style."""
    software: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Versions it was trained with."""
    data: str = ""
    """What it was trained on, in words."""
    licence: str = ""
    pixels: str = "RGB float [0, 1], (N, 3, H, W), in and out; clamp the output"
    format: Annotated[int, Range(0, FORMAT)] = FORMAT

    def __post_init__(self) -> None:
        check(self)


def shipped(task: str) -> dict[str, Path]:
    """The networks for a task, "style" or "upscale", that come with the package, by name."""
    folder = Path(str(resources.files("perceptual"))) / "models" / task
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def gallery(*, video: bool = False) -> dict[str, Path]:
    """The styles that come with the package, by name, with the file of the network that holds each.

    video: where several networks hold a style, the one that was trained for video, and else one that was not.
    """
    cards = {path: read_card(path) for path in shipped("style").values()}
    found: dict[str, Path] = {}
    for path in sorted(cards, key=lambda path: (cards[path].settings.get("temporal_weight", 0) > 0) != video):
        for style in cards[path].styles:
            found.setdefault(style, path)
    return found


def find_style(name: str | Path, *, video: bool = False) -> tuple[Path, str | None]:
    """(file of the network, name of the style in it) of a shipped style; (file, None) of a shipped network or a path.

    video: as `gallery`.

    Raises:
        CheckpointError: none of them is there; the text lists the shipped styles.
    """
    styles = gallery(video=video)
    if str(name) in styles:
        return styles[str(name)], str(name)
    return find_network(name, task="style"), None


def find_network(name: str | Path, *, task: str) -> Path:
    """The file of a shipped network of a task, by name, or a path.

    Raises:
        CheckpointError: none of them is there; the text lists what is shipped for the task.
    """
    networks = shipped(task)
    if str(name) in networks:
        return networks[str(name)]
    path = Path(os.path.expanduser(name))
    if path.suffix.lower() in finding.IMAGE_SUFFIXES:
        flag = f"--style {path}" if task == "style" else "--scale 4"
        raise CheckpointError(
            f"{path} is a picture, not a trained network: make one with `perceptual train {task} {flag} ...`."
        )
    if path.suffix.lower() in (".pth", ".pt", ".t7", ".ckpt", ".onnx"):
        raise CheckpointError(f"{path} is a checkpoint of another program; perceptual reads its own .safetensors only.")
    if os.path.isfile(path):
        return path
    kind, styles = ("style", tuple(gallery())) if task == "style" else ("network", ())
    known = ", ".join(dict.fromkeys((*networks, *styles)))
    raise CheckpointError(f"There is no {kind} {str(name)!r}: give a trained network, or one of {known}.")


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
    _write(path, state, metadata)


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
    state = _read(path)
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
    if card.task == "style" and network.scale != 1:
        raise CheckpointError(
            f"{path} is a style network that makes pictures {network.scale} times larger, and a style keeps their "
            "size: get another file."
        )
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
    told = f"{config.architecture} {config.padding} {float(config.tanh_scale)}{'' if rest == plain else rest}"
    if config.noise:
        told += f" noise {float(config.noise)}"
    digest = hashlib.sha256(told.encode())
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
    for candidate in (*shipped("style").values(), *sorted(Path(path).parent.glob("*.safetensors"))):
        try:
            if not read_card(candidate).base:
                network, _ = load(candidate)
                if body_digest(network) == card.base:
                    return network
        except CheckpointError:
            continue
    raise CheckpointError(
        f"{path} holds a style only, and the whole network that it was learnt with is not here: put that file into the "
        f"same folder (the style began with {card.began_from})."
    )


def read_card(path: str | Path) -> Card:
    """The card of a checkpoint, without reading its tensors."""
    text = _metadata(path).get(CARD_KEY)
    if text is None:
        raise CheckpointError(f"{path} is not a checkpoint of perceptual: it has no card.")
    try:
        values = json.loads(text)
        if values.get("format", 0) > FORMAT:
            raise CheckpointError(
                f"{path} was written by a newer perceptual (format {shown(values['format'])}): upgrade to read it."
            )
        network = from_dict(NetworkConfig, values.pop("network"))
        known = {f.name for f in dataclasses.fields(Card)}
        return Card(network=network, **{k: v for k, v in values.items() if k in known})
    except ConfigError as error:
        reason = str(error).rstrip(".")
        raise CheckpointError(f"{path} has a card that cannot be read ({reason}): get the file again.") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} has a card that cannot be read: get the file again.") from error


def save_state(path: str | Path, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
    """Write what a run needs to go on exactly: named tensors and a JSON-able `info`."""
    state = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    _write(path, state, {"format": "pt", STATE_KEY: json.dumps(dict(info))})


def load_state(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_state` wrote.

    Raises:
        CheckpointError: missing, damaged, or not a training state.
    """
    text = _metadata(path).get(STATE_KEY)
    if text is None:
        raise CheckpointError(f"{path} is not the state of a training run: --resume needs the file that training left.")
    try:
        info = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: delete it and train anew.") from error
    if not isinstance(info, dict):
        raise CheckpointError(f"{path} is damaged: delete it and train anew.")
    return _read(path), info


def save_targets(path: str | Path, targets: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write Gram matrices by style and layer, each (1, C, C), in float16 relative to its largest entry."""
    state: dict[str, Tensor] = {}
    for style, grams in targets.items():
        for layer, gram in grams.items():
            top = gram.abs().amax().clamp_min(1e-30)
            state |= {f"{style} {layer}": (gram / top).half(), f"{style} {layer} top": top}
    _write(path, state, {"format": "pt"})


def shipped_targets(style: str) -> dict[str, Tensor]:
    """The Gram matrices (eq. 3) of a gallery painting by NETWORK:LAYER, for measuring without the painting.

    Raises:
        CheckpointError: no matrices of that style come with the package.
    """
    state = _read(Path(str(resources.files("perceptual"))) / "targets" / "gallery.safetensors")
    tops = {name: value for name, value in state.items() if name.startswith(f"{style} ") and name.endswith(" top")}
    if not tops:
        raise CheckpointError(f"The style targets of {style!r} do not come with perceptual: give its painting.")
    names = {name: name.removesuffix(" top") for name in tops}
    return {name.removeprefix(f"{style} "): state[name].float() * tops[top] for top, name in names.items()}


def _write(path: str | Path, state: dict[str, Tensor], metadata: dict[str, str]) -> None:
    data = safetensors.torch.save(state, metadata)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(metadata.items()))  # safetensors writes it in an order by chance
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with write_beside(path) as temporary, open(temporary, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(memoryview(data)[8 + length :])


def _metadata(path: str | Path) -> dict[str, str]:
    """The text metadata in a safetensors header; checks that the file is one."""
    if not os.path.isfile(path):
        raise CheckpointError(f"There is no file {path}: check the name.")
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            return file.metadata() or {}
    except (safetensors.SafetensorError, OSError, struct.error, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or not a safetensors file: get it again.") from error


def _read(path: str | Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(Path(path).read_bytes())
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from error
