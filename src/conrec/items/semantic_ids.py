"""The table of semantic IDs: raw codes, resolved codes, their text form and their file. NumPy only.

Raw codes are what the quantiser says; rebuilt embeddings (and so rewards and filter) come from them alone.
Resolved codes are the names that the language model speaks: see `naming.collisions` for how they are found.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Int, Int64

from conrec.arrays import Array
from conrec.artefacts import read_parquet, write_parquet
from conrec.errors import ArtefactError, DataError
from conrec.logs.schema import SEMANTIC_IDS

__all__ = [
    "LETTERS",
    "LEVELS",
    "Collisions",
    "Rebuilds",
    "SemanticIds",
    "code_name",
    "level_sizes",
    "read_semantic_ids",
    "rebuilt_from",
    "sid_keys",
    "sid_text",
    "write_semantic_ids",
]

Collisions = Literal["nearest", "extra_level", "shared"]
"""How items of the same raw codes are told apart, see `conrec.config.SemanticIdsConfig`."""
LEVELS = 3
"""Levels of the quantiser; resolved codes have one more with ``extra_level``."""
LETTERS = "abcd"
"""One letter a level, as in the paper: an item reads ``a_5 b_2 c_9``."""
_SIZE_KEY = b"conrec.codebook_size"
_COLLISIONS_KEY = b"conrec.collisions"
_EXTRA_KEY = b"conrec.extra_size"


@dataclass(frozen=True, slots=True)
class SemanticIds:
    """Semantic IDs of a catalogue, rows in the order of the catalogue.

    Attributes:
        codes: int32 [items, 3], as the quantiser gave them; several items may share a row.
        resolved: int32 [items, 3 or 4]. ``nearest``: every row different, equal to ``codes`` where an item kept its
            codes. ``extra_level``: every row different, ``codes`` and a fourth code. ``shared``: ``codes``.
        codebook_size: codes per level; codes of the first three levels are in [0, codebook_size).
        collisions: how the resolved codes were found.
        extra_size: codes of the fourth level, None where there is none; its codes are in [0, extra_size).
    """

    codes: Array
    resolved: Array
    codebook_size: int
    collisions: Collisions = "nearest"
    extra_size: int | None = None

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes of each level of the resolved codes."""
        return (self.codebook_size,) * LEVELS + (() if self.extra_size is None else (self.extra_size,))

    @property
    def levels(self) -> int:
        """Levels of the resolved codes: three, or four with ``extra_level``."""
        return len(self.sizes)

    @property
    def shared(self) -> bool:
        """Whether several items may have the same resolved codes."""
        return self.collisions == "shared"

    @property
    def moved(self) -> Array:
        """Whether the first three resolved codes differ from the raw ones, bool [items]."""
        moved: Array = (self.codes != self.resolved[:, :LEVELS]).any(axis=1)
        return moved

    def text(self, item: int) -> str:
        """Text form of an item's resolved codes: ``a_5 b_2 c_9``."""
        return sid_text(self.resolved[item].tolist())


@runtime_checkable
class Rebuilds(Protocol):
    """What of a quantiser `rebuilt_from` needs."""

    def rebuild(self, codes: Int[Array, "n 3"]) -> Float32[Array, "n d"]:
        """Embeddings less the mean of the training items, from codes."""
        ...


def rebuilt_from(
    quantiser: Rebuilds, ids: SemanticIds, which: Literal["raw", "resolved"] = "raw"
) -> Float32[Array, "items d"]:
    """Embeddings rebuilt from the raw codes (as rewards and filter have them) or from the resolved ones, centred.

    The second says how far the move to a free code takes an item away. A fourth code is no codeword: of resolved codes
    the first three are decoded, so that both are the same unless ``collisions`` is ``nearest``.
    """
    return quantiser.rebuild(ids.codes if which == "raw" else np.ascontiguousarray(ids.resolved[:, :LEVELS]))


def code_name(level: int, code: int) -> str:
    """Name of one code: ``b_2`` for code 2 of level 1 (levels count from 0)."""
    return f"{LETTERS[level]}_{code}"


def sid_text(codes: Iterable[int]) -> str:
    """Text form of the codes of an item: ``a_5 b_2 c_9``."""
    return " ".join(code_name(level, code) for level, code in enumerate(codes))


def level_sizes(sizes: int | Sequence[int]) -> tuple[int, ...]:
    """Codes of each level; one number stands for three levels of so many."""
    return (sizes,) * LEVELS if isinstance(sizes, int) else tuple(sizes)


def sid_keys(codes: Int[Array, "rows levels"], sizes: Sequence[int]) -> Int64[Array, " rows"]:
    """One number for each row of codes, in lexicographic order; meaningless for codes out of range.

    Raises:
        DataError: there are more combinations than an int64 can number.
    """
    combinations = 1
    for size in sizes:
        combinations *= size
    if combinations >= 1 << 63:
        raise DataError(
            f"levels of {', '.join(map(str, sizes))} codes",
            where="semantic IDs",
            expected="fewer than 2^63 combinations",
            mend="Lower rqvae.codebook_size.",
        )
    key = codes[:, 0].astype(np.int64)
    for level, size in enumerate(sizes[1:], start=1):
        key = key * size + codes[:, level]
    return key


def write_semantic_ids(path: Path, item_ids: Sequence[str], ids: SemanticIds) -> None:
    """Write ``semantic_ids.parquet``: item_id, codes, resolved_codes.

    Its metadata says ``conrec.codebook_size``, ``conrec.collisions`` (`SemanticIds.collisions`) and, where there is a
    fourth level, ``conrec.extra_size``, the number of its codes: the size of the largest group that it tells apart.
    """
    columns = {"item_id": list(item_ids), "codes": _lists(ids.codes), "resolved_codes": _lists(ids.resolved)}
    table = pa.table(columns, schema=SEMANTIC_IDS)
    metadata = {_SIZE_KEY: str(ids.codebook_size), _COLLISIONS_KEY: str(ids.collisions)}
    if ids.extra_size is not None:
        metadata[_EXTRA_KEY] = str(ids.extra_size)
    write_parquet(path, table.replace_schema_metadata(metadata))


def read_semantic_ids(path: Path) -> tuple[tuple[str, ...], SemanticIds]:
    """Item IDs and their semantic IDs, as `write_semantic_ids` wrote them; files without a policy are ``nearest``.

    Raises:
        ArtefactError: the file is missing, damaged, or holds codes that are not three per item (four of the resolved
            ones with a fourth level), out of range, or resolved otherwise than its metadata says.
    """
    table = read_parquet(path, SEMANTIC_IDS)
    metadata = pq.read_schema(path).metadata or {}
    if _SIZE_KEY not in metadata:
        raise ArtefactError(f"its metadata has no {_SIZE_KEY.decode()!r}", where=str(path))
    collisions = metadata.get(_COLLISIONS_KEY, b"nearest").decode()
    if collisions not in get_args(Collisions) or (_EXTRA_KEY in metadata) != (collisions == "extra_level"):
        raise ArtefactError(
            f"its metadata says {collisions!r}, {'with' if _EXTRA_KEY in metadata else 'without'} a fourth level",
            where=str(path),
            expected=f"one of {', '.join(get_args(Collisions))}, a fourth level with extra_level alone",
        )
    size = int(metadata[_SIZE_KEY])
    extra = int(metadata[_EXTRA_KEY]) if _EXTRA_KEY in metadata else None
    raw = _column(table, "codes", (size,) * LEVELS, path)
    resolved = _column(table, "resolved_codes", (size,) * LEVELS + (() if extra is None else (extra,)), path)
    ids = SemanticIds(raw, resolved, size, collisions, extra)
    if collisions != "nearest" and ids.moved.any():
        row = int(ids.moved.argmax())
        raise ArtefactError(
            f"row {row} has the codes {raw[row].tolist()}, resolved to {resolved[row].tolist()}",
            where=str(path),
            expected=f"the raw codes kept, as always with {collisions}",
        )
    if not ids.shared and len(np.unique(sid_keys(resolved, ids.sizes))) < len(ids):
        raise ArtefactError("two items share their resolved codes", where=str(path), expected="distinct codes")
    return tuple(table["item_id"].to_pylist()), ids


def _lists(codes: Array) -> pa.ListArray:
    """Rows of codes as lists, without a Python object for each."""
    offsets = np.arange(len(codes) + 1, dtype=np.int32) * codes.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(codes.astype(np.int32).ravel()))


def _column(table: pa.Table, name: str, sizes: tuple[int, ...], path: Path) -> Array:
    """Codes of one column, int32 [items, levels], checked."""
    column = table[name].combine_chunks()
    if column.null_count or (column.value_lengths().to_numpy(zero_copy_only=False) != len(sizes)).any():
        number = {3: "three", 4: "four"}[len(sizes)]
        raise ArtefactError(
            f"a row does not have {number} codes", where=f"{path}, column {name}", expected=f"{len(sizes)} codes"
        )
    codes: Array = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, len(sizes)).astype(np.int32)
    outside = (codes < 0) | (codes >= np.asarray(sizes))
    if outside.any():
        level = int(outside.any(axis=0).argmax())
        raise ArtefactError(
            f"codes from {codes[:, level].min()} to {codes[:, level].max()}",
            where=f"{path}, column {name}, level {level + 1}",
            expected=f"codes from 0 to {sizes[level] - 1}",
        )
    return codes
