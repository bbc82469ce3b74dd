"""The cache folder, for downloads, compiled kernels and measurements; and the processor of this computer."""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
from functools import lru_cache
from pathlib import Path


def cache_folder() -> Path:
    """The folder that PERCEPTUAL_CACHE names, else the system's cache folder for this user. It may not exist yet.

    In some containers the user has no home folder: then it is a folder of this user below the temporary folder.
    """
    chosen = os.environ.get("PERCEPTUAL_CACHE")
    if chosen:
        return Path(os.path.expanduser(chosen))
    from platformdirs import user_cache_path

    with contextlib.suppress(RuntimeError):  # the user has no home folder
        path = user_cache_path("perceptual")
        if path.is_absolute():  # without a home folder, old versions of platformdirs return "~/.cache"
            return path
    return Path(tempfile.gettempdir()) / f"perceptual-{os.getuid()}"


@lru_cache(maxsize=1)
def processor() -> str:
    """Name and instruction sets of the processor. Measurements and compiled code in the cache are stored under it."""
    try:
        with open("/proc/cpuinfo", errors="replace") as file:
            lines = file.read().split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part")))


def usable_processors() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
