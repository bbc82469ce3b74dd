"""Figure 7: style transfer at 512 px by networks trained at a smaller size, and the baseline beside them."""

from __future__ import annotations

from collections.abc import Generator

from perceptual.events import Step
from perceptual.reproduce import sheets
from perceptual.reproduce.lab import Lab, Work
from perceptual.reproduce.report import Report

ABOUT = "the same at 512 px"
DEFAULT, FULL = (Work(512, 2, 100),), (Work(512, 4, 500),)


def run(lab: Lab) -> Generator[Step, None, Report]:
    """Paint and draw; the value is the Report."""
    paper = (
        "The networks, trained at 256 x 256, are applied in a fully-convolutional manner at 512 x 512: people and "
        "animals stay clearly recognizable, backgrounds are warped. The paper shows no baseline there."
    )
    plan = lab.plan(DEFAULT, FULL, one_size=True)
    return (yield from sheets.compare(lab, "figure7", plan, styles=sheets.STYLES[1:3], paper=paper))
