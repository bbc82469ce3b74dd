"""Settings of films: what is done to the pictures, which part of the film, and how it is written."""

from __future__ import annotations

import dataclasses
import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

from perceptual.config.checks import Range, check
from perceptual.config.style import Precision, Share, StyleScale, StylizeConfig
from perceptual.config.upscale import Enlargement, UpscaleConfig
from perceptual.errors import ConfigError, shown

Codec = Literal["h264", "hevc", "vp9", "av1", "prores", "ffv1"]

Steadiness = Annotated[float, Range(0, 0.9)]

_TIME = re.compile(r"(?:(?:(\d{1,9}):)?(\d{1,2}):)?(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})")


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """How `perceptual video` paints or enlarges a film."""

    style: str | None = None
    """A shipped style by name (`perceptual styles` lists them), starry_night when left out, the path of a trained
    network, or a blend of several that share one network, such as starry_night:0.7,wave:0.3."""
    name: str | None = None
    """Which style of a network that holds several, or a blend of them; else what --style says, or the first."""
    strength: Share = StylizeConfig.strength
    """From 0, the film as it is, to 1, the full style."""
    keep_colors: bool = StylizeConfig.keep_colors
    """Take only the lightness from the painting, the colours from the film."""
    style_scale: StyleScale = StylizeConfig.style_scale
    """Size of the strokes, 0.0625 to 16. 4 gives a film of 2048 px strokes as large, relative to it, as 1 gives one of
    512."""
    steady: Steadiness = 0.15
    """How much of the previous painting, moved along with the picture, goes into each frame, against flicker: from 0,
    none, to 0.9."""
    upscale: Enlargement | None = None
    """Enlarge the film so many times, 0.01 to 64, in place of painting it."""
    loss: str = UpscaleConfig.loss
    """The loss that the network that enlarges was trained by: pixel is truest to the picture, feature looks sharpest;
    or srcnn, the baseline."""
    network: Path | None = None
    """A trained network of your own to enlarge with, in place of a shipped one."""
    size: Annotated[int, Range(16, 100_000)] | None = None
    """Longer side of the output, 16 to 100,000 pixels, the other in proportion, both made even; when left out, that of
    the input, or of the enlarged film. A film is painted at this size; an enlarged one is scaled to it afterwards."""
    start: str | None = None
    """Where in the film to begin, in seconds or as [hh:]mm:ss, such as 12.5 or 1:02:03."""
    end: str | None = None
    """Where in the film to stop, in seconds or as [hh:]mm:ss."""
    fps: Annotated[float, Range(0.01, 1000)] | None = None
    """Frames a second of the output, 0.01 to 1,000, constant; each frame at the input's own time when left out."""
    codec: Codec | None = None
    """h264, hevc, vp9, av1, prores, or ffv1, which loses nothing; when left out vp9 for .webm and h264 for others."""
    crf: Annotated[int, Range(0, 63)] | None = None
    """Quality of h264 and hevc (0 to 51) or vp9 and av1 (0 to 63), less is better; 18, 20, 24 and 26 when left out."""
    preset: str | None = None
    """Time that the encoder takes: ultrafast to veryslow for h264 and hevc (veryfast when left out), 0 (slow) to 8 for
    vp9 (4), 0 to 13 for av1 (8)."""
    keep_interlaced: bool = False
    """Leave interlaced pictures as they are; else the lines of their two fields are brought to one time."""
    sound: bool = True
    """Keep the film's sound: copied where the output can hold it, else converted."""
    device: str = StylizeConfig.device
    """auto, cpu, cuda, cuda:1 ...; auto takes a CUDA GPU where there is one."""
    precision: Precision = StylizeConfig.precision
    """auto takes what the processor computes fastest: int8 where it multiplies bytes, else float32."""

    def __post_init__(self) -> None:
        check(self)
        _ = self.painting, self.enlarging  # which refuse what is out of range
        of_painting = ("style", "name", "strength", "keep_colors", "style_scale", "steady", "precision")
        unheard = of_painting if self.enlarges else ("loss",)
        for name in unheard:
            if getattr(self, name) != getattr(VideoConfig, name):
                flag = "--" + name.replace("_", "-")
                how = "enlarged" if self.enlarges else "painted"
                raise ConfigError(f"The film is to be {how}, where {flag} does nothing: leave it out.")
        if self.keep_interlaced and (self.enlarges or self.size):
            flag = "--size" if self.size else "--upscale"
            raise ConfigError(f"--keep-interlaced keeps the lines as they are, which {flag} does not: leave one out.")
        start, end = self.span
        if end is not None and end <= start:
            raise ConfigError(f"end is {self.end}, which is not after start, {self.start or 0}: give a later one.")

    @property
    def enlarges(self) -> bool:
        """Whether the film is enlarged, not painted."""
        return self.upscale is not None or self.network is not None

    @property
    def painting(self) -> StylizeConfig:
        """How each picture is painted."""
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
        """How each picture is enlarged."""
        return UpscaleConfig(scale=self.upscale, loss=self.loss, network=self.network, device=self.device)

    @property
    def span(self) -> tuple[Fraction, Fraction | None]:
        """Where in the film to begin and to stop, in seconds; None for its end."""
        return _seconds("start", self.start) or Fraction(0), _seconds("end", self.end)

    @property
    def rate(self) -> Fraction | None:
        """Frames a second: 29.97 stands for 30000/1001, as it does in the trade."""
        if self.fps is None:
            return None
        whole = round(self.fps * 1.001)
        if self.fps != int(self.fps) and math.isclose(self.fps * 1.001, whole, rel_tol=2e-4):
            return Fraction(whole * 1000, 1001)
        return Fraction(self.fps).limit_denominator(1001)


def _seconds(name: str, text: str | None) -> Fraction | None:
    """The seconds in "12.5", "1:02" or "1:02:03.5"; None stays None."""
    if text is None:
        return None
    found = _TIME.fullmatch(str(text).strip())
    hours, minutes, seconds = found.groups() if found else ("", "", "0")
    if found is None or (minutes and float(seconds) >= 60) or (hours and int(minutes) >= 60):
        raise ConfigError(f"{name} is {shown(text)}; give seconds or [hh:]mm:ss, such as 12.5 or 1:02:03.")
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + Fraction(seconds)
