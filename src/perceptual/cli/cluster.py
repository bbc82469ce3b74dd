"""Files that lie in S3, or that a Ray cluster works on: what `stylize`, `upscale` and `video` share for them."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from perceptual.cli import results
from perceptual.cli.help import WrongCommandLine
from perceptual.cli.terminal import FAILED, INTERRUPTED, complain, say, stop_on_signal, tell
from perceptual.config import EngineConfig

if TYPE_CHECKING:
    from perceptual.apply import Outcome
    from perceptual.cluster import Naming, Results, Start


C = TypeVar("C", bound=EngineConfig)


def placed(config: C) -> C:
    """The same settings with absolute paths of network files, because workers run in other folders."""
    if config.engine == "local":
        return config
    style, network = getattr(config, "style", None), getattr(config, "network", None)
    changes: dict[str, Any] = {}
    if network is not None and os.path.isfile(network):
        changes["network"] = Path(network).absolute()
    if style is not None:
        whole = os.path.isfile(os.path.expanduser(style))  # a name of a file may hold commas
        changes["style"] = ",".join(map(_placed_style, [style] if whole else style.split(",")))
    return dataclasses.replace(config, **changes)


def _placed_style(part: str) -> str:
    """A part of a blend, such as mine.safetensors:0.5, with a whole path if it names a file."""
    for name, weight in ((part, ""), part.rpartition(":")[::2]):
        if os.path.isfile(path := os.path.expanduser(name)):
            return os.path.abspath(path) + (weight and f":{weight}")
    return part


def is_far(names: Sequence[str | Path | None], config: object) -> bool:
    """Whether this module has to do the work: a name is a URL such as s3://bucket/photos, or the engine is Ray."""
    if isinstance(config, EngineConfig) and config.engine == "ray":
        return True
    if not any(name is not None and ":/" in str(name) for name in names):
        return False  # without loading anything
    from perceptual.cluster import as_url

    return any(name is not None and as_url(name) is not None for name in names)


def run_far(inputs: Sequence[str], out: str | Path | None, config: Any, start: Start, naming: Naming) -> int:
    """Convert files by the engine that is wanted, and print what became of them; returns the exit code.

    config: the settings of the command, with `device` and `overwrite`, and those of `EngineConfig`. start: loads what
        the work needs. Outputs that exist are skipped, unless `overwrite`. The exit code is 1 if any file failed.
    """
    from perceptual import cluster

    if "-" in (*inputs, str(out)):
        raise WrongCommandLine("- (stdin, stdout) is for --engine local and files on this machine: give file names.")
    names = [cluster.without_file_scheme(name) for name in inputs]
    where = None if out is None else cluster.as_url(out) or cluster.without_file_scheme(str(out))
    plan = cluster.plan(names, where, naming, overwrite=config.overwrite)
    engine = config if isinstance(config, EngineConfig) else EngineConfig()
    if engine.engine == "ray":
        work = cluster.on_ray(plan.pairs, start, engine, config.device)
    else:
        work = cluster.work_here(plan.pairs, start)
    report = _Report(plan.total)
    for result in plan.done:
        report.add(result)
    with stop_on_signal() as stopping, closing(work):
        _follow(work, report, stopping)
    report.close()
    return INTERRUPTED if stopping else FAILED if report.failures else 0


def _follow(work: Results, report: _Report, stopping: list[int]) -> None:
    """Report results as they come, until a signal."""
    for result in work:
        if result is not None:
            report.add(result)
        if stopping:
            break


def only_first(source: object, count: int) -> str:
    """The sentence about a file of several pictures."""
    animated = str(source).lower().endswith((".gif", ".png", ".apng", ".webp", ".avif"))
    more = "; `perceptual video` does all" if animated else ". Save the others as files of their own"
    return f"{source} holds {count} pictures: only the first is used{more}."


class _Report:
    """Prints what became of each file, and at the end how many there were and which failed."""

    def __init__(self, total: int) -> None:
        self.total, self.count, self.written, self.skipped = total, 0, 0, 0
        self.failures: list[str] = []
        self.began = time.monotonic()

    def add(self, result: Outcome) -> None:
        """Print one result. A skipped one is only counted: a run that goes on may skip millions."""
        self.count += 1
        if results.wanted():  # for millions of files the entries need gigabytes
            results.add("files", entry_of(result))
        if result.error:
            self.failures.append(result.error)
            complain(f"[{self.count}/{self.total}] failed: {result.error}")
        elif result.skipped:
            self.skipped += 1
        else:
            self.written += 1
            if result.frames > 1 and not result.facts:
                say(only_first(result.source, result.frames))
            tell(result.target)
        if result.warning:
            self.failures.append(result.warning)
            complain(f"[{self.count}/{self.total}] {result.warning}")

    def close(self) -> None:
        """Print the numbers, and the failures once more."""
        took = time.monotonic() - self.began
        rest = self.total - self.count
        results.put(written=self.written, skipped=self.skipped, failed=len(self.failures), not_done=rest)
        say(
            f"{self.written} written, {self.skipped} skipped, {len(self.failures)} failed in {took:.1f} s "
            f"({self.written / max(took, 1e-3):.2f} per second)."
        )
        if rest:
            say(f"{rest} are not done: the same command does them.")
        for failure in self.failures:
            say(f"  failed: {failure}")


def entry_of(outcome: Outcome) -> dict[str, Any]:
    """The entry of one file in the document of --json. A failed file has no output, and a skipped one no size."""
    width, height = outcome.size or (None, None)
    return {
        "input": outcome.source,
        "output": None if outcome.error else outcome.target,
        "state": "failed" if outcome.error else "skipped" if outcome.skipped else "written",
        "reason": outcome.error or outcome.warning or ("The output exists." if outcome.skipped else None),
        "width": width,
        "height": height,
        "seconds": round(outcome.seconds, 3),
        **(outcome.facts or {"pictures_in_input": outcome.frames}),
    }
