"""Chains of FFmpeg filters for decoded frames. A chain adapts to the size and format of each frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction

from av import VideoFrame
from av.error import BlockingIOError as NotYet
from av.error import EOFError as Ended
from av.filter import Graph

_TICK = Fraction(1, 1000)  # filters need times; here a time is just the number of the frame

FilterStep = tuple[str, dict[str, str]]


class Filters:
    """A chain of filters. It is rebuilt when the size, the format or the colours of the frames change.

    Frames come out in the order in which they went in, without meaningful times.

    Args:
        steps: (name, options) of each filter, in FFmpeg's names.
    """

    def __init__(self, *steps: FilterStep) -> None:
        self._steps, self._graph, self._count = steps, Graph(), 0
        self._kind: tuple[int, int, str, int, int] | None = None

    def __call__(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        """Push one frame in and yield the frames that come out, if any."""
        kind = (frame.width, frame.height, frame.format.name, int(frame.colorspace), int(frame.color_range))
        if kind != self._kind:
            yield from self.flush()
            self._graph, self._kind = self._build(*kind), kind
        frame.pts, frame.time_base = self._count, _TICK
        self._count += 1
        self._graph.push(frame)
        yield from self._pull()

    def flush(self) -> Iterator[VideoFrame]:
        """Yield the frames that the filters still hold. The chain is rebuilt for the next frame."""
        if self._kind is not None:
            self._kind = None
            self._graph.push(None)
            yield from self._pull()

    def _pull(self) -> Iterator[VideoFrame]:
        while True:
            try:
                frame = self._graph.vpull()
            except (NotYet, Ended):
                return
            yield frame

    def _build(self, width: int, height: int, pixels: str, matrix: int, levels: int) -> Graph:
        graph = Graph()
        source = {"video_size": f"{width}x{height}", "pix_fmt": pixels, "time_base": str(_TICK), "pixel_aspect": "1/1"}
        source |= {"colorspace": str(matrix), "range": str(levels)}
        nodes = [graph.add(name, None, **options) for name, options in [("buffer", source), *self._steps]]
        graph.link_nodes(*nodes, graph.add("buffersink")).configure()
        return graph


class ToPalette(Filters):
    """Converts RGB frames to pal8, each with its own palette of 256 colours."""

    def _build(self, width: int, height: int, pixels: str, matrix: int, levels: int) -> Graph:
        graph = Graph()
        size = {"video_size": f"{width}x{height}", "pix_fmt": pixels, "time_base": str(_TICK), "pixel_aspect": "1/1"}
        source, both = graph.add("buffer", None, **size), graph.add("split")
        palette = graph.add("palettegen", None, stats_mode="single", reserve_transparent="0")
        use, sink = graph.add("paletteuse", None, new="1", dither="sierra2_4a"), graph.add("buffersink")
        source.link_to(both)
        both.link_to(use, 0, 0)
        both.link_to(palette, 1, 0)
        palette.link_to(use, 0, 1)
        use.link_to(sink)
        graph.configure()
        return graph


def deinterlaced(timed: Iterable[tuple[VideoFrame, int, int]]) -> Iterator[tuple[VideoFrame, int, int]]:
    """Deinterlace (frame, time, duration) with FFmpeg's bwdif filter.

    Frames that are not marked as interlaced are passed on unchanged.
    """
    filters = Filters(("bwdif", {"mode": "send_frame", "deint": "interlaced"}))
    waiting: deque[tuple[int, int]] = deque()
    for frame, pts, duration in timed:
        small = min(frame.width, frame.height) < 4  # bwdif needs at least 4 pixels
        if small or (not waiting and not frame.interlaced_frame):
            for out in filters.flush():
                yield out, *waiting.popleft()
            yield frame, pts, duration
            continue
        waiting.append((pts, duration))
        for out in filters(frame):
            yield out, *waiting.popleft()
        if not frame.interlaced_frame:
            for out in filters.flush():
                yield out, *waiting.popleft()
    for out in filters.flush():
        yield out, *waiting.popleft()
