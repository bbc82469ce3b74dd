"""The ends of animations: how long the last frame is shown, which FFmpeg guesses, and whether a GIF is complete."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

_PNG, _WEBP_MOST, _PNG_MOST = b"\x89PNG\r\n\x1a\n", 2**24 - 1, 2**16 - 1


def hold_last(path: Path, seconds: Fraction) -> None:
    """Let the last frame of an animated WebP or APNG be shown until its end. Other files are not changed.

    path: a complete file, which is changed in place. seconds: the length of the animation.
    """
    with open(path, "r+b") as file:
        head = file.read(12)
        if head[:4] == b"RIFF" and head[8:] == b"WEBP":
            _hold_webp(file, seconds)
        elif head[:8] == _PNG:
            _hold_png(file, seconds)


def is_whole_gif(path: Path) -> bool:
    """Whether a GIF has all its blocks up to its trailer (GIF89a, Appendix A). Anything may follow that."""
    with open(path, "rb") as file:
        _skip_table(file, file.read(13)[10:11])
        while (kind := file.read(1)) in (b"!", b","):  # an extension, an image
            if kind == b",":
                _skip_table(file, file.read(9)[8:9])
            file.seek(1, os.SEEK_CUR)
            while size := int.from_bytes(file.read(1)):
                file.seek(size, os.SEEK_CUR)
        return kind == b";"


def _skip_table(file: BinaryIO, flags: bytes) -> None:
    """Skip a table of colours, if the flags say that there is one."""
    bits = int.from_bytes(flags)
    if bits & 128:
        file.seek(3 * 2 ** (bits % 8 + 1), os.SEEK_CUR)


def _hold_webp(file: BinaryIO, seconds: Fraction) -> None:
    """Each frame is a chunk ANMF with its duration in milliseconds, 3 bytes, at byte 12 (WebP container
    specification, "Animation")."""
    places = [at + 12 for kind, at in _chunks(file, 12, "little") if kind == b"ANMF"]
    durations = []
    for place in places:
        file.seek(place)
        durations.append(int.from_bytes(file.read(3), "little"))
    if places:
        left = round(seconds * 1000) - sum(durations[:-1])
        file.seek(places[-1])
        file.write(min(max(left, 1), _WEBP_MOST).to_bytes(3, "little"))


def _hold_png(file: BinaryIO, seconds: Fraction) -> None:
    """Each frame has a chunk fcTL with its duration as a fraction of a second, 2 + 2 bytes, at byte 20 of 26 (PNG
    specification, third edition, section 11.3.6.2). A CRC-32 of the kind and the bytes follows."""
    places = [at for kind, at in _chunks(file, 8, "big") if kind == b"fcTL"]
    left = seconds
    for place in places:
        file.seek(place)
        chunk = file.read(26)
        if place == places[-1]:
            parts = _as_fraction(max(left, Fraction(1, 1000)))
            chunk = chunk[:20] + b"".join(part.to_bytes(2, "big") for part in parts) + chunk[24:]
            file.seek(place)
            file.write(chunk + zlib.crc32(b"fcTL" + chunk).to_bytes(4, "big"))
        numerator, denominator = (int.from_bytes(chunk[at : at + 2], "big") for at in (20, 22))
        left -= Fraction(numerator, denominator or 100)


def _as_fraction(seconds: Fraction) -> tuple[int, int]:
    """Seconds as a numerator and a denominator of 16 bits."""
    for most in (_PNG_MOST, 1000, 1):
        near = seconds.limit_denominator(most)
        if near.numerator <= _PNG_MOST:
            return near.numerator, near.denominator
    return _PNG_MOST, 1


def _chunks(file: BinaryIO, start: int, order: str) -> Iterator[tuple[bytes, int]]:
    """(kind, place of its bytes) of each chunk. order: "little" for RIFF, "big" for PNG."""
    at, end = start, file.seek(0, os.SEEK_END)
    while at + 8 <= end:
        file.seek(at)
        head = file.read(8)
        if order == "little":
            size, kind = int.from_bytes(head[4:], "little"), head[:4]
            after = at + 8 + size + size % 2
        else:
            size, kind = int.from_bytes(head[:4], "big"), head[4:]
            after = at + 8 + size + 4
        yield kind, at + 8
        at = after
