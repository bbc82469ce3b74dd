"""Downloads of loss networks that go wrong, and reading weight files."""

from __future__ import annotations

import gc
import hashlib
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from test_weights import BODY, FILE, SHA, SHARED, Handler, Server, cache, packed, server, tiny, vgg_state  # noqa: F401  (fixtures)

from perceptual.errors import OutputError, PerceptualError, WeightsError
from perceptual.files import sha256_of
from perceptual.losses import weights
from perceptual.losses.weights import (
    CAFFE_VGG,
    PRETRAINED,
    Pretrained,
    WeightFile,
    fetch,
    load,
)

# --- answers that are not the file


@pytest.mark.parametrize("page", [b"<html>please log in</html>", b"\n <!DOCTYPE html>" + b"x" * 9000])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_good_part_survives_a_web_page(server: Server, tiny: str, cache: Path, page: bytes, ranges: bool) -> None:
    cache.mkdir()
    part = cache / f"{FILE}.part"
    part.write_bytes(BODY[:4000])
    server.body, server.ranges, server.kind = b"x" * 4000 * ranges + page, ranges, "text/html"
    with pytest.raises(WeightsError, match="sends a web page, not the file"):
        list(fetch(tiny))
    assert part.read_bytes() == BODY[:4000]
    server.kind = "application/octet-stream"
    if not ranges:
        with pytest.raises(WeightsError, match="sends a web page"):
            list(fetch(tiny))
    server.body, server.ranges = BODY, True
    list(fetch(tiny))
    assert server.seen[-1] == "bytes=4000-"
    assert load(tiny).sha256 == SHA


def test_a_good_part_survives_a_short_answer(server: Server, tiny: str, cache: Path) -> None:
    cache.mkdir()
    (cache / f"{FILE}.part").write_bytes(BODY[:4000])
    server.body, server.ranges = b'{"error": "busy"}', False
    with pytest.raises(WeightsError, match="sends a file of 17 bytes, which is too short"):
        list(fetch(tiny))
    assert (cache / f"{FILE}.part").read_bytes() == BODY[:4000]


@pytest.mark.parametrize("length", [True, False], ids=["told", "not told"])
@pytest.mark.parametrize("known", [True, False], ids=["size", "no size"])
def test_a_download_has_an_end(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, length: bool, known: bool
) -> None:
    monkeypatch.setattr(weights, "TICK", 1000)
    monkeypatch.setattr(weights, "LARGEST", 10**9 if known else len(BODY))
    file = WeightFile(FILE, SHA, server.url, len(BODY) if known else None)
    monkeypatch.setitem(PRETRAINED, "tiny", Pretrained("vgg16", CAFFE_VGG, (file,), "for tests"))
    cache.mkdir()
    (cache / f"{FILE}.part").write_bytes(BODY[:4000])
    server.body, server.length = BODY + bytes(100_000), length
    with pytest.raises(WeightsError, match=r"sends \d+ bytes or more, but the file .* it is another file"):
        list(fetch("tiny"))
    assert (cache / f"{FILE}.part").read_bytes() == BODY[:4000]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # urllib leaves a socket open then
@pytest.mark.parametrize("place", ["http://[bad", "http://127.0.0.1:port/", "http://\udce9.de/", "//["])
def test_a_malformed_redirect_is_one_sentence(server: Server, tiny: str, place: str) -> None:
    server.location = place
    with pytest.raises(WeightsError, match="redirects to an invalid address") as caught:
        list(fetch(tiny))
    assert len(server.seen) == 1
    assert "\n" not in str(caught.value)
    del caught
    gc.collect()


def test_a_redirect_to_a_local_file_is_refused(server: Server, tiny: str, tmp_path: Path) -> None:
    server.location = (tmp_path / "secret").as_uri()
    with pytest.raises(WeightsError, match="HTTP 302"):
        list(fetch(tiny))


def test_what_a_server_says_does_not_steer_the_terminal(server: Server, tiny: str) -> None:
    server.status, server.reason = 403, "no\x1b[2J entry"
    with pytest.raises(WeightsError, match=r"HTTP 403 no \[2J entry\.") as caught:
        list(fetch(tiny))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("status", [404, 500, 403])
def test_http_errors_name_the_address_and_what_to_do(server: Server, tiny: str, cache: Path, status: int) -> None:
    server.status = status
    with pytest.raises(WeightsError, match=rf"{server.url}: HTTP {status} .* by hand to .*cache"):
        list(fetch(tiny))
    assert server.seen == [None]


def test_no_server_is_an_error_at_once(server: Server, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server.shutdown()
    server.server_close()
    monkeypatch.setattr(weights, "RETRY_DELAYS", (60.0,))
    with pytest.raises(WeightsError, match=r"Cannot download http://127.*refused.* by hand to"):
        list(fetch(tiny))


def test_silence_is_a_cut(server: Server, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "TIMEOUT", 0.05)
    monkeypatch.setattr(weights, "RETRY_DELAYS", (0.0,))
    quiet = threading.Event()
    monkeypatch.setattr(Handler, "do_GET", lambda _: quiet.wait(5))
    try:
        with pytest.raises(WeightsError, match="timed out"):
            list(fetch(tiny))
    finally:
        quiet.set()


def test_no_address_says_which_file_to_put_where(cache: Path) -> None:
    with pytest.raises(WeightsError, match=rf"squeezenet1_0.safetensors in {cache}"):
        list(fetch("squeezenet1_0"))


@pytest.mark.parametrize("stop", [KeyboardInterrupt, GeneratorExit])
def test_stopping_keeps_the_part(
    server: Server, tiny: str, cache: Path, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    monkeypatch.setattr(weights, "TICK", 1000)
    running = fetch(tiny)
    next(running), next(running)
    with pytest.raises(stop):
        running.throw(stop)  # type: ignore[attr-defined]
    arrived = (cache / f"{FILE}.part").read_bytes()
    assert len(arrived) >= 1000
    assert BODY.startswith(arrived)
    list(fetch(tiny))
    assert server.seen[-1] == f"bytes={len(arrived)}-"


def test_a_second_download_waits_for_the_first(server: Server, tiny: str, cache: Path) -> None:
    first, second = fetch(tiny), fetch(tiny)
    next(first)
    assert "Another process" in (next(second).message or "")
    assert next(second).message is None
    list(first)
    assert [step.index for step in second] == [len(BODY)]
    assert server.seen == [None]


def test_a_lock_left_by_a_dead_process_is_no_lock(server: Server, tiny: str, cache: Path) -> None:
    cache.mkdir()
    (cache / f"{FILE}.lock").touch()
    first, *_ = fetch(tiny)
    assert (first.message or "").startswith("Downloading")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_is_one_sentence(server: Server, tiny: str, cache: Path) -> None:
    cache.mkdir()
    (cache / f"{FILE}.part").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="no space left on device; free some space, or choose another folder"):
        list(fetch(tiny))
    assert server.seen == [None]


def test_a_file_in_place_of_the_cache_folder_is_one_sentence(server: Server, tiny: str, cache: Path) -> None:
    cache.write_bytes(b"")
    with pytest.raises(OutputError, match="Cannot write"):
        list(fetch(tiny))


# --- loading


def test_load_gives_float32_features_only(tiny: str, tmp_path: Path) -> None:
    half = tmp_path / "half.safetensors"
    safetensors.torch.save_file({key: value.half() for key, value in vgg_state().items()}, half)
    loaded = load(tiny, half)
    assert set(loaded.state) == {"features.0.weight", "features.0.bias"}
    assert {tensor.dtype for tensor in loaded.state.values()} == {torch.float32}
    assert (loaded.name, loaded.network, loaded.file) == ("tiny", "vgg16", "half.safetensors")
    assert loaded.sha256 == hashlib.sha256(half.read_bytes()).hexdigest() == sha256_of(half)
    half.write_bytes(bytes(half.stat().st_size))  # the tensors are in memory of their own
    assert torch.allclose(loaded.state["features.0.bias"], vgg_state()["features.0.bias"], atol=1e-3)


@pytest.mark.parametrize("wrap", ["parameter", "module.", "features.module.", "bare", "state_dict"])
def test_keys_as_people_save_them(tiny: str, tmp_path: Path, wrap: str) -> None:
    state: dict[str, Any] = vgg_state()
    if wrap == "parameter":
        state = {key: torch.nn.Parameter(value) for key, value in state.items()}
    elif wrap == "module.":
        state = {wrap + key: value for key, value in state.items()}
    elif wrap == "features.module.":
        state = {key.replace("features.", wrap): value for key, value in state.items()}
    elif wrap == "bare":
        state = {key.removeprefix("features."): value for key, value in state.items() if "features" in key}
    else:
        state = {"epoch": 3, "state_dict": state}
    path = tmp_path / "mine.pt"
    torch.save(state, path)
    loaded = load(tiny, path).state
    assert set(loaded) == {"features.0.weight", "features.0.bias"}
    assert not any(tensor.requires_grad for tensor in loaded.values())


def test_old_pickles_of_the_time_of_the_paper(tiny: str, tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save(vgg_state(), path, _use_new_zipfile_serialization=False)
    assert set(load(tiny, path).state) == {"features.0.weight", "features.0.bias"}


def test_missing_weights_give_the_three_ways_to_get_them(tiny: str, cache: Path) -> None:
    with pytest.raises(WeightsError, match=r"weights fetch tiny.*tiny.pth in .*PERCEPTUAL_WEIGHTS.*path"):
        load(tiny)
    with pytest.raises(WeightsError, match=r"cannot be downloaded; put squeezenet1_0.safetensors"):
        load("squeezenet1_0")
    assert not cache.exists()


def test_a_known_name_with_another_hash_is_refused(tiny: str, cache: Path) -> None:
    cache.mkdir()
    (cache / FILE).write_bytes(packed({key: value + 1 for key, value in vgg_state().items()}))
    with pytest.raises(WeightsError, match=r"does not have the hash of tiny: delete it.*weights fetch tiny"):
        load(tiny)
    assert load(tiny, cache / FILE).sha256 != SHA  # a path may be anything that fits


def test_weights_with_other_preprocessing_are_refused(tiny: str, tmp_path: Path) -> None:
    path = tmp_path / "renamed.pth"
    path.write_bytes(BODY)
    with pytest.raises(WeightsError, match="contains the weights tiny, not vgg16-torchvision"):
        load("vgg16-torchvision", path)


class Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.target),))


@pytest.mark.parametrize("plain", [True, False])
def test_code_in_a_pickle_does_not_run(tiny: str, tmp_path: Path, plain: bool) -> None:
    evil = {**vgg_state(), "evil": Evil(tmp_path / "ran")}
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(evil) if plain else packed(evil))
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        load(tiny, path)
    assert not (tmp_path / "ran").exists()


DAMAGED = {
    "empty": b"",
    "html": b"<html>please log in</html>",
    "zeros": bytes(5000),
    "cut": BODY[: len(BODY) // 2],
    "cut safetensors": safetensors.torch.save(vgg_state())[:-100],
    "text": b"hello",
}


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_files_are_refused(tiny: str, tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(DAMAGED[kind])
    with pytest.raises(WeightsError, match=r"cannot be read as weights|contains no named tensors") as caught:
        load(tiny, path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [[torch.ones(2)], torch.ones(2), 3])
def test_a_file_without_names_is_refused(tiny: str, tmp_path: Path, content: object) -> None:
    path = tmp_path / "list.pth"
    torch.save(content, path)
    with pytest.raises(WeightsError, match="no named tensors"):
        load(tiny, path)


def test_other_kinds_of_files_are_refused(tiny: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.h5"
    path.write_bytes(BODY)
    with pytest.raises(WeightsError, match=r"ends in \.safetensors, \.pth or \.pt"):
        load(tiny, path)


@pytest.mark.parametrize(
    "change",
    [
        {"features.0.weight": (64, 1, 3, 3)},  # grey
        {"features.1.weight": (64,)},  # batch norm
        {"features.16.weight": (256, 256, 3, 3)},  # VGG-19
        {"features.3.squeeze.weight": (16, 64, 1, 1)},  # SqueezeNet 1.1
    ],
)
def test_another_network_is_refused(tiny: str, tmp_path: Path, change: dict[str, tuple[int, ...]]) -> None:
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file(vgg_state() | {key: torch.ones(shape) for key, shape in change.items()}, path)
    with pytest.raises(WeightsError, match="does not contain weights of vgg16"):
        load(tiny, path)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.bool, torch.int64, torch.uint8])
def test_weights_that_are_no_floats_are_refused(tiny: str, tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "other.pth"
    torch.save({key: value.to(dtype) for key, value in vgg_state().items()}, path)
    with pytest.raises(WeightsError, match="does not contain weights of vgg16"):
        load(tiny, path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tiny: str, tmp_path: Path) -> None:
    path = tmp_path / "closed.pth"
    path.write_bytes(BODY)
    path.chmod(0)
    with pytest.raises(PerceptualError, match="Cannot read"):
        load(tiny, path)


# --- the real files

FIRST_AND_LAST = {
    "vgg16": ("features.0.weight", "features.14.bias", 14),
    "vgg19": ("features.0.weight", "features.16.bias", 16),
    "vgg19-distilled": ("conv0.weight", "conv51_aux.bias", 38),
    "squeezenet1_0": ("features.0.weight", "features.12.expand3x3.bias", 50),
    "squeezenet1_1": ("features.0.weight", "features.12.expand3x3.bias", 50),
}


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the pretrained weights are not in {SHARED}")
@pytest.mark.parametrize("name", FIRST_AND_LAST)
def test_the_real_files_load(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEPTUAL_WEIGHTS", str(SHARED))
    loaded = load(name)
    first, last, count = FIRST_AND_LAST[name]
    assert {first, last} <= set(loaded.state)
    assert len(loaded.state) == count
    assert loaded.sha256 in {known.sha256 for known in PRETRAINED[name].files}
    assert loaded.preprocessing == PRETRAINED[name].preprocessing
    assert not any(key.startswith("classifier") for key in loaded.state)


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the pretrained weights are not in {SHARED}")
@pytest.mark.parametrize("name", FIRST_AND_LAST)
def test_the_real_files_are_not_taken_for_another_network(name: str, tmp_path: Path) -> None:
    path = tmp_path / "copy.safetensors"
    state = safetensors.torch.load_file(SHARED / PRETRAINED[name].files[-1].file)
    safetensors.torch.save_file(state, path, {"changed": "so that the hash is not known"})
    for other, entry in PRETRAINED.items():
        if (name, entry.network) == ("vgg16", "vgg19"):
            continue  # to conv3_3 the two have the same shapes
        if entry.network == PRETRAINED[name].network:
            assert load(other, path).network == entry.network
        else:
            with pytest.raises(WeightsError, match="does not contain weights of"):
                load(other, path)
