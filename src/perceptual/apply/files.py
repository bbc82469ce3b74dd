"""Trained networks on files: which files a command reads and writes, and the conversion of one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from perceptual import images
from perceptual.config import Existing
from perceptual.devices import out_of_memory
from perceptual.errors import ImageError, OutputError, PerceptualError
from perceptual.images import Picture, finding


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


def plan_outputs(
    inputs: Sequence[str | Path],
    out: str | Path | None,
    *,
    mark: str = "",
    ending: str = "",
    existing: Existing = "replace",
) -> list[tuple[Path, Path]]:
    """Pair every image that `inputs` name (files, folders, globs) with the file to write.

    With one input file and an ending on `out`, `out` is that file. Otherwise `out` is a folder, which gets the folders
    of the inputs; formats that are read but not written (GIF, PPM ...) become PNG. Images in `out` that a folder or
    glob finds are outputs of an earlier run, so they are left out. If `out` is None, the inputs must be files, and each
    output lies beside its input. `convert_files` reports the second of two images with the same output.

    mark: added to each name: "_wave" for photo_wave.jpg. ending: of each name, such as ".png"; default: the input's.
    existing: "refuse" outputs that exist in a folder; beside an input they get a number (photo_wave_2.jpg).

    Raises:
        ImageError: an input matches nothing. OutputError: an output would overwrite its input, or exists already.
    """
    out = None if out is None else Path(os.path.expanduser(out))
    names = [os.path.expanduser(str(entry)) for entry in inputs]
    found = finding.find(names)
    single = len(names) == 1 and os.path.isfile(names[0]) and len(found) == 1
    if out is None:
        pairs = _beside(found, names, mark=mark, ending=ending, number=existing == "refuse")
    elif single and out.suffix and not os.path.isdir(out):
        images.check_ending(out)
        if mark or ending:
            raise OutputError(f"-o names the file {out}: leave --suffix and --format out, or give a folder to -o.")
        pairs, existing = [(found[0].path, out)], "replace"
    else:
        pairs = _in_folder(found, names, out, mark=mark, ending=ending)
    for source, target in pairs:
        if _real(source) == _real(target):
            raise OutputError(f"The output {target} would overwrite its input: choose another -o.")
    if existing == "refuse":
        _refuse_existing([target for _, target in pairs if os.path.exists(target)])
    return pairs


def _refuse_existing(there: Sequence[Path]) -> None:
    """Refuse to replace these files, if there are any."""
    if there:
        more = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise OutputError(
            f"{there[0]} exists{more}: add --overwrite to replace, --skip-existing to leave what is there, or choose "
            "another -o."
        )


def _in_folder(
    found: Sequence[finding.Found], inputs: list[str], out: Path, *, mark: str, ending: str
) -> list[tuple[Path, Path]]:
    """The pairs of `plan_outputs` for a folder."""
    single = len(inputs) == 1 and os.path.isfile(inputs[0])
    if out.suffix.lower() in finding.IMAGE_SUFFIXES and not os.path.isdir(out) and not single:
        raise OutputError(f"{len(found)} images cannot go to the one file {out}: give a folder to write to.")
    if os.path.isfile(out):
        raise OutputError(f"{out} is a file: give a folder to write to.")
    named = {os.path.abspath(entry) for entry in inputs if os.path.isfile(entry)}
    earlier = [f for f in found if _real(out) in _real(f.path).parents and os.path.abspath(f.path) not in named]
    pairs = [(f.path, out / _named(f.relative, mark, ending)) for f in found if f not in earlier]
    if not mark:
        _refuse_neighbours(pairs)
    if not pairs:
        raise ImageError(f"All images given lie in the output folder {out}: give other images or another folder.")
    return pairs


def _beside(
    found: Sequence[finding.Found], inputs: list[str], *, mark: str, ending: str, number: bool
) -> list[tuple[Path, Path]]:
    """The pairs of `plan_outputs` without `out`. number: give names that exist a number."""
    for entry in inputs:
        if not os.path.isfile(entry):
            raise OutputError(f"{entry} is no single file: say where the results go with -o FOLDER.")
    pairs, taken = list[tuple[Path, Path]](), set[Path]()
    for each in found:
        target, count = _named(each.path, mark, ending), 1
        while number and (target in taken or os.path.lexists(target)):
            count += 1
            target = _named(each.path, f"{mark}_{count}", ending)
        taken.add(target)
        pairs.append((each.path, target))
    return pairs


def _named(path: Path, mark: str, ending: str) -> Path:
    """The name of an output: with a mark, and in a format that can be written."""
    kept = path.suffix if path.suffix.lower() in images.WRITABLE_SUFFIXES else ".png"
    return path.with_name(f"{path.stem}{mark}{ending or kept}")


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # Path.resolve raises RuntimeError for links in a circle


def _refuse_neighbours(pairs: Sequence[tuple[Path, Path]]) -> None:
    """Refuse to write a.png for a.gif where the user has another picture a.png beside it."""
    for source, target in pairs:
        if target.name != source.name and os.path.exists(target) and _real(target).parent == _real(source).parent:
            raise OutputError(f"{source} would replace {target}, which lies beside it: choose another -o.")


def _same_size(height: int, width: int) -> tuple[int, int]:
    return height, width


def convert_files(
    pairs: Sequence[tuple[Path, Path]],
    convert: Callable[[Tensor], Tensor],
    *,
    size: Callable[[int, int], tuple[int, int]] = _same_size,
    alpha: Callable[[Tensor], Tensor | None] | None = None,
    skip_existing: bool = False,
    write: Callable[[Path, Picture], None] = images.write,
) -> Iterator[Outcome]:
    """Read, convert and write each pair in turn; a file that fails is reported in its Outcome and the rest go on.

    convert: (1, 3, H, W) -> (1, 3, h, w), in [0, 1], or uint8 levels for files of 8 bits. size: height and width of the
        picture -> those of the result. alpha: (1, 1, H, W) in [0, 1] -> the result's, or None for a result without; it
        is scaled where sizes differ. write: writes a picture to a file; default: `images.write`.

    Profile, EXIF, resolution and alpha of the input are kept; colours stay those of its profile.
    """
    taken: dict[str, Path] = {}
    for source, target in pairs:
        first = taken.setdefault(os.path.normcase(os.path.abspath(target)), source)
        if first != source:
            text = f"{source} would be written to {target} too, as {first} was: give it another name or folder."
            yield Outcome(source, target, error=text)
        elif os.path.isdir(source):  # as `finding.find` lists those that it cannot search
            text = f"{source} is a folder that cannot be searched: make it readable first."
            yield Outcome(source, target, error=text)
        elif skip_existing and os.path.exists(target):
            yield Outcome(source, target, skipped=True)
        else:
            yield _convert_file(source, target, convert, size=size, alpha=alpha, write=write)


def _convert_file(
    source: Path,
    target: Path,
    convert: Callable[[Tensor], Tensor],
    *,
    size: Callable[[int, int], tuple[int, int]],
    alpha: Callable[[Tensor], Tensor | None] | None,
    write: Callable[[Path, Picture], None],
) -> Outcome:
    """One pair of `convert_files`."""
    try:
        picture = images.read(source, levels=True, own_colours=True)
        images.check_size(target, *size(picture.height, picture.width))
        kept = picture.alpha if picture.alpha is None or alpha is None else alpha(picture.alpha)
        write(target, replace(picture, pixels=convert(picture.pixels), alpha=kept))
    except PerceptualError as error:
        return Outcome(source, target, error=str(error) if str(source) in str(error) else f"{source}: {error}")
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        return Outcome(source, target, error=f"{source} does not fit into memory: make it smaller first.")
    return Outcome(source, target, frames=picture.frames)
