"""The live window without a screen or a camera: SDL's dummy driver, films that stand for cameras, real key events."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from perceptual.config import WebcamConfig
from perceptual.errors import VideoError
from perceptual.webcam import Camera, Pace, Shown, run

pygame = pytest.importorskip("pygame")
pytestmark = pytest.mark.usefixtures("one_thread")

Array = np.ndarray[Any, Any]
Capture = pytest.CaptureFixture[str]
RATE, FRAMES, WIDTH, HEIGHT = 50, 12, 96, 64


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, with a film; SDL has its dummy screen. No thread and no window is left behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    make_film("film.avi")
    yield tmp_path
    assert [thread for thread in threading.enumerate() if thread.name == "camera"] == []
    assert not pygame.display.get_init()


def make_film(path: str, frames: int = FRAMES, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    """Blue brightens by 20 levels a frame, thirteen times; red at the left and green at the right stay."""
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), RATE, size)
    for index in range(frames):
        picture = np.zeros((size[1], size[0], 3), np.uint8)
        picture[..., 0] = 20 * (index % 13)  # BGR
        picture[:, : size[0] // 2, 2] = picture[:, size[0] // 2 :, 1] = 120
        writer.write(picture)
    writer.release()


def frames_of(path: str = "film.avi") -> list[Array]:
    """All frames of a film, in RGB."""
    capture, found = cv2.VideoCapture(path), []
    while (read := capture.read())[0]:
        found.append(np.ascontiguousarray(read[1][..., ::-1]))
    return found


def number_of(frame: Array) -> int:
    """Which frame of the film it is."""
    return round(float(frame[..., 2].mean()) / 20)


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A camera 0 that gives the film's frames and is then pulled out; what it was asked for."""
    frames, asked = frames_of(), dict[str, Any]()

    class Fake:
        def __init__(self, source: object) -> None:
            asked["source"], self.left = source, iter(frames)

        def isOpened(self) -> bool:
            return True

        def get(self, what: int) -> float:
            return 0.0

        def set(self, what: int, value: float) -> bool:
            asked[{cv2.CAP_PROP_FRAME_WIDTH: "width", cv2.CAP_PROP_FRAME_HEIGHT: "height"}[what]] = value
            return True

        def read(self) -> tuple[bool, Array | None]:
            time.sleep(0.005)
            frame = next(self.left, None)
            return frame is not None, None if frame is None else frame[..., ::-1]

        def release(self) -> None:
            asked["released"] = True

    monkeypatch.setattr(cv2, "VideoCapture", Fake)
    return asked


class Painter:
    """Stands for a Stylizer: "negative" and "turned" (the colours), at a cost in seconds by the longer side."""

    styles, blend = ("negative", "turned"), {0: 1.0}

    def __init__(self, cost: Callable[[int], float] = lambda side: 0.01) -> None:
        self.now, self.cost, self.sides = 0.0, cost, list[int]()

    def stylize(self, pixels: Tensor, *, style: str | None, strength: float, keep_colors: bool) -> Tensor:
        assert pixels.dtype == torch.uint8
        assert pixels.permute(0, 2, 3, 1).is_contiguous()
        self.sides.append(max(pixels.shape[-2:]))
        self.now += self.cost(self.sides[-1])
        painted = 255 - pixels if style == "negative" else pixels.roll(1, 1)
        painted = painted.flip(-2) if keep_colors else painted
        return (painted * strength + pixels * (1 - strength)).round().to(torch.uint8)

    def clock(self) -> float:
        return self.now


def expected(frame: Array, style: str = "negative", strength: float = 1.0, keep_colors: bool = False) -> Array:
    pixels = torch.from_numpy(frame).permute(2, 0, 1)[None]
    painted = Painter().stylize(pixels, style=style, strength=strength, keep_colors=keep_colors)
    return painted[0].permute(1, 2, 0).numpy()


def settings(**values: Any) -> WebcamConfig:
    return WebcamConfig(**{"camera": "film.avi", "steady": 0.0, **values})


@contextmanager
def playing(painter: Any = None, **values: Any) -> Generator[Iterator[Shown], None, None]:
    """The window of a film, every frame in turn; each item is one more painting shown."""
    config, painter = settings(**values), painter or Painter()
    with Camera(config, every=True) as camera, closing(run(painter, camera, config, clock=painter.clock)) as work:
        yield work


def go_to(work: Iterator[Shown], index: int) -> Shown:
    """Go on until so many paintings have been shown."""
    return next(shown for shown in work if shown.index == index)


def press(*names: str) -> None:
    for name in names:
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.key.key_code(name)))


def on_screen() -> Array:
    return pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)


def title() -> str:
    return pygame.display.get_caption()[0]


# --- the size of the painting


def sides(pace: Pace, cost: Callable[[int], float], frames: int) -> list[int]:
    """The sizes that it chooses for so many frames."""
    return [pace(cost(pace.side)) for _ in range(frames)]


def turns(sides: list[int]) -> int:
    """How often it went the other way than the time before."""
    steps = [b - a for a, b in itertools.pairwise(sides) if b != a]
    return sum((a > 0) != (b > 0) for a, b in itertools.pairwise(steps))


@pytest.mark.parametrize("seconds", [0.002, 0.02, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("fixed", [0.0, 0.02])
def test_the_size_settles_where_a_frame_takes_no_longer_than_it_may(seconds: float, fixed: float) -> None:
    """seconds: for a painting of 320 px."""

    def cost(side: int) -> float:
        return fixed + seconds * (side / 320) ** 2

    chosen = sides(pace := Pace(15, 1280), cost, 300)
    assert len(set(chosen[150:])) == 1
    assert pace.side % 16 == 0
    assert turns(chosen) == 0
    assert cost(pace.side) <= 1 / 15 or pace.side == 160
    assert cost(min(1280, round(pace.side * 1.25))) > 0.75 / 15 or pace.side == 1280


def test_the_size_stays_within_its_bounds() -> None:
    assert set(sides(Pace(15, 640), lambda side: 9.0, 99)[60:]) == {160}
    assert set(sides(Pace(15, 854), lambda side: 0.001, 99)[60:]) == {854}
    assert set(sides(Pace(15, 64), lambda side: 9.0, 99)) == {64}


def test_the_first_two_frames_of_a_size_do_not_count() -> None:
    """Kernels are compiled then, and memory is found."""
    times = itertools.chain([5.0, 3.0], itertools.repeat(0.05))
    assert set(sides(Pace(15, 320), lambda side: next(times), 50)) == {320}


def test_a_computer_that_takes_seconds_a_frame_gets_a_small_one_after_five() -> None:
    assert sides(Pace(15, 640), lambda side: 2.0, 5) == [320] * 4 + [160]


def test_noise_does_not_make_it_flutter() -> None:
    chance = random.Random(0)
    for base in (0.04, 0.055, 0.066, 0.07, 0.1):
        chosen = sides(Pace(15, 640), lambda side, t=base: t * (side / 320) ** 2 * chance.uniform(0.8, 1.25), 5000)
        assert turns(chosen) <= 4
        assert len(set(chosen[-2000:])) == 1


def test_a_size_that_is_too_slow_is_tried_more_and_more_seldom() -> None:
    """The sizes above 300 take three times as long as one would think: so it goes up in vain."""
    chosen = sides(Pace(15, 640, start=160), lambda side: 0.05 * (side / 320) ** 2 * (1 if side < 300 else 3), 10_000)
    falls = [index for index, (a, b) in enumerate(itertools.pairwise(chosen)) if b < a]
    assert 3 < len(falls) < 9
    gaps = [b - a for a, b in itertools.pairwise(falls)]
    assert all(later > 1.7 * gap for gap, later in itertools.pairwise(gaps))


def test_it_grows_again_when_the_computer_was_busy_for_a_while() -> None:
    pace = Pace(15, 480)
    assert sides(pace, lambda side: 0.02, 40)[-1] == 480
    assert sides(pace, lambda side: 0.2, 40)[-1] < 320
    assert sides(pace, lambda side: 0.02, 1500)[-1] == 480


def test_a_computer_that_slept_for_a_frame_changes_nothing() -> None:
    pace = Pace(15, 480)
    before = sides(pace, lambda side: 0.05 * (side / 320) ** 2, 60)[-1]
    for _ in range(9):
        assert sides(pace, lambda side: 60.0, 1) == [before]
        assert set(sides(pace, lambda side: 0.05 * (side / 320) ** 2, 20)) == {before}


# --- the camera


def test_a_film_gives_its_frames_in_rgb_and_then_is_over() -> None:
    with Camera(settings(), every=True) as camera:
        assert (camera.width, camera.height) == (WIDTH, HEIGHT)
        found = []
        while not camera.over:
            frame = camera.newest(1)
            found += [] if frame is None else [frame]
    assert all(np.array_equal(a, b) for a, b in zip(found, frames_of(), strict=True))


def test_who_is_slow_gets_the_newest_frame_and_a_film_keeps_its_own_time() -> None:
    began, numbers = time.monotonic(), []
    with Camera(settings()) as camera:
        while not camera.over:
            frame = camera.newest(1)
            if frame is not None:
                numbers.append((number_of(frame), time.monotonic() - began))
                time.sleep(0.07)  # 3.5 frames
    assert len(numbers) <= FRAMES / 2
    assert all(number <= when * RATE for number, when in numbers)
    assert numbers[-1][0] == FRAMES - 1


def test_a_film_begins_again_when_asked_to() -> None:
    with Camera(settings(loop=True), every=True) as camera:
        numbers = [number_of(frame) for frame in (camera.newest(1) for _ in range(3 * FRAMES)) if frame is not None]
    assert numbers == [*range(FRAMES)] * 3


def test_a_frozen_film_waits_and_goes_on_where_it_was() -> None:
    camera = Camera(settings())
    camera.freeze(True)
    with camera:
        first = camera.newest(1)
        assert camera.newest(0.2) is None  # ten frames
        camera.freeze(False)
        second = camera.newest(1)
    assert first is not None
    assert second is not None
    assert number_of(first) == 0
    assert 1 <= number_of(second) < 5


def test_a_camera_is_a_mirror_and_a_film_is_not(plugged: dict[str, Any]) -> None:
    for values, left in (({}, 1), ({"mirror": False}, 0)):  # what was at the right is green
        with Camera(settings(camera="0", **values)) as camera:
            frame = camera.newest(1)
        assert frame is not None
        assert frame[10, 10].argmax() == left
    assert plugged["source"] == 0
    assert plugged["released"]


def test_a_camera_is_asked_for_the_size(plugged: dict[str, Any]) -> None:
    with Camera(settings(camera="1", size=800)):
        pass
    assert (plugged["source"], plugged["width"], plugged["height"]) == (1, 800, 600)


def test_a_camera_that_is_pulled_out_is_a_sentence(plugged: dict[str, Any]) -> None:
    with playing(camera="0") as work, pytest.raises(VideoError, match=r"^Camera 0 sends no more frames: reconnect it"):
        for _ in work:
            pass
    assert plugged["released"]


def test_a_camera_that_is_pulled_out_while_a_picture_is_painted_is_a_sentence_too(plugged: dict[str, Any]) -> None:
    config = settings(camera="0")
    painter = Painter(lambda side: time.sleep(0.3) or 0.3)  # type: ignore[func-returns-value]
    with (
        Camera(config) as camera,
        closing(run(painter, camera, config)) as work,  # type: ignore[arg-type]
        pytest.raises(VideoError, match=r"^Camera 0 sends no more frames"),
    ):
        list(work)
    assert plugged["released"]


def test_damaged_frames_are_passed_over() -> None:
    data = bytearray(Path("film.avi").read_bytes())
    pictures = [at for at in range(len(data)) if data[at : at + 4] == b"00dc"][:FRAMES]
    for at in (pictures[3], pictures[4]):
        data[at + 8 : at + 200] = bytes(192)
    Path("film.avi").write_bytes(data)
    with Camera(settings(), every=True) as camera:
        numbers = []
        while not camera.over:
            frame = camera.newest(1)
            numbers += [] if frame is None else [number_of(frame)]
    assert numbers[-1] == FRAMES - 1
    assert set(numbers) >= {0, 1, *range(5, FRAMES)}
