"""Table 1: seconds for an image, by our network and by 100, 300 and 500 iterations of the baseline; the speed-up."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from perceptual import checkpoints
from perceptual.config import to_dict
from perceptual.errors import TrainingError
from perceptual.events import Step
from perceptual.reproduce.lab import Judge, Lab, Work
from perceptual.reproduce.report import Report, machine, new_figure

ABOUT = "seconds for an image by both methods, and the speed-up, on this computer"
NETWORK = "starry_night_solo"
COUNTS = (100, 300, 500)
PAPER = {256: (0.015, 15.86), 512: (0.05, 54.85), 1024: (0.21, 214.44)}  # seconds, Titan X: ours, 500 iterations
DEFAULT = (Work(256, 1, 20), Work(512, 1, 10), Work(1024, 1, 5))
FULL = tuple(Work(size, 1, 500) for size in PAPER)


def run(lab: Lab) -> Generator[Step, None, Report]:
    """Time and draw; the value is the Report."""
    plan = lab.plan(DEFAULT, FULL)
    judge = lab.judge(NETWORK)
    yield from lab.fetch(judge.layers)
    lab.total = sum(work.iterations for work in plan)
    rows = []
    for work in plan:
        ((_, photograph),) = lab.photographs(1, work.size)
        times = yield from _times(judge, photograph, work)
        rows.append(_row(work.size, times))
    measured = ", ".join(f"{work.iterations} at {work.size} px" for work in plan)
    return Report(
        "table1",
        "Table 1: seconds for an image",
        _draw(rows),
        rows,
        rows,
        "On a GTX Titan X a network takes 0.015, 0.05 and 0.21 s at 256, 512 and 1024 px, the baseline 15.86, 54.85 "
        "and 214.44 s for 500 iterations: three orders of magnitude; a pass takes about half the time of an iteration.",
        f"Medians of passes and iterations taken in turn, {measured}; where fewer iterations were run than the column "
        "says, the median of one times their number. The set-up (loading, the target's features) counts on no side.",
        [
            f"Machine: {machine(lab.config.device)}; the ratios are comparable, the seconds are not.",
            *judge.set_up(),
            *lab.notes,
        ],
    )


@dataclass(frozen=True)
class _Times:
    """What is kept of a measurement: seconds of each iteration and of each pass."""

    times: Mapping[str, Sequence[float]]


def _times(judge: Judge, photograph: Tensor, work: Work) -> Generator[Step, None, dict[str, list[float]]]:
    """Seconds of iterations of the baseline, and of a pass of the network after each."""
    lab = judge.lab
    network = to_dict(judge.stylizer.network.config)
    identity = {"network": network, "loss": to_dict(judge.loss), "weights": lab.hashes(judge.layers), **work._asdict()}
    file = lab.part("times", {**identity, "machine": machine(lab.config.device)})
    kept = lab.kept(file, _Times)
    if kept is not None and all(kept[1].times.get(name) for name in ("network", "iterations")):
        lab.done += work.iterations
        yield Step(lab.done, lab.total)
        return {name: list(values) for name, values in kept[1].times.items()}
    passes, iterations = [], []
    steps = judge.baseline(photograph, work.iterations).run()
    next(steps)  # the objective at white noise, and the set-up
    judge.ours(photograph)
    for index in itertools.count(1):
        began = time.perf_counter()
        step = next(steps, None)
        if step is None or step.message or index > work.iterations:  # a message: no step is lower any more
            break
        iterations.append(time.perf_counter() - began)
        began = time.perf_counter()
        judge.ours(photograph)
        passes.append(time.perf_counter() - began)
        yield Step(lab.done + index, lab.total, step.losses)
    if not iterations:
        raise TrainingError("No iteration lowers the objective, so there is none to time: choose another network.")
    lab.done += work.iterations
    times = {"network": passes, "iterations": iterations}
    checkpoints.save_state(file, {}, {"times": times})
    return times


def _row(size: int, times: dict[str, list[float]]) -> dict[str, Any]:
    network, one = statistics.median(times["network"]), statistics.median(times["iterations"])
    spent = {n: sum(times["iterations"][:n]) if len(times["iterations"]) >= n else n * one for n in COUNTS}
    paper = PAPER.get(size)
    return {
        "px": size,
        "our network": network,
        "one iteration": one,
        **{f"{n} iterations": seconds for n, seconds in spent.items()},
        **{f"speed-up over {n}": seconds / network for n, seconds in spent.items()},
        "the paper's speed-up over 500": paper[1] / paper[0] if paper else "-",
        "a pass / an iteration": network / one,
    }


def _draw(rows: list[dict[str, Any]]) -> Any:
    figure = new_figure(5, 3.6)
    axis = figure.subplots()
    for key in ("our network", "one iteration", *(f"{n} iterations" for n in COUNTS)):
        axis.plot([row["px"] for row in rows], [row[key] for row in rows], "o-", label=key)
    axis.set(xscale="log", yscale="log", xlabel="side of the image, px", ylabel="seconds")
    axis.set_xticks([row["px"] for row in rows], [str(row["px"]) for row in rows])
    axis.minorticks_off()
    axis.legend(fontsize=8)
    return figure
