"""Reads predict sets from a Valkey or Redis server, for many machines (keys: `conrec.filtering.stores.valkey_keys`).

A reader asks for a user's record and for the current version in one command, so it never mixes versions, and follows to
a new one by itself where that was made by the same model, with the same tables. Where it was not, the reader stays with
the version that it has, as long as that is there: it expires some time after the switch, its meta data first, and then
the reader says that it cannot answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any

from conrec.errors import ArtefactError
from conrec.filtering.stores.address import Address
from conrec.filtering.stores.base import (
    PredictSet,
    SetReader,
    StoredSets,
    StoreMeta,
    StoreUnavailableError,
    refuse_other_tables,
)
from conrec.filtering.stores.layout import is_hashed, key_of
from conrec.filtering.stores.valkey_keys import PUBLISH, Names, ServedVersion, opened, talking

__all__ = ["ValkeyStore"]

PAUSE = 0.2
"""Seconds in which a server that did not answer is not asked again, so that requests do not wait in vain."""
_TOGETHER = 2000
"""Users of one command."""
_ATTEMPTS = 5


class ValkeyStore(SetReader):
    """A store on a server, read-only. Threads may share it; after a fork each process makes its own connections.

    Attributes:
        address: where it is.
    """

    def __init__(self, address: Address, client: Any, fits: Callable[[StoreMeta], None]) -> None:
        self.address, self._client, self._fits = address, client, fits
        self._names = Names(address.name)
        self._quiet_until = 0.0
        self._refused: bytes | None = None
        self._version = self._first()

    @classmethod
    def open(
        cls,
        address: str,
        expected_sid_hash: str | None = None,
        earlier: Collection[str] = (),
        *,
        codebook_hash: str = "",
    ) -> ValkeyStore:
        """Check what a server holds, and read it.

        Args:
            address: see `conrec.filtering.stores.address.Address.parse`.
            expected_sid_hash: hash of the SID table that the codes will be read with; None: not checked.
            earlier: hashes of tables that it grew from, in which the codes name the same items.
            codebook_hash: hash of the codebooks that candidates are rebuilt from; empty: not checked.

        Raises:
            ConfigError: that is no address.
            MissingExtraError: the package ``valkey`` is not installed.
            StoreUnavailableError: the server does not answer.
            ArtefactError: it has no store of this name, or one of another format, SID table or codebooks.
        """
        place = Address.parse(address)

        def fits(meta: StoreMeta) -> None:
            refuse_other_tables(meta, str(place), PUBLISH, expected_sid_hash, earlier, codebook_hash)

        return cls(place, place.connect(), fits)

    @property
    def meta(self) -> StoreMeta:
        """What the version that is read says about itself."""
        return self._version.meta

    @property
    def version(self) -> str:
        """SHA-256 of the file that was published."""
        return self._version.name

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def changed(self) -> bool:
        """Whether the server has another version by now that this reader cannot follow to by itself."""
        current = self._ask(lambda: self._client.get(self._names.current))
        return current not in (None, self.version.encode()) and not self._follow(current)

    def get(self, user_id: str) -> PredictSet | None:
        """The predict set of a user, None for a user who is not in the store."""
        version, (value,) = self._values([user_id])
        return self.one_set(user_id, value, version.layout, version.meta)

    def get_many(self, user_ids: Sequence[str]) -> StoredSets:
        """Predict sets of many users at once, all of one version."""
        version, values = self._values(user_ids)
        return self.many_sets(values, version.layout, version.meta)

    def user_ids(self) -> Iterator[str]:
        """The users of the version that is read now, in no order; their keys are held in memory meanwhile."""
        version, seen = self._version, set[bytes]()
        size, begin = version.layout.size, len(version.prefix)
        search: dict[str, Any] = {"cursor": 0, "match": version.prefix + b"[uh]*", "count": _TOGETHER}
        while True:
            search["cursor"], found = self._ask(partial(self._client.scan, **search))
            new = [key for key in dict.fromkeys(found) if key not in seen]
            seen.update(new)
            hashed = [key for key in new if is_hashed(key[begin:])]
            yield from (key[begin + 1 :].decode() for key in new if not is_hashed(key[begin:]))
            values = self._ask(partial(self._client.mget, hashed)) if hashed else []
            for key, value in zip(hashed, values, strict=True):
                if value is not None:
                    yield opened(key[begin:], value, version, self.address)[size:].decode()
            if search["cursor"] == 0:
                return

    def _values(self, user_ids: Sequence[str]) -> tuple[ServedVersion, list[bytes | None]]:
        """The version that was read, and the value of each user in it."""
        keys = [key_of(user_id) for user_id in user_ids]
        for _ in range(_ATTEMPTS):
            version = self._version
            values: list[bytes | None] = []
            for start in range(0, max(1, len(keys)), _TOGETHER):
                some = self._of_version(version, keys[start : start + _TOGETHER])
                if some is None:
                    break
                values += some
            else:
                asked = zip(keys, values, user_ids, strict=True)
                return version, [self._record(version, key, value, user_id) for key, value, user_id in asked]
        raise StoreUnavailableError("its version changes faster than it can be read", where=str(self.address))

    def _of_version(self, version: ServedVersion, keys: list[bytes]) -> list[bytes | None] | None:
        """Values as they lie there, or None where this reader went over to another version."""
        asked = [self._names.current.encode(), version.prefix + b"meta", *[version.prefix + key for key in keys]]
        current, meta, *values = self._ask(lambda: self._client.mget(asked))
        if current == version.name.encode():
            return list(values)
        if current is not None and self._follow(current):
            return None
        if meta is None:
            other = "there is no other" if current is None else "the new one is not of this model and these tables"
            raise StoreUnavailableError(
                f"the version that was read is gone, and {other}",
                where=str(self.address),
                mend=PUBLISH if current is None else "Load the filter again.",
            )
        return list(values)  # what was replaced stays whole as long as its meta data is there

    def _record(self, version: ServedVersion, key: bytes, value: bytes | None, user_id: str) -> bytes | None:
        if value is None:
            return None
        record = opened(key, value, version, self.address)
        full_id = record[version.layout.size :]
        return None if is_hashed(key) and full_id != user_id.encode("utf-8", "surrogatepass") else record

    def _first(self) -> ServedVersion:
        """The version that is current at opening.

        Raises:
            ArtefactError: there is none, or it does not fit.
        """
        for _ in range(_ATTEMPTS):
            current = self._ask(lambda: self._client.get(self._names.current))
            if current is None:
                raise ArtefactError("there is no predict-set store", where=str(self.address), mend=PUBLISH)
            version = self._read_version(current)
            if version is not None:
                self._fits(version.meta)
                return version
        raise ArtefactError("its meta data is missing", where=str(self.address), mend=PUBLISH)

    def _read_version(self, name: bytes) -> ServedVersion | None:
        """What a version says about itself; None where it is not there any more.

        Raises:
            ArtefactError: it is damaged, or of another format.
        """
        key = self._names.of(name.decode(errors="replace")) + b"meta"
        text = self._ask(lambda: self._client.get(key))
        return None if text is None else ServedVersion.from_bytes(text, name, self.address)

    def _follow(self, current: bytes) -> bool:
        """Go over to another version where it is of the same model and fits; whether that was done."""
        if current == self._refused:
            return False
        try:
            other = self._read_version(current)
            if other is None:
                return False
            self._fits(other.meta)
        except ArtefactError:
            self._refused = current
            return False
        mine = self.meta
        if (other.meta.model, other.meta.model_version) != (mine.model, mine.model_version):
            self._refused = current
            return False
        self._version = other
        return True

    def _ask(self, ask: Callable[[], Any]) -> Any:
        """Ask once, and once more where a connection was lost since the last time; then leave the server alone a while.

        Raises:
            StoreUnavailableError: no answer.
        """
        from valkey import exceptions  # noqa: PLC0415

        if time.monotonic() < self._quiet_until:
            raise StoreUnavailableError("the server did not answer a moment ago", where=str(self.address))

        def twice() -> Any:
            try:
                return ask()
            except exceptions.BusyLoadingError:
                raise
            except exceptions.ConnectionError:
                return ask()

        try:
            return talking(self.address, twice)
        except StoreUnavailableError as error:
            if isinstance(error.__cause__, exceptions.ConnectionError | exceptions.TimeoutError | OSError):
                self._quiet_until = time.monotonic() + PAUSE
            raise
