"""Image metrics: PSNR and SSIM as in the super-resolution literature, perceptual distances, and flicker of videos.

The protocol (Dong et al. and MATLAB's rgb2ycbcr; the paper, section 4.2): pixels are rounded half up to 8-bit levels,
the Y channel of YCbCr in 16..235 is kept as a float, a border of `scale` pixels is left out, the peak is 255, and the
values of several images are averaged.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from perceptual import images
from perceptual.errors import ConfigError, ImageError
from perceptual.functional import Array, luma
from perceptual.losses import LPIPS, DistanceLoss
from perceptual.losses.base import Reduction
from perceptual.losses.inputs import check_image
from perceptual.losses.ssim import WINDOW, similarity
from perceptual.motion import Flow, carry, visible

_BYTES = torch.empty(0, dtype=torch.uint8)
Color = Literal["y", "rgb"]


def y_channel(image: Tensor) -> Tensor:
    """MATLAB's Y of YCbCr: RGB (N, 3, H, W) in [0, 1] -> (N, 1, H, W) in 16..235, ITU-R BT.601, not rounded.

    Raises:
        TypeError: not a tensor of floats. ImageError: the shape is not (N, 3, H, W).
    """
    check_image(image)
    weights = image.new_tensor([65.481, 128.553, 24.966]).view(1, 3, 1, 1)
    return 16 + (image * weights).sum(dim=1, keepdim=True)


def psnr(output: object, target: object, *, border: int = 0, color: Color = "y") -> float:
    """Peak signal-to-noise ratio in dB, the mean over the images of a batch; infinite for equal images.

    output, target: images of equal size, of any kind that `perceptual.Stylizer` accepts. Floats are first rounded half
        up to 8-bit levels. If the target is grey (mode L, one channel), it is compared with the luma of the output.
    border: number of pixels to leave out on each side. In super-resolution it equals the scale.
    color: "y" (the Y channel) or "rgb" (squared error over all three channels).

    Raises:
        ImageError: an argument is not an image, the sizes differ, or the border leaves no pixels.
        ConfigError: `color` is unknown, or `border` is not a whole number of 0 or more.
    """
    one, other = _levels(output, target, border=border, color=color)
    errors = (one - other).square().mean(dim=(1, 2, 3))
    return float((10 * torch.log10(255**2 / errors)).mean())


def ssim(output: object, target: object, *, border: int = 0, color: Color = "y") -> float:
    """Structural similarity (Wang et al., 2004), the mean over the images of a batch; 1 for equal images.

    As in the authors' ssim_index.m: a Gaussian window of 11 x 11 pixels with sigma 1.5, only where it fits completely,
    K1 = 0.01, K2 = 0.03, L = 255, without down-sampling; computed in float64. The parameters are those of `psnr`.

    Raises:
        ImageError: as `psnr`, and if fewer than 11 x 11 pixels are left inside the border.
    """
    one, other = _levels(output, target, border=border, color=color)
    if min(one.shape[-2:]) < WINDOW:
        raise ImageError(f"SSIM needs at least 11 x 11 pixels, not {one.shape[-1]} x {one.shape[-2]}: give a larger "
                         "image or a smaller border.")  # fmt: skip
    return float(similarity(one, other, 255)[0].mean())


class PerceptualDistance(nn.Module):
    """Perceptual distance of two images in a loss network: 0 for equal images; smaller means more similar.

    It is `DistanceLoss`, for images of any kind: normalised features, compared at several layers (Zhang et al., 2018).
    The result is a tensor. Gradients flow to images that are tensors.

    Args:
        network: a loss network, such as "vgg16" or "squeezenet1_1", or a term, such as `LPIPS("alex")`.
        layers: the layers to compare; default: one layer at each resolution of the network.
        paths: weight files by network name, for networks that are not in the cache.
        reduction: "mean" over the images of a batch, "sum", or "none": one distance per image, (N,). Unused for a term.

    Raises:
        ConfigError: there is no such network, layer or reduction. WeightsError: the weights are missing.
    """

    def __init__(
        self,
        network: str | DistanceLoss = "vgg16",
        layers: Sequence[str] = (),
        *,
        paths: Mapping[str, str | Path] | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if not isinstance(network, DistanceLoss):
            network = DistanceLoss(network, layers, reduction=reduction, paths=paths)
        self.term = network.load()
        self.layers = list(self.term.layers)

    @classmethod
    def lpips(
        cls,
        network: str = "alex",
        *,
        paths: Mapping[str, str | Path] | None = None,
        reduction: Reduction = "mean",
    ) -> PerceptualDistance:
        """LPIPS 0.1 (Zhang et al., 2018): the distance with the learned channel weights of the package `lpips`.

        network: "alex", "vgg" or "squeeze"; also by the names of the loss networks, such as vgg16-torchvision.
        paths, reduction: as of the class; "lpips" is the name of the learned weights, see `LPIPS`.

        Raises:
            ConfigError: another network. WeightsError: weights are missing.
        """
        return cls(LPIPS(network, reduction=reduction, paths=paths))

    def forward(self, output: object, target: object) -> Tensor:
        """The distance of two images of equal size and of any kind: a scalar, or (N,) for reduction "none".

        Raises:
            ImageError: an argument is not an image, or the sizes differ.
        """
        device = self.term.reference.device
        one, other = (images.from_any(image).to(device) for image in (output, target))
        _check_sizes(one, other)
        distance: Tensor = self.term(one, other)
        return distance


def temporal_error(
    frames: Iterable[object], paintings: Iterable[object], *, motion: Iterable[Tensor] | None = None
) -> float:
    """Flicker of a painted video: the difference between each painted frame and the one before, warped by the motion.

    The root mean square over the pixels that are visible in both frames, in levels of 0..255, averaged over the video.
    It is the stability error of Huang et al. (2017) and the square root of the warping error of Lai et al. (2018). It
    is 0 if the painting moves exactly with the video.

    frames, paintings: the original and the painted frames in order, two or more, of equal size and of any kind that
        `perceptual.Stylizer` accepts.
    motion: the known motion for every frame except the first: (H, W, 2), position (x, y) in pixels of each pixel in
        the frame before. By default it is estimated from the frames.

    Raises:
        ImageError: an argument is not an image or is a batch of several images, the sizes differ, there are fewer than
            two frames, or no pixel is visible in two frames; or the motion has another shape or length.
    """
    flow, given = Flow(), None if motion is None else iter(motion)
    before: Tensor | None = None
    errors = []
    for count, (frame, painting) in enumerate(itertools.zip_longest(frames, paintings), 1):
        if frame is None or painting is None:
            raise ImageError("The numbers of frames and paintings differ: give one painting for each frame.")
        pixels, painted = (_frame_levels(image, count) for image in (frame, painting))
        _check_sizes(pixels, painted)
        found = flow(pixels) if given is None else _known(next(given, None), pixels) if count > 1 else None
        if found is not None and before is not None:
            places, trust = found
            _check_sizes(painted, before)
            seen = torch.from_numpy(trust > 0.99)
            difference = (painted.float() - carry(before, places).float())[0, :, seen]
            if difference.numel():
                errors.append(float(difference.square().mean().sqrt()))
        before = painted
    if given is not None and next(given, None) is not None:
        raise ImageError("There are more motions than frames: give one for every frame except the first.")
    if not errors:
        raise ImageError("No pixel is visible in two frames: give at least two frames of one video, of one size.")
    return sum(errors) / len(errors)


def _frame_levels(image: object, count: int) -> Tensor:
    """Any kind of image as uint8 levels (1, 3, H, W) on the CPU. count: number of the frame, for the error message."""
    pixels = images.like(images.from_any(image), _BYTES).cpu()
    if len(pixels) != 1:
        raise ImageError(f"Frame {count} is a batch of {len(pixels)} images: give the frames one by one.")
    return pixels


def _known(motion: Tensor | None, frame: Tensor) -> tuple[Array, Array]:
    """The result that `Flow` would give for a frame of known motion."""
    if motion is None:
        raise ImageError("There are more frames than motions: give one motion for every frame except the first.")
    array = torch.as_tensor(motion).float().cpu().numpy()
    if array.shape != (*frame.shape[-2:], 2):
        raise ImageError(f"The motion has the shape {array.shape}: give (H, W, 2) for frames of H x W px.")
    return array, visible(array)


def _levels(output: object, target: object, *, border: int, color: Color) -> tuple[Tensor, Tensor]:
    """Both images as 8-bit levels (N, 1 or 3, h, w) in float64 without the border; the Y channel if color is "y"."""
    if color not in ("y", "rgb"):
        raise ConfigError(f"color is {color!r}; choose y or rgb.")
    if not isinstance(border, (int, np.integer)):
        raise ConfigError(f"border is {border!r}; give a whole number of pixels, such as 4.")
    if border < 0:
        raise ConfigError(f"border is {border}; give 0 or more pixels.")
    pair = []
    grey = images.is_grey(target)
    for image in (output, target):
        rounded = (images.from_any(image).cpu().double() * 255 + 0.5).floor() / 255
        if grey:
            rounded = rounded[:, :1] if images.is_grey(image) else luma(rounded)
        pair.append(y_channel(rounded) if color == "y" and not grey else rounded * 255)
    _check_sizes(*pair)
    height, width = pair[0].shape[-2:]
    if min(height, width) <= 2 * border:
        raise ImageError(f"A border of {border} px leaves no pixels of {width} x {height} px: give a smaller border.")
    one, other = (p[..., border : height - border, border : width - border] for p in pair)
    return one, other


def _check_sizes(one: Tensor, other: Tensor) -> None:
    if one.shape != other.shape:
        sizes = " and ".join(f"{len(each)} of {each.shape[-1]} x {each.shape[-2]} px" for each in (one, other))
        raise ImageError(f"The images differ in size or number ({sizes}): compare images of one size.")
