"""A drawing as SVG data URIs in the colours of light and of dark pages; the same numbers give the same bytes."""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from conrec.errors import MissingExtraError
from conrec.report.content import FigureBlock

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.style import context
except ImportError:
    raise MissingExtraError("matplotlib", "report") from None

__all__ = ["WIDTH", "Axes", "Figure", "Palette", "draw"]

WIDTH = 10.5
"""Inches of a full-width figure."""


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours of a page; all series colours are told apart without red and green."""

    ink: str
    quiet: str
    grid: str
    accent: str
    series: tuple[str, ...]

    def colours(self) -> tuple[str, ...]:
        """All colours, in the order of the fields."""
        return (self.ink, self.quiet, self.grid, self.accent, *self.series)


LIGHT = Palette("#1f2430", "#667085", "#e4e7ec", "#b4441f", ("#1f6f8b", "#b4441f", "#8a6d1d", "#6b4fa0", "#4f6b3a"))
DARK = Palette("#e6e9ef", "#98a2b3", "#333a47", "#f08a5d", ("#6cc3e0", "#f08a5d", "#e0c060", "#b9a3ea", "#a3c585"))


def draw(
    paint: Callable[[Figure, Palette], None],
    height: float,
    alt: str,
    caption: str,
    width: float = WIDTH,
    title: str = "",
) -> FigureBlock:
    """Draw for light pages, and exchange the colours for dark ones.

    Args:
        paint: fills an empty figure.
        height: inches.
        alt: text for those who do not see it.
        caption: how it was made.
        width: inches.
        title: a heading above it.
    """
    light = dark = _svg(paint, LIGHT, width, height)
    for one, other in zip(LIGHT.colours(), DARK.colours(), strict=True):
        dark = dark.replace(one, other)
    return FigureBlock(_uri(light), _uri(dark), alt, caption, title)


def _uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _svg(paint: Callable[[Figure, Palette], None], palette: Palette, width: float, height: float) -> str:
    style: Any = {
        "svg.hashsalt": "conrec",
        "svg.fonttype": "path",
        "text.parse_math": False,
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "text.color": palette.ink,
        "axes.labelcolor": palette.ink,
        "axes.edgecolor": palette.quiet,
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": palette.grid,
        "grid.linewidth": 0.8,
        "xtick.color": palette.quiet,
        "ytick.color": palette.quiet,
        "xtick.labelcolor": palette.ink,
        "ytick.labelcolor": palette.ink,
        "axes.facecolor": "none",
        "legend.frameon": False,
    }
    buffer = io.StringIO()
    # "default" first, so that nobody's own matplotlibrc changes the page.
    # A model's name may have letters that the font lacks; a box in its place is no reason to fail.
    with context(["default", style]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = Figure(figsize=(width, height), layout="constrained")
        paint(figure, palette)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    # The outer document type names a file on the network; nothing loads it, and it is not needed.
    return re.sub(r"<!DOCTYPE[^>]*>\s*", "", buffer.getvalue())
