"""The architectures of loss networks: the layers of each by name, untrained."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Stage = tuple[str, nn.Module]

_VGG_GROUPS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
_VGG_WIDTHS = (64, 128, 256, 512, 512)
_DISTILLED_WIDTHS = (16, 32, 64, 128, 128)
_FIRE_SQUEEZE = (16, 16, 32, 32, 48, 48, 64, 64)  # squeeze channels of fire2 to fire9; the output has 8 times as many


DISTANCE_LAYERS: dict[str, tuple[str, ...]] = {  # layers of perceptual distances: one at each resolution
    "vgg16": ("relu1_2", "relu2_2", "relu3_3"),  # every supported weight file of VGG-16 includes these
    "vgg19": ("relu1_2", "relu2_2", "relu3_4"),
    "vgg19-distilled": ("relu1_2", "relu2_2", "relu3_4", "relu4_4"),
    "squeezenet1_0": ("relu1", "fire3", "fire5", "fire7", "fire9"),
    "squeezenet1_1": ("relu1", "fire3", "fire5", "fire7", "fire9"),
    "alexnet-torchvision": ("relu1", "relu2", "relu3", "relu4", "relu5"),
}


class Fire(nn.Module):
    """The Fire module of SqueezeNet: a 1x1 squeeze, then 1x1 and 3x3 expansions that are concatenated, with ReLU.

    channels, squeeze: input and squeeze channels; the output has 8 * squeeze channels.
    """

    def __init__(self, channels: int, squeeze: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, 4 * squeeze, 1)
        self.expand3x3 = nn.Conv2d(squeeze, 4 * squeeze, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1))


def vgg_stages(name: str) -> list[Stage]:
    """(name, layer) of VGG-16 or VGG-19, untrained: conv1_1, relu1_1, ... pool5. name: "vgg16" or "vgg19"."""
    stages: list[Stage] = []
    channels = 3
    for group, (count, width) in enumerate(zip(_VGG_GROUPS[name], _VGG_WIDTHS, strict=True), start=1):
        for index in range(1, count + 1):
            stages.append((f"conv{group}_{index}", nn.Conv2d(channels, width, 3, padding=1)))
            stages.append((f"relu{group}_{index}", nn.ReLU()))
            channels = width
        stages.append((f"pool{group}", nn.MaxPool2d(2)))
    return stages


def distilled_stages(name: str) -> list[Stage]:
    """(name, layer) of the distilled VGG-19, untrained, up to relu5_1 (Wang et al., CVPR 2020).

    It has a quarter of the channels of VGG-19, and reflection padding.
    """
    stages: list[Stage] = [("conv0", nn.Conv2d(3, 3, 1))]
    channels = 3
    for group, (count, width) in enumerate(zip((2, 2, 4, 4, 1), _DISTILLED_WIDTHS, strict=True), start=1):
        for index in range(1, count + 1):
            conv = nn.Conv2d(channels, width, 3, padding=1, padding_mode="reflect")
            stages += [(f"conv{group}_{index}", conv), (f"relu{group}_{index}", nn.ReLU())]
            channels = width
        if group < 5:
            stages.append((f"pool{group}", nn.MaxPool2d(2)))
    return stages


def squeezenet_stages(name: str) -> list[Stage]:
    """(name, layer) of SqueezeNet 1.0 or 1.1, untrained: conv1, relu1, pool1, fire2 ... fire9.

    Pools round the output size up, as in Caffe. name: "squeezenet1_0" or "squeezenet1_1".
    """
    older = name == "squeezenet1_0"
    stages: list[Stage] = [("conv1", nn.Conv2d(3, 96, 7, 2) if older else nn.Conv2d(3, 64, 3, 2)), ("relu1", nn.ReLU())]
    pools = {
        "relu1": "pool1",
        **({"fire4": "pool4", "fire8": "pool8"} if older else {"fire3": "pool3", "fire5": "pool5"}),
    }
    channels = 96 if older else 64
    for index, squeeze in enumerate(_FIRE_SQUEEZE, start=2):
        if stages[-1][0] in pools:
            stages.append((pools[stages[-1][0]], nn.MaxPool2d(3, 2, ceil_mode=True)))
        stages.append((f"fire{index}", Fire(channels, squeeze)))
        channels = 8 * squeeze
    return stages


def alexnet_stages(name: str) -> list[Stage]:
    """(name, layer) of AlexNet, untrained: conv1, relu1, ... pool5. It is torchvision's variant (Krizhevsky, 2014)."""
    widths = ((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1))
    stages: list[Stage] = []
    for index, (channels, filters, kernel, stride, padding) in enumerate(widths, start=1):
        convolution = nn.Conv2d(channels, filters, kernel, stride, padding)
        stages += [(f"conv{index}", convolution), (f"relu{index}", nn.ReLU())]
        if index in (1, 2, 5):
            stages.append((f"pool{index}", nn.MaxPool2d(3, 2)))
    return stages


ARCHITECTURES: dict[str, Callable[[str], list[Stage]]] = {
    "vgg16": vgg_stages,
    "vgg19": vgg_stages,
    "vgg19_distilled": distilled_stages,
    "squeezenet1_0": squeezenet_stages,
    "squeezenet1_1": squeezenet_stages,
    "alexnet": alexnet_stages,
}


def smallest_side(stages: Sequence[Stage]) -> int:
    """The smallest side for which every stage yields at least one pixel and every reflection padding fits."""

    def _int(size: int | tuple[int, ...]) -> int:
        return size if isinstance(size, int) else size[0]

    def after(side: int, stage: nn.Module) -> int:
        if isinstance(stage, nn.Conv2d):
            size, pad, step = stage.kernel_size[0], int(stage.padding[0]), stage.stride[0]
            reflects = stage.padding_mode == "reflect"  # reflection by `pad` needs more than `pad` pixels
            return 0 if reflects and side <= pad else (side + 2 * pad - size) // step + 1
        if isinstance(stage, nn.MaxPool2d):
            window, stride = _int(stage.kernel_size), _int(stage.stride)
            return (side - window + (stride - 1 if stage.ceil_mode else 0)) // stride + 1
        return side

    def at_end(side: int) -> int:
        for _, stage in stages:
            side = after(side, stage) if side > 0 else 0
        return side

    return next(side for side in itertools.count(1) if at_end(side) > 0)
