"""The filter beside the rules that platforms use: curves, equal false-filter rates, users, categories, what remains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conrec.filtering.analysis.analyse import ANALYSIS
from conrec.filtering.analysis.listings import SEGMENTS, at_main
from conrec.report.canvas import draw
from conrec.report.caught_curves import HEIGHT, paint_caught
from conrec.report.content import Block, Cell, ListBlock, Note, Row, Table, absent, cell, figure_cell, integer, number
from conrec.report.plots import interval_panels
from conrec.report.source import RunSource

__all__ = ["filter_analysis"]

SHARES = ("filtering_rate", "false_filter_rate", "caught")
SHOWN = (0.01, 0.05, 0.2)
"""Rates of the panels with intervals."""


def filter_analysis(source: RunSource) -> list[Block]:
    """What `conrec filter analyse` wrote; a note where it has not run."""
    found = source.optional(*ANALYSIS.split("/"))
    if not isinstance(found, dict) or "methods" not in found:
        return [absent("The comparison with the rules of platforms (conrec filter analyse RUN)", ANALYSIS)]
    counts = found["segments"]["all"]
    if not counts["positives"] or not counts["negatives"]:
        return [Note("The test anchors hold no liked items, so that filters cannot be compared at equal cost.", "bad")]
    blocks: list[Block] = [
        draw(
            paint_caught(found),
            HEIGHT,
            "Share of disliked items caught against share of liked items lost on test anchors, one line a method: the "
            "rows of the run on the left, rules of platforms on the right; values in the table below.",
            f"Every threshold on {found['anchors']:,} test anchors. Points on a line: the thresholds that were "
            "calibrated on validation anchors for 1, 2, 5, 10 and 20 %. Faint: beyond what a rule can reach, where the "
            "rest is dropped at random.",
            title="Against the rules that platforms use",
        ),
        _intervals(found),
        _equal(found),
        _calibrated(found),
        _segments(found),
        _remains(found),
        *_categories(found),
    ]
    rules = [(name, method["says"]) for name, method in found["methods"].items() if method["kind"] == "rule"]
    blocks.insert(1, ListBlock(tuple(rules)))
    missing = found.get("missing", {})
    blocks += [Note(f"Without “{name}”: {why}.", "quiet") for name, why in missing.items()]
    return blocks


def _intervals(found: Mapping[str, Any]) -> Block:
    panels = {
        f"caught at {rate:.0%} lost": {
            name: next(one["caught"] for one in method["equal"] if one["rate"] == rate)
            for name, method in found["methods"].items()
        }
        for rate in found["rates"]
        if rate in SHOWN
    }
    return interval_panels(
        panels,
        list(found["methods"]),
        found["reference"] or "",
        "Share of disliked items caught by each method at 1, 5 and 20 % of liked items lost; values in the next table.",
        "The same at equal false-filter rates, with 95 % intervals: on every resample of users the threshold is found "
        "anew.",
    )


def _equal(found: Mapping[str, Any]) -> Table:
    best = [
        max((method["equal"][place]["caught"]["value"] for method in found["methods"].values()), default=None)
        for place in range(len(found["rates"]))
    ]
    rows = []
    for name, method in found["methods"].items():
        cells = [Cell(name)]
        for place, one in enumerate(method["equal"]):
            how = "partly at random" if one["beyond"] else ""
            cells.append(_short(one["caught"], how, strong=one["caught"]["value"] == best[place]))
        main = at_main(found, name)
        cells.append(_difference(main["less_reference"] if main else None))
        below = main["below"] if main else None
        cells.append(
            Cell("–", tone="quiet")
            if below is None
            else Cell(number(below["caught"], 3), f"at {number(below['false_filter_rate'], 3)}")
        )
        cells.append(_short(method["within"]))
        rows.append(tuple(cells))
    counts = found["segments"]["all"]
    caption = (
        f"Share of {integer(counts['negatives'])} disliked items caught when the same share of "
        f"{integer(counts['positives'])} liked ones is lost; {integer(found['anchors'])} test anchors, 95 % intervals "
        f"from {integer(found['resamples'])} bootstrap resamples of users. Between two rates that a rule can reach, "
        "the items at the next score are dropped by lot. The last column but one says what it reaches without lots, "
        "the last one how often a disliked item has a higher score than a liked one of the same window: 0.5 is chance, "
        "or a rule that tells users apart and not items."
    )
    main_rate = f"{found['main']:.0%}"
    columns = (
        "Method",
        *(f"{rate:.0%} lost" for rate in found["rates"]),
        f"Less {found['reference'] or 'nothing'}\nat {main_rate}, paired",
        f"No lots\nat most {main_rate}",
        "One user\ntold apart",
    )
    return Table(caption, columns, tuple(rows))


def _short(one: Mapping[str, Any] | None, how: str = "", *, strong: bool = False) -> Cell:
    """A figure with three digits, of which a table can hold more columns."""
    if one is None:
        return Cell("–", tone="quiet")
    interval = "" if one["low"] is None else f"{number(one['low'], 3)}–{number(one['high'], 3)}"
    return Cell(number(one["value"], 3), "\n".join(part for part in (interval, how) if part), strong)


def _difference(one: Mapping[str, Any] | None) -> Cell:
    if one is None or one["low"] is None:
        return Cell("–", tone="quiet")
    sign = "+" if one["difference"] > 0 else ""
    return Cell(f"{sign}{number(one['difference'], 3)}", f"{number(one['low'], 3)} to {number(one['high'], 3)}")


def _calibrated(found: Mapping[str, Any]) -> Table:
    rows = []
    for name, method in found["methods"].items():
        cells: list[Cell] = [Cell(name)]
        for one in method["calibrated"]:
            test = one["test"]["segments"]["all"]
            nothing = one["threshold"] is None and not one.get("by_category")
            if nothing or not test["filtering_rate"] or not test["filtering_rate"]["value"]:
                cells.append(Cell("0", "keeps everything", tone="quiet"))
                continue
            lost = " / ".join(_figure(test[key]) for key in ("user_false_filter_rate", "false_filter_rate"))
            limit = "by category" if one.get("by_category") else f"above {one['threshold']:.4g}"
            detail = f"lost {lost}\ndropped {_figure(test['filtering_rate'])}\n{limit}"
            cells.append(Cell(_figure(test["caught"]), detail))
        rows.append(tuple(cells))
    caption = (
        "Thresholds calibrated on validation anchors for five bounds, and what they do on test anchors: share of "
        "disliked items caught; below it the share of liked items lost (of a user's own on average / of all users'), "
        "the share of candidates dropped, and the threshold."
    )
    bounds = (f"Bound {rate:.0%}" for rate in found["rates"])
    return Table(caption, ("Method", *bounds), tuple(rows))


def _figure(one: Mapping[str, Any] | None) -> str:
    return "–" if one is None else f"{one['value']:.3f}"


def _segments(found: Mapping[str, Any]) -> Table:
    rows = []
    for name in found["methods"]:
        main = at_main(found, name)
        if main is None:
            continue
        cells = [Cell(name)]
        for segment in SEGMENTS:
            one = main["test"]["segments"][segment]
            rest = f"lost {_figure(one['false_filter_rate'])}\ndropped {_figure(one['filtering_rate'])}"
            cells.append(_short(one["caught"], rest))
        rows.append(tuple(cells))
    caption = (
        f"Kinds of users, at {found['main']:.0%} of everybody's liked items lost: share of disliked items caught, then "
        "the share of liked items lost and of candidates dropped. Long-tail users have fewer than 3 negatives in the "
        "training period."
    )
    counts = found["segments"]
    heads = (f"{SEGMENTS[one].partition(' (')[0]}\n{integer(counts[one]['anchors'])} anchors" for one in SEGMENTS)
    return Table(caption, ("Method", *heads), tuple(rows))


def _remains(found: Mapping[str, Any]) -> Table:
    rows = [_left("nothing dropped", found["before"])]
    for name in found["methods"]:
        main = at_main(found, name)
        if main is not None:
            rows.append(_left(name, main["test"]["remains"]))
    caption = (
        f"What remains of an anchor's candidates, at {found['main']:.0%} of liked items lost, mean over anchors. "
        "Diversity: 1 − cosine of two kept candidates, 0 where fewer than two are kept. Entropy of their categories in "
        "bits. Coverage: share of the catalogue that is among the kept candidates of some anchor."
    )
    columns = (
        "Method",
        "Diversity",
        "Entropy of categories",
        "Coverage\nitems",
        "Anchors that lose\nmore than half",
        "Anchors that\nlose all",
    )
    return Table(caption, columns, tuple(rows))


def _left(name: str, one: Mapping[str, Any]) -> Row:
    return (
        Cell(name),
        figure_cell(one["diversity"]),
        figure_cell(one["entropy"]),
        Cell(number(one["coverage"]), integer(one["items_shown"])),
        figure_cell(one["over_half_lost"]),
        cell(int(one["none_kept"])),
    )


def _categories(found: Mapping[str, Any]) -> list[Block]:
    name = found["reference"]
    main = at_main(found, name) if name else None
    if not found["categories"] or main is None:
        return []
    rows = []
    for one, shares in zip(found["categories"], main["test"]["categories"], strict=True):
        counts = (cell(int(one[key])) for key in ("items", "candidates", "positives", "negatives"))
        rows.append((Cell(one["name"]), *counts, *(Cell(number(shares[key])) for key in SHARES)))
    caption = (
        f"The largest categories under {name}, at {found['main']:.0%} of liked items lost overall; an item of several "
        "categories counts in each."
    )
    columns = ("Category", "Items", "Candidates", "Liked", "Disliked", "Dropped", "Liked items lost", "Caught")
    return [Table(caption, columns, tuple(rows))]
