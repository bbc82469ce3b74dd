"""Image files to tensors and back, and any other kind of image to tensors and back.

Inside the package an image is a tensor (N, 3, H, W): RGB, float32 in [0, 1], upright, in sRGB. Large 8-bit images may
stay uint8, called levels, from 0 to 255. All conversion happens in this file: `read` and `write` for files, `from_any`
and `to_kind_of` for images in memory. codecs.py knows the file formats.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from perceptual.devices import free_memory
from perceptual.errors import ConfigError, ImageError
from perceptual.files import write_beside
from perceptual.functional import Array, bleed
from perceptual.images.codecs import WRITABLE, Description, Format, check_sides, encode, identify, layers, opened
from perceptual.images.damage import DAMAGE, decoding

Kind = TypeVar("Kind")

MAX_PIXELS = 400_000_000
_LEVELS = 8.0
"""Floats above this are levels of 0..255 by mistake. Results of networks may be a little outside [0, 1]."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One image, and what its file holds besides the pixels.

    pixels: (1, 3, H, W) in [0, 1], or uint8 levels.
    alpha: (1, 1, H, W) in [0, 1], not premultiplied. Pixels of alpha 0 have the colour of the nearest visible pixel
        (`functional.bleed`).
    exif, xmp: metadata without the orientation. icc_profile: an RGB profile, which `write` embeds.
    bit_depth: 8 or 16. grey: the file has one channel. dpi: pixels per inch, across and down.
    in_srgb: the pixels are in sRGB, and `write` converts them to the profile. False: they are in the profile's own
        colour space. None: True for 8 bits, False for 16 bits.
    frames: number of images in the file; this is the first. It is above 1 for animations and documents with pages.
    """

    pixels: Tensor
    alpha: Tensor | None = None
    exif: bytes | None = None
    icc_profile: bytes | None = None
    bit_depth: int = 8
    grey: bool = False
    dpi: tuple[float, float] | None = None
    in_srgb: bool | None = None
    frames: int = 1
    xmp: bytes | None = None

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.pixels.shape[-2]

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.pixels.shape[-1]


def read(path: str | Path, *, max_pixels: int = MAX_PIXELS, levels: bool = False, own_colours: bool = False) -> Picture:
    """Read one image file, or the first image of an animation, upright and as RGB.

    levels: leave 8-bit pixels as uint8, which takes a quarter of the memory.
    own_colours: leave colours in the colour space of the file's profile. Conversion to sRGB clips colours outside it.

    Raises:
        ImageError: the file is missing, is not an image, is damaged or incomplete, has more than `max_pixels` pixels,
            or does not fit into the free memory.
    """
    with decoding(path), opened(path) as file:
        return decoded(file, max_pixels=max_pixels, levels=levels, own_colours=own_colours)


def decoded(file: BinaryIO, *, max_pixels: int, levels: bool = False, own_colours: bool = False) -> Picture:
    """The same as `read`, for an open file. `decoding` must be around the call: it explains the errors."""
    image = identify(file, max_pixels)
    _check_memory(image)
    picture = _picture(image, file, levels=levels, own_colours=own_colours)
    return replace(picture, frames=_frames(image))


def _check_memory(image: Image.Image) -> None:
    """Refuse an image that does not fit into memory, by its header. Otherwise the system may kill the process."""
    needed, free = 16 * image.width * image.height, free_memory(torch.device("cpu"))
    if needed > free:
        raise ImageError(
            f"is {image.width} x {image.height} px: decoding needs about {needed / 1e9:.1f} GB of memory, and "
            f"{free / 1e9:.1f} GB are free: scale it down first."
        )


def _frames(image: Image.Image) -> int:
    """The number of images in a file. 1 if later ones are damaged, and for JPEGs with extra images from phones."""
    if image.format != "MPO":
        with contextlib.suppress(*DAMAGE):
            return int(getattr(image, "n_frames", 1))
    return 1


def read_animation(path: str | Path) -> Iterator[tuple[Picture, int]]:
    """Read every image of an animation: (image in uint8 levels, duration in milliseconds).

    Raises:
        ImageError: as `read`.
    """
    with decoding(path), opened(path) as file:
        image = identify(file, MAX_PIXELS)
        for index in range(int(getattr(image, "n_frames", 1))):
            image.seek(index)
            picture = _picture(image, levels=True)
            yield picture, max(1, round(image.info.get("duration", 100)))


def open_rgb(path: str | Path, *, draft_size: int | None = None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read one image file as an upright 8-bit RGB Pillow image. It is faster than `read`, for training.

    draft_size: in pixels. If it is given, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, as long as its shorter
        side stays at least draft_size.

    Raises:
        ImageError: as `read`.
    """
    with decoding(path), opened(path) as file:
        image = identify(file, max_pixels)
        if draft_size is not None:
            image.draft(image.mode, (draft_size, draft_size))
        _check_memory(image)
        array = layers(image)[0]
        if array.shape[2] == 4 or array.dtype != np.uint8:
            array = to_array(_planes(array[None])[0], None, top=255)
        return Image.fromarray(np.ascontiguousarray(array))


def on_white(picture: Picture) -> Picture:
    """The picture on a white background, without alpha."""
    if picture.alpha is None:
        return picture
    light = unit(picture.pixels).float() * picture.alpha + 1 - picture.alpha
    return replace(picture, pixels=like(light, picture.pixels), alpha=None)


def write(path: str | Path, picture: object, *, quality: int = 95) -> None:
    """Write one image, in the format that the ending of `path` names. An existing file is replaced only on success.

    picture: a Picture, a tensor (1, 3, H, W) or (3, H, W) in [0, 1], or what `from_any` takes. 16 bits stay 16 in PNG
        and TIFF, and become 8 in other formats. Profile, EXIF data, XMP and alpha are kept if the format has them. JPEG
        and BMP have no alpha: there the image is put on a white background.
    quality: 1 to 100, for JPEG and WebP.

    Raises:
        ImageError: the ending is not supported, the pixels have a wrong shape or values, or the format does not allow
            sides of this length.
        ConfigError: `quality` is not from 1 to 100.
        OutputError: the file cannot be written.
    """
    data = encoded(path, picture, quality=quality)
    with write_beside(path) as temporary:
        temporary.write_bytes(data)


def encoded(path: str | Path, picture: object, *, quality: int = 95) -> bytes:
    """What `write` writes to a file with the ending of `path`, as bytes. The arguments and errors are the same."""
    kind = WRITABLE.get(Path(path).suffix.lower())
    if kind is None:
        raise ImageError(f"{path}: end the name with {', '.join(WRITABLE)} to say which format to write.")
    if not 1 <= quality <= 100:
        raise ConfigError(f"quality is {quality}: give a number from 1 to 100.")
    if isinstance(picture, Tensor):
        picture = Picture(picture if picture.ndim == 4 else picture[None])
    elif not isinstance(picture, Picture):
        if isinstance(picture, np.ndarray) and picture.shape[-1:] == (4,):
            raise ImageError(f"{path}: give an array with alpha as Picture(pixels, alpha), or as a Pillow image.")
        picture = Picture(from_any(picture), alpha_of(picture))
    try:
        return _encode(picture, kind, quality)
    except (ImageError, *DAMAGE) as error:
        raise ImageError(f"{path} cannot be written: {error}") from error


def from_any(image: object, *, levels: bool = False) -> Tensor:
    """Convert an image of any common kind to a new tensor (N, 3, H, W), float32 in [0, 1], on the device of `image`.

    levels: give uint8 levels for images of 8 bits. image: one of
        - a Pillow image of any mode; it becomes upright and sRGB, as in `read`;
        - a numpy array (H, W), (H, W, C) or (N, H, W, C), uint8, uint16, or float in [0, 1]. C is 1, 3 or 4; the alpha
          of four channels is dropped;
        - a tensor (C, H, W) or (N, C, H, W), uint8 or float in [0, 1]. C is 1 or 3.

    Raises:
        ImageError: another type, dtype or shape, no pixels, NaN, or values far outside [0, 1].
    """
    if isinstance(image, Image.Image):
        with decoding("The image"):
            return _picture(image, levels=levels).pixels
    if not isinstance(image, (np.ndarray, Tensor)):
        raise _not_an_image(image)
    tensor = _from_numpy(image, levels=levels) if isinstance(image, np.ndarray) else _from_torch(image, levels=levels)
    if tensor.numel() == 0:
        raise ImageError(f"The image has no pixels: its shape is {tuple(image.shape)}.")
    tensor = tensor.expand(-1, 3, -1, -1)
    if tensor.dtype == torch.uint8:
        return tensor.clone(memory_format=torch.contiguous_format)
    low, high = map(float, tensor.detach().aminmax())
    if not low <= high:
        raise ImageError("The image has values that are not numbers (NaN): replace them first.")
    if low < -0.5 or high > 1.5:
        advice = "divide by 255" if low >= 0 and high <= 256 else "scale them"
        raise ImageError(f"The image has values from {low:g} to {high:g}: {advice} to bring them into [0, 1].")
    return tensor.clamp(0, 1).contiguous()


def _not_an_image(value: object) -> ImageError:
    give = "PIL.Image.open(path)" if isinstance(value, (str, Path)) else "a PIL image, a numpy array or a tensor"
    return ImageError(f"A {type(value).__name__} is not an image: give {give}.")


def is_grey(image: object) -> bool:
    """Whether an image has one channel besides alpha: mode L, array (H, W) or (H, W, 1), tensor (1, H, W)."""
    if isinstance(image, Tensor):
        return image.ndim >= 3 and image.shape[-3] == 1
    if isinstance(image, np.ndarray):
        return image.ndim == 2 or image.shape[-1] == 1
    return isinstance(image, Image.Image) and image.mode.split(";")[0] in ("1", "L", "LA", "I", "F")


def to_kind_of(result: Tensor, like: Kind, alpha: Tensor | None = None) -> Kind:
    """Convert `result`, (N, 3, H, W), to the type, dtype, number of dimensions and device of `like`.

    result: in [0, 1] or levels. A Pillow image with alpha keeps it: `alpha` (1, 1, H, W) if it is given, else that of
    `like`, resized. Integers are rounded, halves upwards.

    Raises:
        ImageError: `like` is no image, or is one and `result` several, or `result` has NaN and `like` integers.
    """
    if not isinstance(like, (Image.Image, np.ndarray, Tensor)):
        raise _not_an_image(like)
    single = isinstance(like, Image.Image) or like.ndim < 4
    if result.ndim != 4 or result.shape[1] != 3 or (single and len(result) != 1):
        shape, kind = tuple(result.shape), type(like).__name__
        raise ImageError(f"A result of shape {shape} does not fit a {kind}: choose one image.")
    if isinstance(like, Tensor):
        tensor = _levels(result, 255) if like.dtype == torch.uint8 else unit(result).clamp(0, 1)
        return cast(Kind, (tensor[0] if single else tensor).to(device=like.device, dtype=like.dtype, copy=True))
    if isinstance(like, np.ndarray):
        made = _levels(result, np.iinfo(like.dtype).max) if like.dtype.kind == "u" else unit(result).float().clamp(0, 1)
        array = made.detach().cpu().permute(0, 2, 3, 1).numpy().astype(like.dtype)
        return cast(Kind, array[0] if single else array)
    return cast(Kind, Image.fromarray(to_array(result, alpha_of(like) if alpha is None else alpha, top=255)))


def alpha_of(image: object) -> Tensor | None:
    """The alpha of a Pillow image, (1, 1, H, W) in [0, 1]; None if it has none, and for every other kind of image."""
    if not isinstance(image, Image.Image) or not image.has_transparency_data:
        return None
    with decoding("The image"):
        return _picture(image, levels=True).alpha


def unit(pixels: Tensor) -> Tensor:
    """Convert uint8 levels to float32 in [0, 1]; floats are returned unchanged."""
    return pixels.float().div_(255) if pixels.dtype == torch.uint8 else pixels


def like(pixels: Tensor, other: Tensor) -> Tensor:
    """Convert pixels to uint8 levels, halves rounded upwards, if `other` has levels; else make them contiguous."""
    return _levels(pixels, 255) if other.dtype == torch.uint8 else pixels.contiguous()


def resize(
    pixels: Tensor,
    *,
    longer_side: int | None = None,
    shorter_side: int | None = None,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Resize (N, C, H, W), in [0, 1] or uint8 levels, with antialiased bicubic interpolation, clamped to that range.

    Give exactly one of the three sizes, in pixels. longer_side, shorter_side: keep the aspect ratio; no side becomes
    shorter than 1. size: (height, width). If nothing changes, `pixels` itself is returned.

    Raises:
        ConfigError: none or several sizes are given, or one is below 1.
    """
    given = [value for value in (longer_side, shorter_side, size) if value is not None]
    if len(given) != 1 or min(np.ravel(given)) < 1:
        raise ConfigError("Give exactly one of longer_side, shorter_side and size, of at least 1 pixel.")
    height, width = pixels.shape[-2:]
    if size is None:
        side = longer_side or shorter_side or 1
        size = scaled_size(height, width, side / (max(height, width) if longer_side else min(height, width)))
    if (height, width) == tuple(size):
        return pixels
    return like(interpolate(unit(pixels), size=size, mode="bicubic", antialias=True).clamp(0, 1), pixels)


def scaled_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """(height, width) times `scale`, rounded, and at least 1 pixel each."""
    return max(1, round(height * scale)), max(1, round(width * scale))


def _picture(
    image: Image.Image, file: BinaryIO | None = None, *, levels: bool = False, own_colours: bool = False
) -> Picture:
    grey = is_grey(image)  # decoding changes the mode
    array, kept = layers(image, file, own_colours=own_colours)
    pixels, alpha = _planes(array[None], levels=levels)
    depth = 8 if array.dtype == np.uint8 else 16
    return Picture(pixels, alpha, kept.exif, kept.icc_profile, depth, grey, kept.dpi, kept.in_srgb, xmp=kept.xmp)


def _planes(array: Array, *, levels: bool = False) -> tuple[Tensor, Tensor | None]:
    """Split (N, H, W, C) into pixels (N, 1 or 3, H, W) and alpha (N, 1, H, W) or None. levels: leave uint8 as it is."""
    array = array.copy() if min(array.strides) < 0 else array  # NumPy calls one reversed row contiguous
    tensor = torch.from_numpy(np.require(array, requirements=["C", "W"])).permute(0, 3, 1, 2)
    pixels = tensor[:, :3] if levels and array.dtype == np.uint8 else unit(tensor[:, :3]).contiguous()
    alpha = unit(tensor[:, 3:]).contiguous() if tensor.shape[1] == 4 else None
    if alpha is not None and not (alpha > 0).all():
        pixels = like(bleed(unit(pixels), alpha), pixels)
    return pixels, alpha


def _encode(picture: Picture, kind: Format, quality: int) -> bytes:
    if picture.pixels.ndim != 4 or picture.pixels.shape[:2] != (1, 3) or picture.pixels.numel() == 0:
        raise ImageError(f"give one image of shape (1, 3, H, W), not {tuple(picture.pixels.shape)}.")
    if not picture.pixels.is_floating_point() and picture.pixels.dtype != torch.uint8:
        raise ImageError(f"A tensor of {picture.pixels.dtype} is not an image: give uint8, or float in [0, 1].")
    if _LEVELS < (high := float(picture.pixels.detach().amax())) < math.inf and picture.pixels.is_floating_point():
        raise ImageError(f"the values go up to {high:g}: divide by 255 to bring them into [0, 1].")
    check_sides(kind, picture.height, picture.width)
    top = 65535 if picture.bit_depth == 16 and kind.deep else 255
    array = to_array(picture.pixels, picture.alpha, top=top, on_white=not kind.alpha)
    in_srgb = picture.bit_depth == 8 if picture.in_srgb is None else picture.in_srgb
    described = Description(picture.icc_profile, picture.exif, picture.dpi, in_srgb, picture.xmp)
    return encode(array, kind, described, quality=quality)


def _from_numpy(array: Array, *, levels: bool) -> Tensor:
    """An image as (N, 1 or 3, H, W) in float32. levels: leave uint8 as it is."""
    if array.dtype.kind not in "fu" or (array.dtype.kind == "u" and array.itemsize > 2):
        raise ImageError(f"An array of {array.dtype} is not an image: give uint8, uint16, or float in [0, 1].")
    batch = array[None, ..., None] if array.ndim == 2 else array if array.ndim == 4 else array[None]
    if batch.ndim != 4 or batch.shape[3] not in (1, 3, 4):
        raise ImageError(f"An array of shape {array.shape} is not an image: give (H, W, 3) or (N, H, W, 3).")
    top = np.float32(1 if array.dtype.kind == "f" else 65535)
    return _planes(batch if array.dtype == np.uint8 else batch.astype(np.float32) / top, levels=levels)[0]


def _from_torch(tensor: Tensor, *, levels: bool) -> Tensor:
    """As `_from_numpy`."""
    if tensor.is_meta or tensor.layout != torch.strided:
        raise ImageError("A sparse or meta tensor is not an image: give a dense tensor with values.")
    if not tensor.is_floating_point() and tensor.dtype != torch.uint8:
        raise ImageError(f"A tensor of {tensor.dtype} is not an image: give uint8, or float in [0, 1].")
    batch = tensor[None] if tensor.ndim == 3 else tensor
    if batch.ndim != 4 or batch.shape[1] not in (1, 3):
        raise ImageError(f"A tensor of shape {tuple(tensor.shape)} is not an image: give (3, H, W) or (N, 3, H, W).")
    return batch if levels and tensor.dtype == torch.uint8 else unit(batch).float()


def _levels(pixels: Tensor, top: int) -> Tensor:
    """Scale [0, 1] or levels to whole numbers from 0 to `top`, halves upwards: uint8 for 255, else float32."""
    if pixels.dtype == torch.uint8 and top == 255:
        return pixels
    pixels = unit(pixels.detach()).float()
    if not pixels.isfinite().all():
        raise ImageError("some pixels are NaN or infinite: check the step that computed them.")
    scaled = (pixels.clamp(0, 1) * top + 0.5).floor()
    return scaled.byte() if top == 255 else scaled


def to_array(pixels: Tensor, alpha: Tensor | None = None, *, top: int = 255, on_white: bool = False) -> Array:
    """One image (1, 3, H, W), in [0, 1] or levels, as an array (H, W, 3), or (H, W, 4) with alpha resized to it.

    alpha: (1, 1, h, w) in [0, 1]. top: the largest value of the array, which is uint8 for 255, and else uint16.
    on_white: put the image on a white background by its alpha, and return three channels.
    """
    parts = [pixels.detach().cpu()]
    if alpha is not None:
        alpha, size = alpha.detach().float().cpu(), pixels.shape[-2:]
        alpha = alpha if alpha.shape[-2:] == size else interpolate(alpha, size=size, mode="bilinear", antialias=True)
        parts = [unit(parts[0]).float() * alpha + 1 - alpha] if on_white else [*parts, alpha]
    found = torch.cat([_levels(part, top) for part in parts], dim=1)[0].permute(1, 2, 0).contiguous().numpy()
    return found if top == 255 else found.astype(np.uint16)
