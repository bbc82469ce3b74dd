"""ICC colour profiles: conversion to sRGB and back, by Pillow's ImageCms (Little CMS)."""

from __future__ import annotations

import contextlib
import functools
import io
from typing import cast

import numpy as np
from PIL import Image, ImageCms

from perceptual.functional import Array
from perceptual.images.damage import DAMAGE


def to_srgb(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, bytes | None]:
    """Convert to RGB in sRGB by the profile; returns the image, and the profile if it can be converted back to it.

    A profile that is damaged or of another mode is ignored.
    """
    if image.mode == "LAB":
        icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    if image.mode != "RGB":
        transform = transform_of(icc, image.mode)
        if transform or image.mode == "CMYK":
            return convert(transform, image) if transform else image.convert("RGB"), None
        image = image.convert("RGB")
    transform = transform_of(icc, "RGB")
    if not icc or not transform:
        return image, None
    if is_srgb(icc):
        return image, icc
    return convert(transform, image), icc if transform_of(icc, "RGB", back=True) else None


@functools.lru_cache(maxsize=32)
def transform_of(icc: bytes | None, mode: str, *, back: bool = False) -> ImageCms.ImageCmsTransform | None:
    """The conversion from `mode` in the profile to sRGB, or back.

    None without a profile, or if the profile is damaged or of another mode.
    """
    spaces = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab ": "LAB"}
    with contextlib.suppress(ImageCms.PyCMSError, *DAMAGE):
        profile, srgb = ImageCms.ImageCmsProfile(io.BytesIO(icc or b"")), ImageCms.createProfile("sRGB")
        if spaces.get(profile.profile.xcolor_space) == mode:
            source, target = (srgb, profile) if back else (profile, srgb)
            return ImageCms.buildTransform(source, target, mode, "RGB")
    return None


def grey_curve(icc: bytes | None) -> Array | None:
    """The red, green and blue levels in sRGB of 256 grey values in the profile, (256, 3) in [0, 1].

    None without a profile for grey.
    """
    transform = transform_of(icc, "L")
    if transform is None:
        return None
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    return cast(Array, np.asarray(convert(transform, ramp))[0].astype(np.float32) / 255)


def convert(transform: ImageCms.ImageCmsTransform, image: Image.Image) -> Image.Image:
    """Apply a conversion to an image."""
    return cast(Image.Image, ImageCms.applyTransform(image, transform))


@functools.lru_cache(maxsize=32)
def is_srgb(icc: bytes) -> bool:
    """Whether an RGB profile is practically sRGB: no colour of a coarse grid changes by more than 2 of 255 levels."""
    grid = np.stack(np.meshgrid(*[np.arange(0, 256, 51, dtype=np.uint8)] * 3), -1).reshape(36, 6, 3)
    transform = transform_of(icc, "RGB")
    moved = np.asarray(convert(transform, Image.fromarray(grid))) if transform else grid
    return bool(np.abs(moved.astype(int) - grid).max() <= 2)
