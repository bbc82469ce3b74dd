"""Measures of noise, compression and aliasing that need no original, to choose a network for super-resolution."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from perceptual.functional import luma

BLOCKS_SEEN = 1.15
"""From this blockiness on, a picture counts as compressed: about that of a JPEG of quality 75."""
NOISE_SEEN = 2.75 / 255
"""From this standard deviation of the noise on, a picture counts as noisy."""
ALIASING_SEEN = 0.7
"""From this aliasing on, a picture counts as reduced without antialiasing."""
_CELL = 8


def looks_damaged(image: Tensor) -> bool:
    """Whether an image (1, 3, H, W), in [0, 1] or uint8 levels, shows the blocks of JPEG, noise, or aliasing."""
    part = _middle(image)
    return blockiness(part) >= BLOCKS_SEEN or noise_level(part) >= NOISE_SEEN or aliasing(part) >= ALIASING_SEEN


def blockiness(image: Tensor) -> float:
    """How much stronger the steps between 8 x 8 blocks are than those inside them: 1 for no blocks.

    The blocks may begin at any pixel, as in a crop. A step is the absolute difference of neighbours over the mean of
    the differences beside it; a picture of less than 4 blocks a side has 1. image: (1, 3, H, W), in [0, 1] or uint8.
    """
    grey = luma(_middle(image))
    ratios = []
    for plane in (grey, grey.mT):
        if plane.shape[-1] < 4 * _CELL + 3:
            return 1.0
        steps = plane.diff(dim=-1).abs()
        by_column = steps.mean(-2)[0, 0]
        around = (by_column[:-2] + by_column[2:]) / 2
        excess = by_column[1:-1] / (around + 0.1 / 255)
        phases = torch.stack([excess[phase::_CELL].median() for phase in range(_CELL)])
        ratios.append((phases, phases.median()))
    return math.sqrt(math.prod(float(phases.max() / middle) for phases, middle in ratios))


def noise_level(image: Tensor) -> float:
    """The standard deviation of the noise, in units of [0, 1] (Immerkaer, 1996).

    Texture looks like noise. But it has little colour, and most images have some smooth cells of 8 x 8 pixels. So this
    is the larger of two values: the noise in red less green, which a quarter of the cells stay below, and the noise in
    luma, which 2 % of the cells stay below. Cells that are nearly black or white are left out, because there noise is
    clipped. image: (1, 3, H, W), in [0, 1] or uint8 levels; 0 if it is smaller than 16 px.
    """
    part = _middle(image)
    if min(part.shape[-2:]) < 2 * _CELL:
        return 0.0
    brightness = F.avg_pool2d(part.mean(1, keepdim=True)[..., 1:-1, 1:-1], _CELL).flatten()
    kept = (brightness > 0.04) & (brightness < 0.96)
    if not kept.any():
        return 0.0
    kernel = torch.tensor([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]]).expand(1, 1, 3, 3)

    def noise(plane: Tensor, share: float) -> float:
        cells = F.avg_pool2d(F.conv2d(plane, kernel).abs(), _CELL).flatten()[kept]
        return float(cells.quantile(share)) * math.sqrt(math.pi / 2) / 6  # a Gaussian's mean deviation is 0.8 sigma

    return max(noise((part[:, :1] - part[:, 1:2]) / math.sqrt(2), 0.25), noise(luma(part), 0.02))


def aliasing(image: Tensor) -> float:
    """The power of the finest detail over that of detail a quarter coarser.

    The power spectrum of a photo falls. If a photo is reduced without a low-pass filter, the detail that does not fit
    is folded back below the Nyquist frequency, and there the spectrum becomes flat. So the value is about 0.4 for
    photos, and near 1 for aliased pictures and for noise. Drawings with hard edges have high values too.

    The bands are 15/16 to 1 and 11/16 to 12/16 of the Nyquist frequency, along rows and along columns; the value is
    the geometric mean of both ratios. image: (1, 3, H, W), in [0, 1] or uint8 levels; 0 if it is smaller than 64 px.
    """
    grey = luma(_middle(image))[0, 0]
    if min(grey.shape) < 64:
        return 0.0
    ratios = []
    for plane in (grey, grey.mT):
        length = plane.shape[-1]
        window = torch.hann_window(length, periodic=False)
        spectrum = torch.fft.rfft((plane - plane.mean(-1, keepdim=True)) * window).abs().square().mean(-2)
        power = spectrum / window.square().sum()  # of white noise: its variance
        frequency = torch.linspace(0, 1, len(power)) * (length // 2 * 2 / length)
        fine, coarser = (power[(frequency >= low / 16) & (frequency <= (low + 1) / 16)].mean() for low in (15, 11))
        ratios.append(float(fine / (coarser + 1 / 255**2)))  # detail below one level counts as none
    return math.sqrt(math.prod(ratios))


def _middle(image: Tensor) -> Tensor:
    """The middle of an image, (1, 3, H, W) in [0, 1], at most 1,024 pixels a side."""
    height, width = image.shape[-2:]
    top, left = (max(0, (side - 1024) // 2) for side in (height, width))
    part = image[:1, :, top : top + 1024, left : left + 1024].cpu()
    return part.float() / 255 if part.dtype == torch.uint8 else part.float()
