"""Writing a video file: frames are encoded, and the other streams of the input are copied."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
from av import FFmpegError
from av.codec.context import CodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from perceptual.config import VideoConfig
from perceptual.errors import ConfigError, OutputError
from perceptual.video.animations import hold_last
from perceptual.video.base import Frame, Video
from perceptual.video.colours import FULL, LIMITED, RGB, Colours, FromRGB
from perceptual.video.reader import Reader
from perceptual.video.source import Info, scaled_to
from perceptual.video.streams import SILENT, NoStreams, Streams

_X264_PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow", "placebo"),
)


@dataclass(frozen=True)
class _Encoder:
    """The settings of one codec.

    name: encoder of FFmpeg. crf, max_crf: default and worst quality. preset, presets: default and known speeds. flag:
    option of the encoder for the speed. pixels: pixel format. odd_pixels: pixel format for odd sides, if `pixels` needs
    even sides. options: further options of the encoder. quality: option of the encoder for crf.
    """

    name: str
    crf: int | None = None
    max_crf: int = 0
    preset: str = ""
    presets: tuple[str, ...] = ()
    flag: str = "preset"
    pixels: str = "yuv420p"
    odd_pixels: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    quality: str = "crf"


ENCODERS = {
    "h264": _Encoder("libx264", 18, 51, "veryfast", _X264_PRESETS, odd_pixels="yuv444p"),
    "hevc": _Encoder(
        *("libx265", 20, 51, "veryfast", _X264_PRESETS), odd_pixels="yuv444p", options={"x265-params": "log-level=none"}
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
_CONSTANT = {"rc": "vbr", "b": "0"}  # constant quality, without a target for the bit rate
NVENC = {
    codec: _Encoder(f"{codec}_nvenc", crf, ENCODERS[codec].max_crf, "p4", options=_CONSTANT, quality="cq")
    for codec, crf in (("h264", 18), ("hevc", 20), ("av1", 26))
}
"""The encoders of NVIDIA GPUs. No GPU has run them yet."""
CONTAINERS = {  # file ending -> FFmpeg's name, supported codecs; the first codec is the default
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
# Options that repeat an animation forever.
_LOOP_OPTIONS = {"gif": {"loop": "0"}, "apng": {"plays": "0"}, "webp": {"loop": "0"}}


def check_target(target: Path, config: VideoConfig) -> str:
    """The codec for an output file, a key of ENCODERS.

    Raises:
        ConfigError: the file ending is unknown, the format does not support the codec, or the codec does not support
            the given crf or preset. OutputError: this PyAV has no encoder for the codec.
    """
    suffix = target.suffix.lower()
    if suffix not in CONTAINERS:
        endings = ", ".join(CONTAINERS)
        raise ConfigError(f"{target} has no known file ending: give a name that ends in {endings}, or frame_%04d.png.")
    codecs = CONTAINERS[suffix][1]
    codec = config.codec or codecs[0]
    if codec not in codecs:
        others = ", ".join(ending for ending, (_, known) in CONTAINERS.items() if codec in known)
        raise ConfigError(
            f"{suffix} does not support {codec}: choose {', '.join(codecs)}, or write {codec} to {others}."
        )
    missing = [name for name, encoder in ENCODERS.items() if not _can_encode(encoder.name)]
    if codec in missing:
        known = ", ".join(name for name in ENCODERS if name not in missing)
        raise OutputError(f"This PyAV cannot encode {codec}; choose one of {known} as --codec.")
    if config.encoder == "nvenc" and codec not in NVENC:
        raise ConfigError(f"NVENC cannot encode {codec}: choose --codec {', '.join(NVENC)}, or leave --encoder out.")
    encoder = ENCODERS[codec]
    if config.crf is not None and encoder.crf is None:
        raise ConfigError(f"{codec} has no crf: leave --crf out.")
    if config.crf is not None and not 0 <= config.crf <= encoder.max_crf:
        raise ConfigError(f"crf is {config.crf}; {codec} takes 0 (the best) to {encoder.max_crf}.")
    if config.preset is not None and config.preset not in encoder.presets:
        known = f"takes one of {', '.join(encoder.presets)}" if encoder.presets else "has none: leave --preset out"
        raise ConfigError(f"preset is {config.preset!r}; {codec} {known}.")
    return codec


class Writer:
    """A video file that is being written. A context manager; it deletes the file unless `finish` was called.

    >>> with Reader("video.mp4") as reader, Writer("painted.mp4", reader, VideoConfig()) as writer:
    ...     for frame in reader:
    ...         writer.write(replace(frame, pixels=paint(frame.pixels)))
    ...     writer.finish()

    The output has the times, the pixel aspect and the colour tags of the input, and the size of the first frame that is
    written. Sound and other streams are copied up to the time of the last written frame.

    Args:
        path: the file to write.
        reader: the input, a `Reader` or another `Video`.
        config: codec, quality, speed, and whether to keep sound and interlaced frames.

    Attributes: `frames`, the number of frames written; `reached`, seconds of output; `size`, width and height of the
    written frames in pixels, None before the first.

    Raises:
        ConfigError: as `check_target`, or the format does not support the sound of the input.
        OutputError, OSError: the file cannot be written; `perceptual.files.write_beside` turns these into a message.
    """

    def __init__(self, path: str | Path, reader: Video, config: VideoConfig) -> None:
        self.frames, self.reached, self._began = 0, Fraction(0), Fraction(0)
        self.size: tuple[int, int] | None = None
        self._finished = False
        self._messages: list[str] = []
        self._path, self._video, self._suffix = Path(path), reader, Path(path).suffix.lower()
        self._codec = check_target(self._path, config)
        self._encoder, self._config = ENCODERS[self._codec], config
        if config.encoder == "nvenc":
            if _nvenc_opens(self._codec, reader.info, config):
                self._encoder = NVENC[self._codec]
            else:
                self._messages.append(f"NVENC cannot encode this video here: {self._encoder.name} encodes it.")
        kind = CONTAINERS[self._suffix][0]
        options = dict(_LOOP_OPTIONS.get(kind, {}))
        if kind in ("mp4", "mov"):  # movie_timescale: start times would otherwise be rounded to milliseconds
            flags = "faststart"
            if any(key.lower().startswith("com.") for key in reader.metadata):  # phone metadata need this flag
                flags += "+use_metadata_tags"
            options = {"movflags": flags, "movie_timescale": str(_movie_timescale(reader.time_base.denominator))}
        os.environ.setdefault("SVT_LOG", "0")  # stops SVT-AV1 from writing to the terminal
        self._output = av.open(f"file:{path}", "w", format=kind, container_options=options)
        self._stream = self._add_stream()
        self._streams: Streams | NoStreams = NoStreams()
        if isinstance(reader, Reader):
            self._streams = Streams(reader, self._output, self._suffix, sound=config.sound)
        self._streams.describe(self._stream)
        self._messages += self._streams.messages
        if self._codec == "gif" and (reader.rate or reader.info.rate or 0) > 50:
            self._messages.append("Players slow down a GIF of more than 50 frames per second: give --fps 50 or less.")
        self._durations: dict[int, int] = {}
        self._tick, self._collided = -1, False
        self._convert: FromRGB | None = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._streams.abandon()
        if not self._finished:
            with suppress(OSError):  # deleted before closing, which would rewrite the whole file for faststart
                os.unlink(self._path)
        with suppress(Exception):  # closing writes the trailer even to an unfinished file
            self._output.close()

    @property
    def sound_reached(self) -> Fraction:
        """Seconds of sound of the input that were copied."""
        return self._streams.reached

    @property
    def damage(self) -> int:
        """Number of places in the sound and the other streams that could not be read."""
        return self._streams.damage + self._streams.undecoded

    def take_messages(self) -> str | None:
        """The messages for the user since the last call, one per line; None if there are none."""
        messages, self._messages = self._messages, []
        return "\n".join(messages) or None

    def write(self, frame: Frame) -> None:
        """Encode one frame of the same size as the first, and copy sound and other streams up to its end.

        Raises:
            ConfigError: the codec does not support the size. OutputError, OSError: the file cannot be written.
        """
        with self._writing():
            if self._convert is None:
                self._convert = self._open_encoder(frame.pixels.shape[-2], frame.pixels.shape[-1])
                self.size = self._stream.codec_context.width, self._stream.codec_context.height
                self._began = frame.pts * self._video.time_base
            encoded = self._convert(frame.pixels)
            encoded.time_base = self._video.time_base
            for index in range(frame.times):
                encoded.pts = frame.pts + index * frame.duration
                if self._collides(encoded.pts):
                    continue
                encoded.duration = self._durations[encoded.pts] = frame.duration
                self._mux(self._stream.encode(encoded))
                self.frames += 1
            self.reached = (frame.pts + frame.times * frame.duration) * self._video.time_base
            self._streams.copy(self.reached)

    def finish(self, *, whole: bool = True) -> None:
        """Write the last encoded frames and the end of the file. whole: also copy the sound after the last frame."""
        with self._writing():
            self._mux(self._stream.encode(None))
            self._streams.close(None if whole else self.reached)
            self._output.close()
        if self._suffix in SILENT:
            hold_last(self._path, self.reached - self._began)
        self._finished = True

    def _collides(self, pts: int) -> bool:
        """True for a frame of a GIF in the same hundredth of a second as the one before: a GIF cannot hold both."""
        if self._codec != "gif":
            return False
        tick = math.floor(pts * self._video.time_base * 100 + Fraction(1, 2))  # rounded as FFmpeg does
        if tick != self._tick:
            self._tick = tick
            return False
        if not self._collided:
            self._messages.append("A GIF holds at most 100 frames per second: frames in between are left out.")
        self._collided = True
        return True

    def _add_stream(self) -> VideoStream:
        encoder, config, info = self._encoder, self._config, self._video.info
        options = dict(encoder.options)
        if encoder.crf is not None:
            options[encoder.quality] = str(encoder.crf if config.crf is None else config.crf)
            options[encoder.flag] = config.preset or encoder.preset
        if self.tags_fields:
            options["x264-params"] = f"{self._fields}=1:pic-struct=1"
        if self._without_b_frames():
            options |= {"x265-params": "log-level=none:bframes=0"} if encoder.name == "libx265" else {"bf": "0"}
        rate = self._video.rate or info.rate or Fraction(25)
        stream = self._output.add_stream(encoder.name, rate=rate, options=options)
        assert isinstance(stream, VideoStream)
        stream.time_base = stream.codec_context.time_base = self._video.time_base
        if self._codec == "hevc" and self._suffix != ".mkv":
            stream.codec_context.codec_tag = "hvc1"  # required by Apple's players
        return stream

    @property
    def tags_fields(self) -> bool:
        """True if the output is interlaced and tagged as such."""
        return self._fields is not None and self._codec == "h264"

    @property
    def _fields(self) -> str | None:
        """The field order of the output, "tff" or "bff"; None if it is not interlaced."""
        return self._video.info.fields if self._config.keep_interlaced else None

    def _without_b_frames(self) -> bool:
        """True if frames must be stored in the order in which they are shown, without B-frames.

        AVI stores no times. MP4 derives the duration of a frame from the storage order, so with B-frames and uneven
        times the end of the video would be lost.
        """
        uneven = not (self._video.info.even or self._video.rate)
        return self._codec in ("h264", "hevc") and (self._suffix == ".avi" or (uneven and self._suffix != ".mkv"))

    def _open_encoder(self, height: int, width: int) -> FromRGB:
        """Open the encoder for frames of a size, and write the header of the file."""
        context, info, encoder = self._stream.codec_context, self._video.info, self._encoder
        if self._config.enlarges:
            width, height = scaled_to(width, height, self._config.size)
        if info.aspect and (self._codec in ("h264", "hevc") or self._suffix in (".mp4", ".m4v", ".mov")):
            context.sample_aspect_ratio = info.aspect
        elif info.aspect:
            width, height = square(width, height, info.aspect, self._config.size)
            self._messages.append(
                f"{self._suffix} files with {self._codec} need square pixels: the output has {width} x {height} px."
            )
        odd = encoder.odd_pixels is not None and (height % 2 or width % 2)
        pixels = encoder.odd_pixels if odd and encoder.odd_pixels else encoder.pixels
        if odd:
            fix = "--upscale 2 or 4" if self._config.enlarges else "--size"
            self._messages.append(
                f"{width} x {height} px has an odd side and is written as 4:4:4, which some players do not support: "
                f"{fix} gives even sides."
            )
        context.width, context.height, context.pix_fmt = width, height, pixels
        colours = _output_colours(info.colours, pixels)
        context.colorspace, context.color_range = colours.matrix, colours.range
        context.color_primaries, context.color_trc = colours.primaries, colours.transfer
        # SVT-AV1 waits forever for such pictures.
        hangs = encoder.name == "libsvtav1" and min(width, height) < 32 and max(width, height) > 64
        if hangs or not _opens(context):
            flag = "--upscale" if self._config.enlarges else "--size"
            raise ConfigError(f"{self._codec} does not support {width} x {height} px: give another --codec or {flag}.")
        self._output.start_encoding()
        return FromRGB(colours, pixels, (width, height), fields=self._fields)

    def _mux(self, packets: list[av.Packet[VideoStream]]) -> None:
        for packet in packets:  # encoders do not keep the durations of frames
            packet.duration = self._durations.pop(packet.pts, packet.duration) if packet.pts is not None else 0
            self._output.mux_one(packet)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except FFmpegError as error:
            if isinstance(error, OSError):  # write_beside handles it
                raise
            raise OutputError(f"The video could not be written ({(error.strerror or '?').lower()}).") from error


def _nvenc_opens(codec: str, info: Info, config: VideoConfig) -> bool:
    """Whether NVENC encodes frames as large as those of the output will be. Odd sides are left to software."""
    encoder, times = NVENC[codec].name, 1.0
    if not _can_encode(encoder):
        return False
    if config.enlarges:
        times = config.upscale or 4
    context = CodecContext.create(encoder, "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height = (round(times * side) for side in (info.width, info.height))
    if config.enlarges:
        context.width, context.height = scaled_to(context.width, context.height, config.size)
    context.pix_fmt, context.time_base = "yuv420p", Fraction(1, 25)
    return not (context.width % 2 or context.height % 2) and _opens(context)


def _opens(context: VideoCodecContext) -> bool:
    try:
        context.open()
    except FFmpegError:
        return False
    return True


def _output_colours(colours: Colours, pixels: str) -> Colours:
    """The colour tags of the output: those of the input, if the pixel format supports them."""
    if pixels in ("bgr0", "rgb24", "pal8", "bgra"):
        return Colours(RGB, FULL, colours.primaries, colours.transfer)
    if pixels.endswith("10le"):  # ProRes supports the limited range only
        return Colours(colours.matrix, LIMITED, colours.primaries, colours.transfer)
    return colours


def square(width: int, height: int, aspect: Fraction, size: int | None = None) -> tuple[int, int]:
    """The (width, height) with square pixels for a pixel aspect; a changed side is even.

    No side becomes smaller, unless the longer side would be larger than `size`: then it is `size`.
    """
    if aspect > 1:
        width = round(width * aspect / 2) * 2
    else:
        height = round(height / aspect / 2) * 2
    return (width, height) if size is None or max(width, height) <= size else scaled_to(width, height, size)


def _movie_timescale(denominator: int) -> int:
    """The smallest multiple of `denominator` of at least 1000: units per second of the start times in MP4."""
    return denominator * -(-1000 // denominator)


def _can_encode(encoder: str) -> bool:
    with suppress(av.codec.codec.UnknownCodecError):
        av.codec.Codec(encoder, "w")
        return True
    return False
