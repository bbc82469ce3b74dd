"""What the upscaling networks of other programs share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

LARGEST = 16
"""The largest scale of a network."""


class ForeignModule(nn.Module):
    """An upscaling network, (N, 3, H, W) in [0, 1] -> (N, 3, scale * H, scale * W).

    A subclass sets `name`, and its __init__ takes the tensors, to find the number and the sizes of the layers.

    Attributes:
        scale: output size over input size.
        multiple: height and width of the input must be multiples of this number.
        reach: how many pixels of the input around a pixel change the output there.
        tags: the size of the network, such as ("64 filters", "23 blocks").
    """

    name: ClassVar[str] = ""
    keys: ClassVar[tuple[str, ...]] = ()
    scale: int
    multiple: int = 1
    reach: int
    tags: tuple[str, ...] = ()

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()

    @classmethod
    def recognises(cls, state: Mapping[str, Tensor]) -> bool:
        """Whether tensors have the names of this network."""
        return set(cls.keys) <= set(state)

    @classmethod
    def renamed(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors under the names of this module."""
        return dict(state)

    @classmethod
    def built(cls, state: Mapping[str, Tensor]) -> Self:
        """The module with its weights, in evaluation mode.

        Raises:
            ValueError: a tensor is missing or has a shape that does not fit.
        """
        try:
            named = cls.renamed(state)
            with torch.device("meta"):  # shapes are compared before any memory is taken
                module = cls(named)
            module.load_state_dict(named, assign=True)
        except (KeyError, RuntimeError, IndexError, TypeError, ValueError) as error:
            raise ValueError(f"Its tensors are not those of {cls.name}") from error
        return module.requires_grad_(False).eval()


def conv(channels: int, filters: int, kernel: int = 3) -> nn.Conv2d:
    """A convolution that pads with zeros."""
    return nn.Conv2d(channels, filters, kernel, padding=kernel // 2)


def shuffled_scale(filters: int) -> int:
    """The scale of a pixel shuffle that makes 3 channels from this number of filters."""
    scale = math.isqrt(filters // 3)
    if 3 * scale**2 != filters or not 1 <= scale <= LARGEST:
        raise ValueError(f"{filters} filters are not 3 times a square")
    return scale


def count(state: Mapping[str, Tensor], before: str, after: str, *, first: int = 0) -> int:
    """How many of `before` + number + `after`, from the number `first` on, are names of tensors."""
    number = first
    while f"{before}{number}{after}" in state:
        number += 1
    return number - first
