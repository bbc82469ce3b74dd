"""What else a film has or leaves: more tracks, where it was taken, transparency, leftovers of killed runs, its size."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import clips
import numpy as np
import pytest
import torch
from PIL import Image
from test_video import convert, same

from perceptual import files

PLACE = "+48.8577+002.295/"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def double(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.repeat_interleave(2, 2).repeat_interleave(2, 3)


@pytest.mark.parametrize("target", ["b.mp4", "b.mov", "b.mkv"])
def test_where_a_telephone_took_its_film_is_kept(target: str) -> None:
    with av.open("a.mov", "w", container_options={"movflags": "use_metadata_tags"}) as output:
        stream: Any = output.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        told = {"com.apple.quicktime.location.ISO6709": PLACE, "com.apple.quicktime.make": "Apple", "title": "Paris"}
        output.metadata.update(told)
        for index in range(3):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(clips.numbered(index, (64, 48)), "rgb24")))
        output.mux(stream.encode(None))
    convert("a.mov", target)
    found = {key.lower(): value for key, value in clips.facts(target)["metadata"].items()}
    assert found["location"].replace("2950/", "295/") == PLACE  # MP4 has four digits
    assert found["com.apple.quicktime.make"] == "Apple"
    assert found["title"] == "Paris"


def test_the_transparency_of_vp9_is_told_of_and_its_tag_is_not_copied() -> None:
    with av.open("a.webm", "w") as output:
        stream: Any = output.add_stream("libvpx-vp9", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuva420p"
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 4), 100, np.uint8), "rgba").reformat(format="yuva420p")
        output.mux(stream.encode(frame) + stream.encode(None))
    _, said = convert("a.webm", "b.mkv")
    assert said == "The video has transparent parts: the transparency is left out."
    assert "alpha_mode" not in {key.lower() for key in clips.facts("b.mkv")["streams"][0]}
    clips.make("c.mov", count=2, codec="png", pixels="rgba")
    _, said = convert("c.mov", "d.mkv")
    assert said == ""  # it has the channel, and nothing is transparent


@pytest.mark.parametrize(("size", "expected"), [(100, (100, 76)), (None, (128, 96)), (64, (64, 48))])
@pytest.mark.parametrize("target", ["b.mp4", "%d.png"])
def test_an_enlarged_film_is_scaled_to_the_size_that_is_given(
    size: int | None, expected: tuple[int, int], target: str
) -> None:
    clips.make("a.mp4", count=2)
    shapes = set()

    def enlarge(pixels: torch.Tensor) -> torch.Tensor:
        shapes.add(tuple(pixels.shape))
        return double(pixels)

    convert("a.mp4", target, enlarge, upscale=2, size=size)
    assert shapes == {(1, 3, 48, 64)}  # all that the film has goes into the network
    if target == "b.mp4":
        assert clips.facts(target)["size"] == expected
    else:
        with Image.open("1.png") as image:
            assert image.size == expected


@pytest.mark.parametrize("target", ["b.gif", "b.apng", "%d.png"])
@pytest.mark.parametrize(
    ("aspect", "settings", "expected"),
    [
        (None, {"upscale": 2, "size": 32}, (32, 24)),
        (Fraction(4, 3), {}, (86, 48)),
        (Fraction(4, 3), {"size": 64}, (64, 36)),
        (Fraction(3, 4), {}, (64, 64)),
    ],
)
def test_animations_and_frames_have_square_pixels_and_are_not_larger_than_the_size(
    target: str, aspect: Fraction | None, settings: dict[str, int], expected: tuple[int, int]
) -> None:
    clips.make("a.mp4", count=3, **({"sample_aspect_ratio": aspect} if aspect else {}))
    convert("a.mp4", target, double if "upscale" in settings else same, **settings)
    with Image.open("1.png" if target == "%d.png" else target) as image:
        assert image.size == expected


@pytest.mark.parametrize(("name", "target"), [("a.mkv", "b.mp4"), ("a.mkv", "b.mov"), ("a.mp4", "b.mp4")])
def test_a_film_with_frames_left_out_is_as_long_as_before(name: str, target: str) -> None:
    numbers = [*range(20), 60, 105, 150]  # a recording of a screen leaves out frames that did not change
    with av.open(name, "w") as output:
        stream: Any = output.add_stream("libx264", rate=30)  # Matroska stores this rate for every frame
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in numbers:
            frame = av.VideoFrame.from_ndarray(clips.numbered(number % 16, (64, 48)), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            output.mux(stream.encode(frame.reformat(format="yuv420p")))
        output.mux(stream.encode(None))
    convert(name, target)
    with av.open(target) as film:
        assert film.duration is not None
        assert film.duration / av.time_base == pytest.approx(151 / 30, abs=0.01)


@pytest.mark.parametrize(("sound", "settings"), [(None, {}), ("aac", {"sound": False})])
def test_avi_takes_a_film_without_sound(sound: str | None, settings: dict[str, bool]) -> None:
    clips.make("a.mp4", count=24, sound=sound, options={"bf": "2"})
    convert("a.mp4", "b.avi", **settings)
    assert len(clips.times("b.avi")) == 24


def test_the_first_frame_of_an_avi_is_not_shown_twice_because_of_the_sound() -> None:
    """AAC begins with a packet before time 0. FFmpeg would move all streams of an AVI by it."""
    clips.make("a.mp4", count=15, rate=10, sound="aac")
    convert("a.mp4", "b.avi")
    assert len(clips.packets("b.avi", "video")) == 15
    assert clips.numbers("b.avi") == list(range(15))


def test_numbered_pictures_replace_the_film_that_they_made_before(folder: Path) -> None:
    for number in range(3):
        Image.new("RGB", (32, 24), (80 * number, 0, 0)).save(f"frame_{number:04d}.png")
    for _ in range(2):
        convert("frame_%04d.png", "v.mp4", fps=10)
    assert len(clips.times("v.mp4")) == 3


def test_frames_with_superscript_digits_in_their_names_are_read(folder: Path) -> None:
    (folder / "in").mkdir()
    for number in "²³":
        Image.new("RGB", (32, 24)).save(folder / "in" / f"{number}1.png")
    convert("in", "v.mp4", fps=10)
    assert len(clips.times("v.mp4")) == 2


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_one_file_that_the_next_clears_away() -> None:
    clips.make("a.mp4", count=48)
    code = (
        "import time\nfrom perceptual.video import Conversion\n"
        "list(Conversion('a.mp4', 'b.mp4', lambda pixels: time.sleep(0.5) or pixels).run())"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    began = time.monotonic()
    while not list(Path().glob(".b-*")) and time.monotonic() - began < 60:
        time.sleep(0.05)
    convert("a.mp4", "b.mp4")
    assert len(list(Path().glob(".b-*"))) == 1  # it is in use
    process.send_signal(signal.SIGKILL)
    process.wait()
    files._cleaned.clear()  # as in a new process
    convert("a.mp4", "b.mp4")
    assert list(Path().glob(".b-*")) == []
