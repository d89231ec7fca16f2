"""SASRec: the contract, that it learns what can be learned, and that a seed fixes it."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from conrec.baselines.sequential.sasrec import Sasrec
from conrec.protocol import DAY
from tests.baselines.conformance import TrainedConformance
from tests.baselines.worlds import CHAIN_CUT, chains, follows_chains, space_of
from tests.conformance import CUT, small_log

SMALL: dict[str, Any] = {
    "hidden_size": 16, "layers": 1, "heads": 2, "max_length": 8, "dropout": 0.1, "epochs": 3, "batch_size": 8,
    "weight_decay": 0.01,
}  # fmt: skip


class TestSasrec(TrainedConformance):
    row = "sasrec"
    small: ClassVar[dict[str, Any]] = SMALL


_fit = TestSasrec().fit


def test_it_learns_what_follows_what() -> None:
    log = chains()
    model = _fit(log, CHAIN_CUT, epochs=25, hidden_size=32, learning_rate=5e-3, patience=25)
    assert follows_chains(model, log) > 0.9
    loss = [value for _, value in model.curve["loss"]]
    assert loss[-1] < loss[0] / 2


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
