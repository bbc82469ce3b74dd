"""Perceptual losses as small modules that compose: terms, the objective that adds them up, and the loss networks."""

from perceptual.losses.networks import LossNetwork, LossNetworks
from perceptual.losses.objective import (
    PerceptualLoss,
    reconstruction_loss,
    reconstruction_terms,
    style_targets,
    style_transfer_loss,
)
from perceptual.losses.terms import (
    PIXELS,
    STYLE_CONVENTIONS,
    AbsoluteLoss,
    DistanceLoss,
    FeatureLoss,
    GridLoss,
    LatticeLoss,
    PixelLoss,
    StyleLoss,
    TemporalLoss,
    Term,
    TextureLoss,
    TotalVariation,
    full_name,
)

__all__ = [
    "PIXELS",
    "STYLE_CONVENTIONS",
    "AbsoluteLoss",
    "DistanceLoss",
    "FeatureLoss",
    "GridLoss",
    "LatticeLoss",
    "LossNetwork",
    "LossNetworks",
    "PerceptualLoss",
    "PixelLoss",
    "StyleLoss",
    "TemporalLoss",
    "Term",
    "TextureLoss",
    "TotalVariation",
    "full_name",
    "reconstruction_loss",
    "reconstruction_terms",
    "style_targets",
    "style_transfer_loss",
]
