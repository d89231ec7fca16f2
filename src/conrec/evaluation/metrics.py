"""The metrics of the table, each as one value an anchor; a figure is the mean over the anchors that count.

Every function returns float64 [anchors], NaN where the anchor does not count for the metric (a long-tail metric on an
anchor outside the long tail). Means, intervals and comparisons are then the same few lines for all of them
(`conrec.evaluation.significance`). Order within the top K has no meaning here: a dislike at rank 20 is as real as one
at rank 1, so there is no NDCG (CoNRec, arXiv 2601.15721, section on metrics).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Int32

from conrec.arrays import Array, Ragged
from conrec.logs.anchors import Anchors
from conrec.protocol import LONG_TAIL_ITEM_NEGATIVES

__all__ = [
    "anchor_values",
    "candidate_accuracy",
    "fhr",
    "hr",
    "lif",
    "luf",
    "mean",
    "restricted",
]


def hr(top: Int32[Array, "anchors k"], next_item: Int32[Array, " anchors"]) -> Float64[Array, " anchors"]:
    """HR@K, hit rate on the next item: ``HR@K(a) = 1 if next(a) in top_K(a) else 0``.

    Args:
        top: K items of each anchor, -1 for none.
        next_item: first future negative of each anchor.

    >>> top = np.array([[3, 5], [3, 5]], dtype=np.int32)
    >>> hr(top, np.array([5, 4], dtype=np.int32)).tolist()
    [1.0, 0.0]
    """
    hits: Array = (top == next_item[:, None]).any(axis=1)
    return hits.astype(np.float64)


def fhr(top: Int32[Array, "anchors k"], future_negatives: Ragged) -> Float64[Array, " anchors"]:
    """FHR@K, future hit rate: ``FHR@K(a) = 1 if top_K(a) and future(a) share an item else 0``.

    Args:
        top: K items of each anchor, -1 for none.
        future_negatives: distinct negatives of each anchor's window.

    >>> top = np.array([[3, 5], [3, 5]], dtype=np.int32)
    >>> fhr(top, Ragged.from_rows([[9, 3], [4]])).tolist()
    [1.0, 0.0]
    """
    row = np.repeat(np.arange(len(future_negatives)), future_negatives.lengths)
    hit = (top[row] == future_negatives.values[:, None]).any(axis=1)
    return np.bincount(row[hit], minlength=len(top)).clip(max=1).astype(np.float64)


def luf(
    top: Int32[Array, "anchors k"], future_negatives: Ragged, long_tail_user: Bool[Array, " anchors"]
) -> Float64[Array, " anchors"]:
    """LUF@K, FHR@K over long-tail users: fewer than 3 negatives in the training period.

    ``LUF@K(a) = FHR@K(a)`` where the anchor's user is in the long tail; other anchors do not count.

    >>> top = np.array([[3, 5], [3, 5]], dtype=np.int32)
    >>> luf(top, Ragged.from_rows([[9, 3], [4]]), np.array([False, True])).tolist()
    [nan, 0.0]
    """
    return restricted(fhr(top, future_negatives), long_tail_user)


def lif(
    top: Int32[Array, "anchors k"], future_negatives: Ragged, item_negatives: Int[Array, " items"]
) -> Float64[Array, " anchors"]:
    """LIF@K, FHR@K on long-tail items: fewer than 5 negatives in the training period.

    ``LIF@K(a) = 1 if top_K(a) and tail(future(a)) share an item else 0``, over anchors whose tail is not empty.

    Args:
        top: K items of each anchor, -1 for none.
        future_negatives: distinct negatives of each anchor's window.
        item_negatives: negatives of each catalogue item in the training period.

    >>> top = np.array([[0, 2], [0, 2], [0, 2]], dtype=np.int32)
    >>> lif(top, Ragged.from_rows([[0, 1], [1, 2], [0]]), np.array([90, 4, 0])).tolist()
    [0.0, 1.0, nan]
    """
    in_tail = item_negatives[future_negatives.values] < LONG_TAIL_ITEM_NEGATIVES
    row = np.repeat(np.arange(len(future_negatives)), future_negatives.lengths)
    kept = np.bincount(row[in_tail], minlength=len(future_negatives))
    tail = Ragged(np.r_[0, np.cumsum(kept)].astype(np.int64), future_negatives.values[in_tail])
    return restricted(fhr(top, tail), kept > 0)


def candidate_accuracy(
    scores: Float32[Array, "anchors candidates"],
    candidates: Int32[Array, "anchors candidates"],
    answer: Int32[Array, " anchors"],
) -> Float64[Array, " anchors"]:
    """Candidate accuracy: ``1 / n`` where the true negative is one of n candidates with the highest score, else 0.

    n = 1 is a right answer; a model that gives all candidates one score gets chance. Anchors whose candidates do not
    hold the true negative (training anchors have none) do not count.

    Args:
        scores: score of each candidate.
        candidates: items, -1 for none.
        answer: the true negative of each anchor.

    >>> candidates = np.array([[7, 8, 9]] * 3, dtype=np.int32)
    >>> scores = np.array([[2, 1, 0], [1, 1, 0], [0, 1, 0]], dtype=np.float32)
    >>> candidate_accuracy(scores, candidates, np.array([7, 7, 7], dtype=np.int32)).tolist()
    [1.0, 0.5, 0.0]
    """
    real = candidates >= 0
    true = real & (candidates == answer[:, None])
    best = np.where(real, scores, -np.inf).max(axis=1, initial=-np.inf)
    at_top = real & (scores == best[:, None])
    value = (true & at_top).any(axis=1) / np.maximum(at_top.sum(axis=1), 1)
    return restricted(value.astype(np.float64), true.any(axis=1))


def restricted(values: Float64[Array, " anchors"], keep: Bool[Array, " anchors"]) -> Float64[Array, " anchors"]:
    """The same values with NaN where an anchor does not count.

    >>> restricted(np.array([1.0, 0.0]), np.array([False, True])).tolist()
    [nan, 0.0]
    """
    return np.where(keep, values, np.nan)


def mean(values: Float64[Array, " anchors"]) -> float:
    """Mean over the anchors that count; NaN where none does.

    >>> mean(np.array([1.0, np.nan, 0.0]))
    0.5
    """
    counts = ~np.isnan(values)
    return float(values[counts].mean()) if counts.any() else float("nan")


def anchor_values(
    anchors: Anchors,
    top: Int32[Array, "anchors ranks"] | None,
    candidate_scores: Float32[Array, "anchors candidates"] | None,
    item_negatives: Int[Array, " items"],
    top_k: int,
) -> Mapping[str, Float64[Array, " anchors"]]:
    """All metrics of one model, by name; each also as ``NAME/no_negative_history``.

    Args:
        anchors: A anchors.
        top: items by rank, -1 for none, or None where the model ranks no catalogue.
        candidate_scores: scores of the anchors' candidates, or None where the model scores none.
        item_negatives: negatives of each item in the training period.
        top_k: K. Where the file has 50 ranks or more, ``hr@50`` and ``fhr@50`` come as well: they show a top 20
            that narrows while its first places get better.

    Returns:
        float64 [A] by metric, NaN where an anchor does not count: ``hr@K``, ``fhr@K``, ``luf@K``, ``lif@K``,
        ``hr@50``, ``fhr@50`` and ``candidate_accuracy``, then the same on anchors without negative history.
    """
    found: dict[str, Array] = {}
    if top is not None:
        first = top[:, :top_k]
        found[f"hr@{top_k}"] = hr(first, anchors.next_item)
        found[f"fhr@{top_k}"] = fhr(first, anchors.future_negatives)
        found[f"luf@{top_k}"] = luf(first, anchors.future_negatives, anchors.long_tail_user)
        found[f"lif@{top_k}"] = lif(first, anchors.future_negatives, item_negatives)
    if candidate_scores is not None:
        found["candidate_accuracy"] = candidate_accuracy(candidate_scores, anchors.candidates, anchors.next_item)
    if top is not None and top_k != 50 and top.shape[1] >= 50:
        found["hr@50"] = hr(top[:, :50], anchors.next_item)
        found["fhr@50"] = fhr(top[:, :50], anchors.future_negatives)
    without = anchors.negative_history == 0
    for name, values in list(found.items()):
        found[f"{name}/no_negative_history"] = restricted(values, without)
    return found
