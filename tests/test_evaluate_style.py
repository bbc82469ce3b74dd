"""`perceptual evaluate style`: what its numbers mean, and that styles of other programs are among them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from foreign import TransformerNet
from PIL import Image
from torch import Tensor, nn

from perceptual import cli
from perceptual.errors import ConfigError
from perceptual.events import finish
from perceptual.losses import LossNetwork
from perceptual.measure import style

Capture = pytest.CaptureFixture[str]


def smooth(side: int = 128) -> Tensor:
    small = torch.rand(1, 3, side // 8, side // 8)
    return nn.functional.interpolate(small, (side, side), mode="bicubic").clamp(0, 1)


@pytest.fixture
def tiny_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network with random weights in place of VGG-16, whose weights are not part of this repository."""
    torch.manual_seed(0)

    class Layers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolutions = nn.ModuleList(nn.Conv2d(c, 8, 3, padding=1) for c in (3, 8, 8, 8))

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            found = {}
            for name, convolution in zip(("relu1_2", "relu2_2", "relu3_3", "relu4_3"), self.convolutions, strict=True):
                found[name] = x = convolution(x).relu()
            return found

    names = ["relu1_2", "relu2_2", "relu3_3", "relu4_3"]
    network = LossNetwork.from_module(Layers(), names, mean=(0.5,) * 3, std=(0.5,) * 3)
    build = style.style_transfer_loss
    monkeypatch.setattr(
        style,
        "style_transfer_loss",
        lambda *words, paths=None: build(*words, own_networks={"vgg16-torchvision": network}),
    )
    monkeypatch.setattr("perceptual.cli.evaluate.fetch_missing", lambda layers, paths: None)


@pytest.mark.usefixtures("tiny_network")
def test_the_scale_of_the_numbers() -> None:
    """The photos: content 0 and style 1. The painting itself: style 0."""
    photos, painting = [smooth() for _ in range(3)], smooth()
    work = style.evaluate_styles({"painting": lambda photo: painting}, photos, painting)
    own, theirs = finish(work)
    assert (own["style of"], own["content"], round(own["style"], 4)) == ("the photos", 0, 1)
    assert (theirs["style of"], round(theirs["style"], 6)) == ("painting", 0)
    assert theirs["content"] > 0.1


def test_a_grid_of_four_pixels_is_seen() -> None:
    torch.manual_seed(0)
    picture = torch.rand(1, 3, 128, 128)
    lines = 0.2 * (torch.arange(128) % 4 == 0).float()
    assert style.checkerboard(picture) < 3
    assert style.checkerboard(0.8 * picture + lines) > 8


def test_two_photos_are_needed(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    with pytest.raises(ConfigError, match="two photos or more"):
        style.read_photos([tmp_path], 128)


@pytest.mark.usefixtures("tiny_network", "seed")
def test_damaged_photos_are_skipped_and_named(tmp_path: Path, tiny_style: Path, capsys: Capture) -> None:
    for k in range(3):
        Image.new("RGB", (64, 64), (80 * k, 40, 0)).save(tmp_path / f"{k}.png")
    (tmp_path / "1.png").write_bytes(b"no picture")
    words = ["evaluate", "style", str(tmp_path), "--painting", str(tmp_path / "0.png"), "--size", "128"]
    assert cli.main([*words, "--styles", str(tiny_style), "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    assert f"Skipped: {tmp_path / '1.png'} is not an image of a known format" in printed.err
    assert printed.out.startswith("| style of |")
    assert cli.main([*words, "--styles", str(tiny_style), "--device", "cpu", "--json", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["style of"] for row in document["table"]] == ["the photos", str(tiny_style)]
    assert len(document["skipped"]) == 1
    (tmp_path / "2.png").unlink()
    with pytest.raises(ConfigError, match=r"two photos or more.*1\.png is not an image of a known format"):
        style.read_photos([tmp_path], 128)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 7])
def test_every_photo_is_in_one_batch(count: int) -> None:
    photos = [torch.full((1, 1, 1, 1), float(k)) for k in range(count)]
    batches = style._pairs(photos)
    assert torch.cat(batches).flatten().tolist() == list(range(count))
    assert all(len(batch) >= 2 for batch in batches)


@pytest.mark.usefixtures("tiny_network", "seed")
def test_own_and_foreign_styles_are_on_one_table(tmp_path: Path, tiny_style: Path, capsys: Capture) -> None:
    (tmp_path / "photos").mkdir()
    for k in range(2):
        pixels = (smooth()[0].permute(1, 2, 0) * 255).byte().numpy()
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{k}.png")
    theirs = tmp_path / "theirs.pth"
    torch.save(TransformerNet().state_dict(), theirs)
    words = ["evaluate", "style", str(tmp_path / "photos"), "--painting", str(tmp_path / "photos" / "0.png")]
    assert cli.main([*words, "--size", "128", "--styles", str(tiny_style), str(theirs), "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0] == "| style of | objective | style | content | grid |"
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]] == [
        "the photos",
        str(tiny_style),
        str(theirs),
    ]
