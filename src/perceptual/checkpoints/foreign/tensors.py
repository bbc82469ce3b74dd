"""Reads the tensors in files of other programs. No code from a file is ever run.

A pickle can name any function, and Python's own reader would call it. So pickles are read by
`torch.load(weights_only=True)`, which builds tensors and plain values only and refuses the rest.
"""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from perceptual.errors import CheckpointError

WEIGHTS = 200_000_000
"""Most numbers in one file, so that a file that claims a huge network cannot use up the memory."""
_GROUPS = ("params_ema", "params", "state_dict", "model_state_dict", "model", "generator", "g_ema")
_PREFIXES = ("module.", "_orig_mod.", "netG.", "generator.")


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the named tensors of a .pth, .pt, .model or .safetensors file: {name: float32 tensor on the CPU}.

    Training checkpoints are opened: the tensors below "params_ema", "params", "state_dict" or "model" are taken.
    Prefixes such as "module." that all names share are removed.

    Raises:
        CheckpointError: the file is damaged, wants to run code, has no named tensors, or claims too many numbers.
    """
    raw: object = _safetensors(path) if path.suffix.lower() == ".safetensors" else _pickle(path)
    for group in _GROUPS:
        if isinstance(raw, Mapping) and isinstance(raw.get(group), Mapping):
            raw = raw[group]
    found = {str(key): value for key, value in raw.items()} if isinstance(raw, Mapping) else {}
    state = {key: value for key, value in found.items() if isinstance(value, Tensor)}
    if not state:
        raise CheckpointError(f"{path} contains no named tensors: save `model.state_dict()` and give that file.")
    if any(value.is_sparse or value.is_quantized or value.is_meta for value in state.values()):
        raise CheckpointError(f"{path} contains sparse or quantised tensors: save the weights as float32.")
    count = sum(value.numel() for value in state.values())
    if count > WEIGHTS or count > 16 * os.path.getsize(path):  # an expanded tensor claims more than the file has
        raise CheckpointError(f"{path} claims {count:,} numbers, which is too many for it: get the file again.")
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return {key: value.detach().to("cpu", torch.float32).contiguous() for key, value in state.items()}


def _safetensors(path: Path) -> Mapping[str, Tensor]:
    try:
        return safetensors.torch.load(path.read_bytes())
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or not a safetensors file: get it again.") from error


def _pickle(path: Path) -> object:
    damaged = CheckpointError(f"{path} is damaged, incomplete, or no file of PyTorch: get it again.")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:  # a small file must not unpack to a huge one
                if sum(entry.file_size for entry in archive.infolist()) > os.path.getsize(path):
                    raise damaged
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle's protocol
            return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        if named := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise CheckpointError(
                f"{path} wants to run code ({named[1][:100]}), so it is not opened: ask for a file that holds only the "
                "tensors, as `torch.save(model.state_dict(), ...)` writes it."
            ) from error
        if "TorchScript" in str(error):
            raise CheckpointError(f"{path} is a TorchScript program, which is code, so it is not opened.") from error
        raise damaged from error
