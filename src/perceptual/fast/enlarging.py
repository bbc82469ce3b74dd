"""Fast enlargement of bytes on a CPU by networks of super-resolution.

The convolutions are PyTorch's. What surrounds them is one pass over memory (enlarge.c): the bicubic enlargement, the
pixel shuffle, the sum of both, and the rounding to bytes. PyTorch's operations need eight passes, in float32.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from perceptual import images
from perceptual.errors import CheckpointError
from perceptual.fast import kernels
from perceptual.networks import DAMAGED, ConvolutionLayer, TransformationNetwork


def enlarges(network: TransformationNetwork) -> bool:
    """Whether `enlarge_bytes` can run a network: it adds to a bicubic enlargement and ends with a pixel shuffle."""
    if type(network) is not TransformationNetwork:  # one of another program
        return False
    config, last = network.config, network.layers[-1]
    shuffled = isinstance(last, ConvolutionLayer) and last.shuffle > 1 and last.pad == 0 and not last.same
    plain = config.output == "bicubic" and config.enlarge == 1 and not (network.luma or config.noise)
    return shuffled and plain and kernels.compiled() is not None


def enlarge_bytes(network: TransformationNetwork, levels: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Enlarge a picture (1, 3, H, W) in uint8: (1, 3, scale * H, scale * W), as the network itself, rounded to bytes.

    dtype: torch.bfloat16 for the convolutions, or None for float32.

    Raises:
        CheckpointError: the network gives values that are not finite.
    """
    last = network.layers[-1]
    assert isinstance(last, ConvolutionLayer)
    with nullcontext() if dtype is None else torch.autocast("cpu", dtype, cache_enabled=False):
        x, _ = network.padded(images.unit(levels).contiguous(memory_format=torch.channels_last))
        for layer in network.layers[:-1]:
            x = layer(x, None)
        more = last.conv(x)
    more = more[0].permute(1, 2, 0).contiguous()
    large = kernels.enlarge(levels[0].contiguous(), more, last.shuffle, network.scale)
    if large is None:
        raise CheckpointError(DAMAGED)
    return large[None]
