"""The window and its keys."""

from __future__ import annotations

import os
from types import TracebackType

import cv2
import numpy as np

from perceptual.errors import ConfigError
from perceptual.functional import Array
from perceptual.webcam.camera import quiet

KEYS = {
    **{"right": "next", "n": "next", "left": "previous", "p": "previous", "up": "more", "down": "less"},
    **{"c": "colors", "space": "freeze", "s": "save", "h": "keys", "f1": "keys", "q": "end", "escape": "end"},
}
HELP = (
    *("left, right: another style", "up, down: strength", "c: keep the colours", "space: freeze"),
    *("s: save the image", "h: hide the keys", "q: quit"),
)


class Window:
    """A window that shows images of one aspect ratio. A context manager.

    Args:
        width, height: size of the images in pixels, and first size of the window, if the screen is large enough.

    Raises:
        ConfigError: pygame is not installed, or there is no screen.
    """

    def __init__(self, width: int, height: int) -> None:
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        try:
            import pygame
        except ImportError as error:
            raise ConfigError("A live window needs pygame: pip install 'perceptual[webcam]'.") from error
        self._pygame, self._shape = pygame, (width, height)
        self._shown: tuple[Array, bool] | None = None
        try:
            with quiet():
                pygame.display.init()
                pygame.font.init()
                if "SDL_VIDEODRIVER" not in os.environ and pygame.display.get_driver() in ("dummy", "offscreen"):
                    raise pygame.error("none found")
                across, down = pygame.display.get_desktop_sizes()[0]
                size = self._fitted(min(width, 0.9 * across), min(height, 0.9 * down))
                self._surface = pygame.display.set_mode(size, pygame.RESIZABLE)
            self._font = pygame.font.Font(None, 24)
            pygame.display.set_caption("perceptual")
        except pygame.error as error:
            pygame.quit()
            raise ConfigError(f"There is no screen for a window ({error}): start this on a desktop.") from error

    def __enter__(self) -> Window:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pygame.quit()

    def actions(self) -> list[str]:
        """The actions (values of KEYS) of the keys that were pressed since the last call."""
        found = []
        for event in self._pygame.event.get():
            if event.type == self._pygame.QUIT:
                found.append("end")
            elif event.type == self._pygame.KEYDOWN:
                found += [KEYS[name] for name in (self._pygame.key.name(event.key),) if name in KEYS]
            elif event.type in (self._pygame.WINDOWSIZECHANGED, self._pygame.WINDOWEXPOSED) and self._shown:
                self._draw(*self._shown)
        return found

    def show(self, painting: Array, title: str, *, keys: bool = False) -> None:
        """Show an image (H, W, 3), RGB, uint8, as large as the window allows.

        title: title of the window. keys: also show what the keys do.
        """
        if self._pygame.display.get_caption()[0] != title:
            self._pygame.display.set_caption(title)
        self._shown = painting, keys
        self._draw(painting, keys)

    def _draw(self, painting: Array, keys: bool) -> None:
        surface = self._surface
        across, down = surface.get_size()
        width, height = self._fitted(across, down)
        if (height, width) != painting.shape[:2]:
            way = cv2.INTER_CUBIC if width > painting.shape[1] else cv2.INTER_AREA
            painting = np.asarray(cv2.resize(painting, (width, height), interpolation=way), np.uint8)
        surface.fill("black")
        picture = self._pygame.image.frombuffer(painting.tobytes(), (width, height), "RGB")
        surface.blit(picture, ((across - width) // 2, (down - height) // 2))
        for row, line in enumerate(HELP if keys else ()):
            surface.blit(self._font.render(line, True, "white", "black"), (12, 12 + 24 * row))
        self._pygame.display.flip()

    def _fitted(self, across: float, down: float) -> tuple[int, int]:
        """The largest (width, height) of the image that fits into across x down pixels."""
        scale = min(across / self._shape[0], down / self._shape[1])
        return max(1, round(self._shape[0] * scale)), max(1, round(self._shape[1] * scale))
