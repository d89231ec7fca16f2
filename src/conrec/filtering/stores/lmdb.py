"""Reads a predict-set store in a folder: one memory-mapped LMDB file (written by `conrec.filtering.stores.writer`)."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import lmdb
import numpy as np
from jaxtyping import Bool

from conrec.arrays import Array
from conrec.artefacts import hash_file, read_json
from conrec.errors import ArtefactError
from conrec.filtering.stores.base import VERSION, PredictSet, SetReader, StoredSets, StoreMeta, refuse_other_tables
from conrec.filtering.stores.files import FORMAT, HEADER
from conrec.filtering.stores.layout import META_KEY, Layout, is_hashed, key_of

__all__ = ["PredictSetStore"]

_REWRITE = "Give the command of the run again: it writes the store anew."
_ATTEMPTS = 5
"""At opening, while a writer replaces the store again and again."""


class PredictSetStore(SetReader):
    """A store, mapped read-only. Use it as a context manager or let it go; threads and processes may share the file.

    Attributes:
        folder: where it is.
        version: SHA-256 of its file.
    """

    def __init__(
        self, folder: Path, meta: StoreMeta, version: str, environment: lmdb.Environment, seen: tuple[int, ...]
    ) -> None:
        self.folder, self._meta, self.version = folder, meta, version
        self._environment: lmdb.Environment | None = environment
        self._layout = Layout.of(meta.slots, meta.sizes)
        self._seen = seen

    @classmethod
    def open(
        cls,
        folder: Path,
        expected_sid_hash: str | None = None,
        earlier: Collection[str] = (),
        *,
        codebook_hash: str = "",
        verified: str = "",
    ) -> PredictSetStore:
        """Check a store from its checksum to its SID table, and map it.

        Args:
            folder: folder of the store.
            expected_sid_hash: hash of the SID table that the codes will be read with; None: not checked.
            earlier: hashes of tables that it grew from, in which the codes name the same items.
            codebook_hash: hash of the codebooks that candidates are rebuilt from
                (`conrec.filtering.stores.opening.codebooks_of`); empty: not checked, nor where the store knows none.
            verified: ``version`` of a store that this process, or the one that started it, has opened: where the
                folder still holds that one, its checksum (a second for each gigabyte or so) is not computed again.

        Raises:
            ArtefactError: there is no store, it is truncated or damaged, of another format or version, or made
                with another SID table or other codebooks.
        """
        for attempt in range(_ATTEMPTS):
            seen = _stamp(folder / HEADER)
            header, meta = _read_header(folder)
            refuse_other_tables(meta, str(folder), _REWRITE, expected_sid_hash, earlier, codebook_hash)
            path = folder / header["file"]
            try:
                environment = _checked(path, header, meta, trusted=verified == header["sha256"])
            except FileNotFoundError:
                # A writer has replaced the store since store.json was read, unless that still says the same.
                if attempt + 1 < _ATTEMPTS and _stamp(folder / HEADER) != seen:
                    continue
                raise ArtefactError("this file of the store is missing", where=str(path), mend=_REWRITE) from None
            return cls(folder, meta, header["sha256"], environment, seen)
        raise AssertionError("the last attempt returns or raises")

    @property
    def meta(self) -> StoreMeta:
        """What it says about itself."""
        return self._meta

    def close(self) -> None:
        """Let go of the file."""
        self._environment = None

    def changed(self) -> bool:
        """Whether the folder names another version by now: one `os.stat`, and a small file where that differs.

        A folder without a ``store.json`` that can be read has no other version: what is mapped stays right.
        """
        stamp = _stamp(self.folder / HEADER)
        if stamp == self._seen:
            return False
        try:
            header = read_json(self.folder / HEADER)
        except ArtefactError:
            return False
        other = isinstance(header, dict) and header.get("sha256") != self.version
        if not other:
            self._seen = stamp
            if isinstance(header, dict):  # the same content, written again: its time alone is another
                self._meta = StoreMeta.from_json(header.get("meta")) or self._meta
        return other

    def get(self, user_id: str) -> PredictSet | None:
        """The predict set of a user, None for a user who is not in the store."""
        with self._open_environment().begin() as transaction:
            value = self._value(transaction, user_id)
        return self.one_set(user_id, value, self._layout, self._meta)

    def get_many(self, user_ids: Sequence[str]) -> StoredSets:
        """Predict sets of many users at once."""
        with self._open_environment().begin() as transaction:
            values = [self._value(transaction, user_id) for user_id in user_ids]
        return self.many_sets(values, self._layout, self._meta)

    def holds(self, user_ids: Sequence[str]) -> Bool[Array, " users"]:
        """Whether each user is in the store."""
        with self._open_environment().begin() as transaction:
            return np.asarray([self._value(transaction, user_id) is not None for user_id in user_ids], dtype=np.bool_)

    def user_ids(self) -> Iterator[str]:
        """The users of the store, in the order of their keys."""
        for key, value in self.records():
            yield self._full_id(key, value)

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """Key and value of each user, as they lie there, in the order of keys."""
        with self._open_environment().begin() as transaction:
            for key, value in transaction.cursor():
                if key != META_KEY:
                    yield key, value

    def _value(self, transaction: lmdb.Transaction, user_id: str) -> bytes | None:
        """The value of a user. A hashed key is the right one only if the full ID in the value says so."""
        key = key_of(user_id)
        value: Any = transaction.get(key)  # bytes, for the transaction was not asked for buffers
        return None if value is None or (is_hashed(key) and self._full_id(key, value) != user_id) else value

    def _full_id(self, key: bytes, value: bytes) -> str:
        return (value[self._layout.size :] if is_hashed(key) else key[1:]).decode()

    def _open_environment(self) -> lmdb.Environment:
        if self._environment is None:
            raise ArtefactError("this store was closed", where=str(self.folder))
        return self._environment


_environments: WeakValueDictionary[tuple[int, int], lmdb.Environment] = WeakValueDictionary()
_environments_lock = threading.Lock()


def _checked(path: Path, header: dict[str, Any], meta: StoreMeta, *, trusted: bool) -> lmdb.Environment:
    """The file that a header names, mapped, once it is what the header says.

    Raises:
        FileNotFoundError: it is not there.
        ArtefactError: it is damaged.
    """
    size = path.stat().st_size
    if size != header["bytes"]:
        raise ArtefactError(f"has {size} bytes", where=str(path), expected=f"{header['bytes']}", mend=_REWRITE)
    # Before LMDB maps it: a damaged file could take the process down.
    if not trusted and hash_file(path) != header["sha256"]:
        raise ArtefactError("its checksum is not the one in store.json", where=str(path), mend=_REWRITE)
    environment = _mapped(path)
    with environment.begin() as transaction:
        inside = transaction.get(META_KEY)
    if not meta.matches(inside):
        raise ArtefactError("its meta data is not that of store.json", where=str(path), mend=_REWRITE)
    return environment


def _mapped(path: Path) -> lmdb.Environment:
    """The file as a read-only LMDB environment; one per file and process, as LMDB demands."""
    place = path.stat()
    name = (place.st_dev, place.st_ino)
    with _environments_lock:
        environment = _environments.get(name)
        if environment is None:
            try:
                # No lock file: a store is never written after it has its name.
                environment = lmdb.open(str(path), readonly=True, lock=False, subdir=False, map_size=place.st_size)
            except lmdb.Error as error:
                if not path.exists():
                    raise FileNotFoundError(str(path)) from None
                raise ArtefactError(f"cannot be opened as LMDB ({error})", where=str(path), mend=_REWRITE) from None
            _environments[name] = environment
        return environment


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes when a file is replaced; empty where it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _read_header(folder: Path) -> tuple[dict[str, Any], StoreMeta]:
    """``store.json`` and the meta data in it, checked."""
    path = folder / HEADER
    if not folder.is_dir():
        raise ArtefactError("there is no predict-set store", where=str(folder), mend=_REWRITE)
    header = read_json(path)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ArtefactError("is not the header of a predict-set store", where=str(path), expected=f"format {FORMAT!r}")
    version = header["meta"].get("version") if isinstance(header.get("meta"), dict) else None
    if version != VERSION:
        raise ArtefactError(f"has the format version {version}", where=str(path), expected=str(VERSION), mend=_REWRITE)
    meta = StoreMeta.from_json(header["meta"])
    name, size, digest = (header.get(key) for key in ("file", "bytes", "sha256"))
    plain = isinstance(name, str) and Path(name).name == name
    if meta is None or not plain or not isinstance(size, int) or not isinstance(digest, str):
        raise ArtefactError("its entries are damaged", where=str(path), expected="file, bytes, sha256, meta")
    return header, meta
