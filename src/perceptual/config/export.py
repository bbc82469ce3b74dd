"""Settings of exporting a network to ONNX or to a web page."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Literal

from perceptual.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Options of `perceptual export`."""

    out: Path | None = None
    """The ONNX file to write. Default: the name of the network with the ending .onnx, in this folder."""
    web: Path | None = None
    """Write a folder with a static web page instead, which paints photos and the camera in the browser."""
    input: Literal["float", "uint8"] = "float"
    """Kind of the image and of the result: float in [0, 1], or uint8 levels from 0 to 255."""
    precision: Literal["float32", "float16", "int8"] = "float32"
    """Number format of the convolutions. float16 halves the weights, and int8 quarters them; the noise pattern of
    the gallery (2.1 MB) keeps its size. Both differ a little from the network, and the difference is printed."""
    calibrate: tuple[str, ...] = ()
    """For int8: photos, folders or globs. The ranges of values are measured on them. Default: three sample photos of
    scikit-image."""
    runtime: Path | None = None
    """For --web: the folder of an unpacked npm package onnxruntime-web. Default: the package is downloaded once, and
    its hash is checked."""

    def __post_init__(self) -> None:
        for name in ("out", "web", "runtime"):
            path = getattr(self, name)
            object.__setattr__(self, name, path and Path(os.path.expanduser(path)))
        if self.out is not None and self.out.suffix.lower() != ".onnx":
            raise ConfigError(f"--out is {self.out}; it must end in .onnx, such as {self.out.stem or 'network'}.onnx.")
        if self.calibrate and self.precision != "int8":
            raise ConfigError("--calibrate has an effect with --precision int8 only: leave it out.")
        if self.runtime is not None and self.web is None:
            raise ConfigError("--runtime has an effect together with --web only: leave it out.")
        if self.web is None:
            return
        if self.out is not None:
            raise ConfigError("--web writes a folder and --out a file: leave one of them out.")
        if (self.input, self.precision) != ("float", "float32"):
            raise ConfigError("The page chooses its own input and precision: leave --input and --precision out.")
