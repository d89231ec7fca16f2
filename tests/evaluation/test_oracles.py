"""The popularity rows on MovieLens-100K against figures that other code measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conrec.baselines.base import CatalogueScorer
from conrec.baselines.popularity import LivePopularity, MostDisliked
from conrec.config import PopularityConfig
from conrec.evaluation.metrics import anchor_values, mean
from conrec.logs.prepare import Prepared

ORACLE = json.loads((Path(__file__).parents[1] / "oracle" / "popularity.json").read_text())["ml-100k"]


@pytest.mark.parametrize("row", ["most-disliked", "live-popularity"])
def test_popularity_rows_have_their_known_figures(prepared_ml100k: Prepared, row: str) -> None:
    log, periods = prepared_ml100k.log, prepared_ml100k.periods
    test = prepared_ml100k.anchors.of_split("test")
    assert len(test) == ORACLE["anchors"]
    train = log.before(periods.validation)
    models: dict[str, CatalogueScorer] = {
        "most-disliked": MostDisliked.fit(train),
        "live-popularity": LivePopularity(PopularityConfig()),
    }
    top = models[row].predict(log, test.queries, 20).item
    found = anchor_values(test, top, None, train.negative_counts()[1], 20)
    for name, value in ORACLE[row].items():
        # The oracle has three decimals; one anchor more or less would be 0.0041.
        assert mean(found[name]) == pytest.approx(value, abs=0.00051), name
