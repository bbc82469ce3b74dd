"""Where pretrained loss-network weights come from: a path, the cache, or a download with its SHA-256.

Nothing is downloaded unless `fetch` is called, and no file is trusted by its name: `load` checks the hash each time.
The preprocessing belongs to the weight file, not to the architecture, so it is kept beside it here.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO, Literal
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import safetensors.torch
import torch
from torch import Tensor

from perceptual.cache import cache_folder
from perceptual.errors import OutputError, WeightsError
from perceptual.events import Step

TICK = 1 << 18  # bytes between two Steps of a download
TIMEOUT = 30.0  # seconds without a byte before a connection counts as cut
RETRY_DELAYS = (1.0, 2.0, 4.0, 8.0)  # seconds; as many tries again as there are entries


@dataclass(frozen=True)
class Preprocessing:
    """What the network was trained on: (pixels in [0, 1] * scale - mean) / std, its channels in `order`.

    mean and std are in the network's own channel order and after scaling.
    """

    order: Literal["RGB", "BGR"]
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


CAFFE_VGG = Preprocessing("BGR", 255.0, (103.939, 116.779, 123.68))
CAFFE_SQUEEZENET = Preprocessing("BGR", 255.0, (104.0, 117.0, 123.0))
IMAGENET = Preprocessing("RGB", 1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
RAW = Preprocessing("RGB", 1.0, (0.0, 0.0, 0.0))


@dataclass(frozen=True)
class WeightFile:
    """A file known by name. sha256: 64 hex digits, or the first 8 where only these are known; url None: local only."""

    file: str
    sha256: str
    url: str | None = None


@dataclass(frozen=True)
class Pretrained:
    """Weights known by name. network: architecture key; files: the best first; about: what, whose, licence."""

    network: str
    preprocessing: Preprocessing
    files: tuple[WeightFile, ...]
    about: str


def _remote(base: str, file: str) -> WeightFile:
    """The file at `base`; the eight hex digits that end its name begin its SHA-256."""
    return WeightFile(file, file.removesuffix(".pth").rpartition("-")[2], base + file)


def _johnson(file: str) -> WeightFile:
    return _remote("https://web.eecs.umich.edu/~justincj/models/", file)


def _torchvision(network: str, file: str, *others: WeightFile) -> Pretrained:
    files = (_remote("https://download.pytorch.org/models/", file), *others)
    return Pretrained(network, IMAGENET, files, f"{network}, trained on ImageNet by torchvision; BSD 3-clause")


PRETRAINED: dict[str, Pretrained] = {
    "vgg16": Pretrained("vgg16", CAFFE_VGG, (_johnson("vgg16-00b39a1b.pth"), WeightFile(
        "vgg16_conv1_1-conv3_3.safetensors", "df26a9fe17f5986cb2886437d5617962a63860f0e860a622c097683736ea1cab")),
        "VGG-16, Caffe weights of Simonyan and Zisserman converted by Justin Johnson, as in the paper; CC BY 4.0"),
    "vgg16-torchvision": _torchvision("vgg16", "vgg16-397923af.pth", WeightFile(
        "vgg16_torchvision_features.safetensors", "cabd922aeb0dd6d56f2bed33221aee74b7f1e760ddd105c0e0891606cbab6d0d")),
    "vgg19": Pretrained("vgg19", CAFFE_VGG, (_johnson("vgg19-d01eb7cb.pth"), WeightFile(
        "vgg19_conv1_1-conv3_4.safetensors", "eaab9b1c1035f802c694a0bb6b63a22de4da10a0bfada1e844977bc5e4e60cec")),
        "VGG-19, Caffe weights of Simonyan and Zisserman converted by Justin Johnson; CC BY 4.0"),
    "vgg19-torchvision": _torchvision("vgg19", "vgg19-dcbb9e9d.pth"),
    "vgg19-distilled": Pretrained("vgg19_distilled", RAW, (WeightFile("vgg19_distilled_se16x_to_relu5_1.safetensors",
        "b9c8d3a00bb1c308850845e6ce388eec9248ba8eede1e4ef8aaca9aa7c94af3c"),),
        "VGG-19 distilled to a quarter of its channels, Wang et al., Collaborative Distillation, CVPR 2020; MIT"),
    "squeezenet1_0": Pretrained("squeezenet1_0", CAFFE_SQUEEZENET, (WeightFile("squeezenet1_0.safetensors",
        "fdb640499914f9e03f42a5fc36fe481cf39e9470c51b46ebdd6294eb770aaa7a"),),
        "SqueezeNet 1.0, Caffe weights, deep-compressed by Song Han; BSD 2-clause"),
    "squeezenet1_0-torchvision": _torchvision("squeezenet1_0", "squeezenet1_0-b66bff10.pth"),
    "squeezenet1_1": Pretrained("squeezenet1_1", CAFFE_SQUEEZENET, (WeightFile("squeezenet1_1_features.safetensors",
        "52511200eede2a02b60885fb60596acaceec636ec896f80021c6705561619791"),),
        "SqueezeNet 1.1, Caffe weights of DeepScale, without the classifier; BSD 2-clause"),
    "squeezenet1_1-torchvision": _torchvision("squeezenet1_1", "squeezenet1_1-b8a52dc0.pth"),
}  # fmt: skip

# network: key and shape of its first convolution, and keys that only its look-alikes have (batch norm, VGG-19, ...)
_VGG, _NO_VGG = ("features.0.weight", (64, 3, 3, 3)), ("features.1.weight", "features.3.squeeze.weight")
_LOOKS: dict[str, tuple[str, tuple[int, ...], tuple[str, ...]]] = {
    "vgg16": (*_VGG, (*_NO_VGG, "features.16.weight")),
    "vgg19": (*_VGG, (*_NO_VGG, "features.17.weight")),
    "vgg19_distilled": ("conv0.weight", (3, 3, 1, 1), ()),
    "squeezenet1_0": ("features.0.weight", (96, 3, 7, 7), ()),
    "squeezenet1_1": ("features.0.weight", (64, 3, 3, 3), ("features.1.weight", "features.2.weight")),
}


@dataclass(frozen=True)
class LoadedWeights:
    """Weights in memory. state: float32 on the CPU, keys as in torchvision (`features.N...`); file: name, no folder."""

    name: str
    sha256: str
    state: dict[str, Tensor] = field(repr=False, compare=False)
    preprocessing: Preprocessing
    network: str
    file: str


def locate(name: str, path: str | Path | None = None) -> Path | None:
    """The file to load: `path` if given, else a known file in PERCEPTUAL_WEIGHTS' folders or the cache, or None.

    Raises:
        WeightsError: the name is unknown, or `path` is not a file.
    """
    entry = _entry(name)
    if path is None:
        return _find(entry.files, _folders())
    given = Path(os.path.expanduser(path))
    if not os.path.isfile(given):  # Path.is_file raises in a folder that may not be entered
        raise WeightsError(f"There is no weights file {given}: correct the path, or leave it out to use the cache.")
    return given


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file, 64 hex digits. Raises WeightsError when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise WeightsError(f"Cannot read {path}: {error.strerror or error}; check the path and its rights.") from error
    return digest.hexdigest()


def load(name: str, path: str | Path | None = None) -> LoadedWeights:
    """Read weights; no code is run and nothing is downloaded.

    A file found by its name must have the known hash; one given by `path` may have any (people fine-tune), but must
    look like that network, and must not be the known file of another name, whose preprocessing would differ.

    Raises:
        WeightsError: unknown name, no file, wrong hash, unreadable or damaged file, weights of something else.
    """
    entry, found = _entry(name), locate(name, path)
    if found is None:
        raise WeightsError(f"The weights {name} are not on this machine. {_mend(name)}")
    digest = sha256_of(found)
    owners = {key for key, known in PRETRAINED.items() for f in known.files if digest.startswith(f.sha256)}
    if path is None and name not in owners:
        raise WeightsError(f"{found} does not have the hash of {name}: delete it. {_mend(name)}")
    if owners and name not in owners:
        raise WeightsError(f"{found} holds the weights {min(owners)}, not {name}: ask for them by that name.")
    state = _network_state(read_tensors(found), entry.network)
    first, shape, foreign = _LOOKS[entry.network]
    if first not in state or tuple(state[first].shape) != shape or any(key in state for key in foreign):
        raise WeightsError(f"{found} is not weights of {entry.network}: give another file, or the name that fits it.")
    return LoadedWeights(name, digest, state, entry.preprocessing, entry.network, found.name)


def fetch(name: str, *, folder: str | Path | None = None) -> Iterator[Step]:
    """Download the weights to `folder` (default: the cache), going on from an earlier part; nothing if already there.

    Steps count bytes. Closing the generator, or Ctrl-C, keeps what has arrived in FILE.part. A shorter local file of
    the same weights does not count as already there. A second process waits for the first.

    Raises:
        WeightsError: unknown name, nothing to download, no connection, or a file with the wrong hash.
        OutputError: the folder cannot be written (disk full, no permission).
    """
    entry = _entry(name)
    remote = [known for known in entry.files if known.url]
    place = cache_folder() if folder is None else Path(os.path.expanduser(folder))
    if _find(remote or entry.files, _folders() if folder is None else [place]):
        return
    if not remote:
        raise WeightsError(f"The weights {name} are not on this machine. {_mend(name)}")
    source, target, part = remote[0], place / remote[0].file, place / f"{remote[0].file}.part"
    with _writing(place):
        place.mkdir(parents=True, exist_ok=True)
        lock = open(place / f"{source.file}.lock", "ab")  # noqa: SIM115  held open: that is the lock
    with lock:
        for waited in itertools.count():
            if _try_lock(lock):
                break
            yield Step(_size(part), message=None if waited else f"Another process downloads {target}: waiting for it.")
            time.sleep(0.2)
        if not os.path.isfile(target):
            yield from _download(source, part)
            if not sha256_of(part).startswith(source.sha256):
                part.unlink()
                raise WeightsError(f"{source.url} sent something of another hash, which was deleted: run it again. "
                                   f"{_advice(part)}")  # fmt: skip
            with _writing(target):
                os.replace(part, target)
        yield Step(_size(target), _size(target), message=f"{target} is ready.")


def _entry(name: str) -> Pretrained:
    if name not in PRETRAINED:
        raise WeightsError(f"There are no weights called {name!r}: choose one of {', '.join(PRETRAINED)}.")
    return PRETRAINED[name]


def _folders() -> list[Path]:
    chosen = os.environ.get("PERCEPTUAL_WEIGHTS", "").split(os.pathsep)
    return [*(Path(os.path.expanduser(folder)) for folder in chosen if folder), cache_folder()]


def _find(files: Sequence[WeightFile], folders: Sequence[Path]) -> Path | None:
    places = (folder / known.file for known in files for folder in folders)
    return next((place for place in places if os.path.isfile(place)), None)


def _mend(name: str) -> str:
    known = PRETRAINED[name].files[0]
    mend = f"run `perceptual weights fetch {name}`, or" if known.url else "they cannot be downloaded;"
    return (f"To get them: {mend} put {known.file} in {cache_folder()} or in a folder named by "
            "PERCEPTUAL_WEIGHTS, or give the path of a file.")  # fmt: skip


def _advice(part: Path) -> str:
    kept = f"What has arrived ({_size(part) / 1e6:.1f} MB) is kept: running again goes on from there. "
    return f"{kept if _size(part) else ''}You can also fetch it by hand into {part.parent}, or give the path of a file."


def read_tensors(path: Path) -> Mapping[str, object]:
    """The tensors of a file by key; code inside a pickle is never run.

    Raises:
        WeightsError: another kind of file, or a damaged one.
    """
    kind = path.suffix.lower()
    if kind not in (".safetensors", ".pth", ".pt"):
        raise WeightsError(f"{path} is not a weights file: give one that ends in .safetensors, .pth or .pt.")
    try:
        if kind == ".safetensors":
            raw: object = safetensors.torch.load_file(path)
        else:
            raw = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise WeightsError(f"{path} cannot be read as weights: it is damaged, cut short or holds more than tensors; "
                           "delete it and get it again.") from error  # fmt: skip
    if isinstance(raw, Mapping) and isinstance(raw.get("state_dict"), Mapping):  # a training checkpoint
        raw = raw["state_dict"]
    if not isinstance(raw, Mapping):
        raise WeightsError(f"{path} holds no named tensors: save `model.state_dict()` and give that file.")
    return raw


def _network_state(raw: Mapping[str, object], network: str) -> dict[str, Tensor]:
    """The network's own tensors: no classifier, float32, in memory of their own (not in the mapped file)."""
    prefix = "features." if _LOOKS[network][0].startswith("features.") else "conv"
    state = {}
    for key, value in raw.items():
        key = str(key).replace("module.", "")  # left by DataParallel
        key = f"features.{key}" if key[:1].isdigit() else key  # left by `vgg.features.state_dict()`
        if isinstance(value, Tensor) and key.startswith(prefix):
            state[key] = value.detach().to(torch.float32, copy=True)
    return state


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # another process may just have renamed it
        return 0


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {(error.strerror or str(error)).lower()}; make room or choose another "
                          "folder by PERCEPTUAL_CACHE. What has arrived is kept.") from error  # fmt: skip


def _download(source: WeightFile, part: Path) -> Iterator[Step]:
    """Bring `part` to full length; after a cut go on, until len(RETRY_DELAYS) cuts brought less than TICK bytes."""
    start = best = _size(part)
    failures = 0
    while True:
        try:
            yield from _receive(source, part)
            return
        except (OSError, HTTPException) as error:
            size = _size(part)
            failures = 1 if size >= best + TICK else failures + 1
            best = max(best, size)
            offline = isinstance(error, URLError) and best == start  # no answer at all: tell it at once
            if offline or failures > len(RETRY_DELAYS):
                reason = error.reason if isinstance(error, URLError) else error
                raise WeightsError(f"Cannot download {source.url}: {reason}. {_advice(part)}") from error
        time.sleep(RETRY_DELAYS[failures - 1])


def _receive(source: WeightFile, part: Path) -> Iterator[Step]:
    """One connection: append to `part` what the server sends. Raises OSError or HTTPException when it is cut."""
    url, start = source.url or "", _size(part)
    headers = {"User-Agent": "perceptual"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code != 416 or not start:
            message = f"Cannot download {url}: HTTP {error.code} {error.reason}. {_advice(part)}"
            raise WeightsError(message) from error
        if not sha256_of(part).startswith(source.sha256):  # 416: there is no byte beyond `start`
            part.unlink()
            yield from _receive(source, part)
        return
    with response:
        start = start if response.status == 206 else 0  # 200: the server ignores Range and sends all
        total = None if response.length is None else start + response.length
        size = "size unknown" if total is None else f"{total / 1e6:.0f} MB"
        size += f", {start / 1e6:.1f} MB are here" if start else ""
        told = f"Downloading {source.file} ({size}) from {urlsplit(url).netloc} to {part.parent}"
        with _writing(part):
            file = open(part, "ab" if start else "wb", buffering=0)  # noqa: SIM115  the next line closes it
        with file:
            done = last = start
            yield Step(done, total, message=told)
            while block := response.read1(TICK):
                left = memoryview(block)
                with _writing(part):
                    while left:
                        left = left[file.write(left) :]
                done += len(block)
                if done - last >= TICK:
                    last = done
                    yield Step(done, total)
    if total is not None and done < total:
        raise ConnectionError(f"the connection was cut after {done} of {total} bytes")


def _try_lock(file: BinaryIO) -> bool:
    """Take the lock, or False when another process has it. It ends with the file or its process: none goes stale."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True  # a network disk without locks: the hash still guards the result
    return True
