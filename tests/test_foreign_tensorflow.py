"""Checkpoints of TensorFlow: the tensors are those that were written, and the painting is that of the other code."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest
import torch
from tensorflow_files import (
    field,
    lengstrom,
    lengstrom_state,
    magenta,
    magenta_state,
    number,
    table,
    version1,
    version2,
)
from test_foreign_styles import photo, refusal
from torch import Tensor

from perceptual import Stylizer, checkpoints, cli
from perceptual.checkpoints.foreign.tensorflow import read_tensorflow
from perceptual.errors import CheckpointError
from perceptual.fast import supports

pytestmark = pytest.mark.usefixtures("seed")
GOLDEN = Path(__file__).parent / "golden"
SIZES = [(64, 48), (61, 50), (42, 63), (43, 90), (12, 200)]


def saved(path: Path, state: dict[str, Tensor]) -> Path:
    """Write version 2 if the name of the file ends in .index, else version 1."""
    if path.suffix == ".index":
        return version2(path, state)
    path.write_bytes(version1(state))
    return path


@pytest.mark.parametrize("name", ["tensorflow_v1.ckpt", "tensorflow_v2.ckpt.index"])
def test_files_that_tensorflow_wrote_are_read(name: str) -> None:
    """TensorFlow 2.21 wrote these files: Variable_k holds k, k + 1/8 ... k + 5/8."""
    found = read_tensorflow(GOLDEN / name)
    expected = {f"Variable_{k}" if k else "Variable": k + torch.arange(6).view(2, 3) / 8 for k in range(20)}
    expected |= {"a/b/weights": torch.full((1, 1, 1, 1), 0.5), "scalar": torch.tensor(2.5), "zeros": torch.zeros(64)}
    assert set(found) == set(expected)  # the step count is a whole number, and is left out
    assert all(torch.equal(found[each], value) for each, value in expected.items())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ending", [".ckpt", ".ckpt.index"])
def test_a_painting_equals_that_of_fast_style_transfer(tmp_path: Path, size: tuple[int, int], ending: str) -> None:
    state, picture = lengstrom_state(), photo(*size)
    more = {"Variable/Adam": torch.zeros(3), "beta1_power": torch.tensor(0.9)}  # of the optimizer
    stylizer = Stylizer.load(saved(tmp_path / f"La Muse{ending}", state | more), device="cpu")
    assert stylizer.styles == ("la_muse",)
    expected = lengstrom(state, picture)
    assert expected.std() > 10
    assert (stylizer.stylize(picture).float() - expected).abs().max() <= 1


@pytest.mark.parametrize("size", SIZES)
def test_a_painting_equals_that_of_magenta(tmp_path: Path, size: tuple[int, int]) -> None:
    state, picture = magenta_state(), photo(*size)
    stylizer = Stylizer.load(saved(tmp_path / "varied.ckpt", state), device="cpu", precision="float32")
    assert stylizer.styles == ("varied_0", "varied_1", "varied_2")
    for k, name in enumerate(stylizer.styles):
        expected = magenta(state, picture, k)
        assert expected.std() > 10
        assert (stylizer.stylize(picture, style=name).float() - expected).abs().max() <= 1


def test_fast_inference_paints_networks_of_magenta(tmp_path: Path) -> None:
    state, picture = magenta_state(2, (16, 24, 32), 3), photo(256, 192)
    stylizer = Stylizer.load(saved(tmp_path / "monet.ckpt", state), device="cpu")
    assert supports(stylizer.network)
    painted = [
        stylizer.stylize(picture, style="monet_1", precision=precision).float() for precision in ("float32", "auto")
    ]
    expected = magenta(state, picture, 1)
    assert (painted[0] - expected).abs().max() <= 1
    assert (painted[1] - expected).abs().mean() < 3


@pytest.mark.parametrize("blocks", [0, 2])
def test_the_number_of_blocks_may_differ(tmp_path: Path, blocks: int) -> None:
    state, picture = lengstrom_state((4, 6, 8), blocks), photo(40, 52)
    stylizer = Stylizer.load(saved(tmp_path / "a.ckpt", state), device="cpu")
    assert (stylizer.stylize(picture).float() - lengstrom(state, picture)).abs().max() <= 1


@pytest.mark.parametrize("made", [lengstrom_state, magenta_state])
def test_convert_writes_a_style_file_that_paints_the_same(tmp_path: Path, made: type[dict[str, Tensor]]) -> None:
    path, picture = saved(tmp_path / "wreck.ckpt", made()), photo(41, 50)
    assert cli.main(["convert", str(path)]) == 0
    first, second = (
        Stylizer.load(tmp_path / f"wreck{ending}", device="cpu").stylize(picture)
        for ending in (".ckpt", ".safetensors")
    )
    assert torch.equal(first, second)


def test_a_checkpoint_with_its_step_in_the_name_is_read(tmp_path: Path) -> None:
    """TensorFlow's Saver adds the step: model.ckpt-40000."""
    path = saved(tmp_path / "wreck.ckpt", lengstrom_state((4, 6, 8), 1))
    named = path.rename(tmp_path / "wreck.ckpt-40000")
    assert Stylizer.load(named, device="cpu").styles == ("wreck",)
    assert cli.main(["convert", str(named), "-o", str(tmp_path / "a.safetensors")]) == 0


# --- files that are refused


@pytest.mark.parametrize("ending", [".meta", ".data-00000-of-00001"])
def test_a_part_of_a_checkpoint_names_the_file_to_give(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"a.ckpt{ending}").write_bytes(b"numbers")
    (tmp_path / "a.ckpt.index").write_bytes(b"")
    assert f"give {tmp_path / 'a.ckpt.index'}" in refusal(tmp_path / f"a.ckpt{ending}")
    with pytest.raises(CheckpointError, match=r"for that checkpoint of TensorFlow give .*a\.ckpt\.index"):
        checkpoints.find_network(str(tmp_path / "a.ckpt"), task="style")


def test_a_missing_file_of_numbers_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tensorflow_v2.ckpt.index"
    shutil.copy(GOLDEN / path.name, path)
    says = "needs the file tensorflow_v2.ckpt.data-00000-of-00001 in the same folder: get that file too"
    assert says in refusal(path)


@pytest.mark.parametrize("ending", [".ckpt", ".ckpt.index"])
def test_damaged_checkpoints_are_refused(tmp_path: Path, ending: str) -> None:
    path = saved(tmp_path / f"a{ending}", lengstrom_state((4, 6, 8), 1))
    data = path.read_bytes()
    for place in range(0, len(data) - 8, max(1, len(data) // 97)):  # a byte is changed, or some are missing
        for damaged in (
            data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :],
            data[:place] + data[place + 9 :],
        ):
            path.write_bytes(damaged)
            with contextlib.suppress(CheckpointError):  # no other error; the change may also hit a weight
                checkpoints.load(path, task="style")
    path.write_bytes(data[-48:])
    assert "is damaged" in refusal(path)


def test_numbers_that_are_cut_off_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.ckpt.index", lengstrom_state())
    numbers = tmp_path / "a.ckpt.data-00000-of-00001"
    numbers.write_bytes(numbers.read_bytes()[:-4])
    assert "is damaged" in refusal(path)


def test_a_file_that_claims_more_numbers_than_it_holds_is_refused(tmp_path: Path) -> None:
    huge = field(1, 1) + field(2, field(2, field(1, 1 << 40))) + field(4, 0) + field(5, 1 << 42)
    path = tmp_path / "a.ckpt.index"
    path.with_name("a.ckpt.data-00000-of-00001").write_bytes(bytes(400))
    path.write_bytes(table({b"": field(1, 1), b"Variable": huge}))
    assert "is damaged" in refusal(path)
    same = field(1, 1) + field(2, field(2, field(1, 100))) + field(4, 0) + field(5, 400)
    path.write_bytes(table({b"": field(1, 1), **{b"name%d" % k: same for k in range(1000)}}))
    assert "is damaged" in refusal(path)


def test_a_compressed_checkpoint_says_so(tmp_path: Path) -> None:
    path = version2(tmp_path / "a.ckpt.index", {"a": torch.zeros(3)}, compressed=True)
    assert "is compressed, which cannot be read: save it by tf.train.Saver" in refusal(path)


def test_another_network_is_named_as_such(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.ckpt", {"layer/weights": torch.zeros(3, 3)})
    assert "a checkpoint of TensorFlow with a network that perceptual does not know" in refusal(path)


def test_tensors_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    good = lengstrom_state()
    for name, value in {
        "Variable": torch.zeros(3),
        "Variable_4": torch.zeros(5),
        "Variable_9": torch.zeros(3, 3),
    }.items():
        assert "does not fit" in refusal(saved(tmp_path / "a.ckpt", {**good, name: value}))
    other = magenta_state()
    del other["transformer/expand/conv3/conv/InstanceNorm/gamma"]
    assert "is missing or does not fit" in refusal(saved(tmp_path / "a.ckpt", other))


def test_numbers_of_variable_length_by_hand() -> None:
    """300 is 10 0101100 in groups of seven bits; the lowest group comes first, marked as not the last."""
    assert number(300) == bytes([0b10101100, 0b10])
