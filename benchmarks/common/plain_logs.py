"""The data stage as it is plainly written: polars for the tables, a loop over anchors and one over items.

The same definitions (docs/protocol.md) by the operations that come to mind first: windows by joining each anchor with
all events of its user, candidates and Swing with NumPy, an anchor or an item at a time.
"""

from __future__ import annotations

import time
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp

__all__ = ["PAPER_REASONS", "plain_prepare", "plain_swing"]

DAY = 86_400
PAPER_REASONS = ("already bought", "clickbait price", "fake", "ai image")


def plain_prepare(
    folder: Path, out: Path, cuts: tuple[float, float] = (0.7, 0.8), horizon: int = 7 * DAY, more_than: int = 5
) -> dict[str, Any]:
    """Prepare the log that the simulator wrote into ``folder``; files go to ``out``.

    Returns:
        Seconds of each step, and the anchors of each split, what they hold, and the pairs of Swing for comparison.
    """
    clock, seconds = time.perf_counter(), {}

    def took(name: str) -> None:
        nonlocal clock
        seconds[name] = time.perf_counter() - clock
        clock = time.perf_counter()

    items = pl.read_parquet(folder / "items.parquet").sort("item_id")
    said = pl.col("reason").str.to_lowercase().str.replace_all("[_-]", " ")
    events = (
        pl.read_parquet(folder / "events.parquet")
        .with_row_index("position")
        .filter(~((pl.col("feedback") == -1) & said.is_in(PAPER_REASONS).fill_null(False)))
        .filter(pl.col("item_id").is_in(items["item_id"].implode()))
        .unique(["user_id", "item_id", "timestamp"], keep="last")
        .sort("timestamp", "position")
    )
    took("reading and cleaning")

    codes = {one: n for n, one in enumerate(items["item_id"])}
    users = {one: n for n, one in enumerate(events["user_id"].unique().sort())}
    events = events.select(
        pl.col("user_id").replace_strict(users, return_dtype=pl.Int32).alias("user"),
        pl.col("item_id").replace_strict(codes, return_dtype=pl.Int32).alias("item"),
        "timestamp", "feedback", "user_id", "item_id",
    ).with_row_index("position")  # fmt: skip
    validation, test = (events["timestamp"][floor(cut * len(events))] for cut in cuts)
    end = events["timestamp"][-1] + 1
    took("ordering")

    anchors, window = _anchors(events, (validation, test, end), horizon)
    took("anchors")
    candidates = _candidates(events, anchors, window, len(codes))
    took("candidates")
    past = events.filter((pl.col("feedback") == -1) & (pl.col("timestamp") < validation))
    swing = plain_swing(past["user"].to_numpy(), past["item"].to_numpy(), len(users), len(codes), more_than)
    took("Swing")
    out.mkdir(parents=True, exist_ok=True)
    events.select("user_id", "item_id", "timestamp", "feedback").write_parquet(out / "events.parquet")
    items.write_parquet(out / "items.parquet")
    anchors.join(candidates, on="start", how="left").write_parquet(out / "anchors.parquet")
    pl.DataFrame(swing, schema=["item", "neighbour", "similarity"], orient="row").write_parquet(out / "swing.parquet")
    took("files")
    counts = anchors["split"].value_counts().sort("split")["count"].to_list()
    targets = int(anchors["negatives"].list.len().sum())
    return {"seconds": seconds, "anchors": counts, "targets": targets, "swing": swing}


def _anchors(events: pl.DataFrame, cuts: tuple[int, int, int], horizon: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Anchors with their targets, and every event of their windows."""
    validation, test, end = cuts
    negative = events.filter(pl.col("feedback") == -1)
    training = negative.filter(pl.col("timestamp") < validation)
    opened: list[int] = []
    for begin, stop in ((validation, test), (test, end)):
        inside = negative.filter((pl.col("timestamp") >= begin) & (pl.col("timestamp") < stop))
        for rows in inside.partition_by("user"):
            until = -1
            for position, time_ in zip(rows["position"], rows["timestamp"], strict=True):
                if time_ >= until:
                    opened.append(position)
                    until = time_ + horizon
    later = negative.filter(pl.col("position").is_in(opened))
    stop = pl.when(pl.col("t") < validation).then(validation).when(pl.col("t") < test).then(test).otherwise(end)
    starts = (
        pl.concat([training, later])
        .select(pl.col("position").alias("start"), "user", pl.col("timestamp").alias("t"))
        .with_columns(
            pl.min_horizontal(pl.col("t") + horizon, stop).alias("stop"),
            split=pl.when(pl.col("t") < validation).then(0).when(pl.col("t") < test).then(1).otherwise(2),
        )
        .join(events.group_by("user").agg(pl.col("timestamp").min().alias("first")), on="user")
        .filter(pl.col("first") < pl.col("t"))
    )
    seen = events.group_by("user", "item").agg(pl.col("timestamp").min().alias("seen"))
    window = (
        starts.lazy()
        .join(events.lazy().select("user", "item", "timestamp", "feedback", "position"), on="user")
        .filter((pl.col("timestamp") >= pl.col("t")) & (pl.col("timestamp") < pl.col("stop")))
        .join(seen.lazy(), on=["user", "item"])
        .sort("start", "position")
        .collect()
    )
    new = (pl.col("feedback") == -1) & (pl.col("seen") >= pl.col("t"))
    grouped = window.group_by("start", maintain_order=True).agg(
        pl.col("item").filter(new).unique(maintain_order=True).alias("negatives"),
        pl.col("item").filter(pl.col("feedback") == 1).unique(maintain_order=True).alias("positives"),
    )
    anchors = starts.join(grouped, on="start").filter(pl.col("negatives").list.len() > 0).sort("t", "user", "start")
    return anchors, window


def _candidates(events: pl.DataFrame, anchors: pl.DataFrame, window: pl.DataFrame, n_items: int) -> pl.DataFrame:
    """Twenty candidates of each validation and test anchor, one after another."""
    chance = np.random.default_rng(0)
    asked = anchors.filter(pl.col("split") > 0)
    user, item, time_, feedback = (events[name].to_numpy() for name in ("user", "item", "timestamp", "feedback"))
    day = time_ // DAY
    by_user = np.argsort(user, kind="stable")
    of_user = np.append(0, np.cumsum(np.bincount(user)))
    counted: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    found = []
    for row in asked.iter_rows(named=True):
        mine = by_user[of_user[row["user"]] : of_user[row["user"] + 1]]
        times = time_[mine]
        inside = mine[(times >= row["t"]) & (times < row["stop"])]
        history = item[mine[times < row["t"]]]
        today = inside[(day[inside] == row["t"] // DAY) & (feedback[inside] != -1)]
        own = np.setdiff1d(item[today], np.concatenate([history, np.asarray(row["negatives"])]))
        chosen = [row["negatives"][0], *chance.permutation(own)[:19].tolist()]
        barred = np.zeros(n_items, dtype=bool)
        barred[history] = barred[item[inside]] = barred[chosen] = True
        at = row["t"] // DAY
        while len(chosen) < 20 and at >= day[0]:
            if at not in counted:
                begin, last = np.searchsorted(day, [at, at + 1])
                counted[at] = np.unique(item[begin:last], return_counts=True)
            names, counts = counted[at]
            others = counts - np.bincount(np.searchsorted(names, item[mine[day[mine] == at]]), minlength=len(names))
            free = ~barred[names] & (others > 0)
            keys = chance.gumbel(size=int(free.sum())) + np.log(others[free])
            more = names[free][np.argsort(-keys)[: 20 - len(chosen)]]
            chosen += more.tolist()
            barred[more] = True
            at -= 1
        if len(chosen) < 20:
            chosen += chance.permutation(np.flatnonzero(~barred))[: 20 - len(chosen)].tolist()
        found.append((row["start"], chance.permutation(chosen).tolist()))
    return pl.DataFrame(found, schema={"start": anchors.schema["start"], "candidates": pl.List(pl.Int32)}, orient="row")


def plain_swing(
    user: np.ndarray, item: np.ndarray, n_users: int, n_items: int, more_than: int = 5, cap: int = 200
) -> list[tuple[int, int, float]]:
    """Ten Swing neighbours of each item (item, neighbour, similarity), an item at a time; `SwingConfig`'s constants."""
    chance = np.random.default_rng(0)
    pairs = np.unique(np.stack([user, item]), axis=1)
    matrix = sp.csr_matrix((np.ones(pairs.shape[1]), (pairs[0], pairs[1])), shape=(n_users, n_items))
    by_item = matrix.T.tocsr()
    weight = (np.asarray(matrix.sum(axis=1)).ravel() + 5.0) ** -0.3
    events = np.bincount(item, minlength=n_items)
    found = []
    for one in range(n_items):
        users = by_item.indices[by_item.indptr[one] : by_item.indptr[one + 1]]
        if len(users) <= more_than:
            continue
        common = np.asarray(matrix[users].sum(axis=0)).ravel()
        others = np.flatnonzero(common > more_than)
        others = others[others != one]
        if not len(others):
            continue
        if len(users) > cap:
            users = chance.choice(users, cap, replace=False)
        mine = matrix[users]
        pair = weight[users][:, None] * weight[users] / ((mine @ mine.T).toarray() + 1.0)
        np.fill_diagonal(pair, 0.0)
        block = mine[:, others].toarray()
        similarity = ((pair @ block) * block).sum(axis=0) / np.sqrt(events[others])
        for best in np.argsort(-similarity, kind="stable")[:10]:
            if similarity[best] > 0:
                found.append((one, int(others[best]), float(similarity[best])))
    return found
