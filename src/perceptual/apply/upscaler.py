"""Super-resolution on images: Upscaler, whole or in tiles that leave no seams."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from perceptual import checkpoints, images
from perceptual.checkpoints import Card, shipped
from perceptual.config import UpscaleConfig
from perceptual.devices import channels_last, choose_device, free_memory
from perceptual.errors import CheckpointError, ConfigError, ImageError
from perceptual.networks import DAMAGED, TransformationNetwork

Image = TypeVar("Image")

LARGEST_TILE, SMALLEST_TILE = 512, 16  # pixels of the input
EDGE = 6
"""Pixels by which a picture is continued, mirrored, where a network would see zeros beyond its edges. Flat colours then
stay flat within a level; without this they are 7 to 11 levels off. It costs 0.004 dB on Set5 and Set14."""


class Upscaler:
    """A super-resolution network that takes and gives images of any kind; load it once, call it often.

    >>> large = Upscaler.load("x4_pixel")(small)    # PIL, numpy or tensor alike

    Attributes: `scale`, how many times larger the result is; `card`, what the network is and how it came to be;
    `device`.
    """

    def __init__(self, network: TransformationNetwork, card: Card, *, device: torch.device | str | None = None) -> None:
        self.device = choose_device(str(device or "auto"))
        self.network = channels_last(deepcopy(network).eval().to(self.device))  # the caller's stays as it is
        self.card = card
        self.scale: float = network.scale

    @classmethod
    def load(cls, name: str | Path = "x4_pixel", *, device: torch.device | str | None = None) -> Upscaler:
        """Load a shipped network by name, such as x4_feature, or a trained one by path.

        Raises:
            CheckpointError: no such network or file, or it is damaged, or not one for super-resolution.
        """
        file = checkpoints.find_network(name, task="upscale")
        return cls(*checkpoints.load(file, task="upscale"), device=device)

    @classmethod
    def at_scale(cls, scale: float, loss: str = "pixel", *, device: torch.device | str | None = None) -> Upscaler:
        """Load the shipped network for a scale; between the networks' scales the next larger one, made smaller after.

        loss: pixel or feature, or srcnn, the baseline.

        Raises:
            ConfigError: no shipped network was trained by that loss, or none makes a picture that large.
        """
        found: dict[int, str] = {}
        losses: set[str] = set()
        for name in shipped.networks("upscale"):  # x4_pixel ...
            size, _, trained_by = name.removeprefix("x").partition("_")
            losses.add(trained_by)
            if trained_by == loss:
                found[int(size)] = name
        if not found:
            raise ConfigError(f"No network trained by {loss!r} is shipped; choose one of {', '.join(sorted(losses))}.")
        fitting = [size for size in sorted(found) if size >= scale]
        if not fitting or not scale > 0:
            largest = max(found)
            raise ConfigError(f"scale is {scale:g}; the networks by {loss} enlarge up to {largest} times.")
        upscaler = cls.load(found[fitting[0]], device=device)
        upscaler.scale = scale
        return upscaler

    def __call__(self, image: Image, *, tile: int | None = None, match_histogram: bool = False) -> Image:
        """Enlarge an image; the result is of the same kind, with `scale` times its height and width.

        image: PIL image, numpy array (H, W, 3) uint8 or float [0, 1], or tensor (3, H, W) or (N, 3, H, W) in [0, 1].
        tile: side of the tiles in pixels of the input, 0 for none; 512, or less where memory is short, when left out.
        match_histogram: match each channel's histogram to the input's, as the paper does (section 4.2).

        Raises:
            ConfigError: a tile that is too small, or tiles for a network whose norms look at the whole image.
            ImageError: not an image, or one too large for the free memory.
        """
        enlarged = self.upscale(images.from_any(image), tile=tile, match_histogram=match_histogram)
        alpha = images.alpha_of(image)
        return images.to_kind_of(enlarged, image, None if alpha is None else self.upscale_alpha(alpha))

    def upscale_alpha(self, alpha: Tensor) -> Tensor:
        """Enlarge an alpha channel (1, 1, H, W) in [0, 1] as a grey picture, by the network.

        A result lies between the least and the largest alpha of the 5 x 5 pixels around: what is opaque or transparent
        all around stays so.
        """
        large = self.upscale(alpha.expand(-1, 3, -1, -1))[:, :1]
        low, high = (-F.max_pool2d(-alpha, 5, 1, 2), F.max_pool2d(alpha, 5, 1, 2))
        size = large.shape[-2:]
        return large.clamp(*(F.interpolate(bound, size=size, mode="nearest-exact") for bound in (low, high)))

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a result."""
        return images.scaled_size(height, width, self.scale)

    @torch.no_grad()
    def upscale(self, pixels: Tensor, *, tile: int | None = None, match_histogram: bool = False) -> Tensor:
        """As calling, on a tensor (N, 3, H, W), in [0, 1] or uint8 levels; returns one of its dtype on the CPU."""
        UpscaleConfig(tile=tile)  # refuses what is out of range
        if not 0 < self.scale <= self.network.scale:
            raise ConfigError(f"scale is {self.scale:g}; this network enlarges up to {self.network.scale} times.")
        outputs = []
        finished = self.scale == self.network.scale and not match_histogram
        for picture in torch.split(pixels if finished else images.unit(pixels), 1):
            large = self._enlarge(picture, self._tile(picture.shape[-2], picture.shape[-1], tile))
            if (picture == picture[:, :1]).all():  # the network would give grey a tint
                large = images.like(images.unit(large).mean(1, keepdim=True).expand(-1, 3, -1, -1), large)
            large = large if finished else images.resize(large, size=self.size(*picture.shape[-2:]))
            large = match_histograms(large, picture) if match_histogram else large
            outputs.append(images.like(large, pixels))
        return torch.cat(outputs)

    def _enlarge(self, picture: Tensor, tile: int) -> Tensor:
        """(1, 3, H, W) -> (1, 3, scale * H, scale * W) on the CPU, tile by tile.

        Each tile is computed with `reach` more pixels around it, all that its result depends on, so that tiles equal
        the whole. Beyond the picture's edges EDGE of these are its mirror image.
        """
        scale, (height, width) = self.network.scale, picture.shape[-2:]
        out = torch.empty(1, 3, scale * height, scale * width, dtype=picture.dtype)
        for top, bottom, above, below in _pieces(height, tile, self.network):
            for left, right, before, behind in _pieces(width, tile, self.network):
                rows, columns = _inside(above, below, height), _inside(before, behind, width)
                window = picture[..., rows, :][..., columns]
                window = images.unit(window.to(self.device)).contiguous(memory_format=torch.channels_last)
                large = self.network(window)
                if not large.isfinite().all():
                    raise CheckpointError(DAMAGED)
                large = large[..., scale * (top - above) :, scale * (left - before) :]
                part = large[..., : scale * (bottom - top), : scale * (right - left)].clamp(0, 1)
                out[..., scale * top : scale * bottom, scale * left : scale * right] = images.like(part.cpu(), picture)
        return out

    def _tile(self, height: int, width: int, tile: int | None) -> int:
        """The side of the tiles: what was asked for, or what fits into the free memory."""
        whole, reach = max(height, width), self.network.reach
        if tile and reach is None:
            raise ConfigError("This network's norms look at the whole image, so it knows no tiles: give --tile 0.")
        free = free_memory(self.device)
        result = 2 * 4 * 3 * height * width * self.network.scale**2  # on the CPU, and a copy when it is written
        room = free - result if self.device.type == "cpu" else free
        side = whole if tile == 0 or reach is None else tile or min(whole, LARGEST_TILE)
        while tile is None and reach is not None and side > SMALLEST_TILE and self._memory(side, height, width) > room:
            side = max(SMALLEST_TILE, side // 2)
        if (needed := self._memory(side, height, width)) > room:
            helps = tile is not None and side > SMALLEST_TILE and reach is not None and room > 0
            raise ImageError(
                f"Enlarging {width} x {height} px by {self.network.scale} needs about "
                f"{(needed + free - room) / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free: "
                f"give a smaller {'--tile' if helps else 'picture'}."
            )
        return side

    def _memory(self, tile: int, height: int, width: int) -> int:
        around = tile + 2 * (self.network.reach or 0)
        return self.network.memory(min(height + 2 * EDGE, around), min(width + 2 * EDGE, around))


def _pieces(length: int, tile: int, network: TransformationNetwork) -> Iterator[tuple[int, int, int, int]]:
    """(first, last, first to compute from, last to compute from) of each tile; the last two may lie outside."""
    reach, edge = network.reach or 0, EDGE if network.config.padding == "zero" else 0
    for first in range(0, length, tile):
        last = min(length, first + tile)
        start = max(-edge, first - reach)
        yield first, last, start - start % network.multiple, min(length + edge, last + reach)


def _inside(start: int, stop: int, length: int) -> Tensor:
    """The numbers from start to stop; those outside 0 .. length - 1 are mirrored, with the last pixel twice."""
    place = torch.arange(start, stop) % (2 * length)
    return torch.minimum(place, 2 * length - 1 - place)


def match_histograms(image: Tensor, reference: Tensor) -> Tensor:
    """Give each channel of (1, 3, H, W) the distribution of values of the reference's (paper, section 4.2).

    Raises:
        ConfigError: scikit-image is not installed.
    """
    try:
        from skimage import exposure
    except ImportError as error:
        raise ConfigError("Matching histograms needs scikit-image: pip install 'perceptual[histogram]'.") from error
    arrays = [
        each[0].permute(1, 2, 0).double().cpu().numpy() for each in (image, reference)
    ]  # it truncates whole numbers
    matched = exposure.match_histograms(*arrays, channel_axis=-1)
    return torch.from_numpy(np.ascontiguousarray(matched)).permute(2, 0, 1)[None].to(image.dtype)
