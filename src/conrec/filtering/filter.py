"""The online filter: candidates that come too close to what the user will dislike are dropped, without an LLM.

A candidate is rebuilt from the stored codebooks and dropped when ``max_{i in predict set} sim(candidate, i)`` is
above the threshold (paper, Deployment). Where the filter knows too little (a user without a predict set, an item
that is not in the catalogue) it keeps the candidate and says so: it never drops what it cannot judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from conrec.arrays import Array
from conrec.errors import ArtefactError, did_you_mean
from conrec.filtering.calibrating.threshold import Threshold, above, read_threshold
from conrec.filtering.catalogue import FilterCatalogue, max_similarity
from conrec.filtering.stores.base import Origin, PredictSetReader, StoreMeta
from conrec.filtering.stores.opening import codebooks_of, open_store
from conrec.filtering.stores.writer import HEADER, write_store
from conrec.recommender import Ranking

__all__ = ["REASONS", "Decision", "Decisions", "Filtered", "NegativeFilter", "stored_models", "write_predict_sets"]

KEPT, DROPPED, UNKNOWN_USER, UNKNOWN_ITEM, EMPTY_SET = range(5)
REASONS = (
    "not above the threshold",
    "above the threshold",
    "unknown user",
    "unknown item",
    "empty predict set",
)
"""Why a candidate was kept or dropped. Only the second one drops."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """What the filter says of n (user, candidate) pairs.

    Attributes:
        similarity: float32 [n], to the nearest item of the user's predict set; NaN where it is unknown.
        nearest: int32 [n], catalogue index of that item; -1 where there is none.
        reason: int8 [n], index into `REASONS`.
    """

    similarity: Array
    nearest: Array
    reason: Array

    def __len__(self) -> int:
        return len(self.reason)

    @property
    def dropped(self) -> Array:
        """Whether each candidate is dropped, bool [n]."""
        return np.asarray(self.reason == DROPPED)


@dataclass(frozen=True, slots=True)
class Decision:
    """What the filter says of one candidate.

    Attributes:
        item_id: the candidate.
        dropped: whether it is dropped.
        similarity: to the nearest prediction, None where it is unknown.
        nearest_sid: semantic ID of the nearest prediction, ``a_5 b_2 c_9``, or None.
        nearest_item: the item of that semantic ID, or None.
        reason: one of `REASONS`.
    """

    item_id: str
    dropped: bool
    similarity: float | None
    nearest_sid: str | None
    nearest_item: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Filtered:
    """Candidates of one user, both lists in the given order."""

    kept: tuple[Decision, ...]
    dropped: tuple[Decision, ...]


class NegativeFilter:
    """The filter of one model of a run.

    Attributes:
        catalogue: items with their semantic IDs and rebuilt embeddings.
        store: predict sets.
        threshold: candidates with a similarity above it are dropped; None keeps everything.
    """

    def __init__(self, catalogue: FilterCatalogue, store: PredictSetReader, threshold: float | None) -> None:
        self.catalogue, self.store, self.threshold = catalogue, store, threshold

    @classmethod
    def load(cls, run_folder: Path, model: str) -> NegativeFilter:
        """Open the filter of ``model``: its store, its threshold and the codebooks.

        Raises:
            ArtefactError: there is no such run or model, or a file of it is missing, damaged or of another SID table
                than the run's catalogue, to which items that were appended belong (`conrec.items.growing.growth`).
        """
        known = stored_models(run_folder)
        if model not in known:
            raise ArtefactError(
                f"there is no predict-set store of a model {model!r}",
                where=str(run_folder / "filter"),
                mend=f"{did_you_mean(model, known)} Stores are written for the models in filter.models; with another "
                "list the same run command adds them."
                if known
                else "The filter stage of this run has not finished: give the command of the run again.",
            )
        catalogue = FilterCatalogue.load(run_folder, grown=True)
        # Codes never move: a store and a threshold from before an append name the same items after it.
        place = run_folder / "filter" / model
        codebooks = codebooks_of(run_folder)
        store = open_store(place, catalogue.sid_hash, catalogue.earlier, codebook_hash=codebooks)
        threshold: Threshold = read_threshold(run_folder, model, catalogue.sid_hash, catalogue.earlier)
        return cls(catalogue, store, threshold.threshold)

    def decide(self, user_ids: Sequence[str | None], item_ids: Sequence[str | None]) -> Decisions:
        """Judge n pairs at once; a user or item that is null counts as unknown.

        Args:
            user_ids: user of each pair.
            item_ids: candidate of each pair.
        """
        position: dict[str, int] = {}
        sets = np.asarray(
            [-1 if user is None else position.setdefault(user, len(position)) for user in user_ids], dtype=np.int64
        )
        stored = self.store.get_many(list(position))
        predicted = self.catalogue.items_of(stored.codes)
        known_user = np.append(stored.found, False)[sets]  # -1 is the last: unknown
        items = self.catalogue.indices(item_ids)
        similarity, nearest = max_similarity(self.catalogue.rebuilt, predicted, np.where(known_user, sets, -1), items)
        reason = np.where(above(similarity, self.threshold), DROPPED, KEPT)
        reason[np.isnan(similarity)] = EMPTY_SET
        reason[items < 0] = UNKNOWN_ITEM
        reason[~known_user] = UNKNOWN_USER
        return Decisions(similarity, nearest, reason.astype(np.int8))

    def similarities(self, user_id: str, item_ids: Sequence[str]) -> Float32[Array, " items"]:
        """Similarity of each candidate to the nearest item of the user's predict set, NaN where it is unknown."""
        return self.decide([user_id] * len(item_ids), item_ids).similarity

    def filter(self, user_id: str, item_ids: Sequence[str]) -> Filtered:
        """Which candidates of a user are kept and which are dropped, and why."""
        decisions = self.decide([user_id] * len(item_ids), item_ids)
        judged = [self._decision(item_id, decisions, row) for row, item_id in enumerate(item_ids)]
        return Filtered(tuple(one for one in judged if not one.dropped), tuple(one for one in judged if one.dropped))

    def _decision(self, item_id: str, decisions: Decisions, row: int) -> Decision:
        nearest, similarity = int(decisions.nearest[row]), float(decisions.similarity[row])
        return Decision(
            item_id=item_id,
            dropped=bool(decisions.dropped[row]),
            similarity=None if np.isnan(similarity) else similarity,
            nearest_sid=self.catalogue.sid_text(nearest),
            nearest_item=None if nearest < 0 else self.catalogue.item_ids[nearest],
            reason=REASONS[int(decisions.reason[row])],
        )


def stored_models(run_folder: Path) -> list[str]:
    """Models of a run that have a predict-set store, sorted.

    Raises:
        ArtefactError: there is no such folder.
    """
    if not run_folder.is_dir():
        raise ArtefactError("there is no run here", where=str(run_folder), expected="the folder of a finished run")
    return sorted(header.parent.name for header in (run_folder / "filter").glob(f"*/{HEADER}"))


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
