"""Dislikes caught against likes lost: rows of the run in one panel, rules of platforms in another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from conrec.report.canvas import Axes, Figure, Palette

__all__ = ["HEIGHT", "paint_caught"]

HEIGHT = 4.6
"""Inches."""
FAR = 0.3
"""The highest false-filter rate that is drawn: no platform would go further."""
_STYLES = {"": "-", "by share": "--", "by rate": ":", "original": "--"}
"""Variants of a rule share its colour."""


def paint_caught(found: Mapping[str, Any], title: str = "") -> Callable[[Figure, Palette], None]:
    """A painter for `conrec.report.canvas.draw`.

    Each line is a method over all of its thresholds, the large points on it are those that were calibrated on
    validation; beyond the last threshold of a rule the line goes on in faint to "drop everything". The reference is in
    both panels.

    Args:
        found: ``results/filter_analysis.json``.
        title: put before those of the panels, a log's name for instance.
    """
    methods, reference = found["methods"], found["reference"]
    rows = [name for name, one in methods.items() if one["kind"] == "model" and name != reference]
    rules = [name for name, one in methods.items() if one["kind"] == "rule"]
    panels = {"rows of the run": [reference, *rows] if reference else rows, "rules of platforms": rules}
    if reference:
        panels["rules of platforms"] = [reference, *rules]

    def paint(figure: Figure, palette: Palette) -> None:
        grid: Any = figure.subplots(1, 2, sharey=True)
        highest = 0.1
        for axes, (heading, names) in zip(grid, panels.items(), strict=True):
            colours = _colours(names, reference, palette)
            for name in names:
                if name == "random":
                    continue
                highest = max(highest, _line(axes, methods[name], *colours[name], name, name == reference))
            axes.plot([0, FAR], [0, FAR], color=palette.quiet, ls=(0, (1, 3)), lw=1.2, label="at random", zorder=1)
            axes.set_title(f"{title}: {heading}" if title else heading)
            axes.set_xlabel("likes lost (false-filter rate)")
            axes.set_xlim(0, FAR)
            axes.xaxis.set_major_formatter(_percent)
            axes.yaxis.set_major_formatter(_percent)
        grid[0].set_ylabel("dislikes caught")
        grid[0].set_ylim(0, min(1.0, 1.05 * highest))
        for axes in grid:
            axes.legend(loc="upper left", bbox_to_anchor=(0, -0.16), ncols=2, fontsize=8, borderaxespad=0)

    return paint


def _percent(value: float, _: int) -> str:
    return f"{value:.0%}"


def _colours(names: list[str], reference: str | None, palette: Palette) -> dict[str, tuple[str, str]]:
    """Colour and line style of each line: one colour a rule, one style a variant of it."""
    free = [one for one in palette.series if one != palette.accent] + [palette.ink, palette.quiet]
    families: dict[str, str] = {}
    found = {}
    for name in names:
        family, _, variant = name.partition(", ")
        if name == reference:
            found[name] = (palette.accent, "-")
            continue
        colour = families.setdefault(family, free[len(families) % len(free)])
        found[name] = (colour, _STYLES.get(variant, "-."))
    return found


def _line(axes: Axes, method: Mapping[str, Any], colour: str, style: str, name: str, strong: bool) -> float:
    """Draw one method; the highest share caught that is in view."""
    points = [one for one in method["curve"] if one["caught"] is not None]
    if not points:
        return 0.0
    lost = [0.0, *(one["false_filter_rate"] for one in points)]
    caught = [0.0, *(one["caught"] for one in points)]
    few = len(points) < 8
    axes.plot(
        lost,
        caught,
        color=colour,
        ls=style,
        lw=2.6 if strong else 1.5,
        label=name,
        zorder=4 if strong else 3,
        marker="." if few else "",
        ms=5,
    )
    axes.plot([lost[-1], 1.0], [caught[-1], 1.0], color=colour, ls=style, lw=0.8, alpha=0.35, zorder=2)
    calibrated = [one["test"]["segments"]["all"] for one in method["calibrated"]]
    marks = [
        (one["false_filter_rate"]["value"], one["caught"]["value"])
        for one in calibrated
        if one["false_filter_rate"] and one["caught"] and one["false_filter_rate"]["value"] > 0
    ]
    if marks:
        axes.plot(*zip(*marks, strict=True), "o", color=colour, ms=6 if strong else 4.5, zorder=5)
    # Where the line leaves the view, on the straight piece between two points.
    lost, caught = [*lost, 1.0], [*caught, 1.0]
    after = next(place for place, rate in enumerate(lost) if rate >= FAR)
    before = max(after - 1, 0)
    step = lost[after] - lost[before]
    share = (FAR - lost[before]) / step if step else 0.0
    return float(caught[before] + share * (caught[after] - caught[before]))
