"""EASE from signed feedback to dislikes: a linear model of items on items, solved in closed form.

Embarrassingly Shallow Autoencoders for Sparse Data (Steck, WWW 2019, arXiv 1905.03375) with inputs and targets apart: X
is the signed feedback of the training users (a weight for each sign), Y their dislikes, and::

    min_B |Y - X B|² + λ |B|²   with diag(B) = 0
    P = (XᵀX + λ I)⁻¹,   A = P Xᵀ Y,   B = A - P · diag(diag(A) / diag(P))

(for X = Y that is the paper's eq. 8, B = I - P · diag(1 / diag(P))). A user's scores are his profile times B. A dislike
of Y is halved with the time from then to the end of the training period.

Departures:

* the target is another matrix than the input; Lagrange's multipliers of the diagonal are then diag(A) / diag(P);
* one more input is 1 for everybody (``intercept``): its row of B is the item bias, which a user without history gets.
  λ shrinks it like any other weight, to n / (n + λ) of the mean of n users where nothing else is known;
* the solution is dense, so a large catalogue is cut to the ``max_items`` items with the most events that are read; the
  others are neither inputs nor targets. For each query they stand below the lowest of the items that are, and below 0,
  a whole number apart and ordered by their number of dislikes. Memory is about 32 bytes, and time about three
  multiplications, of a square matrix of that size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Float64
from scipy.linalg.lapack import dpotrf, dpotri
from scipy.sparse import csc_array, csr_array, hstack

from conrec.arrays import Array
from conrec.baselines.base import CatalogueScorer, Curve
from conrec.baselines.simple.fallback import by_dislikes, dislikes_of_late
from conrec.baselines.simple.profiles import DISLIKES, interactions, profiles
from conrec.baselines.simple.saved import damaged, read_settings, read_tables, table_of, write_model
from conrec.logs.log import Log
from conrec.recommender import Queries
from conrec.settings.baselines.simple import EaseConfig

if TYPE_CHECKING:
    from conrec.workspace import Workspace

__all__ = ["SPACE", "Ease", "solve"]

SPACE: dict[str, tuple[float | int | None, ...]] = {
    "training_half_life_days": (7.0, 20.0, None),
    "regularisation": (200.0, 1000.0, 5000.0),
    "positive": (-0.5, 0.0, 0.5),
}
"""The grid that `conrec baselines search` searches."""


@dataclass(frozen=True, slots=True)
class Ease(CatalogueScorer):
    """A fitted EASE.

    Attributes:
        weights: B, float32 [kept + 1, kept], with a diagonal of zeros; the last row is the intercept's.
        kept: int64 [kept], items that B is about, ascending.
        fallback: float64 [items], see `conrec.baselines.simple.fallback`.
        settings: it was fitted with.
        curve: empty; nothing is trained in steps.
        rest: int64 [items - kept], items that B is not about, ascending.
        depth: float32 [items - kept], how far each of these stands below the lowest of the others: 1, 2, … in the order
            of ``fallback``, equal where that is; whole numbers, because float32 keeps them apart up to 2²⁴.
    """

    weights: Array
    kept: Array
    fallback: Array
    settings: EaseConfig
    curve: Curve = field(default_factory=dict)
    rest: Array = field(init=False)
    depth: Array = field(init=False)

    def __post_init__(self) -> None:
        """Order the items that B is not about."""
        rest = np.setdiff1d(np.arange(len(self.fallback)), self.kept, assume_unique=True)
        place = np.unique(-self.fallback[rest], return_inverse=True)[1].reshape(-1)
        object.__setattr__(self, "rest", rest)
        object.__setattr__(self, "depth", 1 + place.astype(np.float32))

    @classmethod
    def fit(cls, space: Workspace, name: str) -> Ease:
        """Solve for B on the training period."""
        return cls.of(space.training_log, space.config.baselines.ease)

    @classmethod
    def of(cls, training_log: Log, settings: EaseConfig) -> Ease:
        """Fit on a log of the training period alone."""
        signed = interactions(training_log, settings.weights)
        events = np.diff(csc_array(signed).indptr)
        most = np.argsort(-events, kind="stable")[: settings.max_items]
        kept = np.sort(most[events[most] > 0])
        there = np.zeros((training_log.n_users, 1))
        there[training_log.user] = float(settings.intercept)
        inputs = csr_array(hstack([signed[:, kept], csr_array(there)], format="csr"))
        targets = interactions(training_log, DISLIKES, settings.training_half_life_days)[:, kept]
        weights = solve(csr_array(inputs.T @ inputs), csr_array(inputs.T @ targets), settings.regularisation)
        dislikes = dislikes_of_late(training_log, settings.training_half_life_days)
        # In the order of rows: a sparse product copies any other, and it is asked batch by batch.
        return cls(np.ascontiguousarray(weights, dtype=np.float32), kept, by_dislikes(dislikes), settings)

    @property
    def parameters(self) -> int:
        """Entries of B off its diagonal."""
        return int(self.weights.size - len(self.kept))

    def scores(self, log: Log, queries: Queries) -> Float32[Array, "queries items"]:
        """The user's profile times B, and all other items below."""
        history = profiles(log, queries, self.settings.weights, self.settings.half_life_days)[:, self.kept]
        # A product row by row, in the order of the columns: no bit of it depends on the other queries.
        found = history.astype(np.float32) @ self.weights[:-1] + self.weights[-1]
        found += self.fallback[self.kept].astype(np.float32)
        # Weights may be below 0, so what is lowest differs from query to query.
        lowest = np.floor(found.min(axis=1, keepdims=True, initial=0.0))
        result = np.empty((len(queries), len(self.fallback)), dtype=np.float32)
        result[:, self.kept] = found
        result[:, self.rest] = lowest - self.depth
        return result

    def save(self, folder: Path) -> None:
        """Write ``model.safetensors`` and ``config.json``."""
        write_model(folder, {"weights": self.weights, "kept": self.kept, "fallback": self.fallback}, self.settings)

    @classmethod
    def load(cls, folder: Path, space: Workspace, name: str) -> Ease:
        """Read what `save` wrote; it answers to the byte as the saved one did.

        Raises:
            ArtefactError: a file is missing, damaged, or does not fit the others.
        """
        settings, tables = read_settings(folder, EaseConfig), read_tables(folder)
        fallback, kept = table_of(tables, "fallback", folder, None), table_of(tables, "kept", folder, None)
        weights = table_of(tables, "weights", folder, len(kept) + 1, len(kept))
        if kept.dtype != np.int64 or (np.diff(kept, prepend=-1) <= 0).any() or (kept >= len(fallback)).any():
            raise damaged(folder, "kept", f"ascending items below {len(fallback)}")
        return cls(weights, kept, fallback, settings)


def solve(gram: csr_array, shared: csr_array, regularisation: float) -> Float64[Array, "inputs targets"]:
    """B of the module's formula.

    Args:
        gram: XᵀX, float64 [inputs, inputs].
        shared: XᵀY, float64 [inputs, targets]; target j is item j of the inputs, and inputs beyond are no targets.
        regularisation: λ, above 0: the matrix that is inverted is then positive definite.
    """
    inverse = gram.toarray(order="F")
    inverse[np.diag_indices(len(inverse))] += regularisation
    factor, _ = dpotrf(inverse, lower=True, overwrite_a=True)
    inverse, _ = dpotri(factor, lower=True, overwrite_c=True)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    weights = np.asarray((shared.T @ inverse).T)
    own = np.arange(weights.shape[1])
    weights -= inverse[:, own] * (weights[own, own] / inverse[own, own])
    weights[own, own] = 0.0
    return weights
