"""The table in words: for a terminal, and as Markdown. The best of a column is bold; equal ones all are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from conrec.items.diagnosis.figures import Listing
from conrec.tables import metric_columns

__all__ = ["cost_listing", "difference_listing", "markdown", "metrics_of"]

Table = Mapping[str, Any]
NONE = "–"


def metrics_of(table: Table) -> dict[str, Any]:
    """The figures of every row, as `conrec.tables.metrics_table` takes them; none for a row that has none."""
    return {row: found.get("metrics", {}) for row, found in table["rows"].items()}


def cost_listing(table: Table) -> Listing:
    """Spread over seeds, costs, and where the settings come from, or why there are no figures."""
    key = f"fhr@{table['top_k']}"
    rows = []
    for row, found in table["rows"].items():
        spread = found.get("metrics", {}).get(key, {}).get("spread")
        own = found.get("settings", "") if "metrics" in found else f"no figures: {found['reason']}"
        if found.get("unranked"):
            own = f"{own or NONE}; candidates alone are scored: {found['unranked']}"
        rows.append((row, _spread(spread), own or NONE, *_costs(found.get("costs"))))
    seeds = len(table["seeds"])
    means = f"Means over {seeds} seeds; spread: their standard deviation. " if seeds > 1 else ""
    note = (
        f"{means}Seconds of wall clock; predict: top K for one question each of 1,000 users, or, where nothing is "
        "ranked, the scores of their candidates."
    )
    heads = ("row", f"spread of {key.upper()}", "settings", "train, s", "predict, s", "parameters", "threads")
    return Listing("Costs", heads, tuple(rows), note, words=True)


def difference_listing(table: Table) -> Listing:
    """Every row less the reference row; `*` where the 95 % interval leaves out 0."""
    columns = metric_columns(table["top_k"])
    rows = []
    for row, found in table["rows"].items():
        if "difference" in found and row != table["reference"]:
            rows.append((row, *(_difference(found["difference"].get(key)) for key, _ in columns)))
    note = "95 % intervals, paired over users, of the mean over seeds; *: the interval leaves out 0."
    heads = ("row", *(heading for _, heading in columns))
    return Listing(f"Difference to {table['reference']}", heads, tuple(rows), note)


def markdown(table: Table) -> str:
    """The whole table as Markdown."""
    columns = metric_columns(table["top_k"])
    best = {key: _best(table, key) for key, _ in columns}
    rows = []
    for row, found in table["rows"].items():
        if "metrics" in found:
            rows.append((row, *(_cell(found["metrics"].get(key), best[key]) for key, _ in columns)))
        else:
            rows.append((row, *(NONE for _ in columns)))
    heads = ["row"]
    for key, heading in columns:
        counts = [one["metrics"][key]["anchors"] for one in table["rows"].values() if key in one.get("metrics", {})]
        heads.append(f"{heading}, n = {max(counts):,}" if counts else heading)
    seeds = ", ".join(map(str, table["seeds"]))
    several = len(table["seeds"]) > 1
    head = (
        f"# {table['data']}: every row of the table\n\n"
        f"{table['anchors']:,} test anchors of {table['users']:,} users; seeds {seeds}. "
        f"In brackets 95 % intervals from a bootstrap over users{' of the mean over seeds' if several else ''}"
        f"{'; behind ± the standard deviation over seeds' if several else ''}. Bold: the best of a column.\n"
    )
    parts = [head, _grid(heads, rows), *(_listing(one) for one in (cost_listing(table), difference_listing(table)))]
    return "\n".join(parts)


def _listing(listing: Listing) -> str:
    return f"## {listing.title}\n\n{listing.note}\n\n{_grid(listing.columns, listing.rows)}"


def _grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; numbers to the right, the first column and words to the left."""
    lines = [f"| {' | '.join(heads)} |", "|" + "|".join(["---", *("---:" for _ in heads[1:])]) + "|"]
    lines += ["| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _escaped(cell: str) -> str:
    """Words that may hold anything, within one cell."""
    return cell.replace("|", "\\|").replace("\n", " ")


def _best(table: Table, key: str) -> float | None:
    return max(
        (one["metrics"][key]["value"] for one in table["rows"].values() if key in one.get("metrics", {})), default=None
    )


def _cell(figure: Mapping[str, Any] | None, best: float | None) -> str:
    """Value, interval and spread."""
    if figure is None:
        return NONE
    value = f"{figure['value']:.4f}"
    value = f"**{value}**" if figure["value"] == best else value
    spread = "" if figure["spread"] is None else f" ± {figure['spread']:.3f}"
    return f"{value} ({figure['low']:.3f}–{figure['high']:.3f}){spread}"


def _spread(spread: float | None) -> str:
    return NONE if spread is None else f"{spread:.4f}"


def _costs(costs: Mapping[str, Any] | None) -> tuple[str, str, str, str]:
    if costs is None:
        return NONE, NONE, NONE, NONE
    return (
        f"{costs['train_seconds']:,.1f}",
        f"{costs['seconds_per_1000']:,.2f}",
        NONE if costs["parameters"] is None else f"{costs['parameters']:,.0f}",
        str(costs["threads"]),
    )


def _difference(pair: Mapping[str, Any] | None) -> str:
    if pair is None:
        return NONE
    sure = "*" if pair["low"] > 0 or pair["high"] < 0 else ""
    difference, low, high = (f"{pair[name]:+.3f}".replace("0.", ".", 1) for name in ("difference", "low", "high"))
    return f"{difference} {low}…{high}{sure}"
