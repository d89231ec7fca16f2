"""The plots of the report: intervals, learning curves, use of codes, bars, trade-offs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from conrec.arrays import Array
from conrec.report.canvas import WIDTH, Axes, Figure, Palette, draw
from conrec.report.content import FigureBlock

__all__ = ["bars", "curve_grid", "interval_panels", "rank_frequency", "trade_offs"]

Points = Sequence[tuple[float, float]]
MAX_POINTS = 400
STYLES = ("--", ":", "-.", "-")
"""Line styles, where colour does not tell."""


def interval_panels(
    panels: Mapping[str, Mapping[str, Mapping[str, Any]]],
    rows: Sequence[str],
    highlight: str,
    alt: str,
    caption: str,
    references: Mapping[str, float] | None = None,
) -> FigureBlock:
    """Points with intervals: one panel a metric, one line a row.

    Args:
        panels: {metric: {row: {"value", "low", "high"}}}.
        rows: from top to bottom.
        highlight: the row in the accent colour.
        alt: see `draw`.
        caption: see `draw`.
        references: {label: value} to mark with vertical lines, chance for instance.
    """
    lines = dict(references or {})

    def paint(figure: Figure, palette: Palette) -> None:
        grid: Any = figure.subplots(1, len(panels), sharey=True, squeeze=False)
        for axes, (metric, figures) in zip(grid[0], panels.items(), strict=True):
            for place, row in enumerate(rows):
                one = figures.get(row)
                if one is None:
                    continue
                colour = palette.accent if row == highlight else palette.series[0]
                if one.get("low") is not None and one.get("high") is not None:
                    axes.plot([one["low"], one["high"]], [place, place], color=colour, lw=2, solid_capstyle="round")
                axes.plot(one["value"], place, "o", color=colour, ms=5.5)
            for place, (label, value) in enumerate(lines.items()):
                style = STYLES[place % len(STYLES)]
                axes.axvline(value, color=palette.quiet, ls=style, lw=1.2, label=label, zorder=1)
            axes.set_title(metric)
            axes.set_yticks(range(len(rows)), labels=list(rows))
            axes.tick_params(length=0)
            axes.grid(visible=False, axis="y")
            axes.set_xlim(left=0)
            axes.locator_params(axis="x", nbins=4)
        grid[0][0].set_ylim(len(rows) - 0.4, -0.6)
        if lines:
            figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside upper left", ncols=min(len(lines), 3))

    legend = 0.25 * -(-len(lines) // 3)
    return draw(paint, 0.7 + 0.27 * len(rows) + legend, alt, caption)


def curve_grid(
    panels: Mapping[str, Points], alt: str, caption: str, *, columns: int = 3, mark_ends: bool = False, title: str = ""
) -> FigureBlock:
    """Learning curves, one small panel each.

    Args:
        panels: {name: (step, value) points}.
        alt: see `draw`.
        caption: see `draw`.
        columns: panels beside each other.
        mark_ends: whether the first and the last value are written beside their points.
        title: a heading above all of them.
    """
    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)

    def paint(figure: Figure, palette: Palette) -> None:
        grid: Any = figure.subplots(lines, columns, squeeze=False)
        for axes, (name, points) in zip(grid.flat, panels.items(), strict=False):
            _curve(axes, points, palette, mark_ends=mark_ends)
            axes.set_title(name)
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_visible(False)

    return draw(
        paint, (2.5 if mark_ends else 1.75) * lines + 0.2, alt, caption, width=WIDTH * max(columns, 2) / 3, title=title
    )


def _curve(axes: Axes, points: Points, palette: Palette, *, mark_ends: bool) -> None:
    table = np.asarray(points, dtype=np.float64)
    table = table[np.isfinite(table).all(axis=1)]
    step, value = table[:, 0], table[:, 1]
    dense = len(value) > 60
    shown = _some(len(value))
    marker = "" if dense else "o"
    colour = palette.accent if mark_ends else palette.series[0]
    axes.plot(
        step[shown],
        value[shown],
        color=colour,
        lw=1 if dense else 1.8,
        ms=3.5,
        marker=marker,
        alpha=0.4 if dense else 1,
    )
    if dense:
        width = max(5, len(value) // 25)
        kernel = np.ones(width) / width
        smooth = np.convolve(value, kernel, mode="valid")
        middle = step[width // 2 : width // 2 + len(smooth)]
        some = _some(len(smooth))
        axes.plot(middle[some], smooth[some], color=colour, lw=1.8)
    if mark_ends and len(value):
        axes.margins(x=0.12, y=0.3)
        # The lower end is written below its point and the higher one above, out of the way of the line.
        rises = value[-1] >= value[0]
        for place, align, above in ((0, "left", not rises), (-1, "right", rises)):
            axes.annotate(
                f"{value[place]:.4f}",
                (step[place], value[place]),
                xytext=(0, 9 if above else -16),
                textcoords="offset points",
                ha=align,
                fontweight="bold",
            )
    axes.set_xlabel("step")
    axes.locator_params(axis="both", nbins=5)


def _some(n: int) -> Array:
    """Positions of at most `MAX_POINTS` of n points, evenly spread, both ends among them."""
    return np.unique(np.linspace(0, max(n - 1, 0), min(n, MAX_POINTS)).astype(np.int64))


def rank_frequency(series: Mapping[str, Sequence[int]], alt: str, caption: str) -> FigureBlock:
    """How often each thing is used, the most used first, one panel a series; a dashed line at the mean."""

    def paint(figure: Figure, palette: Palette) -> None:
        grid: Any = figure.subplots(1, len(series), sharey=True, squeeze=False)
        for axes, (title, counts) in zip(grid[0], series.items(), strict=True):
            axes.fill_between(range(len(counts)), sorted(counts, reverse=True), step="mid", color=palette.series[0])
            axes.axhline(sum(counts) / max(len(counts), 1), color=palette.accent, ls="--", lw=1.2)
            axes.set_title(title)
            axes.set_xlabel("codes, the most used first")
            axes.set_ylim(bottom=0)
            axes.locator_params(axis="both", integer=True, nbins=6)
        grid[0][0].set_ylabel("items")

    return draw(paint, 2.1, alt, caption)


def bars(
    groups: Mapping[str, Mapping[str, float | None]], alt: str, caption: str, *, height: float = 2.6, unit: str = ""
) -> FigureBlock:
    """Grouped vertical bars: {group: {series: value}}, the same series in every group; None draws nothing."""
    series = list(dict.fromkeys(name for one in groups.values() for name in one))

    def paint(figure: Figure, palette: Palette) -> None:
        axes: Axes = figure.subplots()
        width = 0.8 / len(series)
        for place, name in enumerate(series):
            at = np.arange(len(groups)) + (place - (len(series) - 1) / 2) * width
            values = [one.get(name) for one in groups.values()]
            here = [index for index, value in enumerate(values) if value is not None]
            drawn = axes.bar(
                at[here],
                [values[index] or 0.0 for index in here],
                width * 0.92,
                label=name,
                color=palette.series[place % len(palette.series)],
            )
            axes.bar_label(drawn, fmt="%.2g" if unit else "%.2f", fontsize=7.5, padding=1, color=palette.ink)
        axes.set_xticks(range(len(groups)), labels=list(groups))
        axes.tick_params(length=0)
        axes.grid(visible=False, axis="x")
        axes.margins(y=0.12)
        axes.set_ylabel(unit)
        if len(series) > 1:
            figure.legend(loc="outside upper left", ncols=len(series))

    return draw(paint, height, alt, caption)


def trade_offs(
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
    chosen: Mapping[str, tuple[float, float] | None],
    bound: float,
    alt: str,
    caption: str,
) -> FigureBlock:
    """Share of dislikes caught against the false-filter rate, one line a model.

    Args:
        curves: {model: points with "false_filter_rate" and "caught"}.
        chosen: {model: (false-filter rate, caught) at the chosen threshold, or None}.
        bound: allowed false-filter rate.
        alt: see `draw`.
        caption: see `draw`.
    """

    def paint(figure: Figure, palette: Palette) -> None:
        axes: Axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=palette.quiet, ls=":", lw=1, label="dropping at random")
        axes.axvline(bound, color=palette.quiet, ls="--", lw=1, label=f"bound, {bound:g}")
        for place, (model, points) in enumerate(curves.items()):
            colour = palette.series[place % len(palette.series)]
            style = ("-", "--", "-.", ":")[place // len(palette.series) % 4]
            axes.plot(
                [one["false_filter_rate"] for one in points],
                [one["caught"] for one in points],
                style,
                color=colour,
                lw=1.4,
                marker=".",
                ms=4,
                label=model,
            )
            at = chosen.get(model)
            if at is not None:
                axes.plot(*at, "o", color=colour, ms=9, clip_on=False)
        axes.set_xlabel("false-filter rate: share of liked items dropped")
        axes.set_ylabel("share of disliked items dropped")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        figure.legend(loc="outside right upper")

    return draw(paint, 3.6, alt, caption)
