"""A live window: camera -> network -> screen. The size of the painted frames adapts to the speed of this computer.

`Camera` returns the newest frame, `Pace` chooses the size to paint at, `Window` shows the result and reads the keys,
and `run` connects them. The caller of `run` prints the messages and decides when to stop.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from perceptual import images
from perceptual.apply import Stylizer
from perceptual.config import WebcamConfig
from perceptual.errors import PerceptualError
from perceptual.functional import Array
from perceptual.motion import Steady, pixels_of, tensor_of
from perceptual.webcam.camera import Camera
from perceptual.webcam.pace import Pace
from perceptual.webcam.window import KEYS, Window

__all__ = ["KEYS", "Camera", "Look", "Pace", "Shown", "Window", "run"]

WAIT = 0.02
"""Seconds to wait for a frame before reading the keys again."""


@dataclass(frozen=True)
class Shown:
    """The state that `run` yields each time it has read the camera and the keys, with or without a new frame.

    index: number of painted frames shown so far. seconds: time that they took, without the time while frozen. width,
    height: size of the last painted frame in pixels. message: one sentence for the user, or None.
    """

    index: int
    seconds: float
    width: int
    height: int
    message: str | None = None


@dataclass(frozen=True)
class Look:
    """The options of `Stylizer.stylize` that keys can change.

    style: name of the style, None for the only one. strength: 0 to 1. keep_colors: keep the colours of the camera.
    """

    style: str | None
    strength: float
    keep_colors: bool

    def after(self, action: str, styles: Sequence[str | None]) -> Look:
        """The options after an action (a value of KEYS).

        next, previous: another one of `styles`. more, less: strength up or down by 0.1. colors: toggle `keep_colors`.
        Other actions change nothing.
        """
        if action in ("next", "previous"):
            step = 1 if action == "next" else -1
            return replace(self, style=styles[(styles.index(self.style) + step) % len(styles)])
        if action in ("more", "less"):
            strength = self.strength + (0.1 if action == "more" else -0.1)
            return replace(self, strength=min(1.0, max(0.0, round(strength, 2))))
        return replace(self, keep_colors=not self.keep_colors) if action == "colors" else self


def run(
    stylizer: Stylizer, camera: Camera, config: WebcamConfig, *, clock: Callable[[], float] = time.monotonic
) -> Generator[Shown, None, None]:
    """Paint the camera image in a window until the window is closed. Closing the generator closes the window too.

    clock: returns the time in seconds; it is used to measure frames per second.

    Raises:
        ConfigError: as `Window` and `Stylizer.stylize`. VideoError: the camera was disconnected.
    """
    show = _Show(stylizer, camera, config, clock)
    with Window(camera.width, camera.height) as window:
        while True:
            actions = window.actions()
            messages = [message for message in map(show.act, actions) if message]
            if "end" not in actions:
                frame = show.look(again=bool(actions))
                if frame is not None:
                    began = clock()
                    painting = show.paint(frame)
                    window.show(painting, show.title, keys=show.keys)
                    show.count(clock() - began)
            yield show.state(" ".join(messages))
            if "end" in actions or show.index == config.frames or (camera.over and not show.frozen):
                return


class _Show:
    """The state of a running window."""

    def __init__(self, stylizer: Stylizer, camera: Camera, config: WebcamConfig, clock: Callable[[], float]) -> None:
        self.stylizer, self.camera, self.config, self.clock = stylizer, camera, config, clock
        first = config.name
        if first is None and stylizer.styles and len(stylizer.blend) == 1:
            first = stylizer.styles[next(iter(stylizer.blend))]
        self.styles = [*([] if first in stylizer.styles else [first]), *stylizer.styles]
        self.want = Look(first, config.strength, config.keep_colors)
        longer = max(camera.width, camera.height)
        self.pace = Pace(config.fps, min(longer, config.size or longer))
        self.steady = Steady(config.steady)
        self.keys = self.frozen = False
        self.index, self.seconds, self.last = 0, 0.0, clock()
        self.stamps: deque[float] = deque(maxlen=16)
        self.frame: Array | None = None
        self.painting: Tensor | None = None
        self.painted: tuple[Look, int] | None = None  # options and size of the last painted frame

    def act(self, action: str) -> str | None:
        """Carry out the action of a key. Returns a message for the user, or None."""
        self.want = self.want.after(action, self.styles)
        if action == "save":
            return self.save()
        if action == "keys":
            self.keys = not self.keys
        if action == "freeze":
            self.frozen = not self.frozen
            self.camera.freeze(self.frozen)
            self.last = self.clock()
            self.stamps.clear()
        return None

    def look(self, *, again: bool) -> Array | None:
        """The next frame of the camera, (H, W, 3), or None. While frozen: the last frame if `again`, else None."""
        if self.frozen:
            time.sleep(0 if again else WAIT)
            return self.frame if again else None
        frame = self.camera.newest(WAIT)
        self.frame = self.frame if frame is None else frame
        return frame

    def paint(self, frame: Array) -> Array:
        """Paint a frame (H, W, 3) at the size that Pace has chosen: (h, w, 3)."""
        options = self.want, self.pace.side
        if self.painting is None or options != self.painted or not self.frozen:
            if options != self.painted:
                self.steady.reset()
            height, width = frame.shape[:2]
            height, width = images.scaled_size(height, width, self.pace.side / max(height, width))
            small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
            pixels = tensor_of(np.asarray(small, np.uint8))
            self.painting = self.steady(pixels, self.stylizer.stylize(pixels, **asdict(self.want)))
            self.painted = options
        return pixels_of(self.painting)

    def count(self, took: float) -> None:
        """Record that a new frame was shown. took: seconds to paint and show it."""
        if self.frozen:
            return
        now = self.clock()
        self.index, self.seconds, self.last = self.index + 1, self.seconds + now - self.last, now
        self.stamps.append(now)
        self.pace(took)

    def state(self, message: str) -> Shown:
        """The current state, for the caller of `run`."""
        height, width = self.painting.shape[-2:] if self.painting is not None else (0, 0)
        return Shown(self.index, self.seconds, width, height, message or None)

    def name(self, look: Look) -> str:
        """The name of the style to show to the user."""
        loaded = self.config.style
        return look.style or (Path(loaded).stem if os.path.isfile(os.path.expanduser(loaded)) else loaded)

    @property
    def title(self) -> str:
        """The title of the window."""
        past = self.stamps[-1] - self.stamps[0] if self.stamps else 0
        rate = f"{(len(self.stamps) - 1) / past:.0f} frames per second" if past else ""
        size = f"{self.painting.shape[-1]} x {self.painting.shape[-2]} px" if self.painting is not None else ""
        look = f"strength {self.want.strength:g}" + ", colours kept" * self.want.keep_colors
        return ", ".join(filter(None, (self.name(self.want), look, size, "frozen" if self.frozen else rate, "h: keys")))

    def save(self) -> str | None:
        """Save the image in the window under the first unused name. Returns a message for the user, or None."""
        if self.painting is None or self.painted is None:
            return None
        name = re.sub(r"[^\w-]+", "_", self.name(self.painted[0])).strip("_") or "painting"
        files = (self.config.out / f"{name}-{number}.png" for number in itertools.count(1))
        path = next(file for file in files if not os.path.lexists(file))
        try:
            images.write(path, images.Picture(self.painting))
        except PerceptualError as error:  # report it, but keep the window open
            return str(error)
        return f"Saved {path}."
