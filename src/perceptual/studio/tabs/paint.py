"""The tab Paint: paints photos."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from perceptual import images
from perceptual.apply import output_name
from perceptual.errors import ConfigError
from perceptual.studio import snippets
from perceptual.studio.folder import paths_of
from perceptual.studio.models import PAINTED_SIDE, Paint
from perceptual.studio.shown import PRIVATE, explained
from perceptual.studio.studio import Studio
from perceptual.studio.tabs.batch import Batch, add_job, listed
from perceptual.studio.tabs.panel import Panel

FORMATS = {"As the photo": "", "PNG": ".png", "JPEG": ".jpg", "TIFF": ".tif", "WebP": ".webp"}
BLENDED, COMPARED = 3, 4
"""Number of further styles in a blend, and maximum number of versions side by side."""


@dataclass
class _Parts:
    """The components of the tab."""

    photos: gr.File
    shown_photo: gr.Dropdown
    wall: gr.Gallery
    style: gr.Dropdown
    sliders: list[Any]
    blend: list[Any]
    compare: gr.ImageSlider
    versions: gr.Gallery
    kind: gr.Dropdown
    code: list[Any]


def build(studio: Studio) -> Panel:
    """Make the tab."""
    names = list(studio.models.styles())
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            photos = gr.File(
                label="Photos: drop, paste or choose",
                file_count="multiple",
                file_types=["image"],
                elem_id="paint-photos",
            )
            photo = gr.Dropdown(label="Shown photo", choices=[], visible=False, elem_id="paint-photo")
            wall = gr.Gallery(
                label="Styles: click one", columns=4, height=420, allow_preview=False, object_fit="cover",
                interactive=False, buttons=[], format="jpeg", elem_id="paint-wall",
            )  # fmt: skip
            style, sliders, blend, kind = _choices(names)
        with gr.Column(scale=3, min_width=300):
            compare = gr.ImageSlider(
                label="Photo and painting: move the line", interactive=False, max_height=620, elem_id="paint-compare",
                buttons=["fullscreen"],
            )  # fmt: skip
            with gr.Row():
                paint = gr.Button("Paint in full size", variant="primary", elem_id="paint-go")
                keep = gr.Button("Keep this version to compare", elem_id="paint-keep")
            panel = Panel(studio, "paint", results="Paintings")
            versions = gr.Gallery(label="Versions side by side", columns=2, visible=False, elem_id="paint-versions")
            code = panel.code()
    parts = _Parts(photos, photo, wall, style, sliders, blend, compare, versions, kind, code)
    _connect(studio, parts, paint, keep)
    panel.style_fields = [style, *blend[::2]]
    panel.on_styles = (explained(_Work(studio).wall), photo, wall)
    return panel


def _choices(names: list[str]) -> tuple[Any, list[Any], list[Any], Any]:
    """The fields for style, sliders, blend and format."""
    style = gr.Dropdown(label="Style", choices=names, value="starry_night", elem_id="paint-style")
    strength = gr.Slider(0, 1, 1, step=0.05, label="Strength", elem_id="paint-strength")
    strokes = gr.Slider(0.25, 4, 1, step=0.25, label="Stroke size", elem_id="paint-strokes")
    colors = gr.Checkbox(label="Keep the colours of the photo", elem_id="paint-colors")
    with gr.Accordion("Blend with other styles", open=False):
        blend = _blend(names)
    with gr.Accordion("Size and format", open=False):
        size = gr.Number(
            label="Longer side in pixels (0: as the photo)", value=0, precision=0, minimum=0, maximum=20_000
        )
        kind = gr.Dropdown(label="Format", choices=list(FORMATS), value="As the photo", elem_id="paint-format")
    return style, [strength, strokes, colors, size], blend, kind


def _blend(names: list[str]) -> list[Any]:
    """A row for each further style, with its weight."""
    parts: list[Any] = []
    for k in range(1, BLENDED + 1):
        with gr.Row():
            parts += [
                gr.Dropdown(label=f"Style {k + 1}", choices=["", *names], value="", elem_id=f"paint-blend-{k}"),
                gr.Slider(0, 1, 0.5, step=0.05, label=f"Weight of style {k + 1}", elem_id=f"paint-weight-{k}"),
            ]
    return parts


def choice_of(style: str | None, values: list[Any]) -> Paint:
    """The settings in the page. values: those of the sliders, then a style and its weight for each row.

    Raises:
        ConfigError: no style is chosen.
    """
    strength, strokes, colors, size, *blend = values
    if not style:
        raise ConfigError("Choose a style first.")
    styles = {style: 1.0}
    for name, weight in zip(blend[::2], blend[1::2], strict=True):
        if name and weight:
            styles[name] = styles.get(name, 0.0) + weight
    total = sum(styles.values())
    styles = {name: weight / total for name, weight in styles.items()}
    return Paint(
        styles=styles, strength=strength, strokes=strokes, keep_colors=bool(colors), size=int(size or 0) or None
    )


class _Work:
    """The handlers of the tab."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def opened(self, files: list[str] | None) -> Any:
        """The list of photos, after the user gave photos."""
        return listed(self.studio, files)

    def wall(self, photo: str | None) -> Any:
        """Small images of the photo in every style."""
        if not photo:
            return []
        return [(images.to_array(painted), name) for name, painted in self.studio.models.wall(Path(photo))]

    def preview(self, photo: str | None, style: str, kind: str, *values: Any) -> Any:
        """(photo, painting), command line, and Python code."""
        code = self.snippets(photo, style, kind, *values)
        if not photo:
            return gr.skip(), *code
        painted = self.studio.models.preview(Path(photo), choice_of(style, list(values)))
        levels = self.studio.models.photo(Path(photo), PAINTED_SIDE)
        if levels.shape != painted.shape:
            levels = images.resize(levels, size=(painted.shape[-2], painted.shape[-1]))
        return (self.studio.folder.show(levels), self.studio.folder.show(painted)), *code

    def snippets(self, photo: str | None, style: str, kind: str, *values: Any) -> tuple[str, str]:
        """The command line and the Python code for the current settings."""
        choice = choice_of(style, list(values))
        path = Path(photo) if photo else Path("photo.jpg")
        options = choice.options(*(self.studio.models.size(path) if photo else (512, 768)))
        out = Path(output_name(path, "_painted", FORMATS.get(kind, "")).name)
        return snippets.stylize(path, self.studio.models.text(choice.styles), options, out)

    def paint(self, files: list[str] | None, style: str, kind: str, *values: Any) -> None:
        """Start a job that paints all photos at full size."""
        paths = paths_of(files)
        if not paths:
            raise ConfigError("Give a photo first.")
        studio, choice = self.studio, choice_of(style, list(values))
        name = "_".join(choice.styles)
        batch = Batch(
            kind="paint",
            doing="Painting",
            noun="photos",
            how=f"in {', '.join(choice.styles)}",
            mark=name,
            archive=f"paintings_{name}",
            ending=FORMATS.get(kind, ""),
        )
        add_job(studio, paths, studio.models.stylizer(choice.styles), choice.options, batch)

    def keep(self, kept: list[Any] | None, photo: str | None, style: str, *values: Any) -> Any:
        """Add the current painting to the versions side by side."""
        if not photo:
            raise ConfigError("Give a photo first.")
        choice = choice_of(style, list(values))
        painted = images.to_array(self.studio.models.preview(Path(photo), choice))
        label = f"{', '.join(choice.styles)}; strength {choice.strength:g}, strokes {choice.strokes:g}"
        return gr.Gallery(value=[*(kept or []), (painted, label)][-COMPARED:], visible=True)


def _connect(studio: Studio, parts: _Parts, paint: gr.Button, keep: gr.Button) -> None:
    """Connect the components with their handlers."""
    work = _Work(studio)
    choice = [parts.style, *parts.sliders, *parts.blend]
    wanted = [parts.style, parts.kind, *choice[1:]]
    live: dict[str, Any] = {**PRIVATE, "trigger_mode": "always_last", "queue": False}

    def pick(event: gr.SelectData) -> Any:
        return event.value["caption"]

    parts.photos.change(explained(work.opened), parts.photos, parts.shown_photo, **PRIVATE)
    parts.shown_photo.change(explained(work.wall), parts.shown_photo, parts.wall, **PRIVATE)
    parts.wall.select(pick, None, parts.style, **PRIVATE)
    gr.on(
        [component.change for component in [parts.shown_photo, *choice]],
        explained(work.preview),
        [parts.shown_photo, *wanted],
        [parts.compare, *parts.code],
        **live,
    )
    parts.kind.change(explained(work.snippets), [parts.shown_photo, *wanted], parts.code, **live)
    paint.click(explained(work.paint), [parts.photos, *wanted], None, **PRIVATE)
    keep.click(explained(work.keep), [parts.versions, parts.shown_photo, *choice], parts.versions, **PRIVATE)
