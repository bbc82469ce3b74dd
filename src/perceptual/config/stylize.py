"""Settings of `perceptual stylize`."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from perceptual.config.checks import Range, check

Precision = Literal["auto", "int8", "float32"]
Side = Annotated[int, Range(1, 100_000)]
Share = Annotated[float, Range(0, 1)]
LARGEST_STROKES = 16
"""The largest `--style-scale`."""
StyleScale = Annotated[float, Range(0.0625, LARGEST_STROKES)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaintSettings:
    """How a picture is painted, once its style is chosen."""

    strength: Share = 1.0
    """Strength of the style, from 0 (the photo) to 1 (the full style)."""
    keep_colors: bool = False
    """Keep the colours of the photo and take only the lightness from the painted result."""
    style_scale: StyleScale = 1.0
    """Size of the strokes, 0.0625 to 16. At 4, the strokes in a photo of 2048 px are as large, relative to the photo,
    as the strokes in a photo of 512 px at 1; 1 is the size that the network was trained for."""
    size: Side | None = None
    """Longer side of the output, 1 to 100,000 pixels; default: the size of the input."""
    noise: Annotated[float, Range(0, 2)] = 1.0
    """Strength of the noise that some networks add to their input, from 0 to 2, relative to the trained strength. It
    decides where strokes lie in flat areas."""
    precision: Precision = "auto"
    """auto: the fastest, which is float16 on a GPU, int8 on a processor that has instructions for it, else float32.
    int8 results differ a little from float32; tests ask for a PSNR of 42 dB or more, also for dark and flat photos."""

    def __post_init__(self) -> None:
        check(self)

    def in_style(self, style: str | None) -> PaintOptions:
        """The options of `Stylizer`, for a style by its name in the network."""
        shared = {field.name: getattr(self, field.name) for field in dataclasses.fields(PaintSettings)}
        return PaintOptions(style=style, **shared)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaintOptions(PaintSettings):
    """The options that a call of `Stylizer` accepts in addition to the image."""

    style: str | None = None
    """One of the network's styles by name, or a blend of them such as starry_night:0.7,wave:0.3; default: the style
    that was loaded."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StylizeConfig(PaintSettings):
    """Options of `perceptual stylize`."""

    style: str = "starry_night"
    """A shipped style by name (`perceptual styles` lists them), the path of a trained network, also of another program
    (.pth, .model, .t7, .ckpt), or a blend of styles of one network, such as starry_night:0.7,wave:0.3. In `perceptual
    stylize`, all makes a sheet of all shipped styles."""
    name: str | None = None
    """The style to use, or a blend of styles, if the network has several; default: the style that --style names, else
    the first."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ...; auto: a CUDA GPU if there is one, else the CPU."""

    @property
    def options(self) -> PaintOptions:
        """The options for painting each picture."""
        return self.in_style(self.name)
