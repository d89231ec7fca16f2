"""The trie as a file, safetensors, with the table of semantic IDs that it was built from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int32

from conrec.arrays import Array
from conrec.artefacts import read_tensors, write_tensors
from conrec.errors import ArtefactError
from conrec.items.semantic_ids import LEVELS
from conrec.items.trie import Trie
from conrec.items.trie_arrays import DEEPER, SHARED

__all__ = ["load_trie", "save_trie"]

SIZE = "codebook_size"
"""Name of the codes of each level: of all three as one number where they are the same."""


def save_trie(path: Path, trie: Trie) -> None:
    """Write a trie, atomically."""
    arrays = {name: one.cpu().numpy() for name, one in trie.arrays().items()}
    plain = trie.levels == LEVELS and len(set(trie.sizes)) == 1
    sizes = trie.sizes[:1] if plain else trie.sizes
    write_tensors(path, {**arrays, SIZE: np.asarray(sizes, dtype=np.int32)})


def load_trie(path: Path, codes: Int32[Array, "items levels"], device: torch.device | str = "cpu") -> Trie:
    """Read what `save_trie` wrote.

    Args:
        path: the file.
        codes: the resolved codes of the SID table in use.
        device: where to put it.

    Raises:
        ArtefactError: missing, damaged, or the trie of another SID table.
    """
    found = read_tensors(path)
    if "codes" in found and not np.array_equal(found["codes"], codes):
        raise ArtefactError(
            "this trie was built from another table of semantic IDs",
            where=str(path),
            expected="the trie of the SID table beside it",
            mend="Build it again with Trie.from_codes, or run the items stage again.",
        )
    deeper = [f"{name}_{part}" for name in DEEPER[: codes.shape[1] - 1] for part in ("codes", "offsets")]
    names = ("codes", "first", *deeper, "item", SIZE)
    if set(found) - {SHARED} != set(names):
        raise ArtefactError(f"holds {sorted(found)}", where=str(path), expected=", ".join(names))
    wrong = _wrong(found)
    if wrong:
        raise ArtefactError(f"the trie is damaged: {wrong}", where=str(path), mend="Run the items stage again.")
    arrays = {name: torch.from_numpy(one) for name, one in found.items() if name != SIZE}
    return Trie.from_arrays(arrays, _sizes(found)).to(device)


def _sizes(found: dict[str, Array]) -> tuple[int, ...]:
    """Codes of each level."""
    sizes = tuple(found[SIZE].tolist())
    return sizes * LEVELS if len(sizes) == 1 else sizes


def _wrong(found: dict[str, Array]) -> str:
    """What of the arrays cannot belong to a trie; empty where nothing is."""
    if any(one.dtype != np.int32 for one in found.values()) or len(_sizes(found)) != found["codes"].shape[1]:
        return "its arrays are not int32, or not of its levels"
    sizes, items = _sizes(found), len(found["codes"])
    if len(found["first"]) != sizes[0]:
        return f"{len(found['first'])} first codes of {sizes[0]}"
    if len(found["item"]) != items or not np.array_equal(np.sort(found["item"]), np.arange(items)):
        return "its items are not those of the table"
    nodes = int(found["first"].max()) + 1
    for name, size in zip(DEEPER, sizes[1:], strict=False):
        offsets, edges = found[f"{name}_offsets"], found[f"{name}_codes"]
        if _cannot_split(offsets, nodes, len(edges)):
            return f"the offsets of the {name} codes"
        if ((edges < 0) | (edges >= size)).any():
            return f"the {name} codes"
        nodes = len(edges)
    if SHARED in found:
        return "the offsets of the items" if _cannot_split(found[SHARED], nodes, items) else ""
    return "" if nodes == items else f"{nodes} ends of {items} items"


def _cannot_split(offsets: Array, parts: int, whole: int) -> bool:
    """Whether offsets do not cut so many rows into so many parts of at least one."""
    fits = len(offsets) == parts + 1 and offsets[0] == 0 and offsets[-1] == whole
    return not fits or bool((np.diff(offsets) < 1).any())
