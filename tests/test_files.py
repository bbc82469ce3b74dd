"""`write_beside`: a file is there whole or not at all, and whatever goes wrong is one sentence."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perceptual import files
from perceptual.errors import ImageError, OutputError
from perceptual.files import write_beside

posix = pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")


def assert_one_sentence(error: BaseException, path: Path) -> None:
    text = str(error)
    assert str(path) in text
    assert "\n" not in text
    assert text.endswith(".")


def write_half(temporary: Path, error: BaseException) -> None:
    temporary.write_text("half")
    raise error


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    path.write_text("old")
    return path


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A folder that may not be entered; root may enter any, so root becomes somebody else for the test."""
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o000)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(user)
    folder.chmod(0o700)


def test_success_renames_and_leaves_one_file(old: Path) -> None:
    with write_beside(old) as temporary:
        temporary.write_text("new")
        assert old.read_text() == "old"
    assert old.read_text() == "new"
    assert list(old.parent.iterdir()) == [old]


def test_the_temporary_lies_in_a_hidden_folder_beside_with_the_same_name(old: Path) -> None:
    with write_beside(str(old)) as temporary:
        folder = temporary.parent.resolve()
        assert temporary.name == old.name
        assert (folder.parent, folder.name[0]) == (old.parent, ".")
        assert os.name != "posix" or folder.stat().st_mode & 0o777 == 0o700


def test_two_writers_of_one_file_do_not_share_a_temporary(old: Path) -> None:
    with write_beside(old) as first, write_beside(old) as second:
        assert first != second
        first.write_text("first")  # the outer one: it ends last
        second.write_text("second")
    assert old.read_text() == "first"
    assert list(old.parent.iterdir()) == [old]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), GeneratorExit(), ImageError("x.")])
def test_a_failure_passes_through_and_keeps_the_old_file(old: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, write_beside(old) as temporary:
        write_half(temporary, error)
    assert caught.value is error
    assert old.read_text() == "old"
    assert list(old.parent.iterdir()) == [old]


def test_a_failure_where_nothing_was_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), write_beside(tmp_path / "new.png"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_missing_parents_are_made(tmp_path: Path) -> None:
    with write_beside(tmp_path / "a" / "b" / "c.txt") as temporary:
        temporary.write_text("deep")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "deep"


def test_a_bare_name_goes_to_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with write_beside("ünï (1).txt") as temporary:
        temporary.write_text("here")
    assert [path.name for path in tmp_path.iterdir()] == ["ünï (1).txt"]


def test_a_folder_in_the_way_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="is a folder") as caught, write_beside(tmp_path / "folder"):
        pytest.fail("there is nothing to write to")
    assert_one_sentence(caught.value, tmp_path / "folder")


@pytest.mark.parametrize("below", ["x.png", "y/x.png"])
def test_a_file_in_the_place_of_a_parent_is_one_sentence(old: Path, below: str) -> None:
    with pytest.raises(OutputError, match="a file, not a folder") as caught, write_beside(old / below):
        pytest.fail("there is nothing to write to")
    assert_one_sentence(caught.value, old / below)
    assert old.read_text() == "old"


@pytest.mark.parametrize("place", [(os, "fsync"), (os, "replace"), (tempfile, "mkdtemp")], ids=lambda place: place[1])
@pytest.mark.parametrize(
    ("code", "says"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "permission is denied"),
        (errno.EPERM, "permission is denied"),
        (errno.EROFS, "read-only"),
        (errno.EIO, os.strerror(errno.EIO).lower()),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else "",
)
def test_what_the_disk_refuses_is_one_sentence_and_keeps_the_old_file(
    old: Path, monkeypatch: pytest.MonkeyPatch, place: tuple[object, str], code: int, says: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(*place, refuse)
    with pytest.raises(OutputError, match=says) as caught, write_beside(old) as temporary:
        temporary.write_text("new")
    assert_one_sentence(caught.value, old)
    assert old.read_text() == "old"
    assert list(old.parent.iterdir()) == [old]


def test_a_disk_that_fills_while_writing_is_one_sentence(old: Path) -> None:
    with pytest.raises(OutputError, match="the disk is full") as caught, write_beside(old) as temporary:
        write_half(temporary, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert_one_sentence(caught.value, old)
    assert list(old.parent.iterdir()) == [old]


def test_the_bytes_are_on_the_disk_before_the_name(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, real=real: (calls.append(name), real(*a))[1])
    with write_beside(old) as temporary:
        temporary.write_text("new")
    assert calls == ["fsync", "replace"]


@posix
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        with write_beside(tmp_path / "x") as temporary:
            temporary.write_text("x")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == mode


@posix
def test_a_folder_that_may_not_be_entered_is_one_sentence(locked: Path) -> None:
    with pytest.raises(OutputError, match="permission is denied") as caught, write_beside(locked / "x.png"):
        pytest.fail("there is nothing to write to")
    assert_one_sentence(caught.value, locked / "x.png")


@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + "/x.png"])
def test_a_name_too_long_is_one_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="too long") as caught, write_beside(tmp_path / name):
        pytest.fail("there is nothing to write to")
    assert_one_sentence(caught.value, tmp_path / name)


@pytest.mark.parametrize("name", ["x" * 250 + ".png", "é" * 125 + ".png"])
def test_the_longest_name_that_a_disk_holds_can_be_written(tmp_path: Path, name: str) -> None:
    with write_beside(tmp_path / name) as temporary:
        temporary.write_text("long")
    assert [path.name for path in tmp_path.iterdir()] == [name]


# --- folders that others can write to


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o755])
def test_a_file_that_is_replaced_keeps_its_permissions(old: Path, mode: int) -> None:
    old.chmod(mode)
    with write_beside(old) as temporary:
        temporary.write_text("new")
    assert (old.read_text(), old.stat().st_mode & 0o777) == ("new", mode)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file elsewhere that must stay as it is."""
    path = tmp_path / "elsewhere" / "secret"
    path.parent.mkdir()
    path.write_text("secret")
    path.chmod(0o600)
    return path


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs paths by descriptor")
def test_a_link_in_place_of_the_hidden_folder_leads_nowhere(old: Path, secret: Path) -> None:
    """What another user can do in a folder that both can write to: rename what lies there, and put a link there."""
    planted = secret.with_name(old.name)
    planted.write_text("planted")
    with write_beside(old) as temporary:
        (hidden,) = (path for path in old.parent.iterdir() if path.name.startswith(".picture-perceptual-"))
        hidden.rename(old.parent / "moved")
        hidden.symlink_to(secret.parent)
        temporary.write_text("new")
    assert old.read_text() == "new"
    assert (planted.read_text(), secret.read_text(), secret.stat().st_mode & 0o777) == ("planted", "secret", 0o600)


@posix
@pytest.mark.parametrize("link", [True, False])
def test_an_exchanged_file_is_one_sentence(old: Path, secret: Path, link: bool) -> None:
    def exchange(temporary: Path) -> None:
        temporary.unlink()
        temporary.symlink_to(secret) if link else temporary.write_text("planted")

    with pytest.raises(OutputError, match="another process exchanged") as caught, write_beside(old) as temporary:
        exchange(temporary)
    assert_one_sentence(caught.value, old)
    assert (old.read_text(), secret.read_text(), secret.stat().st_mode & 0o777) == ("old", "secret", 0o600)
    assert sorted(old.parent.iterdir()) == [secret.parent, old]


@posix
def test_a_pipe_in_the_way_is_one_sentence_and_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="a device or a pipe") as caught, write_beside(tmp_path / "pipe"):
        pytest.fail("there is nothing to write to")
    assert_one_sentence(caught.value, tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


@posix
@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_the_file_it_leads_to_is_written(tmp_path: Path, there: bool) -> None:
    (tmp_path / "store").mkdir()
    file, first, second = tmp_path / "store/file", tmp_path / "first.png", tmp_path / "second.png"
    first.symlink_to("store/file")
    second.symlink_to(first)
    if there:
        file.write_text("old")
        file.chmod(0o600)
    with write_beside(second) as temporary:
        assert (temporary.name, temporary.parent.resolve().parent) == ("second.png", file.parent)
        temporary.write_text("new")
    assert file.read_text() == "new"
    assert not there or file.stat().st_mode & 0o777 == 0o600
    assert first.is_symlink()
    assert second.is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["first.png", "second.png", "store"]
    assert os.listdir(tmp_path / "store") == ["file"]


@posix
def test_a_link_into_a_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("disk/a.png")
    told = r"a\.png: a folder in its path, or in that of its link, is missing"
    with (
        pytest.raises(OutputError, match=told),
        write_beside(tmp_path / "a.png"),
    ):
        pytest.fail("there is nothing to write to")
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a link away")
def test_a_link_of_another_user_is_replaced_and_not_followed(old: Path) -> None:
    link = old.with_name("link.png")
    link.symlink_to(old)
    os.lchown(link, 65534, -1)
    with write_beside(link) as temporary:
        temporary.write_text("new")
    assert (old.read_text(), link.is_symlink(), link.read_text()) == ("old", False, "new")


@posix
def test_links_in_a_circle_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for path in (tmp_path / "a", tmp_path / "a" / "x.png"):
        with pytest.raises(OutputError, match="links form a circle") as caught, write_beside(path):
            pytest.fail("there is nothing to write to")
        assert_one_sentence(caught.value, path)


# --- killed processes

WRITE = """
import sys, time
from perceptual.files import write_beside
with write_beside(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


@posix
def test_a_folder_that_another_process_removes_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process takes the new folder for a leftover: before it is opened, or after that."""
    real_open, real_lock = os.open, files._lock
    removed: list[str] = []

    def open_late(name: Any, flags: int, *more: Any, **options: Any) -> int:
        if len(removed) == 0 and "-perceptual-" in str(name):
            removed.append(str(name))
            os.rmdir(name)
        return real_open(name, flags, *more, **options)

    def lock_late(descriptor: int) -> bool | None:
        if len(removed) == 1:
            removed.append(os.readlink(f"/proc/self/fd/{descriptor}"))
            os.rmdir(removed[-1])
        return real_lock(descriptor)

    monkeypatch.setattr(os, "open", open_late)
    if os.path.isdir("/proc/self/fd"):
        monkeypatch.setattr(files, "_lock", lock_late)
    with write_beside(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
    assert removed
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "whole"


@posix
def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_cleaned", set())
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITE, str(tmp_path / name)], stdout=subprocess.PIPE)
        for name in ("killed.mp4", "living.mp4")
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"writing\n"
        writers[0].kill()
        writers[0].wait()
        (tmp_path / ".mine-perceptual-abc").mkdir()
        (tmp_path / ".notes-perceptual-abcdefgh").mkdir(mode=0o755)  # not as we make them
        with write_beside(tmp_path / "next.png") as temporary:
            temporary.write_text("next")
        left = sorted(path.name[:7] for path in tmp_path.iterdir())
        assert left == [".living", ".mine-p", ".notes-", "next.pn"]
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
