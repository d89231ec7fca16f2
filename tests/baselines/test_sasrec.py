"""SASRec: the contract, that it learns what can be learned, and that a seed fixes it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from conrec.baselines.sasrec import Sasrec, SasrecNetwork, _stretches, fit_sasrec
from conrec.config import ProtocolConfig, SasrecConfig
from conrec.errors import ArtefactError, DataError
from conrec.logs.anchors import Anchors, build_anchors
from conrec.logs.log import Log
from conrec.protocol import DAY, Periods
from conrec.recommender import Queries
from tests.conformance import CUT, SILENT, CatalogueScorerConformance, queries_of, small_log

SMALL = SasrecConfig(
    hidden_size=16, layers=1, heads=2, max_length=8, dropout=0.1, epochs=3, batch_size=8, weight_decay=0.01
)


def _anchors(log: Log, cut: int) -> tuple[Anchors, Periods]:
    periods = Periods(cut, cut + 15 * DAY, int(log.timestamp[-1]) + 1)
    return build_anchors(log, periods, 7 * DAY), periods


def _fit(log: Log, cut: int = CUT, config: SasrecConfig = SMALL, seed: int = 0) -> Sasrec:
    anchors, periods = _anchors(log, cut)
    return fit_sasrec(log, anchors, periods, config, ProtocolConfig(), seed)


def _chains(users: int = 60, items: int = 20, length: int = 12) -> Log:
    """Everybody dislikes items in one cyclic order, from a start of his own: i, i + 1, i + 2, …"""
    user = np.repeat(np.arange(users), length)
    step = np.tile(np.arange(length), users)
    item = (user * 7 + step) % items
    width = len(str(users))
    names = tuple(f"u{one:0{width}d}" for one in range(users))
    catalogue = tuple(f"i{one}" for one in range(items))
    return Log.from_columns(names, catalogue, user, item, step * 7 * DAY + user, np.full(len(user), -1))


class TestSasrec(CatalogueScorerConformance):
    def fit(self, log: Log, cut: int) -> Sasrec:
        return _fit(log, cut)


def test_it_learns_what_follows_what() -> None:
    log = _chains()
    config = SMALL.model_copy(update={"epochs": 25, "hidden_size": 32, "learning_rate": 5e-3, "patience": 25})
    model = _fit(log, cut=56 * DAY, config=config)
    users = np.arange(log.n_users, dtype=np.int32)
    queries = Queries(users, np.full(log.n_users, 60 * DAY))
    top = model.predict(log, queries, 1).item[:, 0]
    last = np.array([log.item[log.history(int(u), 60 * DAY)[-1]] for u in users])
    assert (top == (last + 1) % log.n_items).mean() > 0.9
    loss = [value for _, value in model.curve["loss"]]
    assert loss[-1] < loss[0] / 2


def test_one_seed_one_model_whatever_was_drawn_before() -> None:
    log = small_log()
    first = _fit(log)
    torch.rand(17)
    before = torch.random.get_rng_state()
    second = _fit(log)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.curve == second.curve
    for name, one in first.network.state_dict().items():
        assert torch.equal(one, second.network.state_dict()[name])
    assert _fit(log, seed=1).curve != first.curve


def test_saved_and_loaded_it_answers_to_the_byte(tmp_path: Path) -> None:
    log = small_log()
    model = _fit(log)
    model.save(tmp_path)
    loaded = Sasrec.load(tmp_path)
    assert loaded.curve == model.curve
    queries = queries_of(log)
    np.testing.assert_array_equal(loaded.scores(log, queries), model.scores(log, queries))


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    _fit(small_log()).save(tmp_path)
    (tmp_path / "config.json").write_text('{"n_items": 7, "sasrec": {}}')
    with pytest.raises(ArtefactError, match="not a saved SASRec"):
        Sasrec.load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ArtefactError, match="missing"):
        Sasrec.load(tmp_path)


def test_the_best_epoch_on_validation_is_kept() -> None:
    log = _chains()
    config = SMALL.model_copy(update={"epochs": 8, "patience": 2, "learning_rate": 5e-3})
    anchors, periods = _anchors(log, 40 * DAY)
    model = fit_sasrec(log, anchors, periods, config, ProtocolConfig(), 0)
    values = [value for _, value in model.curve["validation_fhr@20"]]
    validation = anchors.of_split("validation")
    top = model.predict(log, validation.queries, 20).item
    hits = [np.isin(top[row], future).any() for row, future in enumerate(validation.future_negatives)]
    assert np.mean(hits) == max(values)
    best = values.index(max(values))
    assert len(values) == min(8, best + 1 + 2)


def test_without_validation_anchors_the_last_epoch_is_kept() -> None:
    log = small_log()
    anchors, periods = _anchors(log, CUT)
    model = fit_sasrec(log, anchors.of_split("train"), periods, SMALL, ProtocolConfig(), 0)
    assert model.curve["validation_fhr@20"] == []
    assert len(model.curve["loss"]) == SMALL.epochs


def test_no_negatives_to_learn_from_is_an_error() -> None:
    log = small_log()
    liked = Log.from_columns(log.user_ids, log.item_ids, log.user, log.item, log.timestamp, np.ones(len(log)))
    with pytest.raises(DataError, match="no negative events"):
        _fit(liked)


def test_events_after_the_training_period_do_not_train() -> None:
    log = small_log()
    anchors, periods = _anchors(log, CUT)
    train = log.before(CUT)
    whole = fit_sasrec(log, anchors.of_split("train"), periods, SMALL, ProtocolConfig(), 0)
    alone = fit_sasrec(train, anchors.of_split("train"), periods, SMALL, ProtocolConfig(), 0)
    assert whole.curve == alone.curve


def test_stretches_cover_every_negative_as_a_target() -> None:
    log = _chains(users=3, length=30)
    for max_length in (1, 4, 8, 29, 30, 31):
        stretches = _stretches(log, max_length)
        assert all(2 <= len(one) <= max_length + 1 for one in stretches)
        for user in range(3):
            tokens = [log.n_items, *log.item[log.events_of(user)].tolist()]
            steps = {(a, b) for one in stretches for a, b in zip(one[:-1].tolist(), one[1:].tolist(), strict=True)}
            assert set(pairwise(tokens)) <= steps
    assert _stretches(small_log(), 8)[0][0] == 30
    assert SILENT not in small_log().user


def test_the_network_looks_at_the_past_only() -> None:
    torch.manual_seed(0)
    network = SasrecNetwork(10, SMALL).eval()
    tokens = torch.tensor([[10, 1, 2, 3, 4]])
    changed = torch.tensor([[10, 1, 2, 9, 9]])
    torch.testing.assert_close(network.states(tokens)[:, :3], network.states(changed)[:, :3])
    assert not torch.allclose(network.states(tokens)[:, 3:], network.states(changed)[:, 3:])
