"""What a run that was killed left behind: hidden files of the output's name, which the next run clears away."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where nothing of another process can be deleted that is still in use
    fcntl = None  # type: ignore[assignment]

_YOUNG = 5  # seconds


@contextmanager
def held(temporary: Path) -> Iterator[None]:
    """Lock a file that is being written, so that other runs see that it is; the end of the process opens it."""
    if fcntl is None:
        yield
        return
    with open(temporary, "rb") as file:
        with suppress(OSError):  # a disk that knows no locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def clear(target: Path) -> None:
    """Delete what `perceptual.files.write_beside` began for this file in runs that were killed."""
    if fcntl is None:
        return
    ours = re.compile(re.escape(f".{target.stem[:40]}-") + "[a-z0-9_]{8}" + re.escape(target.suffix))
    with suppress(OSError):
        for name in filter(ours.fullmatch, os.listdir(target.parent)):
            path = target.parent / name
            about = path.lstat()
            young = time.time() - about.st_mtime < _YOUNG  # a run that has just begun may not hold it yet
            if young or not stat.S_ISREG(about.st_mode) or about.st_uid != os.getuid():
                continue
            with suppress(OSError), open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
