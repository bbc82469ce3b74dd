"""Opening a video file, choosing its video stream, and reading its properties."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av import FFmpegError, Packet, VideoFrame
from av.container import InputContainer
from av.error import ArgumentError
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from perceptual.errors import VideoError
from perceptual.video.colours import Colours, Matrix

FASTEST = 240  # frames per second; a higher rate in a file is a wrong guess from uneven times
_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"[playlist]", b"[Reference]", b"v=0\n", b"v=0\r\n")
RETRIES = 8  # consecutive damaged places after which the rest of a file is given up
# The container formats that are opened. Formats that refer to other files or addresses, such as playlists (hls, dash,
# concat, sdp), and devices are not allowed.
_KINDS = """mov matroska avi mpegts mpeg mpegvideo m4v flv live_flv f4v asf wtv rm ogg nut mxf gxf dv ivf obu av1 h264
    h263 h261 hevc vvc evc vc1 vc1test mjpeg mjpeg_2000 yuv4mpegpipe apng gif swf nsv nuv ty dhav dxa bink smk roq
    flic cdxl ea vmd film_cpk filmstrip idcin ipmovie lmlm4 mtv mv mvi mlv cine rpl sga siff thp vivo wc3movie
    xmv yop 4xm jpegxl_anim kux mpegtsraw smjpeg jv mm bmv bfi bethsoftvid c93 anm dfa hnm gdv iff ifv rl2 sdr2
    apv argo_brp avs avs2 avs3 cavsvideo dirac dnxhd ipu moflex nc pva pmp r3d smush tmv usm vividas psxstr xwma
    mp3 wav flac aac ac3 aiff caf image2 tty bin xbin"""
_PICTURES = ("image2", "gif_pipe", "tty", "bin", "xbin")  # formats that FFmpeg reads as video, but that are none


@dataclass(frozen=True)
class Info:
    """The properties of a video that are known before it is read.

    width, height: size of the frames after rotation and scaling, in pixels.
    frames: expected number of frames, None if unknown.
    seconds: length, None if unknown.
    rate: average frames per second, None if unknown.
    even: True if all frames seem to be shown equally long.
    turned: True if the file asks for a rotation or a flip.
    aspect: width / height of one pixel, None for square pixels or if unknown.
    codec: name of the codec in FFmpeg.
    colours: colour tags of the frames after conversion.
    hdr: "HLG" or "PQ" if the input has high dynamic range, else None.
    fields: "tff" or "bff" (top or bottom field first) if the first frame is interlaced, else None.
    transparent: True if the first frame has transparent parts, or if the file is tagged as VP9 with alpha.
    sounds: number of audio streams.
    """

    width: int
    height: int
    frames: int | None
    seconds: Fraction | None
    rate: Fraction | None
    even: bool
    turned: bool
    aspect: Fraction | None
    codec: str
    colours: Colours
    hdr: str | None = None
    fields: str | None = None
    transparent: bool = False
    sounds: int = 0


def check_exists(path: Path) -> None:
    """Check that a file or folder exists and can be accessed.

    Raises:
        VideoError: it does not exist, permission is denied, or it is a pipe or a device.
    """
    try:
        kind = os.stat(path).st_mode
    except PermissionError as error:
        raise VideoError(_open_error(path, error)) from error
    except (OSError, ValueError) as error:  # also raised for names that are too long
        raise VideoError(f"There is no video {path}: check its name.") from error
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):  # opening a pipe may wait forever
        raise VideoError(f"{path} is a pipe or a device, not a file: save the video to a file first.")


def open_input(path: Path) -> InputContainer:
    """Open a video file.

    Raises:
        VideoError: there is no such file, or it is not a video.
    """
    check_exists(path)
    if os.path.isdir(path):
        raise VideoError(f"{path} is a folder: give a video file.")
    try:
        if not os.path.getsize(path):
            raise VideoError(f"{path} is empty: get the file again.")
        # Without "file:", FFmpeg takes a name with a colon for a protocol.
        container = av.open(f"file:{path}", "r", metadata_errors="replace", container_options=_allowed())
    except (FFmpegError, OSError) as error:
        raise VideoError(_open_error(path, error)) from error
    name = container.format.name
    if name.endswith("_pipe") or name in _PICTURES:
        container.close()
        what = "text" if name in ("tty", "bin", "xbin") else "a photo: use `perceptual stylize` or `perceptual upscale`"
        raise VideoError(f"{path} is not a video but {what}.")
    return container


def _allowed() -> dict[str, str]:
    """FFmpeg's options for opening a file: no access to other files or the network, and only the formats in _KINDS."""
    pictures = [name for name in av.formats_available if name.endswith("_pipe")]  # opened, then refused with a message
    return {"protocol_whitelist": "file", "format_whitelist": ",".join([*_KINDS.split(), *sorted(pictures)])}


def origin(container: InputContainer) -> Fraction:
    """The time in the file at which the video starts, in seconds. It is 0 except for broadcasts."""
    return Fraction(container.start_time or 0, av.time_base) if is_broadcast(container) else Fraction(0)


def packets_of(
    container: InputContainer, streams: Sequence[Stream], on_damage: Callable[[], None]
) -> Iterator[Packet[Any]]:
    """Every packet that is not empty. `on_damage` is called once for each place that cannot be read."""
    failed = 0
    while streams and failed < RETRIES:  # without streams `demux` returns the packets of all
        try:
            for packet in container.demux(list(streams)):
                if packet.size:
                    failed = 0
                    yield packet
            return
        except (FFmpegError, IndexError):  # IndexError: in FLV, damaged data can look like a new stream
            failed += 1
            if failed == 1:
                on_damage()


class Clock:
    """Makes times continuous where the times of a file start again, for example where broadcasts were joined.

    A join is detected from the packets of the video stream; pass all of them to `shift_video` in the order of the file.
    From there on, the same number of seconds is added to the times of all streams, so that sound and frames stay
    synchronous.

    Attributes, in seconds: `added`, the current shift; `reached`, the latest time of the video, None at the start.
    """

    def __init__(self) -> None:
        self.added = self._before = Fraction(0)
        self.reached: Fraction | None = None
        self._others: dict[int, Fraction] = {}  # the latest time of each other stream, by index

    def shift_video(self, packet: Packet[Any]) -> None:
        """Shift the times of a packet of the video stream. A jump back by more than a second is a join."""
        if packet.dts is not None:
            time = packet.dts * packet.time_base
            if self.reached is not None and time + self.added < self.reached - 1:
                length = (packet.duration or 0) * packet.time_base or Fraction(1, 25)
                self._before, self.added = self.added, self.reached + length - time
            self.reached = time + self.added
        _move(packet, self.added)

    def shift_other(self, packet: Packet[Any]) -> bool:
        """Shift the times of a packet of another stream, which may be a little ahead of the video or behind it.

        Returns False, and shifts nothing, if the packet comes after a join that the video has not reached yet.
        """
        time = (packet.dts or 0) * packet.time_base
        reached = time + self.added if self.reached is None else self.reached
        added = min((self.added, self._before), key=lambda each: abs(time + each - reached))
        if time + added < self._others.get(packet.stream.index, time + added) - 1:
            return False
        self._others[packet.stream.index] = min(time + added, reached)
        _move(packet, added)
        return True


def _move(packet: Packet[Any], seconds: Fraction) -> None:
    if seconds:
        added = round(seconds / packet.time_base)
        packet.dts = None if packet.dts is None else packet.dts + added
        packet.pts = None if packet.pts is None else packet.pts + added


def is_cover(stream: Stream) -> bool:
    """True if a video stream is a cover image."""
    return bool(stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails))


def is_broadcast(container: InputContainer) -> bool:
    """True for containers of broadcasts, such as MPEG-TS. Their times start anywhere."""
    return av.format.Flags.ts_discont in av.format.Flags(container.format.flags)


def _open_error(path: Path, error: Exception) -> str:
    if isinstance(error, PermissionError):
        return f"{path} cannot be read: permission is denied."
    head = b""
    with suppress(OSError), open(path, "rb") as file:
        head = file.read(1000).removeprefix(b"\xef\xbb\xbf")
    if head.startswith(_PLAYLISTS) or b"<MPD" in head or b"<SmoothStreamingMedia" in head:
        return f"{path} is a playlist, not a video: give one of the videos that it lists."
    if head[4:8] in (b"ftyp", b"mdat", b"wide", b"free", b"skip"):
        return f"{path} has no index, probably because recording or copying was interrupted: get the file again."
    if isinstance(error, ArgumentError):  # FFmpeg's error for a format that is not allowed
        return f"{path} has a format that is not supported: convert it to .mp4 or .mkv first."
    return f"{path} is not a video, or is damaged from its start: give another file."


def video_stream_of(container: InputContainer, path: Path) -> VideoStream:
    """The main video stream of a file.

    Raises:
        VideoError: there is none, or this PyAV has no decoder for it.
    """
    streams = [stream for stream in container.streams.video if not is_cover(stream)]
    if not streams:
        raise VideoError(f"{path} has no video stream: give a video.")
    best = container.streams.best("video")
    found = best if isinstance(best, VideoStream) and best in streams else streams[0]
    if found.codec_context is None:
        raise VideoError(f"{path} has a video codec that this PyAV cannot decode: convert it first.")
    return found


def make_info(
    container: InputContainer, stream: VideoStream, first: VideoFrame, matrix: Matrix, size: int | None
) -> tuple[Info, tuple[int, int]]:
    """The properties of a video, and the (width, height) to scale frames to before the rotation.

    first: the first decoded frame; matrix: the rotation, from `display_matrix`; size: longer side of the output in
    pixels, None to keep the size.
    """
    width, height = scaled_to(first.width, first.height, size)
    turned = matrix[0] == 0
    aspect = stream.sample_aspect_ratio or None
    if aspect is not None:
        aspect = None if aspect == 1 else (1 / aspect if turned else aspect)
    rates = (stream.average_rate, stream.guessed_rate, stream.base_rate)
    info = Info(
        width=height if turned else width,
        height=width if turned else height,
        frames=stream.frames or None,
        seconds=stream_seconds(stream) or (Fraction(container.duration, av.time_base) if container.duration else None),
        rate=next((rate for rate in rates if rate and rate <= FASTEST), None),
        even=len(set(rates)) == 1 and "matroska" not in container.format.name,  # all three come from the header there
        turned=matrix != (1, 0, 0, 1),
        aspect=aspect,
        codec=stream.codec_context.codec.canonical_name,
        colours=Colours.of(first).converted,
        hdr=Colours.of(first).hdr,
        fields=_fields(stream, first),
        transparent=stream.metadata.get("alpha_mode") == "1" or is_transparent(first),
        sounds=len(container.streams.audio),
    )
    return info, (width, height)


def scaled_to(width: int, height: int, size: int | None) -> tuple[int, int]:
    """(width, height) scaled so that the longer side is `size`, both rounded to even; unchanged if size is None."""
    if size is None:
        return width, height
    longer = max(width, height)
    wide, high = (max(2, 2 * round(Fraction(side * size, 2 * longer))) for side in (width, height))
    return wide, high


def is_transparent(frame: VideoFrame) -> bool:
    """True if the frame has a transparent pixel."""
    if not any(component.is_alpha for component in frame.format.components) and frame.format.name != "pal8":
        return False
    return bool(frame.to_ndarray(format="rgba")[..., 3].min() < 255)


def _fields(stream: VideoStream, first: VideoFrame) -> str | None:
    if not first.interlaced_frame:
        return None
    return "bff" if stream.codec_context.field_order in (3, 4) else "tff"  # 3 and 4: bottom field is shown first


def stream_seconds(stream: VideoStream) -> Fraction | None:
    """The length of the stream in seconds, from the header of the file; None if unknown. Matroska stores it as text.

    For a truncated AVI file, FFmpeg corrects the duration but not the number of frames. The larger of the two is
    therefore the length in the header.
    """
    if stream.duration and stream.time_base:
        counted = stream.frames / stream.average_rate if stream.average_rate else Fraction(0)
        return max(stream.duration * stream.time_base, counted)
    text = re.fullmatch(r"(\d+):(\d\d):(\d\d\.\d+)", stream.metadata.get("DURATION", ""))
    if text:
        return 3600 * int(text[1]) + 60 * int(text[2]) + Fraction(text[3])
    return None
