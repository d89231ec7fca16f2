"""What the filter knows of the items: semantic IDs, embeddings rebuilt from the codebooks, titles and categories."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from pathlib import Path

import numpy as np
from jaxtyping import Int, Int32

from conrec.arrays import Array
from conrec.artefacts import hash_file, read_parquet, read_tensors
from conrec.errors import ArtefactError
from conrec.filtering.vectors.compiled import COMPILED, compiled
from conrec.filtering.vectors.table import ItemTable
from conrec.items.growing.growth import current_catalogue, own_catalogue
from conrec.items.semantic_ids import SemanticIds, read_semantic_ids, sid_keys
from conrec.items.space import REBUILT, SEMANTIC_IDS_FILE, hash_semantic_ids
from conrec.logs.schema import ITEMS

__all__ = ["ITEM_TABLE", "FilterCatalogue", "ItemDetails"]

ITEM_TABLE = "items.safetensors"
"""The `ItemTable` of a run, ``RUN/filter/items.safetensors``; where it is missing, or made of other embeddings or
another SID table, the table is made anew in memory."""


FEW = 1024
"""Semantic IDs that are looked up one by one; more of them are sorted in by NumPy."""


@dataclass(frozen=True, slots=True)
class ItemDetails:
    """What people are shown of the items, in the order of the catalogue.

    Attributes:
        titles: str [items]; the item ID where an item has no title.
        categories: of each item, as the item data has them.
        images: path or address of each item's picture, or None.
    """

    titles: tuple[str, ...]
    categories: tuple[tuple[str, ...], ...]
    images: tuple[str | None, ...]


@dataclass(frozen=True)
class FilterCatalogue:
    """The items of a run as the filter sees them, in the order of the catalogue.

    Attributes:
        item_ids: str [items].
        sids: their raw and resolved codes.
        table: unit rows rebuilt from the *raw* codes; cosine is the dot product.
        sid_hash: hash of item IDs and codes, see `conrec.items.space.hash_semantic_ids`.
        earlier: hashes of the tables that this one grew from; their codes name the same items.
        items_file: where `details` come from.
        rebuilt_file: what the table was made of.
    """

    item_ids: tuple[str, ...]
    sids: SemanticIds
    table: ItemTable
    sid_hash: str
    earlier: tuple[str, ...]
    items_file: Path | None
    rebuilt_file: Path | None
    _index: dict[str | None, int]
    _order: Array
    _keys: Array
    _radix: Array

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
        sid_hash = hash_semantic_ids(item_ids, sids)
        path, mapped = place.folder / REBUILT, run_folder / "filter" / ITEM_TABLE
        table: Array | ItemTable | None = None
        if mapped.is_file() and path.is_file():
            table = ItemTable.map(mapped, _made_of(path, sid_hash))
        if table is None:
            tensors = read_tensors(path)
            if "rebuilt" not in tensors:
                raise ArtefactError(f"holds {sorted(tensors)}", where=str(path), expected="the tensor 'rebuilt'")
            table = tensors["rebuilt"]
        loaded = cls.build(item_ids, sids, table, str(path), place.earlier, place.items, path, sid_hash)
        if place.sid_tables and loaded.sid_hash != place.sid_tables[-1]:
            raise ArtefactError(
                f"holds the SID table {loaded.sid_hash[:12]}…",
                where=str(place.folder),
                expected=f"that of growth.json, {place.sid_tables[-1][:12]}…",
                mend="Put the file back as it was, or remove the folder above it and append the items again.",
            )
        return loaded

    def save_table(self, run_folder: Path) -> None:
        """Write ``RUN/filter/items.safetensors``, which many processes then share, unless it is there already."""
        path = run_folder / "filter" / ITEM_TABLE
        if self.rebuilt_file is None:
            return
        made_of = _made_of(self.rebuilt_file, self.sid_hash)
        try:
            there = ItemTable.map(path, made_of)
        except ArtefactError:
            there = None
        if there is None:
            self.table.save(path, made_of)

    @classmethod
    def build(
        cls,
        item_ids: tuple[str, ...],
        sids: SemanticIds,
        table: Array | ItemTable,
        where: str = "rebuilt",
        earlier: tuple[str, ...] = (),
        items_file: Path | None = None,
        rebuilt_file: Path | None = None,
        sid_hash: str | None = None,
    ) -> FilterCatalogue:
        """Put the parts together and check that they fit.

        Args:
            item_ids: str [items].
            sids: their codes.
            table: rebuilt embeddings, float32 [items, d] of length 1, or the table made of them.
            where: what they were read from, for errors.
            earlier: hashes of the SID tables that this one grew from.
            items_file: of schema `conrec.logs.schema.ITEMS`, rows in the same order; None: there are no details.
            rebuilt_file: the rebuilt embeddings that ``table`` is made of.
            sid_hash: of item IDs and codes, where it is known already; None: it is computed.

        Raises:
            ArtefactError: another number of rows than items, or rows that are not of length 1.
        """
        if not isinstance(table, ItemTable):
            if table.ndim != 2 or len(table) != len(item_ids) or table.dtype != np.float32:
                raise ArtefactError(
                    f"a {table.dtype} tensor of shape {table.shape}",
                    where=where,
                    expected=f"float32 of {len(item_ids)} rows, one for each item of semantic_ids.parquet",
                )
            length = np.linalg.norm(table, axis=1)
            wrong = np.flatnonzero(~(np.abs(length - 1) < 1e-3))
            if len(wrong):
                raise ArtefactError(
                    f"row {wrong[0]} has length {length[wrong[0]]:.4f}", where=where, expected="rows of length 1"
                )
            table = ItemTable.build(table)
        keys = sid_keys(sids.resolved, sids.sizes)
        radix = np.cumprod([1, *reversed(sids.sizes[1:])], dtype=np.int64)[::-1].copy()
        order = np.argsort(keys, kind="stable").astype(np.int32)  # of items that share one the first comes first
        index: dict[str | None, int] = {item_id: row for row, item_id in enumerate(item_ids)}
        if sid_hash is None:
            sid_hash = hash_semantic_ids(item_ids, sids)
        return cls(item_ids, sids, table, sid_hash, earlier, items_file, rebuilt_file, index, order, keys[order], radix)

    @cached_property
    def details(self) -> ItemDetails:
        """Titles, categories and pictures, read when they are first asked for; without a file, item IDs alone.

        Raises:
            ArtefactError: the file is damaged, or is of other items.
        """
        if self.items_file is None or not self.items_file.is_file():
            nothing: tuple[str, ...] = ()
            return ItemDetails(self.item_ids, (nothing,) * len(self), (None,) * len(self))
        read = read_parquet(self.items_file, ITEMS)
        if tuple(read["item_id"].to_pylist()) != self.item_ids:
            raise ArtefactError("holds other items than the SID table", where=str(self.items_file))
        titles = zip(read["title"].to_pylist(), self.item_ids, strict=True)
        return ItemDetails(
            tuple(title or item_id for title, item_id in titles),
            tuple(tuple(one or ()) for one in read["category"].to_pylist()),
            tuple(read["image"].to_pylist()),
        )

    def __len__(self) -> int:
        return len(self.item_ids)

    def indices(self, item_ids: Iterable[str | None]) -> Int32[Array, " items"]:
        """Catalogue index of each item ID, -1 where it is unknown or null."""
        # A request waits for this most, where there are a million items: no line of Python for each. None is no key.
        return np.fromiter(map(self._index.get, item_ids, repeat(-1)), dtype=np.int32)

    def items_of(self, codes: Int[Array, "*rows levels"]) -> Int32[Array, "*rows"]:
        """Catalogue index of each resolved semantic ID, -1 where no item has it (negative codes included).

        Of items that share one it is the first; they all have the same rebuilt embedding.
        """
        flat = codes.reshape(-1, self.sids.levels)
        if not len(self._keys):
            return np.full(codes.shape[:-1], -1, dtype=np.int32)
        if COMPILED and len(flat) < FEW:
            found = np.empty(len(flat), dtype=np.int32)
            _find(self._keys, self._order, self._radix, self.sids.resolved, flat, found)
            return found.reshape(codes.shape[:-1])
        at = np.searchsorted(self._keys, flat @ self._radix)
        item = self._order[np.minimum(at, len(self._keys) - 1)]
        # Codes out of range may have the key of others; those of the item found tell.
        hit = (self.sids.resolved[item] == flat).all(axis=1)
        return np.where(hit, item, np.int32(-1)).reshape(codes.shape[:-1])

    def sid_text(self, item: int) -> str | None:
        """Text of an item's resolved semantic ID, ``a_5 b_2 c_9``; None for -1."""
        return None if item < 0 else self.sids.text(item)


def _made_of(rebuilt_file: Path, sid_hash: str) -> dict[str, str]:
    """What an item table states that it was made of."""
    return {"sid_hash": sid_hash, "rebuilt": hash_file(rebuilt_file)}


@compiled
def _find(keys: Array, order: Array, radix: Array, resolved: Array, codes: Array, found: Array) -> None:
    """`FilterCatalogue.items_of` for a few codes: a request waits for the calls of NumPy more than for the search."""
    for row in range(len(codes)):
        key = np.int64(0)
        for level in range(len(radix)):
            key += np.int64(codes[row, level]) * radix[level]
        low, high = 0, len(keys) - 1
        while low < high:
            middle = (low + high) // 2
            if keys[middle] < key:
                low = middle + 1
            else:
                high = middle
        item = order[low]
        found[row] = item
        for level in range(len(radix)):
            if resolved[item, level] != codes[row, level]:
                found[row] = -1
