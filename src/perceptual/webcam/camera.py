"""The newest picture of a camera, or of a film that plays like one."""

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
    """Keep from the terminal what libraries in C write there by themselves."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class Camera:
    """A thread that reads a camera, or a film at its own pace, and keeps the newest picture only; use it in `with`.

    So nothing that looks at it can lag behind. every: give each picture of a film in turn, however long that takes.

    Attributes: `width`, `height` of its pictures, in pixels; `live`, whether it is no film.

    Raises:
        ConfigError: --camera is neither a number nor a file. VideoError: it gives no pictures.
    """

    def __init__(self, config: WebcamConfig, *, every: bool = False) -> None:
        self.source = config.camera.strip()
        self.live = self.source.isdecimal() and len(self.source) < 5
        self._mirror, self._loop, self._every = config.mirror and self.live, config.loop and not self.live, every
        self._path = os.path.expanduser(self.source)
        if not self.live and not os.path.isfile(self._path):
            raise ConfigError(f"--camera is {self.source!r}: give the number of a camera, such as 0, or a film's file.")
        self._capture = self._open()
        if self.live and config.size:
            self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, config.size)
            self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, config.size * 3 // 4)
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self._period = 1 / rate if 1 <= rate <= 240 else 1 / 25  # s
        self._newest = self._read()
        if self._newest is None:
            self._capture.release()
            raise VideoError(self._gives_nothing())
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
        self._thread.join(timeout=5)  # a driver that hangs shall not keep the command from ending

    @property
    def over(self) -> bool:
        """Whether all pictures of a film were taken and no more will come; a camera has no end, see `newest`."""
        with self._changed:
            return self._ended and self._newest is None and not self.live

    def newest(self, wait: float) -> Array | None:
        """The newest picture, (H, W, 3) in RGB, if it was not taken yet; None when none comes in `wait` seconds.

        Raises:
            VideoError: the camera has gone.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._ended, wait)
            frame, self._newest = self._newest, None
            self._changed.notify_all()
            if frame is None and self._ended and self.live:
                raise VideoError(f"Camera {self.source} gives no more pictures: plug it in again and start anew.")
        if frame is None:
            return None
        colours = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        return np.asarray(cv2.flip(colours, 1) if self._mirror else colours, np.uint8)

    def freeze(self, on: bool) -> None:
        """Stop a film, or let it go on; a camera sees on."""
        with self._changed:
            self._frozen = on and not self.live
            self._changed.notify_all()

    def _watch(self) -> None:
        """What the thread does."""
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
        """The next picture, (H, W, 3) in BGR; damaged ones are passed over, and None is the end."""
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
        os.environ.setdefault("OPENCV_VIDEOIO_MSMF_ENABLE_HW_TRANSFORMS", "0")  # Windows else opens for half a minute
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        with quiet():
            capture = cv2.VideoCapture(int(self.source)) if self.live else cv2.VideoCapture(self._path)
        if not capture.isOpened():
            raise VideoError(self._gives_nothing())
        return capture

    def _gives_nothing(self) -> str:
        if not self.live:
            return f"{self.source} is no film that can be read: give another file to --camera."
        return (
            f"Camera {self.source} gives no pictures: plug it in, allow its use, close other programs that use it, "
            "or give --camera another number."
        )
