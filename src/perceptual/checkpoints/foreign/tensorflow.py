"""Reads the tensors in checkpoints of TensorFlow, without TensorFlow. Only numbers and names are read, so no code runs.

Version 1 is one file. Version 2 is a file .index, which lists the tensors, and files .data-00000-of-00001 with their
numbers. A version 1 file and an .index file are tables in the format of LevelDB, with protocol buffers as values:
saved_tensor_slice.proto (version 1) and tensor_bundle.proto (version 2) of TensorFlow.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from perceptual.checkpoints.tensors import unreadable
from perceptual.errors import CheckpointError

MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
"""The last bytes of a table."""
_FOOTER, _TRAILER, _FLOAT32, _LONGEST_KEY = 48, 5, 1, 4096
_Fields = dict[int, list[int | bytes]]


class _CompressedError(ValueError):
    """A block of a table is compressed. TensorFlow can read such files, but its Saver does not write them."""


def is_tensorflow(path: Path) -> bool:
    """Whether a file ends as a version 1 file or an .index file does.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - len(MAGIC)))
            return file.read() == MAGIC
    except OSError as error:
        raise unreadable(path, error) from error


def read_tensorflow(path: Path) -> dict[str, Tensor]:
    """Read the float32 tensors of a checkpoint: {name: tensor on the CPU}. Others, such as step counts, are left out.

    path: the file of version 1, or the .index file of version 2. The .data files must be in the same folder.

    Raises:
        CheckpointError: the file is damaged or compressed, or a file that belongs to it is missing.
    """
    try:
        table = dict(_table(path.read_bytes()))
        header = _fields(table.pop(b""))
        if isinstance(header.get(1, [0])[0], bytes):
            return _version1(table, _fields(_bytes(header, 1)))
        return _version2(path, table, _number(header, 1, 1))
    except _CompressedError as error:
        raise CheckpointError(f"{path} is compressed, which cannot be read: save it by tf.train.Saver.") from error
    except (OSError, KeyError, IndexError, ValueError, TypeError, AssertionError, struct.error, OverflowError) as error:
        raise CheckpointError(
            f"{path} is damaged, incomplete, or no checkpoint of TensorFlow: get it again."
        ) from error


def _version1(table: dict[bytes, bytes], meta: _Fields) -> dict[str, Tensor]:
    shapes = {}
    for each in meta.get(1, []):
        tensor = _fields(each)
        if _number(tensor, 3) == _FLOAT32:
            shapes[_bytes(tensor, 1)] = _shape(tensor)
    found = {}
    for value in table.values():
        piece = _fields(_bytes(_fields(value), 2))
        name = _bytes(piece, 1)
        if name in shapes:
            found[name.decode()] = _tensor(_bytes(_fields(_bytes(piece, 3)), 5), shapes[name])
    return found


def _version2(path: Path, table: dict[bytes, bytes], files: int) -> dict[str, Tensor]:
    found, read, sizes = {}, 0, dict[Path, int]()
    for name, value in table.items():
        entry = _fields(value)
        if _number(entry, 1) != _FLOAT32 or 7 in entry:  # 7: the tensor is in several pieces
            continue
        data = path.with_name(f"{path.name.removesuffix('.index')}.data-{_number(entry, 3):05d}-of-{files:05d}")
        if not data.is_file():
            raise CheckpointError(f"{path} needs the file {data.name} in the same folder: get that file too.")
        read += _number(entry, 5)
        sizes[data] = os.path.getsize(data)
        if read > sum(sizes.values()):  # many names for the same numbers could use up the memory
            raise ValueError(name)
        with open(data, "rb") as file:
            file.seek(_number(entry, 4))
            found[name.decode()] = _tensor(file.read(_number(entry, 5)), _shape(entry))
    return found


def _tensor(data: bytes, shape: list[int]) -> Tensor:
    if len(data) != 4 * math.prod(shape):
        raise ValueError(shape)
    return torch.from_numpy(np.frombuffer(data, "<f4").astype(np.float32).reshape(shape))


# --- tables


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a table. Its last block lists the others."""
    read = 0
    for _, handle in _block(data, *_varints(data[-_FOOTER:], 4)[2:]):
        offset, size = _varints(handle, 2)
        read += size
        if read > len(data):  # a list that names one block many times could take hours
            raise ValueError(read)
        yield from _block(data, offset, size)


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a block. A key leaves out the bytes that it shares with the key before it."""
    block, trailer = data[offset : offset + size], data[offset + size : offset + size + _TRAILER]
    if len(trailer) != _TRAILER:
        raise ValueError(offset)
    if trailer[0]:
        raise _CompressedError
    (restarts,) = struct.unpack("<I", block[-4:])
    end, at, key = size - 4 - 4 * restarts, 0, b""
    while at < end:
        (shared, own, length), at = _some(block, at, 3)
        if shared + own > _LONGEST_KEY:  # keys that share much could use up the memory
            raise ValueError(at)
        key, at = key[:shared] + block[at : at + own], at + own
        yield key, block[at : at + length]
        at += length
    if at != end:
        raise ValueError(at)


def _some(data: bytes, at: int, count: int) -> tuple[list[int], int]:
    """So many numbers of variable length, seven bits in a byte, and the place after them."""
    numbers = []
    for _ in range(count):
        number = shift = 0
        while True:
            byte = data[at]
            number, shift, at = number | (byte & 127) << shift, shift + 7, at + 1
            if byte < 128:
                break
            if shift > 63:
                raise ValueError(at)
        numbers.append(number)
    return numbers, at


def _varints(data: bytes, count: int) -> list[int]:
    return _some(data, 0, count)[0]


# --- protocol buffers


def _fields(data: int | bytes) -> _Fields:
    """The fields of a message by number: whole numbers as int; text, messages and lists of numbers as bytes."""
    assert isinstance(data, bytes)
    fields, at = _Fields(), 0
    while at < len(data):
        (tag,), at = _some(data, at, 1)
        value: int | bytes
        if tag & 7 == 0:
            (value,), at = _some(data, at, 1)
        else:
            if tag & 7 == 2:
                (length,), at = _some(data, at, 1)
            else:
                length = {1: 8, 5: 4}[tag & 7]
            value, at = data[at : at + length], at + length
            if at > len(data):
                raise ValueError(at)
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _bytes(fields: _Fields, number: int) -> bytes:
    value = fields.get(number, [b""])[0]
    assert isinstance(value, bytes)
    return value


def _number(fields: _Fields, number: int, default: int = 0) -> int:
    value = fields.get(number, [default])[0]
    assert isinstance(value, int)
    return value


def _shape(fields: _Fields) -> list[int]:
    """The shape of a tensor; it is field 2 in both versions."""
    return [_number(_fields(each), 1) for each in _fields(_bytes(fields, 2)).get(2, [])]
