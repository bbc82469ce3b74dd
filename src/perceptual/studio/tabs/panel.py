"""The panel that each tab shows its jobs in: progress, newest picture, results, and a button that stops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from perceptual.studio import shown
from perceptual.studio.jobs import Job
from perceptual.studio.studio import Studio

Refresh = Callable[[Job | None], Sequence[Any]]


class Panel:
    """Progress of the newest job of one kind, with its results.

    kind: of the jobs. results: label of the files. more: further components that follow the job. refresh: the values of
    `more` for a job. stop: text of the button that stops the job.

    Attributes: `style_fields`, the lists of styles in this tab, which follow the own styles; `on_styles`, (function,
    inputs, outputs) to call when the own styles have changed.
    """

    def __init__(
        self,
        studio: Studio,
        kind: str,
        *,
        results: str,
        more: Sequence[Any] = (),
        refresh: Refresh | None = None,
        stop: str = "Stop",
    ) -> None:
        self.studio, self.kind = studio, kind
        self.progress = gr.HTML(elem_id=f"{kind}-progress")
        self.stop = gr.Button(stop, visible=False, variant="stop", elem_id=f"{kind}-stop")
        self.files = gr.File(
            label=results, visible=False, interactive=False, file_count="multiple", elem_id=f"{kind}-results"
        )
        self.seen = gr.State("")
        self.outputs = [self.seen, self.progress, self.stop, self.files]
        self.style_fields: list[Any] = []
        self.on_styles: tuple[Any, Any, Any] | None = None
        self._refresh: list[Refresh] = []
        if refresh is not None:
            self.add(more, refresh)
        self.stop.click(self._stop, None, None, api_visibility="private")

    def add(self, more: Sequence[Any], refresh: Refresh) -> None:
        """Let further components follow the job. refresh: their values for a job."""
        self.outputs += more
        self._refresh.append(refresh)

    def code(self) -> list[Any]:
        """Make the two fields for the command line and the Python code; `explained` handlers fill them."""
        with gr.Accordion("The same as a command and in Python", open=False):
            shell = gr.Code(label="Command", language="shell", interactive=False, elem_id=f"{self.kind}-command")
            python = gr.Code(label="Python", language="python", interactive=False, elem_id=f"{self.kind}-python")
        return [shell, python]

    def _stop(self) -> None:
        job = self.studio.jobs.latest(self.kind)
        if job is not None:
            job.stop()

    def update(self, seen: str) -> Sequence[Any]:
        """The values of `outputs`; nothing where the page shows the present state already."""
        jobs = self.studio.jobs
        job = jobs.latest(self.kind)
        version = shown.version(job, jobs)
        if version == seen:
            return [gr.skip() for _ in self.outputs]
        results = shown.files(job)
        return [
            version,
            shown.progress(job, jobs),
            gr.Button(visible=bool(job and job.active)),
            gr.File(value=results, visible=bool(results)),
            *(value for refresh in self._refresh for value in refresh(job)),
        ]
