"""Painting in 8 bits stays above 42 dB of the painting in float32, also on the pictures that are hard for bytes."""

from __future__ import annotations

import pytest
import torch
from conftest import SHARED
from torch import Tensor

from perceptual import images, psnr
from perceptual.apply import Stylizer
from perceptual.fast import kernels, painting, reads_bytes
from perceptual.fast.inference import Inference
from perceptual.fast.kernels import Vector
from perceptual.fast.rounding import too_coarse

pytestmark = [
    pytest.mark.usefixtures("one_thread", "seed"),
    pytest.mark.skipif(not reads_bytes(), reason="this processor has no instructions for 8-bit products"),
]


@pytest.fixture(params=["compiled", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test runs with the compiled kernels and without them."""
    if request.param == "plain":
        monkeypatch.setattr(kernels, "compiled", lambda: None)
    elif kernels.compiled() is None:
        pytest.skip("there are no compiled kernels")


@pytest.fixture
def sign() -> Tensor:
    """A bright sign at night, (1, 3, 240, 320): most of the picture is nearly black."""
    picture = (torch.linspace(0, 10, 240)[:, None] + torch.linspace(0, 10, 320)).expand(1, 3, -1, -1).clone()
    picture[..., 100:140, 86:126] = 255
    picture[..., 115:125, 96:116] = 0
    return picture.round().to(torch.uint8)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether bytes were too coarse, for each layer of each painting from here on."""
    seen: list[bool] = []

    def spy(low: Vector, high: Vector, variance: Vector, top: int) -> bool:
        seen.append(too_coarse(low, high, variance, top))
        return seen[-1]

    monkeypatch.setattr(painting, "too_coarse", spy)
    return seen


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("name", "style"),
    [("starry_night_solo", None), ("gallery_video", "wheat_field"), ("gallery_video", "olive_trees")],
)
def test_a_bright_sign_at_night_is_above_42_decibels(
    name: str, style: str | None, sign: Tensor, judged: list[bool]
) -> None:
    stylizer = Stylizer.load(name)
    fast, shares = Inference(stylizer.network, "int8"), stylizer._weights(style)
    expected = Inference(stylizer.network, "float32")(sign, shares)
    chosen = list(fast.tops)
    assert psnr(fast(sign, shares), expected, color="rgb") >= 42
    assert psnr(fast(sign, shares, band=20_000), expected, color="rgb") >= 42
    half = len(judged) // 2
    assert any(judged)
    assert judged[:half] == judged[half:]  # the bands of a picture are not judged one by one
    assert fast.tops == chosen  # the next picture starts with bytes again


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("photograph", ["000000122745", "000000085329"])
@pytest.mark.parametrize("name", ["gallery", "gallery_video", "starry_night_solo"])
def test_dark_and_flat_photographs_are_above_42_decibels(name: str, photograph: str) -> None:
    """The two photographs of docs/performance.md that are the hardest ones for bytes."""
    path = SHARED / "data" / "val" / f"{photograph}.jpg"
    if not path.is_file():
        pytest.skip("the photographs are not part of this repository")
    if kernels.compiled() is None:
        pytest.skip("without compiled kernels a photograph is painted in float32 by the network itself")
    stylizer, levels = Stylizer.load(name, device="cpu"), images.read(path, levels=True).pixels
    for style in stylizer.styles:
        painted = []
        for precision in ("int8", "float32"):
            painted.append(stylizer.stylize(levels, style=style, precision=precision))
        assert psnr(*painted, color="rgb") >= 42, style
