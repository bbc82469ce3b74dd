"""Damaged videos, and mistakes in arguments."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import clips
import numpy as np
import pytest
from test_video import convert, folder, invert  # noqa: F401  (fixtures)
from torch import Tensor

from perceptual.config import VideoConfig
from perceptual.errors import ConfigError, OutputError, PerceptualError, VideoError
from perceptual.video import Conversion, Reader, Writer

# --- damage and mistakes


def damage(path: str, *places: float, length: int = 60) -> None:
    """Overwrite bytes at shares of the file's length."""
    data = bytearray(Path(path).read_bytes())
    for place in places:
        at = int(len(data) * place)
        data[at : at + length] = b"\xa5" * length
    Path(path).write_bytes(data)


def truncate(path: str, share: float) -> None:
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("a.mp4", {"prepare": lambda output, stream: output.container_options.update(movflags="faststart")}),
        ("a.mkv", {}),
        ("a.avi", {"tick": Fraction(1, 24), "options": {"bf": "0"}}),
    ],
)
def test_a_film_that_breaks_off_gives_what_is_there_and_says_so(name: str, settings: dict[str, Any]) -> None:
    clips.make(name, count=120, sound="libmp3lame", **settings)
    truncate(name, 0.4)
    conversion, said = convert(name, "b.mp4", invert)
    shown = clips.numbers("b.mp4", inverted=True)
    assert 20 < len(shown) < 80
    assert shown == list(range(len(shown)))
    assert conversion.damage
    assert f"{name} is incomplete: it ends after" in said
    assert "of 5.0 s" in said


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
@pytest.mark.parametrize("length", [1000, 10_000])
def test_damaged_parts_are_counted_and_passed_over(name: str, length: int) -> None:
    clips.make(name, count=96, options={"g": "8", "bf": "0", "crf": "20"}, picture=noise, sound="aac")
    damage(name, 0.3, 0.6, length=length)
    conversion, said = convert(name, "b.mp4")
    assert 1 <= conversion.damage <= 8
    assert said.startswith(f"{name} has ")
    assert said.endswith(" The output contains the rest.")
    assert 70 < len(clips.times("b.mp4")) <= 96
    assert clips.times("b.mp4")[-1] == pytest.approx(95 / 24, abs=0.05)


def noise(index: int, size: tuple[int, int]) -> clips.Array:
    return np.random.default_rng(index).integers(0, 256, (size[1], size[0], 3), np.uint8)


def test_a_whole_film_has_no_damage() -> None:
    for name in ("a.mp4", "a.mkv", "a.ts", "a.avi"):
        tick = Fraction(1, 24) if name == "a.avi" else Fraction(1, 90_000)
        clips.make(name, count=48, sound="libmp3lame", tick=tick, options={"bf": "0" if name == "a.avi" else "2"})
        for part in ({}, {"start": "0.7"}, {"start": "0.3", "end": "1.2"}):
            conversion, said = convert(name, "b.mp4", **part)
            assert (conversion.damage, said) == (0, ""), (name, part)


def without_index(path: str) -> None:
    """As a camera leaves a film when its battery is taken out."""
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: data.rindex(b"moov") - 4])


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("missing.mp4", "There is no video missing.mp4"),
        ("folder", "folder"),
        ("empty.mp4", "empty.mp4 is empty"),
        ("text.mp4", "text.mp4 is not a video"),
        ("text.txt", "text.txt is not a video"),
        ("photo.png", "photo.png is not a video but a photo: use `perceptual stylize`"),
        ("photo.jpg", "photo.jpg is not a video but a photo"),
        ("sound.m4a", "sound.m4a has no video stream"),
        ("cut.mp4", "cut.mp4 has no index"),
        ("noise.mp4", "noise.mp4 is not a video"),
        ("long" * 99 + ".mp4", "There is no video longlong"),
        ("~no_such_person/a.mp4", "There is no video ~no_such_person/a.mp4: check its name"),
        ("\0.mp4", "There is no video"),
        ("locked/a.mp4", "locked/a.mp4 cannot be read: permission is denied"),
    ],
)
def test_what_is_no_film_is_one_sentence_and_leaves_no_file(
    monkeypatch: pytest.MonkeyPatch, name: str, parts: str
) -> None:
    Path("folder").mkdir()
    Path("empty.mp4").touch()
    Path("text.mp4").write_text("hello\n" * 100)
    Path("text.txt").write_text("hello\n" * 100)
    Path("noise.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
    clips.make("film.mp4", sound="aac")
    clips.make("cut.mp4")
    without_index("cut.mp4")
    for suffix in ("png", "jpg"):
        av.VideoFrame.from_ndarray(noise(0, (64, 48)), "rgb24").save(f"photo.{suffix}")
    with av.open("film.mp4") as film, av.open("sound.m4a", "w", format="mp4") as output:
        target = output.add_stream_from_template(film.streams.audio[0], opaque=True)
        for packet in film.demux(film.streams.audio[0]):
            if packet.size:
                packet.stream = target
                output.mux(packet)
    stat = os.stat

    def locked(path: Any, **how: Any) -> os.stat_result:  # which root would not be
        if str(path).startswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, **how)

    monkeypatch.setattr(os, "stat", locked)
    for read in (lambda: convert(name, "b.mp4"), lambda: Reader(name)):
        with pytest.raises(VideoError) as caught:
            read()
        assert parts in str(caught.value)
        assert str(caught.value).endswith(".")
    assert not Path("b.mp4").exists()


@pytest.mark.parametrize(
    ("target", "settings", "parts"),
    [
        ("b.xyz", {}, "b.xyz has no known file ending: give a name that ends in .mp4, .m4v, .mov, .mkv, .webm, .avi"),
        ("b", {}, "b has no known file ending: give a name that ends in .mp4"),
        ("b.webm", {"codec": "h264"}, ".webm does not support h264: choose vp9, av1, or write h264 to .mp4"),
        ("b.mp4", {"codec": "ffv1"}, "or write ffv1 to .mkv, .avi"),
        ("b.mp4", {"crf": 52}, "crf is 52; h264 takes 0 (the best) to 51"),
        ("b.mov", {"codec": "prores", "crf": 5}, "prores has no crf: leave --crf out"),
        ("b.mp4", {"preset": "quick"}, "preset is 'quick'; h264 takes one of ultrafast, superfast"),
        ("b.webm", {"preset": "fast"}, "preset is 'fast'; vp9 takes one of 0, 1"),
        ("b.mkv", {"codec": "ffv1", "preset": "fast"}, "ffv1 has none: leave --preset out"),
    ],
)
def test_what_does_not_go_together_is_said_before_the_film_is_opened(
    target: str, settings: dict[str, Any], parts: str
) -> None:
    Path("a.mp4").touch()
    with pytest.raises(ConfigError) as caught:
        Conversion("a.mp4", target, config=VideoConfig(**settings))
    assert parts in str(caught.value)


def test_a_codec_that_this_pyav_lacks_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perceptual.video.writer._can_encode", lambda name: name in ("libx264", "ffv1"))
    clips.make("a.mp4")
    with pytest.raises(OutputError, match="This PyAV cannot encode hevc; choose one of h264, ffv1 as --codec"):
        Conversion("a.mp4", "b.mp4", config=VideoConfig(codec="hevc"))


def test_an_output_that_is_its_input_is_refused() -> None:
    clips.make("a.mp4")
    Path("link.mp4").hardlink_to("a.mp4")
    for target in ("a.mp4", "./a.mp4", "link.mp4"):
        with pytest.raises(OutputError, match="would overwrite its input"):
            Conversion("a.mp4", target)


def test_names_that_ffmpeg_takes_for_something_else() -> None:
    for name in ("take:1.mp4", "a%03d.mp4", "-y.mp4", "https:x.mp4"):
        clips.make("a.mp4", count=3).rename(name)
        convert(name, f"out {name}")
        assert clips.numbers(Path(f"out {name}").rename("b.mp4")) == [0, 1, 2]


def test_an_upper_case_ending_will_do() -> None:
    clips.make("a.mp4", count=3)
    convert("a.mp4", "B.MKV")
    with av.open("B.MKV") as film:
        assert "matroska" in film.format.name


def test_an_older_output_is_replaced_only_by_a_whole_new_one() -> None:
    clips.make("a.mp4", count=3)
    Path("b.mp4").write_text("old")

    def fail(pixels: Tensor) -> Tensor:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        convert("a.mp4", "b.mp4", fail)
    assert Path("b.mp4").read_text() == "old"
    convert("a.mp4", "b.mp4")
    assert clips.numbers("b.mp4") == [0, 1, 2]


def test_a_folder_in_the_way_and_one_that_is_missing() -> None:
    clips.make("a.mp4", count=3)
    Path("b.mp4").mkdir()
    with pytest.raises(OutputError, match=r"b\.mp4 is a folder"):
        convert("a.mp4", "b.mp4")
    convert("a.mp4", "new/deep/b.mp4")
    assert len(clips.times("new/deep/b.mp4")) == 3


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 48 kB."""
    place = folder / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except OSError:
        pytest.skip("there is no mount")
    if done.returncode:
        pytest.skip("no small disk can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".mov"])
@pytest.mark.parametrize("count", [24, 240])
def test_a_full_disk_is_one_sentence_and_leaves_no_file(small_disk: Path, suffix: str, count: int) -> None:
    clips.make("a.mkv", count=count, picture=noise, codec="mpeg4", options={"qscale": "8"})
    with pytest.raises(OutputError, match="the disk is full; free some space"):
        convert("a.mkv", small_disk / f"b{suffix}", crf=1)
    assert list(small_disk.iterdir()) == []


def test_every_kind_of_trouble_with_writing_is_a_perceptual_error(monkeypatch: pytest.MonkeyPatch) -> None:
    clips.make("a.mp4", count=30)
    kinds = [av.error.InvalidDataError(1, "invalid"), av.error.OSError(errno.EIO, "Input/output error")]
    for kind in [*kinds, av.error.ArgumentError(22, "Invalid argument")]:
        monkeypatch.setattr(Writer, "_mux", lambda self, packets, kind=kind: (_ for _ in ()).throw(kind))
        with pytest.raises(PerceptualError) as caught:
            convert("a.mp4", "b.mp4")
        assert isinstance(caught.value, OutputError)
        assert not Path("b.mp4").exists()


def test_an_end_before_the_first_picture_is_no_damage() -> None:
    clips.make("a.mp4", first=12_288)
    with pytest.raises(VideoError, match="has no frame in this part"):
        convert("a.mp4", "b.mp4", end="0.5")
