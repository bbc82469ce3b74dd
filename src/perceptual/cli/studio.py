"""perceptual studio: the page in the browser."""

from __future__ import annotations

import dataclasses
import time
import webbrowser
from collections.abc import Sequence
from typing import ClassVar

from perceptual.cli import results
from perceptual.cli.help import parse
from perceptual.cli.terminal import say, show, stop_on_signal
from perceptual.config import StudioConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Studio(StudioConfig):
    """Open a page in the browser that does what the commands do: paint, learn styles, enlarge, videos, camera.

    The page runs on this computer and needs no internet. Ctrl-C ends it; running jobs save their states first.
    Example: perceptual studio
    perceptual studio --folder paintings/ --port 8000
    """

    everyday: ClassVar[tuple[str, ...]] = ("folder", "photos", "port", "open_browser")


def studio(arguments: Sequence[str]) -> int:
    """perceptual studio: serve the page until Ctrl-C. Returns the exit code."""
    config = parse(_Studio, arguments, "studio")
    from perceptual.studio import running

    with stop_on_signal() as stopping, running(config) as address:
        results.put(address=address.url)
        (say if results.wanted() else show)(f"The page is at {address.url}")
        say(f"Results are kept in {config.folder}. Press Ctrl-C to end.")
        if config.open_browser:
            webbrowser.open(address.url)
        while not stopping:
            time.sleep(0.1)
        say("Saving the states of running jobs.")
    return 0
