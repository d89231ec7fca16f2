"""How well a codebook is used and how much the codes keep of the embeddings, as a JSON-able dict. NumPy only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int

from conrec.arrays import Array
from conrec.items.diagnosis.neighbours import NEAREST, neighbour_hits, queries_of
from conrec.items.diagnosis.purity import TITLES, category_purity
from conrec.items.semantic_ids import LETTERS, LEVELS, SemanticIds
from conrec.logs.titles import titles_of

__all__ = ["alike", "collisions", "describe_items", "entropy_ratio", "gini", "perplexity", "unit_rows", "use_of_codes"]

_CHUNK = 8192
"""Rows that are scaled at once."""


def describe_items(
    ids: SemanticIds,
    centred: Float[Array, "items d"],
    rebuilt: Float[Array, "items d"],
    rebuilt_from_resolved: Float[Array, "items d"],
    train_items: Bool[Array, " items"],
    items: pa.Table,
    seed: int,
    shown_titles: int = TITLES,
) -> dict[str, Any]:
    """Codebook use, collisions, reconstruction, neighbours and meaning of one catalogue (``items/diagnostics.json``).

    Args:
        ids: semantic IDs, raw and resolved.
        centred: embeddings less the mean of the training items.
        rebuilt: embeddings rebuilt from the raw codes, in the same centred space.
        rebuilt_from_resolved: the same from the resolved codes.
        train_items: the items that the codebooks were trained on.
        items: the catalogue (`conrec.logs.schema.ITEMS`), for titles and categories.
        seed: of the shuffles behind the purity by chance, and of the sample of queries where the catalogue is large.
        shown_titles: titles in an example of a prefix; 0 for no examples.

    Returns:
        ``items``, ``training_items``, ``codebook_size``; ``levels``, one dict a level (see `use_of_codes`);
        ``collisions`` with ``before`` and ``after`` resolution (see `collisions`) and how many items were moved,
        of all and of the training items;
        ``reconstruction_cosine``, the mean cosine of embedding and embedding rebuilt from the raw codes over ``all``,
        ``training`` and ``other`` items, null where there are none, and ``reconstruction_cosine_resolved``, the same
        from the resolved codes;
        ``neighbour_hit_rate``: share of the 10 ``nearest`` items by embedding that are among the 10 nearest by the
        embedding rebuilt from the ``raw`` and from the ``resolved`` codes (cosines, see
        `neighbours.neighbour_hits`), over all, training and other of the ``queries``, and what a random
        order would have (``chance``);
        ``category_purity``, see `conrec.items.diagnosis.purity.category_purity`.
    """
    original, raw, resolved = (unit_rows(rows) for rows in (centred, rebuilt, rebuilt_from_resolved))
    groups = {"all": np.ones(len(ids), dtype=np.bool_), "training": train_items, "other": ~train_items}

    def means(values: Array, rows: Array) -> dict[str, float | None]:
        """Mean of the values of each group; ``rows`` are the items that they belong to."""
        inside = {name: values[group[rows]] for name, group in groups.items()}
        return {name: float(one.mean()) if len(one) else None for name, one in inside.items()}

    everything = np.arange(len(ids))
    cosines = [np.einsum("id,id->i", original, one, dtype=np.float64) for one in (raw, resolved)]
    queries = queries_of(len(ids), seed)
    nearest = min(NEAREST, len(ids) - 1)
    # A single item has no neighbours.
    asked = queries if nearest > 0 else queries[:0]
    hits = neighbour_hits(original, (alike(raw, ids.codes), alike(resolved, ids.resolved[:, :LEVELS])), asked)
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
        "reconstruction_cosine": means(cosines[0], everything),
        "reconstruction_cosine_resolved": means(cosines[1], everything),
        "neighbour_hit_rate": {
            "nearest": nearest,
            "queries": len(asked),
            "chance": nearest / (len(ids) - 1) if nearest > 0 else None,
            "raw": means(hits[0], asked),
            "resolved": means(hits[1], asked),
        },
        "category_purity": category_purity(
            ids.codes, items["category"].to_pylist(), titles_of(items), seed, shown_titles
        ),
    }


def alike(rows: Float[Array, "items d"], codes: Int[Array, "items levels"]) -> Float[Array, "items d"]:
    """Rows with those of equal first three codes made equal to the bit.

    They are so but for rounding, which depends on how many rows a product has.
    """
    _, first, group = np.unique(codes[:, :LEVELS], axis=0, return_index=True, return_inverse=True)
    same: Array = rows[first[group.reshape(-1)]]
    return same


def use_of_codes(codes: Int[Array, "items 3"], codebook_size: int) -> list[dict[str, Any]]:
    """How each level uses its codes.

    Returns:
        For each level ``level`` (its letter), ``used`` and ``dead`` codes, ``coverage`` (share used), ``perplexity``,
        ``entropy_ratio``, ``gini`` and ``counts``, how many items have each code.
    """
    levels: list[dict[str, Any]] = []
    for letter, column in zip(LETTERS[:LEVELS], codes.T, strict=True):
        counts = np.bincount(column, minlength=codebook_size)
        used = int((counts > 0).sum())
        levels.append(
            {
                "level": letter,
                "used": used,
                "dead": codebook_size - used,
                "coverage": used / codebook_size,
                "perplexity": perplexity(counts),
                "entropy_ratio": entropy_ratio(counts),
                "gini": gini(counts),
                "counts": counts.tolist(),
            }
        )
    return levels


def collisions(codes: Int[Array, "items levels"]) -> dict[str, float | int]:
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
    return float(np.exp(_entropy(counts)))


def entropy_ratio(counts: Int[Array, " codebook"] | Float[Array, " codebook"]) -> float:
    """Entropy of use as a share of the largest possible, the logarithm of the number of codes: 1 for even use."""
    return _entropy(counts) / float(np.log(len(counts))) if len(counts) > 1 else 1.0


def gini(counts: Int[Array, " codebook"]) -> float:
    """Gini coefficient of use over all codes, dead ones too: 0 where all are used alike, near 1 where one has all.

    Half the mean difference between two codes, as a share of the mean: Σᵢⱼ |xᵢ - xⱼ| / (2 n² x̄), computed from the
    sorted counts; 0 where there are no items.

    >>> gini(np.asarray([2, 2, 2, 2])), gini(np.asarray([0, 0, 0, 8]))
    (0.0, 0.75)
    """
    n, total = len(counts), int(counts.sum())
    if not total:
        return 0.0
    return float((np.sort(counts) * (2 * np.arange(1, n + 1) - n - 1)).sum() / (n * total))


def unit_rows(rows: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Rows at length 1, float32, so that a dot product is a cosine; rows of length 0 stay 0."""
    unit = np.empty(rows.shape, dtype=np.float32)
    # Some at a time: in double precision a large catalogue would take several times its own memory.
    for begin in range(0, len(rows), _CHUNK):
        wide = rows[begin : begin + _CHUNK].astype(np.float64)
        length = np.linalg.norm(wide, axis=1, keepdims=True)
        unit[begin : begin + _CHUNK] = np.divide(wide, length, out=np.zeros_like(wide), where=length > 0)
    return unit


def _entropy(counts: Array) -> float:
    """Entropy of use in nats; 0 where there are no items."""
    share = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(share * np.log(share)).sum())
