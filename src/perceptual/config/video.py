"""Settings for video: painting or enlarging, which part of the video, and how the output is encoded."""

from __future__ import annotations

import dataclasses
import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

from perceptual.config.checks import Range, check
from perceptual.config.stylize import Precision, Share, StyleScale, StylizeConfig
from perceptual.config.upscale import Enlargement, UpscaleConfig
from perceptual.errors import ConfigError, shown

Codec = Literal["h264", "hevc", "vp9", "av1", "prores", "ffv1"]

Steadiness = Annotated[float, Range(0, 0.9)]

STEADY_PAINTING, STEADY_ENLARGING, STEADY_FEATURE = 0.15, 0.5, 0.7
"""The default values of --steady: for painted videos, for enlarged ones, and for those enlarged by `feature`."""

_TIME = re.compile(r"(?:(?:(\d{1,9}):)?(\d{1,2}):)?(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})")


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """Options of `perceptual video`."""

    style: str | None = None
    """A shipped style by name (`perceptual styles` lists them), the path of a trained network, or a blend of styles of
    one network, such as starry_night:0.7,wave:0.3; default: starry_night."""
    name: str | None = None
    """The style to use, or a blend of styles, if the network has several; default: the style that --style names, else
    the first."""
    strength: Share = StylizeConfig.strength
    """Strength of the style, from 0 (the original video) to 1 (the full style)."""
    keep_colors: bool = StylizeConfig.keep_colors
    """Keep the colours of the video and take only the lightness from the painted result."""
    style_scale: StyleScale = StylizeConfig.style_scale
    """Size of the strokes, 0.0625 to 16. At 4, the strokes in a video of 2048 px are as large, relative to the frame,
    as the strokes in a video of 512 px at 1."""
    steady: Steadiness | None = None
    """Share of the previous painted frame, moved along with the motion, that is blended into each frame to reduce
    flicker: from 0 (none) to 0.9. When enlarging, only the fine detail is blended. Default: 0.15 for painting, 0.5 for
    enlarging, 0.7 with --loss feature."""
    upscale: Enlargement | None = None
    """Enlarge the video by this factor, 0.01 to 64, instead of painting it."""
    loss: str = "video"
    """For --upscale: the shipped network. video is the fast one up to --upscale 2, and pixel above; pixel is closest to
    the original, feature looks sharpest, photo cleans compressed and noisy frames, srcnn is the baseline."""
    network: Path | None = None
    """A trained network for enlarging, instead of a shipped one: your own, or one of another program (.pth,
    .safetensors)."""
    size: Annotated[int, Range(16, 100_000)] | None = None
    """Longer side of the output, 16 to 100,000 pixels. The other side follows in proportion; both are made even.
    Default: the size of the input or of the enlarged video. Painting happens at this size; an enlarged video is scaled
    to it at the end."""
    start: str | None = None
    """Start time in the input, in seconds or as [hh:]mm:ss, such as 12.5 or 1:02:03."""
    end: str | None = None
    """End time in the input, in seconds or as [hh:]mm:ss."""
    fps: Annotated[float, Range(0.01, 1000)] | None = None
    """Constant frame rate of the output, 0.01 to 1,000 frames per second; default: every frame keeps its own time."""
    codec: Codec | None = None
    """h264, hevc, vp9, av1, prores or ffv1 (lossless); default: vp9 for .webm, h264 for the other formats."""
    crf: Annotated[int, Range(0, 63)] | None = None
    """Quality of h264 and hevc (0 to 51) or vp9 and av1 (0 to 63); lower is better. Default: 18 for h264, 20 for hevc,
    24 for vp9, 26 for av1."""
    preset: str | None = None
    """Speed of the encoder: ultrafast to veryslow for h264 and hevc (default: veryfast), 0 (slow) to 8 for vp9
    (default: 4), 0 to 13 for av1 (default: 8)."""
    encoder: Literal["software", "nvenc"] = "software"
    """nvenc: encode h264, hevc or av1 on an NVIDIA GPU. If there is none, the software encoder is used, and a message
    says so. --crf is then NVENC's constant quality, in the same range."""
    keep_interlaced: bool = False
    """Keep interlaced frames interlaced; without this flag they are deinterlaced."""
    sound: bool = True
    """Keep the sound: copied if the output format supports it, else converted."""
    device: str = StylizeConfig.device
    """auto, cpu, cuda, cuda:1 ...; auto: a CUDA GPU if there is one, else the CPU."""
    precision: Precision = StylizeConfig.precision
    """auto: the fastest, which is float16 on a GPU, int8 on a processor that has instructions for it, else float32."""

    def __post_init__(self) -> None:
        check(self)
        _ = self.painting, self.enlarging  # these check their own values
        painting_only = ("style", "name", "strength", "keep_colors", "style_scale", "precision")
        ignored_flags = painting_only if self.enlarges else ("loss",)
        for name in ignored_flags:
            if getattr(self, name) != getattr(VideoConfig, name):
                flag = "--" + name.replace("_", "-")
                how = "enlarged" if self.enlarges else "painted"
                raise ConfigError(f"{flag} has no effect when the video is {how}: leave it out.")
        if self.keep_interlaced and (self.enlarges or self.size):
            flag = "--size" if self.size else "--upscale"
            raise ConfigError(f"--keep-interlaced cannot be combined with {flag}: leave one of them out.")
        if self.encoder == "nvenc" and (self.preset or self.keep_interlaced):
            flag = "--preset" if self.preset else "--keep-interlaced"
            raise ConfigError(f"{flag} cannot be combined with --encoder nvenc: leave one of them out.")
        start, end = self.span
        if end is not None and end <= start:
            raise ConfigError(f"end is {self.end}, which is not after start, {self.start or 0}: give a later end.")

    @property
    def enlarges(self) -> bool:
        """True if the video is enlarged, False if it is painted."""
        return self.upscale is not None or self.network is not None

    @property
    def steadiness(self) -> float:
        """The value of `steady`, or its default."""
        if self.steady is not None:
            return self.steady
        if not self.enlarges:
            return STEADY_PAINTING
        return STEADY_FEATURE if self.loss == "feature" and self.network is None else STEADY_ENLARGING

    @property
    def painting(self) -> StylizeConfig:
        """The options for painting each frame."""
        return StylizeConfig(
            style=self.style or StylizeConfig.style,
            name=self.name,
            strength=self.strength,
            keep_colors=self.keep_colors,
            style_scale=self.style_scale,
            device=self.device,
            precision=self.precision,
        )

    @property
    def enlarging(self) -> UpscaleConfig:
        """The options for enlarging each frame."""
        loss = UpscaleConfig.loss if self.network and self.loss == VideoConfig.loss else self.loss
        return UpscaleConfig(scale=self.upscale, loss=loss, network=self.network, device=self.device)

    @property
    def span(self) -> tuple[Fraction, Fraction | None]:
        """Start and end time in the input, in seconds. The end is None for the end of the video."""
        return _seconds("start", self.start) or Fraction(0), _seconds("end", self.end)

    @property
    def rate(self) -> Fraction | None:
        """Frames per second as an exact fraction: 29.97 means 30000/1001, 23.976 means 24000/1001, and so on."""
        if self.fps is None:
            return None
        whole = round(self.fps * 1.001)
        if self.fps != int(self.fps) and math.isclose(self.fps * 1.001, whole, rel_tol=2e-4):
            return Fraction(whole * 1000, 1001)
        return Fraction(self.fps).limit_denominator(1001)


def _seconds(name: str, text: str | None) -> Fraction | None:
    """Parse "12.5", "1:02" or "1:02:03.5" into seconds; None stays None. `name` is the field, for the error message."""
    if text is None:
        return None
    found = _TIME.fullmatch(str(text).strip())
    hours, minutes, seconds = found.groups() if found else ("", "", "0")
    if found is None or (minutes and float(seconds) >= 60) or (hours and int(minutes) >= 60):
        raise ConfigError(f"{name} is {shown(text)}; give seconds or [hh:]mm:ss, such as 12.5 or 1:02:03.")
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + Fraction(seconds)
