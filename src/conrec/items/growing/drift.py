"""Do new items still fit the codebooks? Their reconstruction beside that of items that were never trained on.

What decides is the paper's own loss and the room that is left; each with a tolerance and an interval, so that a few
odd items, or chance, decide nothing:

* *Reconstruction*: the squared error of new items over that of reference items. `ERROR_TOLERANCE` says why 1.2.
* *Overflow*: items that found no semantic ID, or had to take another second code than their own, and first codes that
  are nearly full.

How far first codes are used otherwise than before is told and decides nothing: a week of horror films moves it, and
the codes name horror films as well as ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from conrec.arrays import Array
from conrec.items.diagnosis.diagnostics import unit_rows
from conrec.seeds import generator

__all__ = ["Fit", "Reference", "drift_of", "fit_of", "jensen_shannon", "verdict_of"]

ERROR_TOLERANCE = 1.2
"""How much worse new items may be rebuilt than other items that the codebooks were not trained on, with the whole
interval above it. In runs of MovieLens-100K (films up to 1998) 200 films held out at random cost 0.97 to 1.00 times as
much, films of 1998 to 2000 1.19 times, films of 2010 to 2013 1.45 times, board games 2.8 times."""
FITTED_ALLOWANCE = 1.3
"""Training items are rebuilt better than any others: films held out at random cost 1.28 to 1.31 times as much in these
runs. So where training items are the reference, the tolerance is multiplied by this."""
FEWEST_REFERENCE = 30
"""With fewer items that were not trained on, all training items are the reference."""
OVERFLOW_TOLERANCE = 0.05
"""Share of new items that may have to take another second code, with the whole interval above it: the rebuilt
embeddings of their names lie as far apart as those of strangers."""
FULL = 0.9
"""Share of the semantic IDs under a first code that may be taken: beyond it the next items find none."""
BOOTSTRAPS = 2000
PERMUTATIONS = 500
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
    apart = centred.astype(np.float64) - rebuilt.astype(np.float64)
    cosine = (unit_rows(centred) * unit_rows(rebuilt)).sum(axis=1, dtype=np.float64)
    return Fit((apart**2).sum(axis=1), cosine)


@dataclass(frozen=True, slots=True)
class Reference:
    """What new items are compared with.

    Attributes:
        fit: of items that the codebooks were not trained on or, where there are too few, of those they were.
        trained: whether it is the latter.
        first_codes: int64 [codebook], how many items of the run have each first code.
    """

    fit: Fit
    trained: bool
    first_codes: Array

    @classmethod
    def of(
        cls, fit: Fit, train_items: Bool[Array, " items"], codes: Int[Array, "items levels"], codebook_size: int
    ) -> Reference:
        """The reference of a run, from all its items and which of them the codebooks were trained on."""
        trained = int((~train_items).sum()) < FEWEST_REFERENCE
        chosen = train_items if trained else ~train_items
        return cls(fit.take(chosen), trained, np.bincount(codes[:, 0], minlength=codebook_size))

    @property
    def tolerance(self) -> float:
        """How many times its error that of new items may be."""
        return ERROR_TOLERANCE * (FITTED_ALLOWANCE if self.trained else 1.0)


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
        ``difference``, ``low``, ``high``), 95 % intervals of a bootstrap over the items of both sides; ``moved`` and
        ``another_second_code`` (``items``, ``share``, the latter with ``low`` and ``high``); ``first_codes``
        (``divergence`` in bits, ``expected`` where both were drawn from one pool, ``p`` by permutation).
    """
    rng = generator(seed, "drift")
    moved = (raw != resolved[:, :3]).any(axis=1)
    second = raw[:, 1] != resolved[:, 1]
    sides = [_resampled_means(values, rng) for values in (fit.error, reference.fit.error)]
    ratio = _interval(sides[0] / np.maximum(sides[1], np.finfo(np.float64).tiny))
    sides = [_resampled_means(values, rng) for values in (fit.cosine, reference.fit.cosine)]
    difference = _interval(sides[0] - sides[1])
    means = {"error": float(reference.fit.error.mean()), "cosine": float(reference.fit.cosine.mean())}
    return {
        "items": len(fit),
        "unnamed": unnamed,
        "reference": {
            "items": len(reference.fit), "trained": reference.trained, **means, "tolerance": reference.tolerance
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
            "items": int(second.sum()),
            "share": float(second.mean()),
            **_interval(_resampled_means(second.astype(np.float64), rng)),
        },
        "first_codes": _first_codes(raw, reference.first_codes, rng),
    }  # fmt: skip


def verdict_of(drift: Mapping[str, Any], fullest: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether the codebooks still fit, and the figure and threshold that say so.

    Args:
        drift: what `drift_of` returned.
        fullest: the fullest first code of the catalogue: ``code``, ``items``, ``room`` (null where there is no end).
    """
    if drift["unnamed"]:
        found = "1 item" if drift["unnamed"] == 1 else f"{drift['unnamed']:,} items"
        return False, f"{found} found no semantic ID left (threshold 0)"
    error, over, tolerance = drift["error"], drift["another_second_code"], drift["reference"]["tolerance"]
    than = "training items" if drift["reference"]["trained"] else "items of the run that were not trained on"
    figure = (
        f"reconstruction error {error['ratio']:.2f} times that of {than} "
        f"({error['low']:.2f} to {error['high']:.2f}; threshold {tolerance:g}, to be exceeded by the whole interval)"
    )
    if error["low"] > tolerance:
        return False, figure
    if over["low"] > OVERFLOW_TOLERANCE:
        return False, (
            f"{over['share']:.1%} of the items took another second code ({over['low']:.1%} to {over['high']:.1%}; "
            f"threshold {OVERFLOW_TOLERANCE:.0%}, to be exceeded by the whole interval)"
        )
    if fullest["room"] is not None and fullest["items"] > FULL * fullest["room"]:
        return False, (
            f"first code {fullest['code']} names {fullest['items']:,} of at most {fullest['room']:,} items "
            f"(threshold {FULL:.0%})"
        )
    return True, figure


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


def _interval(values: Array) -> dict[str, float]:
    """The middle 95 % of some values."""
    low, high = np.quantile(values, (0.025, 0.975)).tolist()
    return {"low": low, "high": high}
