"""What this computer can do: its devices and cores, the fastest precision, torch.compile, and free memory."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from perceptual.cache import cache_folder, processor
from perceptual.errors import ConfigError

Module = TypeVar("Module", bound=nn.Module)

DEVICES = ("cpu", "cuda", "mps", "xpu")
"""The device types that are supported. PyTorch has more: meta holds no values, others need another package."""
BFLOAT16_GAIN = 1.2
"""Training uses bfloat16 on a CPU if a convolution is more than this many times faster than in float32."""


def choose_device(wanted: str = "auto") -> torch.device:
    """The device of a name such as cpu or cuda:0. "auto" is a CUDA GPU if there is one, else the CPU.

    Raises:
        ConfigError: this computer has no such device.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    missing = f"There is no device {wanted!r} on this computer: choose auto or cpu."
    if wanted.partition(":")[0] not in DEVICES:
        raise ConfigError(missing)
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(missing) from error
    return device


def choose_precision(device: torch.device, wanted: str = "auto") -> str:
    """The precision to train in, as accelerate names it: "no" (float32), "bf16" or "fp16".

    wanted: "float32", "bfloat16", "float16" or "auto". On a GPU auto is bfloat16 if the GPU has instructions for it
        (since Ampere), else float16. On a CPU it is bfloat16 if that was measured to be faster than float32
        (`faster_in_bfloat16`), else float32.

    Raises:
        ConfigError: float16 on a CPU.
    """
    if wanted == "float16" and device.type == "cpu":
        raise ConfigError("float16 trains on a GPU only: choose bfloat16 or float32 on this computer.")
    if wanted != "auto":
        return {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}[wanted]
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and faster_in_bfloat16() else "no"


@lru_cache(maxsize=1)
def faster_in_bfloat16() -> bool:
    """Whether this processor trains faster in bfloat16 than in float32.

    It is measured once, in 0.2 s, and the ratio is kept in the cache folder. A processor without instructions for
    bfloat16 emulates it, and is then several times slower than in float32.
    """
    if (gain := bfloat16_gain()) is not None:
        return gain > BFLOAT16_GAIN
    kept = _gain_file()
    seconds = {dtype: _seconds_of_convolution(dtype) for dtype in (torch.float32, torch.bfloat16)}
    ratio = seconds[torch.float32] / seconds[torch.bfloat16]
    with contextlib.suppress(OSError):  # if the cache cannot be written, it is measured again next time
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(f"{ratio:.3f}\n")
    return ratio > BFLOAT16_GAIN


def bfloat16_gain() -> float | None:
    """How many times faster training is in bfloat16 than in float32 on this processor; None if it is not measured yet.

    `faster_in_bfloat16` measures it.
    """
    with contextlib.suppress(OSError, ValueError):
        return float(_gain_file().read_text())
    return None


def _gain_file() -> Path:
    """Where the measurement of this processor and version of PyTorch is kept."""
    named = hashlib.sha256(f"{processor()} {torch.__version__} {torch.backends.cpu.get_cpu_capability()}".encode())
    return cache_folder() / f"bfloat16-{named.hexdigest()[:16]}.txt"


def _seconds_of_convolution(dtype: torch.dtype) -> float:
    """The shortest of 8 times for one convolution, forward and backward, of a size that is common in training."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 64, 96, 96, generator=generator).to(dtype, memory_format=torch.channels_last)
    weight = torch.randn(64, 64, 3, 3, generator=generator).to(dtype, memory_format=torch.channels_last)
    image.requires_grad_()
    weight.requires_grad_()
    times = []
    for _ in range(8):
        began = time.perf_counter()
        with torch.enable_grad():  # the caller may work without gradients
            output = nn.functional.conv2d(image, weight, padding=1)
            torch.autograd.grad(output.sum(), (image, weight))
        times.append(time.perf_counter() - began)
    return min(times)


def multiplies_bytes() -> bool:
    """Whether PyTorch's convolution of bytes can be used: the processor has instructions for 8-bit products (AVX-512
    VNNI or AMX), this version of PyTorch has that convolution, and it adds the largest products without an error.

    The last point is computed once. With ONEDNN_MAX_CPU_ISA=AVX512_CORE, for instance, oneDNN does not use VNNI, and
    its sums of two products are cut off at 32,767.
    """
    able = getattr(torch.cpu, "_is_vnni_supported", bool)() or getattr(torch.cpu, "_is_avx512_vnni_supported", bool)()
    operator = getattr(torch.ops.onednn, "qconv2d_pointwise", None)  # it is not public, so its arguments may change
    return bool(able) and operator is not None and len(operator.default._schema.arguments) == 17 and _adds_exactly()


@lru_cache
def _adds_exactly() -> bool:
    """Whether a convolution of 16 channels of 255 with 16 weights of 127 gives 16 * 255 * 127."""
    channels, geometry = 16, ([1, 1], [0, 0], [1, 1], 1)  # stride, padding, dilation, groups
    image = torch.full((1, channels, 4, 4), 255, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    weight, scale = torch.full((channels, channels, 1, 1), 127, dtype=torch.int8), torch.ones(channels)
    packed = torch.ops.onednn.qconv_prepack(weight, scale, 1.0, 0, *geometry, None)
    filters = (packed, scale, torch.zeros(channels, dtype=torch.int32), None)
    output = torch.ops.onednn.qconv2d_pointwise(
        image, 1.0, 0, *filters, *geometry, 1.0, 0, torch.float32, "none", [], ""
    )
    return bool((output == channels * 255 * 127).all())


def make_adam(
    parameters: Iterable[nn.Parameter], learning_rate: float, device: torch.device, precision: str
) -> torch.optim.Adam:
    """Adam for training. On CUDA it is fused: one kernel for all parameters. Matrix products get TF32 there.

    Convolutions have TF32 by default. The setting holds for the whole process. precision: as accelerate names it. In
    fp16 Adam is not fused, because a fused one hides the steps that the scaler of the loss skips.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    fused = device.type == "cuda" and precision != "fp16"
    return torch.optim.Adam(parameters, lr=learning_rate, fused=fused or None)


def use_one_thread() -> None:
    """Let the calling thread compute on one core of the CPU from now on. Other threads are not changed.

    `torch.set_num_threads` would also change threads that start later. Nothing happens where PyTorch's OpenMP library
    cannot be found.
    """
    torch.get_num_threads()  # PyTorch sets the number at its first use in a thread
    with contextlib.suppress(AttributeError, OSError, TypeError):  # the last one on Windows
        ctypes.CDLL(None).omp_set_num_threads(1)


@dataclass(frozen=True)
class SideBySide:
    """Work on several items at the same time, with one core of the CPU for each. Their order stays the same.

    Then no core waits for another.

    work: a function of one item that allows calls from several threads. at_once: the number of items to work on at the
    same time, for an item. If it is 1, the item has all cores.
    """

    work: Callable[[Any], Any]
    at_once: Callable[[Any], int]

    def results(self, items: Iterable[Any]) -> Iterator[Any]:
        """The results for all items, in order."""
        waiting = deque[Future[Any]]()
        pool = None
        try:
            for item in items:
                count = self.at_once(item)
                while len(waiting) > (count if count > 1 else 0):  # one more than are worked on, so that all stay busy
                    yield waiting.popleft().result()
                if count == 1:
                    result = self.work(item)
                    del item  # release the memory while the queue is full
                    yield result
                    del result
                    continue
                pool = pool or ThreadPoolExecutor(count, "item", use_one_thread)
                waiting.append(pool.submit(self.work, item))
                del item  # release the memory while waiting for the next item
            while waiting:
                yield waiting.popleft().result()
        finally:
            if pool:
                pool.shutdown(cancel_futures=True)


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile is used on a device: on CUDA GPUs, where the system is not Windows.

    It is not used on a CPU. The code that PyTorch 2.13 generated there for our networks gave NaN with AVX2, and
    corrupted memory with AVX-512 when layers had few channels. The eager network was right in every run.
    """
    return device.type == "cuda" and os.name == "posix"


def channels_last(module: Module) -> Module:
    """Store a module's weights in the memory order (N, H, W, C), in place; returns the module.

    Convolutions on a CPU run about 1.5 to 3 times faster with it.
    """
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module


def free_memory(device: torch.device) -> float:
    """Bytes of memory that this process can still get on a device; infinity if they are unknown.

    On the CPU this is the minimum of three values: the free memory of the system, the rest below the limits of control
    groups (containers), and the rest below the limit of address space (`ulimit -v`).
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + kept)
    return min(_free_of_system(), *_free_of_cgroups(), _free_of_limits())


def _free_of_system() -> float:
    try:
        import psutil
    except ImportError:
        return float("inf")
    return float(psutil.virtual_memory().available)


_UNLIMITED = 2.0**62
"""Version 1 of control groups writes about 2**63 bytes where there is no limit."""


def _free_of_cgroups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[float]:
    """Bytes left below each memory limit of this process's control groups (version 1 or 2), as containers set them."""
    yield float("inf")
    with contextlib.suppress(OSError):
        for line in own.read_text().splitlines():
            _, controllers, place = line.split(":", 2)
            if controllers not in ("", "memory"):
                continue
            folder, files = root, ("memory.max", "memory.current", "inactive_file")
            if controllers:
                folder = root / "memory"
                files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            inside = folder / place.lstrip("/")
            for group in (inside, *inside.parents):
                if folder in (group, *group.parents):
                    yield _left(group, *files)


def _left(group: Path, limit: str, used: str, cache: str) -> float:
    """A control group's limit minus its used bytes. Cached files do not count: the system frees them when needed."""
    with contextlib.suppress(OSError, ValueError):
        most = float((group / limit).read_text().replace("max", "inf"))
        if most < _UNLIMITED:
            now = int((group / used).read_text())
            cached = dict(line.split() for line in (group / "memory.stat").read_text().splitlines()).get(cache, 0)
            return max(0.0, most - now + int(cached))
    return float("inf")


def _free_of_limits() -> float:
    """Bytes of address space left below the limit of `ulimit -v`."""
    try:
        import resource
    except ImportError:  # not on Windows
        return float("inf")
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return float("inf")
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        return max(0.0, float(limit - pages * resource.getpagesize()))
    return float(limit)


def out_of_memory(error: Exception) -> bool:
    """Whether an error means that memory ran out. PyTorch raises a plain RuntimeError for that on a CPU and on MPS."""
    words = ("allocate memory", "out of memory")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(each in str(error) for each in words)
