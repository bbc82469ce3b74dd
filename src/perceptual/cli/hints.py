"""Hints before the work on a large picture, and print sizes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from perceptual.cli.terminal import say
from perceptual.config.stylize import LARGEST_STROKES
from perceptual.errors import ConfigError, shown

if TYPE_CHECKING:
    from perceptual.apply import Model

SMALL_STROKES = 1500
"""Longer side in pixels above which strokes look small."""
GOOD_STROKES = 1024
"""Longer side in pixels on which the strokes are as large as the hint suggests."""
MUCH_MEMORY = 1e9

_LENGTH = re.compile(r"(\d{1,9}(?:\.\d{0,9})?)\s*(cm|mm|in|px|)")
_PER_INCH = {"cm": 2.54, "mm": 25.4, "in": 1.0}


def pixels_of(length: str, dpi: float | None) -> int:
    """The pixels of a length such as 30cm, 12in, 300mm or 2000px at a resolution in pixels per inch.

    Raises:
        ConfigError: no length, none from 1 to 100,000 px, or a length of paper without a resolution.
    """
    found = _LENGTH.fullmatch(length.strip().lower())
    if found is None:
        raise ConfigError(f"width is {shown(length)}; give a length such as 30cm, 12in or 2000px.")
    number, unit = float(found[1]), found[2]
    if unit in _PER_INCH:
        if dpi is None:
            raise ConfigError(f"--width {length} needs the resolution of the print: add --dpi 300.")
        number *= dpi / _PER_INCH[unit]
    if not 1 <= round(number) <= 100_000:
        raise ConfigError(f"width is {shown(length)}, which is {number:,.0f} px; it must be 1 to 100,000 px.")
    return round(number)


class Hints:
    """What to say before the work on a large picture; each hint once in a run."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def before(self, model: Model[Any], height: int, width: int, options: Any) -> None:
        """Name the memory that a large picture needs, and the size of strokes that suits it."""
        size = model.size(height, width, options)
        if (needed := model.memory(height, width, options)) > MUCH_MEMORY:
            shape = f"{width} x {height} px"
            if size != (height, width):
                shape += f" that becomes {size[1]} x {size[0]} px"
            self._once("memory", f"A picture of {shape} needs about {needed / 1e9:.1f} GB of memory.")
        longer = max(size)
        if getattr(options, "style_scale", None) == 1 and longer > SMALL_STROKES:
            scale = min(LARGEST_STROKES, max(2, round(longer / GOOD_STROKES)))
            self._once(
                "strokes",
                f"Strokes will look small on {size[1]} x {size[0]} px: try --style-scale {scale}, which makes them as "
                f"large as on a picture of {round(longer / scale)} px.",
            )

    def _once(self, kind: str, text: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            say(text)
