"""The shipped super-resolution networks: what they are, how large, and that they are worth their place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from conftest import SHARED
from PIL import Image
from torch import Tensor

from perceptual import PerceptualDistance, Upscaler, degrade, images, modcrop, psnr
from perceptual.checkpoints import shipped
from perceptual.events import finish
from perceptual.functional import grid_energy
from perceptual.measure.super_resolution import bicubic, evaluate, means, read_sets, shipped_methods
from perceptual.networks import enlarge

GOLDEN = Path(__file__).parent / "golden"
NAMES = (
    *("x2_photo", "x2_pixel", "x2_video"),
    *("x4_feature", "x4_photo", "x4_pixel", "x4_srcnn", "x8_feature", "x8_pixel"),
)


@pytest.fixture(scope="module")
def original() -> Tensor:
    return modcrop(images.from_any(skimage.data.coffee())[..., :200, 100:350], 8)


def test_these_networks_are_shipped_in_less_than_10_megabytes() -> None:
    assert tuple(shipped.networks("upscale")) == NAMES
    assert sum(path.stat().st_size for path in shipped.networks("upscale").values()) < 10e6


@pytest.mark.parametrize("name", NAMES)
def test_every_card_is_complete(name: str) -> None:
    upscaler = Upscaler.load(name)
    card = upscaler.card
    assert upscaler.scale == int(name[1])
    assert card.task == "upscale"
    assert card.about
    assert card.licence
    assert card.data
    assert card.steps > 0
    assert card.settings["blur"] == 0
    assert bool(card.loss_networks) == (name in ("x4_feature", "x4_photo", "x8_feature"))
    assert all(len(digest) == 64 for digest in card.loss_networks.values())


@pytest.mark.parametrize("name", NAMES)
def test_they_enlarge_to_the_golden_picture(name: str, photograph: Image.Image) -> None:
    golden = np.asarray(Image.open(GOLDEN / f"{name}.png")).astype(int)
    large = np.asarray(Upscaler.load(name)(photograph.crop((80, 30, 128, 78)))).astype(int)
    assert np.abs(large - golden).max() <= 2
    assert np.abs(large - golden).mean() < 0.1


@pytest.mark.parametrize(
    ("name", "gain"), [("x2_pixel", 1.0), ("x2_video", 1.0), ("x4_pixel", 1.0), ("x4_srcnn", 0.5), ("x8_pixel", 0.5)]
)
def test_pixel_loss_is_truer_than_bicubic(name: str, gain: float, original: Tensor) -> None:
    upscaler = Upscaler.load(name)
    scale = int(upscaler.scale)
    small = degrade(original, scale)
    values = [psnr(large, original, border=scale) for large in (upscaler.upscale(small), bicubic(scale)(small))]
    assert values[0] > values[1] + gain


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("damage", ["JPEG", "noise"])
def test_photo_is_closer_than_bicubic_and_pixel_for_damaged_pictures(scale: int, damage: str, original: Tensor) -> None:
    small = degrade(original, scale)
    noise = 12 / 255 * torch.randn(small.shape, generator=torch.Generator().manual_seed(0))
    damaged = images.through_jpeg(small, 30) if damage == "JPEG" else (small + noise).clamp(0, 1)
    results = {loss: Upscaler.at_scale(scale, loss).upscale(damaged) for loss in ("photo", "pixel", "auto")}
    results["bicubic"] = bicubic(scale)(damaged)
    values = {name: psnr(large, original, border=scale) for name, large in results.items()}
    assert values["photo"] > max(values["bicubic"], values["pixel"])
    assert values["auto"] == values["photo"]


def test_video_is_the_small_network_up_to_two_and_pixel_above() -> None:
    names = {scale: Upscaler.name_at(scale, "video") for scale in (1.5, 2, 2.5, 4, 8)}
    assert names == {1.5: "x2_video", 2: "x2_video", 2.5: "x4_pixel", 4: "x4_pixel", 8: "x8_pixel"}
    methods = list(shipped_methods(4))
    assert methods == ["bicubic", "srcnn", "pixel", "feature", "photo"]


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_no_network_leaves_a_grid(scale: int, original: Tensor) -> None:
    """What repeats with the scale is no more than twice that of the bicubic enlargement, which has no grid."""
    small = degrade(original, scale)
    own = grid_energy(enlarge(small, scale) - original, scale)
    for name in (name for name in NAMES if name[1] == str(scale) and not name.endswith("srcnn")):
        large = Upscaler.load(name).upscale(small)
        assert grid_energy(large - original, scale) < 2 * own


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("scale", [4, 8])
@pytest.mark.parametrize("network", ["vgg16", "squeezenet1_1"])
def test_feature_loss_looks_closest_also_to_a_network_that_it_was_not_trained_with(
    network: str, scale: int, pretrained: object
) -> None:
    folder = SHARED / "data" / "sr" / "Set5"
    if not folder.is_dir():
        pytest.skip("Set5 is not part of this repository")
    distances = {"d": PerceptualDistance(network)}
    rows = finish(evaluate(read_sets(folder, scale), shipped_methods(scale), scale, distances=distances))
    far = {line["method"]: line["d"] for line in means(rows)}
    assert far["feature"] < far["pixel"] < far["bicubic"]
    assert min(far.values()) == far["feature"]


def test_a_grey_picture_stays_nearly_grey() -> None:
    grey = torch.linspace(0, 1, 24).expand(1, 3, 24, 24).contiguous()
    for name in NAMES:
        large = Upscaler.load(name).upscale(grey)
        assert (large - large.mean(1, keepdim=True)).abs().max() < 0.05
