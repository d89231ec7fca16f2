"""The results table of a run, recomputed from its files alone: no model is loaded, nothing is predicted.

Reads ``data/{events,items,anchors}.parquet``, ``data/periods.json``, ``predictions/*.parquet`` and
``candidate_scores/*.parquet``; writes ``results/metrics.json`` and ``results/comparisons.json``. All figures are over
the anchors of the test period.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conrec.arrays import Array
from conrec.artefacts import read_json, read_parquet, write_json
from conrec.config import Config
from conrec.errors import ArtefactError
from conrec.evaluation.coverage import distinct_items
from conrec.evaluation.metrics import anchor_values
from conrec.evaluation.predictions import read_candidate_scores, read_predictions, why_unranked
from conrec.evaluation.significance import Bootstrap
from conrec.logs.anchor_table import anchors_from_table
from conrec.logs.anchors import Anchors
from conrec.logs.log import Log
from conrec.logs.schema import ANCHORS, EVENTS, ITEMS
from conrec.protocol import Periods
from conrec.recommender import Ranking
from conrec.rows import BASELINES, REFERENCE, in_order

__all__ = ["Answered", "RunData", "answers_on_test", "evaluate", "read_run_data"]

Metrics = dict[str, dict[str, dict[str, float | int]]]
"""``{MODEL: {METRIC: {"value", "low", "high", "anchors"}}}``."""


@dataclass(frozen=True, slots=True)
class RunData:
    """What the files of ``RUN/data`` hold.

    Attributes:
        log: all events over the whole catalogue.
        anchors: anchors of all splits.
        periods: the cuts.
    """

    log: Log
    anchors: Anchors
    periods: Periods


@dataclass(frozen=True, slots=True)
class Answered:
    """What models answered on the anchors of the test period, as one value an anchor.

    Attributes:
        user_ids: str [users], those that `anchors` counts.
        anchors: of the test period.
        values: float64 [anchors] by model and metric, see `conrec.evaluation.metrics.anchor_values`.
        top: int32 [anchors, ranks] by model, -1 for none; models without predictions are not there.
    """

    user_ids: tuple[str, ...]
    anchors: Anchors
    values: Mapping[str, Mapping[str, Array]]
    top: Mapping[str, Array]


def read_run_data(run_folder: Path) -> RunData:
    """Read the files of ``RUN/data`` that the public contract names, and no others.

    A run that somebody else's code wrote can then be evaluated too (`conrec.logs.prepare.read_prepared` also
    wants the Swing neighbours, which no metric needs).

    Raises:
        ArtefactError: a file is missing or damaged, or two of them disagree about users or items.
    """
    data = run_folder / "data"
    events = read_parquet(data / "events.parquet", EVENTS)
    items = read_parquet(data / "items.parquet", ITEMS)
    table = read_parquet(data / "anchors.parquet", ANCHORS)
    cuts = read_json(data / "periods.json")
    try:
        periods = Periods(int(cuts["validation"]), int(cuts["test"]), int(cuts["end"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(
            f"cannot be read as periods ({type(error).__name__}: {error})",
            where=str(data / "periods.json"),
            expected='{"validation": seconds, "test": seconds, "end": seconds}',
        ) from None
    try:
        log = Log.from_tables(events, items)
    except KeyError as error:
        raise _stranger(data / "events.parquet", "item", error, "items.parquet") from None
    anchors = anchors_from_table(table, log, str(data / "anchors.parquet"))
    return RunData(log, anchors, periods)


def answers_on_test(run_folder: Path, config: Config, models: Sequence[str] | None = None) -> Answered:
    """Read and check the answer files of some models of a run; None: of all that have any.

    Raises:
        ArtefactError: a file is missing, damaged or incomplete, named with the row; or there are no test anchors.
    """
    data = read_run_data(run_folder)
    test = data.anchors.of_split("test")
    if len(test) == 0:
        raise ArtefactError(
            "holds no test anchors",
            where=str(run_folder / "data" / "anchors.parquet"),
            mend="Nobody with a history disliked anything in the test period: the log is too short to evaluate on.",
        )
    item_negatives = data.log.before(data.periods.validation).negative_counts()[1]
    values: dict[str, Mapping[str, Array]] = {}
    tops: dict[str, Array] = {}
    for model in _models(run_folder, config) if models is None else models:
        ranking, scores = _answers(run_folder, model, data, test, config)
        top = None if ranking is None else ranking.item
        values[model] = anchor_values(test, top, scores, item_negatives, config.evaluation.top_k)
        if top is not None:
            tops[model] = top
    return Answered(data.log.user_ids, test, values, tops)


def evaluate(run_folder: Path, config: Config) -> Metrics:
    """Compute, write and return the metrics of all models whose files a run holds.

    These are the rows of its configuration, and strangers: somebody else's model whose files were put beside them.
    Files of GRPO stages that the configuration does not have are of an earlier run, and are left out.

    Args:
        run_folder: RUN.
        config: for ``evaluation``, ``run.seed`` (of the bootstrap), ``protocol.history_eligible`` and the stages of
            ``grpo``, which give the rows.

    Returns:
        What ``results/metrics.json`` holds: for each model, in the order of `conrec.rows.in_order`, its figures by
        metric. A metric for which no anchor counts, or whose file a model lacks, has no entry.

    Raises:
        ArtefactError: a file is missing, damaged or incomplete, named with the row; or there is nothing to evaluate.
    """
    answers = answers_on_test(run_folder, config)
    top_k = config.evaluation.top_k
    bootstrap = Bootstrap.over(answers.anchors.user, config.evaluation.bootstraps, config.run.seed)
    metrics: Metrics = {}
    for model, values in answers.values.items():
        figures = bootstrap.figures(np.stack(list(values.values()), axis=1))
        metrics[model] = {
            name: figure.to_json() for name, figure in zip(values, figures, strict=True) if figure is not None
        }
        if model in answers.top:
            distinct = distinct_items(answers.top[model][:, :top_k], bootstrap)
            metrics[model][f"distinct_items@{top_k}"] = distinct.to_json()
    write_json(run_folder / "results" / "metrics.json", metrics)
    write_json(run_folder / "results" / "comparisons.json", _comparisons(answers.values, metrics, bootstrap))
    return metrics


def _models(run_folder: Path, config: Config) -> list[str]:
    """Names of the models with an answer file, the run's own first and in their order."""
    found = {
        path.stem
        for folder in ("predictions", "candidate_scores")
        for path in (run_folder / folder).glob("*.parquet")
        if not path.name.startswith(".")
    }
    models = in_order(found, config)
    if not models:
        raise ArtefactError(
            "holds no predictions",
            where=str(run_folder / "predictions"),
            expected="one Parquet file a model",
            mend="Let the run reach its predictions first.",
        )
    return models


def _answers(
    run_folder: Path, model: str, data: RunData, test: Anchors, config: Config
) -> tuple[Ranking | None, Array | None]:
    """A model's rankings and candidate scores on the test anchors, None where it has no such file or ranks nothing."""
    predictions = run_folder / "predictions" / f"{model}.parquet"
    candidate_scores = run_folder / "candidate_scores" / f"{model}.parquet"
    known = data.anchors.anchor_id
    ranking = scores = None
    if predictions.is_file() and why_unranked(predictions) is None:
        ranking = read_predictions(predictions, test, data.log.item_ids, known)
        _refuse_ineligible(predictions, ranking, data.log, test, config)
    if candidate_scores.is_file():
        scores = read_candidate_scores(candidate_scores, test, data.log.item_ids, known)
    return ranking, scores


def _refuse_ineligible(path: Path, ranking: Ranking, log: Log, test: Anchors, config: Config) -> None:
    """Refuse rankings that hold an item of the history (unless eligible), or fewer than K where K are eligible."""
    found = (ranking.item >= 0).sum(axis=1)
    for row, (user, timestamp) in enumerate(zip(test.user, test.timestamp, strict=True)):
        seen = np.empty(0, dtype=np.int32)
        if not config.protocol.history_eligible:
            seen = np.unique(log.item[log.history(int(user), int(timestamp))])
        anchor = f"anchor {test.anchor_id[row]}"
        again = np.isin(ranking.item[row], seen)
        if again.any():
            raise ArtefactError(
                f"rank {int(np.argmax(again)) + 1} of {anchor} is item {log.item_ids[ranking.item[row][again][0]]!r}",
                where=str(path),
                expected="items outside the user's history",
                mend="Leave out what the user has already met, or set protocol.history_eligible.",
            )
        expected = min(config.evaluation.top_k, log.n_items - len(seen))
        if found[row] < expected:
            raise ArtefactError(
                f"{anchor} has {found[row]} ranks",
                where=str(path),
                expected=f"at least {expected}",
                mend="The file was cut short, or its model ranks too few items: predict again.",
            )


def _comparisons(
    per_anchor: Mapping[str, Mapping[str, Array]], metrics: Metrics, bootstrap: Bootstrap
) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """Every model paired with `REFERENCE` and, metric by metric, with the best baseline.

    Returns:
        ``{"conrec": {MODEL: {METRIC: pair}}, "best_baseline": {MODEL: {METRIC: pair}}}`` where a pair holds
        "reference" (the other model's name) and the fields of `conrec.evaluation.significance.Comparison`,
        the difference being MODEL less reference.
    """
    result: dict[str, dict[str, dict[str, dict[str, Any]]]] = {REFERENCE: {}, "best_baseline": {}}
    for model, values in per_anchor.items():
        for kind, found in result.items():
            names, references = [], []
            for name in values:
                reference = REFERENCE if kind == REFERENCE else _best_baseline(metrics, name)
                if reference not in (None, model) and name in per_anchor.get(str(reference), ()):
                    names.append(name)
                    references.append(str(reference))
            if names:
                found[model] = _pairs(per_anchor, model, names, references, bootstrap)
    return result


def _pairs(
    per_anchor: Mapping[str, Mapping[str, Array]],
    model: str,
    names: Sequence[str],
    references: Sequence[str],
    bootstrap: Bootstrap,
) -> dict[str, dict[str, Any]]:
    """One model against the given reference in each metric."""
    own = np.stack([per_anchor[model][name] for name in names], axis=1)
    other = np.stack([per_anchor[one][name] for name, one in zip(names, references, strict=True)], axis=1)
    compared = bootstrap.compare(own, other)
    return {
        name: {"reference": reference, **one.to_json()}
        for name, reference, one in zip(names, references, compared, strict=True)
        if one is not None
    }


def _best_baseline(metrics: Metrics, name: str) -> str | None:
    """The baseline with the highest value, the first of them where several have it."""
    having = [one for one in BASELINES if name in metrics.get(one, {})]
    return max(having, key=lambda one: metrics[one][name]["value"]) if having else None


def _stranger(path: Path, what: str, error: KeyError, home: str) -> ArtefactError:
    return ArtefactError(
        f"names {what} {error.args[0]!r}",
        where=str(path),
        expected=f"one of {home} beside it",
        mend="The files are of different runs: build the data stage again.",
    )
