"""Image files: damage, limits, and writing."""

from __future__ import annotations

import contextlib
import errno
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_images import CAT, P3, RGB8, RGB16, RNG, SRGB, folder, levels, png, rich_exif, saved, stored  # noqa: F401  (fixtures)

from perceptual.errors import ConfigError, ImageError, OutputError
from perceptual.images import Picture, from_any, open_rgb, read, size_of, write

# --- damage and writing


def test_a_heic_picture_names_the_package_or_the_damage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = stored(folder / "a.heic", b"\0\0\0\x18ftypheic" + bytes(300))
    Image.init()  # or it would fill the copy of OPEN
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # type: ignore[arg-type]
    monkeypatch.setattr(Image, "OPEN", {name: way for name, way in Image.OPEN.items() if name != "HEIF"})
    with pytest.raises(ImageError, match=r"a\.heic is a HEIC image: pip install 'perceptual\[heif\]', or save it as"):
        read(file)

    def refuse(*_: object) -> None:
        raise SyntaxError("cannot be identified")

    monkeypatch.setitem(Image.OPEN, "HEIF", (refuse, lambda prefix: True))
    with pytest.raises(ImageError, match=r"a\.heic is a HEIC image that is damaged or of an unknown kind"):
        read(file)


def test_missing_folder_empty_and_text(folder: Path) -> None:
    cases = {
        folder / "no.png": "no.png does not exist: check the name",
        folder: "is a folder: give the name of an image in it",
        stored(folder / "empty.png", b""): r"empty.png is empty \(0 bytes\)",
        stored(
            folder / "text.jpg", b"hello, this is a letter to you\n" * 9
        ): "text.jpg is not an image of a known format",
        stored(folder / "short.png", b"\x89PN"): "short.png is not an image of a known format, or is badly damaged",
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


@pytest.mark.skipif(PIL.__version__ < "13", reason="older versions of Pillow have no limit inside their decoders")
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


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (torch.full((1, 3, 4, 4), 128.0), "go up to 128: divide by 255"),
        (torch.full((1, 3, 4, 4), 1, dtype=torch.int32), "A tensor of torch.int32 is not an image"),
        (np.zeros((4, 4, 3), np.int64), "An array of int64 is not an image"),
        ("photo.jpg", "A str is not an image"),
    ],
)
def test_pixels_of_another_kind_are_not_written(tmp_path: Path, pixels: Any, says: str) -> None:
    with pytest.raises(ImageError, match=says):
        write(tmp_path / "a.png", pixels)
    assert not list(tmp_path.iterdir())


def test_arrays_and_pillow_images_are_written_too(tmp_path: Path) -> None:
    array = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    for k, picture in enumerate((array, Image.fromarray(array), torch.from_numpy(array).permute(2, 0, 1))):
        write(tmp_path / f"{k}.png", picture)
        assert np.array_equal(np.asarray(Image.open(tmp_path / f"{k}.png")), array)
    clear = Image.fromarray(array).convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    write(tmp_path / "clear.png", clear)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "clear.png"))[..., 3], np.asarray(clear)[..., 3])
    with pytest.raises(ImageError, match="give an array with alpha as Picture"):
        write(tmp_path / "d.png", np.asarray(clear))


@pytest.mark.parametrize("ending", [".jpg", ".png", ".tif", ".webp"])
def test_the_size_of_a_turned_picture_is_that_of_its_pixels(tmp_path: Path, ending: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(tmp_path / f"a{ending}", exif=exif)
    assert size_of(tmp_path / f"a{ending}") == (60, 40)
    assert read(tmp_path / f"a{ending}").pixels.shape == (1, 3, 60, 40)


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
