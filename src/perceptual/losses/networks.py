"""Loss networks (phi of the paper): pretrained, frozen classifiers with features by layer name.

`relu3_3` is the ReLU after the third convolution of VGG's third group; `fire5` is the output of the Fire module fire5
of SqueezeNet. Every network accepts RGB [0, 1]; the preprocessing that its weights need is part of the network.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceptual.devices import channels_last
from perceptual.errors import ConfigError, ImageError, WeightsError
from perceptual.functional import reduced
from perceptual.losses import weights

Features = dict[str, Tensor]
Stage = tuple[str, nn.Module]

_VGG_GROUPS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
_VGG_WIDTHS = (64, 128, 256, 512, 512)
_DISTILLED_WIDTHS = (16, 32, 64, 128, 128)
_FIRE_SQUEEZE = (16, 16, 32, 32, 48, 48, 64, 64)  # squeeze channels of fire2 to fire9; the output has 8 times as many


DISTANCE_LAYERS: dict[str, tuple[str, ...]] = {  # layers of perceptual distances: one at each resolution
    "vgg16": ("relu1_2", "relu2_2", "relu3_3"),  # every supported weight file of VGG-16 includes these
    "vgg19": ("relu1_2", "relu2_2", "relu3_4"),
    "vgg19-distilled": ("relu1_2", "relu2_2", "relu3_4", "relu4_4"),
    "squeezenet1_0": ("relu1", "fire3", "fire5", "fire7", "fire9"),
    "squeezenet1_1": ("relu1", "fire3", "fire5", "fire7", "fire9"),
}


class Fire(nn.Module):
    """The Fire module of SqueezeNet: a 1x1 squeeze, then 1x1 and 3x3 expansions that are concatenated, with ReLU.

    channels, squeeze: input and squeeze channels; the output has 8 * squeeze channels.
    """

    def __init__(self, channels: int, squeeze: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, 4 * squeeze, 1)
        self.expand3x3 = nn.Conv2d(squeeze, 4 * squeeze, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1))


def vgg_stages(name: str) -> list[Stage]:
    """(name, layer) of VGG-16 or VGG-19, untrained: conv1_1, relu1_1, ... pool5. name: "vgg16" or "vgg19"."""
    stages: list[Stage] = []
    channels = 3
    for group, (count, width) in enumerate(zip(_VGG_GROUPS[name], _VGG_WIDTHS, strict=True), start=1):
        for index in range(1, count + 1):
            stages.append((f"conv{group}_{index}", nn.Conv2d(channels, width, 3, padding=1)))
            stages.append((f"relu{group}_{index}", nn.ReLU()))
            channels = width
        stages.append((f"pool{group}", nn.MaxPool2d(2)))
    return stages


def distilled_stages(name: str) -> list[Stage]:
    """(name, layer) of the distilled VGG-19, untrained, up to relu5_1 (Wang et al., CVPR 2020).

    It has a quarter of the channels of VGG-19, and reflection padding.
    """
    stages: list[Stage] = [("conv0", nn.Conv2d(3, 3, 1))]
    channels = 3
    for group, (count, width) in enumerate(zip((2, 2, 4, 4, 1), _DISTILLED_WIDTHS, strict=True), start=1):
        for index in range(1, count + 1):
            conv = nn.Conv2d(channels, width, 3, padding=1, padding_mode="reflect")
            stages += [(f"conv{group}_{index}", conv), (f"relu{group}_{index}", nn.ReLU())]
            channels = width
        if group < 5:
            stages.append((f"pool{group}", nn.MaxPool2d(2)))
    return stages


def squeezenet_stages(name: str) -> list[Stage]:
    """(name, layer) of SqueezeNet 1.0 or 1.1, untrained: conv1, relu1, pool1, fire2 ... fire9.

    Pools round the output size up, as in Caffe. name: "squeezenet1_0" or "squeezenet1_1".
    """
    older = name == "squeezenet1_0"
    stages: list[Stage] = [("conv1", nn.Conv2d(3, 96, 7, 2) if older else nn.Conv2d(3, 64, 3, 2)), ("relu1", nn.ReLU())]
    pools = {
        "relu1": "pool1",
        **({"fire4": "pool4", "fire8": "pool8"} if older else {"fire3": "pool3", "fire5": "pool5"}),
    }
    channels = 96 if older else 64
    for index, squeeze in enumerate(_FIRE_SQUEEZE, start=2):
        if stages[-1][0] in pools:
            stages.append((pools[stages[-1][0]], nn.MaxPool2d(3, 2, ceil_mode=True)))
        stages.append((f"fire{index}", Fire(channels, squeeze)))
        channels = 8 * squeeze
    if stages[-1][0] in pools:
        stages.append((pools[stages[-1][0]], nn.MaxPool2d(3, 2, ceil_mode=True)))
    return stages


ARCHITECTURES: dict[str, Callable[[str], list[Stage]]] = {
    "vgg16": vgg_stages,
    "vgg19": vgg_stages,
    "vgg19_distilled": distilled_stages,
    "squeezenet1_0": squeezenet_stages,
    "squeezenet1_1": squeezenet_stages,
}


class LossNetwork(nn.Module):
    """One pretrained network, frozen and cut off after the deepest requested layer.

    Args:
        name: a key of `perceptual.losses.weights.PRETRAINED`, such as "vgg16".
        layers: names of the requested layers, such as ("relu2_2", "relu3_3").
        path: a weight file; by default the weights folders and the cache are searched.

    Attributes:
        weights_sha256: the SHA-256 of the weight file.
        weights_file: the name of the weight file.
        smallest: for each layer the least height and width of an image, in pixels.

    Raises:
        ConfigError: the network or a layer is unknown.
        WeightsError: the weights are missing or damaged, or the file does not include a requested layer.
        ImageError: when called, the image is too small for a layer or has the wrong shape.
        TypeError: when called, the image is not a tensor of floats.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, layers: Sequence[str], *, path: str | Path | None = None) -> None:
        super().__init__()
        layer_names(name)  # raises a ConfigError for an unknown network
        network = weights.PRETRAINED[name].network
        with torch.device("meta"):  # skips random initialisation, which would take longer than loading the weights
            stages = trim(name, ARCHITECTURES[network](network), layers)
        loaded = weights.load(name, path)
        self.name, self.layers = name, tuple(layers)
        self.weights_file, self.weights_sha256 = loaded.file, loaded.sha256
        _fill(stages, loaded)
        self.smallest = {layer: _smallest_side(trim(name, stages, [layer])) for layer in layers}
        self.stages = nn.ModuleDict(dict(stages))
        p = loaded.preprocessing
        self.reverse, self.scale = p.order == "BGR", p.scale
        self.register_buffer("mean", torch.tensor(p.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(p.std).view(1, 3, 1, 1))
        self.dtype = torch.float32
        channels_last(self.requires_grad_(False).eval())

    def cast(self, dtype: torch.dtype) -> None:
        """Compute in another precision, such as bfloat16 for training. The preprocessing stays in float32."""
        self.dtype = dtype
        channels_last(self.stages.to(dtype))

    def train(self, mode: bool = True) -> LossNetwork:
        """Does nothing: loss networks always stay in evaluation mode."""
        return super().train(False)

    def forward(self, image: Tensor, layers: Sequence[str] | None = None) -> Features:
        """Compute features of images (N, 3, H, W), RGB [0, 1]: {layer: (N, C, h, w)}.

        layers: default is all requested layers. Nothing after the deepest of them is computed. Features are float32,
        or the type that `cast` chose, also for images in float64. `image` is not changed.
        """
        check_image(image)
        wanted = set(self.layers if layers is None else layers)
        height, width = image.shape[-2:]
        needed = max((self.smallest.get(layer, 1) for layer in wanted), default=1)
        if min(height, width) < needed:
            raise ImageError(
                f"An image of {width} x {height} px is too small for the layers of {self.name}: each side must have at "
                f"least {needed} px; give a larger image, or choose earlier layers."
            )
        x = image.flip(1) if self.reverse else image
        x = ((x * self.scale - self.mean) / self.std).to(self.dtype)
        features: Features = {}
        for name, stage in self.stages.items():
            if not wanted:
                break
            x = stage(x)
            if name in wanted:
                features[name] = x
                wanted.discard(name)
        return features


class LossNetworks(nn.Module):
    """Several loss networks in one module, with layers named NETWORK:LAYER.

    NETWORK:LAYER@2 means the features of the image at half its size, @4 at a quarter. With it, one loss can compare
    strokes of several sizes.

    Args:
        layers: names such as ("vgg16:relu2_2", "vgg16:relu4_3@2"). Each network runs once for each image and size.
        paths: weight files by network name, for networks that are not in the cache.

    Raises:
        ConfigError, WeightsError: as `LossNetwork`. ImageError, TypeError: when called, as `LossNetwork`.
    """

    def __init__(self, layers: Sequence[str], *, paths: Mapping[str, str | Path] | None = None) -> None:
        super().__init__()
        by_network: dict[str, list[str]] = {}
        for layer in dict.fromkeys(split_scale(layer)[0] for layer in layers):
            network, name = split_layer(layer)
            by_network.setdefault(network, []).append(name)
        self.layers = tuple(layers)
        paths = paths or {}
        self.networks = nn.ModuleDict({n: LossNetwork(n, names, path=paths.get(n)) for n, names in by_network.items()})

    def forward(self, image: Tensor, layers: Sequence[str] | None = None) -> Features:
        """Compute features of images (N, 3, H, W), RGB [0, 1]: {"NETWORK:LAYER": (N, C, h, w)} for `layers` or all."""
        check_image(image)
        features: Features = {}
        wanted: dict[int, dict[str, list[str]]] = {}
        for layer in self.layers if layers is None else layers:
            full, scale = split_scale(layer)
            network, name = split_layer(full)
            wanted.setdefault(scale, {}).setdefault(network, []).append(name)
        for scale, by_network in wanted.items():
            small, suffix = reduced(image, scale), f"@{scale}" if scale > 1 else ""
            for network, names in by_network.items():
                found = self.networks[network](small, names)
                features |= {f"{network}:{layer}{suffix}": value for layer, value in found.items()}
        return features

    def cast(self, dtype: torch.dtype) -> None:
        """Compute in another precision, see `LossNetwork.cast`."""
        for network in self.networks.values():
            network.cast(dtype)  # type: ignore[operator]

    def hashes(self) -> dict[str, str]:
        """{network: SHA-256 of its weight file}, for the card of a network that is trained with them."""
        return {name: str(network.weights_sha256) for name, network in self.networks.items()}


def check_image(image: object, name: str = "image", limits: tuple[float, float] | None = None) -> None:
    """Check an input of a loss or a loss network: a tensor of floats, (N, 3, H, W), RGB [0, 1].

    name: name of the image in the error message. limits: smallest and largest accepted value, to detect pixels of
        0..255. On a GPU, checking the values waits for the GPU.

    Raises:
        TypeError: not a tensor of floats. ImageError: wrong shape, or values outside the limits.
    """
    if not isinstance(image, Tensor) or not image.is_floating_point():
        kind = str(image.dtype) if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(
            f"The {name} is of type {kind}: give a tensor of floats in [0, 1], such as levels.float() / 255."
        )
    if image.ndim != 4 or image.shape[1] != 3 or not image.numel():
        fix = "for a single image give image[None]" if image.ndim == 3 else "give RGB images"
        raise ImageError(f"The {name} has the shape {tuple(image.shape)}, not (N, 3, H, W): {fix}.")
    if limits is None or image.is_meta:
        return
    low, high = (float(value) for value in image.detach().aminmax())
    if low < limits[0] or high > limits[1]:
        raise ImageError(
            f"The {name} has values from {low:g} to {high:g}: give values in [0, 1]; divide pixels of 0..255 by 255."
        )


def split_scale(layer: str) -> tuple[str, int]:
    """Split a layer and its scale: "vgg16:relu3_3@2" -> ("vgg16:relu3_3", 2). The default scale is 1.

    Raises:
        ConfigError: the scale is not 1, 2, 4 or 8.
    """
    name, at, scale = layer.partition("@")
    if at and scale not in ("1", "2", "4", "8"):
        raise ConfigError(f"The layer {layer!r} has an unknown scale: write {name}@2, @4 or @8.")
    return name, int(scale or 1)


def split_layer(layer: str) -> tuple[str, str]:
    """Split network and layer: "vgg16:relu3_3" -> ("vgg16", "relu3_3"). The default is vgg16, as in the paper."""
    network, _, name = layer.rpartition(":")
    return network or "vgg16", name


def missing_networks(layers: Sequence[str], paths: Mapping[str, str | Path]) -> list[str]:
    """The loss networks of these layers that have no weights on this computer.

    layers: as NETWORK:LAYER. paths: weight files by network name.

    Raises:
        WeightsError: a file of `paths` does not exist, or a network is unknown.
    """
    names = dict.fromkeys(split_layer(layer)[0] for layer in layers)
    return [name for name in names if weights.locate(name, paths.get(name)) is None]


def distance_layers(network: str) -> list[str]:
    """The layers that a perceptual distance in this network compares, as NETWORK:LAYER.

    Raises:
        ConfigError: there is no such network.
    """
    layer_names(network)  # raises a ConfigError for an unknown network
    return [f"{network}:{layer}" for layer in DISTANCE_LAYERS[network.removesuffix("-torchvision")]]


def layer_names(name: str) -> list[str]:
    """All layers of a loss network, in order.

    Raises:
        ConfigError: there is no such network.
    """
    if name not in weights.PRETRAINED:
        raise ConfigError(f"There is no loss network {name!r}; choose one of {', '.join(weights.PRETRAINED)}.")
    network = weights.PRETRAINED[name].network
    with torch.device("meta"):
        return [stage for stage, _ in ARCHITECTURES[network](network)]


def check_layer(layer: str) -> None:
    """Check that a layer, as NETWORK:LAYER, exists.

    Raises:
        ConfigError: there is no such network or layer; the message lists the layers.
    """
    network, name = split_layer(split_scale(layer)[0])
    names = layer_names(network)
    if name not in names:
        known = ", ".join(n for n in names if not n.startswith("conv"))
        raise ConfigError(f"The loss network {network} has no layer {name!r}; its layers are {known}.")


def trim(name: str, stages: list[Stage], layers: Sequence[str]) -> list[Stage]:
    """The (name, layer) pairs of `stages` up to the deepest of `layers`. name: the loss network.

    Raises:
        ConfigError: `layers` is empty, or a layer is unknown.
    """
    if not layers:
        raise ConfigError(f"Give at least one layer of the loss network {name}.")
    for layer in layers:
        check_layer(f"{name}:{layer}")
    names = [stage for stage, _ in stages]
    return stages[: 1 + max(names.index(layer) for layer in layers)]


def _smallest_side(stages: list[Stage]) -> int:
    """The smallest side for which every stage yields at least one pixel and every reflection padding fits."""

    def _int(size: int | tuple[int, ...]) -> int:
        return size if isinstance(size, int) else size[0]

    def after(side: int, stage: nn.Module) -> int:
        if isinstance(stage, nn.Conv2d):
            size, pad, step = stage.kernel_size[0], int(stage.padding[0]), stage.stride[0]
            reflects = stage.padding_mode == "reflect"  # reflection by `pad` needs more than `pad` pixels
            return 0 if reflects and side <= pad else (side + 2 * pad - size) // step + 1
        if isinstance(stage, nn.MaxPool2d):
            window, stride = _int(stage.kernel_size), _int(stage.stride)
            return (side - window + (stride - 1 if stage.ceil_mode else 0)) // stride + 1
        return side

    def at_end(side: int) -> int:
        for _, stage in stages:
            side = after(side, stage) if side > 0 else 0
        return side

    return next(side for side in itertools.count(1) if at_end(side) > 0)


def _fill(stages: list[Stage], loaded: weights.LoadedWeights) -> None:
    """Copy weights into the stages. Keys are torchvision's (features.N), or the layer names of the distilled file."""
    for index, (name, stage) in enumerate(stages):
        prefix = name.replace("_", "") if loaded.network == "vgg19_distilled" else f"features.{index}"
        state = {}
        for key, parameter in stage.named_parameters():
            value = loaded.state.get(f"{prefix}.{key}")
            if value is None:
                raise WeightsError(
                    f"{loaded.file} does not include {name}: choose earlier layers, or a complete weight file of "
                    f"{loaded.name}."
                )
            if value.shape != parameter.shape:
                raise WeightsError(
                    f"{loaded.file} does not contain weights of {loaded.network}: {prefix}.{key} has the shape "
                    f"{tuple(value.shape)}."
                )
            state[key] = value.detach().clone()
        stage.load_state_dict(state, assign=True)
