"""Folded grids (space to depth): the 2 x 2 pixels of a cell become channels; and filters rewritten for such grids.

A cell holds its channels in the order (row in the cell, column in the cell, channel). The reason is speed: on a CPU a
layer of 16 channels at 512 x 512 is much slower than one of 64 channels at 256 x 256, with the same arithmetic.
"""

from __future__ import annotations

import torch
from torch import Tensor

_DOUBLING = {
    # weights of the previous, own and next coarse pixel for the fine pixel in row 0 and in row 1 of a cell
    "nearest": ((0.0, 1.0, 0.0), (0.0, 1.0, 0.0)),
    "bilinear": ((0.25, 0.75, 0.0), (0.0, 0.75, 0.25)),
}
_AT_ENDS = {
    # bilinear doubling, then reflection padding: weights of the two outermost coarse pixels, (coarse pixel, tap)
    "first": ((0.75, 1.0, 0.75), (0.25, 0.0, 0.25)),
    "last": ((0.25, 0.0, 0.25), (0.75, 1.0, 0.75)),
}


def folded_kernel(weight: Tensor) -> Tensor:
    """Rewrite filters (O, I, k, k) for folded grids; returns (4 O, 4 I, K, K).

    k is odd, and the convolution has stride 1. The new filters read a folded grid and write a folded grid.
    """
    filters, channels, size, _ = weight.shape
    half = size // 2
    reach = (half + 1) // 2
    folded = weight.new_zeros(2, 2, filters, 2, 2, channels, 2 * reach + 1, 2 * reach + 1)
    taps = [(out, tap, *divmod(out + tap - half, 2)) for out in (0, 1) for tap in range(size)]
    for row, i, above, from_row in taps:
        for column, j, before, from_column in taps:
            folded[row, column, :, from_row, from_column, :, above + reach, before + reach] = weight[:, :, i, j]
    return folded.reshape(4 * filters, 4 * channels, 2 * reach + 1, 2 * reach + 1)


def doubled_kernel(weight: Tensor, mode: str, rows: str = "inner", columns: str = "inner") -> Tensor:
    """Combine doubling of the image and the convolution after it in one convolution; returns (4 O, I, 3, 3).

    The new filters read the small image and write a folded grid.

    weight: (O, I, 3, 3). mode: "nearest" or "bilinear".
    rows, columns: "inner", or "first" or "last" for the outermost pixels. Those differ where the network pads the
        doubled image by reflection: they depend on two coarse pixels, and only one of them lies in each cell. So the
        result is (2 O, I, 2, 3) or (2 O, I, 3, 2) on an edge and (O, I, 2, 2) in a corner.
    """
    shares = []
    for part in (rows, columns):
        if part == "inner":
            share = weight.new_zeros(2, 3, 3)  # row in the cell, coarse offset + 1, tap
            for row in (0, 1):
                for tap in range(3):
                    coarse, phase = divmod(row + tap - 1, 2)
                    for offset, value in enumerate(_DOUBLING[mode][phase], start=coarse):
                        if value:
                            share[row, offset, tap] += value
        else:
            share = weight.new_tensor(_AT_ENDS[part])[None]
        shares.append(share)
    return torch.einsum("rat,cbu,oitu->rcoiab", *shares, weight).flatten(0, 2)


def transposed_kernel(weight: Tensor) -> Tensor:
    """Rewrite the filters of a transposed convolution as those of a convolution; returns (4 O, I, 2, 2).

    The transposed convolution has stride 2, padding 1 and output padding 1. The new filters read the small image,
    padded with zeros at the right and below, and write a folded grid.

    weight: (I, O, 3, 3).
    """
    shares = weight.new_zeros(2, 2, 3)
    shares[0, 0, 1] = shares[1, 0, 2] = shares[1, 1, 0] = 1
    return torch.einsum("rat,cbu,iotu->rcoiab", shares, shares, weight).flatten(0, 2)


def fill_padding(grid: Tensor, mode: str, before: int, after: int) -> None:
    """Fill the padding of a grid (rows, columns, fold, fold, C) in place, with the values that F.pad would give.

    before, after: rows of padding at the top and at the bottom. mode: "reflect" or "replicate".
    To fill columns, give a view of the grid with dimensions 0 and 1, and dimensions 2 and 3, swapped.
    """
    rows, _, fold = grid.shape[:3]
    last = fold * (rows - before - after) - 1  # index of the last pixel row inside the padding
    for row in (*range(before), *range(rows - after, rows)):
        for phase in range(fold):
            pixel = fold * (row - before) + phase
            mirrored = -pixel if pixel < 0 else 2 * last - pixel
            source, from_phase = divmod(mirrored if mode == "reflect" else min(max(pixel, 0), last), fold)
            grid[row, :, phase] = grid[source + before, :, from_phase]


def cells(grid: Tensor) -> Tensor:
    """View a grid (h, w, 2, 2, C) or (2 h, 2 w, 1, 1, C) as (h, 2, w, 2, C), to copy from one fold to the other."""
    if grid.shape[2] == 2:
        return grid.transpose(1, 2)
    rows, columns, channels = grid.shape[0] // 2, grid.shape[1] // 2, grid.shape[-1]
    return grid.view(rows, 2, columns, 2, channels)
