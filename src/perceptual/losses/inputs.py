"""Checks of the arguments of losses: images, pairs of images, weights of styles."""

from __future__ import annotations

import torch
from torch import Tensor

from perceptual.errors import ConfigError, ImageError

PICTURES = (-1.0, 2.0)  # accepted values of images; bicubic interpolation can slightly exceed [0, 1]
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
        fix = fix if image.numel() else "it has no pixels; skip empty batches"
        raise ImageError(f"The {name} has the shape {tuple(image.shape)}, not (N, 3, H, W): {fix}.")
    if limits is None or image.is_meta:
        return
    low, high = (float(value) for value in image.detach().aminmax())
    if low < limits[0] or high > limits[1]:
        raise ImageError(
            f"The {name} has values from {low:g} to {high:g}: give values in [0, 1]; divide pixels of 0..255 by 255."
        )


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
    if len(target) not in (1, len(output)):
        fix = f"1 or {len(output)}" if len(output) > 1 else "1 target"
        raise ConfigError(f"{len(target)} targets do not fit {len(output)} outputs: give {fix}.")
    return target


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
