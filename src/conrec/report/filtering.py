"""The filter: what it would cost and bring at each threshold, and what it does on test anchors."""

from __future__ import annotations

from typing import Any

from conrec.filtering.calibrating.threshold import BOUNDS, Choice, best_within
from conrec.report.content import Block, Cell, Note, Section, Table, absent, cell, figure_cell, number
from conrec.report.filter_analysis import filter_analysis
from conrec.report.plots import trade_offs
from conrec.report.source import RunSource

__all__ = ["filtering"]

HEADINGS = (
    ("filtering_rate", "Candidates dropped"),
    ("false_filter_rate", "Liked items dropped\nof all users'"),
    ("user_false_filter_rate", "of a user's own\non average"),
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
        *filter_analysis(source),
    ]
    return Section("filter", "The filter", lead, tuple(blocks))


def _thresholds(filters: dict[str, Any]) -> Table:
    rows = tuple(
        (
            Cell(model),
            _threshold(one["threshold"], one.get("by_category")),
            cell(one.get("anchors", 0)),
            _share(one.get("false_filters"), one.get("positives")),
            _share(one.get("caught"), one.get("negatives")),
            Cell(str(one.get("statement", ""))),
        )
        for model, one in filters.items()
    )
    return Table(
        "Thresholds chosen on validation anchors: the smallest whose false-filter rate is shown to be within the bound "
        "for users who were not seen; in words, what exactly that promises.",
        ("Method", "Threshold", "Anchors", "Liked items dropped", "Disliked items dropped", "In words"),
        rows,
        words=True,
    )


def _threshold(value: Any, by_category: Any = None) -> Cell:
    if by_category:
        able = sum(one is not None and one < 1 for one in by_category.values())
        return Cell("by category", f"{able:,} of {len(by_category):,} can drop something")
    if value is None:
        return Cell("keeps everything")
    return Cell(number(value), "keeps everything" if value >= 1 else "")


def _powerless(filters: dict[str, Any]) -> list[Block]:
    """Why a filter drops nothing, for each that cannot."""
    return [
        Note(f"The filter of {model} drops nothing. {one.get('statement', '')}", "bad")
        for model, one in filters.items()
        if all(value is None or value >= 1 for value in (one.get("by_category") or {"": one["threshold"]}).values())
    ]


def _choices(filters: dict[str, Any]) -> list[Block]:
    """What each bound would cost and bring, so that another one can be chosen."""
    rows = []
    for model, one in filters.items():
        choices = [Choice(**choice) for choice in one.get("choices", ())]
        if choices and one.get("positives"):
            rows.append((Cell(model), *(_trade(best_within(choices, bound)) for bound in BOUNDS)))
    if not rows:
        return []
    caption = (
        "What other bounds would do on validation anchors: share of disliked items dropped at the lowest threshold "
        "whose false-filter rate is shown to be within each bound, then what that costs: the share of liked items "
        "dropped, of a user's own on average and of all, and the threshold. To choose another bound, set "
        "filter.false_filter_rate and run again: only the filter stages are repeated."
    )
    return [Table(caption, ("Method", *(f"Bound {bound:.0%}" for bound in BOUNDS)), tuple(rows))]


def _trade(choice: Choice | None) -> Cell:
    if choice is None:
        return Cell("0", "keeps everything", tone="quiet")
    threshold = "by category" if choice.threshold is None else f"above {number(choice.threshold)}"
    liked = f"liked {number(choice.user_rate)} of a user's\n{number(choice.false_filter_rate)} of all"
    return Cell(number(choice.caught), f"{liked}\n{threshold}")


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
        if one["threshold"] is None and not one.get("by_category")
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
            _threshold(one.get("threshold"), one.get("by_category")),
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
