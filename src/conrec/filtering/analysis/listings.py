"""What an analysis of filters says, as plain tables of words for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conrec.items.diagnosis.figures import Listing

__all__ = ["SEGMENTS", "analysis_listings", "at_main"]

SEGMENTS = {
    "all": "everybody",
    "long_tail_users": "long-tail users (fewer than 3 negatives in training)",
    "other_users": "other users",
    "no_negative_history": "anchors without negative history",
}
"""What the segments are called."""


def at_main(found: Mapping[str, Any], method: str) -> Mapping[str, Any] | None:
    """A method at the rate of tables that show one; None where the test anchors have no liked items."""
    equal = found["methods"][method]["equal"]
    return next((one for one in equal if one["rate"] == found["main"]), None)


def analysis_listings(found: Mapping[str, Any]) -> list[Listing]:
    """Tables of what `conrec.filtering.analysis.analyse.analyse_filter` returned."""
    listings = [_equal(found), _calibrated(found), _remains(found), _segments(found)]
    if found["categories"]:
        listings.append(_categories(found))
    return listings


def _equal(found: Mapping[str, Any]) -> Listing:
    rows = []
    for name, method in found["methods"].items():
        cells = [_value(one["caught"]) + ("*" if one["beyond"] else "") for one in method["equal"]]
        cells = cells or ["–"] * len(found["rates"])  # without liked items there is no rate
        main = at_main(found, name)
        difference = main["less_reference"] if main is not None else None
        interval = _interval(main["caught"]) if main is not None else "–"
        rows.append((name, *cells, interval, _signed(difference), _value(method["within"])))
    rates = [f"{rate:.0%}" for rate in found["rates"]]
    main_rate = f"{found['main']:.0%}"
    note = (
        f"Share of {found['segments']['all']['negatives']:,} disliked items caught when as many of "
        f"{found['segments']['all']['positives']:,} liked ones are lost; {found['anchors']:,} test anchors of "
        f"{found['users']:,} users; 95 % intervals from {found['resamples']:,} resamples of users. * The rule does not "
        "reach this rate: the rest is dropped at random. Of one user: how often a disliked item has a higher score "
        "than a liked one of the same window; 0.5 is chance, or a rule that looks at the user alone."
    )
    columns = (
        "method",
        *rates,
        f"95 % at {main_rate}",
        f"less {found['reference'] or 'nothing'} at {main_rate}",
        "of one user",
    )
    return Listing("Dislikes caught at equal false-filter rates", columns, tuple(rows), note)


def _calibrated(found: Mapping[str, Any]) -> Listing:
    rows = []
    for name, method in found["methods"].items():
        for one in method["calibrated"]:
            if one["bound"] not in (found["main"], max(found["rates"])):
                continue
            test = one["test"]["segments"]["all"]
            threshold = "keeps everything" if one["threshold"] is None else f"{one['threshold']:.4g}"
            threshold = "by category" if one["by_category"] else threshold
            figures = ("filtering_rate", "user_false_filter_rate", "false_filter_rate", "caught")
            rows.append((name, f"{one['bound']:.0%}", threshold, *(_value(test[key]) for key in figures)))
    note = (
        "Thresholds by the rule of filter.rate and filter.guarantee on validation anchors; figures on test anchors. By "
        "category (filter.segments): rows of the run; rules have one threshold."
    )
    columns = ("method", "bound", "threshold", "filtered", "a user's likes lost", "all likes lost", "dislikes caught")
    return Listing("Calibrated on validation, measured on test", columns, tuple(rows), note)


def _remains(found: Mapping[str, Any]) -> Listing:
    rows = [_left("nothing dropped", found["before"])]
    for name in found["methods"]:
        main = at_main(found, name)
        if main is not None:
            rows.append(_left(name, main["test"]["remains"]))
    note = (
        "Means over anchors. Diversity: 1 - cosine of two kept candidates, 0 where fewer than two are kept; entropy of "
        "their categories in bits; coverage: share of the catalogue that is still among the candidates of some anchor."
    )
    columns = ("method", "diversity", "entropy", "coverage", "anchors that lose over half", "that lose all")
    return Listing(f"What remains of the candidates, at {found['main']:.0%}", columns, tuple(rows), note)


def _left(name: str, one: Mapping[str, Any]) -> tuple[str, ...]:
    lost = one["over_half_lost"]
    return (
        name,
        _value(one["diversity"], 4),
        _value(one["entropy"]),
        "–" if one["coverage"] is None else f"{one['coverage']:.2%}",
        "–" if lost is None else f"{lost['value']:.2%}",
        f"{one['none_kept']:,}",
    )


def _segments(found: Mapping[str, Any]) -> Listing:
    rows = []
    for name in found["methods"]:
        main = at_main(found, name)
        if main is None:
            continue
        cells = []
        for segment in SEGMENTS:
            one = main["test"]["segments"][segment]
            cells.append(" / ".join(_value(one[key]) for key in ("filtering_rate", "false_filter_rate", "caught")))
        rows.append((name, *cells))
    counts = found["segments"]
    columns = tuple(f"{SEGMENTS[one].partition(' (')[0]}\n{counts[one]['anchors']:,} anchors" for one in SEGMENTS)
    note = "Filtered / likes lost / dislikes caught. Long-tail users have fewer than 3 negatives in training."
    return Listing(f"By user, at {found['main']:.0%} over everybody", ("method", *columns), tuple(rows), note)


def _categories(found: Mapping[str, Any]) -> Listing:
    name = found["reference"] or next(iter(found["methods"]))
    main = at_main(found, name)
    rows = []
    for place, one in enumerate(found["categories"]):
        cells = ["–"] * 3
        if main is not None:
            shares = main["test"]["categories"][place]
            cells = [_share(shares[key]) for key in ("filtering_rate", "false_filter_rate", "caught")]
        counts = (f"{one[key]:,}" for key in ("items", "candidates", "positives", "negatives"))
        rows.append((one["name"], *counts, *cells))
    columns = ("category", "items", "candidates", "liked", "disliked", "filtered", "likes lost", "dislikes caught")
    note = "An item of several categories counts in each."
    return Listing(f"By category: {name}, at {found['main']:.0%} over everything", columns, tuple(rows), note)


def _value(one: Mapping[str, Any] | None, digits: int = 3) -> str:
    return "–" if one is None else _share(one["value"], digits)


def _share(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _interval(one: Mapping[str, Any] | None) -> str:
    return "–" if one is None or one["low"] is None else f"{one['low']:.3f}–{one['high']:.3f}"


def _signed(one: Mapping[str, Any] | None) -> str:
    if one is None or one["low"] is None:
        return "–"
    return f"{one['difference']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]".replace("-", "−")
