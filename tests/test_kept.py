"""Photos that stay in memory: the same stream as from files, each file read once, and runs that can be resumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_train import CONFIG, assert_equal_weights, train
from test_train import photographs as photographs  # a fixture

from perceptual import data, images
from perceptual.config import TrainConfig
from perceptual.data import KeptPhotographs, Photographs, batches
from perceptual.errors import DataError

CPU = torch.device("cpu")
SIZES = [(40, 40), (90, 50), (31, 77), (200, 130), (9, 50), (3, 2)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Smooth photos of several sizes, two of them smaller than a crop."""
    for number, (width, height) in enumerate(SIZES):
        y, x = np.mgrid[:height, :width]
        levels = [128 + 90 * np.sin(x / (9 + number)), 128 + 90 * np.cos(y / 11), 60 + 0.5 * x + 0.4 * y]
        Image.fromarray(np.stack(levels, -1).clip(0, 255).astype(np.uint8)).save(tmp_path / f"{number}.png")
    return tmp_path


def test_native_crops_are_those_of_the_files(folder: Path) -> None:
    files = Photographs(folder, 32, crop="native", seed=3)
    kept = KeptPhotographs(files, CPU)
    for k in range(30):
        assert torch.equal(kept[k][0], files[k][0])


@pytest.mark.parametrize("crop", ["random", "squash"])
def test_reduced_crops_are_those_of_the_files_but_for_less_than_a_pixel(folder: Path, crop: str) -> None:
    files = Photographs(folder, 32, crop=crop, seed=3)
    kept = KeptPhotographs(files, CPU)
    for k in range(30):
        ours, theirs = kept[k][0], files[k][0]
        assert ours.shape == theirs.shape == (3, 32, 32)
        assert float(ours.min()) >= 0
        assert float(ours.max()) <= 1
        assert float((ours - theirs).abs().mean()) < 0.03  # half a pixel of these waves, and Pillow's rounding


def test_batches_have_the_order_of_the_files_and_skip_what_they_skip(folder: Path) -> None:
    (folder / "bad.jpg").write_bytes(b"not a picture")
    Image.new("RGB", (50, 50), "red").save(folder / "flat.png")
    dataset = Photographs(folder, 32, crop="native", skip_flat=True)
    config = TrainConfig(steps=9, batch=3, size=32, crop="native", workers=0)
    expected = list(batches(dataset, config, start=2))
    found = list(batches(dataset, replace(config, keep_photos=True), start=2))
    assert len(found) == len(expected) == 7
    for (ours, bad), (theirs, skipped) in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)
        assert bad == skipped
    assert {Path(path).name for _, bad in found for path in bad} == {"bad.jpg", "flat.png"}
    part = list(batches(dataset, replace(config, keep_photos=True), start=2, first=1, count=2))
    assert all(torch.equal(ours, whole[1:]) for (ours, _), (whole, _) in zip(part, expected, strict=True))


def test_each_file_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    opened = images.open_rgb
    monkeypatch.setattr(images, "open_rgb", lambda path, **more: read.append(Path(path).name) or opened(path, **more))
    config = TrainConfig(steps=40, batch=2, size=32, keep_photos=True)
    assert len(list(batches(Photographs(folder, 32), config))) == 40
    assert sorted(read) == [f"{number}.png" for number in range(len(SIZES))]


@pytest.mark.parametrize("ahead", [0, 1, 5, 1000])
def test_the_number_of_photos_that_are_read_ahead_changes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    config = TrainConfig(steps=5, batch=4, size=32, crop="native", keep_photos=True)
    dataset = Photographs(folder, 32, crop="native")
    monkeypatch.setattr(data, "AHEAD", ahead)
    found = [pixels for pixels, _ in batches(dataset, config)]
    assert torch.equal(torch.cat(found), torch.stack([dataset[k][0] for k in range(20)]))


def test_a_folder_without_a_usable_photo_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"not a picture")
    config = TrainConfig(steps=2, batch=2, size=32, keep_photos=True)
    with pytest.raises(DataError, match=r"None of the 1 images .* can be read"):
        list(batches(Photographs(tmp_path, 32), config))


def test_stopped_and_resumed_equals_uninterrupted(tmp_path: Path, photographs: Path) -> None:
    config = replace(CONFIG, keep_photos=True)
    train(tmp_path / "whole.safetensors", photographs, config=config)
    train(tmp_path / "parts.safetensors", photographs, config=config, stop_at=2)
    train(tmp_path / "parts.safetensors", photographs, config=config, resume=True)
    assert_equal_weights(tmp_path / "whole.safetensors", tmp_path / "parts.safetensors")
