"""Films in and out: every frame at its time, sound bit for bit, colours, sizes, damage, threads and memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import clips
import numpy as np
import pytest
import torch
from torch import Tensor

from perceptual.config import VideoConfig
from perceptual.errors import VideoError
from perceptual.video import Conversion, Reader, convert_video

UNEVEN = [0, 512, 600, 1900, 2000, 2001, 5000, 9000, 9100, 12288, 12290, 20000]
SRT = "1\n00:00:00,100 --> 00:00:00,500\nHello\n\n2\n00:00:00,700 --> 00:00:00,900\nthere\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder; no thread and no temporary file outlives a test."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("stage")] == []
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def invert(pixels: Tensor) -> Tensor:
    return 255 - pixels


def same(pixels: Tensor) -> Tensor:
    return pixels


def convert(source: str | Path, target: str | Path, change: Any = same, **settings: Any) -> tuple[Conversion, str]:
    """Convert a film to its end; what was converted, and all messages."""
    conversion = Conversion(source, target, change, config=VideoConfig(**settings))
    said = [step.message for step in conversion.run() if step.message]
    return conversion, "\n".join(said)


def grey(level: int) -> Callable[[int, tuple[int, int]], clips.Array]:
    return lambda index, size: np.full((size[1], size[0], 3), level, np.uint8)


def remux(source: str, target: str, change: Callable[[Any], None]) -> None:
    """Copy a film packet by packet, each changed."""
    with av.open(source) as film, av.open(target, "w") as output:
        targets = [output.add_stream_from_template(stream, opaque=True) for stream in film.streams]
        for packet in film.demux():
            if packet.size:
                change(packet)
                packet.stream = targets[packet.stream.index]
                output.mux(packet)


# --- frames and their times


def test_every_frame_is_changed_and_comes_at_its_time() -> None:
    clips.make("a.mp4", count=40)
    steps = list(convert_video("a.mp4", "b.mp4", invert))
    assert clips.numbers("b.mp4", inverted=True) == list(range(40))
    assert clips.times("b.mp4") == clips.times("a.mp4")
    assert [(step.index, step.total) for step in steps] == [(index, 40) for index in range(41)]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("options", [{"bf": "0"}, {"bf": "3", "preset": "medium"}])
def test_uneven_times_are_kept_to_the_last_frames_duration(suffix: str, options: dict[str, str]) -> None:
    clips.make("a.mp4", times=UNEVEN, options=options)
    convert("a.mp4", f"b{suffix}", preset="medium")
    unit = Fraction(1, 1000) if suffix == ".mkv" else Fraction(1, 12_288)
    shown = [round(time / unit) * unit for time in clips.times("a.mp4")]
    assert len(shown) == len(UNEVEN)
    assert clips.times(f"b{suffix}") == shown
    with Reader("a.mp4") as one, Reader(f"b{suffix}") as other:
        ends = [[frame.pts + frame.duration for frame in film][-1] * film.time_base for film in (one, other)]
    assert abs(ends[0] - ends[1]) <= (0 if unit < Fraction(1, 1000) else unit)


def test_a_reader_gives_pictures_their_times_and_what_the_film_says() -> None:
    clips.make("a.mp4", times=UNEVEN, options={"bf": "0"})
    with Reader("a.mp4") as reader:
        read = list(reader)
        assert reader.time_base == Fraction(1, 12_288)
        assert (reader.info.width, reader.info.height, reader.info.codec, reader.info.frames) == (64, 48, "h264", 12)
        assert not reader.info.even
    assert [frame.pts for frame in read] == UNEVEN
    assert [frame.duration for frame in read] == [*np.diff(UNEVEN), 512]
    assert [clips.number(frame.pixels) for frame in read] == list(range(12))
    pixels = read[0].pixels
    assert (pixels.dtype, tuple(pixels.shape)) == (torch.uint8, (1, 3, 48, 64))
    assert pixels.permute(0, 2, 3, 1).is_contiguous()


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9", "av1"])
def test_frames_that_are_written_out_of_order_do_not_move_the_first(codec: str) -> None:
    clips.make("a.mp4", count=20, first=4096, sound="aac")
    convert("a.mp4", "b.mp4", codec=codec)
    assert clips.times("b.mp4") == clips.times("a.mp4")
    assert clips.times("b.mp4")[0] > Fraction(1, 4)
    assert clips.packets("b.mp4") == clips.packets("a.mp4")


def test_a_broadcasts_clock_begins_at_0_and_sound_and_picture_keep_their_distance() -> None:
    clips.make("a.ts", tick=Fraction(1, 90_000), first=126_000, sound="aac", options={"bf": "2"})
    convert("a.ts", "b.mp4")
    with av.open("a.ts") as film:
        begin = Fraction(film.start_time, av.time_base)
    assert clips.times("a.ts")[0] > 1
    for kind, moved in (("video", clips.times("b.mp4")), ("audio", [time for time, _ in clips.packets("b.mp4")])):
        before = clips.times("a.ts") if kind == "video" else [time for time, _ in clips.packets("a.ts")]
        assert len(before) == len(moved)
        assert max(abs(old - begin - new) for old, new in zip(before, moved, strict=True)) < Fraction(1, 40_000)


@pytest.mark.parametrize(("fps", "count"), [(12, 12), (24, 24), (48, 48), (60, 60), (10, 10), (29.97, 30)])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_another_rate_shows_the_latest_frame_at_each_tick(name: str, fps: float, count: int) -> None:
    ticked: Any = {"tick": Fraction(1, 24), "codec": "mpeg4", "options": {"qscale": "2"}}
    clips.make(name, count=24, **(ticked if name == "a.avi" else {}))
    painted = []

    def change(pixels: Tensor) -> Tensor:
        painted.append(clips.number(pixels))
        return pixels

    conversion, _ = convert(name, "b.mp4", change, fps=fps)
    rate = VideoConfig(fps=fps).rate
    assert rate is not None
    ticks = [index / rate for index in range(count)]
    shown = [int(time * 24) for time in ticks]
    assert clips.numbers("b.mp4") == shown
    assert clips.times("b.mp4") == ticks
    assert painted == sorted(set(shown))  # none that is not shown, none twice
    assert conversion.frames == count


def test_uneven_times_become_even_ones() -> None:
    clips.make("a.mp4", times=UNEVEN)
    convert("a.mp4", "b.mp4", fps=24)
    last = UNEVEN[-1] + 512
    expected = [max(i for i, time in enumerate(UNEVEN) if time <= tick) for tick in range(0, last, 512)]
    assert clips.numbers("b.mp4") == expected
    assert clips.times("b.mp4") == [Fraction(index, 24) for index in range(len(expected))]


def test_the_last_picture_of_a_part_is_shown_to_its_end() -> None:
    """Slides, of which the last is on for seven seconds."""
    clips.make("told.mkv", times=[0, 3 * 12_288, 10 * 12_288])
    remux("told.mkv", "a.mkv", lambda packet: setattr(packet, "duration", 0))
    with Reader("a.mkv", end=Fraction(8)) as reader:
        assert [float(frame.duration * reader.time_base) for frame in reader] == [3, 5]
    convert("a.mkv", "b.mp4", end="8")
    assert clips.facts("b.mp4")["seconds"] == pytest.approx(8, abs=0.01)


def test_a_picture_that_is_shown_for_hours_can_be_interrupted() -> None:
    clips.make("a.mkv", times=[0, 4 * 3600 * 12_288], options={"bf": "0"})
    painted = []
    conversion = Conversion("a.mkv", "b.mp4", lambda pixels: painted.append(1) or pixels, config=VideoConfig(fps=60))
    work = conversion.run()
    for step in work:
        if step.index > 300:
            break
    work.close()
    assert step.index == 400
    assert 400 <= conversion.frames <= 900
    assert len(painted) <= 2
    assert clips.numbers("b.mp4") == [0] * conversion.frames


def test_a_film_shorter_than_a_tick_still_has_a_frame() -> None:
    clips.make("a.mp4", count=2, first=512)
    convert("a.mp4", "b.mp4", fps=0.5)
    assert len(clips.times("b.mp4")) == 1


@pytest.mark.parametrize(
    ("start", "end", "shown"),
    [
        ("1", None, range(24, 72)),
        (None, "0:01.5", range(36)),
        ("0.99", "2", range(24, 48)),
        ("00:00:02.5", "9:00:00", range(60, 72)),
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_a_part_begins_at_0_with_its_own_sound(start: str | None, end: str | None, shown: range, suffix: str) -> None:
    clips.make(f"a{suffix}", count=72, sound="aac", options={"g": "30", "bf": "2", "preset": "fast"})
    conversion, _ = convert(f"a{suffix}", "b.mp4", start=start, end=end)
    assert clips.numbers("b.mp4") == list(shown)
    given, times = clips.times(f"a{suffix}"), clips.times("b.mp4")
    shift = given[shown[0]] if start else given[0] - times[0]
    assert max(abs(given[index] - shift - time) for index, time in zip(shown, times, strict=True)) < Fraction(1, 40_000)
    until = shift + (given[shown[-1]] - shift) + Fraction(1, 24) if end else 99
    kept = [each for each in clips.packets(f"a{suffix}") if (not start or each[0] >= shift) and each[0] < until]
    found = clips.packets("b.mp4")
    head = 7 if suffix == ".ts" else 0  # each piece of AAC has one there, and none in MP4
    assert [data for _, data in found][:-1] == [data[head:] for _, data in kept][: len(found) - 1]
    assert abs(len(found) - len(kept)) <= 1
    assert all(abs(old - shift - new) < Fraction(1, 1000) for (old, _), (new, _) in zip(kept, found, strict=False))
    assert conversion.frames == len(shown)


def test_steps_count_what_the_part_holds() -> None:
    clips.make("a.mp4", count=72)
    for settings, total in (({"start": "1"}, 48), ({"end": "1"}, 24), ({"fps": 10}, 30), ({}, 72)):
        steps = list(Conversion("a.mp4", "b.mp4", config=VideoConfig(**settings)).run())
        assert {step.total for step in steps} == {total}
        assert steps[-1].index == total


@pytest.mark.parametrize("expected", [5, 10, 20])
def test_a_film_that_is_longer_or_shorter_than_it_says(monkeypatch: pytest.MonkeyPatch, expected: int) -> None:
    clips.make("a.mp4", count=10)
    monkeypatch.setattr(Reader, "_expect", lambda reader, info: replace(info, frames=expected))
    steps = [(step.index, step.total) for step in Conversion("a.mp4", "b.mp4").run()]
    known = [(index, expected if index <= expected else None) for index in range(11)]
    assert steps == known + ([] if expected == 10 else [(10, 10)])


def test_a_part_that_the_film_does_not_have_is_a_sentence() -> None:
    clips.make("a.mp4", count=10)
    with pytest.raises(VideoError, match=r"another --start"):
        convert("a.mp4", "b.mp4", start="5")
    assert not Path("b.mp4").exists()


def test_a_function_may_return_floats() -> None:
    clips.make("a.mp4", count=4)
    convert("a.mp4", "b.mkv", invert, codec="ffv1")
    convert("a.mp4", "c.mkv", lambda pixels: invert(pixels).float() / 255, codec="ffv1")
    for (_, one), (_, other) in zip(clips.frames("b.mkv"), clips.frames("c.mkv"), strict=True):
        assert np.array_equal(one, other)


def test_a_second_loop_over_a_reader_is_refused() -> None:
    clips.make("a.mp4", count=4)
    with Reader("a.mp4") as reader:
        assert len(list(reader)) == 4
        with pytest.raises(VideoError, match=r"a\.mp4 was read already: open it again"):
            list(reader)
