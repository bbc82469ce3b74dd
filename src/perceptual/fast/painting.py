"""One picture on its way through a style network: layer by layer, as a whole or in bands of rows."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from perceptual.config import NetworkConfig
from perceptual.errors import CheckpointError
from perceptual.events import Step
from perceptual.fast import kernels
from perceptual.fast.kernels import Vector
from perceptual.fast.plan import Convolution, Filters, largest_level
from perceptual.fast.rounding import common_values, level_range, sample, too_coarse
from perceptual.networks import DAMAGED

CONTRAST = 32
"""Levels between the darkest and the brightest value of a picture. With fewer it is painted in float32."""
FLAT = np.float32(4e-6)
"""A channel with a smaller range, relative to its largest absolute value, is constant but for rounding errors."""
KEPT = 8
"""An activation is kept between norms if it takes at most so many bytes for each pixel of the picture."""


class Norm(NamedTuple):
    """An instance norm, and the variance of its output after the ReLU for an input that is normal."""

    gamma: Vector
    """(C,)."""
    beta: Vector
    """(C,)."""
    epsilon: np.float32
    variance: Vector
    """(C,)."""


def _vector(value: float) -> Vector:
    return np.full(1, value, np.float32)


def _rectified(known: kernels.Range, multiply: Vector, add: Vector) -> tuple[Vector, Vector]:
    """Minimum and maximum of max(value * multiply + add, 0) by channel, for values with these statistics."""
    ends = np.maximum(np.stack([known.low, known.high]) * multiply + add, 0)
    return ends.min(0), ends.max(0)


class Painting:
    """One picture during inference.

    Layer k reads activation k. That activation is either kept as a whole, in `kept`, or computed row by row when it is
    read. It is stored as levels: the true value of channel c is level * scale[c] + constant[c].
    tops[k] is the largest level: 255 of uint8, 4,095 of int16, or 0 where levels are floats.
    codes[k] is (multiply, add): level = multiply * value + add, by channel. The value is the output of layer k - 1, or
    inside the residual blocks the stream that these blocks add to.
    """

    def __init__(
        self,
        layers: list[Convolution],
        norms: list[Norm],
        tops: list[int],
        *,
        picture: Tensor,
        band: int,
        output: NetworkConfig,
    ) -> None:
        self.layers, self.norms, self.tops, self.band = layers, norms, list(tops), band
        contrast = float(picture.amax()) - float(picture.amin())
        if contrast * (1 if picture.dtype == torch.uint8 else 255) < CONTRAST:
            self.tops = [0] * len(self.layers)
        self.picture = picture
        self.height, self.width = picture.shape[-2:]
        self.single = self.height * self.width <= band
        self.output = output
        self.codes: list[tuple[Vector, Vector]] = [(_vector(1), _vector(0))]
        self.kept: dict[int, Tensor] = {}
        self.filters: dict[int, Filters] = {}
        self.stream: Tensor | None = None
        self.offset = _vector(0)  # constant by channel that was not added to the stream
        self.sizes = [(self.height // 2, self.width // 2)]
        for layer, following in zip(self.layers, self.layers[1:], strict=False):
            h, w = (side // layer.stride * layer.fold_out // following.fold for side in self.sizes[-1])
            self.sizes.append((h, w))

    def paint(self) -> Generator[Step, None, None]:
        """Run all layers, one norm after the other; the last Step carries the result."""
        top = 255.0 if self.tops[0] or self.picture.dtype == torch.uint8 else 1.0
        common = common_values(sample(self.picture[0].permute(1, 2, 0))) if self.tops[0] else None
        if common is not None and self.picture.is_floating_point():
            common = common * np.float32(255)
        self.filters[0] = Filters(self.layers[0], _vector(2 / top), _vector(0), self.tops[0], common=common)
        out = torch.empty_like(self.picture, memory_format=torch.channels_last)
        total = 1 if self.single else sum(len(self._bands(k)) for k in range(len(self.layers)))
        work = [*(self._advance(k) for k in range(len(self.layers) - 1)), self._finish(out)]
        yield Step(0, total)
        for done, _ in enumerate(itertools.chain.from_iterable(work), start=1):
            if done < total:
                yield Step(done, total)
        yield Step(total, total, result=out if out.dtype == torch.uint8 else out.clamp_(max=1))

    def _bands(self, k: int) -> list[tuple[int, int]]:
        """The bands of layer k's output, as (first row, row after the last)."""
        rows = self.sizes[k][0] // self.layers[k].stride
        at_once = rows if self.single else max(16, rows * self.band // (self.height * self.width))
        return [(a, min(a + at_once, rows)) for a in range(0, rows, at_once)]

    def _advance(self, k: int) -> Iterator[None]:
        """Run layer k on every band to get the statistics for its norm, then prepare activation k + 1; yields after
        each band.
        """
        known: kernels.Range | None = None
        for a, b in self._bands(k):
            values, part = self._convolve(k, a, b)
            part = part or kernels.measure(values)
            known = part if known is None else known.combined_with(part)
            yield
        assert known is not None
        held = values if self.single else None
        del values
        gamma, beta, eps, _ = self.norms[k]
        with np.errstate(all="ignore"):
            # A flat channel, for instance of a picture of one colour, varies by rounding errors only. They are not
            # to be amplified.
            flat = known.high - known.low <= FLAT * np.maximum(abs(known.low), abs(known.high))
            multiply: Vector = np.where(flat, np.float32(0), gamma / np.sqrt(known.variance + eps)).astype(np.float32)
            add: Vector = (beta - multiply * known.mean).astype(np.float32)
        if not (np.isfinite(multiply) & np.isfinite(add)).all():
            raise CheckpointError(DAMAGED)
        if self._streams(k + 1):
            low, high = self._into_stream(k, multiply, add, held, known)
            multiply, add, constant = np.ones_like(low), np.zeros_like(low), self.offset
        else:
            low, high, constant = _vector(0), _rectified(known, multiply, add)[1], _vector(0)
        scale, lowest = self._steps(k + 1, low, high)
        if self.tops[k + 1]:
            multiply, add, constant = multiply / scale, (add - lowest) / scale + np.float32(0.5), constant + lowest
        self.codes.append((multiply, add))
        self.filters[k + 1] = Filters(self.layers[k + 1], scale, constant, self.tops[k + 1])
        self._keep(k + 1, held)

    def _steps(self, k: int, low: Vector, high: Vector) -> tuple[Vector, Vector]:
        """The step and the lowest value of the levels of activation k, (C,) each; ones and zeros if it is in floats.

        Decides also whether its levels are fine enough. All of this looks at the whole picture, so bands cannot
        differ.

        low, high: minimum and maximum of each channel, (C,).
        """
        common: Vector | None = None
        if self._streams(k):
            assert self.stream is not None
            values = sample(self.stream)
            common, variance = common_values(values), values.var(1)
        else:
            variance = self.norms[k - 1].variance
        while self.tops[k] and too_coarse(low, high, variance, self.tops[k]):
            self.tops[k] = largest_level(self.layers[k], False) if self.tops[k] == 255 else 0
        if self.tops[k]:
            return level_range(low, high, self.tops[k], common)
        return np.ones_like(high), np.zeros_like(high)

    def _into_stream(
        self, k: int, multiply: Vector, add: Vector, held: Tensor | None, known: kernels.Range
    ) -> tuple[Vector, Vector]:
        """Start the stream of residual blocks with the output of layer k, or add that output to the stream.

        The output is normalised by multiply and add, (C,) each. held: the output, where it is in memory.
        known: its statistics. Returns the minimum and maximum of each channel of the stream.
        """
        begins, stream = self.layers[k].residual != "second", self.stream
        lows: list[Vector] = []
        highs: list[Vector] = []
        for a, b in self._bands(k):
            values = self._convolve(k, a, b)[0] if held is None else held
            if stream is None or (begins and a == 0):
                kind = torch.float32 if self.single else torch.float16
                stream = values.new_empty(*self.sizes[k + 1], values.shape[-1], dtype=kind)
            part = stream[a:b]
            if begins:
                kernels.encode(values, multiply, add, part[:, :, None, None], relu=True)
            else:  # `add` is left out: the next norm removes any constant
                low, high = kernels.accumulate(part, values[:, :, 0, 0], multiply)
                lows.append(low)
                highs.append(high)
        self.stream, self.offset = stream, np.zeros_like(add) if begins else self.offset + add
        return _rectified(known, multiply, add) if begins else (np.min(lows, 0), np.max(highs, 0))

    def _streams(self, k: int) -> bool:
        """Whether activation k is the stream of residual blocks."""
        return self.layers[k].residual == "first" or (k > 0 and self.layers[k - 1].residual == "second")

    def _keep(self, k: int, held: Tensor | None) -> None:
        """Store activation k if it takes little memory, and free activations that are no longer needed."""
        layer, (height, width) = self.layers[k], self.sizes[k]
        size = height * width * layer.weight.shape[1] * (1 if self.tops[k] == 255 else 2)
        # The second layer of a block changes the stream that its own input was computed from: its input must be kept.
        small = size <= KEPT * self.height * self.width or layer.residual == "second"
        keep = self.single or (small and not self._streams(k))
        if keep:
            first, last = -layer.before, (height // layer.stride - 1) * layer.stride + layer.kernel - layer.before
            grid, inside = self._empty(k, first, last, half=not self.single)
            bands = self._bands(k - 1)
            for start, stop in ((a * height // bands[-1][1], b * height // bands[-1][1]) for a, b in bands):
                self._fill(k, start, stop, inside[start:stop], held)
            self._pad(k, grid, first, last)
            self.kept[k] = grid
        if keep or self._streams(k):
            for j in [*self.kept]:
                if j < k:
                    del self.kept[j]
        if keep and not layer.residual:
            self.stream = None

    def _empty(self, k: int, first: int, last: int, *, half: bool = False) -> tuple[Tensor, Tensor]:
        """An empty grid for rows `first` to `last` of activation k with its padding, and a view without the padding.

        half: store floats as float16.
        """
        layer, (height, width) = self.layers[k], self.sizes[k]
        columns = (width // layer.stride - 1) * layer.stride + layer.kernel
        floats = torch.float16 if half else torch.float32
        kind = {255: torch.uint8, kernels.TOP: torch.int16}.get(self.tops[k], floats)
        channels = layer.weight.shape[1] // layer.fold**2
        grid = torch.empty(last - first, columns, layer.fold, layer.fold, channels, dtype=kind)
        return grid, grid[max(0, -first) : min(last, height) - first, layer.before : layer.before + width]

    def _pad(self, k: int, grid: Tensor, first: int, last: int) -> None:
        """Fill the padding of rows `first` to `last` of activation k, in place."""
        layer, (height, width) = self.layers[k], self.sizes[k]
        below, right = max(0, last - height), grid.shape[1] - layer.before - width
        if layer.mode == "zero":
            zero = self.filters[k].zero.to(grid.dtype)
            grid[len(grid) - below :] = zero
            grid[:, grid.shape[1] - right :] = zero
        else:
            kernels.pad(grid, layer.mode, max(0, -first), below, layer.before, right)

    def _rows(self, k: int, first: int, last: int) -> Tensor:
        """Rows `first` to `last` of activation k with its padding, (rows, columns, fold, fold, C).

        Rows of padding have numbers below 0, or from the activation's height on.
        """
        if k in self.kept:
            before = self.layers[k].before
            return self.kept[k][first + before : last + before]
        evened, end = first - first % 2, last + last % 2  # whole cells only
        grid, inside = self._empty(k, evened, end)
        start = max(0, evened)
        self._fill(k, start, start + len(inside), inside)
        self._pad(k, grid, evened, end)
        return grid[first - evened : last - evened]

    def _fill(self, k: int, first: int, last: int, inside: Tensor, held: Tensor | None = None) -> None:
        """Write rows `first` to `last` of activation k, as levels, into `inside`."""
        if k == 0:
            fold = self.layers[0].fold
            values = self.picture[0, :, fold * first : fold * last]
            if self.tops[k] and values.is_floating_point():
                values = (values * 255 + 0.5).clamp_(0, 255).to(torch.uint8)
            kernels.fold(values, inside)
        elif self._streams(k):
            assert self.stream is not None
            values = self.stream[first:last, :, None, None].float()
            if self.tops[k]:
                kernels.encode(values, *self.codes[k], inside, relu=False)
            else:
                inside.copy_(values)
        else:
            rows = self.sizes[k - 1][0] // self.layers[k - 1].stride
            a, b = first * rows // self.sizes[k][0], last * rows // self.sizes[k][0]
            values = self._convolve(k - 1, a, b)[0] if held is None else held
            kernels.encode(values, *self.codes[k], inside, relu=True)

    def _convolve(self, k: int, first: int, last: int) -> tuple[Tensor, kernels.Range | None]:
        """Rows `first` to `last` of layer k's convolution, and their statistics where they are known.

        (rows, columns, fold, fold, O) in float32 or bfloat16, without bias where a norm follows.
        """
        layer = self.layers[k]
        start = first * layer.stride - layer.before
        x = self._rows(k, start, start + (last - first - 1) * layer.stride + layer.kernel)
        at_top, at_bottom = first == 0, last == self.sizes[k][0] // layer.stride
        return self.filters[k].convolve(x if self.tops[k] else x.float(), at_top, at_bottom)

    def _finish(self, out: Tensor) -> Iterator[None]:
        """Run the last layer, which has no norm, and write its output to a picture; yields after each band."""
        k, layer = len(self.layers) - 1, self.layers[-1]
        levels, half = (255.0, 0.5) if out.dtype == torch.uint8 else (1.0, 0.0)
        reach = self.output.tanh_scale / 255 if self.output.output == "tanh" else 0.5
        for a, b in self._bands(k):
            y = self._convolve(k, a, b)[0]
            y = y.tanh_() if self.output.output == "tanh" else y
            target = out[0, :, layer.fold_out * a : layer.fold_out * b].permute(1, 2, 0)[:, :, None, None]
            kernels.encode(
                y, _vector(levels * reach).repeat(3), _vector(levels / 2 + half).repeat(3), target, relu=True
            )
            yield
