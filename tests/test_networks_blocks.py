"""The inverse of a pixel shuffle, with which a network for x2 computes at half the size."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from perceptual.config import NetworkConfig
from perceptual.errors import ConfigError
from perceptual.networks import Layer, TransformationNetwork, parse_architecture

close = torch.testing.assert_close


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def network(architecture: str, **settings: Any) -> TransformationNetwork:
    config = NetworkConfig(architecture, **{"norm": "none", "padding": "zero", "output": "linear", **settings})
    return TransformationNetwork(config).eval().requires_grad_(False)


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
    net = network("p2-12 c3s1-8 r8 s4-3")
    assert (net.scale, net.multiple) == (2, 2)
    assert parse_architecture("p2-12 s2-3")[0] == Layer("p", 12, kernel=1, stride=2)


@pytest.mark.parametrize("architecture", ["p2-12 c3s1-4 r4 s4-3", "p3-27 r27 s6-3"])
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
        ("p2-8 s2-3", "p2-8 .* follows 3 channels: write p2-12"),
        ("p9-243 s9-3", "has 9 as its stride; 8 is the most"),
        ("c3s1-8 p2-12", "must end in a convolution"),
        ("p2-12 c3s1-4 s2", "'s2' .* is not a layer"),
    ],
)
def test_a_wrong_word_is_refused_and_the_error_says_why(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_architecture(text)
