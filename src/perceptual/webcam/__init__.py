"""A live window: camera -> network -> screen, as large as this computer can paint often enough.

`Camera` gives the newest picture, `Pace` chooses the size of its painting, `Window` shows it and has the keys, and
`run` joins them. The caller of `run` owns the terminal and the stopping.
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
"""Seconds to wait for a picture before looking at the keys again."""


@dataclass(frozen=True)
class Shown:
    """What `run` tells each time that it has looked at the camera and the keys, with a new painting or without.

    index: paintings shown so far. seconds: how long that took, times of freezing left out. width, height: of the last
    painting, in pixels. message: something worth telling a person, as one sentence.
    """

    index: int
    seconds: float
    width: int
    height: int
    message: str | None = None


@dataclass(frozen=True)
class Look:
    """How to paint: those options of `Stylizer.stylize` that have keys."""

    style: str | None
    strength: float
    keep_colors: bool

    def after(self, action: str, styles: Sequence[str | None]) -> Look:
        """The look after a key: next or previous of the styles, more or less of it, colors; others change nothing."""
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
    """Show what a camera sees as a painting until the window is closed; closing the generator closes it too.

    clock: seconds, for the size of the painting and the frames a second.

    Raises:
        ConfigError: as `Window` and `Stylizer.stylize`. VideoError: the camera has gone.
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
            yield show.told(" ".join(messages))
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
        self.painted: tuple[Look, int] | None = None  # how

    def act(self, action: str) -> str | None:
        """Do what a key asks for; a message, if there is something to tell."""
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
        """The camera's next picture, if there is one; while frozen the last one, if it is to be shown again."""
        if self.frozen:
            time.sleep(0 if again else WAIT)
            return self.frame if again else None
        frame = self.camera.newest(WAIT)
        self.frame = self.frame if frame is None else frame
        return frame

    def paint(self, frame: Array) -> Array:
        """The painting of a picture, (H, W, 3) to (h, w, 3), at the size that Pace has chosen."""
        how = self.want, self.pace.side
        if self.painting is None or how != self.painted or not self.frozen:
            if how != self.painted:
                self.steady.reset()
            height, width = frame.shape[:2]
            height, width = images.scaled_size(height, width, self.pace.side / max(height, width))
            small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
            pixels = tensor_of(np.asarray(small, np.uint8))
            self.painting = self.steady(pixels, self.stylizer.stylize(pixels, **asdict(self.want)))
            self.painted = how
        return pixels_of(self.painting)

    def count(self, took: float) -> None:
        """Note a new painting in the window, and the seconds that it took to make it."""
        if self.frozen:
            return
        now = self.clock()
        self.index, self.seconds, self.last = self.index + 1, self.seconds + now - self.last, now
        self.stamps.append(now)
        self.pace(took)

    def told(self, message: str) -> Shown:
        """How things are, for the caller."""
        height, width = self.painting.shape[-2:] if self.painting is not None else (0, 0)
        return Shown(self.index, self.seconds, width, height, message or None)

    def name(self, look: Look) -> str:
        """Of the style, for people."""
        loaded = self.config.style
        return look.style or (Path(loaded).stem if os.path.isfile(os.path.expanduser(loaded)) else loaded)

    @property
    def title(self) -> str:
        """What the window's title says."""
        past = self.stamps[-1] - self.stamps[0] if self.stamps else 0
        rate = f"{(len(self.stamps) - 1) / past:.0f} frames a second" if past else ""
        size = f"{self.painting.shape[-1]} x {self.painting.shape[-2]} px" if self.painting is not None else ""
        look = f"strength {self.want.strength:g}" + ", colours kept" * self.want.keep_colors
        return ", ".join(filter(None, (self.name(self.want), look, size, "frozen" if self.frozen else rate, "h: keys")))

    def save(self) -> str | None:
        """Write the painting in the window under the first name that is free; what to tell of it."""
        if self.painting is None or self.painted is None:
            return None
        name = re.sub(r"[^\w-]+", "_", self.name(self.painted[0])).strip("_") or "painting"
        files = (self.config.out / f"{name}-{number}.png" for number in itertools.count(1))
        path = next(file for file in files if not os.path.lexists(file))
        try:
            images.write(path, images.Picture(self.painting))
        except PerceptualError as error:  # which is no reason to close the window
            return str(error)
        return f"Saved {path}."
