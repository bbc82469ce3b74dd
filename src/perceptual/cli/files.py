"""Files in, files out: what the commands that write pictures share, with stdin and stdout as "-"."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from perceptual.cli import results
from perceptual.cli.cluster import entry_of, is_far, only_first, run_far
from perceptual.cli.help import WrongCommandLine
from perceptual.cli.terminal import FAILED, complain, say, tell
from perceptual.config import SaveConfig
from perceptual.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from perceptual.apply import Model, Outcome, Work
    from perceptual.cluster import Convert
    from perceptual.images import Picture

STREAM = "-"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Files(SaveConfig):
    """The files that a command reads and writes."""

    inputs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="INPUT")]
    """Image files, folders and globs, or - for stdin. Names that begin with s3:// are in S3 (`pip install
    'perceptual[ray]'`)."""
    out: Annotated[str | None, tyro.conf.arg(aliases=("-o",), metavar="PATH")] = None
    """The file to write, for one input file, or - for stdout; else a folder. Default for files: beside each input,
    under a name that is not taken, such as photo_wave.jpg; for stdin: stdout."""

    def model_for(self, height: int, width: int) -> Model[Any] | None:
        """The model for a picture of that size in pixels, or None if it is the same for all pictures."""
        return None


def run_files(files: Files, begin: Callable[[], Work], *, mark: str) -> int:
    """Convert each file and print what became of it; returns the exit code, 1 if any failed.

    begin: loads what the work needs; it is called once the names of the files have been checked. mark: for the names of
        outputs beside their inputs, such as "_wave".
    """
    from perceptual.apply import plan_outputs

    if not files.inputs:
        raise WrongCommandLine("Give at least one image, folder or glob to work on.")
    if is_far([*files.inputs, files.out], files):
        from perceptual.cluster import Naming

        return run_far(files.inputs, files.out, files, partial(_far, begin, files), Naming(files.suffix, files.ending))
    with _streams(files) as named:
        mark = files.suffix or (mark if named.out is None else "")
        pairs = plan_outputs(named.inputs, named.out, mark=mark, ending=named.ending, existing=named.existing)
        outcomes = _outcomes(pairs, begin(), files, skip_existing=named.skip_existing)
        return _report(outcomes, len(pairs), files)


def _outcomes(
    pairs: Sequence[tuple[Path, Path]], work: Work, files: SaveConfig, *, skip_existing: bool = False
) -> Iterator[Outcome]:
    """Convert the pairs, and write them with the settings in `files`."""
    from perceptual.apply import convert_files

    return convert_files(
        pairs, work, skip_existing=skip_existing, write=lambda path, picture: _write(path, picture, files)
    )


def _far(begin: Callable[[], Work], files: SaveConfig) -> Convert:
    """What a worker does: begin once, then convert files one by one as `run_files` does."""
    work = begin()
    return lambda source, target: next(_outcomes([(source, target)], work, files))


def is_stdout(files: Files) -> bool:
    """Whether stdout gets the picture, so that all text has to go to stderr."""
    return files.out == STREAM or (files.out is None and STREAM in files.inputs)


@contextlib.contextmanager
def _streams(files: Files) -> Iterator[Files]:
    """The same files, with temporary ones in place of stdin and stdout; at the end stdout gets its picture."""
    reads, writes = STREAM in files.inputs, is_stdout(files)
    if not reads and not writes:
        yield files
        return
    if writes and results.wanted():
        raise WrongCommandLine("--json prints on stdout, which gets the picture: give -o FILE, or leave --json out.")
    if len(files.inputs) > 1:
        raise WrongCommandLine(f"{'stdin' if reads else 'stdout'} (-) is for one picture: give one input.")
    if writes and (sys.stdout is None or sys.stdout.isatty()):
        raise OutputError("stdout is a terminal, which shows no pictures: send it to a file or pipe, or give -o FILE.")
    with tempfile.TemporaryDirectory(prefix="perceptual-") as folder:
        source, target = Path(folder, "stdin"), Path(folder, f"stdout{files.ending or '.png'}")
        named = files
        if reads:
            source.write_bytes(_stdin())
            named = dataclasses.replace(named, inputs=(str(source),))
        if writes:
            if files.suffix:
                raise WrongCommandLine("stdout has no name: leave --suffix out.")
            named = dataclasses.replace(named, out=str(target), format=None)
        yield named
        if target.exists():
            sys.stdout.buffer.write(target.read_bytes())
            sys.stdout.buffer.flush()


def _stdin() -> bytes:
    if sys.stdin is None or sys.stdin.isatty():
        raise ConfigError("- reads a picture from stdin, which is a terminal: send a file or a pipe into it.")
    return sys.stdin.buffer.read()


def _write(path: Path, picture: Picture, config: SaveConfig) -> None:
    """Write a picture with the quality and the resolution that are wanted."""
    from perceptual import images

    images.write(path, images.with_dpi(picture, config.dpi) if config.dpi else picture, quality=config.quality)


def _report(outcomes: Iterable[Outcome], total: int, files: Files) -> int:
    """Print each outcome, and at the end how many there were; the exit code."""
    failures, written, skipped = [], 0, 0
    began = time.monotonic()
    for index, outcome in enumerate(outcomes, start=1):
        source = str(outcome.source)
        if STREAM in files.inputs:
            error = outcome.error and outcome.error.replace(source, "stdin")
            source, outcome = "stdin", dataclasses.replace(outcome, source=STREAM, error=error)
        results.add("files", entry_of(outcome))
        if error := outcome.error:
            failures.append(error)
            complain(f"[{index}/{total}] failed: {error}")
        else:
            written, skipped = written + (not outcome.skipped), skipped + outcome.skipped
            if (count := outcome.frames) > 1:
                say(only_first(source, count))
            if not is_stdout(files):
                tell(f"{outcome.target}" + (" (exists, skipped)" if outcome.skipped else ""))
    say(f"{written} written, {skipped} skipped, {len(failures)} failed in {time.monotonic() - began:.1f} s.")
    if total > 1:
        for error in failures:
            say(f"  failed: {error}")
    return FAILED if failures else 0
