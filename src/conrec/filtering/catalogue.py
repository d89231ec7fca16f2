"""What the filter knows of the items: their semantic IDs and their embeddings rebuilt from the codebooks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int, Int32

from conrec.arrays import Array
from conrec.artefacts import read_tensors
from conrec.errors import ArtefactError
from conrec.items.growing.growth import current_catalogue, own_catalogue
from conrec.items.semantic_ids import SemanticIds, read_semantic_ids, sid_keys
from conrec.items.space import REBUILT, SEMANTIC_IDS_FILE, hash_semantic_ids

__all__ = ["FilterCatalogue", "max_similarity"]

DECIMALS = 6
"""Similarities are rounded to this many decimals, so that the order of summation never decides about a candidate."""


@dataclass(frozen=True, slots=True)
class FilterCatalogue:
    """The items of a run as the filter sees them, in the order of the catalogue.

    Attributes:
        item_ids: str [items].
        sids: their raw and resolved codes.
        rebuilt: float32 [items, d], unit rows rebuilt from the *raw* codes; cosine is the dot product.
        sid_hash: hash of item IDs and codes, see `conrec.items.space.hash_semantic_ids`.
        earlier: hashes of the tables that this one grew from; their codes name the same items.
    """

    item_ids: tuple[str, ...]
    sids: SemanticIds
    rebuilt: Array
    sid_hash: str
    earlier: tuple[str, ...]
    _index: dict[str, int]
    _order: Array
    _keys: Array

    @classmethod
    def load(cls, run_folder: Path, *, grown: bool = False) -> FilterCatalogue:
        """Read semantic IDs and rebuilt embeddings of a run.

        Args:
            run_folder: the run.
            grown: whether items that were appended belong to it, see `conrec.items.growing.growth`; what a run itself
                calibrates and reports knows its own items alone.

        Raises:
            ArtefactError: a file is missing, damaged, or they do not belong together.
        """
        place = current_catalogue(run_folder) if grown else own_catalogue(run_folder)
        item_ids, sids = read_semantic_ids(place.folder / SEMANTIC_IDS_FILE)
        path = place.folder / REBUILT
        tensors = read_tensors(path)
        if "rebuilt" not in tensors:
            raise ArtefactError(f"holds {sorted(tensors)}", where=str(path), expected="the tensor 'rebuilt'")
        loaded = cls.build(item_ids, sids, tensors["rebuilt"], str(path), place.earlier)
        if place.sid_tables and loaded.sid_hash != place.sid_tables[-1]:
            raise ArtefactError(
                f"holds the SID table {loaded.sid_hash[:12]}…",
                where=str(place.folder),
                expected=f"that of growth.json, {place.sid_tables[-1][:12]}…",
                mend="Put the file back as it was, or remove the folder above it and append the items again.",
            )
        return loaded

    @classmethod
    def build(
        cls,
        item_ids: tuple[str, ...],
        sids: SemanticIds,
        rebuilt: Array,
        where: str = "rebuilt",
        earlier: tuple[str, ...] = (),
    ) -> FilterCatalogue:
        """Put the parts together and check that they fit.

        Raises:
            ArtefactError: another number of rows than items, or rows that are not of length 1.
        """
        if rebuilt.ndim != 2 or len(rebuilt) != len(item_ids) or rebuilt.dtype != np.float32:
            raise ArtefactError(
                f"a {rebuilt.dtype} tensor of shape {rebuilt.shape}",
                where=where,
                expected=f"float32 of {len(item_ids)} rows, one for each item of semantic_ids.parquet",
            )
        length = np.linalg.norm(rebuilt, axis=1)
        wrong = np.flatnonzero(~(np.abs(length - 1) < 1e-3))
        if len(wrong):
            raise ArtefactError(
                f"row {wrong[0]} has length {length[wrong[0]]:.4f}", where=where, expected="rows of length 1"
            )
        keys = sid_keys(sids.resolved, sids.sizes)
        order = np.argsort(keys, kind="stable")  # of items that share a semantic ID the first comes first
        index = {item_id: row for row, item_id in enumerate(item_ids)}
        return cls(item_ids, sids, rebuilt, hash_semantic_ids(item_ids, sids), earlier, index, order, keys[order])

    def __len__(self) -> int:
        return len(self.item_ids)

    def indices(self, item_ids: Iterable[str | None]) -> Int32[Array, " items"]:
        """Catalogue index of each item ID, -1 where it is unknown or null."""
        return np.asarray([-1 if one is None else self._index.get(one, -1) for one in item_ids], dtype=np.int32)

    def items_of(self, codes: Int[Array, "*rows levels"]) -> Int32[Array, "*rows"]:
        """Catalogue index of each resolved semantic ID, -1 where no item has it (negative codes included).

        Of items that share one it is the first; they all have the same rebuilt embedding.
        """
        flat = codes.reshape(-1, self.sids.levels)
        if not len(self._keys):
            return np.full(codes.shape[:-1], -1, dtype=np.int32)
        wanted = sid_keys(flat, self.sids.sizes)
        at = np.searchsorted(self._keys, wanted).clip(max=len(self._keys) - 1)
        hit = ((flat >= 0) & (flat < np.asarray(self.sids.sizes))).all(axis=1) & (self._keys[at] == wanted)
        return np.where(hit, self._order[at], -1).astype(np.int32).reshape(codes.shape[:-1])

    def sid_text(self, item: int) -> str | None:
        """Text of an item's resolved semantic ID, ``a_5 b_2 c_9``; None for -1."""
        return None if item < 0 else self.sids.text(item)


def max_similarity(
    rebuilt: Float32[Array, "items d"],
    predicted: Int[Array, "sets K"],
    sets: Int[Array, " pairs"],
    items: Int[Array, " pairs"],
) -> tuple[Float32[Array, " pairs"], Int32[Array, " pairs"]]:
    """``max_{i in predict set} sim(candidate, i)`` of each pair (predict set, candidate), and the i that gives it.

    The paper's Deployment section. The dot products are summed in float64 and rounded to six decimals, so that a
    pair has the same similarity in whatever block and on whatever machine it is computed.

    Args:
        rebuilt: unit rows.
        predicted: items of each predict set, best first, -1 for none.
        sets: row of ``predicted`` for each pair; -1 for none.
        items: candidate of each pair; -1 for none.

    Returns:
        The similarity (NaN where the pair has no candidate, no set or an empty one) and the item of the predict set
        that is nearest, -1 where there is none; ties go to the better rank.
    """
    similarity = np.full(len(items), np.nan, dtype=np.float32)
    nearest = np.full(len(items), -1, dtype=np.int32)
    known = np.flatnonzero((sets >= 0) & (items >= 0))
    known = known[np.argsort(sets[known], kind="stable")]
    groups, starts = np.unique(sets[known], return_index=True)
    for group, begin, end in zip(groups, starts, np.append(starts, len(known))[1:], strict=True):
        pairs = known[begin:end]
        members = predicted[group]
        members = members[members >= 0]
        if not len(members):
            continue
        table = rebuilt[items[pairs]].astype(np.float64) @ rebuilt[members].astype(np.float64).T
        table = np.round(table, DECIMALS)
        best = table.argmax(axis=1)
        similarity[pairs] = table[np.arange(len(pairs)), best]
        nearest[pairs] = members[best]
    return similarity, nearest
