"""Finds image files: a list of files, folders and globs in, the files that they match out."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Sequence, Set
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from perceptual.errors import ImageError
from perceptual.images.damage import decoding

_SUFFIXES = """.jpg .jpeg .jpe .jfif .png .apng .webp .tif .tiff .gif .bmp .dib .pbm .pgm .pnm .ppm .avif .jp2 .j2k
    .ico .qoi .psd .pcx .tga .heic .heif .hif .jxl .dng .cr2 .cr3 .nef .arw .raf .orf .rw2"""
"""Endings that count as images in folders. A file of an unsupported format gives an error later and is not skipped."""
IMAGE_SUFFIXES = frozenset(_SUFFIXES.split())


@dataclass(frozen=True)
class Found:
    """A file, and its path relative to the folder or glob that it was found by, to mirror a tree of folders."""

    path: Path
    relative: Path


def find(inputs: Sequence[str | Path], *, suffixes: Set[str] = IMAGE_SUFFIXES) -> list[Found]:
    """List the image files that inputs match: files, folders with their subfolders, globs such as `photos/**/*.jpg`.

    In folders and globs only files with a known ending are listed, and no hidden ones. The files of each input are
    sorted, and no file is listed twice. If a file has the name of a glob, the file is meant. A folder below an input
    that cannot be searched is listed itself, so that reading it reports the reason. suffixes: the known endings.

    Raises:
        ImageError: an input matches nothing or cannot be searched, or a folder has no image.
    """
    found: dict[str, Found] = {}
    for entry in [inputs] if isinstance(inputs, (str, Path)) else inputs:
        with decoding(entry or "An empty name"):
            for match in _matches(entry, suffixes):
                found.setdefault(os.path.abspath(match.path), match)
    return list(found.values())


def _matches(entry: str | Path, suffixes: Set[str]) -> list[Found]:
    path, root, closed = Path(entry), Path(), list[str]()
    if os.path.isfile(path):
        return [Found(path, Path(path.name))]
    if os.path.isdir(path) and str(entry):
        root = path
        names, closed = _walk(path)
    elif glob.has_magic(str(entry)):
        parts = path.parts
        while len(parts) > 1 and os.path.isdir(root / parts[0]):
            root, parts = root / parts[0], parts[1:]
        if "**" in parts:  # glob.glob would follow links in a circle
            names, closed = _walk(root)
            names = [name for name in names if fits(Path(name).parts, parts)]
        else:
            names = glob.glob(os.path.join(*parts), root_dir=root)
    elif os.path.exists(entry):
        raise ImageError("is a device or a pipe: give a file, a folder, or a glob like photos/*.jpg.")
    else:
        raise ImageError("does not exist: give a file, a folder, or a glob like photos/*.jpg.")
    kept = [name for name in map(Path, names) if name.suffix.lower() in suffixes and _is_file(root / name)]
    kept += map(Path, closed)
    if not names and not closed:
        raise ImageError("matches no file: check the folder and the pattern.")
    if not kept:
        what = "image" if suffixes is IMAGE_SUFFIXES else "video"
        raise ImageError(f"has no {what} in it: known endings are {' '.join(sorted(suffixes))}.")
    return [Found(root / name, name) for name in sorted(kept)]


def _walk(root: Path) -> tuple[list[str], list[str]]:
    """The files below a folder without hidden ones, and the folders that cannot be searched, as relative paths.

    Each folder is searched once, even if links lead to it. A folder below `root` is found under its own name, not
    under that of a link.

    Raises:
        OSError: `root` itself cannot be searched.
    """
    found, errors, searched, links = list[str](), list[OSError](), set(), [str(root)]
    while links:
        for folder, folders, files in os.walk(links.pop(0), onerror=errors.append):
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in searched:
                folders.clear()
                continue
            searched.add((status.st_dev, status.st_ino))
            folders[:] = [name for name in sorted(folders) if not name.startswith(".")]
            links += [path for name in folders if os.path.islink(path := os.path.join(folder, name))]
            found += (os.path.relpath(os.path.join(folder, name), root) for name in files if not name.startswith("."))
    errors = [error for error in errors if not isinstance(error, FileNotFoundError)]  # deleted meanwhile
    if errors and not searched:
        raise errors[0]
    return found, [os.path.relpath(error.filename, root) for error in errors]


def label(name: str) -> str:
    r"""The name of a file for tables and figures: bytes that are not UTF-8 are written as \udce9 and so on."""
    return name.encode(errors="backslashreplace").decode()


def _is_file(path: Path) -> bool:
    """Whether there is a regular file, or one that cannot be looked at: reading it then says why."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError as error:
        return isinstance(error, PermissionError)


def fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path matches a glob, both given as parts: ("a", "*.jpg"). "**" is any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return fits(parts, pattern[1:]) or (bool(parts) and fits(parts[1:], pattern))
    return bool(parts) and fnmatch(parts[0], pattern[0]) and fits(parts[1:], pattern[1:])
