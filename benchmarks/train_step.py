"""Seconds per training step of the lean network, how much of it is arithmetic at peak, and what each choice is worth.

python benchmarks/train_step.py [ROUNDS] [LOSS NETWORK]     (its weights must be on this computer; default vgg16)

"bfloat16" is the step where `--precision auto` takes bfloat16: the network by autocast, the loss network with weights
that are converted once. "plain" is what most code does: float32, PyTorch's default layout, an instance norm by its
formula, and the content target through the whole loss network. The last line gives plain / step and plain / bfloat16.

Peak is what a 128-channel 3x3 convolution at 64 x 64 reaches here. The arithmetic counted is that of the convolutions
and matrix products, forward and backward, as torch.utils.flop_counter counts them.
"""

import copy
import sys
from contextlib import contextmanager

import torch
from timing import in_turn
from torch.utils.flop_counter import FlopCounterMode

from perceptual import TransformationNetwork, style_transfer_loss
from perceptual.config import LossConfig
from perceptual.devices import channels_last
from perceptual.networks import InstanceNorm
from perceptual.tasks.style import Style

rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
name = sys.argv[2] if len(sys.argv) > 2 else "vgg16"
deepest = "relu3_3" if name == "vgg16" else "relu4_3"  # so that VGG-16's first ten layers are enough
style_layers = tuple(f"{name}:{layer}" for layer in dict.fromkeys(("relu1_2", "relu2_2", "relu3_3", deepest)))
config = LossConfig((f"{name}:relu2_2",), style_layers)
recipe = Style.recipe("fast")
network = channels_last(TransformationNetwork(recipe.network))
loss = style_transfer_loss(config, [torch.rand(1, 3, 384, 512)])
x = torch.rand(recipe.train.batch, 3, 256, 256).contiguous(memory_format=torch.channels_last)
conv = channels_last(torch.nn.Conv2d(128, 128, 3, padding=1))
features = torch.rand(4, 128, 64, 64).contiguous(memory_format=torch.channels_last)


def step(pixels: torch.Tensor = x) -> None:
    network.zero_grad()
    loss(network(pixels), pixels)["total"].backward()


def contiguous() -> None:
    network.to(memory_format=torch.contiguous_format)
    loss.to(memory_format=torch.contiguous_format)
    step(x.contiguous())
    channels_last(network), channels_last(loss)


@contextmanager
def plain_norm():
    fused = InstanceNorm._by_batch_norm
    InstanceNorm._by_batch_norm = lambda self, x, weight, bias: formula(self, x, weight, bias)
    yield
    InstanceNorm._by_batch_norm = fused


def formula(norm: InstanceNorm, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
    return (x - mean) * torch.rsqrt(variance + norm.eps) * weight[..., None, None] + bias[..., None, None]


def with_plain_norm() -> None:
    with plain_norm():
        step()


def target_to_the_end() -> None:
    step()
    with torch.no_grad():
        loss.features(x, loss.layers)


half_network, half_loss = copy.deepcopy(network), copy.deepcopy(loss)
half_loss.networks.cast(torch.bfloat16)


def in_bfloat16() -> None:
    half_network.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        terms = half_loss(half_network(x), x)
    terms["total"].backward()


plain_network, plain_loss = copy.deepcopy(network), copy.deepcopy(loss)
plain_network.to(memory_format=torch.contiguous_format)
plain_loss.to(memory_format=torch.contiguous_format)
plain_x = x.contiguous()


def plain() -> None:
    plain_network.zero_grad()
    with torch.no_grad():
        goal = plain_loss.features(plain_x, plain_loss.layers)
    with plain_norm():
        plain_loss(plain_network(plain_x), goal)["total"].backward()


def peak() -> None:
    with torch.no_grad():
        conv(features)


counter = FlopCounterMode(display=False)
with counter:
    step()
flops = counter.get_total_flops()
times = in_turn(
    {
        "step": step,
        "peak": peak,
        "contiguous memory": contiguous,
        "instance norm by its formula": with_plain_norm,
        "target through the whole loss network": target_to_the_end,
        "bfloat16": in_bfloat16,
        "plain": plain,
    },
    rounds=rounds,
)
rate = 2 * 4 * 128 * 128 * 9 * 64 * 64 / times["peak"]
print(f"{torch.get_num_threads()} threads, batch {len(x)} at 256 px, {name}, {recipe.network.architecture!r}")
print(f"step {times['step']:.3f} s; {flops / 1e9:.1f} GFLOP at a peak of {rate / 1e9:.0f} GFLOP/s", end=" ")
print(f"would take {flops / rate:.3f} s: arithmetic is {flops / rate / times['step']:.0%} of the step")
for choice in ("contiguous memory", "instance norm by its formula", "target through the whole loss network"):
    print(f"{choice:40} {times[choice] / times['step']:.2f} x the step's time")
print(f"bfloat16 {times['bfloat16']:.3f} s, plain {times['plain']:.3f} s", end="; ")
print(f"plain / step {times['plain'] / times['step']:.2f}, plain / bfloat16 {times['plain'] / times['bfloat16']:.2f}")
