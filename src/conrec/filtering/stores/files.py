"""The two files of a store in a folder, and the one step that puts a new store in the place of an old one.

A store is a folder of two files, and an empty one for writers::

    store.json       {"format": "conrec-predict-sets", "file", "bytes", "sha256", "meta": {…}}
    data-HASH.mdb    the LMDB file that store.json names, trimmed; its bytes: `conrec.filtering.stores.layout`
    .lock            held by the one who writes

``store.json`` is what makes a store: a new one is written completely beside the old one, and replacing this one
small file is the single step that switches from the old store to the new one. (A folder cannot be renamed onto one
that is not empty.) A reader, or a machine that stops at any moment, sees one or the other. One writer works at a time,
so that files that ``store.json`` does not name are left over from a writer that was stopped, and the next one removes
them.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

import lmdb

from conrec.artefacts import hash_file, saying_disk_full, sync_folder, write_json
from conrec.filtering.stores.base import StoreMeta
from conrec.filtering.stores.layout import META_KEY
from conrec.folders import held

__all__ = ["FORMAT", "HEADER", "room_for", "switch"]

FORMAT = "conrec-predict-sets"
HEADER = "store.json"
_COMMIT = 1 << 19
"""Rows of one transaction, whose pages LMDB holds in memory."""


def switch(
    folder: Path, rows: Iterator[tuple[bytes, bytes]], meta_of: Callable[[int], StoreMeta], room: int
) -> StoreMeta:
    """Write rows (in key order) beside the store that is there, and put them in its place.

    Raises:
        RunLockedError: another process writes this store.
        OSError: the disk is full, among others; the old store is then as it was.
    """
    with held(folder, "Wait for it, and give the same command again.", "predict-set store"):
        return _switch(folder, rows, meta_of, room)


def _switch(
    folder: Path, rows: Iterator[tuple[bytes, bytes]], meta_of: Callable[[int], StoreMeta], room: int
) -> StoreMeta:
    temporary = folder / f".{uuid.uuid4().hex[:8]}.tmp"
    trimmed = temporary.with_suffix(".trimmed")
    try:
        try:
            with saying_disk_full(folder):
                meta = _write_lmdb(temporary, trimmed, rows, meta_of, room)
        except lmdb.Error:
            _probe(temporary)
            raise
        digest, size = hash_file(trimmed), trimmed.stat().st_size
        final = folder / f"data-{digest[:16]}.mdb"
        trimmed.replace(final)
        sync_folder(folder)  # before the header that names it
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
    temporary: Path, trimmed: Path, rows: Iterator[tuple[bytes, bytes]], meta_of: Callable[[int], StoreMeta], room: int
) -> StoreMeta:
    """Write the rows into one LMDB file and a copy of it without free pages."""
    # The copy is what is kept and what is flushed, so the first file need not be.
    environment = lmdb.open(str(temporary), map_size=room, subdir=False, lock=False, sync=False, metasync=False)
    try:
        count = 0
        for first in rows:
            with environment.begin(write=True) as transaction:
                some = chain([first], islice(rows, _COMMIT - 1))
                count += transaction.cursor().putmulti(some, append=True)[1]
        meta = meta_of(count)
        with environment.begin(write=True) as transaction:
            transaction.put(META_KEY, meta.to_bytes())
        # The size of the map is written into the file: no larger than the content, so that it follows from that alone.
        environment.set_mapsize(1)
        environment.copy(str(trimmed), compact=True)
    finally:
        environment.close()
    with trimmed.open("rb") as handle:
        os.fsync(handle.fileno())
    return meta


def _probe(path: Path) -> None:
    """Let a file grow a little more: LMDB calls a write that was cut short by a full disk an input/output error.

    Raises:
        OSError: the disk is full, among others.
    """
    with path.open("ab") as handle:
        handle.write(bytes(1 << 20))
        handle.flush()
        os.fsync(handle.fileno())


def room_for(users: int, set_bytes: int, key_bytes: int, long_ids: Iterable[bytes]) -> int:
    """An upper bound of the bytes that LMDB needs; address space alone, no memory and no disk."""
    value = set_bytes + 32
    overflow = sum(len(one) + 32_768 for one in long_ids)
    # Values over half a page take whole pages; 32 KiB covers the largest page size and its neighbour's slack.
    each = value + 32 if value < 1500 else value + 32_768
    return ((users * each + key_bytes) * 2 + overflow * 2 + (1 << 24) + 65_535) // 65_536 * 65_536
