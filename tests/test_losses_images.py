"""Each loss alone, called on images like a loss of PyTorch; mostly on a made-up loss network."""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable

import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor, nn
from torch.nn import functional as F

from perceptual.config import LossConfig
from perceptual.errors import ConfigError, ImageError, PerceptualError, WeightsError
from perceptual.functional import total_variation
from perceptual.losses import (
    AbsoluteLoss,
    DistanceLoss,
    FeatureLoss,
    GridLoss,
    LatticeLoss,
    LossNetwork,
    PerceptualLoss,
    PixelLoss,
    SSIMLoss,
    StyleLoss,
    TemporalLoss,
    Term,
    TextureLoss,
    TotalVariation,
    style_transfer_loss,
)
from perceptual.losses.ssim import similarity

close = functools.partial(torch.testing.assert_close, rtol=1e-5, atol=1e-6)


class Small(nn.Module):
    """Two random layers by name, as a feature extractor gives them."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        shallow = F.relu(self.first(image))
        return {"shallow": shallow, "deep": F.relu(self.second(F.max_pool2d(shallow, 2)))}


SMALL = LossNetwork.from_module(Small(), ["shallow", "deep"], mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
OWN = {"small": SMALL}


def pictures(count: int, side: int = 48, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def painting() -> Tensor:
    return pictures(1, 20, seed=9)


Make = Callable[..., Term]
MAKES: dict[str, Make] = {
    "feature": functools.partial(FeatureLoss, "small:deep", networks=OWN),
    "half size": functools.partial(FeatureLoss, "small:deep@2", networks=OWN),
    "style": functools.partial(StyleLoss.from_image, painting(), "small:deep", networks=OWN),
    "distance": functools.partial(DistanceLoss, "small", ["shallow", "deep"], networks=OWN),
    "texture": functools.partial(TextureLoss, "small", ["shallow", "deep"], networks=OWN),
    "pixel": PixelLoss,
    "l1": AbsoluteLoss,
    "ssim": SSIMLoss,
    "grid": functools.partial(GridLoss, 4),
    "temporal": TemporalLoss,
    "tv": TotalVariation,
    "lattice": LatticeLoss,
}
ALONE = ("style", "tv", "lattice")  # they need no target
every_loss = pytest.mark.parametrize("make", MAKES.values(), ids=list(MAKES))
with_target = pytest.mark.parametrize("make", [make for name, make in MAKES.items() if name not in ALONE])


@every_loss
def test_the_three_reductions_agree(make: Make) -> None:
    output, target = pictures(3), pictures(3, seed=1)
    each = make(reduction="none")(output, target)
    assert each.shape == (3,)
    assert (each >= 0).all()
    close(make()(output, target), each.mean())
    close(make(reduction="sum")(output, target), each.sum())
    assert make()(output, target).shape == ()


@every_loss
def test_each_image_has_the_loss_that_it_has_alone(make: Make) -> None:
    output, target, loss = pictures(3), pictures(3, seed=1), make(reduction="none")
    alone = torch.cat([loss(output[k : k + 1], target[k : k + 1]) for k in range(3)])
    close(loss(output, target), alone)


@every_loss
def test_it_is_what_a_perceptual_loss_calls_by_that_name(make: Make) -> None:
    output, target = pictures(2), pictures(2, seed=1)
    beside = {"moved": output, "carried": target}
    whole = PerceptualLoss({"term": (make(), 1.0)}, networks=OWN)(output, target, beside=beside)
    close(make()(output, target), whole["term"])


@every_loss
def test_gradients_reach_the_output(make: Make) -> None:
    output = pictures(1).requires_grad_()
    make()(output, pictures(1, seed=1)).backward()
    assert output.grad is not None
    assert output.grad.isfinite().all()


@with_target
def test_equal_images_have_no_loss_and_one_target_serves_all(make: Make) -> None:
    output, loss = pictures(3), make(reduction="none")
    close(loss(output, output), torch.zeros(3))
    target = pictures(1, seed=1)
    close(loss(output, target), loss(output, target.expand(3, -1, -1, -1)))


@with_target
def test_gradients_reach_a_target_that_requires_them(make: Make) -> None:
    output, target = pictures(1), pictures(1, seed=1).requires_grad_()
    make()(output, target).backward()
    assert target.grad is not None


def test_pixel_losses_are_those_of_pytorch() -> None:
    output, target = pictures(2), pictures(2, seed=1)
    close(PixelLoss()(output, target), F.mse_loss(output, target))
    close(AbsoluteLoss()(output, target), F.l1_loss(output, target))
    close(TemporalLoss()(output, target), F.mse_loss(output, target))
    close(TotalVariation()(output), 255**2 * total_variation(output).mean())


def test_ssim_is_that_of_scikit_image() -> None:
    output, target = pictures(2), pictures(2, seed=1)
    how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    pairs = zip(output.double().numpy(), target.double().numpy(), strict=True)
    expected = [1 - structural_similarity(one, other, channel_axis=0, **how) for one, other in pairs]
    close(SSIMLoss(reduction="none")(output, target), torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scales", [1, 5])
def test_ssim_is_computed_in_float32(kind: torch.dtype, scales: int) -> None:
    """In half precision the variances, differences of large numbers, would be noise, and the loss below 0."""
    target = pictures(1, 176)
    output = (target + 0.01 * pictures(1, 176, seed=1)).to(kind)
    expected = SSIMLoss(scales)(output.float(), target)
    assert 0 < expected < 0.1
    close(SSIMLoss(scales)(output, target), expected)
    with torch.autocast("cpu", torch.bfloat16):
        close(SSIMLoss(scales)(output, target), expected)


def test_ssim_at_five_scales_is_the_product_of_its_parts() -> None:
    output, target = pictures(1, 176), pictures(1, 176, seed=1)
    expected = torch.ones(3)
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        small = [F.avg_pool2d(image, 2**scale) for image in (output, target)]
        expected *= similarity(small[0], small[1], 1.0)[scale < 4][0].clamp(min=0) ** weight
    close(SSIMLoss(5)(output, target), 1 - expected.mean())
    output.requires_grad_()
    SSIMLoss(5)(output, 1 - target).backward()  # of opposite structure
    assert output.grad is not None
    assert output.grad.isfinite().all()


def test_ssim_names_the_least_size_and_the_numbers_of_scales() -> None:
    with pytest.raises(ConfigError, match="is 3; give 1 or 5"):
        SSIMLoss(3)
    with pytest.raises(ImageError, match="is 90 x 90; SSIMLoss needs at least 176 x 176"):
        SSIMLoss(5)(pictures(1, 90), pictures(1, 90))


def test_the_total_variation_of_an_identity_is_36_per_channel_at_0_to_255() -> None:
    assert TotalVariation()(torch.eye(10).expand(1, 3, 10, 10)).item() == pytest.approx(3 * 36 * 255**2)


def test_a_texture_of_nothing_is_one() -> None:
    target, black = pictures(1), SMALL.mean.expand(1, 3, 48, 48)  # zeros after the preprocessing
    network = LossNetwork.from_module(nn.Sequential(Named()), ["pixels"], mean=(0.5, 0.5, 0.5), std=(1, 1, 1))
    close(TextureLoss("raw", ["pixels"], networks={"raw": network})(black, target), torch.tensor(1.0))


class Named(nn.Module):
    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"pixels": image}


# --- the style


def test_the_style_loss_of_the_painting_itself_is_nothing() -> None:
    loss = StyleLoss.from_image(painting(), "small:shallow", networks=OWN)
    close(loss(painting()), torch.tensor(0.0))
    assert loss(pictures(1)) > 0.01


def test_several_paintings_are_mixed_by_weights() -> None:
    paintings, output = pictures(2, 20, seed=9), pictures(2)
    loss = StyleLoss.from_image(paintings, "small:deep", reduction="none", networks=OWN)
    ones = [StyleLoss.from_image(p[None], "small:deep", reduction="none", networks=OWN)(output) for p in paintings]
    close(loss(output, style=torch.tensor([[0.0, 1.0]])), ones[1])
    close(loss(output, style=torch.eye(2)), torch.stack([ones[0][0], ones[1][1]]))
    close(loss(output), ones[0])  # the first where no weights are given
    with pytest.raises(ConfigError, match=r"give \(2, 2\)"):
        loss(output, style=torch.ones(2, 3))


@pytest.mark.parametrize("convention", ["paper", "code", "gatys"])
def test_the_convention_of_a_painting_is_that_of_the_class(convention: str) -> None:
    features = SMALL(painting())["deep"]
    by_hand = StyleLoss("small:deep", StyleLoss.gram(features, convention), convention=convention, networks=OWN)
    by_image = StyleLoss.from_image(painting(), "small:deep", convention=convention, networks=OWN)
    close(by_image(pictures(2)), by_hand(pictures(2)))
    with pytest.raises(ConfigError, match="convention is 'papre'"):
        StyleLoss.from_image(painting(), "small:deep", convention="papre", networks=OWN)


# --- the loss network of a term alone


def test_the_loss_network_is_loaded_at_the_first_call(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("PERCEPTUAL_CACHE", str(tmp_path))
    monkeypatch.delenv("PERCEPTUAL_WEIGHTS", raising=False)
    loss = FeatureLoss("vgg16:relu2_2")
    with pytest.raises(WeightsError, match="vgg16 are not on this machine"):
        loss(pictures(1), pictures(1))
    with pytest.raises(WeightsError, match="vgg16 are not on this machine"):
        loss.load()
    with pytest.raises(WeightsError, match=r"There is no weights file .*nowhere\.pth"):
        FeatureLoss("vgg16:relu2_2", paths={"vgg16": "nowhere.pth"})(pictures(1), pictures(1))


def test_a_term_keeps_its_state_when_it_loads_its_network() -> None:
    loss = FeatureLoss("small:deep", networks=OWN)
    before = list(loss.state_dict())
    loss(pictures(1), pictures(1))
    assert list(loss.state_dict()) == before == ["reference"]
    assert list(loss.parameters()) == []
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        close(other(pictures(1), pictures(1, seed=1)), loss(pictures(1), pictures(1, seed=1)))


def test_the_loss_network_follows_to_the_device() -> None:
    loss = FeatureLoss("small:deep", networks=copy.deepcopy(OWN)).to("meta")
    image = torch.empty(1, 3, 16, 16, device="meta")
    value = loss(image, image)
    assert value.device.type == "meta"
    assert {each.device.type for each in loss._loaded[0].buffers()} == {"meta"}


def test_the_network_runs_once_per_image_in_a_perceptual_loss() -> None:
    """Three terms of one network share one run on the output and one on the target."""
    calls: list[int] = []
    network = LossNetwork.from_module(Small(), ["shallow", "deep"], mean=(0, 0, 0), std=(1, 1, 1))
    network.stages["module"].register_forward_hook(lambda *_: calls.append(1))
    terms = {"a": (FeatureLoss("s:deep"), 1.0), "b": (FeatureLoss("s:shallow"), 1.0)}
    PerceptualLoss({**terms, "c": (DistanceLoss("s", ["deep"]), 1.0)}, networks={"s": network})(
        pictures(1), pictures(1)
    )
    assert len(calls) == 2


def test_half_precision_is_summed_in_float32() -> None:
    output, target = pictures(1).half(), pictures(1, seed=1).half()
    for make in (MAKES["pixel"], MAKES["feature"], MAKES["tv"]):
        assert make()(output, target).dtype == torch.float32
    assert PixelLoss()(output.double(), target.double()).dtype == torch.float64


# --- mistakes are one sentence

IMAGE = pictures(1)
MISTAKES: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    ("levels", lambda: PixelLoss()(255 * IMAGE, IMAGE), ImageError, "The output has values from .* divide pixels"),
    ("target levels", lambda: PixelLoss()(IMAGE, 255 * IMAGE), ImageError, "The target has values from"),
    ("integers", lambda: PixelLoss()((255 * IMAGE).byte(), IMAGE), TypeError, "output is of type torch.uint8"),
    ("integer target", lambda: PixelLoss()(IMAGE, (255 * IMAGE).byte()), TypeError, "target is of type torch.uint8"),
    ("array", lambda: TotalVariation()(IMAGE.numpy()), TypeError, "output is of type ndarray"),  # type: ignore[arg-type]
    ("one image", lambda: TotalVariation()(IMAGE[0]), ImageError, r"give image\[None\]"),
    (
        "grey",
        lambda: PixelLoss()(IMAGE[:, :1], IMAGE),
        ImageError,
        "for grey images give image.expand",
    ),
    ("no target", lambda: PixelLoss()(IMAGE), ConfigError, "need a target"),
    ("other size", lambda: PixelLoss()(IMAGE, IMAGE[..., :9]), ConfigError, r"target is 9 x \d+ px, but the output is"),
    ("other number", lambda: PixelLoss()(IMAGE, pictures(2)), ConfigError, "2 targets do not fit 1 outputs: give 1 t"),
    ("empty batch", lambda: PixelLoss()(IMAGE[:0], IMAGE[:0]), ImageError, "no pixels; skip empty batches"),
    ("two layers", lambda: FeatureLoss(["small:deep"]), ConfigError, r"layer is \['small:deep'\]; give one"),  # type: ignore[arg-type]
    ("painting's layer", lambda: StyleLoss.from_image(IMAGE, 3), ConfigError, "layer is 3; give one layer as text"),  # type: ignore[arg-type]
    ("list of terms", lambda: PerceptualLoss([PixelLoss()]), TypeError, "terms are a list: give a dict"),  # type: ignore[arg-type]
    ("layer in network", lambda: TextureLoss("vgg16:relu1_2"), ConfigError, "network is 'vgg16:relu1_2'"),
    ("layers as text", lambda: DistanceLoss("vgg16", "relu1_2"), ConfigError, "layers is 'relu1_2'; give them as"),
    ("reduction", lambda: PixelLoss(reduction="avg"), ConfigError, "reduction is 'avg'; choose mean, sum or none"),  # type: ignore[arg-type]
    ("layer", lambda: FeatureLoss("small:middle", networks=OWN)(IMAGE, IMAGE), ConfigError, "not 'middle'"),
    ("network", lambda: FeatureLoss("tiny:deep", networks=OWN)(IMAGE, IMAGE), ConfigError, "no loss network 'tiny'"),
    ("small", lambda: LatticeLoss()(IMAGE[..., :9]), ImageError, "too small for the grid losses"),
    (
        "painting levels",
        lambda: StyleLoss.from_image(255 * IMAGE),
        ImageError,
        "style image",
    ),
    ("painting shape", lambda: StyleLoss.from_image(IMAGE[0]), ImageError, "style image"),
]


@pytest.mark.parametrize(("call", "kind", "message"), [each[1:] for each in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_a_mistake_is_one_sentence(call: Callable[[], object], kind: type[Exception], message: str) -> None:
    assert issubclass(kind, (PerceptualError, TypeError))
    with pytest.raises(kind, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_printed_loss_says_what_it_compares() -> None:
    assert repr(FeatureLoss("relu1_2", reduction="sum")) == "FeatureLoss(vgg16:relu1_2, reduction=sum)"
    assert repr(DistanceLoss("s", ["shallow", "deep"])) == "DistanceLoss(s:shallow, s:deep, reduction=mean)"
    assert repr(PixelLoss()) == "PixelLoss(reduction=mean)"
    assert repr(GridLoss(4)) == "GridLoss(period=4, reduction=mean)"


# --- torch.compile


def terms_of_all() -> PerceptualLoss:
    terms: dict[str, tuple[nn.Module, float]] = {
        name: (make(), 1.0) for name, make in MAKES.items() if name not in ("temporal", "lattice")
    }
    return PerceptualLoss(terms, networks=OWN)


def test_a_perceptual_loss_compiles_without_a_graph_break() -> None:
    output, target = pictures(2), pictures(2, seed=1)
    found = torch._dynamo.explain(terms_of_all())(output, target)
    assert (found.graph_break_count, found.graph_count) == (0, 1), found.break_reasons


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_loss_gives_the_values_and_gradients_of_the_plain_one(backend: str) -> None:
    loss, target = terms_of_all(), pictures(2, seed=1)
    compiled = torch.compile(loss, backend=backend, fullgraph=True)
    plain, other = pictures(2).requires_grad_(), pictures(2).requires_grad_()
    values, same = loss(plain, target), compiled(other, target)
    close(same, values)
    values["total"].backward()
    same["total"].backward()
    torch.testing.assert_close(other.grad, plain.grad, rtol=1e-3, atol=1e-3)


@every_loss
def test_a_loss_alone_compiles_without_a_graph_break(make: Make) -> None:
    loss = make().load()
    found = torch._dynamo.explain(loss)(pictures(1), pictures(1, seed=1))
    assert found.graph_break_count == 0, found.break_reasons


# --- real weights


@pytest.mark.shared
def test_the_objective_of_style_transfer_compiles_without_a_graph_break(pretrained: object) -> None:
    layers = LossConfig(content_layers=("vgg16:relu2_2",), style_layers=("vgg16:relu1_2", "vgg19-distilled:relu4_4"))
    loss = style_transfer_loss(layers, [painting()])
    found = torch._dynamo.explain(loss)(pictures(1), pictures(1, seed=1))
    assert (found.graph_break_count, found.graph_count) == (0, 1), found.break_reasons


@pytest.mark.shared
def test_the_lines_of_the_guide_run_on_real_weights(pretrained: object) -> None:
    output, target = pictures(2, 32).requires_grad_(), pictures(2, 32, seed=1)
    FeatureLoss("vgg16:relu2_2")(output, target).backward()
    assert output.grad is not None
    assert FeatureLoss("vgg16:relu2_2")(target, target) == 0
    assert StyleLoss.from_image(target[:1], "vgg16:relu1_2")(target[:1]).item() == pytest.approx(0, abs=1e-6)
    assert DistanceLoss("squeezenet1_1", reduction="none")(output, target).shape == (2,)
