"""The objectives of style transfer, super-resolution and video."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from test_losses import DEEP, Stub, close, pictures, scalar, shares, stub_loss
from torch import Tensor
from torch.nn import functional as F

from perceptual import images
from perceptual.config import LossConfig
from perceptual.errors import ConfigError, ImageError
from perceptual.functional import (
    grid_energy,
    lattice_energy,
)
from perceptual.losses import (
    PIXELS,
    DistanceLoss,
    GridLoss,
    LatticeLoss,
    PerceptualLoss,
    PixelLoss,
    StyleLoss,
    TemporalLoss,
    Term,
    TextureLoss,
    TotalVariation,
    style_transfer_loss,
)
from perceptual.losses.base import Materials

# --- errors


def test_a_loss_without_terms_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one term"):
        PerceptualLoss({})


def test_a_term_called_total_is_refused() -> None:
    with pytest.raises(ConfigError, match='name "total" is taken'):
        PerceptualLoss({"total": (TotalVariation(), 1.0)})


@pytest.mark.parametrize("target", [None, pictures(1, 12, 17)], ids=["missing", "of another size"])
def test_a_target_that_does_not_fit_is_an_error(target: Tensor | None) -> None:
    with pytest.raises(ConfigError, match="give an image of the same height and width as the output"):
        PerceptualLoss({"pixels": (PixelLoss(), 1.0)})(pictures(1), target)


def test_calibrating_on_single_photographs_is_an_error() -> None:
    with pytest.raises(ConfigError, match="at least 2 photos"):
        stub_loss().calibrate([pictures(2), pictures(1)])


def test_calibrating_on_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match="need photos"):
        stub_loss().calibrate([])


@pytest.mark.parametrize("name", ["relu3.3", "pop", "keys", "items", "training", "", " ", "a.b.c", "_modules", "é"])
def test_a_term_may_have_any_name(name: str) -> None:
    loss = PerceptualLoss({name: (PixelLoss(), 2.0), "tv": (TotalVariation(), 0.0)})
    values = loss(torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 4))
    assert {key: value.item() for key, value in values.items()} == {name: 1, "tv": 0, "total": 2}
    assert list(loss.references()) == [name, "tv"]
    loss.load_state_dict(loss.state_dict())


def test_names_that_pytorch_would_confuse_stay_apart() -> None:
    loss = PerceptualLoss({"a.b": (PixelLoss(), 1.0), "a_b": (PixelLoss(), 2.0), "a_b_": (PixelLoss(), 4.0)})
    assert loss(torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 4))["total"] == 7
    loss.set_references({"a.b": [1.0], "a_b": [2.0], "a_b_": [4.0]})
    assert loss.references() == {"a.b": [1.0], "a_b": [2.0], "a_b_": [4.0]}


def test_plain_names_are_the_keys_of_the_state() -> None:
    keys = list(PerceptualLoss({"content vgg16:relu2_2": (PixelLoss(), 1.0)}).state_dict())
    assert keys == ["terms.content vgg16:relu2_2.reference"]


@pytest.mark.parametrize(
    ("term", "error", "message"),
    [
        (PixelLoss(), TypeError, r"The term 'a' is given as PixelLoss: give \(term, weight\)"),
        (("pixel", 1.0), TypeError, "The term 'a' is a str"),
        ((PixelLoss(), float("nan")), ConfigError, "The weight of 'a' is nan"),
        ((PixelLoss(), "1"), ConfigError, "The weight of 'a' is '1'"),
    ],
)
def test_what_is_no_term_with_its_weight_is_refused(term: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        PerceptualLoss({"a": term})  # type: ignore[dict-item]


WHOLE = torch.full((1, 3, 64, 64), 0.5)


@pytest.mark.parametrize("which", ["output", "target"])
@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        ((WHOLE * 255).byte(), TypeError, r"is of type torch.uint8: give a tensor of floats in \[0, 1\]"),
        (WHOLE.long(), TypeError, "is of type torch.int64"),
        (WHOLE.numpy(), TypeError, "is of type ndarray"),
        (WHOLE[0], ImageError, r"has the shape \(3, 64, 64\), not \(N, 3, H, W\): for a single image"),
        (WHOLE[:, :1], ImageError, r"has the shape \(1, 1, 64, 64\)"),
        (WHOLE[:0], ImageError, r"has the shape \(0, 3, 64, 64\)"),
        (WHOLE * 255, ImageError, r"has values from 127.5 to 127.5: give values in \[0, 1\]"),
    ],
    ids=["uint8", "int64", "numpy", "one image", "grey", "none", "levels"],
)
def test_an_image_that_losses_do_not_take_is_one_sentence(
    which: str, image: Tensor, error: type[Exception], message: str
) -> None:
    loss = PerceptualLoss({"pixels": (PixelLoss(), 1.0), "tv": (TotalVariation(), 1.0)})
    pair = (image, WHOLE) if which == "output" else (WHOLE, image)
    with pytest.raises(error, match=f"The {which} {message}") as caught:
        loss(*pair)
    assert str(caught.value).endswith(".")


def test_photographs_of_levels_and_styles_of_levels_are_refused(vgg_file: Path) -> None:
    with pytest.raises(ImageError, match="batch of photographs has values"):
        stub_loss().calibrate([255 * pictures(2)])
    with pytest.raises(ImageError, match="style image has values"):
        style_transfer_loss(TWO_STYLE_LAYERS, [255 * pictures(1)], paths={"vgg16": vgg_file})
    with pytest.raises(ConfigError, match="at least one style"):
        style_transfer_loss(TWO_STYLE_LAYERS, [], paths={"vgg16": vgg_file})


def test_training_may_leave_the_range_for_a_while() -> None:
    """What a network makes at its worst is for the training to judge; only the first output says how pixels count."""
    loss = PerceptualLoss({"pixels": (PixelLoss(), 1.0)})
    assert loss(WHOLE * 3, WHOLE)["total"] == 1
    assert loss(WHOLE * 101, WHOLE)["total"] == 2500


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floats_of_any_precision_are_taken(dtype: torch.dtype) -> None:
    loss = PerceptualLoss({"pixels": (PixelLoss(), 1.0), "tv": (TotalVariation(), 1.0)})
    total = loss(WHOLE.to(dtype), (WHOLE / 2).to(dtype))["total"]
    assert (total.item(), total.dtype) == (1 / 16, torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize(
    ("target", "style", "message"),
    [
        (pictures(3), None, "3 targets do not fit 2 outputs"),
        ({}, None, "The target lacks stub:deep"),
        (pictures(2), torch.ones(2, 3), r"style weights have the shape \(2, 3\): give \(2, 1\)"),
        (pictures(2), torch.ones(1), r"style weights have the shape \(1,\)"),
    ],
)
def test_targets_and_styles_that_do_not_fit_are_one_sentence(
    target: Tensor | dict[str, Tensor], style: Tensor | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        stub_loss()(pictures(2), target, style)


@pytest.mark.parametrize(("term", "side"), [(GridLoss(8), 7), (LatticeLoss(), 47)])
def test_an_image_without_room_for_a_grid_is_one_sentence(term: Term, side: int) -> None:
    loss = PerceptualLoss({"grid": (term, 1.0)})
    with pytest.raises(ImageError, match=f"An image of {side} x 64 px is too small for the grid losses"):
        loss(WHOLE[..., :side], WHOLE[..., :side])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GridLoss(0), "period of GridLoss is 0"),
        (lambda: GridLoss(2.5), "period of GridLoss is 2.5"),  # type: ignore[arg-type]
        (
            lambda: StyleLoss(DEEP, torch.ones(2, 3, 3), convention="papre"),
            "convention is 'papre'; choose one of paper",
        ),
        (lambda: StyleLoss(DEEP, torch.ones(3, 3)), r"have the shape \(3, 3\): give Gram matrices"),
        (lambda: StyleLoss(DEEP, torch.ones(1, 6, 4)), "give Gram matrices"),
        (lambda: PerceptualLoss({"t": (TemporalLoss(), 1.0)})(WHOLE), "compares two images"),
        (
            lambda: PerceptualLoss({"s": (StyleLoss(DEEP, torch.ones(1, 4, 4)), 1.0)}, networks=Stub())(WHOLE),  # type: ignore[arg-type]
            "stub:deep has 6 channels, but the targets of its StyleLoss have 4",
        ),
    ],
)
def test_a_term_that_cannot_be_is_one_sentence(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make()
    assert str(caught.value).endswith(".")


# --- style_transfer_loss


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up weights of VGG-16's first two convolutions."""
    generator, state = torch.Generator().manual_seed(0), {}
    for index, channels in ((0, 3), (2, 64)):
        weight = torch.randn(64, channels, 3, 3, generator=generator) * (2 / (9 * channels)) ** 0.5
        state |= {f"features.{index}.weight": weight, f"features.{index}.bias": torch.zeros(64)}
    path = tmp_path_factory.mktemp("weights") / "made_up.safetensors"
    safetensors.torch.save_file(state, path)
    return path


TWO_STYLE_LAYERS = LossConfig(
    content_layers=("vgg16:relu1_2",), style_layers=("vgg16:relu1_1", "vgg16:relu1_2"), content_weight=2, style_weight=6
)


def test_absolute_weights_stand_at_each_layer_and_relative_ones_at_their_mean(vgg_file: Path) -> None:
    names = ["content vgg16:relu1_2", "style vgg16:relu1_1", "style vgg16:relu1_2", "tv"]
    for weighting, expected in (
        ("absolute", [2, 6, 6, 1e-5]),
        ("relative", [2, *[StyleLoss.relative_weight * 6 / 2] * 2, 1e-5]),
    ):
        config = LossConfig(**{**vars(TWO_STYLE_LAYERS), "weighting": weighting})
        loss = style_transfer_loss(config, [pictures(1)], paths={"vgg16": vgg_file})
        assert loss.weights == dict(zip(names, expected, strict=True))


def test_total_variation_of_weight_zero_is_left_out(vgg_file: Path) -> None:
    config = LossConfig(**{**vars(TWO_STYLE_LAYERS), "tv_weight": 0})
    assert "tv" not in style_transfer_loss(config, [pictures(1)], paths={"vgg16": vgg_file}).weights


def test_styles_of_several_sizes_make_one_loss(vgg_file: Path) -> None:
    paintings = [pictures(1, 12, 16, seed=1), pictures(1, 9, 21, seed=2)]
    loss = style_transfer_loss(TWO_STYLE_LAYERS, paintings, paths={"vgg16": vgg_file})
    for k, painting in enumerate(paintings):
        own, other = (loss(painting, painting, torch.eye(2)[i : i + 1]) for i in (k, 1 - k))
        assert own["content vgg16:relu1_2"] == own["style vgg16:relu1_1"] == 0 < other["style vgg16:relu1_1"]


def test_layers_without_a_network_are_vgg16s(vgg_file: Path) -> None:
    bare = LossConfig(
        content_layers=("relu1_2",), style_layers=("relu1_1", "relu1_2"), content_weight=2, style_weight=6
    )
    output, target, painting = pictures(1, seed=1), pictures(1, seed=2), pictures(1, seed=3)
    totals = [
        style_transfer_loss(config, [painting], paths={"vgg16": vgg_file})(output, target)["total"]
        for config in (bare, TWO_STYLE_LAYERS)
    ]
    close(totals[0], totals[1])


def test_moving_the_loss_moves_all_that_it_compares_with(vgg_file: Path) -> None:
    loss = style_transfer_loss(TWO_STYLE_LAYERS, [pictures(1)], paths={"vgg16": vgg_file}).to("meta")
    assert {tensor.device.type for tensor in (*loss.buffers(), *loss.parameters())} == {"meta"}
    assert not list(filter(lambda p: p.requires_grad, loss.parameters()))


@pytest.mark.shared
class TestRealWeights:
    CONFIG = LossConfig(
        content_layers=("vgg19-distilled:relu2_2",),
        style_layers=tuple(f"vgg19-distilled:relu{layer}" for layer in ("1_2", "2_2", "3_3", "4_3")),
        weighting="relative",
        style_weight=0.8,
        tv_weight=0.1,
    )

    @pytest.fixture
    def photographs(self, pretrained: Path) -> Tensor:
        paths = sorted((pretrained.parent / "data/content").glob("*.jpg"))[:4]
        read = [images.resize(images.read(path).pixels, longer_side=96) for path in paths]
        return torch.cat([pixels[..., :64, :64] for pixels in read])

    @pytest.fixture
    def loss(self, pretrained: Path, photographs: Tensor) -> PerceptualLoss:
        painting = images.resize(images.read(pretrained.parent / "data/styles/wave.jpg").pixels, longer_side=96)
        loss = style_transfer_loss(self.CONFIG, [painting])
        loss.calibrate([photographs])
        return loss

    def test_photographs_are_as_far_from_the_style_as_the_weights_say(
        self, loss: PerceptualLoss, photographs: Tensor
    ) -> None:
        values = loss(photographs, photographs)
        share = shares(loss, values)
        styles = [share[name] for name in share if name.startswith("style")]
        assert share["content vgg19-distilled:relu2_2"] == 0
        assert styles == pytest.approx([StyleLoss.relative_weight * 0.8 / 4] * 4, rel=1e-4)
        assert values["total"].item() == pytest.approx(StyleLoss.relative_weight * 0.8 + 0.1, rel=1e-4)

    def test_a_few_steps_on_the_pixels_bring_style_at_little_cost_of_content(
        self, loss: PerceptualLoss, photographs: Tensor
    ) -> None:
        target = photographs[:1]
        output = target.clone().requires_grad_()
        optimizer = torch.optim.Adam([output], lr=0.02)
        totals = []
        for _ in range(15):
            optimizer.zero_grad()
            values = loss(output, target)
            values["total"].backward()
            optimizer.step()
            totals.append(values["total"].item())
        assert totals[-1] < 0.6 * totals[0]
        assert 0 < shares(loss, values)["content vgg19-distilled:relu2_2"] < 1


def test_relative_weights_without_references_are_refused() -> None:
    loss = PerceptualLoss({"pixel": (PixelLoss(), 1.0)}, relative=True)
    with pytest.raises(ConfigError, match="calibrate"):
        loss(pictures(1), pictures(1))
    loss.calibrate([pictures(4)])
    assert loss(pictures(1), pictures(1))["total"] == 0


@pytest.mark.parametrize("references", [{}, {"pixel": [1.0, 2.0]}, {"pixel": [float("nan")]}])
def test_references_that_do_not_fit_are_refused(references: dict[str, list[float]]) -> None:
    with pytest.raises(ConfigError, match="'pixel' must be 1 finite"):
        PerceptualLoss({"pixel": (PixelLoss(), 1.0)}).set_references(references)


# --- the losses of super-resolution


def made_up(term: Term, seed: int) -> dict[str, Tensor]:
    """Features of two images at the layers of a term, of as many channels as sizes."""
    generator = torch.Generator().manual_seed(seed)
    return {layer: torch.randn(2, 3 + k, 8 >> k, 8 >> k, generator=generator) for k, layer in enumerate(term.layers)}


@pytest.mark.parametrize("make", [DistanceLoss, TextureLoss])
def test_losses_of_several_layers_are_nothing_between_equals_and_know_their_network(make: type[Term]) -> None:
    term = make()
    assert term.layers == ("vgg16:relu1_2", "vgg16:relu2_2", "vgg16:relu3_3")
    features, others = made_up(term, 0), made_up(term, 1)
    assert term.compare(features, features, None).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert (term.compare(features, others, None) > 0.1).all()
    with pytest.raises(ConfigError, match="There is no loss network 'nothing'"):
        make("nothing")


def test_distance_looks_at_directions_and_texture_at_no_place() -> None:
    distance, texture = DistanceLoss(), TextureLoss()
    features, others = made_up(distance, 0), made_up(distance, 1)
    larger = {layer: 7 * value for layer, value in features.items()}
    moved = {layer: value.flip(-1).transpose(-1, -2) for layer, value in features.items()}
    close(distance.compare(larger, others, None), distance.compare(features, others, None))
    assert (distance.compare(moved, features, None) > 0.1).all()
    close(texture.compare(moved, features, None), torch.zeros(2), atol=1e-6, rtol=0)
    close(texture.compare({layer: 0 * value for layer, value in features.items()}, features, None), torch.ones(2))


def test_texture_in_patches_is_the_mean_over_the_patches() -> None:
    whole, patched = TextureLoss(), TextureLoss(patch=4)
    features, others = made_up(whole, 0), made_up(whole, 1)  # 8, 4 and 2 positions a side: 2 x 2 patches
    sides = {layer: value.shape[-1] // 2 for layer, value in features.items()}

    def part(of: dict[str, Tensor], row: int, column: int) -> dict[str, Tensor]:
        return {k: v.unflatten(-2, (2, -1)).unflatten(-1, (2, -1))[..., row, :, column, :] for k, v in of.items()}

    places = [(0, 0), (0, 1), (1, 0), (1, 1)]
    quarters = [whole.compare(part(features, *place), part(others, *place)) for place in places]
    close(patched.compare(features, others), torch.stack(quarters).mean(0))
    single = {layer: value[:1] for layer, value in others.items()}
    close(patched.compare(features, single)[:1], patched.compare(features, others)[:1])
    swapped = {layer: value.roll(sides[layer], -1) for layer, value in features.items()}
    close(whole.compare(swapped, features), torch.zeros(2), atol=1e-6, rtol=0)
    assert (patched.compare(swapped, features) > 0.1).all()
    assert TextureLoss.build(None, Materials()).patch == 16
    with pytest.raises(ConfigError, match="The patch of TextureLoss is 0"):
        TextureLoss(patch=0)


def test_the_grid_is_that_of_the_difference() -> None:
    term = GridLoss(4)
    image = pictures(2, 32, 32)
    grid = torch.zeros_like(image)
    grid[..., ::4, 1::4] = 0.1
    assert term.compare({PIXELS: image}, {PIXELS: image}, None).tolist() == [0, 0]
    close(term.compare({PIXELS: image + grid}, {PIXELS: image}, None), grid_energy(grid, 4))


# --- what lies beside the output: the temporal term


def two_frames(count: int = 2) -> dict[str, Tensor]:
    """Paintings of a moved picture, and the moved paintings of the first."""
    return {"moved": pictures(count, 5, 7, seed=3), "carried": pictures(count, 5, 7, seed=4)}


def with_temporal(loss: PerceptualLoss, weight: float) -> PerceptualLoss:
    terms = {name: (term, loss.weights[name]) for name, term in loss.named_terms()}
    relative = not loss.calibrated
    return PerceptualLoss({**terms, "temporal": (TemporalLoss(), weight)}, networks=loss.networks, relative=relative)


def test_the_temporal_term_is_the_squared_difference_of_what_moved_and_what_was_carried() -> None:
    term, frames = TemporalLoss(), two_frames()
    assert (term.layers, term.target_layers) == ((), ())
    close(term.compare(frames, {}), (frames["moved"] - frames["carried"]).square().mean((1, 2, 3)))
    assert term.compare({"moved": frames["moved"], "carried": frames["moved"]}, {}).tolist() == [0, 0]
    levels = {"moved": torch.full((1, 3, 4, 4), 110 / 255), "carried": torch.full((1, 3, 4, 4), 100 / 255)}
    close(255 * term.compare(levels, {}).sqrt(), torch.tensor([10.0]))


def test_a_term_that_is_added_counts_with_its_weight_beside_the_others() -> None:
    output, target, frames = pictures(2, seed=1), pictures(2, seed=2), two_frames()
    plain, loss = stub_loss()(output, target), with_temporal(stub_loss(), 3.0)
    values = loss(output, target, beside=frames)
    assert list(values) == ["content", "style shallow", "style deep", "tv", "temporal", "total"]
    assert loss.weights["temporal"] == 3.0
    close(values["temporal"], F.mse_loss(frames["moved"], frames["carried"]))
    close(values["total"], plain["total"] + 3 * values["temporal"])
    assert all(torch.equal(values[name], plain[name]) for name in plain if name != "total")


def test_what_lies_beside_changes_no_other_term() -> None:
    output, target = pictures(2, seed=1), pictures(2, seed=2)
    plain, beside = stub_loss()(output, target), stub_loss()(output, target, beside=two_frames())
    assert all(torch.equal(plain[name], beside[name]) for name in plain)


def test_gradients_of_the_temporal_term_reach_both_paintings_and_not_the_output() -> None:
    frames = {name: value.requires_grad_() for name, value in two_frames(1).items()}
    output = pictures(1, seed=1).requires_grad_()
    with_temporal(stub_loss(), 1.0)(output, pictures(1, seed=2), beside=frames)["temporal"].backward()
    assert output.grad is None
    assert frames["moved"].grad is not None
    assert frames["carried"].grad is not None
    close(frames["moved"].grad, -frames["carried"].grad)
    close(frames["moved"].grad, 2 / (3 * 5 * 7) * (frames["moved"] - frames["carried"]).detach())


def test_relative_to_photographs_the_temporal_term_of_two_of_them_is_its_weight() -> None:
    photographs, loss = pictures(4), with_temporal(stub_loss(content=0.0, style=0.0, tv=0.0), 2.5)
    references = loss.calibrate([photographs])
    assert references["temporal"] == [pytest.approx(F.mse_loss(photographs, photographs.roll(1, 0)).item(), rel=1e-5)]
    strangers = {"moved": photographs, "carried": photographs.roll(1, 0)}
    close(loss(photographs, photographs, beside=strangers)["total"], scalar(2.5))
    still = {"moved": photographs, "carried": photographs}
    assert loss(photographs, photographs, beside=still)["total"] == 0


def test_several_styles_share_one_temporal_reference() -> None:
    photographs, loss = pictures(4), with_temporal(stub_loss(content=0.0, style=0.0, tv=0.0, styles=3), 2.0)
    assert len(loss.calibrate([photographs])["temporal"]) == 1
    strangers = {"moved": photographs, "carried": photographs.roll(1, 0)}
    style = F.one_hot(torch.tensor([0, 1, 2, 0]), 3).float()
    close(loss(photographs, photographs, style, beside=strangers)["total"], scalar(2.0))


def test_the_temporal_term_in_half_precision_is_summed_in_float32() -> None:
    frames = {name: (100 * value).half() for name, value in two_frames().items()}
    value = TemporalLoss().compare(frames, {})
    assert value.dtype == torch.float32
    close(value, (frames["moved"].float() - frames["carried"].float()).square().mean((1, 2, 3)))


def test_the_lattice_is_a_term_whose_reference_is_1() -> None:
    dotted = pictures(2, 64, 64)
    dotted[..., ::4, ::4] = 1
    loss = PerceptualLoss({"lattice": (LatticeLoss(), 2.0)}, relative=True)
    assert loss.calibrate([pictures(4, 64, 64)]) == {"lattice": [1.0]}
    values = loss(dotted)
    close(values["lattice"], lattice_energy(dotted).mean())
    close(values["total"], 2 * values["lattice"])
