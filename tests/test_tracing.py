"""Networks that are traced or exported give what they give eagerly, at sizes that the trace did not see."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.export import Dim

from perceptual import Stylizer, Upscaler
from perceptual.config import NetworkConfig
from perceptual.functional import edges, noise_tile, padded_side
from perceptual.networks import TransformationNetwork

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*is deprecated:DeprecationWarning")
SIZES = ((40, 48), (41, 50), (43, 57), (64, 33), (9, 11), (8, 8))
STYLE = "c9s1-4 d4 d8 r8*2 u4 u4 c9s1-3"
CONFIGS = {
    "style": NetworkConfig(STYLE, norm="instance", padding="reflect"),
    "zero padding": NetworkConfig(STYLE, norm="batch", padding="zero"),
    "paper's padding": NetworkConfig("c9s1-4 d4 d8 r8*2 U4 B4 c9s1-3", norm="batch", padding="reflect-start"),
    "pytorch/examples": NetworkConfig(
        "c9s1-4 d4 d8 r8*2 U4 U4 c9s1-3", norm="instance", padding="reflect-crop", output="linear"
    ),
    "Torch7": NetworkConfig(
        "c9s1-4 d4 d8 r8 x8 c3s1-4 x4 c9s1-3", norm="instance", padding="reflect-start-crop", output="caffe"
    ),
    "TensorFlow": NetworkConfig(STYLE, norm="instance", padding="same-crop"),
    "noise": NetworkConfig(STYLE, norm="instance", padding="replicate", noise=0.1),
    "pixel shuffle": NetworkConfig("c5s1-4 r4 s4-3", norm="none", padding="replicate", output="bicubic"),
    "unshuffle": NetworkConfig("p2-12 c3s1-4 r4 s4-3", norm="none", padding="zero", output="bicubic"),
    "luma": NetworkConfig(
        "c9s1-4 c5s1-1", norm="none", padding="replicate", output="linear", channels="luma", enlarge=2
    ),
}
every_network = pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
# One float32 sum of a few hundred products in another order; without padding the difference was up to 0.58.
close = functools.partial(torch.testing.assert_close, rtol=0, atol=1e-4)


def network(config: NetworkConfig) -> TransformationNetwork:
    noise_tile.cache_clear()
    torch.manual_seed(0)
    return TransformationNetwork(config).eval()


def pictures(height: int, width: int, count: int = 1) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def exported(made: torch.nn.Module, *others: Tensor, strict: bool = False) -> Callable[..., Tensor]:
    shapes: Any = ({2: Dim("height", min=8, max=4096), 3: Dim("width", min=8, max=4096)}, *[None for _ in others])
    with torch.no_grad():
        return torch.export.export(made, (pictures(41, 50), *others), dynamic_shapes=shapes, strict=strict).module()


@every_network
@torch.no_grad()
def test_a_traced_network_is_right_at_every_size(config: NetworkConfig) -> None:
    made = network(config)
    for side in (40, 41):  # the size of the trace is a multiple of 4, or not
        traced = torch.jit.trace(made, pictures(side, side), check_trace=False)
        for size in SIZES:
            close(traced(pictures(*size)), made(pictures(*size)))
        close(traced(pictures(41, 43, 2)), made(pictures(41, 43, 2)))


@every_network
@torch.no_grad()
def test_an_exported_network_is_right_at_every_size(config: NetworkConfig) -> None:
    made = network(config)
    program = exported(made)
    for size in SIZES:
        close(program(pictures(*size)), made(pictures(*size)))
    close(made(pictures(41, 50)), made(pictures(41, 50)))  # and exporting left nothing behind in the network


@torch.no_grad()
def test_a_style_may_be_an_input_of_an_exported_network() -> None:
    made = network(NetworkConfig(STYLE, norm="conditional_instance", padding="reflect", styles=2))
    made.get_parameter("layers.0.norm.weight").data[1] += 1
    program = exported(made, torch.tensor([[1.0, 0.0]]))
    for style in (torch.tensor([[0.0, 1.0]]), torch.tensor([[0.3, 0.7]])):
        close(program(pictures(43, 57), style), made(pictures(43, 57), style))


@torch.no_grad()
def test_a_network_exported_for_one_size_needs_no_padding_there() -> None:
    made = network(CONFIGS["style"])
    program = torch.export.export(made, (pictures(40, 48),))
    assert "index_select" not in str(program.graph)
    close(program.module()(pictures(40, 48)), made(pictures(40, 48)))


@torch.no_grad()
@pytest.mark.slow
def test_the_shipped_networks_can_be_traced() -> None:
    for made in (Stylizer.load("gallery", device="cpu").network, Upscaler.load("x4_pixel", device="cpu").network):
        traced = torch.jit.trace(made, pictures(32, 32), check_trace=False)
        close(traced(pictures(35, 46)), made(pictures(35, 46)), atol=1e-3)


def test_sides_are_padded_to_a_multiple_that_is_large_enough() -> None:
    assert [padded_side(side, 4, 1) for side in (1, 4, 5, 8, 9)] == [4, 4, 8, 8, 12]
    assert [padded_side(side, 4, 17) for side in (1, 17, 20, 21)] == [20, 20, 20, 24]
    assert padded_side(torch.tensor(5), 4, 17) == 20  # type: ignore[arg-type]


def test_edges_are_continued_or_cut() -> None:
    image = torch.arange(6.0).view(1, 1, 2, 3)
    assert edges(image, 3, 4).tolist() == [[[[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5]]]]
    assert edges(image, 1, 2).tolist() == [[[[0, 1]]]]


@pytest.mark.parametrize("dynamic", [False, True])
@torch.no_grad()
def test_a_compiled_network_is_whole_and_right_at_odd_sizes(dynamic: bool) -> None:
    made = network(CONFIGS["style"])
    compiled = torch.compile(made, backend="eager", fullgraph=True, dynamic=dynamic)
    for size in ((40, 48), (41, 50), (43, 57)):
        close(compiled(pictures(*size)), made(pictures(*size)))
