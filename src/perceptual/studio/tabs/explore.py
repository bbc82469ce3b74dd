"""The tab Loss explorer: activations and Gram matrices of a layer, reconstructions (the paper's Figures 3 and 4)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from perceptual import images
from perceptual.config import OptimizeConfig, weight_paths
from perceptual.errors import ConfigError
from perceptual.losses.networks import layer_names, split_layer
from perceptual.measure.features import activation_sheet, gram_picture
from perceptual.studio import shown, snippets
from perceptual.studio.jobs import Job
from perceptual.studio.optimizing import Explorer, available, optimising
from perceptual.studio.shown import PRIVATE, explained
from perceptual.studio.studio import Studio
from perceptual.studio.tabs.optimize import NO_NETWORK, follow, network_field
from perceptual.studio.tabs.panel import Panel

SIDE = 320
"""Longer side in pixels of the image for the loss network."""
FIRST = "relu3_3"


def build(studio: Studio) -> Panel:
    """Make the tab."""
    work = _Work(studio)
    found = available(studio.config)
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            photo = gr.File(label="A picture", file_types=["image"], elem_id="explore-photo")
            network = network_field(studio, "explore-network")
            layer = _layer(found[0] if found else None)
            size = gr.Slider(64, 512, 192, step=32, label="Longer side for the reconstructions", elem_id="explore-size")
            steps = gr.Slider(10, 500, 100, step=10, label="Iterations", elem_id="explore-iterations")
            invert = gr.Button("What this layer keeps of the picture", variant="primary", elem_id="explore-invert")
            texture = gr.Button("The style at this layer", elem_id="explore-texture")
        with gr.Column(scale=3, min_width=300):
            with gr.Row():
                sheet = gr.Image(
                    label="The 16 most active channels", interactive=False, buttons=[], elem_id="explore-activations"
                )
                gram = gr.Image(label="Gram matrix", interactive=False, buttons=[], elem_id="explore-gram")
            preview = gr.Image(label="Reconstruction", interactive=False, buttons=[], elem_id="explore-preview")
            panel = Panel(studio, "explore", results="Reconstructions", stop="Stop and keep")
            plot = shown.plot("explore", log=True)
            code = panel.code()
    follow(studio, panel, [preview, plot, network])
    chosen: list[Any] = [photo, network, layer]
    look: Any = (explained(work.look), chosen, [sheet, gram])
    live: dict[str, Any] = {**PRIVATE, "trigger_mode": "always_last"}
    gr.on([photo.change, network.change], explained(work.layers), chosen, layer, **live).then(*look, **PRIVATE)
    layer.input(*look, **live)
    fields = [*chosen, size, steps]
    gr.on([part.change for part in fields], explained(work.snippets), fields, code, **PRIVATE)
    invert.click(explained(work.invert), fields, None, **PRIVATE)
    texture.click(explained(work.texture), fields, None, **PRIVATE)
    return panel


def _layer(network: str | None) -> gr.Dropdown:
    """The field for a layer of a network."""
    names = layer_names(network) if network else []
    first = FIRST if FIRST in names else next(iter(names), None)
    return gr.Dropdown(label="Layer", choices=names, value=first, elem_id="explore-layer")


class _Work:
    """The handlers of the tab."""

    def __init__(self, studio: Studio) -> None:
        self.studio, self.explorer = studio, Explorer(studio.config)

    def layers(self, photo: str | None, network: str | None, layer: str | None) -> Any:
        """The list of layers of a network. The chosen layer is kept if it is in the list.

        With an image, the list contains only layers in the weight file. Without an image, the file is not read, because
        a file of 553 MB takes seconds.
        """
        names = self.explorer.layers(network) if photo and network else layer_names(network) if network else []
        return gr.Dropdown(choices=names, value=next((name for name in (layer, FIRST, *names) if name in names), None))

    def look(self, photo: str | None, network: str | None, layer: str | None) -> Any:
        """The activations and the Gram matrix of the layer, as images."""
        if not photo or not network or not layer:
            return None, None
        pixels = images.unit(self.studio.models.photo(Path(photo), SIDE))
        found = self.explorer.features(pixels, f"{network}:{layer}")
        return images.to_array(activation_sheet(found)), images.to_array(gram_picture(found))

    def snippets(
        self, photo: str | None, network: str | None, layer: str | None, size: float, iterations: float
    ) -> tuple[str, str]:
        """The command lines and the Python code for both reconstructions and the activations."""
        name, full = Path(photo or "photo.jpg").name, f"{network}:{layer}"
        numbers = {"size": int(size), "iterations": int(iterations)}
        shell = [
            snippets.command("optimize invert", name, layer=full, **numbers, out="kept.png"),
            snippets.command("optimize texture", name, layers=[full], **numbers, out="style.png"),
        ]
        lines = [
            "from perceptual import LossNetwork, OptimizeConfig, gram_matrix, images, invert, texture",
            "",
            f"pixels = images.read({name!r}).pixels",
            f"activations = LossNetwork({network!r}, [{layer!r}])(pixels)[{layer!r}]  # (1, C, h, w)",
            "gram = gram_matrix(activations)",
            f"config = {snippets.call('OptimizeConfig', **numbers)}",
            f"kept, style = invert(pixels, {full!r}, config=config), texture(pixels, ({full!r},), config=config)",
            "for run, name in ((kept, 'kept.png'), (style, 'style.png')):",
            "    for step in run.run():",
            "        print(step.index, step.losses)",
            "    images.write(name, run.best)",
        ]
        return "\n".join(shell), "\n".join(lines)

    def invert(self, photo: str | None, network: str | None, layer: str | None, *values: float) -> None:
        """Start a job that reconstructs the image from the features of the layer (the paper's Figure 3)."""
        self._begin("invert", photo, f"{network}:{layer}" if network and layer else "", *values)

    def texture(self, photo: str | None, network: str | None, layer: str | None, *values: float) -> None:
        """Start a job that makes an image with the same Gram matrix at the layer (the paper's Figure 4)."""
        self._begin("texture", photo, f"{network}:{layer}" if network and layer else "", *values)

    def _begin(self, what: str, photo: str | None, layer: str, size: float, iterations: float) -> None:
        if not photo:
            raise ConfigError("Give a picture first.")
        if not layer:
            raise ConfigError(NO_NETWORK)
        studio = self.studio
        picture = images.read(photo, max_pixels=studio.models.max_pixels)
        config = OptimizeConfig(
            size=int(size), iterations=int(iterations), preview_every=5, device=studio.config.device
        )
        network, name = split_layer(layer)
        paths = {key: path for key, path in weight_paths(studio.config.weights).items() if key == network}

        def begin() -> Any:
            from perceptual import optimize

            if what == "invert":
                return optimize.invert(picture.pixels, layer, config=config, paths=paths)
            return optimize.texture(picture.pixels, (layer,), config=config, paths=paths)

        path = Path(photo)
        out = studio.folder.new(f"{path.stem}_{what}_{name}", ".png")
        title = f"{path.name}: {'what' if what == 'invert' else 'the style that'} {name} keeps"
        job = Job(
            title, "explore", optimising(begin, out, picture if what == "invert" else replace(picture, alpha=None))
        )
        studio.jobs.add(job)
