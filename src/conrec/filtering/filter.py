"""The online filter: candidates that come too close to what the user will dislike are dropped, without an LLM.

A candidate is rebuilt from the stored codebooks and dropped when ``max_{i in predict set} sim(candidate, i)`` is
above the threshold (paper, Deployment). Where the filter knows too little (a user without a predict set, an item
that is not in the catalogue, a store that does not answer) it keeps the candidate and says so: it never drops what it
cannot judge.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32

from conrec.arrays import Array
from conrec.config import load_config
from conrec.filtering.calibrating.threshold import Threshold, read_threshold
from conrec.filtering.catalogue import FilterCatalogue
from conrec.filtering.decisions import (
    ALLOWED,
    DROPPED,
    DRY_RUN,
    EMPTY_SET,
    FLOOR,
    KEPT,
    NO_STORE,
    REASONS,
    UNKNOWN_ITEM,
    UNKNOWN_USER,
    Decision,
    Decisions,
    Filtered,
)
from conrec.filtering.explaining import PastDislikes
from conrec.filtering.policy import Policy
from conrec.filtering.stored import chosen_model
from conrec.filtering.stores.base import PredictSet, PredictSetReader, StoredSets, StoreUnavailableError
from conrec.filtering.stores.files import HEADER
from conrec.filtering.stores.opening import codebooks_of, open_store
from conrec.filtering.vectors.table import max_similarity
from conrec.filtering.weighing import Weighing

__all__ = ["REASONS", "Decision", "Decisions", "Filtered", "NegativeFilter"]


class NegativeFilter:
    """The filter of one model of a run. Threads may share it.

    Attributes:
        catalogue: items with their semantic IDs and rebuilt embeddings.
        store: predict sets.
        calibration: the threshold and what is known of it; None where it was given as a number.
        threshold: candidates with a similarity above it are dropped; None keeps everything. With thresholds by
            category (`Threshold.by_category`) those decide.
        policy: what is done beside it.
    """

    def __init__(
        self,
        catalogue: FilterCatalogue,
        store: PredictSetReader,
        threshold: Threshold | float | None,
        policy: Policy | None = None,
        past_dislikes: PastDislikes | None = None,
    ) -> None:
        self.catalogue, self.store = catalogue, store
        self.policy = Policy() if policy is None else policy
        self.calibration = threshold if isinstance(threshold, Threshold) else None
        self.threshold = threshold.threshold if isinstance(threshold, Threshold) else threshold
        self._by_item = self.calibration is not None and bool(self.calibration.by_category)
        if self.calibration is not None and self._by_item:
            of_items = self.calibration.thresholds_of_items(catalogue.details.categories)
        else:
            of_items = np.full(len(catalogue), _limit(self.threshold), dtype=np.float32)
        known = self.calibration
        self._weighing = Weighing(
            known.rank_weight if known else 1.0, known.score_weight if known else 0.0, self.policy.half_life_days
        )
        of_items = np.maximum(of_items, np.float32(self._weighing.least))
        fixed = not self._weighing.score_weight and self._weighing.half_life_days is None
        slots = np.arange(store.meta.slots, dtype=np.float64)
        self._by_rank = self._weighing.rank_weight**slots if fixed else None  # the same for every user
        self._limits = np.append(of_items, np.float32(np.inf))  # the last is that of unknown items
        listed = catalogue.indices(sorted(self.policy.allow))
        self._allowed = listed[listed >= 0]  # catalogue indices
        self._past_dislikes = past_dislikes

    @classmethod
    def load(
        cls,
        path: Path | str,
        model: str | None = None,
        *,
        policy: Policy | None = None,
        store: PredictSetReader | Path | str | None = None,
        catalogue: FilterCatalogue | None = None,
    ) -> NegativeFilter:
        """Open the filter of a model: its store, its threshold and the codebooks.

        Args:
            path: a run, or ``RUN/filter/MODEL``.
            model: one of the run's rows with a store; None: the only one, or "conrec".
            policy: None: as the run's settings say.
            store: where its predict sets are, instead of ``RUN/filter/MODEL``: a folder or ``valkey://host:port/NAME``,
                or a store that is open.
            catalogue: of the run, where it has been read already; None: it is read.

        Raises:
            ArtefactError: there is no such run or model, or a file of it is missing, damaged or of another SID table
                than the run's catalogue, to which items that were appended belong (`conrec.items.growing.growth`).
            StoreUnavailableError: the store's server does not answer.
        """
        path = Path(path)
        if model is None and (path / HEADER).is_file():
            path, model = path.parent.parent, path.name
        model = chosen_model(path, model)
        if catalogue is None:
            catalogue = FilterCatalogue.load(path, grown=True)
        if store is None or isinstance(store, Path | str):
            # Codes never move: a store and a threshold from before an append name the same items after it.
            place = path / "filter" / model if store is None else store
            store = open_store(place, catalogue.sid_hash, catalogue.earlier, codebook_hash=codebooks_of(path))
        threshold = read_threshold(path, model, catalogue.sid_hash, catalogue.earlier)
        if policy is None:
            settings = path / "config.toml"
            policy = Policy.of(load_config(file=settings).filter) if settings.is_file() else Policy()
        return cls(catalogue, store, threshold, policy, PastDislikes(path))

    def indices(self, item_ids: Sequence[str | None]) -> Int32[Array, " n"]:
        """Catalogue index of each item ID, -1 where it is unknown or null."""
        return self.catalogue.indices(item_ids)

    def mask(self, user_id: str, items: Int[Array, " n"], *, now: float | None = None) -> Bool[Array, " n"]:
        """Which candidates of a user are dropped; the fast path, for platforms that keep catalogue indices.

        Args:
            user_id: the user.
            items: catalogue indices (`indices`); what no item has counts as unknown; repeats are fine.
            now: unix seconds, for predictions that age; None: now.

        Returns:
            As `judge` says, without the similarities.
        """
        policy = self.policy
        nothing = np.zeros(len(items), dtype=np.bool_)
        try:
            known = None if policy.dry_run else self.store.get(user_id)
        except StoreUnavailableError:
            return nothing
        if known is None or not len(known):
            return nothing
        members = self.catalogue.items_of(known.codes)
        if self._by_rank is not None:
            one = self._by_rank[: len(members)]
        else:
            at = np.asarray([known.predicted_at], dtype=np.int64)
            weights = self._weighing.weights(known.scores[None, :], at, now)
            one = np.ones(len(members)) if weights is None else weights[0]
        if members.min() < 0:
            members, one = members[members >= 0], one[members >= 0]
        if self._by_item:
            items = self.catalogue.table.known(items)
        limits = self._limits[items] if self._by_item else np.full(len(items), self._limits[0], dtype=np.float32)
        dropped = self.catalogue.table.dropped(items, members, one, limits)
        if policy.allow:
            dropped &= ~np.isin(items, self._allowed)
        if policy.keep_at_least and len(items) - int(dropped.sum()) < policy.keep_at_least:
            predicted, row = members[None, :], np.zeros(len(items), dtype=np.int64)
            similarity, _ = max_similarity(self.catalogue.table, predicted, row, items, one[None, :])
            dropped &= ~policy.spared(dropped, similarity)
        return dropped

    def judge(
        self,
        user_id: str,
        item_ids: Sequence[str | None],
        *,
        threshold: float | None = None,
        allow: Collection[str] = (),
        dry_run: bool | None = None,
        now: float | None = None,
    ) -> Decisions:
        """What the filter says of the candidates of one request of a user.

        Args:
            user_id: the user.
            item_ids: candidates; null is an unknown item, repeats are fine.
            threshold: in place of the calibrated one, which has the guarantee; None: the calibrated one.
            allow: items that are not dropped this time, beside those of the policy.
            dry_run: as `Policy.dry_run`; None: as the policy says.
            now: unix seconds, for predictions that age; None: now.
        """
        items = self.catalogue.indices(item_ids)
        row = np.zeros(len(items), dtype=np.int64)
        limits = None
        if threshold is not None:
            limits = np.full(len(items), max(threshold, self._weighing.least), dtype=np.float32)
        dry = self.policy.dry_run if dry_run is None else dry_run
        allowed = self.policy.allowed(item_ids, frozenset(allow))
        return self._judged([user_id], row, items, row, limits, allowed, dry, now)

    def decide(self, user_ids: Sequence[str | None], item_ids: Sequence[str | None]) -> Decisions:
        """Judge n pairs at once; a user or item that is null counts as unknown.

        `Policy.keep_at_least` holds for all candidates of a user: each user's are one request.

        Args:
            user_ids: user of each pair.
            item_ids: candidate of each pair.
        """
        position: dict[str, int] = {}
        sets = np.asarray(
            [-1 if user is None else position.setdefault(user, len(position)) for user in user_ids], dtype=np.int64
        )
        return self.decide_rows(list(position), sets, self.catalogue.indices(item_ids))

    def decide_rows(
        self,
        user_ids: Sequence[str],
        sets: Int[Array, " n"],
        items: Int32[Array, " n"],
        requests: Int[Array, " n"] | None = None,
        *,
        now: float | None = None,
    ) -> Decisions:
        """Judge n pairs of users and items that were looked up already.

        Args:
            user_ids: distinct.
            sets: row of ``user_ids`` for each pair, -1 for none.
            items: catalogue index of each pair's candidate, -1 for none.
            requests: which pairs were asked together, for `Policy.keep_at_least`; None: those of each user.
            now: unix seconds, for predictions that age; None: now.
        """
        items = self.catalogue.table.known(items)
        allowed = np.isin(items, self._allowed) if self.policy.allow else None
        together = sets if requests is None else requests
        return self._judged(user_ids, sets, items, together, None, allowed, self.policy.dry_run, now)

    def filter(
        self, user_id: str, item_ids: Sequence[str], *, allow: Collection[str] = (), dry_run: bool | None = None
    ) -> Filtered:
        """Which candidates of a user are kept and which are dropped, and why; arguments as those of `judge`."""
        judged = self._in_words(item_ids, self.judge(user_id, item_ids, allow=allow, dry_run=dry_run))
        return Filtered(tuple(one for one in judged if not one.dropped), tuple(one for one in judged if one.dropped))

    def explain(
        self, user_id: str, item_ids: Sequence[str], *, count: int = 3, seconds: float | None = None
    ) -> list[Decision]:
        """`filter` in the given order, each with the past dislikes of the user that are nearest to the candidate.

        Args:
            user_id: the user.
            item_ids: candidates.
            count: of past dislikes for each candidate.
            seconds: that looking into the run's log may take; None: as long as it takes.

        Raises:
            ArtefactError: the run's log is damaged. Without a log there are no past dislikes.
            LogTooLargeError: it took too long (`conrec.filtering.explaining`).
        """
        judged = self._in_words(item_ids, self.judge(user_id, item_ids))
        if self._past_dislikes is None:
            return judged
        near = self._past_dislikes.nearest(self.catalogue, user_id, self.catalogue.indices(item_ids), count, seconds)
        return [replace(one, past_dislikes=past) for one, past in zip(judged, near, strict=True)]

    def predict_set(self, user_id: str) -> PredictSet | None:
        """What is predicted for a user, None for a user who is not in the store.

        Raises:
            StoreUnavailableError: the store does not answer.
        """
        return self.store.get(user_id)

    def similarities(self, user_id: str, item_ids: Sequence[str]) -> Float32[Array, " items"]:
        """Similarity of each candidate to the nearest item of the user's predict set, NaN where it is unknown."""
        return self.judge(user_id, item_ids).similarity

    def _judged(
        self,
        user_ids: Sequence[str],
        sets: Array,
        items: Array,
        requests: Array,
        limits: Array | None,
        allowed: Array | None,
        dry_run: bool,
        now: float | None,
    ) -> Decisions:
        try:
            stored: StoredSets = self.store.get_many(user_ids)
        except StoreUnavailableError:
            count = len(items)
            unknown = np.full(count, np.nan, dtype=np.float32), np.full(count, -1, dtype=np.int32)
            return Decisions(*unknown, np.full(count, NO_STORE, dtype=np.int8))
        predicted = self.catalogue.items_of(stored.codes)
        weights = self._weighing.weights(stored.scores, stored.predicted_at, time.time() if now is None else now)
        known_user = np.append(stored.found, False)[sets]  # -1 is the last: unknown
        rows = np.where(known_user, sets, -1)
        similarity, nearest = max_similarity(self.catalogue.table, predicted, rows, items, weights)
        above = similarity > (self._limits[items] if limits is None else limits)  # NaN is never above
        reason = np.where(above, DROPPED, KEPT)
        if allowed is not None:
            reason[above & allowed] = ALLOWED
        reason[self.policy.spared(reason == DROPPED, similarity, requests)] = FLOOR
        if dry_run:
            reason[reason == DROPPED] = DRY_RUN
        reason[np.isnan(similarity)] = EMPTY_SET
        reason[items < 0] = UNKNOWN_ITEM
        reason[~known_user] = UNKNOWN_USER
        return Decisions(similarity, nearest, reason.astype(np.int8))

    def _in_words(self, item_ids: Sequence[str], decisions: Decisions) -> list[Decision]:
        catalogue = self.catalogue
        return [
            Decision(
                item_id=item_id,
                dropped=reason == DROPPED,
                similarity=None if np.isnan(similarity) else similarity,
                nearest_sid=catalogue.sid_text(nearest),
                nearest_item=None if nearest < 0 else catalogue.item_ids[nearest],
                reason=REASONS[reason],
            )
            for item_id, similarity, nearest, reason in zip(
                item_ids,
                decisions.similarity.tolist(),
                decisions.nearest.tolist(),
                decisions.reason.tolist(),
                strict=True,
            )
        ]


def _limit(threshold: float | None) -> float:
    return np.inf if threshold is None else threshold
