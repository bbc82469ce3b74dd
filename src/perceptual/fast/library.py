"""The compiled kernels of this process: the ones that were installed, or none.

The choice is made once per process, at the first use, so that a process paints a picture the same way each time.
PERCEPTUAL_KERNELS=0 leaves the kernels out.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from pathlib import Path

import torch

from perceptual.cache import processor
from perceptual.fast import build, native

_chosen: list[ctypes.CDLL | None] = []
_lock = threading.Lock()


def compiled() -> ctypes.CDLL | None:
    """The compiled kernels of this process; None where PyTorch's own operations are used in their place."""
    if not _chosen:
        prepare_kernels()
    return _chosen[0]


def prepare_kernels(*, compile_here: bool = False) -> bool:
    """Choose the kernels for this process; returns whether there are any. Later calls change nothing.

    Call it before the first painting if you want the choice to be made then, or if you want kernels compiled for this
    computer. Nothing else in the library ever starts a compiler.

    compile_here: compile the kernels for this very processor, unless they are in the user's cache already. It takes
        about a second and needs Linux and a C compiler. If it fails, the installed kernels are used.
    """
    with _lock:
        if not _chosen:
            allowed = sys.platform == "linux" and os.environ.get("PERCEPTUAL_KERNELS") != "0"
            library = native.compiled_here() if allowed and compile_here else None
            _chosen.append(library or (installed() if allowed else None))
    return _chosen[0] is not None


def kernels_in_use() -> str | None:
    """The compiled kernels of this process in words, such as "vbmi"; None where PyTorch's operations are used."""
    library = compiled()
    if library is None:
        return None
    name = Path(library._name).name
    return name.split("-")[1] if name.startswith("kernels-") else "compiled for this processor"


def installed(folder: Path = build.SOURCE.parent) -> ctypes.CDLL | None:
    """The fastest variant in a folder that this processor can run; None if there is none, or it cannot be loaded."""
    for variant in runnable():
        with contextlib.suppress(OSError, AttributeError):  # missing, damaged, or compiled for another machine type
            return native.declare(ctypes.CDLL(str(folder / build.library_name(variant)), mode=os.RTLD_NOW))
    return None


def runnable() -> list[str]:
    """The variants that this processor can run, the fastest first.

    PyTorch names the processor's best set of instructions, and ATEN_CPU_CAPABILITY can lower it.
    """
    capability, usable = torch.backends.cpu.get_cpu_capability(), {"baseline"}
    if capability.startswith(("AVX2", "AVX512", "AVX10")):
        usable.add("avx2")
    if capability.startswith(("AVX512", "AVX10")):  # AVX10 contains the AVX-512 instructions used here
        usable.add("avx512")
        if {"avx512vbmi", "avx512_vbmi2"} <= set(processor().split()):  # the names in /proc/cpuinfo
            usable.add("vbmi")
    return [variant for variant in build.variants() if variant in usable]
