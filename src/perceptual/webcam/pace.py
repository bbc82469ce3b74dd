"""Choosing the size of the painted frames so that the wanted frame rate is reached."""

from __future__ import annotations

import math
import statistics


class Pace:
    """Chooses the size of the painted frames from the time that the last ones took.

    Call it with the seconds that each frame took. It returns the longer side for the next frame in pixels: a multiple
    of 16, or a bound. It uses the median over the last frames of one size, without the first two, which are slow. After
    a size that was too slow it does not try a larger one for ten seconds, the next time for twenty, and so on, so that
    the size does not oscillate.

    Args:
        fps: wanted frames per second.
        largest, smallest: bounds of the longer side in pixels.
        start: longer side to start with.

    Attributes: `side`, the current longer side; `largest` and `smallest`, its bounds.
    """

    WARM, FEW, MANY = 2, 3, 24
    """Number of first frames of a size that are ignored; number that is always needed; number that is enough even if
    they took less than a second together."""
    AIM, STEP = 0.85, 1.1
    """Share of the available time per frame to aim for; smallest factor of size that is worth a change."""

    def __init__(self, fps: float, largest: int, *, start: int = 320, smallest: int = 160) -> None:
        self.largest, self.smallest = largest, min(smallest, largest)
        self.side = self._rounded(start)
        self._time_limit = 1 / fps
        self._times: list[float] = []
        self._rest, self._next_rest = 0, round(10 * fps)  # frames

    def __call__(self, seconds: float) -> int:
        """Record the time of one frame in seconds; returns the longer side for the next frame in pixels."""
        self._rest -= 1
        self._times.append(seconds)
        seen = self._times[self.WARM :]
        if len(seen) < self.FEW or (len(seen) < self.MANY and sum(seen) < 1):
            return self.side
        self._times = self._times[: self.WARM]
        usual = max(statistics.median(seen), 1e-6)
        fitting = self._rounded(self.side * math.sqrt(self.AIM * self._time_limit / usual))
        if usual > self._time_limit and self.side > self.smallest:
            self._rest, self._next_rest = self._next_rest, 2 * self._next_rest
            self.side, self._times = min(fitting, self._rounded(self.side - 1)), []
        elif fitting >= self.STEP * self.side and self._rest <= 0:
            self.side, self._times = fitting, []
        return self.side

    def _rounded(self, side: float) -> int:
        """Round down to a multiple of 16, within the bounds."""
        return self.largest if side >= self.largest else max(self.smallest, int(side) // 16 * 16)
