"""The tensors of weight files: read without running code, under torchvision's names, and their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from perceptual.errors import WeightsError
from perceptual.losses.weights.table import LOOKS


def read_tensors(path: Path, kind: str = "") -> Mapping[str, object]:
    """The tensors of a file by key; code inside a pickle is never run. kind: the ending that tells the kind of file.

    Raises:
        WeightsError: another kind of file, or a damaged one.
    """
    kind = kind or path.suffix.lower()
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
    for group in ("state_dict", "model"):  # of a training checkpoint
        if isinstance(raw, Mapping) and isinstance(raw.get(group), Mapping):
            raw = raw[group]
    if not isinstance(raw, Mapping):
        raise WeightsError(f"{path} holds no named tensors: save `model.state_dict()` and give that file.")
    return raw


def network_state(raw: Mapping[str, object], network: str) -> dict[str, Tensor]:
    """The network's own tensors: no classifier, float32, in memory of their own (not in the mapped file)."""
    prefix = "features." if LOOKS[network][0].startswith("features.") else "conv"
    state = {}
    for key, value in raw.items():
        key = str(key).replace("module.", "")  # left by DataParallel
        key = f"features.{key}" if key[:1].isdigit() else key  # left by `vgg.features.state_dict()`
        if isinstance(value, Tensor) and value.is_floating_point() and key.startswith(prefix):
            state[key] = value.detach().to(torch.float32, copy=True)
    return state


def tensors_digest(state: Mapping[str, Tensor], names: Iterable[str] = ()) -> str:
    """The SHA-256 of the tensors of these names, all when left out: names, shapes and values as little-endian float32.

    It does not depend on the kind of file. "" where one is missing.
    """
    digest = hashlib.sha256()
    for name in sorted(names or state):
        if name not in state:
            return ""
        value = state[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name} {tuple(value.shape)}\n".encode())
        digest.update(value.numpy().astype("<f4").tobytes())
    return digest.hexdigest()
