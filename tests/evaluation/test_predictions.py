"""Files of answers: what is written is read back, and every damaged row is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conrec.errors import ArtefactError
from conrec.evaluation.predictions import (
    read_candidate_scores,
    read_predictions,
    why_unranked,
    write_candidate_scores,
    write_predictions,
)
from conrec.logs.schema import CANDIDATE_SCORES, PREDICTIONS
from conrec.recommender import Ranking
from tests.evaluation.evaluation_world import World, world


@pytest.fixture
def given() -> World:
    return world(0)


def _ranking(given: World, k: int = 5) -> Ranking:
    random = np.random.default_rng(0)
    item = np.stack([random.permutation(given.log.n_items)[:k] for _ in range(len(given.anchors))]).astype(np.int32)
    score = -np.sort(-random.random((len(item), k)), axis=1).astype(np.float32)
    item[0, 3:], score[0, 3:] = -1, -np.inf
    return Ranking(item, score)


def _scores(given: World) -> np.ndarray:
    given.anchors.candidates[1, 4:] = -1
    return np.random.default_rng(1).random(given.anchors.candidates.shape).astype(np.float32)


def test_predictions_are_read_as_written_in_any_order_of_rows(given: World, tmp_path: Path) -> None:
    path, ranking = tmp_path / "m.parquet", _ranking(given)
    write_predictions(path, given.anchors, ranking, given.log.item_ids)
    table = pq.read_table(path)
    assert table.schema.equals(PREDICTIONS)
    assert table["rank"].to_pylist()[:4] == [1, 2, 3, 1]
    assert table["item_id"][0].as_py() == given.log.item_ids[ranking.item[0, 0]]
    assert len(table) == (ranking.item >= 0).sum()
    shuffled = table.take(np.random.default_rng(0).permutation(len(table)))
    for stored in (table, shuffled):
        pq.write_table(stored, path)
        some = given.anchors.select(np.array([4, 0, 2]))
        found = read_predictions(path, some, given.log.item_ids, given.anchors.anchor_id)
        np.testing.assert_array_equal(found.item, ranking.item[[4, 0, 2]])
        np.testing.assert_array_equal(found.score, ranking.score[[4, 0, 2]])


def test_a_model_that_ranks_nothing_says_why(given: World, tmp_path: Path) -> None:
    path, shape = tmp_path / "m.parquet", (len(given.anchors), 5)
    nothing = Ranking(np.full(shape, -1, dtype=np.int32), np.full(shape, -np.inf, dtype=np.float32))
    write_predictions(path, given.anchors, nothing, given.log.item_ids, "100 titles are too many")
    assert pq.read_table(path).schema.equals(PREDICTIONS)
    assert len(pq.read_table(path)) == 0
    assert why_unranked(path) == "100 titles are too many"
    found = read_predictions(path, given.anchors, given.log.item_ids, given.anchors.anchor_id)
    assert found.item.shape == found.score.shape == (len(given.anchors), 0)
    # Without a reason, a file without rows was cut short.
    write_predictions(path, given.anchors, nothing, given.log.item_ids)
    assert why_unranked(path) is None
    with pytest.raises(ArtefactError, match="has no rows for"):
        read_predictions(path, given.anchors, given.log.item_ids, given.anchors.anchor_id)
    write_predictions(path, given.anchors, _ranking(given), given.log.item_ids, "never asked")
    assert why_unranked(path) is None
    assert why_unranked(tmp_path / "absent.parquet") is None


def test_candidate_scores_are_read_as_written_in_any_order_of_rows(given: World, tmp_path: Path) -> None:
    path, scores = tmp_path / "m.parquet", _scores(given)
    write_candidate_scores(path, given.anchors, scores, given.log.item_ids)
    table = pq.read_table(path)
    assert table.schema.equals(CANDIDATE_SCORES)
    expected = np.where(given.anchors.candidates >= 0, scores, -np.inf)
    for order in (np.arange(len(table)), np.random.default_rng(0).permutation(len(table))):
        pq.write_table(table.take(order), path)
        some = given.anchors.select(np.array([1, 3]))
        found = read_candidate_scores(path, some, given.log.item_ids, given.anchors.anchor_id)
        np.testing.assert_array_equal(found, expected[[1, 3]])


def _set(column: str, row: int, value: object) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        values = table[column].to_pylist()
        values[row] = value
        at = table.column_names.index(column)
        return table.set_column(at, table.schema.field(column), pa.array(values, table.schema.field(column).type))

    return change


def _drop(*rows: int) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.take([row for row in range(len(table)) if row not in rows])


def _copy(row: int, to: int) -> Callable[[pa.Table], pa.Table]:
    return lambda table: _set("item_id", to, table["item_id"][row].as_py())(table)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_set("anchor_id", 7, 10**9), "row 7: anchor 1000000000; expected an anchor of data/anchors.parquet"),
        (_set("item_id", 4, "nobody"), "row 4: item 'nobody'; expected an item of data/items.parquet"),
        (_set("item_id", 4, None), "row 4: column 'item_id' is null"),
        (_set("score", 2, float("nan")), "row 2: score NaN"),
        (_set("rank", 3, 0), "row 3: rank 0; expected ranks from 1"),
        (_set("rank", 4, 1), "row 4: rank 1 of anchor .* follows rank 1; expected rank 2"),
        (_drop(4), "row 4: rank 3 of anchor .* follows rank 1; expected rank 2"),
        (_drop(3), "row 3: rank 2 of anchor .* follows rank 0; expected rank 1"),
        (_copy(3, 5), "row 5: item .* is ranked twice for anchor"),
        (_drop(3, 4, 5, 6, 7), "has no rows for 1 of .* anchors"),
        (lambda table: table.slice(0, 0), "has no rows for .* anchors, the first"),
        (lambda table: table.drop_columns("rank"), "has no column 'rank'"),
    ],
)
def test_damaged_predictions_are_refused(
    given: World, tmp_path: Path, damage: Callable[[pa.Table], pa.Table], message: str
) -> None:
    path = tmp_path / "broken.parquet"
    write_predictions(path, given.anchors, _ranking(given), given.log.item_ids)
    pq.write_table(damage(pq.read_table(path)), path)
    with pytest.raises(ArtefactError, match=message) as raised:
        read_predictions(path, given.anchors, given.log.item_ids, given.anchors.anchor_id)
    assert "broken.parquet" in str(raised.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_set("anchor_id", 7, -1), "row 7: anchor -1; expected an anchor of data/anchors.parquet"),
        (_set("item_id", 4, "nobody"), "row 4: item 'nobody'; expected an item of data/items.parquet"),
        (_set("score", 2, float("nan")), "row 2: score NaN"),
        (_copy(0, 1), "row 1: item .* is scored twice for anchor"),
        (_drop(2), "has no rows for 1 of .* candidates, the first candidate 'i.*' of anchor"),
    ],
)
def test_damaged_candidate_scores_are_refused(
    given: World, tmp_path: Path, damage: Callable[[pa.Table], pa.Table], message: str
) -> None:
    path = tmp_path / "broken.parquet"
    write_candidate_scores(path, given.anchors, _scores(given), given.log.item_ids)
    pq.write_table(damage(pq.read_table(path)), path)
    with pytest.raises(ArtefactError, match=message) as raised:
        read_candidate_scores(path, given.anchors, given.log.item_ids, given.anchors.anchor_id)
    assert "broken.parquet" in str(raised.value)


def test_a_score_of_what_was_no_candidate_is_refused(given: World, tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    write_candidate_scores(path, given.anchors, _scores(given), given.log.item_ids)
    other = np.setdiff1d(np.arange(given.log.n_items), given.anchors.candidates[0])[0]
    pq.write_table(_set("item_id", 0, given.log.item_ids[other])(pq.read_table(path)), path)
    with pytest.raises(ArtefactError, match=r"row 0: item .*; expected one of the candidates of anchor"):
        read_candidate_scores(path, given.anchors, given.log.item_ids, given.anchors.anchor_id)


def test_infinite_scores_are_scores(given: World, tmp_path: Path) -> None:
    path, scores = tmp_path / "m.parquet", _scores(given)
    scores[0, 0] = -np.inf
    write_candidate_scores(path, given.anchors, scores, given.log.item_ids)
    found = read_candidate_scores(path, given.anchors, given.log.item_ids, given.anchors.anchor_id)
    assert np.isneginf(found[0, 0])
