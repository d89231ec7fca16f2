"""Writes a predict-set store in bulk: blocks of users in, sorted rows out to `conrec.filtering.stores.files`.

Keys and packed records stay in memory until all are there and can be sorted: about 190 bytes a user. Nothing is
pickled. The same content gives the same bytes on machines with the same page size, whatever blocks it comes in.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int

from conrec.arrays import Array
from conrec.errors import DataError, RunLockedError
from conrec.filtering.stores.base import Origin, StoreMeta
from conrec.filtering.stores.files import room_for, switch
from conrec.filtering.stores.layout import HOUR, MAX_KEY, Layout, check_sets, hours_of, is_hashed, key_of

__all__ = ["BulkWriter", "Kept", "SetBlock", "write_blocks", "write_store"]

_CHUNK = 1 << 15
"""Rows that are Python objects at a time."""


@dataclass(frozen=True, slots=True)
class SetBlock:
    """Predict sets of some users.

    Attributes:
        user_ids: Arrow array of text, no null, none empty, each user once in all blocks.
        codes: int32 [users, slots, levels], resolved codes, best first; -1 in all levels of an empty slot. A user
            with empty slots alone is stored as known with an empty set.
        scores: float [users, slots]; ignored where the slot is empty.
        predicted_at: int64 [users], unix seconds: the moment up to which each prediction knew the user.
    """

    user_ids: pa.Array
    codes: Array
    scores: Array
    predicted_at: Array

    def __len__(self) -> int:
        return len(self.user_ids)


@runtime_checkable
class Kept(Protocol):
    """An older store whose users are kept where the new blocks do not have them."""

    @property
    def meta(self) -> StoreMeta:
        """What it says about itself."""
        ...

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """Key and value of each user, in the order of keys."""
        ...

    def changed(self) -> bool:
        """Whether another store has taken its place since it was opened."""
        ...


def write_blocks(
    folder: Path,
    blocks: Iterable[SetBlock],
    origin: Origin,
    *,
    slots: int,
    written_at: int | None = None,
    keep: Kept | None = None,
) -> StoreMeta:
    """Write the predict sets of any number of users; a store that is there already is replaced in one step.

    Args:
        folder: folder of the store.
        blocks: some 10,000 to 100,000 users each.
        origin: what the predict sets were made with.
        slots: predictions that a user has at most, from 1 to 255.
        written_at: unix seconds; None: now.
        keep: an older store, open: its users who are in no block stay, with their sets and times.

    Raises:
        DataError: a user twice, a code out of range, a user without ID, or arrays that do not fit each other.
        RunLockedError: another process writes this store, or has replaced ``keep`` since it was opened.
        OSError: the disk is full, among others; the old store is then as it was.
    """
    writer = BulkWriter(folder, origin, slots=slots)
    for block in blocks:
        writer.add(block)
    return writer.finish(written_at=written_at, keep=keep)


def write_store(
    folder: Path,
    user_ids: Sequence[str],
    codes: Int[Array, "users slots levels"],
    scores: Float[Array, "users slots"],
    origin: Origin,
    *,
    predicted_at: int | None = None,
    written_at: int | None = None,
) -> StoreMeta:
    """`write_blocks` for users who fit into one block.

    Args:
        folder: folder of the store.
        user_ids: distinct, not empty.
        codes: as in `SetBlock`.
        scores: as in `SetBlock`.
        origin: what the predict sets were made with.
        predicted_at: unix seconds, of all of them; None: as ``written_at``.
        written_at: unix seconds; None: now.

    Raises:
        DataError: as `write_blocks`.
        RunLockedError: as `write_blocks`.
        OSError: as `write_blocks`.
    """
    written_at = int(time.time()) if written_at is None else written_at
    times = np.full(len(user_ids), written_at if predicted_at is None else predicted_at, dtype=np.int64)
    try:
        names = pa.array(user_ids, pa.large_string())
    except UnicodeEncodeError as error:
        raise DataError(
            f"the user ID {error.object!r} is not valid Unicode", where="predict sets", expected="text"
        ) from None
    block = SetBlock(names, codes, scores, times)
    return write_blocks(folder, [block], origin, slots=codes.shape[1], written_at=written_at)


class BulkWriter:
    """Takes blocks in any order and writes the store at the end.

    Args:
        folder: folder of the store; nothing is written there before `finish`.
        origin: what the predict sets were made with.
        slots: predictions that a user has at most.

    Raises:
        DataError: more slots or codes than the layout holds.
    """

    def __init__(self, folder: Path, origin: Origin, *, slots: int) -> None:
        self.folder, self.origin = folder, origin
        self.layout = Layout.of(slots, origin.sizes)
        self._keys: list[pa.LargeBinaryArray] = []
        self._records = bytearray()  # grows in place, where a list of arrays would have to be joined
        self._hours: list[Array] = []
        self._long_ids: dict[bytes, bytes] = {}
        self.users = 0

    def add(self, block: SetBlock) -> None:
        """Take some users.

        Raises:
            DataError: arrays that do not fit each other, a code out of range, a user without ID.
        """
        shape = (len(block), self.layout.slots, self.layout.levels)
        if (
            block.codes.shape != shape
            or block.scores.shape != shape[:2]
            or block.predicted_at.shape != shape[:1]
            or not np.issubdtype(block.codes.dtype, np.integer)
        ):
            raise DataError(
                f"{len(block)} users, semantic IDs of shape {block.codes.shape}, scores of shape "
                f"{block.scores.shape} and times of shape {block.predicted_at.shape}",
                where="predict sets",
                expected=f"one row for each user, of {shape[1]} slots and {shape[2]} levels",
            )
        if not len(block):
            return
        check_sets(block.codes, block.scores, self.layout, block.user_ids)
        self._keys.append(self._keys_of(block.user_ids))
        # Ages are known only when the newest set is; until then they are zero.
        self._records += self.layout.pack(block.codes, block.scores, np.zeros(len(block), dtype=np.int64)).tobytes()
        self._hours.append(hours_of(block.predicted_at).clip(-(1 << 31), (1 << 31) - 1).astype(np.int32))
        self.users += len(block)

    def _keys_of(self, user_ids: pa.Array) -> pa.LargeBinaryArray:
        texts = pc.cast(user_ids, pa.large_string())
        if texts.null_count or pc.any(pc.equal(texts, "")).as_py():
            raise DataError("a user ID is empty", where="predict sets", expected="user IDs of at least one character")
        binary = texts.cast(pa.large_binary())
        empty = pa.scalar(b"", pa.large_binary())
        keys = pc.binary_join_element_wise(pa.scalar(b"u", pa.large_binary()), binary, empty)
        long = pc.greater_equal(pc.binary_length(binary), MAX_KEY)
        if pc.any(long).as_py():
            ids = binary.filter(long).to_pylist()
            hashed = [key_of(one.decode()) for one in ids]
            self._long_ids.update(zip(hashed, ids, strict=True))
            keys = pc.replace_with_mask(keys, long, pa.array(hashed, pa.large_binary()))
        return keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys

    def finish(self, *, written_at: int | None = None, keep: Kept | None = None) -> StoreMeta:
        """Write what was added; a store that is there already is replaced in one step.

        Args:
            written_at: unix seconds; None: now.
            keep: an older store whose users stay where they were not added.

        Raises:
            DataError: a user was added twice.
            RunLockedError: another process writes this store, or has replaced ``keep`` since it was opened.
            OSError: the disk is full, among others; the old store is then as it was.
        """
        written_at = int(time.time()) if written_at is None else written_at
        keys = pa.concat_arrays(self._keys) if self._keys else pa.array([], pa.large_binary())
        self._keys = []
        hours = np.concatenate([np.empty(0, dtype=np.int32), *self._hours])
        order = np.asarray(pc.sort_indices(keys)).astype(np.int64)
        self._refuse_twice(keys, order)
        newest = int(hours.max()) * HOUR if len(hours) else written_at // HOUR * HOUR
        if keep is not None:
            newest = max(newest, keep.meta.newest) if len(hours) else keep.meta.newest
        rows: Iterator[tuple[bytes, bytes]] = self._rows(keys, order, newest // HOUR - hours.astype(np.int64))
        room = room_for(len(keys), self.layout.size, keys.nbytes, self._long_ids.values())
        if keep is not None:
            rows = _merged(rows, _aged(keep, self.layout, newest))
            room += room_for(keep.meta.count, self.layout.size, MAX_KEY * keep.meta.count, ())

        def meta_of(count: int) -> StoreMeta:
            return StoreMeta(
                **vars(self.origin), written_at=written_at, newest=newest, count=count, slots=self.layout.slots
            )

        return switch(self.folder, rows, meta_of, room)

    def _refuse_twice(self, keys: pa.LargeBinaryArray, order: Array) -> None:
        for start in range(0, max(0, len(order) - 1), _CHUNK):
            some = keys.take(pa.array(order[start : start + _CHUNK + 1]))
            same = np.flatnonzero(np.asarray(pc.equal(some[1:], some[:-1])))
            if len(same):
                key = some[int(same[0])].as_py()
                name = self._long_ids.get(key, key[1:]).decode()
                raise DataError(f"the user {name!r} comes twice", where=str(self.folder), expected="each user once")

    def _rows(self, keys: pa.LargeBinaryArray, order: Array, ages: Array) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values in the order of keys."""
        records = np.frombuffer(self._records, dtype=np.uint8).reshape(-1, self.layout.size)
        kind = pa.binary(self.layout.size)
        for start in range(0, len(order), _CHUNK):
            chosen = order[start : start + _CHUNK]
            some = records[chosen]
            self.layout.set_ages(some, ages[chosen])
            names = keys.take(pa.array(chosen)).to_pylist()
            buffers = [None, pa.py_buffer(some)]
            values = pa.FixedSizeBinaryArray.from_buffers(kind, len(some), buffers).to_pylist()
            if self._long_ids:
                values = [
                    value + self._long_ids[key] if is_hashed(key) else value
                    for key, value in zip(names, values, strict=True)
                ]
            yield from zip(names, values, strict=True)


def _aged(keep: Kept, layout: Layout, newest: int) -> Iterator[tuple[bytes, bytes]]:
    """Rows of an older store in a layout, as old as they are when the newest set is that of the new store.

    Raises:
        RunLockedError: it is no longer the newest; what came since would be lost. (Whoever reads this holds the lock.)
    """
    if keep.changed():
        raise RunLockedError(
            "another process has replaced the store whose users are kept",
            where="predict sets",
            mend="Give the same command again.",
        )
    old = Layout.of(keep.meta.slots, keep.meta.sizes)
    later = (newest - keep.meta.newest) // HOUR
    rows = keep.records()
    while some := list(islice(rows, _CHUNK)):
        records = np.frombuffer(b"".join(value[: old.size] for _, value in some), dtype=np.uint8)
        records = records.reshape(-1, old.size)
        if (old.slots, old.sizes) == (layout.slots, layout.sizes):
            again = layout.aged(records, later)
        else:
            codes, scores, ages = old.read_many(records)
            wide = max(0, layout.slots - old.slots)
            codes = np.pad(codes[:, : layout.slots], ((0, 0), (0, wide), (0, 0)), constant_values=-1)
            scores = np.pad(scores[:, : layout.slots], ((0, 0), (0, wide)), constant_values=-np.inf)
            check_sets(codes, scores, layout, [key for key, _ in some])
            again = layout.pack(codes, scores, ages + later)
        for (key, value), record in zip(some, again, strict=True):
            yield key, record.tobytes() + value[old.size :]


def _merged(new: Iterator[tuple[bytes, bytes]], old: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """Two sorted streams as one; of a key in both the new value."""
    nothing = (b"", b"")  # no key is empty
    one, other = next(new, nothing), next(old, nothing)
    while one[0] and other[0]:
        if one[0] <= other[0]:
            if one[0] == other[0]:
                other = next(old, nothing)
            yield one
            one = next(new, nothing)
        else:
            yield other
            other = next(old, nothing)
    rest, stream = (one, new) if one[0] else (other, old)
    if rest[0]:
        yield from chain([rest], stream)
