"""The tab Own style: trains a new style from a painting, and manages the user's styles."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from perceptual import checkpoints
from perceptual.errors import ConfigError
from perceptual.files import write_beside
from perceptual.studio import shown, snippets
from perceptual.studio.folder import paths_of
from perceptual.studio.jobs import Job
from perceptual.studio.learning import BASE, Choice, learn, missing_weights, prepare
from perceptual.studio.shown import PRIVATE, explained
from perceptual.studio.studio import Studio
from perceptual.studio.tabs.panel import Panel

STEPS = 150
"""Default number of steps. They take about two minutes on two processor cores."""
ADDED = (".safetensors", ".pth", ".model", ".t7", ".ckpt")
"""Endings of style files that can be added. All but the first are of other programs."""


def build(studio: Studio) -> Panel:
    """Make the tab."""
    work = _Work(studio)
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            needs = gr.Markdown(elem_id="own-needs")
            fetch = gr.Button("Download the weights", visible=False, elem_id="own-fetch")
            painting = gr.File(label="The painting", file_types=["image"], elem_id="own-painting")
            photos = gr.File(
                label="Photos to learn with, 50 or more if you can (none: sample photos)",
                file_count="multiple",
                file_types=["image"],
                elem_id="own-photos",
            )
            name = gr.Textbox(label="Name of the style", elem_id="own-name")
            steps = gr.Slider(
                10, 2000, STEPS, step=10, label="Steps (150 take two minutes or more)", elem_id="own-steps"
            )
            weight = gr.Slider(0.5, 5, 2, step=0.5, label="Strength of the style in training", elem_id="own-weight")
            go = gr.Button("Learn this style", variant="primary", elem_id="own-go")
        with gr.Column(scale=3, min_width=300):
            preview = gr.Image(
                label="Photos and their paintings so far", interactive=False, buttons=[], elem_id="own-preview"
            )
            panel = Panel(studio, "own", results="Style file", more=[preview], refresh=work.shown, stop="Stop and keep")
            plot = shown.plot("own")
            panel.add([plot], lambda job: [shown.curves(job)])
            code = panel.code()
            choose, manage = _manage()
    panel.add([choose, needs, fetch], lambda job: work.state())
    _connect(work, [painting, photos, name, steps, weight], [go, fetch], code, [choose, *manage])
    return panel


def _manage() -> tuple[Any, list[Any]]:
    """The fields for the existing styles."""
    with gr.Accordion("Your styles", open=True):
        choose = gr.Dropdown(label="Style", choices=[], value=None, elem_id="own-style")
        with gr.Row():
            resume = gr.Button("Go on learning", visible=False, elem_id="own-resume")
            export = gr.DownloadButton("Download the file", visible=False, elem_id="own-export")
        with gr.Row():
            new = gr.Textbox(label="New name", visible=False, elem_id="own-new-name")
            rename = gr.Button("Rename", visible=False, elem_id="own-rename")
        with gr.Row():
            sure = gr.Checkbox(label="Yes, delete it for ever", visible=False, elem_id="own-sure")
            delete = gr.Button("Delete", variant="stop", visible=False, elem_id="own-delete")
        add = gr.File(
            label="Add a style file (.safetensors; .pth, .t7 and .ckpt too)", file_types=list(ADDED), elem_id="own-add"
        )
    return choose, [resume, export, new, rename, sure, delete, add]


def _connect(work: _Work, inputs: list[Any], buttons: list[Any], code: list[Any], managing: list[Any]) -> None:
    """Connect the components with their handlers."""
    painting, _, name, steps, weight = inputs
    choose, resume, export, new, rename, sure, delete, add = managing
    go, fetch = buttons
    fields = [export, resume, new, rename, sure, delete]
    painting.change(work.named, painting, name, **PRIVATE)
    gr.on(
        [painting.change, steps.change, weight.change], explained(work.snippets), [painting, steps, weight], code,
        **PRIVATE,
    )  # fmt: skip
    go.click(explained(work.learn), inputs, None, **PRIVATE)
    fetch.click(explained(work.fetch), None, None, **PRIVATE)
    choose.change(explained(work.chosen), choose, fields, **PRIVATE)
    resume.click(explained(work.resume), choose, None, **PRIVATE)
    rename.click(explained(work.rename), [choose, new], choose, **PRIVATE)
    delete.click(explained(work.delete), [choose, sure], [choose, sure], **PRIVATE)
    add.upload(explained(work.add), add, [choose, add], **PRIVATE)


class _Work:
    """The handlers of the tab."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def shown(self, job: Job | None) -> Sequence[Any]:
        """The newest preview of a job."""
        if job is None or job.preview is None:
            return [gr.skip()]
        from perceptual.train import preview_sheet  # slow to import, and only needed here

        return [self.studio.folder.show(preview_sheet(job.preview))]

    def state(self) -> Sequence[Any]:
        """The list of the user's styles, and a message if weights are missing."""
        missing = missing_weights(self.studio.config)
        return [gr.Dropdown(choices=self._names()), _needs(missing), gr.Button(visible=bool(missing))]

    def _names(self) -> list[str]:
        """The user's styles, finished or not."""
        return sorted({*self.studio.folder.own_styles(), *self.studio.folder.unfinished()})

    def named(self, painting: str | None) -> str:
        """A name for the style, from the file name of the painting."""
        from perceptual.tasks.style import style_name

        return style_name(painting) if painting else ""

    def snippets(self, painting: str | None, steps: float, weight: float) -> tuple[str, str]:
        """The command that does the same, and Python code that uses the style."""
        path = Path(painting) if painting else Path("painting.jpg")
        flags: dict[str, Any] = {"style": path.name, "data": "photos/", "from_": BASE, "steps": int(steps)}
        flags |= {"style_steps": int(steps), "style_weight": f"{weight:g}"}
        lines = [
            "from PIL import Image",
            "from perceptual import Stylizer",
            "",
            f"stylizer = Stylizer.load({path.stem + '.safetensors'!r})",
            "stylizer(Image.open('photo.jpg')).save('painting.jpg')",
        ]
        return snippets.command("train style", **flags), "\n".join(lines)

    def learn(self, painting: str | None, photos: list[str] | None, name: str, steps: float, weight: float) -> None:
        """Start a job that trains a style."""
        if not painting:
            raise ConfigError("Give a painting first.")
        if missing := missing_weights(self.studio.config):
            raise ConfigError(f"The weights of {', '.join(missing)} are missing: download them first.")
        choice = Choice(name=name or self.named(painting), steps=int(steps), style_weight=weight)
        out = prepare(self.studio, choice, Path(painting), paths_of(photos))
        self.studio.jobs.add(Job(f"Learning {out.stem}", "own", learn(self.studio, out)))

    def resume(self, name: str | None) -> None:
        """Start a job that continues the training of a style."""
        if name not in self.studio.folder.unfinished():
            raise ConfigError("This style is finished: choose an unfinished style to continue.")
        if any(job.kind == "own" and job.active for job in self.studio.jobs.all()):
            raise ConfigError("A style is being learned: wait for its end, or stop it first.")
        out = self.studio.folder.style(name)
        self.studio.jobs.add(Job(f"Learning {name}", "own", learn(self.studio, out, resume=True)))

    def fetch(self) -> None:
        """Start a job that downloads the missing weights."""
        from perceptual.losses.weights import before_download, fetch

        missing = missing_weights(self.studio.config)
        for name in missing:
            before_download(name)  # raises an error if the weights cannot be downloaded

        def work(job: Job) -> list[Path]:
            for name in missing:
                job.follow(fetch(name))  # type: ignore[arg-type]
            return []

        self.studio.jobs.add(Job(f"Downloading the weights of {', '.join(missing)}", "own", work))

    def chosen(self, name: str | None) -> Sequence[Any]:
        """The new values of the buttons for the chosen style."""
        own = self.studio.folder.own_styles()
        there, begun = name in own, name in self.studio.folder.unfinished()
        return [
            gr.DownloadButton(value=str(own[name]) if name and there else None, visible=there),
            gr.Button(visible=begun),
            gr.Textbox(value=name or "", visible=there),
            gr.Button(visible=there),
            gr.Checkbox(value=False, visible=there or begun),
            gr.Button(visible=there or begun),
        ]

    def rename(self, name: str | None, new: str) -> Any:
        """Rename the chosen style."""
        self._idle(name)
        renamed = self.studio.folder.rename(name or "", new)
        return gr.Dropdown(choices=self._names(), value=renamed)

    def delete(self, name: str | None, sure: bool) -> Sequence[Any]:
        """Delete the chosen style."""
        if not sure:
            raise ConfigError(f"Tick 'Yes, delete it for ever' first: {name} cannot be restored.")
        self._idle(name)
        self.studio.folder.delete(name or "")
        return gr.Dropdown(choices=self._names(), value=None), False

    def add(self, path: str | None) -> Sequence[Any]:
        """Add a style file of another computer, or a network of another program. It is checked first."""
        if not path:
            return gr.skip(), gr.skip()
        network, card = checkpoints.load(path, task="style")
        folder = self.studio.folder
        target = folder.style(Path(path).stem)
        if target.exists() or target.stem in checkpoints.gallery():
            raise ConfigError(f"There is a style {target.stem!r} already: rename one of them.")
        if checkpoints.is_foreign(path):
            checkpoints.save(target, network, card)
        else:
            with write_beside(target) as temporary:
                shutil.copyfile(path, temporary)
        return gr.Dropdown(choices=self._names(), value=target.stem), None

    def _idle(self, name: str | None) -> None:
        """Raise a ConfigError if a job trains this style."""
        if any(job.kind == "own" and job.active and job.title.endswith(f" {name}") for job in self.studio.jobs.all()):
            raise ConfigError(f"{name} is being learned: wait for the end, or stop it first.")


def _needs(missing: list[str]) -> str:
    """A message about missing weights; "" if none are missing."""
    from perceptual.losses.weights import PRETRAINED
    from perceptual.losses.weights.places import megabytes

    if not missing:
        return ""
    sizes = ", ".join(f"{name} ({megabytes(PRETRAINED[name].files[0])})" for name in missing)
    return f"Learning needs the weights of {sizes}. They are not on this computer yet; they are downloaded once."
