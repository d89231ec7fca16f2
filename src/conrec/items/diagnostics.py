"""How well a codebook is used and how much the codes keep of the embeddings, as a JSON-able dict. NumPy only."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from conrec.arrays import Array
from conrec.items.semantic_ids import LETTERS, SemanticIds

__all__ = ["collisions", "describe_items", "perplexity", "unit_rows", "use_of_codes"]


def describe_items(
    ids: SemanticIds,
    centred: Float[Array, "items d"],
    rebuilt: Float[Array, "items d"],
    train_items: Bool[Array, " items"],
) -> dict[str, Any]:
    """Codebook use, collisions and reconstruction of one catalogue (``items/diagnostics.json``).

    Args:
        ids: semantic IDs, raw and resolved.
        centred: embeddings less the mean of the training items.
        rebuilt: embeddings rebuilt from the raw codes, in the same centred space.
        train_items: the items that the codebooks were trained on.

    Returns:
        ``items``, ``training_items``, ``codebook_size``; ``levels``, one dict a level (see `use_of_codes`);
        ``collisions`` with ``before`` and ``after`` resolution (see `collisions`) and how many items were moved,
        of all and of the training items;
        ``reconstruction_cosine``, the mean cosine of embedding and rebuilt embedding over ``all``, ``training``
        and ``other`` items, null where there are none.
    """
    cosine = (unit_rows(centred) * unit_rows(rebuilt)).sum(axis=1, dtype=np.float64)
    groups = {"all": np.ones(len(ids), dtype=np.bool_), "training": train_items, "other": ~train_items}
    return {
        "items": len(ids),
        "training_items": int(train_items.sum()),
        "codebook_size": ids.codebook_size,
        "levels": use_of_codes(ids.codes, ids.codebook_size),
        "collisions": {
            "before": collisions(ids.codes),
            "after": collisions(ids.resolved),
            "moved": int(ids.moved.sum()),
            "moved_of_training": int(ids.moved[train_items].sum()),
            "moved_to_another_second_code": int((ids.codes[:, 1] != ids.resolved[:, 1]).sum()),
        },
        "reconstruction_cosine": {
            name: float(cosine[rows].mean()) if rows.any() else None for name, rows in groups.items()
        },
    }


def use_of_codes(codes: Int[Array, "items 3"], codebook_size: int) -> list[dict[str, Any]]:
    """For each level: used and dead codes, coverage (share used), perplexity, and how many items have each code."""
    levels: list[dict[str, Any]] = []
    for level, letter in enumerate(LETTERS):
        counts = np.bincount(codes[:, level], minlength=codebook_size)
        used = int((counts > 0).sum())
        levels.append(
            {
                "level": letter,
                "used": used,
                "dead": codebook_size - used,
                "coverage": used / codebook_size,
                "perplexity": perplexity(counts),
                "counts": counts.tolist(),
            }
        )
    return levels


def collisions(codes: Int[Array, "items 3"]) -> dict[str, float | int]:
    """Distinct semantic IDs, items that share theirs (and their share of all), largest group that shares one."""
    _, counts = np.unique(codes, axis=0, return_counts=True)
    sharing = int(counts[counts > 1].sum())
    return {
        "distinct": len(counts),
        "items_sharing": sharing,
        "rate": sharing / max(len(codes), 1),
        "largest": int(counts.max(initial=0)),
    }


def perplexity(counts: Int[Array, " codebook"] | Float[Array, " codebook"]) -> float:
    """``exp`` of the entropy of use: how many codes there would be, were all used alike; 1 where none is."""
    share = counts[counts > 0] / max(counts.sum(), 1)
    return float(np.exp(-(share * np.log(share)).sum()))


def unit_rows(rows: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Rows at length 1, float32, so that a dot product is a cosine; rows of length 0 stay 0."""
    wide = rows.astype(np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    unit: Array = np.divide(wide, length, out=np.zeros_like(wide), where=length > 0).astype(np.float32)
    return unit
