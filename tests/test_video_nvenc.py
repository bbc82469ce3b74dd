"""Encoding on an NVIDIA GPU, without one: which encoder is chosen, with which options, and what is said."""

from __future__ import annotations

from pathlib import Path

import av
import clips
import pytest
import torch
from test_video import convert

from perceptual.config import VideoConfig
from perceptual.errors import ConfigError
from perceptual.video import writer


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.skipif(torch.cuda.is_available(), reason="NVENC may be there")
def test_without_nvenc_the_software_encodes_and_one_line_says_so() -> None:
    clips.make("a.mp4")
    _, said = convert("a.mp4", "nvenc.mp4", encoder="nvenc")
    assert said == "NVENC cannot encode this video here: libx264 encodes it."
    with av.open("nvenc.mp4") as video:
        assert video.streams.video[0].codec_context.name == "h264"
        assert sum(1 for _ in video.decode(video=0)) == 24


def test_nvenc_encodes_where_it_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    """MPEG-4 stands in for NVENC."""
    stand_in = writer._Encoder("mpeg4", 18, 51, "p4", quality="cq", options={"rc": "vbr", "b": "0"})
    monkeypatch.setitem(writer.NVENC, "h264", stand_in)
    clips.make("a.mp4")
    _, said = convert("a.mp4", "b.mp4", encoder="nvenc")
    assert not said
    with av.open("b.mp4") as video:
        assert video.streams.video[0].codec_context.name == "mpeg4"
        assert sum(1 for _ in video.decode(video=0)) == 24


def test_the_options_are_nvencs_own() -> None:
    for codec, encoder in writer.NVENC.items():
        assert (encoder.name, encoder.quality, encoder.preset) == (f"{codec}_nvenc", "cq", "p4")
        assert encoder.max_crf == writer.ENCODERS[codec].max_crf


def test_frames_with_odd_sides_are_left_to_software(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(writer.NVENC, "h264", writer._Encoder("mpeg4"))
    info = writer.Info(64, 48, None, None, None, True, False, None, "h264", writer.Colours())
    assert writer._nvenc_opens("h264", info, VideoConfig())
    assert not writer._nvenc_opens("h264", info, VideoConfig(upscale=1.171875))  # 75 x 56
    assert writer._nvenc_opens("h264", info, VideoConfig(upscale=1.171875, size=80))
    assert not writer._nvenc_opens("hevc", info, VideoConfig()) or torch.cuda.is_available()


def test_settings_that_nvenc_does_not_have_are_refused() -> None:
    with pytest.raises(ConfigError, match="--preset cannot be combined with --encoder nvenc"):
        VideoConfig(encoder="nvenc", preset="fast")
    with pytest.raises(ConfigError, match="--keep-interlaced cannot be combined"):
        VideoConfig(encoder="nvenc", keep_interlaced=True)
    with pytest.raises(ConfigError, match="NVENC cannot encode ffv1"):
        writer.check_target(Path("a.mkv"), VideoConfig(encoder="nvenc", codec="ffv1"))
