"""Settings of the HTTP service, and the options of its requests."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from perceptual.config.checks import LOCAL, Range, check, check_token
from perceptual.config.save import SaveConfig
from perceptual.config.stylize import PaintSettings, StylizeConfig
from perceptual.config.upscale import Enlargement, UpscaleConfig, UpscaleOptions
from perceptual.errors import ConfigError

LOSS = UpscaleConfig.loss


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Options of `perceptual serve`."""

    host: str = "127.0.0.1"
    """Address to listen on. 127.0.0.1: only this computer can reach the service. 0.0.0.0: every network of this
    computer; give --token too, unless something else keeps strangers out."""
    port: Annotated[int, Range(0, 65_535)] = 8000
    """Port to listen on, 0 to 65,535; 0 takes any free one."""
    token: str | None = None
    """A secret of 16 characters or more. Requests must have it in a header, Authorization: Bearer TOKEN. Default: the
    environment variable PERCEPTUAL_TOKEN, or none."""
    networks: tuple[str, ...] = ()
    """Trained networks of your own, as NAME=FILE. Requests choose them by NAME."""
    max_upload: Annotated[int, Range(1, 1_000)] = 20
    """Largest body of a request, 1 to 1,000 megabytes. A larger one gets status 413."""
    max_megapixels: Annotated[float, Range(0.01, 400)] = 25.0
    """Largest picture, 0.01 to 400 million pixels, before and after the work."""
    max_queue: Annotated[int, Range(1, 10_000)] = 64
    """Number of requests that may wait or run, 1 to 10,000. Further ones get status 503. Their bodies are kept in
    memory: at most --max-queue times --max-upload."""
    max_seconds: Annotated[float, Range(0.1, 3_600)] = 60.0
    """Seconds for a request, from its first byte to its result, 0.1 to 3,600. Then it gets status 503.
    A body gets status 408 after 30 seconds without data, or if it takes 30 seconds and one more for each megabyte of
    --max-upload."""
    device: str = StylizeConfig.device
    """auto, cpu, cuda, cuda:1 ...; auto: a CUDA GPU if there is one, else the CPU."""

    def __post_init__(self) -> None:
        check(self)
        check_token(self.token)

    @property
    def is_local(self) -> bool:
        """True if only this computer can reach the service."""
        return self.host in LOCAL

    @property
    def max_bytes(self) -> int:
        """Largest body of a request, in bytes."""
        return self.max_upload * 1_000_000

    @property
    def max_pixels(self) -> int:
        """Largest picture, in pixels."""
        return round(self.max_megapixels * 1e6)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResultSettings:
    """How the result of a request is written."""

    format: Literal["png", "jpg", "webp", "tiff", "bmp"] | None = None
    """Format of the result. Default: one that the header Accept names, else that of the picture, or png if that format
    cannot be written."""
    quality: Annotated[int, Range(1, 100)] = SaveConfig.quality
    """Quality of JPEG and WebP, 1 to 100."""

    def __post_init__(self) -> None:
        check(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StylizeRequest(PaintSettings, ResultSettings):
    """The options of a request to paint a picture."""

    style: str = StylizeConfig.style
    """A style by name, as /styles lists them, or a blend of styles by weight, such as
    starry_night:0.7,wave:0.3."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class UpscaleRequest(ResultSettings):
    """The options of a request to enlarge a picture."""

    scale: Enlargement | None = None
    """Factor of enlargement, 0.01 to 64; default: 4, or the scale of the network. For a factor between the scales of
    the networks, the next larger network is used and its result is reduced by bicubic interpolation."""
    loss: str = LOSS
    """The shipped network: pixel is closest to the original, feature looks sharpest, photo cleans compressed and noisy
    pictures, srcnn is the baseline; auto takes photo for pictures that look compressed, noisy or aliased, else
    pixel. Not together with network."""
    network: str | None = None
    """A network by name, as /upscalers lists them; default: the one for scale and loss."""
    match_histogram: bool = False
    """Match the colour histograms of the result to those of the picture."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network is not None and self.loss != LOSS:
            raise ConfigError("loss has no effect together with network: leave one of them out.")

    @property
    def options(self) -> UpscaleOptions:
        """The options of `Upscaler`."""
        return UpscaleOptions(scale=self.scale, match_histogram=self.match_histogram)
