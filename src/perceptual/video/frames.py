"""Writing a film as pictures in files of their own, such as frame_%04d.png."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType

from perceptual import images
from perceptual.config import VideoConfig
from perceptual.errors import ConfigError, OutputError, VideoError
from perceptual.images import unit
from perceptual.motion import tensor_of
from perceptual.video.colours import RGB, Colours, FromRGB
from perceptual.video.film import Film, Frame
from perceptual.video.source import scaled_to
from perceptual.video.stills import frames_in, numbered
from perceptual.video.writer import square


class FrameWriter:
    """As `Writer`, into numbered pictures, from 1 on. Each is whole or is not there; they stay where a run ends early.

    Attributes: `frames`, the number written; `reached`, seconds of output; `heard` and `damage`, always 0.
    """

    def __init__(self, path: Path, film: Film, config: VideoConfig) -> None:
        self.frames, self.reached, self.heard, self.damage = 0, Fraction(0), Fraction(0), 0
        self._path, self._film, self._messages = path, film, list[str]()
        self._size = config.size if config.enlarges else None
        if film.info.sounds and config.sound:
            self._messages.append("Left out, as pictures have none: the sound.")
        self._times: list[int] = []  # of the latest frames
        self._uneven = False

    def __enter__(self) -> FrameWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is open."""

    def said(self) -> str | None:
        """What a person should know about the output and has not been told, in a line each; None for nothing."""
        said, self._messages = self._messages, []
        return "\n".join(said) or None

    def write(self, frame: Frame) -> None:
        """Write one picture, as often as it is shown."""
        pixels, aspect = frame.pixels, self._film.info.aspect
        height, width = pixels.shape[-2:]
        size = scaled_to(width, height, self._size)
        size = square(*size, aspect) if aspect else size
        if size != (width, height):
            pixels = tensor_of(FromRGB(Colours(RGB), "rgb24", size)(pixels).to_ndarray())
        self._note(frame.pts)
        for _ in range(frame.times):
            images.write(numbered(self._path, self.frames + 1), unit(pixels))
            self.frames += 1
        self.reached = (frame.pts + frame.times * frame.duration) * self._film.time_base

    def _note(self, pts: int) -> None:
        """Say once that the film's times are lost where they are uneven, by more than they are rounded."""
        self._times = [*self._times[-2:], pts]
        if self._film.rate or self._uneven or len(self._times) < 3:
            return
        first, second, third = (time * self._film.time_base for time in self._times)
        if abs((third - second) - (second - first)) > Fraction(3, 1000):
            self._uneven = True
            self._messages.append("The frames are shown unevenly, which pictures do not say: --fps makes them even.")

    def finish(self, *, whole: bool = True) -> None:
        """All is written."""


def check_frames(path: Path, config: VideoConfig) -> None:
    """Say before the work that a pattern's frames cannot be written.

    Raises:
        OutputError: its ending is no format to write, or there are such frames.
        ConfigError: the settings are of films.
    """
    images.check_ending(path)
    for flag in ("codec", "crf", "preset"):
        if getattr(config, flag) is not None:
            raise ConfigError(f"Frames are written as pictures: leave --{flag} out.")
    try:
        there = frames_in(path)
    except VideoError:
        return
    raise OutputError(f"{there[0]} is there: give another folder or another name for the frames.")
