"""Loads the learned channel weights of LPIPS 0.1 (Zhang et al., 2018) from a file or from an installed package.

There are 1,152 (alex), 1,472 (vgg) or 2,240 (squeeze) numbers. The packages lpips and torchmetrics contain the files.
The packages themselves are not imported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

from perceptual.errors import ConfigError, WeightsError
from perceptual.files import sha256_of
from perceptual.losses.weights.places import find
from perceptual.losses.weights.table import PRETRAINED, WeightFile
from perceptual.losses.weights.tensors import read_tensors

LPIPS_LAYERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "alexnet-torchvision": ("alex", ("relu1", "relu2", "relu3", "relu4", "relu5")),
    "vgg16-torchvision": ("vgg", ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")),
    "squeezenet1_1-torchvision": ("squeeze", ("relu1", "fire3", "fire5", "fire6", "fire7", "fire8", "fire9")),
}
"""{loss network: (the name of its weights in the package lpips, the layers that are compared)}."""
HEADS = WeightFile("lpips_v0.1_heads.safetensors", "56d9aaaa226bc511ff8efe7310a1730bd0559b242f5995f9f38f905fca55a28b")
PACKAGES = {"lpips": ("weights", "v0.1"), "torchmetrics": ("functional", "image", "lpips_models")}


def lpips_network(name: str) -> str:
    """The loss network of LPIPS: "alex" -> "alexnet-torchvision". The name of the network itself is also accepted.

    Raises:
        ConfigError: LPIPS has no weights for it.
    """
    for network, (kind, _) in LPIPS_LAYERS.items():
        if name in (network, kind):
            return network
    kinds = ", ".join(kind for kind, _ in LPIPS_LAYERS.values())
    raise ConfigError(f"LPIPS does not support the network {name!r}; choose one of {kinds}.")


def load_heads(network: str, path: str | Path | None = None) -> list[Tensor]:
    """The channel weights of each layer of LPIPS, (1, C, 1, 1) each.

    network: a key of `LPIPS_LAYERS`. path: a file with these weights. By default the weights folders, the cache,
        and then the packages lpips and torchmetrics are searched.

    Raises:
        WeightsError: there is no such file, or it is damaged or another file.
    """
    if path is not None:
        given = Path(os.path.expanduser(path))
        if not os.path.isfile(given):
            raise WeightsError(f"There is no weights file {given}: correct the path.")
        return _complete(given, network)
    known = find([HEADS])
    if known is not None:
        if sha256_of(known) != HEADS.sha256:
            raise WeightsError(f"{known} does not have the known hash: delete it, and get it again.")
        if heads := _heads(read_tensors(known), network):
            return heads
    kind = LPIPS_LAYERS[network][0]
    for package, folders in PACKAGES.items():
        spec = find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            file = Path(spec.submodule_search_locations[0]).joinpath(*folders, f"{kind}.pth")
            if not os.path.isfile(file):
                raise WeightsError(f"{file} is missing: install the package {package} again.")
            return _complete(file, network)
    raise WeightsError(
        "LPIPS needs its learned weights, which the packages lpips and torchmetrics contain: pip install torchmetrics, "
        "or give a file: --weights lpips=FILE, or paths={'lpips': FILE} in Python."
    )


def _heads(tensors: Mapping[str, object], network: str) -> list[Tensor]:
    """The weights of all layers; [] if one is missing. Keys are those of the package lpips, or ARCHITECTURE.linN."""
    architecture, count = PRETRAINED[network].network, len(LPIPS_LAYERS[network][1])
    found = []
    for k in range(count):
        value = tensors.get(f"lin{k}.model.1.weight", tensors.get(f"{architecture}.lin{k}"))
        if isinstance(value, Tensor):
            found.append(value.detach().float().reshape(1, -1, 1, 1))
    return found if len(found) == count else []


def _complete(file: Path, network: str) -> list[Tensor]:
    if heads := _heads(read_tensors(file), network):
        return heads
    raise WeightsError(f"{file} does not contain the weights of LPIPS for {network}: give another file, or install the "
                       "package that it belongs to again.")  # fmt: skip
