"""`perceptual.images`: every kind of file and of picture in memory, by answers that can be checked by hand."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import tifffile
import torch
from PIL import Image, ImageCms
from skimage import data

from perceptual.errors import ImageError
from perceptual.images import Picture, from_any, open_rgb, read, write

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
    white = Image.new("YCbCr", (2, 2), (255, 128, 128))
    assert levels(read(saved(folder / "y.tif", white, compression="tiff_lzw")).pixels).min() >= 254
    if PIL.__version__ >= "13":  # older versions cannot read what they write here
        assert levels(read(saved(folder / "y.tif", white)).pixels).min() >= 254
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
    deep = np.array([[0, 128 * 257], [40_000, 65_535]], np.uint16)
    picture = read(saved(folder / "b.png", deep, icc_profile=profile(b"GRAY")))
    light = (deep / 65_535) ** 1.8
    expected = 255 * np.where(light < 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(255 * picture.pixels[0, 0].numpy() - expected).max() <= 1.5


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
