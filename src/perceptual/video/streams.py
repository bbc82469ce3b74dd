"""What goes with the pictures of a film, copied where it can be: sound, subtitles, cover, fonts, chapters, titles."""

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
from perceptual.video.sound import Sound, can_convert
from perceptual.video.source import Clock, is_cover, open_input, packets_of

if TYPE_CHECKING:
    from av.container.core import Chapter

_WORDS = {"audio": "sound", "subtitle": "subtitles", "attachment": "an attachment", "data": "data", "video": "pictures"}
GAP = Fraction(1, 10)  # seconds without sound that are heard as such
_STALE = {
    *("major_brand", "minor_version", "compatible_brands", "encoder", "software", "handler_name", "vendor_id"),
    *("rotate", "duration", "timecode", "alpha_mode"),
}
SILENT = (".gif", ".apng", ".webp")  # files of moving pictures that never have sound
_LOCATION = "com.apple.quicktime.location.ISO6709"
_BEYOND = 5  # seconds behind the end of the part, as films are not quite in order
_EARLY = 1000  # packets of a joined part that come before its first picture


class Streams:
    """The streams of a film beside its pictures, copied packet by packet into an output that is being written.

    Sound that the output cannot hold is converted; sound: False leaves all of it out. It reads the film a second time
    by itself, always as far as the pictures have come, so that nothing piles up.

    Attributes: `messages`, a sentence each about what the output cannot hold; `reached`, seconds of the film that were
    copied; `damage`, the number of places that could not be read.

    Raises:
        ConfigError: the output cannot hold the sound, and it cannot be converted.
    """

    def __init__(self, reader: Reader, output: OutputContainer, suffix: str, *, sound: bool = True) -> None:
        self.damage, self.reached = 0, Fraction(0)
        self._output, self._shift = output, reader.shift
        self._start, self._end, self._sought = reader.first, reader.last, reader.sought
        self._container = open_input(reader.path)
        self.messages: list[str] = []
        self._foreign: set[int] = set()  # sound that the output cannot hold
        self._sounds: dict[int, Sound] = {}
        try:
            self._film = self._container.streams[reader.index]
            kept = self._choose(reader.path, suffix, sound=sound)
            if suffix == ".avi":
                self._check_gaps(reader.path, [stream.index for stream in kept if stream.type == "audio"])
            self._outputs = {stream.index: self._open(stream) for stream in kept}
            if self._sounds:
                words = ", ".join(dict.fromkeys(sound.said for sound in self._sounds.values()))
                self.messages.append(f"Sound is converted, as {suffix} does not take it: {words}.")
        except BaseException:
            self._container.close()
            raise
        strict = not av.format.Flags(output.format.flags) & av.format.Flags.ts_nonstrict
        self._latest: dict[int, int] = {}
        self._written: dict[int, int] | None = {} if strict else None  # the latest, in the output's units
        self._clock = Clock()
        self._packets = self._read([stream for stream in kept if stream.type != "attachment"])
        self._held: Packet[Any] | None = None

    @property
    def unheard(self) -> int:
        """Packets of sound that were to be converted and could not be decoded."""
        return sum(sound.damage for sound in self._sounds.values())

    def describe(self, target: Stream) -> None:
        """Give the output the film's title and such, and its pictures their language and part."""
        self._output.metadata.update(_fresh(self._container.metadata))
        target.metadata.update(_fresh(self._film.metadata))
        target.disposition = self._film.disposition

    def copy(self, until: Fraction | None) -> None:
        """Write what begins before a time of the output, in seconds; None: all that is left."""
        while (packet := self._held or next(self._packets, None)) is not None:
            self._held = packet
            if until is not None and (packet.dts or 0) * packet.time_base - self._shift >= until:
                return
            self._write(packet)
            self._held = None

    def close(self, until: Fraction | None) -> None:
        """Copy what is left before a time, and the chapters: the last before the output is closed."""
        self.copy(until)
        for sound in self._sounds.values():
            self._mux(sound.convert(None))
        self._output.set_chapters(list(self._chapters(until)))
        self._container.close()

    def abandon(self) -> None:
        """Close the film, whatever has been copied."""
        self._container.close()

    def _choose(self, path: Path, suffix: str, *, sound: bool) -> list[Stream]:
        """The streams that the output can hold, as they are or converted."""
        kept, left, others = [], Counter[str](), Counter[str]()
        chapters = bool(self._container.chapters())
        for stream in self._container.streams:
            kind = stream.type
            if stream is self._film or (kind == "data" and chapters and _codec(stream) == "bin_data"):
                continue  # the latter is how MP4 keeps its chapters
            if kind == "audio" and not sound:
                continue
            cover = kind == "video" and is_cover(stream) and suffix in (".mp4", ".m4v", ".mov")
            if (kind in ("audio", "subtitle", "attachment") or cover) and _holds(self._output.format.name, stream):
                kept.append(stream)
            elif kind == "audio" and can_convert(self._output.format.name, stream):
                kept.append(stream)
                self._foreign.add(stream.index)
            elif kind == "video" and not is_cover(stream):
                others[_codec(stream) or "unknown"] += 1
            elif kind == "audio" and suffix not in (".mkv", *SILENT):
                which = f"sound ({_codec(stream) or 'unknown'})"
                raise ConfigError(f"{path} has {which} that {suffix} cannot hold: write .mkv, or give --no-sound.")
            else:
                left[
                    f"{'a cover' if is_cover(stream) else _WORDS.get(kind, kind)} ({_codec(stream) or 'unknown'})"
                ] += 1
        if others:
            self.messages.append(f"Only one video track is converted; left out: {_listed(others)}.")
        if left:
            self.messages.append(f"Left out, as {suffix} does not take it: {_listed(left)}.")
        return kept

    def _open(self, stream: Stream) -> Stream:
        """The stream of the output for one of the film."""
        if stream.index not in self._foreign:
            return _add(self._output, stream)
        assert isinstance(stream, AudioStream)
        sound = self._sounds[stream.index] = Sound(self._output, stream)
        _describe(sound.stream, stream)
        return cast(Stream, sound.stream)

    def _check_gaps(self, path: Path, indices: list[int]) -> None:
        """Refuse what AVI would put together without a word: sound that begins late or has gaps."""
        heard: dict[int, Fraction] = {}
        with open_input(path) as container:
            for packet in packets_of(container, [container.streams[index] for index in indices], lambda: None):
                time = (packet.pts or 0) * packet.time_base - self._shift
                if self._end is not None and time + self._shift >= self._end:
                    break
                if time - heard.get(packet.stream.index, Fraction(0)) > GAP and packet.duration:
                    raise ConfigError(
                        f"The sound of {path} begins late or has gaps, which .avi cannot hold: write .mkv or .mp4."
                    )
                heard[packet.stream.index] = max(Fraction(0), time + (packet.duration or 0) * packet.time_base)

    def _read(self, streams: list[Stream]) -> Iterator[Packet[Any]]:
        """The packets within the span, in the file's order."""
        if not streams:
            return
        if self._sought is not None:
            with suppress(FFmpegError):  # a second before, as films are not quite in order
                self._container.seek(max(0, int((self._sought - 1) * av.time_base)))
        left = {stream.index for stream in (self._film, *streams)}
        for packet in self._timed([self._film, *streams]):
            if self._end is not None and self._tells(packet, self._end):
                left.discard(packet.stream.index)
            if packet.stream.index in self._outputs and self._within(packet):
                yield packet
            if not left:
                return

    def _timed(self, streams: list[Stream]) -> Iterator[Packet[Any]]:
        """All packets that have a time; where the film's clock begins anew, they go on with it."""
        early: list[Packet[Any]] = []
        for packet in packets_of(self._container, streams, self._harm):
            packet.dts = packet.pts if packet.dts is None else packet.dts
            if packet.dts is None:
                continue
            if packet.stream.index == self._film.index:
                self._clock.film(packet)
                yield packet
                waiting, early = early, []
            else:
                waiting = [packet]
            for each in waiting:
                if self._clock.other(each) or len(early) >= _EARLY:
                    yield each
                else:
                    early.append(each)
        yield from early

    def _tells(self, packet: Packet[Any], end: Fraction) -> bool:
        """Whether a packet tells that nothing before the end is to come of its stream.

        Subtitles are few: one of them that lies beside the film's pictures will do.
        """
        time = (packet.dts or 0) * packet.time_base
        if packet.stream.type in ("audio", "video") and not is_cover(packet.stream):
            return time >= end + _BEYOND
        return time >= (self._clock.reached or 0) - _BEYOND

    def _harm(self) -> None:
        self.damage += 1

    def _within(self, packet: Packet[Any]) -> bool:
        assert packet.dts is not None
        if is_cover(packet.stream):
            return True
        time = (packet.dts if packet.pts is None else packet.pts) * packet.time_base
        return (self._start is None or time >= self._start) and (self._end is None or time < self._end)

    def _write(self, packet: Packet[Any]) -> None:
        source, target = packet.stream.index, self._outputs[packet.stream.index]
        shift = 0 if is_cover(packet.stream) else round(self._shift / packet.time_base)
        assert packet.dts is not None  # as _within sees to
        dts = packet.dts - shift
        if source in self._latest and dts < self._latest[source]:  # times that go back cannot be written
            self.damage += not self._clock.added  # the sound of two broadcasts may overlap where they were joined
            return
        self._latest[source] = dts
        self.reached = max(self.reached, packet.dts * packet.time_base)
        packet.dts, packet.pts = dts, None if packet.pts is None else packet.pts - shift
        if source in self._sounds:
            packet.pts = dts if packet.pts is None else packet.pts
            self._mux(self._sounds[source].convert(packet))
            return
        packet.stream = target
        if self._written is not None:
            self._written[source] = _raise(packet, target.time_base, self._written.get(source))
        self._mux([packet])

    def _mux(self, packets: Iterable[Packet[Any]]) -> None:
        try:
            for packet in packets:
                self._output.mux_one(packet)
        except InvalidDataError:  # damaged, where the output wants another form of it
            self.damage += 1

    def _chapters(self, until: Fraction | None) -> Iterator[Chapter]:
        """The chapters of the part that was written, at their new times."""
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


class Nothing:
    """As `Streams`, of pictures in files of their own, beside which there is nothing."""

    messages: Sequence[str] = ()
    damage, unheard, reached = 0, 0, Fraction(0)

    def describe(self, target: Stream) -> None:
        """There is no title."""

    def copy(self, until: Fraction | None) -> None:
        """There is nothing to copy."""

    def close(self, until: Fraction | None) -> None:
        """There are no chapters."""

    def abandon(self) -> None:
        """There is nothing open."""


def _add(output: OutputContainer, stream: Stream) -> Stream:
    added = output.add_stream_from_template(stream, opaque=True)
    _describe(added, stream)
    return added


def _describe(added: Stream, stream: Stream) -> None:
    added.metadata.update(_fresh(stream.metadata))
    added.disposition = stream.disposition


def _raise(packet: Packet[Any], tick: Fraction | None, last: int | None) -> int:
    """Make a packet's time at least one unit of the output later than the last, as MP4 and AVI want it; returns it."""
    assert packet.dts is not None
    ratio = packet.time_base / (tick or packet.time_base)
    dts, pts, duration = (
        math.floor(time * ratio + Fraction(1, 2))  # as FFmpeg rounds
        for time in (packet.dts, packet.dts if packet.pts is None else packet.pts, packet.duration or 0)
    )
    if last is None or dts > last:
        return dts
    packet.dts, packet.pts, packet.duration = last + 1, max(last + 1, pts), duration
    packet.time_base = packet.time_base / ratio
    return last + 1


def _holds(kind: str, stream: Stream) -> bool:
    """Whether files of a kind can hold a stream, found by trying: what FFmpeg says beforehand is not always so."""
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


def _fresh(metadata: dict[str, str]) -> dict[str, str]:
    """Without what only the old file could say of itself; MP4 calls a stream's title its name."""
    kept = {
        key: value
        for key, value in metadata.items()
        if key.lower() not in _STALE and not key.startswith(("_STATISTICS", "BPS", "NUMBER_OF_"))
    }
    location = next((value for key, value in kept.items() if key.lower() == _LOCATION.lower()), None)
    if location:  # as every container has a place for it
        kept.setdefault("location", location)
    if "name" in kept:
        kept.setdefault("title", kept.pop("name"))
    return kept
