"""Plots of studies as files of the documentation: one SVG for light pages, one for dark ones."""

from __future__ import annotations

import base64
import re
from pathlib import Path

from conrec.report.content import FigureBlock

__all__ = ["write_drawing"]


def write_drawing(block: FigureBlock, folder: Path, name: str) -> list[Path]:
    """Write ``NAME-light.svg`` and ``NAME-dark.svg``."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for shade, address in (("light", block.light), ("dark", block.dark)):
        path = folder / f"{name}-{shade}.svg"
        path.write_text(_smaller(base64.b64decode(address.partition(",")[2]).decode()), encoding="utf-8")
        written.append(path)
    return written


def _smaller(svg: str) -> str:
    """The same drawing in fewer bytes: coordinates to hundredths of a point, no comments, no indentation."""
    svg = re.sub(r"\b[1-9]\d*\.\d{3,}", lambda found: f"{float(found[0]):.2f}", svg)
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r"\n\s*", "\n", svg)
