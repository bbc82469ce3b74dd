"""Values for the page: images for the browser, the progress of jobs, and error messages."""

from __future__ import annotations

import base64
import functools
import html
import math
import re
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import gradio as gr
from torch import Tensor

from perceptual import images
from perceptual.errors import PerceptualError
from perceptual.studio.jobs import Job, Jobs

_P = ParamSpec("_P")
_T = TypeVar("_T")

PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
"""Settings of all events. Gradio's display of progress would cover the fields after an error."""
STATUS = {
    "waiting": "waits",
    "running": "is running",
    "done": "is finished",
    "failed": "failed",
    "stopped": "was stopped",
}


def data_url(pixels: Tensor) -> str:
    """An image (1, 3, H, W), in [0, 1] or uint8 levels, as a JPEG in a data URL."""
    return "data:image/jpeg;base64," + base64.b64encode(images.as_jpeg(pixels)).decode()


def explained(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Wrap an event handler, so that the page shows the message of a PerceptualError."""

    @functools.wraps(function)
    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return function(*args, **kwargs)
        except PerceptualError as error:
            raise gr.Error(html.escape(str(error)), duration=20, print_exception=False) from error

    return wrapper


def minutes(seconds: float) -> str:
    """Seconds as text: 45 s, 3 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def progress(job: Job | None, jobs: Jobs) -> str:
    """The state of a job as HTML: a bar, and sentences for the user."""
    if job is None:
        return ""
    lines = [f"<b>{html.escape(job.title)}</b> {STATUS[job.status]}."]
    if job.status == "waiting" and (ahead := jobs.ahead(job)):
        lines[0] = f"<b>{html.escape(job.title)}</b> waits for {ahead} job{'s' * (ahead > 1)} before it."
    bar = ""
    if job.status == "running":
        share = f' value="{job.index / job.total:.4f}"' if job.total else ""
        bar = f'<progress aria-label="progress"{share}></progress> '
        bar += f"{job.index} of {job.total}" if job.total else f"{job.index} done"
        if (left := job.seconds_left) is not None:
            bar += f", about {minutes(left)} left"
    elif job.seconds:
        lines[0] += f" It took {minutes(job.seconds)}."
    lines += [html.escape(line) for line in job.message.splitlines()[-6:]]
    return f'<div role="status">{"<br>".join(lines)}<br>{bar}</div>'


def version(job: Job | None, jobs: Jobs) -> str:
    """A text that changes when the result of `progress` changes."""
    if job is None:
        return "no job"
    second = int(job.seconds) if job.status == "running" else 0
    return f"{job.number} {job.status} {job.index} {second} {len(job.message)} {jobs.ahead(job)}"


def files(job: Job | None) -> list[str] | None:
    """The results of a job, as values of the file field."""
    return [str(path) for path in job.results] if job and job.results else None


def plot(kind: str, *, log: bool = False) -> gr.LinePlot:
    """The plot for `curves`, hidden as long as there are none. kind: the kind of the jobs."""
    title = "Losses, log10 of the share of the first value" if log else "Losses, as a share of the first value"
    return gr.LinePlot(
        x="step", y="value", color="term", title=title, height=220, visible=False, elem_id=f"{kind}-plot"
    )


def curves(job: Job | None, *, log: bool = False) -> Any:
    """The losses of a job as the lines of a plot, each as a share of its first value; hidden if there are none.

    log: show the decimal logarithm of the share. Optimisation lowers some losses a thousand times.
    """
    import pandas

    losses = job.losses if job else {}
    first = next(iter(list(losses.values())), {})
    rows = []
    for step, terms in list(losses.items()):
        for term, value in terms.items():
            if first.get(term) and (value > 0 or not log):
                share, name = value / first[term], re.sub(r"\S+:", "", term)
                rows.append({"step": step, "value": math.log10(share) if log else share, "term": name})
    return gr.LinePlot(value=pandas.DataFrame(rows) if rows else None, visible=bool(rows))
