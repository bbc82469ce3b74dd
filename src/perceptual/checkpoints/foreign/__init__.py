"""Networks of other programs. Their files are read as tensors only; no code in a file is ever run."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from perceptual.checkpoints.card import CARD_KEY, Card
from perceptual.checkpoints.foreign import fast_neural_style, pytorch_examples, tensorflow_styles
from perceptual.checkpoints.foreign.tensorflow import is_tensorflow, read_tensorflow
from perceptual.checkpoints.foreign.tensors import read_state
from perceptual.checkpoints.foreign.torch7 import read_t7
from perceptual.checkpoints.foreign.upscalers import ForeignNetwork, upscaler_of
from perceptual.checkpoints.tensors import FOREIGN, READ_ENDINGS, ending_of, metadata
from perceptual.errors import CheckpointError, ConfigError
from perceptual.files import sha256_of
from perceptual.networks import TransformationNetwork

__all__ = ["READ", "ForeignNetwork", "is_foreign", "load_foreign"]

READ = (
    "style networks of pytorch/examples (.pth, .model), jcjohnson/fast-neural-style (.t7), lengstrom/"
    "fast-style-transfer and magenta (.ckpt, .index), and super-resolution networks such as ESRGAN, Compact and SPAN "
    "(.pth, .safetensors)"
)
"""What `load_foreign` reads, in words."""


def is_foreign(path: str | Path) -> bool:
    """Whether a file exists and is to be read by `load_foreign`: it is a network, but not one of perceptual."""
    suffix = ending_of(path)
    if suffix not in FOREIGN | {".safetensors"} or not os.path.isfile(path):
        return False
    try:
        return CARD_KEY not in metadata(path)
    except CheckpointError:  # a damaged .safetensors file gets its own sentence
        return suffix in FOREIGN


def load_foreign(path: str | Path) -> tuple[TransformationNetwork, Card]:
    """Read a network of another program, and make a card for it.

    The format is found from the file's ending and from the names of its tensors. The network is in float32, on the CPU
    and in evaluation mode.

    Raises:
        CheckpointError: the format is unknown, the file is damaged, or it wants to run code.
    """
    path = Path(path)
    if ending_of(path) not in READ_ENDINGS | {".safetensors"}:
        raise CheckpointError(
            f"{path} is a checkpoint of another program, in a format that perceptual cannot read: it reads {READ}."
        )
    torch7, tensorflow = path.suffix.lower() == ".t7", is_tensorflow(path)
    content = read_t7(path) if torch7 else read_tensorflow(path) if tensorflow else read_state(path)
    try:
        if tensorflow:
            return _tensorflow(path, content)
        if torch7:
            return _style(path, fast_neural_style.network_of(content), "jcjohnson/fast-neural-style")
        if pytorch_examples.recognises(content):
            return _style(path, pytorch_examples.network_of(content), "pytorch/examples (fast_neural_style)")
        return _upscaler(path, upscaler_of(content))
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{path} cannot be used: {str(error)[0].lower()}{str(error)[1:]}") from error


def _tensorflow(path: Path, state: Mapping[str, Tensor]) -> tuple[TransformationNetwork, Card]:
    """A style network of TensorFlow with its card."""
    if (network := tensorflow_styles.lengstrom(state)) is not None:
        return _style(path, network, "lengstrom/fast-style-transfer")
    if (network := tensorflow_styles.magenta(state)) is not None:
        return _style(path, network, "magenta (image_stylization)")
    raise CheckpointError("It is a checkpoint of TensorFlow with a network that perceptual does not know.")


def _upscaler(path: Path, network: ForeignNetwork) -> tuple[TransformationNetwork, Card]:
    """A super-resolution network with its card. Author and licence are those in the header of a .safetensors file."""
    written = metadata(path) if path.suffix.lower() == ".safetensors" else {}
    header = {key.lower().removeprefix("modelspec."): value for key, value in written.items()}
    tags = [*network.tags, *filter(None, header.get("tags", "").split(","))]
    by = f" by {header['author'][:80]}" if header.get("author") else ""
    card = Card(
        task="upscale",
        network=network.config,
        about=f"{network.name} x{network.scale} ({', '.join(tag.strip()[:40] for tag in tags[:12])}){by}",
        licence=(header.get("license") or header.get("licence") or "")[:200],
        began_from=f"{path.name}, file of SHA-256 {sha256_of(path)}",
    )
    return network.eval(), card


def _style(path: Path, network: TransformationNetwork, program: str) -> tuple[TransformationNetwork, Card]:
    """A style network with its card. The style has the name of the file; several get numbers."""
    name = re.sub(r"\.ckpt(-\d+)?$", "", path.name.lower().removesuffix(".index"))
    style = re.sub(r"\W+", "_", Path(name).stem if name == path.name.lower() else name).strip("_") or "style"
    styles = (style,) if network.styles == 1 else tuple(f"{style}_{k}" for k in range(network.styles))
    card = Card(
        task="style",
        network=network.config,
        styles=styles,
        about=f"A network of {program}, from the file {path.name}.",
        began_from=f"{path.name}, file of SHA-256 {sha256_of(path)}",
    )
    return network.eval(), card
