"""What Prometheus reads of a service: requests, refusals by kind, the queue, seconds by stage, batch sizes."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from uniformerv2.serving.engine import Engine
from uniformerv2.serving.jobs import Observer

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics(Observer):
    """The numbers of one service, apart from those of other ones in the same process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry, prefix = self.registry, "uniformerv2_"
        self._requests = Counter(
            f"{prefix}requests", "Requests by address and status.", ("route", "status"), registry=registry
        )
        self._errors = Counter(f"{prefix}errors", "Refused and failed requests by kind.", ("kind",), registry=registry)
        self._seconds = Histogram(
            f"{prefix}request_seconds", "From the head to the answer.", ("route",), buckets=SECONDS, registry=registry
        )
        self._stages = Histogram(
            f"{prefix}stage_seconds",
            "Seconds of a request by stage: upload, decode, preprocess, queue (until the network has it), compute.",
            ("stage",),
            buckets=SECONDS,
            registry=registry,
        )
        self._batches = Histogram(
            f"{prefix}batch_videos", "Videos computed together.", buckets=(1, 2, 4, 8, 16), registry=registry
        )
        self._lost = Counter(
            f"{prefix}workers_lost",
            "Decoding processes that crashed, took too long, or were in the way.",
            ("reason",),
            registry=registry,
        )
        self._queue = Gauge(f"{prefix}queue", "Requests that wait, are decoded or computed.", registry=registry)
        self._uploads = Gauge(f"{prefix}uploads", "Uploads that are being received.", registry=registry)
        ProcessCollector(registry=registry)

    def watch(self, engine: Engine) -> None:
        """Read the length of the queue from an engine."""
        self._queue.set_function(lambda: engine.num_jobs)

    def request(self, route: str, status: int, seconds: float, *, kind: str | None) -> None:
        """One request is answered.

        Args:
            route: Its address as the service declares it; never what the client wrote.
            status: Of HTTP.
            seconds: From its head to its answer.
            kind: Why it was refused; None where it was not.
        """
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        if kind is not None:
            self._errors.labels(kind).inc()

    def uploads(self, count: int) -> None:
        """So many uploads are being received."""
        self._uploads.set(count)

    def stage(self, name: str, seconds: float) -> None:
        """See ``Observer``."""
        self._stages.labels(name).observe(seconds)

    def batch(self, num_videos: int) -> None:
        """See ``Observer``."""
        self._batches.observe(num_videos)

    def worker_lost(self, reason: str) -> None:
        """See ``Observer``."""
        self._lost.labels(reason).inc()

    def text(self) -> bytes:
        """As Prometheus reads them."""
        return generate_latest(self.registry)
