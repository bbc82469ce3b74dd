"""The files of a training run beside its checkpoint: their names, the checks before the run, and the previews."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perceptual import images
from perceptual.errors import OutputError, TrainingError
from perceptual.events import Step
from perceptual.files import check_new, exists, explain


def side_path(out: str | Path, suffix: str) -> Path:
    """The path of another file of the run that writes the checkpoint `out`: ("a.safetensors", ".state") -> a.state."""
    path = Path(out)
    return path.with_name((path.stem if path.suffix == ".safetensors" else path.name) + suffix)


def preview_sheet(preview: Tensor) -> Tensor:
    """Arrange a preview (2 N, 3, h, w) as one image (1, 3, H, W): N inputs above, and the N outputs below."""
    rows = preview.chunk(2)
    return torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)[None]


def save_preview(out: str | Path, step: Step) -> None:
    """Write the preview of a Step, if it has one, to the preview folder of the run that writes `out`."""
    if step.preview is not None:
        images.write(side_path(out, ".previews") / f"{step.index:06d}.png", preview_sheet(step.preview))


def check_out(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Check, before the training starts, that it will not replace files by accident and that --resume is possible.

    out: the checkpoint to write. resume, overwrite: as in `Trainer.begin`.

    Raises:
        OutputError: `out` is a folder or exists, or there is a log or a folder of previews or of TensorBoard beside it
            without a state file.
        TrainingError: there is an unfinished run, or --resume was given for a finished one.
    """
    state = side_path(out, ".state")
    begun = exists(state)
    if begun and not resume and not overwrite:
        raise TrainingError(
            f"{state} belongs to an unfinished run: add --resume to continue it, or --overwrite to start again."
        )
    if exists(out) and resume and not begun:
        raise TrainingError(f"{out} is finished, so there is nothing to resume: leave --resume out.")
    sides = [side_path(out, suffix) for suffix in (".jsonl", ".previews", ".tensorboard")]
    check_new(out, sides, overwrite=overwrite or begun)


def start_tensorboard(accelerator: Any, folder: Path, *, new: bool) -> None:
    """Start the log for TensorBoard, if `accelerator` has one. new: delete the files of an earlier run in it first.

    Raises:
        OutputError: the folder cannot be written to.
    """
    if not accelerator.log_with:
        return
    try:
        for path in folder.glob("events.out.tfevents.*") if new and accelerator.is_main_process else ():
            path.unlink()
        accelerator.init_trackers("")
    except OSError as error:
        raise OutputError(f"Cannot write {folder}: {explain(error)}") from error
