"""Image transformation networks, built from one line of text.

The text lists the layers (notation of the authors' code, supplement Tables 1 and 2):

    c9s1-32   convolution 9x9, stride 1, 32 filters, then normalisation and ReLU   (last layer: scaled tanh instead)
    d64       convolution 3x3, stride 2: halves the size
    r128      residual block of two 3x3 convolutions, no ReLU after the sum   (Gross and Wilber)
    n128      the same block without the residual connection (supplement, Figure 1, right)
    u64       convolution 3x3 of stride 1/2: doubles the size                 (the paper's up-sampling)
    U64       nearest-neighbour doubling, then convolution 3x3, stride 1      (less checkerboard)
    B64       bilinear doubling, then convolution 3x3, stride 1               (no checkerboard)
    x64       nearest-neighbour doubling of 64 channels, then normalisation and ReLU, no convolution
    s4-3      convolution 3x3 to 4 * 4 * 3 channels, then pixel shuffle: four times the size (Shi et al., 2016)
    r128*5    the same layer five times

A network has 1 to 200 layers of 1 to 4,096 filters, kernels of 1 to 31 pixels, strides of 1 to 8, shuffles of 1 to 16,
and at most 100,000,000 weights. It ends in a convolution (c or s) to RGB, or to luma only.

The input and output of a TransformationNetwork are RGB float [0, 1]. Any height and width of 1 px or more is allowed.
The output has the same size, or this size times the scale for super-resolution, so callers never need to pad.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceptual.architecture import Layer as Layer
from perceptual.architecture import parse_architecture as parse_architecture
from perceptual.config import NetworkConfig
from perceptual.errors import ConfigError, shown
from perceptual.functional import edges, luma, mix, noise_field, noise_tile, padded_side

STYLE = "c9s1-32 d64 d128 r128*5 u64 u32 c9s1-3"
SCALE, MULTIPLE = 64, 4096
"""Limits of an architecture, so that a small file cannot use up the memory or compute for hours."""
CAFFE_MEAN = (123.68, 116.779, 103.939)
"""Mean colour of ImageNet, RGB levels of 0..255, that Caffe's VGG networks subtract."""
DAMAGED = "The output of the network contains values that are not numbers: its file is damaged, get it again."


class BatchNorm(nn.BatchNorm2d):
    """Spatial batch normalisation, as in the paper. It ignores the style."""

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        return super().forward(x)


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
        return (x.float() * scale[..., None, None] + shift[..., None, None]).to(x.dtype)

    def _by_batch_norm(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The same, one image at a time. On a CPU, batch norm keeps channels_last and is fused in both directions."""
        rows = zip(torch.split(x, 1), weight, bias, strict=True)
        done = [torch.batch_norm(i, w, b, None, None, True, 0.0, self.eps, False) for i, w, b in rows]
        return done[0] if len(done) == 1 else torch.cat(done)


MakeNorm = Callable[[int], nn.Module | None]


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
        self.pad_mode, self.pad = ("", 0) if padding in ("zero", "none") or layer.kind == "u" else (padding, around)
        if layer.kind == "u":
            self.conv: nn.Module = nn.ConvTranspose2d(channels, layer.filters, 3, 2, padding=1, output_padding=1)
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
            x = F.pad(x, (self.pad,) * 4, mode=self.pad_mode)
        x = self.conv(x)
        if self.shuffle > 1:
            x = F.pixel_shuffle(x, self.shuffle)
        if self.norm is not None:
            x = self.norm(x, style)
        return F.relu(x) if self.relu else x


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


class TransformationNetwork(nn.Module):
    """f_W of the paper: transforms an image by the layers of `config.architecture`.

    `torch.jit.trace` and `torch.export` with dynamic height and width give networks that are right at every size.

    Attributes:
        scale: output size over input size: 1 for style, 4 or 8 for super-resolution.
        styles: the number of styles that the network holds.
        reach: how many pixels of the input around a pixel change the output there; None where a norm uses the whole
            image.
        overlap: margin in pixels of tiles that equal the whole picture only nearly; 0 for none such.

    Raises:
        ConfigError: the architecture is invalid; see `parse_architecture`.
    """

    overlap = 0

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.luma = config.channels == "luma"
        self.layers_spec = parse_architecture(config.architecture, 1 if self.luma else 3)
        self.styles = config.styles
        self.tanh_scale = config.tanh_scale
        if config.noise:
            noise_tile()  # made now, because a trace would draw new numbers in each call
        self.padding = config.padding.removesuffix("-crop")
        inner = "none" if self.padding == "reflect-start" else self.padding
        outer = "zero" if self.padding == "reflect-start" else self.padding

        def make_norm(channels: int) -> nn.Module | None:
            if config.norm == "none":
                return None
            norm = BatchNorm(channels) if config.norm == "batch" else InstanceNorm(channels, config.styles)
            nn.init.uniform_(norm.weight, 0, 1)  # as in the authors' code (the default of Torch7)
            if config.norm == "conditional_instance":  # all styles start from the same values
                norm.weight.data[:] = norm.weight.data[:1].clone()
            return norm

        layers: list[nn.Module] = []
        channels = 1 if self.luma else 3
        for index, layer in enumerate(self.layers_spec):
            last = index == len(self.layers_spec) - 1
            if layer.kind in "rn":
                layers.append(Block(channels, inner, make_norm, residual=layer.kind == "r"))
            elif layer.kind == "x":
                layers.append(Doubling(make_norm(layer.filters)))
            else:
                norm = None if last else make_norm(layer.filters)
                layers.append(ConvolutionLayer(channels, layer, outer, norm, relu=not last))
            channels = layer.filters
        self.layers = nn.ModuleList(layers)
        self._plan_sizes(inner == "none")

    def _plan_sizes(self, unpadded_blocks: bool) -> None:
        """Compute from the layers: scale, the multiple that the size must have, smallest input and start padding."""
        shrink, grow, self.multiple, self.minimum, start, reach, coarsest = 1, 1, 1, 1, 0, 0.0, 1.0
        for layer in self.layers_spec:
            around = 2 if layer.kind in "rnB" else (layer.kernel - 1) // 2
            reach += around * shrink / grow
            padded_at = grow if layer.kind == "s" else grow * layer.grow  # a pixel shuffle follows its convolution
            grow *= layer.grow
            if self.padding in ("reflect", "replicate"):
                need = (layer.kernel - 1) // 2 + 1  # reflection by p needs p + 1 pixels
                self.minimum = max(self.minimum, math.ceil(need * shrink / padded_at))
            if unpadded_blocks and layer.kind in "rn":
                if grow > shrink:
                    raise ConfigError("Padding reflect-start needs all blocks before the image is enlarged: choose "
                                      "another padding.")  # fmt: skip
                start += 2 * shrink // grow
            shrink *= layer.stride
            coarsest = max(coarsest, shrink / grow)
            self.multiple = max(self.multiple, shrink // math.gcd(shrink, grow))
        if grow % shrink:
            raise ConfigError(
                f"The architecture {self.config.architecture!r} reduces images: it must double as often as it halves."
            )
        self.grow = grow // shrink
        self.scale = self.grow * self.config.enlarge
        if self.scale > SCALE or self.multiple > MULTIPLE:
            raise ConfigError(
                f"The architecture {shown(self.config.architecture, 200)} enlarges by more than {SCALE}, or halves too "
                "often: leave some layers out."
            )
        self.start_pad = start
        self.minimum = max(self.minimum, start + 1)
        # coarsest - 1: position of a pixel within its cell of the coarsest level; 2: radius of the bicubic kernel
        reach = math.ceil((reach + coarsest - 1) / self.config.enlarge) + 2
        self.reach = None if "instance" in self.config.norm else reach

    def cuts(self, height: int, width: int) -> bool:
        """Whether the layers round a size up and the result is cut (padding -crop)."""
        return self.config.padding.endswith("-crop") and bool(height % self.multiple or width % self.multiple)

    def style_parameters(self) -> dict[str, nn.Parameter]:
        """The gammas and betas of instance normalisation, each (styles, C), by their names in `state_dict`."""
        norms = {name: m for name, m in self.named_modules() if isinstance(m, InstanceNorm)}
        return {f"{name}.{kind}": getattr(m, kind) for name, m in norms.items() for kind in ("weight", "bias")}

    def memory(self, height: int, width: int) -> int:
        """Estimated peak memory in bytes for one image of this size in pixels, for inference in float32.

        It is rather too high than too low. At the layer that needs most, its input, a padded or doubled copy, its
        output and a temporary of the normalisation exist at the same time.
        """
        widest, channels, area = 0.0, 3, float(self.config.enlarge**2)
        for layer in self.layers_spec:
            inner = area if layer.kind == "s" else area * layer.grow**2  # a pixel shuffle follows its convolution
            area *= (layer.grow / layer.stride) ** 2
            widest = max(widest, 2 * channels * inner + 2 * layer.filters * area)
            channels = layer.filters
        sides = (height + 2 * self.start_pad + self.multiple) * (width + 2 * self.start_pad + self.multiple)
        return int(4 * (widest + 6 * self.scale**2) * sides)  # 6: the result and the image that it is added to

    def forward(self, x: Tensor, style: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """Transform images x, (N, 3, H, W), RGB [0, 1]: (N, 3, scale * H, scale * W).

        style: (N, styles), weights that sum to 1 in each row; None for the first style. noise: (N or 1, 1, H, W),
        the pattern that is added to the input with strength `config.noise`; default: `noise_field`.

        With output tanh the range is 0.5 +- tanh_scale / 255: exactly [0, 1] for the paper's 127.5, a little more for
        the 150 of the authors' code. Without tanh the range is not limited. Clamp the result before showing it.
        """
        x = with_noise(x, self.config.noise, noise)
        base = x
        if self.luma or self.config.output == "bicubic":
            base = enlarge(x, self.scale)
        out = self._through_layers(enlarge(luma(x) if self.luma else x, self.config.enlarge), style)
        if out.dtype in (torch.float16, torch.bfloat16):  # half precision is too coarse for pixels
            out = out.float()
        if self.config.output in ("tanh", "caffe"):
            middle = _caffe_mean(out) / 255 if self.config.output == "caffe" else 0.5
            out = middle + self.tanh_scale / 255 * torch.tanh(out)
        elif self.config.output == "linear":
            out = 0.5 + 0.5 * out
        else:
            out = 0.5 * out + (luma(base) if self.luma else base)
        return base + out - luma(base) if self.luma else out

    def _through_layers(self, x: Tensor, style: Tensor | None) -> Tensor:
        """(N, C, H, W) in [0, 1] -> (N, C, grow * H, grow * W), before the last nonlinearity. Pads and crops."""
        height, width = x.shape[-2:]
        # With -crop, convolutions of stride 2 round an odd side up, so the result is too large and is cut below.
        multiple = 1 if self.config.padding.endswith("-crop") else self.multiple
        padded = [padded_side(side, multiple, self.minimum) for side in (height, width)]
        variable = not all(isinstance(side, int) for side in padded)  # while the network is traced or exported
        if variable:
            x = edges(x, *padded)
        elif padded != [height, width]:
            x = F.pad(x, (0, padded[1] - width, 0, padded[0] - height), mode="replicate")
        if self.start_pad:
            x = F.pad(x, (self.start_pad,) * 4, mode="reflect")
        x = 255 * x - _caffe_mean(x) if self.config.output == "caffe" else (x - 0.5) * 2
        for layer in self.layers:
            x = layer(x, style)
        height, width = height * self.grow, width * self.grow
        return edges(x, height, width) if variable else x[..., :height, :width]


def _caffe_mean(like: Tensor) -> Tensor:
    """CAFFE_MEAN as (1, 3, 1, 1), on the device of a tensor."""
    return torch.cat([like.new_full((1, 1, 1, 1), level) for level in CAFFE_MEAN], 1)


def with_noise(image: Tensor, amount: float, noise: Tensor | None = None) -> Tensor:
    """Add `amount` times the noise to an image (N, 3, H, W), [0, 1] or uint8, and clip it to the same range.

    noise: (N or 1, 1, H, W); default: `noise_field`. Without noise a network repeats one pattern in flat areas, on the
    grid of its strides, because all positions there look the same.
    """
    if not amount:
        return image
    if noise is None:
        noise = noise_field(image.shape[-2], image.shape[-1])
    noise = amount * noise.to(image.device)
    if image.dtype == torch.uint8:
        return (image + (255 * noise + 0.5).floor()).clamp_(0, 255).to(torch.uint8)
    return (image + noise.to(image.dtype)).clamp(0, 1)


def enlarge(image: Tensor, scale: int) -> Tensor:
    """Enlarge (N, C, H, W) by a whole number by bicubic interpolation (Keys's kernel with a = -0.5), not clamped."""
    if scale == 1:
        return image
    size = (scale * image.shape[-2], scale * image.shape[-1])
    return F.interpolate(image, size=size, mode="bicubic", antialias=True)  # a is -0.5 with antialias, else -0.75
