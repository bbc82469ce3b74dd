"""Reads binary Torch7 files (.t7). It builds numbers, text, tables and tensors only.

Lua's objects become `LuaObject`, a class name and its fields. Lua functions are refused. Every size in the file is
compared with the bytes that are left, so a file cannot claim more than it holds.

Format: https://github.com/torch/torch7/blob/master/doc/serialization.md
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perceptual.errors import CheckpointError

NIL, NUMBER, STRING, TABLE, OBJECT, BOOLEAN, *FUNCTIONS = range(9)
DEPTH = 100
"""Most tables inside each other."""
_DTYPES = {
    "Double": "<f8", "Float": "<f4", "Long": "<i8", "Int": "<i4", "Short": "<i2", "Char": "i1", "Byte": "u1",
    "Cuda": "<f4", "CudaDouble": "<f8", "CudaLong": "<i8", "CudaInt": "<i4",
}  # fmt: skip


@dataclass
class LuaObject:
    """An object of a Lua class such as nn.SpatialConvolution."""

    kind: str
    """The name of the class."""
    fields: dict[Any, Any] = field(default_factory=dict)
    """Its fields by name."""


def read_t7(path: Path) -> Any:
    """Read a .t7 file: numbers, text, booleans, tables as dictionaries, tensors, and LuaObjects.

    Raises:
        CheckpointError: the file is damaged or incomplete, or contains a Lua function.
    """
    try:
        return _Reader(path, path.read_bytes()).value(0)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (struct.error, ValueError, TypeError, KeyError, RuntimeError, OverflowError) as error:
        raise CheckpointError(f"{path} is damaged, incomplete, or no binary Torch7 file: get it again.") from error


class _Reader:
    def __init__(self, path: Path, data: bytes) -> None:
        self.path, self.data, self.at = path, data, 0
        self.known: dict[int, Any] = {}

    def take(self, count: int) -> bytes:
        if not 0 <= count <= len(self.data) - self.at:
            raise ValueError("the file ends early")
        self.at += count
        return self.data[self.at - count : self.at]

    def int32(self) -> int:
        return int(struct.unpack("<i", self.take(4))[0])

    def int64(self, count: int = 1) -> list[int]:
        return list(struct.unpack(f"<{count}q", self.take(8 * count)))

    def text(self) -> str:
        return self.take(self.int32()).decode("utf-8", "replace")

    def value(self, depth: int) -> Any:
        """The next value."""
        kind = self.int32()
        if depth > DEPTH:
            raise ValueError("too many tables inside each other")
        if kind in FUNCTIONS:
            raise CheckpointError(
                f"{self.path} contains a Lua function, which is code, so it is not opened: save the model alone, after "
                "`model:clearState()`."
            )
        if kind == NIL:
            return None
        if kind == NUMBER:
            return float(struct.unpack("<d", self.take(8))[0])
        if kind == STRING:
            return self.text()
        if kind == BOOLEAN:
            return self.int32() == 1
        index = self.int32()
        if index in self.known:
            return self.known[index]
        if kind == TABLE:
            return self.table(depth, self.known.setdefault(index, {}))
        if kind == OBJECT:
            return self.object(depth, index)
        raise ValueError("there is no such type")

    def table(self, depth: int, into: dict[Any, Any]) -> dict[Any, Any]:
        for _ in range(self.int32()):
            key = self.value(depth + 1)
            into[key] = self.value(depth + 1)
        return into

    def object(self, depth: int, index: int) -> Any:
        name = self.text()
        if name.startswith("V "):  # the version of the format; the name follows
            name = self.text()
        kind = name.removeprefix("torch.")
        if kind.endswith("Tensor") and kind.removesuffix("Tensor") in _DTYPES:
            self.known[index] = self.tensor(depth)
        elif kind.endswith("Storage") and kind.removesuffix("Storage") in _DTYPES:
            dtype = np.dtype(_DTYPES[kind.removesuffix("Storage")])
            (count,) = self.int64()
            self.known[index] = torch.from_numpy(np.frombuffer(self.take(count * dtype.itemsize), dtype).copy())
        else:
            self.known[index] = made = LuaObject(name)
            fields = self.value(depth + 1)
            if not isinstance(fields, dict):
                raise ValueError("an object without fields")
            made.fields = fields
        return self.known[index]

    def tensor(self, depth: int) -> Tensor:
        count = self.int32()
        if not 0 <= count <= 16:
            raise ValueError("too many dimensions")
        shape, strides = self.int64(count), self.int64(count)
        (start,) = self.int64()
        storage = self.value(depth + 1)
        if storage is None or not count:
            return torch.zeros(0)
        last = start - 1 + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
        if min(*shape, *strides, start) < 1 or last >= len(storage) or np.prod(shape, dtype=float) > len(storage):
            raise ValueError("a tensor is larger than its storage")
        return torch.as_strided(storage, shape, strides, start - 1)
