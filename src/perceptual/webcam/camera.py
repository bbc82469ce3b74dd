"""The newest frame of a camera, or of a video file that is played like a camera."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Generator
from types import TracebackType

import cv2
import numpy as np

from perceptual.config import WebcamConfig
from perceptual.errors import ConfigError, VideoError
from perceptual.functional import Array


@contextlib.contextmanager
def quiet() -> Generator[None, None, None]:
    """Suppress the messages that C libraries write to stderr."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class Camera:
    """A thread that reads a camera, or a video file at its frame rate, and keeps only the newest frame.

    Older frames are dropped, so the display never lags behind. A context manager.

    Args:
        config: which camera or file, size, mirroring and looping.
        every: return every frame of a video file in order, and wait for the reader instead of dropping frames.

    Attributes: `width`, `height` of the frames in pixels; `live`, True for a camera, False for a video file.

    Raises:
        ConfigError: --camera is neither a number nor a file. VideoError: no frame can be read.
    """

    def __init__(self, config: WebcamConfig, *, every: bool = False) -> None:
        self.source = config.camera.strip()
        self.live = self.source.isdecimal() and len(self.source) < 5
        self._mirror, self._loop, self._every = config.mirror and self.live, config.loop and not self.live, every
        self._path = os.path.expanduser(self.source)
        if not self.live and not os.path.isfile(self._path):
            raise ConfigError(f"--camera is {self.source!r}: give the number of a camera, such as 0, or a video file.")
        self._capture = self._open()
        if self.live and config.size:
            self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, config.size)
            self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, config.size * 3 // 4)
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self._period = 1 / rate if 1 <= rate <= 240 else 1 / 25  # s
        self._newest = self._read()
        if self._newest is None:
            self._capture.release()
            raise VideoError(self._no_frames_message())
        self.height, self.width = self._newest.shape[:2]
        self._frozen = self._stopped = self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._watch, name="camera", daemon=True)

    def __enter__(self) -> Camera:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(timeout=5)  # the command can end even if a driver hangs

    @property
    def over(self) -> bool:
        """True if a video file has ended and its last frame was taken; always False for a camera."""
        with self._changed:
            return self._ended and self._newest is None and not self.live

    def newest(self, wait: float) -> Array | None:
        """The newest frame, (H, W, 3), RGB, uint8. None if no new frame comes within `wait` seconds.

        Raises:
            VideoError: the camera was disconnected.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._ended, wait)
            frame, self._newest = self._newest, None
            self._changed.notify_all()
            if frame is None and self._ended and self.live:
                raise VideoError(f"Camera {self.source} sends no more frames: reconnect it and start again.")
        if frame is None:
            return None
        colours = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        return np.asarray(cv2.flip(colours, 1) if self._mirror else colours, np.uint8)

    def freeze(self, on: bool) -> None:
        """Pause a video file, or continue it. A camera is not paused."""
        with self._changed:
            self._frozen = on and not self.live
            self._changed.notify_all()

    def _watch(self) -> None:
        """The reading thread."""
        due = time.monotonic()
        try:
            while True:
                due = max(due + self._period, time.monotonic())
                with self._changed:
                    if not self.live and not self._every:
                        self._changed.wait_for(lambda: self._stopped, due - time.monotonic())
                    self._changed.wait_for(lambda: self._stopped or not self._must_wait())
                    if self._stopped:
                        return
                frame = self._read()
                if frame is None:
                    return
                with self._changed:
                    self._newest = frame
                    self._changed.notify_all()
        finally:
            self._capture.release()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _must_wait(self) -> bool:
        return self._frozen or (self._every and self._newest is not None)

    def _read(self) -> Array | None:
        """The next frame, (H, W, 3), BGR. Damaged frames are skipped; None at the end."""
        with contextlib.suppress(cv2.error):
            for again in (False, True) if self._loop else (False,):
                if again:
                    self._capture.release()
                    self._capture = cv2.VideoCapture(self._path)
                for _ in range(2 if self.live else 8):
                    good, frame = self._capture.read()
                    if good:
                        return np.asarray(frame, np.uint8)
        return None

    def _open(self) -> cv2.VideoCapture:
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        os.environ.setdefault("OPENCV_VIDEOIO_MSMF_ENABLE_HW_TRANSFORMS", "0")  # else Windows takes 30 s to open
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        with quiet():
            capture = cv2.VideoCapture(int(self.source)) if self.live else cv2.VideoCapture(self._path)
        if not capture.isOpened():
            raise VideoError(self._no_frames_message())
        return capture

    def _no_frames_message(self) -> str:
        if not self.live:
            return f"{self.source} is not a readable video: give --camera another file."
        return (
            f"Camera {self.source} sends no frames: connect it, allow access to it, close other programs that use it, "
            "or give --camera another number."
        )
