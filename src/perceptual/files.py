"""Writing files: under a temporary name first, then renamed, so that no file is ever half-written. Checks of output
paths before long work. Hashes of files.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from perceptual.errors import OutputError, PerceptualError, WeightsError

_LEFTOVER = re.compile(r"\..{0,40}-perceptual-[a-z0-9_]{8}", re.DOTALL)
_cleaned: set[str] = set()
_FOLDERS = (".previews", ".tensorboard")
"""Endings of folders beside a result."""
UNUSABLE = {
    errno.ENOSPC: "the disk is full; free some space, or write to another disk.",
    errno.EDQUOT: "the disk quota is used up; free some space, or write to another disk.",
    errno.EACCES: "permission is denied; choose a folder that you may write to.",
    errno.EPERM: "permission is denied; choose a folder that you may write to.",
    errno.EROFS: "that disk is read-only; choose another folder.",
    errno.ENOENT: "a folder in its path, or in that of its link, is missing; choose another path.",
    errno.ENOTDIR: "part of its path is a file, not a folder; choose another path.",
    errno.EEXIST: "part of its path is a file, not a folder; choose another path.",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one.",
    errno.ELOOP: "its links form a circle; choose another path.",
}
"""Number of an OSError -> what went wrong and what to do, as the end of a sentence."""


@contextlib.contextmanager
def write_beside(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path to write to. On success the file is flushed to the disk and renamed to `path`.

    The temporary file has the name of `path`. It lies in a hidden folder beside `path` that only this user may enter.
    On Linux the temporary path goes through a descriptor of that folder. So nobody can put a link in its place, even if
    others may write to the parent folder.

    An existing file keeps its permissions when it is replaced. Missing parent folders are made. If `path` is a link, it
    stays, and all this happens to the file that it leads to, whose folder must exist. On any failure, including Ctrl-C,
    the hidden folder is removed and an existing file at `path` is not changed. The hidden folder of a killed process is
    removed the next time a process writes to the same parent folder.

    Raises:
        OutputError: the disk is full, permission is denied, `path` is no regular file, or its temporary was exchanged.
    """
    name = Path(path)
    try:
        mode = _mode_of(name)
        target = _followed(name)
        _remove_leftovers(target.parent)
        with _hidden_folder(target) as folder:
            temporary = folder / name.name  # its ending tells the format
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            file = os.open(temporary, flags, 0o666)  # less the umask
            try:
                yield temporary
                if not os.path.samestat(os.fstat(file), os.lstat(temporary)):
                    raise OutputError(
                        f"Cannot write {name}: another process exchanged the file; run the command again."
                    )
                if mode is not None and hasattr(os, "fchmod"):
                    os.fchmod(file, mode)
                os.fsync(file)
            finally:
                os.close(file)
            os.replace(temporary, target)
    except PerceptualError:
        raise
    except OSError as error:
        raise OutputError(f"Cannot write {name}: {explain(error)}") from error


def _followed(path: Path) -> Path:
    """The file that a link leads to, also if it is missing; `path` itself if it is no link, and its folder is made.

    Another user's link is not followed but replaced: in a shared folder it could lead to any file of this user.
    """
    if not os.path.islink(path) or (sys.platform != "win32" and os.lstat(path).st_uid not in (0, os.geteuid())):
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
    return Path(os.path.realpath(path))


def _mode_of(target: Path) -> int | None:
    """The permissions of the file that will be replaced; None if there is no such file."""
    try:
        status = os.stat(target)  # checked before the work, not after it
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise OutputError(f"{target} is a folder: give the name of a file to write.")
    if not stat.S_ISREG(status.st_mode):
        raise OutputError(f"{target} is a device or a pipe: give the name of a file to write.")
    return status.st_mode & 0o777


@contextlib.contextmanager
def _hidden_folder(target: Path) -> Iterator[Path]:
    """Make a folder beside `target` that only this user may enter; at the end remove it with its files.

    It is locked while it is in use. A folder without a lock was left by a killed process.
    """
    prefix = f".{target.stem[:40]}-perceptual-"
    if sys.platform == "win32":
        name = tempfile.mkdtemp(prefix=prefix, dir=target.parent)
        try:
            yield Path(name)
        finally:
            _remove(name, name)
        return
    while True:
        name = tempfile.mkdtemp(prefix=prefix, dir=target.parent)
        with contextlib.suppress(FileNotFoundError):
            folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            if _lock(folder) is not False and os.fstat(folder).st_nlink:
                break
            os.close(folder)
        # Before it was locked, another process has removed it as a leftover.
    try:
        by_descriptor = f"/proc/self/fd/{folder}"
        yield Path(by_descriptor if os.path.isdir(by_descriptor) else name)
    finally:
        _remove(name, folder)
        os.close(folder)


def _remove(name: str, folder: int | str) -> None:
    """Delete a hidden folder and its files. folder: its descriptor, or on Windows its name."""
    with contextlib.suppress(OSError):
        for entry in os.listdir(folder):
            if isinstance(folder, int):
                os.unlink(entry, dir_fd=folder)
            else:
                os.unlink(os.path.join(folder, entry))
        os.rmdir(name)


def _lock(descriptor: int) -> bool | None:
    """Lock a file or folder until its descriptor is closed or the process ends.

    Returns False if another process holds the lock, and None if there are no locks, as on some network disks.
    """
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (OSError, ImportError):
        return None
    return True


def _remove_leftovers(parent: Path) -> None:
    """Delete hidden folders of this user's killed processes. This is done once for each parent folder and process."""
    if sys.platform == "win32" or (key := os.path.abspath(parent)) in _cleaned:
        return
    _cleaned.add(key)
    with contextlib.suppress(OSError):
        for name in (os.path.join(parent, entry) for entry in os.listdir(parent) if _LEFTOVER.fullmatch(entry)):
            with contextlib.suppress(OSError):
                folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    status = os.fstat(folder)
                    if (status.st_uid, status.st_mode & 0o777) == (os.geteuid(), 0o700) and _lock(folder):
                        _remove(name, folder)
                finally:
                    os.close(folder)


def check_folder(folder: str | Path) -> None:
    """Check before long work that a folder can be written to. The folder is made if it is missing.

    Raises:
        OutputError: it cannot be made or written to.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        _remove_leftovers(Path(folder))
        with _hidden_folder(Path(folder) / "proof") as hidden:
            (hidden / "proof").write_bytes(b"proof")
    except OSError as error:
        raise OutputError(f"Cannot write to the folder {folder}: {explain(error)}") from error


def exists(path: str | Path) -> bool:
    """Whether a file, folder or link exists at `path`. A link to a missing file counts too.

    Raises:
        OutputError: this cannot be found out, for instance because the name is too long or permission is denied.
    """
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {explain(error)}") from error
    return True


def check_new(out: str | Path, sides: Iterable[Path], *, overwrite: bool) -> None:
    """Check before the work that the result and the files beside it do not replace existing files.

    out: the result. sides: files that are written beside it. overwrite: existing files may be replaced.

    Raises:
        OutputError: `out` or another file is a folder, or one of the files exists and `overwrite` is False, or as in
            `exists`.
    """
    if os.path.isdir(out):
        raise OutputError(f"{out} is a folder: give the name of a file to write.")
    sides = list(sides)
    if wrong := [path for path in sides if path.suffix not in _FOLDERS and os.path.isdir(path)]:
        raise OutputError(f"{wrong[0]} is a folder: delete it, or choose another --out.")
    there = [path for path in (out, *sides) if exists(path)]
    if there and not overwrite:
        raise OutputError(f"{there[0]} exists: choose another --out, or add --overwrite.")


def check_no_input(out: str | Path, inputs: Iterable[str | Path]) -> None:
    """Check before the work that the result does not replace one of its own inputs. Missing inputs are ignored.

    Raises:
        OutputError: it would replace one.
    """
    for path in inputs:
        with contextlib.suppress(OSError, ValueError):
            if os.path.samefile(out, path):
                raise OutputError(f"The output {out} would overwrite its input {path}: choose another --out.")


def remove_previews(folder: Path) -> None:
    """Delete the previews of an earlier run (000500.png and so on), and the folder too if it is empty then."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if re.fullmatch(r"\d{6,}\.png", path.name):
                path.unlink()
        folder.rmdir()


@contextlib.contextmanager
def one_run(out: str | Path) -> Iterator[None]:
    """Lock a result, so that no second process writes it or the files beside it at the same time.

    A network is locked with all files of its name, because a.safetensors has a.state and a.jsonl beside it.

    Raises:
        OutputError: another process holds the lock, or the folder cannot be written to.
    """
    from filelock import FileLock, Timeout

    name = Path(out).stem if Path(out).suffix == ".safetensors" else Path(out).name
    path = Path(out).with_name(f".{name[:200]}.lock")
    lock = FileLock(path, is_singleton=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OutputError(f"Another process is writing {out}: wait until it ends, or choose another --out.") from error
    except OSError as error:
        raise OutputError(f"Cannot write {out}: {explain(error)}") from error
    try:
        yield
    finally:
        if lock.lock_counter == 1:
            with contextlib.suppress(OSError):
                path.unlink()  # still locked: a process that has opened it sees that it is gone
        lock.release()


def append_line(path: str | Path, line: str) -> None:
    """Append a line to a text file, in UTF-8.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {explain(error)}") from error


def explain(error: OSError) -> str:
    """What went wrong and what to do, as the end of a sentence."""
    return UNUSABLE.get(error.errno or 0, f"{(error.strerror or str(error)).lower()}; choose another path.")


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file, 64 hex digits.

    Raises:
        WeightsError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(
            f"Cannot read {path}: {error.strerror or error}; check the path and its permissions."
        ) from error
