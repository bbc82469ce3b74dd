"""Degradation for training on real photos: a function of seed and number, of the right size, with levels of a file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from perceptual import degradation, images
from perceptual.degradation import degrade_like_photos
from perceptual.resampling import degrade

close = torch.testing.assert_close


@pytest.fixture
def photos() -> torch.Tensor:
    """Smooth pictures with edges, (6, 3, 64, 48)."""
    torch.manual_seed(0)
    coarse = torch.rand(6, 3, 8, 6)
    return torch.nn.functional.interpolate(coarse, (64, 48), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_size_range_and_levels(photos: torch.Tensor, scale: int) -> None:
    small = degrade_like_photos(photos, scale, seed=0)
    assert small.shape == (6, 3, 64 // scale, 48 // scale)
    assert small.dtype == photos.dtype
    close(small, (small * 255).round() / 255)
    assert float(small.min()) >= 0
    assert float(small.max()) <= 1


def test_each_image_depends_on_its_number_only(photos: torch.Tensor) -> None:
    whole = degrade_like_photos(photos, 2, seed=3, index=10)
    parts = [degrade_like_photos(photos[k : k + 1], 2, seed=3, index=10 + k) for k in range(6)]
    close(whole, torch.cat(parts), rtol=0, atol=0)
    assert not torch.equal(whole, degrade_like_photos(photos, 2, seed=4, index=10))
    assert not torch.equal(whole, degrade_like_photos(photos, 2, seed=3, index=11))


def test_some_images_are_only_reduced(photos: torch.Tensor) -> None:
    """A share of CLEAN of 400 images, within five standard deviations."""
    many = photos[:1, :, :16, :16].expand(400, -1, -1, -1)
    plain = degrade(many[:1], 4)
    small = degrade_like_photos(many, 4, seed=0)
    clean = sum(torch.equal(each, plain[0]) for each in small)
    spread = (400 * degradation.CLEAN * (1 - degradation.CLEAN)) ** 0.5
    assert abs(clean - 400 * degradation.CLEAN) < 5 * spread


def test_the_mean_colour_stays(photos: torch.Tensor) -> None:
    small = degrade_like_photos(photos, 4, seed=1)
    close(small.mean((2, 3)), photos.mean((2, 3)), rtol=0, atol=0.06)


def test_the_argument_is_not_changed(photos: torch.Tensor) -> None:
    before = photos.clone()
    degrade_like_photos(photos, 4, seed=1)
    close(photos, before, rtol=0, atol=0)


def test_a_jpeg_of_a_flat_picture_is_flat_and_a_low_quality_loses_more(photos: torch.Tensor) -> None:
    flat = torch.full((1, 3, 16, 24), 100 / 255)
    close(images.through_jpeg(flat, 90), flat, rtol=0, atol=2 / 255)
    errors = [(images.through_jpeg(photos[:1], quality) - photos[:1]).abs().mean() for quality in (10, 50, 95)]
    assert errors[0] > errors[1] > errors[2]


def test_a_jpeg_is_the_one_that_pillow_writes(photos: torch.Tensor, tmp_path: object) -> None:
    levels = (photos[0].permute(1, 2, 0).numpy() * 255 + 0.5).astype(np.uint8)
    file = f"{tmp_path}/a.jpg"
    Image.fromarray(levels).save(file, quality=40, subsampling=2)
    expected = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None].float() / 255
    close(images.through_jpeg(torch.from_numpy(levels).permute(2, 0, 1)[None].float() / 255, 40), expected)
