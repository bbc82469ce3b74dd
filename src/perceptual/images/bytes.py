"""Pictures as the bytes of a file, for pages in a browser."""

from __future__ import annotations

from torch import Tensor

from perceptual.images.codecs import WRITABLE, Description, encode
from perceptual.images.picture import to_array


def as_jpeg(pixels: Tensor, *, quality: int = 92) -> bytes:
    """A picture (1, 3, H, W), in [0, 1] or levels, as a JPEG without metadata. quality: 1 to 100."""
    return encode(to_array(pixels), WRITABLE[".jpg"], Description(), quality=quality)
