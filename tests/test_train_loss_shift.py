"""The random crop of the painting that the losses see (`loss_shift`)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from perceptual import images
from perceptual.config import NetworkConfig, TrainConfig
from perceptual.data import Photographs
from perceptual.errors import ConfigError
from perceptual.losses import PerceptualLoss, PixelLoss
from perceptual.tasks.style import Style
from perceptual.tasks.style_recipes import StyleRecipe

SIDE, SHIFT = 64, 16
NETWORK = NetworkConfig("c3s1-4 d4 r4 U4 c3s1-3", norm="instance", padding="reflect")
RECIPE = StyleRecipe(NETWORK, train=TrainConfig(size=SIDE, batch=1, seed=3), loss_shift=SHIFT)


class Seen(PixelLoss):
    """Keeps the images that it was called with."""

    def compare(self, output: Any, target: Any, style: Tensor | None = None) -> Tensor:
        self.output, self.target = output["pixels"], target["pixels"]
        return super().compare(output, target, style)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Style, Seen]:
    folder: Path = tmp_path_factory.mktemp("photographs")
    images.write(folder / "0.png", torch.rand(1, 3, 80, 80, generator=torch.Generator().manual_seed(0)))
    seen = Seen()
    with pytest.MonkeyPatch.context() as patch:
        loss = PerceptualLoss({"content": (seen, 1.0)})
        patch.setattr("perceptual.tasks.style.style_transfer_loss", lambda *_, **__: loss)
        task = Style({"wave": ("hash", torch.rand(1, 3, 32, 32))}, RECIPE, Photographs(folder, SIDE))
    return task, seen


def numbered() -> Tensor:
    """A photo whose pixels are all different: red grows from row to row, green from column to column."""
    steps = torch.arange(SIDE) / SIDE
    return torch.stack([steps[:, None].expand(-1, SIDE), steps.expand(SIDE, -1), torch.zeros(SIDE, SIDE)])[None]


def place(run: tuple[Style, Seen], index: int) -> tuple[int, int]:
    """The row and the column where the crop of a step begins."""
    task, seen = run
    photo = numbered()
    task.objective(lambda x, *_: 1 - x, photo, index)  # type: ignore[arg-type]
    top, left = (round(float(seen.target[0, channel, 0, 0]) * SIDE) for channel in (0, 1))
    side = SIDE - SHIFT
    crop = photo[..., top : top + side, left : left + side]
    torch.testing.assert_close(seen.target, crop, rtol=0, atol=0)
    torch.testing.assert_close(seen.output, 1 - crop, rtol=0, atol=0)  # the same crop of the painting
    return top, left


@settings(deadline=None, max_examples=20)
@given(index=st.integers(0, 1_000_000))
def test_painting_and_photo_are_cut_at_one_place_inside_the_picture(run: tuple[Style, Seen], index: int) -> None:
    assert all(0 <= start <= SHIFT for start in place(run, index))


def test_every_place_is_used_and_a_step_always_has_the_same(run: tuple[Style, Seen]) -> None:
    places = [place(run, index) for index in range(150)]
    for starts in zip(*places, strict=True):
        assert set(starts) == set(range(SHIFT + 1))
    assert any(top != left for top, left in places)
    assert [place(run, index) for index in range(10)] == places[:10]


def test_the_processes_of_a_step_cut_at_one_place(run: tuple[Style, Seen], monkeypatch: pytest.MonkeyPatch) -> None:
    alone = place(run, 40)
    monkeypatch.setattr(run[0], "share", (2, 4))  # photos 42 and 43 of a step that begins with photo 40
    assert place(run, 42) == alone


def test_the_gradient_of_what_is_cut_off_is_zero(run: tuple[Style, Seen]) -> None:
    task, _ = run
    top, left = place(run, 7)
    painted = (1 - numbered()).requires_grad_()
    task.objective(lambda *_: painted, numbered(), 7)["total"].backward()  # type: ignore[arg-type]
    assert painted.grad is not None
    inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    inside[top : top + SIDE - SHIFT, left : left + SIDE - SHIFT] = True
    assert (painted.grad.abs().sum((0, 1)) > 0)[inside].all()
    assert not painted.grad[..., ~inside].any()


def test_a_crop_that_would_be_too_small_is_refused_and_the_least_size_named() -> None:
    assert replace(RECIPE, loss_shift=16).loss_shift == 16
    with pytest.raises(
        ConfigError, match=r"--loss-shift 17 needs --size 65 or more: give that size, or a smaller shift\."
    ):
        replace(RECIPE, loss_shift=17)
