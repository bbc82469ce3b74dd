"""The passes over memory of fast inference: measuring a grid, encoding it, adding to the stream.

Each is one pass in kernels.c, where PyTorch needs three to five. That file is compiled once for the computer that runs
it, in under a second, and kept in the user's cache beside its SHA-256; without a compiler, on other systems, or with
PERCEPTUAL_KERNELS=0 the same is done by PyTorch's own operations. Only `compiled(wait=True)` waits for the compiler.

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
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceptual.cache import cache_folder, processor
from perceptual.fast.folding import cells

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
    return Path(str(resources.files("perceptual"))) / "fast" / "kernels.c"


_found: dict[Path, ctypes.CDLL | None] = {}
_lock = threading.Lock()


def _private(status: os.stat_result) -> bool:
    """Whether a file or folder is the user's own, and nobody else may write to it."""
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[int]:
    """A descriptor of the folder of the compiled file `path`; it is made if it is missing.

    If others could write to a folder of the user's, it is closed to them, and the compiled file loses its SHA-256: it
    will be compiled anew. Raises OSError if the folder belongs to another user.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        status = os.fstat(folder)
        if status.st_uid != os.geteuid():
            raise PermissionError(f"{path.parent} belongs to another user")
        if not _private(status):
            os.fchmod(folder, 0o700)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{path.name}.sha256", dir_fd=folder)
        yield folder
    finally:
        os.close(folder)


def _read(name: str, folder: int) -> tuple[int, bytes]:
    """A descriptor of a regular file that only the user can write to, and its bytes. Raises OSError for any other."""
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    try:
        status = os.fstat(file)
        if not (stat.S_ISREG(status.st_mode) and _private(status)):
            raise PermissionError(f"{name} can be written by others")
        with open(file, "rb", closefd=False) as content:
            return file, content.read()
    except OSError:
        os.close(file)
        raise


def _load(name: str, folder: int) -> ctypes.CDLL | None:
    """The compiled kernels of that name; None if they are missing, not the user's own, or not what was compiled.

    The library is loaded by the descriptor whose bytes were compared with the SHA-256, so nobody can exchange it.
    """
    try:
        kept, told = _read(f"{name}.sha256", folder)
        os.close(kept)
        file, content = _read(name, folder)
    except OSError:
        return None
    try:
        if hashlib.sha256(content).hexdigest().encode() != told.strip():
            raise OSError(f"{name} is not what was compiled")
        library = ctypes.CDLL(f"/proc/self/fd/{file}", mode=os.RTLD_NOW)  # PyTorch's own OpenMP has GOMP_parallel
        pointer, long = ctypes.c_void_p, ctypes.c_long
        library.measure.argtypes = [pointer, long, long, long, long, pointer]
        library.quantise.argtypes = [pointer, pointer, long, long, pointer, pointer]
        library.encode.argtypes = [pointer, long, *[pointer] * 3, long, pointer, pointer, long, long, ctypes.c_float]
        library.accumulate.argtypes = [*[pointer] * 3, long, long, pointer]
    except (OSError, AttributeError):
        os.close(file)
        return None
    return library  # its file stays open: a second one of that number would be taken for the first


def compiled(*, wait: bool = False) -> ctypes.CDLL | None:
    """The compiled kernels, or None.

    The first call decides for the process, so that a picture is painted alike each time. If there are no kernels yet,
    or if the file in the cache is damaged or not the user's own, the first call starts the compiler and returns None.
    The kernels are then used by the next process, or after a call with `wait`, which waits for the compiler.

    What is guaranteed: after a call with `wait` nothing changes any more in the process. The command waits before its
    first picture, so equal runs of it on one computer give equal bytes, also with an empty cache. Without `wait` the
    first process can round differently than the second one.
    """
    path = _file()
    if path is None or _found.get(path) or (path in _found and not wait):
        return _found.get(path) if path else None
    with _lock:
        library = None
        with contextlib.suppress(OSError), _folder(path) as folder:
            library = _load(path.name, folder)
            if library is None and (process := _compile(path)) and wait:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=60)
                library = _load(path.name, folder)
        _found[path] = library
    return library


_BUILD = """
umask 077
trap 'rm -f "$OUT.o" "$OUT.so" "$OUT.sum"' EXIT
set -e
"$0" "$@" -c -o "$OUT.o" "$SRC"
"$0" -shared "$OUT.o" -o "$OUT.so"
sha256sum <"$OUT.so" | cut -d ' ' -f 1 >"$OUT.sum"
sync "$OUT.so" "$OUT.sum"
mv -f "$OUT.sum" "$TO.sha256"
mv -f "$OUT.so" "$TO"
"""


@lru_cache(maxsize=1)
def _compile(path: Path) -> subprocess.Popen[bytes] | None:
    """Start the compiler in the background; the file and its SHA-256 appear whole or not at all."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    names = {"SRC": str(_source().absolute()), "OUT": f"{_UNFINISHED}{uuid.uuid4().hex}", "TO": path.name}
    try:
        with _folder(path) as folder:
            _remove_leftovers(folder)
            return subprocess.Popen(
                ["sh", "-c", _BUILD, compiler, *FLAGS],
                cwd=f"/proc/self/fd/{folder}",  # the folder that was checked, wherever its name now leads
                env={**os.environ, **names},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
    except OSError:
        return None


_UNFINISHED = "build-"


def _remove_leftovers(folder: int) -> None:
    """Delete what compilers left that were killed more than an hour ago."""
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):
            if name.startswith(_UNFINISHED) and time.time() - os.stat(name, dir_fd=folder).st_mtime > 3600:
                os.unlink(name, dir_fd=folder)
