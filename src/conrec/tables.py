"""The results table and other facts as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

__all__ = ["COLUMNS", "metrics_table", "stage_table"]

COLUMNS = (
    ("hr@20", "HR@20"),
    ("fhr@20", "FHR@20"),
    ("luf@20", "LUF@20"),
    ("lif@20", "LIF@20"),
    ("candidate_accuracy", "candidate accuracy"),
)
"""Metric and heading of the results table, in the paper's order."""

Metrics = Mapping[str, Mapping[str, Mapping[str, float]]]


def metrics_table(metrics: Metrics, columns: Sequence[tuple[str, str]] = COLUMNS) -> Table:
    """Every row with its value and 95 % interval; the best value of a column is bold."""
    table = Table(caption="95 % intervals from a bootstrap over users; n: test anchors")
    table.add_column("model", no_wrap=True)
    for key, heading in columns:
        anchors = {int(row[key]["anchors"]) for row in metrics.values() if key in row}
        table.add_column(f"{heading}\nn = {max(anchors)}" if anchors else heading, justify="right", no_wrap=True)
    best = {key: max((row[key]["value"] for row in metrics.values() if key in row), default=None) for key, _ in columns}
    for model, row in metrics.items():
        table.add_row(model, *(_cell(row.get(key), best[key]) for key, _ in columns))
    return table


def _cell(figure: Mapping[str, float] | None, best: float | None) -> str:
    if figure is None:
        return "–"
    value = f"{figure['value']:.4f}"
    bold = f"[bold]{value}[/bold]" if figure["value"] == best else value
    return f"{bold} {figure['low']:.3f}–{figure['high']:.3f}"


def stage_table(seconds: Mapping[str, Any]) -> Table:
    """Time of each stage."""
    table = Table("stage", "seconds", title=None)
    table.columns[1].justify = "right"
    for name, value in seconds.items():
        table.add_row(name, f"{value:.1f}")
    table.add_row("[bold]all[/bold]", f"[bold]{sum(seconds.values()):.1f}[/bold]")
    return table
