"""Jobs that optimise the pixels of one image, and the loss networks for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from perceptual import images
from perceptual.config import BASELINE_LOSS, LossConfig, StudioConfig, weight_paths
from perceptual.devices import choose_device
from perceptual.errors import ConfigError
from perceptual.losses import LossNetwork
from perceptual.losses.networks import held_layers, layer_names, split_layer
from perceptual.losses.weights import PRETRAINED, locate
from perceptual.studio.jobs import Job

if TYPE_CHECKING:
    from torch import Tensor

    from perceptual.images import Picture
    from perceptual.optimize import Optimization

PREFERRED = ("vgg16-torchvision", "vgg16")


def available(config: StudioConfig) -> list[str]:
    """The loss networks with weights on this computer, those in PREFERRED first.

    Raises:
        WeightsError: a file of `config.weights` does not exist.
    """
    paths = weight_paths(config.weights)
    found = [name for name in PRETRAINED if locate(name, paths.get(name)) is not None]
    return sorted(found, key=lambda name: (name not in PREFERRED, PREFERRED.index(name) if name in PREFERRED else 0))


def baseline(network: str, style_weight: float) -> LossConfig:
    """The objective of `perceptual optimize style`, with the same layers of another loss network.

    Raises:
        ConfigError: the loss network has no layers with these names.
    """
    names = set(layer_names(network))

    def moved(layers: tuple[str, ...]) -> tuple[str, ...]:
        wanted = [split_layer(layer)[1] for layer in layers]
        if missing := [name for name in wanted if name not in names]:
            raise ConfigError(f"The loss network {network} has no layer {missing[0]}: choose a VGG network.")
        return tuple(f"{network}:{name}" for name in wanted)

    loss = BASELINE_LOSS
    return replace(
        loss,
        content_layers=moved(loss.content_layers),
        style_layers=moved(loss.style_layers),
        style_weight=style_weight,
    )


class Explorer:
    """Computes features of loss networks. The last network stays in memory. Methods may be called from any thread."""

    def __init__(self, config: StudioConfig) -> None:
        self.config = config
        self._busy = threading.Lock()
        self._key: object = None
        self._network: LossNetwork | None = None

    def layers(self, network: str) -> list[str]:
        """The layers of a loss network that its weight file contains, in order.

        Raises:
            ConfigError, WeightsError: as `LossNetwork`.
        """
        return list(self._loaded(network).layers)

    def features(self, pixels: Tensor, layer: str) -> Tensor:
        """The activations (1, C, h, w) of one layer, NETWORK:LAYER, for a picture (1, 3, H, W) in [0, 1], on the CPU.

        Raises:
            ConfigError, WeightsError, ImageError: as `LossNetwork`.
        """
        name, layer = split_layer(layer)
        network = self._loaded(name)
        if layer not in network.layers:
            raise ConfigError(f"The weights of {name} do not contain the layer {layer!r}: choose another layer.")
        found: Tensor = network(pixels.to(network.mean.device), [layer])[layer]
        return found.detach().cpu()

    def _loaded(self, name: str) -> LossNetwork:
        path = weight_paths(self.config.weights).get(name)
        with self._busy:
            if self._network is None or self._key != (name, path):
                network = LossNetwork(name, held_layers(name, path), path=path)
                self._network, self._key = network.to(choose_device(self.config.device)), (name, path)
            return self._network


def optimising(begin: Callable[[], Optimization], out: Path, picture: Picture) -> Callable[[Job], list[Path]]:
    """The `work` function of a job that optimises an image. It writes the best image, also if it is stopped or fails.

    begin: a function that starts the optimisation. out: the file to write. picture: its metadata is used for the file.
    """

    def work(job: Job) -> list[Path]:
        run = begin()
        try:
            job.follow(run.run())
        finally:
            if run.best.numel():
                images.write(out, replace(picture, pixels=run.best))
                job.preview, job.results = run.best, (out,)
        return [out]

    return work
