"""The card of a checkpoint: what a network is and how it was trained, as JSON in the header of its file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from perceptual.checkpoints.tensors import metadata
from perceptual.config import NetworkConfig, Range, check, from_dict
from perceptual.errors import CheckpointError, ConfigError, shown

CARD_KEY = "perceptual_card"

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Card:
    """What a network is, how it came to be and under which terms; JSON in the header of its file."""

    task: str
    """What the network does: the name of a task, such as style or upscale."""
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


def read_card(path: str | Path) -> Card:
    """The card of a checkpoint, without reading its tensors."""
    text = metadata(path).get(CARD_KEY)
    if text is None:
        raise CheckpointError(
            f"{path} is not a network of perceptual: it has no card, so another program or a run in progress wrote it."
        )
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
