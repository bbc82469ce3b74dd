"""Cards, weights, states and logs of wrong types: each is refused with one sentence, or read as what it is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from test_train import CONFIG, make_task, photographs, train  # noqa: F401 (a fixture)

from perceptual import checkpoints
from perceptual.apply import Stylizer
from perceptual.checkpoints import Card, shipped
from perceptual.checkpoints.card import CARD_KEY
from perceptual.checkpoints.state import STATE_KEY
from perceptual.config import NetworkConfig, to_dict
from perceptual.data import Photographs
from perceptual.errors import CheckpointError, ConfigError, PerceptualError, TrainingError
from perceptual.networks import TransformationNetwork
from perceptual.train import Trainer, side_path

CASES = Path(__file__).parents[2] / "shared" / "cases" / "files"
NETWORK = NetworkConfig("c3s1-4 d4 r4 u4 c3s1-3", norm="conditional_instance", padding="reflect", styles=2)
HUGE = 10**30
ANYTHING = (None, True, 5, -1, HUGE, 10**400, 1.5, float("nan"), "x", "", [], [[]], [5], ["x"], {}, {"a": []}, {"a": 5})


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound style network of two styles."""
    path = tmp_path_factory.mktemp("good") / "good.safetensors"
    torch.manual_seed(0)
    card = Card("style", NETWORK, ("one", "two"), references={"tv": [1.5]}, weights={"tv": 0.1})
    checkpoints.save(path, TransformationNetwork(NETWORK), card)
    return path


def edited(
    source: Path,
    target: Path,
    *,
    key: str = CARD_KEY,
    values: Callable[[dict[str, Any]], object] = lambda values: None,
    tensors: Callable[[dict[str, torch.Tensor]], object] = lambda tensors: None,
) -> Path:
    """A copy of a file whose JSON (a card, or a state's own) and tensors are edited by safetensors alone."""
    with safetensors.safe_open(str(source), "pt") as file:
        text = dict(file.metadata())
    told, state = json.loads(text[key]), safetensors.torch.load_file(source)
    values(told)
    tensors(state)
    text[key] = json.dumps(told)
    target.write_bytes(safetensors.torch.save(state, text))
    return target


def refusal(work: Callable[[], object], *, kind: type[PerceptualError] = CheckpointError) -> str:
    """The one sentence by which `work` is refused."""
    with pytest.raises(kind) as caught:
        work()
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert len(text) < 600
    return text


def read_or_refused(work: Callable[[], object], path: str) -> None:
    """A file is read, or refused by a sentence that has its path; nothing else may be raised."""
    try:
        work()
    except (CheckpointError, TrainingError) as error:
        text = str(error)
    else:
        text = f"{path}."
    assert path in text
    assert text.endswith(".")


def told(path: Path) -> str:
    """A card as `perceptual styles FILE` prints it."""
    return json.dumps(to_dict(checkpoints.read_card(path)))


# --- cards


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Card)])
def test_a_card_with_anything_in_any_field_is_read_or_refused(good: Path, tmp_path: Path, name: str) -> None:
    for value in ANYTHING:
        path = edited(good, tmp_path / "x.safetensors", values=lambda card, value=value: card.update({name: value}))
        read_or_refused(lambda path=path: [Stylizer.load(path, device="cpu"), told(path)], str(path))


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(NetworkConfig)])
def test_a_network_with_anything_in_any_field_is_read_or_refused(good: Path, tmp_path: Path, name: str) -> None:
    for value in ANYTHING:
        path = edited(
            good, tmp_path / "x.safetensors", values=lambda card, value=value: card["network"].update({name: value})
        )
        read_or_refused(lambda path=path: Stylizer.load(path, device="cpu"), str(path))


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("styles", 5, "styles is 5; it must be a list"),
        ("styles", [[]], r"styles is \[\]; it must be text"),
        ("styles", HUGE, "styles is 1000000000000000000000000000000; it must be a list"),
        ("titles", {"one": 5}, "titles is 5; it must be text"),
        ("titles", [], "titles is .*table of names and values"),
        ("about", ["x"], "about is .*it must be text"),
        ("steps", -1, "steps is -1; it must be a whole number from 0 to"),
        ("steps", 1.5, "steps is 1.5"),
        ("steps", True, "steps is True"),
        ("task", 5, "task is 5; it must be text"),
        ("references", {"tv": 5}, "references is 5; it must be a list"),
        ("references", {"tv": [float("nan")]}, "references is nan; it must be a finite number"),
        ("weights", {"tv": "heavy"}, "weights is 'heavy'"),
        ("settings", 5, "settings is 5"),
    ],
)
def test_a_field_of_the_wrong_type_is_named(good: Path, tmp_path: Path, name: str, value: Any, says: str) -> None:
    path = edited(good, tmp_path / "x.safetensors", values=lambda card: card.update({name: value}))
    with pytest.raises(CheckpointError, match=says):
        checkpoints.load(path)
    assert "card that cannot be read" in refusal(lambda: checkpoints.read_card(path))


def test_what_a_later_version_adds_to_a_card_is_passed_over(good: Path, tmp_path: Path) -> None:
    path = edited(good, tmp_path / "x.safetensors", values=lambda card: card.update(mood=["calm", 5]))
    assert checkpoints.read_card(path) == checkpoints.read_card(good)


def test_every_shipped_card_is_whole() -> None:
    files = [*shipped.networks("style").values(), *shipped.networks("upscale").values()]
    assert len(files) > 5
    for path in files:
        network, card = checkpoints.load(path)
        assert card.network == network.config


def test_joined_networks_hold_as_many_styles_as_their_cards_name(good: Path) -> None:
    network, card = checkpoints.load(good)
    short = dataclasses.replace(card, styles=("one",))
    said = refusal(lambda: checkpoints.join([(network, short), (network, card)]), kind=ConfigError)
    assert "names 1 styles, but its network has 2" in said


def test_a_style_keeps_the_size_of_a_picture(tmp_path: Path) -> None:
    config = NetworkConfig("c3s1-4 c3s1-3", norm="instance", padding="reflect", enlarge=2)
    path = tmp_path / "x.safetensors"
    checkpoints.save(path, TransformationNetwork(config), Card("style", config))
    assert "enlarges images 2 times" in refusal(lambda: Stylizer.load(path))
    checkpoints.save(path, TransformationNetwork(config), Card("upscale", config))
    assert checkpoints.load(path)[0].scale == 2


# --- weights


@pytest.mark.parametrize("dtype", [torch.complex64, torch.bool, torch.int64, torch.uint8, torch.float8_e5m2])
def test_weights_that_are_no_weights_are_refused(good: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    def to_dtype(state: dict[str, torch.Tensor]) -> None:
        state["layers.0.conv.weight"] = state["layers.0.conv.weight"].to(dtype)

    path = edited(good, tmp_path / "x.safetensors", tensors=to_dtype)
    assert "layers.0.conv.weight" in refusal(lambda: checkpoints.load(path))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_weights_of_any_real_type_are_read_in_float32(good: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    wanted = safetensors.torch.load_file(good)["layers.0.conv.weight"].to(dtype).float()
    path = edited(
        good,
        tmp_path / "x.safetensors",
        tensors=lambda state: state.update({name: value.to(dtype) for name, value in state.items()}),
    )
    read = checkpoints.load(path)[0].state_dict()["layers.0.conv.weight"]
    assert read.dtype == torch.float32
    assert torch.equal(read, wanted)


@pytest.mark.parametrize(
    ("architecture", "says"),
    [
        ("c3s1-16000 c3s1-16000 c3s1-3", "16000 filters; 4,096 is the most"),
        ("c3s1-4096 r4096*999 c3s1-3", "more than 200 layers"),
        ("c3s1-4096 r4096*99 c3s1-3", "weights; 100,000,000 are the most"),
        ("c99s1-4 c3s1-3", "99 as its kernel; 31 is the most"),
        ("c3s99-4 c3s1-3", "99 as its stride; 8 is the most"),
        ("c3s1-4 s99-3", "99 times a side; 16 is the most"),
        ("c3s1-4 " + "u4 " * 7 + "c3s1-3", "enlarges by more than 64"),
        ("d4 " * 13 + "u4 " * 13 + "c3s1-3", "halves too often"),
        ("c3s1-" + "9" * 5000, "is not a layer"),
        ("c3s1-4 " * 100_000, "more than 200 layers"),
    ],
    ids=range(10),
)
def test_a_small_file_cannot_ask_for_a_huge_network(good: Path, tmp_path: Path, architecture: str, says: str) -> None:
    config = NetworkConfig(architecture, norm="none", padding="zero")
    assert says in refusal(lambda: TransformationNetwork(config), kind=ConfigError)
    path = edited(
        good, tmp_path / "x.safetensors", values=lambda card: card["network"].update(architecture=architecture)
    )
    assert says in refusal(lambda: checkpoints.load(path))


def test_shapes_are_compared_before_weights_take_memory(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """256 MB of weights are told by a card, and the file holds 5 kB."""

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("the weights were read, or made")

    monkeypatch.setattr(safetensors.torch, "load", refuse)
    monkeypatch.setattr(TransformationNetwork, "to_empty", refuse)
    path = edited(
        good,
        tmp_path / "x.safetensors",
        values=lambda card: card["network"].update(architecture="c3s1-512 r512*13 c3s1-3"),
    )
    assert "does not contain the network that its card describes" in refusal(lambda: checkpoints.load(path))


# --- states


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> Path:
    """The checkpoint of a run that stopped after 3 of 6 steps, with its state."""
    out = tmp_path_factory.mktemp("stopped") / "net.safetensors"
    train(out, photographs, stop_at=3)
    return out


def resume(folder: Path, stopped: Path, **edits: Callable[[dict[str, Any]], object]) -> Trainer:
    """A trainer after `begin` with an edited copy of the state, in a folder of its own."""
    out = folder / "net.safetensors"
    edited(side_path(stopped, ".state"), side_path(out, ".state"), key=STATE_KEY, **edits)
    trainer = Trainer(make_task(), CONFIG, out)
    trainer.begin(resume=True)
    return trainer


def test_a_state_as_it_was_left_is_taken(tmp_path: Path, stopped: Path) -> None:
    assert resume(tmp_path, stopped, values=lambda state: state.update(mood="calm")).step == 3


@pytest.mark.parametrize("name", ["step", "identity", "references", "unreadable", "scaler"])
def test_a_state_with_anything_in_any_field_is_taken_or_refused(tmp_path: Path, stopped: Path, name: str) -> None:
    for value in ANYTHING:
        edit = {"values": lambda state, value=value: state.update({name: value})}
        read_or_refused(lambda edit=edit: resume(tmp_path, stopped, **edit), "net.state")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("step", [], r"step is \[\]; it must be a whole number from 0 to 100,000,000"),
        ("step", -1, "step is -1"),
        ("step", 3.0, "step is 3.0"),
        ("step", True, "step is True"),
        ("step", 7, "step 7 of 6"),
        ("references", {"pixel": [1.0, 2.0], "tv": [1.0]}, "reference of 'pixel' must be 1 finite"),
        ("references", {"pixel": "1", "tv": [1.0]}, "references is '1'; it must be a list"),
        ("unreadable", {}, "unreadable is .*it must be a list"),
        ("identity", [], "identity is .*table"),
    ],
)
def test_a_state_of_wrong_values_is_refused_by_name(
    tmp_path: Path, stopped: Path, name: str, value: Any, says: str
) -> None:
    with pytest.raises(CheckpointError, match=says):
        resume(tmp_path, stopped, values=lambda state: state.update({name: value}))


def tensors_of(stopped: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(side_path(stopped, ".state"))


def test_a_state_that_lacks_any_tensor_is_refused(tmp_path: Path, stopped: Path) -> None:
    for name in tensors_of(stopped):
        said = refusal(lambda name=name: resume(tmp_path, stopped, tensors=lambda state: state.pop(name)))
        assert name in said


@pytest.mark.parametrize("prefix", ["network.", "optimizer."])
def test_a_state_without_its_network_or_optimiser_is_refused(tmp_path: Path, stopped: Path, prefix: str) -> None:
    def drop(state: dict[str, torch.Tensor]) -> None:
        for name in [name for name in state if name.startswith(prefix)]:
            del state[name]

    assert f"{prefix}" in refusal(lambda: resume(tmp_path, stopped, tensors=drop))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda value: value.flatten()[:-1] if value.numel() > 1 else value[None],
        lambda value: value.to(torch.complex64),
        lambda value: value.to(torch.int64),
        lambda value: value * float("nan"),
        lambda value: value + float("inf"),
    ],
    ids=["shape", "complex", "whole", "nan", "infinite"],
)
def test_a_state_with_a_wrong_tensor_is_refused_and_changes_nothing(
    tmp_path: Path, stopped: Path, wrong: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    names = ("network.layers.0.conv.weight", "optimizer.0.exp_avg", "optimizer.1.exp_avg_sq", "optimizer.2.step")
    for name in names:
        out = tmp_path / "net.safetensors"
        edited(
            side_path(stopped, ".state"),
            side_path(out, ".state"),
            key=STATE_KEY,
            tensors=lambda state, name=name: state.update({name: wrong(state[name])}),
        )
        trainer = Trainer(make_task(), CONFIG, out)
        before = {key: value.clone() for key, value in trainer.task.network.state_dict().items()}
        assert name in refusal(lambda trainer=trainer: trainer.begin(resume=True))
        assert all(torch.equal(value, before[key]) for key, value in trainer.task.network.state_dict().items())


def test_an_optimiser_of_other_parameters_is_refused(tmp_path: Path, stopped: Path) -> None:
    for name in ("optimizer.999.step", "optimizer.x.step", "optimizer.", "network.more"):
        said = refusal(
            lambda name=name: resume(tmp_path, stopped, tensors=lambda state: state.update({name: torch.ones(())}))
        )
        assert name in said


@pytest.mark.parametrize(
    "line", ["[]", "5", "null", '"x"', "{}", '{"step": null}', '{"step": []}', "[" * 100_000, "\x00", "\udcff"]
)
def test_a_line_of_the_log_that_is_none_is_dropped(tmp_path: Path, stopped: Path, line: str) -> None:
    log = tmp_path / "net.jsonl"
    log.write_bytes(f'{{"step": 1}}\n{line}\n{{"step": 4}}\n'.encode("utf-8", "surrogateescape"))
    resume(tmp_path, stopped)
    assert log.read_text() == '{"step": 1}\n'


def test_weights_that_would_not_be_finite_are_not_taken(tmp_path: Path, photographs: Path) -> None:
    """The learning rate is beyond what the settings take; the gradient and the losses are finite."""
    train(tmp_path / "good.safetensors", photographs, stop_at=2)
    out = tmp_path / "net.safetensors"
    trainer = Trainer(make_task(), CONFIG, out)
    step = trainer.optimizer.step

    def jump() -> None:
        step()
        if trainer.step == 2:
            next(trainer.task.network.parameters()).data[0, 0] = float("inf")

    trainer.optimizer.step = jump
    with pytest.raises(TrainingError, match=r"stopped at step 3: a weight is not a finite number.*of step 2 are in"):
        list(trainer.run(Photographs(photographs, 32)))
    wanted = safetensors.torch.load_file(tmp_path / "good.safetensors")
    for name, value in safetensors.torch.load_file(out).items():
        assert torch.equal(value, wanted[name])


# --- the cases of the issue


@pytest.mark.shared
@pytest.mark.skipif(not CASES.is_dir(), reason="shared/cases is not part of this repository")
def test_the_cases_that_broke_are_refused() -> None:
    for path in [*CASES.glob("ckpt_*.safetensors"), *CASES.glob("join_*.safetensors")]:
        refusal(lambda path=path: Stylizer.load(path, device="cpu"))
    for path in CASES.glob("state_10.state"):
        from perceptual.train.state import read_state

        refusal(lambda path=path: read_state(path))
