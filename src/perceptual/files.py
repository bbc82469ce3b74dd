"""Writing files so that nothing is ever half-written: write beside, then rename."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from perceptual.errors import OutputError, PerceptualError


@contextlib.contextmanager
def write_beside(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; on success it is flushed and renamed onto `path`.

    Missing parent folders are made. On any failure, Ctrl-C included, the temporary file is removed and an older
    file at `path` stays as it was.

    Raises:
        OutputError: the disk is full, permission is denied, or a folder is in the way.
    """
    target = Path(path)
    if os.path.isdir(target):
        raise OutputError(f"{target} is a folder: give the name of a file to write.")
    temporary: Path | None = None
    try:
        with contextlib.suppress(FileNotFoundError):
            os.stat(target)  # a name that can never be written is said before the work, not after it
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.stem[:40]}-", suffix=target.suffix, dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files that only their owner may read
        os.replace(temporary, target)
        temporary = None
    except PerceptualError:
        raise
    except OSError as error:
        raise OutputError(f"Cannot write {target}: {_mend(error)}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def check_folder(folder: str | Path) -> None:
    """Say before hours of work that its folder cannot be written to; makes the folder.

    Raises:
        OutputError: as `write_beside`.
    """
    proof = Path(folder) / ".proof"
    with write_beside(proof):
        pass
    proof.unlink(missing_ok=True)


def append_line(path: str | Path, line: str) -> None:
    """Add a line to a text file.

    Raises:
        OutputError: as `write_beside`.
    """
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {_mend(error)}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _mend(error: OSError) -> str:
    reasons = {
        errno.ENOSPC: "the disk is full; free some space, or write to another disk.",
        errno.EDQUOT: "the disk quota is used up; free some space, or write to another disk.",
        errno.EACCES: "permission is denied; choose a folder that you may write to.",
        errno.EPERM: "permission is denied; choose a folder that you may write to.",
        errno.EROFS: "that disk is read-only; choose another folder.",
        errno.ENOTDIR: "part of its path is a file, not a folder; choose another path.",
        errno.EEXIST: "part of its path is a file, not a folder; choose another path.",
        errno.ENAMETOOLONG: "the name is too long; choose a shorter one.",
    }
    return reasons.get(error.errno or 0, f"{(error.strerror or str(error)).lower()}; choose another path.")
