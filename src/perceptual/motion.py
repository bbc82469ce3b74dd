"""Motion in videos: known motions for training and measuring, optical flow between frames, and less flicker.

A network that paints each frame separately flickers, for two reasons. Its strides form a fixed grid (four pixels wide
if it halves the image twice), which does not move with the video. And a little noise in flat areas leads to different
strokes in every frame.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from perceptual.errors import ImageError
from perceptual.functional import Array

FLOW_SIDE = 448
"""Longer side in pixels of the frames for the optical flow. The fastest setting of DIS is sufficient at this size."""
TRUSTED, DOUBTED = 6.0, 18.0
"""Difference in levels of 0..255 between a frame and the warped frame before it. The motion has full trust below the
first value, and none above the second."""

CUT = 0.25
"""Mean trust below which two frames belong to different scenes. Optical flow finds some motion between any frames."""
DETAIL_SIDE = 640
"""Longer side in pixels of the frames for the optical flow of enlarged videos."""
DETAIL_TRUSTED, DETAIL_DOUBTED = 3.0, 9.0
"""As TRUSTED and DOUBTED, for the largest difference of a colour channel at the size of the input, when enlarging."""
LARGEST_SIDE = 32_766
"""Longest side in pixels of the frames that OpenCV warps. Larger enlarged frames are not steadied."""
_TRUST = np.clip((DOUBTED - np.arange(256, dtype=np.float32)) / (DOUBTED - TRUSTED), 0, 1)

MARGIN = 16
"""Pixels at each edge that a known motion may bring in from outside the image. They are not compared."""


def random_motion(rng: random.Random, size: int) -> Tensor:
    """A random small motion between two frames, as a matrix (2, 3) from positions in the moved image to the original.

    Half of the motions are shifts by whole pixels, up to 6 along each axis, which need no interpolation. The others
    shift by up to 6 pixels, zoom by up to 2 % and rotate by up to 1 degree. For images larger than 256 pixels they zoom
    and rotate less, so that nothing beyond MARGIN comes in from outside.

    rng: source of randomness. size: side of the image in pixels.
    """
    most = min(1.0, 256 / size)
    if rng.random() < 0.5:
        return similarity(rng.randint(-6, 6), rng.randint(-6, 6))
    scale, degrees = 1 + most * rng.uniform(-0.02, 0.02), most * rng.uniform(-1, 1)
    return similarity(rng.uniform(-6, 6), rng.uniform(-6, 6), scale=scale, degrees=degrees)


def similarity(x: float, y: float, *, scale: float = 1.0, degrees: float = 0.0) -> Tensor:
    """The motion p -> scale * rotation(degrees) p + (x, y) as a matrix (2, 3); x and y in pixels; see `move`."""
    cos, sin = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    return torch.tensor([[cos, -sin, x], [sin, cos, y]])


def move(image: Tensor, motion: Tensor) -> Tensor:
    """Move an image (N, C, H, W): the pixel at position p of the result is the pixel at motion(p) of the image.

    Bicubic interpolation, exact for shifts by whole pixels. Positions outside the image repeat its edge. Gradients flow
    to `image`.

    motion: (2, 3), a 2 x 2 matrix and a shift, for (x, y) in pixels relative to the centre of the image.
    """
    height, width = image.shape[-2:]
    with torch.autocast(image.device.type, enabled=False):
        x, y = places_of(motion.to(image.device), height, width).unbind(-1)
        grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1).expand(len(image), -1, -1, -1)
        return F.grid_sample(image.float(), grid, "bicubic", padding_mode="border", align_corners=False)


def places_of(motion: Tensor, height: int, width: int) -> Tensor:
    """The original position of each pixel of a moved image: (H, W, 2), (x, y) in pixels from the top left pixel."""
    middle = (width - 1) / 2, (height - 1) / 2
    rows, columns = (torch.arange(side, device=motion.device) for side in (height, width))
    y, x = torch.meshgrid(rows - middle[1], columns - middle[0], indexing="ij")
    x, y = (torch.stack([x, y, torch.ones_like(x)], dim=-1) @ motion.T).unbind(-1)
    return torch.stack([x + middle[0], y + middle[1]], dim=-1)


def inner(image: Tensor) -> Tensor:
    """The image (..., H, W) without MARGIN pixels at each edge: the part that can be compared after a known motion."""
    return image[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


class Flow:
    """Dense optical flow between each frame and the frame before, by DIS (Kroeger et al., 2016), which has no weights.

    Call it with the frames in order: uint8 (1, 3, H, W), all of one size.
    """

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._before: Array | None = None

    def __call__(self, frame: Tensor) -> tuple[Array, Array] | None:
        """(places, trust), or None for the first frame.

        places: (H, W, 2), position (x, y) in pixels of each pixel of this frame in the frame before. trust: (H, W),
        reliability from 0 to 1. It is low if the warped frame before differs from this frame: in uncovered areas, at
        cuts, and at pixels that came in from outside.
        """
        height, width = frame.shape[-2:]
        grey = cv2.cvtColor(pixels_of(frame), cv2.COLOR_RGB2GRAY)
        scale = min(1.0, FLOW_SIDE / max(height, width))
        if scale < 1:
            small = max(1, round(width * scale)), max(1, round(height * scale))
            grey = cv2.resize(grey, small, interpolation=cv2.INTER_AREA)
        before, self._before = self._before, grey
        if before is None or before.shape != grey.shape:
            return None
        shift = _shift(self._dis, grey, before)
        places = cv2.add(shift, _grid(*grey.shape))
        moved = _remap(before, places, cv2.INTER_LINEAR)
        trust = cv2.LUT(cv2.blur(cv2.absdiff(grey, moved), (5, 5)), _TRUST)
        trust *= visible(places)
        if trust.mean() < CUT:
            trust[:] = 0
        if scale < 1:
            ratio = np.array([width / grey.shape[1], height / grey.shape[0]], np.float32)
            places = cv2.add(cv2.resize(shift * ratio, (width, height)), _grid(height, width))
            trust = cv2.resize(trust, (width, height))
        return places, trust


def _shift(dis: cv2.DISOpticalFlow, grey: Array, before: Array) -> Array:
    """The optical flow between two grey images (H, W), from `grey` to the one before: (H, W, 2), (x, y) in pixels."""
    shift = np.zeros((*grey.shape, 2), np.float32)
    if min(grey.shape) < 16:  # DIS needs 16 pixels; smaller frames are treated as not moving
        return shift
    return np.asarray(dis.calc(grey, before, shift))


def visible(places: Array) -> Array:
    """1.0 for positions (H, W, 2) that lie inside the image, else 0.0: (H, W)."""
    height, width = places.shape[:2]
    return np.asarray(cv2.inRange(places, (-0.01, -0.01), (width - 0.99, height - 0.99)), np.float32) / 255


def carry(picture: Tensor, places: Array) -> Tensor:
    """Warp an image, uint8 (1, 3, H, W): each pixel of the result is taken from its position in `places`, (H, W, 2).

    Bicubic interpolation; positions outside the image repeat its edge.
    """
    return tensor_of(_remap(pixels_of(picture), places, cv2.INTER_CUBIC))


def _remap(pixels: Array, places: Array, method: int) -> Array:
    moved = cv2.remap(pixels, places, None, method, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    return np.asarray(moved)


class Steady:
    """Reduces flicker: blends each painted frame with the one before, warped by the optical flow where it is reliable.

    Args:
        amount: share of the frame before, from 0 (none) to 0.9.
    """

    def __init__(self, amount: float) -> None:
        self.amount = amount
        self._flow = Flow()
        self._before: Tensor | None = None

    def reset(self) -> None:
        """Forget the frame before. Call it when the style or the size changes."""
        self._flow, self._before = Flow(), None

    def __call__(self, frame: Tensor, painted: Tensor) -> Tensor:
        """The painted frame with less flicker: uint8 (1, 3, H, W).

        frame, painted: the original and the painted frame, uint8 (1, 3, H, W), of equal size. Call it in the order of
        the video.
        """
        if not self.amount:
            return painted
        if self._before is not None and self._before.shape != painted.shape:
            self.reset()
        found = self._flow(frame)
        if found is not None and self._before is not None:
            places, trust = found
            share = trust * np.float32(self.amount)
            before = pixels_of(carry(self._before, places))
            painted = tensor_of(cv2.blendLinear(pixels_of(painted), before, 1 - share, share))
        self._before = painted
        return painted


class SteadyDetail:
    """Reduces flicker of an enlarged video: blends the detail of each frame with that of the one before.

    Detail is the part of a picture that is lost when it is reduced to the size of the input. The network invents it
    again in each frame, so it flickers. The result before is warped by the optical flow of the input, in full size. Its
    detail is blended in where the warped result, reduced to the size of the input, agrees with the new one. The part
    that is not detail is left as it is. So nothing lags behind, and the result stays faithful to the input.

    If a side is not enlarged there is no detail. These frames, and frames larger than LARGEST_SIDE, are returned
    unchanged.

    Args:
        amount: share of the detail of the frame before, from 0 (none) to 0.9.
    """

    def __init__(self, amount: float) -> None:
        self.amount = amount
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._before: tuple[Array, Array] | None = None  # the grey input and the result

    def reset(self) -> None:
        """Forget the frame before. Call it when the network or the size changes."""
        self._before = None

    def __call__(self, frame: Tensor, enlarged: Tensor) -> Tensor:
        """The enlarged frame with less flicker: uint8 (1, 3, h, w).

        frame, enlarged: the frame before and after enlarging, uint8 (1, 3, H, W) and (1, 3, h, w). Call it in the order
        of the video.
        """
        (height, width), size = frame.shape[-2:], enlarged.shape[-2:]
        no_detail = size[0] <= height or size[1] <= width
        if not self.amount or no_detail or max(size) > LARGEST_SIDE:
            return enlarged
        grey, pixels = _grey_for_detail(frame), pixels_of(enlarged)
        if self._before is not None and self._before[0].shape == grey.shape and self._before[1].shape == pixels.shape:
            shift = _shift(self._dis, grey, self._before[0])
            pixels = _blend_detail(pixels, self._before[1], shift, (width, height), self.amount)
        self._before = grey, pixels
        return tensor_of(pixels)


def _grey_for_detail(frame: Tensor) -> Array:
    """The frame as grey levels at the size for the optical flow: twice its own, at most DETAIL_SIDE on the longer side.

    At twice the size the flow is more exact, which keeps the detail sharp.
    """
    grey = cv2.cvtColor(pixels_of(frame), cv2.COLOR_RGB2GRAY)
    scale = min(2.0, DETAIL_SIDE / max(grey.shape))
    method = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    size = [max(1, round(side * scale)) for side in grey.shape]
    return np.asarray(cv2.resize(grey, (size[1], size[0]), interpolation=method))


def _blend_detail(now: Array, before: Array, shift: Array, small: tuple[int, int], amount: float) -> Array:
    """Blend the detail of the result before, warped by the optical flow, into the new one: uint8 (h, w, 3).

    now, before: uint8 (h, w, 3). shift: the flow of the input, (H, W, 2), in pixels of its own size. small: (width,
    height) of the input. Works on one colour channel at a time, because large frames need much memory.
    """
    size = now.shape[1], now.shape[0]
    ratio = np.array([size[0] / shift.shape[1], size[1] / shift.shape[0]], np.float32)
    places = cv2.resize(shift * ratio, size)
    cv2.add(places, _grid(*now.shape[:2]), dst=places)
    warped = _remap(before, places, cv2.INTER_CUBIC)
    del places  # 8 bytes per pixel
    pairs = list(zip(cv2.split(now), cv2.split(warped), strict=True))
    reduced = [cv2.resize(_difference(*pair), small, interpolation=cv2.INTER_AREA) for pair in pairs]
    trust = _detail_trust(reduced, shift)
    if trust.mean() < CUT:
        return now
    share = cv2.resize(trust * np.float32(amount), size)
    blended = []
    for pair, rest in zip(pairs, reduced, strict=True):
        detail = _difference(*pair)
        detail -= cv2.resize(rest, size, interpolation=cv2.INTER_CUBIC)
        detail *= share
        blended.append(cv2.add(pair[0], detail, dtype=cv2.CV_8U))
    return np.asarray(cv2.merge(blended))


def _difference(now: Array, before: Array) -> Array:
    return np.asarray(cv2.subtract(before, now, dtype=cv2.CV_32F))


def _detail_trust(reduced: Sequence[Array], shift: Array) -> Array:
    """Reliability of the detail at the size of the input, from 0 to 1: (H, W).

    reduced: the warped result before minus the new one, at the size of the input, for each channel (H, W). shift: the
    optical flow. Positions outside the image have no reliability.
    """
    wrong = cv2.blur(np.maximum.reduce([np.abs(channel) for channel in reduced]), (3, 3))
    trust = np.clip((DETAIL_DOUBTED - wrong) / (DETAIL_DOUBTED - DETAIL_TRUSTED), 0, 1)
    seen = visible(cv2.add(shift, _grid(*shift.shape[:2])))
    return np.asarray(trust * cv2.resize(seen, trust.shape[::-1], interpolation=cv2.INTER_AREA))


@functools.lru_cache(maxsize=4)
def _grid(height: int, width: int) -> Array:
    """The position (x, y) of each pixel: (H, W, 2). It is cached; do not change it."""
    axes = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    return np.stack(np.meshgrid(*axes, copy=False), -1)


def pixels_of(picture: Tensor) -> Array:
    """Convert uint8 (1, 3, H, W) to a contiguous array (H, W, 3), without a copy if the memory has this layout already.

    Raises:
        ImageError: another shape, such as a batch of several images.
    """
    if picture.ndim != 4 or len(picture) != 1:
        raise ImageError(f"The image has the shape {tuple(picture.shape)}: give one image at a time, (1, 3, H, W).")
    if picture.is_contiguous():  # OpenCV does it 20 times faster
        pixels = np.asarray(cv2.merge(list(picture[0].numpy())))
    else:
        pixels = np.ascontiguousarray(picture[0].permute(1, 2, 0).numpy())
    return pixels.reshape(-1).reshape(pixels.shape)  # normalises the strides of sides of 1 px, as PyAV requires


def tensor_of(pixels: Array) -> Tensor:
    """A view (1, 3, H, W) of an array (H, W, 3)."""
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]
