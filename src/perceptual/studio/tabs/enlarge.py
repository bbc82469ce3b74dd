"""The tab Enlarge: enlarges images. A magnified part compares the network with bicubic interpolation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from perceptual import images
from perceptual.errors import ConfigError
from perceptual.studio import snippets
from perceptual.studio.folder import paths_of
from perceptual.studio.shown import PRIVATE, explained
from perceptual.studio.studio import Studio
from perceptual.studio.tabs.batch import Batch, add_job, listed
from perceptual.studio.tabs.panel import Panel

SCALES = {"2 times": 2, "3 times": 3, "4 times": 4, "8 times": 8}
LOSSES = {
    "Automatic": "auto",
    "Exact (pixel loss)": "pixel",
    "Sharp (feature loss)": "feature",
    "Clean (compressed or noisy pictures)": "photo",
}
OVERVIEW = 640
"""Longer side in pixels of the overview image. The user clicks on it to choose a part."""


def build(studio: Studio) -> Panel:
    """Make the tab."""
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            photos = gr.File(
                label="Pictures: drop, paste or choose",
                file_count="multiple",
                file_types=["image"],
                elem_id="enlarge-photos",
            )
            photo = gr.Dropdown(label="Shown picture", choices=[], visible=False, elem_id="enlarge-photo")
            overview = gr.Image(
                label="Click where you want to look closely",
                interactive=False,
                height=320,
                buttons=[],
                elem_id="enlarge-overview",
            )
            scale = gr.Radio(list(SCALES), value="4 times", label="How much larger", elem_id="enlarge-scale")
            loss = gr.Radio(list(LOSSES), value="Automatic", label="Network", elem_id="enlarge-loss")
        with gr.Column(scale=3, min_width=300):
            compare = gr.ImageSlider(
                label="At 100 %: bicubic on the left, the network on the right",
                interactive=False,
                max_height=620,
                elem_id="enlarge-compare",
                buttons=["fullscreen"],
            )
            go = gr.Button("Enlarge the whole picture", variant="primary", elem_id="enlarge-go")
            panel = Panel(studio, "enlarge", results="Enlarged pictures")
            code = panel.code()
    _connect(_Work(studio), [photos, photo, overview, scale, loss, compare, code, go])
    return panel


def _connect(work: _Work, parts: list[Any]) -> None:
    """Connect the components with their handlers."""
    photos, photo, overview, scale, loss, compare, code, go = parts
    centre = gr.State((0.5, 0.5))
    live: dict[str, Any] = {**PRIVATE, "trigger_mode": "always_last", "queue": False}
    photos.change(explained(work.opened), photos, photo, **PRIVATE)
    photo.change(explained(work.overview), photo, [overview, centre], **PRIVATE)
    overview.select(explained(work.pointed), photo, centre, **PRIVATE)
    choice: list[Any] = [photo, centre, scale, loss]
    gr.on([part.change for part in choice], explained(work.magnified), choice, compare, **live)
    gr.on([photo.change, scale.change, loss.change], explained(work.snippets), [photo, scale, loss], code, **live)
    go.click(explained(work.enlarge), [photos, scale, loss], None, **PRIVATE)


class _Work:
    """The handlers of the tab."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def opened(self, files: list[str] | None) -> Any:
        """The list of images, after the user gave images."""
        return listed(self.studio, files)

    def overview(self, photo: str | None) -> Any:
        """The overview image, and its centre."""
        if not photo:
            return None, (0.5, 0.5)
        return images.to_array(self.studio.models.photo(Path(photo), OVERVIEW)), (0.5, 0.5)

    def pointed(self, photo: str | None, event: gr.SelectData) -> tuple[float, float]:
        """The position of a click, as shares of height and width."""
        if not photo:
            return 0.5, 0.5
        height, width = self.studio.models.photo(Path(photo), OVERVIEW).shape[-2:]
        return event.index[1] / height, event.index[0] / width

    def magnified(self, photo: str | None, centre: tuple[float, float], scale: str, loss: str) -> Any:
        """The chosen part, enlarged by bicubic interpolation and by the network."""
        if not photo:
            return None
        both = self.studio.models.magnified(Path(photo), centre, SCALES[scale], LOSSES[loss])
        return tuple(self.studio.folder.show(each) for each in both)

    def snippets(self, photo: str | None, scale: str, loss: str) -> tuple[str, str]:
        """The command line and the Python code for the current settings."""
        path = Path(photo) if photo else Path("small.jpg")
        factor = SCALES[scale]
        return snippets.upscale(path, factor, LOSSES[loss], Path(f"{path.stem}_x{factor}{path.suffix}"))

    def enlarge(self, files: list[str] | None, scale: str, loss: str) -> None:
        """Start a job that enlarges all images."""
        paths, studio, factor = paths_of(files), self.studio, SCALES[scale]
        if not paths:
            raise ConfigError("Give a picture first.")
        upscaler = studio.models.upscaler(factor, LOSSES[loss])
        batch = Batch(
            kind="enlarge",
            doing="Enlarging",
            noun="pictures",
            how=scale,
            mark=f"x{factor}",
            archive=f"enlarged_x{factor}",
        )
        add_job(studio, paths, upscaler, lambda height, width: upscaler.options(), batch)
