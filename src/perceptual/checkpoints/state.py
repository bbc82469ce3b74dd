"""State files of training runs, for --resume."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from perceptual.checkpoints.tensors import UnreadableError, metadata, read, write
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
    try:
        text = metadata(path).get(STATE_KEY)
        info = json.loads("{}" if text is None else text)
        tensors = read(path)
    except (CheckpointError, ValueError, RecursionError) as error:
        another = isinstance(error, CheckpointError) and Path(path).suffix != ".state"  # another kind of file
        if another or not os.path.isfile(path) or isinstance(error, UnreadableError):
            raise
        raise CheckpointError(f"{path} is damaged: delete it and train again.") from error
    if text is None:
        raise CheckpointError(f"{path} is not the state of a training run: --resume needs the file that training left.")
    if not isinstance(info, dict):
        raise CheckpointError(f"{path} is damaged: delete it and train again.")
    return tensors, info
