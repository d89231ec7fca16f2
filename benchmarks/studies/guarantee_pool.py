"""Who liked and disliked what in some periods of a run, and how near that was to a model's predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from conrec.arrays import Array
from conrec.config import Config
from conrec.evaluation.evaluate import RunData
from conrec.filtering.calibrating.control import Liked
from conrec.filtering.calibrating.similarities import Pairs, split_similarities
from conrec.filtering.catalogue import FilterCatalogue

__all__ = ["Pool", "pool"]


@dataclass(frozen=True, slots=True)
class Pool:
    """Liked and disliked candidates of some users under one model.

    Attributes:
        liked, disliked: the pairs.
        liked_user, disliked_user: int64, row of each pair's user among ``users``.
        users: number of users with a liked candidate; disliked candidates of others are left out.
    """

    liked: Pairs
    disliked: Pairs
    liked_user: Array
    disliked_user: Array
    users: int

    @property
    def everybody(self) -> Liked:
        """The liked candidates by user."""
        return Liked(self.liked.similarity, self.liked_user, np.bincount(self.liked_user, minlength=self.users))


def pool(
    run: Path, model: str, data: RunData, catalogue: FilterCatalogue, config: Config, splits: Sequence[str]
) -> Pool:
    """The pairs of one or several periods."""
    parts: list[list[Array]] = [[], [], [], [], [], []]
    for split in splits:
        anchors, found = split_similarities(run, model, data, catalogue, config, split)
        for place, pairs in enumerate((found.positives, found.negatives)):
            for part, values in zip(
                parts[3 * place :], (pairs.similarity, pairs.item, anchors.user[pairs.anchor]), strict=False
            ):
                part.append(values)
    liked, liked_item, liked_by, disliked, disliked_item, disliked_by = (np.concatenate(one) for one in parts)
    names, liked_user = np.unique(liked_by, return_inverse=True)
    known = np.isin(disliked_by, names)
    nowhere = np.empty(0, dtype=np.int64)
    return Pool(
        Pairs(liked, nowhere, liked_item),
        Pairs(disliked[known], nowhere, disliked_item[known]),
        liked_user.reshape(-1).astype(np.int64),
        np.searchsorted(names, disliked_by[known]),
        len(names),
    )
