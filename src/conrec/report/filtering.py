"""The filter: what it would cost and bring at each threshold, and what it does on test anchors."""

from __future__ import annotations

from typing import Any

from conrec.filtering.calibrating.threshold import BOUNDS, TradeOff, best_within
from conrec.report.content import Block, Cell, Note, Section, Table, absent, cell, figure_cell, number
from conrec.report.plots import trade_offs
from conrec.report.source import RunSource

__all__ = ["filtering"]

HEADINGS = (
    ("filtering_rate", "Candidates dropped"),
    ("false_filter_rate", "Liked items dropped\nfalse filters"),
    ("caught", "Disliked items dropped\ncaught"),
)


def filtering(source: RunSource) -> Section:
    """Trade-off curves, thresholds and the table on test anchors."""
    lead = (
        "A candidate is dropped when it is more similar to an item of the user's predict set than the threshold. "
        "The threshold is chosen on validation anchors so that few liked items are lost, and measured on test anchors."
    )
    filters = source.filters()
    if not filters:
        return Section("filter", "The filter", lead, (absent("A calibrated filter", "filter/*.json"),))
    blocks: list[Block] = [
        _thresholds(filters),
        *_powerless(filters),
        *_choices(filters),
        *_curves(filters),
        *_test(source),
    ]
    return Section("filter", "The filter", lead, tuple(blocks))


def _thresholds(filters: dict[str, Any]) -> Table:
    rows = tuple(
        (
            Cell(model),
            _threshold(one["threshold"]),
            cell(one.get("anchors", 0)),
            _share(one.get("false_filters"), one.get("positives")),
            _share(one.get("caught"), one.get("negatives")),
            Cell(str(one.get("statement", ""))),
        )
        for model, one in filters.items()
    )
    return Table(
        "Thresholds chosen on validation anchors: the smallest with (false filters + 1) / (liked items + 1) within "
        "the bound.",
        ("Method", "Threshold", "Anchors", "Liked items dropped", "Disliked items dropped", "In words"),
        rows,
        words=True,
    )


def _threshold(value: Any) -> Cell:
    if value is None:
        return Cell("keeps everything")
    return Cell(number(value), "keeps everything" if value >= 1 else "")


def _powerless(filters: dict[str, Any]) -> list[Block]:
    """Why a filter drops nothing, for each that cannot."""
    return [
        Note(f"The filter of {model} drops nothing. {one.get('statement', '')}", "bad")
        for model, one in filters.items()
        if one["threshold"] is None or one["threshold"] >= 1
    ]


def _choices(filters: dict[str, Any]) -> list[Block]:
    """What each bound would cost and bring, so that another one can be chosen."""
    rows = []
    for model, one in filters.items():
        curve = [TradeOff(**point) for point in one.get("curve", ())]
        if curve and one.get("positives"):
            points = (best_within(curve, one["positives"], bound) for bound in BOUNDS)
            rows.append((Cell(model), *map(_trade, points)))
    if not rows:
        return []
    caption = (
        "What other bounds would do on validation anchors: share of disliked items dropped at the lowest threshold "
        "that meets each bound on the share of liked items dropped, then what it costs and the threshold. To choose "
        "another bound, set filter.false_filter_rate and run again: only the filter stages are repeated."
    )
    return [Table(caption, ("Method", *(f"Bound {bound:.0%}" for bound in BOUNDS)), tuple(rows))]


def _trade(point: TradeOff | None) -> Cell:
    if point is None or point.threshold >= 1:
        return Cell("0", "keeps everything", tone="quiet")
    return Cell(number(point.caught), f"liked {number(point.false_filter_rate)}\nabove {number(point.threshold)}")


def _share(part: Any, whole: Any) -> Cell:
    if not whole:
        return Cell("–", "none seen", tone="quiet")
    return Cell(number(part / whole), f"{part:,} of {whole:,}")


def _curves(filters: dict[str, Any]) -> list[Block]:
    curves = {
        model: [
            point
            for point in one.get("curve", ())
            if point.get("false_filter_rate") is not None and point.get("caught") is not None
        ]
        for model, one in filters.items()
    }
    curves = {model: points for model, points in curves.items() if points}
    if not curves:
        return [Note("Validation holds too few liked or disliked items for a trade-off curve.", "quiet")]
    chosen = {
        model: None
        if one["threshold"] is None
        else (one["false_filters"] / one["positives"], one["caught"] / one["negatives"])
        for model, one in filters.items()
        if model in curves
    }
    bound = max(float(one.get("bound", 0.0)) for one in filters.values())
    anchors = max(int(one.get("anchors", 0)) for one in filters.values())
    return [
        trade_offs(
            curves,
            chosen,
            bound,
            "Share of disliked items dropped against share of liked items dropped, one curve a method.",
            f"Every threshold at once, on {anchors:,} validation anchors: a small dot each, the large dot is "
            "the chosen one. A curve on "
            "the dotted diagonal drops liked and disliked items alike.",
        )
    ]


def _test(source: RunSource) -> list[Block]:
    found = source.optional("results", "filter.json")
    if not isinstance(found, dict) or not found:
        return [absent("What the filter does on test anchors", "results/filter.json")]
    rows = tuple(
        (
            Cell(model),
            _threshold(one.get("threshold")),
            *(
                figure_cell(
                    one.get(key),
                    count=f"{one[key]['pairs']:,} items, {one[key]['anchors']:,} anchors" if key in one else "",
                )
                for key, _ in HEADINGS
            ),
        )
        for model, one in found.items()
    )
    caption = (
        f"The chosen thresholds on test anchors; {source.how}, each followed by the number of items that were judged "
        "and of anchors that they come from."
    )
    return [Table(caption, ("Method", "Threshold", *(heading for _, heading in HEADINGS)), rows)]
