"""A film's file: opened, or refused in a sentence; which of its streams is the film, and what it says of itself."""

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

FASTEST = 240  # frames a second: what is said to be more is a guess from uneven times
_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"[playlist]", b"[Reference]", b"v=0\n", b"v=0\r\n")
RETRIES = 8  # damaged places in a row after which a file is taken to be at its end
# The kinds of files that are opened. Not among them is what names other files or addresses, such as playlists (hls,
# dash, concat, sdp), and what is a device.
_KINDS = """mov matroska avi mpegts mpeg mpegvideo m4v flv live_flv f4v asf wtv rm ogg nut mxf gxf dv ivf obu av1 h264
    h263 h261 hevc vvc evc vc1 vc1test mjpeg mjpeg_2000 yuv4mpegpipe apng gif swf nsv nuv ty dhav dxa bink smk roq
    flic cdxl ea vmd film_cpk filmstrip idcin ipmovie lmlm4 mtv mv mvi mlv cine rpl sga siff thp vivo wc3movie
    xmv yop 4xm jpegxl_anim kux mpegtsraw smjpeg jv mm bmv bfi bethsoftvid c93 anm dfa hnm gdv iff ifv rl2 sdr2
    apv argo_brp avs avs2 avs3 cavsvideo dirac dnxhd ipu moflex nc pva pmp r3d smush tmv usm vividas psxstr xwma
    mp3 wav flac aac ac3 aiff caf image2 tty bin xbin"""
_PICTURES = ("image2", "gif_pipe", "tty", "bin", "xbin")  # what FFmpeg reads as a film, and is none


@dataclass(frozen=True)
class Info:
    """What is known of a film before it is read through.

    width, height: of the frames as they are read, upright, in pixels; frames: how many are expected, None where the
    file does not tell; seconds: its length, likewise; rate: frames a second, on average; even: as far as can be told,
    all pictures are shown equally long; turned: the file says that its
    pictures are to be turned or flipped; aspect: width over height of a pixel, None for square or unknown; codec: in
    FFmpeg's words; colours: of the pictures as they are read; hdr: HLG or PQ where the film has that, and the pictures
    were converted from it; fields: tff or bff, top or bottom field first, where the first picture is interlaced;
    transparent: whether that is transparent in parts; sounds: how many streams of sound there are.
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


def check_there(path: Path) -> None:
    """Raise a VideoError unless there is a file of that name, in folders that may be searched."""
    try:
        kind = os.stat(path).st_mode
    except PermissionError as error:
        raise VideoError(_mend(path, error)) from error
    except (OSError, ValueError) as error:  # too long a name, too
        raise VideoError(f"There is no film {path}: check its name.") from error
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):  # the other end of a pipe may never be opened
        raise VideoError(f"{path} is a pipe or a device, and no file: save the film to a file first.")


def open_input(path: Path) -> InputContainer:
    """Open a film.

    Raises:
        VideoError: there is no such file, or it is no film.
    """
    check_there(path)
    if os.path.isdir(path):
        raise VideoError(f"{path} is a folder: give one film.")
    try:
        if not os.path.getsize(path):
            raise VideoError(f"{path} is empty: get the file again.")
        # "file:", as a name may hold a colon, which FFmpeg takes for a protocol
        container = av.open(f"file:{path}", "r", metadata_errors="replace", container_options=_allowed())
    except (FFmpegError, OSError) as error:
        raise VideoError(_mend(path, error)) from error
    name = container.format.name
    if name.endswith("_pipe") or name in _PICTURES:
        container.close()
        what = "text" if name in ("tty", "bin", "xbin") else "a picture, for `perceptual stylize` or `upscale`"
        raise VideoError(f"{path} is no film but {what}.")
    return container


def _allowed() -> dict[str, str]:
    """FFmpeg's options for opening a file: itself alone, and only as a kind of file that holds its own pictures."""
    pictures = [name for name in av.formats_available if name.endswith("_pipe")]  # which are refused in a sentence
    return {"protocol_whitelist": "file", "format_whitelist": ",".join([*_KINDS.split(), *sorted(pictures)])}


def origin(container: InputContainer) -> Fraction:
    """The time at which the film begins, in seconds: broadcasts count from anywhere, files from 0."""
    return Fraction(container.start_time or 0, av.time_base) if is_broadcast(container) else Fraction(0)


def packets_of(container: InputContainer, streams: Sequence[Stream], harm: Callable[[], None]) -> Iterator[Packet[Any]]:
    """Every packet that holds something; `harm` is called where one or more of them cannot be read."""
    failed = 0
    while failed < RETRIES:
        try:
            for packet in container.demux(list(streams)):
                if packet.size:
                    failed = 0
                    yield packet
            return
        except (FFmpegError, IndexError):  # the latter where garbage looks like a new stream, as in FLV
            failed += 1
            if failed == 1:
                harm()


class Clock:
    """Times that go on where a film's clock begins anew, as where broadcasts were joined.

    A join is seen by the film's own packets, all of which are to be passed through `film` in the file's order. What is
    added from there on is one number for all streams, so that sound and picture stay together.

    Attributes, in seconds: `added`, at present; `reached`, the film's latest time, None before its first.
    """

    def __init__(self) -> None:
        self.added = self._before = Fraction(0)
        self.reached: Fraction | None = None
        self._others: dict[int, Fraction] = {}  # the same of other streams

    def film(self, packet: Packet[Any]) -> None:
        """Move the times of a packet of the film; more than a second back is a join."""
        if packet.dts is not None:
            time = packet.dts * packet.time_base
            if self.reached is not None and time + self.added < self.reached - 1:
                length = (packet.duration or 0) * packet.time_base or Fraction(1, 25)
                self._before, self.added = self.added, self.reached + length - time
            self.reached = time + self.added
        _move(packet, self.added)

    def other(self, packet: Packet[Any]) -> bool:
        """Move the times of a packet of another stream, which may lie a little before the film or behind it.

        False, and nothing is moved, where it comes from after a join that the film has not come to.
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
    """Whether a stream of pictures is a cover and no film."""
    return bool(stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails))


def is_broadcast(container: InputContainer) -> bool:
    """Whether a file is of a kind that is cut from broadcasts, and so begins and ends anywhere."""
    return av.format.Flags.ts_discont in av.format.Flags(container.format.flags)


def _mend(path: Path, error: Exception) -> str:
    if isinstance(error, PermissionError):
        return f"{path} cannot be read: permission is denied."
    head = b""
    with suppress(OSError), open(path, "rb") as file:
        head = file.read(1000).removeprefix(b"\xef\xbb\xbf")
    if head.startswith(_PLAYLISTS) or b"<MPD" in head or b"<SmoothStreamingMedia" in head:
        return f"{path} is a playlist, which names films and holds none: give one of the films."
    if head[4:8] in (b"ftyp", b"mdat", b"wide", b"free", b"skip"):
        return f"{path} lacks its index, as films do whose recording or copying was cut off: get the file again."
    if isinstance(error, ArgumentError):  # as FFmpeg says of a kind that is not allowed
        return f"{path} is of a kind that is not read here: convert it to .mp4 or .mkv first."
    return f"{path} is no film, or one that is damaged from its beginning: give another file."


def film_of(container: InputContainer, path: Path) -> VideoStream:
    """The stream that is the film.

    Raises:
        VideoError: there is none, or PyAV does not know its codec.
    """
    films = [stream for stream in container.streams.video if not is_cover(stream)]
    if not films:
        raise VideoError(f"{path} has no moving pictures: give a film.")
    best = container.streams.best("video")
    found = best if isinstance(best, VideoStream) and best in films else films[0]
    if found.codec_context is None:
        raise VideoError(f"{path} is in a video format that this PyAV does not read: convert it first.")
    return found


def inform(
    container: InputContainer, stream: VideoStream, first: VideoFrame, matrix: Matrix, size: int | None
) -> tuple[Info, tuple[int, int]]:
    """What is known of a film whose first picture has been decoded, and the (width, height) to scale to before turning.

    matrix: how its pictures are to be turned; size: the longer side that is asked for.
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
        seconds=own_seconds(stream) or (Fraction(container.duration, av.time_base) if container.duration else None),
        rate=next((rate for rate in rates if rate and rate <= FASTEST), None),
        even=len(set(rates)) == 1,
        turned=matrix != (1, 0, 0, 1),
        aspect=aspect,
        codec=stream.codec_context.codec.canonical_name,
        colours=Colours.of(first).shown,
        hdr=Colours.of(first).hdr,
        fields=_fields(stream, first),
        transparent=_transparent(stream, first),
        sounds=len(container.streams.audio),
    )
    return info, (width, height)


def scaled_to(width: int, height: int, size: int | None) -> tuple[int, int]:
    """(width, height) whose longer side is `size`, both even; as they are where no size is given."""
    if size is None:
        return width, height
    longer = max(width, height)
    wide, high = (max(2, 2 * round(Fraction(side * size, 2 * longer))) for side in (width, height))
    return wide, high


def _transparent(stream: VideoStream, first: VideoFrame) -> bool:
    """Whether the first picture is transparent anywhere; VP9 says of all that they may be."""
    if stream.metadata.get("alpha_mode") == "1":
        return True
    if not any(component.is_alpha for component in first.format.components) and first.format.name != "pal8":
        return False
    return bool(first.to_ndarray(format="rgba")[..., 3].min() < 255)


def _fields(stream: VideoStream, first: VideoFrame) -> str | None:
    if not first.interlaced_frame:
        return None
    return "bff" if stream.codec_context.field_order in (3, 4) else "tff"  # in FFmpeg's numbers, bottom shown first


def own_seconds(stream: VideoStream) -> Fraction | None:
    """The length that the file gives for the stream, which Matroska notes in words.

    FFmpeg sets that of a cut off AVI right, so that what its head promised is seen in the number of frames alone.
    """
    if stream.duration and stream.time_base:
        counted = stream.frames / stream.average_rate if stream.average_rate else Fraction(0)
        return max(stream.duration * stream.time_base, counted)
    told = re.fullmatch(r"(\d+):(\d\d):(\d\d\.\d+)", stream.metadata.get("DURATION", ""))
    if told:
        return 3600 * int(told[1]) + 60 * int(told[2]) + Fraction(told[3])
    return None
