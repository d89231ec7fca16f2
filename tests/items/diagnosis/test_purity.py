"""Category purity against a literal count."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.items.diagnosis import purity
from conrec.items.diagnosis.purity import LARGE, category_purity

NAMES = ("Drama", "War", "Comedy", "Western")


def literal(codes: np.ndarray, categories: list[list[str]], length: int) -> float:
    """Mean over the items with a category of the share of their prefix that has its most frequent category."""
    under: dict[tuple[int, ...], list[list[str]]] = {}
    for row, own in zip(codes.tolist(), categories, strict=True):
        if own:
            under.setdefault(tuple(row[:length]), []).append(own)
    pure = [max(Counter(name for own in group for name in own).values()) for group in under.values()]
    return sum(pure) / sum(map(len, under.values()))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.sets(st.sampled_from(NAMES))), min_size=1))
@settings(max_examples=60, deadline=None)
def test_purity_by_hand(items: list[tuple[int, int, set[str]]]) -> None:
    codes = np.asarray([[first, second, 0] for first, second, _ in items])
    categories = [sorted(own) for *_, own in items]
    found = category_purity(codes, categories, ["title"] * len(items), 0)
    if not any(categories):
        assert found is None
        return
    assert found is not None
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["items"] == sum(map(bool, categories))
    for level in found["levels"]:
        assert level["purity"] == pytest.approx(literal(codes, categories, level["codes"]))
        assert 0 < level["random"] <= 1
    assert found["levels"][1]["purity"] == found["levels"][2]["purity"], "all third codes are the same"


def test_codes_that_are_the_categories_are_pure_and_others_are_not() -> None:
    random = np.random.default_rng(0)
    category = random.integers(0, 4, 400)
    categories = [[NAMES[one]] for one in category]
    titles = [f"film {item}" for item in range(400)]
    for first, above in ((category, 1.0), (random.permutation(category), 0.0)):
        codes = np.stack([first, first, first], axis=1)
        level = category_purity(codes, categories, titles, 0)["levels"][0]  # type: ignore[index]
        assert level["above_random"] == pytest.approx(above, abs=0.05)
        assert level["random"] == pytest.approx(0.32, abs=0.05), "the largest of four shares of about a quarter"


def test_items_alone_are_pure_in_any_grouping() -> None:
    codes = np.stack([np.arange(5), np.zeros(5, int), np.zeros(5, int)], axis=1)
    level = category_purity(codes, [["War"], ["War"], ["Drama"], [], ["Drama"]], list("abcde"), 0)["levels"][0]  # type: ignore[index]
    assert (level["prefixes"], level["alone"]) == (4, 4), "an item without a category is not counted"
    assert (level["purity"], level["random"], level["above_random"]) == (1, 1, None)


def test_examples_are_large_and_the_purest_come_first() -> None:
    sizes = {0: LARGE + 1, 1: LARGE, 2: LARGE + 2, 3: LARGE - 1}
    first = np.repeat(list(sizes), list(sizes.values()))
    categories = [["Drama"]] * len(first)
    mixed = np.flatnonzero(first == 2)
    categories[mixed[0]] = ["War"]
    titles = [f"{code}, number {place}" for place, code in enumerate(first)]
    codes = np.stack([first, np.zeros_like(first), first], axis=1)
    level = category_purity(codes, categories, titles, 0, shown=3)["levels"][0]  # type: ignore[index]
    assert [one["prefix"] for one in level["purest"]] == ["a_0", "a_1"], "of two pure ones the larger first"
    assert [one["items"] for one in level["purest"]] == [LARGE + 1, LARGE]
    (least,) = level["least_pure"]
    assert (least["prefix"], least["category"]) == ("a_2", "Drama")
    assert least["purity"] == pytest.approx((LARGE + 1) / (LARGE + 2))
    assert least["titles"] == [titles[mixed[1]], titles[mixed[2]], titles[mixed[3]]], "those of the category first"
    bare = category_purity(codes, categories, titles, 0, shown=0)["levels"][0]  # type: ignore[index]
    assert bare["purest"] == bare["least_pure"] == []


def test_a_prefix_is_not_both_among_the_purest_and_the_least_pure_and_a_pure_one_is_none_of_these() -> None:
    sizes = [LARGE + one % 7 for one in range(30)]
    first = np.repeat(np.arange(30), sizes)
    codes = np.stack([first, first, first], axis=1)
    of_item = [["War"] if group % 2 or place % 3 else ["Drama"] for place, group in enumerate(first.tolist())]
    for categories, impure in ((of_item, 15), ([["War"]] * len(first), 0)):
        level = category_purity(codes, categories, ["title"] * len(first), 0)["levels"][0]  # type: ignore[index]
        named = [one["prefix"] for key in ("purest", "least_pure") for one in level[key]]
        assert len(named) == len(set(named)) == purity.EXAMPLES + min(purity.EXAMPLES, impure)
        assert all(one["purity"] < 1 for one in level["least_pure"])
        order = [(one["purity"], -one["items"]) for one in level["least_pure"]]
        assert order == sorted(order)
