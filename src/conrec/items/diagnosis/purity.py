"""Does a prefix of codes mean something? Category purity of prefixes against chance, with examples; NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from conrec.arrays import Array, Ragged
from conrec.items.diagnosis.prefixes import prefix_groups
from conrec.items.semantic_ids import LEVELS, sid_text
from conrec.seeds import generator

__all__ = ["EXAMPLES", "LARGE", "PERMUTATIONS", "TITLES", "category_purity", "most_frequent"]

PERMUTATIONS = 20
"""Random groupings behind the purity by chance."""
LARGE = 5
"""Items with a category that a prefix must have to be an example."""
EXAMPLES = 5
"""Examples shown of the purest prefixes of a level, and of the least pure."""
TITLES = 6
"""Titles shown of an example."""


def category_purity(
    codes: Int[Array, "items levels"],
    categories: Sequence[Sequence[str]],
    titles: Sequence[str],
    seed: int,
    shown: int = TITLES,
) -> dict[str, Any] | None:
    """How far the items under one prefix are of one category, for prefixes of one, two and three codes.

    The purity of a prefix is the share of its items that have its most frequent category (an item may have several
    categories); that of a level is the mean over items of the purity of their prefix. Prefixes of one item are pure by
    themselves, so purity is worth something only against ``random``: the mean over `PERMUTATIONS` groupings of the
    same sizes with the items shuffled. ``above_random`` is (purity - random) / (1 - random): 0 for codes that know
    nothing of categories, 1 for pure ones. Items without a category are left out.

    Args:
        codes: raw codes.
        categories: of each item.
        titles: of each item, for the examples.
        seed: of the shuffles.
        shown: titles in an example; 0 for no examples.

    Returns:
        None where no item has a category; else ``items`` and ``categories`` that are counted, ``permutations`` and
        ``levels``, for each: ``codes`` in the prefix, ``prefixes``, ``alone`` (items whose prefix nobody shares),
        ``purity``, ``random``, ``above_random`` (null where random groups are pure too), and ``purest`` and
        ``least_pure``: among the prefixes of at least `LARGE` items those of the highest purity, and those of the
        lowest below 1, of equal ones the larger first. Each with ``prefix``, ``items``, ``category``, ``purity`` and
        ``titles`` (of the first items in the order of the catalogue that have the category, then of the others).
    """
    rows = np.flatnonzero([len(one) > 0 for one in categories])
    if not len(rows):
        return None
    names = sorted({name for one in categories for name in one})
    number = {name: place for place, name in enumerate(names)}
    of_item = Ragged.from_rows([number[name] for name in dict.fromkeys(categories[row])] for row in rows.tolist())
    random = generator(seed, "category purity")
    shuffles = [random.permutation(len(rows)) for _ in range(PERMUTATIONS)]
    levels: list[dict[str, Any]] = []
    for length in range(1, LEVELS + 1):
        group = prefix_groups(codes[rows], length)
        sizes = np.bincount(group)
        most, category = most_frequent(group, of_item, len(names))
        purity = float(most.sum() / len(rows))
        chance = float(np.mean([most_frequent(group[one], of_item, len(names))[0].sum() for one in shuffles]))
        chance /= len(rows)
        level: dict[str, Any] = {
            "codes": length,
            "prefixes": len(sizes),
            "alone": int((sizes == 1).sum()),
            "purity": purity,
            "random": chance,
            "above_random": (purity - chance) / (1 - chance) if chance < 1 else None,
        }
        large = np.flatnonzero(sizes >= LARGE)
        share = most[large] / sizes[large]
        best = large[np.lexsort((large, -sizes[large], -share))][: min(EXAMPLES, -(-len(large) // 2))]
        worst = large[np.lexsort((large, -sizes[large], share))]
        # A pure prefix is none of the least pure, however few there are.
        worst = worst[~np.isin(worst, best) & (most[worst] < sizes[worst])][:EXAMPLES]
        for key, chosen in (("purest", best), ("least_pure", worst)):
            level[key] = [
                {
                    "prefix": sid_text(codes[rows[members[0]], :length].tolist()),
                    "items": len(members),
                    "category": names[category[one]],
                    "purity": float(most[one] / sizes[one]),
                    "titles": _some_titles(rows[members], names[category[one]], categories, titles, shown),
                }
                for one, members in ((int(one), np.flatnonzero(group == one)) for one in chosen if shown)
            ]
        levels.append(level)
    return {"items": len(rows), "categories": len(names), "permutations": PERMUTATIONS, "levels": levels}


def most_frequent(
    group: Int[Array, " items"], of_item: Ragged, categories: int
) -> tuple[Int[Array, " groups"], Int[Array, " groups"]]:
    """How many items of each group have its most frequent category, and which that is; of equal ones the first.

    Args:
        group: of each item, from 0, every number used.
        of_item: distinct categories of each item, at least one.
        categories: how many there are.
    """
    keys, counts = np.unique(
        np.repeat(group.astype(np.int64), of_item.lengths) * categories + of_item.values, return_counts=True
    )
    order = np.lexsort((keys, -counts, keys // categories))
    first = np.flatnonzero(np.diff(keys[order] // categories, prepend=-1))
    best = order[first]
    return counts[best], keys[best] % categories


def _some_titles(
    members: Array, category: str, categories: Sequence[Sequence[str]], titles: Sequence[str], shown: int
) -> list[str]:
    """Titles of the first members that have the category, then of the others."""
    ordered = sorted(members.tolist(), key=lambda item: category not in categories[item])
    return [titles[item] for item in ordered[:shown]]
