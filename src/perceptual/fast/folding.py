"""Folded grids: the 2 x 2 pixels of a cell as channels (space to depth), and kernels rewritten for them.

A folded pixel holds its channels as (row in the cell, column in the cell, channel). On a processor a layer of 16
channels at 512 x 512 is much slower than one of 64 at 256 x 256, which is the same arithmetic.
"""

from __future__ import annotations

import torch
from torch import Tensor

_DOUBLING = {
    # what the fine pixel in row 0 and row 1 of a cell takes of the coarse pixel before, its own, and the one behind
    "nearest": ((0.0, 1.0, 0.0), (0.0, 1.0, 0.0)),
    "bilinear": ((0.25, 0.75, 0.0), (0.0, 0.75, 0.25)),
}
_AT_ENDS = {
    # reflected bilinear doubling at its first and last pixel, from the two coarse pixels there: (coarse pixel, tap)
    "first": ((0.75, 1.0, 0.75), (0.25, 0.0, 0.25)),
    "last": ((0.25, 0.0, 0.25), (0.75, 1.0, 0.75)),
}


def folded_kernel(weight: Tensor) -> Tensor:
    """(O, I, k, k), k odd and stride 1, as (4 O, 4 I, K, K) from a folded grid to a folded grid."""
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
    """(O, I, 3, 3) behind doubling, "nearest" or "bilinear", as (4 O, I, 3, 3) from the coarse grid to a folded one.

    rows, columns: "first" or "last" for the outermost pixels where the doubled image is reflected, and not the small
    one; they follow from two coarse pixels, and there is one of them in a cell, (2 O, I, 2, 3) or (O, I, 2, 2).
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
    """(I, O, 3, 3) of a convolution of stride 1/2 (padding 1, output padding 1) as (4 O, I, 2, 2) to a folded grid.

    The kernel looks at a coarse pixel and those to the right and below, which are 0 beyond the image.
    """
    shares = weight.new_zeros(2, 2, 3)
    shares[0, 0, 1] = shares[1, 0, 2] = shares[1, 1, 0] = 1
    return torch.einsum("rat,cbu,iotu->rcoiab", shares, shares, weight).flatten(0, 2)


def fill_frame(grid: Tensor, mode: str, before: int, behind: int) -> None:
    """Fill the first `before` and the last `behind` rows of (rows, columns, fold, fold, C) as F.pad would.

    mode: "reflect" or "replicate". For columns give the grid with its dimensions 0 and 1, and 2 and 3, swapped.
    """
    rows, _, fold = grid.shape[:3]
    last = fold * (rows - before - behind) - 1  # of the pixels inside
    for row in (*range(before), *range(rows - behind, rows)):
        for phase in range(fold):
            pixel = fold * (row - before) + phase
            mirrored = -pixel if pixel < 0 else 2 * last - pixel
            source, from_phase = divmod(mirrored if mode == "reflect" else min(max(pixel, 0), last), fold)
            grid[row, :, phase] = grid[source + before, :, from_phase]


def cells(grid: Tensor) -> Tensor:
    """A view of (h, w, 2, 2, C), or of (2 h, 2 w, 1, 1, C), as (h, 2, w, 2, C): the way from one fold to the other."""
    if grid.shape[2] == 2:
        return grid.transpose(1, 2)
    rows, columns, channels = grid.shape[0] // 2, grid.shape[1] // 2, grid.shape[-1]
    return grid.view(rows, 2, columns, 2, channels)
