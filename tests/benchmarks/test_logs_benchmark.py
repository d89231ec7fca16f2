"""The data stage against the same steps plainly written, and Swing against its peers, on a simulated log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from benchmarks.common.plain_logs import plain_prepare
from benchmarks.common.swing_peers import triple_sum

from conrec.config import SwingConfig, load_config
from conrec.logs.prepare import prepare, read_prepared
from conrec.logs.simulation import simulate
from conrec.logs.swing import SwingTable, swing_neighbours
from conrec.settings.simulation import SimulationConfig


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense log, so that Swing finds pairs."""
    folder = tmp_path_factory.mktemp("logs") / "simulated"
    config = SimulationConfig(users=300, items=300, events=40_000, days=60, pilot_events=10_000, truth_items=0)
    simulate(config, folder)
    return folder


def pairs_of(swing: SwingTable) -> dict[tuple[int, int], float]:
    item = np.repeat(np.arange(len(swing.neighbours)), swing.neighbours.lengths).tolist()
    near = swing.neighbours.values.tolist()
    return {(i, j): s for i, j, s in zip(item, near, swing.similarity.tolist(), strict=True)}


def test_plain_steps_find_the_same(simulated: Path, tmp_path: Path) -> None:
    config = load_config(file=simulated / "config.toml", overrides={"swing": {"more_than": 1}})
    prepare(config, tmp_path / "ours")
    plain = plain_prepare(simulated, tmp_path / "plain", more_than=1)
    ours = read_prepared(tmp_path / "ours")
    theirs = pl.read_parquet(tmp_path / "plain/anchors.parquet").sort("t", "user", "start")
    anchors = ours.anchors
    assert np.bincount(anchors.split).tolist() == plain["anchors"]
    assert anchors.timestamp.tolist() == theirs["t"].to_list()
    assert anchors.user.tolist() == theirs["user"].to_list()
    assert [row.tolist() for row in anchors.future_negatives] == theirs["negatives"].to_list()
    assert [row.tolist() for row in anchors.future_positives] == theirs["positives"].to_list()
    drawn = theirs.filter(pl.col("split") > 0)["candidates"].list.len().to_list()
    assert (anchors.candidates[anchors.split > 0] >= 0).sum(axis=1).tolist() == drawn
    pairs = pairs_of(ours.swing)
    assert len(pairs) > 20
    assert pairs == pytest.approx({(i, j): s for i, j, s in plain["swing"]}, rel=1e-5)
    assert pq.read_table(tmp_path / "plain/events.parquet").num_rows == len(ours.log)


def test_the_triple_sum_is_swing(simulated: Path, tmp_path: Path) -> None:
    prepare(load_config(file=simulated / "config.toml"), tmp_path)
    log = read_prepared(tmp_path).log
    config = SwingConfig(users_per_item=10_000, more_than=1)
    ours = swing_neighbours(log, config, 0)
    negative = log.feedback == -1
    plain = triple_sum(log.user[negative], log.item[negative], config)
    pairs = pairs_of(ours)
    assert len(pairs) > 50
    assert pairs == pytest.approx({(i, j): s for i, j, s in plain}, rel=1e-5)
