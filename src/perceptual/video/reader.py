"""Reading a film: pictures upright and in RGB, each with its exact time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
from av import FFmpegError, VideoFrame
from av.video.stream import VideoStream

from perceptual.errors import VideoError
from perceptual.video.colours import Colours, ToRGB, display_matrix
from perceptual.video.film import Film
from perceptual.video.source import (
    Clock,
    Info,
    film_of,
    inform,
    is_broadcast,
    open_input,
    origin,
    own_seconds,
    packets_of,
)
from perceptual.video.tones import peak_of


class Reader(Film):
    """The pictures of a film, in order; a context manager, to be iterated over once.

    >>> with Reader("film.mp4") as reader:
    ...     for frame in reader:
    ...         show(frame.pixels, frame.pts * reader.time_base)

    start, end: seconds; times are then counted from the first picture at or after `start`. size: longer side in pixels,
    the other in proportion, both even. rate: frames a second, constant: at each tick the latest picture is shown.
    constant: take the film's own rate where none is given.

    Attributes, beside those of `Film`: `index`, the stream's place in the file; `shift`, seconds taken off the file's
    own times; `first` and `last`, where in these the part that is read begins and ends, None where the film does;
    `sought`, where the file was entered, None for its beginning.

    Raises:
        VideoError: no such file, no film, damaged from its beginning, or nothing of it after `start`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        start: Fraction = Fraction(0),
        end: Fraction | None = None,
        size: int | None = None,
        rate: Fraction | None = None,
        constant: bool = False,
    ) -> None:
        super().__init__(Path(path))
        self._start, self._end = start, end
        self._container = open_input(self.path)
        try:
            self._stream = film_of(self._container, self.path)
            self._stream.thread_type = "AUTO"
            self._tick = self._stream.time_base or Fraction(1, 90_000)
            self._origin = origin(self._container)
            self._broken = self._decoded = False  # the last packet was damaged; some picture has been decoded
            self._packets, self._clock = 0, Clock()
            self.sought: Fraction | None = None
            self._pictures = self._begin()
            first, pts = self._next_picture()
        except BaseException:
            self._container.close()
            raise
        self.metadata = dict(self._container.metadata)
        self._first = first, pts
        self.index = self._stream.index
        self.shift = pts * self._tick if start else self._origin
        self.first = self.shift if start else None
        self.last = None if end is None else self._origin + end
        matrix = display_matrix(first)
        self.info, scaled = inform(self._container, self._stream, first, matrix, size)
        self._to_rgb = partial(ToRGB, Colours.of(first), scaled, matrix, peak=peak_of(first))
        self.rate = rate or (self.info.rate or Fraction(25) if constant else None)
        self.time_base = 1 / self.rate if self.rate else self._tick
        self.info = self._expect(self.info)

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def cut_short(self, heard: Fraction = Fraction(0)) -> bool:
        """Whether the file ended well before the length that it gives; to be asked when all has been read.

        heard: seconds of the film's sound that were read, which counts where the length is that of the whole file.
        """
        seconds = self.info.seconds
        if seconds is None or self._end is not None:
            return False
        reached = self.reached if own_seconds(self._stream) else max(self.reached, heard)
        return reached + max(Fraction(1), seconds / 50) < seconds

    def _begin(self) -> Iterator[tuple[VideoFrame, int]]:
        """The pictures from `start` on; a file that lands behind it when it seeks is read from further before."""
        if not self._start:
            return self._stamped()
        wanted = math.ceil((self._origin + self._start) / self._tick)
        for back in (0, 10, None):
            to = -(1 << 40) if back is None else wanted - math.ceil(back / self._tick)
            with suppress(FFmpegError):
                self._container.seek(max(to, 0), stream=self._stream)
            self.sought = to * self._tick if to > 0 else None
            self.damage, self._packets, self._broken, self._decoded, self._clock = 0, 0, False, False, Clock()
            found = self._stamped()
            first = next(found, None)
            if first is not None and (first[1] <= wanted or back is None or to <= 0):
                break
        else:
            return iter(())
        return (each for each in _with(first, found) if each[1] >= wanted)

    def _next_picture(self) -> tuple[VideoFrame, int]:
        found = next(self._pictures, None)
        if found is not None and not (self._end is not None and self._at(found[1]) >= self._end):
            return found
        if (self._start or found) and self._decoded:
            raise VideoError(f"{self.path} has no picture that begins within that part: give another --start or --end.")
        raise VideoError(f"{self.path} holds no pictures that can be read: get the file again.")

    def _at(self, pts: int) -> Fraction:
        """Seconds since the film's beginning."""
        return pts * self._tick - self._origin

    def _stamped(self) -> Iterator[tuple[VideoFrame, int]]:
        """Every picture that can be decoded, with its time: times rise, and none is missing.

        AVI tells no times but guesses them; where two come the wrong way round they are exchanged.
        """
        last, held = None, None
        for frame in self._decode():
            pts = frame.pts if frame.pts is not None else frame.dts
            if held is not None:
                before, at = held
                if pts is not None and pts < at and (last is None or pts > last):
                    pts, at = at, pts
                yield before, at
                last = at
                pts = at + 1 if pts is None or pts <= at else pts
            held = frame, pts or 0
            del frame
        if held is not None:
            yield held

    def _decode(self) -> Iterator[VideoFrame]:
        for packet in self._demux():
            try:
                frames = self._stream.decode(packet)
            except FFmpegError:
                self._harm()
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self._harm()
                else:
                    self._broken = False
                self._decoded = True
                self.interlaced = self.interlaced or frame.interlaced_frame
                yield frame

    def _demux(self) -> Iterator[av.Packet[VideoStream] | None]:
        """Every packet of the film, then None, which flushes the decoder."""
        for packet in packets_of(self._container, [self._stream], self._harm):
            self._packets += 1
            if packet.is_corrupt:
                self._harm()
            self._clock.film(packet)
            yield packet
        yield None

    def _harm(self) -> None:
        """Count a damaged place; what leads up to the first picture of a broadcast is none."""
        if not self._broken and (self._decoded or not is_broadcast(self._container)):
            self.damage += 1
        self._broken = True

    def _timed(self) -> Iterator[tuple[VideoFrame, int, int]]:
        """Each picture within the span with its time, from `shift` on, and how long it is shown."""
        shift = round(self.shift / self._tick)
        frame, pts = self._first
        del self._first
        duration = None
        for later, after in self._pictures:
            if self._end is not None and self._at(after) >= self._end:
                duration = after - pts
                break
            self.reached = self._at(after)
            yield frame, pts - shift, after - pts
            frame, pts = later, after
        if duration is None:
            duration = self._last_duration(frame, pts)
        if self._end is not None:
            duration = max(1, min(duration, round((self._origin + self._end) / self._tick) - pts))
        self.reached = self._at(pts + duration)
        yield frame, pts - shift, duration

    def _last_duration(self, frame: VideoFrame, pts: int) -> int:
        """What no later picture tells: the stream's end where the file has it and is whole, else the frame's own."""
        stream = self._stream
        if stream.duration and self._packets >= stream.frames > 0 and not self.damage:
            left = (stream.start_time or 0) + stream.duration - pts
            if left > 0:
                return left
        rate = self.info.rate or Fraction(25)
        return frame.duration or max(1, round(1 / rate / self._tick))

    def _expect(self, info: Info) -> Info:
        """The length and number of frames of the part that is read, at the rate it is read at."""
        if info.seconds is None:
            return info
        part = max(Fraction(0), min(self._end or info.seconds, info.seconds) - self._start)
        frames = self._stream.frames or (round(info.seconds * info.rate) if info.rate else 0)
        if self.rate:
            frames = math.ceil(part * self.rate)
        elif info.seconds:
            frames = round(frames * part / info.seconds)
        return replace(info, frames=frames or None)


def _with(first: tuple[VideoFrame, int], rest: Iterator[tuple[VideoFrame, int]]) -> Iterator[tuple[VideoFrame, int]]:
    yield first
    yield from rest
