"""Style networks of other programs: the painting is that of their own code, and no code in a file is run."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from foreign import Lua, TransformerNet, fast_neural_style, lua_convolution, lua_norm, lua_painted, t7
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from perceptual import Stylizer, checkpoints, cli
from perceptual.errors import CheckpointError
from perceptual.fast import supports

Capture = pytest.CaptureFixture[str]

WRAPPINGS: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "plain": lambda state: state,
    "data parallel": lambda state: {f"module.{name}": value for name, value in state.items()},
    "training checkpoint": lambda state: {"epoch": 2, "state_dict": state},
    "float16": lambda state: {name: value.half() for name, value in state.items()},
}


def photo(height: int, width: int) -> Tensor:
    """Smooth random levels (1, 3, height, width), uint8."""
    small = torch.rand(1, 3, height // 4 + 2, width // 4 + 2)
    return (F.interpolate(small, (height, width), mode="bicubic").clamp(0, 1) * 255).byte()


def saved(path: Path, state: object, *, zipped: bool = True) -> Path:
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    return path


def worst(network: TransformerNet, stylizer: Stylizer, picture: Tensor) -> float:
    """The largest difference of any pixel from their own code, in levels."""
    return float((stylizer.stylize(picture).float() - network.painted(picture)).abs().max())


# --- pytorch/examples


@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize("size", [(64, 48), (61, 50), (35, 62), (12, 200)])
@pytest.mark.parametrize("tracked", [False, True])
def test_a_painting_equals_that_of_pytorch_examples(tmp_path: Path, size: tuple[int, int], tracked: bool) -> None:
    theirs = TransformerNet(tracked=tracked)
    state = theirs.state_dict()
    assert ("in1.running_mean" in state) == tracked
    stylizer = Stylizer.load(saved(tmp_path / "Candy.pth", state), device="cpu", precision="float32")
    assert stylizer.styles == ("candy",)
    assert worst(theirs, stylizer, photo(*size)) <= 1


@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize("size", [(256, 192), (255, 190)])
def test_a_large_painting_equals_theirs_too(tmp_path: Path, size: tuple[int, int]) -> None:
    """Fast inference paints the first size. The second is no multiple of 4, so PyTorch paints it in float32."""
    theirs, picture = TransformerNet((16, 24, 32), 3), photo(*size)
    stylizer = Stylizer.load(saved(tmp_path / "a.model", theirs.state_dict()), device="cpu", precision="float32")
    assert supports(stylizer.network)
    assert worst(theirs, stylizer, picture) <= 1
    automatic = stylizer.stylize(picture, precision="auto").float()
    assert (automatic - theirs.painted(picture)).abs().mean() < 3


@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("zipped", [True, False])
def test_every_way_of_saving_is_read(tmp_path: Path, wrapping: str, zipped: bool) -> None:
    theirs, picture = TransformerNet(), photo(32, 32)
    path = saved(tmp_path / "a.model", WRAPPINGS[wrapping](theirs.state_dict()), zipped=zipped)
    most = 4 if wrapping == "float16" else 1
    assert worst(theirs, Stylizer.load(path, device="cpu", precision="float32"), picture) <= most


@pytest.mark.usefixtures("seed")
def test_convert_writes_a_style_file_that_paints_the_same(tmp_path: Path, capsys: Capture) -> None:
    path = saved(tmp_path / "candy.pth", TransformerNet().state_dict())
    out, picture = tmp_path / "candy.safetensors", photo(40, 41)
    assert cli.main(["convert", str(path), "--licence", "CC0"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    card = checkpoints.read_card(out)
    assert (card.task, card.styles, card.licence) == ("style", ("candy",), "CC0")
    assert "pytorch/examples" in card.about
    first, second = (Stylizer.load(each, device="cpu").stylize(picture) for each in (path, out))
    assert torch.equal(first, second)
    assert cli.main(["convert", str(path)]) == 1
    assert "exists: add --overwrite" in capsys.readouterr().err
    assert cli.main(["convert", str(out), "-o", str(tmp_path / "b.safetensors")]) == 1
    assert "nothing to convert" in capsys.readouterr().err


@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_convert_does_not_replace_its_input(tmp_path: Path, capsys: Capture, more: list[str]) -> None:
    path = tmp_path / "theirs.safetensors"
    safetensors.torch.save_file(TransformerNet().state_dict(), path)
    before = path.read_bytes()
    assert cli.main(["convert", str(path), *more]) == 1
    assert "would overwrite its input" in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.usefixtures("seed")
def test_stylize_takes_the_file_itself(tmp_path: Path, photograph: Image.Image, capsys: Capture) -> None:
    photograph.save(tmp_path / "photo.png")
    path = saved(tmp_path / "candy.pth", TransformerNet().state_dict())
    out = tmp_path / "out.png"
    assert cli.main(["stylize", str(tmp_path / "photo.png"), "--style", str(path), "-o", str(out)]) == 0
    with Image.open(out) as painting:
        assert painting.size == photograph.size
    assert cli.main(["styles", str(path)]) == 1
    assert "perceptual convert" in capsys.readouterr().err


# --- jcjohnson/fast-neural-style


def lua_saved(path: Path, model: object, **options: object) -> Path:
    path.write_bytes(t7({"opt": {"preprocessing": "vgg", "arch": "c9s1-6", **options}, "model": model, "history": [1]}))
    return path


@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("size", [(64, 48), (61, 50), (43, 90)])
def test_a_painting_equals_that_of_torch7(tmp_path: Path, norm: str, size: tuple[int, int]) -> None:
    theirs, picture = fast_neural_style(norm), photo(*size)
    stylizer = Stylizer.load(lua_saved(tmp_path / "wave.t7", theirs), device="cpu")
    assert stylizer.network.config.norm == norm
    painted = stylizer.stylize(picture).float()
    assert painted.std() > 10
    assert (painted - lua_painted(theirs, picture)).abs().max() <= 1


@pytest.mark.usefixtures("seed")
def test_convert_takes_torch7_files(tmp_path: Path) -> None:
    path, picture = lua_saved(tmp_path / "wave.t7", fast_neural_style()), photo(40, 41)
    assert cli.main(["convert", str(path)]) == 0
    first, second = (
        Stylizer.load(tmp_path / f"wave{ending}", device="cpu").stylize(picture) for ending in (".t7", ".safetensors")
    )
    assert torch.equal(first, second)


def test_damaged_torch7_files_are_refused(tmp_path: Path) -> None:
    path = lua_saved(tmp_path / "a.t7", fast_neural_style())
    data = path.read_bytes()
    for length in (0, 3, 100, len(data) // 2):
        path.write_bytes(data[:length])
        assert "is damaged, incomplete, or no binary Torch7 file" in refusal(path)
    path.write_bytes(t7({"a": "text"}, functions=True))
    assert "contains a Lua function, which is code" in refusal(path)
    path.write_bytes(data.replace(b"torch.FloatTensor\x04\0\0\0\x06\0\0\0", b"torch.FloatTensor\x04\0\0\0\0\0\0\x7f"))
    assert "is damaged" in refusal(path)
    nested: list[object] = []
    for _ in range(300):
        nested = [nested]
    path.write_bytes(t7(nested))
    assert "is damaged" in refusal(path)


def test_torch7_models_that_are_not_supported_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.t7"
    assert "preprocessing is 'resnet'" in refusal(lua_saved(path, fast_neural_style(), preprocessing="resnet"))
    assert "not a model of fast-neural-style" in refusal(lua_saved(path, "text"))
    model = fast_neural_style()
    layers = model.fields["modules"]
    for index, module, says in (
        (1, Lua("nn.SpatialDilatedConvolution"), "a layer nn.SpatialDilatedConvolution"),
        (1, lua_convolution(3, 6, 9, pad=0), "padding is not reflect-start"),
        (2, lua_norm(6, "batch"), "not those of fast-neural-style"),
        (1, lua_convolution(3, 7, 9, pad=4), "not those of fast-neural-style"),
        (2, Lua("nn.InstanceNormalization", eps=1e-3), "epsilon"),
        (0, Lua("nn.SpatialReflectionPadding", pad_l=3), "pads 3 px at the start, but its blocks take 16"),
    ):
        changed = Lua("nn.Sequential", modules=[*layers[:index], module, *layers[index + 1 :]])
        assert says in refusal(lua_saved(path, changed))


# --- files that are refused


class Bomb:
    """A pickle of it runs a command when Python's own reader opens it."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("exploded",)


def refusal(path: Path) -> str:
    """The one sentence that refuses a file."""
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(path, task="style")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("way", ["zip", "legacy", "bare"])
def test_a_pickle_that_wants_to_run_code_is_refused_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pth"
    if way == "bare":
        path.write_bytes(pickle.dumps(Bomb(), 2))
    else:
        saved(path, {**TransformerNet().state_dict(), "x": Bomb()}, zipped=way == "zip")
    assert "wants to run code (" in refusal(path)
    assert "mkdir" in refusal(path)
    assert not Path("exploded").exists()


def test_a_pickled_module_is_refused_and_says_what_to_save(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", TransformerNet())
    assert "wants to run code (foreign.TransformerNet)" in refusal(path)
    assert "torch.save(model.state_dict(), ...)" in refusal(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_file_is_refused(tmp_path: Path, zipped: bool) -> None:
    path = saved(tmp_path / "a.pth", TransformerNet().state_dict(), zipped=zipped)
    data = path.read_bytes()
    for length in (0, 1, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        assert "damaged" in refusal(path) or (length == len(data) - 1 and not zipped)


def test_wrong_shapes_and_missing_tensors_are_refused(tmp_path: Path) -> None:
    good = TransformerNet().state_dict()
    for name, value in {
        "res1.conv1.conv2d.weight": torch.zeros(3, 3, 3, 3),
        "conv2.conv2d.weight": torch.zeros(2),
        "conv1.conv2d.weight": torch.zeros(()),
        "conv1.conv2d.bias": torch.zeros(9),
        "deconv3.conv2d.weight": torch.zeros(4, 8, 9, 9),
        "in3.weight": torch.zeros(16, 2),
    }.items():
        assert "cannot be used" in refusal(saved(tmp_path / "a.pth", {**good, name: value}))
    del good["in4.bias"]
    assert "lacks in4.bias" in refusal(saved(tmp_path / "a.pth", good))
    assert "no named tensors" in refusal(saved(tmp_path / "a.pth", [1, 2]))
    assert "does not know" in refusal(saved(tmp_path / "a.pth", {"layer.weight": torch.zeros(3)}))
    huge = {**TransformerNet().state_dict(), "extra": torch.zeros(1).expand(10**9)}
    assert "claims 1,000," in refusal(saved(tmp_path / "a.pth", huge))


def test_a_zip_that_unpacks_to_more_than_its_size_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(1_000_000)}, buffer)
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(buffer) as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as small:
        for entry in whole.infolist():
            small.writestr(entry.filename, whole.read(entry))
    assert "damaged" in refusal(path)


def test_torchscript_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a/constants.pkl", "a/data.pkl"):
            archive.writestr(name, pickle.dumps(1, 2))
        archive.writestr("a/version", "3\n")
    assert "is a TorchScript program, which is code" in refusal(path)


@pytest.mark.parametrize("ending", [".onnx", ".h5", ".npz"])
def test_a_format_that_cannot_be_read_is_named(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(b"anything")
    assert "in a format that perceptual cannot read: it reads style networks of pytorch/examples" in refusal(path)
