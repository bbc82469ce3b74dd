"""Films in and out: every frame at its time, sound bit for bit, colours, sizes, damage, threads and memory."""

from __future__ import annotations

import errno
import gc
import importlib
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import clips
import numpy as np
import pytest
import torch
from torch import Tensor

from perceptual.config import VideoConfig
from perceptual.errors import ConfigError, OutputError, PerceptualError, VideoError
from perceptual.events import Step, finish
from perceptual.video import Conversion, Frame, Reader, Writer, convert_video
from perceptual.video.pipeline import in_stages
from perceptual.video.source import Clock, packets_of
from perceptual.video.writer import CONTAINERS

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


# --- sound and what else there is


@pytest.mark.parametrize(
    ("source", "sound", "target"),
    [
        ("a.mp4", "aac", "b.mp4"),
        ("a.mp4", "libopus", "b.mp4"),
        ("a.mov", "pcm_s16le", "b.mov"),
        ("a.mkv", "libopus", "b.mkv"),
        ("a.mkv", "libopus", "b.webm"),
        ("a.mkv", "flac", "b.mkv"),
        ("a.mkv", "pcm_s16le", "b.mkv"),
        ("a.mkv", "aac", "b.mkv"),
        ("a.mkv", "pcm_s16le", "b.mp4"),
        ("a.mov", "pcm_s16le", "b.avi"),
        ("a.mp4", "libmp3lame", "b.avi"),
    ],
)
def test_sound_is_copied_bit_for_bit_at_its_times(source: str, sound: str, target: str) -> None:
    clips.make(source, count=36, sound=sound)
    convert(source, target, invert)
    before, after = clips.packets(source), clips.packets(target)
    joined = sound.startswith("pcm")  # which muxers cut as they like
    assert b"".join(data for _, data in after) == b"".join(data for _, data in before)
    if not joined:
        assert [data for _, data in after] == [data for _, data in before]
        limit = Fraction(1, 30) if target.endswith(".avi") else Fraction(1, 500)  # AVI counts pieces
        assert all(abs(old - new) <= limit for (old, _), (new, _) in zip(before, after, strict=True))


def test_in_matroska_the_lead_in_of_aac_moves_sound_and_picture_alike() -> None:
    clips.make("a.mp4", sound="aac")
    convert("a.mp4", "b.mkv")
    moved = {round((new - old) * 1000) for old, new in zip(clips.times("a.mp4"), clips.times("b.mkv"), strict=True)}
    sound = {
        round((new - old) * 1000)
        for (old, _), (new, _) in zip(clips.packets("a.mp4"), clips.packets("b.mkv"), strict=True)
    }
    assert max(moved | sound) - min(moved | sound) <= 1
    assert min(moved) <= 22


@pytest.mark.parametrize("target", ["b.mp4", "b.mkv", "b.mov"])
@pytest.mark.parametrize("settings", [{}, {"start": "0.5"}, {"fps": 30}])
def test_a_flash_and_a_beep_stay_together(target: str, settings: dict[str, Any]) -> None:
    def flash(index: int, size: tuple[int, int]) -> clips.Array:
        return grey(255 if index in (24, 25) else 0)(index, size)

    clips.make("a.mp4", count=48, picture=flash, sound="aac", beep=1.0)
    convert("a.mp4", target, **settings)
    seen = next(float(time) for time, picture in clips.frames(target) if picture.mean() > 128)
    heard = next(time for time, level in clips.loudness(target) if level > 0.02)
    assert abs(seen - heard) < 0.045


def test_language_title_chapters_subtitles_fonts_and_dispositions_are_kept() -> None:
    def prepare(output: Any, stream: Any) -> None:
        output.metadata.update(title="A film", artist="Somebody")
        stream.metadata["language"] = "fra"
        output.streams[1].metadata["title"] = "Commentary"
        output.streams[1].disposition = av.stream.Disposition.comment
        output.add_attachment("a.ttf", "application/x-truetype-font", b"font" * 20)
        tick = Fraction(1, 1000)
        chapters = [("one", 0, 500), ("two", 500, 1000)]
        output.set_chapters(
            [
                {"id": at, "start": begin, "end": end, "time_base": tick, "metadata": {"title": title}}
                for at, (title, begin, end) in enumerate(chapters)
            ]
        )

    clips.make("a.mkv", sound="libopus", subtitles=SRT, prepare=prepare)
    convert("a.mkv", "b.mkv")
    before, after = clips.facts("a.mkv"), clips.facts("b.mkv")
    assert after["kinds"] == before["kinds"] == ["video", "audio", "subtitle", "attachment"]
    assert after["metadata"]["title"] == "A film"
    assert after["metadata"]["ARTIST"] == "Somebody"
    assert after["streams"][0]["language"] == "fra"
    assert (after["streams"][1]["language"], after["streams"][1]["title"]) == ("deu", "Commentary")
    assert after["chapters"] == before["chapters"]
    assert clips.packets("b.mkv", "subtitle") == clips.packets("a.mkv", "subtitle")
    with av.open("b.mkv") as film:
        assert film.streams[1].disposition == av.stream.Disposition.comment
        assert film.streams.attachments[0].data == b"font" * 20

    _, said = convert("a.mkv", "b.mp4", start="0.25", end="0.75")
    assert said == "Left out, as .mp4 does not take it: subtitles (subrip), an attachment (a.ttf)."
    after = clips.facts("b.mp4")
    assert after["metadata"]["title"] == "A film"
    assert after["streams"][1]["language"] == "deu"
    seconds = [
        (
            chapter["metadata"]["title"],
            float(chapter["start"] * chapter["time_base"]),
            float(chapter["end"] * chapter["time_base"]),
        )
        for chapter in after["chapters"]
    ]
    assert seconds == [
        ("one", 0, pytest.approx(0.25, abs=0.002)),
        ("two", pytest.approx(0.25, abs=0.002), pytest.approx(0.5, abs=0.002)),
    ]


def test_a_cover_is_no_film_and_is_kept_in_mp4() -> None:
    added: list[Any] = []

    def prepare(output: Any, stream: Any) -> None:
        cover = output.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        added.append(cover)

    def end(output: Any, stream: Any) -> None:
        frame = av.VideoFrame.from_ndarray(grey(90)(0, (32, 32)), "rgb24")
        output.mux(added[-1].encode(frame) + added[-1].encode(None))

    clips.make("a.mp4", sound="aac", prepare=prepare, finish=end)
    _, said = convert("a.mp4", "b.mp4", start="0.25")
    assert said == ""
    with av.open("b.mp4") as film:
        covers = [stream for stream in film.streams.video if stream.disposition & av.stream.Disposition.attached_pic]
        assert len(film.streams.video) == 2
        assert len(covers) == 1
    assert clips.packets("b.mp4", "video", 1)[0][1] == clips.packets("a.mp4", "video", 1)[0][1]
    _, said = convert("a.mp4", "b.mkv")
    assert said == "Left out, as .mkv does not take it: a cover (mjpeg)."
    clips.make("c.mkv", count=1)
    with av.open("cover.mp4", "w") as output:
        cover: Any = output.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        output.mux(cover.encode(av.VideoFrame.from_ndarray(grey(90)(0, (32, 32)), "rgb24")) + cover.encode(None))
    with pytest.raises(VideoError, match="no moving pictures"):
        convert("cover.mp4", "b.mp4")


def remux(source: str, target: str, change: Callable[[Any], None]) -> None:
    """Copy a film packet by packet, each changed."""
    with av.open(source) as film, av.open(target, "w") as output:
        targets = [output.add_stream_from_template(stream, opaque=True) for stream in film.streams]
        for packet in film.demux():
            if packet.size:
                change(packet)
                packet.stream = targets[packet.stream.index]
                output.mux(packet)


@pytest.mark.parametrize(("target", "sound"), [("b.mp4", "aac"), ("b.mov", "aac"), ("b.avi", "libmp3lame")])
@pytest.mark.parametrize("repeated", [(7,), (7, 8, 9)])
def test_sound_that_has_a_time_twice_is_kept_whole(target: str, sound: str, repeated: tuple[int, ...]) -> None:
    clips.make("whole.mkv", count=24, sound=sound)
    seen: list[int] = []

    def repeat(packet: Any) -> None:
        if packet.stream.type == "audio":
            seen.append(packet.pts)
            if len(seen) in repeated:
                packet.pts = packet.dts = seen[5]

    remux("whole.mkv", "a.mkv", repeat)
    assert len({time for time, _ in clips.packets("a.mkv")}) == len(seen) - len(repeated)
    conversion, _ = convert("a.mkv", target)
    assert conversion.damage == 0
    assert [data for _, data in clips.packets(target)] == [data for _, data in clips.packets("whole.mkv")]
    moved = [
        abs(old - new) for (old, _), (new, _) in zip(clips.packets("whole.mkv"), clips.packets(target), strict=True)
    ]
    assert max(moved[: min(repeated) - 2] + moved[max(repeated) :]) <= Fraction(1, 20)


class Spied:
    """A film's file that counts the packets taken from it, and may land behind what is sought, in seconds."""

    def __init__(self, container: Any, late: float = 0.0) -> None:
        self.container, self.late, self.taken = container, late, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.container, name)

    def demux(self, *streams: Any) -> Iterator[Any]:
        for packet in self.container.demux(*streams):
            self.taken += 1
            yield packet

    def seek(self, to: int, **where: Any) -> None:
        unit = where["stream"].time_base if "stream" in where else Fraction(1, av.time_base)
        self.container.seek(to + round(self.late / unit) if to else 0, **where)


def test_what_lies_behind_the_end_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    clips.make("a.mp4", count=120, rate=2, sound="aac")
    spies: list[Spied] = []
    module = importlib.import_module("perceptual.video.streams")
    real = module.open_input
    monkeypatch.setattr(module, "open_input", lambda path: spies.append(Spied(real(path))) or spies[-1])
    convert("a.mp4", "b.mp4", end="5")
    whole = sum(len(clips.packets("a.mp4", kind)) for kind in ("video", "audio"))
    assert whole / 12 < spies[0].taken < whole / 4
    assert float(clips.packets("b.mp4")[-1][0]) == pytest.approx(5, abs=0.05)


def test_a_part_has_its_sound_where_that_comes_behind_all_pictures() -> None:
    clips.make("a.mkv", count=120, rate=2, sound="aac", subtitles=SRT)
    with av.open("a.mkv") as film:
        assert [packet.stream.type for packet in film.demux() if packet.size][:80] == ["video"] * 80
    convert("a.mkv", "b.mkv", end="5")
    assert float(clips.packets("b.mkv")[-1][0]) == pytest.approx(5, abs=0.05)
    assert len(clips.packets("b.mkv", "subtitle")) == 2


def test_sound_is_whole_where_a_file_lands_behind_what_is_sought(monkeypatch: pytest.MonkeyPatch) -> None:
    clips.make("a.mp4", count=360, sound="aac", options={"g": "24", "bf": "0"})
    convert("a.mp4", "b.mp4", start="12")
    for name in ("reader", "streams"):
        module = importlib.import_module(f"perceptual.video.{name}")
        monkeypatch.setattr(module, "open_input", lambda path, real=module.open_input: Spied(real(path), 3.0))
    convert("a.mp4", "c.mp4", start="12")
    assert clips.numbers("c.mp4") == clips.numbers("b.mp4")
    assert clips.packets("c.mp4") == clips.packets("b.mp4")


# --- colours, sizes, orientation


@pytest.mark.parametrize("matrix", [1, 5, 6, 9, 2])
@pytest.mark.parametrize("levels", [1, 2, 0])
def test_colours_come_back_with_their_tags(matrix: int, levels: int) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (120, 130, 200), (240, 180, 20)]

    def flat(index: int, size: tuple[int, int]) -> clips.Array:
        return np.full((size[1], size[0], 3), colours[index], np.uint8)

    tags = {"colorspace": matrix, "color_range": levels, "color_primaries": 1, "color_trc": 13}
    clips.make("a.mp4", count=len(colours), picture=flat, options={"crf": "1"}, **tags)
    seen: list[Tensor] = []
    convert("a.mp4", "b.mp4", lambda pixels: seen.append(pixels) or pixels, crf=1)
    tagged = clips.facts("b.mp4")["colours"]
    assert tagged == clips.facts("a.mp4")["colours"]
    assert tagged == (matrix, levels or 1, 1, 13)  # H.264 has no word for a range that is not known
    for pixels, colour in zip(seen, colours, strict=True):
        assert (pixels.float() - torch.tensor(colour).view(1, 3, 1, 1)).abs().max() <= 3
    planes = []
    for name in ("a.mp4", "b.mp4"):
        with av.open(name) as film:
            planes.append([[np.asarray(plane)[0] for plane in frame.planes] for frame in film.decode(video=0)])
    assert np.abs(np.array(planes[0], int) - np.array(planes[1], int)).max() <= 2


def test_unspecified_colours_are_taken_as_players_take_them() -> None:
    red = [254, 0, 0]

    def flat(index: int, size: tuple[int, int]) -> clips.Array:
        return np.full((size[1], size[0], 3), red, np.uint8)

    clips.make("sd.mp4", count=2, picture=flat, colorspace=2)
    clips.make("hd.mp4", count=2, size=(1280, 64), picture=flat, colorspace=1)
    with av.open("hd.mp4") as film:
        frame = next(film.decode(video=0))
    from perceptual.video.colours import Colours, ToRGB

    tagless = ToRGB(replace(Colours.of(frame), matrix=2), (1280, 64))(frame)
    assert (tagless[0, :, 0, 0] - torch.tensor(red)).abs().max() <= 2
    with Reader("sd.mp4") as reader:
        assert (next(iter(reader)).pixels[0, :, 0, 0].int() - torch.tensor(red)).abs().max() <= 3


@pytest.mark.parametrize(
    ("codec", "pixels", "name"),
    [
        ("libx264", "yuv420p10le", "a.mp4"),
        ("libx264", "yuv422p", "a.mp4"),
        ("libx264", "gray", "a.mp4"),
        ("ffv1", "bgr0", "a.mkv"),
        ("ffv1", "gbrp10le", "a.mkv"),
        ("mjpeg", "yuvj420p", "a.mkv"),
        ("prores_ks", "yuv422p10le", "a.mov"),
        ("png", "rgba", "a.mov"),
        ("mpeg4", "yuv420p", "a.avi"),
        ("mpeg2video", "yuv420p", "a.ts"),
    ],
)
def test_films_of_other_kinds_are_read(codec: str, pixels: str, name: str) -> None:
    options = {"crf": "10"} if codec == "libx264" else {"qscale": "2"}
    tick = Fraction(1, 25) if codec in ("mpeg4", "mpeg2video") else Fraction(1, 12_800)
    clips.make(
        name, count=6, rate=25, tick=tick, codec=codec, pixels=pixels, options=options if codec[0] != "f" else {}
    )
    convert(name, "b.mp4", invert)
    assert clips.numbers("b.mp4", inverted=True) == list(range(6))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".webm", ".avi"])
@pytest.mark.parametrize("size", [(64, 48), (65, 49), (64, 49), (65, 48)])
def test_sizes_even_and_odd_in_every_codec(suffix: str, size: tuple[int, int]) -> None:
    clips.make("a.mkv", count=4, size=size, codec="ffv1", pixels="yuv444p")
    for codec in CONTAINERS[suffix][1]:
        _, said = convert("a.mkv", f"b{suffix}", codec=codec)
        after = clips.facts(f"b{suffix}")
        assert (after["size"], after["codec"]) == (size, codec)
        odd = codec in ("h264", "hevc") and (size[0] % 2 or size[1] % 2)
        assert ("--size gives even sides" in said) == bool(odd)
        special = {"prores": "yuv422p10le", "ffv1": "bgr0"}
        assert after["pixels"] == ("yuv444p" if odd else special.get(codec, "yuv420p"))
        assert clips.numbers(f"b{suffix}") == list(range(4))
        if codec == "hevc":
            assert after["tag"] == ("hvc1" if suffix != ".mkv" else after["tag"])


def test_ffv1_loses_nothing() -> None:
    torch.manual_seed(0)
    made = torch.randint(0, 256, (3, 1, 3, 49, 63), dtype=torch.uint8)
    clips.make("a.mp4", count=3)
    left = iter(made)
    convert("a.mp4", "b.mkv", lambda pixels: next(left), codec="ffv1")
    with Reader("b.mkv") as reader:
        assert all(torch.equal(frame.pixels, one) for frame, one in zip(reader, made, strict=True))


@pytest.mark.parametrize(
    ("size", "longer", "expected"),
    [((64, 48), 32, (32, 24)), ((64, 48), 128, (128, 96)), ((65, 49), 65, (64, 48)), ((48, 64), 33, (24, 32))],
)
def test_size_is_the_longer_side_and_both_become_even(
    size: tuple[int, int], longer: int, expected: tuple[int, int]
) -> None:
    clips.make("a.mkv", count=3, size=size, codec="ffv1", pixels="yuv444p")
    shapes = set()
    convert("a.mkv", "b.mp4", lambda pixels: shapes.add(tuple(pixels.shape)) or pixels, size=longer)
    assert clips.facts("b.mp4")["size"] == expected
    assert shapes == {(1, 3, expected[1], expected[0])}


def test_an_output_larger_than_its_input() -> None:
    clips.make("a.mp4", count=5, sound="aac")
    convert("a.mp4", "b.mp4", lambda pixels: pixels.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert clips.facts("b.mp4")["size"] == (128, 96)
    assert clips.numbers("b.mp4") == list(range(5))


@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("size", [None, 32])
def test_telephones_pictures_are_turned_upright(degrees: int, flips: tuple[bool, bool], size: int | None) -> None:
    """What a player shows: the stored picture turned counterclockwise by `degrees`, then flipped."""
    corners = np.zeros((48, 64, 3), np.uint8)
    corners[:24, :32], corners[:24, 32:], corners[24:, :32] = (250, 0, 0), (0, 250, 0), (0, 0, 250)

    def prepare(output: Any, stream: Any) -> None:
        stream.set_display_rotation(degrees, *flips)

    clips.make(
        "a.mp4", count=3, picture=lambda index, size: corners, prepare=prepare, sample_aspect_ratio=Fraction(4, 3)
    )
    convert("a.mp4", "b.mp4", size=size)
    upright = np.rot90(corners, degrees // 90)
    upright = upright[:, ::-1] if flips[0] else upright
    upright = upright[::-1] if flips[1] else upright
    after = clips.facts("b.mp4")
    assert after["rotation"] == 0
    assert after["aspect"] == (Fraction(3, 4) if degrees in (90, -90) else Fraction(4, 3))
    shown = clips.frames("b.mp4")[0][1]
    factor = 1 if size is None else 2
    assert shown.shape == (upright.shape[0] // factor, upright.shape[1] // factor, 3)
    height, width = shown.shape[:2]
    for row, column in ((0.2, 0.2), (0.2, 0.8), (0.8, 0.2), (0.8, 0.8)):
        mine = shown[int(row * height), int(column * width)]
        theirs = upright[int(row * upright.shape[0]), int(column * upright.shape[1])]
        assert np.abs(mine.astype(int) - theirs).max() < 25, (row, column)


@pytest.mark.parametrize("target", ["b.mp4", "b.mkv", "b.mov"])
@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_the_aspect_of_pixels_is_kept(target: str, codec: str) -> None:
    clips.make("a.mp4", count=3, sample_aspect_ratio=Fraction(16, 11))
    convert("a.mp4", target, codec=codec)
    assert clips.facts(target)["aspect"] == Fraction(16, 11)


@pytest.mark.parametrize(
    ("target", "codec"),
    [("b.webm", "vp9"), ("b.webm", "av1"), ("b.mkv", "vp9"), ("b.mkv", "ffv1"), ("b.mkv", "prores")],
)
@pytest.mark.parametrize(("aspect", "size"), [(Fraction(4, 3), (86, 48)), (Fraction(1, 2), (64, 96))])
def test_where_pixels_can_only_be_square_the_picture_keeps_its_shape(
    target: str, codec: str, aspect: Fraction, size: tuple[int, int]
) -> None:
    clips.make("a.mp4", count=3, sample_aspect_ratio=aspect)
    _, said = convert("a.mp4", target, codec=codec)
    after = clips.facts(target)
    assert (after["size"], after["aspect"] or 1) == (size, 1)
    assert f"{size[0]} x {size[1]} px" in said
    assert clips.numbers(target) == list(range(3))


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
    assert f"{name} breaks off after" in said
    assert "of 5.0 s" in said


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
@pytest.mark.parametrize("length", [1000, 10_000])
def test_damaged_parts_are_counted_and_passed_over(name: str, length: int) -> None:
    clips.make(name, count=96, options={"g": "8", "bf": "0", "crf": "20"}, picture=noise, sound="aac")
    damage(name, 0.3, 0.6, length=length)
    conversion, said = convert(name, "b.mp4")
    assert 1 <= conversion.damage <= 8
    assert f"of {name} could not be read whole; the output holds the rest." in said
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
        ("missing.mp4", "There is no film missing.mp4"),
        ("folder", "folder is a folder"),
        ("empty.mp4", "empty.mp4 is empty"),
        ("text.mp4", "text.mp4 is no film"),
        ("text.txt", "text.txt is no film"),
        ("photo.png", "photo.png is no film but a picture, for `perceptual stylize`"),
        ("photo.jpg", "photo.jpg is no film but a picture"),
        ("sound.m4a", "sound.m4a has no moving pictures"),
        ("cut.mp4", "cut.mp4 lacks its index"),
        ("noise.mp4", "noise.mp4 is no film"),
        ("long" * 99 + ".mp4", "There is no film longlong"),
        ("~no_such_person/a.mp4", "There is no film ~no_such_person/a.mp4: check its name"),
        ("\0.mp4", "There is no film"),
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
        ("b.xyz", {}, "b.xyz: end the name with .mp4, .m4v, .mov, .mkv, .webm, .avi"),
        ("b", {}, "b: end the name with .mp4"),
        ("b.webm", {"codec": "h264"}, ".webm files hold vp9, av1 here, not h264, which goes into .mp4"),
        ("b.mp4", {"codec": "ffv1"}, "not ffv1, which goes into .mkv, .avi"),
        ("b.mp4", {"crf": 52}, "crf is 52; h264 takes 0, the best, to 51"),
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
    monkeypatch.setattr("perceptual.video.writer._can", lambda name: name in ("libx264", "ffv1"))
    clips.make("a.mp4")
    with pytest.raises(ConfigError, match="This PyAV cannot encode hevc; give one of h264, ffv1 as --codec"):
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


# --- stopping, threads, memory


@pytest.mark.parametrize("target", ["b.mp4", "b.mkv", "b.mov"])
@pytest.mark.parametrize("done", [1, 30])
def test_closing_early_leaves_a_film_of_what_is_done_with_sound_as_long(target: str, done: int) -> None:
    clips.make("a.mp4", count=120, sound="aac", options={"bf": "2"}, prepare=two_chapters)
    conversion = Conversion("a.mp4", target, invert)
    work = conversion.run()
    for step in work:
        if step.index == done:
            break
    work.close()
    assert conversion.stopped
    assert done <= conversion.frames <= done + 4
    assert clips.numbers(target, inverted=True) == list(range(conversion.frames))
    after = clips.facts(target)
    assert after["seconds"] == pytest.approx(conversion.frames / 24, abs=0.07)
    assert conversion.seconds == Fraction(conversion.frames, 24)
    last = clips.packets(target)[-1][0]
    assert last <= conversion.seconds + Fraction(22, 1000)
    assert last >= conversion.seconds - Fraction(45, 1000)
    ends = [float(chapter["end"] * chapter["time_base"]) for chapter in after["chapters"]]
    assert max(ends) <= float(conversion.seconds) + 0.002


def two_chapters(output: Any, stream: Any) -> None:
    tick = Fraction(1, 1000)
    spans = [(0, 200), (200, 5000)]
    output.set_chapters(
        [
            {"id": at, "start": begin, "end": end, "time_base": tick, "metadata": {"title": str(at)}}
            for at, (begin, end) in enumerate(spans)
        ]
    )


def test_closing_before_the_first_frame_leaves_nothing() -> None:
    clips.make("a.mp4")
    for taken in (0, 1):
        work = Conversion("a.mp4", "b.mp4").run()
        for _ in range(taken):
            next(work)
        work.close()
        assert not Path("b.mp4").exists()


@pytest.mark.parametrize("at", [0, 7, 23])
@pytest.mark.parametrize("part", ["convert", "settle"])
def test_an_error_in_any_stage_comes_to_the_caller_and_leaves_no_file_and_no_thread(at: int, part: str) -> None:
    clips.make("a.mp4", count=24, sound="aac")

    def fail(pixels: Tensor, *more: Tensor) -> Tensor:
        if clips.number(pixels) == at:
            raise ZeroDivisionError("in the middle")
        return pixels

    conversion = Conversion(
        "a.mp4", "b.mp4", fail if part == "convert" else same, settle=fail if part == "settle" else None
    )
    with pytest.raises(ZeroDivisionError, match="in the middle"):
        list(conversion.run())
    assert not Path("b.mp4").exists()


def test_a_picture_that_does_not_fit_into_memory_is_a_sentence() -> None:
    clips.make("a.mp4", count=3)

    def fail(pixels: Tensor) -> Tensor:
        raise MemoryError

    with pytest.raises(VideoError, match=r"a\.mp4 does not fit into memory: give a smaller --size"):
        convert("a.mp4", "b.mp4", fail)
    with pytest.raises(VideoError, match=r"a\.mp4 does not fit into memory: give a smaller --upscale"):
        convert("a.mp4", "b.mp4", fail, upscale=4)


def test_what_is_said_of_an_enlarged_film_names_what_enlarging_takes() -> None:
    clips.make("a.mkv", count=3, size=(65, 49), codec="ffv1", pixels="yuv444p")
    _, said = convert("a.mkv", "b.mp4", upscale=3)
    assert said.endswith("some players do not play: --upscale 2 or 4 gives even sides.")
    huge = torch.zeros(1, 3, 2, 17_000, dtype=torch.uint8)
    for settings, flag in (({"upscale": 4}, "--upscale"), ({}, "--size")):
        with pytest.raises(ConfigError, match=rf"can be written as h264: give another --codec or {flag}\."):
            convert("a.mkv", "b.mp4", lambda pixels: huge, **settings)


def test_what_is_given_up_is_not_finished_first() -> None:
    """The index of an MP4 comes first in the end, for which all the rest is moved."""
    clips.make("a.mp4", count=60, picture=noise, size=(320, 240))
    seen: list[int] = []

    def fail(pixels: Tensor) -> Tensor:
        seen.append(0)
        if len(seen) == 1:
            seen[0] = os.open(next(Path().glob(".b-*/*")), os.O_RDONLY)
        if len(seen) > 50:
            raise ZeroDivisionError
        return pixels

    with pytest.raises(ZeroDivisionError):
        convert("a.mp4", "b.mp4", fail, crf=5)
    with open(seen[0], "rb") as file:
        written = file.read()
    assert len(written) > 500_000
    assert written.index(b"mdat") < 100


def test_what_settles_sees_the_frame_and_what_was_made_of_it_in_order() -> None:
    clips.make("a.mp4", count=24)
    seen = []

    def settle(frame: Tensor, made: Tensor) -> Tensor:
        seen.append((clips.number(frame), clips.number(made, inverted=True)))
        return 255 - made

    finish(convert_video("a.mp4", "b.mp4", invert, settle=settle))
    assert seen == [(index, index) for index in range(24)]
    assert clips.numbers("b.mp4") == list(range(24))


def test_stages_run_at_once() -> None:
    """Each waits for the other to have begun on something else, and would wait for ever if they took turns."""
    clips.make("a.mp4", count=24)
    painted, settled = threading.Semaphore(0), threading.Semaphore(0)

    def paint(pixels: Tensor) -> Tensor:
        painted.release()
        if clips.number(pixels) >= 2:
            assert settled.acquire(timeout=20)
        return pixels

    def settle(frame: Tensor, made: Tensor) -> Tensor:
        settled.release()
        if clips.number(frame) <= 21:  # the frame after the next is being painted
            for _ in range(3 if clips.number(frame) == 0 else 1):
                assert painted.acquire(timeout=20)
        return made

    finish(convert_video("a.mp4", "b.mp4", paint, settle=settle))
    assert len(clips.times("b.mp4")) == 24


def test_the_decoder_is_ahead_by_at_least_one_frame_and_at_most_the_queue() -> None:
    taken, lead = [], []

    def source() -> Iterator[int]:
        for index in range(200):
            taken.append(index)
            yield index

    def slow(index: int) -> int:
        while len(taken) < min(200, index + 2):  # deadlock, if the source waited for us
            pass
        lead.append(len(taken) - index - 1)
        return index

    assert list(in_stages(source(), slow, ahead=2)) == list(range(200))
    assert 1 <= max(lead) <= 2 + 2  # what waits, and what its thread holds in its hand


@pytest.mark.parametrize(("settled", "most"), [(False, 8), (True, 15)])
@pytest.mark.parametrize("slow", ["convert", "settle", "write"])
def test_so_many_pictures_are_in_memory_at_once(
    monkeypatch: pytest.MonkeyPatch, settled: bool, most: int, slow: str
) -> None:
    """Those of the film, what was made of them and what was settled, whichever stage the others wait for."""
    clips.make("a.mp4", count=40)
    alive, counts = set[int](), []

    def note(picture: Tensor, stage: str) -> Tensor:
        alive.add(id(picture))
        weakref.finalize(picture, alive.discard, id(picture))
        threading.Event().wait(0.02 if stage == slow else 0)
        counts.append(len(alive))
        return picture

    class Noted(Frame):
        def __init__(self, pixels: Tensor, *more: Any, **named: Any) -> None:
            super().__init__(note(pixels, "read"), *more, **named)

    write = Writer.write
    monkeypatch.setattr("perceptual.video.film.Frame", Noted)
    monkeypatch.setattr(Writer, "write", lambda self, frame: write(self, frame) or note(frame.pixels, "write"))
    settle = (lambda frame, made: note(255 - made, "settle")) if settled else None
    finish(convert_video("a.mp4", "b.mp4", lambda pixels: note(255 - pixels, "convert"), settle=settle))
    assert max(counts) <= most
    assert max(counts) >= most - 2 or slow != "write"  # two more only while a picture is being made of another


def test_the_caller_sets_the_pace() -> None:
    taken = []

    def source() -> Iterator[int]:
        for index in range(1000):
            taken.append(index)
            yield index

    work = in_stages(source(), same, same, ahead=2)
    for index in range(50):
        assert next(work) == index
        threading.Event().wait(0.002)
        assert len(taken) <= index + 1 + 3 * (2 + 1) + 1
    work.close()


def test_an_error_in_the_source_lets_go_of_what_came_before() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("cut")

    with pytest.raises(OSError, match="cut"):
        list(in_stages(source(), same))
    assert list(in_stages(iter(()), same)) == []


@pytest.mark.slow
def test_memory_is_bounded_over_2000_frames() -> None:
    """Without Python's collector, which the command lets sleep; a frame that stays would make 58 MB."""
    size = (160, 120)
    plain = grey(90)(0, size)
    clips.make("a.mp4", count=2000, size=size, codec="mpeg4", options={"qscale": "8"}, picture=lambda *_: plain)
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most, resident = 0, []

    def count(pixels: Tensor) -> Tensor:
        nonlocal most
        alive.add(pixels.untyped_storage())
        most = max(most, len(alive))
        return 255 - pixels

    gc.collect()
    gc.disable()
    try:
        for step in Conversion("a.mp4", "b.mp4", count, config=VideoConfig(preset="ultrafast")).run():
            if step.index % 100 == 0:
                resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    finally:
        gc.enable()
    assert most <= 16
    assert resident[-1] - resident[2] < 12e6
    assert len(clips.times("b.mp4")) == 2000


@pytest.mark.slow
def test_nothing_of_ffmpeg_reaches_the_terminal() -> None:
    clips.make("a.mkv", count=12, sound="aac")
    damage("a.mkv", 0.7)
    code = (
        "from perceptual.video import Conversion; from perceptual.config import VideoConfig\n"
        "for codec, end in (('h264', 'mp4'), ('hevc', 'mp4'), ('vp9', 'mkv'), ('av1', 'mkv'), ('ffv1', 'mkv')):\n"
        "    list(Conversion('a.mkv', 'b.' + end, config=VideoConfig(codec=codec)).run())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_pyav_there_is_a_sentence(tmp_path: Path) -> None:
    code = "import sys; sys.modules['av'] = None\nimport perceptual.video"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "VideoError: Films need PyAV: pip install 'perceptual[video]'." in done.stderr


# --- settings


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("0", 0), ("12", 12), ("12.5", Fraction(25, 2)), (".5", Fraction(1, 2)), ("1:02", 62), ("90", 90)),
        *(("1:02:03.25", Fraction(14893, 4)), ("00:00:07", 7), ("100:00:00", 360_000)),
    ],
)
def test_times_are_read_exactly(text: str, seconds: Fraction) -> None:
    assert VideoConfig(start=text).span[0] == seconds


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"start": "soon"}, "start is 'soon'; give seconds or [hh:]mm:ss"),
        ({"start": "-1"}, "start is '-1'"),
        ({"end": "1:75"}, "end is '1:75'"),
        ({"end": "1:60:00"}, "end is '1:60:00'"),
        ({"start": "5", "end": "5"}, "end is 5, which is not after start, 5"),
        ({"end": "0"}, "end is 0, which is not after start, 0"),
        ({"start": "nan"}, "start is 'nan'"),
        ({"fps": 0}, "fps is 0"),
        ({"fps": float("nan")}, "fps is nan"),
        ({"steady": 1.5}, "steady is 1.5"),
        ({"size": 8}, "size is 8; it must be a whole number from 16 to 100,000"),
        ({"strength": 2}, "strength is 2"),
        ({"style_scale": 0}, "style-scale is 0"),
        ({"precision": "int4"}, "precision is 'int4'"),
        ({"codec": "divx"}, "codec is 'divx'; choose one of h264, hevc, vp9, av1, prores, ffv1"),
        ({"upscale": 0}, "scale is 0"),
        ({"upscale": 4, "style": "wave"}, "--style has no effect when the video is enlarged"),
        ({"upscale": 4, "keep_colors": True}, "--keep-colors has no effect when the video is enlarged"),
        ({"loss": "feature"}, "--loss has no effect when the video is painted"),
        ({"fps": 0.0004}, "fps is 0.0004"),
    ],
)
def test_nonsense_in_settings_is_refused(settings: dict[str, Any], parts: str) -> None:
    with pytest.raises(ConfigError) as caught:
        VideoConfig(**settings)
    assert parts in str(caught.value)


@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        *((25, 25), (29.97, Fraction(30_000, 1001)), (23.976, Fraction(24_000, 1001)), (23.98, Fraction(24_000, 1001))),
        *((59.94, Fraction(60_000, 1001)), (12.5, Fraction(25, 2)), (30, 30), (0.5, Fraction(1, 2)), (4, 4), (1, 1)),
    ],
)
def test_the_trades_rates_are_exact(fps: float, rate: Fraction) -> None:
    assert VideoConfig(fps=fps).rate == rate


def test_one_step_a_frame_and_the_conversion_at_the_end() -> None:
    clips.make("a.mp4", count=10)
    done = finish(convert_video("a.mp4", "b.mp4", same))
    assert isinstance(done, Conversion)
    assert (done.frames, done.seconds, done.damage, done.stopped) == (10, Fraction(10, 24), 0, False)
    assert next(iter(Conversion("a.mp4", "c.mp4").run())) == Step(0, 10)


def test_mp4_begins_with_its_index_and_sound_lies_beside_its_pictures() -> None:
    clips.make("a.mp4", count=120, sound="aac", options={"preset": "ultrafast", "bf": "2"})
    for target in ("b.mp4", "b.mov", "b.mkv"):
        convert("a.mp4", target)
        if target != "b.mkv":
            data = Path(target).read_bytes()
            assert data.index(b"moov") < data.index(b"mdat")
        with av.open(target) as film:
            packets = [packet for packet in film.demux() if packet.size]
            order = sorted(
                (packet.pos or 0, packet.stream.type, float(packet.pts * packet.time_base)) for packet in packets
            )
        latest = {"video": 0.0, "audio": 0.0}
        for _, kind, time in order:
            latest[kind] = max(latest[kind], time)
            assert abs(latest["video"] - latest["audio"]) < 1.1


def test_several_sounds_are_kept_in_their_order() -> None:
    for name, sound in (("one.mkv", "libopus"), ("two.mkv", "flac")):
        clips.make(name, count=24, sound=sound)
    with av.open("one.mkv") as one, av.open("two.mkv") as two, av.open("a.mkv", "w") as output:
        streams = [(one, one.streams[0]), (one, one.streams[1]), (two, two.streams[1])]
        targets = [output.add_stream_from_template(stream, opaque=True) for _, stream in streams]
        for (film, stream), target in zip(streams, targets, strict=True):
            film.seek(0)
            for packet in film.demux(stream):
                if packet.size:
                    packet.stream = target
                    output.mux(packet)
    convert("a.mkv", "b.mkv", invert)
    for index in range(2):
        assert clips.packets("b.mkv", "audio", index) == clips.packets("a.mkv", "audio", index)
    assert clips.facts("b.mkv")["kinds"] == ["video", "audio", "audio"]


def test_a_second_film_in_the_file_is_left_out_and_said() -> None:
    def prepare(output: Any, stream: Any) -> None:
        other = output.add_stream("mpeg4", rate=24)
        other.width, other.height = 32, 32
        frame = av.VideoFrame.from_ndarray(grey(90)(0, (32, 32)), "rgb24")
        frame.pts = 0
        held.extend(other.encode(frame) + other.encode(None))

    held: list[Any] = []
    clips.make("a.mkv", count=6, prepare=prepare, finish=lambda output, stream: output.mux(held))
    _, said = convert("a.mkv", "b.mp4")
    assert said == "Only one video track is converted; left out: mpeg4."
    assert clips.numbers("b.mp4") == list(range(6))


def test_an_animation_is_a_film() -> None:
    clips.make("a.gif", count=6, rate=10, tick=Fraction(1, 100), codec="gif", pixels="rgb8", options={})
    convert("a.gif", "b.mp4", invert)
    assert clips.numbers("b.mp4", inverted=True) == list(range(6))
    assert clips.times("b.mp4") == clips.times("a.gif")


def test_pictures_that_change_their_size_come_at_the_first_ones() -> None:
    parts = []
    for size in ((64, 48), (96, 72)):
        clips.make("part.ts", count=12, tick=Fraction(1, 90_000), first=len(parts) * 45_000, size=size)
        parts.append(Path("part.ts").read_bytes())
    Path("a.ts").write_bytes(b"".join(parts))
    convert("a.ts", "b.mp4")
    assert {picture.shape for _, picture in clips.frames("b.mp4")} == {(48, 64, 3)}
    assert len(clips.times("b.mp4")) == 24


def test_sound_that_outlasts_the_pictures_is_no_damage() -> None:
    clips.make("a.mkv", count=24, sound="libopus")
    clips.make("long.mkv", count=120, sound="libopus")
    with av.open("a.mkv") as film, av.open("long.mkv") as other, av.open("b.mkv", "w") as output:
        pairs = [(film, film.streams[0]), (other, other.streams[1])]
        for source, stream in pairs:
            target = output.add_stream_from_template(stream, opaque=True)
            pairs[pairs.index((source, stream))] = (source, target)
        for (source, target), stream in zip(pairs, (film.streams[0], other.streams[1]), strict=True):
            for packet in source.demux(stream):
                if packet.size:
                    packet.stream = target
                    output.mux(packet)
    data = Path("b.mkv").read_bytes()
    Path("b.mkv").write_bytes(data.replace(b"DURATION", b"DURATIOX"))  # as files without tags are
    conversion, said = convert("b.mkv", "c.mp4")
    assert (conversion.damage, said) == (0, "")
    assert clips.packets("c.mp4")[-1][0] > 4


def test_ctrl_c_while_threads_end_waits_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    join, calls = threading.Thread.join, []

    def interrupted(self: threading.Thread, timeout: float | None = None) -> None:
        calls.append(self)
        if len(calls) == 1:
            raise KeyboardInterrupt
        join(self, timeout)

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    work = in_stages(iter(range(100)), lambda index: threading.Event().wait(0.05) or index)
    assert next(work) == 0
    with pytest.raises(KeyboardInterrupt):
        work.close()
    assert [thread for thread in threading.enumerate() if thread.name.startswith("stage")] == []


@pytest.mark.parametrize("target", ["b.mp4", "b.mkv"])
def test_broadcasts_that_were_joined_go_on(target: str) -> None:
    tick = Fraction(1, 90_000)
    clips.make("a.ts", count=48, tick=tick, sound="aac", options={"bf": "2"})
    Path("joined.ts").write_bytes(2 * Path("a.ts").read_bytes())
    convert("joined.ts", target)
    assert clips.numbers(target) == [*range(48), *range(48)]
    steps = np.diff([float(time) for time in clips.times(target)])
    assert steps == pytest.approx(1 / 24, abs=0.002)
    sound = clips.packets(target)
    assert 0 <= 2 * len(clips.packets("a.ts")) - len(sound) <= 1  # where one begins before the other has ended
    assert float(sound[-1][0] - sound[0][0]) == pytest.approx(4, abs=0.15)


def test_a_part_behind_a_join_has_its_sound() -> None:
    options = {"g": "24", "bf": "2"}
    clips.make("a.ts", count=120, tick=Fraction(1, 90_000), sound="aac", options=options)
    Path("joined.ts").write_bytes(2 * Path("a.ts").read_bytes())
    convert("joined.ts", "b.mp4", start="6", end="8")
    assert clips.numbers("b.mp4") == list(range(24, 72))
    sound = [float(time) for time, _ in clips.packets("b.mp4")]
    assert sound[0] < 0.03
    assert sound[-1] > 1.95


def test_streams_of_a_joined_broadcast_get_the_same_added_where_they_are_early_or_late() -> None:
    def packet(index: int, time: float, length: float = 0.04) -> Any:
        tick = Fraction(1, 90_000)
        dts, duration = round(time / tick), round(length / tick)
        stream = SimpleNamespace(index=index)
        return SimpleNamespace(stream=stream, dts=dts, pts=dts + 1, duration=duration, time_base=tick)

    clock, moved = Clock(), []
    film = [(0, 8.0 + index / 25) for index in range(50)] + [(0, 1.4 + index / 25) for index in range(50)]
    for at, (index, time) in enumerate(film):
        clock.film(each := packet(index, time))
        assert each.dts / 90_000 == pytest.approx(8 + at / 25, abs=1e-4)
        assert each.pts == each.dts + 1
        if at == 48:  # of the second part, which the film has not come to
            assert not clock.other(packet(1, 1.4))
        if at == 55:
            for sound, expected in ((1.4, 10.0), (9.5, 9.5), (1.7, 10.3)):  # the second of the first part
                each = packet(2 if sound == 9.5 else 1, sound)
                assert clock.other(each)
                moved.append(each.dts / 90_000 - expected)
        elif at % 10 == 0:
            assert clock.other(packet(1, time - 0.7))
    assert moved == pytest.approx([0, 0, 0], abs=1e-4)
    assert float(clock.added) == pytest.approx(8.6, abs=1e-4)


def packets_at(path: str, keep: Callable[[Any], bool]) -> bytes:
    """A broadcast without the packets that are not to be kept."""
    name = f"kept-{path}"
    with av.open(path) as film, av.open(name, "w") as output:
        targets = [output.add_stream_from_template(stream, opaque=True) for stream in film.streams]
        for packet in film.demux():
            if packet.size and keep(packet):
                packet.stream = targets[packet.stream.index]
                output.mux(packet)
    return Path(name).read_bytes()


@pytest.mark.parametrize("target", ["b.mp4", "b.mkv"])
@pytest.mark.parametrize("cut", ["sound ends", "sound begins", "no key frame"])
def test_a_flash_and_a_beep_stay_together_after_broadcasts_were_joined(target: str, cut: str) -> None:
    def flash(index: int, size: tuple[int, int]) -> clips.Array:
        return grey(255 if index in (72, 73) else 0)(index, size)

    options = {"g": "24", "bf": "2"}
    clips.make("a.ts", count=120, tick=Fraction(1, 90_000), picture=flash, sound="aac", beep=3.0, options=options)

    def keep(packet: Any) -> bool:
        time, sound = float(packet.pts * packet.time_base), packet.stream.type == "audio"
        first = {"sound ends": -1.0, "sound begins": 0.7 if sound else -1.0, "no key frame": 0.5}[cut]
        return first < time < (4.3 if sound and cut == "sound ends" else 9)

    Path("joined.ts").write_bytes(2 * packets_at("a.ts", keep))
    convert("joined.ts", target)
    lit = [float(time) for time, picture in clips.frames(target) if picture.mean() > 128]
    loud = [time for time, level in clips.loudness(target) if level > 0.02]
    assert len(lit) == 4
    first, second = loud[0], next(time for time in loud if time > loud[0] + 1)
    assert abs(lit[0] - first) < 0.045
    assert abs(lit[2] - second) < 0.045


def test_avi_refuses_sound_that_begins_late_or_has_gaps() -> None:
    """Its packets have no times: they would be put together."""
    clips.make("whole.mkv", sound="libmp3lame", count=48)
    remux("whole.mkv", "late.mkv", lambda packet: _push_back(packet, after=0.0))
    remux("whole.mkv", "gap.mkv", lambda packet: _push_back(packet, after=1.0))
    convert("whole.mkv", "whole.avi")
    assert len(clips.packets("whole.avi")) == len(clips.packets("whole.mkv"))
    for name in ("late.mkv", "gap.mkv"):
        convert(name, "there.mkv")
        with pytest.raises(
            ConfigError, match=r"begins late or has gaps, which \.avi cannot hold: write \.mkv or \.mp4"
        ):
            convert(name, "not.avi")
    assert not Path("not.avi").exists()


def _push_back(packet: Any, *, after: float) -> None:
    if packet.stream.type == "audio" and packet.pts * packet.time_base >= after:
        packet.pts, packet.dts = packet.pts + 500, packet.dts + 500  # milliseconds


def test_a_film_of_one_pixel() -> None:
    clips.make("a.mkv", size=(1, 1), codec="ffv1", pixels="bgr0", options={}, count=3)
    convert("a.mkv", "b.mkv", codec="ffv1")
    first, second = ([picture for _, picture in clips.frames(name)] for name in ("a.mkv", "b.mkv"))
    assert np.array_equal(first, second)


def test_narrow_films_are_refused_where_the_encoder_would_wait_for_ever() -> None:
    clips.make("a.mkv", size=(160, 16), codec="ffv1", pixels="bgr0", options={}, count=3)
    with pytest.raises(ConfigError, match="No film of 160 x 16 px can be written as av1"):
        convert("a.mkv", "b.mkv", codec="av1")


def test_an_end_before_the_first_picture_is_no_damage() -> None:
    clips.make("a.mp4", first=12_288)
    with pytest.raises(VideoError, match="has no picture that begins within that part"):
        convert("a.mp4", "b.mp4", end="0.5")


def test_garbage_that_looks_like_a_new_stream_is_a_damaged_part(monkeypatch: pytest.MonkeyPatch) -> None:
    def demux(streams: Any) -> Iterator[Any]:
        calls.append(streams)
        if len(calls) == 1:
            yield SimpleNamespace(size=1)
            raise IndexError("list index out of range")
        yield SimpleNamespace(size=2)

    calls: list[Any] = []
    harms: list[int] = []
    found = packets_of(SimpleNamespace(demux=demux), [], lambda: harms.append(1))  # type: ignore[arg-type]
    assert [packet.size for packet in found] == [1, 2]
    assert len(harms) == 1
