"""Settings of the page in the browser."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated

from perceptual.config.checks import LOCAL, Range, check, check_token
from perceptual.config.stylize import StylizeConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudioConfig:
    """Options of `perceptual studio`."""

    folder: Path = Path("perceptual-studio")
    """The folder for results and for your own styles. Nothing is written elsewhere. It is made if it does not exist."""
    photos: Path | None = None
    """A folder of photos to learn your own styles with. Default: the photos that you give in the page."""
    host: str = "127.0.0.1"
    """Address to listen on. 127.0.0.1: only this computer can open the page. Any other address needs a token."""
    port: Annotated[int, Range(0, 65_535)] = 7860
    """Port to listen on, 0 to 65,535; 0 takes any free one. If the port is taken, one of the next 20 is used."""
    token: str | None = None
    """A secret that the address of the page must contain, of 16 characters or more. Default: none for 127.0.0.1, and a
    new random one for any other --host."""
    open_browser: bool = True
    """Open the page in the browser."""
    max_upload: Annotated[int, Range(1, 100_000)] = 500
    """Largest file that can be given to the page, 1 to 100,000 megabytes."""
    max_megapixels: Annotated[int, Range(1, 400)] = 100
    """Largest picture that the page works on, 1 to 400 million pixels."""
    weights: tuple[str, ...] = ()
    """Weight files of loss networks, as NAME=FILE. Others come from the cache or are downloaded when you ask for it."""
    device: str = StylizeConfig.device
    """auto, cpu, cuda, cuda:1 ...; auto: a CUDA GPU if there is one, else the CPU."""

    def __post_init__(self) -> None:
        check(self)
        object.__setattr__(self, "folder", Path(os.path.expanduser(self.folder)))
        object.__setattr__(self, "photos", self.photos and Path(os.path.expanduser(self.photos)))
        check_token(self.token)

    @property
    def is_local(self) -> bool:
        """True if only this computer can reach the page."""
        return self.host in LOCAL
