"""The threshold of a filter: how it is chosen, and the file that keeps it with its trade-off."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, fields
from math import floor
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32

from conrec.arrays import Array
from conrec.artefacts import read_json, write_json
from conrec.errors import ArtefactError

__all__ = [
    "BOUNDS",
    "Threshold",
    "TradeOff",
    "above",
    "best_within",
    "choose_threshold",
    "in_words",
    "read_threshold",
    "share_above",
    "trade_off",
    "write_threshold",
]

CURVE_POINTS = 101
BOUNDS = (0.01, 0.05, 0.1, 0.2)
"""False-filter rates whose best thresholds are always on the curve, for whoever wants to choose another bound."""


@dataclass(frozen=True, slots=True)
class TradeOff:
    """What one threshold would have cost and brought on validation data.

    Attributes:
        threshold: similarities above it are dropped.
        false_filter_rate: share of the liked candidates that it drops, None without any.
        caught: share of the disliked candidates that it drops, None without any.
    """

    threshold: float
    false_filter_rate: float | None
    caught: float | None


@dataclass(frozen=True, slots=True)
class Threshold:
    """A calibrated threshold, ``RUN/filter/MODEL.json``.

    Attributes:
        model: name of the row.
        threshold: candidates with a similarity above it are dropped; None keeps everything.
        bound: the false-filter rate that was allowed (`filter.false_filter_rate`).
        statement: in words, what was found.
        anchors: validation anchors that were read.
        users: their users.
        positives: n, liked candidates with a similarity; each is one chance of a false filter.
        false_filters: how many of them the threshold drops.
        negatives: disliked candidates with a similarity.
        caught: how many of them the threshold drops.
        sid_hash: hash of the SID table.
        curve: the trade-off over thresholds, rising; the best one within each of `BOUNDS` is on it.
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

    @property
    def keeps_everything(self) -> bool:
        """Whether no candidate can be dropped: similarities are cosines, so none is above 1."""
        return self.threshold is None or self.threshold >= 1


def choose_threshold(positives: Float32[Array, " positives"], bound: float) -> float | None:
    """The smallest threshold with ``(false filters + 1) / (n + 1) <= bound``; None where there is none.

    A false filter is a liked candidate whose similarity is above the threshold. The added ones are the correction
    of conformal risk control for a sample of finite size: for liked candidates that are exchangeable with the n
    that were seen, the expected share of false filters is then at most ``bound``. (Candidates of one user hang
    together, so the interval over users that `conrec.filtering.calibrating.calibration` gives on test data is the one
    to trust.)

    >>> choose_threshold(np.asarray([0.1, 0.2, 0.9], dtype=np.float32), 0.5)  # (1 + 1) / (3 + 1) <= 0.5
    0.20000000298023224
    >>> choose_threshold(np.asarray([0.1, 0.2, 0.9], dtype=np.float32), 0.2)  # (0 + 1) / (3 + 1) > 0.2

    Args:
        positives: similarities of liked candidates, no NaN.
        bound: allowed rate, in (0, 1).
    """
    n = len(positives)
    allowed = floor(bound * (n + 1))
    while (allowed + 1) / (n + 1) > bound:  # the product above may have been rounded up, or be what it says
        allowed -= 1
        if allowed < 0:
            return None
    return float(np.sort(positives)[n - 1 - allowed])


def trade_off(
    positives: Float32[Array, " positives"], negatives: Float32[Array, " negatives"], points: int = CURVE_POINTS
) -> tuple[TradeOff, ...]:
    """The curve of false-filter rate and share of dislikes caught.

    Its thresholds are quantiles of both together, and the best ones within `BOUNDS`.
    """
    both = np.concatenate([positives, negatives])
    if not len(both):
        return ()
    thresholds = np.unique(np.quantile(both, np.linspace(0, 1, points), method="inverted_cdf"))
    chosen = [one for bound in BOUNDS if (one := choose_threshold(positives, bound)) is not None]
    thresholds = np.concatenate([np.asarray([-1.0, *chosen]), thresholds.astype(np.float64)])
    return tuple(
        TradeOff(threshold, share_above(positives, threshold), share_above(negatives, threshold))
        for threshold in np.unique(thresholds).tolist()
    )


def best_within(curve: Iterable[TradeOff], positives: int, bound: float) -> TradeOff | None:
    """The lowest threshold of a curve that meets a bound by the rule of `choose_threshold`; None where none does.

    Args:
        curve: trade-off over thresholds.
        positives: n, liked candidates behind the curve.
        bound: allowed rate, in (0, 1).
    """
    meeting = [
        point
        for point in curve
        if point.false_filter_rate is not None
        and (round(point.false_filter_rate * positives) + 1) / (positives + 1) <= bound
    ]
    return min(meeting, key=lambda point: point.threshold, default=None)


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
    if threshold.positives and threshold.curve:
        lines.append("What other bounds would do on validation data (filter.false_filter_rate):")
        lines += [f"  {_bound_in_words(threshold, bound)}" for bound in BOUNDS]
    return lines


def _bound_in_words(threshold: Threshold, bound: float) -> str:
    point = best_within(threshold.curve, threshold.positives, bound)
    if point is None or point.threshold >= 1:
        return f"{bound:.0%}: keeps everything"
    caught = "–" if point.caught is None else f"{point.caught:.1%}"
    return (
        f"{bound:.0%}: threshold {point.threshold:.4f}, drops {point.false_filter_rate:.1%} of what was liked and "
        f"{caught} of what was disliked"
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
        ArtefactError: the file is missing, damaged, or was calibrated on another SID table.
    """
    path = run_folder / "filter" / f"{model}.json"
    value = read_json(path)
    names = [field.name for field in fields(Threshold)]
    if not isinstance(value, dict) or set(value) != set(names):
        raise ArtefactError("is not the calibration of a filter", where=str(path), expected=", ".join(names))
    number = value["threshold"]
    if number is not None and not isinstance(number, int | float):
        raise ArtefactError(f"threshold = {number!r}", where=str(path), expected="a number, or null to keep everything")
    if sid_hash is not None and value["sid_hash"] not in (sid_hash, *earlier):
        raise ArtefactError(
            "was calibrated with another SID table", where=str(path), mend="Give the command of the run again."
        )
    return Threshold(**{**value, "curve": tuple(TradeOff(**point) for point in value["curve"])})
