"""Figures of one row over several seeds: averaged an anchor at a time, with users as the unit of chance.

Two things make a figure uncertain. Which users happened to be asked: the interval says that, from a bootstrap over
users of the mean over seeds. Which random start a model had: the spread over seeds says that. Averaging an anchor's
values over the seeds before users are drawn keeps the two apart, and keeps a user's anchors together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from conrec.arrays import Array
from conrec.comparing.answers import has_answers
from conrec.config import Config
from conrec.errors import ArtefactError
from conrec.evaluation.evaluate import Answered, answers_on_test
from conrec.evaluation.significance import Bootstrap

__all__ = ["SeededAnswers", "differences", "figures", "read_seeds"]


@dataclass(frozen=True, slots=True)
class SeededAnswers:
    """What all rows answered on the test anchors, seed by seed.

    Attributes:
        seeds: S seeds.
        users: int32 [anchors], the user of each anchor.
        values: float64 [S, anchors] of each row and metric, NaN where an anchor does not count.
    """

    seeds: tuple[int, ...]
    users: Array
    values: Mapping[str, Mapping[str, Array]]

    def bootstrap(self, resamples: int) -> Bootstrap:
        """Resamples of the users; for one seed those of that run's own ``metrics.json``."""
        return Bootstrap.over(self.users, resamples, self.seeds[0])


def read_seeds(folders: Sequence[Path], configs: Sequence[Config], rows: Sequence[str]) -> SeededAnswers:
    """Read the answers of ``rows`` in every run; a row without answers in one of them is left out.

    Raises:
        ArtefactError: a file is damaged, or two runs were asked at other anchors.
    """
    answered = [
        answers_on_test(folder, config, [row for row in rows if has_answers(folder, config, row)])
        for folder, config in zip(folders, configs, strict=True)
    ]
    first = answered[0]
    for folder, one in zip(folders[1:], answered[1:], strict=True):
        _refuse_other_anchors(folders[0], first, folder, one)
    values: dict[str, Mapping[str, Array]] = {}
    for row in rows:
        if all(row in one.values for one in answered):
            metrics = [name for name in first.values[row] if all(name in one.values[row] for one in answered)]
            values[row] = {name: np.stack([one.values[row][name] for one in answered]) for name in metrics}
    return SeededAnswers(tuple(config.run.seed for config in configs), first.anchors.user, values)


def figures(
    values: Mapping[str, Float64[Array, "seeds anchors"]], bootstrap: Bootstrap
) -> dict[str, dict[str, float | int | list[float] | None]]:
    """Every metric of one row.

    Args:
        values: of each metric, seed by seed; NaN where an anchor does not count.
        bootstrap: over the users of the anchors.

    Returns:
        By metric: ``value`` (mean over anchors and seeds), ``low`` and ``high`` (95 % over users), ``anchors``,
        ``seeds`` (the value of each) and ``spread`` (standard deviation over seeds with S - 1, None for one seed). A
        metric for which no anchor counts has no entry.
    """
    found: dict[str, dict[str, float | int | list[float] | None]] = {}
    averaged = np.stack([one.mean(axis=0) for one in values.values()], axis=1)
    for (name, one), figure in zip(values.items(), bootstrap.figures(averaged), strict=True):
        if figure is None:
            continue
        of_seeds = [float(seed[~np.isnan(seed)].mean()) for seed in one]
        spread = float(np.std(of_seeds, ddof=1)) if len(of_seeds) > 1 else None
        found[name] = {**figure.to_json(), "seeds": of_seeds, "spread": spread}
    return found


def differences(
    values: Mapping[str, Float64[Array, "seeds anchors"]],
    reference: Mapping[str, Float64[Array, "seeds anchors"]],
    bootstrap: Bootstrap,
) -> dict[str, dict[str, float | int]]:
    """One row less the reference row, metric by metric, paired anchor by anchor.

    Returns:
        The fields of `conrec.evaluation.significance.Comparison` for each metric that both have.
    """
    both = [name for name in values if name in reference]
    if not both:
        return {}
    own, other = (np.stack([one[name].mean(axis=0) for name in both], axis=1) for one in (values, reference))
    pairs = zip(both, bootstrap.compare(own, other), strict=True)
    return {name: one.to_json() for name, one in pairs if one is not None}


def _refuse_other_anchors(home: Path, first: Answered, folder: Path, other: Answered) -> None:
    """Anchors follow from the data alone: runs of one table have the same, or are of different data."""
    pairs = zip(_asked(first), _asked(other), strict=True)
    if first.user_ids != other.user_ids or not all(np.array_equal(one, two) for one, two in pairs):
        raise ArtefactError(
            f"its {len(other.anchors)} test anchors are not the {len(first.anchors)} of {home.name}",
            where=str(folder / "data" / "anchors.parquet"),
            expected="runs of the same data",
            mend="Remove this folder and give the command of `conrec baselines run` again.",
        )


def _asked(answered: Answered) -> tuple[Array, ...]:
    """All that makes a question: who is asked and when, what would be right, and what there is to choose from."""
    one = answered.anchors
    negatives, positives = one.future_negatives, one.future_positives
    right = (negatives.offsets, negatives.values, positives.offsets, positives.values, one.next_item)
    return (one.user, one.timestamp, *right, one.candidates)
