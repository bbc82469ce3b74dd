"""Smaller forms of an exported network: float16 and int8."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from perceptual import images
from perceptual.data import sample_photos
from perceptual.export.graph import Graph, quietly
from perceptual.export.parity import compare, feed
from perceptual.images.finding import find

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

CALIBRATION_SIDE = 256
SMALL = 256  # numbers of a tensor that is not worth another operation
ENOUGH = 35.0
"""PSNR in decibels at which no more layers are kept in float32."""


def to_float16(model: ModelProto) -> bytes:
    """The convolutions in float16, with weights of half the size; all else stays in float32.

    In float16, sums over a whole picture are not right, and positions and pixels are too coarse. The converter of
    onnxruntime is not used: it gives two nodes one name where several operations read an input of the graph.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    made = onnx.ModelProto()
    made.CopyFrom(model)
    stored = {each.name: each for each in made.graph.initializer}
    nodes: list[NodeProto] = []
    ready: set[str] = set()
    for node in made.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose"):
            nodes.append(node)
            continue
        for at, name in enumerate(node.input):
            node.input[at] = half = f"{name} float16"
            if name in stored and half not in ready:
                with np.errstate(over="ignore"):  # `check_finite` looks at the results
                    values = numpy_helper.to_array(stored[name]).astype("float16")
                stored[name].CopyFrom(numpy_helper.from_array(values, half))
            elif half not in ready:
                nodes.append(helper.make_node("Cast", [name], [half], half, to=TensorProto.FLOAT16))
            ready.add(half)
        result = node.output[0]
        node.output[0] = f"{result} float16"
        back = helper.make_node("Cast", [node.output[0]], [result], f"{result} float32", to=TensorProto.FLOAT)
        nodes += [node, back]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    del made.graph.value_info[:]  # it holds the old types
    return bytes(made.SerializeToString())


def packed(model: ModelProto) -> bytes:
    """The same model with weights stored as float16 where that loses nothing. It computes in float32.

    The shipped networks are stored as float16, so this halves them for a download.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    made = onnx.ModelProto()
    made.CopyFrom(model)
    casts = []
    for each in made.graph.initializer:
        values = numpy_helper.to_array(each)
        if each.data_type != TensorProto.FLOAT or values.size < SMALL:
            continue
        halves = values.astype("float16")
        if (halves.astype("float32") == values).all():
            name = each.name
            each.CopyFrom(numpy_helper.from_array(halves, f"{name} float16"))
            casts.append(helper.make_node("Cast", [each.name], [name], f"{name} float32", to=TensorProto.FLOAT))
    nodes = list(made.graph.node)
    del made.graph.node[:]
    made.graph.node.extend([*casts, *nodes])
    return bytes(made.SerializeToString())


def to_int8(model: ModelProto, graph: Graph, pictures: Sequence[Tensor]) -> tuple[bytes, list[str]]:
    """The convolutions in int8: weights of one byte, and activations of one byte in ranges found from pictures.

    The first and the last convolution are tried in float32 too if the result is too far from the network.

    pictures: (1, 3, H, W) in [0, 1], for calibration. Returns the file, and the names of the convolutions of the
    network that stay in float32.
    """
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    rest = [node.name for node in layers if not _of_network(node, model)]
    main = [node.name for node in layers if node.op_type == "Conv" and node.name not in rest]
    best: tuple[float, bytes, list[str]] | None = None
    for kept in ([], [main[-1]], [main[0], main[-1]], [*main[:3], *main[-3:]]):
        kept = list(dict.fromkeys(kept))
        made = _quantize(model, graph, pictures, without=[*rest, *kept])
        found = min(each.decibels for each in compare(graph, made)[2:])  # 35 pixels say nothing about photos
        if best is None or found > best[0] + 1:
            best = found, made, kept
        if found >= ENOUGH or len(kept) == len(main):
            break
    assert best is not None
    return best[1], best[2]


def calibration_pictures(paths: Sequence[str]) -> list[Tensor]:
    """Pictures for the ranges of int8: the user's, or without paths the sample photos of scikit-image.

    Returns tensors (1, 3, H, W) in [0, 1], 256 pixels or less on the longer side.

    Raises:
        ConfigError: there are no paths, and scikit-image is not installed. ImageError: a picture cannot be read.
    """
    if paths:
        found = [images.unit(images.read(each.path).pixels) for each in find(paths)]
    else:
        missing = "int8 needs photos to find the ranges of values: name some with --calibrate, or install scikit-image."
        found = [images.unit(each) for each in sample_photos(("astronaut", "chelsea", "coffee"), missing)]
    return [images.resize(each, longer_side=CALIBRATION_SIDE) for each in found]


def _of_network(node: NodeProto, model: ModelProto) -> bool:
    """Whether a convolution has weights of the network, and not those of an interpolation."""
    shapes = {each.name: each.dims for each in model.graph.initializer}
    return node.input[1].startswith("network.") and len(shapes[node.input[1]]) == 4


def _quantize(model: ModelProto, graph: Graph, pictures: Sequence[Tensor], *, without: list[str]) -> bytes:
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        """The inputs for each picture, with the styles in turn."""

        def __init__(self) -> None:
            self.inputs = _inputs(graph, pictures)

        def get_next(self) -> dict[str, Any] | None:
            """The next inputs; None after the last."""
            return next(self.inputs, None)

    with tempfile.TemporaryDirectory(prefix="perceptual-") as folder, quietly(""):
        source, target = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        source.write_bytes(model.SerializeToString())
        quantization.quantize_static(
            source,
            target,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=without,
        )
        return target.read_bytes()


def _inputs(graph: Graph, pictures: Sequence[Tensor]) -> Iterator[dict[str, Any]]:
    for at, each in enumerate(itertools.islice(itertools.cycle(pictures), _runs(graph, len(pictures)))):
        image = (255 * each + 0.5).to(torch.uint8) if graph.levels else each
        yield feed(graph.inputs(image.contiguous(), at))


def _runs(graph: Graph, pictures: int) -> int:
    """Number of calibration runs: every picture and every style is seen."""
    return max(pictures, graph.network.styles if graph.several else 1)
