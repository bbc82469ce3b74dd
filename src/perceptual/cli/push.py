"""perceptual push: a trained network to the Hugging Face hub."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import tyro

from perceptual.cli import results
from perceptual.cli.help import parse
from perceptual.cli.terminal import say, tell


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Push:
    """Put a trained network on the Hugging Face hub, with a model card made from its own card.

    The repository gets model.safetensors and README.md, and is made if it does not exist. The token is that of HF_TOKEN
    or of `hf auth login`. Others use the network as hf://user/name.
    Example: perceptual push mine.safetensors user/name
    """

    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """The network: a file that `perceptual train` wrote."""
    repo: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="USER/NAME")]
    """The repository on the hub."""
    private: bool = False
    """Make a new repository private. One that exists must be private already."""
    message: str = ""
    """The message of the commit."""


def push(arguments: Sequence[str]) -> int:
    """perceptual push FILE USER/NAME: upload a network. Returns the exit code."""
    config = parse(_Push, arguments, "push")
    from perceptual import checkpoints

    url = checkpoints.push(config.file, config.repo, private=config.private, message=config.message)
    results.put(input=config.file, repo=config.repo, url=url)
    tell(url)
    say(f"Others can use it as hf://{config.repo}.")
    return 0
