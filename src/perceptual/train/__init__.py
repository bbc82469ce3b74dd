"""Training: the loop, its state to resume from, and the watch for runs that diverge."""

from perceptual.train.trainer import Trainer, check_out, learning_rate, preview_sheet, save_preview, side_path

__all__ = ["Trainer", "check_out", "learning_rate", "preview_sheet", "save_preview", "side_path"]
