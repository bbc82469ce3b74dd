"""Training steps from a CUDA graph, on the CPU with the stand-in of test_gpu."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_gpu import FakeGraph, cuda
from test_train_temporal import NETWORK, SEVERAL, make_task, nothing_pretrained, photographs
from test_train_upscale import BICUBIC, small_vgg
from test_train_upscale import TRAIN as UPSCALE_TRAIN

from perceptual.data import Photographs
from perceptual.losses.inputs import ValueCheck
from perceptual.tasks.base import Task
from perceptual.tasks.style_recipes import StyleRecipe
from perceptual.tasks.upscale import Upscale, UpscaleRecipe
from perceptual.train import Trainer

__all__ = ["cuda", "nothing_pretrained", "photographs", "small_vgg"]

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = replace(SEVERAL.train, steps=9)
RECIPES = {
    "several styles and a temporal term": replace(SEVERAL, train=STEPS),
    "one style": StyleRecipe(NETWORK, train=STEPS),
    "noise and a moving average": replace(
        SEVERAL,
        network=replace(SEVERAL.network, noise=0.1),
        train=replace(STEPS, ema=0.9),
        temporal_weight=0.0,
    ),
    "first the styles, then all weights": replace(SEVERAL, train=replace(STEPS, steps=12, style_steps=6)),
    "enlarging": UpscaleRecipe(BICUBIC, loss="l1", train=replace(UPSCALE_TRAIN, steps=9, ema=0.9)),
    "enlarging what looks like photos": UpscaleRecipe(
        BICUBIC, loss="pixel=1,ssim=0.1", degradation="photo", train=replace(UPSCALE_TRAIN, steps=9)
    ),
}


def task_of(photographs: Photographs, recipe: StyleRecipe | UpscaleRecipe) -> Task:
    if isinstance(recipe, UpscaleRecipe):
        return Upscale(recipe, photographs)
    return make_task(photographs, recipe, 3 if recipe.network.norm == "conditional_instance" else 1)


def trained(folder: Path, photographs: Photographs, recipe: StyleRecipe | UpscaleRecipe, graphs: bool) -> Trainer:
    folder.mkdir()
    trainer = Trainer(task_of(photographs, recipe), recipe.train, folder / "a.safetensors", device="cpu")
    trainer.graphs = graphs
    trainer.begin()
    with closing(trainer.run(photographs)) as run:
        steps = list(run)
    trainer.losses = [step.losses for step in steps]  # type: ignore[attr-defined]
    return trainer


@pytest.mark.parametrize("name", RECIPES)
def test_steps_from_a_graph_are_those_without(
    cuda: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, photographs: Photographs, name: str
) -> None:
    monkeypatch.setattr(ValueCheck, "__call__", lambda *_: None)  # on a GPU it looks at the first step only
    plain = trained(tmp_path / "plain", photographs, RECIPES[name], False)
    assert FakeGraph.made == 0
    graph = trained(tmp_path / "graph", photographs, RECIPES[name], True)
    assert graph.task.graphs
    assert FakeGraph.made == (2 if RECIPES[name].train.style_steps else 1)  # other parameters need another graph
    assert FakeGraph.replayed >= 5
    assert graph.losses == plain.losses  # type: ignore[attr-defined]
    for ours, theirs in zip(graph.result.state_dict().values(), plain.result.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_loss_network_that_sees_other_crops_in_each_step_allows_no_graph(
    photographs: Photographs, small_vgg: Path
) -> None:
    recipe = UpscaleRecipe(BICUBIC, loss="vgg16:relu1_2", train=UPSCALE_TRAIN)
    assert not Upscale(recipe, photographs, paths={"vgg16": small_vgg}).graphs
