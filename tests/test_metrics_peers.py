"""PSNR and SSIM agree with torchmetrics and piq, where these are installed; test_metrics.py asks scikit-image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from perceptual.measure.metrics import psnr, ssim, y_channel


def pair(count: int = 3) -> tuple[Tensor, Tensor]:
    """Two similar batches at 8-bit levels, float64 in [0, 1], (N, 3, 40, 56)."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 256, (count, 3, 40, 56), generator=generator)
    noise = torch.randint(-30, 31, target.shape, generator=generator)
    return (target + noise).clamp(0, 255).double() / 255, target.double() / 255


def test_psnr_is_that_of_torchmetrics() -> None:
    functional = pytest.importorskip("torchmetrics.functional.image")
    output, target = pair()
    peer = functional.peak_signal_noise_ratio(
        255 * output, 255 * target, data_range=255.0, reduction="elementwise_mean", dim=(1, 2, 3)
    )
    assert psnr(output, target, color="rgb") == pytest.approx(peer.item(), abs=1e-6)
    luma = functional.peak_signal_noise_ratio(
        y_channel(output), y_channel(target), data_range=255.0, reduction="elementwise_mean", dim=(1, 2, 3)
    )
    assert psnr(output, target) == pytest.approx(luma.item(), abs=1e-6)


def inner_ssim(output: Tensor, target: Tensor) -> float:
    """SSIM of torchmetrics, only where the window of 11 x 11 fits, as in the authors' code.

    The value that torchmetrics reports also counts a border of 5 pixels, for which it mirrors the image.
    """
    functional = pytest.importorskip("torchmetrics.functional.image")
    measure = functional.structural_similarity_index_measure
    _, places = measure(output, target, data_range=255.0, sigma=1.5, return_full_image=True)
    return float(places[..., 5:-5, 5:-5].mean())


def test_ssim_is_that_of_torchmetrics_where_the_window_fits() -> None:
    output, target = pair()
    assert ssim(output, target, color="rgb") == pytest.approx(inner_ssim(255 * output, 255 * target), abs=1e-6)
    assert ssim(output, target) == pytest.approx(inner_ssim(y_channel(output), y_channel(target)), abs=1e-6)


def test_psnr_and_ssim_are_those_of_piq() -> None:
    piq = pytest.importorskip("piq", exc_type=ImportError)
    output, target = pair()
    assert psnr(output, target, color="rgb") == pytest.approx(piq.psnr(output, target).item(), abs=1e-4)
    peer = piq.ssim(output, target, kernel_size=11, kernel_sigma=1.5, downsample=False)
    assert ssim(output, target, color="rgb") == pytest.approx(peer.item(), abs=1e-6)
