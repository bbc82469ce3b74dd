"""Checks of the arguments of losses: images, pairs of images, weights of styles."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from perceptual.errors import ConfigError, ImageError

PICTURES = (-0.5, 1.5)  # accepted values of images: bicubic interpolation exceeds [0, 1], by less than 0.45
OUTPUTS = (-16.0, 16.0)  # accepted values of the output of a network, which may be untrained


def check_image(image: object, name: str = "image", limits: tuple[float, float] | None = None) -> None:
    """Check an input of a loss or a loss network: a tensor of floats, (N, 3, H, W), RGB [0, 1].

    name: name of the image in the error message. limits: smallest and largest accepted value, to detect pixels of
        0..255. On a GPU, checking the values waits for the GPU.

    Raises:
        TypeError: not a tensor of floats. ImageError: wrong shape, or values outside the limits.
    """
    if not isinstance(image, Tensor) or not image.is_floating_point():
        kind = str(image.dtype) if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(
            f"The {name} is of type {kind}: give a tensor of floats in [0, 1], such as levels.float() / 255."
        )
    if image.ndim != 4 or image.shape[1] != 3 or not image.numel():
        fix = "for a single image give image[None]" if image.ndim == 3 else "give RGB images"
        fix = "for grey images give image.expand(-1, 3, -1, -1)" if image.ndim == 4 and image.shape[1] == 1 else fix
        fix = fix if image.numel() else "it has no pixels; skip empty batches"
        raise ImageError(f"The {name} has the shape {tuple(image.shape)}, not (N, 3, H, W): {fix}.")
    if limits is None or image.is_meta:
        return
    try:
        low, high = (float(value) for value in image.detach().aminmax())
    except RuntimeError:  # inside torch.func.vmap no value can be read
        return
    if math.isnan(low):
        raise ImageError(f"The {name} has values that are not numbers (NaN): replace them first.")
    if low < limits[0] or high > limits[1]:
        signed = low >= -1 and high <= 1
        fix = "for images in [-1, 1] give (image + 1) / 2" if signed else "divide pixels of 0..255 by 255"
        raise ImageError(f"The {name} has values from {low:g} to {high:g}: give values in [0, 1]; {fix}.")


def check_target(output: Tensor, target: object) -> Tensor:
    """Check that a target fits an output (N, 3, H, W): (N, 3, H, W) or (1, 3, H, W). Returns the target.

    Raises:
        TypeError: not a tensor of floats. ConfigError: there is no target, or its size or number is wrong.
        ImageError: as `check_image`.
    """
    if target is not None:
        check_image(target, "target")
    if not isinstance(target, Tensor):
        raise ConfigError("The losses need a target: give an image of the same height and width as the output.")
    if target.shape[-2:] != output.shape[-2:]:
        sizes = ["{1} x {0} px".format(*image.shape[-2:]) for image in (target, output)]
        raise ConfigError(
            f"The target is {sizes[0]}, but the output is {sizes[1]}: "
            "give an image of the same height and width as the output."
        )
    check_number(len(target), len(output))
    return target


def check_number(targets: int, outputs: int) -> None:
    """Check that so many targets fit so many outputs: 1, or as many.

    Raises:
        ConfigError: another number.
    """
    if targets not in (1, outputs):
        fix = f"1 or {outputs}" if outputs > 1 else "1 target"
        raise ConfigError(f"{targets} targets do not fit {outputs} outputs: give {fix}.")


def check_style(style: Tensor | None, count: int, styles: int) -> None:
    """Check the weights of styles for `count` outputs: (count, styles), (1, styles), or None.

    Raises:
        ConfigError: another shape.
    """
    if style is not None and tuple(style.shape) not in ((count, styles), (1, styles)):
        raise ConfigError(f"The style weights have the shape {tuple(style.shape)}: give ({count}, {styles}), a row "
                          "for each output and a column for each style.")  # fmt: skip


class ValueCheck:
    """`check_image` with limits for the values, but not at every call, because it takes time in a training loop.

    The values of outputs, and of all images on a GPU, are checked only at the first call, because the check has to wait
    for the GPU. Other images are checked at each call. In a compiled model, no values are checked.
    """

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def __call__(self, image: Tensor, name: str, limits: tuple[float, float]) -> None:
        check_image(image, name)
        if torch.compiler.is_compiling():
            return
        if name not in self.seen or (name != "output" and image.device.type == "cpu"):
            check_image(image, name, limits)
            self.seen.add(name)
