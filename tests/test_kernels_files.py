"""The compiled kernels: what a wheel brings, the choice, and compiling for this processor."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_kernels import agree, needs_compiler, truth

from perceptual import cli
from perceptual.apply import Stylizer
from perceptual.fast import build, kernels, library, native, prepare_kernels
from perceptual.fast.kernels import measure

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


@pytest.mark.slow
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


@pytest.mark.slow
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
