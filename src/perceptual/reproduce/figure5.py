"""Figure 5: the objective (eq. 5) over the iterations of the baseline, compared with the photos and our network."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import torch

from perceptual.events import Step
from perceptual.reproduce.lab import Lab, Work
from perceptual.reproduce.report import Report, mean_and_deviation, new_figure

ABOUT = "the objective over iterations of the baseline, and of our network (half an hour on two cores)"
IGNORED = ()
NETWORK = "starry_night_solo"
DEFAULT = (Work(256, 4, 500), Work(512, 2, 120), Work(1024, 1, 50))
FULL = tuple(Work(size, 50, 500) for size in (256, 512, 1024))


class Panel:
    """The measurements at one size.

    Attributes: `own` and `ours`, the objective of each photo and of our network's result for it; `curves`, for each
    photo the objective of the baseline by iteration.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.own: list[float] = []
        self.ours: list[float] = []
        self.curves: list[list[float]] = []

    @property
    def length(self) -> int:
        """Number of values of the longest curve. A shorter curve keeps its last value."""
        return max(map(len, self.curves))

    def at(self, iteration: int) -> list[float]:
        """The objective of the baseline after a number of iterations, for each photo."""
        return [curve[min(iteration, len(curve) - 1)] for curve in self.curves]

    def mean(self, iteration: int) -> float:
        """The mean of `at`."""
        return mean_and_deviation(self.at(iteration))[0]

    @property
    def crossing(self) -> int | None:
        """The first iteration at which the mean objective of the baseline is below that of our network, else None."""
        ours = mean_and_deviation(self.ours)[0]
        return next((k for k in range(self.length) if self.mean(k) < ours), None)

    def summary(self) -> dict[str, Any]:
        """The row of the table on the page."""
        last = self.length - 1
        below = self.crossing
        return {
            "px": self.size,
            "photographs": len(self.ours),
            "at the photograph": mean_and_deviation(self.own)[0],
            "our network": mean_and_deviation(self.ours)[0],
            "its deviation": mean_and_deviation(self.ours)[1],
            "iterations that equal it": f"more than {last}" if below is None else below,
            "the paper's": "50 to 100",
            **{f"baseline at {k}": self.mean(k) if k <= last else "-" for k in (50, 100, 200, 300, 500)},
        }

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the CSV file."""
        lines = [("photograph", "", self.own), ("network", "", self.ours)]
        lines += [("baseline", str(k), self.at(k)) for k in range(self.length)]
        keys = ("mean", "deviation")
        return [
            {"px": self.size, "what": what, "iteration": k, **dict(zip(keys, mean_and_deviation(v), strict=True))}
            | {"photographs": len(v)}
            for what, k, v in lines
        ]


def run(lab: Lab) -> Generator[Step, None, Report]:
    """Measure and draw. A generator of Steps that returns the Report."""
    plan = lab.plan(DEFAULT, FULL)
    comparison = lab.comparison(NETWORK)
    yield from lab.fetch(comparison.layers)
    lab.total = sum(work.images * work.iterations for work in plan)
    panels = []
    for work in plan:
        panel = Panel(work.size)
        for seed, (_, photograph) in enumerate(lab.photographs(work.images, work.size)):
            curve = yield from comparison.curve(photograph, work.iterations, seed=seed)
            with torch.no_grad():
                objective = comparison.objective(photograph)
                panel.own.append(objective(photograph)["total"].item())
                panel.ours.append(objective(comparison.ours(photograph))["total"].item())
            panel.curves.append(curve.totals)
        panels.append(panel)
    crossings = [panel.summary()["iterations that equal it"] for panel in panels]
    sizes = ", ".join(f"{c} iterations at {p.size} px" for c, p in zip(crossings, panels, strict=True))
    counts = ", ".join(f"{w.images} at {w.size} px for {w.iterations} iterations" for w in plan)
    return Report(
        "figure5",
        f"Figure 5: the objective, by optimisation and by one pass of a network ({comparison.style})",
        draw(panels),
        [row for panel in panels for row in panel.rows()],
        [panel.summary() for panel in panels],
        "Over 50 images of MS-COCO with Picasso's The Muse, the networks reach the objective of 50 to 100 iterations "
        "at 256, 512 and 1024 px; most optimisations have converged after 500 iterations.",
        f"The mean objective of the baseline falls below that of our network after {sizes}.{plateau(panels[0])}",
        [
            f"Photos: {lab.describe_photographs()}, the middle squares; {counts} (the paper: 50 of MS-COCO, 500).",
            f"Style: {comparison.stylizer.card.titles.get(comparison.style, comparison.style)} (the paper: The Muse by "
            "Picasso, which is not free).",
            *comparison.describe_setup(),
            *lab.notes,
        ],
    )


def plateau(panel: Panel) -> str:
    """A sentence about how much the last fifth of the iterations lowers the objective; empty for short runs."""
    last = panel.length - 1
    if last < 5:
        return ""
    before, after, start = panel.mean(last - last // 5), panel.mean(last), panel.mean(0)
    share = (before - after) / before
    return f" At {panel.size} px the last {last // 5} of {last} iterations lower it by {share:.1%} (from {start:.3g})."


def draw(panels: Sequence[Panel]) -> Any:
    """A figure with one plot for each size."""
    figure = new_figure(4.2 * len(panels), 3.6)
    for axis, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        steps = range(panel.length)
        means, spreads = zip(*(mean_and_deviation(panel.at(k)) for k in steps), strict=True)
        axis.plot(steps, means, "C0", label="optimisation (Gatys et al.)")
        low = [max(m - s, 1e-9) for m, s in zip(means, spreads, strict=True)]
        axis.fill_between(steps, low, [m + s for m, s in zip(means, spreads, strict=True)], color="C0", alpha=0.2, lw=0)
        for values, colour, label in ((panel.own, "C1", "the photograph"), (panel.ours, "C2", "our network")):
            mean, spread = mean_and_deviation(values)
            axis.axhline(mean, color=colour, label=label)
            axis.axhspan(max(mean - spread, 1e-9), mean + spread, color=colour, alpha=0.15, lw=0)
        if panel.crossing is not None:
            axis.axvline(panel.crossing, color="C2", ls=":", lw=1)
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(lambda x, _: f"{x:g}" if f"{x:e}"[0] in "25" else "")
        axis.set(xlabel="iterations of L-BFGS", title=f"{panel.size} x {panel.size} px")
    figure.axes[0].set_ylabel("objective (eq. 5)")
    figure.axes[0].legend(fontsize=8)
    return figure
