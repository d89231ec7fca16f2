"""The results table and other facts as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

__all__ = ["metric_columns", "metrics_table", "stage_table"]

Metrics = Mapping[str, Mapping[str, Mapping[str, float]]]


def metric_columns(top_k: int) -> tuple[tuple[str, str], ...]:
    """Key and heading of each metric of the results table, in the paper's order.

    >>> metric_columns(10)[0]
    ('hr@10', 'HR@10')
    """
    ranked = tuple((f"{name}@{top_k}", f"{name.upper()}@{top_k}") for name in ("hr", "fhr", "luf", "lif"))
    return (*ranked, ("candidate_accuracy", "candidate accuracy"))


def metrics_table(metrics: Metrics, top_k: int = 20) -> Table:
    """Every row with its value and 95 % interval; the best value of a column is bold.

    Args:
        metrics: what ``results/metrics.json`` holds.
        top_k: K that they were computed with (`evaluation.top_k`).
    """
    columns = metric_columns(top_k)
    table = Table(caption="95 % intervals from a bootstrap over users; n: test anchors")
    table.add_column("model", no_wrap=True)
    for key, heading in columns:
        anchors = {int(row[key]["anchors"]) for row in metrics.values() if key in row}
        table.add_column(f"{heading}\nn = {max(anchors)}" if anchors else heading, justify="right", no_wrap=True)
    best = {key: max((row[key]["value"] for row in metrics.values() if key in row), default=None) for key, _ in columns}
    for model, row in metrics.items():
        table.add_row(escape(model), *(_cell(row.get(key), best[key]) for key, _ in columns))
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
