"""The layers of efficient super-resolution: attention blocks, joined outputs, and the inverse of a pixel shuffle."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from perceptual.config import NetworkConfig
from perceptual.errors import ConfigError
from perceptual.networks import AttentionBlock, Layer, TransformationNetwork, parse_architecture

close = torch.testing.assert_close


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def network(architecture: str, **settings: Any) -> TransformationNetwork:
    config = NetworkConfig(architecture, **{"norm": "none", "padding": "zero", "output": "linear", **settings})
    return TransformationNetwork(config).eval().requires_grad_(False)


def test_an_attention_block_weights_its_sum_by_its_result() -> None:
    """With a third convolution that gives 2 everywhere: (x + 2) * (sigmoid(2) - 0.5)."""
    block = AttentionBlock(2, "zero").requires_grad_(False)
    block.third.conv.weight.zero_()
    block.third.conv.bias.fill_(2)
    x = torch.randn(1, 2, 4, 5)
    close(block(x), (x + 2) * (torch.sigmoid(torch.tensor(2.0)) - 0.5))


def test_an_attention_block_has_silu_between_its_convolutions() -> None:
    block = AttentionBlock(3, "zero").requires_grad_(False)
    x = torch.randn(1, 3, 6, 6)

    def convolve(name: str, y: Tensor) -> Tensor:
        conv = getattr(block, name).conv
        return F.conv2d(y, conv.weight, conv.bias, padding=1)

    y = convolve("third", F.silu(convolve("second", F.silu(convolve("first", x)))))
    close(block(x), (x + y) * (torch.sigmoid(y) - 0.5))


def test_the_layer_before_an_attention_block_has_no_relu() -> None:
    layers = network("c3s1-4 a4 c3s1-4 r4 c3s1-3").layers
    assert [getattr(layer, "relu", None) for layer in layers] == [False, None, True, None, False]


def test_a_gather_joins_the_blocks_and_the_layer_before_them() -> None:
    net = network("c3s1-4 a4*2 r4 g5 s2-3")
    assert {k: list(joined) for k, joined in net.gathered.items()} == {4: [0, 1, 2, 3]}
    assert net.layers[4].conv.weight.shape == (5, 16, 1, 1)
    x = torch.rand(1, 3, 6, 7)
    outputs = [net.layers[0]((x - 0.5) * 2)]
    for block in net.layers[1:4]:
        outputs.append(block(outputs[-1]))
    close(net(x), 0.5 + 0.5 * net.layers[5](net.layers[4](torch.cat(outputs, 1))))


def test_a_gather_may_join_the_image_itself() -> None:
    net = network("r3 g4 c3s1-3")
    assert list(net.gathered[1]) == [-1, 0]


def test_an_unshuffle_is_undone_by_a_pixel_shuffle() -> None:
    net = network("p2-12 s2-3")
    net.layers[1].conv.weight.zero_()
    net.layers[1].conv.bias.zero_()
    for channel in range(12):
        net.layers[1].conv.weight[channel, channel, 1, 1] = 1
    for height, width in ((4, 6), (5, 7), (1, 1)):
        x = torch.rand(2, 3, height, width)
        close(net(x), x)


def test_the_scale_and_size_of_an_unshuffled_network() -> None:
    net = network("p2-12 c3s1-8 a8 g8 s4-3")
    assert (net.scale, net.multiple) == (2, 2)
    assert parse_architecture("p2-12 s2-3")[0] == Layer("p", 12, kernel=1, stride=2)


@pytest.mark.parametrize("architecture", ["c3s1-4 a4*2 g4 s2-3", "p2-12 c3s1-4 a4 g4 s4-3", "p3-27 a27 s6-3"])
def test_no_pixel_beyond_the_reach_changes_the_result(architecture: str) -> None:
    net = network(architecture, output="bicubic").double()
    side = 8 * net.multiple + 2 * net.reach
    x = torch.rand(1, 3, side, side, dtype=torch.float64)
    middle = side // 2
    far = x.clone()
    far[..., : middle - net.reach, :] = torch.rand_like(far[..., : middle - net.reach, :])
    s = net.scale
    close(net(far)[..., s * middle :, :], net(x)[..., s * middle :, :], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("c3s1-8 a4 s2-3", "a4 .* follows 8 channels"),
        ("p2-8 s2-3", "p2-8 .* follows 3 channels: write p2-12"),
        ("p9-243 s9-3", "has 9 as its stride; 8 is the most"),
        ("c3s1-8 g8 s2-3", "g8 .* must follow a block"),
        ("g8 s2-3", "must follow a block"),
        ("c3s1-4096 a4096 s2-3", "weights; 100,000,000 are the most"),
        ("c3s1-4 a4*2 g4", "must end in a convolution"),
    ],
)
def test_a_wrong_word_is_refused_and_the_error_says_why(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_architecture(text)


def test_padding_at_the_start_only_is_refused() -> None:
    with pytest.raises(ConfigError, match="reflect-start has no layer a"):
        network("c3s1-4 a4 c3s1-3", padding="reflect-start")


def test_weights_are_counted_with_all_convolutions() -> None:
    """4,096 channels: three convolutions of 4,096 x 4,096 x 9 would be 453 million weights; two blocks more."""
    with pytest.raises(ConfigError, match="has 453,"):
        parse_architecture("c3s1-4096 a4096 c1s1-3")


def test_memory_is_no_less_than_what_a_gather_reads_and_writes() -> None:
    net = network("c3s1-16 a16*6 g16 s2-3")
    assert net.memory(40, 50) >= 4 * 40 * 50 * (7 * 16 + 16)
