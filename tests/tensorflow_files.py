"""Checkpoints of TensorFlow, written byte by byte, and its style networks as functions of their tensors."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

MAGIC = 0xDB4775248B80FB57
State = dict[str, Tensor]


def number(value: int) -> bytes:
    """A whole number of variable length: seven bits in a byte, the lowest first."""
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def field(key: int, value: int | bytes) -> bytes:
    """A field of a protocol buffer."""
    if isinstance(value, int):
        return number(key << 3) + number(value)
    return number(key << 3 | 2) + number(len(value)) + value


def table(entries: Mapping[bytes, bytes], compressed: bool = False) -> bytes:
    """A table of LevelDB with one block of data. The checksums are zero."""

    def block(entries: Mapping[bytes, bytes]) -> bytes:
        made, before = b"", b""
        for key, value in sorted(entries.items()):
            shared = next((k for k, (a, b) in enumerate(zip(before, key, strict=False)) if a != b), 0)
            made += number(shared) + number(len(key) - shared) + number(len(value)) + key[shared:] + value
            before = key
        return made + struct.pack("<II", 0, 1)

    data, nothing = block(entries), block({})
    rest = nothing + bytes(5) + (index := block({b"~": number(0) + number(len(data))})) + bytes(5)
    start = len(data) + 5
    handles = [(start, len(nothing)), (start + len(nothing) + 5, len(index))]
    footer = b"".join(number(part) for handle in handles for part in handle)
    return data + bytes([compressed, 0, 0, 0, 0]) + rest + footer.ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def shape(tensor: Tensor) -> bytes:
    return field(2, b"".join(field(2, field(1, side)) for side in tensor.shape))


def floats(tensor: Tensor) -> bytes:
    return tensor.contiguous().numpy().astype("<f4").tobytes()


def version1(state: State) -> bytes:
    """A checkpoint of version 1, in which each tensor is one slice."""
    meta = b"".join(field(1, field(1, name.encode()) + shape(x) + field(3, 1)) for name, x in state.items())
    entries = {b"": field(1, meta)}
    for name, x in state.items():
        entries[b"\0" + name.encode()] = field(2, field(1, name.encode()) + field(3, field(5, floats(x))))
    return table(entries)


def version2(path: Path, state: State, compressed: bool = False) -> Path:
    """Write a checkpoint of version 2: `path`, an .index file, and the file of numbers beside it. Returns `path`."""
    entries, numbers = {b"": field(1, 1)}, b""
    for name, x in state.items():
        place = field(4, len(numbers)) + field(5, 4 * x.numel())
        entries[name.encode()] = field(1, 1) + shape(x) + place
        numbers += floats(x)
    path.with_name(path.name.removesuffix("index") + "data-00000-of-00001").write_bytes(numbers)
    path.write_bytes(table(entries, compressed))
    return path


def _layers(widths: tuple[int, int, int], blocks: int) -> list[tuple[int, int, int]]:
    """(kernel, channels, filters) of each convolution of the network of Johnson et al."""
    a, b, c = widths
    return [(9, 3, a), (3, a, b), (3, b, c), *[(3, c, c)] * 2 * blocks, (3, c, b), (3, b, a), (9, a, 3)]


# --- lengstrom/fast-style-transfer


def lengstrom_state(widths: tuple[int, int, int] = (8, 12, 16), blocks: int = 5) -> State:
    """Random tensors under their names: weight (k, k, in, out), shift and scale of each convolution."""
    layers, state = _layers(widths, blocks), State()
    for k, (kernel, channels, filters) in enumerate(layers):
        transposed = len(layers) - 4 < k < len(layers) - 1
        sides = (filters, channels) if transposed else (channels, filters)
        for tensor in (torch.randn(kernel, kernel, *sides) / 10, torch.rand(filters) - 0.5, torch.rand(filters) + 0.5):
            state[f"Variable_{len(state)}" if state else "Variable"] = tensor
    return state


def lengstrom(state: State, photo: Tensor) -> Tensor:
    """(1, 3, H, W) uint8 levels -> what their code paints, in levels, clamped and cut."""
    own = list(state.values())
    blocks = len(own) // 6 - 3

    def norm(x: Tensor) -> Tensor:
        shift, scale = (own.pop(0).view(1, -1, 1, 1) for _ in range(2))
        mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), correction=0, keepdim=True)
        return scale * (x - mean) / (variance + 1e-3).sqrt() + shift

    def conv(x: Tensor, stride: int = 1) -> Tensor:
        weight = own.pop(0).permute(3, 2, 0, 1)
        pads = []
        for side in (x.shape[3], x.shape[2]):  # SAME: the result has ceil(side / stride) pixels
            total = max((-(-side // stride) - 1) * stride + weight.shape[-1] - side, 0)
            pads += [total // 2, total - total // 2]
        return norm(F.conv2d(F.pad(x, pads), weight, stride=stride))

    def up(x: Tensor) -> Tensor:
        weight = own.pop(0).permute(3, 2, 0, 1)
        made = torch.zeros(1, weight.shape[1], 2 * x.shape[2] + 1, 2 * x.shape[3] + 1)
        for i in range(3):  # pixel (y, x) is added to (2y + i, 2x + j) by tap (i, j)
            for j in range(3):
                tap = torch.einsum("ncyx,co->noyx", x, weight[:, :, i, j])
                made[..., i : i + 2 * x.shape[2] : 2, j : j + 2 * x.shape[3] : 2] += tap
        return norm(made[..., :-1, :-1])

    x = F.relu(conv(photo.float()))
    x = F.relu(conv(F.relu(conv(x, 2)), 2))
    for _ in range(blocks):
        x = x + conv(F.relu(conv(x)))
    x = F.relu(up(F.relu(up(x))))
    x = conv(x).tanh() * 150 + 255 / 2
    return x.clamp(0, 255)[..., : photo.shape[-2], : photo.shape[-1]]


# --- magenta (image_stylization)


def magenta_state(styles: int = 3, widths: tuple[int, int, int] = (8, 12, 16), blocks: int = 5) -> State:
    """Random tensors under their names. Beta and gamma have a row for each style."""
    names = [f"contract/conv{k}" for k in (1, 2, 3)]
    names += [f"residual/residual{k}/conv{j}" for k in range(1, blocks + 1) for j in (1, 2)]
    names += [f"expand/conv{k}/conv" for k in (1, 2, 3)]
    state = State()
    for name, (kernel, channels, filters) in zip(names, _layers(widths, blocks), strict=True):
        state[f"transformer/{name}/weights"] = torch.randn(kernel, kernel, channels, filters) / 10
        state[f"transformer/{name}/InstanceNorm/beta"] = torch.rand(styles, filters) - 0.5
        state[f"transformer/{name}/InstanceNorm/gamma"] = torch.rand(styles, filters) + 0.5
    return state


def magenta(state: State, photo: Tensor, style: int) -> Tensor:
    """(1, 3, H, W) uint8 levels -> what their code paints in one style, in levels, cut."""

    def conv(x: Tensor, name: str, stride: int = 1, doubles: bool = False) -> Tensor:
        weight = state[f"transformer/{name}/weights"].permute(3, 2, 0, 1)
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3) if doubles else x
        x = F.conv2d(F.pad(x, (weight.shape[-1] // 2,) * 4, mode="reflect"), weight, stride=stride)
        gamma, beta = (state[f"transformer/{name}/InstanceNorm/{kind}"][style] for kind in ("gamma", "beta"))
        return F.instance_norm(x, weight=gamma, bias=beta, eps=1e-5)

    x = F.relu(conv(photo.float() / 255, "contract/conv1"))
    x = F.relu(conv(F.relu(conv(x, "contract/conv2", 2)), "contract/conv3", 2))
    for k in range(1, sum("residual" in name and "conv1/weights" in name for name in state) + 1):
        x = x + conv(F.relu(conv(x, f"residual/residual{k}/conv1")), f"residual/residual{k}/conv2")
    for k in (1, 2):
        x = F.relu(conv(x, f"expand/conv{k}/conv", doubles=True))
    x = 255 * conv(x, "expand/conv3/conv").sigmoid()
    return x[..., : photo.shape[-2], : photo.shape[-1]]
