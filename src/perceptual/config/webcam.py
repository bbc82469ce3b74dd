"""Settings of the live window."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated

from perceptual.config.checks import Range, check
from perceptual.config.style import Precision, Share, Side, StylizeConfig
from perceptual.config.video import Steadiness, VideoConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class WebcamConfig:
    """What `perceptual webcam` looks at, and how it paints."""

    style: str = StylizeConfig.style
    """A shipped style by name (`perceptual styles` lists them), the path of a trained network, or a blend of several
    that share one network, such as starry_night:0.7,wave:0.3. The arrow keys go on to the network's other styles."""
    name: str | None = None
    """The style of a network that holds several to begin with; else what --style says, or the first."""
    camera: str = "0"
    """A camera by its number, or a film's file, which plays as a camera would."""
    strength: Share = StylizeConfig.strength
    """From 0, the photograph, to 1, the full style, to begin with."""
    keep_colors: bool = StylizeConfig.keep_colors
    """Keep the camera's colours and paint only in lightness."""
    steady: Steadiness = VideoConfig.steady
    """How much of the previous painting, moved along with the picture, goes into each, against flicker: from 0, none,
    to 0.9."""
    fps: Annotated[float, Range(1, 1000)] = 15.0
    """Frames a second to hold, 1 to 1,000: the painting is made as large as this computer can paint so often."""
    size: Side | None = None
    """Longer side, 1 to 100,000 pixels, that the painting has at most, and that the camera is asked for; the camera's
    usual one when left out."""
    mirror: bool = True
    """Turn a camera's picture round as a mirror does; a film stays as it is."""
    loop: bool = False
    """Begin a film again at its end."""
    frames: Annotated[int, Range(1, 1_000_000_000)] | None = None
    """End after so many frames, 1 to 1,000,000,000."""
    out: Path = Path()
    """The folder for pictures that are saved."""
    device: str = StylizeConfig.device
    """auto, cpu, cuda, cuda:1 ...; auto takes a CUDA GPU where there is one."""
    precision: Precision = StylizeConfig.precision
    """auto takes what the processor computes fastest: int8 where it multiplies bytes, else float32. int8 differs from
    float32 (PSNR of 46 to 52 dB as a rule, 29 at worst), most in dark and flat pictures."""

    def __post_init__(self) -> None:
        check(self)
        object.__setattr__(self, "out", Path(os.path.expanduser(self.out)))
