"""Plots of the training study: a figure a group, one panel a measure, each line of the table with its interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.drawings import write_drawing
from benchmarks.studies.training_arms import GROUPS, Group, Line
from benchmarks.studies.training_tables import CHOICES, Cell, cell, lines_of

from conrec.report.canvas import Figure, Palette, draw

__all__ = ["draw_all"]

PANELS = {"fhr@20": "FHR@20", "candidate_accuracy": "candidate accuracy", CHOICES: "four-way accuracy"}
LINE = 0.34
"""Inches of a line."""


def draw_all(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw every group of which two lines were measured, as ``training-GROUP-SET-{light,dark}.svg``."""
    written: list[Path] = []
    name = found["study"].split("/")[1]
    for group in GROUPS:
        lines = lines_of(found, group)
        if len({line.arm for line in lines}) < 2:
            continue
        shown = {line: {one: cell(found, line, one, group.reference) for one in PANELS} for line in lines}
        block = draw(
            _painted(group, shown),
            1.1 + LINE * len(shown),
            f"{group.title}: {', '.join(PANELS.values())} of each line, {name}",
            "Means over seeds and test anchors with 95 % intervals over users; small marks: single seeds.",
        )
        written += write_drawing(block, folder, f"training-{group.name}-{name}")
    return written


def _painted(group: Group, shown: Mapping[Line, Mapping[str, Cell | None]]) -> Callable[[Figure, Palette], None]:
    lines: Sequence[Line] = list(shown)

    def paint(figure: Figure, palette: Palette) -> None:
        grid: Any = figure.subplots(1, len(PANELS), sharey=True, squeeze=False)[0]
        for axes, (metric, title) in zip(grid, PANELS.items(), strict=True):
            for place, line in enumerate(lines):
                own = shown[line][metric]
                if own is None:
                    continue
                ours = line == group.reference
                colour = palette.accent if ours else palette.series[0]
                axes.plot([own.low, own.high], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
                axes.plot(own.by_seed, [place] * len(own.by_seed), "|", color=palette.quiet, markersize=7)
                axes.plot(own.value, place, "o", color=colour, markersize=6)
                if ours:
                    axes.axvline(own.value, color=palette.grid, linewidth=1, zorder=0)
            axes.set_title(title, fontsize=10)
            axes.set_yticks(range(len(lines)), [line.label for line in lines])
            axes.set_ylim(len(lines) - 0.5, -0.5)
            axes.tick_params(axis="y", length=0)
        figure.suptitle(group.title, fontsize=11)

    return paint
