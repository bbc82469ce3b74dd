"""The size of a picture, from the header of its file."""

from __future__ import annotations

from pathlib import Path

from PIL import ExifTags

from perceptual.images.codecs import identify, opened
from perceptual.images.damage import decoding
from perceptual.images.picture import MAX_PIXELS


def size_of(path: str | Path, *, max_pixels: int = MAX_PIXELS, quick: bool = False) -> tuple[int, int]:
    """Height and width of a picture, upright, in pixels.

    The pixels are not decoded, except for a PNG without EXIF data before its pixels, because the data may follow them.
    quick: assume that such a PNG is upright.

    Raises:
        ImageError: the file is missing, is not an image, or has more than `max_pixels` pixels.
    """
    with decoding(path), opened(path) as file:
        image = identify(file, max_pixels)
        width, height = image.size
        upright = image.format == "TIFF"  # Pillow gives the size of the upright picture
        upright |= quick and image.format == "PNG" and "exif" not in image.info
        turned = not upright and image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        return (width, height) if turned else (height, width)
