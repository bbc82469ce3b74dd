"""Figure 7: style transfer at 512 px by networks trained at a smaller size, next to the baseline."""

from __future__ import annotations

from collections.abc import Generator

from perceptual.events import Step
from perceptual.reproduce import sheets
from perceptual.reproduce.lab import Lab, Work
from perceptual.reproduce.report import Report

ABOUT = "results of both methods side by side at 512 px"
IGNORED = ()
DEFAULT, FULL = (Work(512, 2, 100),), (Work(512, 4, 500),)


def run(lab: Lab) -> Generator[Step, None, Report]:
    """Paint and draw. A generator of Steps that returns the Report."""
    paper = (
        "The networks are trained at 256 x 256 px and applied fully-convolutionally at 512 x 512 px: people and "
        "animals stay clearly recognizable, backgrounds are warped. The paper shows no baseline at this size."
    )
    plan = lab.plan(DEFAULT, FULL, one_size=True)
    return (yield from sheets.compare(lab, "figure7", plan, styles=sheets.STYLES[1:3], paper=paper))
