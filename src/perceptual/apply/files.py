"""Applies networks to image files: finds the files to read, chooses the files to write, and converts one by one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from perceptual import images
from perceptual.config import Existing
from perceptual.devices import SideBySide, out_of_memory
from perceptual.errors import ImageError, OutputError, PerceptualError
from perceptual.images import Picture, finding

P = TypeVar("P", bound=PurePath)


@dataclass(frozen=True)
class Outcome:
    """The result for one input file: written, skipped, or failed.

    source, target: the files to read and to write; text where they may be URLs. skipped: True if the output existed
    and was kept. error: the reason if the file failed, else None. frames: number of images in the input file; only the
    first one is converted. size: width and height of the result in pixels, if it was written. seconds: for reading,
    converting and writing. facts: of a video, for the document of --json. warning: what the user should know about a
    result that was written, such as damage in a video.
    """

    source: str | Path
    target: str | Path
    skipped: bool = False
    error: str | None = None
    frames: int = 1
    size: tuple[int, int] | None = None
    seconds: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    warning: str | None = None


def plan_outputs(
    inputs: Sequence[str | Path],
    out: str | Path | None,
    *,
    mark: str = "",
    ending: str = "",
    existing: Existing = "replace",
) -> list[tuple[Path, Path]]:
    """Choose the output file for every input image. Returns pairs (input file, output file).

    inputs: files, folders and globs.
    out: the output file if it has a file ending and there is one input file. Otherwise, or if it ends with a slash, a
        folder, which gets the same subfolders as the inputs; images in it that `inputs` finds are earlier results, so
        they are skipped. None: each output is written next to its input, and all inputs must be files.
    mark: text that is added to each file name: "_wave" gives photo_wave.jpg. ending: file ending of the outputs, such
        as ".png"; by default that of the input, or .png if its format (GIF, PPM) cannot be written.
    existing: "refuse" raises an error for outputs that exist in a folder, and numbers those next to their inputs.

    Raises:
        ImageError: an input matches no image. OutputError: an output would replace an input, two inputs have the same
            output, or an output exists already.
    """
    folder = out is not None and (str(out).endswith(("/", os.sep)) or os.path.isdir(os.path.expanduser(out)))
    out = None if out is None else Path(os.path.expanduser(out))  # which loses the slash
    names = [os.path.expanduser(str(entry)) for entry in inputs]
    found = finding.find(names)
    single = len(names) == 1 and os.path.isfile(names[0]) and len(found) == 1
    if out is None:
        pairs = _beside(found, names, mark=mark, ending=ending, number=existing == "refuse")
    elif single and out.suffix and not folder:
        images.check_ending(out)
        if mark or ending:
            raise OutputError(f"-o names the file {out}: leave --suffix and --format out, or give a folder to -o.")
        pairs, existing = [(found[0].path, out)], "replace"
    else:
        pairs = _in_folder(found, names, out, folder=folder, mark=mark, ending=ending)
    _refuse_collisions(pairs, inputs_kept=existing != "replace")
    if existing == "refuse":
        _refuse_existing([target for _, target in pairs if os.path.exists(target)])
    return pairs


def _refuse_collisions(pairs: Sequence[tuple[Path, Path]], *, inputs_kept: bool) -> None:
    """Raise an OutputError if a file would be written twice, or an input would be replaced.

    inputs_kept: outputs may be inputs of other pairs; they are refused or skipped because they exist.
    """
    inputs, taken = {_real(source): source for source, _ in pairs}, dict[str, Path]()
    for source, target in pairs:
        place = _real(target)
        if place == _real(source):
            raise OutputError(f"The output {target} would overwrite its input: choose another -o.")
        if place in inputs and not inputs_kept:
            raise OutputError(f"The output of {source} would overwrite the input {inputs[place]}: choose another -o.")
        if (first := taken.setdefault(os.path.normcase(place), source)) != source:
            raise OutputError(f"{source} has the same output {target} as {first}: rename it, or give it another -o.")


def _refuse_existing(there: Sequence[Path]) -> None:
    """Raise an OutputError if `there`, the outputs that exist, is not empty."""
    if there:
        more = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise OutputError(
            f"{there[0]} exists{more}: add --overwrite to replace, --skip-existing to keep existing files, or choose "
            "another -o."
        )


def not_one_file(count: int, out: object) -> OutputError:
    """The error for inputs that need a folder of outputs, where `out` names a file."""
    what = f"{count} files" if count > 1 else "What is found in a folder"
    return OutputError(f"{what} cannot be written to one file, {out}: give a folder to write to.")


def _in_folder(
    found: Sequence[finding.Found], inputs: list[str], out: Path, *, folder: bool, mark: str, ending: str
) -> list[tuple[Path, Path]]:
    """The pairs of `plan_outputs` for a folder. folder: whether `out` is one, or was written as one."""
    if out.suffix.lower() in finding.IMAGE_SUFFIXES and not folder:
        raise not_one_file(len(found), out)
    if os.path.isfile(out):
        raise OutputError(f"{out} is a file: give a folder to write to.")
    named = {os.path.abspath(entry) for entry in inputs if os.path.isfile(entry)}
    earlier = [f for f in found if _real(out) in _real(f.path).parents and os.path.abspath(f.path) not in named]
    pairs = [(f.path, out / output_name(f.relative, mark, ending)) for f in found if f not in earlier]
    if not mark:
        _refuse_neighbours(pairs)
    if not pairs:
        raise ImageError(f"All given images are in the output folder {out}: give other images or another folder.")
    return pairs


def _beside(
    found: Sequence[finding.Found], inputs: list[str], *, mark: str, ending: str, number: bool
) -> list[tuple[Path, Path]]:
    """The pairs of `plan_outputs` without `out`. number: add a number to names that exist."""
    for entry in inputs:
        if not os.path.isfile(entry):
            raise OutputError(f"{entry} is not a single file: give a folder for the results with -o FOLDER.")
    pairs, taken = list[tuple[Path, Path]](), set[Path]()
    for each in found:
        target, count = output_name(each.path, mark, ending), 1
        while number and (target in taken or os.path.lexists(target)):
            count += 1
            target = output_name(each.path, f"{mark}_{count}", ending)
        taken.add(target)
        pairs.append((each.path, target))
    return pairs


def output_name(path: P, mark: str, ending: str) -> P:
    """The path of an output: with the mark, and with an ending that can be written. The arguments: `plan_outputs`."""
    kept = path.suffix if path.suffix.lower() in images.WRITABLE_SUFFIXES else ".png"
    return path.with_name(f"{path.stem}{mark}{ending or kept}")


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # Path.resolve raises a RuntimeError for symbolic links in a loop


def _refuse_neighbours(pairs: Sequence[tuple[Path, Path]]) -> None:
    """Refuse to write a.png for a.gif if the user has another image a.png in the same folder."""
    for source, target in pairs:
        if target.name != source.name and os.path.exists(target) and _real(target).parent == _real(source).parent:
            raise OutputError(f"The output of {source} would replace your file {target}: choose another -o.")


def _same_size(height: int, width: int) -> tuple[int, int]:
    return height, width


class Work(NamedTuple):
    """What `convert_files` does with each image. All functions must allow calls from several threads, see `at_once`."""

    convert: Callable[[Tensor], Tensor]
    """From (1, 3, H, W) to (1, 3, h, w). Images are uint8 levels for files of 8 bits, else in [0, 1]."""
    size: Callable[[int, int], tuple[int, int]] = _same_size
    """From height and width of an image to height and width of its result."""
    alpha: Callable[[Tensor], Tensor | None] | None = None
    """From the alpha channel, (1, 1, H, W) in [0, 1], to that of the result, or to None for a result without alpha. By
    default alpha is kept, and scaled if the sizes differ."""
    at_once: Callable[[int, int], int] | None = None
    """How many images of a height and width are worked on at the same time, in threads with one core each, such as
    `Model.at_once`. Default: one, with all cores."""
    on_white: bool = False
    """Put transparent images on a white background first."""


def convert_files(
    pairs: Sequence[tuple[Path, Path]],
    work: Work,
    *,
    skip_existing: bool = False,
    write: Callable[[Path, Picture], None] = images.write,
) -> Iterator[Outcome]:
    """Read, convert and write each pair of files. A failed file does not stop the others.

    The output has the colour profile, the EXIF data, the resolution and the alpha channel of the input.

    pairs: (input file, output file), as `plan_outputs` returns them. skip_existing: keep outputs that exist already.
    write: writes an image to a file; default: `images.write`.

    Yields an Outcome for each pair, in their order.
    """
    taken: dict[str, Path] = {}
    firsts = [taken.setdefault(os.path.normcase(os.path.abspath(target)), source) for source, target in pairs]

    def outcome(place: int) -> Outcome:
        source, target = pairs[place]
        if error := _refused(source, target, firsts[place]):
            return Outcome(source, target, error=error)
        if skip_existing and os.path.exists(target):
            return Outcome(source, target, skipped=True)
        return _convert_file(source, target, work, write)

    at_once = _several(pairs, work.at_once) if work.at_once else lambda place: 1
    return SideBySide(outcome, at_once).results(range(len(pairs)))


def _refused(source: Path, target: Path, first: Path) -> str | None:
    """Why a file is not read, or None. first: the first source with this target."""
    if first != source:
        return f"{source} has the same output {target} as {first}: give it another name or folder."
    if os.path.isdir(source):  # `finding.find` returns folders that it cannot read
        return f"The folder {source} cannot be read: change its permissions."
    return None


def _several(pairs: Sequence[tuple[Path, Path]], at_once: Callable[[int, int], int]) -> Callable[[int], int]:
    """The number of files to work on at the same time, for each place in `pairs`; at_once: as in `Work`."""

    def count(place: int) -> int:
        try:
            height, width = images.size_of(pairs[place][0], quick=True)
            several = at_once(height, width)
        except PerceptualError:
            return 1  # reading or converting it will say why
        return several if place < len(pairs) // several * several else 1  # the last ones: all cores for each

    return count


def _convert_file(source: Path, target: Path, work: Work, write: Callable[[Path, Picture], None]) -> Outcome:
    """One pair of `convert_files`."""
    began = time.monotonic()
    try:
        picture = images.read(source, levels=True, own_colours=True)
        images.check_size(target, *work.size(picture.height, picture.width))
        picture = images.on_white(picture) if work.on_white else picture
        kept = picture.alpha if picture.alpha is None or work.alpha is None else work.alpha(picture.alpha)
        made = replace(picture, pixels=work.convert(picture.pixels), alpha=kept)
        write(target, made)
    except PerceptualError as error:
        return Outcome(source, target, error=str(error) if str(source) in str(error) else f"{source}: {error}")
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        return Outcome(source, target, error=f"{source} needs more memory than there is: make it smaller first.")
    took = time.monotonic() - began
    return Outcome(source, target, frames=picture.frames, size=(made.width, made.height), seconds=took)
