"""Settings of the live window."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from perceptual.config.common import at_least
from perceptual.config.style import Precision, StylizeConfig
from perceptual.config.video import VideoConfig, check_steady


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
    strength: float = StylizeConfig.strength
    """From 0, the photograph, to 1, the full style, to begin with."""
    keep_colors: bool = StylizeConfig.keep_colors
    """Keep the camera's colours and paint only in lightness."""
    steady: float = VideoConfig.steady
    """How much of the previous painting, moved along with the picture, goes into each, against flicker: from 0, none,
    to 0.9."""
    fps: float = 15.0
    """Frames a second to hold: the painting is made as large as this computer can paint so often."""
    size: int | None = None
    """Longer side in pixels that the painting has at most, and that the camera is asked for; the camera's usual one
    when left out."""
    mirror: bool = True
    """Turn a camera's picture round as a mirror does; a film stays as it is."""
    loop: bool = False
    """Begin a film again at its end."""
    frames: int | None = None
    """End after so many frames."""
    out: Path = Path()
    """The folder for pictures that are saved."""
    device: str = StylizeConfig.device
    """auto, cpu, cuda, cuda:1 ...; auto takes a CUDA GPU where there is one."""
    precision: Precision = StylizeConfig.precision
    """auto takes what the processor computes fastest: int8 (above 40 dB PSNR against float32) where it multiplies
    bytes, else float32."""

    def __post_init__(self) -> None:
        StylizeConfig(strength=self.strength, size=self.size, precision=self.precision)  # refuses what is out of range
        check_steady(self.steady)
        at_least("fps", self.fps, 1)
        at_least("frames", 1 if self.frames is None else self.frames, 1)
        object.__setattr__(self, "out", Path(os.path.expanduser(self.out)))
