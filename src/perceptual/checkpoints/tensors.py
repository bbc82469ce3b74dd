"""Reads and writes safetensors files. Reading never runs code. Writing is atomic."""

from __future__ import annotations

import json
import os
import re
import struct
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from perceptual.errors import CheckpointError
from perceptual.files import write_beside

READ_ENDINGS = frozenset((".pth", ".pt", ".ckpt", ".index", ".t7", ".model", ".bin", ".pkl", ".pickle"))
_UNREAD = ".onnx .npz .npy .h5 .hdf5 .keras .pb .tflite .caffemodel .mlmodel .gguf .params .weights"
FOREIGN = READ_ENDINGS | frozenset(_UNREAD.split())
"""File endings of networks that other programs write."""


_PART = re.compile(r"(.+)\.(?:meta|data-\d+-of-\d+)")
"""The names of the files beside the .index file of TensorFlow, such as model.ckpt.data-00000-of-00001."""


class UnreadableError(CheckpointError):
    """A file may be whole, but cannot be read here."""


def ending_of(path: str | Path) -> str:
    """The ending of a file in lower case. TensorFlow adds the step to it: that of model.ckpt-40000 is .ckpt."""
    return re.sub(r"(?<=^\.ckpt)-\d+$", "", Path(path).suffix.lower())


def write(path: str | Path, state: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and text metadata. The metadata is sorted, so equal contents give equal bytes.

    Raises:
        OutputError: the file cannot be written. An existing file with this name is not changed.
    """
    metadata = {key: value.encode("utf-8", "replace").decode() for key, value in metadata.items()}  # e.g. file names
    data = safetensors.torch.save(state, metadata)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(metadata.items()))  # safetensors writes the metadata in random order
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with write_beside(path) as temporary, open(temporary, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(memoryview(data)[8 + length :])


def metadata(path: str | Path) -> dict[str, str]:
    """Read the text metadata in the header of a safetensors file.

    Raises:
        CheckpointError: the file is missing or damaged, or not a safetensors file.
    """
    if not os.path.isfile(path):
        raise CheckpointError(f"There is no file {path}: check the name.")
    _check_readable(path)
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            return file.metadata() or {}
    except (safetensors.SafetensorError, OSError, struct.error, ValueError) as error:
        suffix = ending_of(path)
        if part := _PART.fullmatch(Path(path).name):
            raise CheckpointError(f"{path} is one part of a checkpoint of TensorFlow: give "
                                  f"{Path(path).with_name(part[1])}.index.") from error  # fmt: skip
        if suffix in FOREIGN - READ_ENDINGS:
            raise CheckpointError(
                f"{path} is a network in a format that perceptual cannot read ({suffix}): give the .safetensors file "
                "that it was made from, or another network."
            ) from error
        if suffix in FOREIGN:
            raise CheckpointError(
                f"{path} is a checkpoint of another program and has no card: use it with `perceptual stylize` or "
                "`upscale`, or turn a style network into a style file by `perceptual convert`."
            ) from error
        raise CheckpointError(f"{path} is damaged or not a safetensors file: get it again.") from error


def _check_readable(path: str | Path) -> None:
    """Check what safetensors would report as damage: a name that is not UTF-8, and a file that may not be read."""
    try:
        os.fsencode(path).decode()
        with open(path, "rb"):
            pass
    except UnicodeDecodeError as error:
        raise UnreadableError(f"{path} has a name that is not UTF-8: rename it, or its folder.") from error
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: str | Path, error: OSError) -> UnreadableError:
    """The error for a file that cannot be opened."""
    reason = (error.strerror or str(error)).lower()
    return UnreadableError(f"{path} cannot be read ({reason}): change its permissions.")


def read(path: str | Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file, by name.

    Raises:
        CheckpointError: the file cannot be read, or is damaged.
    """
    try:
        return safetensors.torch.load(Path(path).read_bytes())
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from error
