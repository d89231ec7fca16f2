"""Calibrating the filter on validation anchors.

The predict set of an anchor is the first ``prediction.predict_set`` items of ``predictions/MODEL.parquet``. What the
user liked in the anchor's window (future positives) and is dropped is a false filter; what he disliked there
(future negatives) and is dropped was rightly caught. The threshold comes from validation anchors alone.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np

from conrec.arrays import Array
from conrec.config import Config
from conrec.evaluation.evaluate import RunData
from conrec.filtering.calibrating.control import Liked, Rule, smallest_threshold
from conrec.filtering.calibrating.segments import Segments, segments_of
from conrec.filtering.calibrating.similarities import AnchorSimilarities, split_similarities
from conrec.filtering.calibrating.threshold import BOUNDS, Choice, Threshold, trade_off, write_threshold
from conrec.filtering.calibrating.words import statement
from conrec.filtering.catalogue import FilterCatalogue

__all__ = ["calibrate"]


def calibrate(run_folder: Path, model: str, data: RunData, catalogue: FilterCatalogue, config: Config) -> Threshold:
    """Choose the threshold of a model on validation anchors and write ``RUN/filter/MODEL.json``.

    Args:
        run_folder: the run, with ``predictions/MODEL.parquet``.
        model: name of the row.
        data: log and anchors of the run.
        catalogue: its items, with their details where categories have thresholds of their own.
        config: for ``filter`` and ``prediction.predict_set``.

    Raises:
        ArtefactError: the predictions are missing, damaged, or lack a validation anchor.
    """
    anchors, similarities = split_similarities(run_folder, model, data, catalogue, config, "validation")
    rule = Rule.of(config.filter)
    trial = _Trial(similarities, anchors.user[similarities.positives.anchor])
    if config.filter.segments == "category":
        training = data.log.before(data.periods.validation)
        trial.segments = segments_of(catalogue.details.categories, training, config.filter.segment_users)
    chosen, by_category = trial.choose(rule)
    choices = [trial.choice(replace(rule, bound=bound)) for bound in sorted({*BOUNDS, rule.bound})]
    thresholds = [one for one in (chosen, *(each.threshold for each in choices)) if one is not None]
    false_filters, caught = trial.dropped(chosen, by_category)
    able = sum(value is not None and value < 1 for value in by_category.values()) if by_category else None
    liked = trial.liked
    threshold = Threshold(
        model=model,
        threshold=chosen,
        bound=rule.bound,
        statement=statement(rule, liked, chosen, int(false_filters.sum()), able),
        anchors=len(anchors),
        users=len(np.unique(anchors.user)),
        positives=len(similarities.positives),
        false_filters=int(false_filters.sum()),
        negatives=len(similarities.negatives),
        caught=int(caught.sum()),
        sid_hash=catalogue.sid_hash,
        curve=trade_off(liked, similarities.negatives.similarity, thresholds, least=rule.least),
        rate=rule.rate,
        guarantee=rule.guarantee,
        confidence=rule.confidence if rule.guarantee == "probability" else None,
        pairs_per_user=rule.cap,
        liked_users=liked.users,
        user_rate=liked.rate(false_filters),
        by_category=by_category,
        pooled=trial.pooled,
        choices=tuple(choices),
        rank_weight=config.filter.rank_weight,
        score_weight=config.filter.score_weight,
    )
    write_threshold(run_folder, threshold)
    return threshold


class _Trial:
    """Validation data, and what a threshold does on it.

    Args:
        similarities: of the validation anchors.
        users: whose each liked candidate is.
    """

    def __init__(self, similarities: AnchorSimilarities, users: Array) -> None:
        self.positives, self.negatives, self.users = similarities.positives, similarities.negatives, users
        self.liked = Liked.of(self.positives.similarity, users)
        self.segments: Segments | None = None

    @property
    def pooled(self) -> tuple[str, ...]:
        """The categories that share one threshold."""
        if self.segments is None:
            return ()
        return tuple(name for name, one in zip(self.segments.names, self.segments.pooled, strict=True) if one)

    def choose(self, rule: Rule) -> tuple[float | None, dict[str, float | None]]:
        """The threshold of all items together, and that of each category, where each has its own."""
        one = smallest_threshold(self.liked, rule)
        if self.segments is None:
            return one, {}
        return one, self.segments.thresholds(self.positives.similarity, self.users, self.positives.item, rule)

    def dropped(self, chosen: float | None, by_category: dict[str, float | None]) -> tuple[Array, Array]:
        """Which liked and which disliked candidates are dropped, bool each."""
        pairs = (self.positives, self.negatives)
        if self.segments is not None:
            of_item = self.segments.of_items(by_category)
            first, second = (one.similarity > of_item[one.item] for one in pairs)
        else:
            first, second = (one.similarity > np.float32(inf if chosen is None else chosen) for one in pairs)
        return first, second

    def choice(self, rule: Rule) -> Choice:
        """What the rule chooses, and what that does."""
        chosen, by_category = self.choose(rule)
        false_filters, caught = self.dropped(chosen, by_category)
        values = by_category.values() if by_category else (chosen,)
        return Choice(
            rule.bound,
            all(value is None or value >= 1 for value in values),
            None if by_category else chosen,
            self.liked.rate(false_filters, None),
            float(caught.mean()) if len(caught) else None,
            self.liked.rate(false_filters),
        )
