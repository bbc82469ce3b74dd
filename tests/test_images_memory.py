"""Images in memory, and finding image files."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms, PngImagePlugin, features
from test_images import MILD, P3, RGB8, RGB16, chunk, folder, levels, profile, saved, stored  # noqa: F401  (fixtures)

from perceptual import cli, images
from perceptual.errors import ConfigError, ImageError
from perceptual.images import finding, from_any, open_rgb, read, resize, to_kind_of, write
from perceptual.images.finding import find

# --- pictures in memory


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
        ("a.png", r"A str is not an image: give PIL\.Image\.open\(path\)\."),
        ([np.zeros((4, 4, 3))], "A list is not an image: give a PIL image,"),
        (torch.zeros(3, 4, 4, device="meta"), "sparse or meta tensor is not an image"),
        (torch.zeros(3, 4, 4).to_sparse(), "sparse or meta tensor is not an image"),
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


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", ["numpy", "batch", "pillow", "torch"])
def test_bytes_stay_bytes(channels: int, kind: str) -> None:
    """All of them: the same levels as by way of floats, in memory of their own, there and back."""
    random = np.random.default_rng(channels)
    pixels = random.integers(0, 256, (31, 17, channels), np.uint8)
    pixels[..., 3:] |= 1  # visible
    picture: Any = {
        "numpy": pixels,
        "batch": pixels[None],
        "pillow": Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels),
        "torch": torch.from_numpy(pixels[..., :3].copy()).permute(2, 0, 1),
    }[kind]
    before = contents(picture)
    levels = from_any(picture, levels=True)
    assert levels.dtype == torch.uint8
    assert torch.equal(levels, torch.from_numpy(pixels[..., :3].copy()).permute(2, 0, 1)[None].expand(1, 3, -1, -1))
    assert torch.equal(levels, (from_any(picture) * 255).round().byte())
    back = to_kind_of(levels, picture)
    assert contents(back) == contents(to_kind_of(from_any(picture), picture))
    assert np.array_equal(from_any(back, levels=True), levels)
    levels.zero_()
    assert contents(picture) == before
    assert np.asarray(back).any()


def test_bytes_of_transparent_pixels_are_those_of_the_floats() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 17, 4), np.uint8)
    pixels[..., 3] *= pixels[..., 3] > 99
    for picture in (pixels, Image.fromarray(pixels)):
        assert torch.equal(from_any(picture, levels=True), (from_any(picture) * 255 + 0.5).floor().byte())


def test_one_row_with_alpha_that_is_upside_down(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(1, 256, (1, 9, 4), np.uint8)
    picture = Image.fromarray(pixels)
    picture.getexif()[0x0112] = 4
    assert np.array_equal(from_any(picture, levels=True)[0].permute(1, 2, 0), pixels[..., :3])


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


def test_levels_are_resized_as_levels() -> None:
    levels = torch.randint(0, 256, (1, 3, 20, 30), dtype=torch.uint8)
    small = images.resize(levels, size=(10, 15))
    assert small.dtype == torch.uint8
    assert torch.equal(small, images.like(images.resize(levels.float() / 255, size=(10, 15)), levels))


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
    for name in ("in/real/deep", "outside", "in/.hidden"):
        (tmp_path / name).mkdir(parents=True)
        photograph.save(tmp_path / name / "x.png")
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


# --- XMP

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
    b'xmp:Rating="5" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


def stored_xmp(path: Path) -> bytes | None:
    """What Pillow itself finds in a file."""
    with Image.open(path) as image:
        image.load()
        return image.info.get("xmp")


@pytest.mark.parametrize("source", [".jpg", ".webp", ".tif", ".png", ".avif"])
@pytest.mark.parametrize("target", [".jpg", ".webp", ".tif", ".png"])
@pytest.mark.parametrize("depth", [8, 16])
def test_xmp_goes_through_but_for_its_orientation(folder: Path, source: str, target: str, depth: int) -> None:
    image, options = Image.fromarray(RGB8), {"xmp": XMP}
    if source == ".png":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        options = {"pnginfo": info}
    if source == ".tif":
        options = {"tiffinfo": {700: XMP}}
    image.save(folder / f"a{source}", **options)
    picture = replace(read(folder / f"a{source}"), bit_depth=depth)
    write(folder / f"b{target}", picture)
    kept = stored_xmp(folder / f"b{target}")
    assert kept == XMP.replace(b'tiff:Orientation="6"', b"")
    assert read(folder / f"b{target}").xmp == kept


def test_xmp_that_does_not_fit_or_speaks_of_other_data_is_left_out(folder: Path) -> None:
    picture = read(saved(folder / "a.png", RGB8))
    write(folder / "b.jpg", replace(picture, xmp=b"<x/>" + b" " * 70_000))
    assert stored_xmp(folder / "b.jpg") is None
    write(folder / "b.bmp", replace(picture, xmp=XMP))
    Image.fromarray(RGB8).save(folder / "motion.jpg", xmp=XMP.replace(b"xmp:Rating", b"GCamera:MotionPhoto"))
    assert read(folder / "motion.jpg").xmp is None


# --- HEIC and AVIF


def encoder(kind: str) -> None:
    """Have Pillow write this kind of file, or skip the test."""
    if kind == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    elif not features.check("avif"):
        pytest.skip("this Pillow cannot write AVIF")


@pytest.mark.parametrize("kind", ["heic", "avif"])
def test_heic_and_avif_keep_orientation_profile_and_alpha_through_the_command(folder: Path, kind: str) -> None:
    """A red corner, turned by EXIF, half of the picture transparent, at strength 0, which paints nothing."""
    encoder(kind)
    upright = np.full((64, 96, 4), (40, 90, 160, 255), np.uint8)
    upright[:32, :32, :3] = (200, 40, 40)
    upright[:, 48:, 3] = 0
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Kodak"
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(upright)))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    turned.save(folder / f"a.{kind}", exif=exif.tobytes(), icc_profile=profile, quality=95)
    arguments = ["stylize", str(folder / f"a.{kind}"), "-o", str(folder / "b.png"), "--strength", "0"]
    assert cli.main(arguments) == 0
    with Image.open(folder / "b.png") as image:
        found, info = np.asarray(image), image.info
        assert image.getexif()[0x010F] == "Kodak"
        assert 0x0112 not in image.getexif()
    assert found.shape == upright.shape
    assert np.array_equal(found[..., 3], upright[..., 3])
    inside = np.zeros((64, 96), bool)
    inside[4:28, 4:28] = inside[36:60, 4:44] = True  # a few pixels off the edges, which lossy formats blur
    assert np.abs(found.astype(int) - upright)[inside].max() <= 6
    assert info["icc_profile"] == profile


@pytest.mark.parametrize("kind", ["heic", "avif"])
def test_damaged_heic_and_avif_end_in_one_sentence(folder: Path, kind: str) -> None:
    encoder(kind)
    data = saved(folder / f"a.{kind}", Image.fromarray(np.repeat(np.repeat(RGB8, 8, 0), 8, 1))).read_bytes()
    for cut in range(20, len(data), max(1, len(data) // 40)):
        path = stored(folder / f"b.{kind}", data[:cut])
        with pytest.raises(ImageError) as caught:
            read(path)
        assert len(str(caught.value).splitlines()) == 1
