"""State files of training runs, for --resume."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from perceptual.checkpoints.tensors import metadata, read, write
from perceptual.errors import CheckpointError

STATE_KEY = "perceptual_state"


def save_state(path: str | Path, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
    """Write a state file.

    tensors: by name. info: further values that JSON supports.

    Raises:
        OutputError: the file cannot be written.
    """
    state = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    write(path, state, {"format": "pt", STATE_KEY: json.dumps(dict(info))})


def load_state(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a state file. Returns `tensors` and `info`, as in `save_state`.

    Raises:
        CheckpointError: the file is missing, damaged, or not a state file.
    """
    text = metadata(path).get(STATE_KEY)
    if text is None:
        raise CheckpointError(f"{path} is not the state of a training run: --resume needs the file that training left.")
    try:
        info = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: delete it and train again.") from error
    if not isinstance(info, dict):
        raise CheckpointError(f"{path} is damaged: delete it and train again.")
    return read(path), info
