"""Errors of damaged image files: what decoders raise, and how it becomes one sentence for the user."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from perceptual.errors import ImageError

HEADER_DAMAGE = (SyntaxError, LookupError, TypeError, EOFError, AttributeError, AssertionError, struct.error)
PIXEL_DAMAGE = (OSError, ValueError, ArithmeticError, RuntimeError, MemoryError, zlib.error, Warning)
DAMAGE = (*HEADER_DAMAGE, *PIXEL_DAMAGE)  # what decoders raise, or may raise, on damaged files


@contextlib.contextmanager
def decoding(name: object) -> Iterator[None]:
    """Turn all exceptions of opening and decoding a file into an ImageError. Its text begins with `name`."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is too large: scale it down, or raise PIL.Image.MAX_IMAGE_PIXELS.") from error
    except ImageError as error:
        raise ImageError(f"{name} {error}") from error.__cause__
    except DAMAGE as error:
        raise ImageError(f"{name} {_explain(error)}") from error


def _explain(error: Exception) -> str:
    """What went wrong and what to do, as the end of a sentence."""
    reasons: dict[type[Exception], str] = {
        FileNotFoundError: "does not exist: check the name.",
        IsADirectoryError: "is a folder: give the name of an image in it.",
        PermissionError: "cannot be read, permission is denied: make it readable first.",
    }
    if isinstance(error, OSError) and error.errno:
        return reasons.get(type(error), f"cannot be read ({error.strerror}): check the name.")
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return "does not fit into memory: make it smaller first."
    reason = " ".join(str(error).split()) or type(error).__name__  # libheif's sentences end with a line break
    return f"is damaged or incomplete ({reason}): get a new copy of it."
