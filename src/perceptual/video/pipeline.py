"""Work in stages, each in a thread of its own, with short queues between them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any


class _Closed(Exception):
    """The queue is closed: whoever waits at it has nothing more to do."""


class _Queue:
    """A queue of at most `ahead` things, which both sides can close."""

    def __init__(self, ahead: int) -> None:
        self._things: deque[Any] = deque()
        self._ahead, self._ended, self._changed = ahead, False, threading.Condition()
        self._closed = False

    def put(self, thing: Any) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._things) < self._ahead)
            if self._closed:
                raise _Closed
            self._things.append(thing)
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Any]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._ended or self._things)
                if self._closed:
                    raise _Closed
                if not self._things:
                    return
                thing = self._things.popleft()
                self._changed.notify_all()
            yield thing
            del thing  # not kept while waiting for the next

    def end(self) -> None:
        """What is in the queue still goes through, nothing more comes."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self) -> None:
        """Drop what is in the queue."""
        with self._changed:
            self._closed = True
            self._things.clear()
            self._changed.notify_all()


def in_stages(source: Iterable[Any], *stages: Callable[[Any], Any], ahead: int = 2) -> Generator[Any, None, None]:
    """Pass all that comes from `source` through every stage, in order, and yield what the last one returns.

    A stage that returns an iterator passes on what comes from it, one after the other. The source and each stage have a
    thread of their own; at most `ahead` things wait between two of them. Whatever one of them raises ends all and is
    raised here. When the generator ends or is closed, the threads have ended too.
    """
    queues = [_Queue(ahead) for _ in range(len(stages) + 1)]
    failures: list[BaseException] = []
    threads = []
    for at, (things, stage) in enumerate(zip([source, *queues], [None, *stages], strict=False)):
        work = (things, stage, queues[at], queues, failures)
        threads.append(threading.Thread(target=_work, args=work, name=f"stage {at}", daemon=True))
    started = []
    try:
        for thread in threads:
            thread.start()
            started.append(thread)
        yield from queues[-1]
    except _Closed:
        pass
    finally:
        _close(queues)
        _join(started)
    if failures:
        raise failures.pop(0)


def _work(
    things: Iterable[Any],
    stage: Callable[[Any], Any] | None,
    out: _Queue,
    queues: Sequence[_Queue],
    failures: list[BaseException],
) -> None:
    """What the thread of one stage does."""
    try:
        for thing in things:
            made = stage(thing) if stage else thing
            del thing  # not kept while the queue is full
            for each in made if isinstance(made, Iterator) else (made,):
                out.put(each)
            made = each = None
        out.end()
    except _Closed:
        pass
    except BaseException as failure:
        failures.append(failure)
        _close(queues)


def _close(queues: Iterable[_Queue]) -> None:
    for queue in queues:
        queue.close()


def _join(threads: Iterable[threading.Thread]) -> None:
    """Wait for the threads, Ctrl-C or not: what they work on would be taken away under them."""
    interrupted = None
    for thread in threads:
        while thread.is_alive():
            try:
                thread.join()
            except KeyboardInterrupt as error:
                interrupted = error
    if interrupted:
        raise interrupted
