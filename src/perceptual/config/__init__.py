"""Every setting with its default, as frozen dataclasses. They are the only source of defaults, and the command's flags
are generated from them."""

from perceptual.config.checks import Range, changed, check, field_hints
from perceptual.config.cluster import EngineConfig
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
    weight_paths,
)
from perceptual.config.evaluate import EvaluateConfig
from perceptual.config.export import ExportConfig
from perceptual.config.loss import LossConfig, StyleConvention, Weighting
from perceptual.config.meanings import field_docs
from perceptual.config.optimize import BASELINE_LOSS, INVERT_TV, OptimizeConfig
from perceptual.config.reproduce import ReproduceConfig
from perceptual.config.save import Existing, SaveConfig
from perceptual.config.serve import ServeConfig, StylizeRequest, UpscaleRequest
from perceptual.config.studio import StudioConfig
from perceptual.config.stylize import PaintOptions, Precision, StylizeConfig
from perceptual.config.upscale import UpscaleConfig, UpscaleOptions
from perceptual.config.video import STEADY_ENLARGING, STEADY_PAINTING, VideoConfig
from perceptual.config.webcam import WebcamConfig

__all__ = [
    "BASELINE_LOSS",
    "INVERT_TV",
    "STEADY_ENLARGING",
    "STEADY_PAINTING",
    "EngineConfig",
    "EvaluateConfig",
    "Existing",
    "ExportConfig",
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
    "SaveConfig",
    "ServeConfig",
    "StudioConfig",
    "StyleConvention",
    "StylizeConfig",
    "StylizeRequest",
    "TrainCommand",
    "TrainConfig",
    "UpscaleConfig",
    "UpscaleOptions",
    "UpscaleRequest",
    "VideoConfig",
    "WebcamConfig",
    "Weight",
    "Weighting",
    "changed",
    "check",
    "differences",
    "field_docs",
    "field_hints",
    "from_dict",
    "named_weights",
    "to_dict",
    "weight_paths",
]
