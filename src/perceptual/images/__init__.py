"""Pictures: files, tensors and every other kind of picture, converted at this door.

Inside the package a picture is RGB, float32, in [0, 1], of shape (N, 3, H, W), upright, in sRGB; where large ones pass
through, it may be uint8 levels.
"""

from perceptual.images.picture import (
    MAX_PIXELS,
    WRITABLE_SUFFIXES,
    Picture,
    alpha_of,
    check_ending,
    check_size,
    from_any,
    is_grey,
    like,
    open_rgb,
    read,
    read_animation,
    resize,
    scaled_size,
    to_kind_of,
    unit,
    write,
)

__all__ = [
    "MAX_PIXELS",
    "WRITABLE_SUFFIXES",
    "Picture",
    "alpha_of",
    "check_ending",
    "check_size",
    "from_any",
    "is_grey",
    "like",
    "open_rgb",
    "read",
    "read_animation",
    "resize",
    "scaled_size",
    "to_kind_of",
    "unit",
    "write",
]
