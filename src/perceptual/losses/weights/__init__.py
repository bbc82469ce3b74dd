"""Where pretrained weights of loss networks come from: a given path, the cache folder, or a download.

Nothing is downloaded unless `fetch` is called. `load` checks the hash of each file. The image preprocessing belongs to
the weight file, not to the architecture, so it is stored with the file's entry in table.py.

The download is our own code, because pooch 1.9 lacks what files of 575 MB need. It starts again from byte 0 after each
cut of the connection, and keeps nothing when it gives up. It reads a file of the wrong size to its end. It has no lock
between processes, and no clear error for a web page or a malformed redirect. We tested this against a local server.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from filelock import FileLock, Timeout
from torch import Tensor

from perceptual.cache import cache_folder
from perceptual.errors import OutputError, WeightsError
from perceptual.events import Step
from perceptual.files import sha256_of
from perceptual.losses.weights.places import before_download, find, how_to_get, megabytes
from perceptual.losses.weights.places import folders as weight_folders
from perceptual.losses.weights.table import (
    CAFFE_VGG,
    IMAGENET,
    LOOKS,
    PRETRAINED,
    RAW,
    Preprocessing,
    Pretrained,
    WeightFile,
)
from perceptual.losses.weights.tensors import network_state, read_tensors, tensors_digest

__all__ = [
    "CAFFE_VGG",
    "IMAGENET",
    "PRETRAINED",
    "RAW",
    "LoadedWeights",
    "Preprocessing",
    "Pretrained",
    "WeightFile",
    "before_download",
    "fetch",
    "fetch_file",
    "find",
    "load",
    "locate",
    "read_tensors",
    "tensors_digest",
    "weight_folders",
]

TICK = 1 << 18  # bytes between two Steps of a download
TIMEOUT = 30.0  # a connection is closed after this many seconds without a byte
LARGEST = 600_000_000  # maximum bytes of a file of unknown size; the largest known file has 575 MB
RETRY_DELAYS = (1.0, 2.0, 4.0, 8.0)  # seconds of waiting before each further attempt


@dataclass(frozen=True)
class LoadedWeights:
    """Weights in memory.

    state: tensors in float32 on the CPU, with the keys of torchvision (`features.N...`).
    file: the file's name without its folder. network: a key of `architectures.ARCHITECTURES`.
    """

    name: str
    sha256: str
    state: dict[str, Tensor] = field(repr=False, compare=False)
    preprocessing: Preprocessing
    network: str
    file: str


def locate(name: str, path: str | Path | None = None) -> Path | None:
    """Find the file to load: `path` if it is given, else a known file.

    It searches the folders of PERCEPTUAL_WEIGHTS, the cache, and the cache of torch.hub (TORCH_HOME).

    Returns None if there is no such file.

    Raises:
        WeightsError: the name is unknown, or `path` is not a file.
    """
    entry = _entry(name)
    if path is None:
        return find(entry.files)
    given = Path(os.path.expanduser(path))
    if not os.path.isfile(given):  # Path.is_file raises if the folder may not be entered
        raise WeightsError(f"There is no weights file {given}: correct the path, or leave it out to use the cache.")
    return given


def load(name: str, path: str | Path | None = None) -> LoadedWeights:
    """Read weights. Nothing is downloaded, and no code in the file is run.

    A file that is found by its name must have the known hash, or the known tensors if its full hash is not known.
    A file given by `path` may have any hash, because it may be a fine-tuned network. But its tensors must fit the
    network, and it must not be the known file of another network, because the preprocessing would be wrong. Several
    networks have tensors with the names and shapes of vgg19-distilled, so its tensors are always compared.

    Raises:
        WeightsError: the name is unknown, there is no file, it has the wrong hash, it is damaged or cannot be read, or
            it contains weights of another network.
    """
    entry, found = _entry(name), locate(name, path)
    if found is None:
        raise WeightsError(f"The weights {name} are not on this machine. {how_to_get(name)}")
    digest = sha256_of(found)
    owners = {k for k, known in PRETRAINED.items() for f in known.files if f.sha256 and digest.startswith(f.sha256)}
    if owners and name not in owners and path is not None:
        raise WeightsError(f"{found} contains the weights {min(owners)}, not {name}: use the name {min(owners)}.")
    if path is None and name not in owners and all(known.sha256 for known in entry.files):
        raise WeightsError(f"{found} does not have the hash of {name}: delete it. {how_to_get(name)}")
    state = network_state(read_tensors(found), entry.network)
    first, shape, foreign = LOOKS[entry.network]
    if first not in state or tuple(state[first].shape) != shape or any(key in state for key in foreign):
        raise WeightsError(f"{found} does not contain weights of {entry.network}: give another file, or another name.")
    if (path is None or entry.strict) and not any(_genuine(known, digest, state) for known in entry.files):
        raise WeightsError(f"{found} does not contain the tensors of {name}: use another file. {how_to_get(name)}")
    return LoadedWeights(name, digest, state, entry.preprocessing, entry.network, found.name)


def fetch(name: str, *, folder: str | Path | None = None) -> Iterator[Step]:
    """Download weights to a folder, by default the cache. If the file exists already, only its hash is checked.

    Yields a Step every TICK bytes; its index and total are bytes. If the download is stopped, by Ctrl-C or by closing
    the generator, the received bytes stay in FILE.part, and the next call continues from there. If another process is
    downloading the same file, this one waits for it. The download also starts if there is a
    smaller file with only the first layers.

    Raises:
        WeightsError: the name is unknown, the file that exists has another hash, the file cannot be downloaded, there
            is no connection, or the server sends another file.
        OutputError: the folder cannot be written to.
    """
    entry = _entry(name)
    remote = [known for known in entry.files if known.url]
    place = cache_folder() if folder is None else Path(os.path.expanduser(folder))
    if found := find(remote or entry.files, () if folder is None else (place,)):
        digest = sha256_of(found)
        if not any(known.sha256 and digest.startswith(known.sha256) for known in entry.files):
            known_hashes = all(known.sha256 for known in entry.files)
            state = {} if known_hashes else network_state(read_tensors(found), entry.network)
            if not state or not any(_genuine(known, digest, state) for known in entry.files):
                raise WeightsError(f"{found} is not the file of {name}: delete it, and run the command again.")
        return
    if not remote:
        raise WeightsError(f"The weights {name} are not on this machine. {how_to_get(name)}")
    yield from fetch_file(remote[0], place, entry.network)


def fetch_file(source: WeightFile, place: Path, network: str = "") -> Iterator[Step]:
    """Download one file to a folder and check its hash, as `fetch` does. network: the key of its architecture.

    Raises:
        WeightsError, OutputError: as in `fetch`.
    """
    target, part = place / source.file, place / f"{source.file}.part"
    with _writing(place):
        place.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place / f"{source.file}.lock", thread_local=False)  # the generator may run in several threads
    try:
        yield from _take(lock, target, part)
        if not os.path.isfile(target):
            yield from _download(source, part)
            if wrong := _difference(source, part, network):
                part.unlink()
                raise WeightsError(f"{source.url} sent a file with another {wrong}, which was deleted: run the command "
                                   f"again. {_advice(source, part)}")  # fmt: skip
            with _writing(target):
                os.replace(part, target)
        yield Step(_size(target), _size(target), message=f"{target} is ready.")
    finally:
        lock.release()


def _take(lock: FileLock, target: Path, part: Path) -> Iterator[Step]:
    """Take the lock, and yield Steps while another process has it. A lock ends with its process."""
    for waited in itertools.count():
        with _writing(target), contextlib.suppress(Timeout):
            with contextlib.suppress(NotImplementedError):  # a disk without locks: the hash still protects the result
                lock.acquire(timeout=0)
            return
        message = None if waited else f"Another process is downloading {target}: waiting for it."
        yield Step(_size(part), message=message)
        time.sleep(0.2)


def _entry(name: str) -> Pretrained:
    if name not in PRETRAINED:
        raise WeightsError(f"There are no weights called {name!r}: choose from {', '.join(PRETRAINED)}.")
    return PRETRAINED[name]


def _genuine(known: WeightFile, digest: str, state: Mapping[str, Tensor]) -> bool:
    """True if the SHA-256 and the tensors of a file are those in the table."""
    if not digest.startswith(known.sha256):
        return False
    return not known.tensors or tensors_digest(state, known.names) == known.tensors


def _difference(source: WeightFile, part: Path, network: str) -> str:
    """What differs between a download and its entry in the table: "hash", "content", or "" for nothing."""
    digest = sha256_of(part)
    if not digest.startswith(source.sha256):
        return "hash"
    if not source.tensors:
        return ""
    state = network_state(read_tensors(part, Path(source.file).suffix), network)
    return "" if _genuine(source, digest, state) else "content"


def _advice(source: WeightFile, part: Path) -> str:
    """Other ways to get a file, for the end of an error message."""
    kept = f"The first {_size(part) / 1e6:.1f} MB are kept: run the command again to download the rest. "
    return (
        f"{kept if _size(part) else ''}You can also download this file ({megabytes(source)}) with any computer and "
        f"copy it by hand to {part.parent}, or give its path: {source.flag}."
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # another process may have renamed it
        return 0


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {(error.strerror or str(error)).lower()}; free some space, or choose "
                          "another folder with PERCEPTUAL_CACHE. The received bytes are kept.") from error  # fmt: skip


def _download(source: WeightFile, part: Path) -> Iterator[Step]:
    """Download a file to its end, and try again after each interruption.

    If no attempt receives TICK more bytes, it gives up after one more attempt for each of RETRY_DELAYS.
    """
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
            offline = isinstance(error, URLError) and best == start  # there was no answer at all: no retries
            if offline or failures > len(RETRY_DELAYS):
                reason = error.reason if isinstance(error, URLError) else error
                asks = " Is this computer online?" if offline else ""
                message = f"Cannot download {source.url}: {_printable(reason)}.{asks} {_advice(source, part)}"
                raise WeightsError(message) from error
        time.sleep(RETRY_DELAYS[failures - 1])


def _open(source: WeightFile, part: Path) -> HTTPResponse | None:
    """Ask the server for the bytes after those in `part`; None if there are no more bytes (HTTP 416)."""
    url, start = source.url or "", _size(part)
    headers = {"User-Agent": "perceptual"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except (ValueError, InvalidURL) as error:  # raised for the address that the server redirects to
        raise WeightsError(
            f"Cannot download {url}: it redirects to an invalid address. {_advice(source, part)}"
        ) from error
    except HTTPError as error:
        error.close()
        if error.code == 416 and start:
            return None
        message = f"Cannot download {url}: HTTP {error.code} {_printable(error.reason)}. {_advice(source, part)}"
        raise WeightsError(message) from error
    return response


def _first_block(source: WeightFile, part: Path, response: HTTPResponse, start: int) -> bytes:
    """Read the first bytes of an answer, and check that the answer can be the file before anything is overwritten.

    Raises:
        WeightsError: it is a web page, or a file of another size.
        ConnectionError: it is empty.
    """
    first = response.read1(TICK)
    if not first:
        raise ConnectionError("the server sent nothing")
    if response.headers.get_content_type() == "text/html" or (not start and first.lstrip()[:1] == b"<"):
        raise WeightsError(f"{source.url} sends a web page, not the file: log in to the network, or open the address "
                           f"in a browser. {_advice(source, part)}")  # fmt: skip
    total = None if response.length is None else start + len(first) + response.length
    if total is not None and total > (source.size or LARGEST):
        raise WeightsError(_too_large(source, total, part))
    if total is not None and total < (source.size or _size(part)):
        raise WeightsError(f"{source.url} sends a file of {total} bytes, which is too short. It is another file, or "
                           f"{part} belongs to another file: then delete that. {_advice(source, part)}")  # fmt: skip
    return first


def _receive(source: WeightFile, part: Path) -> Iterator[Step]:
    """Append the bytes of one connection to `part`.

    Raises:
        OSError, HTTPException: the connection was cut.
    """
    response = _open(source, part)
    if response is None:  # `part` is complete, or another file
        if not sha256_of(part).startswith(source.sha256):
            part.unlink()
            yield from _receive(source, part)
        return
    with response:
        start = _size(part) if response.status == 206 else 0  # 200: the server ignored Range and sends the whole file
        total = None if response.length is None else start + response.length
        first = _first_block(source, part, response, start)
        size = "size unknown" if total is None else f"{total / 1e6:.0f} MB"
        size += f", {start / 1e6:.1f} MB are there" if start else ""
        message = f"Downloading {source.file} ({size}) from {urlsplit(source.url or '').netloc} to {part.parent}"
        with _writing(part):
            file = open(part, "ab" if start else "wb", buffering=0)  # noqa: SIM115  the next line closes it
        with file:
            done = last = start
            yield Step(done, total, message=message)
            for block in itertools.chain([first], iter(lambda: response.read1(TICK), b"")):
                if done + len(block) > (source.size or LARGEST):
                    file.truncate(start)  # the bytes of this answer are not the file
                    raise WeightsError(_too_large(source, done + len(block), part))
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


def _too_large(source: WeightFile, size: int, part: Path) -> str:
    known = f"has {source.size}" if source.size else f"may have at most {LARGEST}"
    return f"{source.url} sends {size} bytes or more, but the file {known}: it is another file. {_advice(source, part)}"


def _printable(text: object) -> str:
    """A server's text without control characters, which could control the terminal; at most 200 characters."""
    return "".join(c if c.isprintable() else " " for c in str(text))[:200]
