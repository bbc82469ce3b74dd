"""Settings of `perceptual optimize`."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from perceptual.config.checks import Range, check
from perceptual.config.common import Count, CountOrNone, Rate, Seed, TrainedSide
from perceptual.config.loss import LossConfig
from perceptual.errors import ConfigError

RELATIVE_LOSS = LossConfig(weighting="relative", style_weight=1.0, tv_weight=0.02)
BASELINE_LOSS = dataclasses.replace(RELATIVE_LOSS, style_weight=5.0)
"""The objective of `perceptual optimize style`. Its style weight was chosen by eye; 2, 10 and 40 were tried too."""
INVERT_TV = 0.01
"""Weight of total variation in `perceptual optimize invert`, relative to that of the picture."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizeConfig:
    """Options of `perceptual optimize`. The objective has settings of its own."""

    size: TrainedSide | None = 512
    """Longer side of the result, 32 to 16,384 pixels. In Python, None keeps the size of the image."""
    iterations: Count = 500
    """Number of iterations at each size of --scales, 1 to 100,000,000."""
    method: Literal["lbfgs", "adam"] = "lbfgs"
    """lbfgs: projected L-BFGS, as in the paper. adam: Adam; pixels are clipped to the valid range after each step."""
    learning_rate: Rate = 0.02
    """Adam's learning rate for pixels in [0, 1], 1e-12 to 1. Only for --method adam."""
    history: Annotated[int, Range(1, 1000)] = 10
    """Number of previous steps that L-BFGS keeps, 1 to 1,000. Only for --method lbfgs."""
    init: Literal["noise", "content"] = "noise"
    """Start from white noise, as in the paper, or from the content image."""
    seed: Seed = 0
    """Seed of the white noise, 0 to 4,294,967,295."""
    scales: Annotated[int, Range(1, 10)] = 1
    """Number of sizes to optimise at, 1 to 10, from coarse to fine. Each is twice as large as the one before; the last
    is --size."""
    style_size: TrainedSide | None = None
    """Longer side to which the painting is scaled, 32 to 16,384 pixels; default: the size of the result. It sets the
    size of the strokes."""
    preview_every: CountOrNone = 50
    """Iterations between preview images, 0 to 100,000,000; 0: no previews."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ...; auto: a CUDA GPU if there is one, else the CPU."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the loss network. auto: bfloat16 for style transfer with --method adam where it was measured to
    be faster, else float32. The objective of L-BFGS was 2 % higher in bfloat16 for one of two photos."""

    def __post_init__(self) -> None:
        check(self)
        if self.method == "lbfgs" and self.learning_rate != OptimizeConfig.learning_rate:
            raise ConfigError("--learning-rate is Adam's, and L-BFGS has none: add --method adam, or leave it out.")
        if self.method == "adam" and self.history != OptimizeConfig.history:
            raise ConfigError("--history is that of L-BFGS, and Adam has none: add --method lbfgs, or leave it out.")
