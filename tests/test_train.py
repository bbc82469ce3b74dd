"""The training loop: exact resume, the guard against not-a-number, and what a run leaves behind."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from copy import copy
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn

from perceptual import checkpoints, images
from perceptual.config import LossConfig, NetworkConfig, TrainConfig, to_dict
from perceptual.data import Photographs
from perceptual.errors import ConfigError, OutputError, TrainingError
from perceptual.losses import PerceptualLoss, PixelLoss, TotalVariation
from perceptual.networks import TransformationNetwork
from perceptual.tasks.base import Task
from perceptual.tasks.style import style_name, style_weights
from perceptual.tasks.style_recipes import StyleRecipe
from perceptual.train import Trainer, learning_rate, save_preview, side_path
from perceptual.train.divergence import Divergence
from perceptual.train.state import check_same

TINY = NetworkConfig(architecture="c3s1-4 d4 r4*2 U4 c3s1-3", norm="instance", padding="reflect")
CONFIG = TrainConfig(steps=6, batch=2, size=32, workers=0, tick_every=1, preview_every=3, save_every=2, decay="cosine")


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for index in range(5):
        small = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
        Image.fromarray(small).resize((60, 48), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


def make_task(network: NetworkConfig = TINY, config: TrainConfig = CONFIG) -> Task:
    """Learn the negative of a photograph by pixel loss: a task that needs no pretrained weights."""
    torch.manual_seed(config.seed)
    net = TransformationNetwork(network)
    loss = PerceptualLoss({"pixel": (PixelLoss(), 1.0), "tv": (TotalVariation(), 1e-9)})
    return SimpleNamespace(  # type: ignore[return-value]
        network=net,
        loss=loss,
        objective=lambda forward, pixels, index: loss(forward(pixels), 1 - pixels),
        preview=lambda: torch.zeros(2, 3, 8, 8),
        card=lambda step: checkpoints.Card(task="style", network=net.config, steps=step),
        identity={"train": to_dict(config)},
        photographs=None,
    )


def altered(task: Task, **changes: Any) -> Task:
    """The task with other attributes."""
    other = copy(task)
    vars(other).update(changes)
    return other


def train(
    out: Path, photographs: Path, *, resume: bool = False, stop_at: int = 0, config: TrainConfig = CONFIG
) -> Trainer:
    trainer = Trainer(make_task(config=config), config, out)
    trainer.begin(resume=resume)
    with closing(trainer.run(Photographs(photographs, config.size, seed=config.seed))) as run:
        for step in run:
            if step.index == stop_at:
                break
    return trainer


def test_loss_falls_and_the_checkpoint_says_how_many_steps(tmp_path: Path, photographs: Path) -> None:
    out = tmp_path / "net.safetensors"
    train(out, photographs, config=replace(CONFIG, steps=40, learning_rate=1e-2, preview_every=0))
    lines = [json.loads(line) for line in (tmp_path / "net.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 41))
    assert lines[-1]["total"] < 0.7 * lines[0]["total"]
    assert lines[-1]["total"] == pytest.approx(lines[-1]["pixel"] + 1e-9 * lines[-1]["tv"], rel=1e-5)
    assert checkpoints.read_card(out).steps == 40
    assert not side_path(out, ".state").exists()


@pytest.mark.parametrize("stop_at", [1, 2, 5])
def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path, photographs: Path, stop_at: int) -> None:
    train(tmp_path / "whole.safetensors", photographs)
    out = tmp_path / "parts.safetensors"
    train(out, photographs, stop_at=stop_at)
    assert checkpoints.read_card(out).steps == stop_at
    train(out, photographs, resume=True)
    assert_equal_weights(tmp_path / "whole.safetensors", out)
    assert without_times(tmp_path / "whole.jsonl") == without_times(tmp_path / "parts.jsonl")


def assert_equal_weights(a: Path, b: Path) -> None:
    one, other = (safetensors.torch.load_file(path) for path in (a, b))
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def without_times(log: Path) -> list[dict[str, float]]:
    return [
        {k: v for k, v in json.loads(line).items() if k != "seconds_per_step"} for line in log.read_text().splitlines()
    ]


KILLED_RUN = """
import sys; sys.path.insert(0, {tests!r})
import test_train, torch
from pathlib import Path
torch.set_num_threads(2)
config = test_train.replace(test_train.CONFIG, steps=120, workers=2)
test_train.train(Path({out!r}), Path({photographs!r}), resume={resume}, config=config)
"""


def run_elsewhere(out: Path, photographs: Path, *, resume: bool = False) -> "subprocess.Popen[bytes]":
    code = KILLED_RUN.format(
        tests=str(Path(__file__).parent), out=str(out), photographs=str(photographs), resume=resume
    )
    return subprocess.Popen([sys.executable, "-c", code], start_new_session=True)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_killed_at_any_moment_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path, photographs: Path) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    assert run_elsewhere(whole, photographs).wait() == 0
    kills = 0
    for lines in (1, 77):
        process = run_elsewhere(parts, photographs, resume=kills > 0)
        log = tmp_path / "parts.jsonl"
        while process.poll() is None and (not log.exists() or log.read_bytes().count(b"\n") < lines):
            time.sleep(0.005)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills == 2
    assert run_elsewhere(parts, photographs, resume=True).wait() == 0
    assert_equal_weights(whole, parts)
    assert without_times(tmp_path / "whole.jsonl") == without_times(tmp_path / "parts.jsonl")


def test_not_a_number_stops_with_the_last_good_weights(tmp_path: Path, photographs: Path) -> None:
    out = tmp_path / "net.safetensors"
    train(tmp_path / "good.safetensors", photographs, stop_at=3)
    task = make_task()
    good = task.objective

    def breaks(forward: torch.nn.Module, pixels: torch.Tensor, index: int) -> dict[str, torch.Tensor]:
        terms = good(forward, pixels, index)
        return {**terms, "total": terms["total"] * (float("nan") if index >= 6 else 1)}

    trainer = Trainer(altered(task, objective=breaks), CONFIG, out)
    trainer.begin(resume=False)
    with pytest.raises(TrainingError, match=r"stopped at step 4: total is not a finite number.*step 3"):
        list(trainer.run(Photographs(photographs, 32)))
    assert checkpoints.read_card(out).steps == 3
    assert_equal_weights(out, tmp_path / "good.safetensors")


def test_an_infinite_gradient_stops_before_it_reaches_the_weights(tmp_path: Path, photographs: Path) -> None:
    def objective(forward: torch.nn.Module, pixels: torch.Tensor, index: int) -> dict[str, torch.Tensor]:
        return {"total": (forward(pixels) - forward(pixels)).abs().sum().sqrt()}  # 0, of infinite slope

    trainer = Trainer(altered(make_task(), objective=objective), CONFIG, tmp_path / "net.safetensors")
    with pytest.raises(TrainingError, match="the gradient is not a finite number"):
        list(trainer.run(Photographs(photographs, 32)))
    network, _ = checkpoints.load(tmp_path / "net.safetensors")
    assert all(value.isfinite().all() for value in network.state_dict().values())


def test_stopping_on_not_a_number_keeps_the_running_statistics_of_batch_norm(tmp_path: Path, photographs: Path) -> None:
    task = make_task(replace(TINY, norm="batch"))

    def breaks(forward: torch.nn.Module, pixels: torch.Tensor, index: int) -> dict[str, torch.Tensor]:
        return {"total": (forward(pixels * float("nan"))).sum()}

    before = {name: value.clone() for name, value in task.network.state_dict().items()}
    with pytest.raises(TrainingError, match="step 1"):
        list(
            Trainer(altered(task, objective=breaks), CONFIG, tmp_path / "net.safetensors").run(
                Photographs(photographs, 32)
            )
        )
    network, _ = checkpoints.load(tmp_path / "net.safetensors")
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_memory_running_out_is_one_sentence(tmp_path: Path, photographs: Path) -> None:
    def hungry(forward: torch.nn.Module, pixels: torch.Tensor, index: int) -> dict[str, torch.Tensor]:
        return {"total": torch.empty(1 << 60)}

    trainer = Trainer(altered(make_task(), objective=hungry), CONFIG, tmp_path / "net.safetensors")
    with pytest.raises(TrainingError, match="lower --batch or --size"):
        list(trainer.run(Photographs(photographs, 32)))


def test_a_full_disk_is_one_sentence(tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(make_task(), CONFIG, tmp_path / "net.safetensors")

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="disk is full"):
        list(trainer.run(Photographs(photographs, 32)))
    assert not list(tmp_path.glob(".net*"))


def test_unreadable_files_are_skipped_counted_and_said(tmp_path: Path, photographs: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for path in photographs.iterdir():
        (data / path.name).write_bytes(path.read_bytes())
    (data / "broken.jpg").write_bytes(b"not a picture")
    trainer = Trainer(make_task(), CONFIG, tmp_path / "net.safetensors")
    messages = [step.message for step in trainer.run(Photographs(data, 32)) if step.message]
    assert trainer.unreadable == {str(data / "broken.jpg")}
    assert len(messages) == 1
    assert "broken.jpg" in messages[0]


def test_a_fresh_start_does_not_overwrite_a_run_that_can_be_resumed(tmp_path: Path, photographs: Path) -> None:
    out = tmp_path / "net.safetensors"
    train(out, photographs, stop_at=2)
    with pytest.raises(TrainingError, match="--resume"):
        train(out, photographs)


def test_resuming_before_the_first_save_starts_afresh_and_after_the_end_is_refused(
    tmp_path: Path, photographs: Path
) -> None:
    out = tmp_path / "net.safetensors"
    train(out, photographs, resume=True)
    assert checkpoints.read_card(out).steps == CONFIG.steps
    with pytest.raises(TrainingError, match="finished"):
        train(out, photographs, resume=True)


def test_resuming_with_other_settings_is_refused_by_name(tmp_path: Path, photographs: Path) -> None:
    out = tmp_path / "net.safetensors"
    train(out, photographs, stop_at=2)
    with pytest.raises(TrainingError, match=r"train.batch was 2 and is now 1"):
        train(out, photographs, resume=True, config=replace(CONFIG, batch=1))


def test_previews_come_at_intervals_and_are_written_as_one_sheet(tmp_path: Path, photographs: Path) -> None:
    trainer = Trainer(make_task(), CONFIG, tmp_path / "net.safetensors")
    steps = list(trainer.run(Photographs(photographs, 32)))
    assert [step.index for step in steps if step.preview is not None] == [3, 6]
    save_preview(tmp_path / "net.safetensors", steps[2])
    with Image.open(tmp_path / "net.previews" / "000003.png") as sheet:
        assert sheet.size == (8, 16)


def test_tensorboard_logs_are_written_when_wanted(tmp_path: Path, photographs: Path) -> None:
    pytest.importorskip("tensorboard")
    trainer = Trainer(make_task(), CONFIG, tmp_path / "net.safetensors", tensorboard=True)
    trainer.begin()
    list(trainer.run(Photographs(photographs, 32)))
    assert len(list((tmp_path / "net.tensorboard").rglob("events*"))) == 1
    again = Trainer(make_task(), CONFIG, tmp_path / "net.safetensors", tensorboard=True)
    again.begin(overwrite=True)
    list(again.run(Photographs(photographs, 32)))
    assert len(list((tmp_path / "net.tensorboard").rglob("events*"))) == 1  # not mixed with the run before
    (tmp_path / "other.tensorboard").mkdir()
    (tmp_path / "other.tensorboard" / "keep.txt").write_text("mine")
    third = Trainer(make_task(), CONFIG, tmp_path / "other.safetensors", tensorboard=True)
    with pytest.raises(OutputError, match="add --overwrite"):
        third.begin()
    third.begin(overwrite=True)
    assert (tmp_path / "other.tensorboard" / "keep.txt").read_text() == "mine"
    (tmp_path / "file.tensorboard").write_text("a file")
    fourth = Trainer(make_task(), CONFIG, tmp_path / "file.safetensors", tensorboard=True)
    with pytest.raises(OutputError, match=r"Cannot write .*file\.tensorboard: "):
        fourth.begin(overwrite=True)
    assert not (tmp_path / "file.state").exists()  # nothing was begun


def test_cosine_falls_from_the_learning_rate_to_zero() -> None:
    config = TrainConfig(steps=10, learning_rate=0.5, decay="cosine")
    assert [learning_rate(config, s) for s in (0, 5, 10)] == pytest.approx([0.5, 0.25, 0.0])
    assert learning_rate(TrainConfig(), 39_999) == 1e-3


def test_bfloat16_trains_on_the_cpu(tmp_path: Path, photographs: Path) -> None:
    trainer = train(tmp_path / "net.safetensors", photographs, config=replace(CONFIG, precision="bfloat16", steps=2))
    assert trainer.accelerator.mixed_precision == "bf16"
    network, _ = checkpoints.load(tmp_path / "net.safetensors")
    assert next(network.parameters()).dtype == torch.float32


def test_style_choices_are_a_function_of_seed_and_index() -> None:
    whole = style_weights(3, 7, 0, 12)
    assert torch.equal(whole[5:9], style_weights(3, 7, 5, 4))
    assert torch.equal(whole.sum(1), torch.ones(12))
    assert (whole.sum(0) > 0).all()


def test_style_names_come_from_file_names() -> None:
    assert [style_name(n) for n in ("a/The Wave.jpg", "Ünïcode-2.PNG", "---.png")] == ["the_wave", "ünïcode_2", "style"]


def test_recipe_of_a_style_run_is_frozen() -> None:
    recipe = StyleRecipe(loss=LossConfig(style_weight=2))
    assert recipe.loss.style_weight == 2
    with pytest.raises(FrozenInstanceError):
        recipe.style_size = 64  # type: ignore[misc]


# --- moving average, and the learning rate's way


def test_the_checkpoint_holds_the_moving_average_of_the_weights(tmp_path: Path, photographs: Path) -> None:
    config = replace(CONFIG, steps=3, ema=0.5)
    out = tmp_path / "mean.safetensors"
    trainer = Trainer(make_task(config=config), config, out)
    trainer.begin()
    seen = []
    for _ in trainer.run(Photographs(photographs, config.size, seed=config.seed)):
        seen.append({name: value.clone() for name, value in trainer.task.network.state_dict().items()})
    mean = seen[0]
    for count, now in enumerate(seen[1:], start=1):
        share = min(0.5, (count + 1) / (count + 10))
        mean = {name: share * mean[name] + (1 - share) * now[name] for name in now}
    for name, value in safetensors.torch.load_file(out).items():
        torch.testing.assert_close(value, mean[name], rtol=1e-5, atol=1e-6)
        assert value.ndim < 2 or not torch.equal(value, seen[-1][name])


def test_a_run_with_a_moving_average_resumes_bit_for_bit(tmp_path: Path, photographs: Path) -> None:
    config = replace(CONFIG, ema=0.9, warmup=3, decay="tail")
    train(tmp_path / "whole.safetensors", photographs, config=config)
    train(tmp_path / "parts.safetensors", photographs, config=config, stop_at=4)
    train(tmp_path / "parts.safetensors", photographs, config=config, resume=True)
    assert_equal_weights(tmp_path / "whole.safetensors", tmp_path / "parts.safetensors")


def test_the_learning_rate_warms_up_stays_and_falls_over_the_last_part() -> None:
    config = TrainConfig(steps=100, learning_rate=1.0, decay="tail", warmup=4)
    found = [learning_rate(config, step) for step in (0, 1, 3, 4, 69, 70, 85, 99)]
    assert found == pytest.approx([0.25, 0.5, 1, 1, 1, 1, 0.5, 1 / 30])


# --- runs that end worse than they began, and pictures of one colour


def test_a_run_that_diverges_keeps_its_best_weights_and_says_so(tmp_path: Path, photographs: Path) -> None:
    config = replace(CONFIG, steps=25, learning_rate=1.0, decay="none", preview_every=0)
    out = tmp_path / "net.safetensors"
    trainer = Trainer(make_task(config=config), config, out)
    trainer.begin()
    rising = iter(range(1, 100))
    plain = trainer.task.objective

    def objective(network: nn.Module, pixels: Tensor, index: int) -> dict[str, Tensor]:
        terms = plain(network, pixels, index)
        return {**terms, "total": terms["total"] * 0 + float(abs(next(rising) - 7) + 1) ** 2}  # least at step 7

    trainer.task = altered(trainer.task, objective=objective)
    seen: dict[int, dict[str, Tensor]] = {}

    def follow() -> None:
        for step in trainer.run(Photographs(photographs, config.size, seed=config.seed)):
            seen[step.index] = {name: value.clone() for name, value in trainer.task.network.state_dict().items()}

    with pytest.raises(
        TrainingError, match=r"rose from 49 to 291.*best weights, those of step 10: lower --learning-rate"
    ):
        follow()
    for name, value in safetensors.torch.load_file(out).items():
        assert torch.equal(value, seen[10][name])
    assert checkpoints.read_card(out).steps == 10
    assert not side_path(out, ".state").exists()


def test_one_easy_or_difficult_step_is_no_divergence() -> None:
    """The first step is easy here, and windows of 20 steps are all alike."""
    watch = Divergence(100)
    for step, total in enumerate([0.01, *[0.02, 1.0, 0.3, 0.8] * 25], start=1):
        watch.add(total, step, dict)
    assert (watch.first, watch.low) == (0.01, 0.02)
    assert watch.last > 3 * watch.first
    assert not watch.diverged
    again = Divergence(100)
    again.restore(watch.numbers(), {})
    assert again.numbers() == watch.numbers()


def test_a_resumed_optimiser_has_tensors_with_the_strides_of_the_weights(
    tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fused Adam reads the numbers in the order of memory, and the weights are channels_last."""

    def fused(parameters: Any, rate: float, *_: object) -> torch.optim.Adam:
        return torch.optim.Adam(parameters, lr=rate, fused=True)

    monkeypatch.setattr("perceptual.train.trainer.make_adam", fused)
    train(tmp_path / "whole.safetensors", photographs)
    train(tmp_path / "parts.safetensors", photographs, stop_at=3)
    train(tmp_path / "parts.safetensors", photographs, resume=True)
    assert_equal_weights(tmp_path / "whole.safetensors", tmp_path / "parts.safetensors")


def test_a_full_memory_gives_advice_that_can_be_followed(tmp_path: Path, photographs: Path) -> None:
    trainer = Trainer(make_task(), CONFIG, tmp_path / "net.safetensors")
    trainer.begin()

    def full(*_: object) -> dict[str, Tensor]:
        raise MemoryError

    trainer.task = altered(trainer.task, objective=full)
    with pytest.raises(TrainingError, match=r"The memory is full: .*--resume, or start again with --overwrite"):
        next(trainer.run(Photographs(photographs, CONFIG.size)))


def test_a_resumed_run_keeps_its_precision_and_says_how(tmp_path: Path) -> None:
    before, now = ({"computer": {"precision": name}} for name in ("no", "bf16"))
    check_same(tmp_path, before, before, None)
    told = "it was trained in float32 and would go on in bfloat16: give --precision float32"
    with pytest.raises(TrainingError, match=told):
        check_same(tmp_path, before, now, None)


def test_a_picture_of_one_colour_is_skipped_named_and_harmless(tmp_path: Path, photographs: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in photographs.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    images.write(folder / "black.png", torch.zeros(1, 3, 40, 40))
    near = torch.randint(125, 131, (1, 3, 40, 40), generator=torch.Generator().manual_seed(0)) / 255
    images.write(folder / "nearly_flat.png", near)
    config = replace(CONFIG, steps=12, preview_every=0)
    trainer = Trainer(make_task(config=config), config, tmp_path / "net.safetensors")
    trainer.begin()
    messages = [step.message for step in trainer.run(Photographs(folder, config.size, skip_flat=True)) if step.message]
    assert trainer.unreadable == {str(folder / "black.png")}
    assert messages == [f"Skipped {folder / 'black.png'}: cannot be read, or a crop of one colour."]


# --- files of others


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("beside", ["net.jsonl", "net.previews/mine.png"])
def test_what_lies_beside_the_network_is_never_replaced_unasked(
    tmp_path: Path, photographs: Path, beside: str, resume: bool
) -> None:
    (tmp_path / beside).parent.mkdir(exist_ok=True)
    (tmp_path / beside).write_text("mine")
    with pytest.raises(OutputError, match="add --overwrite"):
        train(tmp_path / "net.safetensors", photographs, resume=resume)
    assert (tmp_path / beside).read_text() == "mine"


def test_overwriting_deletes_previews_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "net.previews"
    folder.mkdir()
    for name in ("000500.png", "mine.png"):
        (folder / name).write_text("old")
    Trainer(make_task(), CONFIG, tmp_path / "net.safetensors").begin(overwrite=True)
    assert [path.name for path in folder.iterdir()] == ["mine.png"]


def test_a_run_that_replaces_another_is_not_finished_before_its_first_save(tmp_path: Path, photographs: Path) -> None:
    """Killed there, the network of the run before is all that lies beside the state."""
    out = tmp_path / "net.safetensors"
    train(out, photographs)
    finished = out.read_bytes()
    Trainer(make_task(), CONFIG, out).begin(overwrite=True)
    assert out.read_bytes() == finished
    trainer = train(out, photographs, resume=True)
    assert trainer.step == CONFIG.steps
    assert not trainer.state_path.exists()
    assert out.read_bytes() == finished  # the same run again, to the byte


def test_a_state_without_steps_still_knows_its_settings(tmp_path: Path) -> None:
    out = tmp_path / "net.safetensors"
    Trainer(make_task(), CONFIG, out).begin()
    other = replace(CONFIG, seed=CONFIG.seed + 1)
    with pytest.raises(TrainingError, match="seed was"):
        Trainer(make_task(config=other), other, out).begin(resume=True)


def test_a_second_process_does_not_train_to_the_same_file(tmp_path: Path) -> None:
    out = tmp_path / "net.safetensors"
    code = f"import sys\nfrom perceptual.files import one_run\nwith one_run({str(out)!r}): print(flush=True); input()"
    trainer = Trainer(make_task(), CONFIG, out)
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(OutputError, match="Another process is writing"):
                trainer.begin(**options)
        other.communicate(b"\n")
    assert list(tmp_path.iterdir()) == []
    trainer.begin()


def test_a_run_leaves_no_lock(tmp_path: Path, photographs: Path) -> None:
    train(tmp_path / "net.safetensors", photographs)
    train(tmp_path / "cut.safetensors", photographs, stop_at=1)
    assert not list(tmp_path.glob("*.lock"))
    assert not list(tmp_path.glob(".*"))


def test_several_processes_without_a_launcher_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigError, match="WORLD_SIZE is 2, but RANK is not set: start with `accelerate launch`"):
        Trainer(make_task(), CONFIG, tmp_path / "net.safetensors")
