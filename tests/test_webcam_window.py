"""The window of `perceptual webcam`, and the command."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import run as command
from test_webcam import (  # noqa: F401  (fixtures)
    FRAMES,
    HEIGHT,
    WIDTH,
    Array,
    Capture,
    Painter,
    expected,
    folder,
    frames_of,
    go_to,
    make_film,
    number_of,
    on_screen,
    playing,
    press,
    pygame,
    title,
)
from torch import Tensor

from perceptual import images
from perceptual.apply import Stylizer
from perceptual.errors import ConfigError
from perceptual.webcam import Camera, Look, Window

# --- the window


def test_the_window_shows_the_painting_of_every_frame() -> None:
    with playing() as work:
        for index, frame in enumerate(frames_of(), start=1):
            shown = go_to(work, index)
            assert np.array_equal(on_screen(), expected(frame))
        assert list(work) in ([], [shown])
    assert (shown.width, shown.height) == (WIDTH, HEIGHT)
    assert shown.seconds == pytest.approx(FRAMES * 0.01)


def test_keys_change_style_strength_and_colours_from_the_next_frame_on() -> None:
    frames = frames_of()
    with playing() as work:
        go_to(work, 1)
        for index, (keys, how) in enumerate(
            [
                (["right"], ("turned", 1.0, False)),
                (["n"], ("negative", 1.0, False)),
                (["left", "down"], ("turned", 0.9, False)),
                (["p", "down", "down", "c"], ("negative", 0.7, True)),
                (["up", "c"], ("negative", 0.8, False)),
                (["up"] * 5, ("negative", 1.0, False)),
                (["down"] * 12, ("negative", 0.0, False)),
            ],
            start=2,
        ):
            press(*keys)
            go_to(work, index)
            assert np.array_equal(on_screen(), expected(frames[index - 1], *how)), keys
            assert title().startswith(f"{how[0]}, strength {how[1]:g}, ")
            assert ("colours kept" in title()) == how[2]


def test_a_blend_comes_first_and_a_style_without_a_name_stands_alone() -> None:
    blend = Painter()
    blend.blend = {0: 0.5, 1: 0.5}
    with playing(blend, style="negative:0.5,turned:0.5") as work:
        for index, name in enumerate(["negative:0.5,turned:0.5", "negative", "turned", "negative:0.5,turned:0.5"], 1):
            go_to(work, index)
            assert title().startswith(f"{name}, ")
            press("n")
    Path("mine.safetensors").touch()
    nameless = Painter()
    nameless.styles = ()  # type: ignore[assignment]
    with playing(nameless, style="mine.safetensors") as work:
        go_to(work, 1)
        press("n")
        go_to(work, 2)
        assert title().startswith("mine, ")


def test_while_frozen_the_same_picture_is_painted_in_other_ways() -> None:
    frames = frames_of()
    painter = Painter()
    with playing(painter) as work:
        go_to(work, 3)
        press("space")
        for _ in range(3):
            frozen = next(work)
            assert np.array_equal(on_screen(), expected(frames[2]))
        assert "frozen" in title()
        assert len(painter.sides) == 3
        press("n")
        assert next(work).index == 3
        assert np.array_equal(on_screen(), expected(frames[2], "turned"))
        painter.now += 60
        press("space")
        after = go_to(work, 4)
        assert np.array_equal(on_screen(), expected(frames[3], "turned"))
        assert "frozen" not in title()
        assert after.seconds == pytest.approx(frozen.seconds + 0.01)  # the time of freezing does not count


def test_a_frozen_picture_stays_when_the_film_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with playing() as work:
        go_to(work, 2)
        press("space")
        next(work)
        monkeypatch.setattr(Camera, "over", True)
        assert [next(work).index for _ in range(3)] == [2, 2, 2]
        press("space")
        assert len(list(work)) == 1


def test_saving_takes_the_next_free_name_and_tells_it() -> None:
    Path("negative-2.png").touch()
    with playing(out=Path("new")) as work:
        go_to(work, 1)
        press("s")
        assert next(work).message == f"Saved {Path('new/negative-1.png')}."
    with playing() as work:
        go_to(work, 2)
        press("space", "s", "n", "s")
        told = next(work).message
        assert told == "Saved negative-1.png. Saved negative-3.png."
        press("s")
        assert next(work).message == "Saved turned-1.png."
    with Image.open("negative-1.png") as saved:
        assert np.array_equal(np.asarray(saved), expected(frames_of()[1]))
    with Image.open("turned-1.png") as saved:
        assert np.array_equal(np.asarray(saved), expected(frames_of()[1], "turned"))


def test_a_picture_that_cannot_be_saved_does_not_close_the_window() -> None:
    Path("file").touch()
    with playing(out=Path("file/folder")) as work:
        assert go_to(work, 1).message is None
        press("s")
        message = next(work).message
        assert message is not None
        assert message.startswith("Cannot write file")
        assert go_to(work, 3)


@pytest.mark.parametrize("how", ["q", "escape", "the window's button"])
def test_the_window_can_be_closed(how: str) -> None:
    with playing() as work:
        index = go_to(work, 2).index
        if how in ("q", "escape"):
            press(how)
        else:
            pygame.event.post(pygame.event.Event(pygame.QUIT))
        assert [shown.index for shown in work] == [index]


def test_the_keys_can_be_shown_and_hidden() -> None:
    make_film("film.avi", size=(320, 240))
    frames = frames_of()
    with playing() as work:
        go_to(work, 1)
        for index, key in enumerate(["h", "f1"], 2):
            press(key)
            go_to(work, index)
            assert np.array_equal(on_screen(), expected(frames[index - 1])) == (key == "f1")
            assert np.array_equal(on_screen()[:, 240:], expected(frames[index - 1])[:, 240:])


def test_a_window_of_another_shape_keeps_that_of_the_picture() -> None:
    with Window(WIDTH, HEIGHT) as window:
        painting = frames_of()[5]
        window.show(painting, "")
        pygame.display.set_mode((3 * WIDTH, 2 * HEIGHT), pygame.RESIZABLE)
        pygame.event.post(pygame.event.Event(pygame.WINDOWSIZECHANGED))
        assert window.actions() == []
        screen = on_screen()
        assert screen.shape == (2 * HEIGHT, 3 * WIDTH, 3)
        edge = WIDTH // 2
        assert screen[:, :edge].max() == screen[:, -edge:].max() == 0
        larger = cv2.resize(painting, (2 * WIDTH, 2 * HEIGHT), interpolation=cv2.INTER_CUBIC)
        assert np.array_equal(screen[:, edge:-edge], larger)


def test_a_window_fits_on_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pygame.display, "get_desktop_sizes", lambda: [(1000, 800)])
    for shape, size in (((4000, 1000), (900, 225)), ((640, 480), (640, 480)), ((1000, 2000), (360, 720))):
        with Window(*shape):
            assert pygame.display.get_window_size() == size


def test_a_slow_painter_gets_smaller_pictures_and_the_window_stays() -> None:
    make_film("film.avi", 60, (480, 320))
    painter = Painter(lambda side: 0.1 * (side / 320) ** 2)
    with playing(painter, fps=15.0) as work:
        shown = go_to(work, 60)
        assert on_screen().shape == (320, 480, 3)
        assert title().endswith(
            f"{shown.width} x {shown.height} px, {1 / painter.cost(shown.width):.0f} frames per second, h: keys"
        )
    assert shown.width < 270
    assert 0.1 * (shown.width / 320) ** 2 <= 1 / 15
    assert shown.height == round(shown.width * 2 / 3)
    assert painter.sides[0] == 320


def test_a_quick_painter_gets_the_whole_picture_and_no_more_than_was_asked_for() -> None:
    make_film("film.avi", 40, (480, 320))
    for values, largest in (({}, 480), ({"size": 400}, 400)):
        painter = Painter(lambda side: 0.001)
        with playing(painter, **values) as work:
            assert go_to(work, 40).width == largest


def test_paintings_are_steadied_and_that_begins_anew_with_each_change(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    class Steady:
        def __init__(self, amount: float) -> None:
            calls.append(amount)

        def reset(self) -> None:
            calls.append("reset")

        def __call__(self, frame: Tensor, painted: Tensor) -> Tensor:
            assert frame.shape == painted.shape
            calls.append(number_of(frame[0].permute(1, 2, 0).numpy()))
            return painted // 2

    monkeypatch.setattr("perceptual.webcam.Steady", Steady)
    with playing(steady=0.7) as work:
        go_to(work, 2)
        assert np.array_equal(on_screen(), expected(frames_of()[1]) // 2)
        press("n")
        go_to(work, 3)
        press("h")
        go_to(work, 4)
    assert calls == [0.7, "reset", 0, 1, "reset", 2, 3]


def test_an_error_in_the_painter_closes_everything() -> None:
    def fail(side: int) -> float:
        raise ConfigError("no")

    with playing(Painter(fail)) as work, pytest.raises(ConfigError, match="no"):
        next(work)


def test_strength_keeps_to_tenths_from_where_it_began() -> None:
    look = Look("a", 0.75, False)
    assert look.after("more", ["a"]).strength == 0.85
    assert look.after("less", ["a"]).after("less", ["a"]).strength == 0.55
    assert look.after("save", ["a"]) == look.after("next", ["a"]) == look


# --- the command


def webcam(capfd: Capture, *words: object) -> tuple[int, str, str]:
    """Exit code, stdout, and stderr with what libraries in C write there."""
    return command(capfd, "webcam", "--device", "cpu", *words)


def test_the_real_wave_paints_a_film_in_the_window(capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    screens: list[Array] = []
    show = Window.show

    def keep(window: Window, *more: Any, **options: Any) -> None:
        show(window, *more, **options)
        screens.append(on_screen())
        press("n" if len(screens) == 1 else "down")

    monkeypatch.setattr(Window, "show", keep)
    make_film("film.avi", 100, (160, 96))
    code, out, err = webcam(capfd, "--style", "wave", "--camera", "film.avi", "--frames", "3", "--steady", "0")
    assert (code, out) == (0, "")
    assert err.startswith("3 frames in ")
    assert err.endswith(" frames per second at 160 x 96 px.\n")
    assert err.count("\n") == 1
    stylizer = Stylizer.load("wave", device="cpu", video=True)
    pictures = [torch.from_numpy(frame).permute(2, 0, 1)[None] for frame in frames_of()[:13]]
    for screen, look in zip(screens, (("wave", 1.0), ("wheat_field", 1.0), ("wheat_field", 0.9)), strict=True):
        paintings = [stylizer.stylize(picture, style=look[0], strength=look[1]) for picture in pictures]
        assert any(np.array_equal(screen, painting[0].permute(1, 2, 0)) for painting in paintings)


def test_pictures_that_are_saved_are_told_of(capfd: Capture, monkeypatch: pytest.MonkeyPatch, tiny_style: Path) -> None:
    show = Window.show

    def keep(window: Window, *more: Any, **options: Any) -> None:
        show(window, *more, **options)
        press("s")

    monkeypatch.setattr(Window, "show", keep)
    code, _, err = webcam(capfd, "--style", tiny_style, "--camera", "film.avi", "--frames", "2", "-o", "saved")
    assert code == 0
    assert err.splitlines()[0] == f"Saved {Path('saved/one-1.png')}."
    assert images.read("saved/one-1.png").width == WIDTH


def test_ctrl_c_closes_the_window_and_tells_the_frames(
    capfd: Capture, monkeypatch: pytest.MonkeyPatch, tiny_style: Path
) -> None:
    show = Window.show

    def stop(window: Window, *more: Any, **options: Any) -> None:
        show(window, *more, **options)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Window, "show", stop)
    code, _, err = webcam(capfd, "--style", tiny_style, "--camera", "film.avi", "--loop")
    assert code == 130
    assert err.splitlines()[-1].startswith("1 frame in ")


@pytest.mark.parametrize(
    ("exit_code", "words", "part"),
    [
        (1, "--camera 99", "Camera 99 sends no frames: connect it"),
        (1, "--camera 99999999999", "give the number of a camera"),
        (1, "--camera missing.avi", "--camera is 'missing.avi': give the number of a camera"),
        (1, "--camera broken.avi", "broken.avi is not a readable video"),
        (1, "--camera broken.mp4", "broken.mp4 is not a readable video"),
        (1, "--camera empty.mp4", "empty.mp4 is not a readable video"),
        (2, "--camera film.avi --strength 2", "strength is 2"),
        (2, "--camera film.avi --steady 2", "steady is 2"),
        (2, "--camera film.avi --fps 0", "fps is 0"),
        (2, "--camera film.avi --frames 0", "frames is 0"),
        (2, "--camera film.avi --size 0", "size is 0"),
        (1, "--camera film.avi --style no_such_style", "no style 'no_such_style'"),
        (1, "--camera film.avi --name three", "no style 'three'"),
    ],
)
def test_mistakes_are_one_sentence_and_libraries_write_nothing(
    capfd: Capture, tiny_style: Path, exit_code: int, words: str, part: str
) -> None:
    Path("broken.avi").write_bytes(Path("film.avi").read_bytes()[:600])
    Path("broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(999))
    Path("empty.mp4").touch()
    style = [] if "--style" in words else ["--style", tiny_style]
    code, out, err = webcam(capfd, *style, *words.split())
    assert (code, out) == (exit_code, "")
    assert err.startswith("perceptual: ")
    assert err.count("\n") == 1
    assert part in err
    assert err.endswith(".\n")


@pytest.mark.parametrize("driver", ["nonsense", None])
def test_no_screen_is_one_sentence(
    capfd: Capture, monkeypatch: pytest.MonkeyPatch, tiny_style: Path, driver: str | None
) -> None:
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if driver:
        monkeypatch.setenv("SDL_VIDEODRIVER", driver)
    elif not sys.platform.startswith("linux"):
        pytest.skip("there is a screen")
    code, _, err = webcam(capfd, "--style", tiny_style, "--camera", "film.avi")
    assert code == 1
    assert err.count("\n") == 1
    assert "There is no screen for a window" in err


def test_without_pygame_it_says_how_to_get_it(
    capfd: Capture, monkeypatch: pytest.MonkeyPatch, tiny_style: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)
    code, _, err = webcam(capfd, "--style", tiny_style, "--camera", "film.avi")
    assert code == 1
    assert err == "perceptual: A live window needs pygame: pip install 'perceptual[webcam]'.\n"


def test_importing_the_command_loads_no_window() -> None:
    code = "import sys, perceptual.cli; print([n for n in ('pygame', 'cv2', 'torch') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
