"""What the computer at hand can do: device, precision, compiler, and the memory that is free."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from perceptual.cache import cache_folder, processor
from perceptual.errors import ConfigError

Module = TypeVar("Module", bound=nn.Module)

DEVICES = ("cpu", "cuda", "mps", "xpu")
"""Kinds of devices that hold numbers; PyTorch knows others, such as meta, and needs another package for some."""
BFLOAT16_GAIN = 1.2
"""How many times faster than float32 a convolution in bfloat16 must be for training to take it."""


def choose_device(wanted: str = "auto") -> torch.device:
    """The device by name; auto takes a CUDA GPU where there is one, else the CPU.

    Raises:
        ConfigError: no such device here.
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
    """accelerate's name of the precision to train in: "no" (float32), "bf16" or "fp16".

    auto: on a GPU bfloat16 where it multiplies that natively (since Ampere), else float16; on a CPU bfloat16 where it
    was measured to be faster than float32 (`faster_in_bfloat16`).
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
    """Whether this processor trains faster in bfloat16: measured once, 0.2 s, and kept in the cache folder.

    A processor without instructions for bfloat16 emulates it, several times slower than float32.
    """
    named = hashlib.sha256(f"{processor()} {torch.__version__} {torch.backends.cpu.get_cpu_capability()}".encode())
    kept = cache_folder() / f"bfloat16-{named.hexdigest()[:16]}.txt"
    with contextlib.suppress(OSError, ValueError):
        return float(kept.read_text()) > BFLOAT16_GAIN
    seconds = {dtype: _seconds_of_convolution(dtype) for dtype in (torch.float32, torch.bfloat16)}
    ratio = seconds[torch.float32] / seconds[torch.bfloat16]
    with contextlib.suppress(OSError):  # without a cache it is measured again
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(f"{ratio:.3f}\n")
    return ratio > BFLOAT16_GAIN


def _seconds_of_convolution(dtype: torch.dtype) -> float:
    """The least of a few times for a convolution as training has them, forward and backward."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 64, 96, 96, generator=generator).to(dtype, memory_format=torch.channels_last)
    weight = torch.randn(64, 64, 3, 3, generator=generator).to(dtype, memory_format=torch.channels_last)
    image.requires_grad_()
    weight.requires_grad_()
    times = []
    for _ in range(8):
        began = time.perf_counter()
        output = nn.functional.conv2d(image, weight, padding=1)
        torch.autograd.grad(output.sum(), (image, weight))
        times.append(time.perf_counter() - began)
    return min(times)


def multiplies_bytes() -> bool:
    """Whether this processor has instructions for 8-bit products (VNNI, AMX), and PyTorch a convolution for them."""
    able = getattr(torch.cpu, "_is_vnni_supported", bool)() or getattr(torch.cpu, "_is_avx512_vnni_supported", bool)()
    operator = getattr(torch.ops.onednn, "qconv2d_pointwise", None)  # not public: its arguments may change
    return bool(able) and operator is not None and len(operator.default._schema.arguments) == 17


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile has what it needs: Triton, for a GPU.

    Not on a CPU: the code that PyTorch 2.13 generates for our networks there gave NaN under AVX2, and corrupted memory
    under AVX-512 when layers were narrow. The eager network was right in every run.
    """
    return device.type == "cuda" and os.name == "posix"


def channels_last(module: Module) -> Module:
    """Lay a module's weights out in memory as (N, H, W, C): convolutions on the CPU run about 1.5 to 3 times faster."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module


def keep_memory() -> None:
    """Have the C library keep freed memory of up to 256 MB a piece for the next layer.

    By default glibc gives every large activation back to the system and takes it anew, zeroed, page by page: a third of
    a network's time. Elsewhere, or with MALLOC_MMAP_THRESHOLD_ set by the user, nothing is done.
    """
    if sys.platform != "linux" or "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and (mallopt(-3, 256 << 20) or mallopt(-3, 32 << 20)):  # M_MMAP_THRESHOLD; older
        mallopt(-1, 512 << 20)  # M_TRIM_THRESHOLD


def free_memory(device: torch.device) -> float:
    """Bytes of memory that this process can still get on the device; infinity where that cannot be told.

    On the CPU: the least of what the system, the control groups (containers) and the limit of address space leave.
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


def _free_of_cgroups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[float]:
    """What is left under each limit of the control groups (version 1 or 2) of this process, as containers have them."""
    yield float("inf")
    with contextlib.suppress(OSError):
        for line in own.read_text().splitlines():
            _, controllers, place = line.split(":", 2)
            if controllers not in ("", "memory"):
                continue
            folder, files = (
                (root, ("memory.max", "memory.current", "inactive_file"))
                if not controllers
                else (root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"))
            )
            inside = folder / place.lstrip("/")
            for group in (inside, *inside.parents):
                if folder in (group, *group.parents):
                    yield _left(group, *files)


def _left(group: Path, limit: str, used: str, cache: str) -> float:
    """The limit of a control group less what is used; files in the cache are given back when memory gets short."""
    with contextlib.suppress(OSError, ValueError):
        most, now = (group / limit).read_text().strip(), int((group / used).read_text())
        cached = dict(line.split() for line in (group / "memory.stat").read_text().splitlines()).get(cache, 0)
        return float("inf") if most == "max" else max(0.0, float(most) - now + int(cached))
    return float("inf")


def _free_of_limits() -> float:
    """What is left of the address space that `ulimit -v` allows."""
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
    """Whether an error says that memory ran out; the CPU's allocator raises a plain RuntimeError."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error)
