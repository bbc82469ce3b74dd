"""The command that repeats the paper's experiments: `perceptual reproduce NAME`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from perceptual.cli import results
from perceptual.cli.help import parse, words
from perceptual.cli.terminal import INTERRUPTED, say, stop_on_signal, tell, with_bar
from perceptual.config import ReproduceConfig, weight_paths
from perceptual.errors import ConfigError

if TYPE_CHECKING:
    from perceptual.events import Step


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Reproduce(ReproduceConfig):
    """Repeat an experiment of the paper: write its figure, its numbers, and a page that compares them with the paper.

    NAME is one of EXPERIMENTS. After an interruption, the same command continues from the finished parts.
    Example: perceptual reproduce figure5 --out figures/
    """

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """The figure or table."""
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))]
    """The folder to write to."""
    overwrite: bool = False
    """Replace files of the same names in --out that this command did not write."""


def reproduce(arguments: Sequence[str]) -> int:
    """perceptual reproduce NAME: run an experiment and write a page with its figure and numbers.

    Returns the exit code.
    """
    from perceptual.reproduce import EXPERIMENTS, find_experiment
    from perceptual.reproduce import reproduce as run

    listed = "; ".join(f"{name}: {module.ABOUT}" for name, module in EXPERIMENTS.items())
    _Reproduce.__doc__ = (_Reproduce.__doc__ or "").replace("EXPERIMENTS", listed)
    config = parse(_Reproduce, arguments, "reproduce")
    with words():
        find_experiment(config.name)
    if os.path.isfile(config.out):
        raise ConfigError(f"{config.out} is a file: give a folder to write to.")
    paths = weight_paths(config.weights)
    settings = ReproduceConfig(**{f.name: getattr(config, f.name) for f in dataclasses.fields(ReproduceConfig)})
    written: list[Path] = []

    def steps() -> Generator[Step, None, None]:
        written.extend((yield from run(config.name, config.out, settings, paths=paths, overwrite=config.overwrite)))

    with closing(steps()) as work, stop_on_signal() as stopping:
        for step in with_bar(work, config.name):
            if stopping and step.index != step.total:
                say("Stopped early; run the same command again to continue from the finished parts.")
                return INTERRUPTED
    results.put(name=config.name, outputs=written)
    for path in written:
        tell(path)
    return 0
