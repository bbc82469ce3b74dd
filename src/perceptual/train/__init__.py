"""Training: the training loop, the state file for --resume, and the detection of runs that diverge."""

from perceptual.train.trainer import Trainer, check_out, learning_rate, preview_sheet, save_preview, side_path

__all__ = ["Trainer", "check_out", "learning_rate", "preview_sheet", "save_preview", "side_path"]
