"""What the calibrated filter does on test anchors, with intervals over users."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from conrec.arrays import Array
from conrec.artefacts import write_json
from conrec.config import Config
from conrec.evaluation.evaluate import RunData
from conrec.evaluation.significance import Bootstrap
from conrec.filtering.calibrating.control import Liked, Rule
from conrec.filtering.calibrating.segments import WITHOUT
from conrec.filtering.calibrating.similarities import AnchorSimilarities, Pairs, split_similarities
from conrec.filtering.calibrating.threshold import Threshold, read_threshold
from conrec.filtering.catalogue import FilterCatalogue
from conrec.logs.anchors import Anchors

__all__ = ["FIGURES", "USER_RATE", "report_on_test", "test_report"]

FIGURES = ("filtering_rate", "false_filter_rate", "caught")
"""Share dropped of the 20 candidates, of the future positives and of the future negatives."""
USER_RATE = "user_false_filter_rate"
"""Share dropped of a user's own future positives, averaged over users."""


def report_on_test(
    run_folder: Path, model: str, data: RunData, catalogue: FilterCatalogue, config: Config
) -> dict[str, Any]:
    """What the calibrated filter of a model does on test anchors.

    Args:
        run_folder: the run, with ``predictions/MODEL.parquet`` and ``filter/MODEL.json``.
        model: name of the row.
        data: log and anchors of the run.
        catalogue: its items.
        config: for ``prediction.predict_set``, the weights of ``filter``, ``evaluation.bootstraps`` and ``run.seed``.

    Returns:
        ``{"threshold", "by_category", "bound", "rate", "guarantee"}`` as in the threshold's own file, and ``{FIGURE:
        {"value", "low", "high", "pairs", "anchors", "users"}}`` for each of `FIGURES` and for `USER_RATE`. ``rate``
        says which of the two false-filter rates was bounded; the intervals are from a bootstrap over users. A figure
        without any pair has no entry. Where categories have thresholds of their own, these are applied, and
        ``categories`` has both rates (no intervals) of each that can drop something.

    Raises:
        ArtefactError: a file is missing, damaged or of another SID table.
    """
    threshold = read_threshold(run_folder, model, catalogue.sid_hash)
    anchors, similarities = split_similarities(run_folder, model, data, catalogue, config, "test")
    categories: Sequence[Sequence[str]] = (
        catalogue.details.categories if threshold.by_category else [()] * len(catalogue)
    )
    of_item = np.maximum(threshold.thresholds_of_items(categories), np.float32(Rule.of(config.filter).least))
    result: dict[str, Any] = {
        "threshold": threshold.threshold,
        "by_category": threshold.by_category,
        "bound": threshold.bound,
        "rate": threshold.rate,
        "guarantee": threshold.guarantee,
    }
    result |= _shares(similarities, anchors, of_item, config)
    liked = similarities.positives
    users = anchors.user[liked.anchor]
    if len(liked):
        result[USER_RATE] = _user_rate(liked, users, of_item, config)
    if threshold.by_category:
        result["categories"] = _categories(threshold, liked, users, of_item, categories)
    return result


def test_report(
    run_folder: Path, models: tuple[str, ...], data: RunData, catalogue: FilterCatalogue, config: Config
) -> dict[str, dict[str, Any]]:
    """`report_on_test` of several models, also written to ``RUN/results/filter.json`` as ``{MODEL: …}``."""
    result = {model: report_on_test(run_folder, model, data, catalogue, config) for model in models}
    write_json(run_folder / "results" / "filter.json", result)
    return result


test_report.__test__ = False  # type: ignore[attr-defined]  # pytest takes it for a test where it is imported


def _shares(similarities: AnchorSimilarities, anchors: Anchors, of_item: Array, config: Config) -> dict[str, Any]:
    """The shares among all pairs, with one row a pair and one column a figure: all on the same resamples of users."""
    groups = (similarities.candidates, similarities.positives, similarities.negatives)
    anchor = np.concatenate([one.anchor for one in groups])
    if not len(anchor):
        return {}
    values = np.full((len(anchor), len(groups)), np.nan)
    begin = 0
    for column, pairs in enumerate(groups):
        values[begin : begin + len(pairs), column] = pairs.similarity > of_item[pairs.item]
        begin += len(pairs)
    bootstrap = Bootstrap.over(anchors.user[anchor], config.evaluation.bootstraps, config.run.seed)
    found = {}
    for name, figure, pairs in zip(FIGURES, bootstrap.figures(values), groups, strict=True):
        if figure is not None:
            found[name] = {
                "value": figure.value,
                "low": figure.low,
                "high": figure.high,
                "pairs": figure.anchors,
                "anchors": len(np.unique(pairs.anchor)),
                "users": len(np.unique(anchors.user[pairs.anchor])),
            }
    return found


def _user_rate(liked: Pairs, users: Array, of_item: Array, config: Config) -> dict[str, Any]:
    """The mean of users' own shares; each user is one row."""
    grouped = Liked.of(liked.similarity, users)
    shares = grouped.shares(liked.similarity > of_item[liked.item])
    bootstrap = Bootstrap.over(np.arange(len(shares)), config.evaluation.bootstraps, config.run.seed)
    figure = bootstrap.figures(shares[:, None])[0]
    assert figure is not None  # there is a user
    return {
        "value": figure.value,
        "low": figure.low,
        "high": figure.high,
        "pairs": len(liked),
        "anchors": len(np.unique(liked.anchor)),
        "users": figure.anchors,
    }


def _categories(
    threshold: Threshold, liked: Pairs, users: Array, of_item: Array, categories: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """Both rates of each category that can drop something."""
    dropped = liked.similarity > of_item[liked.item]
    found = {}
    for name, value in threshold.by_category.items():
        if value is None or value >= 1:
            continue
        member = np.asarray([name in (row or (WITHOUT,)) for row in categories], dtype=np.bool_)[liked.item]
        group = Liked.of(liked.similarity[member], users[member])
        found[name] = {
            USER_RATE: group.rate(dropped[member]),
            "false_filter_rate": group.rate(dropped[member], None),
            "pairs": int(member.sum()),
            "users": group.users,
        }
    return found
