"""Compares an exported file with the network in PyTorch, and measures how long it takes."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from perceptual.errors import ConfigError, OutputError
from perceptual.export.graph import MISSING, Graph

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

SIZES = ((1, 9), (7, 5), (64, 64), (61, 94), (131, 90))
"""Height and width of the pictures that are compared. 1 x 1 px would say nothing: in a picture of one colour, instance
norm divides rounding errors by their own deviation."""
LEAST = 60.0
"""Least PSNR in decibels of a file in float32. Other orders of the sums give 80 or more."""
TIMED = (256, 256)
ROUNDS = 5


@dataclass(frozen=True)
class Parity:
    """How far a file is from PyTorch for one picture.

    size: height and width in pixels. decibels: PSNR for a range of 0 to 1; infinite if the results are equal, and minus
    infinity if the shape is wrong or values are not finite. levels: the largest difference of a value, in levels of
    0..255.
    """

    size: tuple[int, int]
    decibels: float
    levels: float

    def __str__(self) -> str:
        height, width = self.size
        if self.decibels == -math.inf:
            return f"{width} x {height} px: wrong shape, or values that are not numbers"
        near = "equal" if math.isinf(self.decibels) else f"{self.decibels:.1f} dB"
        return f"{width} x {height} px: {near}, at most {self.levels:.2g} levels of 255"


def session(model: bytes) -> InferenceSession:
    """The file in onnxruntime, on the CPU, with as many threads as PyTorch has.

    Raises:
        ConfigError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(MISSING) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def feed(inputs: dict[str, Tensor]) -> dict[str, Any]:
    """Inputs as onnxruntime takes them."""
    return {name: value.numpy() for name, value in inputs.items()}


@torch.no_grad()
def compare(graph: Graph, model: bytes, sizes: Sequence[tuple[int, int]] = SIZES) -> list[Parity]:
    """Compare a file with its graph in PyTorch and float32, for one picture of each size.

    A network of several styles is compared with another style for each picture, and with all of them mixed for the
    first.
    """
    ready, found = session(model), []
    for at, (height, width) in enumerate(sizes):
        image = picture(height, width)
        image = (255 * image + 0.5).to(torch.uint8) if graph.levels else image
        inputs = graph.inputs(image, at - 1 if at else None)
        wanted = graph(**inputs).double()
        made = torch.from_numpy(ready.run(None, feed(inputs))[0]).double()
        away = (made - wanted).abs() / (255 if graph.levels else 1)
        if made.shape != wanted.shape or not away.isfinite().all():
            found.append(Parity((height, width), -math.inf, math.inf))
            continue
        error = float(away.square().mean())
        found.append(Parity((height, width), -10 * math.log10(error) if error else math.inf, 255 * float(away.max())))
    return found


def picture(height: int, width: int) -> Tensor:
    """A picture with large and small shapes, (1, 3, height, width) in [0, 1]. It is the same each time."""
    numbers = torch.Generator().manual_seed(height * 10_000 + width)
    total = torch.full((1, 3, height, width), 0.5)
    for cell, weight in ((64, 0.3), (16, 0.15), (4, 0.08), (1, 0.03)):
        grid = torch.randn(1, 3, height // cell + 2, width // cell + 2, generator=numbers)
        total += weight * F.interpolate(grid, size=(height, width), mode="bilinear")
    return total.clamp(0, 1)


def seconds(graph: Graph, *models: bytes) -> list[float]:
    """Seconds that each file takes for a picture of 256 x 256 px: the median of five rounds, in which they take
    turns."""
    image = picture(*TIMED)
    inputs = feed(graph.inputs((255 * image).to(torch.uint8) if graph.levels else image))
    sessions = [session(model) for model in models]
    taken: list[list[float]] = [[] for _ in models]
    for _ in range(ROUNDS + 1):
        for each, times in zip(sessions, taken, strict=True):
            began = time.perf_counter()
            each.run(None, inputs)
            times.append(time.perf_counter() - began)
    return [statistics.median(times[1:]) for times in taken]


def check_finite(name: str, parities: Sequence[Parity], precision: str) -> None:
    """Refuse a smaller file whose results are not numbers.

    Raises:
        OutputError: the network overflows in this precision.
    """
    if any(parity.decibels == -math.inf for parity in parities):
        raise OutputError(f"{name} overflows in {precision}, so no file was written: choose --precision float32.")


def check(name: str, parities: Sequence[Parity]) -> None:
    """Refuse a file in float32 that does not give what PyTorch gives.

    Raises:
        OutputError: the PSNR of a size is below 60 dB.
    """
    worst = min(parities, key=lambda parity: parity.decibels)
    if not worst.decibels >= LEAST:
        raise OutputError(
            f"The export of {name} is not right ({worst}), so no file was written: try other versions of onnxscript "
            "and onnxruntime."
        )
