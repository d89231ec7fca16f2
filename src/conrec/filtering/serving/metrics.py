"""What Prometheus reads: counts and times of all workers, and the state of the worker that answers.

Counters and the histogram go through prometheus_client's multi-process mode where the supervisor of several workers
set ``PROMETHEUS_MULTIPROC_DIR`` before this module was imported: any worker then answers for all of them. Gauges tell
of the worker that was asked; all workers read the same store, a second apart.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

__all__ = ["ENDED", "MEDIA_TYPE", "MULTIPROCESS", "Gauge", "Metrics", "workers_ended"]

MEDIA_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
ENDED = "workers_ended"
"""File of that folder in which the supervisor counts the workers that ended by themselves."""
BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0)
"""Seconds; dense around the 10 ms that a request is to keep."""


@dataclass(frozen=True, slots=True)
class Gauge:
    """One sample of the state: name without prefix, what it says, labels and value. ``.._total`` is a counter."""

    name: str
    help: str
    value: float | int
    labels: tuple[tuple[str, str], ...] = ()


class _State(Collector):
    """Asks for the state at each scrape."""

    def __init__(self, gauges: Callable[[], Iterable[Gauge]]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterable[Metric]:
        """The state as gauges, samples of one name together."""
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for one in self._gauges():
            names = [name for name, _ in one.labels]
            kind = CounterMetricFamily if one.name.endswith("_total") else GaugeMetricFamily
            family = families.setdefault(one.name, kind(f"conrec_{one.name}", one.help, labels=names))
            family.add_metric([value for _, value in one.labels], one.value)
        return families.values()

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: there may be no state yet."""
        return ()


class Metrics:
    """Counters of one worker, in a registry of its own.

    Args:
        gauges: gives the state at each scrape.
    """

    def __init__(self, gauges: Callable[[], Iterable[Gauge]]) -> None:
        self._registry = CollectorRegistry()
        many = MULTIPROCESS in os.environ
        # In multi-process mode the files are read, not the objects of this process.
        own = None if many else self._registry
        self._requests = Counter(
            "conrec_requests", "Requests answered, by route and status.", ["route", "status"], registry=own
        )
        self._seconds = Histogram(
            "conrec_request_seconds",
            "Seconds from a request's header to its answer.",
            ["route"],
            buckets=BUCKETS,
            registry=own,
        )
        self.candidates = Counter("conrec_candidates", "Candidates judged by /v1/filter.", registry=own)
        self.dropped = Counter("conrec_dropped", "Candidates dropped by /v1/filter.", registry=own)
        self._kept = Counter("conrec_kept", "Candidates kept by /v1/filter, by reason.", ["reason"], registry=own)
        self.unknown_users = Counter(
            "conrec_unknown_users", "Requests to /v1/filter for users without a predict set.", registry=own
        )
        self._reloads = Counter(
            "conrec_reloads", "Attempts to read store and threshold anew.", ["result"], registry=own
        )
        self._of_route: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self._of_reason: dict[str, Counter] = {}
        for result in ("switched", "failed"):
            self._reloads.labels(result)
        if many:
            MultiProcessCollector(self._registry)  # type: ignore[no-untyped-call]
        self._registry.register(_State(gauges))

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        found = self._of_route.get((route, status))
        if found is None:
            found = self._requests.labels(route, str(status)), self._seconds.labels(route)
            self._of_route[route, status] = found
        found[0].inc()
        found[1].observe(seconds)

    def kept(self, reason: str, count: int) -> None:
        """Count kept candidates."""
        counter = self._of_reason.get(reason)
        if counter is None:
            counter = self._of_reason[reason] = self._kept.labels(reason)
        counter.inc(count)

    def reload(self, result: str) -> None:
        """Count one reload: "switched" or "failed"."""
        self._reloads.labels(result).inc()

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)


def workers_ended() -> int:
    """What the supervisor has counted; 0 without one."""
    file = Path(os.environ.get(MULTIPROCESS, "")) / ENDED
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0
