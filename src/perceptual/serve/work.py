"""The work of one request: decode a picture, apply a network, encode the result. The same as the commands do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from perceptual import images
from perceptual.apply import Model
from perceptual.devices import out_of_memory
from perceptual.errors import CheckpointError, ConfigError, ImageError
from perceptual.images import Picture
from perceptual.serve.queue import Job
from perceptual.serve.refusals import Refused, as_options

Load = Callable[[], tuple[Model[Any], Any]]


@dataclass(frozen=True)
class Made:
    """The result of a request. data: the bytes of its file. pixels_in, pixels_out: pixels before and after."""

    data: bytes
    pixels_in: int
    pixels_out: int


def check_header(data: bytes, most: int) -> images.Header:
    """The header of a picture.

    most: number of pixels.

    Raises:
        Refused: 415 if this is not a picture of a known format, 413 if it has more pixels.
    """
    try:
        header = images.header_of(data)
    except ImageError as error:
        raise Refused(415, "format", str(error)) from error
    if header.height * header.width > most:
        raise Refused(413, "too_large", f"The picture {_too_many(header.height, header.width, most)}")
    return header


def convert(job: Job, data: bytes, load: Load, *, most: int, ending: str, quality: int) -> Made:
    """Apply a network to the bytes of a picture, and encode the result.

    load: gives the network and the options of its call. most: number of pixels of the result. ending: of the result,
        such as ".png". quality: 1 to 100.

    Raises:
        Refused: with the status that fits.
    """
    names = set[str]()
    try:
        model, options = load()
        names |= set(vars(options))
        picture = _decode(data)
        job.check()
        height, width = model.size(picture.height, picture.width, options)
        if height * width > most:
            raise Refused(422, "option", f"The result {_too_many(height, width, most)}")
        images.check_size(f"The result{ending}", height, width)
        made = _apply(job, picture, model, options)
        job.check()
        return Made(images.as_bytes(made, ending, quality=quality), picture.height * picture.width, height * width)
    except (ConfigError, CheckpointError) as error:
        raise Refused(422, "option", as_options(str(error), names)) from error
    except ImageError as error:
        raise Refused(413, "too_large", as_options(str(error), names)) from error
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        sentence = "The picture needs more memory than there is: make it smaller first."
        raise Refused(413, "too_large", sentence) from error


def _decode(data: bytes) -> Picture:
    try:
        return images.read_bytes(data, levels=True, own_colours=True)
    except ImageError as error:
        raise Refused(400, "picture", str(error)) from error


def _apply(job: Job, picture: Picture, model: Model[Any], options: Any) -> Picture:
    """As `apply.convert_files`, but the work ends between two tiles or bands if nobody waits any more."""
    alpha = picture.alpha
    if alpha is not None:
        alpha = model.apply_alpha(alpha, options)
    with closing(model.run(picture.pixels, options)) as steps:
        for step in steps:
            job.check()
            result = step.result
    return replace(picture, pixels=result, alpha=alpha)


def _too_many(height: int, width: int, most: int) -> str:
    return f"has {width} x {height} px, and {most:,} pixels are allowed: make it smaller."
