"""The state of a training run as --resume reads it: checked in full before anything of the run changes."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from perceptual import checkpoints
from perceptual.config import Range, check, differences
from perceptual.data import Photographs
from perceptual.errors import CheckpointError, ConfigError, TrainingError
from perceptual.files import exists, write_beside

LATER_SETTINGS: Mapping[str, Any] = {
    "style_factors": [],
    "temporal_weight": 0.0,
    "network.noise": 0.0,
    "loss.lattice_weight": 0.0,
    "loss.loss": "",
    "train.warmup": 0,
    "train.ema": 0.0,
}
"""Settings that states of earlier versions lack, and what they were then."""


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


def check_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any], photographs: Photographs | None) -> None:
    """Raise a TrainingError that says what differs between a run and the one that left the state at `path`.

    before, now: the identities of both. photographs: of the run that would go on.
    """
    here = json.loads(json.dumps(now))
    found = []
    if photographs is not None and (said := photographs.difference(before.get("photographs"))):
        found.append(said)
    for key, (was, value) in differences(before, here).items():
        later = was is None and key in LATER_SETTINGS and value == LATER_SETTINGS[key]
        if not later and key != "photographs":
            found.append(_in_words(key, was, value))
    styles = [list(identity.get("paintings", ())) for identity in (before, here)]
    if styles[0] != styles[1]:
        found.append(f"the styles were {', '.join(styles[0])} and are now {', '.join(styles[1])}, in this order")
    if found:
        raise TrainingError(f"Cannot resume {path}: {found[0]}.")


def _in_words(key: str, was: object, now: object) -> str:
    """What differs between two runs, in words; hashes say nothing to a person."""
    group, _, name = key.partition(".")
    thing = {"paintings": "the painting", "loss_networks": "the weight file of"}.get(group)
    if thing is None:
        was, now = (re.sub(r"(, file of SHA-256)? [0-9a-f]{64}", "", str(value)) for value in (was, now))
        return f"{key} was {was} and is now {now}" if was != now else f"{key}, {was}, is another file now"
    how = "was not there before" if was is None else "is not there now" if now is None else "is another one now"
    return f"{thing} {name} {how}"


def cut_log(path: Path, step: int) -> None:
    """Drop the lines of a log that a resumed run will write again, and a last one that was cut."""
    if not exists(path):
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
    with write_beside(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
