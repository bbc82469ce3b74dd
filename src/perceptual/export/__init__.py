"""Trained networks for other programs: ONNX files, and a web page that paints without a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from perceptual.export.graph import Graph, Input, find, to_onnx
from perceptual.export.parity import LEAST, Parity, check, check_finite, compare, seconds
from perceptual.export.precision import calibration_pictures, to_float16, to_int8
from perceptual.export.web import export_page
from perceptual.files import write_beside

__all__ = [
    "LEAST",
    "Exported",
    "Graph",
    "Parity",
    "Precision",
    "check",
    "compare",
    "export_onnx",
    "export_page",
    "find",
    "to_onnx",
]

Precision = Literal["float32", "float16", "int8"]


@dataclass(frozen=True)
class Exported:
    """What became of an export.

    parities: the comparison with PyTorch for each size. float32: names of the convolutions that stay in float32 in an
    int8 file. slower: seconds of this file over seconds of a float32 file, for a picture of 256 x 256 px on this
    computer; None for float32.
    """

    path: Path
    size: int
    parities: list[Parity]
    float32: list[str]
    slower: float | None


def export_onnx(
    name: str,
    out: str | Path,
    *,
    input: Input = "float",
    precision: Precision = "float32",
    calibrate: Sequence[str] = (),
) -> Exported:
    """Write a network as an ONNX file and compare it with PyTorch.

    The file takes RGB images (N, 3, H, W) of any height and width from 1 px. It pads, normalises, adds the noise
    pattern of the network, and clamps its result, (N, 3, scale * H, scale * W). A file of a whole network of several
    styles has two more inputs: `styles`, the weights (styles,), and `strength`, (1,), from 0 for the photo to 1.

    name: a shipped style, blend, network or upscaler, or a trained file. out: the file to write. input: the type of
    the image and the result, float in [0, 1] or uint8 levels. precision: of the convolutions. calibrate: photos for
    int8, as files, folders or globs; by default the sample photos of scikit-image.

    Raises:
        ConfigError: a package is missing. CheckpointError: there is no such network. ImageError: a photo for int8
            cannot be read.
        OutputError: the file cannot be written, a float32 file differs from PyTorch by a PSNR below 60 dB, or the
            network overflows in the precision.
    """
    source = find(name)
    photos = calibration_pictures(calibrate) if precision == "int8" else []
    with write_beside(out) as temporary:
        graph = Graph(source, levels=input == "uint8")
        model = to_onnx(graph, source)
        exact = made = bytes(model.SerializeToString())
        parities, kept, slower = compare(graph, exact), list[str](), None
        check(name, parities)
        if precision != "float32":
            made, kept = (to_float16(model), kept) if precision == "float16" else to_int8(model, graph, photos)
            parities = compare(graph, made)
            check_finite(name, parities, precision)
            one, other = seconds(graph, exact, made)
            slower = other / one
        temporary.write_bytes(made)
    return Exported(Path(out), len(made), parities, kept, slower)
