"""The passes over memory of fast inference: measuring a grid, encoding it, adding to the stream.

Each is one pass in kernels.c, where PyTorch needs three to five. That file is compiled once for the computer that runs
it, in under a second, and kept in the user's cache; without a compiler, on other systems, or with PERCEPTUAL_KERNELS=0
the same is done by PyTorch's own operations. Nothing waits for the compiler but who asks to (`compiled(wait=True)`).

Grids are (rows, columns, fold, fold, C), as in folding.py.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import math
import os
import platform
import shutil
import subprocess
import sys
import threading
import uuid
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceptual.cache import cache_folder, processor
from perceptual.folding import cells

FLAGS = (
    *("-O3", "-march=native", "-ffinite-math-only", "-fno-signed-zeros", "-fno-trapping-math", "-fopenmp", "-fPIC"),
    *(("-mprefer-vector-width=512",) if platform.machine() == "x86_64" else ()),
)
Vector = NDArray[np.float32]
_SIZES = {torch.uint8: 1, torch.float32: 4}


@dataclass(eq=False)
class Range:
    """What is known of a grid by channel: its pixels, their mean and variance, the least and the largest value."""

    count: int
    mean: Vector
    variance: Vector
    low: Vector
    high: Vector

    def with_more(self, other: Range) -> Range:
        """Of both parts together (Chan et al., 1983)."""
        count = self.count + other.count
        step, share = other.mean - self.mean, np.float32(other.count / count)
        variance = self.variance * (1 - share) + other.variance * share + step**2 * share * (1 - share)
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return Range(count, self.mean + step * share, variance, low, high)


def measure(grid: Tensor) -> Range:
    """What there is to know of a grid in float32 or bfloat16."""
    rows, columns, fold, _, channels = grid.shape
    library = compiled()
    narrow = grid.dtype == torch.bfloat16
    if library is not None and grid.is_contiguous():
        out = np.empty((4, channels), np.float32)
        library.measure(grid.data_ptr(), narrow, rows * columns, fold * fold * channels, fold * fold, out.ctypes.data)
        return Range(rows * columns * fold * fold, *out)
    flat = grid.reshape(rows * columns, fold * fold * channels).float()
    mean, variance = (x.view(-1, channels) for x in torch.batch_norm_update_stats(flat, None, None, 0.0))
    spread = variance.mean(0) + mean.var(0, correction=0)  # within the pixels of a cell's place, and between them
    low, high = flat.amin(0).view(-1, channels).amin(0), flat.amax(0).view(-1, channels).amax(0)
    return Range(rows * columns * fold * fold, *(x.numpy() for x in (mean.mean(0), spread, low, high)))


def encode(values: Tensor, multiply: Vector, add: Vector, target: Tensor, *, relu: bool) -> None:
    """Write a grid in float32 or bfloat16 * multiply + add, by channel, into another grid.

    target: the same pixels in the same fold or another, uint8 (cut off below the point), float16 or float32.
    """
    library = compiled()
    same = values.shape[2] == target.shape[2]
    if library is None or target.dtype not in _SIZES or not values.is_contiguous():
        values = torch.addcmul(torch.from_numpy(add), values.float(), torch.from_numpy(multiply))
        if target.dtype == torch.uint8:
            values = values.clamp_(0, 255)
        elif relu:
            values = values.clamp_(min=0)
        (target if same else cells(target)).copy_(values if same else cells(values))
        return
    channels = values.shape[-1]
    if same:
        shape: tuple[int, ...] = (len(values), 1, 1)
        steps: tuple[int, ...] = (values.stride(0), 0, 0, target.stride(0), 0, 0)
        length = values.stride(0)
    else:
        x, out = cells(values), cells(target)
        shape, steps, length = x.shape[:3], (*x.stride()[:3], *out.stride()[:3]), 2 * channels
    times = math.gcd(length // channels, max(1, 64 // channels))
    both = np.concatenate([np.tile(multiply, times), np.tile(add, times)], dtype=np.float32)
    start, period = both.ctypes.data, times * channels
    library.encode(
        *(
            values.data_ptr(),
            values.dtype == torch.bfloat16,
            start,
            start + 4 * period,
            target.data_ptr(),
            _SIZES[target.dtype],
        ),
        *((ctypes.c_long * 3)(*shape), (ctypes.c_long * 6)(*steps), length, period, 0.0 if relu else -3.4e38),
    )


def accumulate(stream: Tensor, values: Tensor, multiply: Vector) -> tuple[Vector, Vector]:
    """Add values * multiply to the stream, both (rows, columns, C); then the least and the largest of each channel."""
    library = compiled()
    if library is not None and stream.dtype == torch.float32 and stream.is_contiguous() and values.is_contiguous():
        ends = np.empty((2, stream.shape[-1]), np.float32)
        pixels = stream.shape[0] * stream.shape[1]
        pointers = stream.data_ptr(), values.data_ptr(), multiply.ctypes.data
        library.accumulate(*pointers, pixels, stream.shape[-1], ends.ctypes.data)
        return ends[0], ends[1]
    stream.copy_(torch.addcmul(stream.float(), values, torch.from_numpy(multiply)))
    return ends_of(stream)


def ends_of(grid: Tensor) -> tuple[Vector, Vector]:
    """The least and the largest of each channel, the last dimension."""
    flat = grid.flatten(0, -2)
    return flat.amin(0).float().numpy(), flat.amax(0).float().numpy()


def quantise(weight: Tensor, scale: Vector) -> tuple[Tensor, Tensor]:
    """Weights (O, I, K, K) * scale by input channel, repeated, in int8, and what a level of each filter is worth."""
    library = compiled()
    filters, channels, size, _ = weight.shape
    if library is not None and weight.is_contiguous():
        levels, worth = torch.empty(weight.shape, dtype=torch.int8), torch.empty(filters)
        each = np.tile(np.repeat(scale, size * size), channels // len(scale))
        library.quantise(weight.data_ptr(), each.ctypes.data, filters, len(each), levels.data_ptr(), worth.data_ptr())
        return levels, worth
    weight = weight * torch.from_numpy(scale).repeat(channels // len(scale))[:, None, None]
    worth = weight.abs().amax((1, 2, 3)).clamp_min_(1e-12) / 127
    return weight.div_(worth[:, None, None, None]).round_().to(torch.int8), worth


@lru_cache(maxsize=1)
def _file() -> Path | None:
    """Where the compiled kernels of this computer are kept; None where there are none to be had."""
    if sys.platform != "linux" or os.environ.get("PERCEPTUAL_KERNELS") == "0":
        return None
    about = "\n".join([*FLAGS, processor(), torch.__version__]).encode() + _source().read_bytes()
    return cache_folder() / "kernels" / f"{hashlib.sha256(about).hexdigest()[:16]}.so"


def _source() -> Path:
    return Path(str(resources.files("perceptual"))) / "kernels.c"


_found: dict[Path, ctypes.CDLL | None] = {}
_lock = threading.Lock()


def _load(path: Path) -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(str(path), mode=os.RTLD_NOW)  # GOMP_parallel is found in PyTorch's own OpenMP
        pointer, long = ctypes.c_void_p, ctypes.c_long
        library.measure.argtypes = [pointer, long, long, long, long, pointer]
        library.quantise.argtypes = [pointer, pointer, long, long, pointer, pointer]
        library.encode.argtypes = [pointer, long, *[pointer] * 3, long, pointer, pointer, long, long, ctypes.c_float]
        library.accumulate.argtypes = [*[pointer] * 3, long, long, pointer]
    except (OSError, AttributeError):
        return None
    return library


def compiled(*, wait: bool = False) -> ctypes.CDLL | None:
    """The compiled kernels, or None.

    The first call decides, so that a picture is painted alike each time: where there are none yet it starts the
    compiler and says None, for the sake of the next process, until a call that waits (`wait`) brings them in.
    """
    path = _file()
    if path is None or _found.get(path) or (path in _found and not wait):
        return _found.get(path) if path else None
    with _lock:
        process = None if os.path.exists(path) else _compile(path)
        if process is not None and wait:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=60)
        _found[path] = _load(path) if os.path.exists(path) else None
    return _found[path]


@lru_cache(maxsize=1)
def _compile(path: Path) -> subprocess.Popen[bytes] | None:
    """Start the compiler in the background; the file appears whole or not at all."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    beside = path.with_suffix(f".{uuid.uuid4().hex}")
    link = (
        '"$0" "$@" -c -o "$OUT.o" "$SRC" && "$0" -shared "$OUT.o" -o "$OUT" && mv "$OUT" "$TO"; rm -f "$OUT.o" "$OUT"'
    )
    names = {"SRC": str(_source()), "OUT": str(beside), "TO": str(path)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return subprocess.Popen(
            ["sh", "-c", link, compiler, *FLAGS],
            env={**os.environ, **names},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return None
