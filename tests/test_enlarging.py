"""Enlarging of bytes by compiled kernels: equal to PyTorch's own operations, and what is refused."""

from __future__ import annotations

import ctypes
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from perceptual import checkpoints
from perceptual.apply import upscaler as module
from perceptual.apply.upscaler import Upscaler
from perceptual.checkpoints import shipped
from perceptual.config import NetworkConfig
from perceptual.errors import CheckpointError
from perceptual.fast import build, enlarge_bytes, enlarges, kernels
from perceptual.networks import TransformationNetwork

pytestmark = pytest.mark.usefixtures("seed")
CONFIG = NetworkConfig("c3s1-8 r8 s2-3", norm="none", padding="zero", output="bicubic")


@pytest.fixture(params=list(build.variants()))
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, built: dict[str, ctypes.CDLL]) -> None:
    """The test runs with each variant of the compiled kernels."""
    if request.param not in built:
        pytest.skip("there is no C compiler, or this processor lacks the instructions")
    monkeypatch.setattr(kernels, "compiled", lambda: built[request.param])


needs_kernels = pytest.mark.skipif(kernels.compiled() is None, reason="no compiled kernels here")


def more_for(height: int, width: int, scale: int, factor: int, dtype: torch.dtype) -> Tensor:
    """Random results of a last convolution, one row and column of cells larger than the picture needs."""
    rows, columns = (-(-scale * side // factor) + 1 for side in (height, width))
    return (0.3 * torch.randn(rows, columns, 3 * factor**2)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("scale", "factor"), [(2, 2), (2, 4), (3, 3), (4, 4), (8, 8), (1, 2)])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (4, 5), (5, 4), (6, 1), (37, 50)])
def test_the_kernel_is_the_sum_of_an_enlarged_picture_and_a_pixel_shuffle(
    way: None, size: tuple[int, int], scale: int, factor: int, dtype: torch.dtype
) -> None:
    levels = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    more = more_for(*size, scale, factor, dtype)
    height, width = scale * size[0], scale * size[1]
    base = F.interpolate(levels[None].double(), size=(height, width), mode="bicubic", antialias=True)[0]
    added = F.pixel_shuffle(more.double().permute(2, 0, 1)[None], factor)[0, :, :height, :width]
    exact = (base + 127.5 * added).clamp(0, 255)
    made = kernels.enlarge(levels, more, factor, scale)
    assert made is not None
    assert made.shape == exact.shape
    assert float((made - exact).abs().max()) <= 0.5 + 2e-4  # rounded to the nearest level


def test_a_flat_picture_stays_flat_and_what_is_added_is_added_and_clipped(way: None) -> None:
    levels = torch.full((3, 6, 6), 100, dtype=torch.uint8)
    zeros = torch.zeros(6, 6, 12)
    for level, amount in ((100, 0.0), (110, 10.0), (255, 200.0), (0, -101.0)):
        made = kernels.enlarge(levels, zeros + amount / 127.5, 2, 2)
        assert made is not None
        assert (made == level).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_found(way: None, value: float, dtype: torch.dtype) -> None:
    more = torch.zeros(5, 5, 12, dtype=dtype)
    assert kernels.enlarge(torch.zeros(3, 5, 5, dtype=torch.uint8), more, 2, 2) is not None
    more[4, 4, 11] = value
    assert kernels.enlarge(torch.zeros(3, 5, 5, dtype=torch.uint8), more, 2, 2) is None


@needs_kernels
@pytest.mark.parametrize("name", [name for name in shipped.networks("upscale") if "srcnn" not in name])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_shipped_networks_are_those_of_pytorch_within_a_level(
    name: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    smooth = generator.integers(0, 256, (3, 5, 6)).astype(np.float32)
    levels = F.interpolate(torch.from_numpy(smooth)[None], size=(33, 47), mode="bicubic").clamp(0, 255).byte()
    upscaler = Upscaler.load(name, precision=precision)
    assert enlarges(upscaler.network)
    fast = upscaler.upscale(levels)
    monkeypatch.setattr(module, "enlarges", lambda network: False)
    plain = upscaler.upscale(levels)
    apart = (fast.int() - plain.int()).abs()
    assert int(apart.max()) <= 1
    assert float((apart > 0).float().mean()) < 1e-3


def test_only_networks_that_end_with_a_shuffle_and_add_to_a_bicubic_picture_are_taken(way: None) -> None:
    assert enlarges(TransformationNetwork(CONFIG))
    for change in (
        {"output": "linear"},
        {"noise": 0.1},
        {"padding": "reflect"},
        {"enlarge": 2},
        {"architecture": "c3s1-8 U8 c3s1-3"},
        {"channels": "luma", "architecture": "c3s1-8 s2-1"},
    ):
        assert not enlarges(TransformationNetwork(replace(CONFIG, **change))), change
    assert not enlarges(checkpoints.load(checkpoints.find_network("x4_srcnn", task="upscale"))[0])


def test_without_kernels_no_network_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "compiled", lambda: None)
    assert not enlarges(TransformationNetwork(CONFIG))


def test_a_damaged_network_is_named(way: None) -> None:
    network = TransformationNetwork(CONFIG).eval()
    with torch.no_grad():
        next(iter(network.parameters())).fill_(float("nan"))
        with pytest.raises(CheckpointError, match="damaged"):
            enlarge_bytes(network, torch.zeros(1, 3, 8, 8, dtype=torch.uint8), None)
