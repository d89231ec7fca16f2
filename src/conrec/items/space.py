"""What the rooms after this one read of the items: semantic IDs and rebuilt embeddings. No torch needed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from conrec.arrays import Array
from conrec.artefacts import read_tensors
from conrec.errors import ArtefactError
from conrec.items.semantic_ids import SemanticIds, read_semantic_ids

__all__ = ["QUANTISER", "REBUILT", "SEMANTIC_IDS_FILE", "TRIE", "ItemSpace", "hash_semantic_ids", "read_items"]

SEMANTIC_IDS_FILE = "semantic_ids.parquet"
QUANTISER = "quantiser.safetensors"
REBUILT = "rebuilt.safetensors"
TRIE = "trie.safetensors"


@dataclass(frozen=True, slots=True)
class ItemSpace:
    """The items of a run, rows in the order of the catalogue.

    Attributes:
        item_ids: str [items].
        semantic_ids: raw and resolved codes.
        rebuilt: float32 [items, d], decoded from the raw codes, centred, of length 1 (or 0): a dot product
            of two rows is the similarity ``sim`` of the reward and of the filter.
    """

    item_ids: tuple[str, ...]
    semantic_ids: SemanticIds
    rebuilt: Array

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def codebook_size(self) -> int:
        """Codes per level."""
        return self.semantic_ids.codebook_size


def read_items(folder: Path) -> ItemSpace:
    """Read what `conrec.items.build.build_items` wrote into ``RUN/items``.

    Raises:
        ArtefactError: a file is missing or damaged, or the two have different numbers of items.
    """
    item_ids, semantic_ids = read_semantic_ids(folder / SEMANTIC_IDS_FILE)
    tensors = read_tensors(folder / REBUILT)
    rebuilt = tensors.get("rebuilt")
    if rebuilt is None or rebuilt.ndim != 2 or rebuilt.dtype != np.float32 or len(rebuilt) != len(item_ids):
        found = {name: tensor.shape for name, tensor in tensors.items()}
        raise ArtefactError(
            f"holds {found}", where=str(folder / REBUILT), expected=f"'rebuilt', float32 [{len(item_ids)}, d]"
        )
    return ItemSpace(item_ids, semantic_ids, rebuilt)


def hash_semantic_ids(item_ids: Iterable[str], sids: SemanticIds) -> str:
    """SHA-256 of item IDs, raw and resolved codes and the codebook size; whatever file format they are kept in."""
    digest = hashlib.sha256(f"conrec semantic ids 1\n{sids.codebook_size}\n".encode())
    for item_id in item_ids:
        text = item_id.encode()
        digest.update(len(text).to_bytes(4, "little") + text)
    digest.update(np.ascontiguousarray(sids.codes, dtype="<i4").tobytes())
    digest.update(np.ascontiguousarray(sids.resolved, dtype="<i4").tobytes())
    return digest.hexdigest()
