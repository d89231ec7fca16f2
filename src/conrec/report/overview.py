"""First section: what the page is, and the data behind it."""

from __future__ import annotations

from typing import Any

import numpy as np

from conrec.logs.schema import SPLITS
from conrec.protocol import LONG_TAIL_USER_NEGATIVES, NEGATIVE, NEUTRAL, POSITIVE
from conrec.report.content import Block, Cell, ListBlock, Note, Section, Table, absent, cell, date, integer
from conrec.report.source import RunSource

__all__ = ["overview"]


def overview(source: RunSource) -> Section:
    """Counts of rows, events, users, items and anchors, and the three periods as dates."""
    return Section(
        "data",
        "What this is, and the data",
        "Each row of the tables below is a method that predicts what a user will dislike next. All methods saw the "
        "same log, were asked at the same moments (anchors) and are measured by the same definitions.",
        (_facts(source), _periods(source), *_counts(source)),
    )


def _facts(source: RunSource) -> Block:
    log, config = source.data.log, source.config
    share = {value: float((log.feedback == value).mean()) for value in (NEGATIVE, NEUTRAL, POSITIVE)}
    disliking = int((log.negative_counts()[0] > 0).sum())
    return ListBlock(
        (
            ("Source", config.data.source),
            (
                "Events",
                f"{integer(len(log))}: {share[NEGATIVE]:.1%} negative, {share[NEUTRAL]:.1%} neutral, "
                f"{share[POSITIVE]:.1%} positive",
            ),
            ("Users", f"{integer(log.n_users)}, of whom {integer(disliking)} disliked something"),
            ("Items", f"{integer(log.n_items)} in the catalogue, {integer(len(np.unique(log.item)))} with events"),
            ("Horizon", f"{config.protocol.horizon_days} days after each anchor"),
            ("Seed", str(config.run.seed)),
        )
    )


def _periods(source: RunSource) -> Block:
    log, anchors, periods = source.data.log, source.data.anchors, source.data.periods
    rows = []
    for index, split in enumerate(SPLITS):
        begin, end = periods.span(split)
        begin = max(begin, int(log.timestamp[0]))
        inside = (log.timestamp >= begin) & (log.timestamp < end)
        of_split = anchors.split == index
        rows.append(
            (
                Cell(split, f"{date(begin)} to {date(end - 1)}"),
                cell(int(inside.sum())),
                cell(int((inside & (log.feedback == NEGATIVE)).sum())),
                cell(int(of_split.sum())),
                cell(len(np.unique(anchors.user[of_split]))),
                cell(int((of_split & (anchors.negative_history == 0)).sum())),
                cell(int((of_split & anchors.long_tail_user).sum())),
            )
        )
    return Table(
        "The periods (first and last day, UTC). Whatever is learned comes from the training period alone; every "
        "figure of this page is over test anchors unless it says otherwise.",
        (
            "Period",
            "Events",
            "Negative",
            "Anchors",
            "Users with anchors",
            "Without negative history",
            f"Long-tail users\nunder {LONG_TAIL_USER_NEGATIVES} negatives in training",
        ),
        tuple(rows),
    )


def _counts(source: RunSource) -> list[Block]:
    """Rows in, kept and refused by reason, of each file; whatever ``counts.json`` holds beside is left out."""
    counts = source.optional("data", "counts.json")
    if not isinstance(counts, dict):
        return [absent("How many rows were read and refused", "data/counts.json")]
    files: list[dict[str, Any]] = [one for one in counts.values() if isinstance(one, dict) and "rows" in one]
    rows = tuple(
        (Cell(str(one.get("file", "?"))), cell(one["rows"]), cell(one.get("kept", 0)), cell(_refused(one)))
        for one in files
    )
    blocks: list[Block] = [
        Table("Rows of the files: read = kept + refused.", ("File", "Rows", "Kept", "Refused"), rows)
    ]
    reasons = tuple(
        (Cell(str(why)), Cell(str(one.get("file", "?"))), Cell(kind), cell(n), Cell(str(_first(one, why))))
        for one in files
        for kind, key in (("refused", "refused"), ("kept, noted", "noted"))
        for why, n in (one.get(key) or {}).items()
    )
    if reasons:
        columns = ("Reason", "File", "What was done", "Rows", "The first of them")
        blocks.append(Table("Rows that were refused or noted, by reason.", columns, reasons, words=True))
    else:
        blocks.append(Note("No row was refused."))
    return blocks


def _refused(one: dict[str, Any]) -> int:
    return sum((one.get("refused") or {}).values())


def _first(one: dict[str, Any], why: str) -> str:
    return str((one.get("examples") or {}).get(why, "–"))
