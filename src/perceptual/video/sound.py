"""Converting sound to a codec that the output format supports."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from typing import Any

import av
from av import AudioFrame, FFmpegError, Packet
from av.audio.stream import AudioStream
from av.codec import Codec
from av.container import OutputContainer
from av.error import BlockingIOError as NotYet
from av.error import EOFError as Ended
from av.filter import Graph

_ENCODERS = {  # container -> encoder of FFmpeg, bits per second and channel, largest number of channels
    "webm": ("libopus", 80_000, 8),
    "mp4": ("aac", 96_000, 8),
    "mov": ("aac", 96_000, 8),
    "avi": ("libmp3lame", 96_000, 2),
    "matroska": ("flac", 0, 8),
}
LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
"""The usual layout of the speakers by the number of channels."""
_GAP = 0.02  # seconds; longer gaps are filled with silence, shorter ones are rounding errors of times


class Sound:
    """One audio stream that is decoded and encoded again, at the same times. Gaps are filled with silence.

    Attributes: `stream`, the stream of the output; `description`, the codecs, such as "vorbis as aac"; `damage`, the
    number of packets that could not be decoded.

    Raises:
        ValueError, FFmpegError: the sound cannot be decoded or encoded.
    """

    def __init__(self, output: OutputContainer, source: AudioStream) -> None:
        name, bits, most_channels = _ENCODERS[output.format.name]
        context = source.codec_context
        if not context.sample_rate or not context.layout.nb_channels:
            raise ValueError("the sound has no sample rate")
        rates = Codec(name, "w").audio_rates or [context.sample_rate]
        rate = context.sample_rate if context.sample_rate in rates else 48_000
        channels = min(context.layout.nb_channels, most_channels)
        self._source, self._graph, self._kind, self.damage = source, Graph(), "", 0
        self._first = {"first_pts": "0"} if output.format.name == "avi" else {}  # AVI stores no times
        stream: Any = output.add_stream(name, rate=rate)
        stream.layout = self._layout = LAYOUTS.get(channels, "stereo")
        if bits:
            stream.bit_rate = bits * channels
        stream.time_base = stream.codec_context.time_base = Fraction(1, rate)
        stream.codec_context.open()
        self.stream = stream
        self.description = f"{context.codec.canonical_name} as {stream.codec_context.codec.canonical_name}"

    def convert(self, packet: Packet[Any] | None) -> Iterator[Packet[Any]]:
        """Convert one packet of the input to packets of the output. None flushes the encoder at the end.

        A damaged packet becomes silence.
        """
        try:
            frames = self._source.codec_context.decode(packet)
        except FFmpegError:
            self.damage += 1
            frames = []
        for frame in frames:
            for piece in self._resampled(frame):
                yield from self.stream.encode(piece)
        if packet is None:
            for piece in self._flushed():
                yield from self.stream.encode(piece)
            yield from self.stream.encode(None)

    def _resampled(self, frame: AudioFrame) -> Iterator[AudioFrame]:
        kind = f"{frame.sample_rate} {frame.format.name} {frame.layout.name} {frame.time_base}"
        if kind != self._kind:
            yield from self._flushed()
            self._graph, self._kind, self._first = self._build(frame), kind, {}
        self._graph.push(frame)
        yield from self._pull()

    def _flushed(self) -> Iterator[AudioFrame]:
        if self._kind:
            self._graph.push(None)
            yield from self._pull()
            self._kind = ""

    def _pull(self) -> Iterator[AudioFrame]:
        with suppress(NotYet, Ended):
            while True:
                frame = self._graph.pull()
                assert isinstance(frame, AudioFrame)
                yield frame

    def _build(self, frame: AudioFrame) -> Graph:
        graph, context = Graph(), self.stream.codec_context
        source = graph.add_abuffer(
            sample_rate=frame.sample_rate,
            format=frame.format.name,
            layout=frame.layout.name,
            time_base=frame.time_base or Fraction(1, frame.sample_rate),
        )
        target = {"osr": str(context.sample_rate), "osf": context.format.name, "ochl": self._layout}
        resample = graph.add("aresample", None, **target, **self._first, **{"async": "1", "min_hard_comp": str(_GAP)})
        graph.link_nodes(source, resample, graph.add("abuffersink")).configure()
        return graph


def can_convert(kind: str, source: Any) -> bool:
    """True if `Sound` can convert a stream for a container (FFmpeg's name). It is tried out in memory."""
    if kind not in _ENCODERS:
        return False
    with suppress(FFmpegError, ValueError), av.open(io.BytesIO(), "w", format=kind) as trial:
        Sound(trial, source)
        return True
    return False
