"""From shards to the store that the filter reads."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from conrec.config import load_config
from conrec.errors import ArtefactError, ConfigError, DataError
from conrec.filtering.catalogue import FilterCatalogue
from conrec.filtering.filter import NegativeFilter, write_predict_sets
from conrec.filtering.store import PredictSetStore
from conrec.predicting.job import PredictJob
from conrec.predicting.plan import shard_name
from conrec.predicting.predictor import Predictor
from conrec.predicting.run import predict_users
from conrec.predicting.store import store_of_shards
from conrec.recommender import Queries


@pytest.fixture
def run(run_folder, tmp_path):
    return shutil.copytree(run_folder, tmp_path / "run")


@pytest.fixture(scope="module")
def sets(run_folder, tmp_path_factory):
    """Three shards of all users; treat them as read-only."""
    folder = tmp_path_factory.mktemp("store") / "sets"
    predict_users(PredictJob(run_folder, k=25), folder, shards=3)
    return folder


def prediction(run):
    return load_config(file=run / "config.toml").prediction


def test_the_store_is_what_a_run_itself_would_write(run, run_folder, sets, tmp_path):
    """Users and codes; scores up to rounding, for the shards cut the batches otherwise."""
    meta = store_of_shards(run, sets, prediction(run))
    assert (meta.model, meta.count, meta.slots) == ("conrec", 60, 20)
    predictor = Predictor(PredictJob(run_folder))
    users = np.arange(predictor.log.n_users, dtype=np.int32)
    ranking = predictor.recommender.predict(predictor.log, Queries(users, np.full(60, predictor.at)), 20)
    other = shutil.copytree(run_folder, tmp_path / "other")
    write_predict_sets(other, "conrec", predictor.log.user_ids, ranking, FilterCatalogue.load(other))
    names = list(predictor.log.user_ids)
    one = PredictSetStore.open(run / "filter" / "conrec").get_many(names)
    two = PredictSetStore.open(other / "filter" / "conrec").get_many(names)
    assert one[0].all()
    np.testing.assert_array_equal(one[1], two[1])
    np.testing.assert_allclose(one[2], two[2], atol=1e-5)


def test_the_filter_judges_with_the_new_sets(run, sets):
    store_of_shards(run, sets, prediction(run))
    first = pq.read_table(sets / shard_name(0, 3)).slice(0, 1).to_pylist()[0]
    judged = NegativeFilter.load(run, "conrec").filter(first["user_id"], [first["item_id"]])
    assert judged.dropped[0].nearest_item == first["item_id"]
    assert judged.dropped[0].similarity == 1.0


def test_sets_of_fewer_items_have_empty_places(run, sets, tmp_path):
    """A user with less than predict_set eligible items keeps what there is."""
    folder = shutil.copytree(sets, tmp_path / "sets")
    path = folder / shard_name(1, 3)
    table = pq.read_table(path)
    user = table["user_id"][0].as_py()
    kept = pc.or_(pc.not_equal(table["user_id"], user), pc.less_equal(table["rank"], 2))
    pq.write_table(table.filter(kept), path)
    store_of_shards(run, folder, prediction(run))
    store = PredictSetStore.open(run / "filter" / "conrec")
    assert len(store) == 60
    assert len(store.get(user)) == 2


def test_a_missing_shard_is_named(run, sets, tmp_path):
    folder = shutil.copytree(sets, tmp_path / "sets")
    (folder / shard_name(1, 3)).unlink()
    with pytest.raises(ArtefactError, match=r"1 of 3 shards are missing, the first is part-00001-of-00003\.parquet"):
        store_of_shards(run, folder, prediction(run))


def test_a_user_at_two_times_is_refused(run, tmp_path):
    path = tmp_path / "who.csv"
    user = Predictor(PredictJob(run)).log.user_ids[0]
    path.write_text(f"user_id,timestamp\n{user},2000000000\n{user},2000000001\n")
    predict_users(PredictJob(run, k=20), tmp_path / "sets", path)
    with pytest.raises(DataError, match="comes twice"):
        store_of_shards(run, tmp_path / "sets", prediction(run))


@pytest.mark.parametrize("what", ["no sets", "few ranks", "no threshold", "other SID table"])
def test_what_cannot_be_stored(run, sets, tmp_path, what):
    folder, kind, said = sets, ArtefactError, "there are no predict sets here"
    if what == "no sets":
        folder = run / "data"
    elif what == "few ranks":
        folder, kind, said = tmp_path / "few", ConfigError, "3 ranks were predicted"
        predict_users(PredictJob(run, "most-disliked", k=3), folder)
    elif what == "no threshold":
        folder, said = tmp_path / "counted", "most-disliked.json"
        predict_users(PredictJob(run, "most-disliked", k=20), folder)
    else:
        path = run / "items" / "semantic_ids.parquet"
        table = pq.read_table(path)
        pq.write_table(table.set_column(1, "codes", table["codes"].take([1, *range(1, len(table))])), path)
        said = "was predicted with the SID table"
    with pytest.raises(kind) as caught:
        store_of_shards(run, folder, prediction(run))
    assert said in str(caught.value)
    assert not (run / "filter" / "conrec").exists()
