"""Perceptual losses as small modules that compose: terms, the objective that adds them up, and the loss networks."""

from perceptual.losses.base import PIXELS, Materials, ModuleLoss, Term, full_name
from perceptual.losses.language import (
    TERMS,
    TermSpec,
    build_terms,
    check_weights,
    layers_of,
    objective_of,
    parse_objective,
)
from perceptual.losses.lpips import LPIPS
from perceptual.losses.networks import LossNetwork, LossNetworks
from perceptual.losses.objective import (
    PerceptualLoss,
    reconstruction_loss,
    style_targets,
    style_transfer_loss,
)
from perceptual.losses.ssim import SSIMLoss
from perceptual.losses.terms import (
    STYLE_CONVENTIONS,
    AbsoluteLoss,
    DistanceLoss,
    FeatureLoss,
    GridLoss,
    LatticeLoss,
    PixelLoss,
    StyleLoss,
    TemporalLoss,
    TextureLoss,
    TotalVariation,
)

__all__ = [
    "LPIPS",
    "PIXELS",
    "STYLE_CONVENTIONS",
    "TERMS",
    "AbsoluteLoss",
    "DistanceLoss",
    "FeatureLoss",
    "GridLoss",
    "LatticeLoss",
    "LossNetwork",
    "LossNetworks",
    "Materials",
    "ModuleLoss",
    "PerceptualLoss",
    "PixelLoss",
    "SSIMLoss",
    "StyleLoss",
    "TemporalLoss",
    "Term",
    "TermSpec",
    "TextureLoss",
    "TotalVariation",
    "build_terms",
    "check_weights",
    "full_name",
    "layers_of",
    "objective_of",
    "parse_objective",
    "reconstruction_loss",
    "style_targets",
    "style_transfer_loss",
]
