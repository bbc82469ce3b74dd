"""Folders of frames, numbered pictures, GIF, APNG and animated WebP, as films and in place of them."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import clips
import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import run
from test_video import convert

from perceptual import images
from perceptual.errors import ConfigError, ImageError, OutputError, VideoError
from perceptual.video.animations import hold_last

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder; no temporary file outlives a test."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert [path.name for path in tmp_path.rglob("*") if path.name.startswith(".")] == []


def write_frames(pattern: str, *numbers: int, size: tuple[int, int] = (64, 48)) -> None:
    """Pictures that hold their number, named by it."""
    Path(pattern).parent.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        Image.fromarray(clips.numbered(number, size)).save(pattern % number)


def animation(name: str, durations: list[int]) -> None:
    """An animation without loss, of pictures that hold their number, in milliseconds each."""
    first, *more = (Image.fromarray(clips.numbered(index, (64, 48))) for index in range(len(durations)))
    first.save(name, save_all=True, append_images=more, duration=durations, lossless=True)


def shown(name: str) -> list[tuple[int, float]]:
    """(Number, milliseconds) of each picture of an animation, as Pillow reads it."""
    found = []
    with Image.open(name) as image:
        for index in range(image.n_frames):
            image.seek(index)
            image.load()
            found.append((clips.number(np.asarray(image.convert("RGB"))), image.info["duration"]))
    return found


@pytest.mark.parametrize("given", ["in", "in/frame_%04d.png", "in/frame_%d.png"])
def test_frames_are_a_film_in_the_order_of_their_numbers(given: str) -> None:
    write_frames("in/frame_%d.png", 0, 1, 2, 9, 10, 11, 100)
    Path("in/notes.txt").write_text("hello")
    _, said = convert(given, "b.mp4", crf=1)
    assert said == "The frame rate is assumed to be 25 frames per second: --fps sets another one."
    assert clips.numbers("b.mp4") == [0, 1, 2, 9, 10, 11, 100]
    assert clips.times("b.mp4") == [Fraction(index, 25) for index in range(7)]
    _, said = convert(given, "b.mkv", fps=24, start="0.04", end="0.2")
    assert said == ""
    assert clips.numbers("b.mkv") == [1, 2, 9, 10]


def test_a_pattern_takes_its_own_frames_alone() -> None:
    write_frames("in/a_%03d.png", 1, 2)
    write_frames("in/b_%03d.png", 3)
    convert("in/a_%03d.png", "b.mp4", fps=10)
    assert clips.numbers("b.mp4") == [1, 2]


def test_frames_of_16_bits_and_of_another_size_asked_for() -> None:
    Path("in").mkdir()
    picture = images.Picture(torch.from_numpy(clips.numbered(5, (64, 48))).permute(2, 0, 1)[None] / 255, bit_depth=16)
    images.write("in/5.png", picture)
    convert("in", "b.mkv", codec="ffv1", size=32, fps=10)
    assert clips.numbers("b.mkv") == [5]
    assert clips.facts("b.mkv")["size"] == (32, 24)


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("empty", "The folder empty contains no images"),
        ("none_%04d.png", "No files match none_%04d.png: check the pattern"),
        ("no/where_%04d.png", "No files match"),
        ("uneven", "2.png is 32 x 24 px, but the first frame is 64 x 48 px"),
        ("broken", "2.png"),
    ],
)
def test_frames_that_are_no_film_are_a_sentence_and_leave_no_file(given: str, parts: str) -> None:
    Path("empty").mkdir()
    for name in ("uneven", "broken"):
        write_frames(f"{name}/%d.png", 1)
    write_frames("uneven/%d.png", 2, size=(32, 24))
    Path("broken/2.png").write_bytes(Path("broken/1.png").read_bytes()[:80])
    with pytest.raises((VideoError, ImageError)) as caught:
        convert(given, "b.mp4")
    assert parts in str(caught.value)
    assert not Path("b.mp4").exists()
    with pytest.raises(VideoError, match="give another --start"):
        convert("uneven", "b.mp4", start="9")


def test_frames_of_other_sizes_are_found_before_the_first_one_is_painted() -> None:
    write_frames("in/%d.png", 1, 2, 3)
    write_frames("in/%d.png", 4, size=(48, 64))
    painted: list[int] = []

    def paint(pixels: torch.Tensor) -> torch.Tensor:
        painted.append(clips.number(pixels))
        return pixels

    with pytest.raises(VideoError, match=r"4\.png is 48 x 64 px, but the first frame is 64 x 48 px"):
        convert("in", "b.mp4", paint)
    assert painted == []
    convert("in", "b.mp4", paint, end="0.12")  # without the fourth frame
    assert painted == [1, 2, 3]
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown after a quarter turn
    Image.new("RGB", (48, 64)).save("in/4.png", exif=turned)
    convert("in", "b.mp4", paint)
    assert len(painted) == 7


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp"])
def test_animations_are_films_with_their_times(name: str) -> None:
    animation(name, [100, 200, 300, 50, 100])
    _, said = convert(name, "b.mkv")
    assert said == ""
    assert clips.numbers("b.mkv") == [0, 1, 2, 3, 4]
    assert [float(time) for time in clips.times("b.mkv")] == pytest.approx([0, 0.1, 0.3, 0.6, 0.65])
    convert(name, "c.mkv", fps=10)
    assert clips.numbers("c.mkv") == [0, 1, 1, 2, 2, 2, 3, 4][: len(clips.numbers("c.mkv"))]
    assert len(clips.numbers("c.mkv")) in (7, 8)


@pytest.mark.parametrize("target", ["b.gif", "b.apng", "b.webp"])
def test_films_become_animations_that_are_shown_for_ever(target: str) -> None:
    clips.make("a.mp4", count=6, rate=10, tick=Fraction(1, 10_000), sound="aac")
    _, said = convert("a.mp4", target)
    assert said == f"Left out, because {Path(target).suffix} does not support it: sound (aac)."
    assert shown(target) == [(index, 100) for index in range(6)]
    with Image.open(target) as image:
        assert image.info["loop"] == 0


@pytest.mark.parametrize("target", ["b.gif", "b.apng", "b.webp"])
@pytest.mark.parametrize("durations", [[100, 20, 500, 70, 1000], [300, 200, 40]])
def test_every_frame_of_an_animation_keeps_its_time_also_the_last(target: str, durations: list[int]) -> None:
    animation("a.gif", durations)
    convert("a.gif", target)
    assert shown(target) == list(enumerate(durations))


def test_the_last_frame_is_held_as_a_png_can_say_it() -> None:
    animation("a.png", [100, 100])
    for seconds, milliseconds in ((Fraction(7, 10), 600), (Fraction(200), 199_900), (Fraction(10**6), 65_535_000)):
        hold_last(Path("a.png"), seconds)
        assert [time for _, time in shown("a.png")] == [100, pytest.approx(milliseconds, rel=1e-3)]


def test_frames_that_a_gif_cannot_hold_are_left_out_and_a_line_says_so() -> None:
    clips.make("a.mp4", count=9, rate=200, tick=Fraction(1, 200))
    conversion, said = convert("a.mp4", "b.gif")
    assert "A GIF holds at most 100 frames per second: frames in between are left out." in said
    assert [number for number, _ in shown("b.gif")] == [0, 1, 3, 5, 7]  # 5 ms rounds up to 1 hundredth
    assert conversion.frames == 5


@pytest.mark.parametrize("target", ["b.gif", "b.apng", "b.webp"])
def test_colours_of_animations_are_those_of_the_film(target: str) -> None:
    clips.make("a.mkv", count=2, codec="ffv1", pixels="bgr0")
    convert("a.mkv", target, sound=False)
    with Image.open(target) as image:
        found = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(found - clips.numbered(0, (64, 48)))[:20].mean() < 3


def test_a_film_becomes_pictures() -> None:
    clips.make("a.mp4", count=12, sound="aac")
    conversion, said = convert("a.mp4", "out/frame_%04d.png")
    assert said == "The sound is left out, because image files have none."
    assert sorted(path.name for path in Path("out").iterdir()) == [f"frame_{index:04d}.png" for index in range(1, 13)]
    found = [np.asarray(Image.open(f"out/frame_{index:04d}.png")) for index in range(1, 13)]
    assert [clips.number(picture) for picture in found] == list(range(12))
    assert conversion.frames == 12
    _, said = convert("out", "b.mkv", codec="ffv1", fps=24)
    assert clips.numbers("b.mkv") == list(range(12))


def test_pictures_of_an_uneven_film_come_at_a_rate_or_a_line_says_so() -> None:
    clips.make("a.mkv", times=[0, 4096, 12_288])
    _, said = convert("a.mkv", "one/%d.png", sound=False)
    assert said == "The frames are not evenly spaced in time, and image files hold no times: --fps makes them even."
    assert len(list(Path("one").iterdir())) == 3
    convert("a.mkv", "two/%d.png", fps=3)
    names = [f"two/{index}.png" for index in range(1, len(list(Path("two").iterdir())) + 1)]
    assert [clips.number(np.asarray(Image.open(name))) for name in names][:4] == [0, 1, 1, 2]


def test_pictures_have_square_pixels() -> None:
    clips.make("a.mp4", count=1, sample_aspect_ratio=Fraction(4, 3))
    convert("a.mp4", "%d.png")
    with Image.open("1.png") as image:
        assert image.size == (86, 48)


def test_frames_that_are_there_are_not_replaced() -> None:
    clips.make("a.mp4", count=2)
    write_frames("out/%d.png", 7)
    before = Path("out/7.png").read_bytes()
    with pytest.raises(OutputError, match=r"out/7\.png exists already: give another folder"):
        convert("a.mp4", "out/%d.png")
    with pytest.raises(ConfigError, match="--crf has no effect"):
        convert("a.mp4", "new/%d.png", crf=5)
    with pytest.raises(ConfigError, match="has no ending that can be written"):
        convert("a.mp4", "new/%d.gif")
    assert Path("out/7.png").read_bytes() == before
    assert not Path("new").exists()


def test_transparency_is_said_where_there_is_some() -> None:
    picture = Image.fromarray(clips.numbered(0, (64, 48))).convert("RGBA")
    other = picture.copy()
    other.putalpha(Image.fromarray(np.full((48, 64), 90, np.uint8)))
    for name in ("a.png", "a.webp"):
        other.save(name, save_all=True, append_images=[picture], duration=100, lossless=True)
        _, said = convert(name, "b.mkv")
        assert said == "The video has transparent parts: the transparency is left out."


@pytest.mark.parametrize("words", [["upscale", "--scale", "2"], ["stylize", "--style", "STYLE"]])
def test_pictures_say_that_they_take_the_first_of_several(
    capsys: Capture, tiny_style: Path, words: list[str], one_thread: Any
) -> None:
    animation("a.gif", [100, 100, 100])
    Image.fromarray(clips.numbered(0, (64, 48))).save("b.png")
    words = [str(tiny_style) if word == "STYLE" else word for word in words]
    code, _, err = run(capsys, *words, "a.gif", "b.png", "-o", "out", "--device", "cpu")
    assert code == 0, err
    assert "a.gif holds 3 pictures: only the first is used; `perceptual video` does all." in err.splitlines()
    assert "b.png holds" not in err
    pages = [Image.fromarray(clips.numbered(index, (64, 48))) for index in range(2)]
    pages[0].save("c.tif", save_all=True, append_images=pages[1:])
    _, _, err = run(capsys, *words, "c.tif", "-o", "pages", "--device", "cpu")
    told = "c.tif holds 2 pictures: only the first is used. Save the others as files of their own."
    assert told in err.splitlines()
