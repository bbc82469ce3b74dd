"""Fast inference of style networks on a CPU: the same arithmetic in another order, by what the processor has.

`Inference` runs a TransformationNetwork of instance norms. What it does otherwise than the network itself:

- **Folded grids** (folding.py). The layers at the picture's own size have few channels, which leaves a processor's
  vectors half empty; there the 2 x 2 pixels of a cell stand as channels. Doubling and the convolution behind it are one
  convolution on the small grid.
- **8 bits.** Where the processor multiplies bytes (VNNI, AMX), each convolution takes uint8 activations, scaled channel
  by channel to what the picture at hand needs, and int8 weights that carry these scales. An instance norm follows, so
  constants per channel may be dropped: zero points and biases cost nothing. Elsewhere all stays in float32.
- **Bands.** A large picture goes through in bands of rows. The statistics of each norm are those of the whole picture:
  all bands are taken as far as the norm at hand before any goes on, and what lies on a small grid is kept between. So
  the result is that of the whole picture, in memory that grows by a few bytes a pixel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from perceptual.devices import multiplies_bytes
from perceptual.errors import CheckpointError
from perceptual.events import Step, finish
from perceptual.fast import kernels
from perceptual.fast.folding import cells, fill_frame
from perceptual.fast.kernels import Vector
from perceptual.fast.plan import Weights, plan
from perceptual.functional import mix
from perceptual.networks import DAMAGED, InstanceNorm, TransformationNetwork, with_noise

CONTRAST = 32
"""Levels between the darkest and the brightest value of a picture below which bytes are too coarse for it."""
FLAT = np.float32(4e-6)
"""Spread of a channel's values, relative to the largest, that rounding alone gives."""
BAND = 1 << 21
"""Pixels of the picture in a band."""
KEPT = 8
"""Bytes a pixel of the picture up to which an activation is kept between passes, and not computed anew."""


class Inference:
    """Paints with a network on a CPU, as fast as the processor allows; make it once, call it often.

    Attributes: `precision`, "int8" or "float32"; `smallest`, the shortest side of a picture that it takes.

    Raises:
        ValueError: the network has parts that only it can run (see `plan`), or there is no such precision.
    """

    def __init__(self, network: TransformationNetwork, precision: str | None = None) -> None:
        steps = plan(network)
        if steps is None:
            raise ValueError("This network has parts that only TransformationNetwork runs.")
        self.network, self.steps, self.smallest = network, steps, max(12, network.minimum)
        self.precision = precision or ("int8" if multiplies_bytes() else "float32")
        if self.precision not in ("int8", "float32"):
            raise ValueError(f"precision is {precision!r}: give int8 or float32.")
        self._layers = [step.layer.norm for step in steps if isinstance(step.layer.norm, InstanceNorm)]
        both = [norm.weight for norm in self._layers], [norm.bias for norm in self._layers]
        self._styles = [torch.cat([part.detach() for part in parts], 1) for parts in both]  # (styles, all channels)
        # What layers of stride 2 and the first after the residual blocks read has outliers, as at the picture's edges,
        # so that a byte has few levels for the rest: there bytes would cost 3 to 5 dB, and save a tenth of the time.
        self.in_bytes = [
            self.precision == "int8" and step.stride == 1 and not (before and before.residual and not step.residual)
            for before, step in zip([None, *steps], steps, strict=False)
        ]

    def pays(self, height: int, width: int) -> bool:
        """Whether this is quicker than the network itself: not for small pictures, which are all overhead."""
        if min(height, width) < max(64, self.smallest):
            return False
        if kernels.compiled() is None and self.precision == "float32":
            return height * width > BAND
        return height * width >= 160**2

    def memory(self, height: int, width: int) -> int:
        """Bytes that a picture of this size needs in bands, roughly from above, with its result."""
        share, blocks = 1.0, 0
        for step in self.steps:
            share *= (step.fold_out / step.fold / step.stride) ** 2
            blocks = max(blocks, math.ceil(2 * step.weight.shape[0] * share)) if step.residual else blocks
        side = math.isqrt(min(BAND, height * width))
        return (max(KEPT, blocks) + blocks + 6) * height * width + 2 * self.network.memory(side, side)

    def norms(self, style: Tensor) -> list[tuple[Vector, Vector, np.float32]]:
        """Gamma, beta and epsilon of each step's norm for (1, styles) weights."""
        sizes = [norm.weight.shape[1] for norm in self._layers]
        gammas, betas = (np.split(mix(style, each)[0].numpy(), np.cumsum(sizes)[:-1]) for each in self._styles)
        return [(g, b, np.float32(n.eps)) for g, b, n in zip(gammas, betas, self._layers, strict=True)]

    def __call__(
        self, picture: Tensor, style: Tensor, noise: Tensor | None = None, *, band: int | None = None
    ) -> Tensor:
        """As `paint`, without the Steps."""
        return finish(self.paint(picture, style, noise, band=band))

    @torch.no_grad()
    def paint(
        self, picture: Tensor, style: Tensor, noise: Tensor | None = None, *, band: int | None = None
    ) -> Generator[Step, None, Tensor]:
        """Paint (1, 3, H, W), float in [0, 1] or uint8 levels; the result has the same type and is clamped.

        Yields a Step after each band of each layer, of a picture in bands; the last Step carries the result.

        style: (1, styles) weights. noise: as `TransformationNetwork.forward`. band: pixels in a band, for pictures that
            are to go through in bands.

        Raises:
            ValueError: a side is below `smallest`. CheckpointError: the network's numbers overflow.
        """
        height, width = picture.shape[-2:]
        if min(height, width) < self.smallest:
            raise ValueError(f"A picture of {width} x {height} px has a side below {self.smallest} px.")
        kernels.compiled(wait=height * width > BAND)
        picture = with_noise(picture, self.network.config.noise, noise)
        painting = _Painting(self, _even(picture, self.network.multiple), style, band or height * width * 2)
        for step in painting.paint():
            yield (last := step.then(lambda painted: painted[..., :height, :width]))
        result: Tensor = last.result
        return result


def _even(picture: Tensor, multiple: int) -> Tensor:
    """Continued below and at the right by its last pixels, to a multiple of what the network halves."""
    for side in (-2, -1):
        missing = -picture.shape[side] % multiple
        if missing:
            last = picture.narrow(side, picture.shape[side] - 1, 1)
            picture = torch.cat([picture, *[last] * missing], side)
    return picture


def _vector(value: float) -> Vector:
    return np.full(1, value, np.float32)


class _Painting:
    """One picture on its way through the steps.

    Step k reads activation k, which is `kept` whole or computed when asked for, in rows. It is stored as levels: the
    true values are level * scale + constant by channel; `codes[k]` says how to get there from what comes before.
    """

    def __init__(self, inference: Inference, picture: Tensor, style: Tensor, band: int) -> None:
        self.steps, self.norms, self.band = inference.steps, inference.norms(style), band
        self.in_bytes = inference.in_bytes
        contrast = float(picture.amax()) - float(picture.amin())
        if contrast * (1 if picture.dtype == torch.uint8 else 255) < CONTRAST:
            self.in_bytes = [False] * len(self.steps)
        self.picture = picture
        self.height, self.width = picture.shape[-2:]
        self.single = self.height * self.width <= band
        self.output = inference.network.config
        self.codes: list[tuple[Vector, Vector]] = [(_vector(1), _vector(0))]
        self.kept: dict[int, Tensor] = {}
        self.weights: dict[int, Weights] = {}
        self.stream: Tensor | None = None
        self.offset = _vector(0)  # what is left out of the stream
        self.sizes = [(self.height // 2, self.width // 2)]
        for step, behind in zip(self.steps, self.steps[1:], strict=False):
            h, w = (side // step.stride * step.fold_out // behind.fold for side in self.sizes[-1])
            self.sizes.append((h, w))

    def paint(self) -> Generator[Step, None, None]:
        """All steps, norm by norm; the last Step carries the painting."""
        top = 255.0 if self.in_bytes[0] or self.picture.dtype == torch.uint8 else 1.0
        self.weights[0] = Weights(self.steps[0], _vector(2 / top), _vector(0), self.in_bytes[0])
        out = torch.empty_like(self.picture, memory_format=torch.channels_last)
        total = 1 if self.single else sum(len(self._bands(k)) for k in range(len(self.steps)))
        work = [*(self._advance(k) for k in range(len(self.steps) - 1)), self._finish(out)]
        yield Step(0, total)
        for done, _ in enumerate(itertools.chain.from_iterable(work), start=1):
            if done < total:
                yield Step(done, total)
        yield Step(total, total, result=out if out.dtype == torch.uint8 else out.clamp_(max=1))

    def _bands(self, k: int) -> list[tuple[int, int]]:
        """Rows of step k's output, band by band."""
        rows = self.sizes[k][0] // self.steps[k].stride
        at_once = rows if self.single else max(16, rows * self.band // (self.height * self.width))
        return [(a, min(a + at_once, rows)) for a in range(0, rows, at_once)]

    def _advance(self, k: int) -> Iterator[None]:
        """Take every band through step k, for its norm, and get activation k + 1 ready; yields after each band."""
        behind, in_bytes = self.steps[k + 1], self.in_bytes[k + 1]
        known: kernels.Range | None = None
        for a, b in self._bands(k):
            values = self._convolve(k, a, b)
            part = kernels.measure(values)
            known = part if known is None else known.with_more(part)
            yield
        assert known is not None
        held = values if self.single else None
        del values
        gamma, beta, eps = self.norms[k]
        with np.errstate(all="ignore"):
            # A flat channel, as a picture of one colour gives, has a spread of rounding errors, and no more to show.
            flat = known.high - known.low <= FLAT * np.maximum(abs(known.low), abs(known.high))
            multiply: Vector = np.where(flat, np.float32(0), gamma / np.sqrt(known.variance + eps)).astype(np.float32)
            add: Vector = (beta - multiply * known.mean).astype(np.float32)
        if not (np.isfinite(multiply) & np.isfinite(add)).all():
            raise CheckpointError(DAMAGED)
        if self._streams(k + 1):
            low, high = self._into_stream(k, multiply, add, held)
            multiply, add, constant = np.ones_like(low), np.zeros_like(low), self.offset
        else:
            low, constant = _vector(0), _vector(0)
            high = np.maximum(np.maximum(multiply * known.low, multiply * known.high) + add, 0)
        scale = np.ones_like(high)
        if in_bytes:
            scale = np.maximum((high - low) / 255, np.float32(1e-12))
            multiply, add, constant = multiply / scale, (add - low) / scale + np.float32(0.5), constant + low
        self.codes.append((multiply, add))
        self.weights[k + 1] = Weights(behind, scale, constant, in_bytes)
        self._keep(k + 1, held)

    def _into_stream(self, k: int, multiply: Vector, add: Vector, held: Tensor | None) -> tuple[Vector, Vector]:
        """Begin the stream of residual blocks with what step k gives, or add that to it; the stream's range."""
        begins, stream = self.steps[k].residual != "second", self.stream
        lows: list[Vector] = []
        highs: list[Vector] = []
        for a, b in self._bands(k):
            values = self._convolve(k, a, b) if held is None else held
            if stream is None or (begins and not lows):
                kind = torch.float32 if self.single else torch.float16
                stream = values.new_empty(*self.sizes[k + 1], values.shape[-1], dtype=kind)
            part = stream[a:b]
            if begins:
                kernels.encode(values, multiply, add, part[:, :, None, None], relu=True)
                low, high = kernels.ends_of(part)
            else:  # add is left out: a constant, which the next norm takes away
                low, high = kernels.accumulate(part, values[:, :, 0, 0], multiply)
            lows.append(low)
            highs.append(high)
        self.stream, self.offset = stream, np.zeros_like(add) if begins else self.offset + add
        return np.min(lows, 0), np.max(highs, 0)

    def _streams(self, k: int) -> bool:
        """Whether activation k is the stream of residual blocks."""
        return self.steps[k].residual == "first" or (k > 0 and self.steps[k - 1].residual == "second")

    def _keep(self, k: int, held: Tensor | None) -> None:
        """Store activation k where that takes little memory, and let go of what only it needed."""
        step, (height, width) = self.steps[k], self.sizes[k]
        size = height * width * step.weight.shape[1] * (1 if self.in_bytes[k] else 2)
        # What a block's second layer reads follows from the stream, which that layer changes: it must be kept.
        small = size <= KEPT * self.height * self.width or step.residual == "second"
        keep = self.single or (small and not self._streams(k))
        if keep:
            first, last = -step.before, (height // step.stride - 1) * step.stride + step.kernel - step.before
            grid, inside = self._empty(k, first, last, half=not self.single)
            bands = self._bands(k - 1)
            for start, stop in ((a * height // bands[-1][1], b * height // bands[-1][1]) for a, b in bands):
                self._fill(k, start, stop, inside[start:stop], held)
            self._frame(k, grid, first, last)
            self.kept[k] = grid
        if keep or self._streams(k):
            for j in [*self.kept]:
                if j < k:
                    del self.kept[j]
        if keep and not step.residual:
            self.stream = None

    def _empty(self, k: int, first: int, last: int, *, half: bool = False) -> tuple[Tensor, Tensor]:
        """Room for rows `first` to `last` of activation k with its frame, and the view of what lies inside."""
        step, (height, width) = self.steps[k], self.sizes[k]
        columns = (width // step.stride - 1) * step.stride + step.kernel
        kind = torch.uint8 if self.in_bytes[k] else torch.float16 if half else torch.float32
        channels = step.weight.shape[1] // step.fold**2
        grid = torch.empty(last - first, columns, step.fold, step.fold, channels, dtype=kind)
        return grid, grid[max(0, -first) : min(last, height) - first, step.before : step.before + width]

    def _frame(self, k: int, grid: Tensor, first: int, last: int) -> None:
        step, (height, width) = self.steps[k], self.sizes[k]
        below, right = max(0, last - height), grid.shape[1] - step.before - width
        if step.mode == "zero":
            zero = self.weights[k].zero.to(grid.dtype)
            grid[len(grid) - below :] = zero
            grid[:, grid.shape[1] - right :] = zero
        else:
            fill_frame(grid, step.mode, max(0, -first), below)
            fill_frame(grid.transpose(0, 1).transpose(2, 3), step.mode, step.before, right)

    def _rows(self, k: int, first: int, last: int) -> Tensor:
        """Rows of activation k with its frame, (rows, columns, f, f, C); they begin above 0, end below its height."""
        if k in self.kept:
            before = self.steps[k].before
            return self.kept[k][first + before : last + before]
        evened, end = first - first % 2, last + last % 2  # so that cells stay whole
        grid, inside = self._empty(k, evened, end)
        start = max(0, evened)
        self._fill(k, start, start + len(inside), inside)
        self._frame(k, grid, evened, end)
        return grid[first - evened : last - evened]

    def _fill(self, k: int, first: int, last: int, inside: Tensor, held: Tensor | None = None) -> None:
        """Write rows of activation k, as levels."""
        if k == 0:
            fold = self.steps[0].fold
            values = self.picture[0, :, fold * first : fold * last].permute(1, 2, 0)[:, :, None, None]
            if self.in_bytes[k] and values.is_floating_point():
                values = (values * 255 + 0.5).clamp_(0, 255)
            cells(inside).copy_(cells(values))
        elif self._streams(k):
            assert self.stream is not None
            values = self.stream[first:last, :, None, None].float()
            if self.in_bytes[k]:
                kernels.encode(values, *self.codes[k], inside, relu=False)
            else:
                inside.copy_(values)
        else:
            rows = self.sizes[k - 1][0] // self.steps[k - 1].stride
            a, b = first * rows // self.sizes[k][0], last * rows // self.sizes[k][0]
            values = self._convolve(k - 1, a, b) if held is None else held
            kernels.encode(values, *self.codes[k], inside, relu=True)

    def _convolve(self, k: int, first: int, last: int) -> Tensor:
        """Rows of what step k's convolution gives, (rows, columns, f, f, O) in float32 or bfloat16, no bias."""
        step = self.steps[k]
        start = first * step.stride - step.before
        x = self._rows(k, start, start + (last - first - 1) * step.stride + step.kernel)
        if not self.in_bytes[k]:
            x = x.float()
        image = x.flatten(2).permute(2, 0, 1)[None]
        y: Tensor = self.weights[k].convolve(image)[0].permute(1, 2, 0)
        y = y.view(*y.shape[:2], step.fold_out, step.fold_out, -1)
        if step.edges:
            self._mend_edges(k, x[:, :, 0, 0], y, first == 0, last == self.sizes[k][0])
        return y

    def _mend_edges(self, k: int, x: Tensor, y: Tensor, at_top: bool, at_bottom: bool) -> None:
        """The outermost pixels after bilinear doubling: the network reflects the doubled image, not the small one.

        x: (rows + 2, columns + 2, C), the small image framed by its last pixels; y: (rows, columns, 2, 2, O).
        """
        scale = torch.from_numpy(self.weights[k].scale)[:, None, None]
        everything = slice(None)
        of_x = {"inner": everything, "first": slice(1, 3), "last": slice(-3, -1)}
        of_y = {
            "inner": (everything, everything),
            "first": (slice(1), slice(1)),
            "last": (slice(-1, None), slice(1, 2)),
        }
        for (rows, columns), kernel in self.steps[k].edges.items():
            if (rows == "first" and not at_top) or (rows == "last" and not at_bottom):
                continue
            part = x[of_x[rows], of_x[columns]].float().permute(2, 0, 1)[None]
            out = F.conv2d(part, kernel * scale)[0].permute(1, 2, 0)
            (row, place), (column, at) = of_y[rows], of_y[columns]
            target = y[row, column, place, at]
            target.copy_(out.view(*out.shape[:2], *target.shape[2:]))

    def _finish(self, out: Tensor) -> Iterator[None]:
        """The last step, which has no norm, into the painting; yields after each band."""
        k, step = len(self.steps) - 1, self.steps[-1]
        levels, half = (255.0, 0.5) if out.dtype == torch.uint8 else (1.0, 0.0)
        bias = step.layer.conv.bias
        assert isinstance(bias, Tensor)
        reach = self.output.tanh_scale / 255 if self.output.output == "tanh" else 0.5
        for a, b in self._bands(k):
            y = self._convolve(k, a, b).add_(bias)
            y = y.tanh_() if self.output.output == "tanh" else y
            target = out[0, :, step.fold_out * a : step.fold_out * b].permute(1, 2, 0)[:, :, None, None]
            kernels.encode(
                y, _vector(levels * reach).repeat(3), _vector(levels / 2 + half).repeat(3), target, relu=True
            )
            yield
