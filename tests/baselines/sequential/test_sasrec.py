"""SASRec: the contract, that it learns what can be learned, and that a seed fixes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conrec.baselines.sequential.sasrec import Sasrec
from conrec.errors import ArtefactError, DataError
from conrec.logs.log import Log
from conrec.protocol import DAY
from tests.baselines.worlds import CHAIN_CUT, chains, follows_chains, space_of
from tests.conformance import CUT, CatalogueScorerConformance, queries_of, small_log

SMALL: dict[str, Any] = {
    "hidden_size": 16, "layers": 1, "heads": 2, "max_length": 8, "dropout": 0.1, "epochs": 3, "batch_size": 8,
    "weight_decay": 0.01,
}  # fmt: skip


def _fit(log: Log, cut: int = CUT, seed: int = 0, **settings: Any) -> Sasrec:
    return Sasrec.fit(space_of(log, cut, {"baselines": {"sasrec": {**SMALL, **settings}}}, seed=seed), "sasrec")


class TestSasrec(CatalogueScorerConformance):
    def fit(self, log: Log, cut: int) -> Sasrec:
        return _fit(log, cut)


def test_it_learns_what_follows_what() -> None:
    log = chains()
    model = _fit(log, CHAIN_CUT, epochs=25, hidden_size=32, learning_rate=5e-3, patience=25)
    assert follows_chains(model, log) > 0.9
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
    space = space_of(log, CUT, {"baselines": {"sasrec": SMALL}})
    model = Sasrec.fit(space, "sasrec")
    model.save(tmp_path)
    loaded = Sasrec.load(tmp_path, space, "sasrec")
    assert loaded.curve == model.curve
    assert loaded.parameters == model.parameters > 30 * 16
    queries = queries_of(log)
    np.testing.assert_array_equal(loaded.scores(log, queries), model.scores(log, queries))


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    space = space_of(small_log(), CUT, {"baselines": {"sasrec": SMALL}})
    Sasrec.fit(space, "sasrec").save(tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"n_items": 30', '"n_items": 7'))
    with pytest.raises(ArtefactError, match="not a saved sasrec of this catalogue"):
        Sasrec.load(tmp_path, space, "sasrec")
    (tmp_path / "config.json").write_text(config.replace('"hidden_size": 16', '"hidden_size": 8'))
    with pytest.raises(ArtefactError, match="not a saved sasrec of this catalogue"):
        Sasrec.load(tmp_path, space, "sasrec")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ArtefactError, match="missing"):
        Sasrec.load(tmp_path, space, "sasrec")


def test_the_best_epoch_on_validation_is_kept() -> None:
    log = chains()
    space = space_of(
        log, 40 * DAY, {"baselines": {"sasrec": {**SMALL, "epochs": 8, "patience": 2, "learning_rate": 5e-3}}}
    )
    model = Sasrec.fit(space, "sasrec")
    values = [value for _, value in model.curve["validation_fhr@20"]]
    validation = space.prepared.anchors.of_split("validation")
    top = model.predict(log, validation.queries, 20).item
    hits = [np.isin(top[row], future).any() for row, future in enumerate(validation.future_negatives)]
    assert np.mean(hits) == max(values)
    best = max(place for place, value in enumerate(values) if value == max(values))  # of equal ones the later
    assert len(values) == min(8, best + 1 + 2)


def test_without_validation_anchors_the_last_epoch_is_kept() -> None:
    space = space_of(small_log(), CUT, {"baselines": {"sasrec": SMALL}})
    anchors = space.prepared.anchors.of_split("train")
    object.__setattr__(space.prepared, "anchors", anchors)
    model = Sasrec.fit(space, "sasrec")
    assert model.curve["validation_fhr@20"] == []
    assert len(model.curve["loss"]) == SMALL["epochs"]


def test_no_negatives_to_learn_from_is_an_error() -> None:
    log = small_log()
    liked = Log.from_columns(log.user_ids, log.item_ids, log.user, log.item, log.timestamp, np.ones(len(log)))
    with pytest.raises(DataError, match="no negative events"):
        _fit(liked)


def test_events_after_the_training_period_do_not_train() -> None:
    log = small_log()
    later = log.timestamp >= CUT
    other = Log.from_columns(
        log.user_ids, log.item_ids, log.user, np.where(later, 29 - log.item, log.item), log.timestamp, log.feedback
    )
    whole, alone = _fit(log), _fit(other)
    assert whole.curve["loss"] == alone.curve["loss"]
