"""Reads the state file of a training run for --resume. The whole file is checked before the run is changed."""

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

PRECISIONS = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""The number formats of PyTorch by their names in accelerate."""


@dataclasses.dataclass(frozen=True)
class RunState:
    """The content of a state file without its tensors."""

    step: Annotated[int, Range(0, 100_000_000)]
    """Number of optimiser steps done."""
    identity: Mapping[str, Any]
    """Settings and hashes that must be the same in the resumed run."""
    references: Mapping[str, Sequence[float]]
    """The reference values of relative weights: {term: values}."""
    unreadable: tuple[str, ...]
    """Names of the photos that were skipped, because they cannot be read."""
    scaler: Mapping[str, float] | None
    """The state of the gradient scaler; None if the precision is not float16."""
    watch: Mapping[str, float] | None
    """The result of `Divergence.numbers`; None before the first step."""

    def __post_init__(self) -> None:
        check(self)


def read_state(path: str | Path) -> tuple[dict[str, Tensor], RunState]:
    """Read a state file. Returns its tensors by name, and its other content.

    Raises:
        CheckpointError: the file is missing, is damaged, has values of wrong types, or is not a training state.
    """
    tensors, info = checkpoints.load_state(path)
    values: dict[str, Any] = {field.name: info.get(field.name) for field in dataclasses.fields(RunState)}
    try:
        return tensors, RunState(**values)
    except ConfigError as error:
        raise damaged(path, str(error)) from error


def damaged(path: str | Path, reason: str) -> CheckpointError:
    """The error for a state file that cannot be resumed. reason: what is wrong with it."""
    return CheckpointError(f"{path} is damaged ({reason.rstrip('.')}): delete it and train again.")


def slots(parameters: Sequence[Tensor], learnt: Sequence[int]) -> dict[str, Tensor]:
    """Tensors with the names, shapes and types of Adam's state in a state file.

    parameters: all parameters of the network. learnt: indices of the parameters that Adam has a state for.
    """
    wanted: dict[str, Tensor] = {}
    for index in learnt:
        wanted |= {f"{index}.{name}": parameters[index] for name in ("exp_avg", "exp_avg_sq")}
        wanted[f"{index}.step"] = torch.zeros(())
    return wanted


def matching(path: str | Path, tensors: Mapping[str, Tensor], prefix: str, wanted: Mapping[str, Tensor]) -> Any:
    """The tensors with names that start with `prefix`, by the rest of the name.

    path: the state file, for the error message. wanted: tensors with the expected names, shapes and types.

    Raises:
        CheckpointError: names, shapes or types differ from those of `wanted`, or a number is not finite.
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
    """Check that a resumed run has the same settings, photos and paintings as the run that wrote the state file.

    path: the state file. before: the identity in the file. now: the identity of the resumed run. photographs: the
        photos of the resumed run.

    Raises:
        TrainingError: they differ; the message names the first difference.
    """
    here = json.loads(json.dumps(now))
    found = []
    if photographs is not None and (difference := photographs.difference(before.get("photographs"))):
        found.append(difference)
    for key, (was, value) in differences(before, here).items():
        if key != "photographs":
            found.append(_describe_difference(key, was, value))
    styles = [list(identity.get("paintings", ())) for identity in (before, here)]
    if styles[0] != styles[1]:
        found.append(f"the styles were {', '.join(styles[0])} and are now {', '.join(styles[1])}, in this order")
    if found:
        raise TrainingError(f"Cannot resume {path}: {found[0]}.")


def _describe_difference(key: str, was: object, now: object) -> str:
    """A difference between two runs, in words and without hashes."""
    if key == "computer.precision":
        before, after = (PRECISIONS.get(str(value), value) for value in (was, now))
        return f"it was trained in {before} and would go on in {after}: give --precision {before}"
    group, _, name = key.partition(".")
    thing = {"paintings": "the painting", "loss_networks": "the weight file of"}.get(group)
    if thing is None:
        was, now = (re.sub(r"(, file of SHA-256)? [0-9a-f]{64}", "", str(value)) for value in (was, now))
        return f"{key} was {was} and is now {now}" if was != now else f"{key}, {was}, is another file now"
    how = "was not there before" if was is None else "is not there now" if now is None else "is another one now"
    return f"{thing} {name} {how}"


def cut_log(path: Path, step: int) -> None:
    """Remove the lines after `step` from a log, which the resumed run writes again, and incomplete lines."""
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
