"""Codebook use of the semantic IDs, and the motivation study."""

from __future__ import annotations

from typing import Any

from conrec.report.content import Block, Cell, Note, Section, Table, absent, cell, figure_cell, integer, number
from conrec.report.plots import bars, rank_frequency
from conrec.report.source import RunSource

__all__ = ["codebooks", "motivation"]

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


def codebooks(source: RunSource) -> Section:
    """How evenly the codes of each level are used, and how many items had to move."""
    lead = "Semantic IDs say something only where their codes are used: dead codes and crowded ones both lose."
    found = source.optional("items", "diagnostics.json")
    if not isinstance(found, dict):
        note = absent("The codebook diagnostics", "items/diagnostics.json")
        return Section("codebooks", "Codebook use", lead, (note,))
    levels = [one for one in found.get("levels", ()) if isinstance(one, dict)]
    blocks: list[Block] = []
    if levels:
        keys = [key for key in levels[0] if all(_is_number(one.get(key)) for one in levels)]
        rows = tuple((Cell(_level(place, one)), *(_cell(one[key]) for key in keys)) for place, one in enumerate(levels))
        caption = (
            "Use of the codes, level by level, by the raw codes of all items. Coverage: share of codes that are used; "
            "perplexity: how many codes there would be, were all used alike."
        )
        blocks.append(Table(caption, ("Level", *map(_words, keys)), rows))
    counts = {_level(place, one): one["counts"] for place, one in enumerate(levels) if one.get("counts")}
    if counts:
        alt = "Items of each code, one panel a level, the most used code first; the table above has the sums."
        blocks.append(rank_frequency(counts, alt, "How many items have each code. A flat line is even use."))
    figures = tuple((Cell(_words(key)), _cell(value)) for key, value in _flat("", found))
    if figures:
        blocks.append(Table("All levels together.", ("Measure", "Value"), figures))
    return Section("codebooks", "Codebook use", lead, tuple(blocks) or (Note("The file holds no figures.", "quiet"),))


def _level(place: int, one: Any) -> str:
    return f"level {one.get('level', place + 1)}"


def _flat(prefix: str, value: Any) -> list[tuple[str, int | float]]:
    """Numbers of nested objects as (words, number); lists are left out."""
    if isinstance(value, dict):
        return [pair for key, inner in value.items() for pair in _flat(f"{prefix}, {key}" if prefix else key, inner)]
    return [(prefix, value)] if _is_number(value) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: int | float) -> Cell:
    return cell(value) if isinstance(value, int) else Cell(number(value))


def _words(key: str) -> str:
    text = key.replace("_", " ")
    return text[:1].upper() + text[1:]
