"""The filter that answers now, and how a newer one takes its place while requests run.

A new filter is opened completely beside the old one, checksums and all, and becomes the one that answers by setting
one reference; a request reads that reference once, so it sees one filter from its first candidate to its last. What
cannot be opened changes nothing: the old filter goes on, and says that a newer one failed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from conrec.errors import ConrecError
from conrec.filtering.filter import NegativeFilter
from conrec.filtering.stores.base import StoreUnavailableError
from conrec.filtering.stores.lmdb import PredictSetStore

__all__ = ["DIGITS", "Live", "Opened", "Reloaded", "stamp"]

LONGEST_PAUSE = 60.0
"""Seconds between two attempts to open what failed; the first pause is one look of the watcher, then twice that."""

DIGITS = 16
"""Of a checksum, where it is told: enough to tell any two apart."""
Signature = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class Opened:
    """A filter that is open.

    Attributes:
        filter: the filter.
        version: the first digits of the checksum of its store.
        described: ``store`` of every answer, as JSON.
        remote: whether its store is behind a network, where a question takes long.
        opened_at: unix seconds.
    """

    filter: NegativeFilter
    version: str
    described: msgspec.Raw
    remote: bool
    opened_at: float

    @classmethod
    def of(cls, negative_filter: NegativeFilter) -> Opened:
        """Describe a filter once, for all answers."""
        meta, version = negative_filter.store.meta, negative_filter.store.version[:DIGITS]
        described = {
            "model": meta.model,
            "model_version": meta.model_version[:DIGITS],
            "version": version,
            "written_at": meta.written_at,
            "threshold": negative_filter.threshold,
        }
        remote = not isinstance(negative_filter.store, PredictSetStore)
        return cls(negative_filter, version, msgspec.Raw(msgspec.json.encode(described)), remote, time.time())


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What came of a reload: ``result`` is "switched" or "failed"; seconds that it took; why it failed."""

    result: str
    seconds: float
    error: ConrecError | None = None


class Live:
    """Holds the filter that answers, opens newer ones, and watches for them.

    Args:
        load: opens a filter; given the one that answers, so that what did not change need not be read again.
        watched: files whose change asks for a reload, beside what the store itself says; they need not be there.
        on_reload: told of each reload, in the thread that did it.
        instead: gives what answers where the first filter cannot be opened, until it can; None: that is an error.

    Attributes:
        current: what answers; read it once a request.
        failure: why the newest attempt failed, None after one that did not.
        reachable: whether the store answered when it was last asked; `on_reachable` is told of each change.

    Raises:
        ConrecError: the first filter cannot be opened.
    """

    def __init__(
        self,
        load: Callable[[NegativeFilter | None], NegativeFilter],
        watched: Sequence[Path] = (),
        on_reload: Callable[[Reloaded], None] | None = None,
        instead: Callable[[], NegativeFilter] | None = None,
    ) -> None:
        self._load, self._watched = load, tuple(watched)
        self.on_reload = on_reload
        self.on_reachable: Callable[[bool], None] | None = None
        self._reachable = True
        self._seen = self._signature()
        self._served: Signature | None = self._seen
        self._failed_at: Signature | None = None
        self.failure: ConrecError | None = None
        self._one_at_a_time = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._pause, self._not_before = 0.0, 0.0
        try:
            self.current = Opened.of(load(None))
        except Exception as error:
            if instead is None:
                raise
            self.current, self._served, self.reachable = Opened.of(instead()), None, False
            self._failed(error)

    @property
    def reachable(self) -> bool:
        """Whether the store answered when it was last asked."""
        return self._reachable

    @reachable.setter
    def reachable(self, now: bool) -> None:
        before, self._reachable = self._reachable, now
        if now != before and self.on_reachable is not None:
            self.on_reachable(now)

    def reload(self) -> Reloaded:
        """Open everything anew and switch to it; one thread at a time, others wait and then do it again."""
        with self._one_at_a_time:
            begin = time.perf_counter()
            self._seen = signature = self._signature()
            try:
                opened = Opened.of(self._load(self.current.filter))
            except Exception as error:  # whatever it is, the old filter goes on
                self._failed(error)
                done = Reloaded("failed", time.perf_counter() - begin, self.failure)
            else:
                # The old store is not closed: requests may be reading it. It goes with its last reader.
                self.current, self.failure, self.reachable, self._pause = opened, None, True, 0.0
                self._served = signature
                done = Reloaded("switched", time.perf_counter() - begin)
        if self.on_reload is not None:
            self.on_reload(done)
        return done

    def check(self) -> Reloaded | None:
        """Look once whether something changed, and reload if so; what failed is tried again at growing intervals."""
        signature = self._signature()
        try:
            store = self.current.filter.store
            changed = store.changed()
            if self.current.remote and not changed:
                store.get("")  # a server that came back empty answers, and knows nobody
            self.reachable = True
        except StoreUnavailableError:
            changed, self.reachable = False, False
        except ConrecError:
            changed = True  # what is there cannot even be compared: say so by a reload that fails
        if not changed and signature == self._served:
            if self._failed_at not in (None, signature):
                self.failure = None  # what could not be opened is gone again
            self._seen = signature
            if self.failure is None:
                return self._followed()
        if signature == self._seen and self.failure is not None and time.monotonic() < self._not_before:
            return None
        return self.reload()

    def _failed(self, error: Exception) -> None:
        """Note why the newest attempt failed, in which state of the files, and when to try again."""
        self.failure = error if isinstance(error, ConrecError) else _unexpected(error)
        self._failed_at = self._seen
        self._pause = min(LONGEST_PAUSE, self._pause * 2 or 1.0)
        self._not_before = time.monotonic() + self._pause

    def _followed(self) -> Reloaded | None:
        """Say it where a store on a server went over to a newer version by itself."""
        with self._one_at_a_time:
            current = self.current
            if current.filter.store.version[:DIGITS] == current.version:
                return None
            self.current = Opened.of(current.filter)
        done = Reloaded("switched", 0.0)
        if self.on_reload is not None:
            self.on_reload(done)
        return done

    def watch(self, seconds: float) -> None:
        """Check every so often in a thread, until `stop`."""
        self._thread = threading.Thread(target=self._watch, args=(seconds,), name="conrec-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the watching."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _watch(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            try:
                self.check()
            except Exception as error:  # a watcher that ends would miss every later version
                self._failed(error)

    def _signature(self) -> Signature:
        return tuple(stamp(path) for path in self._watched)

    def state(self) -> dict[str, Any]:
        """In words that are the same for everybody, whether and why the service does less than it should."""
        why = ["reload failed"] if self.failure is not None else []
        if not self.reachable:
            why.append("store unreachable")
        return {"degraded": bool(why), "why": why}


def stamp(path: Path) -> tuple[int, int, int] | None:
    """What tells that a file was replaced or written, without reading it; None: there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _unexpected(error: Exception) -> ConrecError:
    """An error that is not of the family, without what it says: that may hold anything."""
    return ConrecError(f"{type(error).__name__} while the filter was opened", mend="The log has where.")
