"""Puts a store from a folder onto a Valkey or Redis server, whole, before readers are switched to it.

A version is loaded under keys of its own, then ``current`` is set, then the version before gets a time to live. Killed
at any moment, the publisher leaves the old version or the new one current; what it leaves half-loaded, the next
publisher removes. One publisher of a store works at a time: each of its writes is a transaction that the server refuses
once the lock is no longer this publisher's, so that one that stood still for too long changes nothing afterwards.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from operator import methodcaller
from pathlib import Path
from typing import Any

from conrec.errors import ConfigError, RunLockedError
from conrec.filtering.stores.address import Address
from conrec.filtering.stores.base import StoreMeta
from conrec.filtering.stores.lmdb import PredictSetStore
from conrec.filtering.stores.valkey_keys import Names, ServedVersion, sealed, talking
from conrec.progress import meter

__all__ = ["GRACE", "Published", "publish"]

GRACE = 300
"""Seconds that the version before stays readable after the switch."""
_PATIENCE = 30.0
"""Seconds that the publisher waits for an answer: a server that loads may be slow."""
_LOCKED = 60
"""Seconds after which the lock of a publisher that was killed is void."""
_BATCH = 2000
_ATTEMPTS = 5
_LATER = 10
"""Seconds by which records outlive their meta data, so that a version with meta data is whole."""
_LOADING, _READY = b"loading", b"ready"


@dataclass(frozen=True, slots=True)
class Published:
    """What `publish` did.

    Attributes:
        address: where the store is now, without user and password.
        meta: what it says about itself.
        version: SHA-256 of the file that was published.
        replaced: whether another version was current before.
        grace: seconds that it stays readable.
    """

    address: str
    meta: StoreMeta
    version: str
    replaced: bool
    grace: int

    def lines(self) -> list[str]:
        """What was done, for a reader."""
        before = f"; the version before stays for {self.grace} s" if self.replaced else ""
        return [f"published: {self.address}, {self.meta.count:,} users, version {self.version[:16]}{before}"]


def publish(folder: Path, to: str, *, grace: int = GRACE) -> Published:
    """Load a folder's store onto a server and switch readers to it.

    Args:
        folder: of the store, which is checked first.
        to: see `conrec.filtering.stores.address.Address.parse`.
        grace: seconds that the version before stays readable, for readers that cannot follow by themselves.

    Raises:
        ArtefactError: the folder's store is damaged.
        ConfigError: ``to`` is no address, or ``grace`` is negative.
        MissingExtraError: the package ``valkey`` is not installed.
        RunLockedError: another process publishes this store, or has begun to while this one stood still.
        StoreUnavailableError: the server does not answer, or has no memory left; readers go on with what they had.
    """
    if grace < 0:
        raise ConfigError(f"{grace} seconds", where="grace", expected="0 or more")
    address = Address.parse(to)
    client = address.connect(max(_PATIENCE, address.timeout))
    with PredictSetStore.open(folder) as store, client:
        return talking(address, lambda: _Publisher(address, client).put(store, grace))


class _Publisher:
    def __init__(self, address: Address, client: Any) -> None:
        self.address, self.client, self.names = address, client, Names(address.name)
        self.token = uuid.uuid4().hex.encode()

    def put(self, store: PredictSetStore, grace: int) -> Published:
        client, names, version = self.client, self.names, store.version
        if not client.set(names.lock, self.token, nx=True, ex=_LOCKED):
            raise RunLockedError(
                "another process publishes this store",
                where=str(self.address),
                mend=f"Wait for it; if it was killed, for at most {_LOCKED} seconds.",
            )
        try:
            before = client.get(names.current)
            for old, state in client.hgetall(names.versions).items():
                if state == _LOADING and old not in (before, version.encode()):
                    self._sweep(old.decode(), None)
            if before != version.encode():
                self._write(methodcaller("hset", names.versions, version, _LOADING))
            self._load(store)
            about = ServedVersion.to_bytes(version, store.meta)

            def switch(pipe: Any) -> None:
                pipe.set(names.of(version) + b"meta", about)
                pipe.set(names.current, version)
                pipe.hset(names.versions, version, _READY)

            self._write(switch)
            for old in client.hkeys(names.versions):
                if old != version.encode():
                    self._sweep(old.decode(), grace)
        finally:
            with suppress(RunLockedError):
                self._write(methodcaller("delete", names.lock))
        replaced = before is not None and before != version.encode()
        return Published(str(self.address), store.meta, version, replaced, grace)

    def _load(self, store: PredictSetStore) -> None:
        prefix = self.names.of(store.version)
        rows: Iterator[tuple[bytes, bytes]] = store.records()
        with meter("publish", len(store)) as step:
            while some := list(islice(rows, _BATCH)):
                # SET by MSET also takes away the time to live of a version that was on its way out.
                batch = {prefix + key: sealed(key, value) for key, value in some}
                self._write(methodcaller("mset", batch))
                step(len(some), "")

    def _write(self, queue: Callable[[Any], object]) -> None:
        """Do what is queued, all of it and only while the lock is still this publisher's, and renew the lock.

        Raises:
            RunLockedError: it is another's, or nobody's.
        """
        from valkey.exceptions import WatchError  # noqa: PLC0415

        lock = self.names.lock
        for _ in range(_ATTEMPTS):
            with self.client.pipeline() as pipe:
                pipe.watch(lock)
                if pipe.get(lock) != self.token:
                    break
                pipe.multi()
                pipe.expire(lock, _LOCKED)
                queue(pipe)
                with suppress(WatchError):  # the lock was touched, or the connection lost: look again
                    pipe.execute()
                    return
        raise RunLockedError(
            f"this publisher stood still for more than {_LOCKED} seconds and has lost its lock",
            where=str(self.address),
            mend="Publish again, unless another process has done so meanwhile.",
        )

    def _sweep(self, version: str, grace: int | None) -> None:
        """Remove the keys of a version, at once (None) or by a time to live."""
        prefix, client = self.names.of(version), self.client
        if grace is not None:
            self._write(methodcaller("expire", prefix + b"meta", grace))
        cursor = 0
        while True:
            cursor, keys = client.scan(cursor, match=prefix + b"*", count=_BATCH)
            records = [key for key in keys if key != prefix + b"meta" or grace is None]

            def retire(pipe: Any, records: list[bytes] = records) -> None:
                for key in records:
                    if grace is None:
                        pipe.unlink(key)
                    else:
                        pipe.expire(key, grace + _LATER)

            self._write(retire)
            if cursor == 0:
                break
        self._write(methodcaller("hdel", self.names.versions, version))
