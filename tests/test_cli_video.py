"""perceptual video as a user meets it: a film out, exit codes, and one sentence where something is wrong."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import clips
import numpy as np
import pytest
import torch
from conftest import assert_one_sentence
from test_cli import run
from torch import Tensor

from perceptual import Stylizer, Upscaler, motion
from perceptual.config import STEADY_ENLARGING, VideoConfig
from perceptual.video import Reader

command = importlib.import_module("perceptual.cli.video")  # whose name in its folder is that of the function

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Iterator[Path]:
    """The working folder, with a film of a second in it; no temporary file outlives a test."""
    monkeypatch.chdir(tmp_path)
    clips.make("a.mp4", count=24, sound="aac")
    yield tmp_path
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def video(capsys: Capture, *words: object) -> tuple[int, str, str]:
    return run(capsys, "video", *words, "--device", "cpu")


def pictures(path: str) -> list[Tensor]:
    with Reader(path) as reader:
        return [frame.pixels.clone() for frame in reader]


def test_two_messages_at_once_are_two_lines(capsys: Capture, tiny_style: Path) -> None:
    code, _, err = video(capsys, "a.mp4", "--style", tiny_style, "-o", "b.gif", "--fps", "120", "--steady", "0")
    assert code == 0, err
    assert "Left out, because .gif does not support it: sound (aac).\n" in err
    assert "\\u" not in err


def test_a_film_is_painted_with_its_sound(capsys: Capture, tiny_style: Path) -> None:
    code, out, err = video(capsys, "a.mp4", "--style", tiny_style, "-o", "b.mkv", "--codec", "ffv1", "--steady", "0")
    assert (code, out) == (0, ""), err
    last = err.strip().splitlines()[-1]
    assert re.fullmatch(r"Wrote b\.mkv: 24 frames in \d+\.\d s \(\d+\.\d frames per second\)\.", last)
    stylizer = Stylizer.load(tiny_style, device="cpu")
    for frame, painted in zip(pictures("a.mp4"), pictures("b.mkv"), strict=True):
        assert torch.equal(stylizer.stylize(frame), painted)
    assert [data for _, data in clips.packets("b.mkv")] == [data for _, data in clips.packets("a.mp4")]


def test_options_reach_the_painting(capsys: Capture, tiny_style: Path) -> None:
    base = ["a.mp4", "--style", tiny_style, "--codec", "ffv1", "--steady", "0", "--end", "0.2"]
    video(capsys, *base, "-o", "none.mkv", "--strength", "0")
    video(capsys, *base, "-o", "small.mkv", "--size", "32", "--keep-colors", "--name", "two", "--style-scale", "0.5")
    assert all(torch.equal(one, two) for one, two in zip(pictures("a.mp4"), pictures("none.mkv"), strict=False))
    stylizer = Stylizer.load(tiny_style, device="cpu")
    with Reader("a.mp4", size=32) as reader:
        frame = next(iter(reader)).pixels
    expected = stylizer.stylize(frame, style="two", keep_colors=True, style_scale=0.5)
    assert expected.shape == (1, 3, 24, 32)
    assert torch.equal(pictures("small.mkv")[0], expected)
    assert len(pictures("small.mkv")) == 5


def test_paintings_are_steadied_in_order(capsys: Capture, tiny_style: Path) -> None:
    video(capsys, "a.mp4", "--style", tiny_style, "-o", "b.mkv", "--codec", "ffv1", "--steady", "0.6")
    stylizer, steady = Stylizer.load(tiny_style, device="cpu"), motion.Steady(0.6)
    for frame, painted in zip(pictures("a.mp4"), pictures("b.mkv"), strict=True):
        assert torch.equal(steady(frame, stylizer.stylize(frame)), painted)


def test_a_film_is_enlarged(capsys: Capture) -> None:
    code, _, err = video(capsys, "a.mp4", "--upscale", "4", "-o", "b.mkv", "--codec", "ffv1", "--end", "0.1")
    assert code == 0, err
    upscaler = Upscaler.at_scale(4, device="cpu")
    large = pictures("b.mkv")
    assert large[0].shape == (1, 3, 192, 256)
    assert torch.equal(upscaler.upscale(pictures("a.mp4")[0]), large[0])
    video(capsys, "a.mp4", "--upscale", "2", "--loss", "feature", "-o", "b.mp4", "--end", "0.1")
    assert clips.facts("b.mp4")["size"] == (128, 96)


@pytest.mark.parametrize(
    ("flags", "amount"), [([], STEADY_ENLARGING), (["--steady", "0"], 0), (["--steady", "0.8"], 0.8)]
)
def test_enlargements_are_steadied_in_order(capsys: Capture, flags: list[str], amount: float) -> None:
    base = ["a.mp4", "--upscale", "2", "-o", "b.mkv", "--codec", "ffv1", "--end", "0.2"]
    code, _, err = video(capsys, *base, *flags)
    assert code == 0, err
    upscaler, steady = Upscaler.load("x2_video", device="cpu"), motion.SteadyDetail(amount)
    large = pictures("b.mkv")
    assert len(large) == 5
    for frame, written in zip(pictures("a.mp4"), large, strict=False):
        assert torch.equal(steady(frame, upscaler.upscale(frame)), written)


@pytest.mark.parametrize(
    ("settings", "amount"),
    [
        ({}, 0.15),
        ({"upscale": 2}, 0.5),
        ({"upscale": 4, "loss": "pixel"}, 0.5),
        ({"upscale": 4, "loss": "feature"}, 0.7),
        ({"upscale": 4, "loss": "feature", "steady": 0.1}, 0.1),
        ({"network": Path("own.safetensors")}, 0.5),
    ],
)
def test_the_default_steadiness_depends_on_the_work(settings: dict[str, Any], amount: float) -> None:
    assert VideoConfig(**settings).steadiness == amount


def test_progress_off_a_terminal_is_plain_lines(capsys: Capture, tiny_style: Path) -> None:
    _, _, err = video(capsys, "a.mp4", "--style", tiny_style, "-o", "b.mp4")
    assert re.search(r"^painting 24/24  \d+\.\d frames per second  0 s left$", err, re.M), err
    assert "\x1b" not in err


def test_messages_about_the_film_are_shown(capsys: Capture, tiny_style: Path) -> None:
    clips.make("odd.mkv", count=3, size=(65, 49), codec="ffv1", pixels="yuv444p")
    code, _, err = video(capsys, "odd.mkv", "--style", tiny_style, "-o", "b.mp4")
    assert code == 0
    assert (
        "65 x 49 px has an odd side and is written as 4:4:4, which some players do not support: --size gives even"
        in err
    )


def test_a_film_that_breaks_off_is_kept_and_the_exit_code_is_1(capsys: Capture, tiny_style: Path) -> None:
    clips.make("a.mkv", count=120)
    data = Path("a.mkv").read_bytes()
    Path("a.mkv").write_bytes(data[: len(data) // 2])
    code, _, err = video(capsys, "a.mkv", "--style", tiny_style, "-o", "b.mp4")
    assert code == 1
    assert "a.mkv is incomplete: it ends after" in err
    assert "Wrote b.mp4" in err
    assert len(clips.times("b.mp4")) > 20


@pytest.mark.parametrize(
    ("exit_code", "words", "parts"),
    [
        (1, "missing.mp4 -o b.mp4", "There is no video missing.mp4"),
        (1, "~no_such_person/a.mp4 -o b.mp4", "There is no video ~no_such_person/a.mp4"),
        (1, f"{'long' * 99}.mp4 -o b.mp4", "There is no video longlong"),
        (1, f"a.mp4 -o {'long' * 99}.mp4", "the name is too long"),
        (1, "a.mp4 -o a.mp4", "would overwrite its input"),
        (2, "a.mp4 -o b.xyz", "has no known file ending: give a name that ends in .mp4"),
        (2, "a.mp4 -o b.mp4 --codec vp9 --crf 70", "crf is 70"),
        (2, "a.mp4 -o b.mp4 --start soon", "start is 'soon'"),
        (1, "a.mp4 -o b.mp4 --start 10", "give another --start"),
        (2, "a.mp4 -o b.mp4 --steady 3", "steady is 3"),
        (1, "a.mp4 -o b.mp4 --size 100000", "give a smaller --size"),
        (1, "a.mp4 -o b.mp4 --style no_such_style", "no_such_style"),
        (1, "a.mp4 -o b.mp4 --name no_such_style", "no_such_style"),
        (2, "a.mp4 -o b.mp4 --style wave --upscale 4", "--style has no effect"),
        (2, "a.mp4 -o b.mp4 --upscale 100", "scale is 100"),
        (1, "a.mp4 -o b.mp4 --upscale 4 --loss sharp", "'sharp'"),
        (1, "a.mp4 -o b.mp4 --network missing.safetensors", "missing.safetensors"),
        (1, "a.mp4 -o a.mp4/b.mp4", "Cannot write a.mp4/b.mp4"),
        (1, "text.mp4 -o b.mp4", "text.mp4 is not a video"),
        (2, "a.mp4 -o folder", "has no known file ending"),
    ],
)
def test_mistakes_get_one_sentence_and_a_failing_exit_code(
    capsys: Capture, exit_code: int, words: str, parts: str
) -> None:
    Path("text.mp4").write_text("hello")
    Path("folder").mkdir()
    before = sorted(path.name for path in Path().iterdir())
    code, out, err = video(capsys, *words.split())
    assert (code, out) == (exit_code, "")
    assert_one_sentence(err, parts)
    assert sorted(path.name for path in Path().iterdir()) == before


def test_without_pyav_the_command_says_how_to_get_it(tmp_path: Path) -> None:
    code = "import sys; sys.modules['av'] = None; from perceptual import cli\nsys.exit(cli.main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "video", "a.mp4", "-o", "b.mp4"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert_one_sentence(done.stderr, "pip install 'perceptual[video]'")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_keeps_what_is_done(capsys: Capture, monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("this process was told to ignore that signal, as by nohup")
    clips.make("a.mp4", count=240, sound="aac")
    whole = command._convert

    def signalled(config: Any) -> Any:
        convert, at_once = whole(config)

        def paint(pixels: Tensor) -> Tensor:
            if clips.number(pixels) == 20:
                os.kill(os.getpid(), number)
                time.sleep(0.2)
            return convert(pixels)

        return paint, at_once

    monkeypatch.setattr(command, "_convert", signalled)
    code, _, err = video(capsys, "a.mp4", "--strength", "0", "-o", "b.mp4")
    assert code == 130, err
    frames = len(clips.times("b.mp4"))
    assert 15 <= frames <= 30
    assert f"Wrote b.mp4: {frames} frames in" in err
    assert f"Stopped early: it contains the first {frames / 24:.1f} s." in err
    assert clips.packets("b.mp4")[-1][0] <= Fraction(frames, 24)


@pytest.mark.slow
def test_the_installed_command_paints_a_film_and_stops_on_ctrl_c() -> None:
    """In a process of its own: threads, signals and the end of the process as they are."""
    clips.make("long.mp4", count=120, sound="aac", size=(320, 240))
    words = [sys.executable, "-m", "perceptual", "video", "long.mp4", "--style", "wave", "-o", "b.mp4"]
    process = subprocess.Popen([*words, "--device", "cpu"], stderr=subprocess.PIPE, text=True)
    began = time.monotonic()
    while not list(Path().glob(".b-*")) and time.monotonic() - began < 60:
        time.sleep(0.05)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Stopping after this step" in err
    assert "Traceback" not in err
    shown = clips.times("b.mp4") if Path("b.mp4").exists() else []
    assert (f"Wrote b.mp4: {len(shown)} frame" in err) if shown else "nothing was written" in err
    assert np.diff([float(time) for time in shown]) == pytest.approx(1 / 24)


def test_stylize_points_to_this_command_for_a_film(capsys: Capture) -> None:
    code, _, err = run(capsys, "stylize", "a.mp4", "-o", "b.png")
    assert code == 1
    assert "a.mp4 is a video: use `perceptual video`." in err


def test_no_sound_is_a_flag(capsys: Capture, tiny_style: Path) -> None:
    code, _, err = video(capsys, "a.mp4", "--style", tiny_style, "-o", "b.webm", "--no-sound")
    assert code == 0, err
    assert clips.facts("b.webm")["kinds"] == ["video"]
