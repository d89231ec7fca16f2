"""The threshold of a filter: the file that keeps it with its guarantee, its trade-off, and what other bounds do."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64

from conrec.arrays import Array
from conrec.artefacts import read_json, write_json
from conrec.errors import ArtefactError
from conrec.filtering.calibrating.control import Liked
from conrec.filtering.calibrating.segments import item_thresholds

__all__ = [
    "BOUNDS",
    "Choice",
    "Threshold",
    "TradeOff",
    "above",
    "best_within",
    "in_words",
    "read_threshold",
    "share_above",
    "trade_off",
    "write_threshold",
]

CURVE_POINTS = 101
BOUNDS = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Bounds for which the file always says what they would do, for whoever wants to choose another one."""


@dataclass(frozen=True, slots=True)
class TradeOff:
    """What one threshold would have cost and brought on validation data.

    Attributes:
        threshold: similarities above it are dropped.
        false_filter_rate: share of the liked candidates that it drops, None without any.
        caught: share of the disliked candidates that it drops, None without any.
        user_rate: each user's own share of liked candidates that it drops, averaged over users; None without any.
    """

    threshold: float
    false_filter_rate: float | None
    caught: float | None
    user_rate: float | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """What the rule of a calibration chooses for one bound, and what that does on validation data.

    Attributes:
        bound: allowed rate.
        keeps_everything: whether nothing can be dropped within it.
        threshold: one for all items; None where there is none, or where each category has its own.
        false_filter_rate, caught, user_rate: as in `TradeOff`.
    """

    bound: float
    keeps_everything: bool
    threshold: float | None
    false_filter_rate: float | None
    caught: float | None
    user_rate: float | None


@dataclass(frozen=True, slots=True)
class Threshold:
    """A calibrated threshold, ``RUN/filter/MODEL.json``.

    Attributes:
        model: name of the row.
        threshold: candidates with a similarity above it are dropped; None keeps everything. Where categories have
            thresholds of their own, those decide, and this is what a single one would be.
        bound: the false-filter rate that was allowed (`filter.false_filter_rate`).
        statement: in words, what was found and what is promised.
        anchors: validation anchors that were read.
        users: their users, of whom those with a liked candidate were calibrated on.
        positives: liked candidates with a similarity.
        false_filters: how many of them are dropped.
        negatives: disliked candidates with a similarity.
        caught: how many of them are dropped.
        sid_hash: hash of the SID table.
        curve: the trade-off over thresholds, rising; those of ``choices`` are on it.
        rate: what is bounded, "user" or "pair" (`filter.rate`).
        guarantee: "expectation" or "probability" (`filter.guarantee`).
        confidence: of "probability", else None.
        pairs_per_user: what a user weighs at most; 1 for "user".
        liked_users: n, users with a liked candidate that has a similarity.
        user_rate: share of a user's liked candidates that is dropped, averaged over these users; None without any.
        by_category: threshold of each category, None for what is never dropped; empty where one is for all. ``""`` are
            items without a category.
        pooled: the small categories among them, which share one threshold.
        choices: what the same rule would choose for each of `BOUNDS` and for ``bound``.
        rank_weight, score_weight: what predictions counted (`conrec.filtering.weighing.Weighing`); the filter takes
            them from here, for without them the threshold means nothing.
    """

    model: str
    threshold: float | None
    bound: float
    statement: str
    anchors: int
    users: int
    positives: int
    false_filters: int
    negatives: int
    caught: int
    sid_hash: str
    curve: tuple[TradeOff, ...]
    rate: str = "user"
    guarantee: str = "expectation"
    confidence: float | None = None
    pairs_per_user: int = 1
    liked_users: int = 0
    user_rate: float | None = None
    by_category: dict[str, float | None] = field(default_factory=dict)
    pooled: tuple[str, ...] = ()
    choices: tuple[Choice, ...] = ()
    rank_weight: float = 1.0
    score_weight: float = 0.0

    @property
    def keeps_everything(self) -> bool:
        """Whether no candidate can be dropped: similarities are cosines, so none is above 1."""
        values = self.by_category.values() if self.by_category else (self.threshold,)
        return all(value is None or value >= 1 for value in values)

    def thresholds_of_items(self, categories: Sequence[Sequence[str]]) -> Float32[Array, " items"]:
        """The similarity above which each item is dropped; +inf for items that never are.

        Args:
            categories: of each item. One of several categories takes the highest threshold of them; of a category
                that was not calibrated, or has no threshold, it is never dropped.
        """
        if self.by_category:
            return item_thresholds(self.by_category, categories)
        return np.full(len(categories), np.inf if self.threshold is None else self.threshold, dtype=np.float32)


def trade_off(
    liked: Liked,
    negatives: Float32[Array, " negatives"],
    chosen: Iterable[float] = (),
    points: int = CURVE_POINTS,
    least: float = -inf,
) -> tuple[TradeOff, ...]:
    """The curve of both false-filter rates and the share of dislikes caught.

    Args:
        liked: liked candidates.
        negatives: similarities of disliked candidates.
        chosen: thresholds that are to be on it, beside quantiles of both together.
        points: how many quantiles.
        least: the filter has no threshold below it (`Weighing.least`); the curve begins there.
    """
    both = np.concatenate([liked.similarity, negatives])
    if not len(both):
        return ()
    quantiles: Float64[Array, " points"] = np.quantile(both, np.linspace(0, 1, points), method="inverted_cdf")
    all_of_them = np.concatenate([np.asarray([-1.0, *chosen]), quantiles.astype(np.float64)])
    thresholds = np.unique(np.maximum(all_of_them, least))
    curve = []
    for threshold in thresholds.tolist():
        dropped = above(liked.similarity, threshold)
        rates = liked.rate(dropped, None), liked.rate(dropped)
        curve.append(TradeOff(threshold, rates[0], share_above(negatives, threshold), rates[1]))
    return tuple(curve)


def best_within(choices: Iterable[Choice], bound: float) -> Choice | None:
    """What drops most of all that is known to meet a bound; None where nothing can be dropped.

    Args:
        choices: of a `Threshold`.
        bound: allowed rate; a choice that was made for a lower bound meets it, too.
    """
    meeting = [one for one in choices if one.bound <= bound and not one.keeps_everything]
    return max(meeting, key=lambda one: one.bound, default=None)


def above(values: Float32[Array, " values"], threshold: float | None) -> Bool[Array, " values"]:
    """Which similarities a threshold drops: those above it; NaN is never above, and nothing is above None."""
    if threshold is None:
        return np.zeros(len(values), dtype=np.bool_)
    return values > np.float32(threshold)


def share_above(values: Float32[Array, " values"], threshold: float | None) -> float | None:
    """Share of values above a threshold, None where there are no values."""
    return float(above(values, threshold).mean()) if len(values) else None


def in_words(threshold: Threshold) -> list[str]:
    """Why a filter drops nothing, where that is so, and what each bound would cost and bring; lines for a reader."""
    if not threshold.keeps_everything:
        return []
    lines = [f"Nothing can be dropped. {threshold.statement}"]
    if threshold.positives and threshold.choices:
        lines.append("What other bounds would do on validation data (filter.false_filter_rate):")
        lines += [f"  {_choice_in_words(one)}" for one in threshold.choices]
    return lines


def _choice_in_words(choice: Choice) -> str:
    bound = f"{choice.bound:.3g}" if choice.bound not in BOUNDS else f"{choice.bound:.0%}"
    if choice.keeps_everything:
        return f"{bound}: keeps everything"
    threshold = "a threshold a category" if choice.threshold is None else f"threshold {choice.threshold:.4f}"
    caught = "–" if choice.caught is None else f"{choice.caught:.1%}"
    return (
        f"{bound}: {threshold}, drops {choice.false_filter_rate:.1%} of what was liked ({choice.user_rate:.1%} of a "
        f"user's on average) and {caught} of what was disliked"
    )


def write_threshold(run_folder: Path, threshold: Threshold) -> None:
    """Write ``RUN/filter/MODEL.json``."""
    write_json(run_folder / "filter" / f"{threshold.model}.json", asdict(threshold))


def read_threshold(
    run_folder: Path, model: str, sid_hash: str | None = None, earlier: Collection[str] = ()
) -> Threshold:
    """Read what `write_threshold` wrote.

    Args:
        run_folder: the run.
        model: name of the row.
        sid_hash: hash of the SID table in use; None: not checked.
        earlier: hashes of tables that it grew from: what was calibrated with them holds of their items.

    Raises:
        ArtefactError: the file is missing, damaged, of an earlier version, or was calibrated on another SID table.
    """
    path = run_folder / "filter" / f"{model}.json"
    value = read_json(path)
    names = [one.name for one in fields(Threshold)]
    if not isinstance(value, dict) or set(value) != set(names):
        earlier_version = isinstance(value, dict) and {"model", "threshold", "bound"} <= set(value)
        raise ArtefactError(
            "is a calibration of another version of conrec"
            if earlier_version
            else "is not the calibration of a filter",
            where=str(path),
            expected=", ".join(names),
            mend="Give the command of the run again: only the filter stages are repeated.",
        )
    _check_numbers(path, value)
    if sid_hash is not None and value["sid_hash"] not in (sid_hash, *earlier):
        raise ArtefactError(
            "was calibrated with another SID table", where=str(path), mend="Give the command of the run again."
        )
    try:
        parts = {
            "curve": tuple(TradeOff(**point) for point in value["curve"]),
            "choices": tuple(Choice(**choice) for choice in value["choices"]),
            "pooled": tuple(value["pooled"]),
        }
    except TypeError as error:
        raise ArtefactError(f"cannot be read ({error})", where=str(path), expected="what conrec wrote") from None
    return Threshold(**{**value, **parts})


def _check_numbers(path: Path, value: dict[str, Any]) -> None:
    """Refuse thresholds that are no numbers: what is compared with them would not be what was meant."""
    found = value["by_category"]
    if not isinstance(found, dict):
        raise ArtefactError(f"by_category = {found!r}", where=str(path), expected="a threshold for each category")
    where = {"threshold": value["threshold"], **{f"by_category[{name!r}]": one for name, one in found.items()}}
    for name, one in where.items():
        number = isinstance(one, int | float) and not isinstance(one, bool) and isfinite(one)
        if one is not None and not number:
            raise ArtefactError(f"{name} = {one!r}", where=str(path), expected="a number, or null to keep everything")
