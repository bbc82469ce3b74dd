"""The layers of a TransformationNetwork: normalisation, convolutions and blocks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from perceptual.functional import mix
from perceptual.networks.architecture import Layer


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes. Each process gets the gradients of all."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _add(gradients[0])


def _add(value: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
    return total


class BatchNorm(nn.BatchNorm2d):
    """Spatial batch normalisation, as in the paper. It ignores the style.

    If several processes train a network, the statistics are those of the images of all processes. All must call it.
    `torch.nn.SyncBatchNorm` does the same on GPUs only.
    """

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        launched = self.training and distributed.is_available() and distributed.is_initialized()
        if launched and (processes := distributed.get_world_size()) > 1:
            return self._by_all(x.float(), processes).to(x.dtype)
        return super().forward(x)

    def _by_all(self, x: Tensor, processes: int) -> Tensor:
        """x: the images of this process (N, C, H, W), as many as in the other processes."""
        mean = _add(x.mean((0, 2, 3))) / processes
        centred = x - mean[:, None, None]
        variance = _add(centred.square().mean((0, 2, 3))) / processes
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            values = processes * x.numel() / len(mean)
            unbiased = variance.detach() * values / max(1, values - 1)  # as in nn.BatchNorm2d
            momentum = 0.1 if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.detach(), momentum)
            self.running_var.lerp_(unbiased, momentum)
            self.num_batches_tracked += 1
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return centred * scale[:, None, None] + self.bias[:, None, None]


class InstanceNorm(nn.Module):
    """Instance normalisation with one gamma and beta per channel *and style* (Dumoulin et al., 2017).

    With one style it is the instance normalisation of Ulyanov et al. (2016). The statistics are computed for each image
    separately, also after training, and always in float32.
    """

    def __init__(self, channels: int, styles: int = 1, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(styles, channels))
        self.bias = nn.Parameter(torch.zeros(styles, channels))
        self.eps = eps

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        """x: (N, C, H, W); style: (N, styles) weights that sum to 1, or None for the first style."""
        weight, bias = self.weight[:1], self.bias[:1]
        if style is not None:
            weight, bias = mix(style, self.weight), mix(style, self.bias)
        traced = torch.compiler.is_compiling() or isinstance(x.shape[0], Tensor)  # a trace would keep the batch size
        if x.is_cpu and x.dtype in (torch.float32, torch.bfloat16) and not traced:
            return self._by_batch_norm(x, weight.expand(len(x), -1), bias.expand(len(x), -1))
        variance, mean = torch.var_mean(x.float(), (2, 3), correction=0)
        scale = weight * torch.rsqrt(variance + self.eps)
        shift = bias - mean * scale
        if not (traced or torch.is_grad_enabled()):  # one pass that reads and writes half precision
            return torch.addcmul(shift[..., None, None], x, scale[..., None, None], out=torch.empty_like(x))
        return (x.float() * scale[..., None, None] + shift[..., None, None]).to(x.dtype)

    def _by_batch_norm(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The same, one image at a time. On a CPU, batch norm keeps channels_last and is fused in both directions."""
        rows = zip(torch.split(x, 1), weight, bias, strict=True)
        done = [torch.batch_norm(i, w, b, None, None, True, 0.0, self.eps, False) for i, w, b in rows]
        return done[0] if len(done) == 1 else torch.cat(done)


def reflected(x: Tensor, width: int) -> Tensor:
    """(N, C, H, W) with `width` reflected pixels around it, as F.pad gives it, put together from pieces.

    On a GPU the gradient of F.pad adds single values in any order, which is slow in half precision.
    """
    for axis in (2, 3):
        before = x.narrow(axis, 1, width).flip(axis)
        after = x.narrow(axis, x.shape[axis] - width - 1, width).flip(axis)
        x = torch.cat([before, x, after], axis)
    return x


class ConvolutionLayer(nn.Module):
    """Padding, convolution, normalisation and ReLU.

    The convolution may have stride 1/2, follow a doubling of the size, or be followed by a pixel shuffle.
    """

    def __init__(self, channels: int, layer: Layer, padding: str, norm: nn.Module | None, relu: bool = True) -> None:
        super().__init__()
        self.doubling = {"U": "nearest", "B": "bilinear"}.get(layer.kind)
        self.shuffle = layer.grow if layer.kind == "s" else 1
        self.norm = norm
        self.relu = relu
        around = (layer.kernel - 1) // 2
        self.same = padding == "same"
        inside = padding in ("zero", "none", "same") or layer.kind == "u"
        self.pad_mode, self.pad = ("", 0) if inside else (padding, around)
        if layer.kind == "u":
            cut = 0 if self.same else 1
            self.conv: nn.Module = nn.ConvTranspose2d(channels, layer.filters, 3, 2, padding=cut, output_padding=cut)
            fan_in = channels * 9  # as in Torch7; PyTorch's default would use the number of filters instead
        else:
            inner = around if padding == "zero" else 0
            filters = layer.filters * self.shuffle**2
            self.conv = nn.Conv2d(channels, filters, layer.kernel, layer.stride, padding=inner)
            fan_in = channels * layer.kernel**2
        for parameter in self.conv.parameters():
            nn.init.uniform_(parameter, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        if self.doubling:
            x = F.interpolate(x, scale_factor=2, mode=self.doubling)
        if self.pad:
            pieces = self.pad_mode == "reflect" and x.is_cuda and torch.is_grad_enabled()
            x = reflected(x, self.pad) if pieces else F.pad(x, (self.pad,) * 4, mode=self.pad_mode)
        x = self._same(x) if self.same else self.conv(x)
        if self.shuffle > 1:
            x = F.pixel_shuffle(x, self.shuffle)
        if self.norm is not None:
            x = self.norm(x, style)
        return F.relu(x) if self.relu else x

    def _same(self, x: Tensor) -> Tensor:
        """The convolution with TensorFlow's padding SAME: an odd row of zeros is below, and not above."""
        (kernel, _), (stride, _) = self.conv.kernel_size, self.conv.stride  # type: ignore[misc]
        if not isinstance(self.conv, nn.ConvTranspose2d):
            missing = [kernel - 1 - (side - 1) % stride for side in (x.shape[-1], x.shape[-2])]
            zeros = missing if kernel >= stride else [max(0, n) for n in missing]
            x = F.pad(x, [part for n in zeros for part in (n // 2, n - n // 2)])
        out: Tensor = self.conv(x)
        return out[..., :-1, :-1] if isinstance(self.conv, nn.ConvTranspose2d) else out


class Doubling(nn.Module):
    """Nearest-neighbour doubling, normalisation and ReLU, without a convolution."""

    def __init__(self, norm: nn.Module | None) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        return F.relu(x if self.norm is None else self.norm(x, style))


class Block(nn.Module):
    """Two 3x3 convolutions. residual: add the input to their result, without ReLU after the sum (Gross and Wilber)."""

    def __init__(
        self, channels: int, padding: str, make_norm: Callable[[int], nn.Module | None], residual: bool
    ) -> None:
        super().__init__()
        layer = Layer("c", channels)
        self.first = ConvolutionLayer(channels, layer, padding, make_norm(channels))
        self.second = ConvolutionLayer(channels, layer, padding, make_norm(channels), relu=not residual)
        self.residual = residual
        self.crop = 2 if padding == "none" else 0

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        out: Tensor = self.second(self.first(x, style), style)
        if not self.residual:
            return out
        c = self.crop
        return out + (x[..., c:-c, c:-c] if c else x)


class Unshuffle(nn.PixelUnshuffle):
    """The inverse of a pixel shuffle: (N, C, H, W) -> (N, C * factor^2, H / factor, W / factor)."""

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        return super().forward(x)
