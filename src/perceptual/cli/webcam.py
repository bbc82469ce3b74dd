"""perceptual webcam: paint the camera image in a live window."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import tyro

from perceptual.cli.help import parse
from perceptual.cli.pictures import open_stylizer, try_out
from perceptual.cli.terminal import INTERRUPTED, say, stop_on_signal
from perceptual.config import WebcamConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Webcam(WebcamConfig):
    """Paint the camera image live in a window.

    Keys: left and right change the style, up and down its strength, s saves the image, space freezes it, h shows all
    keys, q quits. Example: perceptual webcam --style wave
    """

    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))] = WebcamConfig.out
    """The folder for saved images."""


def webcam(arguments: Sequence[str]) -> int:
    """perceptual webcam: paint a camera or a video file in a window until it is closed. Returns the exit code."""
    config = parse(_Webcam, arguments, "webcam")
    from perceptual.webcam import Camera, Shown, run

    stylizer = open_stylizer(config, video=True)
    try_out(stylizer, stylizer.options(style=config.name))  # refuses a style that the network does not have
    last = Shown(0, 0.0, 0, 0)
    with stop_on_signal() as stopping, Camera(config) as camera, closing(run(stylizer, camera, config)) as work:
        for last in work:
            if last.message:
                say(last.message)
            if stopping:
                break
    rate = ""
    if last.seconds:
        rate = f", {last.index / last.seconds:.1f} frames per second at {last.width} x {last.height} px"
    say(f"{last.index} frame{'s' * (last.index != 1)} in {last.seconds:.1f} s{rate}.")
    return INTERRUPTED if stopping else 0
