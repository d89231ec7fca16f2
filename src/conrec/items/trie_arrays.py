"""The arrays of a trie from the semantic IDs of a catalogue: sorted once, in NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Int32, Int64

from conrec.arrays import Array
from conrec.errors import DataError
from conrec.items.semantic_ids import level_sizes, sid_keys

__all__ = ["DEEPER", "SHARED", "trie_arrays"]

DEEPER = ("second", "third", "fourth")
"""Names of the levels below the first."""
SHARED = "item_offsets"
"""Name of the array that only a trie with shared semantic IDs has."""


def trie_arrays(
    codes: Int[Array, "items levels"], sizes: int | Sequence[int], *, shared: bool = False
) -> dict[str, Int32[Array, ...]]:
    """The arrays that `conrec.items.trie.Trie` looks things up in.

    Args:
        codes: resolved codes of each item, three or four, each in [0, size of its level).
        sizes: codes of each level; one number for three levels of so many.
        shared: whether several items may have the same codes; otherwise every row is different.

    Returns:
        int32: ``codes`` [items, levels]; ``first`` [codes of the first level], the node of each first code, -1 for
        none; ``second_codes``, ``third_codes`` (and ``fourth_codes``), the codes of all edges out of the nodes of a
        level, in order of (node, code), and ``second_offsets`` and so on, where each node's begin; ``item`` [items],
        the items in the order of their semantic IDs, those of one in the order of the catalogue; and where they are
        shared ``item_offsets``, where those of each edge of the last level begin.

    Raises:
        DataError: no items, a code out of range, or two items with the same semantic ID where they are not shared.
    """
    if len(codes) == 0:
        raise DataError("there are no semantic IDs", where="trie", expected="at least one item")
    sizes = level_sizes(sizes)
    outside = ((codes < 0) | (codes >= np.asarray(sizes))).any(axis=1)
    if outside.any():
        item = int(outside.argmax())
        last = f", of the last level to {sizes[-1] - 1}" if sizes[-1] != sizes[0] else ""
        raise DataError(
            f"item {item} has the codes {codes[item].tolist()}",
            where="trie",
            expected=f"codes from 0 to {sizes[0] - 1}{last}",
        )
    # The codes of an item are one number, in the order of the prefixes.
    key = sid_keys(codes, sizes)
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    same = ordered[1:] == ordered[:-1]
    if same.any() and not shared:
        position = int(same.argmax())
        pair = [int(order[position]), int(order[position + 1])]
        raise DataError(
            f"items {pair[0]} and {pair[1]} have the same semantic ID {codes[pair[0]].tolist()}",
            where="trie",
            expected="distinct semantic IDs",
            mend="Resolve collisions first: conrec.items.naming.collisions.name_items.",
        )
    arrays = {"codes": codes.astype(np.int32), "item": order.astype(np.int32)}
    if shared:
        ordered, begins = np.unique(ordered, return_index=True)
        arrays[SHARED] = _offsets(begins, len(codes))
    for level in range(len(sizes) - 1, 0, -1):
        above, begins = np.unique(ordered // sizes[level], return_index=True)
        arrays[f"{DEEPER[level - 1]}_codes"] = (ordered % sizes[level]).astype(np.int32)
        arrays[f"{DEEPER[level - 1]}_offsets"] = _offsets(begins, len(ordered))
        ordered = above
    first = np.full(sizes[0], -1, dtype=np.int32)
    first[ordered] = np.arange(len(ordered), dtype=np.int32)
    return {**arrays, "first": first}


def _offsets(begins: Int64[Array, " nodes"], edges: int) -> Int32[Array, " nodes+1"]:
    return np.append(begins, edges).astype(np.int32)
