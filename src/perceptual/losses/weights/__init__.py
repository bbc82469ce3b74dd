"""Where pretrained loss-network weights come from: a path, the cache, or a download with its SHA-256.

Nothing is downloaded unless `fetch` is called, and no file is trusted by its name: `load` checks the hash each time.
The preprocessing belongs to the weight file, not to the architecture, so it is kept beside it here.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from torch import Tensor

from perceptual.cache import cache_folder
from perceptual.errors import OutputError, WeightsError
from perceptual.events import Step
from perceptual.files import sha256_of
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
    "fetch",
    "load",
    "locate",
    "read_tensors",
    "tensors_digest",
]

TICK = 1 << 18  # bytes between two Steps of a download
TIMEOUT = 30.0  # seconds without a byte before a connection counts as cut
LARGEST = 600_000_000  # bytes of a file whose size is not known; the largest known one has 575 MB
RETRY_DELAYS = (1.0, 2.0, 4.0, 8.0)  # seconds; as many tries again as there are entries


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


def load(name: str, path: str | Path | None = None) -> LoadedWeights:
    """Read weights; no code is run and nothing is downloaded.

    A file found by its name must have the known hash, or the known tensors where its whole hash is not known. One given
    by `path` may have any (people fine-tune), but must look like that network, and must not be the known file of
    another name, whose preprocessing would differ. vgg19-distilled has look-alikes: its tensors are compared always.

    Raises:
        WeightsError: unknown name, no file, wrong hash, unreadable or damaged file, weights of something else.
    """
    entry, found = _entry(name), locate(name, path)
    if found is None:
        raise WeightsError(f"The weights {name} are not on this machine. {_mend(name)}")
    digest = sha256_of(found)
    owners = {k for k, known in PRETRAINED.items() for f in known.files if f.sha256 and digest.startswith(f.sha256)}
    if owners and name not in owners and path is not None:
        raise WeightsError(f"{found} holds the weights {min(owners)}, not {name}: ask for them by that name.")
    if path is None and name not in owners and all(known.sha256 for known in entry.files):
        raise WeightsError(f"{found} does not have the hash of {name}: delete it. {_mend(name)}")
    state = network_state(read_tensors(found), entry.network)
    first, shape, foreign = LOOKS[entry.network]
    if first not in state or tuple(state[first].shape) != shape or any(key in state for key in foreign):
        raise WeightsError(f"{found} is not weights of {entry.network}: give another file, or the name that fits it.")
    if (path is None or entry.strict) and not any(_genuine(known, digest, state) for known in entry.files):
        raise WeightsError(f"{found} does not hold the tensors of {name}: use another file. {_mend(name)}")
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
            if wrong := _difference(source, part, entry.network):
                part.unlink()
                raise WeightsError(f"{source.url} sent something of another {wrong}, which was deleted: run it again. "
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


def _genuine(known: WeightFile, digest: str, state: Mapping[str, Tensor]) -> bool:
    """Whether a file of this SHA-256 with these tensors is the known one, as far as that is known."""
    if not digest.startswith(known.sha256):
        return False
    return not known.tensors or tensors_digest(state, known.names) == known.tensors


def _difference(source: WeightFile, part: Path, network: str) -> str:
    """What of a download differs from what is known of it: its hash or its tensors; "" for nothing."""
    digest = sha256_of(part)
    if not digest.startswith(source.sha256):
        return "hash"
    if not source.tensors:
        return ""
    state = network_state(read_tensors(part, Path(source.file).suffix), network)
    return "" if _genuine(source, digest, state) else "content"


def _mend(name: str) -> str:
    entry = PRETRAINED[name]
    known = entry.files[0]
    mend = f"run `perceptual weights fetch {name}`, or" if known.url else "they cannot be downloaded;"
    where = f", which is {entry.origin}," if entry.origin else ""
    return (f"To get them: {mend} put {known.file}{where} in {cache_folder()} or in a folder named by "
            "PERCEPTUAL_WEIGHTS, or give the path of a file.")  # fmt: skip


def _advice(part: Path) -> str:
    kept = f"What has arrived ({_size(part) / 1e6:.1f} MB) is kept: running again goes on from there. "
    return f"{kept if _size(part) else ''}You can also fetch it by hand into {part.parent}, or give the path of a file."


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
                raise WeightsError(f"Cannot download {source.url}: {_printable(reason)}. {_advice(part)}") from error
        time.sleep(RETRY_DELAYS[failures - 1])


def _open(source: WeightFile, part: Path) -> HTTPResponse | None:
    """The server's answer to a request of what lies beyond the part; None where it says that there is no more (416)."""
    url, start = source.url or "", _size(part)
    headers = {"User-Agent": "perceptual"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except (ValueError, InvalidURL) as error:  # of the address that it redirects to
        raise WeightsError(
            f"Cannot download {url}: it redirects to an address that is none. {_advice(part)}"
        ) from error
    except HTTPError as error:
        error.close()
        if error.code == 416 and start:
            return None
        message = f"Cannot download {url}: HTTP {error.code} {_printable(error.reason)}. {_advice(part)}"
        raise WeightsError(message) from error
    return response


def _first_block(source: WeightFile, part: Path, response: HTTPResponse, start: int) -> bytes:
    """The beginning of an answer that can be the file, before it replaces anything.

    Raises:
        WeightsError: a web page, or a file of another size. ConnectionError: nothing.
    """
    first = response.read1(TICK)
    if not first:
        raise ConnectionError("the server sent nothing")
    if response.headers.get_content_type() == "text/html" or (not start and first.lstrip()[:1] == b"<"):
        raise WeightsError(f"{source.url} answers with a web page in place of the file: log in to the network, or look "
                           f"at the address in a browser. {_advice(part)}")  # fmt: skip
    total = None if response.length is None else start + len(first) + response.length
    if total is not None and total > (source.size or LARGEST):
        raise WeightsError(_too_large(source, total, part))
    if total is not None and total < (source.size or _size(part)):
        raise WeightsError(f"{source.url} sends a file of {total} bytes, which is too short: it is another file, or "
                           f"{part} is none of it and has to be deleted. {_advice(part)}")  # fmt: skip
    return first


def _receive(source: WeightFile, part: Path) -> Iterator[Step]:
    """One connection: append to `part` what the server sends. Raises OSError or HTTPException when it is cut."""
    response = _open(source, part)
    if response is None:  # there is no byte beyond the part
        if not sha256_of(part).startswith(source.sha256):
            part.unlink()
            yield from _receive(source, part)
        return
    with response:
        start = _size(part) if response.status == 206 else 0  # 200: the server ignores Range and sends all
        total = None if response.length is None else start + response.length
        first = _first_block(source, part, response, start)
        size = "size unknown" if total is None else f"{total / 1e6:.0f} MB"
        size += f", {start / 1e6:.1f} MB are here" if start else ""
        told = f"Downloading {source.file} ({size}) from {urlsplit(source.url or '').netloc} to {part.parent}"
        with _writing(part):
            file = open(part, "ab" if start else "wb", buffering=0)  # noqa: SIM115  the next line closes it
        with file:
            done = last = start
            yield Step(done, total, message=told)
            for block in itertools.chain([first], iter(lambda: response.read1(TICK), b"")):
                if done + len(block) > (source.size or LARGEST):
                    file.truncate(start)  # what this answer brought is not the file
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
    known = f"has {source.size}" if source.size else f"may have {LARGEST}"
    return f"{source.url} sends {size} bytes or more, and the file {known}: it is another file. {_advice(part)}"


def _printable(text: object) -> str:
    """What a server says, without what would steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in str(text))[:200]


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
