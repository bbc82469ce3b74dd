"""One of several training processes: runs `perceptual` once for each job, and prints the exit codes.

A job is {"words": the command line, "spoil": the name of a function below, "rank": the process in which it is called}.
"""

import atexit
import errno
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from torch import Tensor, distributed

from perceptual import cli
from perceptual.data import Photographs
from perceptual.errors import ImageError
from perceptual.tasks.style import Style
from perceptual.train import Trainer

Patch = pytest.MonkeyPatch


def send(patch: Patch, *numbers: int, after: int) -> None:
    """Send signals to this process while it computes the step that follows step `after`."""
    plain = Trainer._step

    def spoiled(self: Trainer, pixels: Tensor, index: int) -> dict[str, float]:
        for number in numbers if self.step == after else ():
            os.kill(os.getpid(), number)
        return plain(self, pixels, index)

    patch.setattr(Trainer, "_step", spoiled)


def terminated(patch: Patch) -> None:
    """SIGTERM twice during step 3, as a launcher may send it."""
    send(patch, signal.SIGTERM, signal.SIGTERM, after=2)


def killed(patch: Patch) -> None:
    """SIGKILL during step 4."""
    send(patch, signal.SIGKILL, after=3)


def unreadable(patch: Patch) -> None:
    """From photo 8 of the stream on, no photo can be read."""
    plain, item = Photographs._cut, Photographs.__getitem__

    def refuse(self: Photographs, path: Path, rng: object) -> Tensor:
        raise ImageError("not a photo")

    def spoiled(self: Photographs, k: int) -> tuple[Tensor, list[str]]:
        patch.setattr(Photographs, "_cut", plain if k < 8 else refuse)
        return item(self, k)

    patch.setattr(Photographs, "__getitem__", spoiled)


def out_of_range(patch: Patch) -> None:
    """In the second step the loss refuses the output of the network, as it may in a run that diverges."""
    plain = Style.objective

    def spoiled(self: Style, forward: object, pixels: Tensor, index: int) -> dict[str, Tensor]:
        terms = plain(self, forward, pixels, index)  # type: ignore[arg-type]
        if index >= 4:
            raise ImageError("The output has values far outside [0, 1].")
        return terms

    patch.setattr(Style, "objective", spoiled)


def disk_full(patch: Patch) -> None:
    """Nothing can be saved after the first step."""
    plain = Trainer.save

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def spoiled(self: Trainer) -> None:
        patch.setattr(os, "fsync", full)
        plain(self)

    patch.setattr(Trainer, "save", spoiled)


def broken(patch: Patch) -> None:
    """An error that nobody foresaw, in the second step."""
    plain = Trainer._update

    def spoiled(self: Trainer, pixels: Tensor, index: int) -> dict[str, float]:
        if self.step == 1:
            raise RuntimeError("a bug")
        return plain(self, pixels, index)

    patch.setattr(Trainer, "_update", spoiled)


if __name__ == "__main__":
    ended = Path(f"ended{os.environ['RANK']}.txt")
    atexit.register(lambda: ended.write_text(f"groups: {distributed.is_initialized()}"))  # called last
    for job in json.loads(sys.argv[1]):
        with pytest.MonkeyPatch.context() as patch:
            if job.get("spoil") and os.environ["RANK"] == str(job.get("rank", 1)):
                globals()[job["spoil"]](patch)
            code = cli.main(job["words"])
        for stream in (sys.stdout, sys.stderr):
            stream.write(f"[code {code}]\n")
            stream.flush()
