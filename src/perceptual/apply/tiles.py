"""Applies a network to an image tile by tile: the same result as in one piece, or nearly, with less memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator

import numpy as np
import torch
from torch import Tensor

from perceptual import images
from perceptual.devices import free_memory
from perceptual.errors import ConfigError, ImageError
from perceptual.events import Step
from perceptual.networks import TransformationNetwork

LARGEST_TILE, SMALLEST_TILE = 512, 16  # pixels of the input
EDGE = 6
"""Width in pixels of a mirrored margin around an image, for networks with zero padding. With it, the error of flat
colours at the edges is at most one level of 0..255; without it, 7 to 11 levels. PSNR on Set5 and Set14 is 0.004 dB
lower."""


NO_ROOM = "The picture and its tiles do not fit into the memory of the GPU: give a smaller picture, or --device cpu."


def tile_side(network: TransformationNetwork, picture: Tensor, tile: int | None, device: torch.device) -> int:
    """Choose the side of the tiles for an image (1, 3, H, W), in pixels of the input.

    tile: the side to use; 0 for one piece; None for the largest side up to 512 that fits into the free memory.

    Raises:
        ConfigError: tiles for a network that cannot be tiled, because its norm layers need the whole image.
        ImageError: the image and its result do not fit into the free memory.
    """
    if tile and not tileable(network):
        raise ConfigError("This network cannot be tiled, because its norm layers need the whole image: give --tile 0.")
    size = picture.shape[-2], picture.shape[-1]
    side, needed, result = plan(network, size, tile, device)
    if needed > (free := free_memory(device)):
        helps = tile is not None and side > SMALLEST_TILE and tileable(network) and free > result
        raise too_large(size, needed, free, f"give a smaller {'--tile' if helps else 'picture'}")
    return side


def smaller_tile(network: TransformationNetwork, picture: Tensor, side: int) -> int | None:
    """Half the side of the tiles of a picture (1, 3, H, W); None if tiles cannot be smaller."""
    half = min(side, max(picture.shape[-2:])) // 2
    return half if tileable(network) and half >= SMALLEST_TILE else None


def tileable(network: TransformationNetwork) -> bool:
    """Whether tiles of a picture can be computed one by one."""
    return network.reach is not None or network.overlap > 0


def plan(
    network: TransformationNetwork, size: tuple[int, int], tile: int | None, device: torch.device
) -> tuple[int, int, int]:
    """Choose the side of the tiles. Returns it, the bytes of memory in total, and the bytes of the result.

    size: height and width of the image in pixels. tile: as in `tile_side`.
    """
    height, width = size
    free, result = free_memory(device), 0
    if device.type == "cpu":  # the result, and a copy of it while the file is written
        result = 2 * 4 * 3 * height * width * network.scale**2
    side = max(size)
    if tileable(network):
        side = min(side, LARGEST_TILE) if tile is None else tile or side
        while tile is None and side > SMALLEST_TILE and result + _memory(network, size, side) > free:
            side = max(SMALLEST_TILE, side // 2)
    return side, result + _memory(network, size, side), result


def too_large(size: tuple[int, int], needed: float, free: float, advice: str) -> ImageError:
    """The error for an image that needs more memory than is free. size: height and width. needed, free: in bytes."""
    return ImageError(
        f"A picture of {size[1]} x {size[0]} px needs about {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB "
        f"are free: {advice}."
    )


def _memory(network: TransformationNetwork, size: tuple[int, int], side: int) -> int:
    """Bytes of memory that the network needs for one tile with its margin."""
    around = side + 2 * (network.reach or network.overlap)
    height, width = (min(length + 2 * EDGE, around) for length in size)
    return network.memory(height, width)


def in_tiles(
    run: Callable[[Tensor], Tensor], network: TransformationNetwork, picture: Tensor, side: int
) -> Generator[Step, None, None]:
    """Compute an image tile by tile. A generator that yields a Step after each tile.

    The last Step has the result, (1, 3, scale * H, scale * W), on the CPU. Each tile is computed with a margin of
    `network.reach` pixels. The result of a tile depends on no other pixels, so it is the same as in one piece. Outside
    the image, the margin is a mirror image, up to EDGE pixels wide.

    Where a network reaches too far, the margin is `network.overlap`. Its outer half is cut off, and its inner half is
    cross-faded with the tile before. The result is nearly that in one piece.

    run: a function that calls the network, (1, 3, h, w) -> (1, 3, scale * h, scale * w) in [0, 1]. picture: (1, 3, H,
        W) in [0, 1] or uint8 levels; the result has the same type. side: of the tiles, in pixels of the input.
    """
    scale, (height, width) = network.scale, picture.shape[-2:]
    # Zeros, because a cross-fade multiplies the values that are there: an empty tensor can hold NaN.
    out = (torch.zeros if network.overlap else torch.empty)(1, 3, scale * height, scale * width, dtype=picture.dtype)
    tiles = list(itertools.product(pieces(height, side, network), pieces(width, side, network)))
    yield Step(0, len(tiles))
    for index, ((top, bottom, above, below), (left, right, before, behind)) in enumerate(tiles, start=1):
        window = picture[..., mirrored(above, below, height), :][..., mirrored(before, behind, width)]
        fade = network.overlap // 2
        (a, b), (c, d) = _widened(top, bottom, fade, height), _widened(left, right, fade, width)
        made = run(window)[..., scale * (a - above) :, scale * (c - before) :]
        part, place = made[..., : scale * (b - a), : scale * (d - c)].cpu(), out[..., scale * a : scale * b, :]
        place = place[..., scale * c : scale * d]
        if fade:
            share = _ramp(b - a, fade, top > 0, scale)[:, None] * _ramp(d - c, fade, left > 0, scale)
            part = torch.where(share < 1, images.unit(place) * (1 - share) + part * share, part)
        place.copy_(images.like(part, picture))
        yield Step(index, len(tiles), result=out if index == len(tiles) else None)


def pieces(length: int, tile: int, network: TransformationNetwork) -> Iterator[tuple[int, int, int, int]]:
    """Split a side of `length` pixels into tiles: (start, stop, start with margin, stop with margin) of each.

    The margins may lie outside the image. The results of the network are cut to start and stop.
    """
    reach, edge = network.reach or network.overlap, EDGE if network.config.padding == "zero" else 0
    for first in range(0, length, tile):
        last = min(length, first + tile)
        start = max(-edge, first - reach)
        yield first, last, start - start % network.multiple, min(length + edge, last + reach)


def _widened(first: int, last: int, more: int, length: int) -> tuple[int, int]:
    """A piece of a side, `more` pixels wider in both directions, as far as the side goes."""
    return max(0, first - more), min(length, last + more)


def _ramp(length: int, fade: int, fades: bool, scale: int) -> Tensor:
    """The share of a new tile along a side of `length` pixels: it grows from 0 to 1 in the first 2 * fade of them.

    fades: False at the edge of the picture, where the share is 1. scale: of the result.
    """
    share = (torch.arange(scale * length) + 0.5) / (2 * fade * scale)
    return share.clamp(max=1) if fades else torch.ones(scale * length)


def with_margin(x: Tensor, margin: int) -> Tensor:
    """Add a margin of so many pixels around images (..., H, W), mirrored as by `mirrored`."""
    if x.device.type == "cpu":  # indexing takes 15 times as long there
        return torch.from_numpy(np.pad(x.numpy(), [*[(0, 0)] * (x.ndim - 2), *[(margin, margin)] * 2], "symmetric"))
    rows, columns = (mirrored(-margin, side + margin, side) for side in x.shape[-2:])
    return x[..., rows, :][..., columns]


def mirrored(start: int, stop: int, length: int) -> Tensor:
    """The indices start to stop - 1 for a side of `length` pixels. Indices outside the image are mirrored at its edge.

    The pixel at the edge is repeated: -1 becomes 0, and -2 becomes 1.
    """
    place = torch.arange(start, stop) % (2 * length)
    return torch.minimum(place, 2 * length - 1 - place)
