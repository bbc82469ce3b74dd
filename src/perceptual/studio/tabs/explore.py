"""Loss explorer: what the layers of a loss network see in a picture, and what they keep (the paper's Figures 3, 4)."""

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
from perceptual.studio.optimizing import available, features, optimising
from perceptual.studio.shown import explained
from perceptual.studio.studio import Studio
from perceptual.studio.tabs.optimize import NO_NETWORK, PRIVATE, network_field, networks, newest
from perceptual.studio.tabs.panel import Panel

SIDE = 320
"""Longer side of the picture that the loss network gets."""
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
            plot = gr.LinePlot(
                x="step",
                y="value",
                color="term",
                title="Losses, as a share of the first value",
                height=220,
                visible=False,
                elem_id="explore-plot",
            )
            code = panel.code()
    panel.add([preview, plot, network], lambda job: [*newest(studio, job), shown.curves(job), networks(studio)])
    chosen = [photo, network, layer]
    network.change(explained(_layer), network, layer, **PRIVATE)
    gr.on([part.change for part in (photo, layer)], explained(work.look), chosen, [sheet, gram], **PRIVATE)
    gr.on([part.change for part in (photo, layer)], explained(work.snippets), chosen, code, **PRIVATE)
    invert.click(explained(work.invert), [*chosen, size, steps], None, **PRIVATE)
    texture.click(explained(work.texture), [*chosen, size, steps], None, **PRIVATE)
    return panel


def _layer(network: str | None) -> gr.Dropdown:
    """The field for a layer of a network."""
    names = layer_names(network) if network else []
    first = FIRST if FIRST in names else next(iter(names), None)
    return gr.Dropdown(label="Layer", choices=names, value=first, elem_id="explore-layer")


class _Work:
    """The handlers of the tab."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def look(self, photo: str | None, network: str | None, layer: str | None) -> Any:
        """Activations and Gram matrix of the layer."""
        if not photo or not network or not layer:
            return None, None
        pixels = images.unit(self.studio.models.photo(Path(photo), SIDE))
        found = features(self.studio.config, pixels, f"{network}:{layer}")
        return images.to_array(activation_sheet(found)), images.to_array(gram_picture(found))

    def snippets(self, photo: str | None, network: str | None, layer: str | None) -> tuple[str, str]:
        """Command line of the reconstruction, and Python code for the activations."""
        name = Path(photo).name if photo else "photo.jpg"
        lines = [
            "from perceptual import LossNetwork, gram_matrix, images",
            "",
            f"network = LossNetwork({network!r}, [{layer!r}])",
            f"activations = network(images.read({name!r}).pixels)[{layer!r}]  # (1, C, h, w)",
            "gram = gram_matrix(activations)",
        ]
        shell = snippets.command("optimize invert", name, layer=f"{network}:{layer}", size=192, out="out.png")
        return shell, "\n".join(lines)

    def invert(self, photo: str | None, network: str | None, layer: str | None, *values: float) -> None:
        """Reconstruct the picture from the features of the layer, as a job (the paper's Figure 3)."""
        self._begin("invert", photo, f"{network}:{layer}" if network and layer else "", *values)

    def texture(self, photo: str | None, network: str | None, layer: str | None, *values: float) -> None:
        """Make a picture with the Gram matrix of the layer, as a job (the paper's Figure 4)."""
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
