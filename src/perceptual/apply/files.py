"""Trained networks on files: which files a command reads and writes, and the conversion of one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from perceptual import images
from perceptual.devices import out_of_memory
from perceptual.errors import ImageError, OutputError, PerceptualError
from perceptual.images import finding


@dataclass(frozen=True)
class Outcome:
    """What became of one input file: written, skipped because its output exists, or failed with a reason.

    frames: pictures in the file; only the first is converted.
    """

    source: Path
    target: Path
    skipped: bool = False
    error: str | None = None
    frames: int = 1


def plan_outputs(inputs: Sequence[str | Path], out: str | Path) -> list[tuple[Path, Path]]:
    """Pair every image that `inputs` name (files, folders, globs) with the file to write.

    With one input file and an image suffix on `out`, `out` is that file. Otherwise `out` is a folder, which gets the
    folders of the inputs; formats that are read but not written (GIF, PPM ...) become PNG. Images in `out` that a
    folder or glob finds are outputs of an earlier run, so they are left out.

    Several images may get the same output: `convert_files` writes the first and reports the others.

    Raises:
        ImageError: an input matches nothing. OutputError: an output would overwrite its input.
    """
    out = Path(os.path.expanduser(out))
    inputs = [os.path.expanduser(entry) for entry in inputs]
    found = finding.find(inputs)
    single = len(inputs) == 1 and os.path.isfile(inputs[0]) and len(found) == 1
    if single and out.suffix and not os.path.isdir(out):
        images.check_ending(out)
        pairs = [(found[0].path, out)]
    else:
        if out.suffix.lower() in finding.IMAGE_SUFFIXES and not os.path.isdir(out) and not single:
            raise OutputError(f"{len(found)} images cannot go to the one file {out}: give a folder to write to.")
        if os.path.isfile(out):
            raise OutputError(f"{out} is a file: give a folder to write to.")
        named = {os.path.abspath(entry) for entry in inputs if os.path.isfile(entry)}
        earlier = [f for f in found if _real(out) in _real(f.path).parents and os.path.abspath(f.path) not in named]
        pairs = [(f.path, out / _writable(f.relative)) for f in found if f not in earlier]
        _refuse_neighbours(pairs)
        if not pairs:
            raise ImageError(f"All images given lie in the output folder {out}: give other images or another folder.")
    for source, target in pairs:
        if _real(source) == _real(target):
            raise OutputError(f"The output {target} would overwrite its input: choose another -o.")
    return pairs


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # Path.resolve raises RuntimeError for links in a circle


def _refuse_neighbours(pairs: Sequence[tuple[Path, Path]]) -> None:
    """Refuse to write a.png for a.gif where the user has another picture a.png beside it."""
    for source, target in pairs:
        if target.name != source.name and os.path.exists(target) and _real(target).parent == _real(source).parent:
            raise OutputError(f"{source} would replace {target}, which lies beside it: choose another -o.")


def _writable(path: Path) -> Path:
    return path if path.suffix.lower() in images.WRITABLE_SUFFIXES else path.with_suffix(".png")


def _same_size(height: int, width: int) -> tuple[int, int]:
    return height, width


def convert_files(
    pairs: Sequence[tuple[Path, Path]],
    convert: Callable[[Tensor], Tensor],
    *,
    size: Callable[[int, int], tuple[int, int]] = _same_size,
    alpha: Callable[[Tensor], Tensor] | None = None,
    skip_existing: bool = False,
) -> Iterator[Outcome]:
    """Read, convert and write each pair in turn; a file that fails is reported in its Outcome and the rest go on.

    convert: (1, 3, H, W) -> (1, 3, h, w), in [0, 1], or uint8 levels for files of 8 bits. size: height and width of the
        picture -> those of the result. alpha: (1, 1, H, W) in [0, 1] -> the result's; it is scaled where sizes differ.

    Profile, EXIF, resolution and alpha of the input are kept; colours stay those of its profile.
    """
    taken: dict[str, Path] = {}
    for source, target in pairs:
        first = taken.setdefault(os.path.normcase(os.path.abspath(target)), source)
        if first != source:
            text = f"{source} would be written to {target} too, as {first} was: give it another name or folder."
            yield Outcome(source, target, error=text)
            continue
        if os.path.isdir(source):  # as `finding.find` lists those that it cannot search
            yield Outcome(
                source, target, error=f"{source} is a folder that cannot be searched: make it readable first."
            )
            continue
        if skip_existing and os.path.exists(target):
            yield Outcome(source, target, skipped=True)
            continue
        try:
            yield Outcome(source, target, frames=_convert(source, target, convert, size, alpha))
        except PerceptualError as error:
            text = str(error)
            yield Outcome(source, target, error=text if str(source) in text else f"{source}: {text}")
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            yield Outcome(source, target, error=f"{source} does not fit into memory: make it smaller first.")


def _convert(
    source: Path,
    target: Path,
    convert: Callable[[Tensor], Tensor],
    size: Callable[[int, int], tuple[int, int]],
    alpha: Callable[[Tensor], Tensor] | None,
) -> int:
    """Read, convert and write one picture; the number of pictures in its file."""
    picture = images.read(source, levels=True, own_colours=True)
    images.check_size(target, *size(picture.height, picture.width))
    kept = picture.alpha if picture.alpha is None or alpha is None else alpha(picture.alpha)
    images.write(target, replace(picture, pixels=convert(picture.pixels), alpha=kept))
    return picture.frames
