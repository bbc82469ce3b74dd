"""Videos: stopping, threads, memory, and settings."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import clips
import numpy as np
import pytest
import torch
from test_video import convert, folder, grey, invert, remux, same  # noqa: F401  (fixtures)
from test_video_damage import damage, noise
from torch import Tensor

from perceptual.config import VideoConfig
from perceptual.errors import ConfigError, VideoError
from perceptual.events import Step, finish
from perceptual.video import Conversion, Frame, Writer, convert_video
from perceptual.video.pipeline import in_stages
from perceptual.video.source import Clock, packets_of

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
    assert said.endswith("some players do not support: --upscale 2 or 4 gives even sides.")
    huge = torch.zeros(1, 3, 2, 17_000, dtype=torch.uint8)
    for settings, flag in (({"upscale": 4}, "--upscale"), ({}, "--size")):
        with pytest.raises(ConfigError, match=rf"^h264 does not support .* px: give another --codec or {flag}\."):
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
    monkeypatch.setattr("perceptual.video.base.Frame", Noted)
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
    assert "VideoError: Videos need PyAV: pip install 'perceptual[video]'." in done.stderr


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
        ({"upscale": 4, "steady": 1.5}, "steady is 1.5"),
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
        clock.shift_video(each := packet(index, time))
        assert each.dts / 90_000 == pytest.approx(8 + at / 25, abs=1e-4)
        assert each.pts == each.dts + 1
        if at == 48:  # of the second part, which the film has not come to
            assert not clock.shift_other(packet(1, 1.4))
        if at == 55:
            for sound, expected in ((1.4, 10.0), (9.5, 9.5), (1.7, 10.3)):  # the second of the first part
                each = packet(2 if sound == 9.5 else 1, sound)
                assert clock.shift_other(each)
                moved.append(each.dts / 90_000 - expected)
        elif at % 10 == 0:
            assert clock.shift_other(packet(1, time - 0.7))
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
            ConfigError, match=r"starts late or has gaps, which \.avi does not support: write \.mkv or \.mp4"
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
    with pytest.raises(ConfigError, match="av1 does not support 160 x 16 px"):
        convert("a.mkv", "b.mkv", codec="av1")


def test_garbage_that_looks_like_a_new_stream_is_a_damaged_part(monkeypatch: pytest.MonkeyPatch) -> None:
    def demux(streams: Any) -> Iterator[Any]:
        calls.append(streams)
        if len(calls) == 1:
            yield SimpleNamespace(size=1)
            raise IndexError("list index out of range")
        yield SimpleNamespace(size=2)

    calls: list[Any] = []
    harms: list[int] = []
    found = packets_of(SimpleNamespace(demux=demux), [SimpleNamespace()], lambda: harms.append(1))  # type: ignore
    assert [packet.size for packet in found] == [1, 2]
    assert len(harms) == 1
