"""A trained network as one ONNX graph: image in, image out, with everything that the models of `apply` add to it."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.export import Dim

from perceptual import checkpoints
from perceptual.apply import Model, Stylizer, Upscaler, parse_blend
from perceptual.apply.stylizer import MARGIN
from perceptual.apply.tiles import EDGE
from perceptual.checkpoints import Card, shipped
from perceptual.config import to_dict
from perceptual.errors import CheckpointError, ConfigError
from perceptual.functional import NOISE_TILE, crossfade, mix, noise_tile
from perceptual.networks import InstanceNorm

if TYPE_CHECKING:
    from onnx import ModelProto

Input = Literal["float", "uint8"]
OPSET = 18
MISSING = "Exporting needs onnx, onnxscript and onnxruntime: pip install 'perceptual[export]'."


@dataclass(frozen=True)
class Source:
    """A network to export.

    name: what the user asked for. shares: {number of the style: share} of the one style or blend that goes into the
    graph, or None if the styles become an input of the graph.
    """

    name: str
    model: Model[Any]
    shares: Mapping[int, float] | None

    @property
    def card(self) -> Card:
        """The card of the network."""
        return self.model.card

    @property
    def several(self) -> bool:
        """Whether the graph has the inputs `styles` and `strength`."""
        return self.shares is None


def find(name: str) -> Source:
    """Load what `name` says: a shipped style, blend, network or upscaler, or a trained file.

    Raises:
        CheckpointError: there is no such network, or its file is damaged or of another program.
    """
    far = checkpoints.is_hub_name(name) and parse_blend(name) == {name: 1.0}
    path = checkpoints.find_network(name, task="style") if far else Path(name).expanduser()
    if os.path.isfile(path) and checkpoints.is_foreign(path):
        raise CheckpointError(f"{path} is a network of another program: turn a style network into a style file by "
                              "`perceptual convert` first; one that enlarges cannot be exported.")  # fmt: skip
    upscalers = shipped.networks("upscale")
    if name in upscalers or (os.path.isfile(path) and checkpoints.read_card(path).task != "style"):
        task = "upscale" if name in upscalers else checkpoints.read_card(path).task
        if task == "upscale":
            return Source(name, Upscaler.load(name if name in upscalers else path, device="cpu"), {})
        return Source(name, Model(*checkpoints.load(path, task=task), device="cpu", copy=False), {})
    known = [*shipped.gallery(), *shipped.networks("style"), *upscalers]
    if ":" not in name and "," not in name and not path.suffix and not checkpoints.written_as(name, known):
        hint = checkpoints.guess(name, known)
        raise CheckpointError(f"There is no network {name!r}{hint}: give a trained file, or one of {', '.join(known)}.")
    model = Stylizer.load(name, device="cpu")
    whole = model.network.styles > 1 and (name in shipped.networks("style") or os.path.isfile(path))
    return Source(name, model, None if whole else model.blend)


class _Norm(nn.Module):
    """Instance normalisation as one operation of ONNX. All pictures of a batch have the same style."""

    def __init__(self, norm: InstanceNorm, shares: Tensor | None) -> None:
        super().__init__()
        weight, bias = norm.weight.detach(), norm.bias.detach()
        if shares is not None:
            weight, bias = mix(shares, weight), mix(shares, bias)
        self.weight, self.bias, self.eps = nn.Parameter(weight.clone()), nn.Parameter(bias.clone()), norm.eps

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        """x: (N, C, H, W); style: (1, styles) weights that sum to 1, or None if one style is built in."""
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        if style is not None:
            weight, bias = mix(style, weight), mix(style, bias)
        return torch.instance_norm(x, weight[0], bias[0], None, None, True, 0.0, self.eps, False)


class Graph(nn.Module):
    """What is exported. It gives what `Stylizer` or `Upscaler` gives for a whole picture.

    levels: the image and the result are uint8 levels; otherwise they are floats in [0, 1]. pattern_inside: the file
    holds the noise pattern of a network with noise; otherwise it is an input.
    """

    def __init__(self, source: Source, *, levels: bool, pattern_inside: bool = True) -> None:
        super().__init__()
        network = deepcopy(source.model.network)
        shares = None
        if source.shares is not None and network.styles > 1:
            shares = torch.zeros(1, network.styles)
            shares[0, list(source.shares)] = torch.tensor(list(source.shares.values()))
        for name, module in list(network.named_modules()):
            if isinstance(module, InstanceNorm):
                network.set_submodule(name, _Norm(module, shares))
        self.levels, self.several = levels, source.several
        self.unfolded = source.card.task == "upscale"
        amount = network.config.noise
        network.config = replace(network.config, noise=0.0)  # the graph has the pattern in a smaller form
        self.margin = MARGIN if amount else EDGE if network.config.padding == "zero" and self.unfolded else 0
        self.network = network.eval()
        self.amount = 0.0 if pattern_inside else amount
        self.noise: Tensor | None  # as halves it is exact to 0.02 levels
        self.register_buffer("noise", (amount * noise_tile()).half() if amount and pattern_inside else None)

    def forward(
        self,
        image: Tensor,
        styles: Tensor | None = None,
        strength: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """image: (N, 3, H, W), RGB, float [0, 1] or uint8. Returns (N, 3, scale * H, scale * W) of the same type.

        styles: (styles,), weights of the styles, 0 or more, not all 0. strength: (1,), 0 for the photo to 1. noise:
        (1, 1, NOISE_TILE, NOISE_TILE), the pattern times its strength, if it is not inside.
        """
        pattern = self.noise if noise is None else noise
        photo = image.float() / 255 if self.levels else image
        x = self._around(photo) if self.margin else photo
        x = x if pattern is None else _with_noise(x, pattern)
        style = None if styles is None else (styles / styles.sum().clamp_min(1e-6))[None]
        out: Tensor = self.network(x, style).clamp(0, 1)
        if cut := self.margin * self.network.scale:
            out = out[..., cut:-cut, cut:-cut]
        if strength is not None:
            out = crossfade(photo, out, strength).clamp(0, 1)  # type: ignore[arg-type]
        if self.unfolded:  # the network would add colour to a grey picture, as in `Upscaler`
            grey = (photo - photo[:, :1]).abs().amax((1, 2, 3), keepdim=True) == 0
            out = torch.where(grey, out.mean(1, keepdim=True), out)
        return (255 * out + 0.5).floor().to(torch.uint8) if self.levels else out

    def _around(self, x: Tensor) -> Tensor:
        """Add the margin of `mirrored` to (N, 3, H, W). The length is a tensor, as the exporter needs it."""
        for axis in (2, 3):
            side = x.shape[axis]
            double = 2 * torch.arange(side, side + 1)
            place = torch.arange(-self.margin, side + self.margin) % double
            x = x.index_select(axis, torch.minimum(place, double - 1 - place))
        return x

    def inputs(self, image: Tensor, style: int | None = None) -> dict[str, Tensor]:
        """The inputs of the graph for an image. style: the number of the only style with a weight; None: all mixed."""
        given = {"image": image}
        if self.several:
            count = self.network.styles
            given["styles"] = torch.ones(count) / count if style is None else torch.eye(count)[style % count]
            given["strength"] = torch.ones(1)
        return given | ({"noise": self.amount * noise_tile()} if self.amount else {})


def _with_noise(x: Tensor, pattern: Tensor) -> Tensor:
    """Add a noise pattern, which repeats, to (N, 3, H, W) in [0, 1]."""
    pattern = pattern.float()
    for axis in (2, 3):
        pattern = pattern.index_select(axis, torch.arange(x.shape[axis]) % NOISE_TILE)
    return (x + pattern).clamp(0, 1)


def to_onnx(graph: Graph, source: Source) -> ModelProto:
    """The graph as a model of ONNX, with dynamic batch, height and width, and with the card in its metadata.

    Raises:
        ConfigError: onnx or onnxscript is not installed, or the network cannot be exported.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  torch.onnx needs it
    except ImportError as error:
        raise ConfigError(MISSING) from error
    image = torch.randint(0, 256, (2, 3, 41, 50), dtype=torch.uint8)
    given = graph.inputs(image if graph.levels else image / 255)
    shapes = {name: {axis: Dim.DYNAMIC for axis in (0, 2, 3)} if name == "image" else None for name in given}
    with torch.no_grad(), quietly("torch.onnx"):
        program = torch.onnx.export(
            graph,
            kwargs=given,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(given),
            output_names=["result"],
            dynamic_shapes=shapes,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _name_sides(model, source.model.network.scale)
    for node in model.graph.node:
        del node.metadata_props[:]  # where each operation comes from in our source: longer than the graph itself
        node.doc_string = ""
    onnx.helper.set_model_props(model, metadata(source, graph))
    model.producer_name, model.producer_version = "perceptual", version("perceptual")
    model.doc_string = source.card.about
    return model


def metadata(source: Source, graph: Graph) -> dict[str, str]:
    """What the file says about itself: the card as JSON, the licence, the styles and the kind of its input."""
    card, shares = source.card, source.shares
    names = list(card.styles) if shares is None else [card.styles[at] for at in shares if at < len(card.styles)]
    said = {
        "perceptual_card": json.dumps(to_dict(card), ensure_ascii=False),
        "licence": card.licence,
        "about": card.about,
        "task": card.task,
        "scale": str(source.model.network.scale),
        "styles": json.dumps(names),
        "titles": json.dumps({name: card.titles.get(name, "") for name in names}, ensure_ascii=False),
        "pixels": f"RGB {'uint8 0..255' if graph.levels else 'float [0, 1]'}, (N, 3, H, W), in and out",
    }
    if shares is not None and len(shares) > 1:
        said["shares"] = json.dumps(dict(zip(names, shares.values(), strict=False)))
    return said


def _name_sides(model: ModelProto, scale: int) -> None:
    """Give the dynamic sides of the image and of the result readable names."""
    times = f"{scale}*" if scale > 1 else ""
    names = [("batch", "height", "width"), ("batch", f"{times}height", f"{times}width")]
    for value, (batch, height, width) in zip((model.graph.input[0], model.graph.output[0]), names, strict=True):
        dims = value.type.tensor_type.shape.dim
        for axis, name in ((0, batch), (2, height), (3, width)):
            dims[axis].dim_param = name


@contextmanager
def quietly(logger: str) -> Generator[None, None, None]:
    """No warnings of a tool about itself, such as that torchvision is missing. logger: its name; "" is the root."""
    log = logging.getLogger(logger)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
