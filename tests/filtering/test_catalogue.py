"""The catalogue of the filter, with every way of telling items apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conrec.filtering.catalogue import FilterCatalogue
from conrec.filtering.filter import NegativeFilter
from conrec.filtering.predict_sets import write_predict_sets
from conrec.filtering.stores.lmdb import PredictSetStore
from conrec.items.semantic_ids import SemanticIds
from conrec.recommender import Ranking

CODES = np.asarray([[3, 1, 0], [0, 2, 2], [3, 1, 0], [3, 1, 0]], dtype=np.int32)
TABLES = {
    "extra_level": SemanticIds(CODES, np.column_stack([CODES, [2, 0, 0, 1]]).astype(np.int32), 4, "extra_level", 3),
    "shared": SemanticIds(CODES, CODES, 4, "shared"),
}
ANGLES = np.deg2rad([0.0, 90.0, 0.0, 0.0])
REBUILT = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1).astype(np.float32)
ITEMS = ("i0", "i1", "i2", "i3")


def catalogue(kind: str) -> FilterCatalogue:
    return FilterCatalogue.build(ITEMS, TABLES[kind], REBUILT)


def test_an_item_is_found_by_all_its_codes() -> None:
    four = catalogue("extra_level")
    assert four.items_of(TABLES["extra_level"].resolved).tolist() == [0, 1, 2, 3]
    asked = np.asarray([[[3, 1, 0, 3], [-1, -1, -1, -1]], [[0, 2, 2, 0], [0, 2, 2, 1]]])
    assert four.items_of(asked).tolist() == [[-1, -1], [1, -1]]
    assert four.sid_text(3) == "a_3 b_1 c_0 d_1"


def test_of_items_that_share_a_name_the_first_is_found() -> None:
    shared = catalogue("shared")
    assert shared.items_of(CODES).tolist() == [0, 1, 0, 0]
    assert catalogue("extra_level").sid_hash != shared.sid_hash


@pytest.mark.parametrize("kind", list(TABLES))
def test_predict_sets_decide_alike_whatever_tells_items_apart(kind: str, tmp_path: Path) -> None:
    items = catalogue(kind)
    ranking = Ranking(np.asarray([[3, 2], [1, -1]], dtype=np.int32), np.asarray([[1, 0.5], [1, -np.inf]], np.float32))
    write_predict_sets(tmp_path, "m", ["ann", "bob"], ranking, items, written_at=1)
    store = PredictSetStore.open(tmp_path / "filter" / "m", items.sid_hash)
    decisions = NegativeFilter(items, store, 0.5).decide(["ann"] * 4 + ["bob"] * 4, [*ITEMS, *ITEMS])
    assert decisions.dropped.tolist() == [True, False, True, True, False, True, False, False]
    assert len(store.get("ann") or ()) == 2
