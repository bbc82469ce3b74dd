"""The supplement's Figure 3: more examples of super-resolution x8, from BSD100 if --photos contains it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

from perceptual.events import Step
from perceptual.measure.super_resolution import Sets
from perceptual.reproduce import super_resolution
from perceptual.reproduce.lab import Lab
from perceptual.reproduce.report import Report

ABOUT = "more examples of super-resolution x8, from BSD100"
IGNORED = super_resolution.IGNORED


def run(lab: Lab) -> Generator[Step, None, Report]:
    """Measure and draw. A generator of Steps that returns the Report."""
    report = yield from super_resolution.run(lab, 8, choose=_some)
    return replace(
        report,
        name="supplement-figure3",
        title="Supplement, Figure 3: more examples of super-resolution x8",
        table=super_resolution.by_picture(report.rows, {}),
        paper="It shows images of BSD100 without numbers.",
        differences=[
            *report.differences,
            "The paper does not name its images of BSD100: the first ones are shown here.",
        ],
    )


def _some(sets: Sets) -> Sets:
    """The first images of BSD100, or of the first data set if BSD100 is missing."""
    name = "BSD100" if "BSD100" in sets else next(iter(sets))
    return {name: sets[name][: super_resolution.SHOWN]}
