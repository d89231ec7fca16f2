"""The threshold that validation gives a method for a bound, as the filter would have it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool

from conrec.arrays import Array
from conrec.filtering.analysis.intervals import DECIMALS
from conrec.filtering.analysis.methods import Judged, Method
from conrec.filtering.analysis.pairs import NEGATIVES, POSITIVES
from conrec.filtering.calibrating.control import Liked, Rule, smallest_threshold
from conrec.filtering.calibrating.segments import Segments

__all__ = ["calibrated_at"]


def calibrated_at(
    method: Method, rule: Rule, validation: Judged, test: Judged, segments: Segments | None = None
) -> tuple[dict[str, Any], Bool[Array, " pairs"]]:
    """What is chosen on validation, what it does there, and which test pairs it drops.

    A row of the run is calibrated as `conrec.filtering.calibrating.calibration` does it: without the pairs that have
    no similarity, with no threshold that the filter would not have, and by category where that is set. A rule's scores
    are no similarities: it has one threshold for all items, and what it knows nothing of is among its pairs.

    Args:
        method: with its scores.
        rule: the bound and what is promised of it.
        validation, test: the pairs that are scored.
        segments: where categories have thresholds of their own.

    Returns:
        ``{"bound", "threshold", "by_category", "validation": {"false_filter_rate", "user_false_filter_rate",
        "caught"}}``, and the test pairs that are dropped.
    """
    row = method.kind == "model"
    pairs, scores = validation.pairs, method.validation
    users = validation.anchors.user[pairs.anchor]
    known = scores > np.float32(method.floor) if row else np.ones(len(pairs), dtype=np.bool_)
    positive, negative = (pairs.of_kind(kind) & known for kind in (POSITIVES, NEGATIVES))
    liked = Liked.of(scores[positive], users[positive])
    threshold: float | None = None
    by_category: dict[str, float | None] = {}
    if row and segments is not None:
        by_category = segments.thresholds(scores[positive], users[positive], pairs.item[positive], rule)
        of_items = segments.of_items(by_category)
        gone, after = scores > of_items[pairs.item], method.test > of_items[test.pairs.item]
    else:
        threshold = smallest_threshold(liked, rule if row else replace(rule, least=-np.inf))
        limit = np.float32(np.inf if threshold is None else threshold)
        gone, after = scores > limit, method.test > limit
    figures = {
        "false_filter_rate": _mean(gone[positive]),
        "user_false_filter_rate": liked.rate(gone[positive]),
        "caught": _mean(gone[negative]),
    }
    found = {"bound": rule.bound, "threshold": threshold, "by_category": by_category, "validation": figures}
    return found, np.asarray(after)


def _mean(values: Array) -> float | None:
    return round(float(values.mean()), DECIMALS) if len(values) else None
