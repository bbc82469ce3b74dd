"""The tab By optimisation: paints one photo by the method of Gatys et al. (the baseline of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from perceptual import images
from perceptual.config import OptimizeConfig, weight_paths
from perceptual.errors import ConfigError
from perceptual.studio import shown, snippets
from perceptual.studio.jobs import Job
from perceptual.studio.optimizing import available, baseline, optimising
from perceptual.studio.shown import PRIVATE, explained
from perceptual.studio.studio import Studio
from perceptual.studio.tabs.panel import Panel

NO_NETWORK = "No loss network is on this computer: download the weights in the tab Own style."


def build(studio: Studio) -> Panel:
    """Make the tab."""
    work = _Work(studio)
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            gr.Markdown("Paints one photo without a trained network. It takes minutes, and any painting will do.")
            photo = gr.File(label="The photo", file_types=["image"], elem_id="optimize-photo")
            painting = gr.File(label="The painting", file_types=["image"], elem_id="optimize-painting")
            network = network_field(studio, "optimize-network")
            size = gr.Slider(64, 1024, 256, step=32, label="Longer side in pixels", elem_id="optimize-size")
            steps = gr.Slider(10, 1000, 200, step=10, label="Iterations", elem_id="optimize-iterations")
            weight = gr.Slider(0.5, 40, 5, step=0.5, label="Weight of the style", elem_id="optimize-weight")
            go = gr.Button("Optimise", variant="primary", elem_id="optimize-go")
        with gr.Column(scale=3, min_width=300):
            preview = gr.Image(label="The best so far", interactive=False, buttons=[], elem_id="optimize-preview")
            panel = Panel(studio, "optimize", results="Result", stop="Stop and keep")
            plot = shown.plot("optimize", log=True)
            code = panel.code()
    follow(studio, panel, [preview, plot, network])
    fields: list[Any] = [photo, painting, network, size, steps, weight]
    gr.on([field.change for field in fields], explained(work.snippets), fields, code, **PRIVATE)
    go.click(explained(work.optimise), fields, None, **PRIVATE)
    return panel


def network_field(studio: Studio, name: str) -> gr.Dropdown:
    """The field for a loss network."""
    found = available(studio.config)
    return gr.Dropdown(label="Loss network", choices=found, value=found[0] if found else None, elem_id=name)


def follow(studio: Studio, panel: Panel, parts: list[Any]) -> None:
    """Let the newest image, the plot of the losses and the list of loss networks follow the jobs of a tab.

    parts: these three components.
    """

    def refresh(job: Job | None) -> Sequence[Any]:
        newest = gr.skip() if job is None or job.preview is None else studio.folder.show(job.preview)
        return [newest, shown.curves(job, log=True), gr.Dropdown(choices=available(studio.config))]

    panel.add(parts, refresh)


class _Work:
    """The handlers of the tab."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def snippets(self, photo: str | None, painting: str | None, network: str | None, *values: float) -> tuple[str, str]:
        """The command line and the Python code for the current settings."""
        size, iterations, weight = values
        names = [Path(each).name if each else given for each, given in ((photo, "photo.jpg"), (painting, "style.jpg"))]
        if not network:
            raise ConfigError(NO_NETWORK)
        loss = baseline(network, weight)
        flags = {"size": int(size), "iterations": int(iterations), "style_weight": f"{weight:g}"}
        layers = {"content_layers": loss.content_layers, "style_layers": loss.style_layers}
        lines = [
            "from perceptual import LossConfig, OptimizeConfig, images, optimize_style",
            "",
            f"content, style = (images.read(name).pixels for name in {names!r})",
            f"loss = {snippets.call('LossConfig', **snippets.changes(loss))}",
            f"run = optimize_style(content, style, loss=loss, config=OptimizeConfig(size={int(size)}, "
            f"iterations={int(iterations)}))",
            "for step in run.run():",
            "    print(step.index, step.losses)",
            "images.write('out.png', run.best)",
        ]
        return snippets.command("optimize style", *names, **flags, **layers, out="out.png"), "\n".join(lines)

    def optimise(self, photo: str | None, painting: str | None, network: str | None, *values: float) -> None:
        """Start a job that optimises an image."""
        if not photo or not painting:
            raise ConfigError("Give a photo and a painting first.")
        if not network:
            raise ConfigError(NO_NETWORK)
        size, iterations, weight = values
        studio = self.studio
        limit = studio.models.max_pixels
        picture = images.read(photo, max_pixels=limit)
        style = images.read(painting, max_pixels=limit).pixels
        loss, paths = baseline(network, weight), weight_paths(studio.config.weights)
        config = OptimizeConfig(
            size=int(size), iterations=int(iterations), preview_every=5, device=studio.config.device
        )

        def begin() -> Any:
            from perceptual.optimize import optimize_style

            given = {name: path for name, path in paths.items() if name == network}
            return optimize_style(picture.pixels, style, loss=loss, config=config, paths=given)

        name = f"{Path(photo).stem}_{Path(painting).stem}"
        out = studio.folder.new(name, ".png")
        studio.jobs.add(Job(f"Optimising {Path(photo).name}", "optimize", optimising(begin, out, picture)))
