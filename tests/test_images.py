"""`perceptual.images`: every kind of file and of picture in memory, by answers that can be checked by hand."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import time
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from skimage import data

from perceptual import images
from perceptual.errors import ConfigError, ImageError, OutputError
from perceptual.images import Picture, finding, from_any, open_rgb, read, resize, to_kind_of, write
from perceptual.images.finding import find

pytestmark = pytest.mark.filterwarnings("error")

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(0)
RGB8 = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
RGB16 = RNG.integers(0, 65536, (6, 9, 3), dtype=np.uint16)
ORIENTED = {  # EXIF orientation: how the upright picture was turned before it was stored
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a.swapaxes(0, 1), 2),
    8: lambda a: np.rot90(a, -1),
}


def levels(tensor: torch.Tensor, top: int = 255) -> Array:
    """(1, C, H, W) in [0, 1] -> (H, W, C) whole numbers; between two of them is an error."""
    values = tensor[0].permute(1, 2, 0).numpy().astype(np.float64) * top
    assert np.abs(values - values.round()).max() < 0.02
    return values.round().astype(np.int64)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(pixels: Array, colour_type: int, extra: bytes = b"", size: tuple[int, int] | None = None) -> bytes:
    """A PNG by hand: 8 or 16 bits by the dtype; `size` (width, height) may lie."""
    height, width = pixels.shape[:2]
    rows = pixels.astype(pixels.dtype.newbyteorder(">")).reshape(height, -1).view(np.uint8)
    rows = np.hstack([np.zeros((height, 1), np.uint8), rows])
    header = struct.pack(">IIBBBBB", *(size or (width, height)), pixels.itemsize * 8, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows.tobytes())) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def profile(space: bytes = b"RGB ", gamma: float = 1.8) -> bytes:
    """A small ICC profile: RGB with the primaries of Display P3 and another gamma, or grey."""

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = {b"desc": b"desc\0\0\0\0\0\0\0\x05test\0" + bytes(79), b"wtpt": xyz(0.9642, 1.0, 0.8249)}
    tags[b"cprt"] = b"text\0\0\0\0none\0\0\0\0"
    if space == b"RGB ":
        tags |= {b"rXYZ": xyz(0.5151, 0.2412, -0.0011), b"gXYZ": xyz(0.2920, 0.6922, 0.0419)}
        tags |= {b"bXYZ": xyz(0.1571, 0.0666, 0.7841), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    else:
        tags[b"kTRC"] = curve
    table, body, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        value += bytes(-len(value) % 4)
        table += name + struct.pack(">II", offset + len(body), len(value))
        body += value
    size = offset + len(body)
    white = struct.pack(">iii", 63190, 65536, 54061)
    header = struct.pack(">I", size) + b"lcms\x02\x10\0\0mntr" + space + b"XYZ " + bytes(12) + b"acsp" + bytes(28)
    return (header + white).ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


P3 = profile()
CAT: Array = data.chelsea()  # type: ignore[no-untyped-call]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# Not too bright, not too dark, not saturated: inside both sRGB and P3.
MILD = (RNG.integers(90, 166, (8, 8, 1)) + RNG.integers(-20, 21, (8, 8, 3))).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def saved(path: Path, picture: Array | Image.Image, **options: Any) -> Path:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(path, **options)
    return path


def stored(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# Reading: kinds of pixels


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm", ".tga"])
def test_rgb_is_read_exactly(folder: Path, suffix: str) -> None:
    picture = read(saved(folder / f"é 图{suffix}", RGB8))
    assert picture.pixels.dtype == torch.float32
    assert picture.pixels.is_contiguous()
    assert (picture.height, picture.width, picture.bit_depth) == (6, 9, 8)
    assert picture.alpha is None
    assert np.array_equal(levels(picture.pixels), RGB8)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif", ".gif", ".jp2"])
def test_lossy_formats_are_read_closely(folder: Path, suffix: str) -> None:
    smooth = np.broadcast_to(np.array([[[200, 60, 90]]], np.uint8), (16, 24, 3))
    picture = read(saved(folder / f"a{suffix}", np.ascontiguousarray(smooth)))
    assert picture.pixels.shape == (1, 3, 16, 24)
    assert np.abs(levels(picture.pixels) - smooth).max() <= 4


def test_photograph_is_what_pillow_reads(folder: Path) -> None:
    path = saved(folder / "cat.jpg", CAT)
    assert np.array_equal(levels(read(path).pixels), np.asarray(Image.open(path)))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "PA"])
def test_grey_palette_and_alpha_modes(folder: Path, mode: str) -> None:
    source = Image.fromarray(RGB8)
    if "A" in mode:
        source.putalpha(Image.fromarray(RGB8[..., 0]))
    image = source.convert("LA").convert("PA") if mode == "PA" else source.convert(mode)
    picture = read(saved(folder / ("a.tif" if mode == "PA" else "a.png"), image))
    rgba = np.asarray(image.convert("RGBA"))
    assert np.array_equal(levels(picture.pixels), rgba[..., :3])
    if "A" in mode:
        assert picture.alpha is not None
        assert np.array_equal(levels(picture.alpha)[..., 0], rgba[..., 3])
    else:
        assert picture.alpha is None


def test_what_is_stored_under_alpha_zero_is_not_seen(folder: Path) -> None:
    """The invisible pixels take the colours of the nearest visible ones, whatever the file stores there."""
    alpha = np.zeros((6, 9), np.uint8)
    alpha[:, 4:] = 200
    seen = []
    for number, hidden in enumerate((0, 77, 255)):
        colours = np.where(alpha[..., None] > 0, RGB8, np.uint8(hidden))
        picture = read(saved(folder / f"{number}.png", np.dstack([colours, alpha])))
        assert np.array_equal(levels(picture.pixels[..., 4:]), RGB8[:, 4:])
        seen.append(picture.pixels)
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])
    one = np.full((5, 7, 4), (0, 0, 0, 0), np.uint8)
    one[2, 3] = (10, 20, 30, 1)
    assert (levels(read(saved(folder / "one.png", one)).pixels) == [10, 20, 30]).all()
    assert (np.asarray(open_rgb(folder / "one.png")) == [10, 20, 30]).all()
    assert (levels(from_any(one), 255) == [10, 20, 30]).all()
    assert (levels(from_any(Image.fromarray(one)), 255) == [10, 20, 30]).all()
    one[2, 3, 3] = 0
    assert (levels(read(saved(folder / "none.png", one)).pixels) == 0).all()


def test_palette_with_transparency(folder: Path) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    for name, transparency in (("a.png", b"\xff\x00\x80"), ("b.gif", 1)):
        picture = read(saved(folder / name, image, transparency=transparency))
        assert levels(picture.pixels).tolist() == [[[255, 0, 0], [255, 0, 0], [0, 0, 255]]]  # the second is invisible
        assert picture.alpha is not None
        assert levels(picture.alpha)[0, :, 0].tolist() == [255, 0, 255 if name == "b.gif" else 128]


@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_transparent_colour_of_a_png(folder: Path, colour: bool, dtype: type) -> None:
    pixels = (RGB16 if dtype == np.uint16 else RGB8) if colour else (RGB16 if dtype == np.uint16 else RGB8)[..., :1]
    key = chunk(b"tRNS", b"".join(struct.pack(">H", int(value)) for value in pixels[2, 3]))
    picture = read(stored(folder / "a.png", png(pixels, 2 if colour else 0, key)))
    top = np.iinfo(dtype).max
    assert picture.alpha is not None
    expected = (pixels != pixels[2, 3]).any(-1)
    seen = (picture.pixels * top)[0].permute(1, 2, 0).numpy().round()
    assert np.array_equal(seen[expected], np.broadcast_to(pixels, (6, 9, 3))[expected])
    assert expected.sum() >= 52
    assert np.array_equal(picture.alpha[0, 0].numpy(), expected)


@pytest.mark.parametrize("inverted", [False, True])
def test_cmyk(folder: Path, inverted: bool) -> None:
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    if inverted:  # an Adobe JPEG stores the complement and says so in its APP14 segment, as Pillow does when it writes
        path = saved(folder / "a.jpg", cmyk, quality=100)
        assert b"Adobe" in path.read_bytes()
    else:
        path = saved(folder / "a.tif", cmyk)
    picture = read(path)
    assert np.abs(levels(picture.pixels) - [255, 0, 0]).max() <= 3
    assert picture.icc_profile is None


def test_cmyk_and_ycbcr_and_lab_tiffs(folder: Path) -> None:
    assert levels(read(saved(folder / "y.tif", Image.new("YCbCr", (2, 2), (255, 128, 128)))).pixels).min() >= 254
    lab = Image.new("LAB", (2, 2), (255, 128, 128))
    assert levels(read(saved(folder / "l.tif", lab)).pixels).min() >= 254


def test_first_frame_of_several(folder: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    for name in ("a.gif", "a.png", "a.webp", "a.tif"):
        path = saved(folder / name, frames[0], save_all=True, append_images=frames[1:])
        assert np.abs(levels(read(path).pixels) - [255, 0, 0]).max() <= 2


# Reading: 16 bits and more


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_grey_is_not_clipped(folder: Path, suffix: str) -> None:
    grey = np.array([[0, 255, 256], [32768, 65534, 65535]], np.uint16)
    picture = read(saved(folder / f"a{suffix}", grey))
    assert picture.bit_depth == 16
    assert float(picture.pixels[0, 0, 1, 0]) == np.float32(32768 / 65535)
    assert np.array_equal(levels(picture.pixels, 65535), np.repeat(grey[..., None], 3, 2))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bit_colour_round_trips_exactly(folder: Path, suffix: str, channels: int) -> None:
    pixels = np.dstack([RGB16, RGB16[..., :1]])[..., :channels]
    tensor = torch.from_numpy(pixels.astype(np.float32) / 65535).permute(2, 0, 1)[None]
    source = Picture(tensor[:, :3], tensor[:, 3:] if channels == 4 else None, None, P3, 16)
    write(folder / f"é 图{suffix}", source)
    picture = read(folder / f"é 图{suffix}")
    assert picture.bit_depth == 16
    assert picture.icc_profile == P3
    assert np.array_equal(levels(picture.pixels, 65535), RGB16)
    assert (picture.alpha is None) == (channels == 3)
    assert picture.alpha is None or np.array_equal(levels(picture.alpha, 65535)[..., 0], RGB16[..., 0])


@pytest.mark.parametrize(("colour_type", "channels"), [(2, [0, 1, 2]), (4, [0, 1]), (6, [0, 1, 2, 0])])
def test_sixteen_bit_png_of_each_type(folder: Path, colour_type: int, channels: list[int]) -> None:
    picture = read(stored(folder / "a.png", png(RGB16[..., channels], colour_type)))
    expected = RGB16[..., [0, 0, 0]] if colour_type == 4 else RGB16
    assert np.array_equal(levels(picture.pixels, 65535), expected)
    if colour_type != 2:
        assert picture.alpha is not None
        assert np.array_equal(levels(picture.alpha, 65535)[..., 0], RGB16[..., channels[-1]])


@pytest.mark.parametrize(
    "options", [{}, {"byteorder": ">"}, {"compression": "zlib", "predictor": True}, {"tile": (16, 16)}]
)
def test_sixteen_bit_tiff_of_other_writers(folder: Path, options: dict[str, Any]) -> None:
    tifffile.imwrite(folder / "rgb.tif", RGB16, photometric="rgb", **options)
    assert np.array_equal(levels(read(folder / "rgb.tif").pixels, 65535), RGB16)
    tifffile.imwrite(folder / "grey.tif", RGB16[..., 0], photometric="minisblack", **options)
    assert np.array_equal(levels(read(folder / "grey.tif").pixels, 65535)[..., 1], RGB16[..., 0])


def test_sixteen_bit_grey_tiff_may_claim_separate_planes(folder: Path) -> None:
    tifffile.imwrite(folder / "a.tif", RGB16[..., 0], photometric="minisblack", extratags=[(284, "H", 1, 2, True)])
    assert np.array_equal(levels(read(folder / "a.tif").pixels, 65535)[..., 1], RGB16[..., 0])


def test_premultiplied_sixteen_bit_tiff_is_straightened(folder: Path) -> None:
    premultiplied = np.broadcast_to(np.array([16384, 8192, 0, 32768], np.uint16), (4, 4, 4))
    tifffile.imwrite(folder / "a.tif", premultiplied, photometric="rgb", extrasamples=["assocalpha"])
    picture = read(folder / "a.tif")
    assert np.allclose(picture.pixels[0, :, 0, 0], [0.5, 0.25, 0], atol=0.01)


def test_white_is_zero_tiff(folder: Path) -> None:
    tifffile.imwrite(folder / "a.tif", np.array([[0, 65535]], np.uint16), photometric="miniswhite")
    assert levels(read(folder / "a.tif").pixels, 65535)[0, :, 0].tolist() == [65535, 0]


def test_separate_planes_of_sixteen_bits_are_refused(folder: Path) -> None:
    planes = np.ascontiguousarray(np.moveaxis(RGB16, -1, 0))
    tifffile.imwrite(folder / "a.tif", planes, photometric="rgb", planarconfig="separate")
    with pytest.raises(ImageError, match=r"a\.tif is a 16-bit TIFF with separate planes: save"):
        read(folder / "a.tif")


def test_thirty_two_bit_integers(folder: Path) -> None:
    path = saved(folder / "a.tif", Image.fromarray(np.array([[0, 32768, 65535]], np.int32)))
    assert levels(read(path).pixels, 65535)[0, :, 0].tolist() == [0, 32768, 65535]
    with pytest.raises(ImageError, match=r"values from 0 to 65536: scale them to 0\.\.65535"):
        read(saved(folder / "b.tif", Image.fromarray(np.array([[0, 65536]], np.int32))))


def test_floats(folder: Path) -> None:
    path = saved(folder / "a.tif", Image.fromarray(np.array([[0, 0.25, 1]], np.float32)))
    assert read(path).pixels[0, 2, 0].tolist() == [0, 0.25, 1]
    for bad in (1.5, -0.1, np.nan):
        with pytest.raises(ImageError, match=r"b\.tif has values"):
            read(saved(folder / "b.tif", Image.fromarray(np.array([[0, bad]], np.float32))))


# Reading: orientation, EXIF


@pytest.mark.parametrize("orientation", ORIENTED)
@pytest.mark.parametrize("kind", ["png", "png16", "tif", "tif16", "tif16grey", "jpg"])
def test_every_orientation_is_upright(folder: Path, orientation: int, kind: str) -> None:
    deep = "16" in kind
    upright = (RGB16 if deep else RGB8)[..., : 1 if "grey" in kind else 3]
    turned = np.ascontiguousarray(ORIENTED[orientation](upright))
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Kodak"
    path = folder / f"a.{kind[:3]}"
    if kind.startswith("tif"):
        tags = [(274, "H", 1, orientation, True), (271, "s", 0, "Kodak", True)]
        photometric = "minisblack" if "grey" in kind else "rgb"
        tifffile.imwrite(path, turned.squeeze(), photometric=photometric, extratags=tags)
    elif deep:
        stored(path, png(turned, 2, chunk(b"eXIf", exif.tobytes()[6:])))
    elif kind == "png":
        saved(path, turned, exif=exif)
    else:
        blocks = np.repeat(np.repeat(upright // 2 + 64, 16, 0), 16, 1)
        saved(path, np.ascontiguousarray(ORIENTED[orientation](blocks)), exif=exif, quality=100, subsampling=0)
        assert np.abs(levels(read(path).pixels) - blocks).max() <= 6
        assert np.array_equal(levels(read(path).pixels), np.asarray(open_rgb(path)))
        upright = levels(read(path).pixels)
    picture = read(path)
    top = 65535 if deep else 255
    assert np.array_equal(levels(picture.pixels, top), np.broadcast_to(upright, (*upright.shape[:2], 3)))
    assert picture.exif is not None
    kept = Image.Exif()
    kept.load(picture.exif)
    assert kept[0x010F] == "Kodak"
    assert kept.keys().isdisjoint([0x0112, 256, 257, 258, 259, 262, 273, 279])  # nor how a TIFF was stored


def rich_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x013B] = "José".encode()
    exif.get_ifd(0x8769).update({36867: "2024:05:06 07:08:09", 33437: 2.8, 37380: -0.5, 40962: 9, 40963: 6})
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 29.5)})
    return exif


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("depth", [8, 16])
def test_exif_goes_through_but_for_orientation_and_size(folder: Path, suffix: str, depth: int) -> None:
    picture = read(saved(folder / "a.jpg", RGB8, exif=rich_exif()))
    write(folder / f"b{suffix}", Picture(picture.pixels, exif=picture.exif, bit_depth=depth))
    again = read(folder / f"b{suffix}")
    assert (again.height, again.width) == (9, 6)
    with Image.open(folder / f"b{suffix}") as image:
        exif = image.getexif()
        assert exif.get(0x0112) is None
        assert exif[0x013B].encode("latin-1").decode() == "José"
        assert exif.get_ifd(0x8769) == {36867: "2024:05:06 07:08:09", 33437: 2.8, 37380: -0.5}
        assert exif.get_ifd(0x8825) == {1: "N", 2: (48.0, 51.0, 29.5)}


def test_broken_exif_does_not_stop_reading(folder: Path) -> None:
    whole = saved(folder / "a.jpg", RGB8, exif=rich_exif()).read_bytes()
    start = whole.index(b"Exif\0\0") + 6
    for at in range(start, start + 120, 3):
        stored(folder / "b.jpg", whole[:at] + b"\xff\xfe\xff" + whole[at + 3 :])
        assert read(folder / "b.jpg").pixels.shape[1] == 3


def test_exif_too_long_for_a_jpeg_is_left_out(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "x" * 70000
    source = read(saved(folder / "a.png", RGB8, exif=exif))
    assert len(source.exif or b"") > 70000
    write(folder / "a.jpg", source)
    assert read(folder / "a.jpg").exif is None


# Colour profiles


def test_profile_round_trip_within_two_levels(folder: Path) -> None:
    path = saved(folder / "a.png", MILD, icc_profile=P3)
    picture = read(path)
    assert picture.icc_profile == P3
    assert np.abs(levels(picture.pixels) - MILD).max() > 5  # another gamma: the numbers must have changed
    write(folder / "b.png", picture)
    with Image.open(folder / "b.png") as image:
        assert image.info["icc_profile"] == P3
        assert np.abs(np.asarray(image).astype(int) - MILD).max() <= 2


def test_profile_means_what_it_says(folder: Path) -> None:
    """A grey v in gamma 1.8 is the light (v/255)**1.8, which sRGB stores by its own curve."""
    picture = read(saved(folder / "a.png", np.full((2, 2, 3), 128, np.uint8), icc_profile=P3))
    light = (128 / 255) ** 1.8
    assert np.abs(levels(picture.pixels) - 255 * (1.055 * light ** (1 / 2.4) - 0.055)).max() <= 1.5


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".tif"])
def test_profile_is_kept_by_other_formats(folder: Path, suffix: str) -> None:
    flat = np.full((16, 16, 3), (140, 120, 100), np.uint8)
    write(folder / f"b{suffix}", read(saved(folder / "a.png", flat, icc_profile=P3)))
    with Image.open(folder / f"b{suffix}") as image:
        assert image.info["icc_profile"] == P3
        assert np.abs(np.asarray(image).astype(int) - flat).max() <= 3


def test_format_without_profile_gets_srgb(folder: Path) -> None:
    picture = read(saved(folder / "a.png", MILD, icc_profile=P3))
    write(folder / "b.bmp", picture)
    assert np.array_equal(levels(read(folder / "b.bmp").pixels), levels(picture.pixels))
    write(folder / "c.bmp", Picture(torch.full((1, 3, 2, 2), 128 / 255), icc_profile=P3, bit_depth=16))
    gamma = read(saved(folder / "d.png", np.full((2, 2, 3), 128, np.uint8), icc_profile=P3))
    assert np.array_equal(levels(read(folder / "c.bmp").pixels), levels(gamma.pixels))


def test_srgb_profile_changes_no_number_and_is_kept(folder: Path) -> None:
    picture = read(saved(folder / "a.png", RGB8, icc_profile=SRGB))
    assert np.array_equal(levels(picture.pixels), RGB8)
    write(folder / "b.png", picture)
    with Image.open(folder / "b.png") as image:
        assert image.info["icc_profile"] == SRGB
        assert np.array_equal(np.asarray(image), RGB8)


def test_grey_profile_is_converted_and_forgotten(folder: Path) -> None:
    grey = Image.new("L", (2, 2), 128)
    picture = read(saved(folder / "a.png", grey, icc_profile=profile(b"GRAY")))
    light = (128 / 255) ** 1.8
    assert np.abs(levels(picture.pixels) - 255 * (1.055 * light ** (1 / 2.4) - 0.055)).max() <= 1.5
    assert picture.icc_profile is None


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA"])
@pytest.mark.parametrize("broken", [b"junk", P3[:150], P3[:-30], profile(b"GRAY"), bytes(200)])
def test_broken_or_unfit_profile_is_ignored(folder: Path, mode: str, broken: bytes) -> None:
    fits = mode == "L" and broken == profile(b"GRAY")
    image = Image.new(mode, (4, 4), 200 if mode == "L" else tuple([200] * len(mode)))
    picture = read(saved(folder / "a.tif", image, icc_profile=broken))
    assert picture.icc_profile is None
    assert (levels(picture.pixels)[0, 0].tolist() != list(image.convert("RGB").getpixel((0, 0)))) is fits  # type: ignore[arg-type]


def test_rgb_profile_of_a_cmyk_picture_is_ignored(folder: Path) -> None:
    image = Image.new("CMYK", (4, 4), (50, 100, 150, 20))
    picture = read(saved(folder / "a.tif", image, icc_profile=P3))
    assert levels(picture.pixels)[0, 0].tolist() == list(image.convert("RGB").getpixel((0, 0)))  # type: ignore[arg-type]
    assert picture.icc_profile is None


def test_rgb_profile_of_a_grey_picture_is_used(folder: Path) -> None:
    picture = read(saved(folder / "a.png", Image.new("L", (2, 2), 128), icc_profile=P3))
    light = (128 / 255) ** 1.8
    assert np.abs(levels(picture.pixels) - 255 * (1.055 * light ** (1 / 2.4) - 0.055)).max() <= 1.5
    assert picture.icc_profile == P3


def test_broken_profile_in_a_picture_is_not_written(folder: Path) -> None:
    write(folder / "a.png", Picture(torch.zeros(1, 3, 2, 2), icc_profile=b"junk"))
    assert read(folder / "a.png").icc_profile is None


# Files that are no pictures


def test_missing_folder_empty_and_text(folder: Path) -> None:
    cases = {
        folder / "no.png": "no.png does not exist: check the name",
        folder: "is a folder: give the name of an image in it",
        stored(folder / "empty.png", b""): r"empty.png is empty \(0 bytes\)",
        stored(
            folder / "text.jpg", b"hello, this is a letter to you\n" * 9
        ): "text.jpg is not an image of a known format",
        stored(folder / "short.png", b"\x89PN"): "short.png is not an image of a known format, or is badly damaged",
        stored(
            folder / "a.heic", b"\0\0\0\x18ftypheic" + bytes(300)
        ): r"a.heic is a HEIC image: pip install 'perceptual\[heif\]', or save it as",
        stored(folder / "a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"): "not an image",
        folder / ("x" * 300 + ".png"): "cannot be read",
        folder / "empty.png" / "a.png": "cannot be read",
        folder / "a\0b.png": "a\0b.png",
    }
    for path, message in cases.items():
        for function in (read, open_rgb):
            with pytest.raises(ImageError, match=message) as caught:
                function(path)
            assert str(caught.value).startswith(str(path))


def test_permission_denied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(folder / "a.png", RGB8)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ImageError, match=r"a\.png cannot be read, permission is denied: make it readable"):
        read(path)


@pytest.mark.parametrize("kind", ["jpg", "png", "png16", "gif", "webp", "bmp", "tif", "tiflzw", "tif16", "avif", "ppm"])
def test_cut_files_are_errors(folder: Path, kind: str) -> None:
    source = CAT[:64, :96]
    suffix = kind[:4] if kind in ("avif", "webp") else kind[:3]
    path = folder / f"a.{suffix}"
    if kind.endswith("16"):
        write(path, Picture(from_any(source), bit_depth=16))
    else:
        saved(path, source, **({"compression": "tiff_lzw"} if kind == "tiflzw" else {}))
    whole = path.read_bytes()
    read(path)
    for part in (0.01, 0.1, 0.3, 0.5, 0.8, 0.95):
        stored(path, whole[: max(1, int(len(whole) * part))])
        for function in (read, open_rgb):
            with pytest.raises(ImageError, match=str(path)):
                function(path)


@pytest.mark.parametrize("kind", ["jpg", "png", "png16", "gif", "webp", "bmp", "tif", "tif16", "jp2"])
def test_flipped_bytes_are_a_picture_or_an_image_error(folder: Path, kind: str) -> None:
    path = folder / f"a.{kind.removesuffix('16')}"
    if kind.endswith("16"):
        write(path, Picture(from_any(RGB8), icc_profile=P3, exif=rich_exif().tobytes(), bit_depth=16))
    else:
        extras = {} if kind in ("gif", "bmp", "jp2") else {"exif": rich_exif(), "icc_profile": P3}
        saved(path, RGB8, **extras)
    whole, rng = path.read_bytes(), np.random.default_rng(1)
    for _ in range(25):
        broken = bytearray(whole)
        for at in rng.integers(0, len(whole), 3):
            broken[at] = rng.integers(0, 256)
        stored(path, bytes(broken))
        with contextlib.suppress(ImageError):
            picture = read(path, max_pixels=10**6)
            assert 0 <= picture.pixels.min() <= picture.pixels.max() <= 1


def test_bombs_are_refused_from_the_header(folder: Path) -> None:
    bomb = stored(folder / "bomb.png", png(RGB8, 2, size=(100_000, 100_000)))
    start = time.perf_counter()
    with pytest.raises(ImageError, match=r"bomb\.png is 100000 x 100000 px, and 1 to 400000000 pixels are allowed"):
        read(bomb)
    with pytest.raises(ImageError, match="100000 x 100000"):
        open_rgb(bomb)
    assert time.perf_counter() - start < 1
    path = saved(folder / "a.png", RGB8)
    with pytest.raises(ImageError, match="9 x 6 px, and 1 to 53 pixels"):
        read(path, max_pixels=53)
    read(path, max_pixels=54)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
@pytest.mark.parametrize("limit", [10, 40])
def test_the_limit_is_ours_and_not_pillows(
    folder: Path, suffix: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(folder / f"a{suffix}", RGB8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)  # the picture has 54: Pillow would refuse, or warn
    assert read(path).pixels.shape == (1, 3, 6, 9)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_pillows_own_limit_inside_a_decoder_is_an_image_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(folder / "a.webp", RGB8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ImageError, match="too large"):
        read(path)


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_no_pixels(folder: Path, size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=r"a\.png"):
        read(stored(folder / "a.png", png(RGB8, 2, size=size)))
    with pytest.raises(ImageError, match=r"a\.ppm"):
        read(stored(folder / "a.ppm", b"P6\n%d %d\n255\n" % size))


# open_rgb


def test_open_rgb_is_read_in_eight_bits(folder: Path) -> None:
    rgba = np.dstack([RGB8, RGB8[..., 0]])
    for path in (saved(folder / "a.png", rgba), saved(folder / "b.png", RGB8, icc_profile=P3)):
        image = open_rgb(path)
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), levels(read(path).pixels))
    grey = open_rgb(saved(folder / "c.png", np.array([[0, 32768, 65535]], np.uint16)))
    assert np.asarray(grey)[0, :, 0].tolist() == [0, 128, 255]
    assert np.array_equal(np.asarray(open_rgb(stored(folder / "d.png", png(RGB16, 2)))), RGB16 >> 8)


def test_draft_keeps_the_shorter_side(folder: Path) -> None:
    path = saved(folder / "a.jpg", CAT[:300, :400])
    assert open_rgb(path).size == (400, 300)
    for draft_size, size in ((300, (400, 300)), (150, (200, 150)), (76, (200, 150)), (75, (100, 75)), (10, (50, 38))):
        assert open_rgb(path, draft_size=draft_size).size == size
    assert open_rgb(path, draft_size=1000).size == (400, 300)
    small, whole = open_rgb(path, draft_size=150), open_rgb(path).resize((200, 150), Image.Resampling.BOX)
    assert np.abs(np.asarray(small).astype(int) - np.asarray(whole)).mean() < 3


# Writing


@given(height=st.integers(1, 20), width=st.integers(1, 20), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_png_round_trip_is_the_identity(folder: Path, height: int, width: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    tensor = from_any(pixels)
    write(folder / "a.png", tensor)
    assert torch.equal(read(folder / "a.png").pixels, tensor)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_alpha_is_kept(folder: Path, suffix: str) -> None:
    picture = Picture(from_any(np.full((16, 16, 3), 200, np.uint8)), torch.zeros(1, 1, 16, 16))
    picture.alpha[..., 8:] = 51 / 255  # type: ignore[index]
    write(folder / f"a{suffix}", picture)
    again = read(folder / f"a{suffix}")
    assert again.alpha is not None
    assert levels(again.alpha)[0, :, 0].tolist() == [0] * 8 + [51] * 8
    assert np.abs(levels(again.pixels) - 200).max() <= 2


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_alpha_is_laid_on_white(folder: Path, suffix: str) -> None:
    picture = Picture(torch.zeros(1, 3, 16, 32), torch.ones(1, 1, 16, 32))
    picture.alpha[..., 16:] = 0.2  # type: ignore[index]
    write(folder / f"a{suffix}", picture)
    again = levels(read(folder / f"a{suffix}").pixels)
    assert np.abs(again[:, :16] - 0).max() <= 2
    assert np.abs(again[:, 16:] - 204).max() <= 2


def test_alpha_of_another_size_is_fitted(folder: Path) -> None:
    alpha = torch.tensor([[[[0.0, 1.0]]]])
    write(folder / "a.png", Picture(torch.zeros(1, 3, 4, 8), alpha))
    again = read(folder / "a.png").alpha
    assert again is not None
    assert again.shape == (1, 1, 4, 8)
    assert again[0, 0, 0, 0] == 0
    assert again[0, 0, 0, -1] == 1
    assert bool((again[0, 0, 0].diff() >= 0).all())


def test_values_are_clamped_and_rounded_half_up(folder: Path) -> None:
    values = torch.tensor([-1.0, 0.5 / 255, 0.49 / 255, 1.5 / 255, 254.5 / 255, 2.0])
    write(folder / "a.png", values.expand(3, 1, 6))
    assert levels(read(folder / "a.png").pixels)[0, :, 0].tolist() == [0, 1, 0, 2, 255, 255]


def test_sixteen_bits_become_eight_elsewhere(folder: Path) -> None:
    for suffix in (".jpg", ".webp", ".bmp"):
        write(folder / f"a{suffix}", Picture(torch.full((1, 3, 8, 8), 0.5), bit_depth=16))
        again = read(folder / f"a{suffix}")
        assert again.bit_depth == 8
        assert np.abs(levels(again.pixels) - 128).max() <= 1


def test_tiff_is_read_by_others(folder: Path) -> None:
    tall = RNG.integers(0, 65536, (700, 500, 3), dtype=np.uint16)  # several strips
    write(folder / "a.tif", Picture(from_any(tall), icc_profile=P3, exif=read_exif(folder), bit_depth=16))
    assert np.array_equal(tifffile.imread(folder / "a.tif"), tall)
    write(folder / "b.tif", from_any(RGB8))
    assert np.array_equal(tifffile.imread(folder / "b.tif"), RGB8)


def read_exif(folder: Path) -> bytes | None:
    return read(saved(folder / "exif.jpg", RGB8, exif=rich_exif())).exif


def test_quality_matters(folder: Path) -> None:
    tensor = from_any(CAT[:64, :64])
    for suffix in ("jpg", "webp"):
        write(folder / f"low.{suffix}", tensor, quality=10)
        write(folder / f"high.{suffix}", tensor)
        assert (folder / f"low.{suffix}").stat().st_size * 2 < (folder / f"high.{suffix}").stat().st_size
    for quality in (0, 101):
        with pytest.raises(ConfigError, match="from 1 to 100"):
            write(folder / "a.jpg", tensor, quality=quality)


@pytest.mark.parametrize("name", ["a", "a.gif", "a.jpgg", ".png"])
def test_unknown_endings_name_the_known_ones(folder: Path, name: str) -> None:
    with pytest.raises(ImageError, match=r"\.png, \.jpg, \.jpeg, \.webp, \.tif, \.tiff, \.bmp"):
        write(folder / name, torch.zeros(1, 3, 2, 2))
    assert not (folder / name).exists()


def test_what_is_no_picture_is_not_written(folder: Path) -> None:
    zeros = torch.zeros(1, 3, 2, 2)
    nan = torch.full((1, 3, 2, 2), float("nan"))
    bad: list[Picture | torch.Tensor] = [nan, -nan, nan / 0, Picture(zeros, nan[:, :1]), zeros.expand(2, 3, 2, 2)]
    bad += [zeros[:, :1], zeros[0, 0], zeros[..., :0], torch.full((1, 3, 2, 2), float("inf"))]
    for picture in bad:
        with pytest.raises(ImageError, match=r"a\.png cannot be written"):
            write(folder / "a.png", picture)
    assert list(folder.iterdir()) == []


def test_sides_beyond_the_format(folder: Path) -> None:
    with pytest.raises(ImageError, match=r"WEBP allows at most 16383 pixels a side, not 16384 x 1"):
        write(folder / "a.webp", torch.zeros(1, 3, 1, 16384))
    with pytest.raises(ImageError, match=r"JPEG allows at most 65500 pixels a side, not 1 x 65501"):
        write(folder / "a.jpg", torch.zeros(1, 3, 65501, 1))
    write(folder / "a.webp", torch.zeros(1, 3, 1, 16383))
    write(folder / "a.jpg", torch.zeros(1, 3, 65500, 1))
    write(folder / "a.png", torch.zeros(1, 3, 65501, 1))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_full_disk_leaves_the_old_file(folder: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / f"a{suffix}"
    write(path, torch.zeros(1, 3, 4, 4))
    before = path.read_bytes()

    def full(self: Path, data: bytes) -> int:
        with open(self, "wb") as file:
            file.write(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="disk is full"):
        write(path, torch.ones(1, 3, 4, 4))
    assert path.read_bytes() == before
    assert [item.name for item in folder.iterdir()] == [path.name]


def test_write_changes_no_argument(folder: Path) -> None:
    source = Picture(torch.rand(1, 3, 4, 4) * 1.2, torch.rand(1, 1, 2, 2), icc_profile=P3)
    pixels, alpha = source.pixels.clone(), torch.clone(source.alpha) if source.alpha is not None else None
    for suffix in (".png", ".jpg", ".tif", ".webp", ".bmp"):
        write(folder / f"a{suffix}", source)
    assert torch.equal(source.pixels, pixels)
    assert alpha is not None
    assert source.alpha is not None
    assert torch.equal(source.alpha, alpha)


def test_threads_read_side_by_side(folder: Path) -> None:
    paths = [saved(folder / f"{k}.png", np.full((9, 9, 3), k, np.uint8), icc_profile=SRGB) for k in range(40)]
    filters = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        values = [int(levels(picture.pixels)[0, 0, 0]) for picture in pool.map(read, paths)]
    assert values == list(range(40))
    assert list(warnings.filters) == filters


def test_a_folder_in_the_way(folder: Path) -> None:
    (folder / "a.png").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        write(folder / "a.png", torch.zeros(1, 3, 2, 2))


# Pictures in memory


def test_numpy_kinds() -> None:
    expected = torch.from_numpy(RGB8.astype(np.float32) / 255).permute(2, 0, 1)[None]
    assert torch.equal(from_any(RGB8), expected)
    assert torch.equal(from_any(RGB8[None]), expected)
    assert torch.equal(from_any(np.stack([RGB8, RGB8])), expected.expand(2, -1, -1, -1))
    assert torch.equal(from_any(np.dstack([RGB8, RGB8[..., 0]])), expected)
    assert torch.equal(from_any(RGB8[..., 0]), expected[:, :1].expand(-1, 3, -1, -1))
    assert torch.equal(from_any(RGB8[..., :1]), expected[:, :1].expand(-1, 3, -1, -1))
    assert torch.equal(from_any(RGB8.astype(np.uint16) * 257), expected)
    assert torch.equal(from_any(RGB8.astype(">u2") * 257), expected)
    for dtype in (np.float32, np.float64):
        assert torch.allclose(from_any((RGB8 / 255).astype(dtype)), expected)
    assert torch.equal(from_any(RGB8[::-1]), expected.flip(2))


def test_torch_kinds() -> None:
    batch = torch.rand(2, 3, 4, 5)
    assert torch.equal(from_any(batch), batch)
    assert torch.equal(from_any(batch[0]), batch[:1])
    assert torch.equal(from_any(batch[:, :1]), batch[:, :1].expand(-1, 3, -1, -1))
    assert torch.equal(from_any(batch[0, :1]), batch[:1, :1].expand(-1, 3, -1, -1))
    assert from_any(batch.double()).dtype == from_any(batch.half()).dtype == torch.float32
    assert torch.equal(from_any((batch * 255).byte()), (batch * 255).byte().float() / 255)
    assert from_any(batch[:, :1]).is_contiguous()


def test_pillow_kinds(folder: Path) -> None:
    expected = from_any(RGB8)
    for mode in ("RGB", "RGBA", "CMYK"):
        assert torch.allclose(from_any(Image.fromarray(RGB8).convert(mode)), expected, atol=1e-6)
    turned = Image.fromarray(RGB8)
    turned.getexif()[0x0112] = 6
    assert torch.equal(from_any(turned), expected.rot90(-1, (2, 3)))
    assert (
        from_any(Image.fromarray(np.array([[32768]], np.uint16))).flatten().tolist() == [np.float32(32768 / 65535)] * 3
    )
    path = saved(folder / "a.png", MILD, icc_profile=P3)
    with Image.open(path) as image:
        assert torch.equal(from_any(image), read(path).pixels)
    path.write_bytes(path.read_bytes()[:-60])
    with Image.open(path) as image, pytest.raises(ImageError, match="The image is damaged"):
        from_any(image)
    with pytest.raises(ImageError, match="The image has no pixels"):
        from_any(Image.new("RGB", (0, 5)))


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        ("a.png", "A str is not an image"),
        (None, "A NoneType is not an image"),
        (RGB8.astype(np.int64), "array of int64"),
        (RGB8 > 9, "array of bool"),
        (RGB8.astype(np.uint32), "array of uint32"),
        (torch.zeros(3, 4, 5, dtype=torch.int32), r"tensor of torch\.int32"),
        (np.zeros((3, 8, 9), np.uint8), r"shape \(3, 8, 9\)"),
        (np.zeros((2, 2, 2, 2, 3), np.uint8), "shape"),
        (np.zeros(3, np.uint8), "shape"),
        (np.uint8(3) + np.zeros((), np.uint8), "not an image"),
        (torch.zeros(4, 5), r"shape \(4, 5\)"),
        (torch.zeros(4, 5, 5), r"shape \(4, 5, 5\)"),
        (torch.zeros(5, 4, 3), r"shape"),
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        (torch.zeros(1, 3, 0, 5), "no pixels"),
        (torch.zeros(0, 3, 5, 5), "no pixels"),
        (np.full((2, 2), np.nan), "NaN"),
        (torch.tensor([[[0.0, float("nan")]]]), "NaN"),
        (RGB8.astype(np.float32), "divide by 255"),
        (RGB8.astype(np.float32) - 128, "scale them"),
        (torch.tensor([[[-1.0, 1.0]]]), "scale them"),
        (torch.tensor([[[0.0, float("inf")]]]), "scale them"),
    ],
)
def test_what_is_no_picture(picture: object, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        from_any(picture)


def test_slight_overshoot_is_clamped() -> None:
    assert from_any(torch.tensor([[[-0.1, 1.1]]]))[0, 0, 0].tolist() == [0, 1]


KINDS: dict[str, Callable[[], Any]] = {
    "pil": lambda: Image.fromarray(RGB8),
    "pil-rgba": lambda: Image.fromarray(np.dstack([RGB8, RGB8[..., 0]])),
    "pil-grey": lambda: Image.fromarray(RGB8[..., 0]),
    "uint8": lambda: RGB8.copy(),
    "uint8-batch": lambda: np.stack([RGB8, RGB8]),
    "uint8-grey": lambda: RGB8[..., 0].copy(),
    "uint16": lambda: RGB16.copy(),
    "float32": lambda: RGB8.astype(np.float32) / 255,
    "float64-rgba": lambda: np.ones((6, 9, 4)),
    "tensor": lambda: torch.rand(3, 6, 9),
    "tensor-batch": lambda: torch.rand(2, 3, 6, 9),
    "tensor-uint8": lambda: torch.from_numpy(RGB8.copy()).permute(2, 0, 1),
    "tensor-half-grey": lambda: torch.rand(1, 6, 9).half(),
}


def contents(picture: Any) -> bytes:
    if isinstance(picture, Image.Image):
        return picture.tobytes() + picture.mode.encode()
    return bytes(np.asarray(picture).tobytes())


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_in_its_kind(kind: str) -> None:
    like = KINDS[kind]()
    before = contents(like)
    tensor = from_any(like)
    back = to_kind_of(tensor, like)
    assert type(back) is type(like) or isinstance(like, Image.Image)
    if isinstance(like, Image.Image):
        assert back.mode == ("RGBA" if like.mode == "RGBA" else "RGB")
        assert np.array_equal(np.asarray(back), np.asarray(like.convert(back.mode)))
    else:
        assert back.dtype == like.dtype
        assert back.ndim == max(like.ndim, 3)
        assert torch.allclose(from_any(back), tensor, atol=1e-6)
    tensor.zero_()
    back = to_kind_of(tensor + 2, like)
    if not isinstance(back, Image.Image):
        back[:] = 0
    assert contents(like) == before


def test_back_in_another_size() -> None:
    large = torch.full((1, 3, 12, 18), 0.5)
    assert to_kind_of(large, RGB8).shape == (12, 18, 3)
    assert to_kind_of(large, RGB8)[0, 0].tolist() == [128] * 3
    image = to_kind_of(large, Image.new("LA", (9, 6), (0, 51)))
    assert image.mode == "RGBA"
    assert image.size == (18, 12)
    assert image.getpixel((3, 3)) == (128, 128, 128, 51)
    assert to_kind_of(large.expand(2, -1, -1, -1), np.zeros((2, 6, 9, 3))).shape == (2, 12, 18, 3)


def test_back_into_what_does_not_fit() -> None:
    for result, like in (
        (torch.zeros(2, 3, 4, 4), RGB8),
        (torch.zeros(1, 1, 4, 4), RGB8),
        (torch.zeros(3, 4, 4), RGB8),
    ):
        with pytest.raises(ImageError, match="does not fit"):
            to_kind_of(result, like)
    with pytest.raises(ImageError, match="str is not an image"):
        to_kind_of(torch.zeros(1, 3, 4, 4), "a.png")
    with pytest.raises(ImageError, match="NaN"):
        to_kind_of(torch.full((1, 3, 4, 4), float("nan")), RGB8)


# resize


def test_resize_by_side() -> None:
    pixels = torch.rand(2, 3, 30, 40)
    before = pixels.clone()
    assert resize(pixels, longer_side=20).shape == (2, 3, 15, 20)
    assert resize(pixels, shorter_side=60).shape == (2, 3, 60, 80)
    assert resize(pixels, size=(7, 5)).shape == (2, 3, 7, 5)
    assert resize(torch.rand(1, 3, 1000, 2), longer_side=10).shape == (1, 3, 10, 1)
    for same in (resize(pixels, longer_side=40), resize(pixels, shorter_side=30), resize(pixels, size=(30, 40))):
        assert same is pixels
    assert torch.equal(pixels, before)


def test_resize_is_antialiased_and_clamped() -> None:
    stripes = torch.tensor([0.0, 1.0]).repeat(32).expand(1, 3, 64, 64)
    assert (resize(stripes, longer_side=8) - 0.5).abs().max() < 0.1
    edge = (torch.arange(64) >= 32).float().expand(1, 3, 64, 64)
    large = resize(edge, longer_side=256)
    assert large.min() == 0
    assert large.max() == 1


@pytest.mark.parametrize(
    "sizes", [{}, {"longer_side": 5, "shorter_side": 5}, {"longer_side": 0}, {"size": (0, 4)}, {"shorter_side": -3}]
)
def test_resize_refuses(sizes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="exactly one"):
        resize(torch.zeros(1, 3, 4, 4), **sizes)


# find


@pytest.fixture
def tree(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.jpg", "A.PNG", "notes.txt", ".hidden.png", "sub/c.webp", "sub/deep/d.tif", ".git/e.png", "x/f.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    (folder / "folder.png").mkdir()
    monkeypatch.chdir(folder)
    return folder


def names(*inputs: str | Path) -> list[str]:
    return [item.relative.as_posix() for item in find(inputs)]


def test_find_in_folders(tree: Path) -> None:
    everything = ["A.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.tif"]
    assert names(tree) == names(".") == names(str(tree) + "/") == everything
    assert [item.path for item in find([tree])] == [tree / name for name in everything]
    assert names("sub") == ["c.webp", "deep/d.tif"]
    assert [str(item.path) for item in find("sub")] == [
        os.path.join("sub", "c.webp"),
        os.path.join("sub", "deep", "d.tif"),
    ]


def test_find_files_and_globs(tree: Path) -> None:
    assert names("notes.txt", "b.jpg") == ["notes.txt", "b.jpg"]
    assert names(tree / "sub" / "c.webp") == ["c.webp"]
    assert names("*.jpg") == ["b.jpg"]
    assert names("*") == ["A.PNG", "b.jpg"]
    assert names("**/*") == names("**") == ["A.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.tif"]
    assert names(str(tree / "s*" / "*.webp")) == ["sub/c.webp"]
    assert names("sub/**/*.tif") == ["deep/d.tif"]
    assert names("sub/../*.jpg") == ["b.jpg"]


def test_find_takes_literal_names_first(tree: Path) -> None:
    for name in ("a[1].jpg", "a1.jpg", "my [pics]/g.png"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_bytes(b"x")
    assert names("a[1].jpg") == ["a[1].jpg"]
    assert names("a[12].jpg") == ["a1.jpg"]
    assert names("my [pics]") == names("my [pics]/*.png") == ["g.png"]


def test_find_gives_no_file_twice(tree: Path) -> None:
    assert names("b.jpg", "./b.jpg", tree / "b.jpg", "sub/../b.jpg", "*.jpg") == ["b.jpg"]
    assert names("sub/c.webp", "sub", ".") == ["c.webp", "deep/d.tif", "A.PNG", "b.jpg"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("nothing.png", "nothing.png does not exist"),
        ("*.gif", r"\*\.gif matches no file"),
        ("*.txt", "has no image in it: known endings are .*png"),
        ("x", "x has no image in it"),
        ("", "An empty name does not exist"),
        ("n" * 300, "n cannot be read|does not exist"),
    ],
)
def test_find_nothing(tree: Path, entry: str, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        find(["b.jpg", entry])


def test_known_suffixes() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif"} <= finding.IMAGE_SUFFIXES
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in finding.IMAGE_SUFFIXES)


def test_writable_suffixes(folder: Path) -> None:
    for suffix in images.WRITABLE_SUFFIXES:
        write(folder / f"a{suffix}", torch.zeros(1, 3, 2, 2))
        assert read(folder / f"a{suffix}").pixels.max() == 0


# What a file says of its resolution, few bits with transparency, wide colours


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".bmp"])
@pytest.mark.parametrize("bits", [8, 16])
def test_resolution_is_kept(folder: Path, suffix: str, bits: int) -> None:
    picture = read(saved(folder / "a.png", RGB8, dpi=(300, 150)))
    assert picture.dpi == pytest.approx((300, 150), abs=0.05)
    write(folder / f"b{suffix}", replace(picture, bit_depth=bits))
    with Image.open(folder / f"b{suffix}") as image:
        assert [float(value) for value in image.info["dpi"]] == pytest.approx([300, 150], abs=0.05)


def test_resolution_turns_with_the_picture(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = read(saved(folder / "a.png", RGB8, dpi=(300, 150), exif=exif))
    assert picture.dpi == pytest.approx((150, 300), abs=0.05)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_transparent_grey_of_a_png_of_few_bits(folder: Path, bits: int) -> None:
    """Eight values, of which the one that tRNS names, 1, is invisible."""
    values = [1, 0, 1, 0, 0, 0, 1, 1]
    row = b"\0" + int("".join(f"{value:0{bits}b}" for value in values), 2).to_bytes(bits, "big")
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 1, bits, 0, 0, 0, 0))
    body = chunk(b"tRNS", struct.pack(">H", 1)) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    picture = read(stored(folder / "a.png", b"\x89PNG\r\n\x1a\n" + header + body))
    assert picture.alpha is not None
    assert picture.alpha[0, 0, 0].tolist() == [1.0 - value for value in values]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_colours_that_srgb_has_not_are_kept_in_their_profile(folder: Path, suffix: str) -> None:
    vivid = np.zeros((8, 8, 3), np.uint8)
    vivid[:] = (0, 255, 0)
    picture = read(saved(folder / "a.png", vivid, icc_profile=P3), own_colours=True)
    assert picture.icc_profile == P3
    assert np.array_equal(levels(picture.pixels), vivid)
    write(folder / f"b{suffix}", picture, quality=100)
    with Image.open(folder / f"b{suffix}") as image:
        assert image.info["icc_profile"] == P3
        assert np.abs(np.asarray(image).astype(int) - vivid).max() <= 2


def test_a_premultiplied_tiff_of_16_bits_keeps_them(folder: Path) -> None:
    alpha = np.linspace(6554, 65535, 54).reshape(6, 9)
    straight = RGB16.astype(np.float64)
    stored_values = np.dstack([straight * alpha[..., None] / 65535, alpha]).round().astype(np.uint16)
    tifffile.imwrite(folder / "a.tif", stored_values, photometric="rgb", extrasamples=["assocalpha"])
    picture = read(folder / "a.tif")
    assert picture.bit_depth == 16
    assert picture.alpha is not None
    assert np.abs(picture.alpha[0, 0].numpy() * 65535 - alpha).max() <= 1
    assert np.abs(picture.pixels[0].permute(1, 2, 0).numpy() * 65535 - straight).max() <= 6  # half a level over 0.1


# --- links and pipes


def link(path: Path, to: str) -> None:
    try:
        path.symlink_to(to, target_is_directory=True)
    except OSError:
        pytest.skip("links cannot be made here")


def test_folders_that_are_links_are_searched_once_by_their_own_names(tmp_path: Path, photograph: Image.Image) -> None:
    for folder in ("in/real/deep", "outside", "in/.hidden"):
        (tmp_path / folder).mkdir(parents=True)
        photograph.save(tmp_path / folder / "x.png")
    link(tmp_path / "in" / "a_link", "real")  # comes before "real" in the alphabet
    link(tmp_path / "in" / "back", "..")  # where outside is, and in itself
    link(tmp_path / "in" / "real" / "deep" / "elsewhere", "../../../outside")
    found = [str(each.relative) for each in find([tmp_path / "in"])]
    assert sorted(found) == ["back/outside/x.png", "real/deep/x.png"]


def test_links_that_lead_back_do_not_keep_a_glob_for_ever(tmp_path: Path, photograph: Image.Image) -> None:
    """Two of them double the paths at each of 40 levels."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for name in ("in/a.png", "in/sub/b.png", "in/sub/c.jpg"):
        photograph.save(tmp_path / name)
    link(tmp_path / "in" / "one", ".")
    link(tmp_path / "in" / "two", ".")
    for pattern, names in {
        "**/*.png": ["a.png", "sub/b.png"],
        "**": ["a.png", "sub/b.png", "sub/c.jpg"],
        "sub/**/b.png": ["b.png"],
        "*/**/[bc].*": ["sub/b.png", "sub/c.jpg"],
    }.items():
        assert [str(each.relative) for each in find([tmp_path / "in" / pattern])] == names, pattern


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
@pytest.mark.parametrize("reading", [read, open_rgb, lambda path: find([path])])
def test_a_pipe_is_one_sentence_and_not_waited_for(tmp_path: Path, reading: Callable[[Path], object]) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match=r"pipe\.png is a device or a pipe: give a file"):
        reading(tmp_path / "pipe.png")


@pytest.mark.skipif(os.name != "posix", reason="links of POSIX")
def test_links_in_a_circle_are_one_sentence(tmp_path: Path) -> None:
    link(tmp_path / "a.png", "b.png")
    link(tmp_path / "b.png", "a.png")
    with pytest.raises(ImageError, match="does not exist"):
        find([tmp_path / "a.png"])
    with pytest.raises(ImageError, match="cannot be read"):
        read(tmp_path / "a.png")


# --- files of several pictures


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_the_pictures_in_a_file_are_counted(folder: Path, name: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    path = saved(folder / name, frames[0], save_all=True, append_images=frames[1:])
    assert read(path).frames == 3
    assert read(saved(folder / f"one{name}", frames[0])).frames == 1


def test_what_a_phone_puts_beside_a_jpeg_is_no_further_picture(folder: Path) -> None:
    image = Image.new("RGB", (8, 8), "red")
    image.save(folder / "a.jpg", "MPO", save_all=True, append_images=[image])
    assert read(folder / "a.jpg").frames == 1


def test_damage_behind_the_first_picture_does_not_keep_it_from_being_read(folder: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    whole = saved(folder / "a.gif", frames[0], save_all=True, append_images=frames[1:]).read_bytes()
    for cut in range(1, len(whole) // 2):
        picture = read(stored(folder / "b.gif", whole[:-cut]))
        assert 1 <= picture.frames <= 3
        assert np.array_equal(levels(picture.pixels)[0, 0], [255, 0, 0])
