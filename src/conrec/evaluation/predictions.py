"""Files of a model's answers, written for any model and read back with every row checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32, Int64

from conrec.arrays import Array
from conrec.artefacts import read_parquet, write_parquet
from conrec.errors import ArtefactError
from conrec.logs.anchors import Anchors
from conrec.logs.schema import CANDIDATE_SCORES, PREDICTIONS
from conrec.recommender import Ranking

__all__ = ["read_candidate_scores", "read_predictions", "why_unranked", "write_candidate_scores", "write_predictions"]


UNRANKED = b"conrec.unranked"
"""Key of a Parquet file's metadata: why it holds no rows."""


def write_predictions(
    path: Path, anchors: Anchors, ranking: Ranking, item_ids: Sequence[str], unranked: str = ""
) -> None:
    """Write the top K of each anchor, rank counted from 1; places that no eligible item filled are left out.

    Args:
        path: ``RUN/predictions/MODEL.parquet``.
        anchors: A anchors.
        ranking: items and scores [A, K].
        item_ids: the catalogue, in the order of item indices.
        unranked: why the model ranks nothing, where it scores candidates alone. The file then has no rows and says
            this, so that it is not taken for one that was cut short.
    """
    row, place = np.nonzero(ranking.item >= 0)
    columns = {
        "anchor_id": anchors.anchor_id[row],
        "rank": (place + 1).astype(np.int32),
        "item_id": _names(item_ids, ranking.item[row, place]),
        "score": ranking.score[row, place],
    }
    schema = PREDICTIONS.with_metadata({UNRANKED: unranked.encode()}) if unranked and not len(row) else PREDICTIONS
    write_parquet(path, pa.table(columns, schema=schema))


def why_unranked(path: Path) -> str | None:
    """Why the model of a file of predictions ranks nothing; None where it ranks, or there is no such file.

    Raises:
        ArtefactError: the file is damaged.
    """
    if not path.is_file():
        return None
    table = read_parquet(path)
    why = (table.schema.metadata or {}).get(UNRANKED)
    return None if why is None or table.num_rows else why.decode(errors="replace")


def write_candidate_scores(path: Path, anchors: Anchors, scores: Array, item_ids: Sequence[str]) -> None:
    """Write the score of every candidate of each anchor, in the stored order of candidates.

    Args:
        path: ``RUN/candidate_scores/MODEL.parquet``.
        anchors: A anchors with candidates [A, C]; -1 is left out.
        scores: float32 [A, C].
        item_ids: the catalogue, in the order of item indices.
    """
    row, place = np.nonzero(anchors.candidates >= 0)
    columns = {
        "anchor_id": anchors.anchor_id[row],
        "item_id": _names(item_ids, anchors.candidates[row, place]),
        "score": scores[row, place].astype(np.float32),
    }
    write_parquet(path, pa.table(columns, schema=CANDIDATE_SCORES))


def read_predictions(path: Path, anchors: Anchors, item_ids: Sequence[str], known: Int64[Array, " known"]) -> Ranking:
    """The rankings of ``anchors``, in their order.

    Args:
        path: what `write_predictions`, or anybody else, wrote.
        anchors: A anchors that must all be in the file.
        item_ids: the catalogue.
        known: ids of all anchors of the run; rows of those that are not asked for are checked and left out.

    Returns:
        Items and scores [A, K], K the deepest rank in the file; rows of the file may come in any order. K is 0 where
        the file says why it has no rows, see `why_unranked`.

    Raises:
        ArtefactError: an anchor is unknown or missing, an item is unknown or twice in a ranking, a rank is
            missing or given twice, or a score is not a number.
    """
    table = read_parquet(path, PREDICTIONS)
    anchor, item, score = _checked(path, table, item_ids, known)
    rank = table["rank"].to_numpy().astype(np.int64)
    if len(rank) and (rank < 1).any():
        raise _error(path, int(np.argmax(rank < 1)), f"rank {rank.min()}", "ranks from 1")
    row = _row_of(anchors, anchor)
    # Order by (anchor, rank): then rank r stands r - 1 places behind the first of its anchor, or one is missing.
    order = np.lexsort((rank, anchor))
    sorted_anchor = anchor[order]
    begins = np.flatnonzero(np.r_[True, sorted_anchor[1:] != sorted_anchor[:-1]]) if len(order) else order
    place = np.arange(len(order)) - np.repeat(begins, np.diff(np.r_[begins, len(order)]))
    wrong = np.flatnonzero(rank[order] != place + 1)
    if len(wrong):
        at = order[wrong[0]]
        found = f"rank {rank[at]} of anchor {anchor[at]} follows rank {place[wrong[0]]}"
        raise _error(path, int(at), found, f"rank {place[wrong[0]] + 1}: each rank from 1 on, once")
    _refuse_twice(path, anchor, item, item_ids, "ranked")
    missing = np.flatnonzero(~np.isin(anchors.anchor_id, anchor))
    if len(missing) and why_unranked(path) is None:
        raise _missing(path, f"{len(missing)} of {len(anchors)} anchors, the first {anchors.anchor_id[missing[0]]}")
    k = int(rank.max(initial=0))
    asked = row >= 0
    items = np.full((len(anchors), k), -1, dtype=np.int32)
    scores = np.full((len(anchors), k), -np.inf, dtype=np.float32)
    items[row[asked], rank[asked] - 1] = item[asked]
    scores[row[asked], rank[asked] - 1] = score[asked]
    return Ranking(items, scores)


def read_candidate_scores(
    path: Path, anchors: Anchors, item_ids: Sequence[str], known: Int64[Array, " known"]
) -> Float32[Array, "anchors candidates"]:
    """The scores of the candidates of ``anchors``, in the stored order; -inf where a candidate is -1.

    Args:
        path: what `write_candidate_scores`, or anybody else, wrote.
        anchors: A anchors with candidates [A, C] that must all be in the file.
        item_ids: the catalogue.
        known: ids of all anchors of the run; rows of those that are not asked for are checked and left out.

    Raises:
        ArtefactError: an anchor or item is unknown, a candidate has no score or two, an item was not a
            candidate of its anchor, or a score is not a number.
    """
    table = read_parquet(path, CANDIDATE_SCORES)
    anchor, item, score = _checked(path, table, item_ids, known)
    _refuse_twice(path, anchor, item, item_ids, "scored")
    row = _row_of(anchors, anchor)
    asked = np.flatnonzero(row >= 0)
    given = row[asked] * len(item_ids) + item[asked]
    wanted_row, wanted_place = np.nonzero(anchors.candidates >= 0)
    wanted = wanted_row * len(item_ids) + anchors.candidates[wanted_row, wanted_place]
    foreign = np.flatnonzero(~np.isin(given, wanted))
    if len(foreign):
        at = asked[foreign[0]]
        raise _error(path, int(at), f"item {item_ids[item[at]]!r}", f"one of the candidates of anchor {anchor[at]}")
    absent = np.flatnonzero(~np.isin(wanted, given))
    if len(absent):
        name = item_ids[anchors.candidates[wanted_row[absent[0]], wanted_place[absent[0]]]]
        first = f"candidate {name!r} of anchor {anchors.anchor_id[wanted_row[absent[0]]]}"
        raise _missing(path, f"{len(absent)} of {len(wanted)} candidates, the first {first}")
    scores = np.full(anchors.candidates.shape, -np.inf, dtype=np.float32)
    order = np.argsort(given)
    scores[wanted_row, wanted_place] = score[asked][order[np.searchsorted(given, wanted, sorter=order)]]
    return scores


def _names(item_ids: Sequence[str], items: Array) -> pa.Array:
    return pa.array(item_ids, pa.string()).take(pa.array(items))


def _checked(path: Path, table: pa.Table, item_ids: Sequence[str], known: Array) -> tuple[Array, Array, Array]:
    """Anchor ids (int64), item indices (int64) and scores (float32) of all rows; unknown or empty ones are refused."""
    for name in table.column_names:
        if table[name].null_count:
            at = int(np.argmax(table[name].is_null().to_numpy()))
            raise _error(path, at, f"column {name!r} is null", "a value in every row")
    anchor = table["anchor_id"].to_numpy()
    strange = np.flatnonzero(~np.isin(anchor, known))
    if len(strange):
        raise _error(path, int(strange[0]), f"anchor {anchor[strange[0]]}", "an anchor of data/anchors.parquet")
    found = pc.index_in(table["item_id"], value_set=pa.array(item_ids, pa.string()))
    item = pc.fill_null(found, -1).to_numpy().astype(np.int64)
    if len(item) and item.min() < 0:
        at = int(np.argmax(item < 0))
        raise _error(path, at, f"item {table['item_id'][at].as_py()!r}", "an item of data/items.parquet")
    score = table["score"].to_numpy()
    if np.isnan(score).any():
        raise _error(path, int(np.argmax(np.isnan(score))), "score NaN", "a number")
    return anchor, item, score


def _row_of(anchors: Anchors, anchor: Array) -> Array:
    """Row in ``anchors`` of each anchor id, -1 where it is not asked for; int64."""
    if len(anchors) == 0:
        return np.full(len(anchor), -1, dtype=np.int64)
    order = np.argsort(anchors.anchor_id, kind="stable")
    place = np.minimum(np.searchsorted(anchors.anchor_id, anchor, sorter=order), len(order) - 1)
    row = order[place]
    return np.where(anchors.anchor_id[row] == anchor, row, -1)


def _refuse_twice(path: Path, anchor: Array, item: Array, item_ids: Sequence[str], what: str) -> None:
    """Refuse an (anchor, item) pair that occurs in two rows, naming the second of them."""
    order = np.lexsort((item, anchor))
    same = (anchor[order][1:] == anchor[order][:-1]) & (item[order][1:] == item[order][:-1])
    if same.any():
        at = int(order[1:][same].min())
        found = f"item {item_ids[item[at]]!r} is {what} twice for anchor {anchor[at]}"
        raise _error(path, at, found, "distinct items for each anchor")


def _error(path: Path, row: int, found: str, expected: str) -> ArtefactError:
    return ArtefactError(found, where=f"{path}, row {row}", expected=expected)


def _missing(path: Path, what: str) -> ArtefactError:
    return ArtefactError(
        f"has no rows for {what}",
        where=str(path),
        expected="every anchor of the validation and test periods",
        mend="The file belongs to another run or was cut short: predict again.",
    )
