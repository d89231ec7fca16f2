"""What one filter at one threshold does on test anchors, as sums by user, so that all of them share their resamples."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool

from conrec.arrays import Array
from conrec.evaluation.significance import Bootstrap
from conrec.filtering.analysis.intervals import DECIMALS, figure, resampled_shares, user_sums
from conrec.filtering.analysis.methods import Judged
from conrec.filtering.analysis.pairs import CANDIDATES, KINDS, POSITIVES
from conrec.filtering.analysis.remains import Candidates, Remains
from conrec.filtering.analysis.segments import Categories, user_segments

__all__ = ["FIGURES", "REMAINS", "Outcomes"]

FIGURES = ("filtering_rate", "false_filter_rate", "caught", "user_false_filter_rate")
"""Share dropped of the candidates, the future positives and the future negatives (every item counts the same), and
the share of a user's own future positives, averaged over users: the recall of positives that is lost."""
REMAINS = ("diversity", "entropy", "over_half_lost")
"""Means over anchors, of `conrec.filtering.analysis.remains.Remains`."""


@dataclass
class Outcomes:
    """Collects filters by `add`, and gives all their figures at the end by `figures`.

    Attributes:
        judged: the test anchors and their pairs.
        candidates: of these anchors.
        categories: rows by category, None where no item has one.
        bootstrap: over the users of the anchors.
        items: size of the catalogue.
    """

    judged: Judged
    candidates: Candidates
    categories: Categories | None
    bootstrap: Bootstrap
    items: int
    _parts: list[list[Array]] = field(default_factory=list)
    _facts: list[dict[str, Any]] = field(default_factory=list)

    @cached_property
    def segments(self) -> dict[str, Array]:
        """bool [anchors] by segment."""
        return user_segments(self.judged.anchors)

    @cached_property
    def _of_pairs(self) -> dict[str, list[Array]]:
        """Which pairs of each kind are of each segment."""
        pairs = self.judged.pairs
        kinds = [pairs.of_kind(kind) for kind in range(len(KINDS))]
        return {name: [rows[pairs.anchor] & kind for kind in kinds] for name, rows in self.segments.items()}

    def counts(self) -> dict[str, dict[str, int]]:
        """Anchors, users and pairs of each kind by segment."""
        user = self.judged.anchors.user
        return {
            name: {
                "anchors": int(rows.sum()),
                "users": len(np.unique(user[rows])),
                **{kind: int(of.sum()) for kind, of in zip(KINDS, self._of_pairs[name], strict=True)},
            }
            for name, rows in self.segments.items()
        }

    def add(self, dropped: Bool[Array, " pairs"]) -> None:
        """One more filter: which pairs it drops."""
        remains = self._remains(dropped)
        self._parts.append(self._sums(dropped.astype(np.float64), remains))
        fact: dict[str, Any] = {
            "none_kept": int((remains.kept[self._had] == 0).sum()),
            "fewer_than_two_kept": int((remains.kept[self._had] < 2).sum()),
            "items_shown": remains.shown,
            "coverage": round(remains.shown / self.items, DECIMALS) if self.items else None,
        }
        if self.categories is not None:
            shares = self.categories.shares(dropped.astype(np.float64), self.judged.pairs)
            fact["categories"] = [
                dict(zip(FIGURES, (None if one is None else round(one, DECIMALS) for one in row), strict=False))
                for row in shares
            ]
        self._facts.append(fact)

    def figures(self) -> list[dict[str, Any]]:
        """Of each filter in the order of `add`: ``{"segments": {SEGMENT: {FIGURE: …}}, "remains", "categories"}``."""
        names = [(segment, one) for segment in self.segments for one in FIGURES] + [("", one) for one in REMAINS]
        n = len(names)
        if not self._parts:
            return []
        wholes = np.stack(self._wholes(), axis=1)
        parts = np.stack([column for row in self._parts for column in row], axis=1)
        resampled = resampled_shares(parts, wholes, np.tile(np.arange(n), len(self._parts)), self.bootstrap)
        part, whole = parts.sum(axis=0), wholes.sum(axis=0)
        found = []
        for place, fact in enumerate(self._facts):
            cells = [
                figure(part[at] / whole[column] if whole[column] else None, resampled[:, at])
                for column, at in enumerate(range(place * n, (place + 1) * n))
            ]
            by_name = dict(zip(names, cells, strict=True))
            segments = {one: {name: by_name[one, name] for name in FIGURES} for one in self.segments}
            remains = {name: by_name["", name] for name in REMAINS}
            facts = {key: value for key, value in fact.items() if key != "categories"}
            found.append({"segments": segments, "remains": {**remains, **facts}, "categories": fact.get("categories")})
        return found

    @cached_property
    def _had(self) -> Array:
        """Anchors with candidates."""
        return np.asarray((self.judged.anchors.candidates >= 0).any(axis=1))

    def _remains(self, dropped: Array) -> Remains:
        pairs = self.judged.pairs
        of = pairs.of_kind(CANDIDATES)
        kept = np.zeros(self.judged.anchors.candidates.shape, dtype=np.bool_)
        # Candidates are the first pairs, in the order of their places.
        kept[self.judged.anchors.candidates >= 0] = ~dropped[of]
        return self.candidates.keeping(kept)

    def _by_user(self, values: Array, anchors: Array) -> Array:
        return user_sums(values, self.bootstrap.user[anchors], self.bootstrap.n_users)

    def _sums(self, dropped: Array, remains: Remains) -> list[Array]:
        """Numerators by user, in the order of the figures' names."""
        anchor = self.judged.pairs.anchor
        columns = []
        for name, positives in zip(self.segments, self._positives, strict=True):
            columns += [self._by_user(dropped[of], anchor[of]) for of in self._of_pairs[name]]
            columns.append(columns[POSITIVES - len(KINDS)] / np.maximum(positives, 1))
        means = (remains.diversity, remains.entropy, remains.over_half_lost)
        return columns + [self._by_user(np.nan_to_num(one), self._every) for one in means]

    def _wholes(self) -> list[Array]:
        """Denominators by user, in the same order; the same for every filter."""
        anchor = self.judged.pairs.anchor
        columns = []
        for name, positives in zip(self.segments, self._positives, strict=True):
            columns += [self._by_user(np.ones(int(of.sum())), anchor[of]) for of in self._of_pairs[name]]
            columns.append((positives > 0).astype(np.float64))
        nothing = self.candidates.keeping(self.judged.anchors.candidates >= 0)
        means = (nothing.diversity, nothing.entropy, nothing.over_half_lost)
        return columns + [self._by_user((~np.isnan(one)).astype(np.float64), self._every) for one in means]

    @cached_property
    def _every(self) -> Array:
        return np.arange(len(self.judged.anchors))

    @cached_property
    def _positives(self) -> list[Array]:
        """Future positives of each user in each segment, float64 [users] each."""
        anchor = self.judged.pairs.anchor
        liked = (self._of_pairs[name][POSITIVES] for name in self.segments)
        return [self._by_user(np.ones(int(of.sum())), anchor[of]) for of in liked]
