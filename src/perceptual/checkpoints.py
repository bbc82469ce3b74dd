"""Checkpoints: safetensors with a readable card inside. Nothing in them is code, and reading them runs none."""

from __future__ import annotations

import dataclasses
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from perceptual.config import NetworkConfig, from_dict, to_dict
from perceptual.errors import CheckpointError, ConfigError
from perceptual.files import write_beside
from perceptual.networks import TransformationNetwork

CARD_KEY, STATE_KEY = "perceptual_card", "perceptual_state"
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Card:
    """What a network is, how it came to be and under which terms; JSON in the header of its file."""

    task: str
    """What the network does: "style"."""
    network: NetworkConfig
    styles: tuple[str, ...] = ()
    """Names of the styles that it holds, in their order."""
    about: str = ""
    """One line for people."""
    steps: int = 0
    """Optimiser steps it was trained for."""
    recipe: str = ""
    changed: tuple[str, ...] = ()
    """Settings that were not the recipe's own."""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The recipe's resolved settings: losses, training, sizes."""
    began_from: str = ""
    """Where its first weights came from, when not from chance: steps, recipe and SHA-256 of that file."""
    loss_networks: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """SHA-256 of the weight file of each loss network."""
    references: Mapping[str, Any] = dataclasses.field(default_factory=dict)
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
    format: int = FORMAT


def save(path: str | Path, network: TransformationNetwork, card: Card, *, half: bool = False) -> None:
    """Write a network and its card; `half` stores float16, which is read back as float32.

    Raises:
        OutputError: the file cannot be written; an older file of that name is still there.
    """
    state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    if half:
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    metadata = {"format": "pt", CARD_KEY: json.dumps(to_dict(card), ensure_ascii=False)}
    _write(path, state, metadata)


def load(path: str | Path, *, task: str | None = None) -> tuple[TransformationNetwork, Card]:
    """Read a network, in float32 and evaluation mode, and its card.

    Raises:
        CheckpointError: the file is missing, damaged, not a checkpoint of ours, or for another task than `task`.
    """
    card = read_card(path)
    if task and card.task != task:
        raise CheckpointError(f"{path} is a network for {card.task}, not for {task}: choose another file.")
    state = {k: v.float() if v.dtype == torch.float16 else v for k, v in _read(path).items()}
    try:
        network = TransformationNetwork(card.network)
        network.load_state_dict(state)
    except (RuntimeError, ConfigError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(
            f"{path} does not hold the network that its card describes: get the file again."
        ) from error
    return network.eval(), card


def read_card(path: str | Path) -> Card:
    """The card of a checkpoint, without reading its tensors."""
    text = _metadata(path).get(CARD_KEY)
    if text is None:
        raise CheckpointError(f"{path} is not a checkpoint of perceptual: it has no card.")
    try:
        values = json.loads(text)
        if values.get("format", 0) > FORMAT:
            raise CheckpointError(
                f"{path} was written by a newer perceptual (format {values['format']}): upgrade to read it."
            )
        network = from_dict(NetworkConfig, values.pop("network"))
        known = {f.name for f in dataclasses.fields(Card)}
        kept: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
        return Card(network=network, **kept)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ConfigError) as error:
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


def _write(path: str | Path, state: dict[str, Tensor], metadata: dict[str, str]) -> None:
    with write_beside(path) as temporary:
        temporary.write_bytes(safetensors.torch.save(state, metadata))


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
