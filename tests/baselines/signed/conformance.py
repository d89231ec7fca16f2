"""What every row over both signs must do, beyond the contract of all rows."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from conrec.baselines.registry import baseline_class
from conrec.baselines.signed.scorer import SignedScorer
from conrec.config import Config
from conrec.errors import ArtefactError, DataError
from conrec.logs.log import Log
from conrec.workspace import Workspace
from tests.baselines.signed.worlds import SIGN_CUT, answers_signs, signs
from tests.baselines.worlds import space_of
from tests.conformance import CUT, LOVER, SILENT, CatalogueScorerConformance, queries_of, small_log


class SignedConformance(CatalogueScorerConformance):
    """Inherited by a test class of each row; it says the row's name and small settings."""

    row: ClassVar[str]
    small: ClassVar[dict[str, Any]]
    """Settings with which it is fitted in a moment."""
    learns: ClassVar[dict[str, Any]]
    """Those with which it learns `signs`."""
    right = 0.9
    """Share of `signs` that it then answers rightly."""

    def space(self, log: Log, cut: int, seed: int = 0, **changes: Any) -> Workspace:
        section = {self.row.replace("-", "_"): {**self.small, **changes}}
        return space_of(log, cut, {"baselines": section}, seed=seed)

    def fit(self, log: Log, cut: int) -> SignedScorer:
        return self.fitted(self.space(log, cut))

    def fitted(self, space: Workspace) -> SignedScorer:
        model = baseline_class(self.row).fit(space, self.row)
        assert isinstance(model, SignedScorer)
        return model

    def test_it_learns_where_the_sign_decides(self) -> None:
        log = signs()
        model = self.fitted(self.space(log, SIGN_CUT, **self.learns))
        assert answers_signs(model, log) > self.right
        assert model.curve["validation_fhr@20"] == []
        loss = [value for _, value in model.curve["loss"]]
        assert loss[-1] < loss[0] / 2

    @pytest.mark.parametrize("targets", ["anchors", "next"])
    def test_it_learns_from_other_questions_too(self, targets: str) -> None:
        log = signs(users=32)
        model = self.fitted(self.space(log, SIGN_CUT, **{**self.learns, "targets": targets, "epochs": 4}))
        first, *_, last = [value for _, value in model.curve["loss"]]
        assert last < first

    def test_one_seed_one_model_whatever_was_drawn_before(self) -> None:
        log = small_log()
        first = self.fit(log, CUT)
        torch.rand(17)
        before = torch.random.get_rng_state()
        second = self.fit(log, CUT)
        assert torch.equal(torch.random.get_rng_state(), before)
        assert first.curve == second.curve
        for name, one in first.network.state_dict().items():
            assert torch.equal(one, second.network.state_dict()[name])
        assert self.fitted(self.space(log, CUT, seed=1)).curve != first.curve

    def test_saved_and_loaded_it_answers_to_the_byte(self, tmp_path: Path) -> None:
        log = small_log()
        space = self.space(log, CUT)
        model = self.fitted(space)
        model.save(tmp_path)
        loaded = type(model).load(tmp_path, self.space(log, CUT), self.row)
        assert loaded.curve == model.curve
        assert loaded.parameters == model.parameters > 0
        queries = queries_of(log)
        np.testing.assert_array_equal(loaded.scores(log, queries), model.scores(log, queries))

    def test_a_damaged_folder_is_refused(self, tmp_path: Path) -> None:
        space = self.space(small_log(), CUT)
        model = self.fitted(space)
        model.save(tmp_path)
        (tmp_path / "config.json").write_text('{"kind": "something else", "n_items": 30, "settings": {}}')
        with pytest.raises(ArtefactError, match="not a saved"):
            type(model).load(tmp_path, space, self.row)
        (tmp_path / "model.safetensors").unlink()
        with pytest.raises(ArtefactError):
            type(model).load(tmp_path, space, self.row)

    def test_no_dislikes_to_learn_from_is_an_error(self) -> None:
        log = small_log()
        liked = Log.from_columns(log.user_ids, log.item_ids, log.user, log.item, log.timestamp, np.ones(len(log)))
        with pytest.raises(DataError, match="no negative events"):
            self.fit(liked, CUT)

    def test_events_after_the_training_period_do_not_train(self) -> None:
        log = small_log()
        late = log.timestamp >= CUT + 15 * 86_400  # behind the validation period, which may choose
        changed = Log.from_columns(
            log.user_ids, log.item_ids, log.user, np.where(late, 3, log.item), log.timestamp,
            np.where(late, -1, log.feedback),
        )  # fmt: skip
        first, second = self.fit(log, CUT).network.state_dict(), self.fit(changed, CUT).network.state_dict()
        for name, one in first.items():
            assert torch.equal(one, second[name])

    def test_a_like_changes_the_answer(self, log: Log, model: SignedScorer) -> None:
        queries = queries_of(log)
        flipped = Log.from_columns(
            log.user_ids, log.item_ids, log.user, log.item, log.timestamp, np.where(log.feedback == 1, 0, log.feedback)
        )
        given, changed = model.scores(log, queries), model.scores(flipped, queries)
        assert (given[queries.user == LOVER] != changed[queries.user == LOVER]).any()
        np.testing.assert_array_equal(given[queries.user == SILENT], changed[queries.user == SILENT])

    def test_its_grid_is_of_its_own_settings(self) -> None:
        grid = import_module(baseline_class(self.row).__module__).SPACE
        settings = type(getattr(Config().baselines, self.row.replace("-", "_")))
        for field, values in grid.items():
            assert len(values) > 1
            for value in values:
                assert getattr(settings.model_validate({field: value}), field) == value
