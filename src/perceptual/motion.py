"""Pictures that move: known motions to train and to measure by, motion found between frames, and steadier paintings.

A network that sees each frame by itself flickers. It lies on a grid of its own, four pixels wide where it halves
twice, which does not move with the picture; and a little noise in flat parts chooses other strokes in every frame.
"""

from __future__ import annotations

import functools
import math
import random

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from perceptual.errors import ImageError
from perceptual.functional import Array

FLOW_SIDE = 448
"""Longer side in pixels of the pictures in which motion is looked for; the fastest setting of DIS is enough there."""
TRUSTED, DOUBTED = 6.0, 18.0
"""Difference in levels between a frame and the one before, moved along: motion is trusted below, and not above."""

CUT = 0.25
"""Mean trust below which two frames do not belong together: flow finds something alike in any two pictures."""
_TRUST = np.clip((DOUBTED - np.arange(256, dtype=np.float32)) / (DOUBTED - TRUSTED), 0, 1)

MARGIN = 16
"""Pixels at each side of a picture that a known motion may bring in from outside; they are left out."""


def random_motion(rng: random.Random, size: int) -> Tensor:
    """A small motion as a film has them from frame to frame: (2, 3), from places in the moved picture to the first's.

    Half of them are whole pixels, up to 6 along each axis, which need no interpolation; the other half zoom by up to
    2 %, turn by up to 1 degree and shift by any fraction. Where that would reach beyond the margin of a square of
    `size` pixels, as above 256, they zoom and turn less.
    """
    most = min(1.0, 256 / size)
    if rng.random() < 0.5:
        return similarity(rng.randint(-6, 6), rng.randint(-6, 6))
    scale, degrees = 1 + most * rng.uniform(-0.02, 0.02), most * rng.uniform(-1, 1)
    return similarity(rng.uniform(-6, 6), rng.uniform(-6, 6), scale=scale, degrees=degrees)


def similarity(x: float, y: float, *, scale: float = 1.0, degrees: float = 0.0) -> Tensor:
    """A motion (2, 3) by x and y pixels, that shows what was `scale` times as large, turned by `degrees`."""
    cos, sin = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    return torch.tensor([[cos, -sin, x], [sin, cos, y]])


def move(image: Tensor, motion: Tensor) -> Tensor:
    """The picture (N, C, H, W) moved: place p of the result shows what `motion` maps p to, about the picture's centre.

    Bicubic between pixels, exact for whole ones; what comes from outside repeats the edge. Gradients flow to `image`.

    motion: (2, 3), a matrix on (x, y) in pixels and a shift.
    """
    height, width = image.shape[-2:]
    with torch.autocast(image.device.type, enabled=False):
        places = (2 * places_of(motion, height, width) + 1) / torch.tensor([width, height]) - 1
        grid = places.to(image.device).expand(len(image), -1, -1, -1)
        return F.grid_sample(image.float(), grid, "bicubic", padding_mode="border", align_corners=False)


def places_of(motion: Tensor, height: int, width: int) -> Tensor:
    """Where each pixel of the moved picture was: (H, W, 2), x and y in pixels from the top left one."""
    centre = torch.tensor([width - 1, height - 1]) / 2
    y, x = torch.meshgrid(torch.arange(height) - centre[1], torch.arange(width) - centre[0], indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)], dim=-1) @ motion.T + centre


def inner(image: Tensor) -> Tensor:
    """The picture without its margin, where a known motion has something to compare."""
    return image[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


class Flow:
    """Dense optical flow by DIS (Kroeger et al., 2016), from the frame before to the one at hand; no weights needed.

    Frames are uint8 (1, 3, H, W), each of the size of the first.
    """

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._before: Array | None = None

    def __call__(self, frame: Tensor) -> tuple[Array, Array] | None:
        """(places, trust): where each pixel of this frame was in the last one, (H, W, 2) as x and y in pixels, and how
        far that can be believed, (H, W) from 0 to 1; None for the first frame.

        Trust is lost where the last frame, moved, does not show what this one does: behind things that moved away, at
        cuts, and at what came in from outside.
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
        patches = min(grey.shape) >= 16  # which DIS looks at; smaller pictures are taken to stand still
        shift = np.zeros((*grey.shape, 2), np.float32)
        if patches:
            shift = np.asarray(self._dis.calc(grey, before, shift))
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


def visible(places: Array) -> Array:
    """Where a picture moved along shows something of what was there: 1 or 0, (H, W), for places (H, W, 2) in it."""
    height, width = places.shape[:2]
    return np.asarray(cv2.inRange(places, (-0.01, -0.01), (width - 0.99, height - 0.99)), np.float32) / 255


def carry(picture: Tensor, places: Array) -> Tensor:
    """The picture, uint8 (1, 3, H, W), moved along: each pixel from its place, (H, W, 2), in it; bicubic."""
    return tensor_of(_remap(pixels_of(picture), places, cv2.INTER_CUBIC))


def _remap(pixels: Array, places: Array, how: int) -> Array:
    moved = cv2.remap(pixels, places, None, how, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    return np.asarray(moved)


class Steady:
    """Blends each painting of a film with the one before, moved along with the picture, where that can be trusted.

    Args:
        amount: the share of the one before, from 0, nothing, to 0.9.
    """

    def __init__(self, amount: float) -> None:
        self.amount = amount
        self._flow = Flow()
        self._before: Tensor | None = None

    def reset(self) -> None:
        """Forget what was before, as at another style or size."""
        self._flow, self._before = Flow(), None

    def __call__(self, frame: Tensor, painted: Tensor) -> Tensor:
        """The steadied painting of a frame; both uint8 (1, 3, H, W), of equal size, in the order of the film."""
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


@functools.lru_cache(maxsize=4)
def _grid(height: int, width: int) -> Array:
    """The place of each pixel itself; not to be changed."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y], -1).astype(np.float32)


def pixels_of(picture: Tensor) -> Array:
    """uint8 (1, 3, H, W) as (H, W, 3) that lies row by row, without a copy where it does so already.

    Raises:
        ImageError: another shape, such as a batch of several.
    """
    if picture.ndim != 4 or len(picture) != 1:
        raise ImageError(
            f"The picture has the shape {tuple(picture.shape)} and should have (1, 3, H, W): give one at once."
        )
    pixels = np.ascontiguousarray(picture[0].permute(1, 2, 0).numpy())
    return pixels.reshape(-1).reshape(pixels.shape)  # or a side of 1 px may have any stride, which PyAV refuses


def tensor_of(pixels: Array) -> Tensor:
    """(H, W, 3) as a view (1, 3, H, W)."""
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]
