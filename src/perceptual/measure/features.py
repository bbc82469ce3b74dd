"""Features of a loss network as pictures to look at."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from perceptual.functional import gram_matrix


def activation_sheet(features: Tensor, count: int = 16, side: int = 160) -> Tensor:
    """The most active channels of a layer, as grey pictures in a square grid: (1, 3, H, W) in [0, 1].

    features: (1, C, h, w), C at least 1. count: how many channels are shown, at most. side: longer side of each picture
    in pixels; pictures are enlarged without smoothing. Each channel is scaled so that its least value is black and its
    largest one white. They are sorted by their mean, the largest first; a channel of one value is black.
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
    """The Gram matrix of a layer (paper, equation 3) as a picture: (1, 3, H, H) in [0, 1].

    features: (1, C, h, w). side: H is the multiple of C that is nearest to it, or C. Row and column k belong to channel
    k. 0 is black, positive numbers go to white, and negative ones, which layers before a ReLU have, to red. Values are
    divided by the largest absolute value and shown by their square root, so that small ones can be seen.
    """
    gram = gram_matrix(features)[:, None]
    shown = (gram.abs() / gram.abs().max().clamp_min(torch.finfo(gram.dtype).tiny)).sqrt()
    red, others = shown, torch.where(gram < 0, 0.0, shown)
    times = max(1, round(side / gram.shape[-1]))
    return F.interpolate(torch.cat([red, others, others], dim=1), scale_factor=times, mode="nearest-exact")
