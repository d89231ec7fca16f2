"""What every predict-set store says and answers, wherever its bytes lie: a folder (LMDB) or a server (Valkey)."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from types import TracebackType
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from conrec.arrays import Array
from conrec.errors import ArtefactError, ConrecError
from conrec.filtering.stores.layout import HOUR, Layout
from conrec.items.semantic_ids import sid_text

__all__ = [
    "VERSION",
    "Origin",
    "PredictSet",
    "PredictSetReader",
    "SetReader",
    "StoreMeta",
    "StoreUnavailableError",
    "StoredSets",
    "refuse_other_tables",
]

R = TypeVar("R", bound="SetReader")
VERSION = 2
"""Of the layout, see `conrec.filtering.stores.layout`."""


class StoreUnavailableError(ConrecError):
    """A store that cannot be asked now: its server is away, or what it holds cannot be trusted.

    Nothing is known of any user then, so the filter keeps everything.
    """


@dataclass(frozen=True)
class Origin:
    """What predict sets were made with.

    Attributes:
        model: name of the row that made the predictions.
        model_version: hash of what that row has learned (`conrec.predicting.plan.weights_hash`); empty: not known.
        sid_hash: hash of the SID table that the codes belong to (`conrec.items.space.hash_semantic_ids`).
        codebook_hash: hash of the codebooks that candidates are rebuilt from; empty: not known.
        sizes: codes of each level, three or four.
    """

    model: str
    model_version: str
    sid_hash: str
    codebook_hash: str
    sizes: tuple[int, ...]

    @property
    def levels(self) -> int:
        """Levels of a semantic ID."""
        return len(self.sizes)

    @property
    def codebook_size(self) -> int:
        """Codes of each of the first three levels."""
        return self.sizes[0]


@dataclass(frozen=True)
class StoreMeta(Origin):
    """What a store says about itself, beside the `Origin` of its predict sets.

    Attributes:
        written_at: unix seconds, by the clock of the writer; only ``store.json`` says it, for it is not content.
        newest: unix seconds, a whole hour: no set was predicted later; each set's age counts from here.
        count: number of users.
        slots: predictions that a user has at most.
        version: of the layout.
    """

    written_at: int
    newest: int
    count: int
    slots: int
    version: int = VERSION

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {**asdict(self), "sizes": list(self.sizes)}

    def to_bytes(self) -> bytes:
        """As JSON without the time of writing, so that the same content has the same bytes."""
        content = {name: value for name, value in self.to_json().items() if name != "written_at"}
        return json.dumps(content, sort_keys=True, ensure_ascii=False).encode()

    def matches(self, text: bytes | None) -> bool:
        """Whether `to_bytes` of the same content gave this; writers of before put their time in, too."""
        try:
            content = json.loads(text or b"")
        except ValueError:
            return False
        return isinstance(content, dict) and {**content, "written_at": self.written_at} == self.to_json()

    @classmethod
    def from_json(cls, value: Any) -> StoreMeta | None:
        """Read what `to_json` gave, None where it is anything else."""
        if not isinstance(value, dict) or set(value) != {field.name for field in fields(cls)}:
            return None
        sizes = value["sizes"]
        if not isinstance(sizes, list) or not sizes or not all(type(size) is int and size > 0 for size in sizes):
            return None
        texts = ("model", "model_version", "sid_hash", "codebook_hash")
        others = {name: inner for name, inner in value.items() if name != "sizes"}
        if not all(type(inner) is (str if name in texts else int) for name, inner in others.items()):
            return None
        return cls(**others, sizes=tuple(sizes))


@dataclass(frozen=True, slots=True)
class PredictSet:
    """One user's predict set, best first.

    Attributes:
        user_id: the full user ID.
        codes: int32 [n, levels], resolved codes.
        scores: float32 [n].
        predicted_at: unix seconds: the moment up to which the prediction knew the user, to the hour.
    """

    user_id: str
    codes: Array
    scores: Array
    predicted_at: int

    def __len__(self) -> int:
        return len(self.codes)

    def texts(self) -> list[str]:
        """The semantic IDs as text, ``a_5 b_2 c_9``."""
        return [sid_text(row) for row in self.codes.tolist()]


@dataclass(frozen=True, slots=True)
class StoredSets:
    """Predict sets of many users, rows in the order asked.

    Attributes:
        found: bool [users], whether the user is in the store.
        codes: int32 [users, slots, levels], -1 in an empty slot; empty slots come last.
        scores: float32 [users, slots], -inf in an empty slot.
        predicted_at: int64 [users], unix seconds to the hour; 0 where the user is not found.
    """

    found: Array
    codes: Array
    scores: Array
    predicted_at: Array

    def __len__(self) -> int:
        return len(self.found)


@runtime_checkable
class PredictSetReader(Protocol):
    """A store that is open. Threads may share it; a process that was forked opens its own.

    Every question may raise `StoreUnavailableError`.
    """

    @property
    def meta(self) -> StoreMeta:
        """What the store says about itself."""
        ...

    @property
    def version(self) -> str:
        """Checksum of what is read: another content has another one."""
        ...

    def get(self, user_id: str) -> PredictSet | None:
        """The predict set of a user, None for a user who is not in the store."""
        ...

    def get_many(self, user_ids: Sequence[str]) -> StoredSets:
        """Predict sets of many users at once."""
        ...

    def user_ids(self) -> Iterator[str]:
        """The users of the store, each once."""
        ...

    def changed(self) -> bool:
        """Whether the place holds another version by now than this reader reads; cheap enough for every second."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...

    def __len__(self) -> int: ...

    def __enter__(self) -> PredictSetReader: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class SetReader:
    """What readers have in common: a size, an end, and predict sets out of stored values."""

    @property
    def meta(self) -> StoreMeta:
        """What the store says about itself."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self.meta.count

    def __enter__(self: R) -> R:  # beartype knows no Self in a method
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the store."""
        raise NotImplementedError

    @staticmethod
    def one_set(user_id: str, value: bytes | None, layout: Layout, meta: StoreMeta) -> PredictSet | None:
        """The predict set in a user's value, None where there is none."""
        if value is None:
            return None
        codes, scores, age = layout.read(value)
        return PredictSet(user_id, codes, scores, meta.newest - age * HOUR)

    @staticmethod
    def many_sets(values: Sequence[bytes | None], layout: Layout, meta: StoreMeta) -> StoredSets:
        """The predict sets in the values of many users, None for those who are not found."""
        found = np.asarray([value is not None for value in values], dtype=np.bool_)
        empty = bytes(layout.size)
        whole = b"".join(empty if value is None else value[: layout.size] for value in values)
        codes, scores, ages = layout.read_many(np.frombuffer(whole, dtype=np.uint8).reshape(-1, layout.size))
        return StoredSets(found, codes, scores, np.where(found, meta.newest - ages * HOUR, 0))


def refuse_other_tables(
    meta: StoreMeta, where: str, mend: str, sid_hash: str | None, earlier: Collection[str], codebook_hash: str
) -> None:
    """Refuse a store whose codes would name other items, or items that are rebuilt otherwise.

    Args:
        meta: what the store says.
        where: the store, for the message.
        mend: what to do about it.
        sid_hash: hash of the SID table that the codes will be read with; None: not checked.
        earlier: hashes of tables that it grew from, in which the codes name the same items.
        codebook_hash: hash of the codebooks; empty, here or in the store: not checked.

    Raises:
        ArtefactError: it is such a store.
    """
    if sid_hash is not None and meta.sid_hash not in (sid_hash, *earlier):
        raise ArtefactError(
            f"was written with the SID table {meta.sid_hash[:12]}…",
            where=where,
            expected=f"the SID table of this run, {sid_hash[:12]}…",
            mend=mend,
        )
    if codebook_hash and meta.codebook_hash and meta.codebook_hash != codebook_hash:
        raise ArtefactError(
            f"was written with the codebooks {meta.codebook_hash[:12]}…",
            where=where,
            expected=f"the codebooks of this run, {codebook_hash[:12]}…",
            mend=mend,
        )
