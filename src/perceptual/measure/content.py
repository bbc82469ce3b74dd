"""Measures how well paintings of a photo keep its content, to compare styles."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from perceptual.errors import ImageError, WeightsError
from perceptual.losses import FeatureLoss, PerceptualLoss
from perceptual.losses.networks import layer_names
from perceptual.losses.weights import PRETRAINED, locate
from perceptual.measure.metrics import ssim

LAYERS = ("relu3_3", "fire5")
"""Content layers: relu3_3 of VGG as in the authors' code, and a layer of similar depth in SqueezeNet."""


@torch.no_grad()
def content_distances(
    photograph: Tensor, paintings: Mapping[str, Tensor], *, paths: Mapping[str, str | Path] | None = None
) -> tuple[dict[str, float], str]:
    """The distance of each painting from the photo, {name: distance} with the smallest first, and the measure in words.

    The distance is the feature reconstruction loss (paper, eq. 2) in the smallest loss network with weights on this
    computer. It is divided by the loss of the photo turned by 180 degrees, so 0 is the photo itself and 1 is as far as
    the turned photo. Without weights, and for images too small for the layer, the distance is 1 - SSIM of luma. Nothing
    is downloaded.

    photograph, paintings: (1, 3, H, W) in [0, 1], all of the same size. paths: weight files by name of the loss
        network.

    Raises:
        ImageError: the images are smaller than 11 x 11 px and SSIM is needed.
        WeightsError: a file in `paths` is missing, damaged, or has not the layer.
    """
    loss, layer = _loss(paths or {})
    goal = None
    if loss is not None:
        with suppress(ImageError):  # too small for the layer
            goal = loss.goal(photograph)
    if loss is None or goal is None:
        height, width = photograph.shape[-2:]
        if min(height, width) < 11:  # the window of SSIM
            raise ImageError(f"Styles cannot be compared on {width} x {height} px: each side must have at least 11 px.")
        found = {name: 1 - ssim(painting, photograph) for name, painting in paintings.items()}
        measure = "1 - SSIM of luma"
    else:
        turned = float(loss(photograph.flip(2, 3), goal)["content"]) or 1.0
        found = {name: float(loss(painting, goal)["content"]) / turned for name, painting in paintings.items()}
        measure = f"content distance at {layer}"
    return dict(sorted(found.items(), key=lambda item: item[1])), measure


def _loss(paths: Mapping[str, str | Path]) -> tuple[PerceptualLoss | None, str]:
    """The content loss and its layer, in the smallest loss network that has weights here; None without weights."""
    files = {name: locate(name, paths.get(name)) for name in PRETRAINED}
    sizes = {name: file.stat().st_size for name, file in files.items() if file is not None}
    for name in sorted(sizes, key=lambda name: (name not in paths, sizes[name])):
        layers = layer_names(name)
        for layer in (f"{name}:{each}" for each in LAYERS if each in layers):
            try:
                return PerceptualLoss({"content": (FeatureLoss(layer), 1.0)}, paths=paths), layer
            except WeightsError:  # the file contains only the first layers
                if name in paths:
                    raise
    return None, ""
