"""Finds image files: a list of files, folders and globs in, the files that they match out."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
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


def find(inputs: Sequence[str | Path]) -> list[Found]:
    """List the image files that inputs match: files, folders with their subfolders, globs such as `photos/**/*.jpg`.

    In folders and globs only files with a known ending are listed, and no hidden ones. The files of each input are
    sorted, and no file is listed twice. If a file has the name of a glob, the file is meant.

    Raises:
        ImageError: an input matches nothing, or a folder has no image.
    """
    found: dict[str, Found] = {}
    for entry in [inputs] if isinstance(inputs, (str, Path)) else inputs:
        with decoding(entry or "An empty name"):
            for match in _matches(entry):
                found.setdefault(os.path.abspath(match.path), match)
    return list(found.values())


def _matches(entry: str | Path) -> list[Found]:
    path, root = Path(entry), Path()
    if os.path.isfile(path):
        return [Found(path, Path(path.name))]
    if os.path.isdir(path) and str(entry):
        root, names = path, list(_walk(path))
    elif glob.has_magic(str(entry)):
        parts = path.parts
        while len(parts) > 1 and os.path.isdir(root / parts[0]):
            root, parts = root / parts[0], parts[1:]
        if "**" in parts:  # glob.glob would follow links in a circle
            names = [name for name in _walk(root) if _fits(Path(name).parts, parts)]
        else:
            names = glob.glob(os.path.join(*parts), root_dir=root)
    elif os.path.exists(entry):
        raise ImageError("is a device or a pipe: give a file, a folder, or a glob like photos/*.jpg.")
    else:
        raise ImageError("does not exist: give a file, a folder, or a glob like photos/*.jpg.")
    kept = [name for name in map(Path, names) if name.suffix.lower() in IMAGE_SUFFIXES and os.path.isfile(root / name)]
    if not names:
        raise ImageError("matches no file: check the folder and the pattern.")
    if not kept:
        raise ImageError(f"has no image in it: known endings are {' '.join(sorted(IMAGE_SUFFIXES))}.")
    return [Found(root / name, name) for name in sorted(kept)]


def _walk(root: Path) -> Iterator[str]:
    """The files below a folder, as relative paths, without hidden ones.

    Each folder is searched once, even if links lead to it. A folder below `root` is found under its own name, not
    under that of a link.
    """
    searched, links = set(), [str(root)]
    while links:
        for folder, folders, files in os.walk(links.pop(0)):
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in searched:
                folders.clear()
                continue
            searched.add((status.st_dev, status.st_ino))
            folders[:] = [name for name in sorted(folders) if not name.startswith(".")]
            links += [path for name in folders if os.path.islink(path := os.path.join(folder, name))]
            yield from (os.path.relpath(os.path.join(folder, name), root) for name in files if not name.startswith("."))


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path matches a glob, both given as parts. "**" matches any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return _fits(parts, pattern[1:]) or (bool(parts) and _fits(parts[1:], pattern))
    return bool(parts) and fnmatch(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])
