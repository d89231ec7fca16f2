"""What the diagnostics say, as plain tables of words that a terminal and the report both show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Listing", "diagnostics_listings", "stability_listings"]


@dataclass(frozen=True, slots=True)
class Listing:
    """A table of words.

    Attributes:
        title: what it shows, a clause.
        columns: headings.
        rows: as many words as columns; the first names the row.
        note: how to read it, whole sentences; may be empty.
        words: whether the columns after the first hold words rather than numbers.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    words: bool = False


def diagnostics_listings(found: Mapping[str, Any]) -> list[Listing]:
    """Tables of what `diagnostics.describe_items` returned, without the examples' figures twice."""
    listings = [_use(found["levels"], found["codebook_size"]), _collisions(found["collisions"], found["items"])]
    listings.append(_kept(found))
    purity = found.get("category_purity")
    if purity:
        listings.append(_purity(purity))
        for key, title in (("purest", "Purest prefixes"), ("least_pure", "Least pure prefixes")):
            rows = tuple(_example(one) for level in purity["levels"] for one in level[key])
            if rows:
                note = "Of the prefixes of five items or more; the titles begin with items of that category."
                columns = ("prefix", "items", "category", "purity", "titles")
                listings.append(Listing(title, columns, rows, note, words=True))
    return listings


def stability_listings(found: Mapping[str, Any]) -> list[Listing]:
    """Tables of what `conrec.items.diagnosis.stability.describe_stability` returned."""
    rows = [
        (f"noise of {one['relative_norm']:.0%} of the length", f"{one['items']:,}", *_three(one["kept"]))
        for one in found["noise"]
    ]
    rows += [
        (f"other words: {one['rule']} (cosine {_number(one['cosine'])})", f"{one['items']:,}", *_three(one["kept"]))
        for one in found["paraphrase"] or ()
    ]
    appended = found["appended"]
    if appended:
        rows.append((f"{appended['items']:,} items appended", "those before", *_three(appended["kept"])))
    trained = []
    for name, key in (("another seed", "retrained"), ("without a tenth of the items", "fewer")):
        if one := found[key]:
            trained += [
                (f"{name}: within matched parents", *_three(one["within_parents"])),
                (f"{name}: the same by chance", *_three(one["chance"])),
                (f"{name}: codes matched globally", *_three(one["globally"])),
                (f"{name}: pairs that stay together", *_three([pair["kept"] for pair in one["pairs"]])),
                (f"{name}: adjusted Rand index", *_three([pair["adjusted_rand"] for pair in one["pairs"]])),
            ]
    heads = ("1 code", "2 codes", "3 codes")
    kept = "Share of items that keep their first 1, 2 and 3 raw codes where the codebooks stay as they are."
    note = (
        "Trained again, the codebooks have other numbers: they are matched so that most items agree. Within matched "
        "parents: prefix by prefix, from the first code down; by chance: had the last of these codes nothing to say, "
        "which small groups make high; globally: one matching a level for all items. Pairs of items under one prefix, "
        "and the adjusted Rand index (0 by chance, 1 for equal groups), need no matching."
    )
    return [
        Listing("Stability of the codes", ("what changes", "items", *heads), tuple(rows), kept),
        Listing("Stability under training again", ("what changes", *heads), tuple(trained), note),
    ]


def _three(values: Sequence[float | None] | None) -> tuple[str, ...]:
    return tuple(_number(one) for one in values or (None,) * 3)


def _use(levels: Sequence[Mapping[str, Any]], size: int) -> Listing:
    rows = tuple(
        (
            f"level {one['level']}",
            f"{one['used']:,}",
            f"{one['dead']:,}",
            *(_number(one[key], digits) for key, digits in LEVEL_FIGURES),
        )
        for one in levels
    )
    columns = ("level", "used", "dead", "coverage", "perplexity", "entropy ratio", "Gini")
    note = (
        "Raw codes of all items. Coverage: share of the codes that are used. Perplexity: how many codes there would "
        "be, were all used alike; entropy ratio: the same on the scale of the logarithm, 1 for even use. Gini: 0 for "
        "even use, near 1 where few codes have all items."
    )
    return Listing(f"Use of the {size:,} codes of each level", columns, rows, note)


LEVEL_FIGURES = (("coverage", 3), ("perplexity", 1), ("entropy_ratio", 3), ("gini", 3))
"""Figures of a level with their digits."""


def _collisions(found: Mapping[str, Any], items: int) -> Listing:
    rows = tuple(
        (
            name,
            f"{one['distinct']:,}",
            f"{one['items_sharing']:,}",
            _number(one["rate"]),
            f"{one['largest']:,}",
        )
        for name, one in (("before", found["before"]), ("after", found["after"]))
    )
    columns = ("resolution", "distinct", "items that share", "collision rate", "largest bucket")
    note = (
        f"Of {items:,} items {found['moved']:,} have other codes after resolution ({found['moved_of_training']:,} of "
        f"the training period); {found['moved_to_another_second_code']:,} of them another second code."
    )
    return Listing("Collisions", columns, rows, note)


def _kept(found: Mapping[str, Any]) -> Listing:
    hits = found["neighbour_hit_rate"]
    rows = [
        (f"{name}, {which} codes", *(_number(values[group]) for group in ("all", "training", "other")))
        for name, pair in (
            ("cosine to the embedding", (found["reconstruction_cosine"], found["reconstruction_cosine_resolved"])),
            ("neighbour hit rate", (hits["raw"], hits["resolved"])),
        )
        for which, values in zip(("raw", "resolved"), pair, strict=True)
    ]
    note = (
        f"Neighbour hit rate: share of the {hits['nearest']} nearest items by embedding that are among the "
        f"{hits['nearest']} nearest by rebuilt embedding, over {hits['queries']:,} items; items with the same codes "
        f"tie, and count by expectation over their order. A random order has {_number(hits['chance'])}."
    )
    return Listing("What the codes keep", ("", "all", "training items", "other items"), tuple(rows), note)


def _purity(found: Mapping[str, Any]) -> Listing:
    rows = tuple(
        (
            f"{one['codes']} {'code' if one['codes'] == 1 else 'codes'}",
            f"{one['prefixes']:,}",
            f"{one['alone']:,}",
            *(_number(one[key]) for key in ("purity", "random", "above_random")),
        )
        for one in found["levels"]
    )
    columns = ("prefix", "prefixes", "single items", "purity", "random", "above random")
    note = (
        f"Share of the items under a prefix that have its most frequent category, mean over {found['items']:,} items "
        f"with a category (of {found['categories']:,}). Random: the same sizes with the items shuffled, mean of "
        f"{found['permutations']}; an item alone under its prefix is pure by itself. Above random: 0 for codes that "
        "know nothing of categories, 1 for pure ones."
    )
    return Listing("Category purity of prefixes", columns, rows, note)


def _example(one: Mapping[str, Any]) -> tuple[str, ...]:
    more = one["items"] - len(one["titles"])
    titles = "; ".join(one["titles"]) + (f"; and {more:,} more" if more > 0 else "")
    return (one["prefix"], f"{one['items']:,}", one["category"], f"{one['purity']:.2f}", titles)


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")
