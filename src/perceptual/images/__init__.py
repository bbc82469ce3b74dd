"""Images: reading and writing files, and conversion between tensors, numpy arrays and Pillow images.

Inside the package an image is a tensor (N, 3, H, W): RGB, float32 in [0, 1], upright, in sRGB. Large 8-bit images may
stay uint8, from 0 to 255.
"""

from perceptual.images.bytes import Header, as_bytes, as_jpeg, header_of, read_bytes, through_jpeg
from perceptual.images.codecs import WRITABLE_SUFFIXES, check_ending, check_size
from perceptual.images.header import size_of
from perceptual.images.picture import (
    MAX_PIXELS,
    Picture,
    alpha_of,
    from_any,
    is_grey,
    like,
    on_white,
    open_rgb,
    read,
    read_animation,
    resize,
    scaled_size,
    to_array,
    to_kind_of,
    unit,
    write,
)
from perceptual.images.print_size import with_dpi
from perceptual.images.sheet import labelled_sheet, sheet_size

__all__ = [
    "MAX_PIXELS",
    "WRITABLE_SUFFIXES",
    "Header",
    "Picture",
    "alpha_of",
    "as_bytes",
    "as_jpeg",
    "check_ending",
    "check_size",
    "from_any",
    "header_of",
    "is_grey",
    "labelled_sheet",
    "like",
    "on_white",
    "open_rgb",
    "read",
    "read_animation",
    "read_bytes",
    "resize",
    "scaled_size",
    "sheet_size",
    "size_of",
    "through_jpeg",
    "to_array",
    "to_kind_of",
    "unit",
    "with_dpi",
    "write",
]
