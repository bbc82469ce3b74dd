"""How well the content of a photo survives in paintings of it, to compare styles with each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from perceptual.errors import WeightsError
from perceptual.losses import FeatureLoss, PerceptualLoss
from perceptual.losses.networks import layer_names
from perceptual.losses.weights import PRETRAINED, locate
from perceptual.measure.metrics import ssim

LAYERS = ("relu3_3", "fire5")
"""Layers for the content, in VGG as in the authors' code, and one of similar depth in SqueezeNet."""


@torch.no_grad()
def content_distances(
    photograph: Tensor, paintings: Mapping[str, Tensor], *, paths: Mapping[str, str | Path] | None = None
) -> tuple[dict[str, float], str]:
    """The distance of each painting from the photograph by name, smallest first; and the measure in words.

    The distance is the feature reconstruction loss (paper, eq. 2) in the smallest loss network with weights on this
    computer, divided by that of the photograph turned by 180 degrees: 0 is the photograph itself. Without any weights
    it is 1 - SSIM of luma. Nothing is downloaded.

    photograph, paintings: (1, 3, H, W) in [0, 1], of one size. paths: weight files by loss network.

    Raises:
        ImageError: without weights, pictures below 11 x 11 px.
    """
    loss, layer = _loss(paths or {})
    if loss is None:
        found = {name: 1 - ssim(painting, photograph) for name, painting in paintings.items()}
        measure = "1 - SSIM of luma"
    else:
        goal = loss.goal(photograph)
        turned = float(loss(photograph.flip(2, 3), goal)["content"]) or 1.0
        found = {name: float(loss(painting, goal)["content"]) / turned for name, painting in paintings.items()}
        measure = f"content distance at {layer}"
    return dict(sorted(found.items(), key=lambda item: item[1])), measure


def _loss(paths: Mapping[str, str | Path]) -> tuple[PerceptualLoss | None, str]:
    """The content term in the smallest loss network with weights on this computer, and its layer; None if none is."""
    files = {name: Path(paths[name]) if name in paths else locate(name) for name in PRETRAINED}
    sizes = {name: file.stat().st_size for name, file in files.items() if file is not None and file.is_file()}
    for name in sorted(sizes, key=lambda name: (name not in paths, sizes[name])):
        layers = layer_names(name)
        for layer in (f"{name}:{each}" for each in LAYERS if each in layers):
            try:
                return PerceptualLoss({"content": (FeatureLoss(layer), 1.0)}, paths=paths), layer
            except WeightsError:  # a file with the first layers only
                continue
    return None, ""
