"""Training: the training loop, its processes, the state file for --resume, and the detection of runs that diverge."""

from perceptual.train.outputs import check_out, preview_sheet, save_preview, side_path
from perceptual.train.processes import Processes, join
from perceptual.train.schedule import learning_rate
from perceptual.train.trainer import Trainer

__all__ = [
    "Processes",
    "Trainer",
    "check_out",
    "join",
    "learning_rate",
    "preview_sheet",
    "save_preview",
    "side_path",
]
