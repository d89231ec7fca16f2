"""Shards on disk: the same answers however they are cut, kept when they fit, refused when they do not."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conrec.errors import ArtefactError, ConfigError
from conrec.predicting import shards as shards_module
from conrec.predicting.job import PredictJob
from conrec.predicting.plan import MANIFEST, PREDICT_SETS, Plan, read_plan, shard_name
from conrec.predicting.predictor import Predictor
from conrec.predicting.run import predict_users
from conrec.predicting.users import all_users


def job_of(run_folder, **changes):
    return PredictJob(run_folder, **{"k": 5, "batch_size": 7, **changes})


def read(folder):
    """{(user, timestamp): (items, scores)} of a finished folder, ranks checked."""
    plan = read_plan(folder)
    assert plan.missing() == []
    table = pa.concat_tables(pq.read_table(plan.path(shard)) for shard in range(plan.shards))
    assert table.schema.remove_metadata() == PREDICT_SETS
    found = {}
    for row in table.to_pylist():
        items, scores = found.setdefault((row["user_id"], row["timestamp"]), ([], []))
        items.append(row["item_id"])
        scores.append(row["score"])
        assert row["rank"] == len(items)
    return found


@pytest.fixture(scope="module")
def whole(run_folder, tmp_path_factory):
    """All users in one shard; treat it as read-only."""
    folder = tmp_path_factory.mktemp("whole") / "sets"
    predict_users(job_of(run_folder), folder)
    return folder


def same_answers(folder, other):
    one, two = read(folder), read(other)
    assert one.keys() == two.keys()
    for key, (items, scores) in one.items():
        assert two[key][0] == items
        np.testing.assert_allclose(two[key][1], scores, atol=1e-5)


@pytest.mark.parametrize("count", [2, 7, 60])
def test_shards_change_no_answer(run_folder, whole, tmp_path, count):
    done = predict_users(job_of(run_folder), tmp_path / "sets", shards=count)
    assert (done.before, done.written, done.missing, done.users) == (0, count, 0, 60)
    same_answers(tmp_path / "sets", whole)


def test_single_shards_in_any_order_make_the_same_folder(run_folder, whole, tmp_path):
    folder = tmp_path / "sets"
    for shard in (2, 0, 1):
        done = predict_users(job_of(run_folder), folder, shards=3, shard=shard)
    assert done.lines()[0] == "60 questions in 3 shards: 1 written, 0 finished before"
    same_answers(folder, whole)


def test_users_of_a_file_are_answered_in_its_order(run_folder, tmp_path):
    anchors = pq.read_table(run_folder / "data" / "anchors.parquet").slice(40, 50)
    path = tmp_path / "anchors.parquet"
    pq.write_table(anchors, path)
    predict_users(job_of(run_folder), tmp_path / "sets", path, shards=4)
    rows = anchors.select(["user_id", "timestamp"]).to_pylist()
    asked = list(dict.fromkeys((row["user_id"], row["timestamp"]) for row in rows))
    assert list(read(tmp_path / "sets")) == asked


def test_finished_shards_are_kept_and_damaged_ones_made_again(run_folder, tmp_path, capsys):
    folder = tmp_path / "sets"
    predict_users(job_of(run_folder), folder, shards=4)
    before = {path.name: path.read_bytes() for path in folder.glob("*.parquet")}
    stamps = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    (folder / shard_name(0, 4)).unlink()
    cut = folder / shard_name(1, 4)
    cut.write_bytes(before[cut.name][:-100])
    flipped = folder / shard_name(2, 4)
    middle = len(before[flipped.name]) // 4
    flipped.write_bytes(before[flipped.name][:middle] + b"\xff" * 8 + before[flipped.name][middle + 8 :])
    done = predict_users(job_of(run_folder), folder, shards=4)
    assert (done.before, done.written) == (1, 3)
    assert capsys.readouterr().err.count("is damaged") == 2
    assert {path.name: path.read_bytes() for path in folder.glob("*.parquet")} == before
    assert (folder / shard_name(3, 4)).stat().st_mtime_ns == stamps[shard_name(3, 4)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"k": 6}, "k (5 there, 6 now)"),
        ({"model": "sasrec"}, 'model ("conrec" there, "sasrec" now)'),
        ({"at": 890_000_000}, "questions.times"),
        ({"shards": 2}, "shards (1 there, 2 now)"),
        ({"users": True}, "questions.number (60 there, 1 now)"),
        ({"events": True}, "newer events (nothing there"),
    ],
)
def test_a_folder_of_other_inputs_is_refused(run_folder, whole, tmp_path, changes, said):
    folder = shutil.copytree(whole, tmp_path / "sets")
    changes, users, shards = dict(changes), None, changes.get("shards")
    changes.pop("shards", None)
    if changes.pop("users", False):
        users = tmp_path / "who.csv"
        users.write_text("user_id\n" + pq.read_table(whole / shard_name(0, 1))["user_id"][0].as_py() + "\n")
    if changes.get("events"):
        changes["events"] = run_folder / "data" / "events.parquet"
    with pytest.raises(ArtefactError, match=r"predict\.json: was made from other inputs") as caught:
        predict_users(job_of(run_folder, **changes), folder, users, shards)
    assert said in str(caught.value)
    assert "Give another --out" in str(caught.value)


@pytest.mark.parametrize("what", ["weights", "semantic IDs"])
def test_another_model_or_sid_table_is_refused(run_folder, whole, tmp_path, what):
    run = shutil.copytree(run_folder, tmp_path / "run")
    path = run / "models" / "conrec" / "model" / "config.json"
    if what == "weights":
        path.write_text(path.read_text() + "\n")
    else:
        path = run / "items" / "semantic_ids.parquet"
        table = pq.read_table(path)
        pq.write_table(table.set_column(1, "codes", table["codes"].take([1, *range(1, len(table))])), path)
    with pytest.raises(ArtefactError, match=rf"{what} \(\w{{8}}… there, \w{{8}}… now\)"):
        predict_users(job_of(run), whole)


def test_a_shard_of_another_folder_is_refused(run_folder, whole, tmp_path):
    other = tmp_path / "other"
    predict_users(job_of(run_folder, k=3), other)
    folder = shutil.copytree(whole, tmp_path / "sets")
    shutil.copy(other / shard_name(0, 1), folder / shard_name(0, 1))
    with pytest.raises(ArtefactError, match=r"part-00000-of-00001\.parquet.*k \(3 there, 5 now\)"):
        predict_users(job_of(run_folder), folder)


def test_a_folder_of_something_else_is_left_alone(run_folder, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ArtefactError, match=r"holds 'mine\.txt', which belongs to no"):
        predict_users(job_of(run_folder), tmp_path)
    (tmp_path / "mine.txt").rename(tmp_path / MANIFEST)
    with pytest.raises(ArtefactError, match="cannot be read as JSON"):
        predict_users(job_of(run_folder), tmp_path)
    (tmp_path / MANIFEST).write_text(json.dumps({"format": "other"}))
    with pytest.raises(ArtefactError, match="is not the plan of predict sets"):
        predict_users(job_of(run_folder), tmp_path)


def test_a_plan_of_which_nothing_was_done_gives_way(run_folder, tmp_path):
    """A command that failed before its first shard does not occupy the folder; one that is at work does."""
    for k in (3, 4):
        predictor = Predictor(job_of(run_folder, model="most-disliked", k=k))
        plan = Plan.of(tmp_path, predictor.made_from(), all_users(predictor.log, predictor.at), 2)
        plan.claim()
        assert read_plan(tmp_path) == plan
    (tmp_path / f".{shard_name(0, 2)}.1a2b.tmp").write_text("half")
    with pytest.raises(ArtefactError, match=r"k \(4 there, 5 now\)"):
        predict_users(job_of(run_folder, model="most-disliked"), tmp_path, shards=2)


@pytest.mark.parametrize(
    ("shards", "shard", "said"),
    [(0, None, "0 shards"), (61, None, "from 1 to the 60"), (4, 4, "from 0 to 3"), (4, -1, "from 0 to 3")],
)
def test_shards_that_cannot_be(run_folder, tmp_path, shards, shard, said):
    with pytest.raises(ConfigError) as caught:
        predict_users(job_of(run_folder), tmp_path / "sets", shards=shards, shard=shard)
    assert said in str(caught.value)
    assert not (tmp_path / "sets").exists()


def test_rows_of_shards_tile_the_questions(run_folder):
    predictor = Predictor(job_of(run_folder, model="most-disliked"))
    asked = all_users(predictor.log, predictor.at)
    for count in range(1, len(asked) + 1):
        plan = Plan(run_folder, {}, count, len(asked))
        rows = [plan.rows(shard) for shard in range(count)]
        assert rows[0][0] == 0
        assert rows[-1][1] == len(asked)
        assert all(one[1] == two[0] and one[0] < one[1] for one, two in pairwise(rows))


def test_a_full_disk_leaves_finished_shards(run_folder, whole, tmp_path, monkeypatch):
    folder = tmp_path / "sets"
    real, shards = shards_module.predict_batches, []

    def full(batches, predictor):
        shards.append(batches)
        if len(shards) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(batches, predictor)

    monkeypatch.setattr(shards_module, "predict_batches", full)
    with pytest.raises(OSError, match="No space left"):
        predict_users(job_of(run_folder), folder, shards=4)
    assert sorted(one.name for one in folder.iterdir()) == [shard_name(0, 4), shard_name(1, 4), MANIFEST]
    monkeypatch.undo()
    done = predict_users(job_of(run_folder), folder, shards=4)
    assert (done.before, done.written) == (2, 2)
    same_answers(folder, whole)


def test_what_a_killed_process_left_is_cleared_and_what_another_writes_is_not(run_folder, tmp_path):
    """However long a slow model has written nothing: its writer holds a lock, and other shards are not ours."""
    folder = tmp_path / "sets"
    folder.mkdir()
    left, new, held, other = (
        folder / f".{shard_name(shard, 2)}.{name}.tmp" for shard, name in ((0, "a"), (0, "b"), (0, "c"), (1, "d"))
    )
    for path in (left, new, held, other):
        path.write_text("half")
    for path in (left, held, other):
        os.utime(path, (time.time() - 3600,) * 2)
    with held.open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        predict_users(job_of(run_folder, model="most-disliked"), folder, shards=2, shard=0)
    assert [path.exists() for path in (left, new, held, other)] == [False, True, True, True]


def test_a_shard_that_is_being_written_is_locked(run_folder, tmp_path, monkeypatch):
    """A second process would take its temporary file for one of a killed one otherwise."""
    real, seen = shards_module.predict_batches, []

    def slow(batches, predictor):
        (path,) = tmp_path.glob("sets/.part-*.tmp")
        os.utime(path, (time.time() - 3600,) * 2)
        seen.append(shards_module._abandoned(path))
        return real(batches, predictor)

    monkeypatch.setattr(shards_module, "predict_batches", slow)
    predict_users(job_of(run_folder, model="most-disliked"), tmp_path / "sets")
    assert seen == [False]


@pytest.mark.parametrize("when", ["loading", "writing"])
def test_a_folder_that_another_command_took_is_given_up(run_folder, tmp_path, monkeypatch, when):
    """It was claimed, and nothing done in it yet, when the other one came."""
    folder, real = tmp_path / "sets", shards_module.predict_batches

    def replaced(*_):
        content = json.loads((folder / MANIFEST).read_text())
        content["made_from"]["k"] = 3
        (folder / MANIFEST).write_text(json.dumps(content))

    if when == "loading":
        monkeypatch.setattr(shards_module, "_clear", replaced)
    else:
        monkeypatch.setattr(shards_module, "predict_batches", lambda *given: replaced() or real(*given))
    with pytest.raises(ArtefactError, match=r"predict\.json: was made from other inputs: k \(3 there, 5 now\)"):
        predict_users(job_of(run_folder, model="most-disliked"), folder)
    assert [one.name for one in folder.iterdir()] == [MANIFEST]


def test_a_file_in_the_place_of_the_folder_is_named(run_folder, tmp_path):
    (tmp_path / "sets").write_text("x")
    with pytest.raises(ConfigError, match="this is a file; expected a folder"):
        predict_users(job_of(run_folder, model="most-disliked"), tmp_path / "sets")


def test_answers_of_fewer_items_are_told(run_folder, tmp_path):
    """Five live items, of which most users have seen some; told again when the shards are there already."""
    predictor = Predictor(job_of(run_folder))
    live = predictor.log.item_ids[:5]
    (tmp_path / "live.csv").write_text("\n".join(["item_id", *live]) + "\n")
    for written in (2, 0):
        done = predict_users(job_of(run_folder, items=tmp_path / "live.csv"), tmp_path / "sets", shards=2)
        assert done.written == written
        lengths = [len(items) for items, _ in read(tmp_path / "sets").values()]
        short = 60 - sum(length == 5 for length in lengths)
        assert 0 < short < 60
        assert done.lines()[1] == f"with fewer than k = 5 eligible items: {short}"


KILLED = """
import sys
from pathlib import Path
from conrec.predicting.job import PredictJob
from conrec.predicting.run import predict_users
predict_users(PredictJob(Path(sys.argv[1]), k=5, batch_size=7), Path(sys.argv[2]), shards=20)
"""


def test_a_killed_prediction_goes_on_to_the_same_bytes(run_folder, tmp_path):
    """Killed without warning as soon as the third shard is there."""
    killed, plain = tmp_path / "killed", tmp_path / "plain"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(run_folder), str(killed)])
    while len(list(killed.glob("part-*.parquet"))) < 3:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = len(list(killed.glob("part-*.parquet")))
    assert before < 20
    done = predict_users(job_of(run_folder), killed, shards=20)
    assert (done.before, done.written) == (before, 20 - before)
    predict_users(job_of(run_folder), plain, shards=20)
    names = sorted(path.name for path in plain.iterdir())
    assert sorted(path.name for path in killed.iterdir() if not path.name.endswith(".tmp")) == names
    assert all((killed / name).read_bytes() == (plain / name).read_bytes() for name in names)
