"""The training loop of all tasks: a generator of Steps that can be interrupted and resumed.

All random numbers depend on the seed and the step only (see `data`). So the state file contains the weights, the
optimiser and the step. A run on a CPU that is killed and resumed ends with exactly the same weights.

A run that writes `starry.safetensors` also writes these files: `starry.state` (for --resume), `starry.jsonl` (the log),
`starry.toml` (the settings, written by the command), `starry.previews/`, and with --tensorboard `starry.tensorboard/`.
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
from perceptual.devices import can_compile, channels_last, choose_device, choose_precision, make_adam, out_of_memory
from perceptual.errors import ConfigError, PerceptualError, TrainingError
from perceptual.events import Step
from perceptual.files import append_line, check_new, exists, one_run, remove_previews, write_beside
from perceptual.networks import TransformationNetwork
from perceptual.tasks.base import Task
from perceptual.train.divergence import Divergence
from perceptual.train.state import RunState, check_same, cut_log, damaged, matching, read_state, slots


def side_path(out: str | Path, suffix: str) -> Path:
    """The path of another file of the run that writes the checkpoint `out`: ("a.safetensors", ".state") -> a.state."""
    path = Path(out)
    return path.with_name((path.stem if path.suffix == ".safetensors" else path.name) + suffix)


class Trainer:
    """Trains the network of a task on photos: call `begin`, then iterate over `run`. Close the generator to stop early.

    Args:
        task: the task, with its network, objective, preview and card.
        config: the settings of the training: steps, batch size, learning rate and so on.
        out: the checkpoint to write. The other files of the run are written next to it.

    Attributes: `step`, the number of optimiser steps done; `unreadable`, names of the photos that were skipped so far.

    Raises:
        ConfigError: there is no such device, a package is missing, or the settings do not fit several processes.
    """

    def __init__(
        self, task: Task, config: TrainConfig, out: str | Path, *, device: str = "auto", tensorboard: bool = False
    ) -> None:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState

        _check_environment(tensorboard)
        AcceleratorState._reset_state(reset_partial_state=True)  # removes the settings of an earlier Trainer
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
            task.loss.networks.cast(torch.bfloat16)  # once here, so that no step has to cast them
        if self.accelerator.num_processes > 1 and 0 < config.style_steps < config.steps:
            raise ConfigError("With several processes --style-steps must be 0 or equal to --steps: change one of them.")
        self._set_trainable()
        parameters, precision = task.network.parameters(), self.accelerator.mixed_precision
        optimizer = make_adam(parameters, config.learning_rate, self.device, precision)
        self.network, self.optimizer = self.accelerator.prepare(task.network, optimizer)
        self.average = AveragedModel(task.network, avg_fn=self._mean, use_buffers=True) if config.ema else None
        self.compiled = config.compile and can_compile(self.device)
        if self.compiled:
            self.network.compile(dynamic=False)
            task.loss.compile(dynamic=False)
        self.skipped, self.watch = 0, Divergence(config.steps)
        self.unreadable: set[str] = set()
        self._lock = ExitStack()  # the lock on `out`, from `begin` to the end of `run`

    def identity(self) -> dict[str, Any]:
        """Settings and hashes that must be the same in a resumed run."""
        here = {"processes": self.accelerator.num_processes, "precision": str(self.accelerator.mixed_precision)}
        return {**self.task.identity, "computer": here}

    @property
    def state_path(self) -> Path:
        """The state file, for --resume."""
        return side_path(self.out, ".state")

    def describe(self) -> str:
        """Precision, device, and "compiled" or "eager", such as "float32 on cpu, eager"."""
        precision = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}[self.accelerator.mixed_precision]
        return f"{precision} on {self.device.type}, {'compiled' if self.compiled else 'eager'}"

    def save(self) -> None:
        """Write the state file, and the checkpoint with the current weights. OutputError if that is impossible."""
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
        """The network that the checkpoint contains: with the moving average of the weights if `ema` is set."""
        if self.average is None:
            return self.task.network
        averaged = self.average.module
        assert isinstance(averaged, TransformationNetwork)
        return averaged

    def _mean(self, mean: Tensor, value: Tensor, count: Tensor | int) -> Tensor:
        """The moving average with one more value. Its decay rises from step to step up to `ema`."""
        number = float(count)
        return torch.lerp(value, mean, min(self.config.ema, (number + 1) / (number + 10)))

    def begin(self, *, resume: bool = False, overwrite: bool = False) -> None:
        """Start a new run, or continue from the state file. The state file exists from here to the end of the run.

        resume: continue from the state file if there is one. overwrite: replace the files of an earlier run.

        Raises:
            OutputError, TrainingError: as `check_out`; the folder cannot be written to, another process trains to
                `out`, or the state file has other settings. CheckpointError: it is damaged.
        """
        if self.accelerator.is_main_process:
            self._lock.enter_context(one_run(self.out))
        check_out(self.out, resume=resume, overwrite=overwrite)
        new_run = not resume or not exists(self.state_path)
        self.accelerator.wait_for_everyone()  # no process writes before all have checked
        if new_run:
            if self.accelerator.is_main_process:
                self._save_state()  # so that a run that is killed early does not look finished
                remove_previews(side_path(self.out, ".previews"))
                with write_beside(side_path(self.out, ".jsonl")):
                    pass
            return
        tensors, state = read_state(self.state_path)
        check_same(self.state_path, state.identity, self.identity(), self.task.photographs)
        if state.step:  # at step 0 nothing was trained, so there is nothing to restore
            self._restore(tensors, state)
        cut_log(side_path(self.out, ".jsonl"), self.step)

    def _restore(self, tensors: Mapping[str, Tensor], state: RunState) -> None:
        """Restore the run. The whole file is checked before anything is changed; errors are CheckpointErrors."""
        path, network, scaler = self.state_path, self.task.network, self.accelerator.scaler
        if state.step > self.config.steps:
            raise damaged(path, f"step {state.step} of {self.config.steps}")
        if scaler and set(state.scaler or ()) != set(scaler.state_dict()):
            raise damaged(path, "the scaler of float16 is missing")
        weights = matching(path, tensors, "network.", network.state_dict())
        parameters, style = list(network.parameters()), set(network.style_parameters().values())
        learnt = [k for k, each in enumerate(parameters) if state.step > self.config.style_steps or each in style]
        held = {int(name.split(".")[1]) for name in tensors if re.fullmatch(r"optimizer\.\d{1,9}\..*", name)}
        skipped = scaler and held <= set(learnt)  # the scaler may have skipped all steps of a parameter
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
        """Train to the last step and write the checkpoint. A generator that yields a Step after each optimiser step.

        Closing the generator also saves, at the last complete step.

        Raises:
            TrainingError: a loss, a gradient or a weight is not finite (the last finite weights are saved), or the
                training diverged (the best weights are saved), or the memory is full.
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
        except (GeneratorExit, PerceptualError):  # raised between two steps: weights and step number are consistent
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
            self._lock.close()

    def _finish(self) -> None:
        """Save the finished network. If the run diverged, save its best weights and raise a TrainingError."""
        if self.watch.diverged:
            self.result.load_state_dict(self.watch.weights)
        self.save()
        if self.accelerator.is_main_process:
            self.state_path.unlink(missing_ok=True)  # the run is finished: no --resume
        self.accelerator.end_training()
        if self.watch.diverged:
            raise TrainingError(
                f"The training diverged: its objective rose from {self.watch.first:.4g} to {self.watch.last:.4g}. "
                f"{self.out} contains the best weights, those of step {self.watch.step}: lower --learning-rate."
            )

    def _step(self, pixels: Tensor, index: int) -> dict[str, float]:
        """Do one optimiser step, and return the terms by name. If a number is not finite, nothing is changed."""
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
            values = self.accelerator.reduce(values, "mean")  # so that all processes stop at the same step
        numbers = dict(zip([*terms, "the gradient"], values.tolist(), strict=True))
        scaled = self.accelerator.mixed_precision == "fp16"  # the scaler itself skips steps with infinite gradients
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
        """Update the weights; if they are not finite then, restore the old ones and return False."""
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
        """Train only gamma and beta for the first `style_steps` steps (Adam skips what has no gradient), then all."""
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
    """Arrange a preview (2 N, 3, h, w) as one image (1, 3, H, W): N inputs above, and the N outputs below."""
    rows = preview.chunk(2)
    return torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)[None]


def save_preview(out: str | Path, step: Step) -> None:
    """Write the preview of a Step, if it has one, to the preview folder of the run that writes `out`."""
    if step.preview is not None:
        images.write(side_path(out, ".previews") / f"{step.index:06d}.png", preview_sheet(step.preview))


def check_out(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Check, before the training starts, that it will not replace files by accident and that --resume is possible.

    out: the checkpoint to write. resume, overwrite: as in `Trainer.begin`.

    Raises:
        OutputError: `out` is a folder or exists, or there is a log or a preview folder next to it without a state file.
        TrainingError: there is an unfinished run, or --resume was given for a finished one.
    """
    state = side_path(out, ".state")
    begun = exists(state)
    if begun and not resume and not overwrite:
        raise TrainingError(
            f"{state} belongs to an unfinished run: add --resume to continue it, or --overwrite to start again."
        )
    if exists(out) and resume and not begun:
        raise TrainingError(f"{out} is finished, so there is nothing to resume: leave --resume out.")
    check_new(out, [side_path(out, ".jsonl"), side_path(out, ".previews")], overwrite=overwrite or begun)


def _training_error(error: RuntimeError) -> TrainingError | None:
    """An error with advice for a known RuntimeError of PyTorch; None for all others."""
    if out_of_memory(error):
        return TrainingError("The memory is full: lower --batch or --size, and continue with --resume.")
    if "DataLoader worker" in str(error):
        return TrainingError("A process that reads photos was killed: try --workers 0 together with --resume.")
    return None


def _check_environment(tensorboard: bool) -> None:
    """Check that TensorBoard is installed if it is needed, and that the variables for several processes are set."""
    if tensorboard and not find_spec("tensorboard"):
        raise ConfigError("--tensorboard needs a package: pip install 'perceptual[tensorboard]'.")
    world = os.environ.get("WORLD_SIZE", "1")
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if world != "1" and missing:
        raise ConfigError(
            f"WORLD_SIZE is {world}, but {missing[0]} is not set: start with `accelerate launch`, or unset WORLD_SIZE."
        )


def learning_rate(config: TrainConfig, step: int) -> float:
    """The learning rate of the next step. step: number of steps that are done."""
    rate, done, steps = config.learning_rate, step - config.style_steps, config.steps - config.style_steps
    if done < 0:
        rate, done, steps = config.style_learning_rate, step, min(config.style_steps, config.steps)
    if done < config.warmup:
        rate *= (done + 1) / config.warmup
    if config.decay == "tail":
        return rate * min(1.0, (steps - done) / (0.3 * steps))
    return rate * 0.5 * (1 + math.cos(math.pi * done / max(1, steps))) if config.decay == "cosine" else rate
