"""Makes the command line and the Python code that give the same result as the page."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perceptual.config import VideoConfig, WebcamConfig


def command(name: str, *words: str | Path, **flags: Any) -> str:
    """A command line for the shell: perceptual, the name of the command, its arguments, then its flags.

    flags: values by name. None and False: no flag. True: the flag without a value. `out` becomes -o.
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
    """The text of a Python call. arguments: Python code. options: values of keyword arguments."""
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


def _upscaler(scale: float | None, loss: str, network: Path | None) -> str:
    """The Python code that loads a network that enlarges."""
    if network:
        return call("Upscaler.load", repr(str(network)), scale=scale)
    return f"Upscaler.at_scale({scale:g}, {loss!r})"


def upscale(photo: Path, scale: float, loss: str, out: Path, *, network: Path | None = None) -> tuple[str, str]:
    """(command line, Python code) for enlarging one picture. network: the file of a network that is not shipped."""
    lines = [
        "from PIL import Image",
        "from perceptual import Upscaler",
        "",
        f"large = {_upscaler(scale, loss, network)}(Image.open({photo.name!r}))",
        f"large.save({out.name!r})",
    ]
    flags = {"scale": f"{scale:g}", "loss": None if network or loss == "auto" else loss, "network": network}
    return command("upscale", photo.name, **flags, out=out.name), "\n".join(lines)


def video(clip: Path, config: VideoConfig, out: Path) -> tuple[str, str]:
    """(command line, Python code) for converting one clip."""
    changed = {name: value for name, value in changes(config).items() if name != "device"}
    written = {name: changed[name] for name in ("size", "start", "end", "sound", "upscale") if name in changed}
    painted = {name: changed[name] for name in ("strength", "keep_colors", "style_scale") if name in changed}
    steady = "SteadyDetail" if config.enlarges else "Steady"
    model = call("Stylizer.load", repr(config.style), video=True)
    if config.enlarges:
        model = _upscaler(config.upscale, config.loss, config.network)
    options = "".join(f", {name}={value!r}" for name, value in painted.items())
    arguments = [repr(clip.name), repr(out.name), f"lambda frame: model.apply(frame{options})"]
    arguments += [f"settle={steady}({config.steadiness:g})"] if config.steadiness else []
    arguments += [f"config={call('VideoConfig', **written)}"] if written else []
    lines = [
        f"from perceptual import {'Upscaler' if config.enlarges else 'Stylizer'}",
        *(["from perceptual.config import VideoConfig"] if written else []),
        "from perceptual.events import finish",
        *([f"from perceptual.motion import {steady}"] if config.steadiness else []),
        "from perceptual.video import convert_video",
        "",
        f"model = {model}",
        f"finish({call('convert_video', *arguments)})",
    ]
    flags = {name: value for name, value in changed.items() if name != "sound"}
    return command("video", clip.name, **flags, no_sound=not config.sound, out=out.name), "\n".join(lines)


def webcam(config: WebcamConfig) -> tuple[str, str]:
    """(command line, Python code) for the camera in a window."""
    changed = {**changes(config), "style": config.style}
    lines = [
        "from perceptual import Stylizer",
        "from perceptual.config import WebcamConfig",
        "from perceptual.webcam import Camera, run",
        "",
        f"config = {call('WebcamConfig', **changed)}",
        "with Camera(config) as camera:",
        f"    for shown in run(Stylizer.load({config.style!r}, video=True), camera, config):",
        "        print(shown.index)",
    ]
    return command("webcam", **changed), "\n".join(lines)
