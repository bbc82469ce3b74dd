"""Upscaler: applies a super-resolution network to images, in one piece or in tiles without visible seams."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from perceptual import images
from perceptual.apply.model import Device, Model
from perceptual.checkpoints import shipped
from perceptual.config import UpscaleOptions
from perceptual.errors import ConfigError
from perceptual.events import Step


class Upscaler(Model[UpscaleOptions]):
    """A super-resolution network for images: PIL images, numpy arrays or tensors. Load it once, and call it often.

    >>> large = Upscaler.load("x4_pixel")(small)    # a PIL image, numpy array or tensor
    >>> Upscaler.load("x4_pixel")(small, scale=3, tile=256)

    The options of a call are those of `perceptual.config.UpscaleOptions`: scale, tile and match_histogram.
    """

    task = "upscale"
    options_type = UpscaleOptions

    @classmethod
    def load(cls, name: str | Path = "x4_pixel", *, device: Device = None, **defaults: Any) -> Self:
        """Load a network, as `Model.load`. name: the name of a shipped network, such as x4_feature, or a path."""
        return super().load(name, device=device, **defaults)

    @classmethod
    def at_scale(cls, scale: float, loss: str = "pixel", *, device: Device = None, **defaults: Any) -> Self:
        """Load the shipped network for a scale. If there is none, the next larger one is used and its result reduced.

        scale: above 0. loss: "pixel", "feature", or "srcnn" for the baseline.

        Raises:
            ConfigError: no shipped network was trained with this loss, or the scale is too large.
        """
        return cls.load(cls.name_at(scale, loss), device=device, scale=scale, **defaults)

    @staticmethod
    def name_at(scale: float, loss: str = "pixel") -> str:
        """The name of the network that `at_scale` loads. The arguments and errors are the same."""
        found: dict[int, str] = {}
        losses: set[str] = set()
        for name in shipped.networks("upscale"):  # x4_pixel ...
            size, _, trained_by = name.removeprefix("x").partition("_")
            losses.add(trained_by)
            if trained_by == loss:
                found[int(size)] = name
        if not found:
            raise ConfigError(
                f"There is no shipped network with the loss {loss!r}; choose one of {', '.join(sorted(losses))}."
            )
        fitting = [size for size in sorted(found) if size >= scale]
        if not fitting or not scale > 0:
            largest = max(found)
            raise ConfigError(
                f"scale is {scale:g}; the shipped networks with the loss {loss} enlarge up to {largest} times."
            )
        return found[fitting[0]]

    @property
    def scale(self) -> float:
        """The default scale, for calls without `scale`."""
        return self.defaults.scale or self.network.scale

    def upscale(self, pixels: Tensor, options: UpscaleOptions | None = None, **changes: Any) -> Tensor:
        """Enlarge a tensor (N, 3, H, W), in [0, 1] or uint8 levels. The result has its dtype, on the CPU.

        Raises the same errors as a call.
        """
        return self.apply(pixels, options, **changes)

    def size(self, height: int, width: int, options: UpscaleOptions) -> tuple[int, int]:
        """Height and width of the result, for the height and width of an image in pixels."""
        return images.scaled_size(height, width, options.scale or self.network.scale)

    def picture(self, picture: Tensor, options: UpscaleOptions) -> Generator[Step, None, None]:
        """Enlarge one image, (1, 3, H, W) in [0, 1] or uint8 levels. The last Step has the result."""
        own = self.network.scale
        if (scale := options.scale or own) > own:
            raise ConfigError(
                f"scale is {scale:.4g}; this network enlarges up to {own} times: choose one for a larger scale, such "
                "as x8_pixel, or enlarge twice."
            )
        finished = scale == own and not options.match_histogram
        picture = picture if finished else images.unit(picture)

        def finish(large: Tensor) -> Tensor:
            if (picture == picture[:, :1]).all():  # the network would add colour to a grey image
                large = images.like(images.unit(large).mean(1, keepdim=True).expand(-1, 3, -1, -1), large)
            large = (
                large
                if finished
                else images.resize(large, size=self.size(picture.shape[-2], picture.shape[-1], options))
            )
            return match_histograms(large, picture) if options.match_histogram else large

        for step in super().picture(picture, options):
            yield step.then(finish)

    def apply_alpha(self, alpha: Tensor, options: UpscaleOptions) -> Tensor:
        """Enlarge an alpha channel (1, 1, H, W) in [0, 1] with the network, as a grey image.

        Each value is clamped to the range of alpha in the 5 x 5 pixels around it. So areas that are completely opaque
        or completely transparent do not change.
        """
        large = self.apply(alpha.expand(-1, 3, -1, -1), replace(options, match_histogram=False))[:, :1]
        low, high = (-F.max_pool2d(-alpha, 5, 1, 2), F.max_pool2d(alpha, 5, 1, 2))
        size = large.shape[-2:]
        return large.clamp(*(F.interpolate(bound, size=size, mode="nearest-exact") for bound in (low, high)))


def match_histograms(image: Tensor, reference: Tensor) -> Tensor:
    """Change each channel of an image so that its histogram is that of the reference (paper, section 4.2).

    image, reference: (1, 3, H, W) and (1, 3, h, w). Returns (1, 3, H, W) with the dtype of `image`.

    Raises:
        ConfigError: scikit-image is not installed.
    """
    try:
        from skimage import exposure
    except ImportError as error:
        raise ConfigError("Matching histograms needs scikit-image: pip install 'perceptual[histogram]'.") from error
    arrays = [
        each[0].permute(1, 2, 0).double().cpu().numpy() for each in (image, reference)
    ]  # it truncates whole numbers
    matched = exposure.match_histograms(*arrays, channel_axis=-1)
    return torch.from_numpy(np.ascontiguousarray(matched)).permute(2, 0, 1)[None].to(image.dtype)
