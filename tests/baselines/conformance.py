"""What every row that is a trained network over histories must do, beyond the contract of all rows."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from conrec.baselines.registry import baseline_class
from conrec.baselines.sequences.scorer import SequenceScorer
from conrec.config import Config
from conrec.errors import ArtefactError, DataError
from conrec.logs.log import Log
from conrec.protocol import DAY
from conrec.workspace import Workspace
from tests.baselines.worlds import space_of
from tests.conformance import CUT, CatalogueScorerConformance, queries_of, small_log


class TrainedConformance(CatalogueScorerConformance):
    """Inherited by a test class of each row; it says the row's name and small settings."""

    row: ClassVar[str]
    small: ClassVar[dict[str, Any]]
    """Settings with which it is fitted in a moment."""

    def space(
        self, log: Log, cut: int = CUT, seed: int = 0, world: dict[str, Any] | None = None, **changes: Any
    ) -> Workspace:
        section = {self.row.replace("-", "_"): {**self.small, **changes}}
        return space_of(log, cut, {"baselines": section}, seed=seed, **(world or {}))

    def fit(self, log: Log, cut: int = CUT, seed: int = 0, **changes: Any) -> Any:
        return self.fitted(self.space(log, cut, seed, **changes))

    def fitted(self, space: Workspace) -> Any:
        model = baseline_class(self.row).fit(space, self.row)
        assert isinstance(model, SequenceScorer)
        return model

    def test_one_seed_one_model_whatever_was_drawn_before(self, log: Log, model: SequenceScorer) -> None:
        torch.rand(17)
        before = torch.random.get_rng_state()
        second = self.fit(log)
        assert torch.equal(torch.random.get_rng_state(), before)
        assert model.curve == second.curve
        assert _same_weights(model, second)
        assert self.fit(log, seed=1).curve != model.curve

    def test_saved_and_loaded_it_answers_to_the_byte(self, log: Log, model: SequenceScorer, tmp_path: Path) -> None:
        model.save(tmp_path)
        loaded = type(model).load(tmp_path, self.space(log), self.row)
        assert loaded.curve == model.curve
        learned = sum(one.numel() for one in model.network.parameters())
        assert loaded.parameters == model.parameters == learned > log.n_items * self.small["hidden_size"]
        queries = queries_of(log)
        np.testing.assert_array_equal(loaded.scores(log, queries), model.scores(log, queries))

    def test_a_damaged_folder_is_refused(self, log: Log, model: SequenceScorer, tmp_path: Path) -> None:
        space, kind, width = self.space(log), model.kind, self.small["hidden_size"]
        model.save(tmp_path)
        config = (tmp_path / "config.json").read_text()
        damaged = [
            config.replace('"n_items": 30', '"n_items": 7'),
            config.replace(f'"hidden_size": {width}', f'"hidden_size": {width * 2}'),
            config.replace(f'"kind": "{kind}"', '"kind": "something else"'),
            "{}",
        ]
        for one in damaged:
            assert one != config
            (tmp_path / "config.json").write_text(one)
            with pytest.raises(ArtefactError, match=f"not a saved {kind} of this catalogue"):
                type(model).load(tmp_path, space, self.row)
        (tmp_path / "config.json").write_text(config)
        (tmp_path / "model.safetensors").unlink()
        with pytest.raises(ArtefactError, match="missing"):
            type(model).load(tmp_path, space, self.row)

    def test_no_dislikes_to_learn_from_is_an_error(self) -> None:
        log = small_log()
        liked = Log.from_columns(log.user_ids, log.item_ids, log.user, log.item, log.timestamp, np.ones(len(log)))
        with pytest.raises(DataError, match="no negative events"):
            self.fit(liked)

    def test_events_after_the_training_period_do_not_train(self, log: Log, model: SequenceScorer) -> None:
        later = log.timestamp >= CUT
        other = Log.from_columns(
            log.user_ids, log.item_ids, log.user, np.where(later, 29 - log.item, log.item), log.timestamp, log.feedback
        )
        assert self.fit(other).curve["loss"] == model.curve["loss"]
        late = log.timestamp >= CUT + 15 * DAY  # behind the validation period, which may choose
        changed = Log.from_columns(
            log.user_ids, log.item_ids, log.user, np.where(late, 3, log.item), log.timestamp,
            np.where(late, -1, log.feedback),
        )  # fmt: skip
        assert _same_weights(self.fit(changed), model)

    def test_its_grid_is_of_its_own_settings(self) -> None:
        grid = import_module(baseline_class(self.row).__module__).SPACE
        settings = type(getattr(Config().baselines, self.row.replace("-", "_")))
        for field, values in grid.items():
            assert len(values) > 1
            for value in values:
                assert getattr(settings.model_validate({field: value}), field) == value


def _same_weights(one: SequenceScorer, other: SequenceScorer) -> bool:
    weights, others = one.network.state_dict(), other.network.state_dict()
    assert weights.keys() == others.keys()
    return all(torch.equal(value, others[name]) for name, value in weights.items())
