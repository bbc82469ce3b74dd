"""Images into images with networks trained by perceptual losses.

After Johnson, Alahi and Fei-Fei, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution" (ECCV 2016).

>>> from perceptual import Stylizer
>>> Stylizer.load("starry_night")(photograph)

The names below are the public interface; each is imported when it is first used, so that `import perceptual` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perceptual.apply import Stylizer
    from perceptual.config import LossConfig, NetworkConfig, OptimizeConfig, StyleRecipe, TrainConfig, UpscaleRecipe
    from perceptual.errors import PerceptualError
    from perceptual.events import Step
    from perceptual.functional import (
        absolute_distance,
        feature_distance,
        gram_distance,
        gram_matrix,
        grid_energy,
        luma,
        normalised_distance,
        pixel_distance,
        total_variation,
    )
    from perceptual.loss_networks import LossNetwork, LossNetworks
    from perceptual.losses import (
        AbsoluteLoss,
        DistanceLoss,
        FeatureLoss,
        GridLoss,
        PerceptualLoss,
        PixelLoss,
        StyleLoss,
        TemporalLoss,
        TextureLoss,
        TotalVariation,
        reconstruction_loss,
        style_transfer_loss,
    )
    from perceptual.metrics import PerceptualDistance, psnr, ssim, temporal_error, y_channel
    from perceptual.networks import TransformationNetwork
    from perceptual.optimize import Optimization, invert, optimize_style, texture
    from perceptual.resampling import degrade, imresize, modcrop
    from perceptual.upscaler import Upscaler

__all__ = [
    "AbsoluteLoss",
    "DistanceLoss",
    "FeatureLoss",
    "GridLoss",
    "LossConfig",
    "LossNetwork",
    "LossNetworks",
    "NetworkConfig",
    "Optimization",
    "OptimizeConfig",
    "PerceptualDistance",
    "PerceptualError",
    "PerceptualLoss",
    "PixelLoss",
    "Step",
    "StyleLoss",
    "StyleRecipe",
    "Stylizer",
    "TemporalLoss",
    "TextureLoss",
    "TotalVariation",
    "TrainConfig",
    "TransformationNetwork",
    "UpscaleRecipe",
    "Upscaler",
    "absolute_distance",
    "degrade",
    "feature_distance",
    "gram_distance",
    "gram_matrix",
    "grid_energy",
    "imresize",
    "invert",
    "luma",
    "modcrop",
    "normalised_distance",
    "optimize_style",
    "pixel_distance",
    "psnr",
    "reconstruction_loss",
    "ssim",
    "style_transfer_loss",
    "temporal_error",
    "texture",
    "total_variation",
    "y_channel",
]

_HOMES = {
    "apply": ["Stylizer"],
    "config": ["LossConfig", "NetworkConfig", "OptimizeConfig", "StyleRecipe", "TrainConfig", "UpscaleRecipe"],
    "errors": ["PerceptualError"],
    "events": ["Step"],
    "functional": [
        "absolute_distance",
        "feature_distance",
        "gram_distance",
        "gram_matrix",
        "grid_energy",
        "luma",
        "normalised_distance",
        "pixel_distance",
        "total_variation",
    ],
    "loss_networks": ["LossNetwork", "LossNetworks"],
    "losses": [
        "AbsoluteLoss",
        "DistanceLoss",
        "FeatureLoss",
        "GridLoss",
        "PerceptualLoss",
        "PixelLoss",
        "StyleLoss",
        "TemporalLoss",
        "TextureLoss",
        "TotalVariation",
        "reconstruction_loss",
        "style_transfer_loss",
    ],
    "metrics": ["PerceptualDistance", "psnr", "ssim", "temporal_error", "y_channel"],
    "networks": ["TransformationNetwork"],
    "optimize": ["Optimization", "invert", "optimize_style", "texture"],
    "resampling": ["degrade", "imresize", "modcrop"],
    "upscaler": ["Upscaler"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'perceptual' has no attribute {name!r}")
    value = getattr(import_module(f"perceptual.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
