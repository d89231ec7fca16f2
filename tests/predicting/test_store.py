"""From shards to the store that the filter reads."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from conrec.config import load_config
from conrec.errors import ArtefactError, ConfigError, DataError, RunLockedError
from conrec.filtering.catalogue import FilterCatalogue
from conrec.filtering.filter import NegativeFilter
from conrec.filtering.predict_sets import write_predict_sets
from conrec.filtering.stores.base import Origin
from conrec.filtering.stores.lmdb import PredictSetStore
from conrec.filtering.stores.writer import write_store
from conrec.folders import held
from conrec.predicting.job import PredictJob
from conrec.predicting.plan import shard_name, weights_hash
from conrec.predicting.predictor import Predictor
from conrec.predicting.run import predict_users
from conrec.predicting.store import store_of_shards
from conrec.recommender import Queries
from tests.predicting.conftest import CODEBOOK

LOSS = 0.05
"""What a stored score may be off by, for sets whose scores are some ten apart (`conrec.filtering.stores.layout`)."""


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
    stored = store_of_shards(run, sets, prediction(run))
    meta = stored.meta
    assert (stored.new, stored.renewed, stored.kept, stored.gone, stored.unanswered) == (60, 0, 0, 0, 0)
    assert (meta.model, meta.count, meta.slots) == ("conrec", 60, 20)
    predictor = Predictor(PredictJob(run_folder))
    users = np.arange(predictor.log.n_users, dtype=np.int32)
    ranking = predictor.recommender.predict(predictor.log, Queries(users, np.full(60, predictor.at)), 20)
    other = shutil.copytree(run_folder, tmp_path / "other")
    write_predict_sets(other, "conrec", predictor.log.user_ids, ranking, FilterCatalogue.load(other))
    names = list(predictor.log.user_ids)
    one = PredictSetStore.open(run / "filter" / "conrec").get_many(names)
    two = PredictSetStore.open(other / "filter" / "conrec").get_many(names)
    assert one.found.all()
    np.testing.assert_array_equal(one.codes, two.codes)
    np.testing.assert_allclose(one.scores, two.scores, atol=LOSS)
    np.testing.assert_array_equal(one.predicted_at, predictor.at // 3600 * 3600)
    assert meta.model_version == weights_hash(run, "conrec")


def test_the_filter_judges_with_the_new_sets(run, sets):
    store_of_shards(run, sets, prediction(run))
    first = pq.read_table(sets / shard_name(0, 3)).slice(0, 1).to_pylist()[0]
    judged = NegativeFilter.load(run, "conrec").filter(first["user_id"], [first["item_id"]])
    assert judged.dropped[0].nearest_item == first["item_id"]
    assert judged.dropped[0].similarity == 1.0


def test_sets_of_fewer_items_have_empty_places(run, sets, tmp_path):
    """A user with less than predict_set eligible items keeps what there is; one without any is counted."""
    folder = shutil.copytree(sets, tmp_path / "sets")
    path = folder / shard_name(1, 3)
    table = pq.read_table(path)
    user = table["user_id"][0].as_py()
    kept = pc.or_(pc.not_equal(table["user_id"], user), pc.less_equal(table["rank"], 2))
    none = pc.equal(table["user_id"], table["user_id"][-1])
    pq.write_table(table.filter(pc.and_(kept, pc.invert(none))), path)
    stored = store_of_shards(run, folder, prediction(run))
    assert stored.lines()[0] == "not stored: 1 without any eligible item"
    store = PredictSetStore.open(run / "filter" / "conrec")
    assert len(store) == 59
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


@pytest.mark.parametrize("what", ["other time", "other shard"])
def test_a_shard_that_belongs_elsewhere_is_refused(run, sets, other_time, tmp_path, what):
    """Of another plan, or of this one under another name: what each says of itself is compared."""
    folder = shutil.copytree(sets, tmp_path / "sets")
    if what == "other time":
        source, said = other_time / shard_name(1, 3), r"part-00001-of-00003\.parquet.*questions\.times"
    else:
        source, said = sets / shard_name(0, 3), r"part-00001-of-00003\.parquet.*shard \(0 there, 1 now\)"
    shutil.copy(source, folder / shard_name(1, 3))
    with pytest.raises(ArtefactError, match=said):
        store_of_shards(run, folder, prediction(run))
    shutil.copy(run / "data" / "events.parquet", folder / shard_name(1, 3))
    with pytest.raises(ArtefactError, match="is damaged"):
        store_of_shards(run, folder, prediction(run))
    assert not (run / "filter" / "conrec").exists()


@pytest.fixture(scope="module")
def other_time(run_folder, tmp_path_factory):
    """As `sets`, a day later; treat it as read-only."""
    folder = tmp_path_factory.mktemp("store") / "later"
    at = Predictor(PredictJob(run_folder)).at + 86_400
    predict_users(PredictJob(run_folder, k=20, at=at), folder, shards=3)
    return folder


@pytest.fixture(scope="module")
def of_two(run_folder, tmp_path_factory):
    """Two users of the log, a year later; treat it as read-only."""
    folder = tmp_path_factory.mktemp("store")
    log = Predictor(PredictJob(run_folder)).log
    (folder / "who.csv").write_text("\n".join(["user_id", *log.user_ids[:2]]) + "\n")
    at = int(log.timestamp[-1]) + 365 * 86_400
    predict_users(PredictJob(run_folder, k=20, at=at), folder / "sets", folder / "who.csv")
    return folder / "sets"


def test_users_are_never_lost_without_a_word(run, run_folder, sets, of_two):
    """A folder of two users in place of a store of sixty."""
    store_of_shards(run, sets, prediction(run))
    target = run / "filter" / "conrec"
    names = list(Predictor(PredictJob(run_folder)).log.user_ids)
    header = (target / "store.json").read_bytes()
    with pytest.raises(ArtefactError, match=r"58 of the 60 users of this store are not among the 2.*--add.*--replace"):
        store_of_shards(run, of_two, prediction(run))
    with pytest.raises(ConfigError, match="both are given"):
        store_of_shards(run, of_two, prediction(run), add=True, replace=True)
    assert (target / "store.json").read_bytes() == header
    before = PredictSetStore.open(target).get_many(names)
    added = store_of_shards(run, of_two, prediction(run), add=True)
    assert (added.meta.count, added.new, added.renewed, added.kept, added.gone) == (60, 0, 2, 58, 0)
    after = PredictSetStore.open(target).get_many(names)
    assert after.found.all()
    np.testing.assert_array_equal(before.codes[2:], after.codes[2:])
    np.testing.assert_array_equal(before.scores[2:], after.scores[2:])
    np.testing.assert_array_equal(before.predicted_at[2:], after.predicted_at[2:])
    new = pq.read_table(of_two / shard_name(0, 1))
    np.testing.assert_allclose(after.scores[:2].ravel(), new["score"].to_numpy(), atol=LOSS)
    np.testing.assert_array_equal(after.predicted_at[:2], new["timestamp"].to_numpy()[[0, 20]] // 3600 * 3600)
    assert (after.predicted_at[:2] > after.predicted_at[2:].max()).all()
    replaced = store_of_shards(run, of_two, prediction(run), replace=True)
    assert (replaced.meta.count, replaced.renewed, replaced.kept, replaced.gone) == (2, 2, 0, 58)
    assert replaced.lines()[-1].endswith("users of the store before who are no longer there: 58")
    assert list(PredictSetStore.open(target).user_ids()) == sorted(names[:2])
    again = store_of_shards(run, sets, prediction(run))
    assert (again.new, again.renewed, again.gone) == (58, 2, 0)


def test_sets_that_are_kept_stay_as_they_are(run, of_two):
    """Also of a user whose ID is too long for a key, and from a store with fewer places."""
    catalogue = FilterCatalogue.load(run)
    name, codes = "long " * 200, np.asarray([[[1, 2, 3], [4, 5, 6], [-1, -1, -1]]], dtype=np.int32)
    scores = np.asarray([[-1.0, -2.0, -np.inf]], dtype=np.float32)
    target = run / "filter" / "conrec"
    origin = Origin("conrec", "", catalogue.sid_hash, "", (CODEBOOK,) * 3)
    write_store(target, [name], codes, scores, origin, written_at=900_000_000)
    stored = store_of_shards(run, of_two, prediction(run), add=True)
    assert stored.lines()[-1].endswith("3 users (2 new, 0 predicted anew, 1 as before), 20 items each")
    kept = PredictSetStore.open(target).get(name)
    assert kept.codes.tolist() == codes[0, :2].tolist()
    assert kept.scores.tolist() == [-1.0, -2.0]
    assert kept.predicted_at == 900_000_000


def test_sets_of_other_weights_are_not_kept_beside_new_ones(run, of_two):
    """The store names one version of the model for all of its sets."""
    target, origin = (
        run / "filter" / "conrec",
        Origin("conrec", "0" * 64, FilterCatalogue.load(run).sid_hash, "", (CODEBOOK,) * 3),
    )
    write_store(target, ["somebody"], np.asarray([[[1, 2, 3]]]), np.asarray([[1.0]]), origin)
    with pytest.raises(ArtefactError, match=r"were predicted with the weights 0000.*--replace"):
        store_of_shards(run, of_two, prediction(run), add=True)
    assert store_of_shards(run, of_two, prediction(run), replace=True).gone == 1


def test_sets_of_live_items_are_said_to_be_such(run, run_folder, tmp_path):
    live = Predictor(PredictJob(run_folder)).log.item_ids[:40]
    (tmp_path / "live.csv").write_text("\n".join(["item_id", *live]) + "\n")
    predict_users(PredictJob(run, k=20, items=tmp_path / "live.csv"), tmp_path / "sets")
    assert (
        store_of_shards(run, tmp_path / "sets", prediction(run)).lines()[0].startswith("note: these are sets of live")
    )


def test_a_store_that_cannot_be_compared_is_replaced_only_if_asked(run, sets):
    store_of_shards(run, sets, prediction(run))
    (data,) = (run / "filter" / "conrec").glob("data-*.mdb")
    data.write_bytes(data.read_bytes()[:-100])
    for options in ({}, {"add": True}):
        with pytest.raises(ArtefactError, match=r"cannot be compared.*--replace"):
            store_of_shards(run, sets, prediction(run), **options)
    assert store_of_shards(run, sets, prediction(run), replace=True).new == 60


@pytest.mark.parametrize("what", ["retrained", "calibrated before"])
def test_sets_of_other_weights_do_not_go_under_the_threshold(run, sets, what):
    store_of_shards(run, sets, prediction(run))
    said = "the weights of this run"
    if what == "retrained":
        path = run / "models" / "conrec" / "model" / "config.json"
        path.write_text(path.read_text() + "\n")
    else:
        said = "the weights that the threshold was calibrated with"
        manifest = {"inputs": {"data/events.parquet": "1" * 64, "models/conrec/model": "2" * 64}}
        (run / "filter" / "conrec.manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtefactError, match=said):
        store_of_shards(run, sets, prediction(run))


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


def test_a_store_is_not_replaced_while_another_process_works_in_the_run(run, sets):
    """A run that writes its store anew removes the old one first, and two that add would lose each other's users."""
    with held(run), pytest.raises(RunLockedError, match="another process is working in this run"):
        store_of_shards(run, sets, prediction(run))
    assert not (run / "filter" / "conrec").exists()
    assert store_of_shards(run, sets, prediction(run)).meta.count == 60
