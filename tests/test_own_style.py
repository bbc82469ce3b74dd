"""A new style for a trained network: gamma and beta alone, the small file that they make, and what it needs."""

import itertools
import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from perceptual import checkpoints, images
from perceptual.apply import Stylizer
from perceptual.checkpoints import Card, body_digest, shipped
from perceptual.config import LossConfig, NetworkConfig, TrainConfig
from perceptual.data import Photographs
from perceptual.errors import CheckpointError, ConfigError
from perceptual.losses import PerceptualLoss, PixelLoss, StyleLoss
from perceptual.networks import TransformationNetwork
from perceptual.tasks.base import Task
from perceptual.tasks.style import Style, read_paintings, recipe_from, style_weights
from perceptual.tasks.style_recipes import StyleRecipe
from perceptual.train import Trainer, learning_rate

Own = tuple[Path, TransformationNetwork]

NETWORK = NetworkConfig("c3s1-16 d16 r16*2 U16 c3s1-3", norm="conditional_instance", padding="reflect", styles=2)
ALONE = TrainConfig(
    steps=4, style_steps=4, batch=2, size=32, workers=0, preview_every=0, save_every=2, decay="cosine", seed=3
)
BOTH = replace(ALONE, steps=6, style_steps=3)


@pytest.fixture(autouse=True)
def nothing_pretrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss of pixels and of their Gram matrices, which needs no weights; no shipped network is a base."""

    def loss(config: LossConfig, styles: list[Tensor], **_: object) -> PerceptualLoss:
        grams = torch.cat([StyleLoss.gram(style) for style in styles])
        return PerceptualLoss({"content": (PixelLoss(), 1.0), "style": (StyleLoss("pixels", grams), 5.0)})

    monkeypatch.setattr("perceptual.tasks.style.style_transfer_loss", loss)
    monkeypatch.setattr(shipped, "networks", lambda task: {})


def noise(seed: int) -> Tensor:
    return torch.rand(1, 3, 36, 40, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Photographs:
    folder = tmp_path_factory.mktemp("photographs")
    for index in range(4):
        images.write(folder / f"{index}.png", noise(index))
    return Photographs(folder, ALONE.size, seed=ALONE.seed)


def make(config: NetworkConfig = NETWORK, seed: int = 0) -> TransformationNetwork:
    """A network whose styles are unlike each other."""
    torch.manual_seed(seed)
    network = TransformationNetwork(config)
    for parameter in network.style_parameters().values():
        parameter.data.uniform_(0.1, 1)
    return network.eval()


def save(path: Path, network: TransformationNetwork, *styles: str, half: bool = False) -> Path:
    checkpoints.save(path, network, Card("style", network.config, styles, recipe="fast", steps=70), half=half)
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save(tmp_path / "base.safetensors", make(), "one", "two")


def make_task(base: Path, photographs: Photographs, *styles: str, train: TrainConfig = ALONE) -> Task:
    """The task of `perceptual train style --from base`."""
    paintings = {name: (name, noise(seed)) for seed, name in enumerate(styles or ("new",), start=9)}
    return Style(paintings, recipe_from(StyleRecipe(train=train), base), photographs).start_from(base)


def train(
    out: Path, base: Path, photographs: Photographs, config: TrainConfig, *, stop_at: int | None = None
) -> TransformationNetwork:
    """The network after a run, which goes on from one that stopped; `stop_at` closes it after so many steps."""
    trainer = Trainer(make_task(base, photographs, train=config), config, out, device="cpu")
    trainer.begin(resume=True)
    with closing(trainer.run(photographs)) as steps:
        list(itertools.islice(steps, stop_at))
    return trainer.task.network


@pytest.fixture
def own(tmp_path: Path, base: Path, photographs: Photographs) -> Own:
    """A file of gamma and beta alone beside its base, and the network as it was when the run ended."""
    out = tmp_path / "new.safetensors"
    return out, train(out, base, photographs, ALONE)


def assert_same(one: TransformationNetwork, other: TransformationNetwork) -> None:
    here, there = one.state_dict(), other.state_dict()
    assert here.keys() == there.keys()
    assert [name for name in here if not torch.equal(here[name], there[name])] == []


def test_a_known_style_keeps_its_row_and_a_new_one_begins_with_the_mean(base: Path, photographs: Photographs) -> None:
    network, old = make_task(base, photographs, "two", "new").network, make()
    styles = old.style_parameters()
    for name, value in network.state_dict().items():
        was = old.state_dict()[name]
        if name in styles:
            assert torch.equal(value[0], was[1])
            assert torch.allclose(value[1], (was[0] + was[1]) / 2)
        else:
            assert torch.equal(value, was)


def test_a_network_of_one_nameless_style_can_be_begun_from(tmp_path: Path, photographs: Photographs) -> None:
    old = make(replace(NETWORK, norm="instance", styles=1))
    task = make_task(save(tmp_path / "plain.safetensors", old), photographs)
    assert task.network.config == replace(NETWORK, styles=1)
    assert_same(task.network, old)


@pytest.mark.parametrize(
    "config",
    [
        replace(NETWORK, architecture="c3s1-16 d16 r16 U16 c3s1-3"),
        replace(NETWORK, tanh_scale=150.0),
        replace(NETWORK, padding="zero"),
    ],
    ids=["layers", "range", "padding"],
)
def test_a_network_of_another_architecture_is_refused(
    tmp_path: Path, base: Path, photographs: Photographs, config: NetworkConfig
) -> None:
    other = save(tmp_path / "other.safetensors", make(config), "one", "two")
    with pytest.raises(ConfigError, match=r"other\.safetensors.*but the settings have"):
        make_task(base, photographs).start_from(other)


def test_gamma_and_beta_alone_are_refused_where_there_are_none(tmp_path: Path) -> None:
    images.write(tmp_path / "new.png", noise(9))
    for network in (replace(NETWORK, norm="batch", styles=1), NetworkConfig("c3s1-3", "instance")):
        recipe = StyleRecipe(network=network, train=ALONE)
        with pytest.raises(ConfigError, match="--style-steps 0"):
            read_paintings([tmp_path / "new.png"], recipe)
        read_paintings([tmp_path / "new.png"], replace(recipe, train=replace(ALONE, style_steps=0)))


def test_the_style_that_is_named_lends_its_gamma_and_beta(
    monkeypatch: pytest.MonkeyPatch, base: Path, photographs: Photographs
) -> None:
    monkeypatch.setattr(shipped, "networks", lambda task: {"base": base})
    network, card = checkpoints.load(base)
    task = make_task(base, photographs).start_from(card.styles[1])
    for name, rows in network.style_parameters().items():
        new = task.network.get_parameter(name)[task.card(0).styles.index("new")]
        assert torch.equal(new, rows[1])
    assert card.styles[1] in task.card(0).began_from


def test_the_weights_decide_whether_a_file_holds_the_style_alone(base: Path, photographs: Photographs) -> None:
    task = make_task(base, photographs).start_from(base)
    assert task.card(5).base == checkpoints.body_digest(checkpoints.load(base)[0])
    next(p for n, p in task.network.named_parameters() if "conv" in n).data[0] += 1e-3
    assert task.card(0).base == ""


def test_only_gamma_and_beta_are_learnt_and_written(base: Path, own: Own) -> None:
    (out, network), old = own, make()
    styles = network.style_parameters()
    for name, value in network.state_dict().items():
        assert torch.equal(value, old.state_dict()[name]) != (name in styles), name
    assert set(safetensors.torch.load_file(out)) == set(styles)
    assert out.stat().st_size < 0.2 * base.stat().st_size
    card = checkpoints.read_card(out)
    assert (card.styles, card.steps, card.base) == (("new",), 4, body_digest(old))
    assert card.began_from.startswith("70 steps of recipe 'fast'")


def test_a_style_file_beside_its_base_gives_the_trained_network(base: Path, own: Own) -> None:
    out, network = own
    save(out.with_name("another.safetensors"), make(seed=1), "one", "two")
    out.with_name("broken.safetensors").write_bytes(b"no tensors")
    assert_same(checkpoints.load(out)[0], network)
    photograph, alone = noise(5), Stylizer.load(out, device="cpu")
    blended = Stylizer.load(f"{base}:0,{out}:1", device="cpu")
    assert blended.styles == ("one", "two", "new")
    assert torch.allclose(blended(photograph), alone(photograph), atol=1e-6)


def test_a_style_file_away_from_its_base_says_what_is_missing_unless_that_is_shipped(
    tmp_path: Path, base: Path, own: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "away").mkdir()
    save(tmp_path / "away" / "another.safetensors", make(seed=1), "one", "two")  # of the same layers, but not the base
    moved = own[0].rename(tmp_path / "away" / "new.safetensors")
    with pytest.raises(CheckpointError, match=r"contains only gamma and beta.*same folder") as caught:
        checkpoints.load(moved)
    assert str(moved) in str(caught.value)
    assert checkpoints.read_card(moved).began_from in str(caught.value)
    assert re.search(r"[.]\s|\n", str(caught.value)) is None  # one sentence
    monkeypatch.setattr(shipped, "networks", lambda task: {"base": base})
    assert_same(checkpoints.load(moved)[0], own[1])


def test_all_weights_are_learnt_after_the_style_steps(tmp_path: Path, base: Path, photographs: Photographs) -> None:
    out, body, before = tmp_path / "new.safetensors", body_digest(make()), make().style_parameters()
    task = make_task(base, photographs, train=BOTH)
    digests, bases = [], []
    trainer = Trainer(task, BOTH, out, device="cpu")
    for _ in trainer.run(photographs):
        digests.append(body_digest(task.network))
        trainer.save()
        bases.append(checkpoints.read_card(out).base)
    assert digests[:3] == [body] * 3
    assert len({body, *digests[3:]}) == 4  # every later step moves the body
    assert bases == [body] * 3 + [""] * 3
    assert all(not torch.equal(value[0], before[k].mean(0)) for k, value in task.network.style_parameters().items())
    base.unlink()
    assert safetensors.torch.load_file(out).keys() == task.network.state_dict().keys()
    assert_same(checkpoints.load(out)[0], task.network)


def test_each_phase_has_a_learning_rate_of_its_own() -> None:
    config = TrainConfig(steps=30, style_steps=10, learning_rate=0.5, style_learning_rate=0.08, decay="cosine")
    assert [learning_rate(config, s) for s in (0, 5, 10, 20, 30)] == pytest.approx([0.08, 0.04, 0.5, 0.25, 0])
    first = [learning_rate(config, s) for s in range(10)]
    assert first == sorted(first, reverse=True)
    assert first[-1] < 0.03 * first[0]
    level = replace(config, decay="none")
    assert [learning_rate(level, s) for s in range(30)] == [0.08] * 10 + [0.5] * 20
    alone = replace(config, steps=10, style_steps=10)
    assert [learning_rate(alone, s) for s in range(10)] == pytest.approx(first)
    assert learning_rate(replace(config, steps=8), 4) == pytest.approx(0.04)  # more style steps than steps


@pytest.mark.parametrize("stop_at", [1, 3, 4])
def test_a_run_resumed_across_the_switch_equals_an_uninterrupted_one(
    tmp_path: Path, base: Path, photographs: Photographs, stop_at: int
) -> None:
    whole = train(tmp_path / "whole.safetensors", base, photographs, BOTH)
    out = tmp_path / "parts.safetensors"
    train(out, base, photographs, BOTH, stop_at=stop_at)
    card = checkpoints.read_card(out)
    assert (card.steps, bool(card.base)) == (stop_at, stop_at <= BOTH.style_steps)
    assert_same(train(out, base, photographs, BOTH), whole)
    assert_same(checkpoints.load(out)[0], whole)


def test_the_digest_is_of_the_body_and_not_of_its_styles(base: Path) -> None:
    network = make()
    digest = body_digest(network)
    for parameter in network.style_parameters().values():
        parameter.data += 1
    assert body_digest(network) == digest
    joined, card = checkpoints.join([(network, Card("style", NETWORK, ("three", "four"))), checkpoints.load(base)])
    assert (joined.styles, card.styles) == (4, ("three", "four", "one", "two"))
    assert body_digest(joined) == digest


def test_any_weight_of_the_body_changes_the_digest() -> None:
    digests = {body_digest(make()), body_digest(make(replace(NETWORK, tanh_scale=150)))}
    body = [name for name in make().state_dict() if name not in make().style_parameters()]
    for name in body:
        network = make()
        network.get_parameter(name).data.view(-1)[-1] += 1e-3
        digests.add(body_digest(network))
    assert len(digests) == 2 + len(body)


def test_the_digest_of_a_half_precision_file_stays_when_it_is_saved_again(tmp_path: Path) -> None:
    path = save(tmp_path / "half.safetensors", make(), "one", "two", half=True)
    network, _ = checkpoints.load(path)
    digest = body_digest(network)
    assert digest != body_digest(make())
    for half in (True, False):
        again = save(tmp_path / "again.safetensors", network, "one", "two", half=half)
        assert body_digest(checkpoints.load(again)[0]) == digest


@given(styles=st.integers(1, 7), seed=st.integers(0, 2**32), sizes=st.lists(st.integers(1, 6), min_size=1, max_size=9))
def test_every_run_of_pictures_has_each_style_once_whatever_the_batches(
    styles: int, seed: int, sizes: list[int]
) -> None:
    rounds = -(-sum(sizes) // styles)
    whole = style_weights(styles, seed, 0, rounds * styles)
    assert torch.equal(whole.view(rounds, styles, styles).sum(1), torch.ones(rounds, styles))
    starts = itertools.accumulate(sizes[:-1], initial=0)
    parts = torch.cat([style_weights(styles, seed, start, size) for start, size in zip(starts, sizes, strict=True)])
    assert torch.equal(parts, whole[: sum(sizes)])


def test_a_style_of_twice_the_factor_counts_twice(photographs: Photographs) -> None:
    several = replace(NETWORK, norm="conditional_instance", styles=1)
    recipe = StyleRecipe(several, replace(StyleRecipe().loss, weighting="relative"), ALONE)
    paintings = {name: ("", noise(seed)) for seed, name in enumerate(("one", "two"), start=7)}
    plain = Style(paintings, recipe, photographs).loss.references()["style"]
    factored = Style(paintings, replace(recipe, style_factors=(1.0, 2.0)), photographs).loss.references()["style"]
    assert factored == pytest.approx([plain[0], plain[1] / 2], rel=1e-5)
    with pytest.raises(ConfigError, match="--style-factors one number for each of the 2 styles"):
        Style(paintings, replace(recipe, style_factors=(2.0,)), photographs)
