"""The tab Camera: paints the camera image of the browser live."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from perceptual.errors import PerceptualError
from perceptual.studio import snippets
from perceptual.studio.camera import LONGEST, Cameras, Look
from perceptual.studio.shown import PRIVATE, explained
from perceptual.studio.studio import Studio
from perceptual.studio.tabs.panel import Panel

SIZES = {"As large as runs smoothly": None, "320 px": 320, "480 px": 480, "640 px": 640, "960 px": 960, "1280 px": 1280}
NOTHING = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
"""A transparent pixel."""
TEMPLATE = f"""
<div class="camera">
  <figure><figcaption>Camera</figcaption><video muted playsinline aria-label="Camera"></video></figure>
  <figure><figcaption>Painted</figcaption><img src="{NOTHING}" alt="The painted camera image"></figure>
  <p role="status">The camera is off.</p>
</div>
"""
CSS = """
.camera { display: flex; flex-wrap: wrap; gap: 12px; }
figure { margin: 0; flex: 1 1 260px; }
figcaption { font-size: 0.9em; opacity: 0.8; margin-bottom: 4px; }
video, img { width: 100%; aspect-ratio: 4 / 3; object-fit: contain; background: #8882; border-radius: 8px; }
video { transform: scaleX(-1); }
p { flex-basis: 100%; margin: 0; min-height: 1.5em; }
"""


def build(studio: Studio) -> Panel:
    """Make the tab."""
    cameras = Cameras(studio.models, studio.folder)
    studio.closing.append(cameras.close)
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            live = _live(cameras)
            with gr.Row():
                start = gr.Button("Start the camera", variant="primary", elem_id="camera-start")
                stop = gr.Button("Stop the camera", elem_id="camera-stop")
            with gr.Row():
                take = gr.Button("Take a picture", elem_id="camera-take")
                record = gr.Button("Record", elem_id="camera-record")
                end = gr.Button("Stop recording", variant="stop", visible=False, elem_id="camera-end")
            panel = Panel(studio, "camera", results="Pictures and recordings")
            code = panel.code()
        with gr.Column(scale=1, min_width=300):
            choice = _choice(list(studio.models.styles()))
    panel.style_fields = choice[:1]
    work = _Work(studio, cameras)
    for button in (start, stop):
        event = f"() => document.querySelector('#camera-live .camera').dispatchEvent(new Event('{button.elem_id}'))"
        button.click(None, None, None, js=event, **PRIVATE)
    changed = [part.change for part in choice]
    gr.on(changed, explained(work.choose), [live, *choice], code, trigger_mode="always_last", **PRIVATE)
    shown = [record, end, panel.files]
    take.click(explained(work.take), live, shown, **PRIVATE)
    record.click(explained(work.record), live, shown, **PRIVATE)
    for ended in (end.click, live.ended):
        ended(explained(work.end), live, shown, **PRIVATE)
    return panel


def _live(cameras: Cameras) -> Any:
    """The camera image and its painting."""
    return gr.HTML(
        cameras.new,
        html_template=TEMPLATE,
        css_template=CSS,
        js_on_load=Path(__file__).with_name("camera.js").read_text(encoding="utf-8"),
        server_functions=[_server(cameras)],
        elem_id="camera-live",
    )


def _choice(names: list[str]) -> list[Any]:
    """The input fields for `Look`, in the order of its fields."""
    look = Look()
    return [
        gr.Radio(names, value=look.style, label="Style", elem_id="camera-style"),
        gr.Slider(0, 1, look.strength, step=0.05, label="Strength", elem_id="camera-strength"),
        gr.Checkbox(look.keep_colors, label="Keep the colours of the camera", elem_id="camera-colors"),
        gr.Slider(0, 0.9, look.steady, step=0.05, label="Steadiness (less flicker)", elem_id="camera-steady"),
        gr.Dropdown(
            list(SIZES), value="As large as runs smoothly", label="Size of the painted frames", elem_id="camera-size"
        ),
    ]


def _server(cameras: Cameras) -> Any:
    """The function that the page calls with each camera image."""

    def camera_frame(sent: Any) -> dict[str, Any]:
        if not isinstance(sent, dict):
            return {"error": "The browser sent no camera image: load the page again."}
        longest, took = (
            float(value) if isinstance(value, int | float) and abs(value) < 1e6 else None
            for value in (sent.get("longest"), sent.get("took"))
        )
        try:
            return cameras.find(sent.get("client")).paint(sent.get("picture", ""), longest or 640.0, took)
        except PerceptualError as error:
            return {"error": str(error)}

    return camera_frame


class _Work:
    """The handlers of the tab."""

    def __init__(self, studio: Studio, cameras: Cameras) -> None:
        self.studio, self.cameras = studio, cameras

    def choose(self, name: str, style: str, strength: float, colors: bool, steady: float, size: str) -> tuple[str, str]:
        """Use these settings for the next frames. Returns the command line and the Python code."""
        look = Look(style, strength, bool(colors), steady, SIZES.get(size))
        config = look.config(self.studio.models.text({style: 1.0}))
        self.cameras.find(name).look = look
        return snippets.webcam(config)

    def take(self, name: str) -> list[Any]:
        """Save the newest painted frame."""
        client = self.cameras.find(name)
        client.take()
        return self._shown(name)

    def record(self, name: str) -> list[Any]:
        """Start a recording."""
        self.cameras.find(name).record()
        self.cameras.watch()
        gr.Info(f"Recording. It ends after {LONGEST / 60:.0f} minutes at the latest.", duration=4)
        return self._shown(name)

    def end(self, name: str) -> list[Any]:
        """End the recording."""
        self.cameras.find(name).stop()
        return self._shown(name)

    def _shown(self, name: str) -> list[Any]:
        """The new values of the buttons and the file field."""
        client = self.cameras.find(name)
        recording, files = client.recorded is not None, [str(path) for path in client.files]
        return [
            gr.Button(visible=not recording),
            gr.Button(visible=recording),
            gr.File(value=files or None, visible=bool(files), interactive=False),
        ]
