"""XMP, the metadata that editors and phones keep beside EXIF, such as ratings and keywords: what of it to copy."""

from __future__ import annotations

import re

from PIL import Image

ITXT = b"XML:com.adobe.xmp\0\0\0\0\0"
"""The start of the PNG chunk that holds XMP: its name, not compressed, in no language."""
_LONGEST = 2**20
_ORIENTATION = re.compile(rb"""tiff:Orientation=["']\d["']|<tiff:Orientation>\d</tiff:Orientation>""")
_OTHER_DATA = re.compile(rb"MotionPhoto|MicroVideo|Container:Directory|hdrgm:|HasExtendedXMP")


def xmp_of(image: Image.Image) -> bytes | None:
    """The XMP of a picture, without its orientation, since pictures are made upright.

    None where there is none, or it is longer than 1 MiB, or it describes data after the picture that are not copied:
    the video of a motion photo, a gain map, more XMP.
    """
    xmp = image.info.get("xmp")
    if not isinstance(xmp, bytes) or not 0 < len(xmp) <= _LONGEST or _OTHER_DATA.search(xmp):
        return None
    return _ORIENTATION.sub(b"", xmp)
