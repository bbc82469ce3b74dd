"""The experiments of the paper, one command each: figures 3 to 9, Table 1, and the supplement's figures 2 to 4.

An experiment is a module with ABOUT, one line of text; IGNORED, the settings of `ReproduceConfig` without an effect on
it; and `run(lab)`, a generator of Steps that returns a Report.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from perceptual.checkpoints import gallery, written_as
from perceptual.config import ReproduceConfig
from perceptual.errors import ConfigError
from perceptual.events import Step
from perceptual.files import check_folder
from perceptual.reproduce import (
    figure3,
    figure4,
    figure5,
    figure6,
    figure7,
    figure8,
    figure9,
    supplement_figure2,
    supplement_figure3,
    supplement_figure4,
    table1,
)
from perceptual.reproduce.lab import Lab
from perceptual.reproduce.report import check_out, non_default_settings, write

EXPERIMENTS: dict[str, ModuleType] = {
    "figure3": figure3,
    "figure4": figure4,
    "figure5": figure5,
    "figure6": figure6,
    "figure7": figure7,
    "figure8": figure8,
    "figure9": figure9,
    "table1": table1,
    "supplement-figure2": supplement_figure2,
    "supplement-figure3": supplement_figure3,
    "supplement-figure4": supplement_figure4,
}


def find_experiment(name: str) -> ModuleType:
    """The experiment with this name, a key of EXPERIMENTS.

    Raises:
        ConfigError: there is none.
    """
    if name not in EXPERIMENTS:
        raise ConfigError(f"There is no experiment {name!r}; choose one of {', '.join(EXPERIMENTS)}.")
    return EXPERIMENTS[name]


def reproduce(
    name: str,
    out: str | Path,
    config: ReproduceConfig | None = None,
    *,
    paths: Mapping[str, Path] | None = None,
    overwrite: bool = False,
) -> Generator[Step, None, list[Path]]:
    """Run an experiment of the paper. A generator of Steps that returns the written files, the page first.

    After an interruption, the same call continues from the finished parts.

    name: a key of EXPERIMENTS. out: the folder to write to. paths: weight files by loss network. overwrite: replace
        files of these names in `out` that no earlier run of this experiment wrote.

    Raises:
        ConfigError: there is no such experiment, or a setting is invalid for it or has no effect on it.
        WeightsError, CheckpointError, ImageError: a file that the experiment needs is missing or damaged.
        OutputError: a file would be replaced, or `out` cannot be written.
    """
    experiment = find_experiment(name)
    check_out(name, Path(out), overwrite=overwrite)
    config = config or ReproduceConfig()
    config = replace(config, styles=tuple(written_as(style, gallery()) or style for style in config.styles))
    changed = non_default_settings(config)
    if unused := [each for each in experiment.IGNORED if changed.get(each)]:
        raise ConfigError(f"--{unused[0]} has no effect on {name}: leave it out.")
    steps = experiment.run(Lab(config, Path(out), paths or {}))
    first = next(steps)  # errors in the settings are raised here, before the folder is created
    check_folder(out)
    yield first
    report = yield from steps
    return write(report, Path(out), config)
