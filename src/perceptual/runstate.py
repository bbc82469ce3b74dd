"""The state of a training run as --resume reads it: checked in full before anything of the run changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from perceptual import checkpoints
from perceptual.config import Range, check
from perceptual.errors import CheckpointError, ConfigError


@dataclasses.dataclass(frozen=True)
class RunState:
    """What a state says beside its tensors."""

    step: Annotated[int, Range(0, 100_000_000)]
    """Optimiser steps done."""
    identity: Mapping[str, Any]
    """What the run that goes on must share."""
    references: Mapping[str, Sequence[float]]
    """The reference values of relative weights, by term."""
    unreadable: tuple[str, ...]
    """Photographs that were skipped."""
    scaler: Mapping[str, float] | None
    """The state of the scaler of float16, which is the only precision that has one."""
    watch: Mapping[str, float] | None
    """What `Divergence` has seen; None in states of earlier versions."""

    def __post_init__(self) -> None:
        check(self)


def read_state(path: str | Path) -> tuple[dict[str, Tensor], RunState]:
    """The tensors and the rest of a state that a training run left.

    Raises:
        CheckpointError: missing, damaged, of wrong types, or not a training state.
    """
    tensors, info = checkpoints.load_state(path)
    values: dict[str, Any] = {field.name: info.get(field.name) for field in dataclasses.fields(RunState)}
    try:
        return tensors, RunState(**values)
    except ConfigError as error:
        raise damaged(path, str(error)) from error


def damaged(path: str | Path, reason: str) -> CheckpointError:
    """The error for a state that no run can go on from."""
    return CheckpointError(f"{path} is damaged ({reason.rstrip('.')}): delete it and train anew.")


def slots(parameters: Sequence[Tensor], learnt: Sequence[int]) -> dict[str, Tensor]:
    """Examples of what Adam keeps for the parameters of these indices, under the names of a state."""
    wanted: dict[str, Tensor] = {}
    for index in learnt:
        wanted |= {f"{index}.{name}": parameters[index] for name in ("exp_avg", "exp_avg_sq")}
        wanted[f"{index}.step"] = torch.zeros(())
    return wanted


def matching(path: str | Path, tensors: Mapping[str, Tensor], prefix: str, wanted: Mapping[str, Tensor]) -> Any:
    """The tensors under a prefix, without it.

    Raises:
        CheckpointError: their names, shapes or types are not those of `wanted`, or a number is not finite.
    """
    found = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    if lacking := sorted(set(wanted) - set(found)):
        raise damaged(path, f"{prefix}{lacking[0]} is missing")
    for name, value in found.items():
        like = wanted.get(name)
        if like is None or (value.shape, value.dtype) != (like.shape, like.dtype) or not value.isfinite().all():
            raise damaged(path, f"{prefix}{name} does not fit the network, or is not finite")
    return found
