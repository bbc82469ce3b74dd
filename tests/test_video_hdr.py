"""Films in high dynamic range: HLG and PQ become BT.709, are tagged so, and are told of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clips
import numpy as np
import pytest
from test_video import convert

from perceptual.video import Reader, tones

HLG, PQ = 18, 16


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder; no temporary file outlives a test."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def film(name: str, transfer: int, *colours: tuple[int, int, int], **more: Any) -> None:
    """A film of flat pictures whose signal, in 8 bits of BT.2020, is given."""

    def flat(index: int, size: tuple[int, int]) -> clips.Array:
        return np.full((size[1], size[0], 3), colours[index], np.uint8)

    tags = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": transfer}
    options = {"crf": "0", "preset": "ultrafast"}
    clips.make(name, count=len(colours), picture=flat, pixels="yuv420p10le", options=options, **tags, **more)


def seen(name: str) -> list[list[int]]:
    """The middle pixel of each picture as it is painted."""
    with Reader(name) as reader:
        return [frame.pixels[0, :, 24, 32].tolist() for frame in reader]


def test_light_of_hlg_and_pq_is_that_of_the_standard() -> None:
    """BT.2408: white paper of 203 cd/m2 is at 75 % of HLG and at 58 % of PQ; the ends are 1,000 and 10,000."""
    signal = np.array([[0.0] * 3, [0.75] * 3, [1.0] * 3])
    assert tones.hlg_to_light(signal)[:, 1] == pytest.approx([0, 203, 1000], abs=1)
    assert tones.pq_to_light(np.array([0, 0.5081, 0.5807, 1])) == pytest.approx([0, 100, 203, 10_000], rel=1e-3)


def test_the_dark_part_is_left_alone_and_the_peak_becomes_white() -> None:
    light = np.array([0, 0.1, 0.3, 0.30001, 1, 5, 6])
    bent = tones.tone_map(light, 5.0)
    assert bent[:3].tolist() == [0, 0.1, 0.3]
    assert bent[3] == pytest.approx(0.30001, abs=1e-7)  # no step, and the slope is 1
    assert bent[4] == pytest.approx(0.68, abs=0.005)  # a + 1 over b + 1: 0.681
    assert bent[5:].tolist() == pytest.approx([1, 1])
    assert tones.tone_map(light, 1.0).tolist() == [0, 0.1, 0.3, 0.30001, 1, 1, 1]


@pytest.mark.parametrize(
    ("transfer", "signal"),
    [(HLG, (0, 111, 191, 255)), (PQ, (0, 105, 148, 192))],  # of 0, 36.5 (18 % grey), 203 and 1,000 cd/m2
)
def test_greys_are_as_bright_as_in_sdr_up_to_the_middle(transfer: int, signal: tuple[int, ...]) -> None:
    """18 % grey is 255 * 0.18 ** (1 / 2.4) = 125; white paper is 255 * 0.679 ** (1 / 2.4) = 217."""
    film("a.mkv", transfer, *[(level, level, level) for level in signal])
    for found, level in zip(seen("a.mkv"), (0, 125, 217, 255), strict=True):
        assert max(found) - min(found) <= 2
        assert found[1] == pytest.approx(level, abs=3)


def test_the_table_is_as_good_as_the_formula() -> None:
    colours = [(150, 120, 110), (191, 182, 160), (170, 120, 80), (90, 110, 140), (60, 60, 64), (230, 225, 220)]
    film("a.mkv", HLG, *colours)
    expected = tones.to_sdr(np.array(colours) / 255, HLG) * 255
    assert np.abs(np.array(seen("a.mkv")) - expected).max() <= 4


def test_colours_that_bt_709_lacks_keep_their_hue() -> None:
    red, green, blue = (tones.to_sdr(np.eye(3)[index] * 0.7, HLG) for index in range(3))
    assert (red.argmax(), green.argmax(), blue.argmax()) == (0, 1, 2)
    assert all(colour.min() >= 0 and colour.max() <= 1 for colour in (red, green, blue))


@pytest.mark.parametrize(("transfer", "word"), [(HLG, "HLG"), (PQ, "PQ")])
@pytest.mark.parametrize("target", ["b.mp4", "b.mkv"])
def test_the_output_is_tagged_as_what_it_is_and_a_line_says_so(transfer: int, word: str, target: str) -> None:
    film("a.mp4", transfer, *[(191, 182, 160)] * 3)
    _, said = convert("a.mp4", target, crf=1)
    assert said == f"The video is in HDR ({word}): it is converted to SDR (BT.709)."
    assert clips.facts("a.mp4")["colours"] == (9, 1, 9, transfer)
    assert clips.facts(target)["colours"] == (1, 1, 1, 1)
    shown = clips.frames(target)[1][1][24, 32]
    assert np.abs(shown.astype(int) - seen("a.mp4")[1]).max() <= 3


def test_a_film_in_sdr_is_not_converted() -> None:
    clips.make("a.mp4", colorspace=9, color_primaries=9, color_trc=14)
    _, said = convert("a.mp4", "b.mp4")
    assert said == ""
    assert clips.facts("b.mp4")["colours"] == (9, 1, 9, 14)


def test_size_and_a_change_of_size_in_the_middle() -> None:
    film("a.mkv", HLG, *[(191, 191, 191)] * 3)
    with Reader("a.mkv", size=32) as reader:
        frames = list(reader)
    assert {tuple(frame.pixels.shape) for frame in frames} == {(1, 3, 24, 32)}
    to_sdr = tones.ToSDR(HLG, 1000, 9, (16, 12))
    for size in ((64, 48), (64, 48), (32, 24)):
        frame = clips.av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), 191, np.uint8), "rgb24")
        (made,) = to_sdr(frame)
        assert (made.width, made.height) == (16, 12)
        assert np.abs(made.to_ndarray().astype(int) - 217).max() <= 2
