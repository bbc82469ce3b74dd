"""What every reader of films is: pictures at their times, as they are or at a constant rate."""

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
    """One picture of a film.

    pixels: uint8 (1, 3, H, W), a view of (1, H, W, 3) memory; pts and duration: in units of the reader's `time_base`;
    times: how often it is shown, `duration` each time, above 1 only where a rate is asked for.
    """

    pixels: Tensor
    pts: int
    duration: int
    times: int = 1


class Film:
    """The pictures of a film, in order; a context manager, to be iterated over once.

    Attributes: `path`; `info`; `metadata`, what the file says of itself, by name; `time_base`, seconds in a unit of
    time; `rate`, frames a second where that is constant, or None; `interlaced`, whether any picture so far is;
    `keep_interlaced`, to be set to True before the first picture is taken, so that these are left as they are, and
    FFmpeg's bwdif does not deinterlace them; `damage`, the number of places that could not be read; `reached`, seconds
    of film that were read.
    """

    info: Info
    rate: Fraction | None
    time_base: Fraction
    _tick: Fraction
    _to_rgb: partial[ToRGB]

    def __init__(self, path: Path) -> None:
        self.path, self.damage, self.reached = path, 0, Fraction(0)
        self.interlaced = self.keep_interlaced = False
        self.metadata: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of what is open."""

    def cut_short(self, heard: Fraction = Fraction(0)) -> bool:
        """Whether the film ended well before the length that it gives; heard: seconds of sound that were read."""
        return False

    def __iter__(self) -> Iterator[Frame]:
        convert = self._to_rgb(interlaced=self.keep_interlaced and self.info.fields is not None)
        timed = self._sampled() if self.rate else ((*each, 1) for each in self._progressive())
        for picture, pts, duration, times in timed:
            yield Frame(convert(picture), pts, duration, times)
            del picture

    def _progressive(self) -> Iterator[tuple[VideoFrame, int, int]]:
        """As `_timed`, with the fields of interlaced pictures brought together."""
        return self._timed() if self.keep_interlaced else deinterlaced(self._timed())

    def _timed(self) -> Iterator[tuple[VideoFrame, int, int]]:
        """Each picture with its time, from 0 on, and how long it is shown, in ticks."""
        raise NotImplementedError

    def _sampled(self) -> Iterator[tuple[VideoFrame, int, int, int]]:
        """At each tick of the rate the latest picture; one that no tick meets is left out."""
        done, last = None, None
        for frame, pts, duration in self._progressive():
            tick, after = self._next_tick(pts), self._next_tick(pts + duration)
            if after > tick:
                done = after
                yield frame, tick, 1, after - tick
            last = frame, tick
        if done is None and last is not None:  # a film shorter than one tick
            yield *last, 1, 1

    def _next_tick(self, pts: int) -> int:
        """The first tick of the rate at a time, which is known to half a unit, or to half a thousandth of a second.

        That is what Matroska and others round to; longer units, as AVI has them, are the frames themselves.
        """
        return math.ceil((pts * self._tick - min(self._tick, Fraction(1, 1000)) / 2) * (self.rate or 1))
