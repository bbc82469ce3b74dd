"""How large to paint, so that a frame takes no longer than it may."""

from __future__ import annotations

import math
import statistics


class Pace:
    """Chooses the size of the painting by the time that the last ones took.

    Call it with the seconds that each frame took; the result is the longer side for the next one, in pixels: a multiple
    of 16, or a bound. It goes by the median of the last frames of one size, without the first two, which are slow.
    After a size that was too slow it tries no larger one for ten seconds, the next time for twenty, and so on: it does
    not go up and down in turns.

    Attributes: `side`, the longer side at present; `largest` and `smallest`, its bounds.
    """

    WARM, FEW, MANY = 2, 3, 24
    """Frames of a size that do not count; that are needed, however slow; that are enough if they take no second."""
    AIM, STEP = 0.85, 1.1
    """Share of the time that a frame may take to aim at; how much larger a size must be to be worth a change."""

    def __init__(self, fps: float, largest: int, *, start: int = 320, smallest: int = 160) -> None:
        self.largest, self.smallest = largest, min(smallest, largest)
        self.side = self._rounded(start)
        self._may_take = 1 / fps
        self._times: list[float] = []
        self._rest, self._next_rest = 0, round(10 * fps)  # frames

    def __call__(self, seconds: float) -> int:
        """Note a frame; returns the longer side for the next."""
        self._rest -= 1
        self._times.append(seconds)
        seen = self._times[self.WARM :]
        if len(seen) < self.FEW or (len(seen) < self.MANY and sum(seen) < 1):
            return self.side
        self._times = self._times[: self.WARM]
        usual = max(statistics.median(seen), 1e-6)
        fitting = self._rounded(self.side * math.sqrt(self.AIM * self._may_take / usual))
        if usual > self._may_take and self.side > self.smallest:
            self._rest, self._next_rest = self._next_rest, 2 * self._next_rest
            self.side, self._times = min(fitting, self._rounded(self.side - 1)), []
        elif fitting >= self.STEP * self.side and self._rest <= 0:
            self.side, self._times = fitting, []
        return self.side

    def _rounded(self, side: float) -> int:
        """Down to a multiple of 16, within the bounds."""
        return self.largest if side >= self.largest else max(self.smallest, int(side) // 16 * 16)
