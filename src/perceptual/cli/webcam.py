"""perceptual webcam: a live window."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import tyro

from perceptual.cli.pictures import open_stylizer, try_out
from perceptual.cli.terminal import INTERRUPTED, say, stop_on_signal
from perceptual.config import WebcamConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Webcam(WebcamConfig):
    """Paint what a camera sees, live in a window.

    Keys: left and right for another style, up and down for its strength, s saves the picture, space freezes it, h shows
    all keys, q ends. Example: perceptual webcam --style wave
    """

    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))] = WebcamConfig.out
    """The folder for pictures that are saved."""


def webcam(arguments: Sequence[str]) -> int:
    """perceptual webcam: a camera, or a film in its place, painted in a window until that is closed."""
    config = tyro.cli(_Webcam, args=arguments, prog="perceptual webcam")
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
    rate = f", {last.index / last.seconds:.1f} a second at {last.width} x {last.height} px" if last.seconds else ""
    say(f"{last.index} frame{'s' * (last.index != 1)} in {last.seconds:.1f} s{rate}.")
    return INTERRUPTED if stopping else 0
