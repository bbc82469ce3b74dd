"""Fast inference of style networks on a CPU: the network's own arithmetic in another order.

`Inference` runs a TransformationNetwork that has instance norms. It differs from the network itself in three ways:

- **Folded grids** (folding.py). The layers at the picture's full size have few channels, which leaves a processor's
  vector registers half empty. There the 2 x 2 pixels of a cell become channels. Doubling and the convolution after it
  become one convolution on the small grid.
- **int8.** Where the processor has instructions for 8-bit products (VNNI or AMX), each convolution reads uint8
  activations. They are scaled by channel to the range that this picture has there, and the int8 filters carry these
  scales. An instance norm follows, and it removes any constant by channel. So zero points and biases are left out.
  Layers that lose too much in 8 bits read 12 bits (convolve.c). Other processors compute in float32.
- **Bands.** A large picture is painted in bands of rows. The statistics of each norm are those of the whole picture:
  all bands are computed up to one norm before any band goes on to the next. Activations on small grids are kept, larger
  ones are computed again. So the result is that of the whole picture, and memory grows by a few bytes a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Generator

import numpy as np
import torch
from torch import Tensor

from perceptual.events import Step, finish
from perceptual.fast import kernels
from perceptual.fast.painting import KEPT, Norm, Painting
from perceptual.fast.plan import largest_level, plan, reads_bytes
from perceptual.fast.rounding import rectified_variance
from perceptual.functional import mix
from perceptual.networks import InstanceNorm, TransformationNetwork, with_noise

BAND = 1 << 21
"""Pixels of one band of a picture."""


class Inference:
    """Paints with a style network on a CPU. Make it once and call it for each picture.

    Attributes: `precision`, "int8" or "float32"; `smallest`, the shortest side of a picture that it takes, in pixels.

    network: a network that `supports` accepts.
    precision: "int8" or "float32"; when left out, int8 where the processor has instructions for 8-bit products.

    Raises:
        ValueError: the network is not supported, or there is no such precision.
    """

    def __init__(self, network: TransformationNetwork, precision: str | None = None) -> None:
        layers = plan(network)
        if layers is None:
            raise ValueError("Fast inference does not support this network: call the network itself.")
        self.network, self.layers, self.smallest = network, layers, max(12, network.minimum)
        self.precision = precision or ("int8" if reads_bytes(each.weight.shape[1] for each in layers) else "float32")
        if self.precision not in ("int8", "float32"):
            raise ValueError(f"precision is {precision!r}: give int8 or float32.")
        self._norms = [layer.module.norm for layer in layers if isinstance(layer.module.norm, InstanceNorm)]
        both = [norm.weight for norm in self._norms], [norm.bias for norm in self._norms]
        self._last: tuple[bytes, list[Norm]] = b"", []
        self._styles = [torch.cat([part.detach() for part in parts], 1) for parts in both]  # (styles, all channels)
        # The inputs of layers of stride 2 and of the first layer after the residual blocks have outliers, at edges. A
        # byte has few levels for the other values there: int8 would cost 3 to 5 dB and save a tenth of the time.
        coarse = [
            layer.stride == 1 and not (before and before.residual and not layer.residual)
            for before, layer in zip([None, *layers], layers, strict=False)
        ]
        self.tops = [largest_level(layer, in_bytes) for layer, in_bytes in zip(layers, coarse, strict=True)]
        if self.precision == "float32":
            self.tops = [0] * len(layers)

    def pays(self, height: int, width: int) -> bool:
        """Whether this is faster than the network itself for a picture of this size, in pixels, and equal to it."""
        cuts = self.precision == "float32" and self.network.cuts(height, width)  # `_even` pads such a size
        if cuts or min(height, width) < max(64, self.smallest):
            return False
        if kernels.compiled() is None and self.precision == "float32":
            return height * width > BAND
        return height * width >= 160**2

    def memory(self, height: int, width: int) -> int:
        """Upper estimate of the bytes that painting a picture of this size in bands takes, with its result."""
        share, blocks = 1.0, 0
        for layer in self.layers:
            share *= (layer.fold_out / layer.fold / layer.stride) ** 2
            blocks = max(blocks, math.ceil(2 * layer.weight.shape[0] * share)) if layer.residual else blocks
        side = math.isqrt(min(BAND, height * width))
        return (max(KEPT, blocks) + blocks + 6) * height * width + 2 * self.network.memory(side, side)

    def norms(self, style: Tensor) -> list[Norm]:
        """The norms for the shares of the styles, (1, styles). Those of the last style are kept, for videos."""
        key, kept = style.numpy().tobytes(), self._last
        if key == kept[0]:
            return kept[1]
        sizes = [norm.weight.shape[1] for norm in self._norms]
        gammas, betas = (np.split(mix(style, each)[0].numpy(), np.cumsum(sizes)[:-1]) for each in self._styles)
        norms = [
            Norm(gamma, beta, np.float32(norm.eps), rectified_variance(beta, abs(gamma)))
            for gamma, beta, norm in zip(gammas, betas, self._norms, strict=True)
        ]
        self._last = key, norms
        return norms

    def __call__(
        self, picture: Tensor, style: Tensor, noise: Tensor | None = None, *, band: int | None = None
    ) -> Tensor:
        """As `paint`, without the Steps."""
        return finish(self.paint(picture, style, noise, band=band))

    @torch.no_grad()
    def paint(
        self, picture: Tensor, style: Tensor, noise: Tensor | None = None, *, band: int | None = None
    ) -> Generator[Step, None, Tensor]:
        """Paint a picture; the result has the same shape and dtype, clamped to [0, 1] or [0, 255].

        Yields a Step after each band of each layer if there are several bands; the last Step carries the result.

        picture: (1, 3, H, W), float in [0, 1] or uint8. style: share of each style, (1, styles).
        noise: as in `TransformationNetwork.forward`. band: pixels of one band; one piece when left out.

        Raises:
            ValueError: a side is shorter than `smallest`.
            CheckpointError: the network gives values that are not numbers.
        """
        height, width = picture.shape[-2:]
        if min(height, width) < self.smallest:
            raise ValueError(f"A picture of {width} x {height} px has a side below {self.smallest} px.")
        picture = with_noise(picture, self.network.config.noise, noise)
        painting = Painting(
            self.layers,
            self.norms(style),
            self.tops,
            picture=_even(picture, self.network.multiple),
            band=band or height * width * 2,
            output=self.network.config,
        )
        for step in painting.paint():
            yield (last := step.then(lambda painted: painted[..., :height, :width]))
        result: Tensor = last.result
        return result


def _even(picture: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column until height and width are multiples of `multiple`."""
    for side in (-2, -1):
        missing = -picture.shape[side] % multiple
        if missing:
            last = picture.narrow(side, picture.shape[side] - 1, 1)
            picture = torch.cat([picture, *[last] * missing], side)
    return picture
