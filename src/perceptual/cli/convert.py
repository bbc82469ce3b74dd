"""perceptual convert: turn a style network of another program into a file of perceptual."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from perceptual.cli.help import parse
from perceptual.cli.terminal import tell
from perceptual.errors import ConfigError, OutputError
from perceptual.files import check_no_input, exists


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Convert:
    """Turn a style network of another program into a style file of perceptual.

    The new file has a card, and only perceptual reads it. `perceptual stylize` also takes candy.pth itself as a style,
    without this step. No code in the file is run.
    Example: perceptual convert candy.pth -o candy.safetensors
    """

    everyday: ClassVar[tuple[str, ...]] = ("input", "out", "licence", "overwrite")

    input: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="INPUT")]
    """The network of another program, such as candy.pth of pytorch/examples."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=("-o",))] = None
    """The file to write; default: candy.safetensors beside candy.pth."""
    licence: str = ""
    """The licence of the network, for its card. The file of another program rarely holds it."""
    overwrite: bool = False
    """Replace the output if it exists."""


def convert(arguments: Sequence[str]) -> int:
    """perceptual convert: read a network of another program and write it as a style file. Returns the exit code."""
    config = parse(_Convert, arguments, "convert")
    source = Path(config.input)
    if not source.name:
        raise ConfigError("Name the file of the network to convert, such as candy.pth.")
    out = Path(config.out or source.with_suffix(".safetensors"))
    if out.suffix.lower() != ".safetensors":
        raise OutputError(f"{out} does not end in .safetensors: give -o such a name.")
    check_no_input(out, [source])
    if exists(out) and not config.overwrite:
        raise OutputError(f"{out} exists: add --overwrite, or choose another -o.")
    from perceptual.checkpoints import find_network, is_foreign, load, save

    path = find_network(source, task="style")
    if not is_foreign(path):
        raise ConfigError(f"{path} is not a network of another program: there is nothing to convert.")
    network, card = load(path, task="style")
    save(out, network, dataclasses.replace(card, licence=config.licence))
    tell(out)
    return 0
