"""FDSA: feature attention against a loop, what features teach that items do not, and the contract."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from conrec.arrays import Ragged
from conrec.baselines.sequential.fdsa import Fdsa, FeatureAttention, said_of
from conrec.baselines.sequential.sasrec import Sasrec
from conrec.errors import ArtefactError, NotApplicableError
from tests.baselines.conformance import TrainedConformance
from tests.baselines.sequential.kinds import CATEGORIES, follows_kinds, kinds_in_turn
from tests.baselines.sequential.kinds import CUT as KINDS_CUT
from tests.baselines.worlds import space_of
from tests.conformance import queries_of, small_log

OF = Ragged.from_rows([[0], [1, 2], [], [2], []])
SMALL: dict[str, Any] = {
    "hidden_size": 16, "layers": 1, "heads": 2, "max_length": 8, "dropout": 0.1, "epochs": 1, "batch_size": 8,
    "weight_decay": 0.01,
}  # fmt: skip
NOTHING_SAID = np.ones((30, 4), dtype=np.float32)


class TestFdsa(TrainedConformance):
    row = "fdsa"
    small: ClassVar[dict[str, Any]] = SMALL


_space = TestFdsa().space


@pytest.mark.parametrize(("n_categories", "with_text"), [(3, True), (3, False), (0, True)])
@torch.no_grad()
def test_feature_attention_is_its_formula(n_categories: int, with_text: bool) -> None:
    torch.manual_seed(0)
    text = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    text[3:] = 0
    layer = FeatureAttention(OF, n_categories, text if with_text else None, 4)
    for parameter in layer.parameters():
        parameter.copy_(torch.randn(parameter.shape))
    layer = layer.double()
    asked = [4, 1, 0, 2, 3, 1]
    found = layer(torch.tensor(asked))
    for row, item in enumerate(asked):
        features = [layer.category.weight[category] for category in OF[item]] if n_categories else []
        if with_text and text[item].any():
            features.append(layer.project(torch.from_numpy(text[item]).double()))
        expected = torch.zeros(4, dtype=torch.float64)
        energies = [math.exp(float(layer.energy(one))) for one in features]
        for one, energy in zip(features, energies, strict=True):
            expected = expected + one * energy / sum(energies)
        torch.testing.assert_close(found[row], expected)
    assert not found[0].any()


@pytest.mark.parametrize("features", ["both", "categories"])
def test_features_tell_of_items_that_nobody_disliked(features: str) -> None:
    log = kinds_in_turn(cold=True)
    schedule = {"epochs": 12, "learning_rate": 5e-3}
    known = _space(log, KINDS_CUT, world={"categories": CATEGORIES}, features=features, **schedule)
    assert follows_kinds(Fdsa.fit(known, "fdsa"), log) > 0.5
    if features == "both":
        unknown = space_of(log, KINDS_CUT, {"baselines": {"sasrec": {**SMALL, **schedule}}})
        assert follows_kinds(Sasrec.fit(unknown, "sasrec"), log) < 0.35


def test_a_folder_of_other_features_is_refused(tmp_path: Path) -> None:
    space = _space(small_log(), world={"categories": [["one kind"]] * 30, "embeddings": NOTHING_SAID})
    Fdsa.fit(space, "fdsa").save(tmp_path)
    with pytest.raises(ArtefactError, match="not a saved fdsa"):
        Fdsa.load(tmp_path, _space(small_log()), "fdsa")  # which has more categories, and texts


@pytest.mark.parametrize("features", ["both", "categories", "text"])
def test_without_features_it_does_not_apply(features: str) -> None:
    world = {"categories": [[]] * 30, "embeddings": NOTHING_SAID}
    with pytest.raises(NotApplicableError, match=r"neither categories nor texts|no item has a category|no texts"):
        Fdsa.fit(_space(small_log(), world=world, features=features), "fdsa")


@pytest.mark.parametrize("lacking", ["categories", "embeddings"])
def test_one_kind_of_features_is_enough(lacking: str) -> None:
    log = small_log()
    world = {"categories": [[]] * 30} if lacking == "categories" else {"embeddings": NOTHING_SAID}
    if lacking == "categories":
        world["embeddings"] = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    model = Fdsa.fit(_space(log, world=world, epochs=1), "fdsa")
    assert np.isfinite(model.scores(log, queries_of(log))).all()


def test_texts_are_centred_on_the_training_period_and_the_unknown_stays_nothing() -> None:
    log = small_log()
    rows = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    rows[7] = 0
    space = _space(log, world={"embeddings": rows})
    found = said_of(space)
    assert found is not None
    trained = [int(item) for item in np.flatnonzero(space.trained_items) if item != 7]
    mean = np.mean([rows[item] for item in trained], axis=0, dtype=np.float64)
    length = np.mean([np.linalg.norm(rows[item] - mean) for item in trained])
    for item in range(30):
        np.testing.assert_allclose(found[item], 0 if item == 7 else (rows[item] - mean) / length, atol=1e-6)
