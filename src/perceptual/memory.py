"""A setting of the whole process: the C library keeps freed memory for the next layer. It imports no PyTorch."""

from __future__ import annotations

import ctypes
import os
import sys


def keep_memory() -> None:
    """Make the C library keep freed blocks of up to 256 MB, so that the next layer can use them again.

    By default glibc returns each large activation to the system and asks for it again, and the system fills it with
    zeros, page by page. That takes a third of a network's time on a CPU. The setting holds for the whole process, all
    of its libraries included. The command makes it when it starts; in Python call this once, before the first image,
    if you want it. Nothing else in the library makes it.

    Does nothing on systems other than Linux, or if the user has set MALLOC_MMAP_THRESHOLD_.
    """
    if sys.platform != "linux" or "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and (mallopt(-3, 256 << 20) or mallopt(-3, 32 << 20)):  # M_MMAP_THRESHOLD; old glibc: 32 MB
        mallopt(-1, 512 << 20)  # M_TRIM_THRESHOLD
