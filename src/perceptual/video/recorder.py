"""Recording: a video file from frames that come one by one, each with its time, such as those of a camera."""

from __future__ import annotations

from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

from torch import Tensor

from perceptual.config import VideoConfig
from perceptual.files import write_beside
from perceptual.video.base import Frame, Video
from perceptual.video.colours import Colours
from perceptual.video.source import Info
from perceptual.video.writer import Writer, check_target

_TICKS = 90_000  # units of time per second
_LAST = Fraction(1, 15)  # seconds that a single frame is shown


class _Live(Video):
    """The properties of a recording. It is not read from."""

    def __init__(self, path: Path, width: int, height: int) -> None:
        super().__init__(path)
        self.rate, self.time_base = None, Fraction(1, _TICKS)
        self.info = Info(
            *(width, height, None, None, None), even=False, turned=False, aspect=None, codec="", colours=Colours()
        )


class Recorder:
    """A video file that is written from frames as they come. Memory does not grow with its length.

    >>> recorder = Recorder("camera.mp4")
    >>> recorder.write(pixels, 0.0)
    >>> recorder.write(pixels, 0.1)
    >>> recorder.finish()

    The video has the size of the first frame; other frames are scaled to it. The file appears when `finish` is called.

    Args:
        path: the file to write.
        config: codec, quality and speed.

    Attributes: `seconds`, length up to the newest frame.

    Raises:
        ConfigError: the settings and the name do not fit together. OutputError: the file cannot be written.
    """

    def __init__(self, path: str | Path, config: VideoConfig | None = None) -> None:
        self.path, self.seconds = Path(path), 0.0
        self._config = config or VideoConfig()
        check_target(self.path, self._config)
        self._files = ExitStack()
        self._writer: Writer | None = None
        self._held: tuple[Tensor, int] | None = None  # it is written when the next one tells how long it is shown
        self._duration = round(_LAST * _TICKS)
        self._began = 0.0

    def write(self, pixels: Tensor, seconds: float) -> None:
        """Add a frame.

        pixels: (1, 3, H, W), uint8. seconds: its time on any clock. A frame that is not later than the one before it
        is left out.

        Raises:
            OutputError: the file cannot be written. The recording is lost then.
        """
        if self._writer is None:
            self._writer, self._began = self._open(*pixels.shape[-2:]), seconds
        time = round((seconds - self._began) * _TICKS)
        if self._held is not None:
            if time <= self._held[1]:
                return
            self._pass_on(time - self._held[1])
        self._held, self.seconds = (pixels, time), seconds - self._began

    def finish(self) -> Path | None:
        """Complete the file and return its path; None if there was no frame.

        Raises:
            OutputError: the file cannot be written.
        """
        if self._writer is None:
            return None
        with self._files:
            self._pass_on(self._duration)
            self._writer.finish()
        self._writer = None
        return self.path

    def _open(self, height: int, width: int) -> Writer:
        temporary = self._files.enter_context(write_beside(self.path))
        return self._files.enter_context(Writer(temporary, _Live(self.path, width, height), self._config))

    def _pass_on(self, duration: int) -> None:
        """Write the frame that is held."""
        if self._held is None or self._writer is None:
            return
        (pixels, time), self._held, self._duration = self._held, None, duration
        try:
            self._writer.write(Frame(pixels, time, duration))
        except BaseException as error:
            self._writer = None
            self._files.__exit__(type(error), error, error.__traceback__)
            raise
