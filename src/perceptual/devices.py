"""What the computer at hand can do: device, precision, compiler, and the memory that is free."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from typing import TypeVar

import torch
from torch import nn

from perceptual.errors import ConfigError

Module = TypeVar("Module", bound=nn.Module)


def choose_device(wanted: str = "auto") -> torch.device:
    """The device by name; auto takes a CUDA GPU where there is one, else the CPU.

    Raises:
        ConfigError: no such device here.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"There is no device {wanted!r} on this computer: choose auto or cpu.") from error
    return device


def choose_precision(device: torch.device, wanted: str = "auto") -> str:
    """accelerate's name of the precision to train in: "no" (float32), "bf16" or "fp16".

    auto: bfloat16 where the device multiplies it natively (GPUs since Ampere, CPUs with AMX), float16 on older GPUs,
    else float32: a CPU that only emulates bfloat16 is several times slower in it.
    """
    if wanted == "float16" and device.type == "cpu":
        raise ConfigError("float16 trains on a GPU only: choose bfloat16 or float32 on this computer.")
    if wanted != "auto":
        return {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}[wanted]
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu" and getattr(torch.cpu, "_is_amx_tile_supported", bool)():
        return "bf16"
    return "no"


def multiplies_bytes() -> bool:
    """Whether this processor has instructions for 8-bit products (VNNI, AMX), and PyTorch a convolution for them."""
    able = getattr(torch.cpu, "_is_vnni_supported", bool)() or getattr(torch.cpu, "_is_avx512_vnni_supported", bool)()
    operator = getattr(torch.ops.onednn, "qconv2d_pointwise", None)  # not public: its arguments may change
    return bool(able) and operator is not None and len(operator.default._schema.arguments) == 17


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile has what it needs: a C++ compiler for the CPU, Triton for a GPU."""
    if device.type == "cpu":
        return os.name == "posix" and any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++")))
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
    """Bytes of memory that are free on the device; infinity where that cannot be told."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + kept)
    try:
        import psutil
    except ImportError:
        return float("inf")
    return float(psutil.virtual_memory().available)


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out; the CPU's allocator raises a plain RuntimeError."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error)
