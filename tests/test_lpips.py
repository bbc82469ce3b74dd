"""LPIPS and perceptual distances as modules: values, gradients, one value per image, and use in torchmetrics.

The trunks here have made-up weights, so that the tests run everywhere. Those that need the real weights say so.
"""

from __future__ import annotations

import functools
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn

from perceptual import LPIPS, PerceptualDistance, PerceptualLoss, PixelLoss, images
from perceptual.errors import ConfigError, WeightsError
from perceptual.losses import layers_of, parse_objective, reconstruction_loss
from perceptual.losses.architectures import ARCHITECTURES
from perceptual.losses.weights import PRETRAINED
from perceptual.losses.weights.heads import HEADS, LPIPS_LAYERS, load_heads, lpips_network
from perceptual.measure import super_resolution
from perceptual.resampling import imresize

SHARED = Path(__file__).resolve().parents[2] / "shared"
WIDTHS = {
    "alex": (64, 192, 384, 256, 256),
    "vgg": (64, 128, 256, 512, 512),
    "squeeze": (64, 128, 256, 384, 384, 512, 512),
}
TRUNKS = {kind: network for network, (kind, _) in LPIPS_LAYERS.items()}
every_kind = pytest.mark.parametrize("kind", WIDTHS)
near = functools.partial(torch.testing.assert_close, rtol=0, atol=1e-5)


def trunk(kind: str) -> nn.Sequential:
    """The layers of a loss network in torchvision's order, with made-up weights of the usual size."""
    generator = torch.Generator().manual_seed(0)
    architecture = PRETRAINED[TRUNKS[kind]].network
    made = nn.Sequential(*dict(ARCHITECTURES[architecture](architecture)).values()).requires_grad_(False)
    for parameter in made.parameters():
        fan_in = parameter[0].numel() if parameter.ndim == 4 else 100
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * (2 / fan_in) ** 0.5)
    return made


def pictures(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 64, 80, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def trunks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Weight files of the three loss networks by name."""
    folder, paths = tmp_path_factory.mktemp("trunks"), {}
    for kind, name in TRUNKS.items():
        paths[name] = folder / f"{kind}.safetensors"
        state = {f"features.{key}": value for key, value in trunk(kind).state_dict().items()}
        safetensors.torch.save_file(state, paths[name])
    return paths


def heads(kind: str) -> dict[str, Tensor]:
    """Made-up channel weights, by the keys of the package lpips."""
    generator = torch.Generator().manual_seed(1)
    return {
        f"lin{k}.model.1.weight": torch.rand(1, width, 1, 1, generator=generator)
        for k, width in enumerate(WIDTHS[kind])
    }


@pytest.fixture(scope="module")
def files(trunks: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    """{kind: paths}: the loss networks, and the made-up channel weights of this kind."""
    folder, found = tmp_path_factory.mktemp("heads"), {}
    for kind in WIDTHS:
        torch.save(heads(kind), folder / f"{kind}.pth")
        found[kind] = {**trunks, "lpips": folder / f"{kind}.pth"}
    return found


def by_hand(kind: str, output: Tensor, target: Tensor) -> Tensor:
    """LPIPS 0.1 as the package computes it, written anew: images in [-1, 1], unit length, 1 x 1 convolutions."""
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
    stages, wanted = trunk(kind), LPIPS_LAYERS[TRUNKS[kind]][1]
    names = [name for name, _ in ARCHITECTURES[PRETRAINED[TRUNKS[kind]].network](PRETRAINED[TRUNKS[kind]].network)]
    pair, total = [((2 * x - 1) - shift) / scale for x in (output, target)], torch.zeros(len(output))
    weights = iter(heads(kind).values())
    for name, stage in zip(names, stages, strict=True):
        pair = [stage(x) for x in pair]
        if name in wanted:
            one, other = (x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10) for x in pair)
            total = total + nn.functional.conv2d((one - other) ** 2, next(weights)).mean((1, 2, 3))
    return total


# --- values


@every_kind
def test_it_is_the_formula_of_the_package(kind: str, files: dict[str, dict[str, Path]]) -> None:
    output, target = pictures(2), pictures(2, seed=1)
    expected = by_hand(kind, output, target)
    assert (expected > 0.01).all()
    loss = LPIPS(kind, paths=files[kind], reduction="none")
    torch.testing.assert_close(loss(output, target), expected, rtol=1e-4, atol=1e-5)
    assert loss(target, target).tolist() == [0, 0]
    torch.testing.assert_close(LPIPS(kind, paths=files[kind])(output, target), expected.mean(), rtol=1e-4, atol=1e-5)


@every_kind
def test_it_equals_the_package_lpips(kind: str, trunks: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's own code and its own channel weights, on the same made-up loss network."""
    monkeypatch.delenv("PERCEPTUAL_WEIGHTS", raising=False)
    monkeypatch.setenv("PERCEPTUAL_CACHE", str(next(iter(trunks.values())).parent / "empty"))
    torchvision, models = types.ModuleType("torchvision"), types.ModuleType("torchvision.models")
    for name, of in (("alexnet", "alex"), ("vgg16", "vgg"), ("squeezenet1_1", "squeeze")):
        made = functools.partial(lambda of, **_: types.SimpleNamespace(features=trunk(of)), of)
        setattr(models, name, made)
    torchvision.models = models  # type: ignore[attr-defined]  # the package asks torchvision for the networks only
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    lpips = pytest.importorskip("lpips")
    theirs = lpips.LPIPS(net=kind, verbose=False)
    output, target = pictures(2), pictures(2, seed=1)
    with torch.no_grad():
        expected = theirs(2 * output - 1, 2 * target - 1).flatten()
    near(LPIPS(kind, paths=trunks, reduction="none")(output, target), expected)


@pytest.mark.shared
@pytest.mark.slow
def test_it_gives_the_known_value_of_bicubic_set5(pretrained: Path) -> None:
    """LPIPS of AlexNet between the Set5 images and their bicubic enlargements x4: 0.340, as in the literature."""
    folder, loss = SHARED / "data" / "sr" / "Set5" / "x4", LPIPS("alex")
    values = []
    for path in sorted(folder.glob("*_HR.png")):
        high = images.read(path).pixels
        low = images.read(path.with_name(path.name.replace("_HR", "_LR"))).pixels
        values.append(float(loss(imresize(low, 4).clamp(0, 1), high)))
    assert len(values) == 5
    assert sum(values) / 5 == pytest.approx(0.340, abs=0.002)


@pytest.mark.shared
@pytest.mark.parametrize("kind", ["alex", "vgg"])
def test_the_known_file_holds_the_weights_of_two_networks(kind: str, pretrained: Path) -> None:
    found = load_heads(TRUNKS[kind])
    assert [tuple(each.shape) for each in found] == [(1, width, 1, 1) for width in WIDTHS[kind]]
    assert all((each >= 0).all() for each in found)


# --- as a module


@every_kind
def test_gradients_reach_both_images(kind: str, files: dict[str, dict[str, Path]]) -> None:
    output, target = pictures(1).requires_grad_(), pictures(1, seed=1).requires_grad_()
    LPIPS(kind, paths=files[kind])(output, target).backward()
    for image in (output, target):
        assert image.grad is not None
        assert image.grad.isfinite().all()
        assert image.grad.abs().sum() > 0


def test_a_step_along_the_gradient_brings_the_images_nearer(files: dict[str, dict[str, Path]]) -> None:
    loss, target = PerceptualDistance(LPIPS("alex", paths=files["alex"])), pictures(1, seed=1)
    output = pictures(1).requires_grad_()
    before = loss(output, target)
    before.backward()
    assert output.grad is not None
    step = output.detach() - 0.01 * output.grad.sign()
    assert loss(step.clamp(0, 1), target) < before


def test_a_distance_is_one_value_per_image_or_their_mean_or_sum(files: dict[str, dict[str, Path]]) -> None:
    output, target = pictures(3), pictures(3, seed=1)
    make = functools.partial(PerceptualDistance.lpips, "squeeze", paths=files["squeeze"])
    each = make(reduction="none")(output, target)
    assert each.shape == (3,)
    near(make()(output, target), each.mean())
    near(make(reduction="sum")(output, target), each.sum())
    plain = PerceptualDistance("squeezenet1_1-torchvision", paths=files["squeeze"], reduction="none")
    assert plain(output, target).shape == (3,)


def test_it_shares_the_loss_network_with_other_terms(files: dict[str, dict[str, Path]]) -> None:
    output, target = pictures(2), pictures(2, seed=1)
    lpips = LPIPS("alex", paths=files["alex"])
    loss = PerceptualLoss({"lpips": (lpips, 1.0), "pixel": (PixelLoss(), 1.0)}, paths=files["alex"])
    near(loss(output, target)["lpips"], lpips(output, target))


def test_it_compiles_without_a_graph_break(files: dict[str, dict[str, Path]]) -> None:
    loss = LPIPS("alex", paths=files["alex"]).load()
    found = torch._dynamo.explain(loss)(pictures(1), pictures(1, seed=1))
    assert found.graph_break_count == 0, found.break_reasons


def test_it_is_a_metric_of_torchmetrics_in_three_lines(files: dict[str, dict[str, Path]]) -> None:
    """The recipe of the guide, in a MetricCollection: the mean over all images of all batches."""
    torchmetrics = pytest.importorskip("torchmetrics")

    class Distance(torchmetrics.MeanMetric):  # type: ignore[name-defined, misc]
        def __init__(self, loss: nn.Module) -> None:
            super().__init__()
            self.loss = loss

        def update(self, output: Tensor, target: Tensor) -> None:
            super().update(self.loss(output, target))

    lpips = LPIPS("alex", reduction="none", paths=files["alex"])
    pixel = PixelLoss(reduction="none")
    collection = torchmetrics.MetricCollection({"lpips": Distance(lpips), "pixel": Distance(pixel)})
    batches = [(pictures(count, seed), pictures(count, seed + 9)) for count, seed in ((2, 0), (3, 1))]
    for output, target in batches:
        collection.update(output, target)
    values = collection.compute()
    for name, loss in (("lpips", lpips), ("pixel", pixel)):
        expected = torch.cat([loss(output, target) for output, target in batches]).mean()
        torch.testing.assert_close(values[name], expected, rtol=1e-5, atol=1e-6)


# --- where the weights are


def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights are found by name, and no packages hold them."""
    monkeypatch.setenv("PERCEPTUAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PERCEPTUAL_WEIGHTS", raising=False)
    for package in ("lpips", "torchmetrics"):
        monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("package", "folder"), [("lpips", "weights/v0.1"), ("torchmetrics", "functional/image/lpips_models")]
)
def test_the_channel_weights_are_those_of_either_package(
    package: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty(tmp_path, monkeypatch)
    monkeypatch.delitem(sys.modules, package)
    place = tmp_path / package / folder
    place.mkdir(parents=True)
    (tmp_path / package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    torch.save(heads("alex"), place / "alex.pth")
    monkeypatch.syspath_prepend(tmp_path)
    found = load_heads("alexnet-torchvision")
    assert all(map(torch.equal, found, heads("alex").values()))


def test_a_file_of_the_known_name_must_be_the_known_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty(tmp_path, monkeypatch)
    monkeypatch.setenv("PERCEPTUAL_WEIGHTS", str(tmp_path))
    safetensors.torch.save_file(
        {f"alexnet.lin{k}": torch.ones(w) for k, w in enumerate(WIDTHS["alex"])}, tmp_path / HEADS.file
    )
    with pytest.raises(WeightsError, match="does not have the known hash: delete it"):
        LPIPS("alex")


def test_a_file_by_its_path_may_be_either_kind(tmp_path: Path, files: dict[str, dict[str, Path]]) -> None:
    flat = {f"alexnet.lin{k}": value.flatten() for k, value in enumerate(heads("alex").values())}
    safetensors.torch.save_file(flat, tmp_path / "mine.safetensors")
    found = load_heads("alexnet-torchvision", tmp_path / "mine.safetensors")
    assert all(map(torch.equal, found, load_heads("alexnet-torchvision", files["alex"]["lpips"])))


def test_missing_and_other_files_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, dict[str, Path]]
) -> None:
    empty(tmp_path, monkeypatch)
    calls: list[tuple[Any, type[Exception], str]] = [
        (lambda: LPIPS("alex"), WeightsError, "pip install torchmetrics, or give a file"),
        (lambda: LPIPS("alex", paths={"lpips": tmp_path / "no.pth"}), WeightsError, "There is no weights file"),
        (
            lambda: LPIPS("squeeze", paths=files["vgg"]),
            WeightsError,
            "does not contain the weights of LPIPS for squeezenet",
        ),
        (lambda: LPIPS("resnet"), ConfigError, "LPIPS does not support the network 'resnet'; choose one of alex, vgg"),
    ]
    for call, kind, message in calls:
        with pytest.raises(kind, match=message) as caught:
            call()
        assert str(caught.value).endswith(".")
        assert "\n" not in str(caught.value)


@every_kind
def test_an_objective_names_it(kind: str, files: dict[str, dict[str, Path]]) -> None:
    """LPIPS of the first pair, and half of the mean absolute difference, added up."""
    text = f"lpips@{kind}=2,l1=0.5"
    layers = layers_of(parse_objective(text))
    assert layers == tuple(f"{TRUNKS[kind]}:{layer}" for layer in LPIPS_LAYERS[TRUNKS[kind]][1])
    loss = reconstruction_loss(text, 4, paths=files[kind])
    output, target = pictures(2), pictures(2, 1)
    found = loss(output, target)
    near(found[f"lpips {kind}"], LPIPS(kind, paths=files[kind])(output, target))  # type: ignore[arg-type]
    near(found["total"], 2 * found[f"lpips {kind}"] + 0.5 * (output - target).abs().mean())


def test_without_a_network_an_objective_means_that_of_alexnet() -> None:
    assert layers_of(parse_objective("lpips")) == layers_of(parse_objective("lpips@alex"))
    with pytest.raises(ConfigError, match="choose one of alex, vgg"):
        layers_of(parse_objective("lpips@resnet"))


def test_the_names_of_the_package_and_of_the_loss_networks_mean_the_same() -> None:
    assert [lpips_network(kind) for kind in WIDTHS] == list(LPIPS_LAYERS) == list(TRUNKS.values())
    assert [lpips_network(name) for name in LPIPS_LAYERS] == list(LPIPS_LAYERS)


@pytest.mark.shared
def test_an_evaluation_measures_lpips_of_the_network_that_is_named(pretrained: Path, photograph: Image.Image) -> None:
    pair = images.from_any(photograph), images.from_any(photograph.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    found = super_resolution.distances_at_hand(["lpips", "lpips@vgg"])
    assert list(found) == ["lpips@alex", "lpips@vgg"]
    for name, kind in (("lpips@alex", "alex"), ("lpips@vgg", "vgg")):
        assert float(found[name](*pair)) == float(LPIPS(kind)(*pair))
    assert float(PerceptualDistance.lpips()(*pair)) == float(found["lpips@alex"](*pair))


@pytest.mark.shared
def test_an_evaluation_measures_no_network_that_it_was_not_asked_for(pretrained: Path) -> None:
    """AlexNet is at hand here, but is no distance of `perceptual evaluate sr` unless it is named."""
    assert "alexnet-torchvision" not in super_resolution.distances_at_hand()
