"""Which files to read and which to write, for names here and in S3: the rules of `apply.plan_outputs`, on URLs too."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from perceptual import images
from perceptual.apply import Outcome, output_name
from perceptual.apply.files import not_one_file
from perceptual.cluster.names import as_url, check_bucket, is_file, is_there, key_of, list_below
from perceptual.errors import ImageError, OutputError
from perceptual.images import finding

FEW = 1000
"""For up to this many outputs, one request each asks whether it exists. For more, the folder of outputs is listed: one
request for each 1,000 files in it."""

_VIDEO = ".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .ts .mts .m2ts .wmv .flv .3gp .ogv"
VIDEO_SUFFIXES = frozenset(_VIDEO.split())
"""Endings that count as videos in folders."""
IMAGE_SUFFIXES = finding.IMAGE_SUFFIXES


@dataclass(frozen=True)
class Plan:
    """What to do. pairs: (source, target) of the files to convert; done: the results that are known before the work,
    such as outputs that exist. total: the number of files."""

    pairs: list[tuple[str, str]] = field(default_factory=list)
    done: list[Outcome] = field(default_factory=list)

    @property
    def total(self) -> int:
        """The number of input files."""
        return len(self.pairs) + len(self.done)


@dataclass(frozen=True)
class Naming:
    """How outputs are named: mark and ending as in `apply.plan_outputs`. suffixes: the inputs that count in folders.
    outputs: the endings that can be written, and what others become; None: those of pictures."""

    mark: str = ""
    ending: str = ""
    suffixes: frozenset[str] = IMAGE_SUFFIXES
    outputs: tuple[Collection[str], str] | None = None

    def name(self, relative: PurePosixPath) -> PurePosixPath:
        """The name of an output, for the name of its input."""
        if self.outputs is None:
            return output_name(relative, self.mark, self.ending)
        kept = relative.suffix if relative.suffix.lower() in self.outputs[0] else self.outputs[1]
        return relative.with_name(f"{relative.stem}{self.mark}{self.ending or kept}")


def plan(inputs: Sequence[str], out: str | None, naming: Naming, *, overwrite: bool = False) -> Plan:
    """Choose the output for every input file.

    inputs: files, folders and globs, as paths or URLs. out: a path or a URL: a file for one input file if it has an
        ending, else a folder, which gets the same subfolders as the inputs. overwrite: make outputs again that exist.

    Raises:
        ImageError: an input matches no file. OutputError: no `out`, it names one file for several inputs, or an output
            would replace an input.
    """
    if out is None:
        raise OutputError("There is no place for the results: give a folder or an s3:// URL with -o.")
    found = {source: relative for entry in inputs for source, relative in _find(entry, naming.suffixes)}
    single = len(found) == 1 and _is_one_file(inputs[0])
    base = as_url(out) or os.path.abspath(os.path.expanduser(out))
    if single and _is_name_of_file(base) and not out.endswith("/"):
        if naming.mark or naming.ending:
            raise OutputError(f"-o names the file {out}: leave --suffix and --format out, or give a folder to -o.")
        if naming.outputs is None:
            images.check_ending(Path(base))
        pairs, overwrite = [(next(iter(found)), base)], True  # a file that -o names is always replaced
    else:
        _check_is_folder(base, out, len(found), naming)
        base = base.rstrip("/")
        known = {entry for entry in map(_whole, inputs) if entry in found}
        pairs = [
            (source, f"{base}/{naming.name(relative)}")
            for source, relative in found.items()
            if source in known or not source.startswith(f"{base}/")  # others in the folder of outputs are earlier ones
        ]
    if not pairs:
        raise ImageError(f"All given files are in the output folder {out}: give other files or another folder.")
    for source, target in pairs:
        if target in found:
            raise OutputError(f"The output of {source} would replace the input {target}: choose another -o.")
    if as_url(base):
        check_bucket(base)
    return _sorted_out(pairs, set() if overwrite else _existing([target for _, target in pairs], base))


def _sorted_out(pairs: Sequence[tuple[str, str]], there: Collection[str]) -> Plan:
    """A Plan with the outputs that exist as skipped, and inputs with the same output as failed."""
    made, taken = Plan(), dict[str, str]()
    for source, target in pairs:
        first = taken.setdefault(target, source)
        if first != source:
            text = f"{source} has the same output {target} as {first}: give it another name or folder."
            made.done.append(Outcome(source, target, error=text))
        elif target in there:
            made.done.append(Outcome(source, target, skipped=True))
        else:
            made.pairs.append((source, target))
    return made


def _existing(targets: Sequence[str], base: str) -> set[str]:
    """Which of the targets, all below `base`, exist."""
    if not as_url(base):
        return {target for target in targets if os.path.exists(target)}
    if len(targets) <= FEW:
        return {target for target in targets if is_there(target)}
    return {f"{base}/{name}" for name in list_below(base)}.intersection(targets)


def _check_is_folder(base: str, out: str, count: int, naming: Naming) -> None:
    """Raise an OutputError if `out` has the ending of a result, or is a file here, and so is no folder."""
    endings = IMAGE_SUFFIXES if naming.outputs is None else naming.outputs[0]
    if _is_name_of_file(base) and PurePosixPath(base).suffix.lower() in endings and not out.endswith("/"):
        raise not_one_file(count, out)
    if not as_url(base) and os.path.isfile(base):
        raise OutputError(f"{out} is a file: give a folder to write to.")


def _is_name_of_file(base: str) -> bool:
    """Whether an output has an ending, as a file has. The name of a bucket may hold a dot, too."""
    if as_url(base):
        return "/" in key_of(base).strip("/") and bool(PurePosixPath(base).suffix)
    return bool(PurePosixPath(base).suffix) and not os.path.isdir(base)


def _whole(entry: str) -> str:
    """The same name as a URL or as an absolute path."""
    return as_url(entry) or os.path.abspath(os.path.expanduser(entry))


def _is_one_file(entry: str) -> bool:
    url = as_url(entry)
    return is_file(url) if url else os.path.isfile(os.path.expanduser(entry))


def _find(entry: str, suffixes: frozenset[str]) -> list[tuple[str, PurePosixPath]]:
    """(name, name relative to the folder or glob) of the files that one input matches, as `finding.find` does it."""
    url = as_url(entry)
    if url is None:
        found = finding.find([os.path.expanduser(entry)], suffixes=suffixes)
        return [(os.path.abspath(each.path), PurePosixPath(each.relative.as_posix())) for each in found]
    if is_file(url):
        return [(url, PurePosixPath(PurePosixPath(url).name))]
    root, pattern = _split(url)
    below = list_below(root)
    kept = [name for name in below if _wanted(PurePosixPath(name), suffixes)]
    if pattern:
        kept = [name for name in kept if finding.fits(PurePosixPath(name).parts, PurePosixPath(pattern).parts)]
    if not below:
        raise ImageError(f"{url} does not exist or is empty: give a file, a folder, or a glob like s3://bucket/*.jpg.")
    if not kept:
        raise ImageError(f"{url} has no file to convert in it: known endings are {' '.join(sorted(suffixes))}.")
    return [(f"{root}/{name}", PurePosixPath(name.lstrip("/"))) for name in kept]


def _split(url: str) -> tuple[str, str]:
    """The folder before the first part with * ? or [, and the pattern after it: s3://a/b/*.jpg -> (s3://a/b, *.jpg)."""
    parts = url.rstrip("/").split("/")
    first = next((k for k, part in enumerate(parts) if k > 2 and any(char in part for char in "*?[")), len(parts))
    return "/".join(parts[:first]), "/".join(parts[first:])


def _wanted(name: PurePosixPath, suffixes: frozenset[str]) -> bool:
    """Whether a file in a folder counts: it has a known ending, and no part of its name begins with a dot.

    So keys with ".." in them are left out, too: they could lead out of the folder of outputs.
    """
    return name.suffix.lower() in suffixes and not any(part.startswith(".") for part in name.parts)
