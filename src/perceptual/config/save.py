"""Settings of the commands that write pictures: names, formats, and files that exist already."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from perceptual.config.checks import Range, check
from perceptual.errors import ConfigError, shown

Existing = Literal["replace", "skip", "refuse"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SaveConfig:
    """How `perceptual stylize`, `upscale`, `apply` and `suggest` name and write their pictures."""

    overwrite: bool = False
    """Replace files that exist in the output folder or beside the input. A file that -o names is always replaced."""
    skip_existing: bool = False
    """Skip inputs that already have an output file, to continue an interrupted run over a folder."""
    suffix: str = ""
    """Text that is added to the names of the outputs, such as _blue for photo_blue.jpg. Not for a file that -o
    names."""
    format: Literal["png", "jpg", "webp", "tiff", "bmp"] | None = None
    """Format of the outputs: png, jpg, webp, tiff or bmp. Default: that of the input, and png for stdout. Not for a
    file that -o names: its ending says it."""
    quality: Annotated[int, Range(1, 100)] = 95
    """Quality of JPEG and WebP files, 1 to 100."""
    dpi: Annotated[float, Range(1, 65_535)] | None = None
    """Resolution that is written to the file, 1 to 65,535 pixels per inch; default: that of the input."""

    def __post_init__(self) -> None:
        check(self)
        if (others := getattr(super(), "__post_init__", None)) is not None:  # of a command's other settings
            others()
        if self.overwrite and self.skip_existing:
            raise ConfigError("--overwrite and --skip-existing contradict each other: leave one of them out.")
        if any(char in self.suffix for char in "/\\\0"):
            raise ConfigError(f"suffix is {shown(self.suffix)}; it must be part of a file name, such as _blue.")

    @property
    def existing(self) -> Existing:
        """What becomes of outputs that exist: they are replaced or skipped, or the run is refused."""
        return "replace" if self.overwrite else "skip" if self.skip_existing else "refuse"

    @property
    def ending(self) -> str:
        """The ending of the outputs, such as .png, or "" for the ending of each input."""
        return f".{self.format}" if self.format else ""
