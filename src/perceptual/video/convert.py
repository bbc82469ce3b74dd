"""A film through a network: read, changed and written at once, frame by frame, in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from torch import Tensor

from perceptual.config import VideoConfig
from perceptual.devices import out_of_memory
from perceptual.errors import OutputError, VideoError
from perceptual.events import Step
from perceptual.files import write_beside
from perceptual.video.film import Film, Frame
from perceptual.video.frames import FrameWriter, check_frames
from perceptual.video.pipeline import in_stages
from perceptual.video.reader import Reader
from perceptual.video.source import check_there
from perceptual.video.stills import RATE, Stills, is_pattern, is_stills
from perceptual.video.writer import Writer, check_target

_COPIES = 100  # of one picture that are written before the caller is asked again


def check_conversion(source: str | Path, target: str | Path, config: VideoConfig) -> None:
    """Refuse names and settings that do not go together, without reading the video.

    Raises:
        ConfigError, OutputError, VideoError: as `Conversion`.
    """
    source, target = (Path(os.path.expanduser(path)) for path in (source, target))
    if is_pattern(target):
        check_frames(target, config)
    else:
        check_target(target, config)
    if not is_pattern(source):
        check_there(source)
    if os.path.exists(target) and os.path.samefile(source, target):
        raise OutputError(f"The output {target} would overwrite its input: choose another -o.")


class Conversion:
    """One film to be converted; `run` does it.

    convert: uint8 (1, 3, H, W) -> uint8 (1, 3, h, w), called for one frame after the other; h and w may differ from H
        and W and stay the same. settle: (frame, what convert made of it) -> what is written, likewise in order; it runs
        while `convert` is at the next frame. config: which part of the film, and how it is written; what is said there
        of painting is the caller's business.

    Attributes: `target`; and when `run` has ended `frames`, the number written; `seconds` of output; `stopped`, whether
    it was closed before its end; `damage`, the number of places in the film that could not be read.

    Raises:
        ConfigError: the output's name or the settings do not go together.
        OutputError: the output is the input.
        VideoError: there is no such film.
    """

    def __init__(
        self,
        source: str | Path,
        target: str | Path,
        convert: Callable[[Tensor], Tensor] = lambda pixels: pixels,
        *,
        settle: Callable[[Tensor, Tensor], Tensor] | None = None,
        config: VideoConfig | None = None,
    ) -> None:
        self.source, self.target = (Path(os.path.expanduser(path)) for path in (source, target))
        self.convert, self.settle, self.config = convert, settle, config or VideoConfig()
        self.frames, self.seconds, self.stopped, self.damage = 0, Fraction(0), False, 0
        self._messages, self._told_of_fields = list[str](), False
        check_conversion(self.source, self.target, self.config)

    def run(self) -> Generator[Step, None, None]:
        """Convert the film; yields a Step after each frame, and after a hundred copies of one.

        Closing the generator ends the film soon after the last frame yielded, with the few that were on their way and
        the sound up to there: a whole file. Any error leaves no file, and an older one as it was.

        Raises:
            VideoError: the film cannot be read, or does not fit into memory.
            ConfigError: the output cannot hold the film's sound.
            OutputError: the output cannot be written.
        """
        config = self.config
        with self._film() as reader, self._output(reader) as writer:
            reader.keep_interlaced = config.keep_interlaced
            self._messages = self._told_of(reader)
            yield Step(0, reader.info.frames, message=self._said(reader, writer))
            try:
                yield from self._steps(reader, writer)
            except GeneratorExit:
                if not writer.frames:
                    raise
                self.stopped = True
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                flag = "--upscale" if config.enlarges else "--size"
                raise VideoError(f"{self.source} does not fit into memory: give a smaller {flag}.") from error
            writer.finish(whole=not self.stopped)
            self.frames, self.seconds = writer.frames, writer.reached
            short = not self.stopped and reader.cut_short(writer.heard)
            self.damage = reader.damage + writer.damage + short
            message = self._trouble(reader, short)
        if not self.stopped and (message or self.frames != reader.info.frames):
            yield Step(self.frames, self.frames, message=message)

    def _film(self) -> Film:
        config = self.config
        start, end = config.span
        size = None if config.enlarges else config.size  # else it is that of the enlarged film
        if is_stills(self.source):
            return Stills(self.source, start=start, end=end, size=size, rate=config.rate)
        constant = self.target.suffix.lower() == ".avi"
        return Reader(self.source, start=start, end=end, size=size, rate=config.rate, constant=constant)

    @contextmanager
    def _output(self, film: Film) -> Iterator[Writer | FrameWriter]:
        if is_pattern(self.target):
            with FrameWriter(self.target, film, self.config) as frames:
                yield frames
        else:
            with write_beside(self.target) as temporary, Writer(temporary, film, self.config) as writer:
                yield writer

    def _told_of(self, film: Film) -> list[str]:
        """What becomes of the film's kind of colours and times, in a sentence each."""
        told, info = [], film.info
        if info.hdr:
            told.append(f"The film is in HDR ({info.hdr}): it is converted to SDR (BT.709).")
        if info.transparent:
            told.append("The film is transparent in parts: its transparency is left out.")
        if isinstance(film, Stills) and film.assumed:
            told.append(f"The frames are taken to be {RATE} a second: --fps gives another rate.")
        return told

    def _said(self, film: Film, writer: Writer | FrameWriter) -> str | None:
        """What a person should know and has not been told, in a line each."""
        if film.interlaced and not self._told_of_fields:
            self._told_of_fields = True
            if not self.config.keep_interlaced:
                self._messages.append(
                    "The film is interlaced: it is deinterlaced (--keep-interlaced leaves it as it is)."
                )
            else:
                tagged = isinstance(writer, Writer) and writer.tags_fields
                but = "" if tagged else ", which the output does not say: it is written as progressive"
                self._messages.append(f"The film is interlaced and is left so{but}.")
        said, self._messages = [*self._messages, writer.said()], []
        return "\n".join(each for each in said if each) or None

    def _steps(self, reader: Film, writer: Writer | FrameWriter) -> Generator[Step, None, None]:
        def convert(frame: Frame) -> tuple[Frame, Tensor]:
            return frame, self.convert(frame.pixels)

        def settle(both: tuple[Frame, Tensor]) -> Frame:  # the last to need what the film shows
            frame, made = both
            return replace(frame, pixels=self.settle(frame.pixels, made) if self.settle else made)

        def write(frame: Frame) -> Iterator[int]:
            for first in range(0, frame.times, _COPIES):
                pts, times = frame.pts + first * frame.duration, min(_COPIES, frame.times - first)
                writer.write(replace(frame, pts=pts, times=times))
                yield writer.frames

        def change(frame: Frame) -> Frame:
            return settle(convert(frame))

        stages: list[Callable[[Any], Any]] = [convert, settle, write] if self.settle else [change, write]
        total = reader.info.frames
        with closing(in_stages(reader, *stages)) as work:
            for done in work:
                self.frames = done
                yield Step(done, total if total and done <= total else None, message=self._said(reader, writer))

    def _trouble(self, reader: Film, short: bool) -> str | None:
        if short and reader.info.seconds:
            return (
                f"{self.source} breaks off after {float(reader.reached):.1f} of {float(reader.info.seconds):.1f} s; "
                f"the output holds what is there."
            )
        if self.damage:
            parts = "1 damaged part" if self.damage == 1 else f"{self.damage} damaged parts"
            return f"{parts} of {self.source} could not be read whole; the output holds the rest."
        return None


def convert_video(
    source: str | Path,
    target: str | Path,
    convert: Callable[[Tensor], Tensor],
    *,
    settle: Callable[[Tensor, Tensor], Tensor] | None = None,
    config: VideoConfig | None = None,
) -> Generator[Step, None, Conversion]:
    """Convert a film, as `Conversion` and its `run`; returns the Conversion, with what there is to tell.

    >>> finish(convert_video("film.mp4", "dark.mp4", lambda pixels: pixels // 2))

    Raises:
        VideoError, ConfigError, OutputError: as there.
    """
    conversion = Conversion(source, target, convert, settle=settle, config=config)
    yield from conversion.run()
    return conversion
