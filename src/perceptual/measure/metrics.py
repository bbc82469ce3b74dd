"""How far a picture is from the true one: PSNR and SSIM as super-resolution reports them, and perceptual distances.

The protocol (Dong et al. and MATLAB's rgb2ycbcr; the paper, section 4.2): 8-bit levels rounded half up, the Y channel
of YCbCr in 16..235 kept as a float, a border of `scale` pixels left out, peak 255, and the mean of the images' values.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from perceptual import images
from perceptual.errors import ConfigError, ImageError, WeightsError
from perceptual.functional import Array, luma, normalised_distance
from perceptual.losses.networks import LossNetworks, check_image, distance_layers
from perceptual.losses.weights import read_tensors
from perceptual.motion import Flow, carry, visible
from perceptual.resampling import gaussian_mean

_BYTES = torch.empty(0, dtype=torch.uint8)
Color = Literal["y", "rgb"]

LPIPS_LAYERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "vgg16-torchvision": ("vgg", ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")),
    "squeezenet1_1-torchvision": ("squeeze", ("relu1", "fire3", "fire5", "fire6", "fire7", "fire8", "fire9")),
}


def y_channel(image: Tensor) -> Tensor:
    """MATLAB's Y of YCbCr: RGB (N, 3, H, W) in [0, 1] -> (N, 1, H, W) in 16..235, ITU-R BT.601, not rounded.

    Raises:
        TypeError: no tensor of floats. ImageError: of another shape.
    """
    check_image(image)
    weights = image.new_tensor([65.481, 128.553, 24.966]).view(1, 3, 1, 1)
    return 16 + (image * weights).sum(dim=1, keepdim=True)


def psnr(output: object, target: object, *, border: int = 0, color: Color = "y") -> float:
    """Peak signal-to-noise ratio in dB, the mean over the images of a batch; infinite when they are equal.

    output, target: any kinds of picture that `perceptual.Stylizer` takes, of equal size. Floats are rounded half up to
        8-bit levels first. A grey target (mode L, one channel) is taken as it is, a coloured output's luma with it.
    border: pixels left out on each side; super-resolution leaves out as many as its scale.
    color: "y", or "rgb", the squared error over all three channels.

    Raises:
        ImageError: not pictures, of different sizes, or nothing is left within the border. ConfigError: unknown color,
            or a border that is no whole number from 0 up.
    """
    one, other = _levels(output, target, border=border, color=color)
    errors = (one - other).square().mean(dim=(1, 2, 3))
    return float((10 * torch.log10(255**2 / errors)).mean())


def ssim(output: object, target: object, *, border: int = 0, color: Color = "y") -> float:
    """Structural similarity (Wang et al., 2004), the mean over the images of a batch; 1 when they are equal.

    A Gaussian window of 11 x 11 and sigma 1.5 where it fits whole, K1 = 0.01, K2 = 0.03, L = 255, in float64, without
    down-sampling: the authors' ssim_index.m. Parameters and errors as `psnr`.

    Raises:
        ImageError: also when less than 11 x 11 pixels are left within the border.
    """
    one, other = _levels(output, target, border=border, color=color)
    if min(one.shape[-2:]) < 11:
        raise ImageError(f"SSIM needs 11 x 11 pixels, and {one.shape[-1]} x {one.shape[-2]} are left: give more.")
    products = torch.cat([one, other, one * one, other * other, one * other], dim=1)
    mean_1, mean_2, square_1, square_2, product = gaussian_mean(products, 1.5, 5).chunk(5, dim=1)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    covariance = product - mean_1 * mean_2
    variances = square_1 - mean_1**2 + square_2 - mean_2**2
    index = (2 * mean_1 * mean_2 + c1) * (2 * covariance + c2)
    return float((index / ((mean_1**2 + mean_2**2 + c1) * (variances + c2))).mean(dim=(1, 2, 3)).mean())


class PerceptualDistance(nn.Module):
    """How different two pictures look to a loss network; 0 for equal ones, and less is closer.

    At each layer the features are scaled to length 1 at every place, and their squared difference is summed over the
    channels and averaged over the places (Zhang et al., 2018, eq. 1, without learned weights); then the mean over the
    layers.

    Args:
        network: a loss network, such as "vgg16" or "squeezenet1_1".
        layers: the layers to compare; some at each size of the network when left out.
        paths: weight files by network name, for those that are not in the cache.

    Raises:
        ConfigError: no such network or layer. WeightsError: its weights are missing.
    """

    def __init__(
        self, network: str = "vgg16", layers: Sequence[str] = (), *, paths: Mapping[str, str | Path] | None = None
    ) -> None:
        super().__init__()
        self.layers = [f"{network}:{layer}" for layer in layers] or distance_layers(network)
        self.networks = LossNetworks(self.layers, paths=paths)
        self.share = 1 / len(self.layers)

    @classmethod
    def lpips(
        cls, network: str = "vgg16-torchvision", *, paths: Mapping[str, str | Path] | None = None
    ) -> PerceptualDistance:
        """LPIPS 0.1 (Zhang et al., 2018): the distance with the weights of channels that the package `lpips` brings.

        network: vgg16-torchvision or squeezenet1_1-torchvision, the networks that those weights were learnt for.

        Raises:
            ConfigError: another network, or the package is not installed. WeightsError: weights are missing.
        """
        if network not in LPIPS_LAYERS:
            raise ConfigError(f"LPIPS knows no network {network!r}; choose one of {', '.join(LPIPS_LAYERS)}.")
        name, layers = LPIPS_LAYERS[network]
        package = find_spec("lpips")
        if package is None or not package.submodule_search_locations:
            raise ConfigError("LPIPS needs its package: pip install 'perceptual[lpips]'.")
        file = Path(package.submodule_search_locations[0]) / "weights" / "v0.1" / f"{name}.pth"
        if not os.path.isfile(file):
            raise WeightsError(f"{file} is not there: install the package lpips again.")
        learnt = read_tensors(file)
        found = [learnt.get(f"lin{k}.model.1.weight") for k in range(len(layers))]
        channels = [value for value in found if isinstance(value, Tensor)]
        if len(channels) < len(layers):
            raise WeightsError(f"{file} does not hold the weights of LPIPS: install the package lpips again.")
        distance = cls(network, layers, paths=paths)
        for k, value in enumerate(channels):
            distance.register_buffer(f"channels{k}", value, persistent=False)  # the package's file holds them
        distance.share = 1.0
        return distance

    @torch.no_grad()
    def forward(self, output: object, target: object) -> float:
        """output, target: pictures of any kind and equal size. The mean over the images of a batch."""
        device = next(self.networks.parameters()).device
        pictures = [images.from_any(image).to(device) for image in (output, target)]
        _check_sizes(*pictures)
        one, other = (self.networks(picture) for picture in pictures)
        total = torch.zeros(())
        for k, layer in enumerate(self.layers):
            channels = getattr(self, f"channels{k}", None)
            total = total + self.share * normalised_distance(one[layer], other[layer], channels).mean().cpu()
        return float(total)


def temporal_error(
    frames: Iterable[object], paintings: Iterable[object], *, motion: Iterable[Tensor] | None = None
) -> float:
    """How much a film flickers: the difference of each painting from the one before, moved along with the picture.

    The root of the mean square over what is visible in both, in levels of 0..255, and its mean over the film (the
    stability error of Huang et al., 2017, and the warping error of Lai et al., 2018, squared there); 0 for a painting
    that moves with the picture.

    frames, paintings: pictures of equal size, of any kind that `perceptual.Stylizer` takes, in order, two or more.
    motion: where each pixel of a frame was in the one before, (H, W, 2) as x and y in pixels, for every frame but the
        first, where that is known; else it is found in the frames.

    Raises:
        ImageError: not pictures, batches of several, of different sizes, fewer than two, or no pixel is visible in two
            frames.
    """
    flow, given = Flow(), None if motion is None else _known(motion)
    before: Tensor | None = None
    errors = []
    for count, (frame, painting) in enumerate(itertools.zip_longest(frames, paintings), 1):
        if frame is None or painting is None:
            raise ImageError("There are more frames than paintings, or fewer: give one painting for each frame.")
        pixels, painted = (_picture_of_film(image, count) for image in (frame, painting))
        _check_sizes(pixels, painted)
        found = flow(pixels) if given is None else next(given)
        if found is not None and before is not None:
            places, trust = found
            _check_sizes(painted, before)
            if places.shape != (*painted.shape[-2:], 2):
                raise ImageError(f"The motion has the shape {places.shape}: give (H, W, 2) for frames of H x W px.")
            seen = torch.from_numpy(trust > 0.99)
            difference = (painted.float() - carry(before, places).float())[0, :, seen]
            if difference.numel():
                errors.append(float(difference.square().mean().sqrt()))
        before = painted
    if not errors:
        raise ImageError("Nothing is visible in two frames: give at least two frames of one film, of one size.")
    return sum(errors) / len(errors)


def _picture_of_film(image: object, count: int) -> Tensor:
    """Any kind of picture as levels (1, 3, H, W) on the CPU."""
    pixels = images.like(images.from_any(image), _BYTES).cpu()
    if len(pixels) != 1:
        raise ImageError(f"A film is given one picture after the other, and picture {count} is a batch of "
                         f"{len(pixels)}: give its pictures one by one.")  # fmt: skip
    return pixels


def _known(motion: Iterable[Tensor]) -> Iterator[tuple[Array, Array] | None]:
    """What `Flow` would give for the frames of a film of known motion."""
    yield None
    for places in motion:
        array = places.float().cpu().numpy()
        yield array, visible(array)
    raise ImageError("There are more frames than motions: give one for every frame but the first.")


def _levels(output: object, target: object, *, border: int, color: Color) -> tuple[Tensor, Tensor]:
    """Both as 8-bit levels (N, 1 or 3, h, w) in float64, Y where wanted, without the border."""
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
        raise ImageError(f"Nothing is left of {width} x {height} px within a border of {border}: give a smaller one.")
    one, other = (p[..., border : height - border, border : width - border] for p in pair)
    return one, other


def _check_sizes(one: Tensor, other: Tensor) -> None:
    if one.shape != other.shape:
        sizes = " and ".join(f"{image.shape[-1]} x {image.shape[-2]}" for image in (one, other))
        raise ImageError(f"The pictures differ in size or number ({sizes} px): compare pictures of one size.")
