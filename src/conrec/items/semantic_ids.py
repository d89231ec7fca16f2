"""The table of semantic IDs: raw codes, resolved codes, their text form and their file. NumPy only.

Raw codes are what the RQ-VAE says; rebuilt embeddings (and so rewards and filter) come from them alone.
Resolved codes are the names that the language model speaks: every item has one of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int, Int32

from conrec.arrays import Array
from conrec.artefacts import read_parquet, write_parquet
from conrec.errors import ArtefactError, DataError
from conrec.logs.schema import SEMANTIC_IDS

__all__ = [
    "LETTERS",
    "LEVELS",
    "SemanticIds",
    "code_name",
    "most_of_a_first_code",
    "read_semantic_ids",
    "resolve_collisions",
    "sid_text",
    "write_semantic_ids",
]

LEVELS = 3
LETTERS = "abc"
"""One letter a level, as in the paper: an item reads ``a_5 b_2 c_9``."""
_SIZE_KEY = b"conrec.codebook_size"


@dataclass(frozen=True, slots=True)
class SemanticIds:
    """Semantic IDs of a catalogue, rows in the order of the catalogue.

    Attributes:
        codes: int32 [items, 3], as the RQ-VAE quantised them; several items may share a row.
        resolved: int32 [items, 3], every row different; equal to ``codes`` where an item kept its codes.
        codebook_size: codes per level; all codes are in [0, codebook_size).
    """

    codes: Array
    resolved: Array
    codebook_size: int

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def moved(self) -> Array:
        """Whether the resolved codes differ from the raw ones, bool [items]."""
        moved: Array = (self.codes != self.resolved).any(axis=1)
        return moved

    def text(self, item: int) -> str:
        """Text form of an item's resolved codes: ``a_5 b_2 c_9``."""
        return sid_text(self.resolved[item].tolist())


def code_name(level: int, code: int) -> str:
    """Name of one code: ``b_2`` for code 2 of level 1 (levels count from 0)."""
    return f"{LETTERS[level]}_{code}"


def sid_text(codes: Iterable[int]) -> str:
    """Text form of three codes: ``a_5 b_2 c_9``."""
    return " ".join(code_name(level, code) for level, code in enumerate(codes))


def resolve_collisions(
    codes: Int[Array, "items 3"],
    latents: Float[Array, "items latent"],
    codebooks: Float[Array, "3 codebook latent"],
    train_items: Bool[Array, " items"],
) -> Int32[Array, "items 3"]:
    """Give every item a semantic ID of its own, as near to its raw codes as there is room.

    The items of the training period come first, among themselves; the others share what is then free. So the
    names that models are trained on do not depend on items that came later. Within each of the two groups:

    Of the items that share all three codes the one nearest to its last codeword keeps them. The others, nearest
    first, take the nearest free last code under the same first two. Where more items share the first two codes
    than there are last codes left, those of "the others" that are farthest take the nearest second code with room
    and, after all items that were there before, the nearest free last code under it. "Near" is the squared
    distance of the item's residual at that level to the codeword; ties go to the lower item and code.

    Args:
        codes: raw codes.
        latents: what was quantised: the encoder's output for each item.
        codebooks: codewords of each level.
        train_items: items with an event in the training period.

    Raises:
        DataError: more items share a first code than the two levels below it can name.
    """
    _check_room(codes, codebooks.shape[1])
    latents, codebooks = latents.astype(np.float64), codebooks.astype(np.float64)
    resolved = codes.astype(np.int64)
    taken = np.empty(0, dtype=np.int64)
    for group in (train_items, ~train_items):
        resolved[group] = _place(resolved[group], latents[group], codebooks, taken)
        taken = np.union1d(taken, _keys(resolved[group], codebooks.shape[1]))
    return resolved.astype(np.int32)


def most_of_a_first_code(codes: Int[Array, "items 3"]) -> int:
    """Items of the fullest first code; the two levels below can name the square of the codebook size."""
    return int(np.bincount(codes[:, 0]).max(initial=0))


def write_semantic_ids(path: Path, item_ids: Sequence[str], ids: SemanticIds) -> None:
    """Write ``semantic_ids.parquet``: item_id, codes, resolved_codes, and the codebook size in its metadata."""
    table = pa.table(
        {"item_id": list(item_ids), "codes": ids.codes.tolist(), "resolved_codes": ids.resolved.tolist()},
        schema=SEMANTIC_IDS,
    )
    write_parquet(path, table.replace_schema_metadata({_SIZE_KEY: str(ids.codebook_size)}))


def read_semantic_ids(path: Path) -> tuple[tuple[str, ...], SemanticIds]:
    """Item IDs and their semantic IDs, as `write_semantic_ids` wrote them.

    Raises:
        ArtefactError: the file is missing, damaged, or holds codes that are not three per item, out of range
            or shared after resolution.
    """
    table = read_parquet(path, SEMANTIC_IDS)
    metadata = pq.read_schema(path).metadata or {}
    if _SIZE_KEY not in metadata:
        raise ArtefactError(f"its metadata has no {_SIZE_KEY.decode()!r}", where=str(path))
    size = int(metadata[_SIZE_KEY])
    columns: list[Array] = []
    for name in ("codes", "resolved_codes"):
        column = table[name].combine_chunks()
        if column.null_count or set(column.value_lengths().to_pylist()) - {LEVELS}:
            raise ArtefactError("a row does not have three codes", where=f"{path}, column {name}", expected="3 codes")
        codes = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, LEVELS).astype(np.int32)
        if len(codes) and not (codes.min() >= 0 and codes.max() < size):
            raise ArtefactError(
                f"codes from {codes.min()} to {codes.max()}",
                where=f"{path}, column {name}",
                expected=f"codes from 0 to {size - 1}",
            )
        columns.append(codes)
    if len(np.unique(_keys(columns[1], size))) < len(columns[1]):
        raise ArtefactError("two items share their resolved codes", where=str(path), expected="distinct codes")
    return tuple(table["item_id"].to_pylist()), SemanticIds(columns[0], columns[1], size)


def _keys(codes: Array, size: int) -> Array:
    """One int64 for each row of codes, in lexicographic order."""
    wide = codes.astype(np.int64)
    return (wide[:, 0] * size + wide[:, 1]) * size + wide[:, 2]


def _distances(point: Array, codebook: Array) -> Array:
    """Squared distance of one point to each codeword."""
    return np.asarray(((codebook - point) ** 2).sum(axis=1))


def _check_room(codes: Array, size: int) -> None:
    if (most := most_of_a_first_code(codes)) > size * size:
        raise DataError(
            f"{most} items share the first code {int(np.bincount(codes[:, 0]).argmax())}",
            where="semantic IDs",
            expected=f"at most {size} × {size} = {size * size}, as many as two levels of {size} codes can name",
            mend="Raise rqvae.codebook_size, which may be as large as the number of items of the training period.",
        )


def _place(codes: Array, latents: Array, codebooks: Array, taken: Array) -> Array:
    """Resolve one group of items beside the semantic IDs ``taken``, as `resolve_collisions` says.

    Args:
        codes: int64 [items, 3], raw codes.
        latents: float64 [items, latent].
        codebooks: float64 [3, codebook, latent].
        taken: int64 [taken], keys of the semantic IDs that other items have, distinct and sorted.

    Returns:
        Resolved codes, int64 [items, 3].
    """
    size = codebooks.shape[1]
    resolved = codes.copy()
    residual = latents - codebooks[0][resolved[:, 0]]
    guest = _move_to_second_codes_with_room(resolved, residual, codebooks, taken)
    residual = residual - codebooks[1][resolved[:, 1]]
    resolved[guest, 2] = [np.argmin(_distances(residual[item], codebooks[2])) for item in guest]
    distance = ((residual - codebooks[2][resolved[:, 2]]) ** 2).sum(axis=1)
    late = np.zeros(len(codes), dtype=np.bool_)
    late[guest] = True
    # First come the items of the bucket itself, then its guests; nearest first; then by item.
    order = np.lexsort((np.arange(len(codes)), distance, late))
    keys = _keys(resolved, size)
    own = order[: len(order) - len(guest)]
    own = own[~np.isin(keys[own], taken)]
    _, keepers = np.unique(keys[own], return_index=True)
    keeps = np.zeros(len(codes), dtype=np.bool_)
    keeps[own[keepers]] = True
    kept = np.sort(np.concatenate([taken, keys[keeps]]))
    full: dict[int, Array] = {}
    for item in order[~keeps[order]]:
        bucket = int(keys[item] // size)
        if bucket not in full:
            full[bucket] = np.zeros(size, dtype=np.bool_)
            first, last = np.searchsorted(kept, [bucket * size, (bucket + 1) * size])
            full[bucket][kept[first:last] % size] = True
        free = np.where(full[bucket], np.inf, _distances(residual[item], codebooks[2]))
        resolved[item, 2] = np.argmin(free)
        full[bucket][resolved[item, 2]] = True
    return resolved


def _move_to_second_codes_with_room(resolved: Array, residual: Array, codebooks: Array, taken: Array) -> Array:
    """Empty overfull (c1, c2) buckets down to the last codes that are left in them, in place.

    Args:
        resolved: int64 [items, 3], changed in its second column.
        residual: float64 [items, latent], residual at the second level.
        codebooks: float64 [3, codebook, latent].
        taken: int64 [taken], keys of semantic IDs that are not to be had.

    Returns:
        The items that were moved, int64 [moved], in the order of moving.
    """
    size = codebooks.shape[1]
    buckets, bucket_of, counts = np.unique(
        resolved[:, 0] * size + resolved[:, 1], return_inverse=True, return_counts=True
    )
    there, already = np.unique(taken // size, return_counts=True)
    count = dict(zip(there.tolist(), already.tolist(), strict=True))
    room = np.asarray([size - count.get(bucket, 0) for bucket in buckets.tolist()], dtype=np.int64)
    for bucket, more in zip(buckets.tolist(), np.minimum(counts, room).tolist(), strict=True):
        count[bucket] = count.get(bucket, 0) + more
    moving: list[tuple[float, int]] = []
    for overfull in np.flatnonzero(counts > room):
        items = np.flatnonzero(bucket_of == overfull)
        last = residual[items] - codebooks[1][resolved[items, 1]] - codebooks[2][resolved[items, 2]]
        distance = (last**2).sum(axis=1)
        nearest_first = np.lexsort((items, distance))
        _, first = np.unique(resolved[items[nearest_first], 2], return_index=True)
        owners = nearest_first[first]
        shares = np.ones(len(items), dtype=np.bool_)
        shares[owners] = np.isin(_keys(resolved[items[owners]], size), taken)
        leaving = np.lexsort((items, distance, shares))[room[overfull] :]
        moving += zip(distance[leaving].tolist(), items[leaving].tolist(), strict=True)
    moving.sort()
    for _, item in moving:
        base = int(resolved[item, 0]) * size
        full = np.asarray([count.get(base + code, 0) >= size for code in range(size)])
        resolved[item, 1] = np.argmin(np.where(full, np.inf, _distances(residual[item], codebooks[1])))
        count[base + int(resolved[item, 1])] = count.get(base + int(resolved[item, 1]), 0) + 1
    return np.asarray([item for _, item in moving], dtype=np.int64)
