"""weights: where they are found, how they are downloaded, and what is refused. The only server is on 127.0.0.1."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from perceptual.errors import WeightsError
from perceptual.losses import weights
from perceptual.losses.weights import (
    CAFFE_VGG,
    PRETRAINED,
    RAW,
    Pretrained,
    WeightFile,
    fetch,
    load,
    locate,
    tensors_digest,
)
from perceptual.losses.weights.table import LOOKS

SHARED = Path(__file__).resolve().parents[2] / "shared" / "weights"
FILE = "tiny.pth"
VGG_KEYS = ("features.0.weight", "features.0.bias", "classifier.6.weight")


def vgg_state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((64, 3, 3, 3), (64,), (10, 4))
    return {key: torch.rand(shape, generator=generator) for key, shape in zip(VGG_KEYS, shapes, strict=True)}


def packed(state: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


BODY = packed(vgg_state())
SHA = hashlib.sha256(BODY).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Sends `body`; cuts the first `cuts` answers after `cut_after` bytes; can ignore Range, or answer `status`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.cuts, self.cut_after = BODY, 0, 3000
        self.ranges = self.length = True
        self.status, self.reason, self.location, self.kind = 200, "", "", "application/octet-stream"
        self.seen: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{FILE}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, asked = self.server, self.headers["Range"]
        server.seen.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.ranges else 0
        if server.location:
            self.send_response(302)
            self.send_header("Location", server.location.encode("utf-8", "surrogateescape").decode("latin-1"))
            self.end_headers()
            return
        if server.status != 200 or start >= len(server.body):
            self.send_error(416 if server.status == 200 else server.status, server.reason or None)
            return
        body = server.body[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        self.send_header("Content-Type", server.kind)
        if server.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.cuts > 0:
            server.cuts -= 1
            body = body[: server.cut_after]
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as one:
        thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield one
        one.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("PERCEPTUAL_CACHE", str(folder))
    monkeypatch.delenv("PERCEPTUAL_WEIGHTS", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(weights, "RETRY_DELAYS", (0.0, 0.0, 0.0))
    return folder


@pytest.fixture
def tiny(server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    files = (WeightFile(FILE, SHA, server.url), WeightFile("tiny_short.safetensors", "0" * 64))
    monkeypatch.setitem(PRETRAINED, "tiny", Pretrained("vgg16", CAFFE_VGG, files, "for tests"))
    return "tiny"


# --- the table


def test_the_table_is_consistent() -> None:
    for name, entry in PRETRAINED.items():
        assert entry.network in LOOKS
        assert entry.about
        for known in entry.files:
            assert len(known.sha256) == 64 or (len(known.sha256) in (0, 8) and known.tensors) or known.size is None
            assert len(known.sha256) in (8, 64) or known.url is None
            assert known.size is None or known.size < weights.LARGEST
            assert set(known.sha256) <= set("0123456789abcdef")
            assert known.url is None or (known.url.startswith("https://") and known.url.endswith(known.file)), name
    caffe, torchvision = PRETRAINED["vgg16"].files[0], PRETRAINED["vgg16-torchvision"].files[0]
    assert (caffe.file, caffe.sha256, caffe.tensors) == ("vgg16-00b39a1b.pth", "00b39a1b", "")
    assert caffe.url == "https://web.eecs.umich.edu/~justincj/models/vgg16-00b39a1b.pth"
    assert (torchvision.sha256[:8], len(torchvision.sha256), torchvision.size) == ("397923af", 64, 553_433_881)
    short = [known.file for entry in PRETRAINED.values() for known in entry.files if len(known.sha256) < 64]
    assert short == [
        "vgg16-00b39a1b.pth",
        "vgg19-d01eb7cb.pth",
        "5SE.pth",
        "squeezenet1_0-b66bff10.pth",
    ]


def test_unknown_name_lists_the_known_ones() -> None:
    for call in (lambda: load("vgg61"), lambda: locate("vgg61"), lambda: list(fetch("vgg61"))):
        with pytest.raises(WeightsError, match=r"vgg61.*vgg16-torchvision"):
            call()


# --- where


def test_locate_looks_in_the_env_folders_then_in_the_cache(
    tiny: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert locate(tiny) is None
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (cache, two):
        folder.mkdir()
        (folder / FILE).write_bytes(BODY)
    assert locate(tiny) == cache / FILE
    monkeypatch.setenv("PERCEPTUAL_WEIGHTS", os.pathsep.join([str(one), "", str(two)]))
    assert locate(tiny) == two / FILE


def test_locate_prefers_the_first_known_file_wherever_it_is(
    tiny: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir()
    short = tmp_path / "tiny_short.safetensors"
    short.write_bytes(b"short")
    monkeypatch.setenv("PERCEPTUAL_WEIGHTS", str(tmp_path))
    assert locate(tiny) == short
    (cache / FILE).write_bytes(BODY)
    assert locate(tiny) == cache / FILE


def test_a_path_wins_and_must_exist(tiny: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.pth"
    mine.write_bytes(BODY)
    assert locate(tiny, mine) == mine
    for bad in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(WeightsError, match="no weights file"):
            locate(tiny, bad)


# --- downloading


def test_whole_download(server: Server, tiny: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "TICK", 1000)
    steps = list(fetch(tiny))
    indices = [step.index for step in steps]
    assert indices == sorted(indices)
    assert indices[0] == 0
    assert len(indices) > 4
    assert {step.total for step in steps} == {len(BODY)}
    assert indices[-1] == len(BODY)
    assert (steps[0].message or "").startswith(f"Downloading {FILE} (0 MB) from 127.0.0.1:")
    assert str(cache) in (steps[0].message or "")
    assert (cache / FILE).read_bytes() == BODY
    assert not (cache / f"{FILE}.part").exists()
    assert list(fetch(tiny)) == []  # already there
    assert server.seen == [None]
    assert load(tiny).sha256 == SHA


def test_a_damaged_file_is_not_taken_for_a_download(tiny: str, cache: Path) -> None:
    cache.mkdir()
    (cache / FILE).write_bytes(BODY[:-1])
    with pytest.raises(WeightsError, match=f"{FILE} is not the file of {tiny}: delete it"):
        list(fetch(tiny))


def test_an_unknown_length_is_none(server: Server, tiny: str, cache: Path) -> None:
    server.length = False
    assert [step.total for step in fetch(tiny)][:1] == [None]
    assert (cache / FILE).read_bytes() == BODY


def test_another_folder(server: Server, tiny: str, cache: Path, tmp_path: Path) -> None:
    cache.mkdir()
    (cache / FILE).write_bytes(BODY)
    assert list(fetch(tiny, folder=tmp_path / "to" / "carry"))
    assert (tmp_path / "to" / "carry" / FILE).read_bytes() == BODY


def test_a_shorter_local_file_does_not_stop_the_download(server: Server, tiny: str, cache: Path) -> None:
    cache.mkdir()
    (cache / "tiny_short.safetensors").write_bytes(b"short")
    assert list(fetch(tiny))
    assert locate(tiny) == cache / FILE


def test_after_a_cut_the_rest_is_downloaded(server: Server, tiny: str, cache: Path) -> None:
    server.cuts = 1
    steps = list(fetch(tiny))
    assert server.seen == [None, "bytes=3000-"]
    indices = [step.index for step in steps]
    assert indices == sorted(indices)
    assert steps[-1].index == steps[-1].total == len(BODY)
    assert (cache / FILE).read_bytes() == BODY


def test_a_server_that_always_cuts_keeps_the_part_for_the_next_call(server: Server, tiny: str, cache: Path) -> None:
    server.cuts, server.cut_after = 1000, 1000
    with pytest.raises(WeightsError, match=r"are kept: run the command again"):
        list(fetch(tiny))
    assert server.seen == [None, "bytes=1000-", "bytes=2000-", "bytes=3000-"]
    assert (cache / f"{FILE}.part").read_bytes() == BODY[:4000]
    assert locate(tiny) is None
    server.cuts = 0
    first, *_ = steps = list(fetch(tiny))
    assert server.seen[-1] == "bytes=4000-"
    assert (first.index, first.total) == (4000, len(BODY))
    assert "0.0 MB are there" in (first.message or "")
    assert steps[-1].index == len(BODY)
    assert (cache / FILE).read_bytes() == BODY


def test_cuts_that_bring_enough_are_not_counted(
    server: Server, tiny: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "TICK", 500)
    server.cuts, server.cut_after = 6, 1000
    list(fetch(tiny))
    assert len(server.seen) == 7
    assert (cache / FILE).read_bytes() == BODY


def test_a_server_that_ignores_range_starts_over(server: Server, tiny: str, cache: Path) -> None:
    server.ranges, server.cuts = False, 1
    assert list(fetch(tiny))[-1].index == len(BODY)
    assert server.seen == [None, "bytes=3000-"]
    assert (cache / FILE).read_bytes() == BODY


def test_a_server_that_ignores_range_and_always_cuts_ends(server: Server, tiny: str) -> None:
    server.ranges, server.cuts = False, 1000
    with pytest.raises(WeightsError, match="are kept"):
        list(fetch(tiny))
    assert len(server.seen) == 4


@pytest.mark.parametrize(("extra", "requests"), [(b"", 1), (b"too long", 2)])
def test_416_means_complete_or_start_over(server: Server, tiny: str, cache: Path, extra: bytes, requests: int) -> None:
    cache.mkdir()
    (cache / f"{FILE}.part").write_bytes(BODY + extra)
    list(fetch(tiny))
    assert len(server.seen) == requests
    assert (cache / FILE).read_bytes() == BODY


def test_a_wrong_hash_deletes_the_part(server: Server, tiny: str, cache: Path) -> None:
    server.body = BODY[:-1] + b"?"
    with pytest.raises(WeightsError, match=r"another hash, which was deleted: run the command again"):
        list(fetch(tiny))
    assert not (cache / f"{FILE}.part").exists()
    assert locate(tiny) is None
    server.body = BODY
    list(fetch(tiny))
    assert load(tiny).sha256 == SHA


def test_a_prefix_of_the_hash_is_enough(server: Server, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for prefix, fits in ((SHA[:8], True), ("0" * 8, False)):
        entry = Pretrained("vgg16", CAFFE_VGG, (WeightFile(FILE, prefix, server.url),), "for tests")
        monkeypatch.setitem(PRETRAINED, tiny, entry)
        if not fits:
            with pytest.raises(WeightsError, match="does not have the hash"):
                load(tiny)
            continue
        list(fetch(tiny))
        assert load(tiny).sha256 == SHA


# --- files of which eight digits are known


def eight_digits(server: Server, monkeypatch: pytest.MonkeyPatch, body: bytes, **known: Any) -> str:
    """A name whose file, of these eight digits, `body` has too: as an attacker makes it."""
    sha256 = hashlib.sha256(body).hexdigest()[:8]
    entry = Pretrained("vgg16", CAFFE_VGG, (WeightFile(FILE, sha256, server.url, **known),), "for tests")
    monkeypatch.setitem(PRETRAINED, "tiny", entry)
    server.body = body
    return "tiny"


NAMES = VGG_KEYS[:2]


def test_a_forged_file_of_the_same_eight_digits_is_refused(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forged = packed(vgg_state() | {"features.0.bias": torch.zeros(64)})
    name = eight_digits(server, monkeypatch, forged, tensors=tensors_digest(vgg_state(), NAMES), names=NAMES)
    with pytest.raises(WeightsError, match="sent a file with another content, which was deleted"):
        list(fetch(name))
    assert not (cache / f"{FILE}.part").exists()
    (cache / FILE).write_bytes(forged)
    with pytest.raises(WeightsError, match="does not contain the tensors of tiny"):
        load(name)


def test_known_tensors_make_a_file_genuine_whatever_else_is_in_it(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deeper = packed(vgg_state() | {"features.2.bias": torch.ones(64)})
    name = eight_digits(server, monkeypatch, deeper, tensors=tensors_digest(vgg_state(), NAMES), names=NAMES)
    list(fetch(name))
    assert len(load(name).state) == 3
    missing = packed({key: value for key, value in vgg_state().items() if key != "features.0.bias"})
    name = eight_digits(server, monkeypatch, missing, tensors=tensors_digest(vgg_state(), NAMES), names=NAMES)
    (cache / FILE).write_bytes(missing)
    with pytest.raises(WeightsError, match="does not contain the tensors of tiny"):
        load(name)


def test_the_digest_of_tensors_is_that_of_names_shapes_and_float32() -> None:
    state = {"b": torch.tensor([[1.0, 2.0]]), "a": torch.tensor([0.5], dtype=torch.float16)}
    expected = hashlib.sha256(
        b"a (1,)\n" + struct.pack("<f", 0.5) + b"b (1, 2)\n" + struct.pack("<ff", 1, 2)
    ).hexdigest()
    assert tensors_digest(state) == tensors_digest(dict(reversed(state.items()))) == expected
    assert tensors_digest(state, ["b"]) == hashlib.sha256(b"b (1, 2)\n" + struct.pack("<ff", 1, 2)).hexdigest()
    assert tensors_digest(state, ["b", "c"]) == ""
    assert tensors_digest({"a": torch.ones(2, 1)}) != tensors_digest({"a": torch.ones(1, 2)})


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the pretrained weights are not in {SHARED}")
def test_the_known_tensors_are_those_of_the_real_file() -> None:
    known, other = PRETRAINED["vgg19-distilled"].files
    assert tensors_digest(safetensors.torch.load_file(SHARED / other.file)) == known.tensors


def distilled_state(value: float = 0.5) -> dict[str, torch.Tensor]:
    return {"conv0.weight": torch.full((3, 3, 1, 1), value), "conv11.weight": torch.ones(16, 3, 3, 3)}


@pytest.mark.parametrize("layout", ["safetensors", "model", "plain"])
def test_the_distilled_network_is_known_by_its_tensors_in_any_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    def write(state: dict[str, torch.Tensor]) -> Path:
        path = tmp_path / ("a.safetensors" if layout == "safetensors" else "a.pth")
        if layout == "safetensors":
            safetensors.torch.save_file(state, path)
        else:
            torch.save({"model": state} if layout == "model" else state, path)
        return path

    files = (WeightFile("5SE.pth", "", tensors=tensors_digest(distilled_state())),)
    real = PRETRAINED["vgg19-distilled"]
    monkeypatch.setitem(PRETRAINED, "vgg19-distilled", replace(real, files=files))
    assert set(load("vgg19-distilled", write(distilled_state())).state) == set(distilled_state())
    sibling = write(distilled_state(0.25))
    with pytest.raises(
        WeightsError, match=r"does not contain the tensors of vgg19-distilled: .*wct_se_16x_new/5SE\.pth"
    ):
        load("vgg19-distilled", sibling)
    monkeypatch.setenv("PERCEPTUAL_WEIGHTS", str(tmp_path))
    sibling.rename(tmp_path / "5SE.pth") if layout != "safetensors" else torch.save(
        distilled_state(0.25), tmp_path / "5SE.pth"
    )
    with pytest.raises(WeightsError, match="does not contain the tensors"):
        load("vgg19-distilled")
    torch.save({"model": distilled_state()}, tmp_path / "5SE.pth")
    loaded = load("vgg19-distilled")
    assert (loaded.file, loaded.preprocessing) == ("5SE.pth", RAW)


def test_a_missing_distilled_network_names_where_it_is_from() -> None:
    with pytest.raises(WeightsError, match=r"put 5SE\.pth, which is .* of https://github\.com/MingSun-Tse/Coll"):
        load("vgg19-distilled")
