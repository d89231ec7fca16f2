"""The motivation study: how much of a user's negative interest do the three kinds of target cover?

The paper (CoNRec, arXiv 2601.15721, introduction) reports that the next disliked item covers a user's top negative
interest in 7 % of cases and his top four in 17 %, the negatives of the next 7 days in 18 % and 48 %, and those with
their Swing neighbours in 25 % and 64 %. It does not say what an interest is. Here:

* Items fall into **groups**: by the first code of their semantic ID, or by category where the catalogue has any (an
  item of several categories is in each of them).
* A user's **negative interests** at an anchor are the groups of the negatives in his history, by how many of these
  they hold; of two with as many, the one with the later event comes first.
* A target set **covers** the top k where it holds an item of at least one of his k first interests, or of all of them
  where he has fewer than k. ``share`` is the share of these interests that it covers.

The study reads anchors of the test period whose history holds a negative; without one there is no interest to cover.
Larger target sets cover more by their size alone, so each figure comes with ``chance``: the same for the targets of
other anchors, drawn at random, against this user's interests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int, Int64

from conrec.arrays import Array, Ragged
from conrec.errors import DataError
from conrec.evaluation.metrics import mean
from conrec.evaluation.significance import Bootstrap
from conrec.logs.anchors import Anchors
from conrec.logs.log import Log
from conrec.logs.schema import SPLITS
from conrec.protocol import NEGATIVE
from conrec.seeds import generator

__all__ = ["PAPER", "category_groups", "code_groups", "interests", "motivation_study"]

TOPS = (1, 4)
"""How many of a user's interests are asked for (paper: 1 and 4)."""
PAPER = {
    "next_item": {"top_1": 0.07, "top_4": 0.17},
    "future": {"top_1": 0.18, "top_4": 0.48},
    "future_and_swing": {"top_1": 0.25, "top_4": 0.64},
}
"""The paper's shares, on logs of Taobao."""


def code_groups(codes: Int[Array, "items levels"]) -> Ragged:
    """The group of each item by the first code of its semantic ID, one a row."""
    return Ragged(np.arange(len(codes) + 1, dtype=np.int64), codes[:, 0].astype(np.int32))


def category_groups(categories: list[list[str] | None]) -> Ragged | None:
    """The groups of each item by its categories, numbered in sorted order; None where no item has one."""
    names = sorted({name for row in categories for name in row or ()})
    number = {name: index for index, name in enumerate(names)}
    if not names:
        return None
    return Ragged.from_rows([sorted({number[name] for name in row or ()}) for row in categories])


def interests(items: Int[Array, " negatives"], groups: Ragged) -> Int64[Array, " interests"]:
    """Groups of a user's past negatives (in time order), by count; ties by the later event, then the lower group.

    >>> interests(np.array([0, 1, 2, 2]), Ragged.from_rows([[7], [7], [5]])).tolist()
    [5, 7]
    """
    count: dict[int, int] = {}
    last: dict[int, int] = {}
    for position, item in enumerate(items):
        for group in groups[int(item)].tolist():
            count[group] = count.get(group, 0) + 1
            last[group] = position
    return np.asarray(sorted(count, key=lambda group: (-count[group], -last[group], group)), dtype=np.int64)


def motivation_study(
    log: Log,
    anchors: Anchors,
    gts: Ragged,
    groupings: Mapping[str, Ragged],
    *,
    bootstraps: int,
    seed: int,
) -> dict[str, Any]:
    """Shares of cases in which next item, future negatives and GTS cover a user's top interests.

    Args:
        log: the whole log, for histories.
        anchors: A anchors of the test period (others are left out).
        gts: ground-truth set of each of ``anchors``, A rows (`conrec.logs.swing.gts`).
        groupings: groups of each catalogue item, by name of the grouping ("semantic_id", "category").
        bootstraps: resamples of users behind each interval.
        seed: of the resamples and of the targets drawn for chance.

    Returns:
        ``{"split", "anchors", "anchors_without_interest", "paper", "groupings": {NAME: {"groups", "targets":
        {TARGET: {"size", "top_1", "top_4", "top_4_share", "chance": {"top_1", …}}}}}}`` with TARGET one of
        "next_item", "future", "future_and_swing"; each figure has "value", "low", "high" and "anchors", those of
        chance are plain means, and "size" is the mean number of items of the target.

    Raises:
        DataError: ``gts`` or a grouping has another number of rows than anchors or items.
    """
    if len(gts) != len(anchors):
        raise DataError(f"GTS has {len(gts)} rows", where="motivation study", expected=f"{len(anchors)}, one an anchor")
    for name, groups in groupings.items():
        if len(groups) != log.n_items:
            where = f"motivation study, grouping {name!r}"
            raise DataError(f"{len(groups)} items have groups", where=where, expected=f"all {log.n_items}")
    test = np.flatnonzero(anchors.split == SPLITS.index("test"))
    past = [_past_negatives(log, anchors, int(row)) for row in test]
    kept = [position for position, items in enumerate(past) if len(items)]
    rows = test[kept]
    chosen, past = anchors.select(rows), [past[position] for position in kept]
    result: dict[str, Any] = {
        "split": "test",
        "anchors": len(rows),
        "anchors_without_interest": len(test) - len(rows),
        "paper": PAPER,
        "groupings": {},
    }
    if len(rows) == 0:
        return result
    targets = {
        "next_item": Ragged.from_rows(chosen.next_item[:, None]),
        "future": chosen.future_negatives,
        "future_and_swing": gts.take(rows),
    }
    bootstrap = Bootstrap.over(chosen.user, bootstraps, seed)
    shuffled = generator(seed, "motivation").permutation(len(rows))
    for name, groups in groupings.items():
        wanted = [interests(items, groups) for items in past]
        found = {target: _covered(wanted, sets, groups, bootstrap, shuffled) for target, sets in targets.items()}
        result["groupings"][name] = {"groups": len(np.unique(groups.values)), "targets": found}
    return result


def _past_negatives(log: Log, anchors: Anchors, row: int) -> Array:
    """Items of the negatives in an anchor's history, in time order."""
    events = log.history(int(anchors.user[row]), int(anchors.timestamp[row]))
    items: Array = log.item[events[log.feedback[events] == NEGATIVE]]
    return items


def _covered(
    wanted: list[Array], targets: Ragged, groups: Ragged, bootstrap: Bootstrap, shuffled: Array
) -> dict[str, Any]:
    """Coverage of the users' interests by their own targets, and by those of other anchors."""
    held = [np.unique(np.concatenate([groups[int(item)] for item in target])) for target in targets]
    own = _coverage(wanted, held)
    other = _coverage(wanted, [held[position] for position in shuffled])
    figures = bootstrap.figures(np.stack(list(own.values()), axis=1))
    found = {name: one for name, one in zip(own, figures, strict=True) if one is not None}
    return {
        "size": float(targets.lengths.mean()),
        **{name: figure.to_json() for name, figure in found.items()},
        "chance": {name: mean(other[name]) for name in found},
    }


def _coverage(wanted: list[Array], held: list[Array]) -> dict[str, Array]:
    """By measure, float64 [anchors]: whether a top interest is among the groups held, and the share that is.

    NaN where none of the user's past negatives has a group.
    """
    cells: dict[str, list[float]] = {name: [] for k in TOPS for name in _names(k)}
    for interest, groups in zip(wanted, held, strict=True):
        covered = np.isin(interest, groups)
        for k in TOPS:
            top = covered[:k]
            for name, value in zip(_names(k), (float(top.any()), float(top.mean()) if len(top) else 0.0), strict=False):
                cells[name].append(value if len(top) else np.nan)
    return {name: np.asarray(values) for name, values in cells.items()}


def _names(k: int) -> tuple[str, ...]:
    """Measures for the k first interests; for one interest, covered and share are the same."""
    return (f"top_{k}",) if k == 1 else (f"top_{k}", f"top_{k}_share")
