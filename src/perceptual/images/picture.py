"""Pictures: file <-> tensor, any other kind <-> tensor.

Inside the package a picture is RGB, float32, in [0, 1], of shape (N, 3, H, W), upright, in sRGB; where large ones pass
through, it may be uint8 levels. All conversion happens
at this door: `read` and `write` for files, `from_any` and `to_kind_of` for pictures in memory. The kinds of files are
the business of codecs.py; this file turns its arrays into tensors and back.
"""

from __future__ import annotations

import contextlib
import os
import stat
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
from perceptual.errors import ConfigError, ImageError, OutputError
from perceptual.files import write_beside
from perceptual.functional import bleed
from perceptual.images.codecs import (
    DAMAGE,
    WRITABLE,
    Array,
    Description,
    Format,
    check_sides,
    decoding,
    encode,
    identify,
    layers,
)

Kind = TypeVar("Kind")

MAX_PIXELS = 400_000_000
WRITABLE_SUFFIXES = frozenset(WRITABLE)


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture and what its file says about it.

    pixels: (1, 3, H, W) in [0, 1], or uint8 levels; alpha: (1, 1, H, W) in [0, 1], straight. Pixels of alpha 0 are
    those of the nearest visible ones (`functional.bleed`). exif, xmp: without orientation. dpi: pixels per inch, across
    and down. grey: the file has one channel. icc_profile: an RGB profile that `write` embeds. in_srgb: the pixels are
    in sRGB, and `write` converts them to the profile; else they are in its own colours. None: 8 bits are, 16 are not.
    frames: pictures in the file, of which this is the first: above 1 for animations and for documents of several pages.
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
        """In pixels."""
        return self.pixels.shape[-2]

    @property
    def width(self) -> int:
        """In pixels."""
        return self.pixels.shape[-1]


def read(path: str | Path, *, max_pixels: int = MAX_PIXELS, levels: bool = False, own_colours: bool = False) -> Picture:
    """Read one picture (the first frame of several), upright, as RGB.

    levels: leave the pixels of files of 8 bits in uint8, a quarter of the memory.
    own_colours: leave colours as the file's profile has them. Conversion to sRGB cuts off those that sRGB has not.

    Raises:
        ImageError: no such file, not a picture, damaged, cut short, larger than `max_pixels` or than the free memory.
    """
    with decoding(path), _open(path) as file:
        image = identify(file, max_pixels)
        _check_memory(image)
        picture = _picture(image, file, levels=levels, own_colours=own_colours)
        return replace(picture, frames=_frames(image))


def _check_memory(image: Image.Image) -> None:
    """Refuse by its header a picture that will not fit: the operating system's way is to kill the process."""
    needed, free = 16 * image.width * image.height, free_memory(torch.device("cpu"))
    if needed > free:
        raise ImageError(
            f"is {image.width} x {image.height} px: decoding needs about {needed / 1e9:.1f} GB of memory and "
            f"{free / 1e9:.1f} GB are free: scale it down first."
        )


def _frames(image: Image.Image) -> int:
    """How many pictures a file holds; 1 where the later ones are damaged, and for what phones put beside a JPEG."""
    if image.format != "MPO":
        with contextlib.suppress(*DAMAGE):
            return int(getattr(image, "n_frames", 1))
    return 1


def read_animation(path: str | Path) -> Iterator[tuple[Picture, int]]:
    """Every picture of an animation, in uint8 levels, with the milliseconds that it is shown.

    Raises:
        ImageError: as `read`.
    """
    with decoding(path), _open(path) as file:
        image = identify(file, MAX_PIXELS)
        for index in range(int(getattr(image, "n_frames", 1))):
            image.seek(index)
            picture = _picture(image, levels=True)
            yield picture, max(1, round(image.info.get("duration", 100)))


def open_rgb(path: str | Path, *, draft_size: int | None = None) -> Image.Image:
    """Read one picture as upright 8-bit RGB for Pillow; lighter than `read`, for training.

    With `draft_size`, a JPEG may come at 1/2, 1/4 or 1/8 of its size, its shorter side still >= draft_size.

    Raises:
        ImageError: as `read`.
    """
    with decoding(path), _open(path) as file:
        image = identify(file, MAX_PIXELS)
        if draft_size is not None:
            image.draft(image.mode, (draft_size, draft_size))
        _check_memory(image)
        array = layers(image)[0]
        if array.shape[2] == 4 or array.dtype != np.uint8:
            array = _array(_planes(array)[0], None, top=255)
        return Image.fromarray(np.ascontiguousarray(array))


def write(path: str | Path, picture: Picture | Tensor, *, quality: int = 95) -> None:
    """Write one picture, in the format that `path` ends with; an older file is only replaced by a whole new one.

    A bare tensor is (1, 3, H, W) or (3, H, W) in [0, 1]. 16 bits stay 16 in PNG and TIFF and become 8 elsewhere. ICC
    profile, EXIF, XMP and alpha are kept where the format can; JPEG and BMP have no alpha: they are laid on white.

    Raises:
        ImageError: an ending that is not supported, pixels that are no picture, or too many of them for the format.
        ConfigError: `quality` is not in 1..100.
        OutputError: the file cannot be written.
    """
    kind = WRITABLE.get(Path(path).suffix.lower())
    if kind is None:
        raise ImageError(f"{path}: end the name with {', '.join(WRITABLE)} to say which kind of file to write.")
    if not 1 <= quality <= 100:
        raise ConfigError(f"quality is {quality}: give a number from 1 to 100.")
    if isinstance(picture, Tensor):
        picture = Picture(picture if picture.ndim == 4 else picture[None])
    try:
        data = _encode(picture, kind, quality)
    except (ImageError, *DAMAGE) as error:
        raise ImageError(f"{path} cannot be written: {error}") from error
    with write_beside(path) as temporary:
        temporary.write_bytes(data)


def from_any(image: object) -> Tensor:
    """Turn a picture of any common kind into a new (N, 3, H, W) float32 tensor in [0, 1], on the device of `image`.

    Kinds: a Pillow picture of any mode (made upright and sRGB as `read` does); a numpy array, uint8, uint16 or float in
    [0, 1], of shape (H, W), (H, W, C) or (N, H, W, C), C being 1, 3, or 4 whose alpha is dropped; a torch tensor, uint8
    or float in [0, 1], of shape (C, H, W) or (N, C, H, W), C being 1 or 3.

    Raises:
        ImageError: another type, dtype or shape, no pixels, not-a-number, or values well outside [0, 1].
    """
    if isinstance(image, Image.Image):
        with decoding("The picture"):
            return _picture(image).pixels
    if not isinstance(image, (np.ndarray, Tensor)):
        raise ImageError(f"A {type(image).__name__} is no picture: give a PIL image, a numpy array or a torch tensor.")
    tensor = _from_numpy(image) if isinstance(image, np.ndarray) else _from_torch(image)
    if tensor.numel() == 0:
        raise ImageError(f"The picture has no pixels: its shape is {tuple(image.shape)}.")
    low, high = (float(value) for value in tensor.detach().aminmax())
    if not low <= high:
        raise ImageError("The picture has values that are not numbers (NaN): replace them first.")
    if low < -0.5 or high > 1.5:
        mend = "divide by 255" if low >= 0 and high <= 256 else "scale them"
        raise ImageError(f"The picture has values from {low:g} to {high:g}: {mend} to bring them into [0, 1].")
    return tensor.expand(-1, 3, -1, -1).clamp(0, 1).contiguous()


def is_grey(image: object) -> bool:
    """Whether a picture of any kind has one channel (besides alpha): mode L, shape (H, W) or (H, W, 1), (1, H, W)."""
    if isinstance(image, Tensor):
        return image.ndim >= 3 and image.shape[-3] == 1
    if isinstance(image, np.ndarray):
        return image.ndim == 2 or image.shape[-1] == 1
    return isinstance(image, Image.Image) and image.mode.split(";")[0] in ("1", "L", "LA", "I", "F")


def to_kind_of(result: Tensor, like: Kind, alpha: Tensor | None = None) -> Kind:
    """Give `result`, (N, 3, H, W) in [0, 1], the kind, dtype, number of dimensions and device of `like`.

    It has three channels always, but a Pillow picture keeps its alpha: `alpha` (1, 1, H, W) where given, else its own,
    scaled to fit. Integers are rounded half up.

    Raises:
        ImageError: `like` is no picture, or one where `result` holds several; NaN where integers are wanted.
    """
    if not isinstance(like, (Image.Image, np.ndarray, Tensor)):
        raise ImageError(f"A {type(like).__name__} is no picture: give a PIL image, a numpy array or a torch tensor.")
    single = isinstance(like, Image.Image) or like.ndim < 4
    if result.ndim != 4 or result.shape[1] != 3 or (single and len(result) != 1):
        raise ImageError(
            f"A result of shape {tuple(result.shape)} does not fit a {type(like).__name__}: pick one picture."
        )
    if isinstance(like, Tensor):
        tensor = _levels(result, 255) if like.dtype == torch.uint8 else result.clamp(0, 1)
        return cast(Kind, (tensor[0] if single else tensor).to(device=like.device, dtype=like.dtype))
    if isinstance(like, np.ndarray):
        tensor = _levels(result, np.iinfo(like.dtype).max) if like.dtype.kind == "u" else result.clamp(0, 1)
        array = tensor.detach().cpu().permute(0, 2, 3, 1).float().numpy().astype(like.dtype)
        return cast(Kind, array[0] if single else array)
    alpha = alpha_of(like) if alpha is None else alpha
    return cast(Kind, Image.fromarray(_array(result, alpha, top=255)))


def alpha_of(image: object) -> Tensor | None:
    """The alpha (1, 1, H, W) in [0, 1] of a Pillow picture; None where it has none, and for all other kinds."""
    if not isinstance(image, Image.Image) or not image.has_transparency_data:
        return None
    with decoding("The picture"):
        return _picture(image).alpha


def unit(pixels: Tensor) -> Tensor:
    """Levels (uint8) as float32 in [0, 1]; floats as they are."""
    return pixels.float().div_(255) if pixels.dtype == torch.uint8 else pixels


def like(pixels: Tensor, other: Tensor) -> Tensor:
    """Pixels as levels, rounded half up, where `other` has levels; else as they are, contiguous."""
    if other.dtype == torch.uint8:
        return pixels if pixels.dtype == torch.uint8 else _levels(pixels, 255).to(torch.uint8)
    return pixels.contiguous()


def resize(
    pixels: Tensor,
    *,
    longer_side: int | None = None,
    shorter_side: int | None = None,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Scale (N, C, H, W) by antialiased bicubic interpolation, clamped to [0, 1]; give exactly one of the three.

    `size` is (height, width); a side alone keeps the proportions, and no side gets less than 1 pixel. Pixels that have
    their size already are returned themselves.

    Raises:
        ConfigError: none or several of the three are given, or one below 1.
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
    return interpolate(pixels, size=size, mode="bicubic", antialias=True).clamp(0, 1)


def scaled_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Height and width times `scale`, rounded, neither below 1 pixel."""
    return max(1, round(height * scale)), max(1, round(width * scale))


def check_size(path: str | Path, height: int, width: int) -> None:
    """Say before the work that the format of `path` cannot hold a picture of this size.

    Raises:
        ImageError: a side is longer than the format allows.
    """
    kind = WRITABLE.get(Path(path).suffix.lower())
    if kind is not None:
        with decoding(f"{path} cannot be written:"):
            check_sides(kind, height, width)


def check_ending(path: Path) -> None:
    """Say before the work that a file's name ends in no format to write.

    Raises:
        OutputError: it does.
    """
    if path.suffix.lower() not in WRITABLE_SUFFIXES:
        raise OutputError(f"{path} ends in no format to write: choose {', '.join(sorted(WRITABLE_SUFFIXES))}.")


def _open(path: str | Path) -> BinaryIO:
    """Open a regular file; a pipe could keep us waiting for ever."""
    status = os.stat(path)
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):  # open says that it is a folder
        raise ImageError("is a device or a pipe: give a file.")
    return open(path, "rb")


def _picture(
    image: Image.Image, file: BinaryIO | None = None, *, levels: bool = False, own_colours: bool = False
) -> Picture:
    grey = is_grey(image)  # before it is decoded
    array, kept = layers(image, file, own_colours=own_colours)
    pixels, alpha = _planes(array, levels=levels)
    depth = 8 if array.dtype == np.uint8 else 16
    return Picture(pixels, alpha, kept.exif, kept.icc_profile, depth, grey, kept.dpi, kept.in_srgb, xmp=kept.xmp)


def _planes(array: Array, *, levels: bool = False) -> tuple[Tensor, Tensor | None]:
    """(H, W, 3 or 4) -> pixels (1, 3, H, W), and alpha (1, 1, H, W) where there is one."""
    tensor = torch.from_numpy(np.require(array, requirements=["C", "W"])).permute(2, 0, 1)[None]
    pixels = tensor[:, :3] if levels and array.dtype == np.uint8 else unit(tensor[:, :3]).contiguous()
    alpha = unit(tensor[:, 3:]).contiguous() if tensor.shape[1] == 4 else None
    if alpha is not None and not alpha.all():
        pixels = like(bleed(unit(pixels), alpha), pixels)
    return pixels, alpha


def _encode(picture: Picture, kind: Format, quality: int) -> bytes:
    if picture.pixels.ndim != 4 or picture.pixels.shape[:2] != (1, 3) or picture.pixels.numel() == 0:
        raise ImageError(f"give one picture of shape (1, 3, H, W), not {tuple(picture.pixels.shape)}.")
    check_sides(kind, picture.height, picture.width)
    top = 65535 if picture.bit_depth == 16 and kind.deep else 255
    array = _array(picture.pixels, picture.alpha, top=top, on_white=not kind.alpha)
    in_srgb = picture.bit_depth == 8 if picture.in_srgb is None else picture.in_srgb
    described = Description(picture.icc_profile, picture.exif, picture.dpi, in_srgb, picture.xmp)
    return encode(array, kind, described, quality=quality)


def _from_numpy(array: Array) -> Tensor:
    """(N, 1 or 3, H, W) in float32."""
    if array.dtype.kind not in "fu" or (array.dtype.kind == "u" and array.itemsize > 2):
        raise ImageError(f"An array of {array.dtype} is no picture: give uint8, uint16, or float in [0, 1].")
    batch = array[None, ..., None] if array.ndim == 2 else array if array.ndim == 4 else array[None]
    if batch.ndim != 4 or batch.shape[3] not in (1, 3, 4):
        raise ImageError(f"An array of shape {array.shape} is no picture: give (H, W, 3) or (N, H, W, 3).")
    top = 1 if array.dtype.kind == "f" else np.iinfo(array.dtype).max
    tensor = torch.from_numpy(batch.astype(np.float32) / np.float32(top)).permute(0, 3, 1, 2)
    return bleed(tensor[:, :3], tensor[:, 3:]) if tensor.shape[1] == 4 else tensor


def _from_torch(tensor: Tensor) -> Tensor:
    """(N, 1 or 3, H, W) in float32."""
    if not tensor.is_floating_point() and tensor.dtype != torch.uint8:
        raise ImageError(f"A tensor of {tensor.dtype} is no picture: give uint8, or float in [0, 1].")
    batch = tensor[None] if tensor.ndim == 3 else tensor
    if batch.ndim != 4 or batch.shape[1] not in (1, 3):
        raise ImageError(f"A tensor of shape {tuple(tensor.shape)} is no picture: give (3, H, W) or (N, 3, H, W).")
    return batch.float() if tensor.is_floating_point() else batch.float() / 255


def _levels(pixels: Tensor, top: int) -> Tensor:
    """[0, 1] -> whole numbers 0..top, rounded half up, still in float32."""
    pixels = pixels.detach().float()
    if not pixels.isfinite().all():
        raise ImageError("the pixels are not all numbers (NaN or infinite); look for the step that made them so.")
    return (pixels.clamp(0, 1) * top + 0.5).floor()


def _array(pixels: Tensor, alpha: Tensor | None, *, top: int, on_white: bool = False) -> Array:
    """One picture as (H, W, 3), or 4 with alpha fitted to it, in uint8 or uint16 by `top`."""
    if pixels.dtype == torch.uint8 and alpha is None and top == 255:
        return pixels[0].permute(1, 2, 0).contiguous().cpu().numpy()
    pixels = unit(pixels.detach()).float().cpu()
    if alpha is not None:
        alpha, size = alpha.detach().float().cpu(), pixels.shape[-2:]
        if alpha.shape[-2:] != size:
            alpha = interpolate(alpha, size=size, mode="bilinear", antialias=True)
        pixels = pixels * alpha + 1 - alpha if on_white else torch.cat([pixels, alpha], dim=1)
    return _levels(pixels, top)[0].permute(1, 2, 0).numpy().astype(np.uint8 if top == 255 else np.uint16)
