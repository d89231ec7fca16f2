"""The predict-set store: what each user will dislike next, in one memory-mapped LMDB file.

A store is a folder of two files::

    store.json       {"format": "conrec-predict-sets", "file", "bytes", "sha256", "meta": {…}}
    data-HASH.mdb    the LMDB file that store.json names, trimmed; its bytes: `conrec.filtering.stores.layout`

``store.json`` is what makes a store: a new one is written completely beside the old one, and replacing this one
small file is the single step that switches from the old store to the new one. (A folder cannot be renamed onto one
that is not empty.) A reader, or a machine that stops at any moment, sees one or the other. Files that ``store.json``
does not name are left over from a writer that was stopped, and the next writer removes them.

Nothing is pickled. The same content gives the same bytes on machines with the same page size.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any
from weakref import WeakValueDictionary

import lmdb
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32

from conrec.arrays import Array
from conrec.artefacts import hash_file, read_json, saying_disk_full, write_json
from conrec.errors import ArtefactError, DataError
from conrec.filtering.stores.layout import (
    META_KEY,
    VERSION,
    PredictSet,
    StoreMeta,
    check_content,
    is_hashed,
    key_of,
    pack,
    record,
    room_for,
    unpack,
)

__all__ = ["FORMAT", "HEADER", "PredictSet", "PredictSetStore", "StoreMeta", "write_store"]

FORMAT = "conrec-predict-sets"
HEADER = "store.json"
_REWRITE = "Give the command of the run again: it writes the store anew."


def write_store(
    folder: Path,
    user_ids: Sequence[str],
    sids: Int[Array, "users K levels"],
    scores: Float[Array, "users K"],
    *,
    model: str,
    sid_hash: str,
    codebook_size: int,
    written_at: int | None = None,
) -> StoreMeta:
    """Write the predict sets of all users; a store that is there already is replaced in one step.

    Args:
        folder: folder of the store.
        user_ids: distinct, not empty.
        sids: resolved codes, best first; -1 in all of them for an empty slot. A user without any is stored as known
            with an empty set.
        scores: score of each prediction; ignored where the slot is empty.
        model: name of the row that made the predictions.
        sid_hash: hash of the SID table.
        codebook_size: codes of each of the first three levels; of any level at most 65535.
        written_at: unix seconds; None: now.

    Raises:
        DataError: a user twice, a code out of range, or arrays that do not fit each other.
        OSError: the disk is full, among others; the old store is then as it was.
    """
    check_content(user_ids, sids, scores, codebook_size)
    written_at = int(time.time()) if written_at is None else written_at
    meta = StoreMeta(model, sid_hash, codebook_size, written_at, len(user_ids), sids.shape[1], levels=sids.shape[2])
    keys = [key_of(user_id) for user_id in user_ids]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    for first, second in pairwise(order):
        if keys[first] == keys[second]:
            raise DataError(f"the user {user_ids[first]!r} comes twice", where=str(folder), expected="each user once")
    records = pack(sids, scores)

    def rows() -> Iterator[tuple[bytes, bytes]]:
        for position in order:
            full_id = user_ids[position].encode() if is_hashed(keys[position]) else b""
            yield keys[position], records[position].tobytes() + full_id

    room = room_for(len(order), meta.slots * records.itemsize, sum(len(key) for key in keys), user_ids, keys)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{uuid.uuid4().hex[:8]}.tmp"
    trimmed = temporary.with_suffix(".trimmed")
    try:
        try:
            with saying_disk_full(folder):
                _write_lmdb(temporary, trimmed, rows(), meta, room)
        except lmdb.Error:
            _probe(temporary)
            raise
        digest, size = hash_file(trimmed), trimmed.stat().st_size
        final = folder / f"data-{digest[:16]}.mdb"
        trimmed.replace(final)
    finally:
        temporary.unlink(missing_ok=True)
        trimmed.unlink(missing_ok=True)
    header = {"format": FORMAT, "file": final.name, "bytes": size, "sha256": digest, "meta": meta.to_json()}
    write_json(folder / HEADER, header)
    for stale in folder.iterdir():
        if stale.name not in (final.name, HEADER) and stale.suffix in (".mdb", ".tmp", ".trimmed"):
            stale.unlink(missing_ok=True)
    return meta


def _write_lmdb(
    temporary: Path, trimmed: Path, rows: Iterator[tuple[bytes, bytes]], meta: StoreMeta, room: int
) -> None:
    """Write the rows (in key order) into one LMDB file and a copy of it without free pages."""
    # The copy is what is kept and what is flushed, so the first file need not be.
    environment = lmdb.open(str(temporary), map_size=room, subdir=False, lock=False, sync=False, metasync=False)
    try:
        with environment.begin(write=True) as transaction:
            transaction.cursor().putmulti(rows, append=True)
            transaction.put(META_KEY, meta.to_bytes())
        environment.copy(str(trimmed), compact=True)
    finally:
        environment.close()
    with trimmed.open("rb") as handle:
        os.fsync(handle.fileno())


def _probe(path: Path) -> None:
    """Let a file grow a little more: LMDB calls a write that was cut short by a full disk an input/output error.

    Raises:
        OSError: the disk is full, among others.
    """
    with path.open("ab") as handle:
        handle.write(bytes(1 << 20))
        handle.flush()
        os.fsync(handle.fileno())


class PredictSetStore:
    """A store, mapped read-only. Use it as a context manager or let it go; threads and processes may share the file.

    Attributes:
        folder: where it is.
        meta: what it says about itself.
    """

    def __init__(self, folder: Path, meta: StoreMeta, environment: lmdb.Environment) -> None:
        self.folder, self.meta = folder, meta
        self._environment: lmdb.Environment | None = environment

    @classmethod
    def open(cls, folder: Path, expected_sid_hash: str | None = None, earlier: Collection[str] = ()) -> PredictSetStore:
        """Check a store from its checksum to its SID table, and map it.

        Args:
            folder: folder of the store.
            expected_sid_hash: hash of the SID table that the codes will be read with; None: not checked.
            earlier: hashes of tables that it grew from, in which the codes name the same items.

        Raises:
            ArtefactError: there is no store, it is truncated or damaged, of another format or version, or made
                with another SID table.
        """
        for attempt in range(2):
            header, meta = _read_header(folder)
            path = folder / header["file"]
            if not path.is_file() and attempt == 0:
                continue  # a writer replaced the store between the two reads
            break
        if not path.is_file():
            raise ArtefactError("this file of the store is missing", where=str(path), mend=_REWRITE)
        if path.stat().st_size != header["bytes"]:
            raise ArtefactError(
                f"has {path.stat().st_size} bytes", where=str(path), expected=f"{header['bytes']}", mend=_REWRITE
            )
        # Before LMDB maps it: a damaged file could take the process down.
        if hash_file(path) != header["sha256"]:
            raise ArtefactError("its checksum is not the one in store.json", where=str(path), mend=_REWRITE)
        if expected_sid_hash is not None and meta.sid_hash not in (expected_sid_hash, *earlier):
            raise ArtefactError(
                f"was written with the SID table {meta.sid_hash[:12]}…",
                where=str(folder),
                expected=f"the SID table of this run, {expected_sid_hash[:12]}…",
                mend=_REWRITE,
            )
        environment = _mapped(path)
        with environment.begin() as transaction:
            inside = transaction.get(META_KEY)
        if inside != meta.to_bytes():
            raise ArtefactError("its meta data is not that of store.json", where=str(path), mend=_REWRITE)
        return cls(folder, meta, environment)

    def __len__(self) -> int:
        return self.meta.count

    def __enter__(self) -> PredictSetStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._environment = None

    def get(self, user_id: str) -> PredictSet | None:
        """The predict set of a user, None for a user who is not in the store."""
        found, codes, scores = self.get_many([user_id])
        if not found[0]:
            return None
        here = codes[0, :, 0] >= 0
        return PredictSet(user_id, codes[0][here], scores[0][here])

    def get_many(
        self, user_ids: Sequence[str]
    ) -> tuple[Bool[Array, " users"], Int32[Array, "users slots levels"], Float32[Array, "users slots"]]:
        """Predict sets of many users: whether each is in the store, codes (-1: empty slot) and scores (-inf)."""
        empty = pack(
            np.full((1, self.meta.slots, self.meta.levels), -1, dtype=np.int32),
            np.zeros((1, self.meta.slots), dtype=np.float32),
        ).tobytes()
        keys = [key_of(user_id) for user_id in user_ids]
        values: list[bytes] = []
        found = np.zeros(len(keys), dtype=np.bool_)
        with self._open_environment().begin() as transaction:
            for position, key in enumerate(keys):
                value = transaction.get(key)
                # A hashed key is the right one only if the full ID in the value says so.
                if value is not None and is_hashed(key) and self._full_id(key, value) != user_ids[position]:
                    value = None
                found[position] = value is not None
                values.append(empty if value is None else value)
        codes, scores = unpack(values, self.meta.slots, self.meta.levels)
        return found, codes, scores

    def user_ids(self) -> Iterator[str]:
        """The users of the store, in the order of their keys."""
        with self._open_environment().begin() as transaction:
            for key, value in transaction.cursor():
                if key != META_KEY:
                    yield self._full_id(key, value)

    def _full_id(self, key: bytes, value: bytes) -> str:
        return (value[self.meta.slots * record(self.meta.levels).itemsize :] if is_hashed(key) else key[1:]).decode()

    def _open_environment(self) -> lmdb.Environment:
        if self._environment is None:
            raise ArtefactError("this store was closed", where=str(self.folder))
        return self._environment


_environments: WeakValueDictionary[str, lmdb.Environment] = WeakValueDictionary()
_environments_lock = threading.Lock()


def _mapped(path: Path) -> lmdb.Environment:
    """The file as a read-only LMDB environment; one per file and process, as LMDB demands."""
    name = str(path.resolve())
    with _environments_lock:
        environment = _environments.get(name)
        if environment is None:
            try:
                # No lock file: a store is never written after it has its name.
                environment = lmdb.open(name, readonly=True, lock=False, subdir=False, map_size=path.stat().st_size)
            except lmdb.Error as error:
                raise ArtefactError(f"cannot be opened as LMDB ({error})", where=str(path), mend=_REWRITE) from None
            _environments[name] = environment
        return environment


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
