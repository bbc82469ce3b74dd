"""Figure 5: the objective (eq. 5) against iterations of the baseline, with the photographs' own and our network's."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import torch

from perceptual.events import Step
from perceptual.reproduce.lab import Lab, Work, mean_and_deviation
from perceptual.reproduce.report import Report, new_figure

ABOUT = "objective against iterations of the baseline, and our network's (half an hour on two cores)"
NETWORK = "starry_night_solo"
DEFAULT = (Work(256, 4, 500), Work(512, 2, 120), Work(1024, 1, 50))
FULL = tuple(Work(size, 50, 500) for size in (256, 512, 1024))


class Panel:
    """What is measured at one size: values of the objective, one for each photograph, and the baseline's curves."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.own: list[float] = []
        self.ours: list[float] = []
        self.curves: list[list[float]] = []

    @property
    def length(self) -> int:
        """Iterations that all curves have; one that ended before keeps its last value."""
        return max(map(len, self.curves))

    def at(self, iteration: int) -> list[float]:
        """The baseline's objective after so many iterations, by photograph."""
        return [curve[min(iteration, len(curve) - 1)] for curve in self.curves]

    def mean(self, iteration: int) -> float:
        """The mean of `at`."""
        return mean_and_deviation(self.at(iteration))[0]

    @property
    def crossing(self) -> int | None:
        """The first iteration after which the baseline's mean objective is below our network's; None when none is."""
        goal = mean_and_deviation(self.ours)[0]
        return next((k for k in range(self.length) if self.mean(k) < goal), None)

    def summary(self) -> dict[str, Any]:
        """The line of the page's table."""
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
        """The lines of the CSV."""
        lines = [("photograph", "", self.own), ("network", "", self.ours)]
        lines += [("baseline", str(k), self.at(k)) for k in range(self.length)]
        keys = ("mean", "deviation")
        return [
            {"px": self.size, "what": what, "iteration": k, **dict(zip(keys, mean_and_deviation(v), strict=True))}
            | {"photographs": len(v)}
            for what, k, v in lines
        ]


def run(lab: Lab) -> Generator[Step, None, Report]:
    """Measure and draw; the value is the Report."""
    plan = lab.plan(DEFAULT, FULL)
    judge = lab.judge(NETWORK)
    yield from lab.fetch(judge.layers)
    lab.total = sum(work.images * work.iterations for work in plan)
    panels = []
    for work in plan:
        panel = Panel(work.size)
        for seed, (_, photograph) in enumerate(lab.photographs(work.images, work.size)):
            curve = yield from judge.curve(photograph, work.iterations, seed=seed)
            with torch.no_grad():
                objective = judge.objective(photograph)
                panel.own.append(objective(photograph)["total"].item())
                panel.ours.append(objective(judge.ours(photograph))["total"].item())
            panel.curves.append(curve.totals)
        panels.append(panel)
    crossings = [panel.summary()["iterations that equal it"] for panel in panels]
    sizes = ", ".join(f"{c} iterations at {p.size} px" for c, p in zip(crossings, panels, strict=True))
    counts = ", ".join(f"{w.images} at {w.size} px for {w.iterations} iterations" for w in plan)
    return Report(
        "figure5",
        f"Figure 5: the objective, by optimisation and by one pass of a network ({judge.style})",
        draw(panels),
        [row for panel in panels for row in panel.rows()],
        [panel.summary() for panel in panels],
        "Over 50 images of MS-COCO with Picasso's The Muse, the networks reach the objective of 50 to 100 iterations, "
        "at 256, 512 and 1024 px alike; most optimisations have converged at 500.",
        f"The baseline's mean objective falls below our network's after {sizes}.{plateau(panels[0])}",
        [
            f"Photographs: {lab.told_photographs()}, their middle squares; {counts} (the paper: 50 of MS-COCO, 500).",
            f"Style: {judge.stylizer.card.titles.get(judge.style, judge.style)} (the paper: The Muse, Picasso, which "
            "is not free).",
            *judge.set_up(),
            *lab.notes,
        ],
    )


def plateau(panel: Panel) -> str:
    """How much the last fifth of the iterations still brings."""
    last = panel.length - 1
    if last < 5:
        return ""
    before, after, start = panel.mean(last - last // 5), panel.mean(last), panel.mean(0)
    share = (before - after) / before
    return f" At {panel.size} px the last {last // 5} of {last} iterations lower it by {share:.1%} (from {start:.3g})."


def draw(panels: Sequence[Panel]) -> Any:
    """One plot for each size."""
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
