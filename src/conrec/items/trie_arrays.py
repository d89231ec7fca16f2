"""The arrays of a trie from the semantic IDs of a catalogue: sorted once, in NumPy."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, Int32, Int64

from conrec.arrays import Array
from conrec.errors import DataError

__all__ = ["trie_arrays"]


def trie_arrays(codes: Int[Array, "items 3"], codebook_size: int) -> dict[str, Int32[Array, ...]]:
    """The arrays that `conrec.items.trie.Trie` looks things up in.

    Args:
        codes: resolved codes of each item, each in [0, codebook_size); every row different.
        codebook_size: codes per level.

    Returns:
        int32: ``codes`` [items, 3]; ``first`` [codebook], the node of each first code, -1 for none;
        ``second_codes`` and ``third_codes``, the codes of all edges out of the nodes of a level, in order of (node,
        code), and ``second_offsets`` and ``third_offsets``, where each node's begin; ``item`` [items], the item of
        each edge of the last level.

    Raises:
        DataError: no items, a code out of range, or two items with the same semantic ID.
    """
    if len(codes) == 0:
        raise DataError("there are no semantic IDs", where="trie", expected="at least one item")
    outside = ((codes < 0) | (codes >= codebook_size)).any(axis=1)
    if outside.any():
        item = int(outside.argmax())
        raise DataError(
            f"item {item} has the codes {codes[item].tolist()}",
            where="trie",
            expected=f"codes from 0 to {codebook_size - 1}",
        )
    # Three codes are one number, in the order of the prefixes.
    wide = codes.astype(np.int64)
    key = (wide[:, 0] * codebook_size + wide[:, 1]) * codebook_size + wide[:, 2]
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    same = ordered[1:] == ordered[:-1]
    if same.any():
        position = int(same.argmax())
        pair = [int(order[position]), int(order[position + 1])]
        raise DataError(
            f"items {pair[0]} and {pair[1]} have the same semantic ID {codes[pair[0]].tolist()}",
            where="trie",
            expected="distinct semantic IDs",
            mend="Resolve collisions first: conrec.items.semantic_ids.resolve_collisions.",
        )
    pairs, third_begins = np.unique(ordered // codebook_size, return_index=True)
    firsts, second_begins = np.unique(pairs // codebook_size, return_index=True)
    first = np.full(codebook_size, -1, dtype=np.int32)
    first[firsts] = np.arange(len(firsts), dtype=np.int32)
    return {
        "codes": codes.astype(np.int32),
        "first": first,
        "second_codes": (pairs % codebook_size).astype(np.int32),
        "second_offsets": _offsets(second_begins, len(pairs)),
        "third_codes": (ordered % codebook_size).astype(np.int32),
        "third_offsets": _offsets(third_begins, len(ordered)),
        "item": order.astype(np.int32),
    }


def _offsets(begins: Int64[Array, " nodes"], edges: int) -> Int32[Array, " nodes+1"]:
    return np.append(begins, edges).astype(np.int32)
