"""The card of a checkpoint: a description of the network and its training, as JSON in the header of the file."""

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
    """A description of a network: its architecture, its training and its licence. Stored as JSON in the file header."""

    task: str
    """The name of the task of the network, such as style or upscale."""
    network: NetworkConfig
    """The architecture."""
    styles: tuple[str, ...] = ()
    """Names of the styles in the network, in order."""
    titles: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """{style: title of the painting, painter and year}, for display."""
    about: str = ""
    """A description in one line."""
    steps: Annotated[int, Range(0, 1_000_000_000_000)] = 0
    """Number of optimiser steps of the training."""
    recipe: str = ""
    """Name of the recipe."""
    changed: tuple[str, ...] = ()
    """Names of the settings that differ from the recipe."""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """All settings of the training: losses, steps, sizes and so on."""
    began_from: str = ""
    """The network that the training started from: steps, recipe and SHA-256 of its file. "" for random weights."""
    base: str = ""
    """For a file that contains only gamma and beta: `body_digest` of the network with the other weights."""
    loss_networks: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """SHA-256 of the weight file of each loss network."""
    references: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    """{term: reference values of relative weights, one for each style or one for all}."""
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """{term: weight}. The objective is the sum of weight * term / reference."""
    paintings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """{style: SHA-256 of the image file of the painting}."""
    software: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """{package: version} at the time of the training."""
    data: str = ""
    """The training data, in words."""
    licence: str = ""
    """The licence of the network."""
    pixels: str = "RGB float [0, 1], (N, 3, H, W), in and out; clamp the output"
    format: Annotated[int, Range(0, FORMAT)] = FORMAT

    def __post_init__(self) -> None:
        check(self)


def read_card(path: str | Path) -> Card:
    """Read the card of a checkpoint. The tensors are not read.

    Raises:
        CheckpointError: the file is missing or damaged, has no card, or was written by a newer version of perceptual.
    """
    text = metadata(path).get(CARD_KEY)
    if text is None:
        raise CheckpointError(
            f"{path} is not a network of perceptual, because it has no card: give a file that `perceptual train` wrote."
        )
    try:
        values = json.loads(text)
        if values.get("format", 0) > FORMAT:
            raise CheckpointError(
                f"{path} was written by a newer perceptual (format {shown(values['format'])}): upgrade perceptual."
            )
        network = from_dict(NetworkConfig, values.pop("network"))
        known = {f.name for f in dataclasses.fields(Card)}
        return Card(network=network, **{k: v for k, v in values.items() if k in known})
    except ConfigError as error:
        reason = str(error).rstrip(".")
        raise CheckpointError(f"{path} has a card that cannot be read ({reason}): get the file again.") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} has a card that cannot be read: get the file again.") from error
