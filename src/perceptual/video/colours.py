"""The colours of a video: conversion between YUV and RGB by its matrix and range, and its colour tags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from av import FFmpegError, VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from torch import Tensor

from perceptual.errors import ConfigError
from perceptual.motion import pixels_of, tensor_of
from perceptual.video.filters import Filters, FilterStep, ToPalette
from perceptual.video.tones import HDR, PEAK, ToSDR

# All matrices, primaries and transfers are in the numbers of the standard H.273.
UNSPECIFIED = 2  # for matrix, primaries and transfer
LIMITED, FULL = 1, 2  # values of range; 0 means unspecified
RGB = 0  # the matrix of RGB
_BT709, _BT601 = 1, 5
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}  # H.273 -> number in swscale; 5 and 6 are the same matrix
_NAMES = {1: "bt709", 4: "fcc", 5: "bt601", 7: "smpte240m", 9: "bt2020"}  # number in swscale -> name in its filter

Matrix = tuple[int, int, int, int]

# With ACCURATE_RND and FULL_CHR_H_INT a conversion to RGB and back changes pixels by 2 levels at most, mostly by 1;
# without them by up to 3.
_SWSCALE_FLAGS = int(Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT)


@dataclass(frozen=True)
class Colours:
    """The colour tags of a video: matrix, primaries and transfer in the numbers of H.273, and the range."""

    matrix: int = UNSPECIFIED
    range: int = 0
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED

    @classmethod
    def of(cls, frame: VideoFrame) -> Colours:
        """The tags of a decoded frame. An RGB frame has primaries and transfer only."""
        if frame.format.is_rgb:
            return cls(primaries=frame.color_primaries, transfer=frame.color_trc)
        full = FULL if frame.format.name.startswith("yuvj") else frame.color_range
        return cls(frame.colorspace, full, frame.color_primaries, frame.color_trc)

    @property
    def hdr(self) -> str | None:
        """ "HLG" or "PQ" if the video has high dynamic range, else None."""
        return HDR.get(self.transfer)

    @property
    def converted(self) -> Colours:
        """The tags of the frames that `ToRGB` returns and of the output: the same, or BT.709 for HDR input."""
        return Colours(_BT709, LIMITED, _BT709, _BT709) if self.hdr else self

    def swscale_matrix(self, width: int, height: int) -> int:
        """The matrix in swscale's numbers. Without a tag: BT.709 for high definition, else BT.601, as in players."""
        return _MATRICES.get(self.matrix, _BT709 if width >= 1280 or height > 576 else _BT601)


class ToRGB:
    """Converts decoded frames to RGB tensors (1, 3, H, W), uint8, upright; a view of (1, H, W, 3) memory.

    Args:
        colours: the tags of the video. HDR input is converted to BT.709.
        size: (width, height) to scale to, before the rotation.
        matrix: the rotation, from `display_matrix`.
        peak: the brightest light of an HDR video, in cd/m2.
        interlaced: convert the colours of the two fields separately.
    """

    def __init__(
        self,
        colours: Colours,
        size: tuple[int, int],
        matrix: Matrix = (1, 0, 0, 1),
        *,
        peak: float = PEAK,
        interlaced: bool = False,
    ) -> None:
        self._colours, self._size, self._matrix, self._scaler = colours, size, matrix, VideoReformatter()
        self._filters: Filters | None = None
        if colours.hdr:
            self._filters = ToSDR(colours.transfer, peak, colours.matrix, size)
        elif interlaced:
            self._filters = _interlaced_scaler("in", colours, size, "rgb24")

    def __call__(self, frame: VideoFrame) -> Tensor:
        """Convert one frame. Its size and pixel format may differ from those of the frames before.

        Raises:
            ConfigError: the size is too large for FFmpeg or for the memory.
        """
        options: dict[str, Any] = {}
        if not frame.format.is_rgb:
            options["src_colorspace"] = self._colours.swscale_matrix(frame.width, frame.height)
            options["src_color_range"] = self._colours.range or LIMITED
        width, height = self._size
        try:
            if self._filters:
                rgb = next(self._filters(frame))
            else:
                rgb = self._scaler.reformat(frame, width, height, "rgb24", interpolation=_SWSCALE_FLAGS, **options)
        except (FFmpegError, MemoryError) as error:
            raise ConfigError(f"Frames of {width} x {height} px are too large: give a smaller --size.") from error
        return tensor_of(np.ascontiguousarray(upright(rgb.to_ndarray(), self._matrix)))


class FromRGB:
    """Converts RGB tensors (1, 3, H, W), uint8, to frames for an encoder.

    Args:
        colours: the tags of the output.
        pixel_format: FFmpeg's name of the pixel format, such as yuv420p.
        size: (width, height) to scale to.
        fields: "tff" or "bff" if the frames are interlaced; the colours of the two fields are converted separately.
    """

    def __init__(
        self, colours: Colours, pixel_format: str, size: tuple[int, int], *, fields: str | None = None
    ) -> None:
        self._colours, self._format, self._scaler = colours, pixel_format, VideoReformatter()
        self._filters: Filters | None = None
        if fields:
            self._filters = _interlaced_scaler("out", colours, size, pixel_format, ("setfield", {"mode": fields}))
        elif pixel_format == "pal8":
            self._filters = ToPalette()
        self._size = size

    def __call__(self, pixels: Tensor) -> VideoFrame:
        """Convert one frame."""
        frame = VideoFrame.from_numpy_buffer(pixels_of(pixels.cpu()), "rgb24")
        options: dict[str, Any] = {}
        if self._colours.matrix != RGB:
            options["dst_colorspace"] = self._colours.swscale_matrix(*self._size)
            options["dst_color_range"] = self._colours.range or LIMITED
        if self._filters:
            if isinstance(self._filters, ToPalette):  # which keeps the size of its input
                frame = self._scaler.reformat(frame, *self._size, "rgb24", interpolation=_SWSCALE_FLAGS)
            out = next(self._filters(frame))
        else:
            out = self._scaler.reformat(frame, *self._size, self._format, interpolation=_SWSCALE_FLAGS, **options)
        out.colorspace, out.color_range = self._colours.matrix, self._colours.range
        out.color_primaries, out.color_trc = self._colours.primaries, self._colours.transfer
        return out


def _interlaced_scaler(side: str, colours: Colours, size: tuple[int, int], pixels: str, *more: FilterStep) -> Filters:
    """FFmpeg's scale filter in interlaced mode. side: where the YUV is, "in" or "out"."""
    scale = {"w": str(size[0]), "h": str(size[1]), "interl": "1", "flags": "bicubic+accurate_rnd+full_chroma_int"}
    if colours.matrix != RGB:
        scale[f"{side}_color_matrix"] = _NAMES[colours.swscale_matrix(*size)]
        scale[f"{side}_range"] = "full" if colours.range == FULL else "limited"
    return Filters(("scale", scale), ("format", {"pix_fmts": pixels}), *more)


def display_matrix(frame: VideoFrame) -> Matrix:
    """The rotation that a phone stored in the file, as (a, b, c, d) of -1, 0 or 1: x' = a x + c y and y' = b x + d y.

    Call it for one frame only: reading side data puts a frame into a reference cycle in PyAV, and its memory is not
    freed until Python's garbage collector runs.
    """
    side_data: Any = frame.side_data
    if "DISPLAYMATRIX" not in side_data:
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = np.frombuffer(side_data["DISPLAYMATRIX"], np.int32).tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return (-1 if a < 0 else 1), 0, 0, (-1 if d < 0 else 1)
    return 0, (-1 if b < 0 else 1), (-1 if c < 0 else 1), 0


def upright(array: np.ndarray[Any, Any], matrix: Matrix) -> np.ndarray[Any, Any]:
    """A view of the array (H, W, 3), rotated and flipped by the display matrix."""
    a, b, c, d = matrix
    if a == 0:
        array = array.swapaxes(0, 1)
    return array[:: -1 if b + d < 0 else 1, :: -1 if a + c < 0 else 1]
