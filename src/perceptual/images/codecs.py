"""Image files: decoding and encoding, EXIF data and ICC profiles. picture.py turns the arrays into tensors.

Arrays have the shape (H, W, 3), or (H, W, 4) with alpha. EXIF data and profiles are plain bytes.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageFile, PngImagePlugin, TiffImagePlugin

from perceptual.errors import ImageError, OutputError
from perceptual.functional import Array
from perceptual.images.damage import DAMAGE, HEADER_DAMAGE, decoding
from perceptual.images.deep import as_stored, deep_colour, deep_grey, encode_png16, encode_tiff
from perceptual.images.profiles import convert, grey_curve, is_srgb, to_srgb, transform_of
from perceptual.images.xmp import ITXT, xmp_of


@dataclass(frozen=True)
class Format:
    """A file format that `encode` writes: its name in Pillow, and what it supports.

    deep: 16 bits a channel. alpha: transparency. icc: a colour profile. longest_side: in pixels.
    """

    name: str
    deep: bool = False
    alpha: bool = True
    icc: bool = True
    longest_side: int = 2**31 - 1


@dataclass(frozen=True)
class Description:
    """What a file holds besides its pixels.

    icc_profile, exif: plain bytes. dpi: pixels per inch, across and down. in_srgb: the pixels are in sRGB, not in the
    colour space of the profile.
    """

    icc_profile: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    in_srgb: bool = True
    xmp: bytes | None = None


_JPEG = Format("JPEG", alpha=False, longest_side=65500)
_TIFF = Format("TIFF", deep=True)
WRITABLE = {
    ".png": Format("PNG", deep=True),
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": Format("WEBP", longest_side=16383),
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".bmp": Format("BMP", alpha=False, icc=False),
}
WRITABLE_SUFFIXES = frozenset(WRITABLE)
# No EPS: Pillow would run Ghostscript.
_READABLE = "JPEG PNG WEBP TIFF GIF BMP DIB PPM AVIF HEIF JPEG2000 ICO QOI PSD PCX TGA"
_PICTURE_BRANDS = (b"hei", b"hev", b"mif", b"msf", b"avi")  # of HEIC and AVIF: such files are built like MP4
_ORIENTATION, _EXIF, _GPS = ExifTags.Base.Orientation, ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo
# Kept tags of the first directory: description, camera, resolution, dates, names, rating. Tags that describe how a
# TIFF is stored are not kept.
_KEPT_TAGS = frozenset({270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 18246, 33432, *range(40091, 40096)})
_SIZE_TAGS = frozenset({40962, 40963, 40965})  # width, height, and an offset that is wrong in a copy
_quiet_lock = threading.Lock()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Pillow's warnings about unusual headers. Warning filters belong to the process, hence the lock."""
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def opened(path: str | Path) -> BinaryIO:
    """Open a regular file. A pipe is refused: reading it might never end."""
    status = os.stat(path)
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):  # `open` gives the error for a folder
        raise ImageError("is a device or a pipe: give a file.")
    return open(path, "rb")


def identify(file: BinaryIO, max_pixels: int) -> ImageFile.ImageFile:
    """Open an image file, as `Image.open` does, but check the size in its header against our own limit.

    Nothing is decoded yet.

    Raises:
        ImageError: the file is empty, of an unknown format, or has no pixels or more than `max_pixels`.
    """
    Image.init()
    prefix = file.read(16)
    if prefix[4:8] == b"ftyp" and prefix[8:11] in _PICTURE_BRANDS:
        with contextlib.suppress(ImportError):
            import pillow_heif  # an optional package

            pillow_heif.register_heif_opener()
    if not prefix:
        raise ImageError("is empty (0 bytes): get a new copy of it.")
    for factory, accept in (Image.OPEN[name] for name in _READABLE.split() if name in Image.OPEN):
        with _quiet(), contextlib.suppress(*HEADER_DAMAGE):
            if accept is None or accept(prefix) is True:
                file.seek(0)
                image = factory(file, "")
                break
    else:
        if prefix[:4] == b"\x1aE\xdf\xa3" or (prefix[4:8] == b"ftyp" and prefix[8:11] not in _PICTURE_BRANDS):
            raise ImageError("is a video: use `perceptual video`.")
        if prefix[4:8] == b"ftyp" and prefix[8:11] != b"avi":
            if "HEIF" in Image.OPEN:
                raise ImageError("is a HEIC image that is damaged or of an unknown kind: save it as PNG or JPEG.")
            raise ImageError("is a HEIC image: pip install 'perceptual[heif]', or save it as PNG or JPEG.")
        raise ImageError("is not an image of a known format, or is badly damaged: save it as PNG or JPEG.")
    width, height = image.size
    if not 0 < width * height <= max_pixels:
        raise ImageError(f"is {width} x {height} px, and 1 to {max_pixels} pixels are allowed: scale it down first.")
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tile:
        _exif(image)
        image.im = Image.new(image.mode, image._tile_size, None).im  # otherwise Pillow applies its own limit
    return image


def layers(image: Image.Image, file: BinaryIO | None = None, *, own_colours: bool = False) -> tuple[Array, Description]:
    """Decode an image; returns its pixels and what else its file holds.

    The pixels are upright, (H, W, 3), or (H, W, 4) with alpha: uint8 for 8 bits, float32 in [0, 1] for more.

    file: the file that `image` was opened from. Without it 16-bit colour is reduced to 8 bits.
    own_colours: do not convert 8-bit RGB from its profile to sRGB.

    Raises:
        ImageError: no pixels, values out of range, or a 16-bit TIFF with separate planes. `decoding` catches others.
    """
    if 0 in image.size:
        raise ImageError("has no pixels.")
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]
    wide = ";16" in str(getattr(image, "tile", ""))
    _scale_transparency(image)
    image.load()
    icc: bytes | None = image.info.get("icc_profile")
    in_srgb = True
    if image.mode[0] in "FI":
        array, icc = deep_grey(image, bits, grey_curve(icc)), None
    elif bits > 8 and tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2:  # Pillow and OpenCV both read it wrongly
        raise ImageError("is a 16-bit TIFF with separate planes: save it with interleaved channels.")
    else:
        colour, alpha = _split(image)
        deep = None
        if wide and file and colour.mode == "RGB":
            associated = 1 in tags.get(TiffImagePlugin.EXTRASAMPLES, ())
            deep = deep_colour(file, colour, alpha is not None, premultiplied=associated)
        if deep is not None:
            array, icc, in_srgb = deep, icc if transform_of(icc, "RGB") else None, False
        else:
            if own_colours and colour.mode == "RGB" and transform_of(icc, "RGB"):
                in_srgb = False
            else:
                colour, icc = to_srgb(colour, icc)
            array = np.asarray(colour) if alpha is None else np.dstack([np.asarray(colour), np.asarray(alpha)])
    orientation, exif = _exif(image)
    return _upright(array, orientation), Description(icc, exif, _dpi(image, orientation), in_srgb, xmp_of(image))


def _scale_transparency(image: Image.Image) -> None:
    """Scale the transparent value of a grey PNG of 2 or 4 bits to 8 bits, as Pillow does with its pixels."""
    value, tile = image.info.get("transparency"), getattr(image, "tile", None)
    rawmode = str(tile[0][3]) if tile and image.format == "PNG" else ""
    if isinstance(value, int) and rawmode in ("L;2", "L;4"):
        image.info["transparency"] = value * 255 // (2 ** int(rawmode[2:]) - 1)


def _dpi(image: Image.Image, orientation: int) -> tuple[float, float] | None:
    """Pixels per inch of the upright image, across and down; None if they are missing or implausible."""
    with contextlib.suppress(*DAMAGE):
        across, down = (float(value) for value in image.info["dpi"])
        if 1 <= across <= 1e5 and 1 <= down <= 1e5:
            return (down, across) if orientation in (5, 6, 7, 8) else (across, down)
    return None


def _upright(array: Array, orientation: int) -> Array:
    """Turn and mirror an array by its EXIF orientation, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    return array[:: -1 if orientation in (3, 4, 7, 8) else 1, :: -1 if orientation in (2, 3, 6, 7) else 1]


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Colour in mode RGB, L, CMYK or LAB, and alpha in mode L or None. Transparent pixels keep their stored colour."""
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        grey = image.mode in ("1", "L", "LA", "La")
        return rgba.getchannel("R") if grey else rgba.convert("RGB"), rgba.getchannel("A")
    if image.mode in ("RGB", "L", "CMYK", "LAB"):
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def _exif(image: Image.Image) -> tuple[int, bytes | None]:
    """The orientation, 1 to 8, and the EXIF data to keep; 1 and None if there is none or it is damaged."""
    orientation, kept = 1, Image.Exif()
    with _quiet(), contextlib.suppress(*DAMAGE):
        exif = image.getexif()
        orientation = exif.get(_ORIENTATION, 1)
        kept.update({tag: as_stored(exif[tag]) for tag in exif if tag in _KEPT_TAGS})
        for directory in (_EXIF, _GPS):
            entries = {tag: value for tag, value in exif.get_ifd(directory).items() if tag not in _SIZE_TAGS}
            if entries:
                kept[directory] = entries
        return orientation, kept.tobytes() if len(kept) else None
    return orientation, None


def check_sides(kind: Format, height: int, width: int) -> None:
    """Check that the format allows sides of this length, in pixels.

    Raises:
        ImageError: a side is too long.
    """
    if max(height, width) > kind.longest_side:
        raise ImageError(f"{kind.name} allows at most {kind.longest_side} pixels a side, not {width} x {height}.")


def check_size(path: str | Path, height: int, width: int) -> None:
    """Check before the work that the format of `path` allows an image of this size, in pixels.

    Raises:
        ImageError: a side is longer than the format allows.
    """
    kind = WRITABLE.get(Path(path).suffix.lower())
    if kind is not None:
        with decoding(f"{path} cannot be written:"):
            check_sides(kind, height, width)


def check_ending(path: Path) -> None:
    """Check before the work that the ending of a file name is that of a format that can be written.

    Raises:
        OutputError: it is not.
    """
    if path.suffix.lower() not in WRITABLE_SUFFIXES:
        raise OutputError(f"{path} has no ending that can be written: choose {', '.join(sorted(WRITABLE_SUFFIXES))}.")


def encode(array: Array, kind: Format, described: Description, *, quality: int) -> bytes:
    """Encode an array as the bytes of a file.

    array: (H, W, 3), or (H, W, 4) if the format has alpha; uint8, or uint16 if the format is deep.
    quality: 1 to 100, for JPEG and WebP.
    """
    icc = described.icc_profile if transform_of(described.icc_profile, "RGB") else None
    exif, dpi, xmp = described.exif, described.dpi, described.xmp
    # With a profile in the file the pixels must be in its colour space, without one in sRGB: convert if they are not.
    if icc and not is_srgb(icc) and described.in_srgb == kind.icc:
        transform = transform_of(icc, "RGB", back=described.in_srgb)
        if transform:
            colour = Image.fromarray(np.ascontiguousarray(array[..., :3]))
            array = np.dstack([np.asarray(convert(transform, colour)), array[..., 3:]])
    if kind.name == "TIFF":
        return encode_tiff(array, icc, exif, dpi, xmp)
    if array.dtype == np.uint16:
        return encode_png16(array, icc, exif, dpi, xmp)
    options: dict[str, Any] = {"icc_profile": icc}
    if exif and not (kind.name == "JPEG" and len(exif) > 65533):  # too long for a JPEG
        options["exif"] = exif
    if xmp and (kind.name == "WEBP" or (kind.name == "JPEG" and len(xmp) <= 65504)):  # more than a segment can hold
        options["xmp"] = xmp
    if xmp and kind.name == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add(b"iTXt", ITXT + xmp)
    if kind.name in ("JPEG", "WEBP"):
        options |= {"quality": quality, "exact": True, "subsampling": 0 if quality >= 90 else 2}
    if dpi and kind.name in ("JPEG", "PNG", "BMP"):
        options["dpi"] = dpi
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind.name, **options)
    return buffer.getvalue()
