"""Do new items still fit the codebooks? Their reconstruction beside that of items that were never trained on.

What decides is the paper's own loss and the room that is left; shares and means with a tolerance, an interval and at
least `FEWEST_NEW` items, so that a few odd items, or chance, decide nothing:

* *Reconstruction*: the squared error of new items over that of reference items. `ERROR_TOLERANCE` says why 1.2.
* *Overflow*: items that had to take another second code than their own, beside the share of reference items that had
  to. What is counted and no sample of anything decides however few the new items are: items that found no semantic ID,
  and first codes that are nearly full.

How far first codes are used otherwise than before is told and decides nothing: a week of horror films moves it, and
the codes name horror films as well as ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from conrec.arrays import Array
from conrec.items.diagnosis.diagnostics import unit_rows
from conrec.seeds import generator

__all__ = ["FEWEST_NEW", "MOST", "Fit", "Reference", "Verdict", "drift_of", "fit_of", "jensen_shannon", "verdict_of"]

ERROR_TOLERANCE = 1.2
"""How much worse new items may be rebuilt than other items that the codebooks were not trained on, with the whole
interval above it. In runs of MovieLens-100K (films up to 1998) 200 films held out at random cost 0.97 to 1.00 times as
much, films of 1998 to 2000 1.19 times, films of 2010 to 2013 1.45 times, board games 2.8 times."""
FITTED_ALLOWANCE = 1.36
"""Training items are rebuilt better than any others: films held out at random cost 1.36 to 1.37 times as much in runs
of MovieLens-100K. So where training items are the reference, the tolerance is multiplied by this."""
FEWEST_NEW = 20
"""Of fewer items neither a mean nor a share is worth an interval: one film of eight costs more than 1.2 times the mean
by itself. They count with those that were appended before."""
OVERFLOW_TOLERANCE = 0.05
"""By how much the share of new items that take another second code may exceed that of the reference, with the whole
interval of the difference above it: the rebuilt embeddings of their names lie as far apart as those of strangers. (With
`semantic_ids.cap` a third of a run's own items may have done so; without, next to none.)"""
FULL = 0.9
"""Share of the semantic IDs under a first code that may be taken: beyond it the next items find none."""
BOOTSTRAPS = 2000
PERMUTATIONS = 500
NORMAL = 1.959964
"""Of the standard normal distribution, 95 % lie within so many standard deviations."""
PIECE = 8192
"""Rows that are compared in double precision at a time."""
MOST = 20_000
"""Items of which intervals are drawn; of more, a seeded sample."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How well each of some items is rebuilt from its raw codes.

    Attributes:
        error: float64 [items], squared distance of embedding and rebuilt embedding, summed over features.
        cosine: float64 [items], of the two, centred.
    """

    error: Array
    cosine: Array

    def __len__(self) -> int:
        return len(self.error)

    def take(self, rows: Array) -> Fit:
        """The items at the given rows (a mask or indices)."""
        return Fit(self.error[rows], self.cosine[rows])


def fit_of(centred: Float[Array, "items d"], rebuilt: Float[Array, "items d"]) -> Fit:
    """Compare embeddings, less the quantiser's mean, with what it rebuilds from their raw codes."""
    error = np.empty(len(centred))
    for begin in range(0, len(centred), PIECE):
        rows = slice(begin, begin + PIECE)
        error[rows] = ((centred[rows].astype(np.float64) - rebuilt[rows].astype(np.float64)) ** 2).sum(axis=1)
    cosine = (unit_rows(centred) * unit_rows(rebuilt)).sum(axis=1, dtype=np.float64)
    return Fit(error, cosine)


@dataclass(frozen=True, slots=True)
class Reference:
    """What new items are compared with, see `conrec.items.growing.reference`.

    Attributes:
        fit: of items that the codebooks were not trained on or, where there are too few, of those they were; of very
            many, of a seeded sample.
        trained: whether it is the latter.
        items: how many there are.
        second_codes: how many of these go by another second code than their raw one.
        first_codes: int64 [codebook], how many items of the run have each first code.
    """

    fit: Fit
    trained: bool
    items: int
    second_codes: int
    first_codes: Array

    @property
    def tolerance(self) -> float:
        """How many times its error that of new items may be."""
        return ERROR_TOLERANCE * (FITTED_ALLOWANCE if self.trained else 1.0)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the codebooks still fit some items.

    Attributes:
        state: "fits", "retrain" or "too few to tell".
        reason: the figure and the threshold that say so.
    """

    state: Literal["fits", "retrain", "too few to tell"]
    reason: str


def drift_of(
    fit: Fit,
    raw: Int[Array, "items 3"],
    resolved: Int[Array, "items levels"],
    reference: Reference,
    seed: int,
    *,
    unnamed: int = 0,
) -> dict[str, Any]:
    """All figures of some new items, as JSON.

    Args:
        fit: of the new items.
        raw: their raw codes.
        resolved: the codes that they go by.
        reference: see `Reference`.
        seed: of the intervals.
        unnamed: further items for which there was no semantic ID left.

    Returns:
        ``items``; ``unnamed``; ``reference`` (``items``, ``trained``, mean ``error`` and ``cosine``, ``tolerance``);
        ``error`` (``mean``, its ``ratio`` to the reference, ``low``, ``high``) and ``cosine`` (``mean``,
        ``difference``, ``low``, ``high``), 95 % intervals of a bootstrap over the items of both sides, null with fewer
        than `FEWEST_NEW` items; ``moved`` and ``another_second_code`` (``items``, ``share``, the latter with its
        95 % interval ``low`` and ``high`` by Wilson, the ``reference``'s share, and ``more``, the lower end of the
        95 % interval of their difference by Newcombe); ``first_codes`` (``divergence`` in bits, ``expected`` where both
        were drawn from one pool, ``p`` by permutation).
    """
    rng = generator(seed, "drift")
    moved = (raw != resolved[:, :3]).any(axis=1)
    second = int((raw[:, 1] != resolved[:, 1]).sum())
    low, high = _wilson(second, len(fit))
    ratio: dict[str, float | None] = {"low": None, "high": None}
    difference = ratio
    if len(fit) >= FEWEST_NEW:
        sides = [_resampled_means(values, rng) for values in (fit.error, reference.fit.error)]
        ratio = _interval(sides[0] / np.maximum(sides[1], np.finfo(np.float64).tiny))
        sides = [_resampled_means(values, rng) for values in (fit.cosine, reference.fit.cosine)]
        difference = _interval(sides[0] - sides[1])
    means = {"error": float(reference.fit.error.mean()), "cosine": float(reference.fit.cosine.mean())}
    return {
        "items": len(fit),
        "unnamed": unnamed,
        "reference": {
            "items": reference.items, "trained": reference.trained, **means, "tolerance": reference.tolerance
        },
        "error": {
            "mean": float(fit.error.mean()),
            "ratio": float(fit.error.mean()) / max(means["error"], np.finfo(np.float64).tiny),
            **ratio,
        },
        "cosine": {
            "mean": float(fit.cosine.mean()), "difference": float(fit.cosine.mean()) - means["cosine"], **difference
        },
        "moved": {"items": int(moved.sum()), "share": float(moved.mean())},
        "another_second_code": {
            "items": second,
            "share": second / len(fit),
            "low": low,
            "high": high,
            "reference": reference.second_codes / reference.items,
            "more": _more(second, len(fit), reference.second_codes, reference.items),
        },
        "first_codes": _first_codes(raw, reference.first_codes, rng),
    }  # fmt: skip


def verdict_of(drift: Mapping[str, Any], fullest: Mapping[str, Any]) -> Verdict:
    """Whether the codebooks still fit, and the figure and threshold that say so.

    Args:
        drift: what `drift_of` returned.
        fullest: the fullest first code of the catalogue: ``code``, ``items``, ``room`` (null where there is no end).
    """
    if drift["unnamed"]:
        found = "1 item" if drift["unnamed"] == 1 else f"{drift['unnamed']:,} items"
        return Verdict("retrain", f"{found} found no semantic ID left (threshold 0)")
    if fullest["room"] is not None and fullest["items"] > FULL * fullest["room"]:
        return Verdict(
            "retrain",
            f"first code {fullest['code']} names {fullest['items']:,} of at most {fullest['room']:,} items "
            f"(threshold {FULL:.0%})",
        )
    error, over, tolerance = drift["error"], drift["another_second_code"], drift["reference"]["tolerance"]
    than = "training items" if drift["reference"]["trained"] else "items of the run that were not trained on"
    figure = f"reconstruction error {error['ratio']:.2f} times that of {than}"
    if drift["items"] < FEWEST_NEW:
        return Verdict("too few to tell", f"{figure}, and it takes {FEWEST_NEW} items to say that they do not fit")
    figure = (
        f"{figure} ({error['low']:.2f} to {error['high']:.2f}; threshold {tolerance:.3g}, to be exceeded by the whole "
        "interval)"
    )
    if error["low"] > tolerance:
        return Verdict("retrain", figure)
    if over["more"] > OVERFLOW_TOLERANCE:
        return Verdict(
            "retrain",
            f"{over['share']:.1%} of the items took another second code ({over['low']:.1%} to {over['high']:.1%}), of "
            f"{than} {over['reference']:.1%}: at least {over['more']:.1%} more (threshold {OVERFLOW_TOLERANCE:.0%})",
        )
    return Verdict("fits", figure)


def jensen_shannon(first: Float[Array, "*n codes"], second: Float[Array, "*n codes"]) -> Float[Array, "*n"]:
    """Jensen-Shannon divergence of two distributions given by counts, in bits: 0 where alike, 1 where disjoint.

    Neither may be all 0. Lin, "Divergence measures based on the Shannon entropy", 1991, eq. 4.1 with equal weights.
    """
    p, q = (counts / counts.sum(axis=-1, keepdims=True) for counts in (first, second))
    return np.asarray(_entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2)


def _entropy(shares: Array) -> Array:
    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.asarray(-(shares * logs).sum(axis=-1))


def _first_codes(raw: Array, before: Array, rng: np.random.Generator) -> dict[str, float]:
    """How differently first codes are used, beside what as many items drawn from both together would show."""
    counts = np.bincount(raw[:, 0], minlength=len(before))
    divergence = float(jensen_shannon(counts.astype(np.float64), before.astype(np.float64)))
    pooled = counts + before
    drawn = rng.multivariate_hypergeometric(pooled, len(raw), size=PERMUTATIONS, method="marginals").astype(np.float64)
    chance = jensen_shannon(drawn, pooled - drawn)
    p = (1 + int((chance >= divergence).sum())) / (PERMUTATIONS + 1)
    return {"divergence": divergence, "expected": float(chance.mean()), "p": p}


def _resampled_means(values: Array, rng: np.random.Generator) -> Array:
    """Means of bootstrap samples, float64 [BOOTSTRAPS]."""
    if len(values) > MOST:
        values = rng.choice(values, MOST, replace=False)
    means = np.empty(BOOTSTRAPS)
    for draw in range(BOOTSTRAPS):
        means[draw] = values[rng.integers(len(values), size=len(values))].mean()
    return means


def _interval(values: Array) -> dict[str, float | None]:
    """The middle 95 % of some values."""
    low, high = np.quantile(values, (0.025, 0.975)).tolist()
    return {"low": low, "high": high}


def _wilson(found: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share: Wilson, "Probable inference, the law of succession, and statistical inference",
    1927. It has a width where all or none were found."""
    share, square = found / n, NORMAL**2
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = NORMAL / (1 + square / n) * np.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def _more(found: int, n: int, found_before: int, n_before: int) -> float:
    """The lower end of the 95 % interval by which one share exceeds another: Newcombe, "Interval estimation for the
    difference between independent proportions", 1998, method 10."""
    one, other = found / n, found_before / n_before
    low, high = _wilson(found, n)[0], _wilson(found_before, n_before)[1]
    return float(one - other - np.sqrt((one - low) ** 2 + (high - other) ** 2))
