"""What every row over both signs must do, beyond what all trained rows must."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

from conrec.baselines.signed.scorer import SignedScorer
from conrec.logs.log import Log
from conrec.workspace import Workspace
from tests.baselines.conformance import TrainedConformance
from tests.baselines.signed.worlds import SIGN_CUT, answers_signs, signs
from tests.conformance import LOVER, SILENT, queries_of


class SignedConformance(TrainedConformance):
    """Inherited by a test class of each row; it also says with what settings it learns."""

    learns: ClassVar[dict[str, Any]]
    """Those with which it learns `signs`."""
    right = 0.9
    """Share of `signs` that it then answers rightly."""

    def fitted(self, space: Workspace) -> SignedScorer:
        model = super().fitted(space)
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

    def test_a_like_changes_the_answer(self, log: Log, model: SignedScorer) -> None:
        queries = queries_of(log)
        flipped = Log.from_columns(
            log.user_ids, log.item_ids, log.user, log.item, log.timestamp, np.where(log.feedback == 1, 0, log.feedback)
        )
        given, changed = model.scores(log, queries), model.scores(flipped, queries)
        assert (given[queries.user == LOVER] != changed[queries.user == LOVER]).any()
        np.testing.assert_array_equal(given[queries.user == SILENT], changed[queries.user == SILENT])
