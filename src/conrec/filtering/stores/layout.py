"""The bytes of a predict set, the same in every store: keys, and records of a fixed length.

::

    b"meta"                     the meta data as UTF-8 JSON (of the LMDB file; as in store.json, without written_at)
    b"u" + user ID in UTF-8     where that fits LMDB's limit of 511 bytes, else
    b"h" + SHA-256 of it        (33 bytes)

    record, little-endian:
      uint8      n: how many slots are filled; the first n are
      uint16     low 15 bits: age in hours before ``meta.newest``, at most 32,767 (3.7 years; older ones say that);
                 top bit: the two scores below count in units of 65,536
      float16    best score, the highest of the n
      float16    worst score, the lowest
      codes      ceil(slots · w / 8) bytes, w = w_1 + … + w_levels, w_l = bits of the largest code of level l.
                 Code l of slot s stands at the w_l bits from bit s · w + w_1 + … + w_(l-1), low bits first
                 (bit b is bit b % 8 of byte b // 8)
      scores     uint8 [slots]: q stands for worst + q / 255 · (best - worst)
      then the user's full ID in UTF-8, where the key is hashed

For 20 predictions of three codes below 8,192 a record has 7 + 98 + 20 = 125 bytes.

**What is lost.** Codes are exact. A score is off by at most half of 1/255 of the set's own range, and by the rounding
of the two ends to float16 (2^-12 of their size, 2^-25 at least); the order of scores is kept, though near ones may
become equal. Beyond 65,504 the ends count in units of 65,536; beyond 4.29e9 scores are cut off. Times are cut to
whole hours. What was read from a record and packed again gives the same record.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int, Int32, Int64, UInt8

from conrec.arrays import Array
from conrec.errors import DataError

__all__ = ["HOUR", "META_KEY", "Layout", "hours_of", "is_hashed", "key_of", "stored_scores"]

META_KEY = b"meta"
HOUR = 3600
MAX_SLOTS = 255
MAX_SIZE = 1 << 25
"""Codes of a level: one of so many is still inside the four bytes that begin with its first bit."""
MAX_KEY = 511
_HEAD = struct.Struct("<BHee")
_OLDEST = 0x7FFF
_WIDE_BIT = 0x8000
_WIDE = 65_536.0
_LARGEST = 65_504.0
"""Of a float16."""
_WORD, _EACH_BYTE = np.dtype("<u4"), (1,)
"""Four bytes, from each byte on."""
_HEAD_TYPE = np.dtype([("count", "u1"), ("age", "<u2"), ("best", "<f2"), ("worst", "<f2")])


def key_of(user_id: str) -> bytes:
    """The key of a user. IDs that are no valid Unicode have one, too, but no store has a record of them."""
    encoded = user_id.encode("utf-8", "surrogatepass")
    return b"u" + encoded if len(encoded) < MAX_KEY else b"h" + hashlib.sha256(encoded).digest()


def is_hashed(key: bytes) -> bool:
    """Whether a key holds the hash of a user ID, whose record is then followed by the ID itself."""
    return key[:1] == b"h"


def hours_of(seconds: Int[Array, " users"]) -> Int64[Array, " users"]:
    """Whole hours since 1970 of unix seconds."""
    return seconds.astype(np.int64) // HOUR


@dataclass(frozen=True, eq=False)
class Layout:
    """Packs and reads records of one shape.

    Attributes:
        slots: predictions that a user has at most.
        sizes: codes of each level.
        size: bytes of a record.
    """

    slots: int
    sizes: tuple[int, ...]
    size: int
    _bit: Array
    _from: Array
    _shift: Array
    _mask: Array
    _words: tuple[int]

    @classmethod
    def of(cls, slots: int, sizes: Sequence[int]) -> Layout:
        """The layout for ``slots`` predictions with codes below ``sizes``.

        Raises:
            DataError: slots not from 1 to 255, or a level without codes or with more than 2^25.
        """
        if not 1 <= slots <= MAX_SLOTS:
            raise DataError(f"{slots} slots", where="predict sets", expected=f"from 1 to {MAX_SLOTS}")
        if not sizes or not all(1 <= size <= MAX_SIZE for size in sizes):
            raise DataError(
                f"levels of {', '.join(map(str, sizes))} codes",
                where="predict sets",
                expected=f"from 1 to {MAX_SIZE} codes in each",
            )
        widths = np.asarray([max(1, (size - 1).bit_length()) for size in sizes])
        starts = np.concatenate([[0], np.cumsum(widths)])
        bit = (np.arange(slots)[:, None] * starts[-1] + starts[:-1]).ravel()
        size = _HEAD.size + -(-slots * int(starts[-1]) // 8) + slots
        # A code is read from four bytes at once, which must not begin so late that they leave the record.
        begin = np.minimum(_HEAD.size + bit // 8, size - 4)
        shift = (_HEAD.size * 8 + bit - 8 * begin).astype(np.uint32)
        mask = np.tile((1 << widths) - 1, slots).astype(np.uint32)
        return cls(slots, tuple(sizes), size, bit, begin, shift, mask, (size - 3,))

    @property
    def levels(self) -> int:
        """Levels of a semantic ID."""
        return len(self.sizes)

    def pack(
        self, codes: Int[Array, "users slots levels"], scores: Float[Array, "users slots"], ages: Int[Array, " users"]
    ) -> UInt8[Array, "users size"]:
        """Records of users; empty slots (-1) are moved behind the others, whose order stays.

        Args:
            codes: below ``sizes``, or -1 in all levels of an empty slot.
            scores: of the filled slots; not NaN.
            ages: hours before ``meta.newest``.
        """
        users = len(codes)
        here = codes[:, :, 0] >= 0
        if users and (here[:, 1:] > here[:, :-1]).any():
            order = np.argsort(~here, axis=1, kind="stable")
            here = np.take_along_axis(here, order, axis=1)
            codes = np.take_along_axis(codes, order[:, :, None], axis=1)
            scores = np.take_along_axis(scores, order, axis=1)
        records = np.zeros((self.size, users), dtype=np.uint8)  # a byte a row: each step below runs along the users
        head = np.zeros(users, dtype=_HEAD_TYPE)
        head["count"] = here.sum(axis=1)
        bounded = np.clip(scores.astype(np.float64), -_LARGEST * _WIDE, _LARGEST * _WIDE)
        filled = head["count"] > 0
        best = np.where(filled, np.where(here, bounded, -np.inf).max(axis=1), 0.0)
        worst = np.where(filled, np.where(here, bounded, np.inf).min(axis=1), 0.0)
        wide = np.maximum(np.abs(best), np.abs(worst)) > _LARGEST
        unit = np.where(wide, _WIDE, 1.0)
        for name, end in (("best", best), ("worst", worst)):
            head[name] = (end / unit).astype(np.float16) + np.float16(0)  # one zero, not two
        head["age"] = np.clip(ages, 0, _OLDEST).astype(np.uint16) | np.where(wide, _WIDE_BIT, 0).astype(np.uint16)
        apart = head["best"] != head["worst"]  # as they are stored: else all scores are one
        span = np.where(apart, best - worst, 1.0)
        share = np.where(here & apart[:, None], (bounded - worst[:, None]) / span[:, None], 0.0)
        records[: _HEAD.size] = head.view(np.uint8).reshape(users, _HEAD.size).T
        records[-self.slots :] = np.rint(share * 255).astype(np.uint8).T
        flat = np.where(here[:, :, None], codes, 0).astype(np.uint32).reshape(users, self.slots * self.levels).T
        for number, (bit, code) in enumerate(zip(self._bit.tolist(), flat, strict=True)):
            shifted = code << np.uint32(bit % 8)
            for byte in range((bit % 8 + int(self._mask[number]).bit_length() + 7) // 8):
                records[_HEAD.size + bit // 8 + byte] |= (shifted >> np.uint32(8 * byte)).astype(np.uint8)
        return np.ascontiguousarray(records.T)

    def read(self, value: bytes) -> tuple[Int32[Array, "n levels"], Array, int]:
        """Codes, scores float32 [n] and age in hours of one record: what a request waits for, in few calls.

        Args:
            value: at least ``size`` bytes.
        """
        count, age, best, worst = _HEAD.unpack_from(value)
        if age & _WIDE_BIT:
            age, best, worst = age & _OLDEST, best * _WIDE, worst * _WIDE
        levels = len(self.sizes)
        used = count * levels
        four = np.ndarray(self._words, _WORD, value, 0, _EACH_BYTE)
        if count == self.slots:  # nearly always, and slices cost
            codes = (four[self._from] >> self._shift) & self._mask
        else:
            codes = (four[self._from[:used]] >> self._shift[:used]) & self._mask[:used]
        scores = np.frombuffer(value, np.uint8, count, self.size - self.slots) * ((best - worst) / 255) + worst
        return codes.view(np.int32).reshape(count, levels), scores.astype(np.float32), age

    def read_many(
        self, records: UInt8[Array, "users size"]
    ) -> tuple[Int32[Array, "users slots levels"], Array, Int64[Array, " users"]]:
        """Codes (-1: empty slot), scores float32 [users, slots] (-inf) and ages in hours of many records."""
        users = len(records)
        records = np.ascontiguousarray(records)
        head = np.ascontiguousarray(records[:, : _HEAD.size]).view(_HEAD_TYPE).reshape(users)
        four = np.ndarray((users, self.size - 3), dtype="<u4", buffer=records, strides=(self.size, 1))
        codes = ((four[:, self._from] >> self._shift) & self._mask).astype(np.int32)
        codes = codes.reshape(users, self.slots, self.levels)
        unit = np.where(head["age"] & _WIDE_BIT, _WIDE, 1.0)
        best, worst = head["best"].astype(np.float64) * unit, head["worst"].astype(np.float64) * unit
        scores = records[:, -self.slots :] * ((best - worst) / 255)[:, None] + worst[:, None]
        here = np.arange(self.slots) < head["count"][:, None]
        return (
            np.where(here[:, :, None], codes, np.int32(-1)),
            np.where(here, scores, -np.inf).astype(np.float32),
            (head["age"] & _OLDEST).astype(np.int64),
        )

    def fits(self, value: bytes) -> bool:
        """Whether a record that no checksum covers could be one of this layout."""
        return len(value) >= self.size and value[0] <= self.slots

    @staticmethod
    def aged(records: UInt8[Array, "users size"], hours: int) -> UInt8[Array, "users size"]:
        """The same records ``hours`` older."""
        result = records.copy()
        age = np.ascontiguousarray(records[:, 1:3]).view("<u2").ravel()
        older = np.minimum((age & _OLDEST).astype(np.int64) + hours, _OLDEST).astype(np.uint16) | (age & _WIDE_BIT)
        result[:, 1:3] = older.astype("<u2")[:, None].view(np.uint8)
        return result

    @staticmethod
    def set_ages(records: UInt8[Array, "users size"], ages: Int[Array, " users"]) -> None:
        """Write the age of each record in place."""
        flag = records[:, 2] & np.uint8(_WIDE_BIT >> 8)
        bounded = np.clip(ages, 0, _OLDEST).astype("<u2")
        records[:, 1:3] = bounded[:, None].view(np.uint8)
        records[:, 2] |= flag


def stored_scores(scores: Float[Array, "users slots"]) -> Float32[Array, "users slots"]:
    """The scores that a store gives back for those that it is given.

    Args:
        scores: of each user's predictions; -inf in an empty slot.
    """
    empty = np.isneginf(scores)
    layout = Layout.of(scores.shape[1], (1,))
    codes = np.where(empty, -1, 0)[:, :, None]
    _, found, _ = layout.read_many(layout.pack(codes, scores, np.zeros(len(scores), dtype=np.int64)))
    result = np.full(scores.shape, -np.inf, dtype=np.float32)
    result[~empty] = found[np.isfinite(found)]  # filled slots come first there, in the same order
    return result


def check_sets(codes: Array, scores: Array, layout: Layout, name: object) -> None:
    """Refuse predict sets that a layout cannot hold.

    Args:
        codes: [users, slots, levels].
        scores: [users, slots].
        layout: the layout.
        name: gives the user ID of a row, for the message: anything with ``__getitem__``.

    Raises:
        DataError: a code out of range, or a score that is no number.
    """
    least, size = codes.min(axis=2), np.asarray(layout.sizes)
    absent = (codes < 0).all(axis=2)
    wrong = np.flatnonzero((((least < 0) & ~absent) | (codes >= size).any(axis=2)).any(axis=1))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"the user {str(name[row])!r} has the codes {codes[row].tolist()}",  # type: ignore[index]
            where="predict sets",
            expected=f"codes from 0 to {' / '.join(str(one - 1) for one in layout.sizes)} by level, "
            "or -1 in all of them for none",
        )
    if np.isnan(scores[~absent]).any():
        raise DataError("a score is NaN", where="predict sets", expected="numbers")
