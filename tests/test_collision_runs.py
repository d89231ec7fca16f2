"""The whole chain, and prediction in bulk after it, where a fourth level or shared semantic IDs tell items apart."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from conrec.artefacts import read_json, read_parquet, write_parquet
from conrec.config import load_config
from conrec.filtering.bulk.apply import apply_filter
from conrec.filtering.stores.lmdb import PredictSetStore
from conrec.items.space import ItemSpace, read_items
from conrec.logs.log import Log
from conrec.logs.prepare import read_prepared
from conrec.logs.schema import PREDICTIONS
from conrec.logs.sources import Loaded
from conrec.predicting.job import PredictJob
from conrec.predicting.run import predict_users
from conrec.predicting.store import store_of_shards
from conrec.run import execute
from tests.small_run import write_small_log

QUICK = {
    "rqvae": {"codebook_size": 4},
    "alignment": {"samples": 64, "held_out": 20},
    "sft": {"evaluations": 1},
    "grpo": {"stages": [{"context": "negative", "samples": 24}, {"context": "both", "samples": 16}]},
    "evaluation": {"bootstraps": 50},
}
"""64 raw triples for more than a thousand films."""


@pytest.fixture(scope="module", params=["extra_level", "shared"])
def run(request: pytest.FixtureRequest, ml100k: Loaded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    overrides = {**QUICK, "semantic_ids": {"collisions": request.param}}
    execute(load_config(file=write_small_log(ml100k, folder, users=60), overrides=overrides), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def space(run: Path) -> ItemSpace:
    return read_items(run / "items")


@pytest.fixture(scope="module")
def log(run: Path) -> Log:
    return read_prepared(run).log


def test_many_items_collide_and_are_told_apart_as_asked(run: Path, space: ItemSpace) -> None:
    ids = space.semantic_ids
    assert len(np.unique(ids.codes, axis=0)) <= 64 < len(ids)
    assert not ids.moved.any()
    distinct = len(np.unique(ids.resolved, axis=0))
    if ids.shared:
        assert distinct <= 64
    else:
        assert distinct == len(ids)
        assert ids.extra_size == np.unique(ids.codes, axis=0, return_counts=True)[1].max() > 1
    after = read_json(run / "items" / "diagnostics.json")["collisions"]["after"]
    assert after["distinct"] == distinct


def test_lists_hold_distinct_eligible_items(run: Path, space: ItemSpace, log: Log) -> None:
    anchors = read_prepared(run).anchors
    index = {name: row for row, name in enumerate(log.item_ids)}
    names = {tuple(row): number for number, row in enumerate(np.unique(space.semantic_ids.resolved, axis=0).tolist())}
    name_of = np.asarray([names[tuple(row)] for row in space.semantic_ids.resolved.tolist()])
    for row in ("conrec-sft", "conrec", "lc-rec-both"):
        table = read_parquet(run / "predictions" / f"{row}.parquet", PREDICTIONS)
        anchor, items = table["anchor_id"].to_numpy(), np.asarray([index[one] for one in table["item_id"].to_pylist()])
        scores = table["score"].to_numpy()
        for one in np.unique(anchor):
            own = items[anchor == one]
            history = log.item[log.history(int(anchors.user[one]), int(anchors.timestamp[one]))]
            assert len(own) == len(set(own.tolist())) == min(50, log.n_items - len(np.unique(history)))
            assert not np.isin(own, history).any()
            if space.semantic_ids.shared:
                for name in np.unique(name_of[own]):
                    assert len(np.unique(scores[anchor == one][name_of[own] == name])) == 1


def test_everything_is_measured(run: Path) -> None:
    metrics = read_json(run / "results" / "metrics.json")
    for row in ("conrec-sft", "conrec", "lc-rec-negatives"):
        figures = metrics[row]
        assert {"hr@20", "fhr@20", "candidate_accuracy"} <= set(figures)
        assert all(0 <= figures[name]["value"] <= 1 for name in ("hr@20", "fhr@20", "candidate_accuracy"))
    assert (run / "report.html").stat().st_size > 10_000


def test_predict_sets_of_all_users_reach_the_filter(run: Path, space: ItemSpace, log: Log, tmp_path: Path) -> None:
    predict_users(PredictJob(run, k=20), tmp_path / "sets", shards=2)
    written = store_of_shards(run, tmp_path / "sets", load_config(file=run / "config.toml").prediction)
    assert (written.new, written.renewed) == (0, log.n_users)
    resolved = {tuple(row) for row in space.semantic_ids.resolved.tolist()}
    with PredictSetStore.open(run / "filter" / "conrec") as store:
        assert store.meta.levels == space.semantic_ids.levels
        stored = store.get_many(list(log.user_ids))
    assert stored.found.all()
    codes = stored.codes
    assert {tuple(one) for one in codes.reshape(-1, codes.shape[2]).tolist() if one[0] >= 0} <= resolved
    pairs = {"user_id": [log.user_ids[0]] * log.n_items, "item_id": list(log.item_ids)}
    write_parquet(tmp_path / "asked.parquet", pa.table(pairs))
    summary = apply_filter(run, "conrec", tmp_path / "asked.parquet", tmp_path / "answer.csv")
    assert (summary.rows, summary.unknown_users, summary.unknown_items) == (log.n_items, 0, 0)
    with (tmp_path / "answer.csv").open() as handle:
        nearest = {row["nearest_sid"] for row in csv.DictReader(handle)}
    assert nearest <= {space.semantic_ids.text(item) for item in range(log.n_items)}
    assert all(len(one.split()) == space.semantic_ids.levels for one in nearest)
