"""Which network enlarges a picture, how strongly it cleans, and in which precision it computes."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from perceptual import checkpoints, devices, images
from perceptual.apply import Upscaler, upscaler
from perceptual.checkpoints import Card, shipped
from perceptual.config import NetworkConfig, UpscaleConfig
from perceptual.errors import ConfigError
from perceptual.networks import TransformationNetwork
from perceptual.quality import ALIASING_SEEN, aliasing, damage, jpeg_step, noise_level

close = torch.testing.assert_close


@pytest.fixture(scope="module")
def clean() -> Tensor:
    """A sharp photo without noise or compression, (1, 3, 256, 256), uint8."""
    photo = images.from_any(np.ascontiguousarray(skimage.data.astronaut()))
    return (images.resize(images.unit(photo), size=(256, 256)).clamp(0, 1) * 255).round().to(torch.uint8)


def noisy(image: Tensor, sigma: float, *, grey: bool = False) -> Tensor:
    shape = (1, 1, *image.shape[-2:]) if grey else image.shape
    noise = sigma * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return (image + noise).round().clamp(0, 255).to(torch.uint8)


def compressed(image: Tensor, quality: int) -> Tensor:
    return (images.through_jpeg(image.float() / 255, quality) * 255).round().to(torch.uint8)


def save(path: Path, name: str, bias: float) -> Path:
    """A network that adds a constant to the bicubic enlargement, with the scale in its name."""
    config = NetworkConfig(f"c3s1-4 s{name[1]}-3", norm="none", padding="zero", output="bicubic")
    net = TransformationNetwork(config)
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    nn.init.constant_(net.layers[-1].conv.bias, bias)
    file = path / f"{name}.safetensors"
    checkpoints.save(file, net, Card(task="upscale", network=config))
    return file


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shipped networks: pixel subtracts 0.1, photo adds 0.1; there is no photo network for x8."""
    biases = {"x2_pixel": -0.2, "x2_photo": 0.2, "x4_pixel": -0.2, "x4_photo": 0.2, "x8_pixel": -0.2}
    found = {name: save(tmp_path, name, bias) for name, bias in biases.items()}
    monkeypatch.setattr(shipped, "networks", lambda task: found if task == "upscale" else {})


GREY = torch.full((1, 3, 64, 64), 128, dtype=torch.uint8)


# --- what a picture looks like


def test_a_clean_photo_is_clean_and_a_flat_one_too(clean: Tensor) -> None:
    assert damage(clean) == ""
    assert damage(GREY) == ""
    assert noise_level(GREY) == pytest.approx(0, abs=1e-6)  # not 0 on some processors


@pytest.mark.parametrize("quality", [20, 40, 60, 75, 80])
def test_a_jpeg_looks_damaged_also_when_it_is_cropped_or_turned(clean: Tensor, quality: int) -> None:
    jpeg = compressed(clean, quality)
    for image in (jpeg, jpeg[..., 3:, 5:], jpeg.mT, jpeg.flip(-1), jpeg.float() / 255):
        assert damage(image) == "compressed"


@pytest.mark.parametrize("quality", [90, 95])
def test_a_jpeg_of_high_quality_does_not(clean: Tensor, quality: int) -> None:
    assert damage(compressed(clean, quality)) == ""


@pytest.mark.parametrize("quality", [20, 30, 40, 50, 60, 70, 75, 80, 85, 90])
@pytest.mark.parametrize("colour", ["rgb", "grey"])
def test_the_step_of_a_jpeg_is_that_of_its_own_table(clean: Tensor, quality: int, colour: str) -> None:
    """The median over the five lowest frequencies: (0, 1), (0, 2), (1, 0), (1, 1) and (2, 0)."""
    file, picture = io.BytesIO(), Image.fromarray(clean[0].permute(1, 2, 0).numpy())
    picture.convert("L" if colour == "grey" else "RGB").save(file, "JPEG", quality=quality)
    with Image.open(file) as jpeg:
        expected = np.median([jpeg.quantization[0][k] for k in (1, 2, 8, 9, 16)])  # type: ignore[attr-defined]
        image = images.from_any(np.asarray(jpeg.convert("RGB")).copy())
    for part in (image, image[..., 3:, 5:], image[..., 8:, 2:-7]):
        assert jpeg_step(part) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize("size", [(200, 200), (128, 128)])
def test_a_jpeg_that_was_resized_has_no_step(clean: Tensor, size: tuple[int, int]) -> None:
    jpeg = images.unit(compressed(clean, 30))
    assert jpeg_step(images.resize(jpeg, size=size).clamp(0, 1)) < 2


@pytest.mark.parametrize(("quality", "step"), [(30, 20), (50, 12), (75, 6), (80, 5), (90, 0), (95, 0), (None, 0)])
@pytest.mark.parametrize("size", [(360, 240), (1100, 700)])
def test_the_step_of_black_text_on_white(quality: int | None, step: float, size: tuple[int, int]) -> None:
    """Nearly all of its blocks have white pixels, which were clipped."""
    page = Image.new("RGB", size, "white")
    for k in range(40):
        ImageDraw.Draw(page).text((8, 8 + 18 * k), f"Line {k}: {4 * 'The quick brown fox jumps. '}", "black")
    image = images.from_any(page)
    image = image if quality is None else images.through_jpeg(image, quality)
    assert jpeg_step(image) == pytest.approx(step, abs=1)


@pytest.mark.parametrize("size", [11, 13])
@pytest.mark.parametrize("reduced", [1, 4])
def test_letters_are_not_noise(size: int, reduced: int) -> None:
    """Text on a white page, drawn at its size or drawn larger and reduced. Its cells hold edges everywhere."""
    page = Image.new("RGB", (360 * reduced, 240 * reduced), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size * reduced)
    for line in range(11):
        at = 10 * reduced, (8 + 20 * line) * reduced
        draw.text(at, "The quick brown fox jumps over the lazy dog 0123", (0, 0, 80), font)
    pixels = images.from_any(page.resize((360, 240), Image.Resampling.BICUBIC))
    assert 255 * noise_level(pixels) < 1
    assert damage(pixels) != "noisy"


@pytest.mark.parametrize("sigma", [4.0, 8.0, 16.0])
def test_the_noise_level_is_near_the_true_one(clean: Tensor, sigma: float) -> None:
    assert 0.7 * sigma < 255 * noise_level(noisy(clean, sigma)) < 1.3 * sigma
    assert damage(noisy(clean, sigma)) == "noisy"


def test_grey_noise_is_seen_too(clean: Tensor) -> None:
    assert damage(noisy(clean, 8, grey=True)) == "noisy"
    assert damage(noisy(GREY, 4, grey=True)) == "noisy"


@pytest.mark.parametrize("step", [2, 4])
def test_a_photo_reduced_without_a_filter_looks_damaged(step: int) -> None:
    photo = images.from_any(np.ascontiguousarray(skimage.data.astronaut()))
    size = (photo.shape[-2] // step, photo.shape[-1] // step)
    aliased = photo[..., ::step, ::step]
    assert damage(aliased) == "aliased"
    assert damage(aliased.mT) == "aliased"
    assert aliasing(images.resize(photo, size=size)) < 0.5 < ALIASING_SEEN < aliasing(aliased)


def test_aliasing_by_hand() -> None:
    """Two waves, at 15.5 and 11.5 sixteenths of the Nyquist frequency: half the amplitude is a quarter of the power."""
    place = torch.arange(256) * torch.pi / 16
    for amplitude in (0.1, 0.05):
        waves = amplitude * torch.cos(15.5 * place) + 0.1 * torch.cos(11.5 * place)
        image = (0.5 + waves + waves[:, None]).expand(1, 3, 256, 256)
        assert aliasing(image) == pytest.approx((amplitude / 0.1) ** 2, rel=0.02)
    assert aliasing(GREY) == 0
    assert aliasing(torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))) == pytest.approx(1, rel=0.2)


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (15, 15), (34, 400), (16, 16)])
def test_a_small_picture_has_a_finite_answer(size: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *size)
    assert jpeg_step(image) == 0
    assert math.isfinite(noise_level(image))
    assert math.isfinite(aliasing(image))


def test_black_and_white_have_no_noise() -> None:
    for level in (0, 255):
        assert noise_level(torch.full((1, 3, 64, 64), level, dtype=torch.uint8)) == 0


# --- which network


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_auto_takes_photo_for_damaged_pictures_only(clean: Tensor, scale: float) -> None:
    auto = Upscaler.at_scale(scale, "auto", device="cpu")
    for image, loss in ((clean, "pixel"), (compressed(clean, 20), "photo")):
        expected = Upscaler.at_scale(scale, loss, device="cpu")
        close(auto(image), expected(image), rtol=0, atol=0)


@pytest.mark.usefixtures("shelf")
def test_auto_says_which_network_it_takes(clean: Tensor) -> None:
    auto = Upscaler.at_scale(4, "auto", device="cpu")
    said = [[step.message for step in auto.run(image) if step.message] for image in (clean, compressed(clean, 20))]
    assert said == [[], ["This picture looks compressed: --loss photo is used. --loss pixel does not clean it."]]


@pytest.mark.usefixtures("shelf")
def test_without_a_photo_network_auto_is_pixel(clean: Tensor) -> None:
    assert Upscaler.at_scale(8, "auto", device="cpu").cleaner is None
    assert Upscaler.at_scale(4, device="cpu").cleaner is None


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize(("denoise", "level"), [(1.0, 138), (0.75, 133), (0.5, 128), (0.0, 118), (None, 138)])
def test_denoise_mixes_the_weights(denoise: float | None, level: int) -> None:
    """pixel subtracts 0.1 of 255 levels from grey of 128, photo adds it; half of each leaves it."""
    large = Upscaler.at_scale(4, "photo", denoise=denoise, device="cpu")(GREY.float() / 255)
    close(large, torch.full((1, 3, 256, 256), 128 / 255 + 0.1 * round((level - 128) / 5) / 2), atol=1e-3, rtol=0)


@pytest.mark.usefixtures("shelf")
def test_denoise_without_the_photo_network_is_refused() -> None:
    with pytest.raises(ConfigError, match="pixel does not remove noise: leave --denoise out"):
        Upscaler.at_scale(4, "pixel", denoise=0.5)
    for settings in ({"loss": "feature"}, {"network": Path("x")}):
        with pytest.raises(ConfigError, match="--denoise is for --loss photo and auto"):
            UpscaleConfig(denoise=0.5, **settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"No network removes noise at scale 8: leave --denoise out"):
        Upscaler.at_scale(8, "auto", denoise=0.5, device="cpu")


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize("denoise", [-0.1, 1.1, float("nan"), "0.5"])
def test_a_share_of_denoise_outside_of_0_to_1_is_refused(denoise: Any) -> None:
    with pytest.raises(ConfigError, match=r"denoise is .*; give a number from 0 to 1\."):
        Upscaler.at_scale(4, "photo", denoise=denoise, device="cpu")


# --- precision


def network() -> Upscaler:
    torch.manual_seed(0)
    config = NetworkConfig("c3s1-16 r16*2 s4-3", norm="none", padding="zero", output="bicubic")
    return Upscaler(TransformationNetwork(config), Card(task="upscale", network=config), device="cpu")


def test_bfloat16_is_near_float32(clean: Tensor) -> None:
    """bfloat16 has 8 bits of precision, and only the part beside the bicubic enlargement is computed in it."""
    small = clean[..., :64, :48].float() / 255
    exact, near = (network()(small, precision=precision) for precision in ("float32", "bfloat16"))
    assert 0 < float((exact - near).abs().max()) < 4 / 255


@pytest.mark.parametrize("fast", [True, False])
def test_auto_is_bfloat16_for_bytes_where_it_is_faster(
    fast: bool, clean: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upscaler, "faster_in_bfloat16", lambda: fast)
    small, made = clean[..., :40, :40], network()
    exact, near = (made.upscale(small, precision=precision) for precision in ("float32", "bfloat16"))
    assert not torch.equal(exact, near)
    close(made.upscale(small), near if fast else exact, rtol=0, atol=0)
    floats = small.float() / 255
    close(made.upscale(floats), made.upscale(floats, precision="float32"), rtol=0, atol=0)


def test_a_network_that_makes_the_whole_picture_is_not_computed_in_bfloat16() -> None:
    config = NetworkConfig("c3s1-4 s2-3", norm="none", padding="zero", output="linear")
    made = Upscaler(TransformationNetwork(config), Card(task="upscale", network=config), device="cpu")
    with pytest.raises(ConfigError, match="choose --precision float32"):
        made(GREY, precision="bfloat16")


def test_the_probe_of_bfloat16_works_without_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEPTUAL_CACHE", str(tmp_path))
    devices.faster_in_bfloat16.cache_clear()
    with torch.no_grad():
        assert isinstance(devices.faster_in_bfloat16(), bool)
    devices.faster_in_bfloat16.cache_clear()


@pytest.mark.usefixtures("shelf")
def test_a_pil_image_is_chosen_for_like_a_tensor(clean: Tensor) -> None:
    array = compressed(clean, 20)[0].permute(1, 2, 0).contiguous().numpy()
    large = Upscaler.at_scale(2, "auto", device="cpu")(Image.fromarray(array))
    expected = Upscaler.at_scale(2, "photo", device="cpu")(Image.fromarray(array))
    assert np.array_equal(np.asarray(large), np.asarray(expected))
