"""Damaged pictures, networks, states and arguments: each ends as it should or in one sentence, never in a traceback.

The inputs are a function of a seed, so a failure can be repeated: the test's message names the number of the input.
`make test` tries a few of each kind, `make fuzz` 12,000 in all, and `make fuzz-hour` as many as an hour has time for.
PERCEPTUAL_FUZZ sets how many of each kind, such as 2000, or for how long in all, such as 300s.
"""

from __future__ import annotations

import importlib
import io
import itertools
import json
import os
import random
import struct
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image, features

from perceptual import Stylizer, checkpoints, cli, images
from perceptual.checkpoints.card import CARD_KEY
from perceptual.checkpoints.state import STATE_KEY
from perceptual.config import NetworkConfig
from perceptual.errors import PerceptualError
from perceptual.networks import TransformationNetwork
from perceptual.train import state as runstate

WANTED = os.environ.get("PERCEPTUAL_FUZZ", "60")
KINDS = 6  # of inputs, each a test, which share the seconds
NUMBERS = [
    "0",
    "-1",
    "1",
    "1e308",
    "-1e308",
    "nan",
    "inf",
    "-inf",
    "9" * 5000,
    "1e-320",
    "0x10",
    "2.5",
    "",
    "a",
    "\uff14",
]


def inputs() -> Iterator[int]:
    """The numbers of the inputs of one kind; says at the end how many there were."""
    number = -1
    if WANTED.endswith("s"):
        end = time.monotonic() + float(WANTED[:-1]) / KINDS
        numbers: Iterator[int] = itertools.takewhile(lambda _: time.monotonic() < end, itertools.count())
    else:
        numbers = iter(range(int(WANTED)))
    for number in numbers:
        yield number
    print(f"{number + 1} inputs")


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The bytes with a few changed, cut off, doubled or put elsewhere."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at, length = rng.randrange(len(data) or 1), rng.randint(1, 16)
        kind = rng.randrange(5)
        if kind == 0:
            data[at : at + length] = rng.randbytes(length)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            data[at:at] = data[at : at + length]
        elif kind == 3 and data:
            data[at] ^= 1 << rng.randrange(8)
        else:
            data[at : at + length] = rng.choice([b"\0", b"\xff"]) * length
    return bytes(data)


def spoiled(value: object, rng: random.Random) -> object:
    """A JSON value with something in it of another type, out of range, or missing."""
    odd = [None, True, -1, 10**30, float("nan"), "x", [], {}, [[1]], "\x1b[2J", "9" * 5000]
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        changed = dict(value)
        if rng.random() < 0.2:
            del changed[key]
        else:
            changed[key] = spoiled(value[key], rng)
        return changed
    if isinstance(value, list) and value and rng.random() < 0.5:
        changed_list = list(value)
        changed_list[rng.randrange(len(value))] = rng.choice(odd)
        return changed_list
    return rng.choice(odd)


def one_sentence(number: int, work: Callable[[], object]) -> None:
    """Run the work; a PerceptualError in one line is fine, anything else is not."""
    try:
        work()
    except PerceptualError as error:
        text = str(error)
        assert text.strip().endswith("."), (number, text)
        assert len(text.splitlines()) == 1, (number, text)
        assert len(text) < 2000, (number, text[:200])
    except Exception as error:
        raise AssertionError(f"input {number} ends in a {type(error).__name__}: {error}") from error


@pytest.fixture(scope="module")
def pictures() -> list[tuple[str, bytes]]:
    """A small picture of each kind of file."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (24, 31, 3), dtype=np.uint8))
    others = ["avif"] if features.check("avif") else []
    if find_spec("pillow_heif"):
        importlib.import_module("pillow_heif").register_heif_opener()
        others.append("heif")
    grey16 = Image.fromarray(rng.integers(0, 65536, (24, 31), dtype=np.uint16))
    found = []
    for suffix, image in (
        *((suffix, colour) for suffix in ("png", "jpg", "webp", "tif", "gif", "bmp", "ppm", "tga", "ico", "jp2")),
        *(("png", image) for image in (grey16, colour.convert("P"), colour.convert("LA"), colour.convert("1"))),
        ("tif", colour.convert("CMYK")),
        *((suffix, colour) for suffix in others),
    ):
        buffer = io.BytesIO()
        image.save(buffer, {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000"}.get(suffix, suffix.upper()))
        found.append((suffix, buffer.getvalue()))
    return found


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint."""
    config = NetworkConfig("c3s1-4 d4 r4 U4 c3s1-3", norm="conditional_instance", padding="reflect", styles=2)
    path = tmp_path_factory.mktemp("fuzz") / "net.safetensors"
    card = checkpoints.Card(task="style", network=config, styles=("one", "two"), about="tiny", steps=3)
    checkpoints.save(path, TransformationNetwork(config), card)
    return path


@pytest.mark.filterwarnings("ignore")
def test_damaged_pictures(tmp_path: Path, pictures: list[tuple[str, bytes]]) -> None:
    for number in inputs():
        rng = random.Random(f"picture {number}")
        suffix, data = rng.choice(pictures)
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(damaged(data, rng))
        one_sentence(number, lambda path=path: images.read(path, levels=True))
        one_sentence(number, lambda path=path: images.open_rgb(path, draft_size=8))


def test_damaged_networks(tmp_path: Path, network: Path) -> None:
    path = tmp_path / "a.safetensors"
    for number in inputs():
        path.write_bytes(damaged(network.read_bytes(), random.Random(f"network {number}")))
        one_sentence(number, lambda: checkpoints.load(path, task="style"))


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, bytes]]:
    """Small networks of other programs: (file ending, bytes)."""
    monkey = pytest.MonkeyPatch()
    monkey.syspath_prepend(str(Path(__file__).parents[1]))
    foreign = importlib.import_module("foreign")
    monkey.undo()
    style, folder = foreign.TransformerNet((4, 4, 4), 1).state_dict(), tmp_path_factory.mktemp("others")
    found = [("t7", foreign.t7({"opt": {}, "model": foreign.fast_neural_style(blocks=1)}))]
    upscalers = [foreign.esrgan_state(blocks=1), foreign.compact_state(), foreign.span_state(filters=2)]
    upscalers.append(foreign.esrgan_names(upscalers[0], "old"))
    for state in (style, *upscalers):
        found.append(("safetensors", safetensors.torch.save(state)))
        for zipped in (True, False):
            torch.save(state, folder / "a", _use_new_zipfile_serialization=zipped)
            found.append(("pth", (folder / "a").read_bytes()))
    return found


@pytest.mark.filterwarnings("ignore")
def test_damaged_networks_of_other_programs(tmp_path: Path, others: list[tuple[str, bytes]]) -> None:
    for number in inputs():
        rng = random.Random(f"foreign {number}")
        ending, data = rng.choice(others)
        path = tmp_path / f"a.{ending}"
        path.write_bytes(damaged(data, rng))
        one_sentence(number, lambda path=path: checkpoints.load(path))


def test_cards_of_wrong_types(tmp_path: Path, network: Path) -> None:
    data = network.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    card = json.loads(header["__metadata__"][CARD_KEY])
    path = tmp_path / "a.safetensors"
    for number in inputs():
        rng = random.Random(f"card {number}")
        header["__metadata__"][CARD_KEY] = json.dumps(spoiled(card, rng))
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
        one_sentence(number, lambda: Stylizer.load(path, device="cpu").stylize(torch.zeros(1, 3, 8, 8)))
        one_sentence(number, lambda: Stylizer.load(f"{path}:0.5,{network}:0.5", device="cpu"))


def test_states_of_wrong_types(tmp_path: Path) -> None:
    info = {
        "step": 3,
        "identity": {"train": {"steps": 6}, "photographs": ["a.jpg"]},
        "references": {"content": [1.0]},
        "unreadable": ["b.jpg"],
        "scaler": None,
        "watch": {"first": 1.0, "last": 1.0, "best": 1.0, "step": 0},
    }
    path = tmp_path / "a.state"
    for number in inputs():
        rng = random.Random(f"state {number}")
        text = json.dumps(spoiled(info, rng))
        path.write_bytes(safetensors.torch.save({"network.a": torch.zeros(2)}, {STATE_KEY: text}))
        one_sentence(number, lambda: runstate.read_state(path))


def test_numbers_of_any_kind(capsys: pytest.CaptureFixture[str]) -> None:
    flags = {
        (
            "train",
            "style",
            "--dry-run",
        ): "steps batch size learning-rate seed style-weight ema warmup style-size workers",
        ("train", "upscale", "--dry-run"): "scale blur steps batch size seed learning-rate save-every",
        ("stylize", "nowhere.png", "-o", "x.png"): "strength style-scale size noise",
        ("upscale", "nowhere.png", "-o", "x.png"): "scale tile",
        ("optimize", "invert", "nowhere.png", "-o", "x.png"): "size iterations scales seed history tv-weight",
        ("video", "nowhere.mp4", "-o", "x.mp4"): "fps size crf steady start end upscale",
    }
    for number in inputs():
        rng = random.Random(f"number {number}")
        words = rng.choice(list(flags))
        chosen = rng.sample(flags[words].split(), rng.randint(1, 2))
        arguments = [*words, *(f"--{flag}={rng.choice(NUMBERS)}" for flag in chosen)]
        try:
            code = cli.main(arguments)
        except SystemExit as stop:
            code = int(stop.code or 0)
        err = capsys.readouterr().err
        assert code in (0, 1, 2), (number, arguments)
        assert "Traceback" not in err, (number, arguments)
