"""The colours of a film: which matrix and range turn its YUV into RGB and back, and the tags that say so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from av import FFmpegError, VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from torch import Tensor

from perceptual.errors import ConfigError
from perceptual.motion import pixels_of, tensor_of
from perceptual.video.filters import Filters, Step, ToPalette
from perceptual.video.tones import HDR, PEAK, ToSDR

UNSPECIFIED, LIMITED, FULL = 2, 1, 2  # of matrix, primaries and transfer; of the range, whose 0 is unspecified
RGB = 0  # a matrix, in the numbers of H.273 as all here
_BT709, _BT601 = 1, 5
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}  # what swscale calls them; 5 and 6 are the same
_NAMES = {1: "bt709", 4: "fcc", 5: "bt601", 7: "smpte240m", 9: "bt2020"}  # what its filter calls these

Matrix = tuple[int, int, int, int]

# Without the two flags swscale is up to 3 levels off there and back, with them 2 at most and mostly 1.
_HOW = int(Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT)


@dataclass(frozen=True)
class Colours:
    """How a film's numbers stand for colours, as its file says it: H.273's matrix, primaries and transfer; range."""

    matrix: int = UNSPECIFIED
    range: int = 0
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED

    @classmethod
    def of(cls, frame: VideoFrame) -> Colours:
        """The tags of a decoded frame; of one in RGB only those that make sense for YUV."""
        if frame.format.is_rgb:
            return cls(primaries=frame.color_primaries, transfer=frame.color_trc)
        full = FULL if frame.format.name.startswith("yuvj") else frame.color_range
        return cls(frame.colorspace, full, frame.color_primaries, frame.color_trc)

    @property
    def hdr(self) -> str | None:
        """HLG or PQ, where the film has high dynamic range."""
        return HDR.get(self.transfer)

    @property
    def shown(self) -> Colours:
        """The colours that the levels of `ToRGB` have, and that an output is tagged with: BT.709 in place of HDR."""
        return Colours(_BT709, LIMITED, _BT709, _BT709) if self.hdr else self

    def swscale_matrix(self, width: int, height: int) -> int:
        """Where the file does not say, what players take: BT.709 for high definition, else BT.601."""
        return _MATRICES.get(self.matrix, _BT709 if width >= 1280 or height > 576 else _BT601)


class ToRGB:
    """Decoded frames into (1, 3, H, W) uint8 levels, upright, a view of (1, H, W, 3) memory.

    size: (width, height) to scale to, before turning; matrix: how to turn them, as `display_matrix` gives it; peak: the
    brightest light of a film in HDR, in cd/m2. Levels are then those of `Colours.shown`, BT.709; interlaced: the two
    fields of a frame have colours of their own.
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
            self._filters = _woven("in", colours, size, "rgb24")

    def __call__(self, frame: VideoFrame) -> Tensor:
        """One frame; it may be of another size and kind than the ones before."""
        how: dict[str, Any] = {}
        if not frame.format.is_rgb:
            how["src_colorspace"] = self._colours.swscale_matrix(frame.width, frame.height)
            how["src_color_range"] = self._colours.range or LIMITED
        width, height = self._size
        try:
            if self._filters:
                rgb = next(self._filters(frame))
            else:
                rgb = self._scaler.reformat(frame, width, height, "rgb24", interpolation=_HOW, **how)
        except (FFmpegError, MemoryError) as error:
            raise ConfigError(f"Frames of {width} x {height} px are too large: give a smaller --size.") from error
        return tensor_of(np.ascontiguousarray(upright(rgb.to_ndarray(), self._matrix)))


class FromRGB:
    """(1, 3, H, W) uint8 levels into frames of a pixel format and of (width, height), ready for an encoder.

    fields: tff or bff, where a frame holds two fields, which have colours of their own.
    """

    def __init__(
        self, colours: Colours, pixel_format: str, size: tuple[int, int], *, fields: str | None = None
    ) -> None:
        self._colours, self._format, self._scaler = colours, pixel_format, VideoReformatter()
        self._filters: Filters | None = None
        if fields:
            self._filters = _woven("out", colours, size, pixel_format, ("setfield", {"mode": fields}))
        elif pixel_format == "pal8":
            self._filters = ToPalette()
        self._size = size

    def __call__(self, pixels: Tensor) -> VideoFrame:
        """One picture."""
        frame = VideoFrame.from_numpy_buffer(pixels_of(pixels.cpu()), "rgb24")
        how: dict[str, Any] = {}
        if self._colours.matrix != RGB:
            how["dst_colorspace"] = self._colours.swscale_matrix(*self._size)
            how["dst_color_range"] = self._colours.range or LIMITED
        if self._filters:
            made = next(self._filters(frame))
        else:
            made = self._scaler.reformat(frame, *self._size, self._format, interpolation=_HOW, **how)
        made.colorspace, made.color_range = self._colours.matrix, self._colours.range
        made.color_primaries, made.color_trc = self._colours.primaries, self._colours.transfer
        return made


def _woven(side: str, colours: Colours, size: tuple[int, int], pixels: str, *more: Step) -> Filters:
    """FFmpeg's scaler for frames of two fields, whose YUV is on a side of it, "in" or "out"."""
    scale = {"w": str(size[0]), "h": str(size[1]), "interl": "1", "flags": "bicubic+accurate_rnd+full_chroma_int"}
    if colours.matrix != RGB:
        scale[f"{side}_color_matrix"] = _NAMES[colours.swscale_matrix(*size)]
        scale[f"{side}_range"] = "full" if colours.range == FULL else "limited"
    return Filters(("scale", scale), ("format", {"pix_fmts": pixels}), *more)


def display_matrix(frame: VideoFrame) -> Matrix:
    """How the picture is to be turned, as phones note it: x' = a x + c y and y' = b x + d y, in signs.

    To be asked of one frame, not of all: PyAV ties a frame that has been asked into a circle, and only Python's
    collector sets its memory free.
    """
    noted: Any = frame.side_data
    if "DISPLAYMATRIX" not in noted:
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = np.frombuffer(noted["DISPLAYMATRIX"], np.int32).tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return (-1 if a < 0 else 1), 0, 0, (-1 if d < 0 else 1)
    return 0, (-1 if b < 0 else 1), (-1 if c < 0 else 1), 0


def upright(array: np.ndarray[Any, Any], matrix: Matrix) -> np.ndarray[Any, Any]:
    """A view of (H, W, 3), turned and flipped as the display matrix says."""
    a, b, c, d = matrix
    if a == 0:
        array = array.swapaxes(0, 1)
    return array[:: -1 if b + d < 0 else 1, :: -1 if a + c < 0 else 1]
