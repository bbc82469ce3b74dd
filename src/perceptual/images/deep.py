"""16 bits a channel: reading grey and colour, writing PNG and TIFF.

Colour is read by OpenCV and written by the functions below. Two libraries were measured in their place. Pillow 13 opens
16-bit RGB files as 8-bit RGB, and `Image.fromarray` refuses such arrays. tifffile 2026.3 reads and writes most 16-bit
TIFFs, but not those with LZW compression, unless the package imagecodecs is there; and it cannot write the EXIF and GPS
directories that are kept here.
"""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from itertools import accumulate
from typing import Any, BinaryIO, cast

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

from perceptual.errors import ImageError
from perceptual.functional import Array
from perceptual.images.xmp import ITXT


def deep_grey(image: Image.Image, bits: int, curve: Array | None) -> Array:
    """Grey of more than 8 bits as float32 (H, W, 3), or (H, W, 4) if one value is transparent.

    curve: red, green and blue in sRGB of 256 grey values, (256, 3) in [0, 1]; None: they are equal to the grey values.
    """
    values = np.asarray(image)
    top = {"F": 1, "I": 65535}.get(image.mode, 2**bits - 1)
    if not (values.min() >= 0 and values.max() <= top):
        raise ImageError(f"has values from {values.min():g} to {values.max():g}: scale them to 0..{top}.")
    grey = values.astype(np.float32) / np.float32(top)
    if getattr(image, "tag_v2", {}).get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:  # 0 is white
        grey = 1 - grey
    steps = np.linspace(0, 1, 256)
    planes = [grey] * 3 if curve is None else [np.interp(grey, steps, each).astype(np.float32) for each in curve.T]
    if "transparency" in image.info:
        planes.append((values != image.info["transparency"]).astype(np.float32))
    return np.dstack(planes)


def deep_colour(file: BinaryIO, colour: Image.Image, has_alpha: bool, *, premultiplied: bool = False) -> Array | None:
    """Decode 16-bit colour with OpenCV as float32 (H, W, 3 or 4).

    Returns None if OpenCV cannot read the file, or reads another image than Pillow: their high bytes are compared.

    colour: the image as Pillow decoded it. premultiplied: the file's colours are multiplied by alpha.
    """
    import cv2  # a slow import, needed for few files

    file.seek(0)
    with contextlib.suppress(cv2.error):
        wide = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
        narrow = np.asarray(colour)
        if wide is not None and wide.dtype == np.uint16 and wide.ndim == 3 and wide.shape[:2] == narrow.shape[:2]:
            channels = [2, 1, 0, 3][: min(wide.shape[2], 4 if has_alpha else 3)]
            if premultiplied and len(channels) == 4:
                share = wide[..., 3:].astype(np.float32) / np.float32(65535)
                straight = np.clip(wide[..., :3] / np.maximum(share, np.float32(1 / 65535)), 0, 65535)
                seen = share[..., 0] > 0.1  # below, 8 bits of a premultiplied colour are too coarse to compare
                if np.abs(straight[..., 2::-1] / 257 - narrow)[seen].max(initial=0) <= 12:
                    values = np.dstack([straight[..., 2::-1], wide[..., 3]])
                    return cast(Array, values.astype(np.float32) / np.float32(65535))
                return None
            if np.abs((wide[..., 2::-1].astype(np.int32) >> 8) - narrow).max() <= 1:
                return cast(Array, wide[..., channels].astype(np.float32) / np.float32(65535))
    return None


def encode_png16(
    array: Array, icc: bytes | None, exif: bytes | None, dpi: tuple[float, float] | None, xmp: bytes | None
) -> bytes:
    """A 16-bit PNG: OpenCV encodes the pixels, and the chunks for profile, EXIF, XMP and resolution are inserted."""
    import cv2

    data = cv2.imencode(".png", array[..., [2, 1, 0, 3][: array.shape[2]]])[1].tobytes()
    chunks = io.BytesIO()
    if icc:
        PngImagePlugin.putchunk(chunks, b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc))
    if exif:
        PngImagePlugin.putchunk(chunks, b"eXIf", exif.removeprefix(b"Exif\0\0"))
    if xmp:
        PngImagePlugin.putchunk(chunks, b"iTXt", ITXT + xmp)
    if dpi:
        across, down = (round(value / 0.0254) for value in dpi)  # pixels per metre
        PngImagePlugin.putchunk(chunks, b"pHYs", struct.pack(">IIB", across, down, 1))
    return data[:33] + chunks.getvalue() + data[33:]  # after the signature and the header


def encode_tiff(
    array: Array, icc: bytes | None, exif: bytes | None, dpi: tuple[float, float] | None, xmp: bytes | None
) -> bytes:
    """A TIFF of 8 or 16 bits: strips with horizontal differences, compressed with Deflate. Pillow writes the tags."""
    height, width, channels = array.shape
    rows = array.astype(array.dtype.newbyteorder("<"))
    rows[:, 1:] -= array[:, :-1]
    per_strip = max(1, 2**20 // rows[0].nbytes)
    strips = [zlib.compress(rows[y : y + per_strip].tobytes(), 3) for y in range(0, height, per_strip)]
    ifd, source = TiffImagePlugin.ImageFileDirectory_v2(b"II\x2a\0\0\0\0\0"), Image.Exif()
    source.load(exif or b"")
    for tag in source:
        ifd[tag] = source.get_ifd(tag) if tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo) else as_stored(source[tag])
    sizes = tuple(len(strip) for strip in strips)
    ifd.tagtype[TiffImagePlugin.STRIPBYTECOUNTS] = ifd.tagtype[TiffImagePlugin.STRIPOFFSETS] = 4  # LONG
    layout = {256: width, 257: height, 258: (array.itemsize * 8,) * channels, 259: 8, 262: 2, 277: channels, 284: 1}
    layout |= {278: per_strip, 279: sizes, 273: (0, *accumulate(sizes[:-1])), 317: 2, 338: (2,), 34675: icc, 700: xmp}
    if dpi:
        layout |= {282: dpi[0], 283: dpi[1], 296: 2}
    for tag, value in layout.items():
        if (tag != 338 or channels == 4) and value is not None:
            ifd[tag] = value
    buffer = io.BytesIO()
    ifd.save(buffer)
    return buffer.getvalue() + b"".join(strips)


def as_stored(value: Any) -> Any:
    """A value of an EXIF tag as it is written."""
    return value.encode("latin-1") if isinstance(value, str) else value  # Pillow reads Latin-1 but writes only ASCII
