"""The queue of the service. Few requests are accepted at a time, and one thread does their work in order.

Two pictures at once are not faster on a CPU, because one picture uses all of its cores.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from perceptual.serve.refusals import Refused, gone

T = TypeVar("T")


class Job:
    """The work of one request. `check` ends it if nobody waits for its result any more."""

    def __init__(self) -> None:
        self._ended: Refused | None = None

    def end(self, reason: Refused) -> None:
        """Ask the work to end. It ends at its next `check`."""
        self._ended = reason

    def check(self) -> None:
        """Call this often during the work.

        Raises:
            Refused: the work has to end.
        """
        if self._ended is not None:
            raise self._ended


class Queue:
    """Requests in order. most: number of requests that are accepted at a time, those that run included."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="work")
        self._lock = threading.Condition()
        self._accepted = 0
        self._stopping = False
        self._seconds = 0.0  # a moving average for one picture

    @property
    def length(self) -> int:
        """Number of accepted requests that are not answered yet."""
        return self._accepted

    @property
    def stopping(self) -> bool:
        """True once no further request is accepted."""
        return self._stopping

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        """Accept a request until the `with` block ends.

        Raises:
            Refused: the queue is full, or the service stops.
        """
        with self._lock:
            if self._stopping:
                raise Refused(503, "stopping", "The service is stopping: try again soon.", retry_after="5")
            if self._accepted >= self.most:
                seconds = f"{max(1, round(self._seconds * self._accepted)):d}"
                sentence = f"{self.most} requests are waiting already: try again in {seconds} seconds."
                raise Refused(503, "busy", sentence, retry_after=seconds)
            self._accepted += 1
        try:
            yield
        finally:
            with self._lock:
                self._accepted -= 1
                self._lock.notify_all()

    async def run(self, work: Callable[[Job], T], *, until: float, left: Callable[[], Coroutine[Any, Any, None]]) -> T:
        """Wait for the turn of `work`, do it in the thread, and return its result.

        until: a time of `time.monotonic`; later the work is ended. left: waits until the client closes its connection.

        Raises:
            Refused: the time is over, or the client has left.
        """
        job = Job()
        future = self._thread.submit(self._timed, work, job)
        done, closed = asyncio.wrap_future(future), asyncio.ensure_future(left())
        waiting: set[asyncio.Future[Any]] = {done, closed}
        try:
            seconds = max(0.0, until - time.monotonic())
            await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                late = Refused(503, "timeout", "The picture was not ready in time: try again.", retry_after="10")
                reason = gone() if closed.done() else late
                job.end(reason)
                if future.cancel():  # it was still waiting
                    raise reason
            return await done
        finally:
            job.end(gone())
            closed.cancel()

    def soon(self, work: Callable[[], object]) -> None:
        """Do some work in the thread, without a limit and without a result."""
        self._thread.submit(work)

    def stop(self) -> None:
        """Accept no further request."""
        with self._lock:
            self._stopping = True

    def close(self) -> None:
        """Accept no further request, wait until all accepted ones are answered, and end the thread."""
        self.stop()
        with self._lock:
            self._lock.wait_for(lambda: self._accepted == 0)
        self._thread.shutdown()

    def _timed(self, work: Callable[[Job], T], job: Job) -> T:
        job.check()
        began = time.monotonic()
        try:
            return work(job)
        finally:
            passed = time.monotonic() - began
            self._seconds = passed if not self._seconds else 0.8 * self._seconds + 0.2 * passed
