"""Settings of the live webcam window."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated

from perceptual.config.checks import Range, check
from perceptual.config.stylize import Precision, Share, Side, StylizeConfig
from perceptual.config.video import STEADY_PAINTING, Steadiness


@dataclasses.dataclass(frozen=True, kw_only=True)
class WebcamConfig:
    """Options of `perceptual webcam`."""

    style: str = StylizeConfig.style
    """A shipped style by name (`perceptual styles` lists them), the path of a trained network, or a blend of styles of
    one network, such as starry_night:0.7,wave:0.3. The arrow keys switch to the other styles of the network."""
    name: str | None = None
    """The style to start with, if the network has several; default: the style that --style names, else the first."""
    camera: str = "0"
    """The number of a camera, or a video file, which is played like a camera."""
    strength: Share = StylizeConfig.strength
    """Strength of the style at the start, from 0 (the camera image) to 1 (the full style)."""
    keep_colors: bool = StylizeConfig.keep_colors
    """Keep the colours of the camera and take only the lightness from the painted result."""
    steady: Steadiness = STEADY_PAINTING
    """Share of the previous painted frame, moved along with the motion, that is blended into each frame to reduce
    flicker: from 0 (none) to 0.9."""
    fps: Annotated[float, Range(1, 1000)] = 15.0
    """Frames per second to reach, 1 to 1,000. The frames are painted as large as this computer can at this rate."""
    size: Side | None = None
    """Largest longer side of the painted frames, 1 to 100,000 pixels; the camera is asked for this size too. Default:
    the usual size of the camera."""
    mirror: bool = True
    """Mirror the camera image. A video file is not mirrored."""
    loop: bool = False
    """Play a video file again when it ends."""
    frames: Annotated[int, Range(1, 1_000_000_000)] | None = None
    """Stop after this number of frames, 1 to 1,000,000,000."""
    out: Path = Path()
    """The folder for saved images."""
    device: str = StylizeConfig.device
    """auto, cpu, cuda, cuda:1 ...; auto: a CUDA GPU if there is one, else the CPU."""
    precision: Precision = StylizeConfig.precision
    """auto: the fastest, which is float16 on a GPU, int8 on a processor that has instructions for it, else float32.
    int8 results differ a little from float32; tests ask for a PSNR of 42 dB or more, also for dark and flat photos."""

    def __post_init__(self) -> None:
        check(self)
        object.__setattr__(self, "out", Path(os.path.expanduser(self.out)))
