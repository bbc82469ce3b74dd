"""Weights in the cache of torch.hub, and what is said before and instead of a download."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.error import URLError

import pytest
import safetensors.torch
import torch

from perceptual.cli.help import check_weights
from perceptual.cli.weights import fetch_missing
from perceptual.errors import ConfigError, WeightsError
from perceptual.losses import weights
from perceptual.losses.weights import (
    CAFFE_VGG,
    PRETRAINED,
    Pretrained,
    WeightFile,
    before_download,
    fetch,
    load,
    locate,
)
from perceptual.losses.weights.places import megabytes

FILE = "tiny.safetensors"
STATE = {"features.0.weight": torch.zeros(64, 3, 3, 3), "features.0.bias": torch.ones(64)}
BODY = safetensors.torch.save(STATE)
SHA = hashlib.sha256(BODY).hexdigest()
URL = f"https://example.org/{FILE}"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("PERCEPTUAL_WEIGHTS", raising=False)
    monkeypatch.setenv("PERCEPTUAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Path:
    """The folder of downloads of torch.hub, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def known(monkeypatch: pytest.MonkeyPatch, sha256: str = SHA, size: int | None = len(BODY)) -> str:
    entry = Pretrained("vgg16", CAFFE_VGG, (WeightFile(FILE, sha256, URL, size),), "for tests")
    monkeypatch.setitem(PRETRAINED, "tiny", entry)
    return "tiny"


@pytest.mark.parametrize("digits", [64, 8])
def test_a_file_of_torch_hub_is_found_by_its_name_and_hash(
    hub: Path, monkeypatch: pytest.MonkeyPatch, digits: int
) -> None:
    name = known(monkeypatch, SHA[:digits], len(BODY) if digits == 64 else None)
    assert locate(name) is None
    (hub / FILE).write_bytes(BODY)
    assert locate(name) == hub / FILE
    assert load(name).sha256 == SHA
    assert list(fetch(name)) == []  # nothing to download


def test_other_files_of_torch_hub_are_passed_over(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cut download, another file of the same name and size, and a folder are as if they were not there."""
    name = known(monkeypatch)
    for body in (BODY[:-9], bytes(len(BODY))):
        (hub / FILE).write_bytes(body)
        assert locate(name) is None
        with pytest.raises(WeightsError, match="not on this machine"):
            load(name)
    (hub / FILE).unlink()
    (hub / FILE).mkdir()
    assert locate(name) is None


def test_a_file_that_is_finished_later_is_found(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = known(monkeypatch, size=None)
    (hub / FILE).write_bytes(BODY[:-9])
    assert locate(name) is None
    (hub / FILE).write_bytes(BODY)
    assert locate(name) == hub / FILE


def test_the_own_folders_come_before_torch_hub(hub: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = known(monkeypatch)
    cache.mkdir()
    for folder in (hub, cache):
        (folder / FILE).write_bytes(BODY)
    assert locate(name) == cache / FILE


def test_without_torch_home_it_is_the_usual_folder(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = known(monkeypatch)
    monkeypatch.delenv("TORCH_HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".cache" / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / FILE).write_bytes(BODY)
    assert locate(name) == folder / FILE


# --- what is said


def test_before_a_download_the_size_the_address_and_the_way_by_hand_are_said(cache: Path) -> None:
    text = before_download("vgg16")
    for part in (
        "vgg16-00b39a1b.pth (about 553 MB)",
        PRETRAINED["vgg16"].files[0].url,
        str(cache),
        "PERCEPTUAL_WEIGHTS",
    ):
        assert str(part) in text
    assert text.endswith("--weights vgg16=FILE.")
    assert "\n" not in text


def test_what_cannot_be_downloaded_says_so_before_any_download(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(weights, "fetch", lambda name: iter(asked.append(name) or ()))
    with pytest.raises(WeightsError, match="they cannot be downloaded; put"):
        fetch_missing(["vgg16:relu2_2", "vgg19-distilled:relu2_2"], {})
    assert asked == []


def test_the_learned_weights_of_lpips_are_a_file_by_its_path_too(cache: Path) -> None:
    paths = {name: cache.with_name(name) for name in ("alexnet-torchvision", "lpips")}
    paths["alexnet-torchvision"].touch()
    check_weights([f"{name}={path}" for name, path in paths.items()])
    fetch_missing(["alexnet-torchvision:relu1"], paths)
    with pytest.raises(ConfigError, match="names 'lpips', but the losses use vgg16"):
        fetch_missing(["vgg16:relu2_2"], {"lpips": paths["lpips"]})


def test_the_command_says_it_before_it_asks_the_server(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(weights, "fetch", lambda name: iter(seen.append(capsys.readouterr().err) or ()))
    fetch_missing(["vgg16:relu2_2"], {})
    assert len(seen) == 1
    assert "about 553 MB" in seen[0].replace("\n", " ")
    assert "To copy it by hand" in seen[0].replace("\n", " ")


def test_offline_says_what_to_do(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = known(monkeypatch, size=553_433_881)

    def refuse(*_: object, **__: object) -> None:
        raise URLError("Temporary failure in name resolution")

    monkeypatch.setattr(weights, "urlopen", refuse)
    with pytest.raises(WeightsError) as caught:
        list(fetch(name))
    message = str(caught.value)
    assert message.startswith(f"Cannot download {URL}: Temporary failure in name resolution. Is this computer online?")
    for part in ("(553 MB)", f"by hand to {cache}", "--weights NAME=FILE."):
        assert part in message


def test_sizes_are_told_in_megabytes() -> None:
    assert megabytes(WeightFile("a", "", size=4_958_839)) == "5 MB"
    assert megabytes(WeightFile("a", "", tensor_bytes=4 * 138_357_544)) == "about 553 MB"
    assert megabytes(WeightFile("a", "")) == "of unknown size"
