"""The trie as a file, safetensors, with the table of semantic IDs that it was built from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int32

from conrec.arrays import Array
from conrec.artefacts import read_tensors, write_tensors
from conrec.errors import ArtefactError
from conrec.items.trie import Trie

__all__ = ["load_trie", "save_trie"]

NAMES = ("codes", "first", "second_codes", "second_offsets", "third_codes", "third_offsets", "item")
SIZE = "codebook_size"


def save_trie(path: Path, trie: Trie) -> None:
    """Write a trie, atomically."""
    arrays = {name: one.cpu().numpy() for name, one in trie.arrays().items()}
    write_tensors(path, {**arrays, SIZE: np.asarray([trie.codebook_size], dtype=np.int32)})


def load_trie(path: Path, codes: Int32[Array, "items 3"], device: torch.device | str = "cpu") -> Trie:
    """Read what `save_trie` wrote.

    Args:
        path: the file.
        codes: the resolved codes of the SID table in use.
        device: where to put it.

    Raises:
        ArtefactError: missing, damaged, or the trie of another SID table.
    """
    found = read_tensors(path)
    if set(found) != {*NAMES, SIZE}:
        raise ArtefactError(f"holds {sorted(found)}", where=str(path), expected=", ".join((*NAMES, SIZE)))
    if found["codes"].shape != codes.shape or not np.array_equal(found["codes"], codes):
        raise ArtefactError(
            "this trie was built from another table of semantic IDs",
            where=str(path),
            expected="the trie of the SID table beside it",
            mend="Build it again with Trie.from_codes, or run the items stage again.",
        )
    wrong = _wrong(found)
    if wrong:
        raise ArtefactError(f"the trie is damaged: {wrong}", where=str(path), mend="Run the items stage again.")
    arrays = {name: torch.from_numpy(found[name]) for name in NAMES}
    return Trie.from_arrays(arrays, int(found[SIZE][0])).to(device)


def _wrong(found: dict[str, Array]) -> str:
    """What of the arrays cannot belong to a trie; empty where nothing is."""
    if any(found[name].dtype != np.int32 for name in (*NAMES, SIZE)) or len(found[SIZE]) != 1:
        return "its arrays are not int32"
    size, items = int(found[SIZE][0]), len(found["codes"])
    if len(found["first"]) != size:
        return f"{len(found['first'])} first codes of {size}"
    if len(found["item"]) != items or not np.array_equal(np.sort(found["item"]), np.arange(items)):
        return "its items are not those of the table"
    nodes = int(found["first"].max()) + 1
    for name in ("second", "third"):
        offsets, edges = found[f"{name}_offsets"], found[f"{name}_codes"]
        if len(offsets) != nodes + 1 or offsets[0] != 0 or offsets[-1] != len(edges) or (np.diff(offsets) < 1).any():
            return f"the offsets of the {name} codes"
        if ((edges < 0) | (edges >= size)).any():
            return f"the {name} codes"
        nodes = len(edges)
    return "" if nodes == items else f"{nodes} ends of {items} items"
