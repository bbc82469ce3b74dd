"""Reading a video from image files: a folder of frames, a pattern such as frame_%04d.png, or an animated WebP."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from functools import partial
from pathlib import Path

from av import VideoFrame

from perceptual import images
from perceptual.errors import VideoError
from perceptual.images import Picture, finding
from perceptual.video.base import Video
from perceptual.video.colours import Colours, ToRGB
from perceptual.video.source import Info, scaled_to

RATE = Fraction(25)  # default frame rate of folders and patterns, in frames per second
_NUMBER = re.compile(r"%(0\d+)?d")


class ImageSequence(Video):
    """A folder of frames in the order of their numbers, a pattern such as frame_%04d.png, or an animation: WebP, or
    AVIF with transparency.

    Args:
        path: the folder, the pattern or the file.
        start, end: part to read, in seconds.
        size: longer side of the frames in pixels; the other side follows in proportion, and both are made even.
        rate: frames per second; 25 for a folder or a pattern if not given; for an animation as in `Reader`.

    Attributes (in addition to those of `Video`): `assumed`, True if the rate is the default.

    Raises:
        VideoError: there are no images, their sizes differ, or none lies between `start` and `end`. The sizes of files
            are compared before any frame comes out.
        ImageError: one of them is damaged.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        start: Fraction = Fraction(0),
        end: Fraction | None = None,
        size: int | None = None,
        rate: Fraction | None = None,
    ) -> None:
        super().__init__(Path(path))
        self._start, self._end = start, end
        self._files = frames_in(self.path)
        self.assumed = bool(self._files) and rate is None
        if self._files:
            self.rate, self._tick = None, 1 / (rate or RATE)
            self.time_base = self._tick
        else:
            self.rate, self._tick = rate, Fraction(1, 1000)
            self.time_base = 1 / rate if rate else self._tick
        first, _ = next(self._pictures())
        self.transparent = _is_transparent(first)
        self._size = first.width, first.height
        self._check_sizes()
        width, height = scaled_to(first.width, first.height, size)
        self.info = self._inform(width, height)
        self._to_rgb = partial(ToRGB, Colours(), (width, height))

    def _inform(self, width: int, height: int) -> Info:
        rate, frames, seconds = self.rate or 1 / self._tick, None, None
        if self._files:
            seconds = len(self._files) * self._tick
            frames = len(self._part())
        elif self.rate is None:
            rate = Fraction(10)
        return Info(
            *(width, height, frames, seconds, rate, bool(self._files), False, None, "pictures", Colours()),
            transparent=self.transparent,
        )

    def _part(self) -> list[Path]:
        """The files between start and end."""
        times = ((path, at * self._tick) for at, path in enumerate(self._files))
        return [path for path, time in times if self._start <= time and (self._end is None or time < self._end)]

    def _check_sizes(self) -> None:
        """Compare the sizes of the files in this part, from their headers."""
        for path in self._part():
            for quick in (True, False):  # a PNG is decoded only if its header is not enough
                height, width = images.size_of(path, quick=quick)
                if (width, height) == self._size:
                    break
            else:
                raise self._uneven(path, width, height)

    def _uneven(self, path: Path, width: int, height: int) -> VideoError:
        wide, high = self._size
        return VideoError(
            f"{path} is {width} x {height} px, but the first frame is {wide} x {high} px: give frames of one size."
        )

    def _pictures(self) -> Iterator[tuple[Picture, int]]:
        """(image, duration in units of `_tick`) of each frame."""
        if self._files:
            for path in self._files:
                yield images.read(path, levels=True), 1
        else:
            yield from images.read_animation(self.path)

    def _timed(self) -> Iterator[tuple[VideoFrame, int, int]]:
        pts, shift = 0, None
        for index, (picture, duration) in enumerate(self._pictures()):
            begin, pts = pts, pts + duration
            if begin * self._tick < self._start:
                continue
            if self._end is not None and begin * self._tick >= self._end:
                break
            if (picture.width, picture.height) != self._size:
                raise self._uneven(self._files[index] if self._files else self.path, picture.width, picture.height)
            shift = begin if shift is None else shift
            if self._end is not None:
                duration = max(1, min(duration, round(self._end / self._tick) - begin))
            self.reached = (begin + duration) * self._tick
            array = images.to_array(picture.pixels, picture.alpha, on_white=True)
            self.transparent = self.transparent or _is_transparent(picture)
            yield VideoFrame.from_ndarray(array, "rgb24"), begin - shift, duration
        if shift is None:
            raise VideoError(f"{self.path} has no frame in this part: give another --start or --end.")


def frames_in(path: Path) -> list[Path]:
    """The image files of a folder or of a pattern such as frame_%04d.png, in order; an empty list for a file.

    Raises:
        VideoError: the folder contains no image, or no file matches the pattern.
    """
    if os.path.isdir(path):
        named = [each for each in path.iterdir() if each.suffix.lower() in finding.IMAGE_SUFFIXES]
        found = sorted((each for each in named if each.name[0] != "." and each.is_file()), key=_natural)
        if not found:
            raise VideoError(f"The folder {path} contains no images: give a video, or a folder of frames.")
        return found
    if not is_pattern(path):
        return []
    before, after = _NUMBER.split(path.name)[0], _NUMBER.split(path.name)[-1]
    expected = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))
    folder = path.parent
    numbered = [(expected.fullmatch(name), name) for name in (os.listdir(folder) if folder.is_dir() else [])]
    found = [folder / name for _, name in sorted((int(match[1]), name) for match, name in numbered if match)]
    found = [each for each in found if each.is_file()]
    if not found:
        raise VideoError(f"No files match {path}: check the pattern.")
    return found


def is_pattern(path: Path) -> bool:
    """True if a name is a pattern for numbered images, such as frame_%04d.png."""
    return (
        path.suffix.lower() in finding.IMAGE_SUFFIXES
        and len(_NUMBER.findall(path.name)) == 1
        and not os.path.lexists(path)
    )


def numbered(path: Path, number: int) -> Path:
    """The path of one frame: the pattern with the number filled in."""
    return path.with_name(_NUMBER.sub(lambda found: found[0] % number, path.name))


def is_image_sequence(path: Path) -> bool:
    """True if `ImageSequence` reads a path, False if `Reader` does.

    FFmpeg does not decode animated WebP. Of an animated AVIF with transparency it would take the alpha track.
    """
    if os.path.isdir(path) or is_pattern(path):
        return True
    if not os.path.isfile(path):
        return False
    head = b""
    with suppress(OSError), open(path, "rb") as file:
        head = file.read(65_536)
    if head[4:12] == b"ftypavis":
        return b"auxv" in head  # the kind of an alpha track
    return len(head) > 20 and head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and bool(head[20] & 2)


def _is_transparent(picture: Picture) -> bool:
    return picture.alpha is not None and bool((picture.alpha < 1).any())


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key that puts frame2 before frame10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]
