"""The study against RecBole: what is committed holds, comparisons are those of the definition, nothing is run twice."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from conrec.logs.schema import EVENTS, ITEMS

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.common import recbole_runs
from benchmarks.common.leave_one_out import figures_of, leave_one_out
from benchmarks.studies import against_recbole as study


@pytest.fixture(scope="module")
def committed():
    return json.loads(study.RESULTS.read_text()), json.loads(study.ORACLE.read_text())


MEASURED = sorted(json.loads(study.RESULTS.read_text())["rows"]) if study.RESULTS.is_file() else []
"""Rows whose comparison is committed."""


@pytest.mark.parametrize("row", MEASURED)
def test_what_is_committed_is_at_least_level_with_recbole(committed, row):
    ours, peer = (side["rows"][row] for side in committed)
    assert peer["model"] == study.PEERS[row][0]
    assert len(ours["seeds"]) >= 3
    for name, one in study.compare(ours, peer).items():
        # At least level: no worse than seeds alone explain, and by no figure surely worse over users.
        assert one["difference"] >= -max(one["seed_noise"], study.SEED_NOISE), name
        assert one["high"] >= 0, name


def test_frozen_figures_are_those_of_the_frozen_ranks():
    frozen = json.loads(study.ORACLE.read_text())["rows"]
    assert set(frozen) <= set(study.PEERS)
    for row in frozen.values():
        for one in row["seeds"].values():
            ranks, without = ([int(rank) for rank in one[key].split()] for key in ("ranks", "ranks_without_history"))
            assert len(ranks) == len(without) == 943
            assert min(without) >= 1
            assert max(ranks) <= 1682
            assert all(b <= a for a, b in zip(ranks, without, strict=True))
            assert {**figures_of(ranks), "without_history": figures_of(without)} == {
                key: pytest.approx(value, abs=1e-4) for key, value in one["figures"].items()
            }
    for one in (one for row in frozen.values() for one in row["seeds"].values()):
        # RecBole's own evaluation says the same as the ranks that were read from its scores.
        own = one["own_test_figures"]
        assert {name: own[name] for name in study.FIGURES} == {
            name: pytest.approx(one["figures"][name], abs=2e-3) for name in study.FIGURES
        }


def side_of(*seeds):
    return {"seeds": {str(number): {"ranks": " ".join(map(str, ranks))} for number, ranks in enumerate(seeds)}}


def test_a_comparison_is_of_means_over_seeds_paired_over_users():
    random = np.random.default_rng(0)
    better, worse = random.integers(1, 30, size=(2, 200)), random.integers(1, 60, size=(3, 200))
    found = study.compare(side_of(*better), side_of(*worse))
    assert list(found) == ["hit@10", "hit@20", "ndcg@10"]
    hits = [[float((ranks <= 20).mean()) for ranks in side] for side in (better, worse)]
    one = found["hit@20"]
    assert one["ours"] == pytest.approx(np.mean(hits[0]))
    assert one["recbole"] == pytest.approx(np.mean(hits[1]))
    assert one["difference"] == pytest.approx(np.mean(hits[0]) - np.mean(hits[1]))
    assert one["low"] < one["difference"] < one["high"]
    variance = sum(np.var(of, ddof=1) / len(of) for of in hits)
    assert one["seed_noise"] == pytest.approx(2 * np.sqrt(variance))
    same = study.compare(side_of(better[0]), side_of(better[0]))["ndcg@10"]
    assert (same["difference"], same["low"], same["high"], same["seed_noise"]) == (0, 0, 0, 0)
    text = study.table({"rows": {"sasrec": side_of(*better)}}, {"rows": {"sasrec": side_of(*worse), "fdsa": {}}})
    assert text.splitlines()[2].startswith(f"| sasrec | 2, 3 | {found['hit@10']['ours']:.3f} | ")
    assert "fdsa" not in text


def cycle(users=60, items=30, length=14):
    """Everybody goes round all items in one order from a start of his own."""
    rows = [
        (f"u{user:02d}", f"i{(7 * user + step) % items:02d}", step) for user in range(users) for step in range(length)
    ]
    user, item, time = zip(*rows, strict=True)
    names = [f"i{one:02d}" for one in range(items)]
    events = {"user_id": user, "item_id": item, "timestamp": time, "feedback": [1] * len(rows)}
    kinds = [[f"kind {one % 3}"] for one in range(items)]
    given = {"item_id": names, "title": names, "text": names, "category": kinds, "image": [None] * items}
    return leave_one_out(pa.table(events).cast(EVENTS), pa.table(given).cast(ITEMS))


def test_a_row_learns_what_can_be_learned_and_is_not_trained_twice(tmp_path, monkeypatch):
    prepared = cycle()
    monkeypatch.setitem(study.OURS, "sasrec", {"epochs": 25, "dropout": 0.1, "learning_rate": 0.01, "max_length": 20})
    file = tmp_path / "found.json"
    study.run_ours(["sasrec"], [0], file, prepared)
    first = json.loads(file.read_text())
    one = first["rows"]["sasrec"]["seeds"]["0"]
    assert one["figures"]["hit@10"] > 0.9
    assert len(one["ranks"].split()) == 60
    assert one["best_epoch"] <= one["epochs"] <= 25

    monkeypatch.setattr(study, "baseline_class", lambda row: pytest.fail("trained again"))
    study.run_ours(["sasrec"], [0], file, prepared)
    assert json.loads(file.read_text()) == first


def test_the_peer_is_asked_for_what_the_file_lacks(tmp_path, monkeypatch):
    prepared, asked = cycle(users=5), []

    def train(python, spec):
        asked.append((spec["model"], spec["seed"], spec["settings"]["MAX_ITEM_LIST_LENGTH"]))
        assert (Path(spec["data"]) / f"{study.NAME}.inter").is_file()
        return {
            "epochs": 1,
            "ranks": {user: [place + 2, place + 1] for place, user in enumerate(prepared.log.user_ids)},
        }

    monkeypatch.setattr(study, "read_log", lambda: prepared)
    monkeypatch.setattr(study, "train_recbole", train)
    monkeypatch.setenv(recbole_runs.RECBOLE, sys.executable)
    file = tmp_path / "oracle.json"
    study.run_peer(["sasrec"], [0], file)
    study.run_peer(["sasrec", "caser"], [0, 1], file)
    assert asked == [("SASRec", 0, 50), ("Caser", 0, 10), ("SASRec", 1, 50), ("Caser", 1, 10)]
    kept = json.loads(file.read_text())["rows"]["caser"]["seeds"]["1"]
    assert (kept["ranks"], kept["ranks_without_history"]) == ("2 3 4 5 6", "1 2 3 4 5")

    monkeypatch.delenv(recbole_runs.RECBOLE)
    with pytest.raises(SystemExit, match=recbole_runs.RECBOLE):
        study.run_peer(["sasrec"], [0], file)
    monkeypatch.setenv(recbole_runs.RECBOLE, str(tmp_path / "none"))
    with pytest.raises(SystemExit, match="no such file"):
        study.run_peer(["sasrec"], [0], file)
