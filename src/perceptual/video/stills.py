"""Single frames of a video, evenly spaced in time, for a quick look at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

from torch import Tensor

from perceptual.errors import VideoError
from perceptual.video.base import Video
from perceptual.video.image_sequence import ImageSequence, is_image_sequence
from perceptual.video.reader import Reader

_UNKNOWN = 5  # seconds that are looked at if the length of the video is unknown


def open_video(
    path: str | Path, *, start: Fraction = Fraction(0), end: Fraction | None = None, size: int | None = None
) -> Video:
    """A video, or an animated WebP, to read from; the arguments are those of `Reader`.

    Raises:
        VideoError: as `Reader`.
    """
    kind = ImageSequence if is_image_sequence(Path(path)) else Reader
    return kind(path, start=start, end=end, size=size)


def stills(
    path: str | Path,
    count: int = 5,
    *,
    start: Fraction = Fraction(0),
    end: Fraction | None = None,
    size: int | None = None,
) -> Iterator[tuple[float, Tensor]]:
    """Frames at evenly spaced times: (time in seconds, frame (1, 3, H, W), uint8).

    The part is divided into `count` equal pieces, and the first frame at or after the middle of each piece is taken, or
    else the first one of the piece. Fewer frames come out if a piece has none. If the length is
    unknown, the first five seconds are looked at.

    start, end: the part, in seconds. size: longer side of the frames in pixels.

    Raises:
        VideoError: the video cannot be read, or no frame lies in the part.
    """
    with open_video(path, start=start, end=end, size=size) as video:
        length = video.info.seconds
        first = next(iter(video)).pixels
    known = [each for each in (end, length) if each is not None]
    stop = min(known) if known else start + _UNKNOWN
    found = 0
    for index in range(count):
        for half in (2 * index + 1, 2 * index):  # the last frame may lie in the first half of the last piece
            time = start + (stop - start) * half / (2 * count)
            with suppress(VideoError), open_video(path, start=time, end=end, size=size) as video:
                yield float(time), next(iter(video)).pixels
                found += 1
                break
    if not found:
        yield float(start), first
