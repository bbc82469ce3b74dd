"""The shipped gallery: what it holds, how large it is, and that its controls do on it what they say."""

import numpy as np
import pytest
import torch
from conftest import SHARED
from PIL import Image

from perceptual import Stylizer, images, temporal_error
from perceptual.checkpoints import find_style, gallery, shipped
from perceptual.config import LossConfig
from perceptual.functional import luma
from perceptual.losses import style_transfer_loss
from perceptual.motion import places_of

STYLES = sorted(gallery())
TRAINED_AT = {"edtaonisl": 384, "udnie": 384, "starry_night": 1024, "wheat_field": 1024}
"""Longer side of the painting in pixels, where it is not 768."""


@pytest.fixture(scope="module")
def network() -> Stylizer:
    return Stylizer.load("gallery")


def test_it_holds_eleven_paintings_by_name_in_less_than_8_megabytes(network: Stylizer) -> None:
    assert len(network.styles) == len(set(network.styles)) == 11
    assert set(network.card.titles) == set(network.styles)
    assert all(len(digest) == 64 for digest in network.card.paintings.values())
    assert shipped.networks("style")["gallery"].stat().st_size < 8e6
    assert sum(path.stat().st_size for path in shipped.networks("style").values()) < 40e6


def test_a_shipped_style_is_found_by_its_own_name(network: Stylizer, photograph: Image.Image) -> None:
    assert find_style("wave") == (shipped.networks("style")["gallery"], "wave")
    assert np.array_equal(Stylizer.load("wave")(photograph), network(photograph, style="wave"))


def test_video_takes_the_network_that_holds_still_and_the_same_styles(network: Stylizer) -> None:
    film = Stylizer.load("gallery_video")
    assert film.styles == network.styles
    assert film.card.settings["temporal_weight"] > 0
    assert find_style("wave", video=True) == (shipped.networks("style")["gallery_video"], "wave")
    assert Stylizer.load("starry_night_solo", video=True).card.titles == Stylizer.load("starry_night_solo").card.titles


@pytest.mark.parametrize("style", ["wave", "udnie", "the_scream"])
def test_the_network_for_video_flickers_less(network: Stylizer, photograph: Image.Image, style: str) -> None:
    large = images.like(images.from_any(photograph.resize((450, 300))), torch.empty(0, dtype=torch.uint8))
    film = [large[..., 20:276, 40 + k : 360 + k] for k in (0, 1, 3, 6)]  # whole pixels: nothing is interpolated
    motion = [places_of(torch.tensor([[1.0, 0, k], [0, 1, 0]]), 256, 320) for k in (1, 2, 3)]

    def flicker(stylizer: Stylizer) -> float:
        return temporal_error(film, (stylizer.stylize(frame, style=style) for frame in film), motion=motion)

    assert temporal_error(film, film, motion=motion) < 1e-6
    assert flicker(Stylizer.load(style, video=True)) < 0.9 * flicker(network)


def test_no_style_is_the_photograph_and_no_two_are_alike(network: Stylizer, photograph: Image.Image) -> None:
    pixels = images.from_any(photograph)
    pictures = [pixels, *(network.stylize(pixels, style=style) for style in network.styles)]
    apart = [(a - b).abs().mean().item() for k, a in enumerate(pictures) for b in pictures[:k]]
    assert min(apart) > 0.04  # a mean difference of 10 levels in 255


def test_a_blend_lies_between_its_styles(network: Stylizer, photograph: Image.Image) -> None:
    pixels = images.from_any(photograph)
    shares = [network.stylize(pixels, style=f"the_scream:{s},wave:{1 - s}") for s in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert torch.equal(shares[0], network.stylize(pixels, style="wave"))
    assert torch.equal(shares[-1], network.stylize(pixels, style="the_scream"))
    from_wave = [(picture - shares[0]).abs().mean().item() for picture in shares]
    from_scream = [(picture - shares[-1]).abs().mean().item() for picture in shares]
    assert from_wave == sorted(from_wave)
    assert from_scream == sorted(from_scream, reverse=True)


def test_keep_colors_changes_luma_only(network: Stylizer, photograph: Image.Image) -> None:
    pixels = images.from_any(photograph) * 0.2 + 0.4  # gray enough that nothing is clipped for most pixels
    painted = network.stylize(pixels, style="wave", keep_colors=True)
    inside = ((painted > 0.001) & (painted < 0.999)).all(1, keepdim=True).expand_as(painted)
    chroma, before = painted - luma(painted), pixels - luma(pixels)
    assert inside.float().mean() > 0.5
    assert torch.allclose(chroma[inside], before[inside], atol=1e-5)


def test_large_strokes_make_a_coarser_picture(network: Stylizer, photograph: Image.Image) -> None:
    """The painting of a photograph that has no detail of its own: the strokes' edges lie further apart at scale 4."""
    pixels = images.resize(images.from_any(photograph), size=(24, 36))
    pixels = images.resize(pixels, size=(384, 576))
    paintings = [network.stylize(pixels, style="starry_night", style_scale=scale) for scale in (1, 2, 4)]
    edges = [luma(p).diff(dim=3).abs().mean().item() / luma(p).std().item() for p in paintings]
    assert edges[0] > 1.3 * edges[1] > 1.69 * edges[2]


@pytest.mark.shared
@pytest.mark.parametrize("style", STYLES)
def test_strength_is_monotone_in_style_loss(
    style: str, network: Stylizer, photograph: Image.Image, pretrained: object
) -> None:
    """The style loss under the distilled VGG-19, from the photo to five eighths of the style, falls at every step."""
    found = sorted((SHARED / "data" / "styles").glob(f"{style}.*"))
    if not found:
        pytest.skip("the paintings are not part of this repository")
    painting = images.resize(images.read(found[0]).pixels, longer_side=TRAINED_AT.get(style, 768))
    layers = tuple(f"vgg19-distilled:{layer}" for layer in ("relu1_2", "relu2_2", "relu3_3", "relu4_3"))
    pixels = images.from_any(photograph)
    loss = style_transfer_loss(LossConfig((), layers, tv_weight=0.0), [painting])
    with torch.no_grad():
        first = loss(pixels)
        losses = []
        for strength in (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0):
            terms = loss(network.stylize(pixels, style=style, strength=strength))
            losses.append(sum((terms[name] / first[name]).item() for name in terms if name != "total"))
    falling = losses[:6]  # to 0.625; near the full style a mixture may be as close
    assert falling == sorted(falling, reverse=True)
    assert losses[-1] < 0.6 * losses[0]
