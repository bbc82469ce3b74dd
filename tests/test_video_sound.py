"""Sound that the output cannot hold is converted, at its times; --no-sound leaves it out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import clips
import numpy as np
import pytest
from test_video import convert

from perceptual.errors import ConfigError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder; no temporary file outlives a test."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def flash(index: int, size: tuple[int, int]) -> clips.Array:
    """White in the second from 1 on, at 24 pictures a second, else black."""
    return np.full((size[1], size[0], 3), 255 if index in (24, 25) else 0, np.uint8)


def sounds(path: str) -> list[tuple[str, int, int]]:
    """Codec, rate and channels of each sound of a film."""
    with av.open(path) as film:
        contexts = [stream.codec_context for stream in film.streams.audio]
        return [(each.codec.canonical_name, each.sample_rate, each.layout.nb_channels) for each in contexts]


CASES = [
    ("a.mp4", "aac", "b.webm", "aac as opus"),
    ("a.mkv", "flac", "b.webm", "flac as opus"),
    ("a.mkv", "libopus", "b.avi", "opus as mp3"),
    ("a.mov", "pcm_mulaw", "b.mp4", "pcm_mulaw as aac"),
    ("a.mov", "pcm_mulaw", "b.mkv", "pcm_mulaw as flac"),
]


@pytest.mark.parametrize(("source", "sound", "target", "words"), CASES)
def test_what_is_heard_stays_at_its_time_and_a_line_says_so(source: str, sound: str, target: str, words: str) -> None:
    clips.make(source, count=48, picture=flash, sound=sound, beep=1.0)
    conversion, said = convert(source, target)
    assert said == f"The sound is converted, because {Path(target).suffix} does not support it: {words}."
    assert conversion.damage == 0
    assert sounds(target) == [(words.split()[-1], 48_000, 1)]
    seen = next(float(time) for time, picture in clips.frames(target) if picture.mean() > 128)
    seen -= float(clips.times(target)[0])  # AVI has no times; FFmpeg guesses them two pictures late
    heard = [time for time, level in clips.loudness(target) if level > 0.05]
    assert heard[0] == pytest.approx(seen, abs=0.045)  # a piece of sound is up to 43 ms long
    assert heard[-1] == pytest.approx(seen + 0.1, abs=0.045)
    last, _ = clips.loudness(target)[-1]
    assert last == pytest.approx(2, abs=0.11)


@pytest.mark.parametrize("settings", [{"start": "0.5"}, {"start": "0.5", "end": "1.5"}, {"fps": 30}])
def test_a_part_has_its_sound_where_that_is_converted(settings: dict[str, Any]) -> None:
    clips.make("a.mp4", count=48, picture=flash, sound="aac", beep=1.0)
    convert("a.mp4", "b.webm", **settings)
    seen = next(float(time) for time, picture in clips.frames("b.webm") if picture.mean() > 128)
    heard = next(time for time, level in clips.loudness("b.webm") if level > 0.05)
    assert heard == pytest.approx(seen, abs=0.045)


def test_gaps_are_filled_with_silence() -> None:
    """Without that, all that comes after a gap would be heard too early."""
    clips.make("whole.mkv", count=72, picture=flash, sound="aac", beep=2.0)
    with av.open("whole.mkv") as film, av.open("a.mkv", "w") as output:
        targets = [output.add_stream_from_template(stream, opaque=True) for stream in film.streams]
        for packet in film.demux():
            gap = packet.stream.type == "audio" and 0.5 < (packet.pts or 0) * packet.time_base < 1.5
            if packet.size and not gap:
                packet.stream = targets[packet.stream.index]
                output.mux(packet)
    convert("a.mkv", "b.webm")
    heard = next(time for time, level in clips.loudness("b.webm") if level > 0.05)
    assert heard == pytest.approx(2, abs=0.06)


def test_sound_that_the_output_holds_is_copied_beside_one_that_is_converted() -> None:
    added: list[Any] = []

    def prepare(output: Any, stream: Any) -> None:
        other = output.add_stream("libopus", rate=48_000)
        other.layout = "stereo"
        other.metadata["language"] = "fra"
        added.append(other)

    def end(output: Any, stream: Any) -> None:
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 48_000), np.int16), "s16", "stereo")
        frame.sample_rate, frame.pts = 48_000, 0
        output.mux(added[-1].encode(frame) + added[-1].encode(None))

    clips.make("a.mkv", sound="aac", prepare=prepare, finish=end)
    _, said = convert("a.mkv", "b.webm")
    assert said == "The sound is converted, because .webm does not support it: aac as opus."
    assert sounds("b.webm") == [("opus", 48_000, 1), ("opus", 48_000, 2)]
    copied = [data for _, data in clips.packets("b.webm", index=1)]
    assert copied == [data for _, data in clips.packets("a.mkv", index=1)][: len(copied)]
    assert [each.get("language") for each in clips.facts("b.webm")["streams"]][1:] == ["deu", "fra"]


def test_surround_sound_keeps_its_channels_and_in_avi_becomes_stereo() -> None:
    with av.open("a.mkv", "w") as output:
        stream: Any = output.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        tone: Any = output.add_stream("ac3", rate=44_100)
        tone.layout = "5.1"
        frame = av.AudioFrame.from_ndarray(np.zeros((6, 44_100), np.float32), "fltp", "5.1")
        frame.sample_rate, frame.pts = 44_100, 0
        output.mux(tone.encode(frame) + tone.encode(None))
        for index in range(24):
            picture = av.VideoFrame.from_ndarray(clips.numbered(index, (64, 48)), "rgb24")
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))
    convert("a.mkv", "b.webm")
    assert sounds("b.webm") == [("opus", 48_000, 6)]
    convert("b.webm", "c.avi")
    assert sounds("c.avi") == [("mp3", 48_000, 2)]


@pytest.mark.parametrize("seed", range(4))
def test_damaged_sound_becomes_silence_and_is_counted(seed: int) -> None:
    clips.make("a.mkv", count=72, picture=flash, sound="aac", beep=2.0)
    data, random = bytearray(Path("a.mkv").read_bytes()), np.random.default_rng(seed)
    for time, packet in clips.packets("a.mkv"):
        if 0.5 < time < 1.2:
            at = data.index(packet)
            data[at : at + len(packet)] = random.bytes(len(packet))
    Path("a.mkv").write_bytes(data)
    conversion, said = convert("a.mkv", "b.webm")
    assert conversion.damage
    assert said.endswith(" The output contains the rest.")
    heard = [time for time, level in clips.loudness("b.webm") if level > 0.05 and time > 1.5]
    assert heard[0] == pytest.approx(2, abs=0.045)


@pytest.mark.parametrize("target", ["b.mp4", "b.webm", "b.avi"])
def test_no_sound_leaves_it_out(target: str) -> None:
    clips.make("a.mp4", sound="aac")
    _, said = convert("a.mp4", target, sound=False)
    assert said == ""
    assert clips.facts(target)["kinds"] == ["video"]
    assert len(clips.times(target)) == 24


def test_sound_that_cannot_be_decoded_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    clips.make("a.mp4", sound="aac")
    monkeypatch.setattr("perceptual.video.streams.can_convert", lambda kind, stream: False)
    with pytest.raises(
        ConfigError, match=r"a\.mp4 has sound \(aac\), which \.webm does not support: .* give --no-sound"
    ):
        convert("a.mp4", "b.webm", lambda pixels: pytest.fail("it worked"))
    assert [path.name for path in Path().iterdir()] == ["a.mp4"]


def test_stopping_early_ends_converted_sound_with_the_pictures() -> None:
    from perceptual.video import Conversion

    clips.make("a.mp4", count=96, sound="aac")
    conversion = Conversion("a.mp4", "b.webm")
    work = conversion.run()
    for step in work:
        if step.index == 24:
            break
    work.close()
    last, _ = clips.loudness("b.webm")[-1]
    assert last <= float(conversion.seconds) + 0.03
    assert last >= float(conversion.seconds) - 0.1
