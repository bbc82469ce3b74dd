"""Converting a video: frames are read, changed and written one after the other, in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from perceptual import images
from perceptual.config import VideoConfig
from perceptual.devices import SideBySide, out_of_memory
from perceptual.errors import OutputError, VideoError
from perceptual.events import Step
from perceptual.files import write_beside
from perceptual.video.base import Frame, Video
from perceptual.video.frames import FrameWriter, check_frames
from perceptual.video.image_sequence import RATE, ImageSequence, is_image_sequence, is_pattern
from perceptual.video.pipeline import in_stages
from perceptual.video.reader import Reader
from perceptual.video.source import check_exists
from perceptual.video.writer import Writer, check_target

_COPIES = 100  # copies of one frame that are written between two Steps


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
        check_exists(source)
    if os.path.exists(source) and os.path.exists(target) and os.path.samefile(source, target):
        raise OutputError(f"The output {target} would overwrite its input: choose another -o.")


class Conversion:
    """The conversion of one video; `run` does the work.

    Args:
        source: a video file, a folder of images, or a pattern such as frame_%04d.png.
        target: the file to write, or a pattern such as frame_%04d.png.
        convert: frame (1, 3, H, W), uint8 -> new frame (1, 3, h, w), uint8 or in [0, 1]. Called for each frame in
            order. h and w may differ from H and W, but must be the same for all frames.
        settle: (frame, converted frame) -> frame to write. Called for each frame in order, while `convert` works on
            the next frame.
        config: which part of the video to convert, and how to encode it. The options for painting and enlarging are
            ignored here; `convert` implements them.

    Attributes: `target`. `at_once`: None, or a function that you set before `run`. It gets (H, W) and returns how many
    frames of this size `convert` works on at the same time, in threads with one core each; see `Model.at_once`. After
    `run`: `frames`, the number of frames written; `seconds` of output; `size`, width and height of the written frames
    in pixels, None before the first; `stopped`, True if `run` was closed before its end; `damage`, the number of places
    in the input that could not be read.

    Raises:
        ConfigError: the name of the output and the settings do not fit together.
        OutputError: the output is the input.
        VideoError: there is no such video.
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
        self.at_once: Callable[[int, int], int] | None = None
        self.frames, self.seconds, self.stopped, self.damage = 0, Fraction(0), False, 0
        self.size: tuple[int, int] | None = None
        self._messages = list[str]()
        self._reported_interlaced = self._reported_transparent = False
        check_conversion(self.source, self.target, self.config)

    def run(self) -> Generator[Step, None, None]:
        """Convert the video. Yields a Step after each frame, and after every 100 copies of a repeated frame.

        Closing the generator ends the output soon after the last yielded frame. It is then a complete file with a few
        more frames and the sound up to that time. After an error there is no output file, and an older file with
        that name is unchanged.

        Raises:
            VideoError: the video cannot be read, or a frame does not fit into memory.
            ConfigError: the output format does not support the sound.
            OutputError: the output cannot be written.
        """
        config = self.config
        with self._open_input() as reader, self._output(reader) as writer:
            reader.keep_interlaced = config.keep_interlaced
            self._messages = self._notices(reader)
            yield Step(0, reader.info.frames, message=self._take_messages(reader, writer))
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
            short = not self.stopped and reader.cut_short(writer.sound_reached)
            self.damage = reader.damage + writer.damage + short
            message = self._problem(reader, short)
        if not self.stopped and (message or self.frames != reader.info.frames):
            yield Step(self.frames, self.frames, message=message)

    def _open_input(self) -> Video:
        config = self.config
        start, end = config.span
        size = None if config.enlarges else config.size  # when enlarging, the output is scaled to config.size instead
        if is_image_sequence(self.source):
            return ImageSequence(self.source, start=start, end=end, size=size, rate=config.rate)
        constant = self.target.suffix.lower() == ".avi"
        return Reader(self.source, start=start, end=end, size=size, rate=config.rate, constant=constant)

    @contextmanager
    def _output(self, video: Video) -> Iterator[Writer | FrameWriter]:
        if is_pattern(self.target):
            with FrameWriter(self.target, video, self.config) as frames:
                yield frames
        else:
            with write_beside(self.target) as temporary, Writer(temporary, video, self.config) as writer:
                yield writer

    def _notices(self, video: Video) -> list[str]:
        """Messages about how the colours and the times of the input are changed."""
        notices, info = [], video.info
        if info.hdr:
            notices.append(f"The video is in HDR ({info.hdr}): it is converted to SDR (BT.709).")
        if isinstance(video, ImageSequence) and video.assumed:
            notices.append(f"The frame rate is assumed to be {RATE} frames per second: --fps sets another one.")
        return notices

    def _take_messages(self, video: Video, writer: Writer | FrameWriter) -> str | None:
        """The messages for the user since the last call, one per line; None if there are none."""
        if video.transparent and not self._reported_transparent:
            self._reported_transparent = True
            self._messages.append("The video has transparent parts: the transparency is left out.")
        if video.interlaced and not self._reported_interlaced:
            self._reported_interlaced = True
            if not self.config.keep_interlaced:
                self._messages.append(
                    "The video is interlaced: it is deinterlaced (--keep-interlaced keeps it interlaced)."
                )
            else:
                tagged = isinstance(writer, Writer) and writer.tags_fields
                but = "" if tagged else ", but the output is tagged as progressive"
                self._messages.append(f"The video is interlaced and stays interlaced{but}.")
        messages, self._messages = [*self._messages, writer.take_messages()], []
        return "\n".join(message for message in messages if message) or None

    def _steps(self, reader: Video, writer: Writer | FrameWriter) -> Generator[Step, None, None]:
        def convert(frame: Frame) -> tuple[Frame, Tensor]:
            return frame, images.like(self.convert(frame.pixels), frame.pixels)

        def settle(both: tuple[Frame, Tensor]) -> Frame:  # the original pixels are not needed after this stage
            frame, converted = both
            return replace(frame, pixels=self.settle(frame.pixels, converted) if self.settle else converted)

        def write(frame: Frame) -> Iterator[int]:
            for first in range(0, frame.times, _COPIES):
                pts, times = frame.pts + first * frame.duration, min(_COPIES, frame.times - first)
                writer.write(replace(frame, pts=pts, times=times))
                self.size = writer.size
                yield writer.frames

        def change(frame: Frame) -> Frame:
            return settle(convert(frame))

        first: Any = convert if self.settle else change
        if self.at_once:
            asked = lru_cache(maxsize=8)(self.at_once)  # once for each size, because the free memory changes
            first = SideBySide(first, lambda frame: asked(*frame.pixels.shape[-2:]))
        stages: list[Any] = [first]
        stages += [settle, write] if self.settle else [write]
        expected = reader.info.frames
        with closing(in_stages(reader, *stages)) as work:
            for done in work:
                self.frames = done
                total = expected if expected and done <= expected else None
                yield Step(done, total, message=self._take_messages(reader, writer))

    def _problem(self, reader: Video, short: bool) -> str | None:
        if short and not (reader.info.seconds and reader.reached < reader.info.seconds):
            return f"{self.source} is incomplete: its end is missing. The output contains the part before it."
        if short and reader.info.seconds is not None:
            return (
                f"{self.source} is incomplete: it ends after {float(reader.reached):.1f} of "
                f"{float(reader.info.seconds):.1f} s. The output contains this part."
            )
        if self.damage:
            parts = "1 damaged part" if self.damage == 1 else f"{self.damage} damaged parts"
            return f"{self.source} has {parts}. The output contains the rest."
        return None


def convert_video(
    source: str | Path,
    target: str | Path,
    convert: Callable[[Tensor], Tensor],
    *,
    settle: Callable[[Tensor, Tensor], Tensor] | None = None,
    config: VideoConfig | None = None,
) -> Generator[Step, None, Conversion]:
    """Convert a video: creates a `Conversion` with these arguments, runs it, and returns it.

    >>> finish(convert_video("video.mp4", "dark.mp4", lambda pixels: pixels // 2))

    Raises:
        VideoError, ConfigError, OutputError: as `Conversion` and its `run`.
    """
    conversion = Conversion(source, target, convert, settle=settle, config=config)
    yield from conversion.run()
    return conversion
