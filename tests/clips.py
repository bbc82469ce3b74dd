"""Small films for the tests: pictures that hold their number, tones, beeps, subtitles; and what a film holds."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from torch import Tensor

Array = np.ndarray[Any, np.dtype[np.uint8]]
SAMPLES = 48_000  # a second
BITS = 8


def numbered(index: int, size: tuple[int, int]) -> Array:
    """(H, W, 3): the number in bits, from the left, in the upper half; a bar that moves in the lower one."""
    width, height = size
    picture = np.full((height, width, 3), (200, 60, 90), np.uint8)
    for bit in range(BITS):
        columns = slice(width * bit // BITS, width * (bit + 1) // BITS)
        picture[: height // 2, columns] = 235 if index >> bit & 1 else 16
    picture[height // 2 :, index * 3 % width : index * 3 % width + 6] = (30, 180, 220)
    return picture


def number(pixels: Tensor | Array, *, inverted: bool = False) -> int:
    """The number in a picture of `numbered`, as (1, 3, H, W) or (H, W, 3)."""
    array = pixels[0].permute(1, 2, 0).numpy() if isinstance(pixels, Tensor) else pixels
    array = 255 - array if inverted else array
    height, width = array.shape[:2]
    row = array[height // 8 : height * 3 // 8]
    blocks = [row[:, width * bit // BITS + 1 : width * (bit + 1) // BITS - 1] for bit in range(BITS)]
    return sum(int(block.mean() > 128) << bit for bit, block in enumerate(blocks))


def make(
    path: str | Path,
    *,
    count: int = 24,
    size: tuple[int, int] = (64, 48),
    rate: int = 24,
    tick: Fraction = Fraction(1, 12_288),
    times: Sequence[int] | None = None,
    first: int = 0,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    picture: Callable[[int, tuple[int, int]], Array] = numbered,
    sound: str | None = None,
    beep: float | None = None,
    subtitles: str | None = None,
    prepare: Callable[[Any, Any], None] = lambda output, stream: None,
    finish: Callable[[Any, Any], None] = lambda output, stream: None,
    **tags: Any,
) -> Path:
    """Write a film of `count` pictures, at `times` in ticks, or evenly from `first` on.

    sound: a codec, for a tone as long as the film, or where `beep` is given, silence but for a tenth of a second there.
    subtitles: SubRip text. prepare, finish: called with the output and the film's stream before its head is written
    and before it is closed. tags: of the encoder, such as colorspace or sample_aspect_ratio.
    """
    step = int(1 / (rate * tick))
    times = [first + index * step for index in range(count)] if times is None else times
    output = av.open(str(path), "w")
    options = {"preset": "ultrafast", "crf": "10"} if options is None and codec == "libx264" else options
    stream: Any = output.add_stream(codec, rate=rate, options=options or {})
    stream.width, stream.height, stream.pix_fmt = *size, pixels
    stream.codec_context.time_base = stream.time_base = tick
    for key, value in tags.items():
        setattr(stream.codec_context, key, value)
    tone = _add_sound(output, sound) if sound else None
    source = av.open(io.BytesIO(subtitles.encode()), format="srt") if subtitles else None
    words = output.add_stream_from_template(source.streams[0], opaque=True) if source else None
    prepare(output, stream)
    output.start_encoding()
    durations = {time: after - time for time, after in zip(times, [*times[1:], times[-1] + step], strict=True)}
    packets = []
    for index, time in enumerate(times):
        frame = av.VideoFrame.from_ndarray(picture(index, size), "rgb24")
        if pixels.startswith("yuv"):
            matrix = {2: 5, 6: 5}.get(tags.get("colorspace", 2), tags.get("colorspace", 5))
            frame = frame.reformat(
                format=pixels, dst_colorspace=matrix, dst_color_range=tags.get("color_range", 1) or 1
            )
        frame.pts, frame.time_base = time, tick
        packets += stream.encode(frame)
    for packet in [*packets, *stream.encode(None)]:
        packet.duration = durations[packet.pts]
        output.mux(packet)
    if tone:
        _write_sound(output, tone, float((times[-1] + step) * tick), beep)
    for packet in source.demux() if source else []:
        if packet.size:
            packet.stream = words
            output.mux(packet)
    finish(output, stream)
    output.close()
    return Path(path)


def _add_sound(output: Any, codec: str) -> Any:
    tone = output.add_stream(codec, rate=SAMPLES)
    tone.layout = "mono"
    tone.metadata["language"] = "deu"
    return tone


def _write_sound(output: Any, tone: Any, seconds: float, beep: float | None) -> None:
    moments = np.arange(int(seconds * SAMPLES)) / SAMPLES
    wave = np.sin(2 * np.pi * 440 * moments)
    if beep is not None:
        wave *= (moments >= beep) & (moments < beep + 0.1)
    for begin in range(0, len(wave), 960):
        samples = (wave[None, begin : begin + 960] * 12_000).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples, "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLES, begin, Fraction(1, SAMPLES)
        output.mux(tone.encode(frame))
    output.mux(tone.encode(None))


def frames(path: str | Path) -> list[tuple[Fraction, Array]]:
    """The pictures of a film as they are stored, with their times in seconds."""
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        return [(frame.pts * stream.time_base, frame.to_ndarray(format="rgb24")) for frame in film.decode(stream)]


def times(path: str | Path) -> list[Fraction]:
    """When each picture of a film is shown, in seconds."""
    return [time for time, _ in frames(path)]


def numbers(path: str | Path, *, inverted: bool = False) -> list[int]:
    """The numbers in the pictures of a film."""
    return [number(picture, inverted=inverted) for _, picture in frames(path)]


def packets(path: str | Path, kind: str = "audio", index: int = 0) -> list[tuple[Fraction, bytes]]:
    """Time in seconds and content of the packets of a film's sound or subtitles."""
    with av.open(str(path)) as film:
        stream = [stream for stream in film.streams if stream.type == kind][index]
        return [((packet.pts or 0) * packet.time_base, bytes(packet)) for packet in film.demux(stream) if packet.size]


def loudness(path: str | Path) -> list[tuple[float, float]]:
    """(Time in seconds, mean level in 0..1) of each piece of a film's sound."""
    with av.open(str(path)) as film:
        resampler = av.AudioResampler(format="flt", layout="mono")
        found = []
        for frame in film.decode(audio=0):
            for piece in resampler.resample(frame):
                found.append((float(piece.pts * piece.time_base), float(np.abs(piece.to_ndarray()).mean())))
        return found


def facts(path: str | Path) -> Any:
    """What a film says of itself, by name."""
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        frame = next(film.decode(stream))
        return {
            "size": (frame.width, frame.height),
            "codec": stream.codec_context.codec.canonical_name,
            "tag": stream.codec_context.codec_tag,
            "pixels": stream.pix_fmt,
            "aspect": stream.sample_aspect_ratio,
            "rotation": frame.rotation,
            "colours": (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc),
            "seconds": float(film.duration or 0) / av.time_base,
            "film": None if stream.duration is None else stream.duration * stream.time_base,
            "kinds": [stream.type for stream in film.streams],
            "metadata": dict(film.metadata),
            "streams": [dict(stream.metadata) for stream in film.streams],
            "chapters": film.chapters(),
        }
