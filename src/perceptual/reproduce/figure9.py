"""Figure 9: super-resolution x8 with pixel loss and feature loss, on sample photos or the data sets of --photos."""

from __future__ import annotations

from collections.abc import Generator

from perceptual.events import Step
from perceptual.reproduce import super_resolution
from perceptual.reproduce.lab import Lab
from perceptual.reproduce.report import Report

ABOUT = "super-resolution x8 with pixel loss and with feature loss"
IGNORED = super_resolution.IGNORED


def run(lab: Lab) -> Generator[Step, None, Report]:
    """Measure and draw. A generator of Steps that returns the Report."""
    return (yield from super_resolution.run(lab, 8))
