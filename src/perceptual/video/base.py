"""`Video`, the base class of everything that frames are read from, and `Frame`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from av import VideoFrame
from torch import Tensor

from perceptual.video.colours import ToRGB
from perceptual.video.filters import deinterlaced
from perceptual.video.source import Info


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a video.

    pixels: (1, 3, H, W), uint8, RGB; a view of (1, H, W, 3) memory.
    pts, duration: time of the frame and how long it is shown, in units of the reader's `time_base`.
    times: how many times the frame is shown, `duration` each. More than 1 only if a constant rate was requested.
    """

    pixels: Tensor
    pts: int
    duration: int
    times: int = 1


class Video:
    """The frames of a video, in order. A context manager that can be iterated over once.

    Attributes:
        path: the file.
        info: an `Info`: size, length, rate and so on.
        metadata: the metadata of the file by name, such as the title.
        time_base: seconds per unit of time.
        rate: frames per second if constant, else None.
        interlaced: True once an interlaced frame was read.
        transparent: True once a frame with transparent parts was read, or if `info` says so.
        keep_interlaced: set it to True before iterating to keep interlaced frames; by default FFmpeg's bwdif filter
            deinterlaces them.
        damage: number of places in the file that could not be read.
        reached: seconds of the video that were read so far.
    """

    info: Info
    rate: Fraction | None
    time_base: Fraction
    _tick: Fraction
    _to_rgb: partial[ToRGB]

    def __init__(self, path: Path) -> None:
        self.path, self.damage, self.reached = path, 0, Fraction(0)
        self.interlaced = self.transparent = self.keep_interlaced = False
        self.metadata: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. The base class has none open."""

    def cut_short(self, sound_seconds: Fraction = Fraction(0)) -> bool:
        """True if the video ended much earlier than the length in its header.

        sound_seconds: seconds of sound that were read.
        """
        return False

    def __iter__(self) -> Iterator[Frame]:
        convert = self._to_rgb(interlaced=self.keep_interlaced and self.info.fields is not None)
        timed = self._sampled() if self.rate else ((*each, 1) for each in self._progressive())
        for decoded, pts, duration, times in timed:
            yield Frame(convert(decoded), pts, duration, times)
            del decoded  # release the memory before the next frame is decoded

    def _progressive(self) -> Iterator[tuple[VideoFrame, int, int]]:
        """Like `_timed`, with interlaced frames deinterlaced."""
        return self._timed() if self.keep_interlaced else deinterlaced(self._timed())

    def _timed(self) -> Iterator[tuple[VideoFrame, int, int]]:
        """(frame, time, duration) of every frame, in units of `_tick`; the first time is 0."""
        raise NotImplementedError

    def _sampled(self) -> Iterator[tuple[VideoFrame, int, int, int]]:
        """(frame, first tick, 1, number of ticks) at the constant rate.

        Each tick shows the latest frame. A frame between two ticks is dropped.
        """
        done, last = None, None
        for frame, pts, duration in self._progressive():
            tick, after = self._next_tick(pts), self._next_tick(pts + duration)
            if after > tick:
                done = after
                yield frame, tick, 1, after - tick
            last = frame, tick
        if done is None and last is not None:  # a video shorter than one tick
            yield *last, 1, 1

    def _next_tick(self, pts: int) -> int:
        """The first tick of the constant rate at or after a time.

        Times are exact to half a unit, and at best to half a millisecond, because Matroska and others round to
        milliseconds. The longer units of AVI are whole frames.
        """
        return math.ceil((pts * self._tick - min(self._tick, Fraction(1, 1000)) / 2) * (self.rate or 1))
