"""Writing a film: pictures encoded, and what belongs to them copied beside them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
from av import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from perceptual.config import VideoConfig
from perceptual.errors import ConfigError, OutputError
from perceptual.video.colours import FULL, LIMITED, RGB, Colours, FromRGB
from perceptual.video.film import Film, Frame
from perceptual.video.reader import Reader
from perceptual.video.source import scaled_to
from perceptual.video.streams import Nothing, Streams

_X264_PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow", "placebo"),
)


@dataclass(frozen=True)
class _Encoder:
    """How one codec is made: FFmpeg's name, its quality when none is given and the worst, its speeds and their flag,
    its pixel format, and the one for odd sides where that takes none.
    """

    name: str
    crf: int | None = None
    worst: int = 0
    preset: str = ""
    presets: tuple[str, ...] = ()
    flag: str = "preset"
    pixels: str = "yuv420p"
    odd: str | None = None
    options: dict[str, str] = field(default_factory=dict)


ENCODERS = {
    "h264": _Encoder("libx264", 18, 51, "veryfast", _X264_PRESETS, odd="yuv444p"),
    "hevc": _Encoder(
        *("libx265", 20, 51, "veryfast", _X264_PRESETS), odd="yuv444p", options={"x265-params": "log-level=none"}
    ),
    "vp9": _Encoder(
        *("libvpx-vp9", 24, 63, "4", tuple(map(str, range(9)))),
        flag="cpu-used",
        options={"deadline": "good", "row-mt": "1"},
    ),
    "av1": _Encoder("libsvtav1", 26, 63, "8", tuple(map(str, range(14)))),
    "prores": _Encoder("prores_ks", pixels="yuv422p10le"),
    "ffv1": _Encoder("ffv1", pixels="bgr0", options={"level": "3", "slicecrc": "1"}),
    "gif": _Encoder("gif", pixels="pal8"),
    "apng": _Encoder("apng", pixels="rgb24"),
    "webp": _Encoder("libwebp_anim", pixels="bgra", options={"quality": "90"}),
}
CONTAINERS = {  # FFmpeg's name, and the codecs, of which the first is the default
    ".mp4": ("mp4", ("h264", "hevc", "vp9", "av1")),
    ".m4v": ("mp4", ("h264", "hevc", "av1")),
    ".mov": ("mov", ("h264", "hevc", "prores")),
    ".mkv": ("matroska", ("h264", "hevc", "vp9", "av1", "prores", "ffv1")),
    ".webm": ("webm", ("vp9", "av1")),
    ".avi": ("avi", ("h264", "ffv1")),
    ".gif": ("gif", ("gif",)),
    ".apng": ("apng", ("apng",)),
    ".webp": ("webp", ("webp",)),
}
_FOR_EVER = {
    "gif": {"loop": "0"},
    "apng": {"plays": "0"},
    "webp": {"loop": "0"},
}  # options of files that are shown again


def check_target(target: Path, config: VideoConfig) -> str:
    """The codec for an output file.

    Raises:
        ConfigError: no such kind of file, or it does not hold that codec, or this PyAV cannot encode it, or it has no
            such quality or preset.
    """
    suffix = target.suffix.lower()
    if suffix not in CONTAINERS:
        ends = ", ".join(CONTAINERS)
        raise ConfigError(f"{target}: end the name with {ends}, or give frame_%04d.png, to say what to write.")
    codecs = CONTAINERS[suffix][1]
    word = config.codec or codecs[0]
    if word not in codecs:
        others = ", ".join(end for end, (_, known) in CONTAINERS.items() if word in known)
        raise ConfigError(f"{suffix} files hold {', '.join(codecs)} here, not {word}, which goes into {others}.")
    missing = [name for name, encoder in ENCODERS.items() if not _can(encoder.name)]
    if word in missing:
        known = ", ".join(name for name in ENCODERS if name not in missing)
        raise ConfigError(f"This PyAV cannot encode {word}; give one of {known} as --codec.")
    encoder = ENCODERS[word]
    if config.crf is not None and encoder.crf is None:
        raise ConfigError(f"{word} has no crf: leave --crf out.")
    if config.crf is not None and not 0 <= config.crf <= encoder.worst:
        raise ConfigError(f"crf is {config.crf}; {word} takes 0, the best, to {encoder.worst}.")
    if config.preset is not None and config.preset not in encoder.presets:
        known = f"takes one of {', '.join(encoder.presets)}" if encoder.presets else "has none: leave --preset out"
        raise ConfigError(f"preset is {config.preset!r}; {word} {known}.")
    return word


class Writer:
    """A film that is being written; a context manager. An output that is not finished is removed.

    >>> with Reader("film.mp4") as reader, Writer("painted.mp4", reader, VideoConfig()) as writer:
    ...     for frame in reader:
    ...         writer.write(replace(frame, pixels=paint(frame.pixels)))
    ...     writer.finish()

    The pictures have the times, pixel aspect and colour tags of those that the reader gives, and the size of the first
    one written. Sound and all else go with them as far as the pictures have come.

    Attributes: `frames`, the number written; `reached`, seconds of output.

    Raises:
        ConfigError: as `check_target`, or the file cannot hold the film's sound.
        OutputError, OSError: it cannot be written, for `perceptual.files.write_beside` to say why.
    """

    def __init__(self, path: str | Path, reader: Film, config: VideoConfig) -> None:
        self.frames, self.reached = 0, Fraction(0)
        self._finished = False
        self._messages: list[str] = []
        self._path, self._reader, self._suffix = Path(path), reader, Path(path).suffix.lower()
        self._word = check_target(self._path, config)
        self._encoder, self._config = ENCODERS[self._word], config
        kind = CONTAINERS[self._suffix][0]
        options = dict(_FOR_EVER.get(kind, {}))
        if kind in ("mp4", "mov"):  # and not in thousandths: when the film and its sound begin
            flags = "faststart"
            if any(key.lower().startswith("com.") for key in reader.metadata):  # as phones write, else left out
                flags += "+use_metadata_tags"
            options = {"movflags": flags, "movie_timescale": str(_fine(reader.time_base.denominator))}
        os.environ.setdefault("SVT_LOG", "0")  # else it writes to the terminal by itself
        self._output = av.open(f"file:{path}", "w", format=kind, container_options=options)
        self._stream = self._add_stream()
        self._streams: Streams | Nothing = Nothing()
        if isinstance(reader, Reader):
            self._streams = Streams(reader, self._output, self._suffix, sound=config.sound)
        self._streams.describe(self._stream)
        self._messages += self._streams.messages
        if self._word == "gif" and (reader.rate or reader.info.rate or 0) > 50:
            self._messages.append(
                "Players slow a GIF down that has more than 50 frames a second: give --fps 50 or less."
            )
        self._durations: dict[int, int] = {}
        self._convert: FromRGB | None = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._streams.abandon()
        if not self._finished:
            with suppress(OSError):  # so that nothing large is moved behind its index only to be deleted
                os.unlink(self._path)
        with suppress(Exception):  # it writes an end to the file, finished or not
            self._output.close()

    @property
    def heard(self) -> Fraction:
        """How far the film's sound has been copied, in its own seconds."""
        return self._streams.reached

    @property
    def damage(self) -> int:
        """Places in the sound and all else that could not be read."""
        return self._streams.damage + self._streams.unheard

    def said(self) -> str | None:
        """What a person should know about the output and has not been told, in a line each; None for nothing."""
        said, self._messages = self._messages, []
        return "\n".join(said) or None

    def write(self, frame: Frame) -> None:
        """Encode one picture, of the size of the first, and copy what goes with it."""
        with self._writing():
            if self._convert is None:
                self._convert = self._begin(frame.pixels.shape[-2], frame.pixels.shape[-1])
            picture = self._convert(frame.pixels)
            picture.time_base = self._reader.time_base
            for index in range(frame.times):
                picture.pts = frame.pts + index * frame.duration
                picture.duration = self._durations[picture.pts] = frame.duration
                self._mux(self._stream.encode(picture))
            self.frames += frame.times
            self.reached = (frame.pts + frame.times * frame.duration) * self._reader.time_base
            self._streams.copy(self.reached)

    def finish(self, *, whole: bool = True) -> None:
        """Write what the encoder holds back and the end of the file; whole: also the sound after the last picture."""
        with self._writing():
            self._mux(self._stream.encode(None))
            self._streams.close(None if whole else self.reached)
            self._output.close()
        self._finished = True

    def _add_stream(self) -> VideoStream:
        encoder, config, info = self._encoder, self._config, self._reader.info
        options = dict(encoder.options)
        if encoder.crf is not None:
            options["crf"] = str(encoder.crf if config.crf is None else config.crf)
            options[encoder.flag] = config.preset or encoder.preset
        if self.tags_fields:
            options["x264-params"] = f"{self._fields}=1:pic-struct=1"
        if self._in_order():
            options |= {"x265-params": "log-level=none:bframes=0"} if self._word == "hevc" else {"bf": "0"}
        rate = self._reader.rate or info.rate or Fraction(25)
        stream = self._output.add_stream(encoder.name, rate=rate, options=options)
        assert isinstance(stream, VideoStream)
        stream.time_base = stream.codec_context.time_base = self._reader.time_base
        if self._word == "hevc" and self._suffix != ".mkv":
            stream.codec_context.codec_tag = "hvc1"  # as Apple's players want it
        return stream

    @property
    def tags_fields(self) -> bool:
        """Whether pictures hold two fields and the output says so."""
        return self._fields is not None and self._word == "h264"

    @property
    def _fields(self) -> str | None:
        """The order of the two fields that each picture holds which is written."""
        return self._reader.info.fields if self._config.keep_interlaced else None

    def _in_order(self) -> bool:
        """Whether pictures are written in the order in which they are shown.

        AVI has no place for their times. MP4 tells how long each is shown by the order in which they are written, so
        that where times are uneven the film's end would be lost.
        """
        uneven = not (self._reader.info.even or self._reader.rate)
        return self._word in ("h264", "hevc") and (self._suffix == ".avi" or (uneven and self._suffix != ".mkv"))

    def _begin(self, height: int, width: int) -> FromRGB:
        """Open the encoder for pictures of a size, and write the file's head."""
        context, info, encoder = self._stream.codec_context, self._reader.info, self._encoder
        if self._config.enlarges:
            width, height = scaled_to(width, height, self._config.size)
        if info.aspect and (self._word in ("h264", "hevc") or self._suffix in (".mp4", ".m4v", ".mov")):
            context.sample_aspect_ratio = info.aspect
        elif info.aspect:
            width, height = square(width, height, info.aspect)
            self._messages.append(
                f"Pixels of {self._word} are square in {self._suffix} files: it is written at {width} x {height} px."
            )
        odd = encoder.odd is not None and (height % 2 or width % 2)
        pixels = encoder.odd if odd and encoder.odd else encoder.pixels
        if odd:
            mend = "--upscale 2 or 4" if self._config.enlarges else "--size"
            self._messages.append(
                f"{width} x {height} px is written as 4:4:4, which some players do not play: {mend} gives even sides."
            )
        context.width, context.height, context.pix_fmt = width, height, pixels
        colours = _encoded(info.colours, pixels)
        context.colorspace, context.color_range = colours.matrix, colours.range
        context.color_primaries, context.color_trc = colours.primaries, colours.transfer
        endless = self._word == "av1" and min(width, height) < 32 and max(width, height) > 64  # SVT-AV1 waits for ever
        if endless or not _opens(context):
            flag = "--upscale" if self._config.enlarges else "--size"
            raise ConfigError(
                f"No film of {width} x {height} px can be written as {self._word}: give another --codec or {flag}."
            )
        self._output.start_encoding()
        return FromRGB(colours, pixels, (width, height), fields=self._fields)

    def _mux(self, packets: list[av.Packet[VideoStream]]) -> None:
        for packet in packets:  # encoders forget how long a picture is shown
            packet.duration = self._durations.pop(packet.pts, packet.duration) if packet.pts is not None else 0
            self._output.mux_one(packet)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except FFmpegError as error:
            if isinstance(error, OSError):  # which write_beside knows
                raise
            raise OutputError(f"The film could not be written ({(error.strerror or '?').lower()}).") from error


def _opens(context: VideoCodecContext) -> bool:
    try:
        context.open()
    except FFmpegError:
        return False
    return True


def _encoded(colours: Colours, pixels: str) -> Colours:
    """The tags of the output: those of the input where the pixel format allows."""
    if pixels in ("bgr0", "rgb24", "pal8", "bgra"):
        return Colours(RGB, FULL, colours.primaries, colours.transfer)
    if pixels.endswith("10le"):  # ProRes knows the limited range alone
        return Colours(colours.matrix, LIMITED, colours.primaries, colours.transfer)
    return colours


def square(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """The size with square pixels that shows a picture in its shape; no side becomes smaller, and an even one odd."""
    if aspect > 1:
        return round(width * aspect / 2) * 2, height
    return width, round(height / aspect / 2) * 2


def _fine(denominator: int) -> int:
    """A multiple of it of at least 1000, the units a second in which MP4 notes when streams begin."""
    return denominator * -(-1000 // denominator)


def _can(encoder: str) -> bool:
    with suppress(av.codec.codec.UnknownCodecError):
        av.codec.Codec(encoder, "w")
        return True
    return False
