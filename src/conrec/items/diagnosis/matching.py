"""Do two models group the items alike? Their codes matched by the Hungarian algorithm, and agreement by pairs of items.

The numbers of codes mean nothing across two trainings: code 5 of one may be code 41 of the other. `within_parents` and
`globally` match them in two ways; `pairs` needs no matching.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from scipy.optimize import linear_sum_assignment

from conrec.arrays import Array
from conrec.items.diagnosis.prefixes import prefix_groups

__all__ = ["by_chance", "globally", "kept", "pairs", "within_parents"]

Codes = Int[Array, "items levels"]


def kept(first: Codes, second: Codes) -> list[float]:
    """Share of items whose first 1, 2, … codes are equal in both, no matching."""
    return _shares(first == second)


def within_parents(first: Codes, second: Codes) -> list[float]:
    """Share of items that keep their first 1, 2, … codes, prefixes matched from the first level down.

    First codes are matched one to one so that as many items as possible agree (Kuhn 1955). Under each pair of matched
    prefixes the codes that follow are matched in the same way by the items that are under both. This asks for the same
    tree of groups, whatever its codes are called. Small groups agree easily: see `by_chance`.
    """
    return _shares(_agree_within_parents(first, second))


def globally(first: Codes, second: Codes) -> list[float]:
    """The same with the codes of each level matched once for all items, whatever stands before them.

    This asks more: that a deeper code means the same under every prefix, and in both models.
    """
    return _shares(np.stack([_agree(*one) for one in zip(first.T, second.T, strict=True)], axis=1))


def by_chance(first: Codes, second: Codes, random: np.random.Generator, shuffles: int = 5) -> list[float]:
    """What `within_parents` would say at each level if that level knew nothing.

    For level L the L-th codes of ``second`` are dealt anew among the items that share their codes before it there;
    the mean over so many deals.
    """
    levels = first.shape[1]
    shares = np.zeros(levels)
    for level in range(levels):
        group = prefix_groups(second, level)
        order = np.argsort(group, kind="stable")
        for _ in range(shuffles):
            dealt = second[:, : level + 1].copy()
            dealt[order, level] = dealt[np.lexsort((random.random(len(group)), group)), level]
            shares[level] += within_parents(first[:, : level + 1], dealt)[level] / shuffles
    return [float(one) for one in shares]


def pairs(first: Codes, second: Codes) -> list[dict[str, Any]]:
    """For prefixes of 1, 2, … codes: are two items under one prefix in both models?

    Returns:
        For each length ``together``, the pairs of items that share their prefix in ``first``; ``kept``, the share of
        them that do in ``second``, and ``kept_back``, the other way round (null where there are none);
        ``adjusted_rand``, the adjusted Rand index (Hubert and Arabie 1985): 0 by chance, 1 for equal groups, null
        where neither model has two items together.
    """
    found: list[dict[str, Any]] = []
    for length in range(1, first.shape[1] + 1):
        one, other = prefix_groups(first, length), prefix_groups(second, length)
        both = _pairs(prefix_groups(np.stack([one, other], axis=1), 2))
        here, there, all_pairs = _pairs(one), _pairs(other), len(first) * (len(first) - 1) // 2
        expected = here * there / max(all_pairs, 1)
        most = (here + there) / 2
        found.append(
            {
                "codes": length,
                "together": here,
                "kept": both / here if here else None,
                "kept_back": both / there if there else None,
                "adjusted_rand": (both - expected) / (most - expected) if most > expected else None,
            }
        )
    return found


def _pairs(group: Array) -> int:
    counts = np.bincount(group)
    return int((counts * (counts - 1) // 2).sum())


def _shares(agree: Bool[Array, "items levels"]) -> list[float]:
    """Share of items that agree in their first 1, 2, … levels."""
    return [float(one) for one in np.logical_and.accumulate(agree, axis=1).mean(axis=0)]


def _agree_within_parents(first: Codes, second: Codes) -> Bool[Array, "items levels"]:
    agree = np.zeros(first.shape, dtype=np.bool_)
    agree[:, 0] = _agree(first[:, 0], second[:, 0])
    for level in range(1, first.shape[1]):
        rows = np.flatnonzero(agree[:, level - 1])
        # Items that agree so far have one prefix in the first model for each in the second.
        group = prefix_groups(first[rows], level)
        order = np.argsort(group, kind="stable")
        for some in np.split(rows[order], np.flatnonzero(np.diff(group[order])) + 1):
            agree[some, level] = _agree(first[some, level], second[some, level])
    return agree


def _agree(first: Int[Array, " items"], second: Int[Array, " items"]) -> Bool[Array, " items"]:
    """Whether each item's two codes are matched, by the matching under which most items agree."""
    if len(first) < 2:
        return np.ones(len(first), dtype=np.bool_)
    here, there = (np.unique(one, return_inverse=True)[1].reshape(-1) for one in (first, second))
    counts = np.zeros((here.max() + 1, there.max() + 1))
    np.add.at(counts, (here, there), 1)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    partner = np.full(len(counts), -1)
    partner[rows] = columns
    matched: Array = partner[here] == there
    return matched
