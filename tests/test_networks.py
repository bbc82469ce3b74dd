"""networks: the supplement's tables, the blocks and norms they are made of, and sizes from 1 px up."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from perceptual.config import NetworkConfig
from perceptual.errors import ConfigError
from perceptual.functional import noise_field
from perceptual.networks import (
    STYLE,
    Block,
    ConvolutionLayer,
    InstanceNorm,
    Layer,
    TransformationNetwork,
    parse_architecture,
    with_noise,
)
from perceptual.networks.layers import reflected
from perceptual.tasks.style import Style
from perceptual.tasks.upscale import SUPER_RESOLUTION

TINY = "c9s1-4 d4 d8 r8*2 u4 u4 c9s1-3"
PADDINGS = ("zero", "reflect", "replicate", "reflect-start", "reflect-crop", "reflect-start-crop", "same-crop")
NORMS = ("batch", "instance", "conditional_instance")
close = torch.testing.assert_close


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@functools.cache
def network(
    architecture: str = TINY, norm: str = "batch", padding: str = "zero", scale: float = 127.5
) -> TransformationNetwork:
    styles = 2 if norm == "conditional_instance" else 1
    return TransformationNetwork(NetworkConfig(architecture, norm, padding, styles, scale)).eval()  # type: ignore[arg-type]


def activation_sizes(architecture: str, padding: str, side: int) -> list[tuple[int, ...]]:
    """(C, H, W) after each layer, as in the supplement's tables; no arithmetic is done."""
    sizes: list[tuple[int, ...]] = []
    with torch.device("meta"):
        net = TransformationNetwork(NetworkConfig(architecture, padding=padding)).eval()  # type: ignore[arg-type]
        for layer in net.layers:
            layer.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[1:])))
        output = net(torch.empty(1, 3, side, side))
    return [*sizes, tuple(output.shape[1:])]


def squares(*sizes: tuple[int, int]) -> list[tuple[int, int, int]]:
    return [(channels, side, side) for channels, side in sizes]


# --- architecture strings


def test_the_papers_string_has_its_sixteen_convolutions() -> None:
    block, last = Layer("r", 128), Layer("c", 3, 9)
    assert parse_architecture(STYLE) == (
        *(Layer("c", 32, 9), Layer("d", 64, stride=2), Layer("d", 128, stride=2)),
        *[block] * 5,
        *(Layer("u", 64, grow=2), Layer("u", 32, grow=2), last),
    )


def test_the_notation_of_the_authors_code_means_the_same() -> None:
    assert parse_architecture("c9s1-32,d64,d128,R128,R128,R128,R128,R128,u64,u32,c9s1-3") == parse_architecture(STYLE)
    assert parse_architecture("c3s1-8, C8*2, U4, c3s1-3") == parse_architecture("c3s1-8 n8 n8 U4 c3s1-3")


def test_kernel_and_stride_of_a_convolution_are_read() -> None:
    assert parse_architecture("c5s2-16 u16 c1s1-3")[0] == Layer("c", 16, kernel=5, stride=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must end in a convolution to 3 channels"),
        ("c9s1-32", "must end in a convolution to 3 channels"),
        ("c9s1-32 c9s2-3", "must end in a convolution to 3 channels of stride 1"),
        ("c9s1-32 u3", "must end in a convolution"),
        ("c9s1-32 y64 c9s1-3", "'y64' .* is not a layer"),
        ("c9-32 c9s1-3", "'c9-32' .* is not a layer"),
        ("c9s1-32 r32* c9s1-3", "is not a layer"),
        ("c9s1-32 r-32 c9s1-3", "is not a layer"),
        ("c8s1-32 c9s1-3", "'c8s1-32' .* odd kernel"),
        ("c0s1-32 c9s1-3", "odd kernel"),
        ("c9s0-32 c9s1-3", "stride and filters of 1 or more"),
        ("d0 c9s1-3", "stride and filters of 1 or more"),
        ("c9s1-32 r64 c9s1-3", "r64 .* follows 32 channels"),
        ("c9s1-32 n64 c9s1-3", "n64 .* follows 32 channels"),
        ("r64 c9s1-3", "r64 .* follows 3 channels"),
    ],
)
def test_a_wrong_string_is_refused_and_the_error_says_why(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_architecture(text)


@pytest.mark.parametrize("text", ["d32 c9s1-3", "d32 d32 u32 c9s1-3", "c3s3-8 u8 u8 c9s1-3"])
def test_a_network_that_makes_images_smaller_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="double as often as it halves"):
        TransformationNetwork(NetworkConfig(text))


# --- supplement, Tables 1 and 2


def test_every_activation_size_of_table_1() -> None:
    blocks = [(128, 64)] * 5
    expected = squares((32, 256), (64, 128), (128, 64), *blocks, (64, 128), (32, 256), (3, 256), (3, 256))
    paper = Style.recipe("paper").network
    assert paper.architecture == STYLE
    for padding in (paper.padding, "zero", "reflect"):
        assert activation_sizes(STYLE, padding, 256) == expected


def test_table_1_with_the_authors_start_padding_of_40_px_comes_out_at_256() -> None:
    blocks = [(128, 80), (128, 76), (128, 72), (128, 68), (128, 64)]  # each unpadded block crops 2 px a side
    expected = squares((32, 336), (64, 168), (128, 84), *blocks, (64, 128), (32, 256), (3, 256), (3, 256))
    assert Style.recipe("authors").network.padding == "reflect-start"
    assert activation_sizes(STYLE, "reflect-start", 256) == expected
    assert network(STYLE, padding="reflect-start").start_pad == 40


def test_every_activation_size_of_table_2_x4() -> None:
    expected = squares((64, 72), *[(64, 72)] * 4, (64, 144), (64, 288), (3, 288), (3, 288))
    assert activation_sizes(SUPER_RESOLUTION[4], "zero", 72) == expected


def test_every_activation_size_of_table_2_x8() -> None:
    expected = squares((64, 36), *[(64, 36)] * 4, (64, 72), (64, 144), (64, 288), (3, 288), (3, 288))
    assert activation_sizes(SUPER_RESOLUTION[8], "zero", 36) == expected


# By hand, convolution weights + biases + (gamma and beta: 2 C); a stride-1/2 convolution has as many as a plain one:
#   style   c9s1-32   3*32*81   +  32 +  64 =     7,872       x4   c9s1-64  3*64*81 + 64 + 128 =    15,744
#           d64       32*64*9   +  64 + 128 =    18,624            r64*4    8 * (64*64*9 + 64 + 128) = 296,448
#           d128      64*128*9  + 128 + 256 =    74,112            u64*2    2 * (64*64*9 + 64 + 128) =  74,112
#           r128*5    10 * (128*128*9 + 128 + 256) = 1,478,400     c9s1-3   64*3*81 + 3        =    15,555
#           u64       128*64*9  +  64 + 128 =    73,920            in all                          401,859
#           u32       64*32*9   +  32 +  64 =    18,528       x8   one u64 of 37,056 more:         438,915
#           c9s1-3    32*3*81   +   3       =     7,779       x2   one u64 of 37,056 less:         364,803
#           in all                            1,679,235
@pytest.mark.parametrize(
    ("architecture", "count"),
    [
        (STYLE, 1_679_235),
        (STYLE.replace("r", "n"), 1_679_235),
        (STYLE.replace("u", "U"), 1_679_235),
        (SUPER_RESOLUTION[2], 364_803),
        (SUPER_RESOLUTION[4], 401_859),
        (SUPER_RESOLUTION[8], 438_915),
    ],
)
def test_parameters_are_as_many_as_counted_by_hand(architecture: str, count: int) -> None:
    with torch.device("meta"):
        net = TransformationNetwork(NetworkConfig(architecture))
    assert sum(p.numel() for p in net.parameters()) == count


@pytest.mark.parametrize("norm", NORMS)
def test_norm_and_relu_follow_every_convolution_but_the_last(norm: str) -> None:
    layers = [m for m in network(TINY, norm).modules() if isinstance(m, ConvolutionLayer)]
    assert [layer.norm is None for layer in layers] == [False] * 9 + [True]
    assert [layer.relu for layer in layers] == [True, True, True, True, False, True, False, True, True, False]


# --- the output


def test_the_output_is_exactly_within_0_and_1_for_127_5() -> None:
    net = TransformationNetwork(NetworkConfig("c3s1-3")).eval()
    convolution = net.layers[0].conv
    for parameter in convolution.parameters():
        nn.init.zeros_(parameter)
    convolution.bias.data[:] = torch.tensor([-1e4, 0, 1e4])
    close(
        net(torch.rand(1, 3, 2, 2)), torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2), atol=0, rtol=0
    )


def test_the_output_of_the_authors_150_reaches_a_little_beyond() -> None:
    net = network("c1s1-3", scale=150)
    with torch.no_grad():
        output = net(torch.linspace(-1e4, 1e4, 50).expand(1, 3, 1, 50))
    bound = 150 / 255
    close(torch.stack([output.max() - 0.5, 0.5 - output.min()]), torch.tensor([bound, bound]))


def test_a_network_maps_0_to_1_symmetrically_to_plus_and_minus_1() -> None:
    net = TransformationNetwork(NetworkConfig("c1s1-3")).eval()
    nn.init.dirac_(net.layers[0].conv.weight)
    nn.init.zeros_(net.layers[0].conv.bias)
    x = torch.rand(1, 3, 2, 2)
    close(net(x), 0.5 + 0.5 * torch.tanh(2 * x - 1))


def test_the_image_is_not_changed() -> None:
    for padding in PADDINGS:
        image = torch.rand(1, 3, 24, 24)
        before = image.clone()
        network(TINY, "instance", padding)(image)
        assert torch.equal(image, before)


def test_gradients_reach_every_parameter_that_a_norm_does_not_cancel() -> None:
    net = TransformationNetwork(NetworkConfig(TINY, norm="instance"))
    net(torch.rand(2, 3, 16, 16)).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        if not name.endswith("conv.bias"):  # a constant before a norm does nothing
            assert parameter.grad.abs().max() > 0, name


# --- blocks


def make_block(residual: bool, padding: str = "zero") -> Block:
    return Block(4, padding, lambda channels: InstanceNorm(channels), residual=residual).requires_grad_(False)


@pytest.mark.parametrize("padding", ["zero", "reflect", "replicate", "none"])
def test_a_residual_block_is_the_identity_plus_its_branch(padding: str) -> None:
    block, x = make_block(True, padding), torch.randn(2, 4, 9, 10)
    identity = x[..., 2:-2, 2:-2] if padding == "none" else x
    close(block(x), identity + block.second(block.first(x)))
    nn.init.zeros_(block.second.norm.weight)
    assert torch.equal(block(x), identity)


def test_no_relu_follows_the_sum_of_a_residual_block() -> None:
    block, x = make_block(True), torch.randn(2, 4, 9, 10)
    assert block(x).min() < 0
    assert block.second(block.first(x)).min() < 0  # nor stands one at the end of the branch


def test_the_non_residual_twin_is_its_branch_and_ends_in_a_relu() -> None:
    block, x = make_block(False), torch.randn(2, 4, 9, 10)
    assert torch.equal(block(x), block.second(block.first(x)))
    assert block(x).min() == 0


# --- norms


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # two paths in the code
@pytest.mark.parametrize("shape", [(2, 5, 7, 9), (1, 5, 1, 2)])
def test_instance_norm_equals_pytorchs(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = 3 + 2 * torch.randn(shape, dtype=dtype)
    ours, theirs = InstanceNorm(5), nn.InstanceNorm2d(5, affine=True, dtype=dtype)
    for name in ("weight", "bias"):
        value = torch.randn(5)
        getattr(ours, name).data[:] = value
        getattr(theirs, name).data[:] = value
    close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    assert torch.equal(ours.train()(x), ours.eval()(x))


def test_instance_norm_takes_its_statistics_in_float32() -> None:
    x = (1000 * torch.randn(1, 4, 32, 32)).half()  # a variance of 1e6 overflows float16
    close(InstanceNorm(4)(x).float(), nn.InstanceNorm2d(4)(x.float()), rtol=5e-3, atol=5e-3)


def conditional_norm(styles: int = 3) -> InstanceNorm:
    norm = InstanceNorm(5, styles).requires_grad_(False)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def test_a_one_hot_style_is_the_plain_norm_with_that_gamma_and_beta() -> None:
    norm, x = conditional_norm(), torch.randn(3, 5, 6, 7)
    for style in range(3):
        plain = InstanceNorm(5)
        plain.weight.data, plain.bias.data = norm.weight[style : style + 1], norm.bias[style : style + 1]
        close(norm(x, torch.eye(3)[style : style + 1]), plain(x))
        close(norm(x, torch.eye(3))[style], plain(x)[style])  # each image of a batch has a style of its own


def test_without_style_weights_the_first_style_is_used() -> None:
    norm, x = conditional_norm(), torch.randn(2, 5, 6, 7)
    close(norm(x), norm(x, torch.eye(3)[:1]))


def test_mixing_styles_is_linear_in_gamma_and_beta() -> None:
    norm, x = conditional_norm(), torch.randn(2, 5, 6, 7)
    mix = torch.tensor([0.2, 0.5, 0.3])
    apart = [norm(x, torch.eye(3)[style : style + 1]) for style in range(3)]
    close(norm(x, mix[None]), sum(w * y for w, y in zip(mix, apart, strict=True)))


def test_autocast_does_not_round_a_styles_gamma_and_beta() -> None:
    norm, x = conditional_norm(), torch.randn(3, 5, 6, 7)
    with torch.autocast("cpu", torch.bfloat16):
        inside = norm(x, torch.eye(3))
    close(inside, norm(x, torch.eye(3)))


def test_styles_of_a_network_give_each_their_own_picture() -> None:
    net = TransformationNetwork(NetworkConfig(TINY, "conditional_instance", styles=2)).eval().requires_grad_(False)
    x, styles = torch.rand(1, 3, 16, 16).expand(2, -1, -1, -1), torch.eye(2)
    start = net(x, styles)
    close(start[0], start[1])  # every style starts from the same numbers
    for module in net.modules():
        if isinstance(module, InstanceNorm):
            module.weight[1] += 0.5
    changed = net(x, styles)
    close(changed[0], start[0])
    assert (changed[1] - start[1]).abs().max() > 1e-3
    close(net(x), changed[:1].expand_as(x))


# --- initialisation: the authors' code (Torch7)


@pytest.mark.parametrize("kind", ["c", "d", "u", "U"])
def test_convolutions_start_uniform_within_one_over_the_root_of_fan_in(kind: str) -> None:
    convolution = ConvolutionLayer(4, Layer(kind, 64, stride=2 if kind == "d" else 1), "zero", None).conv
    bound = 1 / math.sqrt(4 * 9)  # of the 4 channels that come in, also for the stride-1/2 convolution
    for parameter in convolution.parameters():
        assert 0.9 * bound < parameter.abs().max() <= bound
        assert abs(parameter.mean()) < 0.2 * bound
    assert abs(convolution.weight.std() - bound / math.sqrt(3)) < 0.05 * bound


def test_fan_in_counts_the_kernels_area() -> None:
    bound = 1 / math.sqrt(3 * 81)
    assert 0.95 * bound < network("c9s1-32 c9s1-3").layers[0].conv.weight.abs().max() <= bound


@pytest.mark.parametrize("norm", NORMS)
def test_norms_start_with_gamma_in_0_to_1_and_beta_0(norm: str) -> None:
    net = TransformationNetwork(NetworkConfig("c3s1-256 c3s1-3", norm=norm))  # type: ignore[arg-type]
    weight, bias = net.layers[0].norm.weight, net.layers[0].norm.bias
    assert weight.min() >= 0
    assert 0.95 < weight.max() <= 1
    assert abs(weight.mean() - 0.5) < 0.1
    assert not bias.any()


# --- sizes

sides = st.integers(1, 20)
few = settings(max_examples=8, deadline=None)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("padding", PADDINGS)
@few
@given(height=sides, width=sides)
@example(height=1, width=1)
@example(height=20, width=1)
def test_any_size_comes_out_as_it_went_in(padding: str, norm: str, height: int, width: int) -> None:
    with torch.no_grad():
        output = network(TINY, norm, padding)(torch.rand(2, 3, height, width))
    assert output.shape == (2, 3, height, width)
    assert output.isfinite().all()


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(
    ("architecture", "scale"),
    [
        (SUPER_RESOLUTION[2], 2),
        (SUPER_RESOLUTION[4], 4),
        (SUPER_RESOLUTION[8], 8),
        ("c3s1-64 r64 n64 U64 U64 c9s1-3", 4),
    ],
)
@few
@given(height=sides, width=sides)
@example(height=1, width=1)
def test_super_resolution_gives_exactly_the_scale(
    architecture: str, scale: int, padding: str, height: int, width: int
) -> None:
    net = network(architecture.replace("64", "4"), "batch", padding)
    with torch.no_grad():
        assert net(torch.rand(1, 3, height, width)).shape == (1, 3, scale * height, scale * width)
    assert net.scale == scale


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(
    "architecture",
    [
        "c3s1-4 r4 d4 n4 d4 r4 u4 n4 u4 r4 c3s1-3",  # blocks on every level
        "c3s1-4 d4 d4 r4 u4 u4 c3s1-3",  # the block, not the first convolution, sets the smallest size
        "c3s2-4 c1s2-4 u4 U4 c5s1-3",
        "c3s4-4 d4 u4 r4 U4 u4 c5s1-3",
    ],
)
def test_unusual_orders_of_layers_keep_the_size_too(architecture: str, padding: str) -> None:
    net = network(architecture, "batch", padding)
    for height, width in ((1, 1), (7, 10), (16, 16), (21, 3)):
        with torch.no_grad():
            output = net(torch.rand(1, 3, height, width))
        assert output.shape == (1, 3, net.scale * height, net.scale * width)


@pytest.mark.parametrize("padding", PADDINGS[1:-1])  # the last one, same-crop, moves the grid of strides by a pixel
@pytest.mark.parametrize("architecture", [TINY, "c3s1-4 r4 d4 n4 u4 r4 c3s1-3", "c3s1-4 r4 u4 u4 c3s1-3"])
def test_paddings_differ_at_the_border_only(architecture: str, padding: str) -> None:
    zero = network(architecture)
    other = TransformationNetwork(NetworkConfig(architecture, padding=padding)).eval()  # type: ignore[arg-type]
    other.load_state_dict(zero.state_dict())
    image = torch.rand(1, 3, 85, 90)
    with torch.no_grad():
        expected, output = zero(image), other(image)
    border = 34 * zero.scale  # more than what a pixel of the widest of these networks sees around it
    inside = (..., slice(border, -border), slice(border, -border))
    close(output[inside], expected[inside], rtol=1e-4, atol=1e-5)


def test_a_block_after_doubling_is_padded_in_itself_or_refused() -> None:
    architecture = "c3s1-4 u4 r4 c3s1-3"
    for padding in ("zero", "reflect", "replicate"):
        assert network(architecture, "batch", padding)(torch.rand(1, 3, 5, 6)).shape == (1, 3, 10, 12)
    with pytest.raises(ConfigError, match="reflect-start needs all blocks before the image is enlarged"):
        network(architecture, "batch", "reflect-start")


# --- noise into the input


NOISY = NetworkConfig("c3s1-4 d4 r4 U4 c3s1-3", norm="instance", padding="reflect", noise=0.1)


def test_the_noise_is_added_to_the_input_and_cut_to_its_range() -> None:
    torch.manual_seed(0)
    noisy = TransformationNetwork(NOISY).eval()
    plain = TransformationNetwork(replace(NOISY, noise=0.0)).eval()
    plain.load_state_dict(noisy.state_dict())
    x = torch.rand(2, 3, 20, 24)
    with torch.no_grad():
        assert torch.equal(noisy(x), plain((x + 0.1 * noise_field(20, 24)).clamp(0, 1)))
        assert torch.equal(noisy(x, None, torch.zeros(1, 1, 20, 24)), plain(x))


def test_noise_on_levels_is_that_on_floats_to_the_nearest_level() -> None:
    levels = torch.randint(0, 256, (1, 3, 40, 50), dtype=torch.uint8)
    added, exact = with_noise(levels, 0.2), with_noise(levels.double() / 255, 0.2)
    assert added.dtype == torch.uint8
    assert (added - 255 * exact).abs().max() <= 0.5 + 1e-4
    assert with_noise(levels, 0.0) is levels


# --- torch.compile


@pytest.mark.filterwarnings("default::DeprecationWarning")  # torch's own, while it imports its compiler
def test_the_captured_network_is_one_graph_and_gives_what_the_eager_one_gives() -> None:
    """Capture without PyTorch's code generator, whose code for CPUs is not always right (`devices.can_compile`)."""
    net = TransformationNetwork(
        NetworkConfig("c3s1-4 d8 r8 u4 c3s1-3", "conditional_instance", "reflect-start", 2)
    ).eval()
    x, style = torch.rand(1, 3, 16, 16), torch.tensor([[0.3, 0.7]])
    with torch.no_grad():
        captured = torch.compile(net, dynamic=False, fullgraph=True, backend="aot_eager")
        close(captured(x, style), net(x, style), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("width", [1, 2, 4])
def test_reflection_in_pieces_equals_that_of_pytorch(width: int) -> None:
    x = torch.rand(2, 3, 7, 5, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(2, 3, 7 + 2 * width, 5 + 2 * width, dtype=torch.float64)
    ours, theirs = reflected(x, width), F.pad(x, (width,) * 4, mode="reflect")
    assert torch.equal(ours, theirs)
    gradients = [torch.autograd.grad((padded * weights).sum(), x)[0] for padded in (ours, theirs)]
    assert torch.allclose(*gradients)
