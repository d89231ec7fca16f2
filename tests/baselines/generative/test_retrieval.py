"""TIGER and P5-CID keep the contract of all rows, learn what follows what, and come back from their folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conrec.baselines.generative import p5_cid, tiger
from conrec.baselines.generative.examples import examples_of
from conrec.baselines.generative.p5_cid import P5Cid
from conrec.baselines.generative.retrieval import GenerativeRetrieval
from conrec.baselines.generative.tiger import Tiger
from conrec.errors import ArtefactError, DataError
from conrec.items.semantic_ids import SemanticIds
from conrec.items.space import ItemSpace
from conrec.logs.log import Log
from conrec.protocol import DAY
from conrec.recommender import Queries
from conrec.settings.baselines.generative import P5CidConfig, TigerConfig
from conrec.workspace import Workspace
from tests.baselines.worlds import chains, space_of
from tests.conformance import CUT, RecommenderConformance, queries_of, small_log

SMALL = {
    "hidden_size": 16,
    "layers": 1,
    "heads": 2,
    "feed_forward": 32,
    "max_length": 8,
    "dropout": 0.1,
    "epochs": 2,
    "batch_size": 16,
    "weight_decay": 0.01,
    "user_tokens": 7,
}
CLUSTERS = {"clusters": 3, "leaf_size": 5}


def space(log: Log, cut: int, seed: int = 0, **changes: Any) -> Workspace:
    shared = {**SMALL, **changes}
    return space_of(log, cut, {"baselines": {"tiger": shared, "p5_cid": {**shared, **CLUSTERS}}}, seed=seed)


class TestTiger(RecommenderConformance):
    tolerance = 1e-6

    def fit(self, log: Log, cut: int) -> Tiger:
        return Tiger.fit(space(log, cut, encoder="bidirectional"), "tiger")


class TestP5Cid(RecommenderConformance):
    tolerance = 1e-6

    def fit(self, log: Log, cut: int) -> P5Cid:
        return P5Cid.fit(space(log, cut, encoder="causal", user_tokens=0), "p5-cid")


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (Tiger, {"encoder": "bidirectional", "loss": "trie", "epochs": 10, "initial_scale": 1.0}),
        (Tiger, {"encoder": "causal", "loss": "vocabulary", "epochs": 20}),
        (P5Cid, {"encoder": "causal", "loss": "trie"}),
    ],
)
def test_it_learns_what_follows_what(kind: type[GenerativeRetrieval], changes: dict[str, Any]) -> None:
    log = chains(60, 12, 8)
    learning = {
        "epochs": 25,
        "batch_size": 10,
        "learning_rate": 4e-3,
        "hidden_size": 32,
        "dropout": 0.0,
        "user_tokens": 0,
    }
    own = space(log, 42 * DAY, **{**learning, **changes})
    own.validation = own.prepared.anchors.of_split("validation").select(np.arange(0))  # so that the last epoch is kept
    model = kind.fit(own, "a row")
    users = np.arange(log.n_users, dtype=np.int32)
    right = []
    for weeks in (1, 2, 3):  # histories of lengths that were learned from
        at = weeks * 7 * DAY + 4 * DAY
        top = model.predict(log, Queries(users, np.full(log.n_users, at)), 1).item[:, 0]
        last = np.array([log.item[log.history(int(user), at)[-1]] for user in users])
        right.append((top == (last + 1) % log.n_items).mean())
    assert np.mean(right) > 0.75  # of twelve items
    loss = [value for _, value in model.curve["loss"]]
    assert loss[-1] < loss[0] / 1.8
    assert model.curve["validation_fhr@20"] == []


@pytest.mark.parametrize("kind", [Tiger, P5Cid])
def test_one_seed_one_model_that_comes_back_from_its_folder(kind: type[GenerativeRetrieval], tmp_path: Path) -> None:
    log = small_log()
    own = space(log, CUT)
    model = kind.fit(own, "a row")
    torch.rand(17)
    before = torch.random.get_rng_state()
    second = kind.fit(own, "a row")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert second.curve == model.curve
    assert len(model.curve["loss"]) == 2
    assert kind.fit(space(log, CUT, seed=1), "a row").curve != model.curve
    model.save(tmp_path)
    loaded = kind.load(tmp_path, own, "a row")
    assert loaded.curve == model.curve
    assert loaded.parameters == model.parameters > 1000
    queries = queries_of(log)
    for ranking in (loaded.predict(log, queries, 7), second.predict(log, queries, 7)):
        np.testing.assert_array_equal(ranking.item, model.predict(log, queries, 7).item)
        np.testing.assert_array_equal(ranking.score, model.predict(log, queries, 7).score)
    other = P5Cid if kind is Tiger else Tiger
    with pytest.raises(ArtefactError, match="is not a saved"):
        other.load(tmp_path, own, "a row")
    with pytest.raises(ArtefactError, match="of this catalogue"):
        kind.load(tmp_path, space(small_log(items=31), CUT), "a row")
    with pytest.raises(ArtefactError, match="knows 30 items"):
        model.predict(small_log(items=31), queries, 3)
    (tmp_path / "ids.safetensors").write_bytes(b"not one")
    with pytest.raises(ArtefactError, match="safetensors"):
        kind.load(tmp_path, own, "a row")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ArtefactError):
        kind.load(tmp_path, own, "a row")


def test_candidate_scores_are_those_of_a_list_of_the_whole_catalogue() -> None:
    log = small_log()
    model = Tiger.fit(space(log, CUT), "tiger")
    queries = queries_of(log)
    ranking = model.predict(log, queries, log.n_items, history_eligible=True)
    scores = model.score(log, queries, ranking.item)
    np.testing.assert_allclose(scores, ranking.score, rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.exp(scores.astype(np.float64)).sum(1), 1.0, atol=1e-5)


def test_items_that_share_an_id_are_named_in_the_order_of_the_catalogue() -> None:
    log = small_log()
    own = space(log, CUT)
    codes = np.repeat(own.items.semantic_ids.codes[::2], 2, axis=0)  # pairs of items
    ids = SemanticIds(codes, codes, own.items.semantic_ids.codebook_size, "shared")
    own.items = ItemSpace(log.item_ids, ids, own.items.rebuilt)
    model = Tiger.fit(own, "tiger")
    queries = queries_of(log)
    ranking = model.predict(log, queries, 9, history_eligible=True)
    for row in ranking.item:
        assert (row[:8:2] % 2 == 0).all()
        assert (row[1:8:2] == row[:8:2] + 1).all()
        assert row[8] % 2 == 0
    eligible = model.predict(log, queries, 9)
    for row, (user, timestamp) in enumerate(zip(queries.user.tolist(), queries.timestamp.tolist(), strict=True)):
        seen = set(log.item[log.history(user, timestamp)].tolist())
        found = [item for item in eligible.item[row].tolist() if item >= 0]
        assert not seen & set(found)
        assert len(found) == len(set(found)) == min(9, log.n_items - len(seen))


def test_every_dislike_of_the_training_period_is_a_target_once() -> None:
    log = chains(users=5, length=30)
    for most in (1, 4, 8, 29, 30, 31):
        each = examples_of(log, TigerConfig(max_length=most, encoder="bidirectional"))
        assert len(each) == len(log)
        assert all(len(one) <= most + 1 and np.flatnonzero(one.target).tolist() == [len(one) - 1] for one in each)
        causal = examples_of(log, TigerConfig(max_length=most, encoder="causal"))
        for user in range(5):
            items = log.item[log.events_of(user)].tolist()
            own = [one for one in causal if one.user_id == log.user_ids[user]]
            assert [item for one in own for item in one.items[one.target].tolist()] == items
            assert own[0].target[0]
            assert not any(one.target[0] for one in own[1:])


def test_the_grids_are_of_settings_that_exist() -> None:
    for grid, config in ((tiger.SPACE, TigerConfig), (p5_cid.SPACE, P5CidConfig)):
        assert 2 <= len(grid) <= 4
        for name, values in grid.items():
            for value in values:
                assert getattr(config.model_validate({name: value}), name) == value


def test_no_dislikes_to_learn_from_is_an_error() -> None:
    log = small_log()
    liked = Log.from_columns(log.user_ids, log.item_ids, log.user, log.item, log.timestamp, np.ones(len(log)))
    with pytest.raises(DataError, match="no negative events"):
        Tiger.fit(space(liked, 60 * DAY), "tiger")


def test_events_after_the_training_period_teach_nothing() -> None:
    log = small_log()
    whole, alone = space(log, CUT), space(log.before(CUT + 1), CUT)
    for kind in (Tiger, P5Cid):
        first, second = kind.fit(whole, "a row"), kind.fit(alone, "a row")
        assert first.curve["loss"] == second.curve["loss"]
        np.testing.assert_array_equal(first.ids.codes, second.ids.codes)
