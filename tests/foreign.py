"""The networks of other programs, as their own code builds them, with random weights.

Each is written anew from the papers and from the names of the tensors in their files.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Padded(nn.Module):
    """Reflection padding, then a convolution, under the names of pytorch/examples."""

    def __init__(self, channels: int, filters: int, kernel: int, stride: int = 1, doubles: bool = False) -> None:
        super().__init__()
        self.doubles, self.pad = doubles, nn.ReflectionPad2d(kernel // 2)
        self.conv2d = nn.Conv2d(channels, filters, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2d(self.pad(F.interpolate(x, scale_factor=2, mode="nearest") if self.doubles else x))


class Residual(nn.Module):
    def __init__(self, channels: int, tracked: bool) -> None:
        super().__init__()
        self.conv1, self.conv2 = Padded(channels, channels, 3), Padded(channels, channels, 3)
        self.in1, self.in2 = (nn.InstanceNorm2d(channels, affine=True, track_running_stats=tracked) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.in2(self.conv2(F.relu(self.in1(self.conv1(x)))))


class TransformerNet(nn.Module):
    """The style network of pytorch/examples. It reads and writes levels 0..255.

    tracked: with running_mean and running_var among the tensors, as PyTorch 0.3 wrote them; they are not used.
    """

    def __init__(self, widths: tuple[int, int, int] = (8, 12, 16), blocks: int = 2, tracked: bool = False) -> None:
        super().__init__()
        a, b, c = widths
        self.conv1, self.conv2, self.conv3 = Padded(3, a, 9), Padded(a, b, 3, 2), Padded(b, c, 3, 2)
        self.deconv1, self.deconv2, self.deconv3 = Padded(c, b, 3, 1, True), Padded(b, a, 3, 1, True), Padded(a, 3, 9)
        self.blocks = blocks
        for k in range(1, blocks + 1):
            self.add_module(f"res{k}", Residual(c, tracked))
        for k, width in enumerate((a, b, c, b, a), start=1):
            self.add_module(f"in{k}", nn.InstanceNorm2d(width, affine=True, track_running_stats=tracked))
        for name, value in self.named_parameters():
            if ".in" in f".{name}":
                nn.init.uniform_(value, 0.5, 1.5) if name.endswith("weight") else nn.init.uniform_(value, -0.5, 0.5)
        nn.init.constant_(self.deconv3.conv2d.bias, 128.0)
        self.deconv3.conv2d.weight.data *= 40  # so that the painting uses the whole range of 0..255

    def forward(self, x: Tensor) -> Tensor:
        for k in (1, 2, 3):
            x = F.relu(getattr(self, f"in{k}")(getattr(self, f"conv{k}")(x)))
        for k in range(1, self.blocks + 1):
            x = getattr(self, f"res{k}")(x)
        for k in (1, 2):
            x = F.relu(getattr(self, f"in{k + 3}")(getattr(self, f"deconv{k}")(x)))
        return self.deconv3(x)

    def painted(self, photo: Tensor) -> Tensor:
        """(1, 3, H, W) uint8 levels -> the painting in levels, clamped to 0..255 and cut to the photo's size."""
        for module in self.modules():
            if isinstance(module, nn.InstanceNorm2d):
                module.track_running_stats, module.running_mean, module.running_var = False, None, None
        with torch.no_grad():
            return self(photo.float()).clamp(0, 255)[..., : photo.shape[-2], : photo.shape[-1]]
