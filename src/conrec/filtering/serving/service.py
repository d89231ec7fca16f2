"""What the parts of the service share: the live filter, settings, token, log, counters, and whether it is stopping."""

from __future__ import annotations

import itertools
import os
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from conrec.errors import ConrecError
from conrec.filtering.serving.guard import Guard, read_token
from conrec.filtering.serving.live import DIGITS, Live, Reloaded
from conrec.filtering.serving.logs import EventLog
from conrec.filtering.serving.metrics import Gauge, Metrics, workers_ended
from conrec.filtering.serving.questions import Questions
from conrec.filtering.serving.settings import ServeSettings

__all__ = ["Service"]

THREADS = 4
"""For what would keep the event loop too long: large requests, stores behind a network."""


class Service:
    """One worker's service.

    Args:
        live: the filter that answers.
        settings: limits and the like.
        run_folder: the run, for what people look at.
        log: where its lines go; None writes none.

    Attributes:
        stopping: whether it is about to end: /ready says so, and answers close their connections.
        in_flight: requests in hand.
        bytes_in_hand: of their bodies, as far as they have come.

    Raises:
        ConfigError: the token cannot be used.
    """

    def __init__(self, live: Live, settings: ServeSettings, run_folder: Path, log: EventLog | None = None) -> None:
        self.live, self.settings, self.run_folder = live, settings, run_folder
        self.log = log or EventLog(None)
        self.guard = Guard(read_token(settings.token_file))
        self.questions = Questions(settings)
        self.metrics = Metrics(self._gauges)
        self.pool = ThreadPoolExecutor(THREADS, thread_name_prefix="conrec-serve")
        # What people ask, one after another: whoever filters does not wait for it.
        self.people = ThreadPoolExecutor(1, thread_name_prefix="conrec-people")
        self.started_at = time.time()
        self.stopping = False
        self.in_flight = 0
        self.bytes_in_hand = 0
        # Not unique to the world, but not guessable either: it ties an answer to its line of the log.
        self._prefix, self._numbers = secrets.token_hex(4), itertools.count(1)
        live.on_reload, live.on_reachable = self._reloaded, self._reached

    def request_number(self) -> str:
        """A new name for a request."""
        return f"{self._prefix}-{next(self._numbers):x}"

    def reload(self) -> Reloaded:
        """Read token, store and threshold anew; a token that cannot be read leaves the old one."""
        if self.settings.token_file is not None:
            try:
                self.guard = Guard(read_token(self.settings.token_file))
            except ConrecError as error:
                self.log.write("token kept", "error", found=error.found, where=error.where)
        return self.live.reload()

    def close(self) -> None:
        """End the threads."""
        self.live.stop()
        for pool in (self.pool, self.people):
            pool.shutdown(wait=False, cancel_futures=True)

    def _reloaded(self, done: Reloaded) -> None:
        self.metrics.reload(done.result)
        fields: dict[str, Any] = {
            "seconds": round(done.seconds, 3),
            "store": self.live.current.version,
            "process": os.getpid(),
        }
        if done.error is None:
            self.log.write("reload", result=done.result, **fields)
        else:
            self.log.write("reload", "error", result=done.result, error=str(done.error), **fields)

    def _reached(self, now: bool) -> None:
        if now:
            self.log.write("store reachable")
        else:
            self.log.write("store unreachable", "error", until_then="everything is kept")

    def _gauges(self) -> Iterator[Gauge]:
        opened, state = self.live.current, self.live.state()
        meta = opened.filter.store.meta
        labels = (("model", meta.model), ("store", opened.version), ("model_version", meta.model_version[:DIGITS]))
        yield Gauge("store_info", "The store that answers; always 1.", 1, labels)
        yield Gauge("store_users", "Users with a predict set.", meta.count)
        yield Gauge("store_written_timestamp_seconds", "When the store was written, unix seconds.", meta.written_at)
        yield Gauge("predictions_age_seconds", "Since the newest set was predicted.", time.time() - meta.newest)
        if opened.filter.threshold is not None:
            yield Gauge("threshold", "Candidates more similar than this are dropped.", opened.filter.threshold)
        for why in ("reload failed", "store unreachable"):
            yield Gauge("degraded", "1: the service does less than it should.", why in state["why"], (("why", why),))
        yield Gauge("ready", "1: takes requests.", not self.stopping)
        yield Gauge("requests_in_flight", "Requests in hand.", self.in_flight)
        yield Gauge("workers_ended_total", "Workers that ended by themselves and were replaced.", workers_ended())
        yield Gauge("log_lines_lost", "Lines of the log that could not be written.", self.log.lost)
