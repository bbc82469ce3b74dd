"""The supplement's Figure 3: more examples of super-resolution x8, of BSD100 where --photos holds it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

from perceptual.events import Step
from perceptual.measure.super_resolution import Sets
from perceptual.reproduce import super_resolution
from perceptual.reproduce.lab import Lab
from perceptual.reproduce.report import Report

ABOUT = "more examples of super-resolution x8, of BSD100"


def run(lab: Lab) -> Generator[Step, None, Report]:
    """Measure and draw; the value is the Report."""
    report = yield from super_resolution.run(lab, 8, choose=_some)
    return replace(
        report,
        name="supplement-figure3",
        title="Supplement, Figure 3: more examples of super-resolution x8",
        table=super_resolution.by_picture(report.rows, {}),
        paper="It shows pictures of BSD100 without numbers.",
        differences=[
            *report.differences,
            "Which pictures of BSD100 the paper shows is not printed: these are the first.",
        ],
    )


def _some(sets: Sets) -> Sets:
    """The first pictures of BSD100, or of what there is."""
    name = "BSD100" if "BSD100" in sets else next(iter(sets))
    return {name: sets[name][: super_resolution.SHOWN]}
