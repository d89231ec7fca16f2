"""Calibrating the filter on validation anchors, and measuring it on test anchors.

The predict set of an anchor is the first ``prediction.predict_set`` items of ``predictions/MODEL.parquet``. What the
user liked in the anchor's window (future positives) and is dropped is a false filter; what he disliked there
(future negatives) and is dropped was rightly caught. The threshold comes from validation anchors alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conrec.arrays import Array, Ragged
from conrec.artefacts import write_json
from conrec.config import Config
from conrec.evaluation.evaluate import RunData
from conrec.evaluation.predictions import read_predictions
from conrec.evaluation.significance import Bootstrap
from conrec.filtering.calibrating.threshold import (
    Threshold,
    above,
    choose_threshold,
    read_threshold,
    share_above,
    trade_off,
    write_threshold,
)
from conrec.filtering.catalogue import FilterCatalogue, max_similarity
from conrec.logs.anchors import Anchors

__all__ = ["FIGURES", "AnchorSimilarities", "anchor_similarities", "calibrate", "report_on_test", "test_report"]

FIGURES = ("filtering_rate", "false_filter_rate", "caught")
"""Share dropped of the 20 candidates, of the future positives and of the future negatives."""


@dataclass(frozen=True, slots=True)
class AnchorSimilarities:
    """Similarity of what an anchor's window held to its predict set, one entry a (anchor, item) pair.

    Pairs whose anchor has an empty predict set are left out: the filter keeps them whatever the threshold.

    Attributes:
        candidates, positives, negatives: float32 [pairs], of the 20 candidates, the future positives and the
            future negatives.
        candidate_anchor, positive_anchor, negative_anchor: int64 [pairs], row of the pair's anchor.
    """

    candidates: Array
    candidate_anchor: Array
    positives: Array
    positive_anchor: Array
    negatives: Array
    negative_anchor: Array


def anchor_similarities(catalogue: FilterCatalogue, predicted: Array, anchors: Anchors) -> AnchorSimilarities:
    """Similarities of all pairs of some anchors.

    Args:
        catalogue: items and rebuilt embeddings.
        predicted: int32 [anchors, K], predict set of each anchor, -1 for none.
        anchors: with candidates, future positives and future negatives.
    """
    row, place = np.nonzero(anchors.candidates >= 0)
    parts: list[Array] = []
    for anchor, items in (
        (row.astype(np.int64), anchors.candidates[row, place]),
        _pairs(anchors.future_positives),
        _pairs(anchors.future_negatives),
    ):
        similarity, _ = max_similarity(catalogue.rebuilt, predicted, anchor, items)
        known = ~np.isnan(similarity)
        parts += [similarity[known], anchor[known]]
    return AnchorSimilarities(*parts)


def calibrate(run_folder: Path, model: str, data: RunData, catalogue: FilterCatalogue, config: Config) -> Threshold:
    """Choose the threshold of a model on validation anchors and write ``RUN/filter/MODEL.json``.

    Args:
        run_folder: the run, with ``predictions/MODEL.parquet``.
        model: name of the row.
        data: log and anchors of the run.
        catalogue: its items.
        config: for ``filter.false_filter_rate`` and ``prediction.predict_set``.

    Raises:
        ArtefactError: the predictions are missing, damaged, or lack a validation anchor.
    """
    anchors, similarities = _split(run_folder, model, data, catalogue, config, "validation")
    positives, negatives = similarities.positives, similarities.negatives
    bound = config.filter.false_filter_rate
    value = choose_threshold(positives, bound)
    threshold = Threshold(
        model=model,
        threshold=value,
        bound=bound,
        statement=_statement(value, bound, len(positives), positives),
        anchors=len(anchors),
        users=len(np.unique(anchors.user)),
        positives=len(positives),
        false_filters=int(above(positives, value).sum()),
        negatives=len(negatives),
        caught=int(above(negatives, value).sum()),
        sid_hash=catalogue.sid_hash,
        curve=trade_off(positives, negatives),
    )
    write_threshold(run_folder, threshold)
    return threshold


def report_on_test(
    run_folder: Path, model: str, data: RunData, catalogue: FilterCatalogue, config: Config
) -> dict[str, Any]:
    """What the calibrated filter of a model does on test anchors.

    Args:
        run_folder: the run, with ``predictions/MODEL.parquet`` and ``filter/MODEL.json``.
        model: name of the row.
        data: log and anchors of the run.
        catalogue: its items.
        config: for ``prediction.predict_set``, ``evaluation.bootstraps`` and ``run.seed``.

    Returns:
        ``{"threshold", FIGURE: {"value", "low", "high", "pairs", "anchors"}}`` for each of `FIGURES`; the interval
        is from a bootstrap over users. A figure without any pair has no entry.

    Raises:
        ArtefactError: a file is missing, damaged or of another SID table.
    """
    threshold = read_threshold(run_folder, model, catalogue.sid_hash).threshold
    anchors, similarities = _split(run_folder, model, data, catalogue, config, "test")
    groups = (
        (similarities.candidates, similarities.candidate_anchor),
        (similarities.positives, similarities.positive_anchor),
        (similarities.negatives, similarities.negative_anchor),
    )
    # One row a pair and one column a figure, so that all three are taken on the same resamples of users.
    anchor = np.concatenate([one for _, one in groups])
    values = np.full((len(anchor), len(groups)), np.nan)
    begin = 0
    for column, (group, _) in enumerate(groups):
        values[begin : begin + len(group), column] = above(group, threshold)
        begin += len(group)
    result: dict[str, Any] = {"threshold": threshold}
    if not len(anchor):
        return result
    bootstrap = Bootstrap.over(anchors.user[anchor], config.evaluation.bootstraps, config.run.seed)
    for name, figure, (_, of_anchor) in zip(FIGURES, bootstrap.figures(values), groups, strict=True):
        if figure is not None:
            result[name] = {
                "value": figure.value,
                "low": figure.low,
                "high": figure.high,
                "pairs": figure.anchors,
                "anchors": len(np.unique(of_anchor)),
            }
    return result


def test_report(
    run_folder: Path, models: tuple[str, ...], data: RunData, catalogue: FilterCatalogue, config: Config
) -> dict[str, dict[str, Any]]:
    """`report_on_test` of several models, also written to ``RUN/results/filter.json`` as ``{MODEL: …}``."""
    result = {model: report_on_test(run_folder, model, data, catalogue, config) for model in models}
    write_json(run_folder / "results" / "filter.json", result)
    return result


test_report.__test__ = False  # type: ignore[attr-defined]  # pytest takes it for a test where it is imported


def _split(
    run_folder: Path, model: str, data: RunData, catalogue: FilterCatalogue, config: Config, split: str
) -> tuple[Anchors, AnchorSimilarities]:
    """The anchors of a split and their similarities under a model's predict sets."""
    anchors = data.anchors.of_split(split)
    path = run_folder / "predictions" / f"{model}.parquet"
    ranking = read_predictions(path, anchors, data.log.item_ids, data.anchors.anchor_id)
    predicted = ranking.item[:, : config.prediction.predict_set]
    return anchors, anchor_similarities(catalogue, predicted, anchors)


def _pairs(rows: Ragged) -> tuple[Array, Array]:
    """Row (int64) and value of each entry of a ragged array."""
    return np.repeat(np.arange(len(rows)), rows.lengths), rows.values


def _statement(value: float | None, bound: float, n: int, positives: Array) -> str:
    """In words, what the calibration found."""
    if n == 0:
        return (
            "The validation anchors have no future positives, so the cost of a threshold cannot be known: "
            "the filter keeps everything."
        )
    if value is None:
        return (
            f"With {n} future positives in validation even a filter that drops none of them cannot be shown to stay "
            f"within a false-filter rate of {bound:g} (at least {_needed(bound)} are needed): the filter keeps "
            "everything."
        )
    if value >= 1:
        same = int((positives >= np.float32(value)).sum())
        return (
            f"{same} of {n} future positives in validation have the very codes of a predicted item, more than the "
            f"bound of {bound:g} allows to lose: nothing is above 1, so the filter keeps everything."
        )
    return (
        f"{int(above(positives, value).sum())} of {n} future positives in validation are above {value:.4f}, "
        f"a false-filter rate of {share_above(positives, value):.4f} against the bound of {bound:g}."
    )


def _needed(bound: float) -> int:
    """Smallest n with 1 / (n + 1) <= bound."""
    n = max(0, round(1 / bound) - 2)
    while 1 / (n + 1) > bound:
        n += 1
    return n
