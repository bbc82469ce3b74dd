"""What Prometheus reads at /metrics."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

SECONDS = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The numbers of one service. length: gives the length of the queue."""

    def __init__(self, length: Callable[[], int]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they would be a second number for each one
        self._registry = CollectorRegistry()
        labels = {"requests": ("path", "status"), "errors": ("kind",), "pixels": ("path", "direction")}

        def counter(name: str, about: str) -> Counter:
            return Counter(f"perceptual_{name}", about, labels[name], registry=self._registry)

        def seconds(name: str, about: str) -> Histogram:
            return Histogram(f"perceptual_{name}_seconds", about, ("path",), buckets=SECONDS, registry=self._registry)

        self._requests = counter("requests", "Answered requests")
        self._errors = counter("errors", "Refused requests")
        self._pixels = counter("pixels", "Pixels of pictures, before and after the work")
        self._seconds = seconds("request", "Seconds from a request to its answer")
        self._work = seconds("work", "Seconds of decoding, network and encoding")
        queue = Gauge("perceptual_queue_length", "Requests that wait or run", registry=self._registry)
        queue.set_function(length)
        ProcessCollector(registry=self._registry)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def worked(self, path: str, seconds: float, pixels_in: int, pixels_out: int) -> None:
        """Count the work for one picture."""
        self._work.labels(path).observe(seconds)
        self._pixels.labels(path, "in").inc(pixels_in)
        self._pixels.labels(path, "out").inc(pixels_out)

    def refused(self, kind: str) -> None:
        """Count a request that was refused."""
        self._errors.labels(kind).inc()

    def text(self) -> bytes:
        """All numbers, in the format of Prometheus."""
        return generate_latest(self._registry)
