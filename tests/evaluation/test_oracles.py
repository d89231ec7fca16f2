"""The popularity rows on real logs against figures that other code measured."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from conrec.baselines.base import CatalogueScorer
from conrec.baselines.simple.popularity import LivePopularity, MostDisliked
from conrec.config import Config, DataConfig
from conrec.evaluation.metrics import anchor_values, mean
from conrec.logs.anchors import Anchors, build_anchors
from conrec.logs.log import Log
from conrec.logs.prepare import Prepared
from conrec.logs.sources import load
from conrec.protocol import DAY, Periods, periods_of
from conrec.settings.baselines.simple import PopularityConfig

ORACLE = json.loads((Path(__file__).parents[1] / "oracle" / "popularity.json").read_text())
MOVIETWEETINGS = os.environ.get("CONREC_MOVIETWEETINGS", "")
"""Folder with ratings.dat and movies.dat in the state that was measured; the public snapshot is another one."""


ROUNDING = 0.00051
"""The oracle has three decimals; one anchor of ML-100K more or less would be 0.0041, one of MovieTweetings 0.0004."""


def figures(log: Log, periods: Periods, test: Anchors) -> dict[str, dict[str, float]]:
    """Figures of both rows on test anchors, by row and metric."""
    train = log.before(periods.validation)
    models: dict[str, CatalogueScorer] = {
        "most-disliked": MostDisliked.count(train),
        "live-popularity": LivePopularity(PopularityConfig()),
    }
    found: dict[str, dict[str, float]] = {}
    for row, model in models.items():
        top = model.predict(log, test.queries, 20).item
        values = anchor_values(test, top, None, train.negative_counts()[1], 20)
        found[row] = {name: mean(one) for name, one in values.items()}
    return found


def test_popularity_rows_have_their_known_figures(prepared_ml100k: Prepared) -> None:
    test = prepared_ml100k.anchors.of_split("test")
    expected = ORACLE["ml-100k"]
    assert len(test) == expected["anchors"]
    found = figures(prepared_ml100k.log, prepared_ml100k.periods, test)
    for row in ("most-disliked", "live-popularity"):
        for name, value in expected[row].items():
            assert found[row][name] == pytest.approx(value, abs=ROUNDING), (row, name)


@pytest.mark.slow
@pytest.mark.skipif(not MOVIETWEETINGS, reason="CONREC_MOVIETWEETINGS does not name a folder with MovieTweetings")
def test_popularity_rows_have_their_known_figures_on_movietweetings() -> None:
    loaded = load(DataConfig(source="movietweetings", folder=Path(MOVIETWEETINGS)))
    expected, protocol = ORACLE["movietweetings"], Config().protocol
    both = []
    # Films with equally many dislikes stand at the edge of the top 20; their order is that of the items.
    for order in ("ascending", "descending"):
        log = Log.from_tables(loaded.events, loaded.items.sort_by([("item_id", order)]))
        periods = periods_of(log.timestamp, protocol.validation_cut, protocol.test_cut)
        test = build_anchors(log, periods, protocol.horizon_days * DAY).of_split("test")
        assert len(test) == expected["anchors"]
        both.append(figures(log, periods, test))
    for name, value in expected["live-popularity"].items():
        assert both[0]["live-popularity"][name] == pytest.approx(value, abs=ROUNDING), name
    for name, value in expected["most-disliked"].items():
        low, high = sorted(one["most-disliked"][name] for one in both)
        assert low - ROUNDING <= value <= high + ROUNDING, name
        assert high - low < 0.0012, name
