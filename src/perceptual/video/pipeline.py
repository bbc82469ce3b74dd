"""Stages that run in threads of their own, with short queues between them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

from perceptual.devices import SideBySide


class _Closed(Exception):
    """The queue was closed; the waiting thread should end."""


class _Queue:
    """A queue of at most `ahead` items that both sides can close."""

    def __init__(self, ahead: int) -> None:
        self._things: deque[Any] = deque()
        self._ahead, self._ended, self._changed = ahead, False, threading.Condition()
        self._closed = False

    def put(self, item: Any) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._things) < self._ahead)
            if self._closed:
                raise _Closed
            self._things.append(item)
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Any]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._ended or self._things)
                if self._closed:
                    raise _Closed
                if not self._things:
                    return
                item = self._things.popleft()
                self._changed.notify_all()
            yield item
            del item  # release the memory while waiting for the next item

    def end(self) -> None:
        """No more items will come. The items in the queue are still delivered."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self) -> None:
        """Drop all items and wake up all waiting threads."""
        with self._changed:
            self._closed = True
            self._things.clear()
            self._changed.notify_all()


Stage = Callable[[Any], Any] | SideBySide


def in_stages(source: Iterable[Any], *stages: Stage, ahead: int = 2) -> Generator[Any, None, None]:
    """Pass every item of `source` through all stages, in order, and yield the results of the last stage.

    A stage may return an iterator; each of its items is then passed on separately. The source and every stage run in
    threads of their own, with at most `ahead` items waiting between two of them. An exception in any thread stops all
    of them and is raised here. When the generator ends or is closed, all threads have ended.
    """
    queues = [_Queue(ahead) for _ in range(len(stages) + 1)]
    failures: list[BaseException] = []
    threads = []
    for at, (items, stage) in enumerate(zip([source, *queues], [None, *stages], strict=False)):
        work = (items, stage, queues[at], queues, failures)
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
    items: Iterable[Any],
    stage: Stage | None,
    out: _Queue,
    queues: Sequence[_Queue],
    failures: list[BaseException],
) -> None:
    """The thread of one stage."""
    try:
        for result in _results(items, stage):
            for each in result if isinstance(result, Iterator) else (result,):
                out.put(each)
            result = each = None  # release the memory while waiting for the next item
        out.end()
    except _Closed:
        pass
    except BaseException as failure:
        failures.append(failure)
        _close(queues)


def _results(items: Iterable[Any], stage: Stage | None) -> Iterator[Any]:
    if isinstance(stage, SideBySide):
        yield from stage.results(items)
        return
    for item in items:
        result = stage(item) if stage else item
        del item  # release the memory while the queue is full
        yield result
        del result


def _close(queues: Iterable[_Queue]) -> None:
    for queue in queues:
        queue.close()


def _join(threads: Iterable[threading.Thread]) -> None:
    """Wait for the threads even after Ctrl-C, because the files that they use are closed afterwards."""
    interrupted = None
    for thread in threads:
        while thread.is_alive():
            try:
                thread.join()
            except KeyboardInterrupt as error:
                interrupted = error
    if interrupted:
        raise interrupted
