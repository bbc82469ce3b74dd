"""The tab Enlarge: enlarges images. A magnified part compares the network with bicubic interpolation."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from perceptual import checkpoints, images
from perceptual.apply import output_name
from perceptual.errors import ConfigError
from perceptual.studio import snippets
from perceptual.studio.folder import UPSCALERS, paths_of
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
            loss, about, add = _network_fields(studio)
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
    work = _Work(studio)
    follow_networks(studio, panel, loss, LOSSES)
    _connect(work, [photos, photo, overview, scale, loss, compare, code, go])
    add.upload(explained(work.add), add, [scale, loss, add], **PRIVATE)
    gr.on([loss.change, scale.change], explained(work.about), [scale, loss], about, **PRIVATE)
    return panel


def _network_fields(studio: Studio) -> tuple[Any, Any, Any]:
    """The list of networks, what the chosen one is, and the field to add one."""
    loss = gr.Radio(networks(studio, LOSSES), value="Automatic", label="Network", elem_id="enlarge-loss")
    about = gr.HTML(elem_id="enlarge-about")
    label = "Add a network file (.pth or .safetensors)"
    return loss, about, gr.File(label=label, file_types=list(UPSCALERS), height=120, elem_id="enlarge-add")


def networks(studio: Studio, shipped: Iterable[str]) -> list[str]:
    """The names of the shipped networks, then of those that the user added."""
    return [*shipped, *studio.folder.own_upscalers()]


def follow_networks(studio: Studio, panel: Panel, field: Any, shipped: Iterable[str]) -> None:
    """Update a list of networks after the user added one, also in another tab or page."""

    def listed(shown_before: list[str]) -> Sequence[Any]:
        if (names := networks(studio, shipped)) == shown_before:
            return gr.skip(), gr.skip()
        return names, gr.Radio(choices=names)

    known = gr.State(networks(studio, shipped))
    panel.looks.append((listed, known, [known, field]))


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

    def add(self, path: str | None) -> Any:
        """Add a network file of another program, or one that perceptual trained. It is checked first.

        Returns the new values of the factor, of the list of networks and of the file field.
        """
        if not path:
            return gr.skip(), gr.skip(), gr.skip()
        network, _ = checkpoints.load(path, task="upscale")
        name = self.studio.folder.add_upscaler(path)
        scale = next((text for text, factor in SCALES.items() if factor == network.scale), gr.skip())
        return scale, gr.Radio(choices=networks(self.studio, LOSSES), value=name), None

    def about(self, scale: str, loss: str) -> str:
        """What an added network is, and its licence."""
        if loss in LOSSES:
            return ""
        card = self.studio.models.upscaler(SCALES[scale], loss).card
        return html.escape(f"{card.about or loss}; licence: {card.licence or 'not in the file'}.")

    def magnified(self, photo: str | None, centre: tuple[float, float], scale: str, loss: str) -> Any:
        """The chosen part, enlarged by bicubic interpolation and by the network."""
        if not photo:
            return None
        both = self.studio.models.magnified(Path(photo), centre, SCALES[scale], LOSSES.get(loss, loss))
        return tuple(self.studio.folder.show(each) for each in both)

    def snippets(self, photo: str | None, scale: str, loss: str) -> tuple[str, str]:
        """The command line and the Python code for the current settings."""
        path = Path(photo) if photo else Path("small.jpg")
        factor = SCALES[scale]
        out, own = Path(output_name(path, f"_x{factor}", "").name), self.studio.folder.own_upscalers().get(loss)
        return snippets.upscale(path, factor, LOSSES.get(loss, loss), out, network=own)

    def enlarge(self, files: list[str] | None, scale: str, loss: str) -> None:
        """Start a job that enlarges all images."""
        paths, studio, factor = paths_of(files), self.studio, SCALES[scale]
        if not paths:
            raise ConfigError("Give a picture first.")
        upscaler = studio.models.upscaler(factor, LOSSES.get(loss, loss))
        batch = Batch(
            kind="enlarge",
            doing="Enlarging",
            noun="pictures",
            how=scale,
            mark=f"x{factor}",
            archive=f"enlarged_x{factor}",
        )
        add_job(studio, paths, upscaler, lambda height, width: upscaler.options(), batch)
