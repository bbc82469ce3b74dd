"""The command line and the Python code that do the same as the page."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def command(name: str, *words: str | Path, **flags: Any) -> str:
    """A command line for the shell: perceptual, `name`, `words`, then each flag with its value.

    Flags that are None or False are left out; True is a flag without a value; `out` is -o.
    """
    parts = ["perceptual", *name.split(), *(str(word) for word in words)]
    for flag, value in flags.items():
        option = "-o" if flag == "out" else f"--{flag.rstrip('_').replace('_', '-')}"
        if value is True:
            parts.append(option)
        elif value not in (None, False):
            parts += [option, *(str(each) for each in (value if isinstance(value, list | tuple) else [value]))]
    return shlex.join(parts)


def changes(options: Any) -> dict[str, Any]:
    """The fields of a settings object that differ from their defaults."""
    return {
        field.name: value
        for field in dataclasses.fields(options)
        if (value := getattr(options, field.name)) != field.default
    }


def call(function: str, *arguments: str, **options: Any) -> str:
    """A Python call. arguments: as code. options: as values."""
    return f"{function}({', '.join([*arguments, *(f'{name}={value!r}' for name, value in options.items())])})"


def stylize(photo: Path, style: str, options: Any, out: Path) -> tuple[str, str]:
    """(command line, Python code) for painting one photo."""
    changed: Mapping[str, Any] = changes(options)
    lines = [
        "from PIL import Image",
        "from perceptual import Stylizer",
        "",
        f"stylizer = {call('Stylizer.load', repr(style))}",
        f"painting = {call('stylizer', f'Image.open({photo.name!r})', **changed)}",
        f"painting.save({out.name!r})",
    ]
    return command("stylize", photo.name, style=style, **changed, out=out.name), "\n".join(lines)


def upscale(photo: Path, scale: float, loss: str, out: Path) -> tuple[str, str]:
    """(command line, Python code) for enlarging one picture."""
    lines = [
        "from PIL import Image",
        "from perceptual import Upscaler",
        "",
        f"large = Upscaler.at_scale({scale:g}, {loss!r})(Image.open({photo.name!r}))",
        f"large.save({out.name!r})",
    ]
    flags = {"scale": f"{scale:g}", "loss": None if loss == "pixel" else loss}
    return command("upscale", photo.name, **flags, out=out.name), "\n".join(lines)
