"""Reads tensors from weight files without running code, gives them torchvision's names, and hashes them."""

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
    """Read a weight file: its tensors by key. Code inside a pickle is never run.

    kind: a file ending for the format, such as ".pth"; by default the ending of `path`.

    Raises:
        WeightsError: the file has another format, is damaged, or contains no named tensors.
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
        raise WeightsError(f"{path} cannot be read as weights: it is damaged or incomplete, or contains other values "
                           "than tensors; delete it and get it again.") from error  # fmt: skip
    for group in ("state_dict", "model"):  # inside a training checkpoint
        if isinstance(raw, Mapping) and isinstance(raw.get(group), Mapping):
            raw = raw[group]
    if not isinstance(raw, Mapping):
        raise WeightsError(f"{path} contains no named tensors: save `model.state_dict()` and give that file.")
    return raw


def network_state(raw: Mapping[str, object], network: str) -> dict[str, Tensor]:
    """The tensors of a network without its classifier, copied to float32 on the CPU, under torchvision's keys."""
    prefix = "features." if LOOKS[network][0].startswith("features.") else "conv"
    state = {}
    for key, value in raw.items():
        key = str(key).replace("module.", "")  # added by DataParallel
        key = f"features.{key}" if key[:1].isdecimal() else key  # the keys of `vgg.features.state_dict()`
        if isinstance(value, Tensor) and value.is_floating_point() and key.startswith(prefix):
            state[key] = value.detach().to(torch.float32, copy=True)
    return state


def tensors_digest(state: Mapping[str, Tensor], names: Iterable[str] = ()) -> str:
    """The SHA-256 of tensors: of their names, shapes, and values as little-endian float32, sorted by name.

    It does not depend on the format of the file. names: the tensors to take; all when empty. If one is missing, the
    result is "".
    """
    digest = hashlib.sha256()
    for name in sorted(names or state):
        if name not in state:
            return ""
        value = state[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name} {tuple(value.shape)}\n".encode())
        digest.update(value.numpy().astype("<f4").tobytes())
    return digest.hexdigest()
