"""FFmpeg's filters on decoded frames: a chain of them that fits itself to each frame's size and format."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction

from av import VideoFrame
from av.error import BlockingIOError as NotYet
from av.error import EOFError as Ended
from av.filter import Graph

_TICK = Fraction(1, 1000)  # filters want times; those that they get here only count frames


Step = tuple[str, dict[str, str]]


class Filters:
    """A chain of filters: (name, options) each, as FFmpeg writes them. It is built anew where frames change their kind.

    Frames go in one after the other; those that come out are in the same order and have no times of their own.
    """

    def __init__(self, *steps: Step) -> None:
        self._steps, self._graph, self._count = steps, Graph(), 0
        self._kind: tuple[int, int, str, int, int] | None = None

    def __call__(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        """Put one frame in; what comes out."""
        kind = (frame.width, frame.height, frame.format.name, int(frame.colorspace), int(frame.color_range))
        if kind != self._kind:
            yield from self.flush()
            self._graph, self._kind = self._build(*kind), kind
        frame.pts, frame.time_base = self._count, _TICK
        self._count += 1
        self._graph.push(frame)
        yield from self._pull()

    def flush(self) -> Iterator[VideoFrame]:
        """What the filters hold back; the end of one kind of frames."""
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
    """Frames in RGB into pal8, each with the best 256 colours for it."""

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
    """(frame, time, duration) each, with the lines of both fields at one time; by FFmpeg's bwdif.

    Frames that say that they are not interlaced pass as they are.
    """
    filters = Filters(("bwdif", {"mode": "send_frame", "deint": "interlaced"}))
    waiting: deque[tuple[int, int]] = deque()
    for frame, pts, duration in timed:
        small = min(frame.width, frame.height) < 4  # which bwdif does not take
        if small or (not waiting and not frame.interlaced_frame):
            for made in filters.flush():
                yield made, *waiting.popleft()
            yield frame, pts, duration
            continue
        waiting.append((pts, duration))
        for made in filters(frame):
            yield made, *waiting.popleft()
        if not frame.interlaced_frame:
            for made in filters.flush():
                yield made, *waiting.popleft()
    for made in filters.flush():
        yield made, *waiting.popleft()
