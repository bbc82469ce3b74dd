"""perceptual serve: the HTTP service."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from typing import ClassVar

from perceptual.cli.help import parse
from perceptual.cli.terminal import FAILED, complain, say, show, stop_on_signal
from perceptual.config import ServeConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Serve(ServeConfig):
    """Paint and enlarge pictures for other programs: an HTTP service with an OpenAPI document.

    POST a picture to /stylize or /upscale and get a picture. SIGTERM or Ctrl-C ends it after all accepted requests are
    answered.
    Example: perceptual serve
    perceptual serve --host 0.0.0.0 --port 80 --networks mine=mine.safetensors
    """

    everyday: ClassVar[tuple[str, ...]] = ("host", "port", "token", "networks", "max_queue")


def serve(arguments: Sequence[str]) -> int:
    """perceptual serve: answer requests until SIGTERM or Ctrl-C. Returns the exit code."""
    config = parse(_Serve, arguments, "serve")
    if config.token is None and os.environ.get("PERCEPTUAL_TOKEN"):
        config = dataclasses.replace(config, token=os.environ["PERCEPTUAL_TOKEN"])
    from perceptual.serve import running

    compile_here = os.environ.get("PERCEPTUAL_KERNELS") == "compile"
    with stop_on_signal() as stopping, running(config, compile_here=compile_here) as address:
        show(f"The service is at {address.url}")
        if config.token is None and not config.is_local:
            say("Every computer that can reach this port can use it: give --token to change that.")
        while not stopping and address.alive:
            time.sleep(0.05)
        say("Answering the requests that were accepted.")
    if not stopping:
        complain("perceptual: The server has ended by itself: start it again.")
    return 0 if stopping else FAILED
