"""The print size of a picture: pixels per inch, as its file says."""

from __future__ import annotations

from dataclasses import replace

from PIL import ExifTags, Image

from perceptual.images.picture import Picture

_INCHES = 2


def with_dpi(picture: Picture, dpi: float) -> Picture:
    """The picture with another resolution, in pixels per inch, in its file's header and in its EXIF data."""
    exif = Image.Exif()
    if picture.exif:
        exif.load(picture.exif)
    tags = ExifTags.Base
    exif.update({tags.XResolution: dpi, tags.YResolution: dpi, tags.ResolutionUnit: _INCHES})
    return replace(picture, dpi=(dpi, dpi), exif=exif.tobytes())
