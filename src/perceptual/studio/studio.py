"""The state of the server: settings, folder, networks and jobs. All open pages share it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from perceptual.apply import Model
from perceptual.apply.files import Outcome, Work, convert_files
from perceptual.config import StudioConfig, weight_paths
from perceptual.devices import choose_device
from perceptual.events import Step
from perceptual.losses.weights import locate
from perceptual.studio.folder import Folder
from perceptual.studio.jobs import Job, Jobs
from perceptual.studio.models import Models


@dataclass(frozen=True)
class Studio:
    """The settings, the folder, the networks and the jobs. All tabs share them."""

    config: StudioConfig
    folder: Folder
    models: Models
    jobs: Jobs
    closing: list[Callable[[], None]] = field(default_factory=list)
    """Functions of the tabs to call when the server ends."""

    @classmethod
    def open(cls, config: StudioConfig) -> Studio:
        """Make the studio for these settings.

        Raises:
            ConfigError, WeightsError: a part of `config.weights` has no "=", an unknown name, or a missing file; or
                this computer has no such device.
            OutputError: the folder cannot be written to.
        """
        for name, path in weight_paths(config.weights).items():
            locate(name, path)
        folder = Folder(config.folder)
        models = Models(folder, device=str(choose_device(config.device)), max_pixels=config.max_megapixels * 1_000_000)
        return cls(config, folder, models, Jobs())

    def close(self) -> None:
        """Stop all jobs (they save their states), call `closing`, and delete the uploads."""
        self.jobs.close()
        self.models.close()
        for close in self.closing:
            close()
        self.folder.clear_uploads()

    def kept(self, uploads: Sequence[Path]) -> list[Path]:
        """Copy uploaded files, so that a job can read them after the page was closed. Returns the copies."""
        kept = []
        for path in uploads:
            folder = self.folder.uploads / f"job-{path.parent.name}"
            folder.mkdir(exist_ok=True)
            target = folder / path.name
            if not target.exists():
                shutil.copyfile(path, target)
            kept.append(target)
        return kept


def apply_to_files(job: Job, model: Model[Any], pairs: Sequence[tuple[Path, Path]], options_for: Any) -> list[Path]:
    """Apply a model to files and keep their metadata, as the commands do. Returns the files that were written.

    job: its progress is updated, and each failed file adds a sentence to its message. pairs: (file to read, file to
    write). options_for: a function from height and width in pixels to the options of the model.
    """
    total, done = len(pairs), 0

    def convert(pixels: Tensor) -> Tensor:
        made: Tensor | None = None
        for step in model.run(pixels, options_for(*pixels.shape[-2:])):
            pieces = step.total or 1
            job.report(Step(done * pieces + step.index, total * pieces))
            made = step.result
        assert made is not None
        return made

    outcomes: list[Outcome] = []
    work = Work(
        convert,
        lambda height, width: model.size(height, width, options_for(height, width)),
        lambda alpha: model.apply_alpha(alpha, options_for(*alpha.shape[-2:])),
    )
    for outcome in convert_files(pairs, work):
        outcomes.append(outcome)
        done += 1
        job.results = tuple(Path(each.target) for each in outcomes if not each.error)
        name = Path(outcome.source).name
        if outcome.error:
            job.notes["failed"] = True
            job.say(outcome.error.replace(str(outcome.source), name))
        if outcome.frames > 1:
            job.say(f"{name} contains {outcome.frames} images: only the first one is used.")
        job.report(Step(done, total))
    return list(job.results)
