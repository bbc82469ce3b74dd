"""Work on a Ray cluster: processes that keep the network loaded and convert one file after the other.

Ray Data is not used, although it came through the loss of a machine as well when it was tried. It works on blocks of
rows: a picture that ends its process fails its whole block, the results of a block come together, and all rows are
stored before the first one starts. `ray.util.ActorPool` gives work to actors that are dead. So the actors are Ray's,
and the loop that hands out files is the one below: a file goes to the next free actor; if that actor dies, the file
goes to another one. It also needs no pyarrow and no pandas.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from perceptual.apply import Outcome
from perceptual.cluster.work import Convert, Results, Start, do
from perceptual.config import EngineConfig
from perceptual.errors import ConfigError, PerceptualError, shown
from perceptual.memory import keep_memory

TRIES = 3
"""How many times a file is tried if its process dies. After that it counts as failed."""
AHEAD = 2
"""Files in each process: one is fetched or stored while the other one is converted."""
TICK = 0.5
"""Seconds without a result until None is yielded."""
STORE = 100 << 20
"""Bytes of Ray's object store on this machine. Only names and results of a few hundred bytes pass through it."""


class Worker:
    """A process of the cluster. It loads the network once."""

    def __init__(self, start: Start) -> None:
        self._start, self._alone = start, threading.Lock()
        self._convert: Convert | None = None

    def ready(self) -> PerceptualError | None:
        """Load what the work needs. Returns the reason if that cannot be."""
        import torch

        torch.set_num_threads(1)  # as many processes as cores do more pictures per second than threads do
        keep_memory()
        try:
            self._convert = self._start()
        except PerceptualError as error:
            return error
        return None

    def do(self, source: str, target: str) -> Outcome:
        """Convert one file."""
        assert self._convert is not None
        return do(source, target, self._convert, self._alone)


def on_ray(pairs: Sequence[tuple[str, str]], start: Start, config: EngineConfig, device: str) -> Results:
    """Convert files on a Ray cluster. Yields an Outcome for each in the order in which they end, and None each half
    second without one, so that the caller can stop. Closing the generator ends the workers at once; files in work then
    have no output.

    start: runs once in each worker; `perceptual` of the same version must be installed on each machine. device: as for
        the local commands; auto takes the GPUs of the cluster if there are any.

    Raises:
        ConfigError: Ray is missing, there is no cluster at the address, or it has no GPU.
        PerceptualError: `start` cannot load what the work needs.
    """
    if not pairs:
        return
    with _connected(config, len(pairs)) as ray:
        count, gpus = _workers(ray.cluster_resources(), config, device)
        # A lost actor is replaced below and not restarted by Ray, which would tie its files to its place.
        kind = ray.remote(Worker).options(num_cpus=1, num_gpus=gpus, max_concurrency=AHEAD, max_restarts=0)
        yield from _Pool(ray, kind, start).results(pairs, min(count, len(pairs)))


def _workers(resources: dict[str, float], config: EngineConfig, device: str) -> tuple[int, int]:
    """How many workers there are, and how many GPUs each one has."""
    gpus = int(resources.get("GPU", 0))
    if device.startswith("cuda") and not gpus:
        raise ConfigError(f"--device {device}: the cluster has no GPU; choose auto or cpu.")
    wants = gpus > 0 and (device == "auto" or device.startswith("cuda"))
    return config.workers or (gpus if wants else max(1, int(resources.get("CPU", 1)))), int(wants)


@contextlib.contextmanager
def _connected(config: EngineConfig, most: int) -> Iterator[Any]:
    """The module `ray`, connected to the cluster. most: of processes that are of use.

    A connection that was there before is used, and stays.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report its use to its makers
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--engine ray needs Ray: run `pip install 'perceptual[ray]'`.") from error
    if ray.is_initialized():
        yield ray
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    try:
        with _handlers_kept():
            if config.address is None:
                quiet |= {"num_cpus": min(config.workers or os.cpu_count() or 1, most)}
                ray.init(address="local", object_store_memory=STORE, include_dashboard=False, **quiet)
            else:
                _check_address(config.address)
                ray.init(address=config.address, **quiet)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError, ray.exceptions.RayError) as error:
        reason = " ".join(str(error).split("\n")[0].split()).rstrip(".")
        raise ConfigError(
            f"There is no usable Ray cluster at {config.address or 'this machine'} ({reason}): start one with "
            "`ray start`, or leave --address out."
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Put back what signals do: Ray exchanges it, and would end this process at once."""
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                if handler is not None:
                    signal.signal(number, handler)


def _check_address(address: str) -> None:
    """Knock at HOST:PORT: Ray itself would wait for a minute and then end the process.

    Raises:
        ConnectionError: nothing answers.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        if address != "auto":
            raise ConnectionError("an address is auto or HOST:PORT")
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise ConnectionError(f"nothing answers: {error.strerror or error}") from error


class _Job(NamedTuple):
    """A file in work. tries: how often it was given to an actor that died."""

    source: str
    target: str
    tries: int = 0


class _Pool:
    """Actors that come and go, and the files that each has in work."""

    def __init__(self, ray: Any, kind: Any, start: Start) -> None:
        self.ray, self.kind, self.start = ray, kind, ray.put(start)
        self.starting: dict[Any, Any] = {}  # reference of ready() -> actor
        self.working: dict[Any, list[_Job]] = {}  # actor -> files in work
        self.jobs: dict[Any, tuple[Any, _Job]] = {}  # reference of do() -> actor, file
        self.again: deque[_Job] = deque()
        self.failed_starts = 0

    def results(self, pairs: Sequence[tuple[str, str]], count: int) -> Results:
        """`on_ray` with this number of actors."""
        rest, left = (_Job(*pair) for pair in pairs), len(pairs)
        try:
            for _ in range(count):
                self._add()
            while left:
                self._hand_out(rest)
                ended = self._wait()
                if not ended:
                    yield None
                for reference in ended:
                    if reference in self.starting:
                        self._started(reference)
                    elif (result := self._ended(reference)) is not None:
                        left -= 1
                        yield result
        finally:
            for actor in (*self.working, *self.starting.values()):
                self.ray.kill(actor)

    def _wait(self) -> list[Any]:
        """The references that are ready, after half a second at most."""
        first, others = self.ray.wait([*self.jobs, *self.starting], timeout=TICK)
        more = self.ray.wait(others, num_returns=len(others), timeout=0)[0] if first and others else []
        return [*first, *more]

    def _add(self) -> None:
        actor = self.kind.remote(self.start)
        self.starting[actor.ready.remote()] = actor

    def _started(self, reference: Any) -> None:
        """Take an actor that has loaded its network, or replace it if it has died."""
        actor = self.starting.pop(reference)
        try:
            reason = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            self.failed_starts += 1
            if self.failed_starts >= TRIES and not self.working:
                raise ConfigError(
                    f"No worker of the cluster can start ({_last_line(error)}): install the same version of "
                    "perceptual on each machine, and look into Ray's logs."
                ) from error
            self._add()
            return
        if reason is not None:
            self.working[actor] = []  # to be ended with the others
            raise reason
        self.failed_starts, self.working[actor] = 0, []

    def _hand_out(self, rest: Iterator[_Job]) -> None:
        """Give files to actors that have room. A file whose actor died gets an actor of its own. If the file is the
        cause, no other file fails with it."""
        for actor, jobs in self.working.items():
            while len(jobs) < AHEAD and not any(job.tries for job in jobs):
                job = self.again.popleft() if self.again and not jobs else next(rest, None)
                if job is None:
                    break
                jobs.append(job)
                self.jobs[actor.do.remote(job.source, job.target)] = actor, job

    def _ended(self, reference: Any) -> Outcome | None:
        """The result of a file; None if its actor has died and the file will be tried again."""
        actor, job = self.jobs.pop(reference)
        try:
            result: Outcome = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            if self.working.pop(actor, None) is not None:
                self.ray.kill(actor)
                self._add()
            if job.tries + 1 < TRIES:
                self.again.append(job._replace(tries=job.tries + 1))
                return None
            text = f"its process ended {TRIES} times, perhaps for lack of memory ({_last_line(error)})"
            return Outcome(job.source, job.target, error=f"{job.source}: {text}: give fewer --workers.")
        self.working[actor].remove(job)
        return result


def _last_line(error: Exception) -> str:
    """The last line of an error's text, which says the reason where Ray adds the traceback of another process."""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    return shown((lines or [type(error).__name__])[-1].rstrip("."), 200).strip("'")
