"""The page: its tabs, the list of jobs, and the clock that brings their progress."""

from __future__ import annotations

import html
import importlib
from collections.abc import Sequence
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
}
"""{title of a tab: module in `studio.tabs` that has `build`}."""
CLOCK = 1.0
"""Seconds between two looks at the jobs."""

CSS = """
.gradio-container { max-width: 1800px !important; }
progress { width: 60%; height: 0.8em; accent-color: var(--color-accent); }
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
    """Colours and fonts; the fonts are those of the computer."""
    fonts = ["system-ui", "sans-serif"]
    return gr.themes.Soft(primary_hue="indigo", font=fonts, font_mono=["ui-monospace", "monospace"])


def build(studio: Studio) -> Any:
    """The page with all its tabs, as `gradio.Blocks`."""
    with gr.Blocks(title="perceptual studio", analytics_enabled=False, fill_width=True) as page:
        gr.Markdown("# perceptual studio")
        with gr.Tabs(elem_id="tabs"):
            panels = [_tab(studio, title, module) for title, module in TABS.items()]
        with gr.Accordion("All jobs and where the results are", open=False, elem_id="jobs"):
            gr.Markdown(f"Results and own styles are kept in `{html.escape(str(studio.folder.path))}`.")
            listing = gr.HTML()
            stop = gr.Dropdown(label="Stop a job", choices=[], value=None, elem_id="jobs-stop")
        seen = gr.State("")

        def jobs(shown_before: str) -> Sequence[Any]:
            every = studio.jobs.all()
            version = " ".join(f"{job.number}{job.status}{job.index}" for job in every)
            if version == shown_before:
                return gr.skip(), gr.skip(), gr.skip()
            active = [(job.title, job.number) for job in every if job.active]
            return version, _listing(studio), gr.Dropdown(choices=active, value=None)

        def stopped(number: int | None) -> None:
            if number and (job := studio.jobs.find(number)):
                job.stop()

        stop.input(stopped, stop, None, api_visibility="private")
        clock = gr.Timer(CLOCK)
        hidden: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        for panel in panels:
            gr.on([clock.tick, page.load], panel.update, panel.seen, panel.outputs, **hidden)
        gr.on([clock.tick, page.load], jobs, seen, [seen, listing, stop], **hidden)
    return page


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
