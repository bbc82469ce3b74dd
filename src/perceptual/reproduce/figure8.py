"""Figure 8: super-resolution x4 by pixel loss and by feature loss, on free samples or the sets of --photos."""

from __future__ import annotations

from collections.abc import Generator

from perceptual.events import Step
from perceptual.reproduce import super_resolution
from perceptual.reproduce.lab import Lab
from perceptual.reproduce.report import Report

ABOUT = "super-resolution x4 by pixel loss and by feature loss, measured"


def run(lab: Lab) -> Generator[Step, None, Report]:
    """Measure and draw; the value is the Report."""
    return (yield from super_resolution.run(lab, 4))
