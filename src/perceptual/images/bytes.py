"""Pictures as the bytes of a file: for pages in a browser, and for the losses of a JPEG."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from perceptual.images.codecs import WRITABLE, Description, encode
from perceptual.images.picture import to_array


def as_jpeg(pixels: Tensor, *, quality: int = 92) -> bytes:
    """A picture (1, 3, H, W), in [0, 1] or levels, as a JPEG without metadata. quality: 1 to 100."""
    return encode(to_array(pixels), WRITABLE[".jpg"], Description(), quality=quality)


def through_jpeg(pixels: Tensor, quality: int, *, full_colour: bool = False) -> Tensor:
    """A picture (1, 3, H, W) in [0, 1] after it was written as a JPEG and read again.

    quality: 1 to 100. full_colour: keep the colours at full resolution (4:4:4), instead of half (4:2:0).
    """
    file = io.BytesIO()
    Image.fromarray(to_array(pixels)).save(file, "JPEG", quality=quality, subsampling=0 if full_colour else 2)
    with Image.open(file) as image:
        read = np.array(image)
    return torch.from_numpy(read).permute(2, 0, 1)[None].to(pixels.dtype) / 255
