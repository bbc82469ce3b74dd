"""The training loop: one for every task, a generator of Step, with exact resume.

Everything random is a function of the seed and the step (see `data`), so the state that is saved is the weights, the
optimiser and the step; killed at any moment and resumed, a CPU run ends with the same weights, bit for bit.

Files of a run that writes `starry.safetensors`: `starry.state` (to resume from), `starry.jsonl` (one line per tick),
`starry.toml` (the settings, written by the command), `starry.previews/` and, if wanted, `starry.tensorboard/`.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from perceptual import checkpoints, images
from perceptual.config import TrainConfig
from perceptual.data import Photographs, batches
from perceptual.devices import can_compile, channels_last, choose_device, choose_precision, out_of_memory
from perceptual.errors import ConfigError, PerceptualError, TrainingError
from perceptual.events import Step
from perceptual.files import append_line, check_new, exists, one_run, remove_previews, write_beside
from perceptual.networks import TransformationNetwork
from perceptual.tasks.base import Task
from perceptual.train.divergence import Divergence
from perceptual.train.state import RunState, check_same, cut_log, damaged, matching, read_state, slots


def side_path(out: str | Path, suffix: str) -> Path:
    """A file beside the checkpoint `out` that belongs to the same run: ("a.safetensors", ".state") -> a.state."""
    path = Path(out)
    return path.with_name((path.stem if path.suffix == ".safetensors" else path.name) + suffix)


class Trainer:
    """Trains a task's network on a folder of photographs; iterate over `run`, save when the caller wants to stop.

    Args:
        task: network, objective, preview and card.
        config: steps, batch, learning rate and so on.
        out: where the finished checkpoint goes; the other files of the run lie beside it.

    Attributes: `unreadable`, the files skipped so far; `step`, optimiser steps done.
    """

    def __init__(
        self, task: Task, config: TrainConfig, out: str | Path, *, device: str = "auto", tensorboard: bool = False
    ) -> None:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState

        _check_surroundings(tensorboard)
        AcceleratorState._reset_state(reset_partial_state=True)  # an earlier Trainer may have left its own
        self.task, self.config, self.out, self.step = task, config, Path(out), 0
        wanted = choose_device(device)
        if wanted.index is not None and wanted.type == "cuda":
            torch.cuda.set_device(wanted)
        self.accelerator = Accelerator(
            cpu=wanted.type == "cpu",
            mixed_precision=choose_precision(wanted, config.precision),
            log_with="tensorboard" if tensorboard else None,
            project_dir=str(side_path(out, ".tensorboard")),
        )
        self.device = self.accelerator.device
        if tensorboard:
            self.accelerator.init_trackers("")
        channels_last(task.network.to(self.device))
        task.loss.to(self.device)
        if self.accelerator.mixed_precision == "bf16" and task.loss.networks is not None:
            task.loss.networks.cast(torch.bfloat16)  # once, in place of a cast at every step
        if self.accelerator.num_processes > 1 and 0 < config.style_steps < config.steps:
            raise ConfigError("Several processes want --style-steps to be 0, or all of --steps.")
        self._set_trainable()
        optimizer = torch.optim.Adam(task.network.parameters(), lr=config.learning_rate)
        self.network, self.optimizer = self.accelerator.prepare(task.network, optimizer)
        self.average = AveragedModel(task.network, avg_fn=self._mean, use_buffers=True) if config.ema else None
        self.compiled = config.compile and can_compile(self.device)
        if self.compiled:
            self.network.compile(dynamic=False)
            task.loss.compile(dynamic=False)
        self.skipped, self.watch = 0, Divergence(config.steps)
        self.unreadable: set[str] = set()
        self._alone = ExitStack()  # holds the lock from `begin` to the end of `run`

    def identity(self) -> dict[str, Any]:
        """What a run must share with the one that it goes on with."""
        here = {"processes": self.accelerator.num_processes, "precision": str(self.accelerator.mixed_precision)}
        return {**self.task.identity, "computer": here}

    @property
    def state_path(self) -> Path:
        """The file that --resume goes on from."""
        return side_path(self.out, ".state")

    def describe(self) -> str:
        """Device, precision and whether the step is compiled, for a person."""
        precision = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}[self.accelerator.mixed_precision]
        return f"{precision} on {self.device.type}, {'compiled' if self.compiled else 'eager'}"

    def save(self) -> None:
        """Write the state to resume from, and the checkpoint as it stands."""
        if self.accelerator.is_main_process:
            self._save_state()
            checkpoints.save(self.out, self.result, self.task.card(self.step))

    def _save_state(self) -> None:
        tensors = {f"network.{k}": v for k, v in self.task.network.state_dict().items()}
        slots = self.optimizer.state_dict()["state"]
        for index, slot in slots.items():
            tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in slot.items()}
        if self.average is not None:
            tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in self.watch.weights.items()}
        scaler = self.accelerator.scaler
        info = {
            "step": self.step,
            "scaler": scaler.state_dict() if scaler else None,
            "references": self.task.loss.references(),
            "identity": self.identity(),
            "unreadable": sorted(self.unreadable),
            "watch": self.watch.numbers() if self.watch.weights else None,
        }
        checkpoints.save_state(self.state_path, tensors, info)

    @property
    def result(self) -> TransformationNetwork:
        """The network as the checkpoint holds it: the moving average of the weights where there is one."""
        if self.average is None:
            return self.task.network
        averaged = self.average.module
        assert isinstance(averaged, TransformationNetwork)
        return averaged

    def _mean(self, mean: Tensor, value: Tensor, count: Tensor | int) -> Tensor:
        """The moving average with one more value; at first the plain mean, so that it does not hang on to the start."""
        number = float(count)
        return torch.lerp(value, mean, min(self.config.ema, (number + 1) / (number + 10)))

    def begin(self, *, resume: bool = False, overwrite: bool = False) -> None:
        """Start afresh, or go on from the state beside `out`, which is there from the first moment to the last step.

        Raises:
            OutputError, TrainingError: as `check_out`; the folder of `out` cannot be written to, or another process
                is training to `out`.
            CheckpointError: the state is damaged.
            TrainingError: the state belongs to a run with other settings.
        """
        if self.accelerator.is_main_process:
            self._alone.enter_context(one_run(self.out))
        check_out(self.out, resume=resume, overwrite=overwrite)
        afresh = not resume or not exists(self.state_path)
        self.accelerator.wait_for_everyone()  # all have looked before one of them writes
        if afresh:
            if self.accelerator.is_main_process:
                self._save_state()  # a run that is killed before its first save is not taken for a finished one
                remove_previews(side_path(self.out, ".previews"))
                with write_beside(side_path(self.out, ".jsonl")):
                    pass
            return
        tensors, state = read_state(self.state_path)
        check_same(self.state_path, state.identity, self.identity(), self.task.photographs)
        if state.step:  # else the run was killed before its first save, and its start is that of the seed
            self._restore(tensors, state)
        cut_log(side_path(self.out, ".jsonl"), self.step)

    def _restore(self, tensors: Mapping[str, Tensor], state: RunState) -> None:
        """Put everything back as it was; a CheckpointError says what is missing or does not fit, before any change."""
        path, network, scaler = self.state_path, self.task.network, self.accelerator.scaler
        if state.step > self.config.steps:
            raise damaged(path, f"step {state.step} of {self.config.steps}")
        if scaler and set(state.scaler or ()) != set(scaler.state_dict()):
            raise damaged(path, "the scaler of float16 is missing")
        weights = matching(path, tensors, "network.", network.state_dict())
        parameters, style = list(network.parameters()), set(network.style_parameters().values())
        learnt = [k for k, each in enumerate(parameters) if state.step > self.config.style_steps or each in style]
        held = {int(name.split(".")[1]) for name in tensors if re.fullmatch(r"optimizer\.\d{1,9}\..*", name)}
        skipped = scaler and held <= set(learnt)  # a scaler leaves steps out, so that a slot may not be there yet
        wanted = slots(parameters, sorted(held) if skipped else learnt if state.step else ())
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in matching(path, tensors, "optimizer.", wanted).items():
            index, _, name = key.partition(".")
            moments.setdefault(int(index), {})[name] = value
        average = matching(path, tensors, "average.", self.average.state_dict()) if self.average else {}
        best = matching(path, tensors, "best.", self.result.state_dict()) if state.watch else {}
        try:
            self.task.loss.set_references(state.references)
        except ConfigError as error:
            raise damaged(path, str(error)) from error
        network.load_state_dict(weights)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        if self.average is not None:
            self.average.load_state_dict(average)
        if scaler:
            scaler.load_state_dict(dict(state.scaler or {}))
        self.watch.restore(state.watch or {}, best)
        self.step, self.unreadable = state.step, set(state.unreadable)

    def run(self, dataset: Photographs) -> Generator[Step, None, None]:
        """Train from the present step to the last, yielding a Step after each; ends by saving.

        Closing the generator saves too, at the last complete step.

        Raises:
            TrainingError: a loss, a gradient or a weight is not a finite number, and the last good weights have been
                saved; or the objective ended far above its beginning, and the best weights have been saved.
        """
        config, world, rank = self.config, self.accelerator.num_processes, self.accelerator.process_index
        stream = batches(dataset, config, start=self.step, rank=rank, world=world)
        self.network.train()
        self.watch.begin(self.result.state_dict())
        began, first, saved = time.monotonic(), self.step, -1
        try:
            for pixels, unreadable in stream:
                new = set(unreadable) - self.unreadable
                self.unreadable |= new
                pixels = pixels.to(self.device, memory_format=torch.channels_last, non_blocking=True)
                losses = self._step(pixels, (self.step * world + rank) * config.batch)
                self.step += 1
                self.watch.add(losses["total"], self.step, self.result.state_dict)
                rate = (time.monotonic() - began) / (self.step - first)
                message = f"Skipped {', '.join(sorted(new))}: cannot be read, or a crop of one colour." if new else None
                yield self._tick(losses, rate, message)
                if self.step % config.save_every == 0:
                    self.save()
                    saved = self.step
        except (GeneratorExit, PerceptualError):  # between two steps, so what is saved is consistent
            if saved != self.step:
                self.save()
            raise
        except RuntimeError as error:
            if (explained := _training_error(error)) is None:
                raise
            raise explained from error
        else:
            self._finish()
        finally:
            self._alone.close()

    def _finish(self) -> None:
        """Save the finished network, or the best one of a run that diverged."""
        if self.watch.diverged:
            self.result.load_state_dict(self.watch.weights)
        self.save()
        if self.accelerator.is_main_process:
            self.state_path.unlink(missing_ok=True)  # nothing is left to resume
        self.accelerator.end_training()
        if self.watch.diverged:
            raise TrainingError(
                f"The training diverged: its objective rose from {self.watch.first:.4g} to {self.watch.last:.4g}. "
                f"{self.out} holds the weights of step {self.watch.step}, the best; lower --learning-rate."
            )

    def _step(self, pixels: Tensor, index: int) -> dict[str, float]:
        """One optimiser step; weights and running statistics stay as they are when a number in it is not finite."""
        self._set_trainable()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step)
        statistics = [buffer.clone() for buffer in self.task.network.buffers()]
        self.optimizer.zero_grad(set_to_none=True)
        with self.accelerator.autocast():
            terms = self.task.objective(self.network, pixels, index)
        self.accelerator.backward(terms["total"])
        norm = nn.utils.get_total_norm([p.grad for p in self.network.parameters() if p.grad is not None])
        values = torch.stack([*(v.detach().float() for v in terms.values()), norm.float()])
        if self.accelerator.num_processes > 1:
            values = self.accelerator.reduce(values, "mean")  # so that all processes stop, or none
        numbers = dict(zip([*terms, "the gradient"], values.tolist(), strict=True))
        scaled = self.accelerator.mixed_precision == "fp16"  # its scaler skips steps of infinite gradients itself
        bad = [name for name, value in numbers.items() if not math.isfinite(value) and (name in terms or not scaled)]
        if not bad and not self._advance():
            bad = ["a weight"]
        self.skipped = self.skipped + 1 if scaled and self.accelerator.optimizer_step_was_skipped else 0
        if bad or self.skipped > 20:
            for buffer, value in zip(self.task.network.buffers(), statistics, strict=True):
                buffer.copy_(value)
            raise TrainingError(
                f"Training stopped at step {self.step + 1}: {(bad or ['the gradient'])[0]} is not a finite number. The "
                f"weights of step {self.step} are in {self.out}; lower --learning-rate or the weights of the losses."
            )
        del numbers["the gradient"]
        return numbers

    def _advance(self) -> bool:
        """The optimiser's step; False, with the weights as they were, when it would leave some that are not finite."""
        parameters = list(self.task.network.parameters())
        before = [parameter.detach().clone() for parameter in parameters]
        self.optimizer.step()
        finite = bool(nn.utils.get_total_norm(parameters).isfinite())
        if not finite:
            with torch.no_grad():
                for parameter, value in zip(parameters, before, strict=True):
                    parameter.copy_(value)
        elif self.average is not None:
            self.average.update_parameters(self.task.network)
        return finite

    def _set_trainable(self) -> None:
        """Learn gamma and beta alone as long as the settings say so, then all weights (Adam skips what has no grad)."""
        if not self.config.style_steps:
            return
        style = set(self.task.network.style_parameters().values())
        for parameter in self.task.network.parameters():
            parameter.requires_grad_(self.step >= self.config.style_steps or parameter in style)

    def _tick(self, losses: dict[str, float], seconds: float, message: str | None) -> Step:
        preview = None
        config, main = self.config, self.accelerator.is_main_process
        if main and config.preview_every and self.step % config.preview_every == 0:
            preview = self.task.preview()
        if main and (self.step % config.tick_every == 0 or self.step == config.steps):
            line = {
                "step": self.step,
                **losses,
                "learning_rate": learning_rate(config, self.step - 1),
                "seconds_per_step": round(seconds, 4),
            }
            append_line(side_path(self.out, ".jsonl"), json.dumps(line))
            self.accelerator.log(losses, step=self.step)
        return Step(self.step, config.steps, losses, preview, message)


def preview_sheet(preview: Tensor) -> Tensor:
    """A Step's preview as one picture (1, 3, H, W): the inputs above, the network's outputs below."""
    rows = preview.chunk(2)
    return torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)[None]


def save_preview(out: str | Path, step: Step) -> None:
    """Write a Step's preview as one picture, as `preview_sheet` makes it, into the previews of a run."""
    if step.preview is not None:
        images.write(side_path(out, ".previews") / f"{step.index:06d}.png", preview_sheet(step.preview))


def check_out(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Say before any work that `out` holds something that a run would destroy, or that there is nothing to resume.

    Raises:
        OutputError: `out` is a folder, holds another network, or a log or previews lie beside it that no run with a
            state wrote. TrainingError: a run to resume, or a finished one.
    """
    state = side_path(out, ".state")
    begun = exists(state)
    if begun and not resume and not overwrite:
        raise TrainingError(
            f"{state} holds a run that stopped before its end: add --resume to go on with it, or --overwrite."
        )
    if exists(out) and resume and not begun:
        raise TrainingError(f"{out} is finished: there is nothing to resume.")
    check_new(out, [side_path(out, ".jsonl"), side_path(out, ".previews")], overwrite=overwrite or begun)


def _training_error(error: RuntimeError) -> TrainingError | None:
    """What a user can do about a RuntimeError of PyTorch's; None when it is a bug."""
    if out_of_memory(error):
        return TrainingError("The memory ran out: lower --batch or --size. What was saved last can be resumed.")
    if "DataLoader worker" in str(error):
        return TrainingError("A process that reads pictures was killed: try --workers 0, with --resume.")
    return None


def _check_surroundings(tensorboard: bool) -> None:
    """Say that a package is missing, or that several processes are wanted and nothing started them."""
    if tensorboard and not find_spec("tensorboard"):
        raise ConfigError("--tensorboard needs the package: pip install 'perceptual[tensorboard]'.")
    world = os.environ.get("WORLD_SIZE", "1")
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if world != "1" and missing:
        raise ConfigError(
            f"WORLD_SIZE is {world}, but {missing[0]} is not set: start with `accelerate launch`, or unset WORLD_SIZE."
        )


def learning_rate(config: TrainConfig, step: int) -> float:
    """The learning rate of the step after `step` steps."""
    rate, done, steps = config.learning_rate, step - config.style_steps, config.steps - config.style_steps
    if done < 0:
        rate, done, steps = config.style_learning_rate, step, min(config.style_steps, config.steps)
    if done < config.warmup:
        rate *= (done + 1) / config.warmup
    if config.decay == "tail":
        return rate * min(1.0, (steps - done) / (0.3 * steps))
    return rate * 0.5 * (1 + math.cos(math.pi * done / max(1, steps))) if config.decay == "cosine" else rate
