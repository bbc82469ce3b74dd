"""Figure 6: style transfer at 256 px by the baseline and by our network, side by side."""

from __future__ import annotations

from collections.abc import Generator

from perceptual.events import Step
from perceptual.reproduce import sheets
from perceptual.reproduce.lab import Lab, Work
from perceptual.reproduce.report import Report

ABOUT = "results of both methods side by side at 256 px"
IGNORED = ()
DEFAULT, FULL = (Work(256, 4, 150),), (Work(256, 3, 500),)


def run(lab: Lab) -> Generator[Step, None, Report]:
    """Paint and draw. A generator of Steps that returns the Report."""
    paper = "Four styles, three photos of MS-COCO each: the results are similar in quality to those of the baseline."
    return (
        yield from sheets.compare(
            lab, "figure6", lab.plan(DEFAULT, FULL, one_size=True), styles=sheets.STYLES, paper=paper
        )
    )
