"""The cameras of the open pages. Each page sends its newest camera image, and gets the painted image back."""

from __future__ import annotations

import base64
import binascii
import io
import secrets
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from perceptual import images
from perceptual.config import VideoConfig, WebcamConfig
from perceptual.errors import ConfigError, ImageError, PerceptualError
from perceptual.images import codecs
from perceptual.images.damage import decoding
from perceptual.studio import shown
from perceptual.studio.folder import Folder
from perceptual.studio.models import Models, Paint

if TYPE_CHECKING:
    from perceptual.video import Recorder

LONGEST = 300.0
"""Seconds after which a recording ends by itself."""
IDLE = 10.0
"""Seconds without a frame after which a recording ends, for instance because the page was closed."""
CLIENTS = 64
"""Maximum number of open pages. If there are more, the state of the oldest page is deleted."""
LARGEST = 1920
"""Longer side of the largest painted frame in pixels."""
SMALLEST = 240
"""Longer side of the smallest painted frame in pixels. Smaller frames of 16:9 are not painted faster, because fast
inference is not used for them."""
_BYTES = 12_000_000


@dataclass(frozen=True)
class Look:
    """How the camera image is painted.

    style: the name of the style. strength: 0 to 1. keep_colors: keep the colours of the camera. steady: share of the
    previous frame, 0 to 0.9. size: longer side in pixels; None for the largest size that still runs smoothly.
    """

    style: str = "starry_night"
    strength: float = WebcamConfig.strength
    keep_colors: bool = WebcamConfig.keep_colors
    steady: float = WebcamConfig.steady
    size: int | None = None

    def config(self, style: str) -> WebcamConfig:
        """The same settings for `perceptual webcam`. style: as for --style."""
        return WebcamConfig(**{**asdict(self), "style": style})


class Client:
    """The camera of one open page. All methods may be called from any thread.

    models, folder: those of the studio.

    Attributes: `look`, the current settings (it may be replaced at any time); `files`, the pictures and recordings that
    were saved by this page.
    """

    def __init__(self, models: Models, folder: Folder) -> None:
        from perceptual.motion import Steady
        from perceptual.webcam import Pace

        self.models, self.folder = models, folder
        self.look, self.files = Look(), list[Path]()
        self._busy = threading.Lock()
        self._pace, self._steady = Pace(WebcamConfig.fps, LARGEST, smallest=SMALLEST), Steady(0)
        self._painted: Tensor | None = None
        self._last: tuple[object, ...] = ()
        self._recorder: Recorder | None = None
        self._seen = time.monotonic()

    def paint(self, picture: str, longest: float, took: float | None) -> dict[str, Any]:
        """Paint a camera image.

        picture: a JPEG as a data URL. longest: longer side of the camera's images in pixels. took: for the previous
        image, the seconds between the camera image and its display in the page; None for the first image.

        Returns a dictionary: `picture`, the painted image as a data URL; `side`, the longer side of the next image to
        send; `recording`, the seconds of the running recording, None if there is none.

        Raises:
            PerceptualError: this is not a JPEG, or it cannot be painted or recorded.
        """
        pixels = _decoded(picture)
        with self._busy:
            look = self.look
            painted = self._paint(pixels, look)
            self._painted, self._seen = painted, time.monotonic()
            if self._recorder is not None:
                self._record(painted)
            self._pace.largest = round(min(LARGEST, max(SMALLEST, longest)))
            if took is not None and self._recorder is None:  # frames of a recording keep their size
                self._pace(min(10.0, max(1e-3, took)))
            side = max(pixels.shape[-2:]) if self._recorder else min(look.size or self._pace.side, self._pace.largest)
            return {"picture": shown.data_url(painted), "side": side, "recording": self.recorded}

    def _paint(self, pixels: Tensor, look: Look) -> Tensor:
        from perceptual.motion import Steady

        choice = Paint(styles={look.style: 1.0}, strength=look.strength, keep_colors=look.keep_colors)
        if self._last != (look, pixels.shape):
            self._last, self._steady = (look, pixels.shape), Steady(look.steady)
        return self._steady(pixels, self.models.frame(pixels, choice))

    def take(self) -> Path:
        """Save the newest painted frame as PNG.

        Raises:
            ConfigError: there is no painted frame yet. OutputError: the file cannot be written.
        """
        with self._busy:
            if self._painted is None:
                raise ConfigError("Start the camera first.")
            path = self.folder.new(f"camera_{self.look.style}", ".png")
            images.write(path, images.Picture(self._painted))
            self.files.append(path)
            return path

    def record(self) -> None:
        """Start a recording, unless one is running.

        Raises:
            ConfigError: the camera is not running. VideoError: PyAV is not installed.
        """
        from perceptual.video import Recorder

        with self._busy:
            if self._painted is None or time.monotonic() - self._seen > IDLE:
                raise ConfigError("Start the camera first.")
            if self._recorder is None:
                self._recorder = Recorder(self.folder.new(f"camera_{self.look.style}", ".mp4"), VideoConfig())
                self._seen = time.monotonic()

    def stop(self) -> None:
        """End the recording and complete its file. Does nothing if there is no recording.

        Raises:
            OutputError: the file cannot be written.
        """
        with self._busy:
            self._stop()

    def check(self) -> None:
        """End the recording if there was no frame for IDLE seconds."""
        with self._busy:
            if time.monotonic() - self._seen > IDLE:
                self._stop()

    @property
    def recorded(self) -> float | None:
        """Length of the running recording in seconds; None if there is none."""
        return None if self._recorder is None else round(self._recorder.seconds, 1)

    def _record(self, painted: Tensor) -> None:
        assert self._recorder is not None
        try:
            self._recorder.write(painted, time.monotonic())
        except PerceptualError:
            self._recorder = None
            raise
        if self._recorder.seconds >= LONGEST:
            self._stop()

    def _stop(self) -> None:
        recorder, self._recorder = self._recorder, None
        path = recorder.finish() if recorder is not None else None
        if path is not None:
            self.files.append(path)


class Cameras:
    """The clients of all open pages. Each has a secret random name."""

    def __init__(self, models: Models, folder: Folder) -> None:
        self._models, self._folder = models, folder
        self._clients: OrderedDict[str, Client | None] = OrderedDict()  # None: its camera was not used yet
        self._changed = threading.Condition()
        self._closed = False
        self._watching: threading.Thread | None = None

    def new(self) -> str:
        """Register a page that was opened, and return the name of its client."""
        name, forgotten = secrets.token_urlsafe(18), None
        with self._changed:
            self._clients[name] = None
            if len(self._clients) > CLIENTS:
                _, forgotten = self._clients.popitem(last=False)
        if forgotten is not None:
            with suppress(PerceptualError):  # its page is closed
                forgotten.stop()
        return name

    def find(self, name: object) -> Client:
        """The client with this name.

        Raises:
            ConfigError: there is no such client.
        """
        with self._changed:
            if not isinstance(name, str) or name not in self._clients:
                raise ConfigError("This page is too old: load it again.")
            client = self._clients[name] or Client(self._models, self._folder)
            self._clients[name] = client
            return client

    def watch(self) -> None:
        """Start the thread that ends the recordings of closed pages."""
        with self._changed:
            if self._watching is None and not self._closed:
                self._watching = threading.Thread(target=self._watch, name="cameras", daemon=True)
                self._watching.start()

    def close(self) -> None:
        """End all recordings and complete their files."""
        with self._changed:
            self._closed = True
            clients = self._used()
            self._clients.clear()
            self._changed.notify_all()
        for client in clients:
            with suppress(PerceptualError):  # the disk is full
                client.stop()

    def _used(self) -> list[Client]:
        return [client for client in self._clients.values() if client is not None]

    def _watch(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed, 1.0)
                clients = self._used()
                if self._closed or all(client.recorded is None for client in clients):
                    self._watching = None
                    return
            for client in clients:
                with suppress(PerceptualError):  # the disk is full, and its page is closed
                    client.check()


def _decoded(url: object) -> Tensor:
    """Decode a data URL: uint8 levels (1, 3, H, W).

    Raises:
        ImageError: this is not a JPEG in a data URL, or it is damaged, too small or too large.
    """
    if not isinstance(url, str) or not url.startswith("data:image/jpeg;base64,") or len(url) > _BYTES:
        raise ImageError("The browser sent no camera image: load the page again.")
    try:
        data = base64.b64decode(url.partition(",")[2], validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError("The browser sent no camera image: load the page again.") from error
    with decoding("The camera image"):
        image = codecs.identify(io.BytesIO(data), LARGEST * LARGEST).convert("RGB")
    if min(image.size) < 16:
        raise ImageError("The camera image is too small: choose a larger size.")
    return (images.from_any(image) * 255).round().byte()
