"""Only files that hold a film are opened: no playlists and what they name, no pipes, no devices."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import clips
import pytest
from conftest import SHARED, assert_one_sentence
from test_cli import run
from test_video import convert

from perceptual.errors import VideoError

PLAYLISTS = {
    "live.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.ts\n",  # without an end FFmpeg waits for more
    "ended.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.ts\n#EXT-X-ENDLIST\n",
    "named.mp4": "\ufeff#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.ts\n#EXT-X-ENDLIST\n",
    "list.txt": "ffconcat version 1.0\nfile a.ts\n",
    "list.pls": "[playlist]\nFile1=a.ts\n",
    "list.mpd": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
    "list.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a film in it that playlists name."""
    monkeypatch.chdir(tmp_path)
    clips.make("a.ts", count=24, tick=clips.Fraction(1, 90_000))
    return tmp_path


def soon(work: Callable[[], object]) -> BaseException | None:
    """What a call raises, which has to end within a minute."""
    raised: list[BaseException] = []

    def call() -> None:
        try:
            work()
        except VideoError as error:
            raised.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    return raised[0] if raised else None


@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_playlist_is_refused_at_once(name: str) -> None:
    Path(name).write_text(PLAYLISTS[name], encoding="utf-8")
    error = soon(lambda: convert(name, "b.mp4"))
    assert str(error) == f"{name} is a playlist, not a video: give one of the videos that it lists."
    assert not Path("b.mp4").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
@pytest.mark.parametrize("name", ["pipe.mp4", "pipe.png"])
def test_a_named_pipe_is_refused_at_once(name: str) -> None:
    os.mkfifo(name)
    error = soon(lambda: convert(name, "b.mp4"))
    assert str(error) == f"{name} is a pipe or a device, not a file: save the video to a file first."


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
@pytest.mark.parametrize("given", ["frames", "frames/%d.png"])
def test_a_pipe_among_frames_is_no_frame(given: str) -> None:
    Path("frames").mkdir()
    os.mkfifo("frames/1.png")
    error = soon(lambda: convert(given, "b.mp4"))
    assert isinstance(error, VideoError)


def test_a_device_is_refused() -> None:
    if not Path("/dev/zero").is_char_device():
        pytest.skip("there are no devices here")
    error = soon(lambda: convert("/dev/zero", "b.mp4"))
    assert "is a pipe or a device" in str(error)


def test_a_kind_of_file_that_is_not_allowed_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    source = importlib.import_module("perceptual.video.source")
    assert not {"hls", "dash", "concat", "sdp", "rtsp", "lavfi", "imf", "ffmetadata"} & set(source._KINDS.split())
    assert source._allowed()["protocol_whitelist"] == "file"
    monkeypatch.setattr(source, "_KINDS", "matroska")
    with pytest.raises(VideoError, match=r"a\.ts has a format that is not supported: convert it"):
        convert("a.ts", "b.mp4")


@pytest.mark.shared
def test_the_case_that_hung(capsys: pytest.CaptureFixture[str]) -> None:
    case = SHARED / "cases" / "files" / "live.m3u8"
    if not case.exists():
        pytest.skip("there is no such case")
    code, _, err = run(capsys, "video", case, "-o", "b.mp4", "--device", "cpu")
    assert code == 1
    assert_one_sentence(err, "live.m3u8 is a playlist")
