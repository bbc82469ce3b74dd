"""The processes of a training run, started by `torchrun` or `accelerate launch`. Each computes its share of a step.

Step by step, all processes agree whether to go on: before they compute, and before they average the gradients. So an
error in one process, or a signal to one process, ends the step for all. They agree in a group of their own, over TCP
(gloo), so that a GPU does not have to wait.

An error that cannot be agreed, such as a full GPU memory or SIGKILL, ends its process. The connection breaks, and
PyTorch raises a RuntimeError in the others, which `Processes.lost` recognises.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from perceptual.devices import choose_device
from perceptual.errors import ConfigError, PerceptualError

T = TypeVar("T")
Batch = tuple[Tensor, list[str]]

GO, NEWS, END, STOP, FAILED = range(5)
"""What a process proposes for the next step. The largest proposal counts. NEWS: compute it, and some photos of it were
skipped."""


class Processes:
    """All processes of a training run, seen from one of them. With one process, nothing is sent.

    Attributes:
        count: number of processes.
        index: number of this process, from 0. Process 0 writes the files and prints.
        main: True for process 0.
        stopped: True after `turns` ended because a process was asked to stop.
    """

    def __init__(self, count: int = 1, index: int = 0) -> None:
        self.count, self.index, self.main, self.stopped = count, index, index == 0, False
        self._known: PerceptualError | None = None

    def share(self, batch: int) -> int:
        """Number of photos of a step for each process. batch: number of photos of the whole step.

        Raises:
            ConfigError: the photos cannot be divided equally.
        """
        if batch % self.count:
            more = -(-batch // self.count) * self.count
            raise ConfigError(
                f"--batch is {batch}, which {self.count} processes cannot share equally: give a multiple of "
                f"{self.count}, such as --batch {more}, or start another number of processes."
            )
        return batch // self.count

    def largest(self, number: int) -> int:
        """The largest of the numbers that the processes give. All processes must call it."""
        if self.count == 1:
            return number
        value = torch.tensor([number])
        distributed.all_reduce(value, distributed.ReduceOp.MAX, group=_control())
        return int(value)

    def gather(self, mine: T) -> list[T]:
        """What each process gives, in the order of the processes. All processes must call it."""
        if self.count == 1:
            return [mine]
        found: list[Any] = [None] * self.count
        distributed.all_gather_object(found, mine, group=_control())
        return found

    def together(self, work: Callable[[], T]) -> T:
        """Do some work in all processes. If it fails in one, all raise the PerceptualError of the first that failed."""
        if self.count == 1:
            return work()
        try:
            result = work()
        except PerceptualError as error:
            self._agree(FAILED, error)
            raise  # not reached: `_agree` raises
        self._agree(GO)
        return result

    def from_main(self, work: Callable[[], T]) -> T:
        """Do some work in process 0 only. All processes get its result, or raise its PerceptualError."""
        found = [self.together(lambda: work() if self.main else None)]
        if self.count > 1:
            distributed.broadcast_object_list(found, src=0, group=_control())
        return found[0]  # type: ignore[return-value]

    def check_equal(self, identity: Mapping[str, Any]) -> None:
        """Check that all processes have the same settings, photos and paintings. identity: as in `Trainer.identity`.

        Raises:
            ConfigError: a process has others than process 0.
        """
        text = json.dumps(identity, sort_keys=True).encode("utf-8", "replace")
        first, *others = self.gather(hashlib.sha256(text).hexdigest())
        for number, other in enumerate(others, start=1):
            if other != first:
                raise ConfigError(
                    f"Process {number} has other settings, photos or paintings than process 0: give all processes the "
                    "same flags and the same files."
                )

    def turns(self, batches: Iterator[Batch], stopping: Sized) -> Iterator[Batch]:
        """Yield the batches of this process, as long as all processes go on. The skipped photos are those of all.

        batches: this process's share of each step. stopping: if it is not empty, all processes stop before the next
            step, and `stopped` is True.

        Raises:
            PerceptualError: a batch of some process cannot be read; or another process left the run with this error.
        """
        self.stopped = False
        while True:
            batch, error, proposal = None, None, STOP
            if not stopping:
                try:
                    batch = next(batches, None)
                    proposal = END if batch is None else NEWS if batch[1] else GO
                except PerceptualError as caught:
                    error, proposal = caught, FAILED
            agreed = self._agree(proposal, error)
            if batch is None or agreed in (END, STOP):
                self.stopped = agreed == STOP
                return
            if agreed == NEWS:
                batch = batch[0], [path for paths in self.gather(batch[1]) for path in paths]
            yield batch

    @contextmanager
    def leaving(self, error: BaseException) -> Iterator[None]:
        """Run the block, then tell the other processes that this one stops with `error`. Use it between two steps.

        Nothing is told if all know this error.
        """
        try:
            yield
        finally:
            if self.count > 1 and error is not self._known:
                failed = error if isinstance(error, PerceptualError) else None
                with suppress(RuntimeError, PerceptualError):  # they may have ended already
                    self._agree(FAILED if failed else STOP, failed)

    def lost(self, error: RuntimeError) -> bool:
        """Whether this error means that another process has ended."""
        known = re.search(r"gloo|nccl|connection|peer|socket", str(error), re.IGNORECASE)
        return self.count > 1 and (isinstance(error, distributed.DistError) or known is not None)

    def _agree(self, proposal: int, error: PerceptualError | None = None) -> int:
        """The largest proposal. If it is FAILED, all processes raise the first error."""
        agreed = self.largest(proposal)
        if agreed == FAILED:
            self._known = next(found for found in self.gather(error) if found is not None)
            raise self._known
        return agreed


def join(device: str = "auto") -> Processes:
    """Wait for the other processes of the launcher, if there are any. Returns the same processes each time.

    device: as in `Trainer`.

    Raises:
        ConfigError: there is no such device, or the variables of the launcher are incomplete.
    """
    world = os.environ.get("WORLD_SIZE", "1")
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if world != "1" and missing:
        raise ConfigError(
            f"WORLD_SIZE is {world}, but {missing[0]} is not set: start with `accelerate launch`, or unset WORLD_SIZE."
        )
    return Processes() if world == "1" else _joined(device)


@lru_cache
def _joined(device: str) -> Processes:
    from accelerate import PartialState

    PartialState(cpu=choose_device(device).type == "cpu")
    atexit.register(_leave)
    return Processes(distributed.get_world_size(), distributed.get_rank())


def _leave() -> None:
    """End the threads of all groups before Python ends. With running threads, C++ can abort the process (SIGABRT)."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


@lru_cache
def _control() -> Any:
    """The group in which the processes agree."""
    return distributed.new_group(backend="gloo")
