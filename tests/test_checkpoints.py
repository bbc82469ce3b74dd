"""Checkpoints: tensors and a card, bit for bit; whatever is wrong with a file is one sentence that names it."""

from __future__ import annotations

import ast
import errno
import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch

from perceptual import checkpoints
from perceptual.apply import Stylizer
from perceptual.checkpoints import (
    Card,
    find_style,
    gallery,
    load,
    load_state,
    read_card,
    save,
    save_state,
    shipped,
)
from perceptual.checkpoints.card import CARD_KEY, FORMAT
from perceptual.checkpoints.state import STATE_KEY
from perceptual.config import NetworkConfig, to_dict
from perceptual.errors import CheckpointError, OutputError
from perceptual.networks import TransformationNetwork
from perceptual.tasks.style_recipes import StyleRecipe

TINY = NetworkConfig(architecture="c3s1-4 d6 r6 U4 c3s1-3", norm="instance", padding="reflect")
CARD = Card(
    task="style",
    network=TINY,
    styles=("große_welle", "神奈川沖浪裏"),
    about='Hokusai: "The Great Wave" 🌊\nsecond line',
    steps=40_000,
    recipe="paper",
    settings=to_dict(StyleRecipe()),
    loss_networks={"vgg16": "ab" * 32},
    references={"style:vgg16:relu1_2": [0.1, 1e-30]},
    data="2 photographs of Zoë's",
    licence="CC BY 4.0",
)


def make(config: NetworkConfig = TINY) -> TransformationNetwork:
    """A network whose every tensor holds random numbers, running statistics included."""
    torch.manual_seed(0)
    network = TransformationNetwork(config)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.01, 1)
        else:
            tensor.fill_(7)
    return network


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save(tmp_path / "wave.safetensors", make(), CARD)
    return tmp_path / "wave.safetensors"


def rewrite(
    path: Path,
    *,
    metadata: Callable[[dict[str, str]], None] = lambda metadata: None,
    card: Callable[[dict[str, Any]], None] = lambda card: None,
    tensors: Callable[[dict[str, torch.Tensor]], None] = lambda tensors: None,
) -> None:
    """Edit parts of a checkpoint in place, by safetensors alone."""
    with safetensors.safe_open(str(path), "pt") as file:
        text = dict(file.metadata())
    state, values = safetensors.torch.load_file(path), json.loads(text[CARD_KEY])
    card(values)
    text[CARD_KEY] = json.dumps(values)
    metadata(text)
    tensors(state)
    path.write_bytes(safetensors.torch.save(state, text))


def assert_refused(path: Path, *readers: Callable[[Path], object], says: str | None = None) -> None:
    """Every reader refuses the file by one sentence that has its path."""
    for reader in readers:
        with pytest.raises(CheckpointError, match=says) as caught:
            reader(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        replace(TINY, norm="batch", padding="reflect-start", tanh_scale=150.0),
        replace(TINY, norm="conditional_instance", styles=3),
    ],
    ids=lambda config: config.norm,
)
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
def test_a_network_comes_back_bit_for_bit(tmp_path: Path, config: NetworkConfig, memory: torch.memory_format) -> None:
    network = make(config).to(memory_format=memory)
    save(tmp_path / "x.safetensors", network, replace(CARD, network=config))
    back, card = load(tmp_path / "x.safetensors")
    assert (card.network, back.config, back.training) == (config, config, False)
    ours, theirs = network.state_dict(), back.state_dict()
    assert list(ours) == list(theirs)
    for key, tensor in ours.items():
        assert torch.equal(tensor, theirs[key])
        assert tensor.dtype == theirs[key].dtype
    x = torch.rand(1, 3, 13, 10)
    assert torch.allclose(network.eval()(x), back(x), atol=1e-6)


def test_half_is_half_the_size_and_within_a_thousandth(tmp_path: Path) -> None:
    config = NetworkConfig(architecture="c9s1-16 r16*3 c9s1-3", norm="batch", padding="zero")
    network, card = make(config), replace(CARD, network=config)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    save(tmp_path / "full", network, card)
    save(tmp_path / "half", network, card, half=True)
    assert (tmp_path / "half").stat().st_size < 0.55 * (tmp_path / "full").stat().st_size
    for key, tensor in load(tmp_path / "half")[0].state_dict().items():
        assert tensor.dtype == before[key].dtype
        assert torch.allclose(tensor, before[key], rtol=0, atol=1e-3)
        assert torch.equal(network.state_dict()[key], before[key])  # saving changes nothing


def test_saving_leaves_a_network_in_training_mode(tmp_path: Path) -> None:
    network = make().train()
    save(tmp_path / "x", network, CARD)
    assert network.training


def test_the_card_survives_whole_and_can_be_read_by_eye(path: Path) -> None:
    assert read_card(path) == load(path)[1] == CARD
    assert "神奈川沖浪裏".encode() in path.read_bytes()


def test_a_card_with_nothing_but_what_it_must_have_survives(tmp_path: Path) -> None:
    save(tmp_path / "x", make(), Card(task="style", network=TINY))
    assert read_card(tmp_path / "x") == Card(task="style", network=TINY)


def test_a_card_is_read_without_the_tensors(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("the tensors were read")

    monkeypatch.setattr(safetensors.torch, "load", refuse)
    monkeypatch.setattr(safetensors.torch, "load_file", refuse)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert read_card(path) == CARD


def test_a_card_of_a_later_minor_version_is_read_without_what_is_new(path: Path) -> None:
    rewrite(path, card=lambda card: card.update(mood="melancholy"))
    assert load(path)[1] == CARD


def test_a_network_for_another_task_is_refused(path: Path) -> None:
    assert load(path, task="style")[1].task == "style"
    assert_refused(path, lambda p: load(p, task="upscale"), says="for 'style', not for upscale")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.safetensors", tmp_path, tmp_path / ("x" * 300)):
        assert_refused(path, load, read_card, load_state)


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"plain text, and no tensors at all", b"\x89PNG\r\n\x1a\n" + bytes(99), b"\xff" * 64, bytes(64)],
    ids=["empty", "one byte", "text", "picture", "huge header", "empty header"],
)
def test_what_is_not_safetensors_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(data)
    assert_refused(tmp_path / "x.safetensors", load, read_card, load_state, says="damaged or not a safetensors file")


@pytest.mark.parametrize("share", [0.001, 0.01, 0.2, 0.5, 0.9, 0.9999])
def test_a_checkpoint_cut_short_is_refused(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert_refused(path, load, read_card, says="damaged")


def test_a_checkpoint_with_something_after_it_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")
    assert_refused(path, load, read_card, says="damaged")


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("exploded"),)


def test_a_pickle_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.pth").write_bytes(pickle.dumps(Bomb()))
    torch.save({"x": Bomb()}, "b.pth")
    for path in (Path("a.pth"), Path("b.pth")):
        assert_refused(path, load, says="wants to run code" if path.name == "b.pth" else "is damaged")
        assert_refused(path, read_card, load_state, says="a checkpoint of another program")
    assert not Path("exploded").exists()


def test_no_pickle_comes_near_a_checkpoint() -> None:
    tree = ast.parse(Path(checkpoints.__file__).read_text(encoding="utf-8"))
    names = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Name | ast.alias)}
    assert names.isdisjoint({"torch.load", "torch.save", "pickle", "eval", "exec"})


def test_tensors_without_a_card_are_refused(tmp_path: Path) -> None:
    for name, metadata in (("bare", None), ("other", {"format": "pt"})):
        (tmp_path / name).write_bytes(safetensors.torch.save({"x": torch.ones(1)}, metadata))
        assert_refused(tmp_path / name, load, read_card, says="no card")
        assert_refused(tmp_path / name, load_state, says="not the state of a training run")


def test_a_checkpoint_is_not_a_state_nor_a_state_a_checkpoint(path: Path, tmp_path: Path) -> None:
    save_state(tmp_path / "x.state", {"x": torch.ones(1)}, {})
    assert_refused(path, load_state, says="not the state of a training run")
    assert_refused(tmp_path / "x.state", load, read_card, says="no card")


def test_a_card_of_a_newer_format_asks_for_an_upgrade(path: Path) -> None:
    rewrite(path, card=lambda card: card.update(format=FORMAT + 1, network={"what": "we cannot know"}))
    assert_refused(path, load, read_card, says=f"format {FORMAT + 1}.*upgrade")


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", "3", '"card"', "{}", '{"format": "two"}', pytest.param("[" * 100_000, id="deep")]
)
def test_a_card_that_is_no_card_is_refused(path: Path, text: str) -> None:
    rewrite(path, metadata=lambda metadata: metadata.update({CARD_KEY: text}))
    assert_refused(path, load, read_card, says="card that cannot be read")


@pytest.mark.parametrize(
    "network",
    [
        {"colour": 1},
        {"norm": "layer"},
        {"norm": ["batch"]},
        {"styles": 0},
        {"styles": "two"},
        {"tanh_scale": None},
        {"architecture": "hello"},
        {"architecture": "d8 c3s1-3"},
        {"architecture": 5},
        {"styles": 1.5, "norm": "conditional_instance"},
    ],
    ids=str,
)
def test_a_card_with_a_network_that_cannot_be_is_refused(path: Path, network: dict[str, Any]) -> None:
    """By `load` always; `read_card` may leave the architecture alone."""
    rewrite(path, card=lambda card: card["network"].update(network))
    assert_refused(path, load)


@pytest.mark.parametrize("network", [None, 5, "c3s1-3", [], {"colour": 1}], ids=str)
def test_read_card_refuses_settings_of_a_network_that_are_none(path: Path, network: object) -> None:
    rewrite(path, card=lambda card: card.update(network=network))
    assert_refused(path, load, read_card, says="card that cannot be read")


@pytest.mark.parametrize(
    "edit",
    [
        lambda tensors: tensors.pop("layers.0.conv.weight"),
        lambda tensors: tensors.update(extra=torch.ones(1)),
        lambda tensors: tensors.update({"layers.0.conv.bias": torch.ones(5)}),
        lambda tensors: tensors.clear(),
    ],
    ids=["one missing", "one too many", "another shape", "none"],
)
def test_tensors_that_do_not_fit_the_card_are_refused(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    rewrite(path, tensors=edit)
    assert read_card(path) == CARD
    assert_refused(path, load, says="does not contain the network that its card describes")


def test_a_state_comes_back_bit_for_bit_with_its_info(tmp_path: Path) -> None:
    tensors = {
        "network.a": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "optimizer.0.step": torch.tensor(7.0),
        "optimizer.0.exp_avg": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45]),
        "half": torch.rand(3).half(),
        "count": torch.tensor([2**62]),
        "none": torch.empty(0),
    }
    tensors["tied"] = tensors["half"]
    info = {"step": 40_000, "scaler": None, "unreadable": ["caf\udce9.jpg", "Zoë.png"], "identity": {"a": [1.5, "x"]}}
    save_state(tmp_path / "x.state", tensors, info)
    back, back_info = load_state(tmp_path / "x.state")
    assert back_info == info
    assert back.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert (back[key].dtype, back[key].shape) == (tensor.dtype, tensor.shape)
        assert back[key].numpy().tobytes() == tensor.contiguous().numpy().tobytes()


@pytest.mark.parametrize("text", ["", "{", "null", "[]"])
def test_a_state_whose_info_is_damaged_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.state").write_bytes(safetensors.torch.save({"x": torch.ones(1)}, {STATE_KEY: text}))
    assert_refused(tmp_path / "x.state", load_state)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_a_state_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "x.state"
    save_state(path, {"x": torch.rand(100)}, {"step": 1})
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert_refused(path, load_state, says="damaged: delete it and train again")


@pytest.mark.skipif(not hasattr(os, "seteuid") or os.geteuid() != 0, reason="only root can become another user")
def test_a_file_that_may_not_be_read_is_not_called_damaged(path: Path) -> None:
    state = path.with_name("x.state")
    save_state(state, {"x": torch.rand(3)}, {"step": 1})
    try:
        for each in (path, state):
            each.chmod(0)
        for folder in path.parents[:-1]:
            if folder != Path("/tmp"):
                folder.chmod(folder.stat().st_mode | 0o055)
        os.seteuid(65534)
        assert_refused(path, load, read_card, says=r"cannot be read \(permission denied\): change its permissions")
        assert_refused(state, load_state, says=r"cannot be read \(permission denied\): change its permissions")
    finally:
        os.seteuid(0)


def test_a_name_that_is_not_utf8_is_not_called_damaged(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    save_state(folder / "x.state", {"x": torch.rand(3)}, {"step": 1})
    with pytest.raises(CheckpointError, match="a name that is not UTF-8: rename it, or its folder"):
        load_state(folder / "x.state")
    config = NetworkConfig("c3s1-3", norm="none", padding="zero")
    save(tmp_path / "a.safetensors", TransformationNetwork(config), Card("style", config, about="from caf\udce9.jpg"))
    assert read_card(tmp_path / "a.safetensors").about == "from caf?.jpg"


@pytest.mark.parametrize("place", ["fsync", "replace"])
def test_a_save_that_fails_keeps_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = path.read_bytes()
    monkeypatch.setattr(os, place, refuse)
    with pytest.raises(OutputError, match="the disk is full"):
        save(path, make(), replace(CARD, steps=1))
    with pytest.raises(OutputError, match="the disk is full"):
        save_state(path, {"x": torch.ones(1)}, {})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


# --- styles for pictures and for video


def style_file(path: Path, *styles: str, temporal: float | None) -> Path:
    """A network of some styles; `temporal`: the weight of its temporal term, None for no such term."""
    config = replace(TINY, norm="conditional_instance", styles=len(styles))
    save(path, make(config), Card("style", config, styles, weights={"temporal": temporal} if temporal else {}))
    return path


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Shipped networks: an old one of three styles, one of three for video, and one of a single style."""
    files = {
        "gallery": style_file(tmp_path / "gallery.safetensors", "wave", "udnie", "muse", temporal=None),
        "steady": style_file(tmp_path / "steady.safetensors", "wave", "muse", "rain", temporal=0.5),
        "wave_solo": style_file(tmp_path / "wave_solo.safetensors", "wave", temporal=0.0),
    }
    monkeypatch.setattr(shipped, "networks", lambda task: files if task == "style" else {})
    return files


def test_pictures_get_the_network_that_was_not_trained_for_video(shelf: dict[str, Path]) -> None:
    plain, steady = shelf["gallery"], shelf["steady"]
    assert gallery() == {"wave": plain, "udnie": plain, "muse": plain, "rain": steady}
    assert gallery(video=False) == gallery()


def test_films_get_the_network_that_was_trained_for_video_where_there_is_one(shelf: dict[str, Path]) -> None:
    plain, steady = shelf["gallery"], shelf["steady"]
    assert gallery(video=True) == {"wave": steady, "muse": steady, "rain": steady, "udnie": plain}


@pytest.mark.parametrize("order", [1, -1])
def test_the_name_of_a_file_does_not_decide_what_it_is_for(
    shelf: dict[str, Path], monkeypatch: pytest.MonkeyPatch, order: int
) -> None:
    turned = dict(list(shelf.items())[::order])
    monkeypatch.setattr(shipped, "networks", lambda task: turned)
    assert gallery(video=True)["wave"] == shelf["steady"]
    assert gallery()["wave"] in (shelf["gallery"], shelf["wave_solo"])


def test_without_a_network_for_video_films_get_what_pictures_get(
    shelf: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = {name: path for name, path in shelf.items() if name != "steady"}
    monkeypatch.setattr(shipped, "networks", lambda task: rest)
    assert gallery(video=True) == gallery() == dict.fromkeys(("wave", "udnie", "muse"), shelf["gallery"])


@pytest.mark.parametrize("video", [False, True])
def test_a_style_is_found_by_name_for_pictures_and_for_films(shelf: dict[str, Path], video: bool) -> None:
    assert find_style("wave", video=video) == (shelf["steady" if video else "gallery"], "wave")
    assert find_style("udnie", video=video) == (shelf["gallery"], "udnie")
    assert find_style("rain", video=video) == (shelf["steady"], "rain")


@pytest.mark.parametrize("video", [False, True])
def test_a_network_that_is_named_itself_is_taken_whatever_it_is_for(shelf: dict[str, Path], video: bool) -> None:
    assert find_style("gallery", video=video) == (shelf["gallery"], None)
    assert find_style("steady", video=video) == (shelf["steady"], None)
    assert find_style(shelf["wave_solo"], video=video) == (shelf["wave_solo"], None)


@pytest.mark.parametrize("video", [False, True])
def test_a_style_that_is_not_there_is_refused_and_all_are_listed(shelf: dict[str, Path], video: bool) -> None:
    with pytest.raises(CheckpointError, match="There is no style 'scream'") as caught:
        find_style("scream", video=video)
    for name in ("gallery", "steady", "wave_solo", "wave", "udnie", "muse", "rain"):
        assert name in str(caught.value)


def test_a_style_is_loaded_from_the_network_for_its_use(shelf: dict[str, Path]) -> None:
    assert Stylizer.load("muse", device="cpu").styles == ("wave", "udnie", "muse")
    steady = Stylizer.load("muse", device="cpu", video=True)
    assert (steady.styles, steady.blend) == (("wave", "muse", "rain"), {1: 1.0})
    assert steady.card.weights["temporal"] == 0.5
    blend = Stylizer.load("wave:1,muse:3", device="cpu", video=True)
    assert (blend.styles, blend.blend) == (("wave", "muse", "rain"), {0: 0.25, 1: 0.75})
    assert Stylizer.load(shelf["gallery"], device="cpu", video=True).styles == ("wave", "udnie", "muse")
    assert Stylizer.load("udnie", device="cpu", video=True).styles == ("wave", "udnie", "muse")


def test_the_same_network_gives_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    """safetensors puts the metadata in an order by chance."""
    config = NetworkConfig("c3s1-4 c3s1-3", norm="none")
    torch.manual_seed(0)
    network = TransformationNetwork(config)
    for k in range(12):
        save(tmp_path / f"{k}.safetensors", network, Card(task="style", network=config, about="ünï"))
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    content = (tmp_path / "0.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    assert list(json.loads(content[8 : 8 + length])["__metadata__"]) == ["format", CARD_KEY]
    back, card = load(tmp_path / "0.safetensors")
    assert card.about == "ünï"
    for name, value in network.state_dict().items():
        assert torch.equal(back.state_dict()[name], value)
