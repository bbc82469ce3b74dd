"""The supplement's Figure 4: one example of super-resolution x4 from each data set, with the paper's PSNR and SSIM."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

from perceptual.errors import ImageError
from perceptual.events import Step
from perceptual.measure.metrics import psnr
from perceptual.measure.super_resolution import Original, Sets, bicubic, pair
from perceptual.reproduce import super_resolution
from perceptual.reproduce.lab import Lab
from perceptual.reproduce.report import Report

ABOUT = "examples of super-resolution x4 from Set5, Set14 and BSD100, with the paper's numbers"
IGNORED = super_resolution.IGNORED
PAPER = {  # PSNR / SSIM by set and method
    "Set5": {
        "bicubic": (30.18, 0.8737),
        "pixel": (29.96, 0.8760),
        "srcnn": (32.00, 0.9026),
        "feature": (27.80, 0.8053),
    },
    "Set14": {
        "bicubic": (29.84, 0.8144),
        "pixel": (29.69, 0.8113),
        "srcnn": (31.20, 0.8394),
        "feature": (28.18, 0.7757),
    },
    "BSD100": {
        "bicubic": (32.48, 0.8575),
        "pixel": (32.30, 0.8568),
        "srcnn": (33.49, 0.8741),
        "feature": (30.85, 0.8125),
    },
}
NEAR = 0.05  # dB; an image is taken for the paper's if its PSNR by bicubic interpolation differs by less


def run(lab: Lab) -> Generator[Step, None, Report]:
    """Measure and draw. A generator of Steps that returns the Report."""
    report = yield from super_resolution.run(lab, 4, choose=_choose)
    found = {row["set"]: row["psnr"] for row in report.rows if row["method"] == "bicubic"}
    same = {name: PAPER[name] for name, value in found.items() if name in PAPER and _difference(name, value) < NEAR}
    others = [name for name in found if name not in same]
    return replace(
        report,
        name="supplement-figure4",
        title="Supplement, Figure 4: examples of super-resolution x4",
        table=super_resolution.by_picture(report.rows, same),
        paper="One image of each data set: SRCNN has the highest PSNR and SSIM, and feature loss the lowest.",
        differences=[
            *report.differences,
            "The paper does not name its images: the images shown here are those with the PSNR by bicubic "
            "interpolation that is closest to the printed one.",
            *[f"{name}: no image has the paper's PSNR by bicubic interpolation, so the paper's numbers are not shown."
              for name in others],
        ],
    )  # fmt: skip


def _choose(sets: Sets) -> Sets:
    """One image of each data set: the one that the paper shows, or the first if the paper shows none."""
    return {name: [_nearest(name, originals)] if name in PAPER else originals[:1] for name, originals in sets.items()}


def _nearest(name: str, originals: Sequence[Original]) -> Original:
    def difference(original: Original) -> float:
        try:
            high, low = pair(original, 4)
        except ImageError:  # `evaluate` reports it
            return float("inf")
        return _difference(name, psnr(bicubic(4)(low.expand(-1, 3, -1, -1)), high, border=4))

    return min(originals, key=difference)


def _difference(name: str, decibels: float) -> float:
    return abs(decibels - PAPER[name]["bicubic"][0])
