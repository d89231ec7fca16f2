"""The bytes of a predict-set store: keys, records and meta data (see `conrec.filtering.stores.lmdb`).

::

    b"meta"                     the meta data as UTF-8 JSON, the same as in store.json
    b"u" + user ID in UTF-8     where that fits LMDB's limit of 511 bytes, else
    b"h" + SHA-256 of it        (33 bytes)

    value:   ``slots`` records of 10 bytes, then the user's full ID in UTF-8 where the key is hashed
    record:  uint16 code 1, uint16 code 2, uint16 code 3, float32 score, little-endian; of 12 bytes where semantic
             IDs have four levels, with uint16 code 4 before the score
             an empty slot has the codes 65535 and the score -inf; empty slots come last
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from conrec.arrays import Array
from conrec.errors import DataError
from conrec.items.semantic_ids import LEVELS, sid_text

__all__ = ["META_KEY", "VERSION", "PredictSet", "StoreMeta", "key_of", "pack", "record", "room_for", "unpack"]

VERSION = 1
META_KEY = b"meta"
EMPTY = 0xFFFF
"""Code of an empty slot; so a codebook has at most 65535 codes."""
MAX_SLOTS = 255
_MAX_KEY = 511


@dataclass(frozen=True, slots=True)
class StoreMeta:
    """What a store says about itself.

    Attributes:
        model: name of the row that made the predictions.
        sid_hash: hash of the SID table that the codes belong to (`conrec.items.space.hash_semantic_ids`).
        codebook_size: codes of each of the first three levels.
        written_at: unix seconds.
        count: number of users.
        slots: predictions that a user has at most.
        version: of the layout.
        levels: of a semantic ID; written down where there are four.
    """

    model: str
    sid_hash: str
    codebook_size: int
    written_at: int
    count: int
    slots: int
    version: int = VERSION
    levels: int = LEVELS

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        value = asdict(self)
        if self.levels == LEVELS:
            del value["levels"]
        return value

    def to_bytes(self) -> bytes:
        """As JSON."""
        return json.dumps(self.to_json(), sort_keys=True, ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, value: Any) -> StoreMeta | None:
        """Read what `to_json` gave, None where it is anything else."""
        if not isinstance(value, dict) or {*value, "levels"} != {field.name for field in fields(cls)}:
            return None
        texts = ("model", "sid_hash")
        if not all(isinstance(inner, str if name in texts else int) for name, inner in value.items()):
            return None
        return cls(**value)


@dataclass(frozen=True, slots=True)
class PredictSet:
    """One user's predict set, best first.

    Attributes:
        user_id: the full user ID.
        codes: int32 [n, levels], resolved codes.
        scores: float32 [n].
    """

    user_id: str
    codes: Array
    scores: Array

    def __len__(self) -> int:
        return len(self.codes)

    def texts(self) -> list[str]:
        """The semantic IDs as text, ``a_5 b_2 c_9``."""
        return [sid_text(row) for row in self.codes.tolist()]


def key_of(user_id: str) -> bytes:
    """The key of a user."""
    encoded = user_id.encode()
    return b"u" + encoded if len(encoded) < _MAX_KEY else b"h" + hashlib.sha256(encoded).digest()


def is_hashed(key: bytes) -> bool:
    """Whether a key holds the hash of a user ID, whose value then ends with the ID itself."""
    return key[:1] == b"h"


def record(levels: int) -> np.dtype[Any]:
    """One prediction, without padding."""
    return np.dtype([("codes", "<u2", (levels,)), ("score", "<f4")])


def pack(sids: Int[Array, "users K levels"], scores: Float[Array, "users K"]) -> Array:
    """Records [users, K] of `record`, empty slots moved behind the others."""
    here = (sids >= 0).all(axis=2)
    order = np.argsort(~here, axis=1, kind="stable")
    here = np.take_along_axis(here, order, axis=1)
    records = np.empty(here.shape, dtype=record(sids.shape[2]))
    records["codes"] = np.where(here[:, :, None], np.take_along_axis(sids, order[:, :, None], axis=1), EMPTY)
    records["score"] = np.where(here, np.take_along_axis(scores, order, axis=1), -np.inf)
    return records


def unpack(values: Sequence[bytes], slots: int, levels: int = LEVELS) -> tuple[Array, Array]:
    """Codes int32 [values, slots, levels], -1 for empty slots, and scores float32 [values, slots]."""
    kind = record(levels)
    size = slots * kind.itemsize
    records = np.frombuffer(b"".join(value[:size] for value in values), dtype=kind).reshape(len(values), slots)
    codes = records["codes"].astype(np.int32)
    return np.where(codes == EMPTY, np.int32(-1), codes), records["score"].astype(np.float32)


def check_content(user_ids: Sequence[str], sids: Array, scores: Array, codebook_size: int) -> None:
    """Refuse what the layout cannot hold.

    Raises:
        DataError: arrays that do not fit each other, a code out of range, an empty user ID, too many slots.
    """
    if sids.shape[:2] != scores.shape or len(sids) != len(user_ids):
        raise DataError(
            f"{len(user_ids)} users, semantic IDs of shape {sids.shape} and scores of shape {scores.shape}",
            where="predict sets",
            expected="one row for each user",
        )
    if not 1 <= sids.shape[1] <= MAX_SLOTS:
        raise DataError(f"{sids.shape[1]} slots", where="predict sets", expected=f"from 1 to {MAX_SLOTS}")
    if not 1 <= codebook_size <= EMPTY:
        raise DataError(f"codebook_size {codebook_size}", where="predict sets", expected=f"from 1 to {EMPTY}")
    absent = (sids < 0).all(axis=2)
    sizes = [codebook_size] * LEVELS + [EMPTY] * (sids.shape[2] - LEVELS)
    wrong = np.flatnonzero((((sids.min(axis=2) < 0) & ~absent) | (sids >= np.asarray(sizes)).any(axis=2)).any(axis=1))
    if len(wrong):
        raise DataError(
            f"the user {user_ids[int(wrong[0])]!r} has the codes {sids[wrong[0]].tolist()}",
            where="predict sets",
            expected=f"codes from 0 to {codebook_size - 1}, or -1 in all of them for none",
        )
    if np.isnan(scores[~absent]).any():
        raise DataError("a score is NaN", where="predict sets", expected="numbers")
    if "" in user_ids:
        raise DataError("a user ID is empty", where="predict sets", expected="user IDs of at least one character")


def room_for(users: int, set_bytes: int, key_bytes: int, user_ids: Sequence[str], keys: Sequence[bytes]) -> int:
    """An upper bound of the bytes that LMDB needs; a function of the content alone, for it is stored in the file."""
    long_ids = [user_id for user_id, key in zip(user_ids, keys, strict=True) if is_hashed(key)]
    value = set_bytes + 32
    overflow = sum(len(one.encode()) + 32_768 for one in long_ids)
    # Values over half a page take whole pages; 32 KiB covers the largest page size and its neighbour's slack.
    each = value + 32 if value < 1500 else value + 32_768
    return ((users * each + key_bytes) * 2 + overflow * 2 + (1 << 20) + 65_535) // 65_536 * 65_536
