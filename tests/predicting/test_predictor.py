"""Answers in bulk: what they hold, and that nothing but the question decides about them."""

from __future__ import annotations

import shutil
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from conrec.baselines.registry import trained_row
from conrec.errors import ArtefactError, ConfigError, DataError, MissingExtraError, NotApplicableError
from conrec.evaluation.predictions import write_predictions
from conrec.logs.prepare import read_prepared
from conrec.predicting.job import PredictJob
from conrec.predicting.plan import PREDICT_SETS
from conrec.predicting.predictor import Predictor, predict_batches
from conrec.recommender import Queries, Ranking
from conrec.workspace import Workspace


@pytest.fixture(scope="module")
def predictor(run_folder):
    return Predictor(PredictJob(run_folder, k=20))


@pytest.fixture(scope="module")
def log(run_folder):
    return read_prepared(run_folder).log


def questions(users, times=None):
    columns = {"user_id": pa.array(users, pa.string())}
    if times is not None:
        columns["timestamp"] = pa.array(times, pa.int64())
    return pa.RecordBatch.from_pydict(columns)


def by_question(batches):
    """{(user, timestamp): (items, scores)} from batches."""
    rows = pa.Table.from_batches(batches, PREDICT_SETS).to_pylist()
    result = {}
    for key, group in groupby(rows, lambda row: (row["user_id"], row["timestamp"])):
        found = list(group)
        assert [row["rank"] for row in found] == list(range(1, len(found) + 1))
        assert key not in result
        result[key] = [row["item_id"] for row in found], np.asarray([row["score"] for row in found])
    return result


@pytest.mark.parametrize("model", ["conrec", "sasrec", "most-disliked", "live-popularity"])
def test_answers_are_those_of_the_recommender(run_folder, log, model):
    """Also of those rows that are no language models."""
    predictor = Predictor(PredictJob(run_folder, model, k=7))
    end = int(log.timestamp[-1]) + 1
    users = np.arange(0, log.n_users, 5, dtype=np.int32)
    answers = by_question(predict_batches([questions([log.user_ids[one] for one in users])], predictor))
    space = Workspace(run_folder, predictor.config)
    ranking = trained_row(space, model).predict(log, Queries(users, np.full(len(users), end)), 7)
    assert len(answers) == len(users)
    for row, user in enumerate(users):
        items, scores = answers[log.user_ids[user], end]
        assert items == [log.item_ids[item] for item in ranking.item[row]]
        np.testing.assert_allclose(scores, ranking.score[row], atol=1e-5)


def test_neither_batches_nor_order_change_an_answer(predictor, log):
    rng = np.random.default_rng(1)
    users = rng.permutation(log.n_users)[:24]
    names = [log.user_ids[one] for one in users]
    times = [int(log.timestamp[log.events_of(int(one))[-1]]) + int(rng.integers(-3600, 3600)) for one in users]
    whole = by_question(predict_batches([questions(names, times)], predictor))
    order = rng.permutation(24)
    pieces = [questions([names[one] for one in part], [times[one] for one in part]) for part in np.split(order, [1, 9])]
    apart = by_question(predict_batches(pieces, predictor))
    smaller = Predictor(PredictJob(predictor.job.run_folder, k=20, batch_size=3))
    small = by_question(predict_batches([questions(names, times)], smaller))
    for other in (apart, small):
        assert other.keys() == whole.keys()
        for key, (items, scores) in whole.items():
            assert other[key][0] == items
            np.testing.assert_allclose(other[key][1], scores, atol=1e-5)


def test_codes_are_those_of_the_items_and_history_is_left_out(predictor, run_folder, log):
    answer = predictor.ask(questions(log.user_ids[:4]))
    ids = Workspace(run_folder, predictor.config).items
    for row in answer.to_pylist():
        item = ids.item_ids.index(row["item_id"])
        assert row["codes"] == ids.semantic_ids.resolved[item].tolist()
        assert item not in log.item[log.history(log.user_ids.index(row["user_id"]), row["timestamp"])]


def test_users_without_a_history_have_no_rows(predictor, log):
    first = int(log.timestamp[0])
    known = log.user_ids[0]
    answer = predictor.ask(questions(["nobody", known, known], [first + 10**9, first, first + 10**9]))
    assert set(answer["user_id"].to_pylist()) == {known}
    assert set(answer["timestamp"].to_pylist()) == {first + 10**9}
    assert predictor.ask(questions(["nobody"])).num_rows == 0


def test_the_time_of_the_job_holds_for_all(run_folder, log):
    at = int(log.timestamp[len(log) // 2])
    predictor = Predictor(PredictJob(run_folder, "most-disliked", k=2, at=at))
    user = log.user_ids[int(log.user[0])]
    assert set(predictor.ask(questions([user], [at + 10**8]))["timestamp"].to_pylist()) == {at}


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"user": ["a"]}, "the columns are user; expected user_id"),
        ({"user_id": [1]}, "type int64; expected text"),
        ({"user_id": ["a", None]}, "1 nulls"),
        ({"user_id": ["a"], "timestamp": ["1998"]}, "type string; expected whole numbers"),
        ({"user_id": ["a"], "timestamp": [893286639000]}, "this looks like milliseconds (1998-04-22)"),
    ],
)
def test_questions_that_are_none(predictor, columns, said):
    with pytest.raises(DataError, match="questions") as caught:
        predictor.ask(pa.RecordBatch.from_pydict(columns))
    assert said in str(caught.value)


def test_only_live_items_are_predicted_and_priors_count(run_folder, log, tmp_path):
    """Half of the catalogue, one of its items far in front; odd rows of the file are counted."""
    live = [name for place, name in enumerate(log.item_ids) if place % 2]
    rows = [f"{name},{1000 if name == live[3] else 0}" for name in live]
    path = tmp_path / "live.csv"
    path.write_text("\n".join(["item_id,prior", *rows, "nowhere,0", f"{live[0]},1", f"{live[1]},much", ",0"]) + "\n")
    predictor = Predictor(PredictJob(run_folder, k=30, items=path))
    answers = by_question(predict_batches([questions(log.user_ids[:9])], predictor))
    allowed, shown = set(live), 0
    for (user, _), (items, _) in answers.items():
        assert set(items) <= allowed
        seen = {log.item_ids[item] for item in log.item[log.history(log.user_ids.index(user), 1 << 40)]}
        assert not set(items) & seen
        assert (items[0] == live[3]) == (live[3] not in seen)
        shown += items[0] == live[3]
    assert shown
    assert sorted(predictor.pool.counts.refused) == ["empty item ID", "item that the run does not know", "named before",
                                                     "prior that is no number"]  # fmt: skip
    assert predictor.made_from()["live items"]
    unweighted = tmp_path / "plain.csv"
    unweighted.write_text("\n".join(["item_id", *live]) + "\n")
    plain = Predictor(PredictJob(run_folder, k=30, items=unweighted))
    assert plain.pool.prior is None
    items, scores = next(iter(by_question(predict_batches([questions(log.user_ids[:1])], plain)).values()))
    assert set(items) <= allowed
    assert (scores <= 0).all()
    unweighted.write_text("item_id\nnowhere\n")
    with pytest.raises(
        DataError, match=r"no item of the file can be predicted.* item that the run does not know"
    ) as caught:
        Predictor(PredictJob(run_folder, items=unweighted)).pool  # noqa: B018
    assert "data." not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "conrek"}, "Did you mean 'conrec'"),
        ({"k": 0}, "k = 0"),
        ({"at": 893286639000}, "this looks like milliseconds (1998-04-22)"),
        ({"batch_size": 0}, "prediction.batch_size"),
        ({"engine": "vlm"}, "Did you mean 'vllm'"),
        ({"engine": "vllm", "model": "sasrec"}, "is no language model"),
        ({"items": Path("live.csv"), "model": "most-disliked"}, "Leave --items away"),
        ({"overrides": {"prompts": {"max_events": 3}}}, "belongs to the trained run"),
        ({"overrides": {"run": {"sed": 3}}}, "Did you mean 'seed'"),
    ],
)
def test_jobs_that_do_not_fit(run_folder, changes, said):
    with pytest.raises(ConfigError) as caught:
        Predictor(PredictJob(run_folder, **changes))
    assert said in str(caught.value)


def test_rows_that_rank_no_catalogue_are_refused(run_folder, tmp_path, monkeypatch):
    """Their predict sets would all be empty: seen by the run's predictions, or else once the row is loaded."""
    run = Path(shutil.copytree(run_folder, tmp_path / "run"))
    job, said = PredictJob(run, "most-disliked"), r"'most-disliked' ranks no catalogue \(it would read too much\)"
    monkeypatch.setattr(
        "conrec.predicting.predictor.trained_row", lambda *_: SimpleNamespace(unranked="it would read too much")
    )
    with pytest.raises(NotApplicableError, match=said):
        Predictor(job).recommender  # noqa: B018
    nothing = Ranking(np.empty((0, 1), np.int32), np.empty((0, 1), np.float32))
    anchors = read_prepared(run).anchors.of_split("test").select(np.empty(0, dtype=np.int64))
    write_predictions(run / "predictions" / "most-disliked.parquet", anchors, nothing, [], "it would read too much")
    with pytest.raises(NotApplicableError, match=said):
        Predictor(job)


def test_what_acts_at_prediction_alone_belongs_to_the_answers(run_folder):
    """Shards of other settings are not gone on with."""
    made = Predictor(PredictJob(run_folder, "sasrec")).made_from()
    assert made["settings"]["baselines.sasrec"]["hidden_size"] > 0
    assert "settings" not in Predictor(PredictJob(run_folder)).made_from()


def test_vllm_that_is_not_there_is_said_before_any_work(run_folder, monkeypatch):
    monkeypatch.setattr("conrec.predicting.job.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'conrec\[vllm\]'"):
        Predictor(PredictJob(run_folder, engine="vllm"))


def test_runs_that_are_not_there_or_not_trained(run_folder, tmp_path):
    with pytest.raises(ArtefactError, match="there is no run here"):
        Predictor(PredictJob(tmp_path))
    with pytest.raises(ArtefactError, match="'conrec-sft' is not trained yet"):
        Predictor(PredictJob(run_folder, "conrec-sft"))
