"""Perceptual distances, LPIPS and temporal error."""

from __future__ import annotations

import math
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_metrics import as_array, few, random, random_levels, seeds
from torch import Tensor

from perceptual.errors import ConfigError, ImageError, WeightsError
from perceptual.functional import absolute_distance, normalised_distance
from perceptual.losses.architectures import ARCHITECTURES, DISTANCE_LAYERS
from perceptual.losses.networks import LossNetworks, layer_names
from perceptual.losses.weights.heads import LPIPS_LAYERS
from perceptual.measure.metrics import PerceptualDistance, temporal_error
from perceptual.motion import places_of

# --- distances of features


def test_normalised_distance_by_hand() -> None:
    one = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)  # 0.6 and 0.8
    other = torch.tensor([0.0, 7.0]).view(1, 2, 1, 1)  # 0 and 1
    assert float(normalised_distance(one, other)) == pytest.approx(0.6**2 + 0.2**2)
    assert float(normalised_distance(one, -one)) == pytest.approx(4)
    channels = torch.tensor([10.0, 1000.0]).view(1, 2, 1, 1)
    assert float(normalised_distance(one, other, channels)) == pytest.approx(10 * 0.6**2 + 1000 * 0.2**2)
    places = torch.cat([one, other], dim=3), torch.cat([one, one], dim=3)
    assert float(normalised_distance(*places)) == pytest.approx((0.6**2 + 0.2**2) / 2)  # the mean over the places


def test_distances_give_one_number_for_each_image() -> None:
    one, other = random(3, 4, 5, 6), random(3, 4, 5, 6, seed=1)
    for distance in (normalised_distance, absolute_distance):
        assert distance(one, other).shape == (3,)
        torch.testing.assert_close(distance(one, other)[1:2], distance(one[1:2], other[1:2]))
        torch.testing.assert_close(distance(one, other[:1])[2:], distance(one[2:], other[:1]))  # one target serves all


@few
@given(seeds, st.floats(0.01, 100), st.integers(1, 5))
def test_features_count_by_their_direction_only(seed: int, factor: float, channels: int) -> None:
    one, other = random(2, channels, 3, 4, seed=seed) + 0.01, random(2, channels, 3, 4, seed=seed + 1) + 0.01
    distance = normalised_distance(one, other)
    factors = factor * (1 + random(2, 1, 3, 4, seed=seed + 2))  # another one at each place
    torch.testing.assert_close(normalised_distance(factors * one, other), distance, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(normalised_distance(other, one), distance)
    assert (distance <= 2 + 1e-5).all()  # features are not negative: a right angle is the widest
    assert normalised_distance(one, factor * one).abs().max() < 1e-6


def test_features_that_are_all_zero_have_no_direction_and_no_gradient_of_nan() -> None:
    zeros, ones = torch.zeros(1, 4, 2, 2, requires_grad=True), torch.ones(1, 4, 2, 2)
    assert normalised_distance(zeros, zeros).tolist() == [0]
    assert normalised_distance(zeros, ones).tolist() == pytest.approx([1])
    normalised_distance(zeros, ones).sum().backward()
    assert zeros.grad is not None
    assert zeros.grad.isfinite().all()


@few
@given(seeds)
def test_absolute_distance_is_the_mean_of_absolute_differences(seed: int) -> None:
    one, other = random(2, 3, 4, 5, seed=seed), random(2, 3, 4, 5, seed=seed + 1)
    expected = [np.abs(a - b).mean() for a, b in zip(one.numpy(), other.numpy(), strict=True)]
    torch.testing.assert_close(absolute_distance(one, other), torch.tensor(expected))
    assert float(absolute_distance(torch.full((1, 2, 3, 3), 0.25), torch.full((1, 2, 3, 3), 1.0))) == 0.75


@pytest.mark.parametrize("distance", [normalised_distance, absolute_distance])
def test_gradients_of_distances_are_those_of_finite_differences(distance: Callable[..., Tensor]) -> None:
    inputs = tuple((random(2, 3, 3, 4, seed=seed).double() + 0.1).requires_grad_() for seed in (1, 2))
    assert torch.autograd.gradcheck(distance, inputs)


@pytest.mark.parametrize("distance", [normalised_distance, absolute_distance])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_distances_in_half_precision_are_summed_in_float32(distance: Callable[..., Tensor], dtype: torch.dtype) -> None:
    one, other = ((300 * random(1, 64, 40, 40, seed=seed)).to(dtype) for seed in (1, 2))
    result = distance(one, other)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), distance(one.double(), other.double()), rtol=1e-5, atol=0)


# --- PerceptualDistance


def made_up(network: str, deepest: str) -> dict[str, Tensor]:
    """Random weights of a loss network by torchvision's keys, up to a layer."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    with torch.device("meta"):
        stages = ARCHITECTURES[network](network)
    for index, (name, stage) in enumerate(stages):
        for key, parameter in stage.named_parameters():
            fan_in = parameter[0].numel() if parameter.ndim == 4 else 100
            values = torch.randn(parameter.shape, generator=generator) * (2 / fan_in) ** 0.5
            state[f"features.{index}.{key}"] = values
        if name == deepest:
            break
    return state


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "vgg.safetensors"
    safetensors.torch.save_file(made_up("vgg16", "relu2_2"), path)
    return path


@pytest.fixture(scope="module")
def squeezenet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "squeezenet.safetensors"
    safetensors.torch.save_file(made_up("squeezenet1_1", "fire9"), path)
    return path


@pytest.fixture(scope="module")
def distance(vgg_file: Path) -> PerceptualDistance:
    return PerceptualDistance("vgg16", ("relu1_2", "relu2_2"), paths={"vgg16": vgg_file})


def test_perceptual_distance_of_equal_pictures_is_zero(distance: PerceptualDistance) -> None:
    image = random(1, 3, 16, 20)
    assert distance(image, image) == 0
    assert distance(image, image).shape == ()


def test_perceptual_distance_is_symmetric(distance: PerceptualDistance) -> None:
    one, other = random(1, 3, 16, 20), random(1, 3, 16, 20, seed=1)
    assert float(distance(one, other)) == pytest.approx(float(distance(other, one)))
    assert distance(one, other) > 0


def test_perceptual_distance_grows_with_noise(distance: PerceptualDistance) -> None:
    image, noise = (
        0.3 + 0.4 * random(1, 3, 24, 24),
        torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(2)),
    )
    values = [float(distance((image + spread * noise).clamp(0, 1), image)) for spread in (0.0, 0.02, 0.05, 0.1, 0.2)]
    assert values == sorted(values)
    assert len(set(values)) == 5


def test_perceptual_distance_is_the_mean_over_layers_and_images(distance: PerceptualDistance, vgg_file: Path) -> None:
    one, other = random(2, 3, 16, 20), random(2, 3, 16, 20, seed=1)
    networks = LossNetworks(["vgg16:relu1_2", "vgg16:relu2_2"], paths={"vgg16": vgg_file})
    with torch.no_grad():
        features = networks(one), networks(other)
    layers = [normalised_distance(features[0][name], features[1][name]) for name in features[0]]
    assert float(distance(one, other)) == pytest.approx(float(torch.stack(layers).mean()))
    each = [float(distance(one[k : k + 1], other[k : k + 1])) for k in range(2)]
    assert float(distance(one, other)) == pytest.approx(sum(each) / 2, rel=1e-5)


def test_perceptual_distance_does_not_see_the_length_of_features(tmp_path: Path, distance: PerceptualDistance) -> None:
    """Weights and biases of the last convolution times 3 scale relu2_2, and nothing changes."""
    state = made_up("vgg16", "relu2_2")
    for key in ("features.7.weight", "features.7.bias"):  # conv2_2
        state[key] = 3 * state[key]
    safetensors.torch.save_file(state, tmp_path / "scaled.safetensors")
    scaled = PerceptualDistance("vgg16", ("relu1_2", "relu2_2"), paths={"vgg16": tmp_path / "scaled.safetensors"})
    one, other = random(1, 3, 16, 20), random(1, 3, 16, 20, seed=1)
    assert float(scaled(one, other)) == pytest.approx(float(distance(one, other)), rel=1e-5)


def test_perceptual_distance_takes_pictures_of_any_kind(distance: PerceptualDistance) -> None:
    one, other = random_levels(1, 3, 16, 20), random_levels(1, 3, 16, 20, seed=1)
    expected = float(distance(one, other))
    assert distance(as_array(one), Image.fromarray(as_array(other))) == pytest.approx(expected)
    assert float(distance(one[0].float() / 255, as_array(other))) == pytest.approx(expected)
    grey = one[:, :1]
    assert float(distance(grey, other)) == pytest.approx(float(distance(grey.expand(-1, 3, -1, -1), other)))


def test_perceptual_distance_of_different_sizes_is_one_sentence(distance: PerceptualDistance) -> None:
    with pytest.raises(ImageError, match="differ in size"):
        distance(random(1, 3, 16, 20), random(1, 3, 16, 24))


@pytest.mark.parametrize(("layer", "width"), [("relu2_2", 21), ("relu1_2", 1)])
def test_perceptual_distance_does_not_compare_different_sizes_in_silence(
    vgg_file: Path, layer: str, width: int
) -> None:
    distance = PerceptualDistance("vgg16", (layer,), paths={"vgg16": vgg_file})
    with pytest.raises(ImageError, match="differ in size"):
        distance(random(1, 3, 16, 20), random(1, 3, 16, width))


def test_a_picture_too_small_for_the_layers_is_refused(distance: PerceptualDistance) -> None:
    with pytest.raises(ImageError, match="too small for the layers of vgg16"):
        distance(random(1, 3, 1, 1), random(1, 3, 1, 1))


def test_layers_are_chosen_by_network() -> None:
    for name, layers in DISTANCE_LAYERS.items():
        assert set(layers) <= set(layer_names(name))
    for name, (_, layers) in LPIPS_LAYERS.items():
        assert set(layers) <= set(layer_names(name))


def test_default_layers_are_those_of_the_table(squeezenet_file: Path) -> None:
    for name in ("squeezenet1_1", "squeezenet1_1-torchvision"):
        made = PerceptualDistance(name, paths={name: squeezenet_file})
        assert made.layers == [f"{name}:{layer}" for layer in DISTANCE_LAYERS["squeezenet1_1"]]


@pytest.mark.parametrize("layers", [(), ("relu1_1",)])
def test_an_unknown_network_is_refused(layers: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"'alexnet'; choose one of vgg16, .*squeezenet1_1"):
        PerceptualDistance("alexnet", layers)


def test_an_unknown_layer_is_refused(vgg_file: Path) -> None:
    with pytest.raises(ConfigError, match="vgg16 has no layer 'relu9_9'"):
        PerceptualDistance("vgg16", ("relu9_9",), paths={"vgg16": vgg_file})


def test_missing_weights_say_where_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEPTUAL_CACHE", str(tmp_path))
    monkeypatch.delenv("PERCEPTUAL_WEIGHTS", raising=False)
    with pytest.raises(WeightsError, match="not on this machine"):
        PerceptualDistance("vgg16")


# --- LPIPS

SQUEEZE = "squeezenet1_1-torchvision"
WIDTHS = (64, 128, 256, 384, 384, 512, 512)


def learnt_weights() -> dict[str, Tensor]:
    return {f"lin{k}.model.1.weight": random(1, width, 1, 1, seed=k) for k, width in enumerate(WIDTHS)}


@pytest.fixture
def lpips_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `lpips` that may not be imported: only its files are wanted."""
    folder = tmp_path / "lpips" / "weights" / "v0.1"
    folder.mkdir(parents=True)
    (tmp_path / "lpips" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    torch.save(learnt_weights(), folder / "squeeze.pth")
    monkeypatch.delitem(sys.modules, "lpips", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("PERCEPTUAL_WEIGHTS", raising=False)
    monkeypatch.setenv("PERCEPTUAL_CACHE", str(tmp_path / "cache"))
    return folder


def test_lpips_weighs_channels_and_adds_layers(lpips_folder: Path, squeezenet_file: Path) -> None:
    distance = PerceptualDistance.lpips(SQUEEZE, paths={SQUEEZE: squeezenet_file})
    one, other = random(2, 3, 40, 48), random(2, 3, 40, 48, seed=1)
    layers = [f"{SQUEEZE}:{layer}" for layer in ("relu1", "fire3", "fire5", "fire6", "fire7", "fire8", "fire9")]
    networks = LossNetworks(layers, paths={SQUEEZE: squeezenet_file})
    with torch.no_grad():
        features = networks(one), networks(other)
    expected = 0.0
    for layer, weights in zip(layers, learnt_weights().values(), strict=True):
        a, b = (x[layer] / x[layer].square().sum(1, keepdim=True).sqrt() for x in features)
        places = torch.nn.functional.conv2d((a - b) ** 2, weights)  # the package's own 1 x 1 convolution
        expected += float(places.mean())
    assert float(distance(one, other)) == pytest.approx(expected, rel=1e-5)
    assert distance(one, one) == 0


def holds_a_tensor(value: object) -> bool:
    """Whether an attribute of a module is a tensor, or a list of some, that `module.to(device)` does not know."""
    return isinstance(value, Tensor) or (isinstance(value, (list, tuple)) and any(map(holds_a_tensor, value)))


def test_lpips_moves_as_a_whole(lpips_folder: Path, squeezenet_file: Path) -> None:
    distance = PerceptualDistance.lpips(SQUEEZE, paths={SQUEEZE: squeezenet_file})
    keys = list(distance.state_dict())
    hidden = [value for module in distance.modules() for value in vars(module).values() if holds_a_tensor(value)]
    assert hidden == []
    assert sum(name.startswith("term.channels") for name, _ in distance.named_buffers()) == len(distance.layers) == 7
    assert {tensor.device.type for tensor in (*distance.to("meta").buffers(), *distance.parameters())} == {"meta"}
    assert not [key for key in keys if "channels" in key]  # files of weights stay as they were


def test_lpips_prepares_pictures_as_the_package_does(squeezenet_file: Path) -> None:
    """Its layer of shift and scale on [-1, 1] is torchvision's mean and deviation on [0, 1]."""
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    network = LossNetworks([f"{SQUEEZE}:relu1"], paths={SQUEEZE: squeezenet_file}).networks[SQUEEZE]
    torch.testing.assert_close(network.mean.flatten(), (1 + shift) / 2)
    torch.testing.assert_close(network.std.flatten(), scale / 2)


def test_lpips_of_vgg_reads_its_own_file(lpips_folder: Path, vgg_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LPIPS_LAYERS, "vgg16-torchvision", ("vgg", ("relu1_2", "relu2_2")))  # as deep as the file goes
    ones = {"lin0.model.1.weight": torch.ones(1, 64, 1, 1), "lin1.model.1.weight": torch.zeros(1, 128, 1, 1)}
    torch.save(ones, lpips_folder / "vgg.pth")
    distance = PerceptualDistance.lpips("vgg", paths={"vgg16-torchvision": vgg_file})
    plain = PerceptualDistance("vgg16-torchvision", ("relu1_2",), paths={"vgg16-torchvision": vgg_file})
    one, other = random(1, 3, 16, 20), random(1, 3, 16, 20, seed=1)
    assert float(distance(one, other)) == pytest.approx(float(plain(one, other)), rel=1e-5)


def test_lpips_without_its_file_says_so(lpips_folder: Path) -> None:
    (lpips_folder / "squeeze.pth").unlink()
    with pytest.raises(WeightsError, match=r"squeeze\.pth is missing: install the package lpips again\.$"):
        PerceptualDistance.lpips(SQUEEZE)


@pytest.mark.parametrize("damage", ["cut", "other keys"])
def test_a_damaged_file_of_lpips_says_so(lpips_folder: Path, squeezenet_file: Path, damage: str) -> None:
    file = lpips_folder / "squeeze.pth"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:99])
    else:
        torch.save({"lin0.weight": torch.ones(1)}, file)
    with pytest.raises(WeightsError, match=re.escape(str(file))):
        PerceptualDistance.lpips(SQUEEZE, paths={SQUEEZE: squeezenet_file})


def test_lpips_without_its_weights_says_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEPTUAL_CACHE", str(tmp_path))
    monkeypatch.delenv("PERCEPTUAL_WEIGHTS", raising=False)
    for package in ("lpips", "torchmetrics"):
        monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match=r"pip install torchmetrics, or give a file: --weights lpips=FILE"):
        PerceptualDistance.lpips()


@pytest.mark.parametrize("network", ["vgg16", "alexnet", "squeezenet1_0-torchvision"])
def test_lpips_of_a_network_that_it_was_not_learnt_for_is_refused(network: str) -> None:
    with pytest.raises(
        ConfigError, match=f"LPIPS does not support the network '{network}'; choose one of alex, vgg, squeeze"
    ):
        PerceptualDistance.lpips(network)


@pytest.mark.parametrize("extra", ["lpips", "histogram"])
def test_the_extras_that_sentences_name_are_there(extra: str) -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert extra in project["optional-dependencies"]


# --- temporal error


def blots(height: int, width: int, seed: int = 0) -> Tensor:
    """Detail enough to follow, as levels (1, 3, height, width)."""
    small = random_levels(1, 3, height // 6 + 2, width // 6 + 2, seed=seed).float()
    large = torch.nn.functional.interpolate(small, size=(height, width), mode="bicubic")
    return large.clamp(0, 255).to(torch.uint8)


def pan(wall: Tensor, steps: int = 5, by: int = 3) -> list[Tensor]:
    """The frames, 80 px wide, of a camera that goes `by` pixels to the right from one to the next."""
    return [wall[..., k * by : k * by + 80] for k in range(steps)]


def places(x: float, y: float = 0.0, height: int = 64, width: int = 80) -> Tensor:
    return places_of(torch.tensor([[1.0, 0, x], [0, 1, y]]), height, width)


FRAMES, PAINTED = pan(blots(64, 100)), pan(blots(64, 100, seed=7))
STILL = [blots(64, 80)] * 3


def grey(level: int) -> Tensor:
    return torch.full((1, 3, 64, 80), level, dtype=torch.uint8)


def test_paintings_that_pan_along_have_no_temporal_error() -> None:
    assert temporal_error(FRAMES, PAINTED, motion=[places(3)] * 4) == 0
    assert temporal_error(FRAMES, FRAMES, motion=[places(3)] * 4) == 0


@pytest.mark.parametrize("by", [1, 2, 5])
def test_a_painting_that_stands_while_the_film_pans_is_in_error(by: int) -> None:
    wall, painted = blots(64, 80 + 5 * by), blots(64, 80, seed=7)
    expected = (painted[..., by:].float() - painted[..., :-by].float()).square().mean().sqrt().item()
    error = temporal_error(pan(wall, 3, by), [painted] * 3, motion=[places(by)] * 2)
    assert error == pytest.approx(expected, rel=1e-5)


def test_the_motion_of_a_film_is_found_where_it_is_not_known() -> None:
    assert temporal_error(FRAMES, PAINTED) < 2
    assert temporal_error(FRAMES, [PAINTED[0]] * 5) > 30


def test_levels_of_100_and_110_in_turn_have_a_temporal_error_of_10() -> None:
    assert temporal_error(STILL, [grey(100), grey(110), grey(100)]) == 10
    assert temporal_error(STILL, [grey(100), grey(110), grey(100)], motion=[places(0)] * 2) == 10
    assert temporal_error(STILL, STILL) == 0


def test_it_is_the_root_of_the_mean_square_and_its_mean_over_the_film() -> None:
    half = grey(100)
    half[..., :40] = 120  # a difference of 20 in half of the pixels
    assert temporal_error(STILL[:2], [grey(100), half]) == pytest.approx(math.sqrt(20**2 / 2))
    red = grey(100)
    red[:, 0] = 130  # and of 30 in one of three channels
    assert temporal_error(STILL[:2], [grey(100), red]) == pytest.approx(math.sqrt(30**2 / 3))
    assert temporal_error(STILL, [grey(100), red, red]) == pytest.approx(math.sqrt(30**2 / 3) / 2)


@few
@given(st.integers(0, 255), st.integers(0, 255), st.integers(-6, 6), st.integers(-6, 6))
def test_flat_paintings_differ_by_their_levels_whatever_moves(one: int, other: int, x: int, y: int) -> None:
    error = temporal_error(STILL[:2], [grey(one), grey(other)], motion=[places(x, y)])
    assert error == pytest.approx(abs(one - other), rel=1e-5)


def test_what_was_not_visible_before_does_not_count() -> None:
    paintings = [painting.clone() for painting in PAINTED[:2]]
    paintings[1][..., -3:] = 255 - paintings[1][..., -3:]  # what came in at the right
    assert temporal_error(FRAMES[:2], paintings, motion=[places(3)]) == 0
    paintings[1][..., -4] = 255 - paintings[1][..., -4]
    assert temporal_error(FRAMES[:2], paintings, motion=[places(3)]) > 10


def test_a_cut_counts_nothing() -> None:
    frames = [grey(0), grey(0), grey(255), grey(255)]
    assert temporal_error(frames, [grey(100), grey(110), grey(0), grey(20)]) == 15  # the mean of 10 and 20


def test_films_may_be_of_any_kind_of_picture_and_come_one_by_one() -> None:
    expected = temporal_error(FRAMES, PAINTED)
    kinds: list[Callable[[Tensor], object]] = [
        lambda x: x[0],
        lambda x: x.float() / 255,
        as_array,
        lambda x: as_array(x) / 255,
        lambda x: Image.fromarray(as_array(x)),
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    ]
    for kind in kinds:
        films = ((kind(picture) for picture in film) for film in (FRAMES, PAINTED))
        assert temporal_error(*films) == pytest.approx(expected, rel=1e-5)


def test_films_are_read_once_and_not_kept() -> None:
    def film(pictures: list[Tensor]) -> Iterator[Tensor]:
        for picture in pictures:
            copy = picture.clone()
            yield copy
            copy.fill_(0)

    assert temporal_error(film(FRAMES), film(PAINTED), motion=iter([places(3)] * 4)) == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (8, 8), (15, 17), (33, 31)])
def test_films_of_any_size_have_a_temporal_error(size: tuple[int, int]) -> None:
    frame, paintings = blots(*size), [torch.full((1, 3, *size), level, dtype=torch.uint8) for level in (100, 110)]
    assert temporal_error([frame, frame], paintings) == 10
    assert temporal_error([frame, frame], paintings, motion=[places(0, 0, *size)]) == 10


@pytest.mark.parametrize(
    ("frames", "paintings", "message"),
    [
        ([], [], "No pixel is visible in two frames: give at least two frames"),
        (STILL[:1], STILL[:1], "No pixel is visible in two frames: give at least two frames"),
        ([grey(0), grey(255)], [grey(0), grey(255)], "No pixel is visible in two frames"),
        (STILL[:2], [grey(0), grey(0)[..., :70]], r"differ in size or number \(1 of 80 x 64 px and 1 of 70 x 64 px\)"),
        ([STILL[0], "b.png"], [grey(0), grey(0)], "A str is not an image"),
        (
            STILL[:2],
            [grey(0), grey(0).repeat(2, 1, 1, 1)],
            "Frame 2 is a batch of 2 images: give the frames one by one",
        ),
        ([grey(0).repeat(3, 1, 1, 1)] * 2, [grey(0)] * 2, "Frame 1 is a batch of 3 images: give the frames one by one"),
    ],
    ids=["none", "one", "a cut only", "sizes", "no picture", "a batch of paintings", "a batch of frames"],
)
def test_a_film_without_temporal_error_is_one_sentence(
    frames: list[object], paintings: list[object], message: str
) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        temporal_error(frames, paintings)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("motion", "message"),
    [
        ([places(0).permute(2, 0, 1)], r"shape \(2, 64, 80\): give \(H, W, 2\)"),
        ([], "more frames than motions"),
        ([places(0)] * 2, "more motions than frames"),
    ],
)
def test_a_motion_that_does_not_fit_the_film_is_refused(motion: list[Tensor], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        temporal_error(STILL[:2], STILL[:2], motion=motion)
    assert temporal_error(STILL[:2], STILL[:2], motion=[places(0).numpy()]) == 0  # type: ignore[list-item]
