"""Every setting with its default, in frozen dataclasses: the only source of defaults; they make the command's flags."""

from perceptual.config.checks import Range, changed, check
from perceptual.config.common import (
    ModelOptions,
    NetworkConfig,
    Norm,
    Padding,
    TrainCommand,
    TrainConfig,
    Weight,
    differences,
    from_dict,
    named_weights,
    to_dict,
)
from perceptual.config.style import (
    LossConfig,
    OptimizeConfig,
    PaintOptions,
    Precision,
    ReproduceConfig,
    StyleConvention,
    StyleRecipe,
    StylizeConfig,
    TrainStyleConfig,
    Weighting,
)
from perceptual.config.upscale import EvaluateConfig, TrainUpscaleConfig, UpscaleConfig, UpscaleOptions, UpscaleRecipe
from perceptual.config.video import VideoConfig
from perceptual.config.webcam import WebcamConfig

__all__ = [
    "EvaluateConfig",
    "LossConfig",
    "ModelOptions",
    "NetworkConfig",
    "Norm",
    "OptimizeConfig",
    "Padding",
    "PaintOptions",
    "Precision",
    "Range",
    "ReproduceConfig",
    "StyleConvention",
    "StyleRecipe",
    "StylizeConfig",
    "TrainCommand",
    "TrainConfig",
    "TrainStyleConfig",
    "TrainUpscaleConfig",
    "UpscaleConfig",
    "UpscaleOptions",
    "UpscaleRecipe",
    "VideoConfig",
    "WebcamConfig",
    "Weight",
    "Weighting",
    "changed",
    "check",
    "differences",
    "from_dict",
    "named_weights",
    "to_dict",
]
