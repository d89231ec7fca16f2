"""Tables for a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from conrec.tables import metrics_table


def test_the_table_follows_k() -> None:
    def figure(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.1, "high": value + 0.1, "anchors": 7}

    metrics = {
        "sasrec": {"hr@5": figure(0.25), "fhr@5": figure(0.5), "hr@20": figure(0.75)},
        "conrec": {"hr@5": figure(0.375)},
    }
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(metrics_table(metrics, 5))
    text = console.export_text()
    for shown in ("HR@5", "FHR@5", "LUF@5", "LIF@5", "candidate accuracy", "0.2500", "0.5000", "0.3750", "n = 7"):
        assert shown in text
    assert "@20" not in text
    assert "0.7500" not in text
