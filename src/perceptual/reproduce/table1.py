"""Table 1: seconds for an image, by a network and by 100, 300 and 500 iterations of the baseline; the speed-up.

Two comparisons: like for like, the paper's network in float32 against its loss network, VGG-16 to relu4_3; and our
network, as it paints, against the objective that it was trained for.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from perceptual import checkpoints
from perceptual.config import LossConfig, OptimizeConfig, to_dict
from perceptual.devices import channels_last
from perceptual.errors import TrainingError, WeightsError
from perceptual.events import Step
from perceptual.losses.networks import LossNetwork, split_layer
from perceptual.networks import TransformationNetwork
from perceptual.optimize import Optimization, optimize_style
from perceptual.reproduce.lab import Judge, Lab, Work
from perceptual.reproduce.report import Report, machine, new_figure
from perceptual.tasks.style import Style

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
    papers = _papers_loss(lab)
    if papers is None:
        lab.notes.append(
            "No weights of VGG-16 to relu4_3 are at hand, so the comparison like for like is left out: "
            "`perceptual weights fetch vgg16-torchvision` brings them."
        )
    for work in plan:
        ((_, photograph),) = lab.photographs(1, work.size)
        times = yield from _times(judge, photograph, work, papers)
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
            f"Machine: {machine(lab.config.device)}.",
            "Like for like: the paper's network (recipe paper, untrained: time does not depend on the weights), eager "
            "in float32, and iterations of its objective. The other columns compare our network, with fewer filters "
            "and 8 bits where the processor has them, with its own, lighter objective.",
            *judge.set_up(),
            *lab.notes,
        ],
    )


@dataclass(frozen=True)
class _Times:
    """What is kept of a measurement: seconds of each iteration and of each pass."""

    times: Mapping[str, Sequence[float]]


def _papers_loss(lab: Lab) -> LossConfig | None:
    """The paper's objective in VGG-16 weights that reach relu4_3; None where there are none."""
    loss = Style.recipe("paper").loss
    layers = {split_layer(layer)[1] for layer in (*loss.content_layers, *loss.style_layers)}
    for network in ("vgg16", "vgg16-torchvision"):
        try:
            LossNetwork(network, sorted(layers), path=lab.paths.get(network))
        except WeightsError:
            continue
        content, style = (
            (f"{network}:{split_layer(n)[1]}" for n in g) for g in (loss.content_layers, loss.style_layers)
        )
        return LossConfig(tuple(content), tuple(style), loss.weighting, style_convention=loss.style_convention)
    return None


class _Papers:
    """The paper's side: passes of its network in float32, and iterations of its objective on the same photograph."""

    def __init__(self, judge: Judge, photograph: Tensor, work: Work, loss: LossConfig) -> None:
        self.device = judge.stylizer.device
        self.network = channels_last(TransformationNetwork(Style.recipe("paper").network).eval().to(self.device))
        self.photograph = photograph.to(self.device)
        config = OptimizeConfig(size=None, iterations=work.iterations, preview_every=0, device=str(self.device))
        run: Optimization = optimize_style(
            photograph, photograph.flip(3), loss=loss, config=config, paths=judge.lab.paths
        )  # any style takes the same time
        self.steps = run.run()
        next(self.steps)
        self.forward()

    @torch.no_grad()
    def forward(self) -> None:
        """One pass of the network."""
        self.network(self.photograph).cpu()

    def iterate(self) -> None:
        """One iteration."""
        next(self.steps, None)


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _times(
    judge: Judge, photograph: Tensor, work: Work, loss: LossConfig | None
) -> Generator[Step, None, dict[str, list[float]]]:
    """Seconds of iterations of the baseline, and of a pass of the network after each; with `loss`, the paper's too."""
    lab = judge.lab
    network = to_dict(judge.stylizer.network.config)
    identity = {"network": network, "loss": to_dict(judge.loss), "weights": lab.hashes(judge.layers), **work._asdict()}
    identity["papers"] = loss and to_dict(loss)
    file = lab.part("times", {**identity, "machine": machine(lab.config.device)})
    kept = lab.kept(file, _Times)
    if kept is not None and all(kept[1].times.get(name) for name in ("network", "iterations")):
        lab.done += work.iterations
        yield Step(lab.done, lab.total)
        return {name: list(values) for name, values in kept[1].times.items()}
    passes, iterations, papers_passes, papers_iterations = [], [], [], []
    papers = _Papers(judge, photograph, work, loss) if loss else None
    steps = judge.baseline(photograph, work.iterations).run()
    next(steps)  # the objective at white noise, and the set-up
    judge.ours(photograph)
    for index in itertools.count(1):
        began = time.perf_counter()
        step = next(steps, None)
        if step is None or step.message or index > work.iterations:  # a message: no step is lower any more
            break
        iterations.append(time.perf_counter() - began)
        passes.append(_timed(lambda: judge.ours(photograph)))
        if papers is not None:
            papers_iterations.append(_timed(papers.iterate))
            papers_passes.append(_timed(papers.forward))
        yield Step(lab.done + index, lab.total, step.losses)
    if not iterations:
        raise TrainingError("No iteration lowers the objective, so there is none to time: choose another network.")
    lab.done += work.iterations
    times = {"network": passes, "iterations": iterations}
    if papers is not None:
        times |= {"paper's network": papers_passes, "paper's iterations": papers_iterations}
    checkpoints.save_state(file, {}, {"times": times})
    return times


def _row(size: int, times: dict[str, list[float]]) -> dict[str, Any]:
    network, one = statistics.median(times["network"]), statistics.median(times["iterations"])
    spent = {n: sum(times["iterations"][:n]) if len(times["iterations"]) >= n else n * one for n in COUNTS}
    paper = PAPER.get(size)
    like: dict[str, Any] = {}
    if times.get("paper's network"):
        papers, iteration = (statistics.median(times[name]) for name in ("paper's network", "paper's iterations"))
        like = {
            "the paper's network, float32": papers,
            "one iteration, VGG-16 to relu4_3": iteration,
            "like for like: speed-up over 500": 500 * iteration / papers,
        }
    return {
        "px": size,
        **like,
        "our network": network,
        "one iteration": one,
        **{f"{n} iterations": seconds for n, seconds in spent.items()},
        **{f"speed-up over {n}": seconds / network for n, seconds in spent.items()},
        "the paper's speed-up over 500": paper[1] / paper[0] if paper else "-",
        "a pass / an iteration": network / one,
    }


def _draw(rows: list[dict[str, Any]]) -> Any:
    figure = new_figure(7, 3.6)
    axis = figure.subplots()
    for key in ("our network", "one iteration", *(f"{n} iterations" for n in COUNTS)):
        axis.plot([row["px"] for row in rows], [row[key] for row in rows], "o-", label=key)
    for key in ("the paper's network, float32", "one iteration, VGG-16 to relu4_3"):
        if key in rows[0]:
            axis.plot([row["px"] for row in rows], [row[key] for row in rows], "s--", label=key)
    axis.set(xscale="log", yscale="log", xlabel="side of the image, px", ylabel="seconds")
    axis.set_xticks([row["px"] for row in rows], [str(row["px"]) for row in rows])
    axis.minorticks_off()
    axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure
