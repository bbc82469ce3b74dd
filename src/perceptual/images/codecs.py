"""Picture files: decoding, EXIF, ICC profiles, encoding; the only files that know Pillow are this one and images.py.

Between the two go arrays of shape (H, W, 3 or 4 with alpha), beside them EXIF data and a profile as plain bytes.
"""

from __future__ import annotations

import contextlib
import functools
import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, ImageFile, PngImagePlugin, TiffImagePlugin

from perceptual.errors import ImageError
from perceptual.images.xmp import ITXT, xmp_of

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Format:
    """A kind of file that `encode` writes: its name in Pillow, and what it can hold."""

    name: str
    deep: bool = False  # 16 bits a channel
    alpha: bool = True
    icc: bool = True
    longest_side: int = 2**31 - 1


@dataclass(frozen=True)
class Description:
    """What a file says beside its pixels; in_srgb: the pixels are in sRGB, not in the profile's own colours."""

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
_READABLE = "JPEG PNG WEBP TIFF GIF BMP DIB PPM AVIF HEIF JPEG2000 ICO QOI PSD PCX TGA"  # EPS would run Ghostscript
_PICTURE_BRANDS = (b"hei", b"hev", b"mif", b"msf", b"avi")  # of HEIC and AVIF, in files laid out as MP4 is
_HEADER_DAMAGE = (SyntaxError, LookupError, TypeError, EOFError, AttributeError, AssertionError, struct.error)
_PIXEL_DAMAGE = (OSError, ValueError, ArithmeticError, RuntimeError, MemoryError, zlib.error, Warning)
DAMAGE = (*_HEADER_DAMAGE, *_PIXEL_DAMAGE)  # what decoders were seen to raise, or may, on bytes that lie
_ORIENTATION, _EXIF, _GPS = ExifTags.Base.Orientation, ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo
# Of the first directory: description, camera, resolution, dates, names, rating; not how a TIFF is stored.
_KEPT_TAGS = frozenset({270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 18246, 33432, *range(40091, 40096)})
_SIZE_TAGS = frozenset({40962, 40963, 40965})  # width, height, and a pointer that does not survive a copy
_quiet_lock = threading.Lock()


@contextlib.contextmanager
def decoding(name: object) -> Iterator[None]:
    """Turn whatever opening and decoding raise into an ImageError that begins with `name`."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is too large: scale it down, or raise PIL.Image.MAX_IMAGE_PIXELS.") from error
    except ImageError as error:
        raise ImageError(f"{name} {error}") from error.__cause__
    except DAMAGE as error:
        raise ImageError(f"{name} {_mend(error)}") from error


def _mend(error: Exception) -> str:
    mends: dict[type[Exception], str] = {
        FileNotFoundError: "does not exist: check the name.",
        IsADirectoryError: "is a folder: give the name of a picture in it.",
        PermissionError: "cannot be read, permission is denied: make it readable first.",
    }
    if isinstance(error, OSError) and error.errno:
        return mends.get(type(error), f"cannot be read ({error.strerror}): check the name.")
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return "does not fit into memory: make it smaller first."
    reason = " ".join(str(error).split()) or type(error).__name__  # libheif's sentences end with a line break
    return f"is damaged or cut short ({reason}): get a whole copy of it."


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Pillow's warnings about odd headers; one thread at a time, as warning filters belong to the process."""
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def identify(file: BinaryIO, max_pixels: int) -> ImageFile.ImageFile:
    """`Image.open` with a limit of pixels of our own, held against the header before anything is decoded."""
    Image.init()
    prefix = file.read(16)
    if prefix[4:8] == b"ftyp" and prefix[8:11] in _PICTURE_BRANDS:
        with contextlib.suppress(ImportError):
            import pillow_heif  # an extra, which few need

            pillow_heif.register_heif_opener()
    if not prefix:
        raise ImageError("is empty (0 bytes): get a whole copy of it.")
    for factory, accept in (Image.OPEN[name] for name in _READABLE.split() if name in Image.OPEN):
        with _quiet(), contextlib.suppress(*_HEADER_DAMAGE):
            if accept is None or accept(prefix) is True:
                file.seek(0)
                image = factory(file, "")
                break
    else:
        if prefix[:4] == b"\x1aE\xdf\xa3" or (prefix[4:8] == b"ftyp" and prefix[8:11] not in _PICTURE_BRANDS):
            raise ImageError("is a film: use `perceptual video`.")
        if prefix[4:8] == b"ftyp" and prefix[8:11] != b"avi":
            raise ImageError("is a HEIC picture: pip install 'perceptual[heif]', or save it as PNG or JPEG.")
        raise ImageError("is no picture of a known kind, or badly damaged: save it as PNG or JPEG.")
    width, height = image.size
    if not 0 < width * height <= max_pixels:
        raise ImageError(f"is {width} x {height}, where 1 to {max_pixels} pixels are allowed: scale it down first.")
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tile:
        _exif(image)
        image.im = Image.new(image.mode, image._tile_size, None).im  # or Pillow would hold its own limit against it
    return image


def layers(image: Image.Image, file: BinaryIO | None = None, *, own_colours: bool = False) -> tuple[Array, Description]:
    """Decode to upright pixels (H, W, 3 or 4 with alpha), uint8, or float32 in [0, 1] of more bits; what else to keep.

    `file` is where `image` was opened from; without it 16-bit colour is cut to 8 bits. own_colours: do not convert
    8-bit RGB from its profile to sRGB.
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
        array, icc = _deep_grey(image, bits, inverted=tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0), None
    elif bits > 8 and tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2:  # Pillow and OpenCV both misread it
        raise ImageError("is a 16-bit TIFF with separate planes: save it with interleaved channels.")
    else:
        colour, alpha = _split(image)
        deep = None
        if wide and file and colour.mode == "RGB":
            associated = 1 in tags.get(TiffImagePlugin.EXTRASAMPLES, ())
            deep = _deep_colour(file, colour, alpha is not None, premultiplied=associated)
        if deep is not None:
            array, icc, in_srgb = deep, icc if _transform(icc, "RGB") else None, False
        else:
            if own_colours and colour.mode == "RGB" and _transform(icc, "RGB"):
                in_srgb = False
            else:
                colour, icc = _to_srgb(colour, icc)
            array = np.asarray(colour) if alpha is None else np.dstack([np.asarray(colour), np.asarray(alpha)])
    orientation, exif = _exif(image)
    return _upright(array, orientation), Description(icc, exif, _dpi(image, orientation), in_srgb, xmp_of(image))


def _scale_transparency(image: Image.Image) -> None:
    """Scale the transparent value of a grey PNG of 2 or 4 bits to the 8 bits that its pixels are read in."""
    value, tile = image.info.get("transparency"), getattr(image, "tile", None)
    rawmode = str(tile[0][3]) if tile and image.format == "PNG" else ""
    if isinstance(value, int) and rawmode in ("L;2", "L;4"):
        image.info["transparency"] = value * 255 // (2 ** int(rawmode[2:]) - 1)


def _dpi(image: Image.Image, orientation: int) -> tuple[float, float] | None:
    """Pixels per inch, across and down, of the upright picture; None where the file does not say or is odd."""
    with contextlib.suppress(*DAMAGE):
        across, down = (float(value) for value in image.info["dpi"])
        if 1 <= across <= 1e5 and 1 <= down <= 1e5:
            return (down, across) if orientation in (5, 6, 7, 8) else (across, down)
    return None


def _upright(array: Array, orientation: int) -> Array:
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    return array[:: -1 if orientation in (3, 4, 7, 8) else 1, :: -1 if orientation in (2, 3, 6, 7) else 1]


def _deep_grey(image: Image.Image, bits: int, *, inverted: bool) -> Array:
    values = np.asarray(image)
    top = {"F": 1, "I": 65535}.get(image.mode, 2**bits - 1)
    if not (values.min() >= 0 and values.max() <= top):
        raise ImageError(f"has values from {values.min():g} to {values.max():g}: scale them to 0..{top}.")
    grey = values.astype(np.float32) / np.float32(top)
    planes = [1 - grey if inverted else grey] * 3
    if "transparency" in image.info:
        planes.append((values != image.info["transparency"]).astype(np.float32))
    return np.dstack(planes)


def _deep_colour(file: BinaryIO, colour: Image.Image, has_alpha: bool, *, premultiplied: bool = False) -> Array | None:
    """16-bit colour by OpenCV; None where its high bytes are not the picture that Pillow decoded."""
    import cv2  # takes long, and few files need it

    file.seek(0)
    with contextlib.suppress(cv2.error):
        wide = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
        narrow = np.asarray(colour)
        if wide is not None and wide.dtype == np.uint16 and wide.ndim == 3 and wide.shape[:2] == narrow.shape[:2]:
            channels = [2, 1, 0, 3][: min(wide.shape[2], 4 if has_alpha else 3)]
            if premultiplied and len(channels) == 4:
                share = wide[..., 3:].astype(np.float32) / np.float32(65535)
                straight = np.clip(wide[..., :3] / np.maximum(share, np.float32(1 / 65535)), 0, 65535)
                seen = share[..., 0] > 0.1  # below, 8 bits of a premultiplied colour tell little about the straight one
                if np.abs(straight[..., 2::-1] / 257 - narrow)[seen].max(initial=0) <= 12:
                    values = np.dstack([straight[..., 2::-1], wide[..., 3]])
                    return cast(Array, values.astype(np.float32) / np.float32(65535))
                return None
            if np.abs((wide[..., 2::-1].astype(np.int32) >> 8) - narrow).max() <= 1:
                return cast(Array, wide[..., channels].astype(np.float32) / np.float32(65535))
    return None


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Colour in mode RGB, L, CMYK or LAB, and alpha in mode L; pixels under alpha 0 as they are stored."""
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        grey = image.mode in ("1", "L", "LA", "La")
        return rgba.getchannel("R") if grey else rgba.convert("RGB"), rgba.getchannel("A")
    if image.mode in ("RGB", "L", "CMYK", "LAB"):
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def _to_srgb(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, bytes | None]:
    """RGB in sRGB by the profile, which is ignored where it is broken or of another mode; the profile to go back to."""
    if image.mode == "LAB":
        icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    if image.mode != "RGB":
        transform = _transform(icc, image.mode)
        if transform or image.mode == "CMYK":
            return _apply(transform, image) if transform else image.convert("RGB"), None
        image = image.convert("RGB")
    transform = _transform(icc, "RGB")
    if not icc or not transform:
        return image, None
    if _is_srgb(icc):
        return image, icc
    return _apply(transform, image), icc if _transform(icc, "RGB", back=True) else None


@functools.lru_cache(maxsize=32)
def _transform(icc: bytes | None, mode: str, *, back: bool = False) -> ImageCms.ImageCmsTransform | None:
    """From `mode` in profile `icc` to sRGB, or back; None without a profile, or if it is broken or of another mode."""
    spaces = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab ": "LAB"}
    with contextlib.suppress(ImageCms.PyCMSError, *DAMAGE):
        profile, srgb = ImageCms.ImageCmsProfile(io.BytesIO(icc or b"")), ImageCms.createProfile("sRGB")
        if spaces.get(profile.profile.xcolor_space) == mode:
            source, target = (srgb, profile) if back else (profile, srgb)
            return ImageCms.buildTransform(source, target, mode, "RGB")
    return None


def _apply(transform: ImageCms.ImageCmsTransform, image: Image.Image) -> Image.Image:
    return cast(Image.Image, ImageCms.applyTransform(image, transform))


@functools.lru_cache(maxsize=32)
def _is_srgb(icc: bytes) -> bool:
    """Whether a good RGB profile is sRGB in effect: no colour of a coarse grid moves by more than 2 of 255."""
    grid = np.stack(np.meshgrid(*[np.arange(0, 256, 51, dtype=np.uint8)] * 3), -1).reshape(36, 6, 3)
    transform = _transform(icc, "RGB")
    moved = np.asarray(_apply(transform, Image.fromarray(grid))) if transform else grid
    return bool(np.abs(moved.astype(int) - grid).max() <= 2)


def _exif(image: Image.Image) -> tuple[int, bytes | None]:
    """Orientation 1..8, and the EXIF data worth keeping; 1 and None where there is none or it is broken."""
    orientation, kept = 1, Image.Exif()
    with _quiet(), contextlib.suppress(*DAMAGE):
        exif = image.getexif()
        orientation = exif.get(_ORIENTATION, 1)
        kept.update({tag: _as_stored(exif[tag]) for tag in exif if tag in _KEPT_TAGS})
        for directory in (_EXIF, _GPS):
            entries = {tag: value for tag, value in exif.get_ifd(directory).items() if tag not in _SIZE_TAGS}
            if entries:
                kept[directory] = entries
        return orientation, kept.tobytes() if len(kept) else None
    return orientation, None


def _as_stored(value: Any) -> Any:
    return value.encode("latin-1") if isinstance(value, str) else value  # Pillow reads latin-1 but writes ASCII only


def check_sides(kind: Format, height: int, width: int) -> None:
    """Raise an ImageError where a side is longer than the format allows."""
    if max(height, width) > kind.longest_side:
        raise ImageError(f"{kind.name} holds no more than {kind.longest_side} pixels a side, not {width} x {height}.")


def encode(array: Array, kind: Format, described: Description, *, quality: int) -> bytes:
    """A whole file of (H, W, 3 or 4), uint8 or, where `kind` is deep, uint16."""
    icc = described.icc_profile if _transform(described.icc_profile, "RGB") else None
    exif, dpi, xmp = described.exif, described.dpi, described.xmp
    # A file that can hold the profile wants its colours, another wants sRGB: convert where the pixels are the other.
    if icc and not _is_srgb(icc) and described.in_srgb == kind.icc:
        transform = _transform(icc, "RGB", back=described.in_srgb)
        if transform:
            colour = Image.fromarray(np.ascontiguousarray(array[..., :3]))
            array = np.dstack([np.asarray(_apply(transform, colour)), array[..., 3:]])
    if kind.name == "TIFF":
        return _tiff(array, icc, exif, dpi, xmp)
    if array.dtype == np.uint16:
        return _png16(array, icc, exif, dpi, xmp)
    options: dict[str, Any] = {"icc_profile": icc}
    if exif and not (kind.name == "JPEG" and len(exif) > 65533):  # more than a JPEG can hold
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


def _png16(
    array: Array, icc: bytes | None, exif: bytes | None, dpi: tuple[float, float] | None, xmp: bytes | None
) -> bytes:
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


def _tiff(
    array: Array, icc: bytes | None, exif: bytes | None, dpi: tuple[float, float] | None, xmp: bytes | None
) -> bytes:
    """Deflated strips with horizontal differences; neither Pillow nor OpenCV writes 16-bit colour with a profile."""
    height, width, channels = array.shape
    rows = array.astype(array.dtype.newbyteorder("<"))
    rows[:, 1:] -= array[:, :-1]
    per_strip = max(1, 2**20 // rows[0].nbytes)
    strips = [zlib.compress(rows[y : y + per_strip].tobytes(), 3) for y in range(0, height, per_strip)]
    ifd, source = TiffImagePlugin.ImageFileDirectory_v2(b"II\x2a\0\0\0\0\0"), Image.Exif()
    source.load(exif or b"")
    for tag in source:
        ifd[tag] = source.get_ifd(tag) if tag in (_EXIF, _GPS) else _as_stored(source[tag])
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
