"""The image transformation network f_W of the paper, and what surrounds its layers: padding, noise, enlargement."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceptual.config import NetworkConfig
from perceptual.errors import ConfigError, shown
from perceptual.functional import bicubic_by_convolution, edges, luma, noise_field, noise_tile, padded_side
from perceptual.networks.architecture import parse_architecture
from perceptual.networks.layers import BatchNorm, Block, ConvolutionLayer, Doubling, InstanceNorm, Unshuffle

SCALE, MULTIPLE = 64, 4096
"""Limits of a network, so that a small file cannot use up the memory."""
CAFFE_MEAN = (123.68, 116.779, 103.939)
"""Mean colour of ImageNet, RGB levels of 0..255, that Caffe's VGG networks subtract."""
DAMAGED = "The output of the network contains values that are not numbers: its file is damaged, get it again."


class TransformationNetwork(nn.Module):
    """f_W of the paper: transforms an image by the layers of `config.architecture`.

    `torch.jit.trace` and `torch.export` with dynamic height and width give networks that are right at every size.

    Attributes:
        scale: output size over input size: 1 for style; 2, 4 or 8 for the shipped networks of super-resolution.
        styles: the number of styles that the network holds.
        reach: how many pixels of the input around a pixel change the output there; None where a norm uses the whole
            image.
        overlap: margin in pixels of tiles, for networks that reach too far for exact tiles. Such tiles are cross-faded
            and differ a little from the whole picture. 0: no such tiles.

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
            elif layer.kind == "p":
                layers.append(Unshuffle(layer.stride))
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
        """True if the layers round a size up, so that the result is cropped (padding -crop)."""
        return self.config.padding.endswith("-crop") and bool(height % self.multiple or width % self.multiple)

    def style_parameters(self) -> dict[str, nn.Parameter]:
        """The gammas and betas of instance normalisation, each (styles, C), by their names in `state_dict`."""
        norms = {name: m for name, m in self.named_modules() if isinstance(m, InstanceNorm)}
        return {f"{name}.{kind}": getattr(m, kind) for name, m in norms.items() for kind in ("weight", "bias")}

    def memory(self, height: int, width: int) -> int:
        """Estimated peak memory in bytes for one image of this size in pixels, for inference in float32.

        It is too high rather than too low. At the layer that needs most, its input, a padded or doubled copy, its
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
        height, width = x.shape[-2] * self.grow, x.shape[-1] * self.grow
        x, variable = self.padded(x)
        for layer in self.layers:
            x = layer(x, style)
        return edges(x, height, width) if variable else x[..., :height, :width]

    def padded(self, x: Tensor) -> tuple[Tensor, bool]:
        """What the first layer gets for images (N, C, H, W) in [0, 1]: padded, and with the range that it expects.

        The second value is True if the size is not known, while the network is traced or exported.
        """
        height, width = x.shape[-2:]
        # With -crop, convolutions of stride 2 round an odd side up, so the result is too large and is cut afterwards.
        multiple = 1 if self.config.padding.endswith("-crop") else self.multiple
        padded = [padded_side(side, multiple, self.minimum) for side in (height, width)]
        variable = not all(isinstance(side, int) for side in padded)
        if variable:
            x = edges(x, *padded)
        elif padded != [height, width]:  # departure from the paper: there all sides are multiples of 4
            x = F.pad(x, (0, padded[1] - width, 0, padded[0] - height), mode="replicate")
        if self.start_pad:
            x = F.pad(x, (self.start_pad,) * 4, mode="reflect")
        if self.padding != "same":  # with it the zeros around the image are black
            x = 255 * x - _caffe_mean(x) if self.config.output == "caffe" else (x - 0.5) * 2
        return x, variable


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
    if image.dtype == torch.uint8:
        size = image.shape[-2:]
        levels = _noise_levels(amount, *size) if noise is None else (255 * (amount * noise) + 0.5).floor().short()
        return (image + levels.to(image.device)).clamp_(0, 255).to(torch.uint8)
    if noise is None:
        noise = noise_field(image.shape[-2], image.shape[-1])
    noise = amount * noise.to(image.device)
    return (image + noise.to(image.dtype)).clamp(0, 1)


@lru_cache(maxsize=2)
def _noise_levels(amount: float, height: int, width: int) -> Tensor:
    """`amount` times the noise in levels of a byte, (1, 1, height, width) in int16; kept for pictures of one size."""
    return (255 * (amount * noise_field(height, width)) + 0.5).floor().short()


def enlarge(image: Tensor, scale: int) -> Tensor:
    """Enlarge (N, C, H, W) by a whole number by bicubic interpolation (Keys's kernel with a = -0.5), not clamped."""
    if scale == 1:
        return image
    if torch.compiler.is_exporting():
        return bicubic_by_convolution(image, scale)
    size = (scale * image.shape[-2], scale * image.shape[-1])
    return F.interpolate(image, size=size, mode="bicubic", antialias=True)  # a is -0.5 with antialias, else -0.75
