"""Writing a video as one image file per frame, such as frame_%04d.png."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType

from perceptual import images
from perceptual.config import VideoConfig
from perceptual.errors import ConfigError, OutputError, VideoError
from perceptual.images import unit
from perceptual.motion import tensor_of
from perceptual.video.base import Frame, Video
from perceptual.video.colours import RGB, Colours, FromRGB
from perceptual.video.image_sequence import frames_in, numbered
from perceptual.video.source import scaled_to
from perceptual.video.writer import square


class FrameWriter:
    """Like `Writer`, but writes numbered image files, starting at 1.

    Each file is complete or absent. When a run ends early, the files written so far are kept.

    Attributes: `frames`, the number of files written; `reached`, seconds of output; `sound_reached` and `damage`,
    always 0.
    """

    def __init__(self, path: Path, video: Video, config: VideoConfig) -> None:
        self.frames, self.reached, self.sound_reached, self.damage = 0, Fraction(0), Fraction(0), 0
        self._path, self._video, self._messages = path, video, list[str]()
        self._config = config
        if video.info.sounds and config.sound:
            self._messages.append("The sound is left out, because image files have none.")
        self.size: tuple[int, int] | None = None
        self._times: list[int] = []  # of the latest frames
        self._uneven = False

    def __enter__(self) -> FrameWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is open."""

    def take_messages(self) -> str | None:
        """The messages for the user since the last call, one per line; None if there are none."""
        messages, self._messages = self._messages, []
        return "\n".join(messages) or None

    def write(self, frame: Frame) -> None:
        """Write one frame, as many times as it is shown."""
        pixels, aspect = frame.pixels, self._video.info.aspect
        height, width = pixels.shape[-2:]
        size = scaled_to(width, height, self._config.size if self._config.enlarges else None)
        size = square(*size, aspect, self._config.size) if aspect else size
        if size != (width, height):
            pixels = tensor_of(FromRGB(Colours(RGB), "rgb24", size)(pixels).to_ndarray())
        self.size = size
        self._note(frame.pts)
        for _ in range(frame.times):
            images.write(numbered(self._path, self.frames + 1), unit(pixels))
            self.frames += 1
        self.reached = (frame.pts + frame.times * frame.duration) * self._video.time_base

    def _note(self, pts: int) -> None:
        """Add one message if the frames are not evenly spaced in time. 3 ms are tolerated as rounding."""
        self._times = [*self._times[-2:], pts]
        if self._video.rate or self._uneven or len(self._times) < 3:
            return
        first, second, third = (time * self._video.time_base for time in self._times)
        if abs((third - second) - (second - first)) > Fraction(3, 1000):
            self._uneven = True
            self._messages.append(
                "The frames are not evenly spaced in time, and image files hold no times: --fps makes them even."
            )

    def finish(self, *, whole: bool = True) -> None:
        """Nothing is left to write."""


def check_frames(path: Path, config: VideoConfig) -> None:
    """Check before the work that image files can be written for a pattern such as frame_%04d.png.

    Raises:
        OutputError: such files exist already.
        ConfigError: the file ending is not supported, or a setting applies to video files only.
    """
    try:
        images.check_ending(path)
    except OutputError as error:  # as `check_target` does for files
        raise ConfigError(str(error)) from error
    for flag in ("codec", "crf", "preset"):
        if getattr(config, flag) is not None:
            raise ConfigError(f"--{flag} has no effect when frames are written as image files: leave it out.")
    try:
        there = frames_in(path)
    except VideoError:
        return
    raise OutputError(f"{there[0]} exists already: give another folder or another name for the frames.")
