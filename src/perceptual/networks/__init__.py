"""Image transformation networks, built from one line of text.

The text lists the layers (notation of the authors' code, supplement Tables 1 and 2):

    c9s1-32   convolution 9x9, stride 1, 32 filters, then normalisation and ReLU   (last layer: scaled tanh instead)
    d64       convolution 3x3, stride 2: halves the size
    r128      residual block of two 3x3 convolutions, no ReLU after the sum   (Gross and Wilber)
    n128      the same block without the residual connection (supplement, Figure 1, right)
    u64       convolution 3x3 of stride 1/2: doubles the size                 (the paper's up-sampling)
    U64       nearest-neighbour doubling, then convolution 3x3, stride 1      (less checkerboard)
    B64       bilinear doubling, then convolution 3x3, stride 1               (no checkerboard)
    x64       nearest-neighbour doubling of 64 channels, then normalisation and ReLU, no convolution
    s4-3      convolution 3x3 to 4 * 4 * 3 channels, then pixel shuffle: four times the size (Shi et al., 2016)
    p2-12     the inverse of a pixel shuffle: half the size, 2 * 2 times the channels
    r128*5    the same layer five times

A network has 1 to 200 layers of 1 to 4,096 filters, kernels of 1 to 31 pixels, strides of 1 to 8, shuffles of 1 to 16,
and at most 100,000,000 weights. It ends in a convolution (c or s) to RGB, or to luma only.

The input and output of a TransformationNetwork are RGB float [0, 1]. Any height and width of 1 px or more is allowed.
The output has the same size, or this size times the scale for super-resolution, so callers never need to pad.
"""

from perceptual.networks.architecture import STYLE, Layer, parse_architecture
from perceptual.networks.layers import BatchNorm, Block, ConvolutionLayer, InstanceNorm
from perceptual.networks.transformation import DAMAGED, TransformationNetwork, enlarge, with_noise

__all__ = [
    "DAMAGED",
    "STYLE",
    "BatchNorm",
    "Block",
    "ConvolutionLayer",
    "InstanceNorm",
    "Layer",
    "TransformationNetwork",
    "enlarge",
    "parse_architecture",
    "with_noise",
]
