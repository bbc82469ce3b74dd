"""Networks of super-resolution: pixel shuffle, the bicubic residual, luma alone, enlarging first, and how far they see.

The layers and parameters of the paper's own networks (supplement, Table 2) are counted in test_networks.py.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from perceptual import checkpoints
from perceptual.checkpoints import tensors
from perceptual.checkpoints.card import CARD_KEY
from perceptual.config import NetworkConfig, from_dict, to_dict
from perceptual.errors import ConfigError
from perceptual.functional import luma
from perceptual.networks import ConvolutionLayer, Layer, TransformationNetwork, enlarge, parse_architecture
from perceptual.resampling import imresize
from perceptual.tasks.upscale import upscale_recipe

close = torch.testing.assert_close
PADDINGS = ("zero", "reflect", "replicate", "reflect-start", "reflect-crop", "reflect-start-crop", "same-crop")
OLD_CARD = {
    "architecture": "c3s1-4 r4 c3s1-3",
    "norm": "instance",
    "padding": "reflect",
    "styles": 1,
    "tanh_scale": 150.0,
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def network(architecture: str = "c3s1-4 s2-3", norm: str = "none", **settings: Any) -> TransformationNetwork:
    config = NetworkConfig(architecture, **{"norm": norm, "padding": "zero", **settings})
    return TransformationNetwork(config).eval().requires_grad_(False)


def zero(net: TransformationNetwork) -> TransformationNetwork:
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    return net


def shuffled(*values: float, grow: int, output: str = "linear", channels: str = "rgb", **settings: Any) -> Tensor:
    """What a network of one pixel shuffle gives for a picture of one grey pixel, when its biases are `values`."""
    colours = 1 if channels == "luma" else 3
    net = zero(network(f"s{grow}-{colours}", output=output, channels=channels, **settings))
    net.layers[0].conv.bias[:] = torch.tensor(values)
    return net(torch.full((1, 3, 1, 1), 0.5))[0]


# --- pixel shuffle


def test_a_pixel_shuffle_lays_the_channels_of_a_colour_out_row_by_row() -> None:
    """Shi et al. (2016): channels 4 c to 4 c + 3 are the 2 x 2 pixels of colour c."""
    made = shuffled(*(0.1 * k for k in range(12)), grow=2)
    expected = torch.tensor([[[0, 1], [2, 3]], [[4, 5], [6, 7]], [[8, 9], [10, 11]]]) * 0.1
    close(made, 0.5 + 0.5 * expected)  # the output's range is [-1, 1] before it becomes [0, 1]


def test_a_pixel_shuffle_keeps_neighbours_where_they_are() -> None:
    """Four copies of each pixel: nearest-neighbour enlargement."""
    net = zero(network("s2-3", output="linear"))
    for channel in range(12):
        net.layers[0].conv.weight[channel, channel // 4, 1, 1] = 1
    x = torch.rand(2, 3, 3, 5)
    close(net(x), x.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_the_convolution_before_a_pixel_shuffle_has_as_many_filters_as_pixels_to_make() -> None:
    layers = parse_architecture("c3s1-8 s4-16*2 s12-3")
    assert layers == (Layer("c", 8), Layer("s", 16, grow=4), Layer("s", 16, grow=4), Layer("s", 3, grow=12))
    convolution = ConvolutionLayer(8, layers[1], "zero", None).conv
    assert convolution.weight.shape == (16 * 16, 8, 3, 3)
    assert convolution.weight.abs().max() <= 1 / math.sqrt(8 * 9)


def test_norm_and_relu_follow_a_pixel_shuffle_that_is_not_the_last() -> None:
    layers = network("s2-4 s2-3", "batch").layers
    assert [(layer.norm is None, layer.relu) for layer in layers] == [(False, True), (True, False)]
    assert layers[0].norm.num_features == 4  # it comes behind the shuffle


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_norm_none_has_no_norms_and_no_gamma(norm: str) -> None:
    net = network("c3s1-4 r4 n4 d4 u4 s2-3", norm)
    norms = [name for name, _ in net.named_modules() if name.endswith("norm")]
    assert len(norms) == (0 if norm == "none" else 7)
    assert not net.style_parameters()
    assert sum("norm" in name for name in net.state_dict()) == (0 if norm == "none" else 7 * 5)


# --- what comes out


def test_the_linear_output_has_no_bounds() -> None:
    close(shuffled(-4, 0, 4, grow=1), torch.tensor([-1.5, 0.5, 2.5]).view(3, 1, 1))


def test_the_bicubic_output_is_half_the_layers_result_and_the_picture() -> None:
    close(shuffled(-4, 0, 4, grow=1, output="bicubic"), torch.tensor([-1.5, 0.5, 2.5]).view(3, 1, 1))
    close(
        shuffled(0.2, 0.4, 0.6, 0.8, grow=2, output="bicubic", channels="luma")[0], torch.tensor([[6, 7], [8, 9]]) / 10
    )


def test_the_tanh_output_is_the_papers_still() -> None:
    made = shuffled(-1e4, 0, 1, grow=1, output="tanh")
    close(made, torch.tensor([0, 0.5, 0.5 + 0.5 * math.tanh(1)]).view(3, 1, 1))


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    scale=st.integers(1, 5),
    enlarged=st.sampled_from([1, 2, 3]),
    channels=st.sampled_from(["rgb", "luma"]),
)
@example(height=1, width=1, scale=4, enlarged=1, channels="rgb")
@example(height=1, width=7, scale=1, enlarged=1, channels="luma")
def test_zero_weights_leave_the_bicubic_enlargement(
    height: int, width: int, scale: int, enlarged: int, channels: str
) -> None:
    colours = 1 if channels == "luma" else 3
    net = zero(network(f"c3s1-2 r2 s{scale}-{colours}", output="bicubic", channels=channels, enlarge=enlarged))
    x = torch.rand(2, 3, height, width)
    tolerance = 0 if channels == "rgb" else 1e-6
    close(net(x), enlarge(x, scale * enlarged), rtol=0, atol=tolerance)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_enlarge_is_matlabs_bicubic_away_from_the_border(scale: int) -> None:
    """At the border MATLAB repeats the picture, and PyTorch leaves out what is not there."""
    x = torch.rand(1, 3, 9, 11, dtype=torch.float64)
    inside = (..., slice(2 * scale, -2 * scale), slice(2 * scale, -2 * scale))
    close(enlarge(x, scale)[inside], imresize(x, float(scale))[inside])
    assert enlarge(x, 1) is x


def test_a_flat_picture_is_enlarged_flat_and_a_step_overshoots() -> None:
    close(enlarge(torch.full((1, 3, 2, 3), 0.3), 4), torch.full((1, 3, 8, 12), 0.3))
    step = torch.cat([torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)], dim=3)
    assert enlarge(step, 2).min() < -0.01  # it is not clamped
    assert enlarge(step, 2).max() > 1.01


# --- luma


@pytest.mark.parametrize("output", ["tanh", "linear", "bicubic"])
@pytest.mark.parametrize(("scale", "enlarged"), [(2, 1), (1, 3), (2, 2)])
def test_a_network_on_luma_leaves_the_colours_bicubic(output: str, scale: int, enlarged: int) -> None:
    """One number is added to R, G and B alike: their differences are those of the bicubic enlargement."""
    net = network(f"c3s1-4 s{scale}-1", output=output, channels="luma", enlarge=enlarged)
    x = torch.rand(2, 3, 6, 7)
    made, base = net(x), enlarge(x, scale * enlarged)
    for one, other in ((0, 1), (1, 2)):
        close(made[:, one] - made[:, other], base[:, one] - base[:, other], rtol=0, atol=1e-5)
    assert (luma(made) - luma(base)).abs().max() > 1e-3


def test_the_luma_of_a_network_on_luma_is_what_its_layers_make() -> None:
    """By hand: a convolution 1x1 of weight 3 and bias 0.5 on [-1, 1], after an enlargement by 2."""
    x = torch.rand(2, 3, 5, 4)
    grey = 2 * enlarge(luma(x), 2) - 1
    for output, expected in (
        ("linear", 0.5 + 0.5 * (3 * grey + 0.5)),
        ("tanh", 0.5 + 0.5 * torch.tanh(3 * grey + 0.5)),
        ("bicubic", enlarge(luma(x), 2) + 0.5 * (3 * grey + 0.5)),
    ):
        net = network("c1s1-1", output=output, channels="luma", enlarge=2)
        net.layers[0].conv.weight.fill_(3)
        net.layers[0].conv.bias.fill_(0.5)
        close(luma(net(x)), expected, rtol=1e-4, atol=1e-5)


def test_two_pictures_of_equal_luma_get_equal_luma() -> None:
    net = network("c3s1-4 s2-1", output="linear", channels="luma")
    x = 0.5 + 0.1 * torch.rand(1, 3, 6, 7)
    grey = luma(x).expand(-1, 3, -1, -1)
    close(luma(net(x)), luma(net(grey)), rtol=0, atol=1e-5)
    one, two, three = net(grey).unbind(1)
    close(one, two)
    close(two, three)


def test_a_grey_picture_stays_grey_through_a_network_on_luma() -> None:
    made = network("c9s1-4 c5s1-1", output="linear", channels="luma", enlarge=3)(torch.full((1, 3, 4, 5), 0.25))
    close(made, made[:, :1].expand(-1, 3, -1, -1))


# --- recipes' networks, counted by hand


# c9s1-64   1*64*81 + 64  =  5,248    c5s1-32  64*32*25 + 32 = 51,232    c5s1-1  32*25 + 1 = 801
# (8,129, the count often quoted, is that of SRCNN 9-1-5: 5,248 + 64*32 + 32 + 801)
@pytest.mark.parametrize(
    ("architecture", "count"), [("c9s1-64 c5s1-32 c5s1-1", 57_281), ("c9s1-64 c1s1-32 c5s1-1", 8_129)]
)
def test_srcnn_has_as_many_parameters_as_counted_by_hand(architecture: str, count: int) -> None:
    config = upscale_recipe("srcnn", 4).network
    assert (config.architecture, config.channels, config.enlarge) == ("c9s1-64 c5s1-32 c5s1-1", "luma", 4)
    net = TransformationNetwork(dataclasses.replace(config, architecture=architecture))
    assert sum(parameter.numel() for parameter in net.parameters()) == count
    assert (net.scale, net.grow) == (4, 1)


# c3s1-64  3*64*9 + 64 = 1,792    r64*6  12 * (64*64*9 + 64) = 443,136    s4-3  64*48*9 + 48 = 27,696
@pytest.mark.parametrize(("scale", "count"), [(4, 472_624), (2, 451_852), (3, 460_507), (8, 555_712)])
def test_the_fast_network_has_as_many_parameters_as_counted_by_hand(scale: int, count: int) -> None:
    net = TransformationNetwork(upscale_recipe("fast", scale).network)
    assert count == 1_792 + 443_136 + scale**2 * 3 * (64 * 9 + 1)
    assert sum(parameter.numel() for parameter in net.parameters()) == count
    assert net.scale == scale


def test_the_network_for_video_computes_at_half_the_size() -> None:
    """c3s1-32 after p2-12: 12*32*9 + 32; r32*4: 8 * (32*32*9 + 32); s4-3: 32*48*9 + 48."""
    net = TransformationNetwork(upscale_recipe("video", 2).network)
    assert sum(parameter.numel() for parameter in net.parameters()) == 3_488 + 73_984 + 13_872
    assert (net.scale, net.multiple) == (2, 2)


@pytest.mark.parametrize(("scale", "doublings", "count"), [(2, 1, 364_803), (4, 2, 401_859), (8, 3, 438_915)])
def test_the_papers_networks_have_the_layers_and_parameters_of_table_2(scale: int, doublings: int, count: int) -> None:
    config = upscale_recipe("paper", scale).network
    blocks, ups = [Layer("r", 64)] * 4, [Layer("u", 64, grow=2)] * doublings
    assert parse_architecture(config.architecture) == (Layer("c", 64, 9), *blocks, *ups, Layer("c", 3, 9))
    assert (config.norm, config.output, config.tanh_scale, config.channels, config.enlarge) == (
        *("batch", "tanh", 127.5),
        *("rgb", 1),
    )
    with torch.device("meta"):
        net = TransformationNetwork(config).eval()
        assert net(torch.empty(1, 3, 288 // scale, 288 // scale)).shape == (1, 3, 288, 288)
    assert sum(parameter.numel() for parameter in net.parameters()) == count


# --- sizes


@functools.cache
def sized(architecture: str, padding: str, output: str, channels: str, enlarged: int) -> TransformationNetwork:
    last = "1" if channels == "luma" else "3"
    return network(f"{architecture}-{last}", padding=padding, output=output, channels=channels, enlarge=enlarged)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 14),
    width=st.integers(1, 14),
    architecture=st.sampled_from(
        [("c3s1-4 s2", 2), ("c3s1-2 r2 s3", 3), ("c9s1-2 d2 s4", 2), ("c5s1-2 d2 U2 s2-2 c9s1", 2)]
    ),
    padding=st.sampled_from(PADDINGS),
    output=st.sampled_from(["tanh", "linear", "bicubic"]),
    channels=st.sampled_from(["rgb", "luma"]),
    enlarged=st.integers(1, 3),
)
def test_any_size_comes_out_times_the_scale(
    height: int,
    width: int,
    architecture: tuple[str, int],
    padding: str,
    output: str,
    channels: str,
    enlarged: int,
) -> None:
    text, grow = architecture
    net = sized(text, padding, output, channels, enlarged)
    assert (net.grow, net.scale) == (grow, grow * enlarged)
    made = net(torch.rand(2, 3, height, width))
    assert made.shape == (2, 3, net.scale * height, net.scale * width)
    assert made.isfinite().all()


@pytest.mark.parametrize(
    ("architecture", "padding"),
    [
        ("s4-3", "zero"),
        ("s4-3", "replicate"),
        ("s4-3", "reflect"),
        ("d4 s4-3", "reflect"),
    ],
)
def test_a_pixel_shuffle_first_of_all_takes_the_smallest_pictures(architecture: str, padding: str) -> None:
    net = network(architecture, padding=padding)
    for height, width in ((1, 1), (2, 1), (1, 3)):
        assert net(torch.rand(1, 3, height, width)).shape[-2:] == (net.scale * height, net.scale * width)


def test_the_picture_is_not_changed() -> None:
    for channels, last in (("rgb", 3), ("luma", 1)):
        x = torch.rand(1, 3, 5, 6)
        before = x.clone()
        network(f"c3s1-4 s2-{last}", output="bicubic", channels=channels)(x)
        assert torch.equal(x, before)


# --- reach


def seen(net: TransformationNetwork) -> int:
    """How far away, in pixels of the input, an output depends on it, over all phases of an output's place.

    All weights are positive, so that nothing cancels and no ReLU is shut.
    """
    net = net.double()
    for parameter in net.parameters():
        parameter.abs_().add_(0.01)
    side = net.multiple * (2 * (30 // net.multiple) + 1)
    first = side // net.multiple // 2 * net.multiple
    furthest = 0
    for place in range(first * net.scale, (first + net.multiple) * net.scale):
        x = torch.rand(1, 3, side, side, dtype=torch.float64, requires_grad=True)
        net(x)[..., place, place].sum().backward()
        assert x.grad is not None
        distance = (x.grad[0].abs().sum(0).nonzero() - place // net.scale).abs()
        furthest = max(furthest, int(distance.max()))
        assert furthest < first - net.multiple  # or the border would cut it
    return furthest


# By hand, in pixels of the input: half of each kernel, over the scale at which it works; bicubic interpolation sees 2.
@pytest.mark.parametrize(
    ("architecture", "settings", "field"),
    [
        ("s2-3", {}, 1),
        ("c1s1-4 s4-3", {}, 1),
        ("c3s1-4 s2-3", {}, 2),
        ("c1s1-4 c1s1-3", {"output": "bicubic", "enlarge": 2}, 2),
        ("c3s1-4 r4*2 s4-3", {"output": "bicubic"}, 6),
        ("c3s1-4 n4 s3-3", {}, 4),
        ("c3s1-4 s2-4 s2-3", {}, 2 + 1),  # half a pixel: at one phase of two it is one more
        ("c9s1-4 r4 u4 u4 c9s1-3", {"norm": "batch"}, 4 + 2 + 1 + 1),
        ("c9s1-4 c5s1-4 c5s1-1", {"channels": "luma", "enlarge": 1}, 4 + 2 + 2),
        ("c9s1-4 c5s1-4 c5s1-1", {"channels": "luma", "enlarge": 4}, 2 + 2),
        ("d4 s4-3", {}, 4),
        ("c3s1-4 B4 c3s1-3", {"norm": "batch"}, 1 + 2),
        ("c3s1-4 d4 r4 U4 U4 c3s1-3", {"norm": "batch"}, None),
        ("c3s1-4 d4 d4 u4 u4 s2-3", {}, None),
        ("d4 d4 s8-3", {}, 10),
        ("c3s4-4 s8-3", {}, 8),
    ],
)
def test_an_output_depends_on_nothing_beyond_reach(
    architecture: str, settings: dict[str, Any], field: int | None
) -> None:
    net = network(architecture, **{"output": "linear", **settings})
    furthest = seen(net)
    assert field in (None, furthest)
    assert furthest <= net.reach
    assert net.reach <= 2 * furthest + 2  # and tiles do not waste much


@pytest.mark.parametrize("settings", [{"output": "bicubic"}, {"output": "linear", "channels": "luma", "enlarge": 2}])
def test_a_change_further_away_than_reach_changes_nothing(settings: dict[str, Any]) -> None:
    net = network("c3s1-8 r8 s2-" + ("1" if "channels" in settings else "3"), **settings)
    x = torch.rand(1, 3, 1, 40)
    before = net(x)
    for place in (0, 20, 39):
        other = x.clone()
        other[..., place] = 1 - other[..., place]
        changed = (net(other) - before).abs().amax((0, 1, 2)).view(40, net.scale).amax(1) > 1e-6
        distances = (torch.arange(40) - place).abs()
        assert not changed[distances > net.reach].any()
        assert changed[place]
        assert changed[distances <= 1].all()


@pytest.mark.parametrize(("norm", "known"), [("none", True), ("batch", True), ("instance", False)])
def test_reach_is_none_where_norms_look_at_the_whole_picture(norm: str, known: bool) -> None:
    assert (network("c3s1-4 s2-3", norm).reach is not None) == known
    assert network("c3s1-4 s2-3", "conditional_instance", styles=2).reach is None


# --- memory


def test_memory_is_that_of_the_widest_layer_as_counted_by_hand() -> None:
    """c3s1-8: 2 * 3 + 2 * 8 floats a pixel; s2-3: 2 * 8 + 2 * 3 * 4 = 40, the widest; the result: 2 * 3 * 4."""
    net = network("c3s1-8 s2-3")
    assert net.memory(9, 19) == 4 * (40 + 24) * 10 * 20
    assert network("c3s1-8 c3s1-3").memory(9, 19) == 4 * (22 + 6) * 10 * 20


def test_memory_grows_with_the_picture_and_with_what_is_enlarged_first() -> None:
    net = network("c9s1-8 c5s1-1", channels="luma", output="linear")
    larger = network("c9s1-8 c5s1-1", channels="luma", output="linear", enlarge=4)
    assert net.memory(10, 10) < net.memory(20, 10) < net.memory(20, 20)
    assert larger.memory(20, 20) == 16 * net.memory(20, 20)


@pytest.mark.parametrize("recipe", ["fast", "srcnn", "paper"])
def test_memory_is_no_less_than_the_two_largest_tensors_of_a_layer(recipe: str) -> None:
    sizes: list[int] = []
    with torch.device("meta"):
        net = TransformationNetwork(upscale_recipe(recipe, 4).network).eval()
        for layer in net.layers:
            layer.register_forward_hook(lambda module, x, y: sizes.append(4 * (x[0].numel() + y.numel())))
        net(torch.empty(1, 3, 40, 50))
    assert max(sizes) <= net.memory(40, 50)


# --- mistakes


@pytest.mark.parametrize(
    ("text", "channels", "message"),
    [
        ("c3s1-4 s0-3", 3, "'s0-3' .* stride and filters of 1 or more"),
        ("c3s1-4 s2-0", 3, "'s2-0' .* stride and filters of 1 or more"),
        ("c3s1-4 s2", 3, "'s2' .* is not a layer: .* s4-3 or p2-12"),
        ("c3s1-4 s-3", 3, "is not a layer"),
        ("c3s1-4 s100-3", 3, "has 100 times a side; 16 is the most"),
        ("c3s1-4 s-2-3", 3, "is not a layer"),
        ("c3s1-4 s2.5-3", 3, "is not a layer"),
        ("c3s1-4 s2-4", 3, "must end in a convolution to 3 channels of stride 1"),
        ("c3s1-4 s2-3", 1, "must end in a convolution to 1 channel of stride 1, such as c9s1-1"),
        ("c3s1-4 s2-1", 3, "must end in a convolution to 3 channels of stride 1, such as c9s1-3"),
        ("c3s1-4 B1", 1, "must end in a convolution to 1 channel"),
        ("s2-8 r4 c3s1-3", 3, "r4 .* follows 8 channels"),
        ("r3 s2-1", 1, "r3 .* follows 1 channels"),
        ("", 1, "must end in a convolution to 1 channel"),
    ],
)
def test_a_wrong_string_is_refused_and_the_error_says_why(text: str, channels: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_architecture(text, channels)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("text", ["d4 s1-3", "d4 d4 s2-3", "c3s3-4 s2-3", "c3s2-4 s3-3"])
def test_a_network_that_makes_pictures_smaller_or_fits_no_whole_scale_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="reduces images"):
        network(text)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("norm", "layer", "norm is 'layer'; choose one of batch, instance, conditional_instance, none"),
        ("output", "relu", "output is 'relu'; choose one of tanh, linear, bicubic"),
        ("channels", "ycbcr", "channels is 'ycbcr'; choose one of rgb, luma"),
        ("enlarge", 0, "enlarge is 0; it must be a whole number from 1 to 16"),
        ("enlarge", -2, "enlarge is -2"),
        ("enlarge", float("nan"), "enlarge is nan"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_flag(name: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NetworkConfig(**{name: value})


def test_styles_need_a_norm_that_knows_them() -> None:
    with pytest.raises(ConfigError, match="3 styles need norm conditional_instance, not none"):
        NetworkConfig(norm="none", styles=3)


# --- cards of older networks


def test_a_card_without_the_new_settings_means_the_old_ones() -> None:
    config = from_dict(NetworkConfig, OLD_CARD)
    assert (config.output, config.channels, config.enlarge) == ("tanh", "rgb", 1)
    assert config == NetworkConfig("c3s1-4 r4 c3s1-3", "instance", "reflect", 1, 150.0)
    net = TransformationNetwork(config).eval()
    assert (net.scale, net.grow, net.luma) == (1, 1, False)
    x = torch.rand(1, 3, 8, 9)
    before = 2 * x - 1
    for layer in net.layers:
        before = layer(before)
    close(net(x), 0.5 + 150 / 255 * torch.tanh(before))


def test_a_file_of_an_older_version_still_loads(tmp_path: Path) -> None:
    path, old = tmp_path / "new.safetensors", tmp_path / "old.safetensors"
    net = TransformationNetwork(from_dict(NetworkConfig, OLD_CARD)).eval()
    card = checkpoints.Card(task="style", network=net.config, styles=("one",))
    checkpoints.save(path, net, card)
    told = json.loads(tensors.metadata(path)[CARD_KEY])
    assert {"output", "channels", "enlarge"} <= set(told["network"])
    told["network"] = OLD_CARD
    metadata = {"format": "pt", CARD_KEY: json.dumps(told)}
    safetensors.torch.save_file(safetensors.torch.load_file(path), old, metadata)
    loaded, read = checkpoints.load(old, task="style")
    assert read == checkpoints.read_card(path)
    x = torch.rand(1, 3, 8, 9)
    assert torch.equal(loaded(x), net(x))


def test_the_new_settings_survive_json_and_a_file(tmp_path: Path) -> None:
    config = NetworkConfig(
        "c3s1-4 s2-1", "none", "replicate", tanh_scale=100.0, output="bicubic", channels="luma", enlarge=2
    )
    assert from_dict(NetworkConfig, json.loads(json.dumps(to_dict(config)))) == config
    net = TransformationNetwork(config).eval()
    checkpoints.save(tmp_path / "x4.safetensors", net, checkpoints.Card(task="upscale", network=config))
    loaded, card = checkpoints.load(tmp_path / "x4.safetensors", task="upscale")
    assert card.network == config
    x = torch.rand(1, 3, 5, 6)
    assert torch.equal(loaded(x), net(x))
