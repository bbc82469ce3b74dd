"""What else a film has or leaves: more tracks, where it was taken, transparency, leftovers of killed runs, its size."""

from __future__ import annotations

import re
import signal
import struct
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


def test_sound_of_two_channels_without_a_layout_goes_into_mp4() -> None:
    """AVI does not say which channel is left; MP4 wants to know."""
    with av.open("a.avi", "w") as output:
        stream: Any = output.add_stream("mjpeg", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        tone: Any = output.add_stream("pcm_s16le", rate=48_000)
        tone.layout = "stereo"
        for index in range(6):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(clips.numbered(index, (64, 48)), "rgb24")))
            frame = av.AudioFrame.from_ndarray(np.full((1, 4000), 9000, np.int16), "s16", "stereo")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, 2000 * index, Fraction(1, 48_000)
            output.mux(tone.encode(frame))
        output.mux(stream.encode(None))
        output.mux(tone.encode(None))
    with av.open("a.avi") as film:
        assert film.streams.audio[0].layout.name == "2 channels"
    convert("a.avi", "b.mp4")
    with av.open("b.mp4") as film:
        assert film.streams.audio[0].layout.name == "stereo"
    samples = [b"".join(data for _, data in clips.packets(name)) for name in ("a.avi", "b.mp4")]
    assert samples[0] == samples[1]


@pytest.mark.parametrize("target", ["b.apng", "b.webp", "b.gif"])
def test_the_last_frame_of_an_animation_is_not_longer_for_a_film_that_starts_late(target: str) -> None:
    clips.make("a.mp4", count=6, first=12_288 // 2, sound="aac")
    convert("a.mp4", target)
    durations = []
    with Image.open(target) as image:
        for index in range(6):
            image.seek(index)
            image.load()
            durations.append(image.info["duration"])
    assert durations == pytest.approx([1000 / 24] * 6, abs=10 if target == "b.gif" else 2)  # GIF counts in 10 ms


def test_the_size_is_that_of_the_written_frames() -> None:
    clips.make("a.mp4", count=2)
    for target in ("b.mp4", "%d.png"):
        done, _ = convert("a.mp4", target, double, upscale=2, size=100)
        assert done.size == (100, 76)


def test_a_subtitle_does_not_outlast_the_part() -> None:
    long = "1\n00:00:00,300 --> 00:00:09,000\nWords\n"
    clips.make("a.mkv", count=24, subtitles=long)
    convert("a.mkv", "b.mkv", start="0.25", end="0.75")
    with av.open("b.mkv") as film:
        (packet,) = (each for each in film.demux(film.streams.subtitles[0]) if each.size)
        assert float((packet.pts + packet.duration) * packet.time_base) == pytest.approx(0.5, abs=0.002)


def test_a_gif_without_its_end_is_called_incomplete() -> None:
    pictures = [Image.fromarray(clips.numbered(index, (64, 48))) for index in range(8)]
    pictures[0].save("a.gif", save_all=True, append_images=pictures[1:], duration=100)
    whole = Path("a.gif").read_bytes()
    for more in (b"", b"\r\n", bytes(5000)):
        Path("a.gif").write_bytes(whole + more)
        done, said = convert("a.gif", "b.gif")
        assert (done.damage, said) == (0, "")
    Path("a.gif").write_bytes(whole[: len(whole) * 6 // 10])
    done, said = convert("a.gif", "b.gif")
    assert done.damage
    assert "a.gif is incomplete" in said


RED, WHITE = (255, 0, 0), (255, 255, 255)


def discs(*, opaque_first: bool = False) -> list[Image.Image]:
    """Six pictures of a red square on a transparent ground, which has other colours where nothing is seen."""
    found = []
    for index in range(6):
        array = np.zeros((48, 64, 4), np.uint8)
        array[..., 2] = 200
        array[16:32, 8 * index : 8 * index + 16] = (*RED, 255)
        array[..., 3] = 255 if opaque_first and not index else array[..., 3]
        found.append(Image.fromarray(array))
    return found


@pytest.mark.parametrize("opaque_first", [False, True])
@pytest.mark.parametrize("name", ["a.webp", "a.avif", "frames", "a.gif", "a.png"])
def test_transparent_frames_are_on_a_plain_ground_and_a_message_says_so(name: str, opaque_first: bool) -> None:
    first, *rest = discs(opaque_first=opaque_first)
    if name == "frames":
        Path(name).mkdir()
        for index, picture in enumerate([first, *rest]):
            picture.save(f"frames/{index}.png")
    else:
        options: dict[str, Any] = {"lossless": True} if name == "a.webp" else {"quality": 95} if "avif" in name else {}
        first.save(name, save_all=True, append_images=rest, duration=100, disposal=2, **options)
    _, said = convert(name, "b.mkv", codec="ffv1", **({"fps": 10} if name == "frames" else {}))
    assert said == "The video has transparent parts: the transparency is left out."
    pictures = [array.astype(int) for _, array in clips.frames("b.mkv")]
    assert len(pictures) == 6
    for index, picture in enumerate(pictures):
        assert np.abs(picture[20:28, 8 * index + 4 : 8 * index + 12] - RED).max() < 25
        # FFmpeg gives the frames of a GIF and of an APNG with the colours that nobody sees
        if name in ("a.webp", "a.avif", "frames") and not (opaque_first and not index):
            assert np.abs(picture[2:8, 2:62] - WHITE).max() < 8


@pytest.mark.parametrize("target", ["b.mkv", "b.avi"])
def test_sound_that_an_edit_list_hides_stays_hidden(target: str) -> None:
    """MP4 can hide the half second before the first picture; Matroska and AVI cannot."""
    clips.make("whole.mp4", count=48, sound="aac")
    data = bytearray(Path("whole.mp4").read_bytes())
    seconds = {"vide": 12_288, "soun": 48_000}
    places = [found.start() for found in re.finditer(b"elst", data)]
    kinds = [bytes(data[at + 12 : at + 16]).decode() for at in (found.start() for found in re.finditer(b"hdlr", data))]
    kinds = [kind for kind in kinds if kind in seconds]
    assert len(places) == len(kinds) == 2
    for at, kind in zip(places, kinds, strict=True):
        length, begin, rate = struct.unpack(">IiI", data[at + 12 : at + 24])
        data[at + 12 : at + 24] = struct.pack(">IiI", length // 4 * 3, begin + seconds[kind] // 2, rate)
    Path("a.mp4").write_bytes(data)
    convert("a.mp4", target)
    first, last = (clips.packets(target)[index][0] for index in (0, -1))
    assert -0.05 < first < 0.05
    assert last == pytest.approx(1.5, abs=0.08)
