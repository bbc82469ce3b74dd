"""The training loop: one for every task, a generator of Step, with exact resume.

Everything random is a function of the seed and the step (see `data`), so the state that is saved is the weights, the
optimiser and the step; killed at any moment and resumed, a CPU run ends with the same weights, bit for bit.

Files of a run that writes `starry.safetensors`: `starry.state` (to resume from), `starry.jsonl` (one line per tick),
`starry.previews/` and, if wanted, `starry.tensorboard/`.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Generator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from perceptual import checkpoints, images
from perceptual.config import TrainConfig
from perceptual.data import Photographs, batches
from perceptual.errors import ConfigError, DataError, TrainingError
from perceptual.events import Step
from perceptual.files import write_beside
from perceptual.functional import channels_last
from perceptual.tasks import Task


def side_path(out: str | Path, suffix: str) -> Path:
    """A file beside the checkpoint `out` that belongs to the same run: ("a.safetensors", ".state") -> a.state."""
    path = Path(out)
    return path.with_name((path.stem if path.suffix == ".safetensors" else path.name) + suffix)


def choose_precision(device: torch.device, wanted: str = "auto") -> str:
    """accelerate's name of the precision: "no" (float32), "bf16" or "fp16".

    auto: bfloat16 where the device multiplies it natively (GPUs since Ampere, CPUs with AMX), float16 on older GPUs,
    else float32: a CPU that only emulates bfloat16 is several times slower in it.
    """
    if wanted == "float16" and device.type == "cpu":
        raise ConfigError("float16 trains on a GPU only: choose bfloat16 or float32 on this computer.")
    if wanted != "auto":
        return {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}[wanted]
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu" and getattr(torch.cpu, "_is_amx_tile_supported", bool)():
        return "bf16"
    return "no"


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile has what it needs: a C++ compiler for the CPU, Triton for a GPU."""
    if device.type == "cpu":
        return os.name == "posix" and any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++")))
    return device.type == "cuda" and os.name == "posix"


class Trainer:
    """Trains a task's network on a folder of photographs; iterate over `run`, save when the caller wants to stop.

    Args:
        task: network, objective, preview and card.
        config: steps, batch, learning rate and so on.
        out: where the finished checkpoint goes; the other files of the run lie beside it.

    Attributes: `unreadable`, the files skipped so far; `step`, optimiser steps done.
    """

    def __init__(self, task: Task, config: TrainConfig, out: str | Path, *, tensorboard: bool = False) -> None:
        from accelerate import Accelerator, PartialState
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state()  # it is one for the process, and an earlier Trainer may have left its own
        self.task, self.config, self.out = task, config, Path(out)
        precision = choose_precision(PartialState().device, config.precision)
        self.accelerator = Accelerator(
            mixed_precision=precision,
            log_with="tensorboard" if tensorboard else None,
            project_dir=str(side_path(out, ".tensorboard")),
        )
        self.device = self.accelerator.device
        if tensorboard:
            self.accelerator.init_trackers("")
        channels_last(task.network.to(self.device))
        task.loss.to(self.device)
        optimizer = torch.optim.Adam(task.network.parameters(), lr=config.learning_rate)
        self.network, self.optimizer = self.accelerator.prepare(task.network, optimizer)
        self.compiled = config.compile and can_compile(self.device)
        if self.compiled:
            self.network.compile(dynamic=False)
            task.loss.compile(dynamic=False)
        self.step = 0
        self.unreadable: set[str] = set()

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
        if not self.accelerator.is_main_process:
            return
        tensors = {f"network.{k}": v for k, v in self.task.network.state_dict().items()}
        slots = self.optimizer.state_dict()["state"]
        for index, slot in slots.items():
            tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in slot.items()}
        scaler = self.accelerator.scaler
        info = {
            "step": self.step,
            "scaler": scaler.state_dict() if scaler else None,
            "identity": dict(self.task.identity),
            "unreadable": sorted(self.unreadable),
        }
        checkpoints.save_state(self.state_path, tensors, info)
        checkpoints.save(self.out, self.task.network, self.task.card(self.step))

    def begin(self, *, resume: bool) -> None:
        """Start afresh, or go on from the state beside `out`; a run killed before its first save starts afresh.

        Raises:
            TrainingError: a fresh start would overwrite a run that can be resumed.
            OutputError: the folder of `out` cannot be written to.
            CheckpointError: the state is damaged.
            TrainingError: the state belongs to a run with other settings, or the run is finished.
        """
        if not self.state_path.exists() and resume and self.out.exists():
            raise TrainingError(f"{self.out} is finished: there is nothing to resume.")
        if not resume or not self.state_path.exists():
            if self.state_path.exists():
                raise TrainingError(
                    f"{self.state_path} holds a run that stopped before its end: add --resume to go on with it, "
                    "or delete it, or choose another --out."
                )
            with write_beside(side_path(self.out, ".jsonl")):
                return  # an empty log, and proof that the folder can be written to
        tensors, info = checkpoints.load_state(self.state_path)
        was, now = info["identity"], json.loads(json.dumps(dict(self.task.identity)))
        for key in was.keys() | now.keys():
            if was.get(key) != now.get(key):
                raise TrainingError(
                    f"Cannot resume {self.state_path}: {key} was {was.get(key)} and is now {now.get(key)}."
                )
        self.task.network.load_state_dict(_under(tensors, "network."))
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in _under(tensors, "optimizer.").items():
            index, _, name = key.partition(".")
            slots.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": slots})
        if self.accelerator.scaler and info["scaler"]:
            self.accelerator.scaler.load_state_dict(info["scaler"])
        self.step, self.unreadable = info["step"], set(info["unreadable"])
        _cut_log(side_path(self.out, ".jsonl"), self.step)

    def run(self, dataset: Photographs) -> Generator[Step, None, None]:
        """Train from the present step to the last, yielding a Step after each; ends by saving.

        Closing the generator saves too, at the last complete step.

        Raises:
            TrainingError: a loss or a gradient is not a finite number; the last good weights have been saved.
        """
        config, batch = self.config, self.config.batch
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        stream = batches(dataset, config, start=self.step, rank=rank, world=world)
        self.network.train()
        began, first, saved = time.monotonic(), self.step, -1
        try:
            for pixels, unreadable in stream:
                new = set(unreadable) - self.unreadable
                self.unreadable |= new
                pixels = pixels.to(self.device, memory_format=torch.channels_last, non_blocking=True)
                losses = self._step(pixels, (self.step * world + rank) * batch)
                self.step += 1
                rate = (time.monotonic() - began) / (self.step - first)
                message = f"Skipped {', '.join(sorted(new))}: cannot be read." if new else None
                yield self._tick(losses, rate, message)
                if self.step % config.save_every == 0:
                    self.save()
                    saved = self.step
        except (GeneratorExit, TrainingError, DataError):  # between two steps, so what is saved is consistent
            if saved != self.step:
                self.save()
            raise
        self.save()
        if self.accelerator.is_main_process:
            self.state_path.unlink(missing_ok=True)  # nothing is left to resume
        self.accelerator.end_training()

    def _step(self, pixels: Tensor, index: int) -> dict[str, float]:
        """One optimiser step; the weights stay as they are when the losses or gradients are not finite."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        with self.accelerator.autocast():
            terms = self.task.objective(self.network, self.task.loss, pixels, index)
        self.accelerator.backward(terms["total"])
        norm = nn.utils.get_total_norm([p.grad for p in self.network.parameters() if p.grad is not None])
        scaled = self.accelerator.mixed_precision == "fp16"  # its scaler skips steps of infinite gradients itself
        values = torch.stack([*(v.detach().float() for v in terms.values()), norm.float()]).tolist()
        if not all(map(math.isfinite, values[:-1] if scaled else values)):
            bad = next((k for k, v in zip(terms, values, strict=False) if not math.isfinite(v)), "the gradient")
            raise TrainingError(
                f"Training stopped at step {self.step + 1}: {bad} is not a finite number. The weights of step "
                f"{self.step} are in {self.out}; lower --learning-rate or the weights of the losses."
            )
        self.optimizer.step()
        return dict(zip(terms, values, strict=False))

    def _tick(self, losses: dict[str, float], seconds: float, message: str | None) -> Step:
        preview = None
        config, main = self.config, self.accelerator.is_main_process
        if main and config.preview_every and self.step % config.preview_every == 0:
            preview = self.task.preview(self.network)
        if main and (self.step % config.tick_every == 0 or self.step == config.steps):
            line = {
                "step": self.step,
                **losses,
                "learning_rate": learning_rate(config, self.step - 1),
                "seconds_per_step": round(seconds, 4),
            }
            with open(side_path(self.out, ".jsonl"), "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self.accelerator.log(losses, step=self.step)
        return Step(self.step, config.steps, losses, preview, message)


def save_preview(out: str | Path, step: Step) -> None:
    """Write a Step's preview as one picture: photographs above, paintings below."""
    if step.preview is not None:
        rows = step.preview.chunk(2)
        sheet = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)[None]
        images.write(side_path(out, ".previews") / f"{step.index:06d}.png", sheet)


def learning_rate(config: TrainConfig, step: int) -> float:
    """The learning rate of the step after `step` steps."""
    if config.decay == "cosine":
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * step / config.steps))
    return config.learning_rate


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _cut_log(path: Path, step: int) -> None:
    """Drop the lines of a log that a resumed run will write again, and a last one that was cut."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except ValueError:
            continue
    with write_beside(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
