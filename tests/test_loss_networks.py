"""loss_networks: layers by name, preprocessing inside, trimmed and frozen. Most tests run on made-up weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from perceptual.errors import ConfigError, ImageError, WeightsError
from perceptual.functional import reduced
from perceptual.losses.architectures import ARCHITECTURES, Fire
from perceptual.losses.networks import (
    LossNetwork,
    LossNetworks,
    held_layers,
    split_layer,
    split_scale,
    trim,
)

CAFFE_MEAN = torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)  # blue, green, red
# torchvision's index of each convolution of the first groups, channels in and out
VGG_START = {0: (3, 64), 2: (64, 64), 5: (64, 128)}  # conv1_1, conv1_2, conv2_1; conv2_2 is missing
close = torch.testing.assert_close


def vgg_state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = {}
    for index, (channels, filters) in VGG_START.items():
        spread = (2 / (9 * channels)) ** 0.5
        state[f"features.{index}.weight"] = torch.randn(filters, channels, 3, 3, generator=generator) * spread
        state[f"features.{index}.bias"] = torch.randn(filters, generator=generator)
    return state


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "made_up.safetensors"
    safetensors.torch.save_file(vgg_state(), path)
    return path


@pytest.fixture
def image() -> Tensor:
    return torch.rand(2, 3, 12, 16, generator=torch.Generator().manual_seed(1))


def stages_of(network: str) -> list[tuple[str, nn.Module]]:
    with torch.device("meta"):  # shapes only
        return ARCHITECTURES[network](network)


def sizes(network: str, side: int) -> dict[str, tuple[int, int, int]]:
    """(C, H, W) after each stage that is not a convolution."""
    x, found = torch.empty(1, 3, side, side, device="meta"), {}
    for name, stage in stages_of(network):
        x = stage(x)
        if not name.startswith("conv"):
            found[name] = tuple(x.shape[1:])
    return found


# --- names and shapes


@pytest.mark.parametrize(("name", "counts"), [("vgg16", (2, 2, 3, 3, 3)), ("vgg19", (2, 2, 4, 4, 4))])
def test_vgg_has_the_papers_names_and_shapes(name: str, counts: tuple[int, ...]) -> None:
    expected = {}
    for group, (count, width) in enumerate(zip(counts, (64, 128, 256, 512, 512), strict=True), start=1):
        side = 224 // 2 ** (group - 1)
        expected |= {f"relu{group}_{index}": (width, side, side) for index in range(1, count + 1)}
        expected[f"pool{group}"] = (width, side // 2, side // 2)
    assert sizes(name, 224) == expected


def test_convolutions_of_vgg_can_be_asked_for_too() -> None:
    names = [name for name, _ in stages_of("vgg16")]
    assert names[:5] == ["conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1"]
    assert len(names) == 2 * 13 + 5


def test_the_distilled_vgg19_has_a_quarter_of_the_channels_and_ends_at_relu5_1() -> None:
    teacher = sizes("vgg19", 64)
    ours = sizes("vgg19_distilled", 64)
    assert list(ours) == list(teacher)[: 1 + list(teacher).index("relu5_1")]
    assert ours == {name: (teacher[name][0] // 4, *teacher[name][1:]) for name in ours}
    assert stages_of("vgg19_distilled")[0][0] == "conv0"


def test_squeezenet_1_0_has_its_names_and_shapes() -> None:
    fire = {"fire2": (128, 55), "fire3": (128, 55), "fire4": (256, 55), "pool4": (256, 27)}  # the paper's Table 1
    fire |= {"fire5": (256, 27), "fire6": (384, 27), "fire7": (384, 27), "fire8": (512, 27), "pool8": (512, 13)}
    expected = {"relu1": (96, 111), "pool1": (96, 55), **fire, "fire9": (512, 13)}
    assert sizes("squeezenet1_0", 227) == {k: (c, s, s) for k, (c, s) in expected.items()}


def test_squeezenet_1_1_has_its_names_and_shapes() -> None:
    fire = {"fire2": (128, 56), "fire3": (128, 56), "pool3": (128, 28), "fire4": (256, 28), "fire5": (256, 28)}
    fire |= {"pool5": (256, 14), "fire6": (384, 14), "fire7": (384, 14), "fire8": (512, 14), "fire9": (512, 14)}
    expected = {"relu1": (64, 113), "pool1": (64, 56), **fire}
    assert sizes("squeezenet1_1", 227) == {k: (c, s, s) for k, (c, s) in expected.items()}


def test_pools_of_squeezenet_round_up() -> None:
    assert sizes("squeezenet1_1", 224)["pool1"] == (64, 55, 55)  # (111 - 3) / 2 + 1 = 55
    assert sizes("squeezenet1_1", 226)["pool1"] == (64, 56, 56)  # (112 - 3) / 2 + 1 = 55.5


@pytest.mark.parametrize(
    ("name", "indices"),
    [
        ("vgg16", (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)),
        ("vgg19", (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)),
        ("squeezenet1_0", (0, 3, 4, 5, 7, 8, 9, 10, 12)),
        ("squeezenet1_1", (0, 3, 4, 6, 7, 9, 10, 11, 12)),
    ],
)
def test_stages_stand_at_torchvisions_index(name: str, indices: tuple[int, ...]) -> None:
    stages = [stage for _, stage in stages_of(name)]
    assert tuple(k for k, stage in enumerate(stages) if any(True for _ in stage.parameters())) == indices


def test_a_fire_module_puts_its_1x1_expansion_first() -> None:
    fire = Fire(4, 2).requires_grad_(False)
    nn.init.constant_(fire.expand1x1.weight, 0)
    nn.init.constant_(fire.expand1x1.bias, 1)
    nn.init.constant_(fire.expand3x3.weight, 0)
    nn.init.constant_(fire.expand3x3.bias, -1)
    out = fire(torch.rand(1, 4, 5, 5))
    assert out[:, :8].eq(1).all()
    assert out[:, 8:].eq(0).all()


# --- trimming, several layers at once


def test_nothing_exists_after_the_deepest_layer(vgg_file: Path) -> None:
    network = LossNetwork("vgg16", ("relu1_2", "relu1_1"), path=vgg_file)
    assert list(network.stages) == ["conv1_1", "relu1_1", "conv1_2", "relu1_2"]
    assert {name for name, _ in network.named_parameters()} == {
        f"stages.conv1_{i}.{p}" for i in (1, 2) for p in ("weight", "bias")
    }


def test_any_layers_come_from_one_pass_as_if_asked_for_alone(vgg_file: Path, image: Tensor) -> None:
    names = ("pool1", "conv1_1", "relu2_1", "relu1_1", "conv1_2")
    together = LossNetwork("vgg16", names, path=vgg_file)(image)
    assert set(together) == set(names)
    for name in names[:2]:
        close(together[name], LossNetwork("vgg16", (name,), path=vgg_file)(image)[name])
    assert together["conv1_1"].min() < 0 <= together["relu1_1"].min()  # no ReLU in place
    assert together["relu2_1"].shape == (2, 128, 6, 8)


def test_fewer_layers_compute_no_deeper_than_needed(vgg_file: Path, image: Tensor) -> None:
    network, ran = LossNetwork("vgg16", ("relu1_1", "relu1_2", "relu2_1"), path=vgg_file), []
    for name, stage in network.stages.items():
        stage.register_forward_hook(lambda *_, name=name: ran.append(name))
    features = network(image, ("relu1_1",))
    assert set(features) == {"relu1_1"}
    assert ran == ["conv1_1", "relu1_1"]
    close(features["relu1_1"], network(image)["relu1_1"])
    assert network(image, ()) == {}


def test_trim_keeps_the_stages_up_to_the_deepest_layer() -> None:
    stages = stages_of("vgg16")
    assert [name for name, _ in trim("vgg16", stages, ("relu1_2", "conv1_1"))] == [name for name, _ in stages[:4]]


# --- frozen


def test_it_is_frozen_but_gradients_reach_the_image(vgg_file: Path, image: Tensor) -> None:
    network = LossNetwork("vgg16", ("relu2_1",), path=vgg_file)
    assert not any(p.requires_grad for p in network.parameters())
    network(image.requires_grad_())["relu2_1"].square().mean().backward()
    assert image.grad is not None
    assert image.grad.abs().amin(dim=(1, 2, 3)).shape == (2,)
    assert (image.grad != 0).any(dim=(2, 3)).all()
    assert all(p.grad is None for p in network.parameters())


def test_it_stays_in_eval_whatever_the_model_around_it_does(vgg_file: Path) -> None:
    network = LossNetworks(("vgg16:relu1_1",), paths={"vgg16": vgg_file})
    nn.Sequential(network).train()
    assert not any(m.training for m in network.networks["vgg16"].modules())
    assert network.networks["vgg16"].train() is network.networks["vgg16"]


def test_the_image_is_not_changed(vgg_file: Path, image: Tensor) -> None:
    before = image.clone()
    for name in ("vgg16", "vgg16-torchvision"):
        LossNetwork(name, ("relu1_1",), path=vgg_file)(image)
    assert torch.equal(image, before)


def test_channels_last_images_give_the_same(vgg_file: Path, image: Tensor) -> None:
    network = LossNetwork("vgg16", ("relu2_1",), path=vgg_file)
    # Features of up to 640, which another convolution makes with errors of up to 5e-4.
    close(network(image.contiguous(memory_format=torch.channels_last)), network(image), rtol=1e-4, atol=1e-2)


# --- preprocessing


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conv1_1 whose filter 0, 1, 2 gives back channel 0, 1, 2, and filter 3 sums the 3x3 around channel 0."""
    state = {"features.0.weight": torch.zeros(64, 3, 3, 3), "features.0.bias": torch.zeros(64)}
    for channel in range(3):
        state["features.0.weight"][channel, channel, 1, 1] = 1
    state["features.0.weight"][3, 0] = 1
    path = tmp_path_factory.mktemp("weights") / "eyes.safetensors"
    safetensors.torch.save_file(state, path)
    return path


def test_caffes_vgg_sees_bgr_on_0_to_255_minus_the_mean(eyes: Path, image: Tensor) -> None:
    seen = LossNetwork("vgg16", ("conv1_1",), path=eyes)(image)["conv1_1"][:, :3]
    red, green, blue = image.unbind(1)
    close(seen, torch.stack([255 * blue - 103.939, 255 * green - 116.779, 255 * red - 123.68], dim=1))


def test_torchvisions_vgg_sees_rgb_by_mean_and_std_of_imagenet(eyes: Path, image: Tensor) -> None:
    seen = LossNetwork("vgg16-torchvision", ("conv1_1",), path=eyes)(image)["conv1_1"][:, :3]
    red, green, blue = image.unbind(1)
    close(seen, torch.stack([(red - 0.485) / 0.229, (green - 0.456) / 0.224, (blue - 0.406) / 0.225], dim=1))


def test_the_mean_is_subtracted_before_the_border_is_padded_with_zeros(eyes: Path) -> None:
    image = torch.full((1, 3, 4, 4), 0.8)
    sums = LossNetwork("vgg16", ("conv1_1",), path=eyes)(image)["conv1_1"][0, 3]
    inside = 255 * 0.8 - 103.939
    count = torch.tensor([[4.0, 6, 6, 4], [6, 9, 9, 6], [6, 9, 9, 6], [4, 6, 6, 4]])  # pixels of the picture in 3x3
    close(sums, count * inside)


# --- weights and errors


def test_the_hash_and_the_name_of_the_file_are_kept(vgg_file: Path) -> None:
    network = LossNetworks(("vgg16:relu1_1",), paths={"vgg16": vgg_file})
    assert network.hashes() == {"vgg16": hashlib.sha256(vgg_file.read_bytes()).hexdigest()}
    assert network.networks["vgg16"].weights_file == "made_up.safetensors"


def test_the_weights_are_those_of_the_file(vgg_file: Path) -> None:
    state, expected = LossNetwork("vgg16", ("relu2_1",), path=vgg_file).state_dict(), vgg_state()
    for name, index in {"conv1_1": 0, "conv1_2": 2, "conv2_1": 5}.items():
        for key in ("weight", "bias"):
            assert torch.equal(state[f"stages.{name}.{key}"], expected[f"features.{index}.{key}"])


def test_a_file_that_ends_too_early_is_an_error_that_names_the_layer(vgg_file: Path) -> None:
    with pytest.raises(WeightsError, match=r"made_up\.safetensors does not include conv2_2"):
        LossNetwork("vgg16", ("relu3_3",), path=vgg_file)


def test_the_layers_of_a_file_that_ends_early(tmp_path: Path) -> None:
    state = {"features.0.weight": torch.rand(64, 3, 3, 3), "features.0.bias": torch.zeros(64)}
    safetensors.torch.save_file(state, tmp_path / "one.safetensors")
    assert held_layers("vgg16", tmp_path / "one.safetensors") == ["conv1_1", "relu1_1"]
    state |= {"features.2.weight": torch.rand(64, 64, 3, 3), "features.2.bias": torch.zeros(64)}
    safetensors.torch.save_file(state, tmp_path / "two.safetensors")
    layers = held_layers("vgg16", tmp_path / "two.safetensors")
    assert layers == ["conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1"]
    with pytest.raises(ConfigError, match="no loss network 'vgg'"):
        held_layers("vgg")
    with pytest.raises(WeightsError, match="no weights file"):
        held_layers("vgg16", tmp_path / "none.safetensors")


def test_weights_of_another_shape_are_an_error_that_names_the_tensor(tmp_path: Path) -> None:
    state = vgg_state() | {"features.2.weight": torch.zeros(32, 64, 3, 3)}
    safetensors.torch.save_file(state, tmp_path / "odd.safetensors")
    with pytest.raises(WeightsError, match=r"features\.2\.weight has the shape \(32, 64, 3, 3\)"):
        LossNetwork("vgg16", ("relu1_2",), path=tmp_path / "odd.safetensors")


def test_weights_of_a_look_alike_are_refused(tmp_path: Path) -> None:
    state = vgg_state() | {"features.16.weight": torch.zeros(256, 256, 3, 3)}  # VGG-19's conv3_4
    safetensors.torch.save_file(state, tmp_path / "vgg19.safetensors")
    with pytest.raises(WeightsError, match="does not contain weights of vgg16"):
        LossNetwork("vgg16", ("relu1_2",), path=tmp_path / "vgg19.safetensors")


def test_an_unknown_network_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'vgg17'; choose one of vgg16, .*vgg19-distilled.*squeezenet1_1"):
        LossNetwork("vgg17", ("relu1_1",))


@pytest.mark.parametrize("layer", ["relu3_4", "15", ""])
def test_an_unknown_layer_is_an_error_that_lists_the_known_ones(layer: str, vgg_file: Path) -> None:
    with pytest.raises(
        ConfigError, match=f"vgg16 has no layer '{layer}'; its layers are relu1_1, .*relu3_3, pool3.*pool5"
    ):
        LossNetwork("vgg16", (layer,), path=vgg_file)


def test_an_unknown_layer_is_told_before_weights_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERCEPTUAL_CACHE", str(tmp_path))
    monkeypatch.delenv("PERCEPTUAL_WEIGHTS", raising=False)
    with pytest.raises(ConfigError, match="fire1"):
        LossNetwork("squeezenet1_1", ("fire1",))
    with pytest.raises(WeightsError, match="not on this machine"):
        LossNetwork("squeezenet1_1", ("fire2",))


def test_no_layer_at_all_is_an_error(vgg_file: Path) -> None:
    with pytest.raises(ConfigError, match="at least one layer"):
        LossNetwork("vgg16", (), path=vgg_file)


# --- several networks


def test_a_layer_without_a_network_is_vgg16s() -> None:
    assert split_layer("relu3_3") == ("vgg16", "relu3_3")
    assert split_layer("vgg19-distilled:relu4_3") == ("vgg19-distilled", "relu4_3")


def test_several_networks_run_once_each_and_name_their_layers(vgg_file: Path, image: Tensor) -> None:
    layers = ("vgg16:relu1_2", "vgg16-torchvision:relu1_1", "vgg16:relu1_1", "vgg16:relu1_2")
    paths = {"vgg16": vgg_file, "vgg16-torchvision": vgg_file}
    networks, ran = LossNetworks(layers, paths=paths), []
    for name, network in networks.networks.items():
        network.register_forward_hook(lambda *_, name=name: ran.append(name))
    features = networks(image)
    assert sorted(ran) == ["vgg16", "vgg16-torchvision"]
    assert set(features) == set(layers)
    close(features["vgg16:relu1_1"], LossNetwork("vgg16", ("relu1_1",), path=vgg_file)(image)["relu1_1"])
    alone = LossNetwork("vgg16-torchvision", ("relu1_1",), path=vgg_file)(image)["relu1_1"]
    close(features["vgg16-torchvision:relu1_1"], alone)
    ran.clear()
    assert set(networks(image, ("vgg16:relu1_1",))) == {"vgg16:relu1_1"}
    assert ran == ["vgg16"]


def test_no_layers_make_no_networks(image: Tensor) -> None:
    networks = LossNetworks(())
    assert networks(image) == {}
    assert networks.hashes() == {}


# --- the real files


@pytest.mark.shared
class TestRealFiles:
    def test_vgg16_equals_a_plain_sequence_of_its_layers(self, pretrained: Path, image: Tensor) -> None:
        state = safetensors.torch.load_file(pretrained / "vgg16_conv1_1-conv3_3.safetensors")
        layers: list[nn.Module] = []
        widths = ((3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256))
        for index, (channels, filters) in enumerate(widths):
            layers += [nn.MaxPool2d(2)] if index in (2, 4) else []
            layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU()]
        plain = nn.Sequential(*layers)
        keys = [key for key in state if key.endswith("weight")]
        keys.sort(key=lambda key: int("".join(filter(str.isdigit, key))))
        convolutions = [layer for layer in plain if isinstance(layer, nn.Conv2d)]
        for key, convolution in zip(keys, convolutions, strict=True):
            convolution.load_state_dict({"weight": state[key], "bias": state[key.replace("weight", "bias")]})
        with torch.no_grad():
            expected = plain(255 * image[:, [2, 1, 0]] - CAFFE_MEAN)
            features = LossNetwork("vgg16", ("relu3_3",))(image)["relu3_3"]
        assert expected.std() > 1
        close(features, expected, rtol=1e-4, atol=1e-5 * expected.std().item())

    def test_vgg16_ends_before_the_papers_relu4_3(self, pretrained: Path) -> None:
        with pytest.raises(WeightsError, match="does not include conv4_1"):
            LossNetwork("vgg16", ("relu4_3",))

    @pytest.mark.parametrize(
        ("layer", "shape"),
        [
            ("vgg16:relu3_3", (1, 256, 16, 16)),
            ("vgg19:relu3_4", (1, 256, 16, 16)),
            ("vgg19-distilled:relu4_3", (1, 128, 8, 8)),
            ("vgg19-distilled:relu5_1", (1, 128, 4, 4)),
            ("squeezenet1_0:fire9", (1, 512, 3, 3)),
            ("squeezenet1_1:fire9", (1, 512, 3, 3)),
        ],
    )
    def test_deepest_layer_of_each_file_has_its_shape(
        self, pretrained: Path, layer: str, shape: tuple[int, ...]
    ) -> None:
        features = LossNetworks((layer,))(torch.rand(1, 3, 64, 64))[layer]
        assert features.shape == shape
        assert features.isfinite().all()
        assert features.std() > 0

    def test_the_distilled_network_pads_by_reflection(self, pretrained: Path) -> None:
        features = LossNetwork("vgg19-distilled", ("relu4_3",))(torch.full((1, 3, 32, 32), 0.3))["relu4_3"]
        close(features, features[..., :1, :1].expand_as(features), rtol=1e-4, atol=1e-4)  # a constant has no border


# --- layers of smaller images


def test_a_layer_at_half_the_size_is_that_of_the_halved_image(vgg_file: Path, image: Tensor) -> None:
    both = LossNetworks(("vgg16:relu1_2", "vgg16:relu1_2@2", "vgg16:relu2_1@2"), paths={"vgg16": vgg_file})
    found = both(image)
    assert list(found) == ["vgg16:relu1_2", "vgg16:relu1_2@2", "vgg16:relu2_1@2"]
    halved = LossNetwork("vgg16", ("relu1_2", "relu2_1"), path=vgg_file)(reduced(image, 2))
    assert torch.equal(found["vgg16:relu1_2@2"], halved["relu1_2"])
    assert torch.equal(found["vgg16:relu2_1@2"], halved["relu2_1"])
    assert list(both(image, ["vgg16:relu2_1@2"])) == ["vgg16:relu2_1@2"]


@pytest.mark.parametrize("layer", ["vgg16:relu1_2@3", "relu1_2@", "relu1_2@x"])
def test_a_size_that_is_not_known_is_refused(layer: str) -> None:
    with pytest.raises(ConfigError, match="@2, @4 or @8"):
        split_scale(layer)


def test_in_bfloat16_the_features_are_nearly_the_same(vgg_file: Path, image: Tensor) -> None:
    network = LossNetwork("vgg16", ("relu2_1",), path=vgg_file)
    before = network(image)["relu2_1"]
    network.cast(torch.bfloat16)
    after = network(image)["relu2_1"]
    assert after.dtype == torch.bfloat16
    torch.testing.assert_close(after.float(), before, rtol=0.05, atol=0.02 * before.abs().max().item())


def test_a_picture_too_small_to_be_reduced_is_refused_by_its_own_size(vgg_file: Path) -> None:
    networks = LossNetworks(["vgg16:relu2_1@8"], paths={"vgg16": vgg_file})
    assert networks(torch.rand(1, 3, 16, 17))["vgg16:relu2_1@8"].shape[-2:] == (1, 1)
    for side in (3, 15):
        message = f"An image of 20 x {side} px is too small .* each side must have at least 16 px"
        with pytest.raises(ImageError, match=message):
            networks(torch.rand(1, 3, side, 20))


def test_a_layer_that_was_not_asked_for_at_first_is_an_error(vgg_file: Path, image: Tensor) -> None:
    with pytest.raises(ConfigError, match="made without the layer relu2_1; it has relu1_1"):
        LossNetwork("vgg16", ["relu1_1"], path=vgg_file)(image, ["relu2_1"])
    networks = LossNetworks(["vgg16:relu1_1"], paths={"vgg16": vgg_file})
    with pytest.raises(ConfigError, match="no 'squeezenet1_1' among these loss networks: vgg16"):
        networks(image, ["squeezenet1_1:relu1"])
