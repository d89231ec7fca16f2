"""Shares with 95 % intervals and paired differences, all on the same resamples of users."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from conrec.arrays import Array
from conrec.evaluation.significance import LEVEL, Bootstrap

__all__ = ["compared", "figure", "resampled_shares", "user_sums"]

TAIL = (1 - LEVEL) / 2
DECIMALS = 6
"""Of every figure that is written."""


def user_sums(values: Float[Array, " rows"], users: Int[Array, " rows"], n_users: int) -> Float[Array, " users"]:
    """Sum of the rows of each user."""
    return np.bincount(users, weights=values, minlength=n_users).astype(np.float64)  # whole numbers without rows


def resampled_shares(
    parts: Float[Array, "users columns"],
    wholes: Float[Array, "users groups"],
    group: Int[Array, " columns"],
    bootstrap: Bootstrap,
) -> Float[Array, "resamples columns"]:
    """Each column's sum over the sum of its group, on each resample; NaN where that is 0.

    Args:
        parts: what is counted, summed by user.
        wholes: out of how much, summed by user.
        group: column of ``wholes`` that belongs to each column of ``parts``.
        bootstrap: over these users.
    """
    found = []
    for draws in bootstrap.draws():
        drawn = draws.astype(np.float64)
        whole = (drawn @ wholes)[:, group]
        found.append(np.divide(drawn @ parts, whole, out=np.full(whole.shape, np.nan), where=whole > 0))
    return np.concatenate(found) if found else np.empty((0, parts.shape[1]))


def figure(value: float | None, resampled: Float[Array, " resamples"], **counts: int) -> dict[str, Any] | None:
    """``{"value", "low", "high", …}``; None where there is no value.

    Resamples on which the figure does not exist (NaN) are left out of its percentiles.
    """
    if value is None or np.isnan(value):
        return None
    low, high = _percentiles(resampled)
    return {"value": round(float(value), DECIMALS), "low": low, "high": high, **counts}


def compared(
    value: float | None, other: float | None, resampled: Array, other_resampled: Array
) -> dict[str, Any] | None:
    """``{"difference", "low", "high", "share_above"}`` of two figures on the same resamples; None without either."""
    if value is None or other is None:
        return None
    differences = resampled - other_resampled
    kept = differences[~np.isnan(differences)]
    low, high = _percentiles(differences)
    above = float((kept > 0).mean() + (kept == 0).mean() / 2) if len(kept) else 0.5
    return {
        "difference": round(value - other, DECIMALS),
        "low": low,
        "high": high,
        "share_above": round(above, DECIMALS),
    }


def _percentiles(resampled: Array) -> tuple[float | None, float | None]:
    kept = resampled[~np.isnan(resampled)]
    if not len(kept):
        return (None, None)
    low, high = np.quantile(kept, [TAIL, 1 - TAIL])
    return (round(float(low), DECIMALS), round(float(high), DECIMALS))
