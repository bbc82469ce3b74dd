"""Upscaler: applies a super-resolution network to images, in one piece or in tiles without visible seams."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from perceptual import checkpoints, images
from perceptual.apply.model import Device, Model
from perceptual.checkpoints import shipped
from perceptual.config import UpscaleOptions
from perceptual.devices import faster_in_bfloat16
from perceptual.errors import ConfigError
from perceptual.events import Step
from perceptual.fast import enlarge_bytes, enlarges
from perceptual.gpu import half_precision
from perceptual.quality import damage


class Upscaler(Model[UpscaleOptions]):
    """A super-resolution network for images: PIL images, numpy arrays or tensors. Load it once, and call it often.

    >>> large = Upscaler.load("x4_pixel")(small)    # a PIL image, numpy array or tensor
    >>> Upscaler.load("x4_pixel")(small, scale=3, tile=256)

    The options of a call are those of `perceptual.config.UpscaleOptions`: scale, tile, match_histogram and
    precision.
    """

    task = "upscale"
    options_type = UpscaleOptions

    @classmethod
    def load(cls, name: str | Path = "x4_pixel", *, device: Device = None, **defaults: Any) -> Self:
        """Load a network, as `Model.load`. name: the name of a shipped network, such as x4_feature, or a path."""
        return super().load(name, device=device, **defaults)

    cleaner: Upscaler | None = None
    """The network for compressed and noisy pictures, if there is another one for them."""

    @classmethod
    def at_scale(
        cls,
        scale: float,
        loss: str = "pixel",
        *,
        denoise: float | None = None,
        device: Device = None,
        **defaults: Any,
    ) -> Self:
        """Load the shipped network for a scale. If there is none, the next larger one is used and its result reduced.

        scale: above 0. loss: "pixel", "feature", "photo" for compressed and noisy pictures, "srcnn" for the baseline,
        "video" for the fast network up to 2 and pixel above, or "auto": photo for pictures that look compressed, noisy
        or aliased (`quality.damage`), pixel for others.
        denoise: 0 to 1, for photo and auto: how much noise and compression are removed; default: 1. Below 1 the weights
        are a mixture with those of pixel (network interpolation; Wang et al., ESRGAN, 2018).

        Raises:
            ConfigError: no shipped network was trained with this loss, the scale is wrong, or denoise is not from 0 to
                1, or is given with another loss or for a scale without such a network.
        """
        name = cls.name_at(scale, loss)
        if denoise is not None:
            cls._check_denoise(denoise, scale, loss)
        upscaler = cls.load(name, device=device, scale=scale, **defaults)
        if loss == "photo" and denoise is not None and denoise < 1:
            upscaler._mix(name.replace("photo", "pixel"), denoise)
        if loss == "auto" and cls.name_at(scale, "pixel", "photo") != name:
            upscaler.cleaner = cls.at_scale(scale, "photo", denoise=denoise, device=device, **defaults)
        return upscaler

    @staticmethod
    def name_at(scale: float, *losses: str) -> str:
        """The name of the shipped network for a scale, with the last one of these losses that there is.

        The losses and the errors are those of `at_scale`; auto means pixel.
        """
        if not isinstance(scale, Real) or not scale > 0:
            raise ConfigError(f"scale is {scale!r}; give a number above 0, such as 2.")
        if losses in (("auto",), ("video",)):
            losses = ("pixel", *losses)
        found: dict[str, dict[int, str]] = {}
        for name in shipped.networks("upscale"):  # x4_pixel ...
            size, _, trained_by = name.removeprefix("x").partition("_")
            found.setdefault(trained_by, {})[int(size)] = name
        if losses[0] not in found:
            known = ", ".join(sorted(found))
            raise ConfigError(f"There is no shipped network with the loss {losses[0]!r}; choose one of {known}.")
        largest = max(found[losses[0]])
        for loss in reversed(losses):
            fitting = [size for size in sorted(found.get(loss, {})) if size >= scale]
            if fitting:
                return found[loss][fitting[0]]
        raise ConfigError(
            f"scale is {scale:g}; the shipped networks with the loss {losses[0]} enlarge up to {largest} times."
        )

    @classmethod
    def _check_denoise(cls, denoise: float, scale: float, loss: str) -> None:
        if loss not in ("auto", "photo"):
            raise ConfigError(f"The network {loss} does not remove noise: leave --denoise out, or give --loss photo.")
        if not isinstance(denoise, Real) or not 0 <= denoise <= 1:
            raise ConfigError(f"denoise is {denoise!r}; give a number from 0 to 1.")
        if "photo" not in cls.name_at(scale, "pixel", "photo"):
            raise ConfigError(f"No network removes noise at scale {scale:g}: leave --denoise out, or enlarge less.")

    def _mix(self, faithful: str, denoise: float) -> None:
        """Mix the weights with those of another network. denoise: the share of this one."""
        other, _ = checkpoints.load(checkpoints.find_network(faithful, task=self.task), task=self.task)
        weights = other.to(self.device).state_dict()
        mixed = {key: torch.lerp(weights[key], own, denoise) for key, own in self.network.state_dict().items()}
        self.network.load_state_dict(mixed)

    def for_picture(self, pixels: Tensor) -> Upscaler:
        """The upscaler for an image (1, 3, H, W), in [0, 1] or uint8 levels: `cleaner` if it looks damaged, or this."""
        return self.cleaner if self.cleaner is not None and damage(pixels) else self

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
        if self.cleaner is not None and (kind := damage(picture)):
            yield Step(0, message=f"This picture looks {kind}: --loss photo is used. --loss pixel does not clean it.")
            yield from self.cleaner.picture(picture, options)
            return
        own = self.network.scale
        if (scale := options.scale or own) > own:
            raise ConfigError(
                f"scale is {scale:.4g}; this network enlarges up to {own} times: "
                f"{'choose one for a larger scale, such as x8_pixel, or ' if scale <= 8 else ''}enlarge twice."
            )
        finished = scale == own and not options.match_histogram
        picture = picture if finished else images.unit(picture)

        def finish(large: Tensor) -> Tensor:
            if (picture == picture[:, :1]).all():  # the network would add colour to a grey image
                large = images.like(images.unit(large).mean(1, keepdim=True).expand(-1, 3, -1, -1), large)
            if not finished:
                large = images.resize(large, size=self.size(picture.shape[-2], picture.shape[-1], options))
            return match_histograms(large, picture) if options.match_histogram else large

        for step in super().picture(picture, options):
            yield step.then(finish)

    def forward_for(self, picture: Tensor, options: UpscaleOptions) -> Callable[[Tensor], Tensor]:
        """The function that calls the network on each tile, in float32, bfloat16, or on a GPU float16.

        In half precision only the part that is added to the bicubic enlargement is computed. Against float32 the
        shipped networks have at least 60 dB then. Pixels in [0, 1] may be those of a file of 16 bits: auto takes
        float32.
        """
        added = self.network.config.output == "bicubic"
        dtype = torch.bfloat16 if options.precision == "bfloat16" else None
        if dtype and not added:
            raise ConfigError("This network adds nothing to a bicubic enlargement: choose --precision float32.")
        if options.precision == "auto" and added and picture.dtype == torch.uint8:
            dtype = half_precision(self.device)
            if self.device.type == "cpu" and faster_in_bfloat16():
                dtype = torch.bfloat16
        if self.device.type == "cpu" and picture.dtype == torch.uint8 and enlarges(self.network):
            return partial(enlarge_bytes, self.network, dtype=dtype)
        return partial(self.forward, dtype=dtype)

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
    # As float64: it truncates whole numbers.
    arrays = [each[0].permute(1, 2, 0).double().cpu().numpy() for each in (image, reference)]
    matched = exposure.match_histograms(*arrays, channel_axis=-1)
    return torch.from_numpy(np.ascontiguousarray(matched)).permute(2, 0, 1)[None].to(image.dtype)
