"""Swing against the paper's triple sum, written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.config import SwingConfig
from conrec.errors import ArtefactError
from conrec.logs.log import Log
from conrec.logs.prepare import Prepared
from conrec.logs.swing import SwingTable, gts, read_swing, swing_neighbours, write_swing


def log_of(events: list[tuple[int, int, int]]) -> Log:
    """A log of (user, item, feedback) over 8 users and 7 items."""
    columns = [np.asarray(column) for column in zip(*events, strict=True)]
    names = tuple(f"u{n}" for n in range(8)), tuple(f"i{n}" for n in range(7))
    return Log.from_columns(*names, columns[0], columns[1], np.arange(len(events)), columns[2])


def triple_sum(log: Log, config: SwingConfig) -> dict[tuple[int, int], float]:
    """Swi(i, j) as the paper writes it."""
    negative = [(int(u), int(i)) for u, i, f in zip(log.user, log.item, log.feedback, strict=True) if f == -1]
    disliked = {u: {i for v, i in negative if v == u} for u in range(log.n_users)}
    users = {i: {u for u, j in negative if j == i} for i in range(log.n_items)}
    count = {i: sum(j == i for _, j in negative) for i in range(log.n_items)}
    found = {}
    for i in range(log.n_items):
        for j in range(log.n_items):
            common = users[i] & users[j]
            if i == j or not len(common) > config.more_than:
                continue
            total = 0.0
            for u in common:
                for v in common - {u}:
                    weight = (len(disliked[u]) + config.alpha1) ** config.theta
                    weight *= (len(disliked[v]) + config.alpha1) ** config.theta
                    total += 1 / weight / (len(disliked[u] & disliked[v]) + config.alpha2) / count[j] ** 0.5
            if total > 0:
                found[i, j] = total
    return found


def pairs(table: SwingTable) -> dict[tuple[int, int], float]:
    rows = np.repeat(np.arange(len(table.neighbours)), table.neighbours.lengths)
    return {(int(i), int(j)): float(s) for i, j, s in zip(rows, table.neighbours.values, table.similarity, strict=True)}


events = st.lists(
    st.tuples(st.integers(0, 7), st.integers(0, 6), st.sampled_from([-1, -1, -1, 0, 1])), min_size=1, max_size=60
)


@settings(max_examples=60, deadline=None)
@given(events, st.floats(0.1, 6), st.floats(0.1, 3), st.floats(0, 1.5), st.integers(0, 3))
def test_the_vectorised_sum_is_the_triple_sum(
    rows: list[tuple[int, int, int]], alpha1: float, alpha2: float, theta: float, more_than: int
) -> None:
    config = SwingConfig(alpha1=alpha1, alpha2=alpha2, theta=theta, more_than=more_than, neighbours=100)
    log = log_of(rows)
    table = swing_neighbours(log, config, 0)
    assert len(table.neighbours) == log.n_items
    assert pairs(table) == pytest.approx(triple_sum(log, config), rel=1e-5)
    for item, near in enumerate(table.neighbours):
        begin = table.neighbours.offsets[item]
        order = [(-table.similarity[begin + n], int(one)) for n, one in enumerate(near)]
        assert order == sorted(order)


def test_only_the_nearest_stay() -> None:
    log = log_of([(u, i, -1) for u in range(8) for i in range(7) if (u + i) % 3])
    everything = swing_neighbours(log, SwingConfig(more_than=1, neighbours=100), 0)
    few = swing_neighbours(log, SwingConfig(more_than=1, neighbours=2), 0)
    for item in range(log.n_items):
        assert few.neighbours[item].tolist() == everything.neighbours[item][:2].tolist()


def test_the_sample_of_users_is_derived_per_item() -> None:
    rows = [(u, i, -1) for u in range(8) for i in range(5)]
    config = SwingConfig(more_than=2, users_per_item=3, neighbours=100)
    first, again = (swing_neighbours(log_of(rows), config, 1) for _ in range(2))
    assert pairs(first) == pairs(again)
    # Six ordered pairs of users, each with 5 items in common.
    weight = (5 + config.alpha1) ** (-2 * config.theta) / (5 + config.alpha2) / 8**0.5
    assert pairs(first)[0, 1] == pytest.approx(6 * weight, rel=1e-5)
    assert len(pairs(first)) == 20


def test_no_negatives_no_neighbours() -> None:
    table = swing_neighbours(log_of([(0, 0, 1)]), SwingConfig(), 0)
    assert (len(table.neighbours), len(table.similarity)) == (7, 0)


def test_gts_is_future_negatives_then_neighbours(prepared_ml100k: Prepared) -> None:
    anchors, swing = prepared_ml100k.anchors, prepared_ml100k.swing
    sets = gts(anchors, swing)
    assert len(sets) == len(anchors)
    grown = 0
    for row in range(0, len(anchors), 200):
        negatives, liked = anchors.future_negatives[row].tolist(), set(anchors.future_positives[row].tolist())
        expected = list(negatives)
        for item in negatives:
            for near in swing.neighbours[item].tolist():
                if near not in expected and near not in liked:
                    expected.append(near)
        assert sets[row].tolist() == expected
        grown += len(expected) > len(negatives)
    assert grown > 20


def test_write_and_read(prepared_ml100k: Prepared, tmp_path: Path) -> None:
    path = tmp_path / "swing.parquet"
    write_swing(path, prepared_ml100k.swing, prepared_ml100k.log.item_ids)
    again = read_swing(path, prepared_ml100k.log)
    assert np.array_equal(again.neighbours.offsets, prepared_ml100k.swing.neighbours.offsets)
    assert np.array_equal(again.neighbours.values, prepared_ml100k.swing.neighbours.values)
    assert np.array_equal(again.similarity, prepared_ml100k.swing.similarity)
    with pytest.raises(ArtefactError, match="items that the log does not have"):
        read_swing(path, log_of([(0, 0, 1)]))
