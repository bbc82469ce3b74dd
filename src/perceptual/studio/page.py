"""The page: its tabs, the list of jobs, and the timer that updates them."""

from __future__ import annotations

import html
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from perceptual.studio import shown
from perceptual.studio.studio import Studio
from perceptual.studio.tabs.panel import Panel

TABS = {
    "Paint": "paint",
    "Own style": "own_style",
    "Enlarge": "enlarge",
    "Video": "video",
    "Camera": "camera",
    "By optimisation": "optimize",
    "Loss explorer": "explore",
}
"""{title of a tab: module in `studio.tabs` that has `build`}."""
CLOCK = 1.0
"""Seconds between two updates of the page."""

CSS = """
.gradio-container { max-width: 1800px !important; }
progress { width: 60%; height: 0.8em; accent-color: #6366f1; }
#paint-wall .caption-label { font-size: 0.7rem; padding: 1px 4px; }
footer { display: none !important; }
"""
PASTE = """
() => document.addEventListener('paste', event => {
  const pasted = [...event.clipboardData.files];
  const seen = input => input.offsetParent || input.closest('[id$=photos]')?.offsetParent;
  const open = [...document.querySelectorAll('input[type=file]')].find(seen);
  if (!pasted.length || !open) return;
  const files = new DataTransfer();
  pasted.forEach(file => files.items.add(file));
  open.files = files.files;
  open.dispatchEvent(new Event('change', { bubbles: true }));
})
"""


def theme() -> gr.themes.Base:
    """The colours and fonts of the page. The fonts are those of the user's computer."""
    fonts = ["system-ui", "sans-serif"]
    return gr.themes.Soft(primary_hue="indigo", font=fonts, font_mono=["ui-monospace", "monospace"])


Look = tuple[Callable[[Any], Sequence[Any]], Any, Sequence[Any]]
"""Something that the timer updates: (function, state, [state, other outputs ...]).

The function gets the state that the page shows now, and returns the new values of all outputs."""


def build(studio: Studio) -> Any:
    """Make the page with all its tabs, as `gradio.Blocks`."""
    with gr.Blocks(title="perceptual studio", analytics_enabled=False, fill_width=True) as page:
        gr.Markdown("# perceptual studio")
        with gr.Tabs(elem_id="tabs"):
            panels = [_tab(studio, title, module) for title, module in TABS.items()]
        looks: list[Look] = [(panel.update, panel.seen, panel.outputs) for panel in panels]
        looks += [_jobs(studio), _styles(studio, panels), *(look for panel in panels for look in panel.looks)]

        def look(*states: Any) -> Sequence[Any]:
            return [value for (update, _, _), state in zip(looks, states, strict=True) for value in update(state)]

        seen, outputs = [state for _, state, _ in looks], [output for _, _, each in looks for output in each]
        gr.on([gr.Timer(CLOCK).tick, page.load], look, seen, outputs, **shown.PRIVATE)
        page.load(studio.models.warm_up, None, None, **shown.PRIVATE)
    return page


def _jobs(studio: Studio) -> Look:
    """The list of all jobs."""
    with gr.Accordion("All jobs and where the results are", open=False, elem_id="jobs"):
        gr.Markdown(f"Results and own styles are kept in `{html.escape(str(studio.folder.path))}`.")
        listing = gr.HTML()
        stop = gr.Dropdown(label="Stop a job", choices=[], value=None, elem_id="jobs-stop")
    seen = gr.State("")

    def jobs(shown_before: str) -> Sequence[Any]:
        every = studio.jobs.all()
        version = "jobs " + " ".join(f"{job.number}{job.status}{job.index}" for job in every)
        if version == shown_before:
            return gr.skip(), gr.skip(), gr.skip()
        active = [(job.title, job.number) for job in every if job.active]
        return version, _listing(studio), gr.Dropdown(choices=active, value=None)

    def stopped(number: int | None) -> None:
        if number and (job := studio.jobs.find(number)):
            job.stop()

    stop.input(stopped, stop, None, api_visibility="private")
    return jobs, seen, [seen, listing, stop]


def _styles(studio: Studio, panels: Sequence[Panel]) -> Look:
    """The lists of styles in all tabs. They are updated when the user adds or deletes a style."""
    known = gr.State("\n".join(studio.models.styles()))
    fields = [field for panel in panels for field in panel.style_fields]

    def styles(shown_before: str) -> Sequence[Any]:
        names = list(studio.models.styles())
        if "\n".join(names) == shown_before:
            return [gr.skip() for _ in (known, *fields)]
        lists = [type(field)(choices=["", *names] if field.value == "" else names) for field in fields]
        return ["\n".join(names), *lists]

    for panel in panels:
        if panel.on_styles is not None:
            known.change(*panel.on_styles, **shown.PRIVATE)
    return styles, known, [known, *fields]


def _tab(studio: Studio, title: str, module: str) -> Panel:
    with gr.Tab(title, elem_id=f"tab-{module}"):
        panel: Panel = importlib.import_module(f"perceptual.studio.tabs.{module}").build(studio)
    return panel


def _listing(studio: Studio) -> str:
    """All jobs as an HTML list."""
    rows = []
    for job in studio.jobs.all():
        done = f", {job.index} of {job.total}" if job.status == "running" and job.total else ""
        results = ", ".join(html.escape(path.name) for path in job.results)
        rows.append(
            f"<li>{html.escape(job.title)} {shown.STATUS[job.status]}{done}{': ' + results if results else ''}</li>"
        )
    return f"<ol reversed>{''.join(rows)}</ol>" if rows else "<p>No jobs yet.</p>"
