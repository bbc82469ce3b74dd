"""Reading a video file: upright RGB frames, each with its exact time."""

from __future__ import annotations

import itertools
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
from perceptual.video.animations import is_whole_gif
from perceptual.video.base import Video
from perceptual.video.colours import Colours, ToRGB, display_matrix
from perceptual.video.source import (
    Clock,
    Info,
    is_broadcast,
    is_transparent,
    make_info,
    open_input,
    origin,
    packets_of,
    stream_seconds,
    video_stream_of,
)
from perceptual.video.tones import peak_light


class Reader(Video):
    """The frames of a video file, in order. A context manager that can be iterated over once.

    >>> with Reader("video.mp4") as reader:
    ...     for frame in reader:
    ...         show(frame.pixels, frame.pts * reader.time_base)

    Args:
        path: the video file.
        start, end: part to read, in seconds. Times then count from the first frame at or after `start`.
        size: longer side of the frames in pixels; the other side follows in proportion, and both are made even.
        rate: constant frame rate in frames per second; each tick shows the latest frame.
        constant: without `rate`, use the average rate of the file as a constant rate.

    Attributes (in addition to those of `Video`): `index`, index of the video stream in the file; `shift`, seconds that
    are subtracted from the times of the file; `first` and `last`, start and end of the part in times of the file, None
    for the start or the end of the video; `seek_time`, the time that was sought in the file, None for its start.

    Raises:
        VideoError: there is no such file, it is not a video, it is damaged from the start, or no frame lies between
            `start` and `end`.
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
            self._stream = video_stream_of(self._container, self.path)
            self._stream.thread_type = "AUTO"
            self._tick = self._stream.time_base or Fraction(1, 90_000)
            self._origin = origin(self._container)
            self._broken = self._decoded = False  # the last packet was damaged; at least one frame was decoded
            self._packets, self._clock = 0, Clock()
            self.seek_time: Fraction | None = None
            self._decoded_frames = self._begin()
            first, pts = self._next_frame()
        except BaseException:
            self._container.close()
            raise
        self.metadata = dict(self._container.metadata)
        self._first: tuple[VideoFrame, int] | None = (first, pts)
        self.index = self._stream.index
        self.shift = pts * self._tick if start else self._origin
        self.first = self.shift if start else None
        self.last = None if end is None else self._origin + end
        matrix = display_matrix(first)
        self.info, scaled = make_info(self._container, self._stream, first, matrix, size)
        self._to_rgb = partial(ToRGB, Colours.of(first), scaled, matrix, peak=peak_light(first))
        self.rate = rate or (self.info.rate or Fraction(25) if constant else None)
        self.time_base = 1 / self.rate if self.rate else self._tick
        self.info = self._expect(self.info)
        self.transparent = self.transparent or self.info.transparent

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def cut_short(self, sound_seconds: Fraction = Fraction(0)) -> bool:
        """True if the video ended much earlier than the length in its header. Call it after reading everything.

        sound_seconds: seconds of sound that were read. They count if the header gives only the length of the whole
        file.
        """
        seconds = self.info.seconds
        if self._end is not None:
            return False
        if self._container.format.name == "gif":
            return not is_whole_gif(self.path)
        if seconds is None:
            return False
        reached = self.reached if stream_seconds(self._stream) else max(self.reached, sound_seconds)
        return reached + max(Fraction(1), seconds / 50) < seconds

    def _begin(self) -> Iterator[tuple[VideoFrame, int]]:
        """The frames from `start` on. If a seek lands after `start`, seek 10 s earlier, then read from the start."""
        if not self._start:
            return self._with_times()
        wanted = math.ceil((self._origin + self._start) / self._tick)
        for back in (0, 10, None):
            to = -(1 << 40) if back is None else wanted - math.ceil(back / self._tick)
            with suppress(FFmpegError):
                self._container.seek(max(to, 0), stream=self._stream)
            self.seek_time = to * self._tick if to > 0 else None
            self.damage, self._packets, self._broken, self._decoded, self._clock = 0, 0, False, False, Clock()
            found = self._with_times()
            first = next(found, None)
            if first is not None and (first[1] <= wanted or back is None or to <= 0):
                break
        else:
            return iter(())
        return (each for each in itertools.chain([first], found) if each[1] >= wanted)

    def _next_frame(self) -> tuple[VideoFrame, int]:
        found = next(self._decoded_frames, None)
        if found is not None and not (self._end is not None and self._at(found[1]) >= self._end):
            return found
        if (self._start or found) and self._decoded:
            raise VideoError(f"{self.path} has no frame in this part: give another --start or --end.")
        raise VideoError(f"{self.path} contains no readable frames: get the file again.")

    def _at(self, pts: int) -> Fraction:
        """Seconds since the start of the video."""
        return pts * self._tick - self._origin

    def _with_times(self) -> Iterator[tuple[VideoFrame, int]]:
        """(frame, time) of every frame that can be decoded. Missing times are filled in, and times increase.

        AVI stores no times, and FFmpeg guesses them. If two guesses are in the wrong order, they are swapped.
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
            del frame  # release the memory before the next frame is decoded
        if held is not None:
            yield held

    def _decode(self) -> Iterator[VideoFrame]:
        for packet in self._demux():
            try:
                frames = self._stream.decode(packet)
            except FFmpegError:
                self._count_damage()
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self._count_damage()
                else:
                    self._broken = False
                self._decoded = True
                self.interlaced = self.interlaced or frame.interlaced_frame
                self.transparent = self.transparent or is_transparent(frame)
                yield frame

    def _demux(self) -> Iterator[av.Packet[VideoStream] | None]:
        """Every packet of the video stream, then None to flush the decoder."""
        for packet in packets_of(self._container, [self._stream], self._count_damage):
            self._packets += 1
            if packet.is_corrupt:
                self._count_damage()
            self._clock.shift_video(packet)
            yield packet
        yield None

    def _count_damage(self) -> None:
        """Count a damaged place. A broadcast starts anywhere, so packets before its first frame do not count."""
        if not self._broken and (self._decoded or not is_broadcast(self._container)):
            self.damage += 1
        self._broken = True

    def _timed(self) -> Iterator[tuple[VideoFrame, int, int]]:
        """(frame, time, duration) of the frames in the part, in units of `_tick`; times count from `shift`."""
        shift = round(self.shift / self._tick)
        if self._first is None:
            raise VideoError(f"{self.path} was read already: open it again to read it again.")
        (frame, pts), self._first = self._first, None
        duration = None
        for later, after in self._decoded_frames:
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
        """The duration of the last frame: up to the end of the stream if the file gives it and is undamaged, else the
        duration that the frame itself gives."""
        stream = self._stream
        if stream.duration and self._packets >= stream.frames > 0 and not self.damage:
            left = (stream.start_time or 0) + stream.duration - pts
            if left > 0:
                return left
        rate = self.info.rate or Fraction(25)
        return frame.duration or max(1, round(1 / rate / self._tick))

    def _expect(self, info: Info) -> Info:
        """`info` with the expected number of frames of the part, at the rate it is read at."""
        if info.seconds is None:
            return info
        part = max(Fraction(0), min(self._end or info.seconds, info.seconds) - self._start)
        frames = self._stream.frames or (round(info.seconds * info.rate) if info.rate else 0)
        if self.rate:
            frames = math.ceil(part * self.rate)
        elif info.seconds:
            frames = round(frames * part / info.seconds)
        return replace(info, frames=frames or None)
