"""Measures of noise, compression and aliasing that need no original, to choose a network for super-resolution."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional as F

from perceptual.functional import luma

STEP_SEEN = 4.5
"""A picture counts as compressed if its quantisation step is this or more, in levels of 0 to 255: that of JPEG quality
80."""
NOISE_SEEN = 2.75 / 255
"""A picture counts as noisy if the standard deviation of its noise is this or more."""
ALIASING_SEEN = 0.62
"""A picture counts as reduced without antialiasing if its aliasing is this or more."""
GRID_SEEN = 1.3
"""A grid of blocks may be that of a JPEG if its strength is this or more."""
_CELL = 8
_LOW = [1, 2, 8, 9, 16]
"""The five lowest frequencies, as 8 * row + column."""
_HIGH = [k for k in range(_CELL**2) if 3 <= sum(divmod(k, _CELL)) <= 9]
_STANDARD = torch.tensor(
    [
        *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
        *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
        *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
        *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
    ]
).float()


def damage(image: Tensor) -> str:
    """How an image (1, 3, H, W), in [0, 1] or uint8 levels, looks damaged: "compressed", "noisy", "aliased", or ""."""
    part = _middle(image)
    if jpeg_step(part, enough=STEP_SEEN) >= STEP_SEEN:
        return "compressed"
    if noise_level(part) >= NOISE_SEEN:
        return "noisy"
    return "aliased" if aliasing(part) >= ALIASING_SEEN else ""


def jpeg_step(image: Tensor, *, enough: float = math.inf) -> float:
    """The quantisation step of the lowest frequencies of the JPEG file that an image was, in levels of 0..255.

    It is 0 or 1 for images that were not compressed, 1 to 2 for JPEGs of quality 90 to 95, 6 for 75, 12 for 50 and 20
    for 30. The image may have been cropped since, but not resized. A JPEG rounds the cosine transforms of blocks of
    8 x 8 pixels to multiples of a step. So on the right one of the 64 grids of blocks, more coefficients are near 0
    than on the others, and the coefficients are near multiples of the step (after Fan and de Queiroz, Identification
    of Bitmap Compression History, 2003). Blocks with black or white pixels are left out, because those were clipped.
    `_ghost_step` is the second method, for pictures with few other blocks, such as screenshots. The larger result
    counts.

    image: (1, 3, H, W), in [0, 1] or uint8; 0 if a side is below 40 px. The middle 512 px are measured.
    enough: if the first method finds at least this step, the second one is left out.
    """
    part = _middle(image, 512)
    if min(part.shape[-2:]) < 5 * _CELL:
        return 0.0
    transforms = F.conv2d(255 * luma(part) - 128, _cosines())[0]  # (64, H - 7, W - 7): of the block at each pixel
    clipped = ((part < 1 / 255) | (part > 254 / 255)).any(1).float()
    step = _grid_step(transforms, clipped)
    return step if step >= enough else max(step, _ghost_step(transforms[:, ::_CELL, ::_CELL].flatten(1)))


def _grid_step(transforms: Tensor, clipped: Tensor) -> float:
    """The first method of `jpeg_step`. transforms: (64, H - 7, W - 7). clipped: 1 for black and white, (1, H, W)."""
    live = transforms[1:].square().sum(0) > _CELL**2  # flat blocks say nothing
    near = live * (transforms[_HIGH].abs() < 0.6).float().mean(0)
    rows, columns = (side // _CELL * _CELL for side in near.shape)
    counts = F.pixel_unshuffle(torch.stack([near, live])[:, None, :rows, :columns], _CELL).sum((2, 3))
    shares = (counts[0] + 0.08) / (counts[1] + 4)  # so that a few blocks do not decide
    if shares.max() <= GRID_SEEN * shares.median():
        return 0.0
    row, column = divmod(int(shares.argmax()), _CELL)
    inside = F.max_pool2d(clipped, _CELL, 1)[0, row::_CELL, column::_CELL] == 0
    steps = [_step(transforms[k, row::_CELL, column::_CELL][inside].abs()) for k in _LOW]
    known = [step for step in steps if step]
    return median(known) if len(known) >= 3 else 0.0


def _step(values: Tensor) -> float:
    """The largest whole number that most values, (n,), are multiples of; 0 if too few of them are not 0."""
    values = values[values > 0.9]  # the others were rounded to 0
    if len(values) < 12:
        return 0.0
    steps = torch.arange(2.0, 64.0)[:, None]
    multiples = (values / steps).round().clamp_(min=1) * steps
    fits = ((values - multiples).abs() < 0.8).float().mean(1) >= 0.8
    return float(steps[fits].max()) if fits.any() else 1.0


def _ghost_step(transforms: Tensor) -> float:
    """As `jpeg_step`, for a JPEG with blocks that begin at the first pixel: (64, blocks), of levels less 128.

    The picture is compressed again with the tables of the JPEG standard for quality 20 to 90. A higher quality
    changes it less. One exception is the quality of the original JPEG: it hardly changes the picture, also where it was
    clipped (Farid, Exposing Digital Forgeries from JPEG Ghosts, 2009). Other tables than those of the standard are not
    found.
    """
    waves = _cosines()
    transforms = transforms[:, transforms[1:].square().sum(0) > _CELL**2]
    if transforms.shape[1] < 12:
        return 0.0

    def pixels(coefficients: Tensor) -> Tensor:
        return torch.einsum("kyx,kn->nyx", waves[:, 0], coefficients) + 128

    before, errors = pixels(transforms), []
    tables = [_table(quality)[:, None] for quality in range(20, 91)]
    for table in tables:
        after = pixels((transforms / table).round() * table).clamp_(0, 255)
        errors.append(float((after - before).square().mean()))
    dip, k = min((errors[k] / max(errors[k + 10], 1e-6), k) for k in range(len(errors) - 10))
    return float(tables[k][_LOW].median()) if dip < 1 else 0.0


def _table(quality: int) -> Tensor:
    """The steps for luma at a quality of the JPEG library, (64,), row by row (JPEG standard, table K.1)."""
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    return ((_STANDARD * scale + 50) / 100).floor().clamp(1, 255)


@lru_cache(maxsize=1)
def _cosines() -> Tensor:
    """The basis of the cosine transform of 8 x 8 pixels as filters, (64, 1, 8, 8); filter 8 u + v has the frequency u
    along columns and v along rows.
    """
    places = torch.arange(float(_CELL))
    waves = torch.cos(math.pi / 16 * places[:, None] * (2 * places + 1)) / 2
    waves[0] /= math.sqrt(2)
    return torch.einsum("ua,vb->uvab", waves, waves).reshape(_CELL**2, 1, _CELL, _CELL)


def noise_level(image: Tensor) -> float:
    """The standard deviation of the noise, in units of [0, 1] (Immerkaer, 1996).

    Texture looks like noise. But it has little colour, and most images have some smooth cells of 8 x 8 pixels. So this
    is the larger of two values: the noise in red less green, which a quarter of the cells stay below, and the noise in
    luma, which 2 % of the cells stay below. Cells that are nearly black or white are left out, because there noise is
    clipped. Where a few pixels of a cell deviate much more than the others, these are edges of letters and lines, and
    not noise: there the median counts, not the mean as in the paper.

    image: (1, 3, H, W), in [0, 1] or uint8 levels. 0 if it is smaller than 16 px.
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
        cells = F.unfold(F.conv2d(plane, kernel).abs(), _CELL, stride=_CELL)[0, :, kept]
        mean, median = cells.mean(0) * math.sqrt(math.pi / 2), cells.median(0).values / 0.6745  # sigma of a Gaussian
        return float(torch.where(median < mean / 2, median, mean).quantile(share)) / 6

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


def _middle(image: Tensor, most: int = 1024) -> Tensor:
    """The middle of an image, (1, 3, H, W) in [0, 1], at most `most` pixels a side."""
    height, width = image.shape[-2:]
    top, left = (max(0, (side - most) // 2) // _CELL * _CELL for side in (height, width))  # at a block of JPEG
    part = image[:1, :, top : top + most, left : left + most].cpu()
    return part.float() / 255 if part.dtype == torch.uint8 else part.float()
