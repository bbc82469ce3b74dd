"""Upscaling networks of other programs, as PyTorch modules: ESRGAN, Compact and SPAN.

Each module is built from the tensors of a file: their names say which network it is, and their shapes say how large.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from perceptual.foreign.base import ForeignModule
from perceptual.foreign.compact import Compact
from perceptual.foreign.esrgan import ESRGAN
from perceptual.foreign.span import SPAN

__all__ = ["ESRGAN", "SPAN", "Compact", "ForeignModule", "module_of"]


def module_of(state: Mapping[str, Tensor]) -> ForeignModule | None:
    """The module for the tensors of a file, with its weights; None if the names are those of no known network.

    Raises:
        ValueError: a tensor is missing or has a shape that does not fit.
    """
    kinds: tuple[type[ForeignModule], ...] = (ESRGAN, SPAN, Compact)
    kind = next((kind for kind in kinds if kind.recognises(state)), None)
    return None if kind is None else kind.built(state)
