"""What the tabs Paint and Enlarge share: the list of uploaded images, and the job that applies a model to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from perceptual.apply import Model, output_name
from perceptual.studio.folder import paths_of
from perceptual.studio.jobs import Job
from perceptual.studio.studio import Studio, apply_to_files


@dataclass(frozen=True, kw_only=True)
class Batch:
    """How a job and its results are named.

    kind: of the job. doing, noun, how: the parts of its title, as in "Painting 3 photos in wave". mark: added to the
    name of each result. archive: name of the ZIP file. ending: of the results; empty: that of the image.
    """

    kind: str
    doing: str
    noun: str
    how: str
    mark: str
    archive: str
    ending: str = ""


def listed(studio: Studio, files: list[str] | None) -> gr.Dropdown:
    """The list of uploaded images; the first one is chosen.

    Raises:
        ImageError: a file is not an image.
    """
    paths = paths_of(files)
    for path in paths:
        studio.models.size(path)
    choices = [(path.name, str(path)) for path in paths]
    return gr.Dropdown(choices=choices, value=str(paths[0]) if paths else None, visible=len(paths) > 1)


def add_job(studio: Studio, paths: Sequence[Path], model: Model[Any], options_for: Any, batch: Batch) -> None:
    """Start a job that applies a model to uploaded images. Several results are also put into a ZIP file.

    options_for: a function from height and width in pixels to the options of the model.
    """
    pairs = []
    for path in studio.kept(paths):
        ending = output_name(path, "", batch.ending).suffix.lower()
        pairs.append((path, studio.folder.new(f"{path.stem}_{batch.mark}", ending)))

    def work(job: Job) -> list[Path]:
        written = apply_to_files(job, model, pairs, options_for)
        if len(written) > 1:
            written.append(studio.folder.zip(written, batch.archive))
        return written

    what = paths[0].name if len(paths) == 1 else f"{len(paths)} {batch.noun}"
    studio.jobs.add(Job(f"{batch.doing} {what} {batch.how}", batch.kind, work))
