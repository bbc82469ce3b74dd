"""perceptual video: paint or enlarge a video."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from perceptual.cli import results
from perceptual.cli.cluster import is_far, placed, run_far
from perceptual.cli.help import parse, words
from perceptual.cli.pictures import open_stylizer, open_upscaler, try_out
from perceptual.cli.terminal import FAILED, INTERRUPTED, fail, is_quiet, say, stop_on_signal, with_bar
from perceptual.config import EngineConfig, VideoConfig

if TYPE_CHECKING:
    from torch import Tensor

    from perceptual.apply import Model, Outcome
    from perceptual.cluster import Convert
    from perceptual.video import Conversion


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Video(EngineConfig, VideoConfig):
    """Paint or enlarge a video and keep its sound.

    Each frame keeps its time. Sound, subtitles, chapters and the title are copied. Ctrl-C stops and keeps the part that
    is done. A damaged video: the readable frames are kept, a warning is printed, and the exit code is 1.
    Example: perceptual video video.mp4 --style wave -o painted.mp4
    perceptual video small.mp4 --upscale 2 -o large.mp4
    perceptual video s3://bucket/videos -o s3://bucket/painted --engine ray
    """

    everyday: ClassVar[tuple[str, ...]] = (
        *("input", "out", "style", "name", "strength", "keep_colors", "style_scale", "steady"),
        *("upscale", "size", "start", "end"),
    )

    input: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="INPUT")]
    """The video: any file that FFmpeg reads, an animation, a folder of images, or a pattern such as frame_%04d.png. For
    images, --fps is their frame rate (default: 25 frames per second). With --engine ray, or in S3: a video or a folder
    of videos; each one is converted by one process."""
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))]
    """The file to write: .mp4, .m4v, .mov, .mkv, .webm, .avi, .gif, .apng or .webp; or frame_%04d.png for one image per
    frame. With --engine ray, or in S3, also a folder: its videos have the names of the inputs."""
    overwrite: bool = False
    """With --engine ray, or in S3: make outputs again that exist; by default they are skipped. Otherwise OUT is always
    replaced."""


def video(arguments: Sequence[str]) -> int:
    """perceptual video: convert a video. Returns the exit code, which is 1 if parts of the input could not be read."""
    config = parse(_Video, arguments, "video")
    if is_far([config.input, config.out], config):
        return _far(placed(config))
    from perceptual.video import Conversion, check_conversion

    with words():  # before a network is loaded
        check_conversion(config.input, config.out, config)
    convert, at_once = _convert(config)
    settle = _settle(config)
    conversion = Conversion(config.input, config.out, convert, settle=settle, config=config)
    conversion.at_once = at_once
    began = time.monotonic()
    title = "enlarging" if config.enlarges else "painting"
    with stop_on_signal() as stopping, closing(conversion.run()) as run:  # closing finishes the output file
        for _ in with_bar(run, title, unit="frames"):
            if stopping:
                break
    took = time.monotonic() - began
    _put(conversion, took)
    say(_summary(conversion, took))
    if conversion.damage and (is_quiet() or results.wanted()):
        fail(f"{config.input} is damaged: the frames that can be read were written.")
    if stopping:
        return INTERRUPTED
    return FAILED if conversion.damage else 0


def _far(config: _Video) -> int:
    """Videos in S3, or a Ray cluster: one video after the other, or one in each process."""
    from perceptual.cluster import VIDEO_SUFFIXES, Naming, as_url

    writable = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"}
    naming = Naming(suffixes=VIDEO_SUFFIXES, outputs=(writable, ".mp4"))
    source = as_url(config.input) or str(config.input)
    return run_far([source], config.out, config, partial(_worker, config), naming)


def _worker(config: _Video) -> Convert:
    """What a worker does: load the network once, then convert videos one by one."""
    from perceptual.apply import Outcome
    from perceptual.video import Conversion

    convert, _ = _convert(config)  # a worker has one core

    def one(source: Path, target: Path) -> Outcome:
        conversion = Conversion(source, target, convert, settle=_settle(config), config=config)
        for _ in conversion.run():
            pass
        damage = f"{source} is damaged: the frames that can be read were written." if conversion.damage else None
        facts = _facts(conversion)
        return Outcome(source, target, size=conversion.size, facts=facts, warning=damage)

    return one


def _settle(config: VideoConfig) -> Callable[[Tensor, Tensor], Tensor] | None:
    """What reduces the flicker of one video; it remembers the frame before. None if that is not wanted."""
    if not config.steadiness:
        return None
    from perceptual.motion import Steady, SteadyDetail

    return (SteadyDetail if config.enlarges else Steady)(config.steadiness)


def _convert(config: VideoConfig) -> tuple[Callable[[Tensor], Tensor], Callable[[int, int], int]]:
    """What paints or enlarges a frame, and what says how many frames of a size to work on at the same time."""
    model: Model[Any]
    options: Any
    if config.enlarges:
        model, options = open_upscaler(config.enlarging), config.enlarging.options
    else:
        model, options = open_stylizer(config.painting, video=True), config.painting.options
    try_out(model, options)
    return partial(model.apply, options=options), partial(model.at_once, options=options)


def _put(conversion: Conversion, took: float) -> None:
    """The facts for the document of --json. Without frames there is no output."""
    width, height = conversion.size or (None, None)
    results.put(
        input=conversion.source,
        output=conversion.target if conversion.frames else None,
        width=width,
        height=height,
        **_facts(conversion),
        frames_per_second=round(conversion.frames / max(took, 1e-3), 2),
        stopped_early=conversion.stopped,
    )


def _facts(conversion: Conversion) -> dict[str, Any]:
    """What --json says about each video."""
    return {
        "frames": conversion.frames,
        "video_seconds": float(conversion.seconds),
        "damaged_parts": conversion.damage,
    }


def _summary(conversion: Conversion, took: float) -> str:
    frames, rate = conversion.frames, conversion.frames / max(took, 1e-3)
    if not frames:
        return "Stopped before the first frame; nothing was written."
    counted = f"{frames} frame{'s' * (frames != 1)}"
    text = f"Wrote {conversion.target}: {counted} in {took:.1f} s ({rate:.1f} frames per second)."
    if conversion.stopped:
        text += f" Stopped early: it contains the first {float(conversion.seconds):.1f} s."
    return text
