"""Last section: the configuration, the environment and where the time went."""

from __future__ import annotations

from typing import Any

from conrec.report.content import Block, Cell, Preformatted, Section, Table, absent, number
from conrec.report.source import RunSource

__all__ = ["settings"]


def settings(source: RunSource) -> Section:
    """Whatever is needed to make the run again."""
    blocks: list[Block] = [*_timings(source), *_environment(source), Preformatted("config.toml", source.config_text)]
    return Section(
        "settings", "Settings, environment and timings", "What is needed to make this run again.", tuple(blocks)
    )


def _timings(source: RunSource) -> list[Block]:
    found = source.optional("timings.json")
    if not isinstance(found, dict) or not found:
        return [absent("The time of each stage", "timings.json")]
    seconds = {str(stage): float(value) for stage, value in found.items() if isinstance(value, int | float)}
    total = sum(seconds.values())
    rows = [
        (Cell(stage), Cell(_time(value)), Cell(f"{value / total:.0%}" if total else "–"))
        for stage, value in seconds.items()
    ]
    rows.append((Cell("all together"), Cell(_time(total)), Cell("100%" if total else "–")))
    return [Table("Wall-clock time of each stage.", ("Stage", "Time", "Share"), tuple(rows))]


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{number(seconds, 1)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _environment(source: RunSource) -> list[Block]:
    found = source.optional("environment.json")
    if not isinstance(found, dict) or not found:
        return [absent("The environment", "environment.json")]
    rows = tuple((Cell(key), Cell(value)) for key, value in _flat("", found))
    return [Table("The environment of the run.", ("Entry", "Value"), rows, words=True)]


def _flat(prefix: str, value: Any) -> list[tuple[str, str]]:
    """Nested objects as (dotted key, text)."""
    if isinstance(value, dict) and value:
        return [
            pair for key, inner in value.items() for pair in _flat(f"{prefix}.{key}" if prefix else str(key), inner)
        ]
    return [(prefix, "–" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value))]
