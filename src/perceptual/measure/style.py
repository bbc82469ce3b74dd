"""Measures style networks: how near their paintings are to the style and the photo, and how strong their grids are."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perceptual import images
from perceptual.config import LossConfig
from perceptual.errors import ConfigError, ImageError
from perceptual.events import Step
from perceptual.functional import luma
from perceptual.images import finding
from perceptual.losses import PerceptualLoss, style_transfer_loss

_LAYERS = tuple(f"vgg16-torchvision:{layer}" for layer in ("relu1_2", "relu2_2", "relu3_3", "relu4_3"))
OBJECTIVE = LossConfig(
    content_layers=("vgg16-torchvision:relu3_3",),
    style_layers=_LAYERS,
    weighting="relative",
    style_weight=1.0,
    tv_weight=0.02,
)
"""The layers of the paper's style loss, content at relu3_3 as in the authors' code, and weights relative to the photos.
The loss network is the one that the gallery was trained with."""
PHOTOS = "the photos"
GRID_SIDE = 128
"""Shortest side in pixels on which `checkerboard` is measured."""

Painter = Callable[[Tensor], Tensor]
"""(1, 3, H, W) in [0, 1] -> its painting, of the same shape."""


def read_photos(inputs: Sequence[str | Path], side: int) -> tuple[list[Tensor], list[ImageError]]:
    """Read photos and squash them to squares, as the paper does for style transfer: (1, 3, side, side) in [0, 1] each.

    inputs: files, folders and globs.

    Returns the photos, and an error for each file that cannot be read.

    Raises:
        ImageError: an input matches no image.
        ConfigError: fewer than two photos can be read. The content distance is relative to that of another photo.
    """
    photos, skipped = list[Tensor](), list[ImageError]()
    for each in finding.find(inputs):
        try:
            photos.append(images.resize(images.read(each.path).pixels, size=(side, side)))
        except ImageError as error:
            skipped.append(error)
    if len(photos) < 2:
        reasons = "".join(f" {error}" for error in skipped)
        raise ConfigError(f"Measuring styles needs two photos or more: give more files, or a folder.{reasons}")
    return photos, skipped


@torch.no_grad()
def evaluate_styles(
    painters: Mapping[str, Painter],
    photos: Sequence[Tensor],
    painting: Tensor,
    *,
    paths: Mapping[str, str | Path] | None = None,
) -> Generator[Step, None, list[dict[str, Any]]]:
    """Measure the paintings of each style. A generator of Steps that returns the rows of a table, the photos first.

    Each row has the means over the photos: `objective` (paper, eq. 5, with relative weights), `style` and `content`
    (its terms without weights, divided by their references) and `grid` (`checkerboard`). A style of 0 is that of the
    painting, and 1 is as far from it as the photos. A content of 0 is the photo, and 1 is as far as another photo.

    painters: functions by the name of the style. photos: (1, 3, H, W) in [0, 1], two or more, of one size.
    painting: the style image, (1, 3, h, w) in [0, 1]. paths: weight files by name of the loss network.

    Raises:
        WeightsError: the weights of the loss network are missing.
    """
    loss = style_transfer_loss(OBJECTIVE, [painting], paths=paths)
    loss.calibrate([torch.cat(list(photos))] if len(photos) < 5 else _pairs(photos))
    rows, done = list[dict[str, Any]](), 0
    unchanged: Painter = lambda photo: photo  # noqa: E731
    for name, paint in ({PHOTOS: unchanged} | dict(painters)).items():
        values = []
        for photo in photos:
            values.append(_measured(loss, paint(photo), photo))
            done += 1
            yield Step(done, len(photos) * (len(painters) + 1))
        means = {key: sum(each[key] for each in values) / len(values) for key in values[0]}
        rows.append({"style of": name, **means})
    return rows


def _pairs(photos: Sequence[Tensor]) -> list[Tensor]:
    """Batches of two photos, and one of three if the number is odd."""
    starts = range(0, len(photos) - 1, 2)
    return [torch.cat(list(photos[k : k + 3 if k + 3 == len(photos) else k + 2])) for k in starts]


def _measured(loss: PerceptualLoss, made: Tensor, photo: Tensor) -> dict[str, float]:
    """The numbers of one painting."""
    values, groups = loss(made, photo), dict[str, list[float]]()
    for term, module in loss.named_terms():
        groups.setdefault(term.split()[0], []).append(float(values[term] / module.reference[0]))
    found = {"objective": float(values["total"])}
    found |= {kind: sum(groups[kind]) / len(groups[kind]) for kind in ("style", "content")}
    return {**found, "grid": checkerboard(made) if min(made.shape[-2:]) >= GRID_SIDE else float("nan")}


def checkerboard(picture: Tensor, periods: tuple[int, ...] = (4, 2)) -> float:
    """How strong patterns that repeat every few pixels are in an image (1, 3, H, W) of [0, 1]; 1 is no pattern.

    A network that doubles sizes twice can repeat itself every 2 or 4 px. The power spectrum of luma at those
    frequencies, in x and in y, is divided by the median of the frequencies beside them. The largest ratio is returned.

    periods: in pixels. H and W: at least 64 px; the neighbours overlap in smaller images.
    """
    gray = luma(picture)[0, 0]
    height, width = gray.shape
    window = torch.hann_window(height)[:, None] * torch.hann_window(width)
    power = torch.fft.fft2((gray - gray.mean()) * window).abs().square()
    worst = 0.0
    for axis, side in ((0, height), (1, width)):
        profile = power.mean(1 - axis)
        for at in (side // period for period in periods):
            around = torch.cat([profile[at - 8 : at - 2], profile[at + 3 : at + 9]])
            worst = max(worst, float(profile[at] / around.median()))
    return worst
