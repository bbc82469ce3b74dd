"""The cache folder: downloads, compiled kernels, and what was measured of this computer."""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
from functools import lru_cache
from pathlib import Path


def cache_folder() -> Path:
    """PERCEPTUAL_CACHE, or the user's cache folder of this system. It may not exist yet.

    A user without a home, as in some containers, gets a folder of their own among the temporary files.
    """
    chosen = os.environ.get("PERCEPTUAL_CACHE")
    if chosen:
        return Path(os.path.expanduser(chosen))
    from platformdirs import user_cache_path

    with contextlib.suppress(RuntimeError):  # nobody knows what ~ is
        path = user_cache_path("perceptual")
        if path.is_absolute():  # earlier platformdirs gave "~/.cache"
            return path
    return Path(tempfile.gettempdir()) / f"perceptual-{os.getuid()}"


@lru_cache(maxsize=1)
def processor() -> str:
    """Name and instruction sets of the processor as the system tells them; measurements and compiled code go by it."""
    try:
        with open("/proc/cpuinfo", errors="replace") as file:
            lines = file.read().split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part")))
