"""Terms in an objective and in a model of your own: what it gives, what it stores, and how it moves."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from test_losses_images import OWN, SMALL, Small, pictures
from torch import Tensor, nn

from perceptual import LossConfig, OptimizeConfig, invert, optimize_style
from perceptual.errors import ConfigError, ImageError, WeightsError
from perceptual.losses import (
    DistanceLoss,
    FeatureLoss,
    GridLoss,
    LossNetwork,
    LossNetworks,
    PerceptualLoss,
    PixelLoss,
    StyleLoss,
    TermSpec,
    TextureLoss,
    TotalVariation,
    reconstruction_loss,
)
from perceptual.losses.base import Materials
from perceptual.losses.language import build_terms

close = functools.partial(torch.testing.assert_close, rtol=1e-5, atol=1e-6)


def objective(**more: Any) -> PerceptualLoss:
    terms = {"feature": (FeatureLoss("small:deep"), 2.0), "pixel": (PixelLoss(), 1.0)}
    return PerceptualLoss(terms, networks=OWN, **more)


# --- what the terms bring with them


def test_networks_of_the_terms_are_those_of_the_objective() -> None:
    style = StyleLoss.from_image(pictures(1, seed=2), "small:shallow", networks=OWN)
    feature = FeatureLoss("small:deep", networks=OWN)
    values = PerceptualLoss({"feature": (feature, 1.0), "style": (style, 1.0)})(pictures(2), pictures(2, seed=1))
    close(values["feature"], feature(pictures(2), pictures(2, seed=1)))
    close(values["style"], style(pictures(2)))


def test_terms_with_different_networks_of_one_name_are_an_error() -> None:
    other = LossNetwork.from_module(Small(), ["deep"], mean=(0, 0, 0), std=(1, 1, 1))
    terms = {"a": (FeatureLoss("small:deep", networks=OWN), 1.0)}
    terms["b"] = (FeatureLoss("small:deep", networks={"small": other}), 1.0)
    with pytest.raises(ConfigError, match="'b' and a term before it have different files or networks called 'small'"):
        PerceptualLoss(terms)
    assert PerceptualLoss(terms, networks={"small": other})(pictures(1), pictures(1))["total"] == 0


def test_files_of_the_terms_are_those_of_the_objective(tmp_path: Any) -> None:
    feature = FeatureLoss("vgg16:relu1_1", paths={"vgg16": tmp_path / "mine.pth"})
    with pytest.raises(WeightsError, match=r"There is no weights file .*mine\.pth"):
        PerceptualLoss({"feature": (feature, 1.0)})


def test_a_path_of_an_unknown_network_is_an_error() -> None:
    with pytest.raises(ConfigError, match="paths names 'vgg_16'; its names are vgg16, "):
        LossNetworks(["vgg16:relu1_1"], paths={"vgg_16": "vgg16.pth"})


@pytest.mark.parametrize("kind", [DistanceLoss, TextureLoss])
def test_all_layers_of_your_own_network_are_compared(kind: type[DistanceLoss]) -> None:
    close(
        kind("small", networks=OWN)(pictures(2), pictures(2, seed=1)),
        kind("small", ("shallow", "deep"), networks=OWN)(pictures(2), pictures(2, seed=1)),
    )


def test_a_weight_may_be_any_real_number() -> None:
    loss = PerceptualLoss({"pixel": (PixelLoss(), np.float32(0.5))})
    assert loss(torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 4))["total"] == 0.5


# --- values


def test_the_reductions_of_an_objective_agree() -> None:
    output, target = pictures(3), pictures(3, seed=1)
    each, total = (objective(reduction=way)(output, target) for way in ("none", "sum"))
    mean = objective()(output, target)
    for name, value in mean.items():
        assert each[name].shape == (3,)
        close(each[name].mean(), value)
        close(total[name], 3 * value)


def test_an_objective_has_the_reductions_of_terms() -> None:
    with pytest.raises(ConfigError, match="reduction is 'max'; choose mean, sum or none"):
        objective(reduction="max")


def test_a_goal_of_another_number_is_an_error() -> None:
    loss = objective()
    assert loss(pictures(2), loss.goal(pictures(1, seed=1)))["total"] > 0
    with pytest.raises(ConfigError, match="2 targets do not fit 3 outputs"):
        loss(pictures(3), loss.goal(pictures(2)))


def test_gradients_of_each_image_by_vmap() -> None:
    output, target = pictures(3), pictures(3, seed=1)

    def one(a: Tensor, b: Tensor) -> Tensor:
        total: Tensor = objective()(a[None], b[None])["total"]
        return total

    each, alone = torch.func.vmap(torch.func.grad(one))(output, target)[1], torch.func.grad(one)(output[1], target[1])
    assert (each - alone).norm() < 1e-3 * alone.norm()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (2 * pictures(1) - 1, r"for images in \[-1, 1\] give \(image \+ 1\) / 2"),
        (255 * pictures(1), "divide pixels of 0..255 by 255"),
        (pictures(1) / 0 * 0, r"not numbers \(NaN\)"),
    ],
    ids=["-1 to 1", "0 to 255", "nan"],
)
def test_targets_of_another_range_are_refused(target: Tensor, message: str) -> None:
    for loss in (PixelLoss(), objective()):
        with pytest.raises(ImageError, match=message):
            loss(pictures(1), target)


# --- as a part of a model


def test_networks_that_lack_a_layer_are_refused_at_once() -> None:
    made = LossNetworks(["small:shallow"], networks=OWN)
    with pytest.raises(ConfigError, match=r"The networks do not give small:deep, which a term needs"):
        PerceptualLoss({"feature": (FeatureLoss("small:deep"), 1.0)}, networks=made)


@pytest.mark.parametrize("kind", [torch.half, torch.bfloat16, torch.double])
def test_loss_networks_keep_their_number_format(kind: torch.dtype) -> None:
    output, target = pictures(1), pictures(1, seed=1)
    model = nn.ModuleDict({"loss": objective(), "network": nn.Conv2d(3, 3, 1)})
    before = model["loss"](output, target)["feature"]
    assert model.to(kind)["network"].weight.dtype == kind
    close(model["loss"](output, target)["feature"], before)
    assert SMALL(output)["deep"].dtype == torch.float32


@pytest.mark.parametrize("kind", [torch.half, torch.double])
def test_references_and_gram_matrices_keep_their_number_format(kind: torch.dtype) -> None:
    style = StyleLoss.from_image(pictures(1, seed=2), "small:deep", networks=OWN)
    loss = PerceptualLoss({"style": (style, 1.0)}, relative=True)
    loss.set_references({"style": [1e-9]})  # 0 in float16
    before = loss(pictures(1))["total"]
    close(loss.to(kind)(pictures(1))["total"], before)


def test_a_module_of_another_number_format_becomes_float32() -> None:
    network = LossNetwork.from_module(Small().double(), ["deep"], mean=(0, 0, 0), std=(1, 1, 1))
    assert network(pictures(1))["deep"].dtype == torch.float32


def test_a_loss_that_was_loaded_in_inference_mode_has_gradients_later() -> None:
    with torch.inference_mode():
        network = LossNetwork.from_module(Small(), ["deep"], mean=(0, 0, 0), std=(1, 1, 1))
    output = pictures(1).requires_grad_()
    FeatureLoss("small:deep", networks={"small": network})(output, pictures(1, seed=1)).backward()
    assert output.grad is not None


def test_the_state_holds_no_loss_networks() -> None:
    model = nn.ModuleDict({"loss": objective(), "network": nn.Conv2d(3, 3, 1)})
    keys = [key for key in model.state_dict() if key.startswith("loss.")]
    assert keys == ["loss.terms.feature.reference", "loss.terms.pixel.reference"]
    assert not model.load_state_dict(model.state_dict()).missing_keys
    full = {**model.state_dict(), "loss.networks.networks.small.mean": torch.zeros(1, 3, 1, 1)}
    model.load_state_dict(full)  # as stored before
    output, target = pictures(1), pictures(1, seed=1)
    close(model["loss"](output, target)["total"], objective()(output, target)["total"])


def test_the_state_holds_the_references() -> None:
    first, second, third = (objective(relative=True) for _ in range(3))
    third.load_state_dict(second.state_dict())
    first.calibrate([pictures(3)])
    second.load_state_dict(first.state_dict())
    output, target = pictures(2), pictures(2, seed=1)
    close(second(output, target)["total"], first(output, target)["total"])
    with pytest.raises(ConfigError, match="call calibrate"):
        third(output, target)


# --- objectives that do not fit a task


def test_a_batch_is_no_picture_to_optimise() -> None:
    for content, style in ((pictures(2), pictures(1)), (pictures(1), pictures(2))):
        with pytest.raises(ImageError, match=r"is a batch of 2 images: give one image, \(1, 3, H, W\)"):
            optimize_style(content, style, config=OptimizeConfig(size=32))
    with pytest.raises(ImageError, match="is a batch of 2 images"):
        invert(pictures(2))


def test_a_picture_has_no_frames() -> None:
    loss = LossConfig(loss="temporal=1,pixel=1")
    with pytest.raises(ConfigError, match="temporal compares frames of a video: leave it out"):
        optimize_style(pictures(1), pictures(1), loss=loss)


def test_the_loss_grid_needs_a_network_that_enlarges() -> None:
    with pytest.raises(ConfigError, match="needs a network that enlarges"):
        reconstruction_loss("grid=1", 1)
    assert reconstruction_loss("grid=1", 2)(pictures(1), pictures(1))["total"] == 0
    assert GridLoss(1)(pictures(1), pictures(1)) == 0
    assert TotalVariation()(pictures(1)) > 0


# --- targets


def test_a_goal_of_another_size_is_refused() -> None:
    loss = objective()
    with pytest.raises(ConfigError, match="from an image of another size"):
        loss(pictures(1), loss.goal(torch.rand(1, 3, 48, 40)))


def test_a_goal_made_in_inference_mode_serves_training() -> None:
    loss = objective()
    with torch.inference_mode():
        goal = loss.goal(pictures(1, seed=1).clone())
    output = pictures(1).requires_grad_()
    loss(output, goal)["total"].backward()
    assert output.grad is not None
    close(loss(output, goal)["total"], loss(output, pictures(1, seed=1))["total"])


@pytest.mark.parametrize("text", ["feature@{0}=1,feature@{0}+{1}=2", "feature@{0}+{1}=2,feature@{0}=1"])
def test_weights_of_a_layer_that_is_named_twice_are_added(text: str) -> None:
    layers = "small:shallow", "small:deep"
    loss = reconstruction_loss(text.format(*layers), 4, own_networks=OWN)
    assert loss.weights == {"feature small:shallow": 3.0, "feature small:deep": 2.0}


def test_one_name_for_two_terms_is_refused() -> None:
    specs = [TermSpec("feature", ("small:shallow",), 1.0, "mine"), TermSpec("feature", ("small:deep",), 1.0, "mine")]
    with pytest.raises(ConfigError, match=r"Two different terms are called .*mine"):
        build_terms(specs, Materials())
