"""Copying everything except the frames: sound, subtitles, cover, fonts, chapters and metadata."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import av
from av import FFmpegError, InvalidDataError, Packet
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.stream import Stream

from perceptual.errors import ConfigError
from perceptual.video.reader import Reader
from perceptual.video.sound import LAYOUTS, Sound, can_convert
from perceptual.video.source import Clock, is_cover, open_input, packets_of

if TYPE_CHECKING:
    from av.container.core import Chapter

_WORDS = {"audio": "sound", "subtitle": "subtitles", "attachment": "an attachment", "data": "data", "video": "video"}
GAP = Fraction(1, 10)  # seconds without sound that count as a gap
_STALE = {
    *("major_brand", "minor_version", "compatible_brands", "encoder", "software", "handler_name", "vendor_id"),
    *("rotate", "duration", "timecode", "alpha_mode"),
}
SILENT = (".gif", ".apng", ".webp")  # formats of animations, which never have sound
_LOCATION = "com.apple.quicktime.location.ISO6709"
_LOOKAHEAD = 5  # seconds to read past the end of the part, because packets are not exactly in order of time
_MOST_EARLY = 1000  # largest number of packets that wait for the first frame after a join


class Streams:
    """Copies all streams except the video stream, packet by packet, to an output that is being written.

    Sound is converted if the output format does not support its codec. The input is opened a second time for this, and
    read only up to the time of the last written frame, so that few packets are kept in memory.

    Args:
        reader: the video.
        output: the output, before its header is written.
        suffix: file ending of the output, such as ".mp4".
        sound: False leaves the sound out.

    Attributes: `messages`, sentences about streams that are converted or left out; `reached`, seconds of the input that
    were copied; `damage`, the number of places that could not be read.

    Raises:
        ConfigError: the output format does not support the sound, and it cannot be converted.
    """

    def __init__(self, reader: Reader, output: OutputContainer, suffix: str, *, sound: bool = True) -> None:
        self.damage, self.reached = 0, Fraction(0)
        self._skips = suffix in (".mp4", ".m4v", ".mov")  # by an edit list it can hide sound before the start
        self._from_zero = suffix == ".avi"  # AVI has no times below 0: FFmpeg would shift the video instead
        self._output, self._shift = output, reader.shift
        self._start, self._end, self._sought = reader.first, reader.last, reader.seek_time
        self._container = open_input(reader.path)
        self.messages: list[str] = []
        self._unsupported: set[int] = set()  # sound that the output cannot hold
        self._sounds: dict[int, Sound] = {}
        try:
            self._video = self._container.streams[reader.index]
            kept = self._choose(reader.path, suffix, sound=sound)
            if suffix == ".avi":
                self._check_gaps(reader.path, [stream.index for stream in kept if stream.type == "audio"])
            self._outputs = {stream.index: self._open(stream) for stream in kept}
            if self._sounds:
                words = ", ".join(dict.fromkeys(sound.description for sound in self._sounds.values()))
                self.messages.append(f"The sound is converted, because {suffix} does not support it: {words}.")
        except BaseException:
            self._container.close()
            raise
        strict = not av.format.Flags(output.format.flags) & av.format.Flags.ts_nonstrict
        self._latest: dict[int, int] = {}
        self._written: dict[int, int] | None = {} if strict else None  # the latest times in units of the output
        self._clock = Clock()
        self._packets = self._read([stream for stream in kept if stream.type != "attachment"])
        self._held: Packet[Any] | None = None

    @property
    def undecoded(self) -> int:
        """Number of audio packets that could not be decoded during conversion."""
        return sum(sound.damage for sound in self._sounds.values())

    def describe(self, target: Stream) -> None:
        """Copy the metadata of the file to the output, and those of the video stream to the stream `target`."""
        self._output.metadata.update(_kept_metadata(self._container.metadata))
        target.metadata.update(_kept_metadata(self._video.metadata))
        target.disposition = self._video.disposition

    def copy(self, until: Fraction | None) -> None:
        """Copy all packets before a time of the output in seconds; None: all remaining packets."""
        while (packet := self._held or next(self._packets, None)) is not None:
            self._held = packet
            if until is not None and (packet.dts or 0) * packet.time_base - self._shift >= until:
                return
            self._write(packet)
            self._held = None

    def close(self, until: Fraction | None) -> None:
        """Copy the remaining packets before a time, and the chapters. Call it last, before the output is closed."""
        self.copy(until)
        for sound in self._sounds.values():
            self._mux(sound.convert(None))
        self._output.set_chapters(list(self._chapters(until)))
        self._container.close()

    def abandon(self) -> None:
        """Close the input without copying the rest."""
        self._container.close()

    def _choose(self, path: Path, suffix: str, *, sound: bool) -> list[Stream]:
        """The streams that the output format supports, unchanged or converted."""
        kept, left, others = [], Counter[str](), Counter[str]()
        chapters = bool(self._container.chapters())
        for stream in self._container.streams:
            kind = stream.type
            if stream is self._video or (kind == "data" and chapters and _codec(stream) == "bin_data"):
                continue  # MP4 stores its chapters in a data stream; they are copied separately
            if kind == "audio" and not sound:
                continue
            cover = kind == "video" and is_cover(stream) and suffix in (".mp4", ".m4v")
            fonts = kind == "attachment" and suffix != ".webm"  # FFmpeg's WebM drops them without an error
            if (kind in ("audio", "subtitle") or fonts or cover) and _supports(self._output.format.name, stream):
                kept.append(stream)
            elif kind == "audio" and can_convert(self._output.format.name, stream):
                kept.append(stream)
                self._unsupported.add(stream.index)
            elif kind == "video" and not is_cover(stream):
                others[_codec(stream) or "unknown"] += 1
            elif kind == "audio" and suffix not in (".mkv", *SILENT):
                which = f"sound ({_codec(stream) or 'unknown'})"
                raise ConfigError(f"{path} has {which}, which {suffix} does not support: write .mkv, or give "
                                  "--no-sound.")  # fmt: skip
            else:
                left[
                    f"{'a cover' if is_cover(stream) else _WORDS.get(kind, kind)} ({_codec(stream) or 'unknown'})"
                ] += 1
        if chapters and suffix in (".avi", *SILENT):
            left["chapters"] += 1
        if others:
            self.messages.append(f"Only one video track is converted; left out: {_listed(others)}.")
        if left:
            self.messages.append(f"Left out, because {suffix} does not support it: {_listed(left)}.")
        return kept

    def _open(self, stream: Stream) -> Stream:
        """Add a stream to the output for a stream of the input."""
        if stream.index not in self._unsupported:
            return _add(self._output, stream)
        assert isinstance(stream, AudioStream)
        sound = self._sounds[stream.index] = Sound(self._output, stream)
        _describe(sound.stream, stream)
        return cast(Stream, sound.stream)

    def _check_gaps(self, path: Path, indices: list[int]) -> None:
        """Raise a ConfigError for sound that starts late or has gaps. AVI has no times and would join its parts."""
        ends: dict[int, Fraction] = {}
        with open_input(path) as container:
            for packet in packets_of(container, [container.streams[index] for index in indices], lambda: None):
                time = (packet.pts or 0) * packet.time_base - self._shift
                if self._end is not None and time + self._shift >= self._end:
                    break
                if time - ends.get(packet.stream.index, Fraction(0)) > GAP and packet.duration:
                    raise ConfigError(
                        f"The sound of {path} starts late or has gaps, which .avi does not support: write .mkv or .mp4."
                    )
                ends[packet.stream.index] = max(Fraction(0), time + (packet.duration or 0) * packet.time_base)

    def _read(self, streams: list[Stream]) -> Iterator[Packet[Any]]:
        """The packets of the part, in the order of the file."""
        if not streams:
            return
        if self._sought is not None:
            with suppress(FFmpegError):  # one second earlier, because packets are not exactly in order of time
                self._container.seek(max(0, int((self._sought - 1) * av.time_base)))
        left = {stream.index for stream in (self._video, *streams)}
        for packet in self._timed([self._video, *streams]):
            if self._end is not None and self._is_past(packet, self._end):
                left.discard(packet.stream.index)
            if packet.stream.index in self._outputs and self._in_part(packet):
                yield packet
            if not left:
                return

    def _timed(self, streams: list[Stream]) -> Iterator[Packet[Any]]:
        """All packets that have a time. Their times are made continuous by `Clock`."""
        early: list[Packet[Any]] = []
        for packet in packets_of(self._container, streams, self._count_damage):
            packet.dts = packet.pts if packet.dts is None else packet.dts
            if packet.dts is None and is_cover(packet.stream):
                packet.pts = packet.dts = 0
            if packet.dts is None:
                continue
            if packet.stream.index == self._video.index:
                self._clock.shift_video(packet)
                yield packet
                waiting, early = early, []
            else:
                waiting = [packet]
            for each in waiting:
                if self._clock.shift_other(each) or len(early) >= _MOST_EARLY:
                    yield each
                else:
                    early.append(each)
        yield from early

    def _is_past(self, packet: Packet[Any], end: Fraction) -> bool:
        """True if a packet shows that its stream has no more packets before the end of the part.

        Subtitles are rare, so for them a packet near the current video time is enough.
        """
        time = (packet.dts or 0) * packet.time_base
        if packet.stream.type in ("audio", "video") and not is_cover(packet.stream):
            return time >= end + _LOOKAHEAD
        return time >= (self._clock.reached or 0) - _LOOKAHEAD

    def _count_damage(self) -> None:
        self.damage += 1

    def _in_part(self, packet: Packet[Any]) -> bool:
        assert packet.dts is not None
        if is_cover(packet.stream):
            return True
        time = (packet.dts if packet.pts is None else packet.pts) * packet.time_base
        if packet.is_discard and time - self._shift < -GAP and not self._skips:
            return False
        return (self._start is None or time >= self._start) and (self._end is None or time < self._end)

    def _write(self, packet: Packet[Any]) -> None:
        source, target = packet.stream.index, self._outputs[packet.stream.index]
        shift = 0 if is_cover(packet.stream) else round(self._shift / packet.time_base)
        assert packet.dts is not None  # _in_part has checked it
        dts = packet.dts - shift
        if self._from_zero:
            packet.pts, dts = None if packet.pts is None else max(packet.pts, shift), max(dts, 0)
        if source in self._latest and dts < self._latest[source]:  # decreasing times cannot be written
            self.damage += not self._clock.added  # no damage after a join: the sound of two broadcasts may overlap
            return
        self._latest[source] = dts
        self.reached = max(self.reached, packet.dts * packet.time_base)
        packet.dts, packet.pts = dts, None if packet.pts is None else packet.pts - shift
        if source in self._sounds:
            packet.pts = dts if packet.pts is None else packet.pts
            self._mux(self._sounds[source].convert(packet))
            return
        packet.stream = target
        if packet.duration and self._end is not None:  # a subtitle must not outlast the part
            packet.duration = min(packet.duration, max(1, int((self._end - self._shift) / packet.time_base) - dts))
        if self._written is not None:
            self._written[source] = _increase_time(packet, target.time_base, self._written.get(source))
        self._mux([packet])

    def _mux(self, packets: Iterable[Packet[Any]]) -> None:
        try:
            for packet in packets:
                self._output.mux_one(packet)
        except InvalidDataError:  # a damaged packet that FFmpeg cannot repack for the output format
            self.damage += 1

    def _chapters(self, until: Fraction | None) -> Iterator[Chapter]:
        """The chapters of the written part, at their new times."""
        ends = [each for each in (until, self._end and self._end - self._shift) if each is not None]
        end = min(ends, default=None)
        for chapter in self._container.chapters():
            tick = chapter["time_base"] or Fraction(1, 1000)
            shift = round(self._shift / tick)
            first, last = max(0, chapter["start"] - shift), chapter["end"] - shift
            last = last if end is None else min(last, int(end / tick))
            if last > first:
                chapter["start"], chapter["end"] = first, last
                yield chapter


class NoStreams:
    """Like `Streams`, for inputs that have frames only."""

    messages: Sequence[str] = ()
    damage, undecoded, reached = 0, 0, Fraction(0)

    def describe(self, target: Stream) -> None:
        """There are no metadata."""

    def copy(self, until: Fraction | None) -> None:
        """There are no packets."""

    def close(self, until: Fraction | None) -> None:
        """There are no chapters."""

    def abandon(self) -> None:
        """There is no open file."""


def _add(output: OutputContainer, stream: Stream) -> Stream:
    added = output.add_stream_from_template(stream, opaque=True)
    if isinstance(stream, AudioStream) and stream.layout.name.endswith(" channels"):  # MP4 refuses an unknown layout
        cast(AudioStream, added).codec_context.layout = LAYOUTS.get(stream.layout.nb_channels, stream.layout.name)
    _describe(added, stream)
    return added


def _describe(added: Stream, stream: Stream) -> None:
    added.metadata.update(_kept_metadata(stream.metadata))
    added.disposition = stream.disposition


def _increase_time(packet: Packet[Any], tick: Fraction | None, last: int | None) -> int:
    """Make the time of a packet at least one output unit later than `last`, as MP4 and AVI require; returns it."""
    assert packet.dts is not None
    ratio = packet.time_base / (tick or packet.time_base)
    dts, pts, duration = (
        math.floor(time * ratio + Fraction(1, 2))  # FFmpeg's rounding
        for time in (packet.dts, packet.dts if packet.pts is None else packet.pts, packet.duration or 0)
    )
    if last is None or dts > last:
        return dts
    packet.dts, packet.pts, packet.duration = last + 1, max(last + 1, pts), duration
    packet.time_base = packet.time_base / ratio
    return last + 1


def _supports(kind: str, stream: Stream) -> bool:
    """True if a container (FFmpeg's name) supports a stream. It is tried out, because FFmpeg's tables are not exact."""
    if stream.type != "attachment" and stream.codec_context is None:
        return False
    trial = av.open(io.BytesIO(), "w", format=kind)
    try:
        _add(trial, stream)
        trial.start_encoding()
        return True
    except (FFmpegError, ValueError):
        return False
    finally:
        with suppress(FFmpegError, ValueError):
            trial.close()


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} x {name}" if count > 1 else name for name, count in counts.items())


def _codec(stream: Stream) -> str | None:
    context = stream.codec_context
    return context.codec.canonical_name if context else getattr(stream, "name", None)


def _kept_metadata(metadata: dict[str, str]) -> dict[str, str]:
    """The metadata without the entries that describe the old file. MP4 stores the title of a stream as its name."""
    kept = {
        key: value
        for key, value in metadata.items()
        if key.lower() not in _STALE and not key.startswith(("_STATISTICS", "BPS", "NUMBER_OF_"))
    }
    location = next((value for key, value in kept.items() if key.lower() == _LOCATION.lower()), None)
    if location:  # every container has a field of this name
        kept.setdefault("location", location)
    if "name" in kept:
        kept.setdefault("title", kept.pop("name"))
    return kept
