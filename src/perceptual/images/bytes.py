"""Pictures as the bytes of a file: for pages in a browser, for the HTTP service, and for the losses of a JPEG."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from perceptual.images.codecs import WRITABLE, Description, encode, identify
from perceptual.images.damage import decoding
from perceptual.images.picture import MAX_PIXELS, Picture, decoded, encoded, to_array

NAME = "The picture"
ENDINGS = {"JPEG": ".jpg", "MPO": ".jpg", "WEBP": ".webp", "TIFF": ".tiff", "BMP": ".bmp"}
"""The ending for the name of each format in Pillow. Other formats become .png, as in the commands."""


class Header(NamedTuple):
    """What the header of a picture says.

    ending: that of a file with this picture, or .png if its format cannot be written. height, width: in pixels, before
        the picture is turned by its EXIF orientation.
    """

    ending: str
    height: int
    width: int


def as_jpeg(pixels: Tensor) -> bytes:
    """A picture (1, 3, H, W), in [0, 1] or levels, as a JPEG of quality 92 without metadata."""
    return encode(to_array(pixels), WRITABLE[".jpg"], Description(), quality=92)


def header_of(data: bytes) -> Header:
    """The format and the size of a picture, from the bytes of its file. Nothing is decoded.

    Raises:
        ImageError: this is not an image of a known format.
    """
    with decoding(NAME), io.BytesIO(data) as file:
        image = identify(file, 2**62)  # EXIF is not read: Pillow would decode a PNG to find it
        return Header(ENDINGS.get(image.format or "", ".png"), image.height, image.width)


def read_bytes(
    data: bytes, *, max_pixels: int = MAX_PIXELS, levels: bool = False, own_colours: bool = False
) -> Picture:
    """Decode a picture from the bytes of its file. The arguments and errors are those of `images.read`."""
    with decoding(NAME), io.BytesIO(data) as file:
        return decoded(file, max_pixels=max_pixels, levels=levels, own_colours=own_colours)


def as_bytes(picture: Picture, ending: str, *, quality: int = 95) -> bytes:
    """The bytes that `images.write` writes to a file with this ending, such as ".png". The errors are the same."""
    return encoded(f"result{ending}", picture, quality=quality)


def through_jpeg(pixels: Tensor, quality: int, *, full_colour: bool = False) -> Tensor:
    """A picture (1, 3, H, W) in [0, 1] after it was written as a JPEG and read again.

    quality: 1 to 100. full_colour: keep the colours at full resolution (4:4:4), instead of half (4:2:0).
    """
    file = io.BytesIO()
    Image.fromarray(to_array(pixels)).save(file, "JPEG", quality=quality, subsampling=0 if full_colour else 2)
    with Image.open(file) as image:
        read = np.array(image)
    return torch.from_numpy(read).permute(2, 0, 1)[None].to(pixels.dtype) / 255
