"""The motivation study: how much of a user's negative interest do the targets cover?"""

from __future__ import annotations

from typing import Any

from conrec.report.content import Block, Cell, Section, Table, absent, figure_cell, integer, number
from conrec.report.plots import bars
from conrec.report.source import RunSource

__all__ = ["motivation"]

TARGETS = {
    "next_item": "next item",
    "future": "all of the window",
    "future_and_swing": "all of the window and Swing neighbours",
}
MEASURES = (
    ("top_1", "Covers the top interest"),
    ("top_4", "Covers one of the top 4"),
    ("top_4_share", "Share of the top 4"),
)


def motivation(source: RunSource) -> Section:
    """How much of a user's negative interest do the targets cover?"""
    lead = (
        "What is a fair target to learn from? The share of cases in which the next disliked item, all that is "
        "disliked in the window, and these with their Swing neighbours cover what the user has disliked most so far."
    )
    found = source.optional("results", "motivation.json")
    groupings = found.get("groupings") if isinstance(found, dict) else None
    if not groupings:
        note = absent("The motivation study", "results/motivation.json")
        return Section("motivation", "Motivation study", lead, (note,))
    paper = found.get("paper", {})
    blocks: list[Block] = []
    for name, grouping in groupings.items():
        blocks += _grouping(name.replace("_", " "), grouping, paper, int(found.get("anchors", 0)), source)
    return Section("motivation", "Motivation study", lead, tuple(blocks))


def _grouping(name: str, grouping: Any, paper: Any, anchors: int, source: RunSource) -> list[Block]:
    targets = {key: grouping["targets"][key] for key in TARGETS if key in grouping.get("targets", {})}
    rows = []
    for key, one in targets.items():
        cells = [Cell(TARGETS[key]), Cell(number(one.get("size"), 1))]
        for measure, _ in MEASURES:
            chance = one.get("chance", {}).get(measure)
            said = paper.get(key, {}).get(measure)
            extra = [f"chance {number(chance)}"] if chance is not None else []
            extra += [f"paper {said:g}"] if said is not None else []
            cells.append(figure_cell(one.get(measure), count="\n".join(extra)))
        rows.append(tuple(cells))
    caption = (
        f"Interests are groups of items by {name} ({integer(int(grouping.get('groups', 0)))} groups); over "
        f"{anchors:,} test anchors with negative history; {source.how}. Chance: the targets of other anchors against "
        "this user's interests; larger targets cover more by their size alone."
    )
    table = Table(caption, ("Target", "Items\nmean", *(heading for _, heading in MEASURES)), tuple(rows))
    shown = {
        TARGETS[key]: {
            "top interest": (one.get("top_1") or {}).get("value"),
            "one of the top 4": (one.get("top_4") or {}).get("value"),
            "one of the top 4, by chance": one.get("chance", {}).get("top_4"),
        }
        for key, one in targets.items()
    }
    if not shown:
        return [table]
    alt = f"Share of anchors whose top interests by {name} are covered by each target; values in the table above."
    return [table, bars(shown, alt, f"The same drawn, by {name}.")]
