"""Kernels compiled at run time for this very processor, and kept in the user's cache folder.

Only the command does this, and only if the user asks for it with PERCEPTUAL_KERNELS=compile. Later processes run the
compiled file, so it is loaded only if nobody else can have written it: the folder and its files must belong to the
user, nobody else may write to them, and they must not be links. The file must also have the SHA-256 that was noted when
it was compiled.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import torch

from perceptual.cache import cache_folder, processor
from perceptual.fast import build

_UNFINISHED = "build-"
_HOUR = 3600.0


def compiled_here() -> ctypes.CDLL | None:
    """The kernels in the cache; they are compiled first if they are missing, damaged or not safe to load.

    None without a compiler, if compiling fails, or if the cache folder cannot be used.
    """
    path = library_path()
    with contextlib.suppress(OSError), _open_folder(path) as folder:
        found = load(path.name, folder)
        if found is None:
            _remove_leftovers(folder)
            _compile(path.name, folder)
            found = load(path.name, folder)
        return found
    return None


def library_path() -> Path:
    """The compiled file in the cache. Its name has a hash of the source, flags, processor and version of PyTorch."""
    about = "\n".join([*build.native_flags(), processor(), torch.__version__]).encode() + build.source()
    return cache_folder() / "kernels" / f"{hashlib.sha256(about).hexdigest()[:16]}.so"


def load(name: str, folder: int) -> ctypes.CDLL | None:
    """Load a compiled file; None if it is missing, unsafe, or does not have the SHA-256 noted in NAME.sha256.

    folder: a descriptor of its folder. The file is loaded through the descriptor that its SHA-256 was read from, so
    nobody can exchange the file between the check and the loading.
    """
    try:
        digest_file, digest = _read(f"{name}.sha256", folder)
        os.close(digest_file)
        file, content = _read(name, folder)
    except OSError:
        return None
    try:
        if hashlib.sha256(content).hexdigest().encode() != digest.strip():
            raise OSError(f"{name} has another SHA-256 than the compiled file")
        return declare(ctypes.CDLL(f"/proc/self/fd/{file}", mode=os.RTLD_NOW))
        # The descriptor stays open: the loader would take a later file with the same number for this one.
    except (OSError, AttributeError):
        os.close(file)
        return None


def declare(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library, with the argument types of its functions set.

    Raises:
        AttributeError: a function is missing.
    """
    pointer, long = ctypes.c_void_p, ctypes.c_long
    library.measure.argtypes = [pointer, long, long, long, long, pointer]
    library.quantise.argtypes = [pointer, pointer, long, long, pointer, pointer]
    library.encode.argtypes = [pointer, long, *[pointer] * 3, long, pointer, pointer, long, long, ctypes.c_float]
    library.accumulate.argtypes = [*[pointer] * 3, long, long, pointer]
    library.fold.argtypes = [pointer, *[long] * 5, pointer, long]
    library.unfold.argtypes = [pointer, *[long] * 3, pointer, long]
    library.pad.argtypes = [pointer, pointer]
    library.pack.argtypes = [pointer, pointer, *[long] * 4, pointer, pointer]
    library.convolve.argtypes = [pointer] * 7
    library.convolves.restype = long
    library.enlarge.argtypes = [pointer, long, long, pointer, *[long] * 4, pointer]
    library.enlarge.restype = long
    return library


def _compile(name: str, folder: int) -> None:
    """Compile to a temporary name, flush to the disk, then rename the file and its SHA-256 into place."""
    compiler = build.find_compiler()
    if compiler is None:
        return
    temporary = f"{_UNFINISHED}{uuid.uuid4().hex}"
    # This path leads to the folder that was checked, whatever its name leads to by now.
    place = f"/proc/self/fd/{folder}"
    try:
        if not build.compile_library(compiler, build.native_flags(), temporary, build.SOURCE, place):
            return
        file = os.open(temporary, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
        with open(file, "rb") as content:
            digest = hashlib.sha256(content.read()).hexdigest()
            os.fsync(content.fileno())
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with open(os.open(f"{temporary}.sha256", flags, 0o600, dir_fd=folder), "w") as noted:
            noted.write(f"{digest}\n")
            noted.flush()
            os.fsync(noted.fileno())
        for end in (".sha256", ""):
            os.replace(f"{temporary}{end}", f"{name}{end}", src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        for end in (".sha256", ".o", ""):
            with contextlib.suppress(OSError):
                os.unlink(f"{temporary}{end}", dir_fd=folder)


@contextlib.contextmanager
def _open_folder(path: Path) -> Iterator[int]:
    """A descriptor of the folder of `path`; the folder is made if it is missing.

    If others may write to the folder, it is closed to them and the noted SHA-256 is deleted: the kernels will be
    compiled again.

    Raises:
        OSError: the folder belongs to another user, or cannot be made.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        status = os.fstat(folder)
        if status.st_uid != os.geteuid():
            raise PermissionError(f"{path.parent} belongs to another user")
        if not _is_private(status):
            os.fchmod(folder, 0o700)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{path.name}.sha256", dir_fd=folder)
        yield folder
    finally:
        os.close(folder)


def _read(name: str, folder: int) -> tuple[int, bytes]:
    """A descriptor of a file, and its bytes.

    Raises:
        OSError: it is missing, is not a regular file, belongs to another user, or others may write to it.
    """
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    try:
        status = os.fstat(file)
        if not (stat.S_ISREG(status.st_mode) and _is_private(status)):
            raise PermissionError(f"{name} can be written by others")
        with open(file, "rb", closefd=False) as content:
            return file, content.read()
    except OSError:
        os.close(file)
        raise


def _is_private(status: os.stat_result) -> bool:
    """Whether a file or folder belongs to this user, and nobody else may write to it."""
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _remove_leftovers(folder: int) -> None:
    """Delete unfinished files that are older than an hour: killed processes left them."""
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):
            if name.startswith(_UNFINISHED) and time.time() - os.stat(name, dir_fd=folder).st_mtime > _HOUR:
                os.unlink(name, dir_fd=folder)
