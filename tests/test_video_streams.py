"""What else a video holds: sound, subtitles, colours, sizes and rotation."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import av
import clips
import numpy as np
import pytest
import torch
from test_video import SRT, convert, folder, grey, invert, remux  # noqa: F401  (fixtures)
from torch import Tensor

from perceptual.errors import VideoError
from perceptual.video import Reader
from perceptual.video.writer import CONTAINERS

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

    _, said = convert("a.mkv", "b.webm")
    assert "Left out, because .webm does not support it: " in said
    assert "an attachment (a.ttf)" in said
    _, said = convert("a.mkv", "b.avi")
    assert "chapters" in said
    _, said = convert("a.mkv", "b.mp4", start="0.25", end="0.75")
    assert said == "Left out, because .mp4 does not support it: subtitles (subrip), an attachment (a.ttf)."
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
    for settings in ({"start": "0.25"}, {}):
        _, said = convert("a.mp4", "b.mp4", **settings)
        assert said == ""
        with av.open("b.mp4") as film:
            covers = [each for each in film.streams.video if each.disposition & av.stream.Disposition.attached_pic]
            assert len(film.streams.video) == 2
            assert len(covers) == 1
        assert clips.packets("b.mp4", "video", 1)[0][1] == clips.packets("a.mp4", "video", 1)[0][1]
    for suffix in (".mkv", ".mov"):
        _, said = convert("a.mp4", f"b{suffix}")
        assert said == f"Left out, because {suffix} does not support it: a cover (mjpeg)."
    clips.make("c.mkv", count=1)
    with av.open("cover.mp4", "w") as output:
        cover: Any = output.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        output.mux(cover.encode(av.VideoFrame.from_ndarray(grey(90)(0, (32, 32)), "rgb24")) + cover.encode(None))
    with pytest.raises(VideoError, match="no video stream"):
        convert("cover.mp4", "b.mp4")


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
