"""Modules of others in an objective: any loss (output, target) as a term, any feature extractor as a loss network."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceptual.config import LossConfig
from perceptual.errors import ConfigError, ImageError
from perceptual.losses import (
    DistanceLoss,
    FeatureLoss,
    LossNetwork,
    LossNetworks,
    ModuleLoss,
    PerceptualLoss,
    PixelLoss,
    TextureLoss,
    reconstruction_loss,
    style_transfer_loss,
)

close = functools.partial(torch.testing.assert_close, rtol=1e-5, atol=1e-6)
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def pictures(count: int, side: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


# --- a module as a term


class PerImage(nn.Module):
    """The squared error of each image, in the shape (N, 1, 1, 1) that the package lpips gives."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().mean((1, 2, 3), keepdim=True)


@pytest.mark.parametrize("module", [nn.MSELoss(), PerImage()], ids=["one number", "one per image"])
def test_a_module_is_a_term_by_name(module: nn.Module) -> None:
    output, target = pictures(3).requires_grad_(), pictures(3, seed=1)
    loss = PerceptualLoss({"mse": (module, 2.0), "pixel": (PixelLoss(), 1.0)})
    values = loss(output, target)
    close(values["mse"], values["pixel"])
    close(values["total"], 3 * values["pixel"])
    values["mse"].backward()
    assert output.grad is not None
    close(output.grad, 2 * (output - target).detach() / output.numel())


def test_one_target_serves_all_outputs_of_a_module() -> None:
    values = PerceptualLoss({"mse": (nn.MSELoss(), 1.0)})(pictures(3), pictures(1, seed=1))
    close(values["mse"], F.mse_loss(pictures(3), pictures(1, seed=1).expand(3, -1, -1, -1)))


def test_a_module_is_calibrated_like_a_term() -> None:
    loss = PerceptualLoss({"mse": (nn.MSELoss(), 2.0)}, relative=True)
    photographs = pictures(4)
    references = loss.calibrate([photographs])
    assert references == {"mse": [pytest.approx(F.mse_loss(photographs, photographs.roll(1, 0)).item())]}
    close(loss(photographs, photographs.roll(1, 0))["total"], torch.tensor(2.0))


def test_parameters_of_a_module_move_and_are_saved_with_the_loss() -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.tensor(2.0))

        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            return self.weight * F.l1_loss(output, target)

    loss = PerceptualLoss({"w": (Weighted(), 1.0)})
    assert [key for key in loss.state_dict() if key.endswith("module.weight")]
    assert {buffer.device.type for buffer in loss.to("meta").buffers()} == {"meta"}


class Returns(nn.Module):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def forward(self, output: Tensor, target: Tensor) -> Any:
        return self.value


@pytest.mark.parametrize("value", [0.5, None, torch.ones(2), torch.ones(3, 3)], ids=str)
def test_a_result_that_is_no_loss_is_one_sentence(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"The module Returns gives a result of .* for each of the 3 images\.$"):
        PerceptualLoss({"r": (Returns(value), 1.0)})(pictures(3), pictures(3))


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(TypeError, match=r"is no module: give an nn\.Module that takes"):
        ModuleLoss(F.mse_loss)  # type: ignore[arg-type]


class Metric(nn.Module):
    """What a metric of torchmetrics does when it is called: it returns the value of this batch, and keeps all."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []

    def update(self, output: Tensor, target: Tensor) -> None:
        self.kept.append(F.l1_loss(output, target))

    def compute(self) -> Tensor:
        return torch.stack(self.kept).mean()

    def reset(self) -> None:
        self.kept.clear()

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        self.update(output, target)
        return self.kept[-1]


def test_a_metric_does_not_keep_the_graphs_of_all_steps() -> None:
    metric = Metric()
    loss = PerceptualLoss({"m": (metric, 1.0)})
    for _ in range(2):
        loss(pictures(1).requires_grad_(), pictures(1, seed=1))["total"].backward()
        assert metric.kept == []


def test_metrics_of_torchmetrics_are_terms() -> None:
    metrics = pytest.importorskip("torchmetrics.image")
    output, target = pictures(2).requires_grad_(), pictures(2, seed=1)
    loss = PerceptualLoss({"ssim": (metrics.StructuralSimilarityIndexMeasure(data_range=1.0), -1.0)})
    for _ in range(2):
        values = loss(output, target)
        values["total"].backward()
    assert output.grad is not None
    equal = loss(target, target)
    close(equal["total"], torch.tensor(-1.0))


def test_losses_of_piq_are_terms() -> None:
    piq = pytest.importorskip("piq", exc_type=ImportError)
    output, target = pictures(2).requires_grad_(), pictures(2, seed=1)
    values = PerceptualLoss({"ssim": (piq.SSIMLoss(), 0.5)})(output, target)
    values["total"].backward()
    close(values["total"], 0.5 * piq.SSIMLoss()(output, target))


# --- a feature extractor as a loss network


class Extractor(nn.Module):
    """Features by name, with batch norm and dropout, which must not work as in training."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.drop = nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.Dropout(0.5)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        first = F.relu(self.norm(self.conv(image)))
        return {"layer1": first, "layer2": self.drop(F.max_pool2d(first, 2))}


def resnet(layers: tuple[str, ...] = ("layer1", "layer2")) -> LossNetwork:
    return LossNetwork.from_module(Extractor(), layers, **IMAGENET)


def test_a_module_sees_normalised_images_and_gives_its_features() -> None:
    module, image = Extractor().eval(), pictures(2)
    mean, std = (torch.tensor(IMAGENET[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    found = LossNetwork.from_module(module, ["layer2"], **IMAGENET)(image)
    assert list(found) == ["layer2"]
    close(found["layer2"], module((image - mean) / std)["layer2"])


def test_the_module_itself_is_not_changed() -> None:
    module = Extractor()
    network = LossNetwork.from_module(module, ["layer1"], **IMAGENET)
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(each.training for each in network.train().modules())


def test_a_module_is_a_loss_network_by_name() -> None:
    output, target, network = pictures(2).requires_grad_(), pictures(2, seed=1), resnet()
    terms: dict[str, tuple[nn.Module, float]] = {
        "feature": (FeatureLoss("resnet:layer1"), 1.0),
        "half": (FeatureLoss("resnet:layer2@2"), 1.0),
        "distance": (DistanceLoss("resnet", ["layer1", "layer2"]), 1.0),
        "texture": (TextureLoss("resnet", ["layer2"]), 1.0),
    }
    values = PerceptualLoss(terms, networks={"resnet": network})(output, target)
    features = [network(image)["layer1"] for image in (output, target)]
    close(values["feature"], F.mse_loss(*features))
    values["total"].backward()
    assert output.grad is not None


def test_objectives_in_one_line_take_a_network_by_name() -> None:
    loss = reconstruction_loss("feature@resnet:layer1=2,l1=1", 4, own_networks={"resnet": resnet()})
    assert set(loss(pictures(1), pictures(1, seed=1))) == {"feature resnet:layer1", "l1", "total"}
    config = LossConfig(content_layers=("resnet:layer2",), style_layers=("resnet:layer1",), tv_weight=0)
    painted = style_transfer_loss(config, [pictures(1, 20)], own_networks={"resnet": resnet()})
    assert painted(pictures(1), pictures(1, seed=1))["total"] > 0


def test_the_card_can_name_the_module_by_its_tensors() -> None:
    hashes = [LossNetworks(["r:layer1"], networks={"r": network}).hashes()["r"] for network in (resnet(), resnet())]
    assert hashes[0] == hashes[1]
    assert len(hashes[0]) == 64


def test_a_module_computes_in_half_precision_when_it_is_told_to() -> None:
    networks = LossNetworks(["r:layer1"], networks={"r": resnet()})
    networks.cast(torch.bfloat16)
    assert networks(pictures(1))["r:layer1"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: resnet(()), ConfigError, "Give the layers of the module"),
        (lambda: LossNetwork.from_module(Extractor(), "layer1", **IMAGENET), ConfigError, "as a list of names"),
        (lambda: LossNetwork.from_module(F.relu, ["a"], **IMAGENET), TypeError, "is no module"),
        (lambda: LossNetwork.from_module(nn.ReLU(), ["a"], mean=(0, 0), std=(1, 1, 1)), ConfigError, "three numbers"),
        (lambda: LossNetwork.from_module(nn.ReLU(), ["a"], mean=(0, 0, 0), std=(1, 1, 0)), ConfigError, "above 0"),
        (lambda: LossNetwork.from_module(nn.ReLU(), ["a"], **IMAGENET)(pictures(1)), ConfigError, "gives a Tensor"),
        (lambda: resnet(("layer9",))(pictures(1)), ConfigError, "no features 'layer9'; it gives layer1, layer2"),
        (lambda: resnet()(pictures(1)[0]), ImageError, "not \\(N, 3, H, W\\)"),
        (lambda: LossNetworks(["r:layer9"], networks={"r": resnet()}), ConfigError, "has the layers layer1, layer2"),
        (lambda: LossNetworks(["r.1:layer1"], networks={"r.1": resnet()}), ConfigError, "cannot be called 'r.1'"),
        (lambda: LossNetworks(["r:layer1"], networks={"r": nn.ReLU()}), TypeError, "is a ReLU: make one by"),
        (lambda: LossNetworks(["s:layer1"], networks={"r": resnet()}), ConfigError, "no loss network 's'"),
    ],
)
def test_a_mistake_is_one_sentence(make: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        make()
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_a_resnet_of_torchvision_is_a_loss_network() -> None:
    models = pytest.importorskip("torchvision.models")
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    torch.manual_seed(0)
    extractor = extraction.create_feature_extractor(models.resnet18(), ["layer1", "layer2"])
    network = LossNetwork.from_module(extractor, ["layer1"], **IMAGENET)
    loss = PerceptualLoss({"feature": (FeatureLoss("resnet:layer1"), 1.0)}, networks={"resnet": network})
    assert loss(pictures(1), pictures(1, seed=1))["total"] > 0
