"""The panel for the jobs of a tab: progress, results, and a stop button."""

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

    kind: the kind of the jobs. results: the label of the file field. more: further components that show the job.
    refresh: a function from a job to the new values of `more`. stop: the text of the stop button.

    Attributes: `style_fields`, the lists of styles in this tab (they are updated when the user's styles change);
    `on_styles`, (function, inputs, outputs) to call when the user's styles change, or None; `looks`, further
    things that the timer of the page updates, as (function, state, [state, other outputs ...]).
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
        self.looks: list[tuple[Callable[[Any], Sequence[Any]], Any, Sequence[Any]]] = []
        self._refresh: list[Refresh] = []
        if refresh is not None:
            self.add(more, refresh)
        self.stop.click(self._stop, None, None, api_visibility="private")

    def add(self, more: Sequence[Any], refresh: Refresh) -> None:
        """Add components that show the job. refresh: a function from a job to their new values."""
        self.outputs += more
        self._refresh.append(refresh)

    def code(self) -> list[Any]:
        """Make the two fields for the command line and the Python code. Event handlers fill them."""
        with gr.Accordion("The same as a command and in Python", open=False):
            shell = gr.Code(label="Command", language="shell", interactive=False, elem_id=f"{self.kind}-command")
            python = gr.Code(label="Python", language="python", interactive=False, elem_id=f"{self.kind}-python")
        return [shell, python]

    def _stop(self) -> None:
        job = self.studio.jobs.latest(self.kind)
        if job is not None:
            job.stop()

    def update(self, seen: str) -> Sequence[Any]:
        """The new values of `outputs`. They are not changed if the page already shows the state `seen`."""
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
