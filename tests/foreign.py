"""The networks of other programs, as their own code builds them, with random weights.

Each is written anew from the papers and from the names of the tensors in their files.
"""

from __future__ import annotations

import struct

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


# --- Torch7


class Lua:
    """An object of a Lua class with its fields, such as Lua("nn.ReLU")."""

    def __init__(self, kind: str, **fields: object) -> None:
        self.kind, self.fields = kind, fields


def t7(value: object, functions: bool = False) -> bytes:
    """The bytes of a value in a binary Torch7 file. functions: write text as Lua functions, to test their refusal."""
    count, parts = 0, list[bytes]()

    def text(word: str) -> bytes:
        return struct.pack("<i", len(word.encode())) + word.encode()

    def put(value: object) -> None:
        nonlocal count
        if value is None:
            parts.append(struct.pack("<i", 0))
        elif isinstance(value, bool):
            parts.append(struct.pack("<ii", 5, value))
        elif isinstance(value, (int, float)):
            parts.append(struct.pack("<id", 1, value))
        elif isinstance(value, str):
            parts.append(struct.pack("<i", 8 if functions else 2) + text(value))
        elif isinstance(value, Tensor):
            count += 2
            parts.append(struct.pack("<ii", 4, count - 1) + text("V 1") + text("torch.FloatTensor"))
            parts.append(struct.pack(f"<i{2 * value.ndim + 1}q", value.ndim, *value.shape, *value.stride(), 1))
            parts.append(struct.pack("<ii", 4, count) + text("V 1") + text("torch.FloatStorage"))
            parts.append(struct.pack("<q", value.numel()) + value.contiguous().numpy().astype("<f4").tobytes())
        elif isinstance(value, Lua):
            count += 1
            parts.append(struct.pack("<ii", 4, count) + text("V 1") + text(value.kind))
            put(value.fields)
        else:
            table = dict(enumerate(value, start=1)) if isinstance(value, list) else value
            assert isinstance(table, dict)
            count += 1
            parts.append(struct.pack("<iii", 3, count, len(table)))
            for key, each in table.items():
                put(key)
                put(each)

    put(value)
    return b"".join(parts)


def lua_convolution(channels: int, filters: int, kernel: int, stride: int = 1, pad: int = 0, up: bool = False) -> Lua:
    shape = (channels, filters) if up else (filters, channels)
    more: dict[str, object] = {"adjW": 1, "adjH": 1} if up else {}
    return Lua(
        "nn.SpatialFullConvolution" if up else "nn.SpatialConvolution",
        weight=torch.randn(*shape, kernel, kernel) / (channels * kernel**2) ** 0.5,
        bias=torch.randn(filters) / 4,
        **{"kW": kernel, "kH": kernel, "dW": stride, "dH": stride, "padW": pad, "padH": pad},
        **{"nInputPlane": channels, "nOutputPlane": filters, **more},
    )


def lua_norm(channels: int, norm: str) -> Lua:
    fields: dict[str, object] = {"weight": torch.rand(channels) + 0.5, "bias": torch.randn(channels) / 4, "eps": 1e-5}
    if norm == "batch":
        fields |= {"running_mean": torch.randn(channels) * 9, "running_var": torch.rand(channels) * 99 + 1}
    return Lua({"instance": "nn.InstanceNormalization", "batch": "nn.SpatialBatchNormalization"}[norm], **fields)


def lua_block(width: int, norm: str) -> Lua:
    inside = [lua_convolution(width, width, 3), lua_norm(width, norm), Lua("nn.ReLU")]
    inside += [lua_convolution(width, width, 3), lua_norm(width, norm)]
    both = [Lua("nn.Sequential", modules=inside), Lua("nn.ShaveImage", size=2)]
    return Lua("nn.Sequential", modules=[Lua("nn.ConcatTable", modules=both), Lua("nn.CAddTable")])


def fast_neural_style(norm: str = "instance", blocks: int = 2) -> Lua:
    """A small model of jcjohnson/fast-neural-style. With instance norm it doubles as their published models do."""

    def then(layer: Lua, width: int) -> list[Lua]:
        return [layer, lua_norm(width, norm), Lua("nn.ReLU")]

    pad = {f"pad_{side}": 8 * blocks for side in "lrtb"}
    layers = [Lua("nn.SpatialReflectionPadding", **pad), *then(lua_convolution(3, 6, 9, pad=4), 6)]
    layers += then(lua_convolution(6, 8, 3, 2, 1), 8) + then(lua_convolution(8, 10, 3, 2, 1), 10)
    layers += [lua_block(10, norm) for _ in range(blocks)]
    if norm == "instance":
        layers += then(Lua("nn.SpatialUpSamplingNearest", scale_factor=2), 10)
        layers += then(lua_convolution(10, 8, 3, pad=1), 8)
        layers += then(Lua("nn.SpatialUpSamplingNearest", scale_factor=2), 8)
    else:
        layers += then(lua_convolution(10, 8, 3, 2, 1, up=True), 8)
        layers += then(lua_convolution(8, 8, 3, 2, 1, up=True), 8)
    layers += [lua_convolution(8, 3, 9, pad=4), Lua("nn.Tanh"), Lua("nn.MulConstant", constant_scalar=150)]
    return Lua("nn.Sequential", modules=[*layers, Lua("nn.TotalVariation", strength=1e-6)])


def lua_forward(module: Lua, x: Tensor) -> Tensor:
    """What Torch7 computes for a model, (1, C, H, W) -> (1, c, h, w)."""
    kind, own = module.kind.removeprefix("nn."), module.fields
    if kind == "Sequential":
        for each in own["modules"]:
            x = lua_forward(each, x)
        return x
    if kind == "ConcatTable":
        return [lua_forward(each, x) for each in own["modules"]]
    if kind == "InstanceNormalization":
        return F.instance_norm(x, weight=own["weight"], bias=own["bias"], eps=own["eps"])
    if kind == "SpatialBatchNormalization":
        return F.batch_norm(x, own["running_mean"], own["running_var"], own["weight"], own["bias"], eps=own["eps"])
    if kind == "SpatialFullConvolution":
        return F.conv_transpose2d(x, own["weight"], own["bias"], own["dW"], own["padW"], own["adjW"])
    return {
        "SpatialReflectionPadding": lambda: F.pad(x, (own["pad_l"],) * 4, mode="reflect"),
        "SpatialConvolution": lambda: F.conv2d(x, own["weight"], own["bias"], own["dW"], own["padW"]),
        "SpatialUpSamplingNearest": lambda: x.repeat_interleave(2, 2).repeat_interleave(2, 3),
        "ReLU": lambda: x.clamp_min(0),
        "ShaveImage": lambda: x[..., 2:-2, 2:-2],
        "CAddTable": lambda: x[0] + x[1],
        "Tanh": lambda: x.tanh(),
        "MulConstant": lambda: x * own["constant_scalar"],
        "TotalVariation": lambda: x,
    }[kind]()


def lua_painted(model: Lua, photo: Tensor) -> Tensor:
    """(1, 3, H, W) uint8 levels -> the painting in levels, clamped and cut, without their median filter."""
    mean = torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    made = (lua_forward(model, photo.float().flip(1) - mean) + mean).flip(1)
    return made.clamp(0, 255)[..., : photo.shape[-2], : photo.shape[-1]]


# --- upscalers, as functions of the tensors of their files


def _conv(state: dict[str, Tensor], name: str, filters: int, channels: int, kernel: int = 3) -> None:
    state[f"{name}.weight"] = torch.randn(filters, channels, kernel, kernel) / (channels * kernel**2) ** 0.5
    state[f"{name}.bias"] = torch.randn(filters) / 8


def _apply(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)


def esrgan_state(
    scale: int = 4, fold: int = 1, blocks: int = 2, filters: int = 8, growth: int = 4
) -> dict[str, Tensor]:
    """Random tensors under the names of Real-ESRGAN."""
    state: dict[str, Tensor] = {}
    _conv(state, "conv_first", filters, 3 * fold**2)
    for i in range(blocks):
        for j in (1, 2, 3):
            for k in range(1, 6):
                width = filters + (k - 1) * growth
                _conv(state, f"body.{i}.rdb{j}.conv{k}", growth if k < 5 else filters, width)
    ups = (scale * fold).bit_length() - 1
    for name in ("conv_body", *(f"conv_up{k}" for k in range(1, ups + 1)), "conv_hr"):
        _conv(state, name, filters, filters)
    _conv(state, "conv_last", 3, filters)
    return state


def esrgan_names(state: dict[str, Tensor], layout: str) -> dict[str, Tensor]:
    """The same tensors under the names of ESRGAN's first ("old") or second ("middle") code."""
    ups = sum(name.startswith("conv_up") for name in state) // 2
    blocks = sum(name.endswith("rdb1.conv1.weight") for name in state)
    made = {}
    for name, value in state.items():
        parts = name.split(".")
        if parts[0] == "body":
            rest = f"{parts[1]}.{parts[2].upper()}.{parts[3]}"
            name = f"model.1.sub.{rest}.0.{parts[4]}" if layout == "old" else f"RRDB_trunk.{rest}.{parts[4]}"
        elif layout == "old":
            number = {
                "conv_first": "0",
                "conv_body": f"1.sub.{blocks}",
                "conv_up1": "3",
                "conv_up2": "6",
                "conv_up3": "9",
            }
            number |= {"conv_hr": f"{3 * ups + 2}", "conv_last": f"{3 * ups + 4}"}
            name = f"model.{number[parts[0]]}.{parts[1]}"
        else:
            names = {"conv_body": "trunk_conv", "conv_hr": "HRconv", **{f"conv_up{k}": f"upconv{k}" for k in (1, 2, 3)}}
            name = f"{names.get(parts[0], parts[0])}.{parts[1]}"
        made[name] = value
    return made


def esrgan(state: dict[str, Tensor], x: Tensor, fold: int = 1) -> Tensor:
    """What Real-ESRGAN computes; names as in `esrgan_state`."""
    x = _apply(state, "conv_first", F.pixel_unshuffle(x, fold))
    body, i = x, 0
    while f"body.{i}.rdb1.conv1.weight" in state:
        block = body
        for j in (1, 2, 3):
            parts = [block]
            for k in range(1, 5):
                parts.append(F.leaky_relu(_apply(state, f"body.{i}.rdb{j}.conv{k}", torch.cat(parts, 1)), 0.2))
            block = block + 0.2 * _apply(state, f"body.{i}.rdb{j}.conv5", torch.cat(parts, 1))
        body, i = body + 0.2 * block, i + 1
    x, k = x + _apply(state, "conv_body", body), 1
    while f"conv_up{k}.weight" in state:
        x = F.leaky_relu(_apply(state, f"conv_up{k}", x.repeat_interleave(2, 2).repeat_interleave(2, 3)), 0.2)
        k += 1
    return _apply(state, "conv_last", F.leaky_relu(_apply(state, "conv_hr", x), 0.2))


def compact_state(scale: int = 4, layers: int = 3, filters: int = 8) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for k in range(layers + 1):
        _conv(state, f"body.{2 * k}", filters, 3 if k == 0 else filters)
        state[f"body.{2 * k + 1}.weight"] = torch.rand(filters) / 2
    _conv(state, f"body.{2 * layers + 2}", 3 * scale**2, filters)
    return state


def compact(state: dict[str, Tensor], x: Tensor) -> Tensor:
    base, k = x, 0
    while f"body.{k + 1}.weight" in state:
        x = _apply(state, f"body.{k}", x)
        slope = state[f"body.{k + 1}.weight"][:, None, None]
        x, k = torch.where(x > 0, x, slope * x), k + 2
    x = F.pixel_shuffle(_apply(state, f"body.{k}", x), scale := int((state[f"body.{k}.bias"].numel() / 3) ** 0.5))
    return x + base.repeat_interleave(scale, 2).repeat_interleave(scale, 3)


def span_state(scale: int = 4, filters: int = 8, norm: bool = True) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    layers = {"conv_1": 3, "conv_2": filters, **{f"block_{k}.c{j}_r": filters for k in range(1, 7) for j in (1, 2, 3)}}
    for name, channels in layers.items():
        _conv(state, f"{name}.sk", filters, channels, 1)
        _conv(state, f"{name}.conv.0", 2 * channels, channels, 1)
        _conv(state, f"{name}.conv.1", 2 * filters, 2 * channels)
        _conv(state, f"{name}.conv.2", filters, 2 * filters, 1)
        _conv(state, f"{name}.eval_conv", filters, channels)  # not used where the others are there
    _conv(state, "conv_cat", filters, 4 * filters, 1)
    _conv(state, "upsampler.0", 3 * scale**2, filters)
    return state if norm else {**state, "no_norm": torch.zeros(1)}


def span(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """What SPAN computes, by the four convolutions that are trained in the place of each."""

    def four(name: str, x: Tensor) -> Tensor:
        y = F.conv2d(F.pad(x, (1,) * 4), state[f"{name}.conv.0.weight"], state[f"{name}.conv.0.bias"])
        y = F.conv2d(y, state[f"{name}.conv.1.weight"], state[f"{name}.conv.1.bias"])
        return _apply(state, f"{name}.conv.2", y) + _apply(state, f"{name}.sk", x)

    if "no_norm" not in state:
        x = (x - torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1)) * 255
    first = x = four("conv_1", x)
    kept = []
    for k in range(1, 7):
        inside = F.silu(four(f"block_{k}.c1_r", x))
        out = four(f"block_{k}.c3_r", F.silu(four(f"block_{k}.c2_r", inside)))
        x = (out + x) * (torch.sigmoid(out) - 0.5)
        kept.append((x, inside))
    x = _apply(state, "conv_cat", torch.cat([first, four("conv_2", x), kept[0][0], kept[5][1]], 1))
    return F.pixel_shuffle(_apply(state, "upsampler.0", x), int((state["upsampler.0.bias"].numel() / 3) ** 0.5))
