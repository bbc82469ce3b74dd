"""Interlaced films: deinterlaced by default, left so where that is asked for; both are told of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import clips
import numpy as np
import pytest
from test_video import convert

from perceptual.config import VideoConfig
from perceptual.errors import ConfigError
from perceptual.video import Reader
from perceptual.video.filters import Filters, deinterlaced

SAID = "The video is interlaced: it is deinterlaced (--keep-interlaced keeps it interlaced)."


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder; no temporary file outlives a test."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def moving(index: int, size: tuple[int, int], order: str = "tff") -> clips.Array:
    """A bar that has moved on by 2 px in the later of the two fields."""
    picture = np.full((size[1], size[0], 3), 16, np.uint8)
    first, second = 4 * index % 48, 4 * index % 48 + 2
    top, bottom = (first, second) if order == "tff" else (second, first)
    picture[0::2, top : top + 8] = 235
    picture[1::2, bottom : bottom + 8] = 235
    return picture


def interlaced(name: str, order: str = "tff", count: int = 8, ticks: Sequence[int] = ()) -> None:
    """An H.264 film of pictures of two fields, of 24 pictures a second or at times in ticks of 1/12288 s.

    Its upper 24 lines are of `moving`, in grey; below that U is 90 in one field and 160 in the other, of a line each.
    """
    tag = Filters(("setfield", {"mode": order}))
    with av.open(name, "w") as output:
        stream: Any = output.add_stream("libx264", rate=24)
        stream.options = {"x264-params": f"{order}=1:pic-struct=1", "crf": "3", "preset": "ultrafast"}
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 12_288)
        for index, pts in enumerate(ticks or range(0, 512 * count, 512)):
            luma = moving(index, (64, 48), order)[:, :, 0]
            u, v = np.full((24, 32), 128, np.uint8), np.full((24, 32), 128, np.uint8)
            luma[24:], u[12::2], u[13::2] = 120, 90, 160
            stacked = np.concatenate([luma.ravel(), u.ravel(), v.ravel()]).reshape(72, 64)
            (frame,) = tag(av.VideoFrame.from_ndarray(stacked, "yuv420p"))
            frame.pts, frame.time_base = pts, Fraction(1, 12_288)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def combed(picture: clips.Array) -> float:
    """How much neighbouring lines differ, in levels."""
    return float(np.abs(np.diff(picture[:22].astype(int), axis=0)).mean())


def pictures(name: str, *, keep: bool = False) -> list[clips.Array]:
    with Reader(name) as reader:
        reader.keep_interlaced = keep
        return [frame.pixels[0].permute(1, 2, 0).numpy().copy() for frame in reader]


@pytest.mark.parametrize("order", ["tff", "bff"])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_fields_are_brought_together_and_a_line_says_so(order: str, name: str) -> None:
    interlaced(name, order)
    _, said = convert(name, "b.mp4")
    assert said == SAID
    assert min(combed(picture) for picture in pictures(name, keep=True)) > 12
    assert max(combed(picture) for picture in pictures(name)) < 3
    for index, (_, picture) in enumerate(clips.frames("b.mp4")):
        lit = np.flatnonzero(picture[20, :, 0] > 128)
        assert (lit[0], lit[-1]) == pytest.approx((4 * index % 48, 4 * index % 48 + 7), abs=1)  # as the first field
    assert clips.times("b.mp4") == clips.times(name)


def test_times_parts_and_other_rates_stay_right() -> None:
    uneven = [0, 512, 600, 1900, 2000, 2001, 5000, 9000]
    interlaced("a.mp4", ticks=uneven)
    with Reader("a.mp4") as reader:
        frames = list(reader)
    assert [frame.pts for frame in frames] == uneven
    assert [frame.duration for frame in frames] == [*np.diff(uneven), 512]
    interlaced("a.mp4", count=24)
    convert("a.mp4", "b.mp4", start="0.5", fps=12)
    assert clips.times("b.mp4") == [Fraction(index, 12) for index in range(6)]


def test_a_film_that_becomes_interlaced_is_deinterlaced_from_there_on() -> None:
    def numbered(*flags: bool) -> list[Any]:
        frames = []
        for index, flag in enumerate(flags):
            frame = av.VideoFrame.from_ndarray(moving(index, (64, 48)), "rgb24").reformat(format="yuv444p")
            frames += [(next(Filters(("setfield", {"mode": "tff" if flag else "prog"}))(frame)), 10 * index, index)]
        return frames

    made = list(deinterlaced(numbered(False, False, True, True, True, False, True, False)))
    assert [(pts, duration) for _, pts, duration in made] == [(10 * index, index) for index in range(8)]
    sharp = [combed(frame.to_ndarray(format="rgb24")) > 12 for frame, _, _ in made]
    assert sharp == [True, True, False, False, False, True, False, True]


def test_a_film_too_small_for_the_filter_passes_as_it_is() -> None:
    frame = av.VideoFrame.from_ndarray(np.full((2, 2, 3), 90, np.uint8), "rgb24").reformat(format="yuv444p")
    flagged = next(Filters(("setfield", {"mode": "tff"}))(frame))
    assert [each[1:] for each in deinterlaced([(flagged, 0, 1)])] == [(0, 1)]


def test_progressive_films_pass_as_they_are() -> None:
    clips.make("a.mp4")
    _, said = convert("a.mp4", "b.mkv", codec="ffv1")
    _, kept = convert("a.mp4", "c.mkv", codec="ffv1", keep_interlaced=True)
    assert (said, kept) == ("", "")
    assert clips.packets("b.mkv", "video") == clips.packets("c.mkv", "video")


@pytest.mark.parametrize("order", ["tff", "bff"])
def test_kept_fields_keep_their_tag_and_their_own_colours(order: str) -> None:
    interlaced("a.mkv", order)
    _, said = convert("a.mkv", "b.mkv", keep_interlaced=True, crf=5)
    assert said == "The video is interlaced and stays interlaced."
    with av.open("b.mkv") as film:
        stream = film.streams.video[0]
        assert {frame.interlaced_frame for frame in film.decode(stream)} == {True}
        assert stream.codec_context.field_order == (2 if order == "tff" else 3)  # which FFmpeg calls tt and bb
    for name in ("a.mkv", "b.mkv"):
        blue = pictures(name, keep=True)[3][30:44, 8:56, 2].astype(int)
        assert np.abs(blue[0::2] - (116 + 2.02 * (90 - 128))).max() < 12  # B = 1.16 (Y - 16) + 2.02 (U - 128)
        assert np.abs(blue[1::2] - (121 + 2.02 * (160 - 128))).max() < 12
    lit = [np.flatnonzero(pictures(name)[3][20, :, 0] > 128).tolist() for name in ("a.mkv", "b.mkv")]
    assert lit[0] == lit[1] == list(range(12, 20))  # of the first field: the order is right, too


def test_where_the_output_cannot_say_that_it_is_interlaced_a_line_does() -> None:
    interlaced("a.mp4")
    _, said = convert("a.mp4", "b.webm", keep_interlaced=True)
    assert said.endswith("stays interlaced, but the output is tagged as progressive.")


@pytest.mark.parametrize("settings", [{"size": 32}, {"upscale": 2}])
def test_what_does_not_keep_lines_is_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=rf"--keep-interlaced cannot be combined with --{next(iter(settings))}"):
        VideoConfig(keep_interlaced=True, **settings)
