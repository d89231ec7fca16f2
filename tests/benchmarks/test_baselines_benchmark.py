"""The benchmark of SASRec at a size at which nothing can be timed: its peers learn and answer what they are said to."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from tests.benchmarks.test_scripts import claims, script

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from common import recbole_runs
from common.harness import Report
from common.plain_sasrec import PlainSasrec


@pytest.fixture(scope="module")
def baselines():
    torch.set_num_threads(1)
    return script("baselines")


@pytest.fixture(scope="module")
def small(baselines):
    return baselines.read_log(5)


def test_a_sample_keeps_whole_users_and_the_catalogue(small):
    assert (small.log.n_users, small.log.n_items) == (5, 1682)
    assert len(small.anchors) == 10


def test_the_plain_peer_has_a_row_for_every_prefix(small):
    training = small.log.before(small.periods.validation)
    plain = PlainSasrec(training, small.log, 8, 1, 2, 10, 0.5, 64)
    expected = []
    for user in range(5):
        items = (training.item[training.events_of(user)] + 1).tolist()
        expected += [(items[max(0, end - 10) : end], items[end]) for end in range(1, len(items))]
    rows = [row[: end + 1].tolist() for row, end in zip(plain.rows, plain.ends.tolist(), strict=True)]
    assert list(zip(rows, plain.targets.tolist(), strict=True)) == expected
    asked, ends = plain.asked
    for user in range(5):
        before = (small.log.item[small.log.events_of(user)][:-1] + 1).tolist()[-10:]
        assert asked[user, : int(ends[user]) + 1].tolist() == before
    old = plain.network.item.weight.detach().clone()
    plain.epoch()
    assert not torch.equal(old, plain.network.item.weight)
    best = plain.score()
    assert best.shape == (5, 20)
    assert int(best.min()) >= 0
    # Padding says nothing: other items behind the ends give the same answer.
    kept = torch.arange(10) <= ends[:, None]
    plain.asked = (asked.where(kept, torch.tensor(7)), ends)
    assert torch.equal(plain.score(), best)


def test_both_claims_against_plain_torch(baselines, small, monkeypatch):
    monkeypatch.setattr(baselines, "read_log", lambda users: small)
    report = Report("baselines")
    baselines.against_plain(report, baselines.Size(5, 1))
    assert set(claims(report)) == {"training_speedup_over_plain", "scoring_speedup_over_plain"}
    ours = baselines.Ours(small)
    assert ours.score().shape == (5, 20)
    assert [len(series) for series in ours.model.curve.values()] == [1, 0]  # one epoch, no validation
    assert ours.model.network.max_length == baselines.LENGTH - 1


SERVER = """
import json, sys
command, spec = sys.argv[1], json.loads(sys.argv[2])
assert (command, spec["model"], spec["settings"]["train_batch_size"]) == ("serve", "SASRec", 2048)
lines = open(spec["data"] + "/log.inter").read().splitlines()
print(json.dumps({"ready": len(lines) - 1}), flush=True)
for line in sys.stdin:
    if line.strip() == "fail":
        sys.exit(3)
    print(json.dumps({"seconds": 0.0}), flush=True)
"""


def test_recbole_is_served_by_its_own_interpreter_or_left_out(baselines, small, monkeypatch, tmp_path):
    monkeypatch.setattr(baselines, "read_log", lambda users: small)
    monkeypatch.delenv(recbole_runs.RECBOLE, raising=False)
    report = Report("baselines")
    baselines.against_recbole(report, baselines.Size(5, 1))
    assert not report.claims
    assert recbole_runs.RECBOLE in report.notes[0]

    (tmp_path / "server.py").write_text(SERVER)
    monkeypatch.setattr(recbole_runs, "SCRIPT", tmp_path / "server.py")
    monkeypatch.setenv(recbole_runs.RECBOLE, sys.executable)
    baselines.against_recbole(report, baselines.Size(5, 1))
    assert set(claims(report)) == {"training_speedup_over_recbole", "scoring_speedup_over_recbole"}


def test_a_peer_that_dies_is_not_waited_for(tmp_path, monkeypatch):
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "log.inter").write_text("header\none row\n")
    monkeypatch.setattr(recbole_runs, "SCRIPT", tmp_path / "server.py")
    spec = {"model": "SASRec", "data": str(tmp_path / "log"), "threads": 1, "settings": {"train_batch_size": 2048}}
    with recbole_runs.ServedRecbole(sys.executable, spec) as peer:
        assert peer.rows == 1
        peer.epoch()
        with pytest.raises(RuntimeError, match="status 3"):
            peer._ask("fail")
