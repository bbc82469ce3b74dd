"""Loss networks (phi of the paper): pretrained, frozen classifiers with features by layer name.

`relu3_3` is the ReLU after the third convolution of VGG's third group; `fire5` is the output of the Fire module fire5
of SqueezeNet. Every network accepts RGB [0, 1]; the preprocessing that its weights need is part of the network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from perceptual.devices import channels_last
from perceptual.errors import ConfigError, ImageError, WeightsError
from perceptual.functional import reduced
from perceptual.losses import weights
from perceptual.losses.architectures import ARCHITECTURES, DISTANCE_LAYERS, Stage, smallest_side
from perceptual.losses.inputs import check_image

Features = dict[str, Tensor]


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

    @torch.inference_mode(False)  # a tensor made in inference mode cannot be used for gradients later
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
        self.smallest = {layer: smallest_side(trim(name, stages, [layer])) for layer in layers}
        self.stages = nn.ModuleDict(dict(stages))
        self._prepare(loaded.preprocessing)

    def _prepare(self, preprocessing: weights.Preprocessing) -> None:
        """Set the preprocessing, and freeze the network."""
        self.reverse, self.scale = preprocessing.order == "BGR", preprocessing.scale
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()
        self.cast(torch.float32)

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        layers: Sequence[str],
        *,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        name: str = "module",
    ) -> LossNetwork:
        """A loss network from any module that gives features by name, such as torchvision's `create_feature_extractor`.

        module: maps images (N, 3, H, W) to a dict {layer: features (N, C, h, w)}. A copy of it is frozen and set to
            evaluation mode; the module itself is not changed. layers: the names of the features to use.
        mean, std: of R, G and B. The module gets (image - mean) / std, where the image is RGB in [0, 1]. Networks of
            torchvision need (0.485, 0.456, 0.406) and (0.229, 0.224, 0.225). Without preprocessing: (0, 0, 0) and
            (1, 1, 1).
        name: the name in error messages.

        Give the result a name in `LossNetworks(networks={"resnet": ...})` or in `PerceptualLoss`. Its layers are then
        "resnet:layer1" and so on.

        Raises:
            ConfigError: there are no layers; when called, the module does not give a dict with these layers.
            TypeError: not a module.
        """
        return _ModuleNetwork(module, layers, weights.Preprocessing("RGB", 1.0, mean, std), name)

    def cast(self, dtype: torch.dtype) -> None:
        """Compute in another precision, such as bfloat16 for training. The preprocessing stays in float32."""
        self.dtype = dtype
        channels_last(self.stages.to(dtype))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LossNetwork:
        """Moves to another device, but keeps the number format: `.half()` has no effect, `cast` has."""

        def moved(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            return result if result.dtype == tensor.dtype else tensor.to(result.device)

        return super()._apply(moved, recurse)  # type: ignore[no-any-return, no-untyped-call]

    def train(self, mode: bool = True) -> LossNetwork:
        """Has no effect, because loss networks always stay in evaluation mode. Returns the network."""
        return super().train(False)

    def forward(self, image: Tensor, layers: Sequence[str] | None = None) -> Features:
        """Compute features of images (N, 3, H, W), RGB [0, 1]: {layer: (N, C, h, w)}.

        layers: default is all requested layers. Nothing after the deepest of them is computed. Features are float32,
        or the type that `cast` chose, also for images in float64. `image` is not changed.
        """
        check_image(image)
        wanted = self.layers if layers is None else tuple(layers)
        self.check_size(image, wanted)
        x = image.flip(1) if self.reverse else image
        return self._through_stages(((x * self.scale - self.mean) / self.std).to(self.dtype), wanted)

    def check_size(self, image: Tensor, layers: Sequence[str], scale: int = 1) -> None:
        """Raise an ImageError if an image, reduced by `scale`, is too small for these layers."""
        height, width = image.shape[-2:]
        needed = scale * max([1, *[self.smallest.get(layer, 1) for layer in layers]])
        if min(height, width) < needed:
            raise ImageError(
                f"An image of {width} x {height} px is too small for the layers of {self.name}: each side must have at "
                f"least {needed} px; give a larger image, or choose earlier layers."
            )

    def _through_stages(self, x: Tensor, layers: Sequence[str]) -> Features:
        wanted = set(layers)
        features: Features = {}
        for name, stage in self.stages.items():
            if not wanted:
                break
            x = stage(x)
            if name in wanted:
                features[name] = x
                wanted.discard(name)
        if wanted:
            raise ConfigError(
                f"The loss network {self.name} was made without the layer {min(wanted)}; it has "
                f"{', '.join(self.layers)}."
            )
        return features


class _ModuleNetwork(LossNetwork):
    """See `LossNetwork.from_module`."""

    @torch.inference_mode(False)
    def __init__(
        self, module: nn.Module, layers: Sequence[str], preprocessing: weights.Preprocessing, name: str
    ) -> None:
        nn.Module.__init__(self)
        if not isinstance(module, nn.Module):
            raise TypeError(f"A {type(module).__name__} is no module: give an nn.Module that maps images to a dict of "
                            "features by name.")  # fmt: skip
        if not layers or isinstance(layers, str):
            raise ConfigError('Give the layers of the module as a list of names, such as ["layer1", "layer2"].')
        if len(preprocessing.mean) != 3 or len(preprocessing.std) != 3 or min(preprocessing.std) <= 0:
            raise ConfigError("Give mean and std as three numbers each, for R, G and B; std above 0.")
        self.name, self.layers = name, tuple(layers)
        self.stages = nn.ModuleDict({"module": copy.deepcopy(module)})
        self.weights_file, self.weights_sha256 = name, weights.tensors_digest(module.state_dict())
        self.smallest = {}
        self._prepare(preprocessing)

    def _through_stages(self, x: Tensor, layers: Sequence[str]) -> Features:
        found = self.stages["module"](x)
        if not isinstance(found, Mapping):
            raise ConfigError(f"The module of the loss network {self.name} gives a {type(found).__name__}: it must map "
                              "images to a dict of features by name.")  # fmt: skip
        if missing := [layer for layer in layers if layer not in found]:
            raise ConfigError(f"The module of the loss network {self.name} gives no features {missing[0]!r}; it gives "
                              f"{', '.join(map(str, found))}.")  # fmt: skip
        return {layer: found[layer] for layer in layers}


class LossNetworks(nn.Module):
    """Several loss networks in one module, with layers named NETWORK:LAYER.

    NETWORK:LAYER@2 means the features of the image at half its size, @4 at a quarter. So one loss can
    compare strokes of several sizes.

    Args:
        layers: names such as ("vgg16:relu2_2", "vgg16:relu4_3@2"). Each network runs once for each image and size.
        paths: weight files by network name, for networks that are not in the cache.
        networks: your own networks by name, made by `LossNetwork.from_module`.

    Raises:
        ConfigError, WeightsError: as `LossNetwork`. ConfigError also for a name with a dot, a colon or an at sign.
        ImageError, TypeError: when called, as `LossNetwork`.
    """

    def __init__(
        self,
        layers: Sequence[str],
        *,
        paths: Mapping[str, str | Path] | None = None,
        networks: Mapping[str, LossNetwork] | None = None,
    ) -> None:
        super().__init__()
        own = dict(networks or {})
        for name, given in own.items():
            if not isinstance(given, LossNetwork):
                raise TypeError(f"The loss network {name!r} is a {type(given).__name__}: make one by "
                                "LossNetwork.from_module.")  # fmt: skip
            if not name or set(name) & set(".:@"):
                raise ConfigError(f"A loss network cannot be called {name!r}: choose a name without . : and @.")
        paths = paths or {}
        if unknown := [name for name in paths if name not in {*weights.PRETRAINED, *own, "lpips"}]:
            raise ConfigError(f"paths names {unknown[0]!r}; its names are {', '.join(weights.PRETRAINED)}, lpips.")
        by_network: dict[str, list[str]] = {}
        for layer in dict.fromkeys(split_scale(layer)[0] for layer in layers):
            network, name = split_layer(layer)
            by_network.setdefault(network, []).append(name)
        self.layers = tuple(layers)
        self.networks = nn.ModuleDict()
        for name, names in by_network.items():
            found = own[name] if name in own else LossNetwork(name, names, path=paths.get(name))
            if unknown := [layer for layer in names if layer not in found.layers]:
                raise ConfigError(f"Your loss network {name!r} has the layers {', '.join(found.layers)}, not "
                                  f"{unknown[0]!r}.")  # fmt: skip
            self.networks[name] = found

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
            if missing := [name for name in by_network if name not in self.networks]:
                raise ConfigError(f"There is no {missing[0]!r} among these loss networks: {', '.join(self.networks)}.")
            for network, names in by_network.items():
                self.networks[network].check_size(image, names, scale)  # type: ignore[operator]
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
    """Split network and layer: "vgg16:relu3_3" -> ("vgg16", "relu3_3"). The default is vgg16, as in the paper.

    Raises:
        ConfigError: the layer is not text.
    """
    if not isinstance(layer, str):
        raise ConfigError(f'layer is {layer!r}; give one layer as text, such as "vgg16:relu2_2".')
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


def distance_layers(network: str, own: Mapping[str, LossNetwork] | None = None) -> list[str]:
    """The layers that a perceptual distance in this network compares, as NETWORK:LAYER: of your `own`, all its layers.

    Raises:
        ConfigError: there is no such network.
    """
    if own and network in own:
        return [f"{network}:{layer}" for layer in own[network].layers]
    layer_names(network)  # raises a ConfigError for an unknown network
    layers = DISTANCE_LAYERS.get(network) or DISTANCE_LAYERS[network.removesuffix("-torchvision")]
    return [f"{network}:{layer}" for layer in layers]


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


def held_layers(name: str, path: str | Path | None = None) -> list[str]:
    """The layers of a loss network in its weight file, in order. Some files contain only the first layers.

    path: as in `LossNetwork`.

    Raises:
        ConfigError, WeightsError: as `LossNetwork`.
    """
    layer_names(name)  # raises a ConfigError for an unknown network
    loaded, held = weights.load(name, path), list[str]()
    with torch.device("meta"):
        stages = ARCHITECTURES[loaded.network](loaded.network)
    for index, (layer, stage) in enumerate(stages):
        if any(f"{_prefix(loaded, index, layer)}.{key}" not in loaded.state for key, _ in stage.named_parameters()):
            break
        held.append(layer)
    return held


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


def _prefix(loaded: weights.LoadedWeights, index: int, layer: str) -> str:
    """The prefix of the keys of a stage: features.N as in torchvision, or the layer name in the distilled file."""
    return layer.replace("_", "") if loaded.network == "vgg19_distilled" else f"features.{index}"


def _fill(stages: list[Stage], loaded: weights.LoadedWeights) -> None:
    """Copy weights into the stages."""
    for index, (name, stage) in enumerate(stages):
        prefix = _prefix(loaded, index, name)
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
