"""The training loop of all tasks: a generator of Steps that can be interrupted and resumed.

All random numbers depend on the seed and the step only (see `data`). So the state file contains the weights, the
optimiser and the step. A run on a CPU that is killed and resumed ends with exactly the same weights.

Several processes (see `processes`) train on the same photos as one process does: each computes its share of the photos
of every step, and the gradients are averaged.

A run that writes `starry.safetensors` also writes these files: `starry.state` (for --resume), `starry.jsonl` (the log),
`starry.toml` (the settings, written by the command), `starry.previews/`, and with --tensorboard `starry.tensorboard/`.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Generator, Mapping, Sized
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from perceptual import checkpoints
from perceptual.config import TrainConfig
from perceptual.data import Photographs, batches
from perceptual.devices import can_compile, channels_last, choose_device, choose_precision, make_adam, out_of_memory
from perceptual.errors import ConfigError, PerceptualError, TrainingError
from perceptual.events import Step
from perceptual.files import append_line, exists, one_run, remove_previews, write_beside
from perceptual.networks import TransformationNetwork
from perceptual.tasks.base import Task
from perceptual.train.divergence import Divergence
from perceptual.train.graph import StepGraph
from perceptual.train.outputs import check_out, side_path, start_tensorboard
from perceptual.train.processes import join
from perceptual.train.schedule import learning_rate
from perceptual.train.state import PRECISIONS, RunState, check_same, cut_log, damaged, matching, read_state, slots


class Trainer:
    """Trains the network of a task on photos: call `begin`, then iterate over `run`. Close the generator to stop early.

    Under `torchrun` or `accelerate launch`, all processes do the same with their own Trainer.

    Args:
        task: the task, with its network, objective, preview and card.
        config: the settings of the training: steps, batch size, learning rate and so on.
        out: the checkpoint to write. The other files of the run are written next to it.

    Attributes: `step`, the number of optimiser steps done; `unreadable`, names of the photos that were skipped so far;
    `processes`, all processes of the run.

    Raises:
        ConfigError: there is no such device, a package is missing, or the processes cannot share a batch equally.
    """

    def __init__(
        self, task: Task, config: TrainConfig, out: str | Path, *, device: str = "auto", tensorboard: bool = False
    ) -> None:
        if tensorboard and not find_spec("tensorboard"):
            raise ConfigError("--tensorboard needs a package: pip install 'perceptual[tensorboard]'.")
        self.processes = join(device)
        self.share = self.processes.share(config.batch)
        self.task, self.config, self.out, self.step = task, config, Path(out), 0
        self.accelerator = self._accelerator(choose_device(device), tensorboard)
        self.device = self.accelerator.device
        channels_last(task.network.to(self.device))
        task.loss.to(self.device)
        if self.accelerator.mixed_precision == "bf16" and task.loss.networks is not None:
            task.loss.networks.cast(torch.bfloat16)  # once here, so that no step has to cast them
        if self.processes.count > 1:
            task.share = (self.processes.index * self.share, config.batch)
            task.loss.set_references(self.processes.from_main(task.loss.references))
        self._set_trainable()
        parameters, precision = task.network.parameters(), self.accelerator.mixed_precision
        optimizer = make_adam(parameters, config.learning_rate, self.device, precision)
        self.network, self.optimizer = self.accelerator.prepare(task.network, optimizer)
        self.average = AveragedModel(task.network, multi_avg_fn=self._mean, use_buffers=True) if config.ema else None
        self.compiled = config.compile and can_compile(self.device)
        if self.compiled:
            self.network.compile(dynamic=False)
            task.loss.compile(dynamic=False)
        able = self.device.type == "cuda" and self.processes.count == 1 and precision != "fp16"
        self.graphs = able and task.graphs
        self.graph: StepGraph | None = None
        self.skipped, self.watch, self._saved = 0, Divergence(config.steps), -1
        self.unreadable: set[str] = set()
        self._lock = ExitStack()  # the lock on `out`, from `begin` to the end of `run`

    def _accelerator(self, wanted: torch.device, tensorboard: bool) -> Any:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)  # removes the settings of an earlier Trainer
        if wanted.index is not None and wanted.type == "cuda":
            torch.cuda.set_device(wanted)
        return Accelerator(
            cpu=wanted.type == "cpu",
            mixed_precision=choose_precision(wanted, self.config.precision),
            log_with="tensorboard" if tensorboard else None,
            project_dir=str(side_path(self.out, ".tensorboard")),
        )

    def identity(self) -> dict[str, Any]:
        """Settings and hashes that must be the same in a resumed run."""
        return {**self.task.identity, "computer": {"precision": str(self.accelerator.mixed_precision)}}

    @property
    def state_path(self) -> Path:
        """The state file, for --resume."""
        return side_path(self.out, ".state")

    def describe(self) -> str:
        """Precision, device, "compiled" or "eager", and several processes, such as "float32 on cpu, eager"."""
        precision = PRECISIONS[self.accelerator.mixed_precision]
        several = f", in {self.processes.count} processes" if self.processes.count > 1 else ""
        return f"{precision} on {self.device.type}, {'compiled' if self.compiled else 'eager'}{several}"

    def save(self) -> None:
        """Write the state file, and the checkpoint with the current weights. OutputError if that is impossible.

        Process 0 writes; the others do not wait for it.
        """
        if self.processes.main:
            self._save_state()
            checkpoints.save(self.out, self.result, self.task.card(self.step))
        self._saved = self.step

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

    def _mean(self, means: Any, values: Any, count: Tensor | int) -> None:
        """Put new values into the moving averages of tensors. The decay rises from step to step up to `ema`."""
        number = float(count)
        if means[0].is_floating_point():  # else it is the counter of batch norm
            decay = min(self.config.ema, (number + 1) / (number + 10))
            get_ema_multi_avg_fn(decay)(means, values, count)  # type: ignore[no-untyped-call]

    def begin(self, *, resume: bool = False, overwrite: bool = False) -> None:
        """Start a new run, or continue from the state file. The state file exists from here to the end of the run.

        resume: continue from the state file if there is one. overwrite: replace the files of an earlier run.

        Raises:
            OutputError, TrainingError: as `check_out`; the folder cannot be written to, another process trains to
                `out`, or the state file has other settings. CheckpointError: it is damaged.
        """
        held = self.processes.from_main(lambda: self._open(resume=resume, overwrite=overwrite))
        self.processes.check_equal(self.identity())
        if held is not None and held[1].step:  # at step 0 nothing was trained, so there is nothing to restore
            self.processes.together(lambda: self._restore(*held))
        if held is not None and self.processes.main:
            cut_log(side_path(self.out, ".jsonl"), self.step)

    def _open(self, *, resume: bool, overwrite: bool) -> tuple[dict[str, Tensor], RunState] | None:
        """Lock the output, and read and check the state to continue from; None for a new run. In process 0 only."""
        self._lock.enter_context(one_run(self.out))
        check_out(self.out, resume=resume, overwrite=overwrite)
        going_on = resume and exists(self.state_path)
        start_tensorboard(self.accelerator, side_path(self.out, ".tensorboard"), new=not going_on)
        if going_on:
            tensors, state = read_state(self.state_path)
            check_same(self.state_path, state.identity, self.identity(), self.task.photographs)
            return tensors, state
        self._save_state()  # so that a run that is killed early does not look finished
        remove_previews(side_path(self.out, ".previews"))
        with write_beside(side_path(self.out, ".jsonl")):
            pass
        return None

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
            strided = torch.empty_like(wanted[key]).copy_(value)  # a fused Adam needs the strides of the parameter
            moments.setdefault(int(index), {})[name] = strided
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

    def run(self, dataset: Photographs, stopping: Sized = ()) -> Generator[Step, None, None]:
        """Train to the last step and write the checkpoint. A generator that yields a Step after each optimiser step.
        Closing it also saves, at the last complete step.

        stopping: as soon as it is not empty in some process, all processes stop after the same step, and process 0
            saves. `processes.stopped` is then True.

        Raises:
            TrainingError: a loss, a gradient or a weight is not finite (the last finite weights are saved), or the
                training diverged (the best weights are saved), or the memory is full, or another process ended.
            PerceptualError: another process failed with this error.
        """
        config, first = self.config, self.processes.index * self.share
        stream = batches(dataset, config, start=self.step, first=first, count=self.share, device=self.device)
        self.network.train()
        self.watch.begin(self.result.state_dict())
        began, start = time.monotonic(), self.step
        try:
            for pixels, unreadable in self.processes.turns(stream, stopping):
                message = self._note(unreadable)
                losses = self._step(pixels, self.step * config.batch + first)
                self.step += 1
                self.watch.add(losses["total"], self.step, self.result.state_dict)
                rate = (time.monotonic() - began) / (self.step - start)
                yield self._tick(losses, rate, message)
                if self.step % config.save_every == 0:
                    self.save()
        except (GeneratorExit, PerceptualError) as error:  # raised between two steps: weights and step are consistent
            with self.processes.leaving(error):
                self._save_last()
            raise
        except (RuntimeError, MemoryError) as error:
            if (explained := self._explain(error)) is None:
                raise
            raise explained from error
        else:  # together, so that no process ends before the files are complete
            self.processes.together(self._save_last if self.processes.stopped else self._finish)
        finally:
            self._lock.close()

    def _note(self, unreadable: list[str]) -> str | None:
        """Remember skipped photos; a message about those that are new."""
        new = set(unreadable) - self.unreadable
        self.unreadable |= new
        return f"Skipped {', '.join(sorted(new))}: cannot be read, or a crop of one colour." if new else None

    def _save_last(self) -> None:
        if self._saved != self.step:
            self.save()

    def _finish(self) -> None:
        """Save the finished network. If the run diverged, save its best weights and raise a TrainingError."""
        if self.watch.diverged:
            self.result.load_state_dict(self.watch.weights)
            self.step = self.watch.step
        self.save()
        if self.processes.main:
            self.state_path.unlink(missing_ok=True)  # the run is finished: no --resume
        for tracker in self.accelerator.trackers:
            tracker.finish()
        if self.watch.diverged:
            raise TrainingError(self.watch.describe(self.out))

    def _explain(self, error: RuntimeError | MemoryError) -> TrainingError | None:
        """An error with advice for a full memory and known errors of PyTorch; None for all others."""
        if isinstance(error, RuntimeError) and self.processes.lost(error):
            self._save_last()  # the step was not finished, so the weights are those of the step before
            return TrainingError(
                f"Another process of this training ended, so it stopped after step {self.step}: continue with --resume."
            )
        if out_of_memory(error):
            return TrainingError(
                "The memory is full: free some and continue with --resume, or start again with --overwrite and a lower "
                "--batch or --size, or without --keep-photos."
            )
        if "DataLoader worker" in str(error):
            return TrainingError("A process that reads photos was killed: try --workers 0 together with --resume.")
        return None

    def _step(self, pixels: Tensor, index: int) -> dict[str, float]:
        """Do one optimiser step, and return the terms by name. If a number is not finite, nothing is changed."""
        pixels = pixels.to(self.device, memory_format=torch.channels_last, non_blocking=True)
        self._set_trainable()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step)
        statistics = [buffer.clone() for buffer in self.task.network.buffers()]
        try:
            return self._update(pixels, index)
        except (RuntimeError, PerceptualError):
            for buffer, value in zip(self.task.network.buffers(), statistics, strict=True):
                buffer.copy_(value)
            raise

    def _update(self, pixels: Tensor, index: int) -> dict[str, float]:
        """`_step` without the restoring of the buffers."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.graphs:
            self.graph = self.graph or StepGraph(self.task, self.network, self.accelerator.autocast)
            terms = self.graph(pixels, *self.task.draw(pixels, index))
        else:
            with self.accelerator.autocast():  # if it fails in one process, no process averages gradients
                terms = self.processes.together(lambda: self.task.objective(self.network, pixels, index))
            self.accelerator.backward(terms["total"])
        norm = nn.utils.get_total_norm([p.grad for p in self.network.parameters() if p.grad is not None])
        values = torch.stack([*(v.detach().float() for v in terms.values()), norm.float()])
        if self.processes.count > 1:
            values = self.accelerator.reduce(values, "mean")  # so that all processes stop at the same step
        numbers = dict(zip([*terms, "the gradient"], values.tolist(), strict=True))
        scaled = self.accelerator.mixed_precision == "fp16"  # the scaler itself skips steps with infinite gradients
        bad = [name for name, value in numbers.items() if not math.isfinite(value) and (name in terms or not scaled)]
        if not bad and not self._advance():
            bad = ["a weight"]
        self.skipped = self.skipped + 1 if scaled and self.accelerator.optimizer_step_was_skipped else 0
        if bad or self.skipped > 20:
            raise TrainingError(
                f"Training stopped at step {self.step + 1}: {(bad or ['the gradient'])[0]} is not a finite number. The "
                f"weights of step {self.step} are in {self.out}; lower --learning-rate or the weights of the losses."
            )
        return {name: numbers[name] for name in terms}

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
        network, everything = self.task.network, self.step >= self.config.style_steps
        style = set(network.style_parameters().values())
        changed = [p for p in network.parameters() if p.requires_grad != (everything or p in style)]
        for parameter in changed:
            parameter.requires_grad_(not parameter.requires_grad)
            self.graph = None
        if changed and self.step and isinstance(self.network, DistributedDataParallel):
            # it averages the gradients of the parameters that were trained when it was made
            self.network = DistributedDataParallel(network, device_ids=self.network.device_ids)
            if self.compiled:
                self.network.compile(dynamic=False)

    def _tick(self, losses: dict[str, float], seconds: float, message: str | None) -> Step:
        preview = None
        config, main = self.config, self.processes.main
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
