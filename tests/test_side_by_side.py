"""Several frames of a video at the same time: order, threads, errors, and the same video."""

from __future__ import annotations

import threading

import clips
import pytest
import torch
from test_video import folder, invert  # noqa: F401  (folder is a fixture)
from torch import Tensor

from perceptual import Stylizer, Upscaler
from perceptual.apply import model
from perceptual.devices import SideBySide, use_one_thread
from perceptual.fast import kernels
from perceptual.video import Conversion
from perceptual.video.pipeline import in_stages

needs_kernels = pytest.mark.skipif(kernels.compiled() is None, reason="no compiled kernels here")


def test_results_come_in_order_and_two_are_worked_on_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=20)  # breaks if only one item is worked on at a time

    def work(item: int) -> int:
        both.wait()
        return 10 * item

    stage = SideBySide(work, lambda item: 2)
    assert list(in_stages(range(20), stage)) == [10 * item for item in range(20)]


def test_a_stage_after_it_gets_the_items_one_by_one() -> None:
    seen: list[int] = []
    stage = SideBySide(lambda item: item + 1, lambda item: 3)
    assert list(in_stages(range(50), stage, lambda item: seen.append(item) or item)) == list(range(1, 51))
    assert seen == list(range(1, 51))


def test_large_items_are_worked_on_alone_and_in_order() -> None:
    running: list[int] = []

    def work(item: int) -> int:
        running.append(item)
        assert item % 3 or len(running) == 1  # those that at_once counts as 1 have nobody beside them
        threading.Event().wait(0.005)
        running.remove(item)
        return item

    stage = SideBySide(work, lambda item: 2 if item % 3 else 1)
    assert list(stage.results(range(30))) == list(range(30))


def test_an_error_in_one_item_stops_all_stages() -> None:
    def work(item: int) -> int:
        if item == 5:
            raise ValueError("item 5")
        return item

    with pytest.raises(ValueError, match="item 5"):
        list(in_stages(range(1000), SideBySide(work, lambda item: 2)))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("item", "stage"))]


def test_closing_early_ends_all_threads() -> None:
    work = in_stages(range(1000), SideBySide(lambda item: item, lambda item: 2))
    assert [next(work) for _ in range(3)] == [0, 1, 2]
    work.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("item", "stage"))]


@needs_kernels
def test_one_thread_is_the_limit_of_the_calling_thread_alone() -> None:
    found: dict[str, int] = {}

    def limited() -> None:
        use_one_thread()
        found["limited"] = torch.get_num_threads()

    def another() -> None:
        found["another"] = torch.get_num_threads()

    before = torch.get_num_threads()
    for target in (limited, another):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
    assert found == {"limited": 1, "another": before}
    assert torch.get_num_threads() == before


@pytest.mark.usefixtures("folder")
def test_a_video_is_the_same_with_several_frames_at_once() -> None:
    clips.make("a.mp4", count=30)

    seen: list[Tensor] = []

    def settle(frame: Tensor, changed: Tensor) -> Tensor:
        assert torch.equal(changed, invert(frame))
        seen.append(frame)
        return changed

    for name, at_once in (("one.mp4", None), ("three.mp4", lambda height, width: 3)):
        conversion = Conversion("a.mp4", name, invert, settle=settle)
        conversion.at_once = at_once
        list(conversion.run())
        assert conversion.frames == 30
        assert clips.numbers(name, inverted=True) == list(range(30))
    assert all(torch.equal(one, three) for one, three in zip(seen[:30], seen[30:], strict=True))


@needs_kernels
def test_small_frames_are_worked_on_side_by_side_as_far_as_memory_suffices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    for each in (Upscaler.load("x4_pixel"), Stylizer.load("gallery")):
        needed = each.memory(360, 640, each.defaults)
        for free, count in ((1e15, 6), (2 * 3.5 * needed, 3), (needed, 1)):
            monkeypatch.setattr(model, "free_memory", lambda device, free=free: free)
            assert each.at_once(360, 640) == count
        monkeypatch.setattr(model, "free_memory", lambda device: 1e15)
        assert each.at_once(1024, 1024) == 6
        assert each.at_once(1024, 1025) == 1


@needs_kernels
def test_the_size_of_the_painting_counts_and_not_that_of_the_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    monkeypatch.setattr(model, "free_memory", lambda device: 1e15)
    gallery = Stylizer.load("gallery")
    assert gallery.at_once(100, 100, gallery.options(size=2000)) == 1
    assert gallery.at_once(3000, 2000, gallery.options(size=512)) == 6
