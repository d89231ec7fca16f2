"""``conrec filter analyse``: what filters cost and bring on test anchors, beside the rules that platforms use.

Every method scores the same (anchor, item) pairs: the candidates, the future positives and the future negatives of
each anchor. What it knows nothing of (no predict set, no past dislike) it keeps; these pairs stay in the denominators.
Three views: thresholds calibrated on validation and reported on test; the whole curve on test; and all methods at
equal false-filter rates on test, with intervals and paired differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from conrec.arrays import Array
from conrec.artefacts import write_json
from conrec.config import Config
from conrec.errors import ArtefactError
from conrec.evaluation.evaluate import RunData, read_run_data
from conrec.evaluation.significance import Bootstrap
from conrec.evaluation.studies import category_groups
from conrec.filtering.analysis.calibrated import calibrated_at
from conrec.filtering.analysis.intervals import DECIMALS, compared, figure
from conrec.filtering.analysis.methods import SHOP, Judged, Method, methods_of, platform_rules
from conrec.filtering.analysis.outcomes import Outcomes
from conrec.filtering.analysis.pairs import NEGATIVES, POSITIVES
from conrec.filtering.analysis.remains import Candidates
from conrec.filtering.analysis.rules import uniform
from conrec.filtering.analysis.segments import Categories
from conrec.filtering.analysis.trading import AtRate, Reachable, Split, dropped
from conrec.filtering.analysis.within import within_anchors
from conrec.filtering.calibrating.control import Rule
from conrec.filtering.calibrating.segments import segments_of
from conrec.filtering.catalogue import FilterCatalogue
from conrec.progress import meter
from conrec.rows import REFERENCE

__all__ = ["ANALYSIS", "MAIN", "RATES", "analyse_filter", "analysis_of"]

ANALYSIS = "results/filter_analysis.json"
RATES = (0.01, 0.02, 0.05, 0.1, 0.2)
"""False-filter rates: as bounds on validation, and as what all methods are brought to on test."""
MAIN = 0.05
"""The rate of tables that show one."""
_GRID = np.unique(np.concatenate([np.linspace(0, 0.25, 101), np.linspace(0.25, 1, 51)]))
"""False-filter rates near which points of the curve are kept."""


def analyse_filter(
    run_folder: Path, config: Config, models: Sequence[str] | None = None, attributes: Sequence[str] = (SHOP,)
) -> dict[str, Any]:
    """`analysis_of` a run, also written to ``RUN/results/filter_analysis.json``."""
    found = analysis_of(run_folder, config, models, attributes)
    write_json(run_folder / ANALYSIS, found)
    return found


def analysis_of(
    run_folder: Path, config: Config, models: Sequence[str] | None = None, attributes: Sequence[str] = (SHOP,)
) -> dict[str, Any]:
    """Compare filters on the test anchors of a run.

    Args:
        run_folder: the run.
        config: for ``filter``, ``prediction.predict_set``, ``evaluation.bootstraps``, ``popularity`` and ``run.seed``.
        models: rows with predictions; None: those of ``filter.models``.
        attributes: columns of ``data/items.parquet`` that rules block by, beside the category.

    Returns:
        What the file holds, see ``docs/artefacts.md``.

    Raises:
        ArtefactError: no test anchors, a model without predictions, or a file that is missing or damaged.
    """
    data = read_run_data(run_folder)
    catalogue = FilterCatalogue.load(run_folder)
    validation, test = Judged.of(data, "validation"), Judged.of(data, "test")
    if not len(test.anchors):
        raise ArtefactError(
            "holds no test anchors",
            where=str(run_folder / "data" / "anchors.parquet"),
            mend="Nobody with a history disliked anything in the test period: the log is too short to judge filters.",
        )
    rules, missing = platform_rules(run_folder, data, catalogue, config, attributes)
    chosen = config.filter.models if models is None else models
    methods = methods_of(run_folder, chosen, rules, data, catalogue, config, validation, test)
    analysis = _Analysis(run_folder, config, data, catalogue, validation, test, methods)
    return {**analysis.result(), "missing": missing}


class _Analysis:
    """One analysis; the arguments of `analyse_filter` and what was read."""

    def __init__(
        self,
        run_folder: Path,
        config: Config,
        data: RunData,
        catalogue: FilterCatalogue,
        validation: Judged,
        test: Judged,
        methods: list[Method],
    ) -> None:
        self.validation, self.test, self.methods = validation, test, methods
        details = catalogue.details.categories
        anchors = test.anchors
        self.bootstrap = Bootstrap.over(anchors.user, config.evaluation.bootstraps, config.run.seed)
        groups = category_groups([list(one) for one in details])
        candidates = Candidates.of(anchors.candidates, catalogue.table, groups)
        categories = Categories.of(details, test.pairs)
        self.outcomes = Outcomes(test, candidates, categories, self.bootstrap, data.log.n_items)
        segmented = config.filter.segments == "category"
        training = data.log.before(data.periods.validation)
        self.of_categories = segments_of(details, training, config.filter.segment_users) if segmented else None
        self.luck = uniform(config.run.seed, "ties", anchors.anchor_id[test.pairs.anchor], test.pairs.item)
        self.reference = self._reference()
        self.rule = Rule.of(config.filter)

    def _reference(self) -> str | None:
        """The row that all others are paired with: the last stage of CoNRec, else the last model given."""
        models = [one.name for one in self.methods if one.kind == "model"]
        return REFERENCE if REFERENCE in models else next(reversed(models), None)

    def result(self) -> dict[str, Any]:
        """Everything but what is missing."""
        splits = {one.name: self._split(one) for one in self.methods}
        resampled = self._resampled(splits)
        keep_all = np.zeros(len(self.test.pairs), dtype=np.bool_)
        self.outcomes.add(keep_all)
        drafts = {one.name: self._draft(one, splits[one.name]) for one in self.methods}
        before, *outcomes = self.outcomes.figures()
        left = iter(outcomes)
        within = self._within()
        methods: dict[str, Any] = {}
        for method in self.methods:
            calibrated, equal = drafts[method.name]
            split = splits[method.name]
            methods[method.name] = {
                "kind": method.kind,
                "says": method.says,
                "floor": method.floor,
                "known": self._known(method),
                "within": within[method.name],
                "curve": _thinned(split.reachable()),
                "calibrated": [{**one, "test": next(left)} for one in calibrated],
                "equal": [
                    self._equal(one, place, method.name, resampled, drafts, next(left))
                    for place, one in enumerate(equal)
                ],
            }
        counts = self.outcomes.counts()
        categories = self.outcomes.categories
        return {
            "anchors": len(self.test.anchors),
            "users": self.bootstrap.n_users,
            "items": self.outcomes.items,
            "validation": {"anchors": len(self.validation.anchors), **self._validation_counts()},
            "reference": self.reference,
            "rates": list(RATES),
            "main": MAIN,
            "rule": {name: value for name, value in asdict(self.rule).items() if name != "least"},
            "resamples": self.bootstrap.resamples,
            "seed": self.bootstrap.seed,
            "segments": counts,
            "categories": None
            if categories is None
            else [
                {"name": name, "items": items, "candidates": row[0], "positives": row[1], "negatives": row[2]}
                for name, items, row in zip(
                    categories.names, categories.items.tolist(), categories.counts.tolist(), strict=True
                )
            ],
            "before": before["remains"],
            "methods": methods,
        }

    def _within(self) -> dict[str, dict[str, Any] | None]:
        """How well each method tells the items of one anchor apart, mean over anchors, and less the reference."""
        names = [one.name for one in self.methods]
        values = within_anchors([one.test for one in self.methods], self.test.pairs)
        resampled = self.bootstrap.means(values)
        counted = values[~np.isnan(values).any(axis=1)]
        means = dict(zip(names, counted.mean(axis=0).tolist(), strict=True)) if len(counted) else {}
        of = {name: resampled[:, place] for place, name in enumerate(names)}
        found = {}
        for name in names:
            one = figure(means.get(name), of[name], anchors=len(counted))
            if one is not None:
                paired = self.reference is not None and name != self.reference
                other = self.reference or name
                one["less_reference"] = compared(means[name], means[other], of[name], of[other]) if paired else None
            found[name] = one
        return found

    def _validation_counts(self) -> dict[str, int]:
        pairs = self.validation.pairs
        kinds = (("positives", POSITIVES), ("negatives", NEGATIVES))
        return {name: int(pairs.of_kind(kind).sum()) for name, kind in kinds}

    def _known(self, method: Method) -> dict[str, float | None]:
        """Share of the liked and of the disliked pairs of which a method knows something."""
        above = method.test > np.float32(method.floor)
        kinds = (("positives", POSITIVES), ("negatives", NEGATIVES))
        return {name: _mean(above[self.test.pairs.of_kind(kind)]) for name, kind in kinds}

    def _split(self, method: Method) -> Split:
        pairs = self.test.pairs
        positive, negative = pairs.of_kind(POSITIVES), pairs.of_kind(NEGATIVES)
        user = self.bootstrap.user[pairs.anchor]
        return Split.of(method.test[positive], method.test[negative], user[positive], user[negative], method.floor)

    def _resampled(self, splits: dict[str, Split]) -> dict[str, Array]:
        """Share caught at each of `RATES` on each resample, of each method."""
        parts: dict[str, list[Array]] = {name: [] for name in splits}
        rates = np.asarray(RATES)
        with meter("resample", len(splits) * self.bootstrap.resamples) as step:
            for draws in self.bootstrap.draws():
                for name, split in splits.items():
                    parts[name].append(split.resampled(draws, rates))
                    step(len(draws), name)
        return {name: np.concatenate(one) for name, one in parts.items()}

    def _draft(self, method: Method, split: Split) -> tuple[list[dict[str, Any]], list[AtRate]]:
        """Thresholds from validation, and equal rates on test; each is added to the outcomes in this order."""
        calibrated = []
        for bound in RATES:
            rule = replace(self.rule, bound=bound)
            figures, lost = calibrated_at(method, rule, self.validation, self.test, self.of_categories)
            calibrated.append(figures)
            self.outcomes.add(lost)
        equal = [one for rate in RATES if (one := split.at_rate(rate)) is not None]
        for one in equal:
            self.outcomes.add(dropped(method.test, one.threshold, one.ties, self.luck))
        return calibrated, equal

    def _equal(
        self,
        at: AtRate,
        place: int,
        name: str,
        resampled: dict[str, Array],
        drafts: dict[str, tuple[list[dict[str, Any]], list[AtRate]]],
        outcome: dict[str, Any],
    ) -> dict[str, Any]:
        difference = None
        if self.reference is not None and name != self.reference:
            other = drafts[self.reference][1][place].caught
            own, others = resampled[name][:, place], resampled[self.reference][:, place]
            difference = compared(at.caught, other, own, others)
        return {
            "rate": RATES[place],
            "threshold": at.threshold,
            "ties": round(at.ties, DECIMALS),
            "beyond": at.beyond,
            "caught": figure(at.caught, resampled[name][:, place]),
            "less_reference": difference,
            "below": _point(at.below),
            "test": outcome,
        }


def _thinned(points: list[Reachable]) -> list[dict[str, Any]]:
    """Points of a curve nearest to a grid of false-filter rates; all of them where there are few."""
    if len(points) > len(_GRID):
        rates = np.asarray([one.false_filter_rate for one in points])
        after = np.searchsorted(rates, _GRID).clip(max=len(rates) - 1)
        before = np.maximum(after - 1, 0)
        nearest = np.where(_GRID - rates[before] <= rates[after] - _GRID, before, after)
        points = [points[place] for place in np.unique(np.append(nearest, [0, len(points) - 1]))]
    return [_point(one) for one in points]


def _point(one: Reachable) -> dict[str, Any]:
    return {
        key: None if value is None else value if key == "threshold" else round(value, DECIMALS)
        for key, value in asdict(one).items()
    }


def _mean(values: Array) -> float | None:
    return round(float(values.mean()), DECIMALS) if len(values) else None
