"""Shows features of a loss network as images."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from perceptual.functional import gram_matrix


def activation_sheet(features: Tensor, count: int = 16, side: int = 160) -> Tensor:
    """Show the most active channels of a layer as grey images in a square grid: (1, 3, H, W) in [0, 1].

    In each channel, the smallest value is black and the largest value is white. A constant channel is black. The
    channels are sorted by their mean value, the largest first. They are enlarged without smoothing.

    features: (1, C, h, w), C at least 1. count: maximum number of channels. side: longer side of each channel in the
    grid, in pixels.
    """
    order = features.mean((0, 2, 3)).argsort(descending=True, stable=True)[:count]
    chosen = features[0, order][:, None]
    least, most = chosen.amin((2, 3), keepdim=True), chosen.amax((2, 3), keepdim=True)
    grey = (chosen - least) / (most - least).clamp_min(torch.finfo(chosen.dtype).tiny)
    scale = side / max(features.shape[-2:])
    size = [max(1, round(length * scale)) for length in features.shape[-2:]]
    grey = F.interpolate(grey, size=size, mode="nearest-exact")
    columns = math.ceil(math.sqrt(len(grey)))
    rows = math.ceil(len(grey) / columns)
    cells = F.pad(grey, (0, 2, 0, 2), value=1.0)
    cells = torch.cat([cells, cells.new_ones(rows * columns - len(cells), *cells.shape[1:])])
    lines = [torch.cat(list(cells[k * columns : (k + 1) * columns]), dim=2) for k in range(rows)]
    return torch.cat(lines, dim=1)[None, :, :-2, :-2].expand(-1, 3, -1, -1).contiguous()


def gram_picture(features: Tensor, side: int = 512) -> Tensor:
    """Show the Gram matrix of a layer (paper, equation 3) as an image: (1, 3, H, H) in [0, 1].

    Row k and column k belong to channel k. 0 is black, large positive values are white, and large negative values are
    red (only layers before a ReLU have them). Values are divided by the largest absolute value. The image shows their
    square root, so that small values are visible.

    features: (1, C, h, w). side: H is the multiple of C that is closest to this number of pixels, at least C.
    """
    gram = gram_matrix(features)[:, None]
    shown = (gram.abs() / gram.abs().max().clamp_min(torch.finfo(gram.dtype).tiny)).sqrt()
    red, others = shown, torch.where(gram < 0, 0.0, shown)
    times = max(1, round(side / gram.shape[-1]))
    return F.interpolate(torch.cat([red, others, others], dim=1), scale_factor=times, mode="nearest-exact")
