"""Exported networks: an ONNX file gives what PyTorch gives, at every size, in onnxruntime and OpenVINO."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import assert_one_sentence
from PIL import Image
from test_cli import run
from torch import Tensor
from torch.nn import functional as F

from perceptual import Stylizer, Upscaler, checkpoints, export
from perceptual.checkpoints import Card
from perceptual.cli.export import _Export, _target
from perceptual.config import NetworkConfig
from perceptual.errors import OutputError
from perceptual.export import parity
from perceptual.export.graph import Graph
from perceptual.export.parity import LEAST, Parity, compare, feed, picture, session
from perceptual.functional import bicubic_by_convolution
from perceptual.networks import TransformationNetwork

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.usefixtures("one_thread")

Capture = pytest.CaptureFixture[str]
SIZES = ((1, 9), (3, 17), (32, 32), (41, 50))
STYLE = "c5s1-4 d4 r4 B4 c3s1-3"
CONFIGS = {
    "noise": NetworkConfig(STYLE, norm="instance", padding="reflect", noise=0.1),
    "batch norm": NetworkConfig("c3s1-4 d4 r4 u4 c3s1-3", norm="batch", padding="reflect-start"),
    "zero padding": NetworkConfig("c3s1-4 r4 s2-3", norm="none", padding="zero", output="bicubic"),
    "luma": NetworkConfig(
        "c3s1-4 c1s1-1", norm="none", padding="replicate", output="linear", channels="luma", enlarge=2
    ),
}


def saved(path: Path, config: NetworkConfig, task: str, **card: Any) -> Path:
    """A file of a network with random weights."""
    torch.manual_seed(0)
    checkpoints.save(path, TransformationNetwork(config), Card(task=task, network=config, **card))
    return path


def task_of(config: NetworkConfig) -> str:
    return "style" if config.output == "tanh" else "upscale"


def result(file: Path, **inputs: Tensor) -> Tensor:
    return torch.from_numpy(session(file.read_bytes()).run(None, feed(inputs))[0])


def levels(file: Path, graph: Graph) -> float:
    """The largest difference from PyTorch at all sizes, in levels of 255."""
    return max(each.levels for each in compare(graph, file.read_bytes(), SIZES))


# --- right at every size


@pytest.mark.parametrize("input", ["float", "uint8"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_a_file_gives_what_the_model_gives_at_every_size(tmp_path: Path, config: NetworkConfig, input: Any) -> None:
    file = saved(tmp_path / "n.safetensors", config, task_of(config), styles=("s",) if config.output == "tanh" else ())
    made = export.export_onnx(str(file), tmp_path / "n.onnx", input=input)
    assert min(each.decibels for each in made.parities) > LEAST
    model = Stylizer.load(file, device="cpu") if config.output == "tanh" else Upscaler.load(file, device="cpu")
    for size in SIZES:
        image = picture(*size)
        image = image if input == "float" else (255 * image).to(torch.uint8)
        # the model rounds in the same way; a sum in another order can pass half a level
        torch.testing.assert_close(
            result(made.path, image=image).double(),
            model.apply(image).double(),
            rtol=0,
            atol=1.01 if input == "uint8" else 5e-4,
        )


def test_one_pixel_is_enough(several: Path) -> None:
    painted = result(several, image=picture(1, 1), styles=torch.ones(2), strength=torch.ones(1))
    assert painted.shape == (1, 3, 1, 1)
    assert 0 <= painted.min() <= painted.max() <= 1


def test_a_batch_gives_what_its_pictures_give_one_by_one(tmp_path: Path) -> None:
    file = saved(tmp_path / "n.safetensors", CONFIGS["noise"], "style")
    made = export.export_onnx(str(file), tmp_path / "n.onnx")
    batch = torch.cat([picture(20, 31), picture(20, 31).flip(3)])
    one_by_one = torch.cat([result(made.path, image=each[None]) for each in batch])
    torch.testing.assert_close(result(made.path, image=batch), one_by_one, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wave", "starry_night:0.5,wave:0.5", "gallery", "gallery_video", "starry_night_solo",
                                  "x4_pixel", "x4_feature", "x4_srcnn", "x8_pixel", "x8_feature"])  # fmt: skip
def test_every_shipped_network_can_be_exported(tmp_path: Path, name: str) -> None:
    made = export.export_onnx(name, tmp_path / "n.onnx", input="uint8")
    assert min(each.decibels for each in made.parities) > LEAST
    assert max(each.levels for each in made.parities) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gallery", "x4_srcnn"])
def test_openvino_gives_the_same(tmp_path: Path, name: str) -> None:
    openvino = pytest.importorskip("openvino")
    made = export.export_onnx(name, tmp_path / "n.onnx")
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(made.path), "CPU", settings)
    graph = Graph(export.find(name), levels=False)
    for size in SIZES:
        inputs = graph.inputs(picture(*size), 3)
        with torch.no_grad():
            wanted = graph(**inputs)
        torch.testing.assert_close(torch.from_numpy(compiled(feed(inputs))[0]), wanted, rtol=0, atol=1e-4)


def test_grey_pictures_stay_grey(tmp_path: Path) -> None:
    file = saved(tmp_path / "n.safetensors", CONFIGS["zero padding"], "upscale")
    made = export.export_onnx(str(file), tmp_path / "n.onnx")
    large = result(made.path, image=picture(9, 8)[:, :1].expand(-1, 3, -1, -1).contiguous())
    assert torch.equal(large[:, 0], large[:, 1])
    assert torch.equal(large[:, 0], large[:, 2])


@pytest.mark.parametrize("scale", [2, 3, 8])
def test_bicubic_by_convolution_is_that_of_pytorch(scale: int) -> None:
    for size in ((1, 1), (2, 3), (9, 14)):
        image = picture(*size).double()
        wanted = F.interpolate(image, scale_factor=scale, mode="bicubic", antialias=True)
        torch.testing.assert_close(bicubic_by_convolution(image, scale), wanted, rtol=0, atol=1e-6)


# --- styles and strength as inputs


@pytest.fixture(scope="module")
def several(tiny_style: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export.export_onnx(str(tiny_style), tmp_path_factory.mktemp("onnx") / "tiny.onnx").path


@pytest.mark.parametrize(
    ("weights", "strength", "style"), [((1, 0), 1, "one"), ((0, 3), 1, "two"), ((1, 3), 0.4, "one:0.25,two:0.75")]
)
def test_styles_and_strength_are_inputs(
    several: Path, tiny_style: Path, weights: Any, strength: float, style: str
) -> None:
    image = picture(30, 41)
    painted = result(
        several, image=image, styles=torch.tensor(weights).float(), strength=torch.tensor([strength * 1.0])
    )
    wanted = Stylizer.load(tiny_style, device="cpu").apply(image, style=style, strength=strength)
    torch.testing.assert_close(painted, wanted, rtol=0, atol=1e-4)


def test_without_strength_the_photo_comes_out(several: Path) -> None:
    image = picture(7, 9)
    painted = result(several, image=image, styles=torch.ones(2), strength=torch.zeros(1))
    torch.testing.assert_close(painted, image, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_one_style_of_several_needs_no_input_but_the_image(tmp_path: Path) -> None:
    made = export.export_onnx("wave", tmp_path / "wave.onnx")
    assert [each.name for each in session(made.path.read_bytes()).get_inputs()] == ["image"]


# --- what the file says


def test_the_file_holds_the_card_and_names_its_sides(several: Path, tiny_style: Path) -> None:
    model = onnx.load(several)
    onnx.checker.check_model(model)
    said = {each.key: each.value for each in model.metadata_props}
    card = checkpoints.read_card(tiny_style)
    assert json.loads(said["perceptual_card"])["network"]["architecture"] == card.network.architecture
    assert json.loads(said["styles"]) == ["one", "two"]
    assert (said["task"], said["about"], said["licence"]) == ("style", "tiny", card.licence)
    assert [each.version for each in model.opset_import if not each.domain] == [18]
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [each.dim_param or each.dim_value for each in dims] == ["batch", 3, "height", "width"]


@pytest.mark.slow
def test_the_licence_of_a_shipped_network_is_in_the_file(tmp_path: Path) -> None:
    made = export.export_onnx("starry_night_solo", tmp_path / "n.onnx")
    said = {each.key: each.value for each in onnx.load(made.path).metadata_props}
    assert said["licence"].startswith("Apache-2.0")
    assert json.loads(said["styles"]) == ["starry_night"]
    assert str(Path.cwd()).encode() not in made.path.read_bytes()  # no path of this computer


# --- float16 and int8


@pytest.mark.slow
def test_float16_has_half_the_weights(tmp_path: Path) -> None:
    config = NetworkConfig("c3s1-32 d32 r32*2 B32 c3s1-3", norm="instance", padding="reflect")
    file = saved(tmp_path / "n.safetensors", config, "style")
    exact = export.export_onnx(str(file), tmp_path / "n.onnx")
    made = export.export_onnx(str(file), tmp_path / "half.onnx", precision="float16")
    assert made.size < 0.65 * exact.size
    assert made.slower is not None
    assert made.slower > 0
    assert min(each.decibels for each in made.parities) > 40
    onnx.checker.check_model(onnx.load(made.path))


@pytest.mark.slow
def test_int8_has_a_quarter_of_the_weights_and_takes_the_users_photos(tmp_path: Path, photograph: Image.Image) -> None:
    config = NetworkConfig("c3s1-32 r32*4 s2-3", norm="none", padding="zero", output="bicubic")
    file = saved(tmp_path / "n.safetensors", config, "upscale")
    photograph.save(tmp_path / "photo.png")
    exact = export.export_onnx(str(file), tmp_path / "n.onnx")
    photos = (str(tmp_path / "photo.png"),)
    made = export.export_onnx(str(file), tmp_path / "int8.onnx", precision="int8", calibrate=photos)
    assert made.size < 0.5 * exact.size
    assert min(each.decibels for each in made.parities[2:]) > 30
    kinds = {node.op_type for node in onnx.load(made.path).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds


# --- what cannot be done


def test_a_file_that_differs_is_refused_and_none_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_style: Path
) -> None:
    monkeypatch.setattr(export, "compare", lambda graph, model: [Parity((7, 5), 59.9, 3.0)])
    with pytest.raises(OutputError, match=r"5 x 7 px: 59.9 dB, at most 3 levels"):
        export.export_onnx(str(tiny_style), tmp_path / "n.onnx")
    assert list(tmp_path.iterdir()) == []


def test_weights_too_large_for_float16_are_refused_and_no_file_is_left(tmp_path: Path, tiny_style: Path) -> None:
    network, card = checkpoints.load(tiny_style)
    with torch.no_grad():
        network.layers[0].conv.weight.mul_(1e6)  # the norm after it divides by it again
    checkpoints.save(tmp_path / "large.safetensors", network, card)
    exact = export.export_onnx(str(tmp_path / "large.safetensors"), tmp_path / "a.onnx")
    assert min(parity.decibels for parity in exact.parities) > 60
    with pytest.raises(OutputError, match="overflows in float16"):
        export.export_onnx(str(tmp_path / "large.safetensors"), tmp_path / "b.onnx", precision="float16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "large.safetensors"]
    assert str(Parity((7, 5), -math.inf, math.inf)) == "5 x 7 px: wrong shape, or values that are not numbers"


def test_a_result_that_is_no_number_is_refused() -> None:
    with pytest.raises(OutputError):
        export.check("n", [Parity((7, 5), float("nan"), float("nan"))])


@pytest.mark.parametrize(("exit_code", "words", "parts"), [
    (1, ["wavee"], ["wavee", "did you mean wave"]),
    (1, ["no_such"], ["no_such", "starry_night", "x4_pixel"]),
    (2, ["wave", "-o", "wave.png"], ["wave.png", ".onnx"]),
    (2, ["wave", "--calibrate", "a.jpg"], ["--calibrate", "int8"]),
    (2, ["wave:0.5,mondrian:0.5"], ["blend", "--out"]),
    (2, ["wave", "--runtime", "folder"], ["--runtime", "--web"]),
    (2, ["gallery", "--web", "site", "-o", "a.onnx"], ["--web", "--out"]),
    (2, ["gallery", "--web", "site", "--precision", "int8"], ["page"]),
    (1, ["wave", "--precision", "int8", "--calibrate", "missing.jpg"], ["missing.jpg"]),
    (1, ["damaged.safetensors"], ["damaged.safetensors"]),
    (1, ["other.pth"], ["other.pth is a network of another program", "perceptual convert"]),
    (1, ["x" * 300 + ".safetensors"], ["x.safetensors"]),
    (2, ["hf://user/a:0.5,wave:0.5"], ["blend", "--out"]),
    (1, ["wave", "--web", "file"], ["Cannot write to the folder file"]),
    (1, ["wave", "-o", "file/wave.onnx"], ["file/wave.onnx"]),
    (1, ["wave", "-o", "folder.onnx"], ["folder.onnx is a folder"]),
])  # fmt: skip
def test_mistakes_give_one_sentence(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exit_code: int, words: list[str], parts: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("damaged.safetensors").write_bytes(b"no network")
    Path("file").write_bytes(b"")
    torch.save({"weight": torch.ones(1)}, "other.pth")
    Path("folder.onnx").mkdir()
    before = sorted(os.listdir())
    code, out, err = run(capsys, "export", *words)
    assert (code, out) == (exit_code, "")
    assert_one_sentence(err, *parts)
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, tiny_style: Path
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    code, _, err = run(capsys, "export", tiny_style, "-o", tmp_path / "n.onnx")
    assert code == 1
    assert_one_sentence(err, "pip install 'perceptual[export]'")
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_the_five_comparisons(capsys: Capture, tmp_path: Path, tiny_style: Path) -> None:
    code, out, err = run(capsys, "export", tiny_style, "-o", tmp_path / "n.onnx")
    assert code == 0
    assert out.startswith(str(tmp_path / "n.onnx"))
    assert err.count(" px: ") == 5
    assert err.count(" levels of 255") == 5


@pytest.mark.parametrize(
    ("network", "name"),
    [
        ("wave", "wave.onnx"),
        ("folder/mine.safetensors", "mine.onnx"),
        ("hf://user/name", "name.onnx"),
        ("hf://user/name@v1/deep/net.safetensors", "net.onnx"),
        ("a:b,c.safetensors", "a:b,c.onnx"),
    ],
)
def test_the_file_is_named_after_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if sys.platform != "win32":
        Path("a:b,c.safetensors").touch()
    elif ":" in name:
        pytest.skip("Windows allows no : in names")
    assert _target(_Export(network=network)) == Path(name)


def test_the_document_names_the_file_and_the_comparisons(capsys: Capture, tmp_path: Path, tiny_style: Path) -> None:
    code, out, _ = run(capsys, "export", tiny_style, "-o", tmp_path / "n.onnx", "--json")
    document = json.loads(out)
    assert (code, document["output"]) == (0, str(tmp_path / "n.onnx"))
    assert document["bytes"] == (tmp_path / "n.onnx").stat().st_size
    assert [(each["width"], each["height"]) for each in document["parities"]] == [(w, h) for h, w in parity.SIZES]
    assert all(each["psnr"] is None or each["psnr"] > 60 for each in document["parities"])  # None: equal
