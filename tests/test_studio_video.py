"""The tabs Video and Camera of the studio, in a real browser."""

from __future__ import annotations

import base64
import io
import re
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import clips
import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from studio import browser, count, failure, give, page, server, sources, text  # noqa: F401

from perceptual import Stylizer
from perceptual.config import STEADY_PAINTING, StudioConfig, VideoConfig
from perceptual.errors import ConfigError, ImageError
from perceptual.motion import Steady, pixels_of, tensor_of
from perceptual.studio import camera, shown, snippets
from perceptual.studio.studio import Studio
from perceptual.video import Reader, Recorder, stills

SIZE = (192, 128)
CAT = np.asarray(Image.fromarray(data.chelsea()).resize(SIZE))


def moving_cat(index: int, size: tuple[int, int]) -> Any:
    """The cat, shifted a little from frame to frame."""
    return np.roll(np.asarray(Image.fromarray(CAT).resize(size)), 2 * index, 1)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight frames of a cat, a third of a second."""
    return clips.make(tmp_path_factory.mktemp("clips") / "the cat.mp4", count=8, size=SIZE, picture=moving_cat)


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 frames."""
    return clips.make(tmp_path_factory.mktemp("clips") / "long.mp4", count=400, size=(320, 240), picture=moving_cat)


def opened(page: Any, url: str, tab: str) -> None:
    """Open a tab of the page."""
    page.goto(url)
    page.get_by_role("tab", name=tab, exact=True).click()


def pictures(page: Any, field: str) -> list[Any]:
    """The pictures in a field, which are data URLs, as arrays (H, W, 3)."""
    urls = sources(page, field)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")) for url in urls]


def wait_for(found: Callable[[], Any]) -> Any:
    """Wait until a function gives something, for a minute at most."""
    for _ in range(600):
        if result := found():
            return result
        time.sleep(0.1)
    raise AssertionError("nothing came within a minute")


def difference(one: Any, other: Any) -> float:
    """Mean difference of two arrays in levels."""
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def test_a_clip_is_previewed_and_painted_as_the_stylizer_does(page: Any, tmp_path: Path, clip: Path) -> None:
    with server(tmp_path / "out") as address:
        opened(page, address.url, "Video")
        give(page, "video-clip", clip)
        page.wait_for_selector("#video-original video")
        assert "192 x 128 px, 24 frames per second, no sound" in page.inner_text("#video-original")
        page.click("#video-preview")
        count(page, "#video-frames img", 10)
        before, after = pictures(page, "video-frames")[:2]
        assert before.shape == after.shape == (128, 192, 3)
        assert difference(before, after) > 20
        page.click("#video-go")
        text(page, "#video-progress", "is finished")
        count(page, "#video-result video", 2)
        page.wait_for_function(
            "[...document.querySelectorAll('#video-result video')].every(each => each.readyState > 0)"
        )
        lengths = page.eval_on_selector_all("#video-result video", "all => all.map(each => each.videoWidth)")
        assert lengths == [192, 192]
        assert "the_cat_starry_night" in page.inner_text("#video-results")
    stylizer, steady = Stylizer.load("starry_night", video=True), Steady(STEADY_PAINTING)
    written = clips.frames(tmp_path / "out" / "results" / "the_cat_starry_night.mp4")
    with Reader(clip) as reader:
        wanted = [steady(frame.pixels, stylizer.stylize(frame.pixels)) for frame in reader]
    assert len(written) == len(wanted) == 8
    for index, (_, got) in enumerate(written):
        assert difference(got, pixels_of(wanted[index])) < 8  # the error of the codec, which halves the colours' size
        assert difference(got, pixels_of(wanted[(index + 4) % 8])) > 12
    assert not (tmp_path / "out" / "uploads").exists()


def test_a_stopped_clip_is_kept_and_a_job_outlives_its_page(page: Any, tmp_path: Path, long_clip: Path) -> None:
    with server(tmp_path / "out") as address:
        opened(page, address.url, "Video")
        give(page, "video-clip", long_clip)
        page.wait_for_selector("#video-original video")
        page.click("#video-go")
        text(page, "#video-result", "frames per second")
        opened(page, address.url, "Video")  # load the page again
        text(page, "#video-result", "frames per second")
        assert "is running" in page.inner_text("#video-progress")
        page.get_by_role("button", name="Stop and keep").click()
        said = text(page, "#video-progress", "was stopped")
        assert "It contains the first" in said
        count(page, "#video-result video", 2)
        assert "long_starry_night" in page.inner_text("#video-results")
    assert 0 < len(clips.frames(tmp_path / "out" / "results" / "long_starry_night.mp4")) < 400


def test_a_trimmed_gif_is_enlarged_from_a_clip_that_no_browser_plays(page: Any, tmp_path: Path) -> None:
    path = clips.make(
        tmp_path / "tape.mov", count=12, size=(64, 48), codec="prores_ks", pixels="yuv422p10le", picture=moving_cat
    )
    with server(tmp_path / "out") as address:
        opened(page, address.url, "Video")
        give(page, "video-clip", path)
        page.wait_for_selector("#video-original img")  # a still in place of the player
        assert "cannot play this format" in page.inner_text("#video-original")
        page.get_by_label("Enlarge it").check()
        page.get_by_label("GIF (no sound)").check()
        page.fill("#video-start input", "0.125")
        page.fill("#video-end input", "0.375")
        page.keyboard.press("Tab")
        page.click("#video-preview")
        count(page, "#video-frames img", 10)
        before, after = pictures(page, "video-frames")[:2]
        assert before.shape == after.shape == (96, 128, 3)
        page.click("#video-go")
        text(page, "#video-progress", "is finished")
        page.wait_for_selector("#video-result img")
    written = clips.frames(tmp_path / "out" / "results" / "tape_x2.gif")
    assert [picture.shape for _, picture in written] == [(96, 128, 3)] * 6


def test_what_is_no_video_is_refused_in_one_sentence(page: Any, tmp_path: Path, clip: Path) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[:300])
    letter = tmp_path / "letter.mp4"
    letter.write_bytes(b"Dear Sir or Madam,\n" * 50)
    with server(tmp_path / "out") as address:
        for path in (letter, cut):
            opened(page, address.url, "Video")
            give(page, "video-clip", path)
            said = failure(page)
            assert path.name in said
            assert str(tmp_path) not in said
        page.click("#video-go")
        assert page.query_selector("#video-result video") is None


def test_the_camera_is_painted_live_and_can_be_kept(page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "out" / "results"
    with server(tmp_path / "out") as address:
        opened(page, address.url, "Camera")
        page.click("#camera-start")
        text(page, "#camera-live", "frames per second")
        first = sources(page, "camera-live")
        wait_for(lambda: sources(page, "camera-live") != first)  # the picture moves
        (painted,) = pictures(page, "camera-live")
        assert painted.std() > 5
        green = painted[..., 1].astype(int) - painted[..., 0]  # Chromium's test camera is green
        assert np.median(green) < 60
        page.get_by_label("wave").check()
        page.click("#camera-take")
        page.wait_for_selector("#camera-results")
        page.click("#camera-record")
        page.locator("#camera-live", has_text=re.compile(r"recording: [1-9]")).wait_for()  # a slow machine skips 1 s
        page.click("#camera-end")
        wait_for(lambda: list(results.glob("*.mp4")))
        monkeypatch.setattr(camera, "LONGEST", 0.5)
        text(page, "#camera-results", "camera_wave")
        page.wait_for_selector("#camera-end", state="hidden")
        page.wait_for_timeout(1000)  # until the page has changed its buttons
        page.wait_for_selector("#camera-record").click()
        wait_for(lambda: len(list(results.glob("*.mp4"))) == 2)  # it ended by itself
        page.wait_for_selector("#camera-record")
        text(page, "#camera-results", "camera_wave_2")
        page.click("#camera-stop")
        text(page, "#camera-live", "The camera is off.")
        assert "camera_wave" in page.inner_text("#camera-results")
    film = results / "camera_wave.mp4"
    with Image.open(next(results.glob("*.png"))) as picture:
        assert max(picture.size) >= camera.SMALLEST
    times = clips.times(film)
    assert len(times) >= 2
    assert times == sorted(set(times))
    assert {file.suffix for file in results.iterdir()} == {".mp4", ".png"}


SLOW_CAMERA = """() => {
  const media = navigator.mediaDevices, open = media.getUserMedia.bind(media);
  window.tracks = [];
  media.getUserMedia = async wanted => {
    await new Promise(done => setTimeout(done, 700));
    const stream = await open(wanted);
    tracks.push(...stream.getTracks());
    return stream;
  };
}"""


def test_a_camera_that_opens_after_stop_is_closed_again(page: Any, tmp_path: Path) -> None:
    with server(tmp_path / "out") as address:
        opened(page, address.url, "Camera")
        page.evaluate(SLOW_CAMERA)
        for button in ("start", "start", "stop"):
            page.click(f"#camera-{button}")
        text(page, "#camera-live", "The camera is off.")
        wait_for(lambda: page.evaluate("tracks.length") == 2)
        wait_for(lambda: page.evaluate("tracks.every(track => track.readyState === 'ended')"))


def test_the_command_is_shown_for_both_tabs() -> None:
    config = VideoConfig(style="wave", strength=0.5, size=320, start="1.5", sound=False)
    command, python = snippets.video(Path("a b.mp4"), config, Path("out.mp4"))
    assert (
        command == "perceptual video 'a b.mp4' --style wave --strength 0.5 --size 320 --start 1.5 --no-sound -o out.mp4"
    )
    compile(python, "snippet", "exec")
    assert "config=VideoConfig(size=320, start='1.5', sound=False)" in python
    command, python = snippets.video(Path("a.mp4"), VideoConfig(upscale=2, loss="feature"), Path("b.mp4"))
    assert command == "perceptual video a.mp4 --upscale 2 --loss feature -o b.mp4"
    assert "Upscaler.at_scale(2, 'feature')" in python
    assert "settle=SteadyDetail(0.7)" in python
    compile(python, "snippet", "exec")
    command, python = snippets.video(Path("a.mp4"), VideoConfig(upscale=2, network=Path("4x.pth")), Path("b.mp4"))
    assert command == "perceptual video a.mp4 --upscale 2 --network 4x.pth -o b.mp4"
    assert "model = Upscaler.load('4x.pth', scale=2)" in python
    command, python = snippets.webcam(camera.Look("wave", keep_colors=True, size=480).config("wave"))
    assert command == "perceptual webcam --style wave --keep-colors --size 480"
    compile(python, "snippet", "exec")


def test_stills_are_evenly_spaced_in_the_part(tmp_path: Path) -> None:
    path = clips.make(tmp_path / "numbers.mp4", count=20, rate=8)  # frame k is shown from k / 8 s on
    assert [clips.number(frame) for _, frame in stills(path)] == [2, 6, 10, 14, 18]
    assert [clips.number(frame) for _, frame in stills(path, 2, start=Fraction(1), end=Fraction(2))] == [10, 14]
    assert next(stills(path, size=32))[1].shape == (1, 3, 24, 32)


def test_a_recording_keeps_the_times_of_its_frames(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "live.mp4")
    assert recorder.finish() is None
    moments = [100.0, 100.1, 100.1, 100.5, 100.6]  # the second one at 100.1 s is left out
    for index, seconds in enumerate(moments):
        recorder.write(tensor_of(clips.numbered(index, (64, 48))), seconds)
    assert list(tmp_path.glob("*.mp4")) == []  # not before it is complete
    assert recorder.finish() == tmp_path / "live.mp4"
    assert [float(each) for each in clips.times(tmp_path / "live.mp4")] == pytest.approx([0, 0.1, 0.5, 0.6], abs=1e-4)
    assert clips.numbers(tmp_path / "live.mp4") == [0, 1, 3, 4]


@pytest.fixture
def cameras(tmp_path: Path) -> Any:
    """The cameras of a studio without a page."""
    studio = Studio.open(StudioConfig(folder=tmp_path / "out"))
    cameras = camera.Cameras(studio.models, studio.folder)
    yield cameras
    cameras.close()


def test_two_pages_do_not_mix_their_frames(cameras: Any) -> None:
    dark, bright = (shown.data_url(torch.full((1, 3, 48, 64), level, dtype=torch.uint8)) for level in (20, 230))
    one, two = cameras.find(cameras.new()), cameras.find(cameras.new())
    one.look = two.look = camera.Look(strength=0.0, steady=0.9)  # the frame before would shine through
    for _ in range(3):
        for client, sent, level in ((one, dark, 20), (two, bright, 230)):
            answer = client.paint(sent, 640, 0.1)
            url = answer["picture"].partition(",")[2]
            assert abs(np.asarray(Image.open(io.BytesIO(base64.b64decode(url)))).mean() - level) < 3
            assert answer["recording"] is None


def test_a_recording_ends_when_the_page_is_closed_or_the_time_is_over(
    cameras: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = shown.data_url(tensor_of(CAT.copy()))
    client = cameras.find(cameras.new())
    with pytest.raises(ConfigError, match="Start the camera first"):
        client.record()
    client.paint(sent, 640, None)
    monkeypatch.setattr(camera, "LONGEST", 0.0)
    client.record()
    assert client.paint(sent, 640, None)["recording"] is None  # over at once
    assert len(client.files) == 1
    monkeypatch.setattr(camera, "LONGEST", 60.0)
    client.record()
    assert client.paint(sent, 640, None)["recording"] == 0
    monkeypatch.setattr(camera, "IDLE", 0.0)
    cameras.watch()
    wait_for(lambda: len(client.files) == 2)
    assert all(len(clips.times(path)) == 1 for path in client.files)
    assert sorted(path.name for path in (tmp_path / "out" / "results").iterdir()) == sorted(
        path.name for path in client.files
    )


@pytest.mark.parametrize("sent", [None, "", "data:image/jpeg;base64,", "data:image/jpeg;base64,AAAA", "x" * 99, 7])
def test_what_is_no_camera_image_is_refused(cameras: Any, sent: Any) -> None:
    with pytest.raises(ImageError):
        cameras.find(cameras.new()).paint(sent, 640, None)
    for name in (None, "", "somebody", 3):
        with pytest.raises(ConfigError, match="load it again"):
            cameras.find(name)
