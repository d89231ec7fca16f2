"""From a model's rankings to the predict-set store of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from conrec.filtering.catalogue import FilterCatalogue
from conrec.filtering.stores.base import Origin, StoreMeta
from conrec.filtering.stores.opening import codebooks_of
from conrec.filtering.stores.writer import write_store
from conrec.recommender import Ranking

__all__ = ["write_predict_sets"]


def write_predict_sets(
    run_folder: Path,
    model: str,
    user_ids: Sequence[str],
    ranking: Ranking,
    catalogue: FilterCatalogue,
    *,
    predict_set: int = 20,
    model_version: str = "",
    predicted_at: int | None = None,
    written_at: int | None = None,
) -> StoreMeta:
    """Store the first ``predict_set`` items of each user's ranking as ``RUN/filter/MODEL``.

    Args:
        run_folder: the run.
        model: name of the row.
        user_ids: user of each row of ``ranking``.
        ranking: item int32 [users, K] and score.
        catalogue: the run's items.
        predict_set: size of the predict set (`prediction.predict_set`).
        model_version: hash of what the row has learned (`conrec.predicting.plan.weights_hash`).
        predicted_at: unix seconds, up to which the predictions knew each user; None: as ``written_at``.
        written_at: unix seconds; None: now.
    """
    items, scores = ranking.item[:, :predict_set], ranking.score[:, :predict_set]
    codes = np.where((items >= 0)[:, :, None], catalogue.sids.resolved[items], -1)
    return write_store(
        run_folder / "filter" / model,
        user_ids,
        codes,
        scores,
        Origin(model, model_version, catalogue.sid_hash, codebooks_of(run_folder), catalogue.sids.sizes),
        predicted_at=predicted_at,
        written_at=written_at,
    )
