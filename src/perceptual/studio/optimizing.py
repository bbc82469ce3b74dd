"""Jobs that optimise the pixels of one picture, and the loss networks that they can use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from perceptual import images
from perceptual.config import BASELINE_LOSS, LossConfig, StudioConfig, weight_paths
from perceptual.errors import ConfigError
from perceptual.losses import LossNetwork
from perceptual.losses.networks import layer_names, split_layer
from perceptual.losses.weights import PRETRAINED, locate
from perceptual.studio.jobs import Job

if TYPE_CHECKING:
    from torch import Tensor

    from perceptual.images import Picture
    from perceptual.optimize import Optimization

PREFERRED = ("vgg16-torchvision", "vgg16")


def available(config: StudioConfig) -> list[str]:
    """The loss networks that have weights on this computer, those that suit best first.

    Raises:
        WeightsError: a file of `config.weights` does not exist.
    """
    paths = weight_paths(config.weights)
    found = [name for name in PRETRAINED if locate(name, paths.get(name)) is not None]
    return sorted(found, key=lambda name: (name not in PREFERRED, PREFERRED.index(name) if name in PREFERRED else 0))


def baseline(network: str, style_weight: float) -> LossConfig:
    """The objective of `perceptual optimize style` in another loss network.

    Raises:
        ConfigError: it has no layers of these names.
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


def features(config: StudioConfig, pixels: Tensor, layer: str) -> Tensor:
    """The activations (1, C, h, w) of one layer, NETWORK:LAYER, for a picture (1, 3, H, W) in [0, 1].

    Raises:
        ConfigError, WeightsError, ImageError: as `LossNetwork`.
    """
    network, name = split_layer(layer)
    found: Tensor = LossNetwork(network, [name], path=weight_paths(config.weights).get(network))(pixels)[name].detach()
    return found


def optimising(begin: Callable[[], Optimization], out: Path, picture: Picture) -> Callable[[Job], list[Path]]:
    """The work of a job that optimises, and writes the best picture also when it is stopped or fails.

    begin: starts the optimisation. picture: gives the metadata of the result.
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
