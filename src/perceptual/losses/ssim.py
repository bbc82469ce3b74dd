"""Structural similarity as a term: SSIM (Wang et al., 2004) and MS-SSIM (Wang et al., 2003)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from perceptual.errors import ConfigError, ImageError
from perceptual.functional import single
from perceptual.losses.base import PIXELS, Reduction, Term
from perceptual.losses.networks import Features
from perceptual.resampling import gaussian_mean

WINDOW = 11
"""Side of the Gaussian window with sigma 1.5, in pixels."""
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""The exponents of MS-SSIM, from full size to a sixteenth (Wang et al., 2003, section 3.2)."""


def similarity(one: Tensor, other: Tensor, peak: float) -> tuple[Tensor, Tensor]:
    """Structural similarity (Wang et al., 2004, equation 13) where the window fits completely, averaged over places.

    one, other: (N, C, H, W), at least WINDOW pixels high and wide. peak: the largest value, 1 or 255.
    Returns SSIM, and its part for contrast and structure, both (N, C): 1 for equal images.
    """
    parts = (one, other, one * one, other * other, one * other)
    mean_1, mean_2, square_1, square_2, product = (gaussian_mean(part, 1.5, WINDOW // 2) for part in parts)
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    variances = square_1 - mean_1**2 + square_2 - mean_2**2
    structure = (2 * (product - mean_1 * mean_2) + c2) / (variances + c2)
    luminance = (2 * mean_1 * mean_2 + c1) / (mean_1**2 + mean_2**2 + c1)
    return (luminance * structure).mean((2, 3)), structure.mean((2, 3))


class SSIMLoss(Term):
    """1 - SSIM of the pixels in [0, 1], the mean over the three channels: 0 for equal images, at most 2.

    With several scales it is 1 - MS-SSIM (Wang, Simoncelli and Bovik, 2003), at most 1: contrast and structure at each
    scale, and luminance at the last one. The images are halved by averaging 2 x 2 pixels. A negative part counts as 0.

    Args:
        scales: 1, or 5 for MS-SSIM.
        reduction: see `Term`.

    Raises:
        ConfigError: another number of scales. ImageError: when called, a side is shorter than 11 px, or 176 px with 5
            scales.
    """

    def __init__(self, scales: int = 1, *, reduction: Reduction = "mean") -> None:
        if scales not in (1, len(WEIGHTS)):
            raise ConfigError(f"The number of scales of SSIMLoss is {scales!r}; give 1 or {len(WEIGHTS)}.")
        super().__init__((PIXELS,), (PIXELS,), reduction=reduction)
        self.scales = scales

    def extra_repr(self) -> str:
        """What `print(loss)` shows between the brackets."""
        return f"scales={self.scales}, {super().extra_repr()}"

    def compare(self, output: Features, target: Features, style: Tensor | None = None) -> Tensor:
        one, other = single(output[PIXELS]), single(target[PIXELS])
        least, (height, width) = WINDOW << self.scales - 1, one.shape[-2:]
        if min(height, width) < least:
            raise ImageError(f"The image is {width} x {height}; SSIMLoss needs at least {least} x {least} pixels here.")
        if self.scales == 1:
            return 1 - similarity(one, other, 1.0)[0].mean(1)
        total = one.new_ones(())
        for scale, weight in enumerate(WEIGHTS):
            if scale:
                one, other = F.avg_pool2d(one, 2), F.avg_pool2d(other, 2)
            whole, structure = similarity(one, other, 1.0)
            part = whole if scale == len(WEIGHTS) - 1 else structure
            total = total * part.clamp(min=1e-6) ** weight  # the slope of the power is infinite at 0
        return 1 - total.mean(1)
