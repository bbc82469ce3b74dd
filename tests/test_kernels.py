"""The passes over memory: the compiled ones and PyTorch's own agree, with each other and with arithmetic by hand."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from perceptual import cli
from perceptual.apply import Stylizer
from perceptual.fast import build, kernels, library, native, prepare_kernels
from perceptual.fast.folding import cells
from perceptual.fast.kernels import Range, Vector, accumulate, encode, extremes, measure, quantise

pytestmark = pytest.mark.usefixtures("one_thread", "seed")
CHANNELS = [3, 12, 16, 20, 64]  # the compiled ones take 16 at a time
close = torch.testing.assert_close


needs_compiler = pytest.mark.skipif(build.find_compiler() is None, reason="needs Linux and a C compiler")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ctypes.CDLL]:
    """Every variant that this processor can run, compiled as for a wheel."""
    folder = tmp_path_factory.mktemp("built")
    if not build.build(folder):
        return {}
    return {v: native.declare(ctypes.CDLL(str(folder / build.library_name(v)))) for v in library.runnable()}


@pytest.fixture(params=[*build.variants(), "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, built: dict[str, ctypes.CDLL]) -> str:
    """The test runs with each variant of the compiled kernels, and without any."""
    if request.param != "plain" and request.param not in built:
        pytest.skip("there is no C compiler, or this processor lacks the instructions")
    monkeypatch.setattr(kernels, "compiled", lambda: built.get(request.param))
    return str(request.param)


def truth(grid: Tensor) -> Range:
    flat = grid.double().flatten(0, -2).numpy()
    vectors = (flat.mean(0), flat.var(0), flat.min(0), flat.max(0))
    return Range(len(flat), *(vector.astype(np.float32) for vector in vectors))


def agree(one: Range, other: Range, tolerance: float = 1e-5) -> None:
    assert one.count == other.count
    spread = np.sqrt(other.variance).max()
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-6, atol=tolerance * spread)
    np.testing.assert_allclose(one.variance, other.variance, rtol=1e-4, atol=1e-10)
    assert np.array_equal(one.low, other.low)
    assert np.array_equal(one.high, other.high)


# --- measuring


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fold", [1, 2])
@pytest.mark.parametrize("channels", CHANNELS)
def test_measuring_gives_mean_variance_and_both_ends_by_channel(
    way: str, channels: int, fold: int, kind: torch.dtype
) -> None:
    grid = torch.randn(33, 17, fold, fold, channels) * torch.linspace(0.1, 30, channels) + torch.arange(channels)
    agree(measure(grid.to(kind)), truth(grid.to(kind)))


@pytest.mark.parametrize("rows", [1, 2, 129])  # 128 pixels at a time
def test_measuring_takes_any_number_of_pixels(way: str, rows: int) -> None:
    grid = torch.randn(rows, 1, 1, 1, 20)
    agree(measure(grid), truth(grid))


@pytest.mark.parametrize("fold", [1, 2])
def test_a_grid_that_counts_has_the_mean_and_variance_of_the_text_book(way: str, fold: int) -> None:
    pixels = 5 * 7 * fold**2
    found = measure(torch.arange(3.0 * pixels).view(5, 7, fold, fold, 3))  # channel c: c, c + 3, c + 6, ...
    last = 3.0 * (pixels - 1)
    assert found.count == pixels
    assert found.low.tolist() == [0, 1, 2]
    assert found.high.tolist() == [last, last + 1, last + 2]
    np.testing.assert_allclose(found.mean, last / 2 + np.arange(3), rtol=1e-6)
    np.testing.assert_allclose(found.variance, 9 * (pixels**2 - 1) / 12, rtol=1e-5)


def test_the_places_of_a_cell_count_as_pixels_of_one_channel(way: str) -> None:
    grid = torch.zeros(9, 5, 2, 2, 3)
    grid[:, :, 1, 1, 2] = 4  # a quarter of the last channel
    found = measure(grid)
    np.testing.assert_allclose(found.mean, [0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(found.variance, [0, 0, 3], atol=1e-5)
    assert found.high.tolist() == [0, 0, 4]


@pytest.mark.parametrize("value", [1e4, -1e4, 0.0, 0.1])
@pytest.mark.parametrize("fold", [1, 2])
def test_a_constant_grid_has_no_variance_whatever_its_mean(way: str, fold: int, value: float) -> None:
    found = measure(torch.full((33, 47, fold, fold, 20), value))
    np.testing.assert_allclose(found.mean, value, rtol=1e-5)
    assert (np.abs(found.variance) < 1e-6).all()  # which NaN is not


def test_a_small_variance_is_found_beside_a_large_mean(way: str) -> None:
    grid = 1e4 + torch.randn(65, 33, 1, 1, 16)
    np.testing.assert_allclose(measure(grid).variance, truth(grid).variance, rtol=1e-3)


def test_no_variance_is_negative_though_the_first_pixel_is_unlike_all_others(way: str) -> None:
    grid = torch.full((512, 512, 1, 1, 16), 8.17527961730957)
    grid[0, 0] = 0
    assert (measure(grid).variance >= 0).all()


def test_a_part_of_a_grid_that_is_not_contiguous_is_measured_too(way: str) -> None:
    grid = torch.randn(20, 30, 2, 2, 12)
    agree(measure(grid[3:11, 5:18]), truth(grid[3:11, 5:18]))


def test_several_threads_find_what_one_finds(way: str) -> None:
    grid = torch.randn(64, 48, 2, 2, 16)
    one = measure(grid)
    torch.set_num_threads(2)
    try:
        agree(measure(grid), one)
    finally:
        torch.set_num_threads(1)


def test_two_grids_can_be_measured_at_once(way: str) -> None:
    grids = [torch.randn(40, 30, 1, 1, 16) + k for k in range(2)]
    alone = [measure(grid) for grid in grids]
    start = threading.Barrier(2)

    def many(k: int) -> list[Range]:
        start.wait()
        return [measure(grids[k]) for _ in range(20)]

    with ThreadPoolExecutor(2) as pool:
        for k, found in enumerate(pool.map(many, range(2))):
            for each in found:
                agree(each, alone[k])


def vector(*values: float) -> Vector:
    return np.array(values, np.float32)


def test_the_range_of_two_parts_is_that_of_the_whole_by_hand() -> None:
    one = Range(2, vector(1), vector(1), vector(0), vector(2))  # 0 2
    other = Range(1, vector(7), vector(0), vector(7), vector(7))  # 7
    both = one.combined_with(other)  # 0 2 7: mean 3, variance (9 + 1 + 16) / 3
    assert both.count == 3
    np.testing.assert_allclose([*both.mean, *both.variance, *both.low, *both.high], [3, 26 / 3, 0, 7], rtol=1e-6)


@settings(deadline=None, max_examples=25)
@given(sizes=st.lists(st.integers(1, 40), min_size=2, max_size=4), mean=st.sampled_from([0.0, 5.0, -300.0]))
def test_the_range_of_all_parts_is_that_of_the_whole(sizes: list[int], mean: float) -> None:
    parts = [mean + k + torch.randn(rows, 3, 2, 2, 5) for k, rows in enumerate(sizes)]
    known = measure(parts[0])
    for part in parts[1:]:
        known = known.combined_with(measure(part))
    agree(known, truth(torch.cat(parts)))


# --- encoding


def grid_of(image: Tensor, fold: int) -> Tensor:
    """(rows, columns, C) as a new grid."""
    rows, columns, channels = image.shape
    grid = torch.empty(rows // fold, columns // fold, fold, fold, channels, dtype=image.dtype)
    (grid if fold == 1 else cells(grid)).copy_(image[:, :, None, None] if fold == 1 else cells(image[:, :, None, None]))
    return grid


def numbers(rows: int, columns: int, channels: int) -> Tensor:
    """Quarters from -32 to 32: exact in 16 bits, and a few products and sums of them in float32."""
    return torch.randint(-128, 129, (rows, columns, channels)) / 4


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("values", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32, torch.float16])
@pytest.mark.parametrize(("fold", "to"), [(1, 1), (1, 2), (2, 1), (2, 2)])
@pytest.mark.parametrize("channels", CHANNELS)
def test_encoding_multiplies_adds_cuts_off_and_goes_from_fold_to_fold(
    way: str, channels: int, fold: int, to: int, kind: torch.dtype, values: torch.dtype, relu: bool
) -> None:
    rows, columns = (7, 13) if fold == to == 1 else (6, 14)
    image = numbers(rows, columns, channels)
    multiply = 2.0 ** (torch.arange(channels) % 3 - 1)
    add = torch.full((channels,), 0.5 if relu else 90.5)  # uint8 without ReLU: its callers stay within 0 to 255
    expected = image * multiply + add
    expected = expected.clamp(min=0) if relu else expected
    frame = torch.full((rows // to + 3, columns // to + 3, to, to, channels), 77, dtype=kind)
    target = frame[1 : rows // to + 1, 2 : columns // to + 2]
    grid = grid_of(image.to(values), fold)
    encode(grid, multiply.numpy(), add.numpy(), target, relu=relu)
    assert torch.equal(target, grid_of(expected.to(kind), to))
    assert torch.equal(grid, grid_of(image.to(values), fold))
    target.fill_(77)
    assert (frame == 77).all()  # nothing beside the target was written


@pytest.mark.parametrize("fold", [1, 2])
def test_bytes_are_cut_off_at_both_ends_and_below_the_point(way: str, fold: int) -> None:
    image = torch.tensor([-9.0, -0.25, 0, 0.99, 1, 254.5, 255.5, 256, 300, 1e6]).repeat(2, 1)[..., None]
    target = torch.empty(1, 5, 2, 2, 1, dtype=torch.uint8)
    encode(grid_of(image, fold), vector(1), vector(0), target, relu=True)
    assert cells(target)[0, 0].flatten().tolist() == [0, 0, 0, 0, 1, 254, 255, 255, 255, 255]


def test_values_that_are_not_contiguous_are_encoded_too(way: str) -> None:
    image = numbers(8, 10, 12)
    values = grid_of(image, 2)[:, 1:4]
    target = torch.empty(4, 3, 2, 2, 12)
    encode(values, np.ones(12, np.float32), np.zeros(12, np.float32), target, relu=True)
    assert torch.equal(target, grid_of(image[:, 2:8].clamp(min=0), 2))


def test_pixels_of_a_picture_are_written_where_they_lie(way: str) -> None:
    picture = torch.zeros(1, 3, 8, 6, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    image = torch.randint(0, 256, (4, 6, 3)).float()
    target = picture[0, :, 2:6].permute(1, 2, 0)[:, :, None, None]
    encode(grid_of(image, 2), np.ones(3, np.float32), np.full(3, 0.5, np.float32), target, relu=True)
    assert torch.equal(picture[0, :, 2:6].permute(1, 2, 0).float(), image)
    assert not picture[..., :2, :].any()
    assert not picture[..., 6:, :].any()


# --- adding to the stream


@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
@pytest.mark.parametrize("channels", CHANNELS)
def test_the_stream_takes_a_multiple_and_tells_its_ends(way: str, channels: int, kind: torch.dtype) -> None:
    stream, values = numbers(5, 9, channels).to(kind), numbers(5, 9, channels)
    before = values.clone()
    multiply = 2.0 ** (torch.arange(channels) % 3 - 1)
    expected = stream.float() + values * multiply
    low, high = accumulate(stream, values, multiply.numpy())
    assert stream.dtype == kind
    assert torch.equal(stream.float(), expected)
    assert torch.equal(values, before)
    assert low.tolist() == expected.amin((0, 1)).tolist()
    assert high.tolist() == expected.amax((0, 1)).tolist()


def test_ends_are_the_least_and_the_largest_of_each_channel() -> None:
    low, high = extremes(torch.tensor([[[1.0, -5]], [[3, 2]], [[2, 0]]]))
    assert (low.tolist(), high.tolist()) == ([1, -5], [3, 2])


# --- quantising


def test_the_largest_weight_of_a_filter_is_level_127(way: str) -> None:
    weight = torch.tensor([[127.0, -64], [0.5, -1], [0, 0]])[..., None, None]
    levels, factors = quantise(weight, vector(1))
    assert levels.dtype == torch.int8
    assert levels[:2, :, 0, 0].tolist() == [[127, -64], [64, -127]]  # 63.5 is rounded to the even or away from 0: 64
    assert not levels[2].any()
    close(factors[:2], torch.tensor([1, 1 / 127]))


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("channels", CHANNELS)
def test_levels_times_factors_are_the_scaled_weight_to_half_a_level(way: str, channels: int, size: int) -> None:
    weight, scale = torch.randn(9, 2 * channels, size, size), 0.01 + torch.rand(channels)
    levels, factors = quantise(weight, scale.numpy())
    scaled = weight * scale.repeat(2)[:, None, None]  # the scale is repeated for the places of a cell
    off = (levels * factors[:, None, None, None] - scaled).abs() / factors[:, None, None, None]
    assert off.max() < 0.5001
    assert torch.equal(levels.abs().amax((1, 2, 3)), torch.full((9,), 127, dtype=torch.int8))


def test_weights_that_are_not_contiguous_are_quantised_too(way: str) -> None:
    weight = torch.randn(4, 6, 3, 3)
    levels, factors = quantise(weight, np.ones(6, np.float32))
    turned, again = quantise(weight.contiguous(memory_format=torch.channels_last), np.ones(6, np.float32))
    assert (levels.int() - turned.int()).abs().max() <= 1  # the two ways round a tie each in its own direction
    close(factors, again)


# --- what a wheel brings


@pytest.fixture
def undecided(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A process that has not chosen its kernels yet, with an empty cache."""
    monkeypatch.setattr(library, "_chosen", [])
    monkeypatch.delenv("PERCEPTUAL_KERNELS", raising=False)
    monkeypatch.setenv("PERCEPTUAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)


@needs_compiler
def test_a_build_has_every_variant_under_a_name_that_follows_the_source(tmp_path: Path) -> None:
    (tmp_path / "kernels-avx2-00000000.so").write_bytes(b"of an earlier build")
    files = build.build(tmp_path)
    assert [path.name for path in files] == [build.library_name(variant) for variant in build.variants()]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert {path.stat().st_mode & 0o777 for path in files} == {0o755}


def test_a_changed_source_has_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = build.library_name("baseline")
    (tmp_path / "other.c").write_text("int other;")
    monkeypatch.setattr(build, "SOURCE", tmp_path / "other.c")
    assert build.library_name("baseline") != before


def test_a_build_without_a_compiler_is_empty(no_compiler: None, tmp_path: Path) -> None:
    assert build.build(tmp_path) == []


@needs_compiler
def test_a_build_that_fails_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.c"
    broken.write_text("this is no C")
    monkeypatch.setattr(build, "compile_library", partial(build.compile_library, source=broken))
    assert build.build(tmp_path) == []
    assert list(tmp_path.iterdir()) == [broken]


@pytest.mark.parametrize(
    ("capability", "flags", "best"),
    [
        ("DEFAULT", "avx2", "baseline"),
        ("AVX2", "avx2 fma avx512_vbmi2 avx512vbmi", "avx2"),
        ("AVX512", "avx2 fma avx512f", "avx512"),
        ("AVX512", "avx2 avx512vbmi avx512_vbmi2", "vbmi"),
        ("AVX10_2", "avx2", "avx512"),
        ("new", "", "baseline"),
    ],
)
def test_the_processor_decides_the_variant(
    monkeypatch: pytest.MonkeyPatch, capability: str, flags: str, best: str
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(library, "processor", lambda: f"flags : {flags}")
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    assert library.runnable()[0] == best
    assert library.runnable()[-1] == "baseline"


def test_other_machine_types_have_the_baseline_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert library.runnable() == ["baseline"]
    assert "-march=native" in build.native_flags()
    assert not any("x86" in flag or "avx" in flag or "512" in flag for flag in build.native_flags())


@needs_compiler
def test_the_fastest_variant_that_loads_is_taken(tmp_path: Path) -> None:
    (tmp_path / "built").mkdir()
    build.build(tmp_path / "built")
    for damaged, variant in enumerate(library.runnable()):
        folder = tmp_path / variant  # one for each: the loader knows a file that it has loaded by its path
        shutil.copytree(tmp_path / "built", folder)
        for faster in library.runnable()[:damaged]:
            (folder / build.library_name(faster)).write_bytes(b"damaged")
        taken = library.installed(folder)
        assert taken is not None
        assert taken._name == str(folder / build.library_name(variant))


def test_a_folder_without_kernels_is_no_error(tmp_path: Path) -> None:
    assert library.installed(tmp_path) is None


# --- the choice


def test_painting_never_starts_a_compiler(undecided: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEPTUAL_KERNELS", "compile")  # which only the command reads
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("a compiler was started"))
    monkeypatch.setattr(build, "library_name", lambda variant: "missing.so")
    stylizer = Stylizer.load("wave", device="cpu", video=True)
    stylizer(torch.rand(1, 3, 160, 160))
    assert library.compiled() is None
    assert not undecided.exists()


def test_a_user_can_do_without_kernels(undecided: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEPTUAL_KERNELS", "0")
    assert not prepare_kernels(compile_here=True)
    assert library.compiled() is None
    assert not undecided.exists()


def test_other_systems_have_none(undecided: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert not prepare_kernels(compile_here=True)
    assert build.find_compiler() is None


@needs_compiler
def test_the_choice_is_made_once(undecided: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "installed", lambda: None)
    assert library.compiled() is None
    assert not prepare_kernels(compile_here=True)  # or the second painting would differ from the first by roundings
    assert not undecided.exists()


@needs_compiler
def test_kernels_compiled_here_are_preferred(undecided: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "installed", lambda: pytest.fail("not needed"))
    assert prepare_kernels(compile_here=True)
    assert library.compiled() is not None
    assert len(list((undecided / "kernels").iterdir())) == 2


def test_without_a_compiler_the_installed_kernels_are_used(
    undecided: Path, no_compiler: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "installed", lambda: "installed")
    assert prepare_kernels(compile_here=True)
    assert library.compiled() == "installed"


@pytest.mark.parametrize(("value", "compiles"), [(None, False), ("compile", True), ("0", False)])
def test_the_command_decides_before_its_first_picture(
    tiny_style: Path,
    photograph: Image.Image,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    value: str | None,
    compiles: bool,
) -> None:
    calls: list[bool] = []
    monkeypatch.setattr("perceptual.fast.prepare_kernels", lambda *, compile_here=False: calls.append(compile_here))
    if value is None:
        monkeypatch.delenv("PERCEPTUAL_KERNELS", raising=False)
    else:
        monkeypatch.setenv("PERCEPTUAL_KERNELS", value)
    photograph.save(tmp_path / "a.png")
    words = ["stylize", tmp_path / "a.png", "--style", tiny_style, "-o", tmp_path / "b.png"]
    assert cli.main([str(word) for word in words]) == 0
    assert calls == [compiles]
    assert ("compiling failed" in capsys.readouterr().err) == compiles


# --- compiling for this processor


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nothing is compiled yet, and this is the file to be."""
    path = tmp_path / "cache" / "kernels.so"
    monkeypatch.setattr(native, "library_path", lambda: path)
    return path


@needs_compiler
def test_the_file_is_named_after_the_processor_and_the_source(undecided: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [native.library_path()]
    monkeypatch.setattr(native, "processor", lambda: "another one")
    names.append(native.library_path())
    undecided.mkdir()
    (undecided / "other.c").write_text("int other;")
    monkeypatch.setattr(build, "SOURCE", undecided / "other.c")
    names.append(native.library_path())
    assert {path.parent for path in names} == {undecided / "kernels"}
    assert len({path.name for path in names}) == 3


@needs_compiler
def test_compiling_gives_kernels_and_leaves_nothing_else_behind(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = native.compiled_here()
    assert found is not None
    assert sorted(fresh.parent.iterdir()) == [fresh, hash_of(fresh)]
    monkeypatch.setattr(kernels, "compiled", lambda: found)
    grid = torch.randn(9, 7, 1, 1, 5)
    agree(measure(grid), truth(grid))
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert native.compiled_here() is not None  # from the cache


def test_a_missing_compiler_is_no_error(fresh: Path, no_compiler: None) -> None:
    assert native.compiled_here() is None


@needs_compiler
def test_a_cache_that_cannot_be_written_is_no_error(fresh: Path) -> None:
    fresh.parent.write_text("a file where the folder should be")
    assert native.compiled_here() is None


@needs_compiler
@pytest.mark.parametrize("source", ["this is no C", "void only_declared(void); void go(void) { only_declared(; }"])
def test_a_compiler_that_fails_is_no_error(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str
) -> None:
    (tmp_path / "broken.c").write_text(source)
    monkeypatch.setattr(build, "SOURCE", tmp_path / "broken.c")
    assert native.compiled_here() is None
    assert list(fresh.parent.iterdir()) == []


DAMAGED = [b"", b"garbage", b"\x7fELF" + bytes(60)]


def hash_of(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def keep(path: Path, content: bytes, digest: str | None = None) -> None:
    """Put a file into the cache with a SHA-256 that fits it, as only the user may."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o600)
    hash_of(path).write_text(digest or hashlib.sha256(content).hexdigest())
    hash_of(path).chmod(0o600)


@pytest.mark.parametrize("content", DAMAGED)
def test_a_file_that_is_no_library_is_no_error(fresh: Path, no_compiler: None, content: bytes) -> None:
    keep(fresh, content)
    assert native.compiled_here() is None


@needs_compiler
@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("content", DAMAGED)
def test_a_file_that_cannot_be_loaded_is_compiled_anew(fresh: Path, content: bytes, sealed: bool) -> None:
    keep(fresh, content, None if sealed else "0" * 64)
    assert native.compiled_here() is not None
    assert hash_of(fresh).read_text().strip() == hashlib.sha256(fresh.read_bytes()).hexdigest()


@needs_compiler
def test_a_file_that_was_cut_short_or_changed_is_never_loaded(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert native.compiled_here() is not None
    whole = fresh.read_bytes()
    loaded: list[object] = []
    monkeypatch.setattr("ctypes.CDLL", lambda *words, **_: loaded.append(words))
    for content in (whole[:-1], whole[: len(whole) // 2], whole[:-1] + bytes([whole[-1] ^ 1])):
        fresh.unlink()  # this process still runs the first one
        fresh.write_bytes(content)
        with native._open_folder(fresh) as folder:
            assert native.load(fresh.name, folder) is None
    assert loaded == []


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("name", ["kernels.so", "kernels.so.sha256"])
@pytest.mark.parametrize("way_in", ["writable by the group", "writable by all", "a link", "a pipe", "of another user"])
def test_only_files_of_the_user_alone_are_loaded(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, name: str, way_in: str
) -> None:
    loaded: list[str] = []

    def load(file: str, mode: int) -> None:
        loaded.append(file)
        raise OSError("not loaded in this test")

    monkeypatch.setattr("ctypes.CDLL", load)
    keep(fresh, b"a library")
    with native._open_folder(fresh) as folder:
        native.load(fresh.name, folder)
    assert len(loaded) == 1
    path = fresh.with_name(name)
    if way_in.startswith("writable"):
        path.chmod(0o620 if "group" in way_in else 0o602)
    elif way_in == "a link":
        path.rename(fresh.with_name("elsewhere"))
        path.symlink_to("elsewhere")
    elif way_in == "a pipe":
        path.unlink()
        os.mkfifo(path, 0o600)
    elif os.geteuid() == 0:
        os.chown(path, 65534, -1)
    else:
        pytest.skip("only root can give a file away")
    with native._open_folder(fresh) as folder:
        assert native.load(fresh.name, folder) is None
    assert len(loaded) == 1


@needs_compiler
@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_a_folder_that_others_can_write_to_is_closed_and_its_file_compiled_anew(fresh: Path, mode: int) -> None:
    keep(fresh, b"planted")
    fresh.parent.chmod(mode)
    assert native.compiled_here() is not None
    assert fresh.read_bytes() != b"planted"
    assert fresh.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.name != "posix", reason="users of POSIX")
def test_nothing_is_loaded_from_a_folder_of_another_user(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(fresh, b"planted")
    user = os.geteuid()
    monkeypatch.setattr("os.geteuid", lambda: user + 1)
    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: pytest.fail("loaded"))
    assert native.compiled_here() is None
    assert fresh.read_bytes() == b"planted"


@needs_compiler
def test_the_cache_is_the_users_alone(fresh: Path) -> None:
    before = os.umask(0)
    try:
        native.compiled_here()
    finally:
        os.umask(before)
    assert fresh.parent.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o077 for path in fresh.parent.iterdir()] == [0, 0]


@needs_compiler
def test_what_a_killed_compiler_left_is_removed_after_an_hour(fresh: Path) -> None:
    fresh.parent.mkdir(mode=0o700)
    now = time.time()
    for name, age in (("build-old.o", 3700), ("build-new.o", 60), ("mine.o", 9000)):
        fresh.with_name(name).write_bytes(b"")
        os.utime(fresh.with_name(name), (now - age, now - age))
    native.compiled_here()
    assert {path.name for path in fresh.parent.iterdir()} == {"build-new.o", "mine.o", fresh.name, hash_of(fresh).name}
