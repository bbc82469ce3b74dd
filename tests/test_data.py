"""Training pictures: item k is a function of the seed and k; crops stay inside; what cannot be read is named."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from perceptual.config import TrainConfig
from perceptual.data import Photographs, batches
from perceptual.errors import DataError

SIZE = 32


def config(*, steps: int = 5, batch: int = 2, workers: int = 0) -> TrainConfig:
    return TrainConfig(steps=steps, batch=batch, size=SIZE, workers=workers)


def save_ramp(path: Path, width: int, height: int) -> None:
    """Red grows by one a pixel to the right, green by one a pixel downwards, from 50; blue is 200."""
    y, x = np.mgrid[:height, :width]
    Image.fromarray(np.stack([50 + x, 50 + y, np.full_like(x, 200)], -1).astype(np.uint8)).save(path)


def spans(crop: Tensor) -> tuple[float, float]:
    """Pixels of a ramp that a crop spans, left to right (negative when flipped) and top to bottom."""
    red, green = crop[0] * 255, crop[1] * 255
    steps = (SIZE - 5) / (SIZE - 1)  # between the third pixel and the third last: borders of a resize are flatter
    return float((red[:, -3] - red[:, 2]).mean()) / steps, float((green[-3] - green[2]).mean()) / steps


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven flat pictures in nested folders, of levels 0, 40 ... 240, of all sizes and modes."""
    folder = tmp_path_factory.mktemp("good [x]")
    (folder / "a" / "b").mkdir(parents=True)
    sizes = [(1, 1), (1, 50), (200, 3), (33, 31), (64, 64), (300, 200), (40, 90)]
    names = ["0.png", "a/1.png", "a/b/2.PNG", "3.bmp", "a/4.jpg", "a/b/5.JPG", "6.webp"]
    modes = ["L", "RGB", "RGBA", "RGB", "RGB", "L", "RGBA"]
    for level, (size, name, mode) in enumerate(zip(sizes, names, modes, strict=True)):
        Image.new("RGB", size, (40 * level,) * 3).convert(mode).save(folder / name)
    return folder


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ramps among four files that cannot be read, a text file and a hidden picture."""
    folder = tmp_path_factory.mktemp("mixed")
    save_ramp(folder / "ramp.png", 96, 64)
    save_ramp(folder / "ramp.jpg", 64, 96)
    (folder / "cut.jpg").write_bytes((folder / "ramp.jpg").read_bytes()[:400])
    (folder / "cut.png").write_bytes((folder / "ramp.png").read_bytes()[:120])
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("not a picture")
    (folder / "notes.txt").write_text("no picture, and not taken for one")
    (folder / ".hidden.png").write_text("hidden")
    return folder


BAD = {"cut.jpg", "cut.png", "empty.png", "text.png"}


@pytest.fixture
def ramp(tmp_path: Path) -> Path:
    save_ramp(tmp_path / "ramp.png", 96, 64)
    return tmp_path


def damaged(folder: Path) -> Path:
    (folder / "a.png").touch()
    (folder / "b.jpg").write_text("not a picture")
    return folder


def test_an_item_is_a_float_picture_of_the_size_asked_for(good: Path, mixed: Path) -> None:
    for folder in (good, mixed):
        dataset = Photographs(folder, SIZE)
        for k in range(len(dataset)):
            pixels = dataset[k][0]
            assert (pixels.shape, pixels.dtype, pixels.is_contiguous()) == ((3, SIZE, SIZE), torch.float32, True)
            assert 0 <= pixels.min() <= pixels.max() <= 1


def test_item_k_is_a_function_of_seed_and_k_alone(mixed: Path) -> None:
    ks = [k for epoch in range(4) for k in range(6 * epoch, 6 * epoch + 6)]
    first = Photographs(mixed, SIZE, seed=3)
    expected = {k: first[k] for k in ks}
    shuffled = random.Random(0).sample(ks, len(ks))
    second = Photographs(mixed, SIZE, seed=3)
    random.seed(1)
    torch.manual_seed(1)
    for k in shuffled:
        pixels, unreadable = second[k]
        assert torch.equal(pixels, expected[k][0])
        assert unreadable == expected[k][1]


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_an_epoch_visits_every_file_once(good: Path, epoch: int) -> None:
    dataset = Photographs(good, SIZE, seed=2)
    assert len(dataset) == 7
    items = [dataset[7 * epoch + k][0] for k in range(7)]
    assert all(pixels.max() - pixels.min() < 0.01 for pixels in items)  # a flat picture stays flat, 1 x 1 too
    assert sorted(round(float(pixels.mean()) * 255 / 40) for pixels in items) == list(range(7))


def test_another_seed_or_epoch_is_another_order(good: Path) -> None:
    orders = [Photographs(good, SIZE, seed=seed).order(epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(map(tuple, orders))) == 4
    assert all(sorted(order) == list(range(7)) for order in orders)


def test_another_seed_is_another_crop(ramp: Path) -> None:
    assert not torch.equal(Photographs(ramp, SIZE, seed=0)[0][0], Photographs(ramp, SIZE, seed=1)[0][0])


def test_random_crops_are_square_inside_and_of_nearly_the_shorter_side(ramp: Path) -> None:
    dataset = Photographs(ramp, SIZE)
    lefts, tops, sides = [], [], []
    for k in range(40):
        crop = dataset[k][0]
        across, down = spans(crop)
        side = down * SIZE / (SIZE - 1)  # from pixel centres to edges
        assert abs(abs(across) - down) < 2.5  # either is known to a level and a bit
        assert 64 / 1.15 - 1.5 < side < 64 + 1.5
        assert 49 <= crop[0].min() * 255 <= crop[0].max() * 255 <= 50 + 96  # 50 at the left edge, 145 at the right
        assert 49 <= crop[1].min() * 255 <= crop[1].max() * 255 <= 50 + 64
        assert torch.allclose(crop[2] * 255, torch.tensor(200.0))
        lefts.append(float(crop[0].min()) * 255 - 50)
        tops.append(float(crop[1].min()) * 255 - 50)
        sides.append(side)
    assert min(lefts) < 8  # of 0 to 40
    assert max(lefts) > 24
    assert max(tops) > 3.5  # of 0 to 8
    assert max(sides) - min(sides) > 4


def test_squash_takes_the_whole_picture(ramp: Path) -> None:
    dataset = Photographs(ramp, SIZE, crop="squash")
    for k in range(4):
        across, down = spans(dataset[k][0])
        assert abs(across) == pytest.approx(96 * (SIZE - 1) / SIZE, abs=1.5)
        assert down == pytest.approx(64 * (SIZE - 1) / SIZE, abs=1.5)


@pytest.mark.parametrize("crop", ["random", "squash"])
def test_about_half_are_flipped_left_to_right_and_none_upside_down(ramp: Path, crop: str) -> None:
    dataset = Photographs(ramp, SIZE, crop=crop)
    both = [spans(dataset[k][0]) for k in range(40)]
    assert 10 <= sum(across < 0 for across, _ in both) <= 30
    assert all(down > 0 for _, down in both)


def test_a_large_jpeg_read_at_a_fraction_gives_the_crop_of_the_whole(tmp_path: Path) -> None:
    y, x = np.mgrid[:480, :640]
    picture = Image.fromarray(np.stack([x * 255 / 639, y * 255 / 479, 0 * x + 99.0], -1).astype(np.uint8))
    for kind in ("png", "jpg"):
        (tmp_path / kind).mkdir()
        picture.save(tmp_path / kind / f"x.{kind}", **({"quality": 98, "subsampling": 0} if kind == "jpg" else {}))
    png, jpg = (Photographs(tmp_path / kind, SIZE) for kind in ("png", "jpg"))
    for k in range(4):
        assert (png[k][0] - jpg[k][0]).abs().max() < 6 / 255


def test_what_cannot_be_read_is_replaced_and_named(mixed: Path) -> None:
    dataset = Photographs(mixed, SIZE)
    assert len(dataset) == 6
    items = [dataset[k] for k in range(6)]
    assert {Path(path).name for _, unreadable in items for path in unreadable} == BAD
    assert all(spans(pixels)[1] > 50 for pixels, _ in items)  # each one is a ramp


def test_a_replaced_file_takes_the_crop_of_its_number(ramp: Path) -> None:
    """The crop belongs to k, not to the file; so damage in one file changes no other item of the epoch."""
    whole = Photographs(ramp, SIZE)
    expected = [whole[k][0] for k in range(2)]
    (ramp / "bad.png").touch()
    dataset = Photographs(ramp, SIZE)
    assert all(torch.equal(dataset[k][0], expected[k]) for k in range(2))


def missing(folder: Path) -> Path:
    return folder / "missing"


def text_only(folder: Path) -> Path:
    (folder / "notes.txt").write_text("x")
    return folder


def a_file(folder: Path) -> Path:
    save_ramp(folder / "ramp.png", 9, 9)
    return folder / "ramp.png"


def long_name(folder: Path) -> Path:
    return folder / ("x" * 300)


@pytest.mark.parametrize("make", [missing, Path, text_only, a_file, long_name], ids=lambda make: make.__name__)
def test_a_folder_without_pictures_is_one_sentence(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    folder = make(tmp_path)
    with pytest.raises(DataError) as caught:
        Photographs(folder, SIZE)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_folder_of_damaged_pictures_is_one_sentence(tmp_path: Path) -> None:
    dataset = Photographs(damaged(tmp_path), SIZE)
    with pytest.raises(DataError, match=r"^None of the 2 images [^\n]*\.(png|jpg)[^\n]*\.$"):
        dataset[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_damage_met_by_a_worker_is_the_same_sentence(tmp_path: Path, workers: int) -> None:
    dataset = Photographs(damaged(tmp_path), SIZE)
    with pytest.raises(DataError, match=r"^None of the 2 images [^\n]*\.(png|jpg)[^\n]*\.\Z"):
        next(batches(dataset, config(workers=workers)))


def same(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) and p == q for (x, p), (y, q) in zip(a, b, strict=True))


def test_batches_are_the_items_in_turn(mixed: Path) -> None:
    dataset = Photographs(mixed, SIZE)
    done = list(batches(dataset, config()))
    assert [pixels.shape for pixels, _ in done] == [(2, 3, SIZE, SIZE)] * 5
    assert torch.equal(torch.cat([pixels for pixels, _ in done]), torch.stack([dataset[k][0] for k in range(10)]))
    assert {Path(path).name for _, unreadable in done for path in unreadable} == BAD


def test_workers_change_nothing(mixed: Path) -> None:
    dataset = Photographs(mixed, SIZE)
    assert same(list(batches(dataset, config(workers=2))), list(batches(dataset, config())))


READER = """
import multiprocessing, signal, sys
from perceptual.config import TrainConfig
from perceptual.data import Photographs, batches
for name in ("SIGINT", "SIGTERM", "SIGHUP"):
    signal.signal(getattr(signal, name), lambda number, frame: None)
stream = batches(Photographs(sys.argv[1], 32), TrainConfig(steps=9, batch=2, size=32, workers=2))
next(stream)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
if sys.stdin.readline() == "read on\\n":
    print(len(list(stream)), flush=True)
"""


@contextlib.contextmanager
def reader(folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process, in a group of its own, that reads photos with workers; and the numbers of those."""
    words = [sys.executable, "-c", READER, str(folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        try:
            yield process, [int(word) for word in process.stdout.readline().split()]
        finally:
            process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process who sent a signal")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_to_the_whole_group_leaves_the_workers(mixed: Path, name: str) -> None:
    with reader(mixed) as (process, workers):
        assert workers
        os.killpg(process.pid, getattr(signal, name))  # as a terminal, systemd or `kill -- -PGID` does
        time.sleep(0.5)
        out, err = process.communicate("read on\n", timeout=60)
        assert (process.returncode, out) == (0, "8\n"), err


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
@pytest.mark.parametrize("killed", [True, False])
def test_the_workers_end_with_their_parent(mixed: Path, killed: bool) -> None:
    """Also where it ends in the middle of an epoch."""
    with reader(mixed) as (process, workers):
        assert workers
        if killed:
            process.kill()
        process.communicate("end\n", timeout=60)
        until = time.monotonic() + 30
        while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < until:
            time.sleep(0.1)
        assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]


@pytest.mark.parametrize("start", [0, 1, 4, 5])
def test_a_start_drops_the_first_batches(mixed: Path, start: int) -> None:
    dataset = Photographs(mixed, SIZE)
    assert same(list(batches(dataset, config(), start=start)), list(batches(dataset, config()))[start:])


def test_the_shares_of_the_processes_make_up_every_step(mixed: Path) -> None:
    dataset = Photographs(mixed, SIZE)
    shares = zip(*(batches(dataset, config(batch=6), first=first, count=2) for first in (0, 2, 4)), strict=True)
    together = [torch.cat([pixels for pixels, _ in share]) for share in shares]
    alone = [pixels for pixels, _ in batches(dataset, config(batch=6))]
    assert torch.equal(torch.stack(together), torch.stack(alone))
    assert len({pixels.numpy().tobytes() for pixels in torch.cat(alone)}) == 30  # no picture of the stream comes twice


def test_the_runs_own_pictures_can_be_left_out(ramp: Path, tmp_path: Path) -> None:
    inside = tmp_path / "photos"
    (inside / "mine.previews").mkdir(parents=True)
    for name in ("a.png", "style.png", "mine.previews/000001.png"):
        save_ramp(inside / name, 40, 40)
    kept = Photographs(inside, 32, leave_out=[inside / "style.png", inside / "mine.previews"])
    assert [path.name for path in kept.paths] == ["a.png"]
    with pytest.raises(DataError, match="only style images"):
        Photographs(inside, 32, leave_out=[inside])


# --- what identifies the photographs


def some(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name)
    return folder


def test_previews_of_runs_are_no_photographs(tmp_path: Path) -> None:
    """They may lie in the folder of photos, also those of other runs."""
    some(tmp_path / "x.previews", "a.png", "b.previews/000001.png", "c/d.previews/000500.png", "e.search.png")
    assert Photographs(tmp_path / "x.previews", SIZE).names == ["a.png"]


def test_photographs_are_known_by_their_names_below_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some(tmp_path / "photos", "b.png", "a/c.png", "a-d.png")
    monkeypatch.chdir(tmp_path)
    names = Photographs("photos", SIZE).names
    assert sorted(names) == ["a-d.png", "a/c.png", "b.png"]
    for spelled in ("photos", "./photos/", tmp_path / "photos", "photos/../photos", tmp_path / "x" / ".." / "photos"):
        (tmp_path / "x").mkdir(exist_ok=True)
        assert Photographs(spelled, SIZE).names == names
        assert Photographs(spelled, SIZE).difference(json.loads(json.dumps(names))) is None


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ("a b", "there were 2 photos and there are 3 now; the first new photo is c.png"),
        ("b c", "there were 2 photos and there are 3 now; the first new photo is a.png"),
        ("a b c d", "there were 4 photos and there are 3 now; the first missing photo is d.png"),
        ("a b d", "there were 3 photos and there are 3 now; the first missing photo is d.png"),
        ("a c b", "there were 3 photos and there are 3 now; their order differs from b.png on"),
        ("a b c", None),
    ],
)
def test_what_differs_is_said_in_words(tmp_path: Path, then: str, said: str | None) -> None:
    photographs = Photographs(some(tmp_path, "a.png", "b.png", "c.png"), SIZE)
    assert photographs.difference([f"{name}.png" for name in then.split()]) == said
    assert photographs.difference(None) == "the saved state does not list its photos"
