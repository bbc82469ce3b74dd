"""The job queue of the page. One job runs at a time, and the others wait. Closing the page does not stop a job."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from perceptual.devices import out_of_memory
from perceptual.errors import PerceptualError
from perceptual.events import Step

Status = Literal["waiting", "running", "done", "failed", "stopped"]
KEPT = 100
"""Maximum number of finished jobs in the list."""


class Stopped(Exception):
    """The user stopped the job."""


@dataclass(eq=False)
class Job:
    """One long task of the page.

    title: a description for the user. kind: the tab of the job, such as "paint".
    work: a function that does the work and returns the files that it wrote. It must call `report` often. `report`
        raises Stopped if the user has stopped the job.

    Attributes:
        status: waiting, running, done, failed or stopped.
        index, total: the progress, in units of the Steps; total is None if it is not known.
        first: the value of `index` at the start; above 0 if the job continues earlier work.
        losses: {step: {term: value}}.
        preview: the newest image, (1, 3, H, W), or None.
        message: sentences for the user.
        results: the files that were written.
        notes: further values that `work` gives to its tab.
    """

    title: str
    kind: str
    work: Callable[[Job], Sequence[Path]]
    number: int = 0
    status: Status = "waiting"
    index: int = 0
    total: int | None = None
    first: int = 0
    losses: dict[int, dict[str, float]] = field(default_factory=dict)
    preview: Tensor | None = None
    message: str = ""
    results: tuple[Path, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)
    _stopping: bool = False
    _began: float = 0.0
    _ended: float = 0.0

    @property
    def active(self) -> bool:
        """True while the job waits or runs."""
        return self.status in ("waiting", "running")

    @property
    def seconds(self) -> float:
        """The running time of the job in seconds, until now or until its end."""
        return (self._ended or time.monotonic()) - self._began if self._began else 0.0

    @property
    def seconds_left(self) -> float | None:
        """The estimated seconds until the end; None if there is no estimate yet."""
        done = self.index - self.first
        if self.status != "running" or done <= 0 or not self.total:
            return None
        return self.seconds * (self.total - self.index) / done

    def report(self, step: Step) -> None:
        """Update the job from a Step.

        Raises:
            Stopped: the user has stopped the job.
        """
        self.index, self.total = step.index, step.total
        if step.losses:
            self.losses[step.index] = dict(step.losses)
        if step.preview is not None:
            self.preview = step.preview
        if step.message:
            self.say(step.message)
        if self._stopping:
            raise Stopped

    def say(self, sentence: str) -> None:
        """Add a sentence for the user."""
        self.message = f"{self.message}\n{sentence}".strip()

    def follow(self, steps: Generator[Step, None, Any]) -> Any:
        """Run a generator of Steps to its end and return its value. If the job is stopped, the generator is closed.

        Raises:
            Stopped: the user has stopped the job.
        """
        with closing(steps):
            while True:
                try:
                    step = next(steps)
                except StopIteration as end:
                    return end.value
                self.report(step)

    def stop(self) -> None:
        """Ask the job to stop. It stops after the current step."""
        self._stopping = True
        if self.status == "waiting":
            self.status = "stopped"

    def run(self) -> None:
        """Run `work` in this thread, and set `status`, `results` and `message`."""
        if self.status != "waiting":
            return
        self.status, self._began = "running", time.monotonic()
        status: Status = "failed"
        try:
            self.results = tuple(self.work(self))
            status = "failed" if self.notes.get("failed") else "done"
        except Stopped:
            status = "stopped"
        except PerceptualError as error:
            self.say(str(error))
        except Exception as error:  # a bug: the user sees the error, and the queue continues with the next job
            bug = f"Unexpected error, please report it: {type(error).__name__}: {error}"
            self.say("The memory ran out: choose a smaller size." if out_of_memory(error) else bug)
        finally:
            self._ended = time.monotonic()
            self.status = status


class Jobs:
    """The queue. One background thread runs the jobs one after the other."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []
        self._changed = threading.Condition()
        self._closed = False
        self._count = 0
        self._thread: threading.Thread | None = None

    def add(self, job: Job) -> Job:
        """Add a job to the end of the queue, and return it."""
        with self._changed:
            self._count += 1
            job.number = self._count
            ended = [each for each in self._jobs if not each.active]
            forgotten = ended[: max(0, len(ended) - KEPT)]
            self._jobs = [*(each for each in self._jobs if each not in forgotten), job]
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return job

    def all(self) -> list[Job]:
        """All jobs in the list, the newest first."""
        with self._changed:
            return self._jobs[::-1]

    def find(self, number: int) -> Job | None:
        """The job with this number; None if there is none."""
        return next((job for job in self.all() if job.number == number), None)

    def latest(self, kind: str) -> Job | None:
        """The running job of a kind; if none is running, the newest one; None if there are no jobs of this kind."""
        jobs = [job for job in self.all() if job.kind == kind]
        return next((job for job in jobs if job.status == "running"), jobs[0] if jobs else None)

    def ahead(self, job: Job) -> int:
        """Number of active jobs that run before a waiting job."""
        return sum(other.active and other.number < job.number for other in self.all())

    def close(self, wait: float = 60.0) -> None:
        """Stop all jobs and wait until the running one has saved its state.

        wait: seconds to wait at most.
        """
        with self._changed:
            self._closed = True
            for job in self._jobs:
                job.stop()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(wait)

    def _run(self) -> None:
        while True:
            with self._changed:
                job = next((job for job in self._jobs if job.status == "waiting"), None)
                if job is None:
                    if self._closed:
                        return
                    self._changed.wait()
                    continue
            job.run()
