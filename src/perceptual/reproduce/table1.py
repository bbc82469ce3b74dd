"""Table 1: seconds per image of a network and of 100, 300 and 500 iterations of the baseline, and the speed-up.

Two comparisons: first the paper's network in float32 against the paper's objective (VGG-16 up to relu4_3); second our
network, as it is normally used, against the objective that it was trained for.
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
from perceptual.reproduce.lab import Comparison, Lab, Work
from perceptual.reproduce.report import Report, machine, new_figure
from perceptual.tasks.style import Style

ABOUT = "seconds per image by both methods, and the speed-up, on this computer"
IGNORED = ("images",)
NETWORK = "starry_night_solo"
COUNTS = (100, 300, 500)
PAPER = {256: (0.015, 15.86), 512: (0.05, 54.85), 1024: (0.21, 214.44)}  # seconds, Titan X: ours, 500 iterations
DEFAULT = (Work(256, 1, 20), Work(512, 1, 10), Work(1024, 1, 5))
FULL = tuple(Work(size, 1, 500) for size in PAPER)


def run(lab: Lab) -> Generator[Step, None, Report]:
    """Measure the times and draw. A generator of Steps that returns the Report."""
    plan = lab.plan(DEFAULT, FULL)
    comparison = lab.comparison(NETWORK)
    yield from lab.fetch(comparison.layers)
    lab.total = sum(work.iterations for work in plan)
    rows = []
    papers = _papers_loss(lab)
    if papers is None:
        lab.notes.append(
            "The comparison with the paper's network is left out, because there are no weights of VGG-16 up to relu4_3 "
            "on this computer: `perceptual weights fetch vgg16-torchvision` downloads them."
        )
    for work in plan:
        ((_, photograph),) = lab.photographs(1, work.size)
        times = yield from _times(comparison, photograph, work, papers)
        rows.append(_row(work.size, times))
    measured = ", ".join(f"{work.iterations} at {work.size} px" for work in plan)
    return Report(
        "table1",
        "Table 1: seconds for an image",
        _draw(rows),
        rows,
        rows,
        "On a GTX Titan X a network takes 0.015, 0.05 and 0.21 s at 256, 512 and 1024 px. The baseline takes 15.86, "
        "54.85 and 214.44 s for 500 iterations: three orders of magnitude more. A pass of the network takes about half "
        "the time of an iteration.",
        f"Medians of alternating passes and iterations ({measured}). If fewer iterations were run than a column says, "
        "the value is the median of one iteration times this number. The set-up (loading, features of the target) is "
        "not counted for either method.",
        [
            f"Machine: {machine(lab.config.device)}.",
            "The columns of the paper's network: the paper's network (recipe paper; untrained, because the time does "
            "not depend on the weights), eager in float32, and iterations of the paper's objective. The other columns: "
            "our network, with fewer filters and in int8 if the processor supports it, and its own, smaller objective.",
            *comparison.describe_setup(),
            *lab.notes,
        ],
    )


@dataclass(frozen=True)
class _Times:
    """The saved numbers of a measurement: seconds of each iteration and of each pass."""

    times: Mapping[str, Sequence[float]]


def _papers_loss(lab: Lab) -> LossConfig | None:
    """The paper's objective, with a weight file of VGG-16 that includes relu4_3; None if there is none."""
    loss = Style.recipe("paper").loss
    layers = {split_layer(layer)[1] for layer in (*loss.content_layers, *loss.style_layers)}
    for network in ("vgg16", "vgg16-torchvision"):
        try:
            LossNetwork(network, sorted(layers), path=lab.paths.get(network))
        except WeightsError:
            continue
        content = tuple(f"{network}:{split_layer(layer)[1]}" for layer in loss.content_layers)
        style = tuple(f"{network}:{split_layer(layer)[1]}" for layer in loss.style_layers)
        return LossConfig(content, style, loss.weighting, style_convention=loss.style_convention)
    return None


class _Papers:
    """The paper's network in float32, and iterations of the paper's objective, for one photo."""

    def __init__(self, comparison: Comparison, photograph: Tensor, work: Work, loss: LossConfig) -> None:
        self.device = comparison.stylizer.device
        self.network = channels_last(TransformationNetwork(Style.recipe("paper").network).eval().to(self.device))
        self.photograph = photograph.to(self.device)
        config = OptimizeConfig(
            size=None, iterations=work.iterations, preview_every=0, device=str(self.device), precision="float32"
        )
        style = photograph.flip(3)  # it does not matter for the time
        run: Optimization = optimize_style(photograph, style, loss=loss, config=config, paths=comparison.lab.paths)
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


def _identity(comparison: Comparison, work: Work, loss: LossConfig | None) -> dict[str, Any]:
    """Everything that the seconds depend on."""
    return {
        "network": to_dict(comparison.stylizer.network.config),
        "loss": to_dict(comparison.loss),
        "weights": comparison.lab.hashes(comparison.layers),
        **work._asdict(),
        "papers": loss and to_dict(loss),
        "machine": machine(comparison.lab.config.device),
    }


def _times(
    comparison: Comparison, photograph: Tensor, work: Work, loss: LossConfig | None
) -> Generator[Step, None, dict[str, list[float]]]:
    """Seconds of each iteration of the baseline and of a pass of the network after it, by name.

    With `loss` (the paper's objective), the paper's network and objective are timed too.
    """
    lab = comparison.lab
    file = lab.part("times", _identity(comparison, work, loss))
    kept = lab.load_part(file, _Times)
    if kept is not None and all(kept[1].times.get(name) for name in ("network", "iterations")):
        lab.done += work.iterations
        yield Step(lab.done, lab.total)
        return {name: list(values) for name, values in kept[1].times.items()}
    passes, iterations, papers_passes, papers_iterations = [], [], [], []
    papers = _Papers(comparison, photograph, work, loss) if loss else None
    steps = comparison.baseline(photograph, work.iterations).run()
    next(steps)  # the objective at white noise, and the set-up
    comparison.ours(photograph)
    for index in itertools.count(1):
        began = time.perf_counter()
        step = next(steps, None)
        if step is None or step.message or index > work.iterations:  # a message: no step lowers the objective
            break
        iterations.append(time.perf_counter() - began)
        passes.append(_timed(lambda: comparison.ours(photograph)))
        if papers is not None:
            papers_iterations.append(_timed(papers.iterate))
            papers_passes.append(_timed(papers.forward))
        yield Step(lab.done + index, lab.total, step.losses)
    if not iterations:
        raise TrainingError("No iteration lowers the objective, so there is nothing to time: choose another network.")
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
