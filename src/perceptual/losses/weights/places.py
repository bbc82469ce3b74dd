"""Finds known weight files on this computer, and explains how to get one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch

from perceptual.cache import cache_folder
from perceptual.errors import WeightsError
from perceptual.files import sha256_of
from perceptual.losses.weights.table import PRETRAINED, WeightFile


def folders() -> list[Path]:
    """The folders of PERCEPTUAL_WEIGHTS, then the cache."""
    chosen = os.environ.get("PERCEPTUAL_WEIGHTS", "").split(os.pathsep)
    return [*(Path(os.path.expanduser(folder)) for folder in chosen if folder), cache_folder()]


def find(files: Sequence[WeightFile], places: Sequence[Path] = ()) -> Path | None:
    """Find the first of these files that exists in one of the folders; None if there is none.

    places: folders; by default those of `folders`, and last the cache of torch.hub, where torchvision and other
        packages keep their downloads. A file there must have the known size and hash, because other programs write it.
    """
    found = (place / known.file for known in files for place in places or folders())
    there = next((path for path in found if os.path.isfile(path)), None)
    return there if there or places else _find_in_hub(files)


def _find_in_hub(files: Sequence[WeightFile]) -> Path | None:
    """torch.hub reads TORCH_HOME and XDG_CACHE_HOME; by default the folder is ~/.cache/torch/hub/checkpoints."""
    for known in files:
        path = Path(torch.hub.get_dir()) / "checkpoints" / known.file
        with contextlib.suppress(OSError, WeightsError):
            facts = path.stat()
            fits = os.path.isfile(path) and known.sha256 and known.size in (None, facts.st_size)
            if fits and _hash(path, facts.st_size, facts.st_mtime_ns).startswith(known.sha256):
                return path
    return None


@lru_cache(maxsize=32)
def _hash(path: Path, size: int, changed: int) -> str:
    """The SHA-256 of a file. It is cached until the size or the modification time changes."""
    return sha256_of(path)


def megabytes(source: WeightFile) -> str:
    """The size of a file for messages: "553 MB", "about 553 MB", or "of unknown size"."""
    if source.size or source.tensor_bytes:
        return f"{'' if source.size else 'about '}{(source.size or source.tensor_bytes) / 1e6:.0f} MB"
    return "of unknown size"


def how_to_get(name: str) -> str:
    """How to get the weights of a loss network, in one sentence."""
    entry = PRETRAINED[name]
    known = entry.files[0]
    fetch = f"run `perceptual weights fetch {name}` ({megabytes(known)} from {known.url}), or"
    first = fetch if known.url else "they cannot be downloaded;"
    where = f", which is {entry.origin}," if entry.origin else ""
    return (f"To get them: {first} put {known.file}{where} in {cache_folder()} or in a folder named by "
            "PERCEPTUAL_WEIGHTS, or give the path of a file.")  # fmt: skip


def before_download(name: str) -> str:
    """A message before a download of weights: the size, the address, and how to copy the file by hand.

    Raises:
        WeightsError: they cannot be downloaded; the message says how to get them.
    """
    known = PRETRAINED[name].files[0]
    if not known.url:
        raise WeightsError(f"The weights {name} are not on this machine. {how_to_get(name)}")
    return (f"The loss network {name} is not on this computer. Its file {known.file} ({megabytes(known)}) is "
            f"downloaded once, from {known.url} to {cache_folder()}. To copy it by hand, press Ctrl-C, and put the "
            f"file in that folder or in a folder named by PERCEPTUAL_WEIGHTS, or give its path: --weights {name}="
            "FILE.")  # fmt: skip
