"""What the page is made of: sections of tables, figures, notes and examples, without a word of HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, TypeAlias

from conrec.arrays import Array

__all__ = [
    "Block",
    "Cell",
    "Example",
    "FigureBlock",
    "ListBlock",
    "Note",
    "Preformatted",
    "Row",
    "Section",
    "Table",
    "absent",
    "cell",
    "date",
    "figure_cell",
    "integer",
    "number",
    "titles",
]

Tone = Literal["", "good", "bad", "quiet"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: what it says.
        detail: smaller lines below it, an interval for instance.
        strong: whether it is the best of its column.
        tone: colours it; the text says the same without colour.
    """

    text: str
    detail: str = ""
    strong: bool = False
    tone: Tone = ""


Row: TypeAlias = tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table; the first cell of each row is its header.

    Attributes:
        caption: what it shows and how it was made.
        columns: headers; a second line after a newline is set smaller.
        rows: cells, as many as columns.
        words: whether the cells hold words, set to the left, rather than numbers.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    words: bool = False
    kind: ClassVar[str] = "table"


@dataclass(frozen=True, slots=True)
class FigureBlock:
    """A plot as two data URIs, one for light and one for dark pages.

    Attributes:
        light, dark: data URIs.
        alt: what the plot shows, for those who do not see it.
        caption: how it was made.
        title: a heading above it, or empty.
    """

    light: str
    dark: str
    alt: str
    caption: str
    title: str = ""
    kind: ClassVar[str] = "figure"


@dataclass(frozen=True, slots=True)
class Note:
    """A paragraph."""

    text: str
    tone: Tone = ""
    kind: ClassVar[str] = "note"


@dataclass(frozen=True, slots=True)
class ListBlock:
    """A short list of terms with what they say."""

    entries: tuple[tuple[str, str], ...]
    kind: ClassVar[str] = "list"


@dataclass(frozen=True, slots=True)
class Preformatted:
    """A file shown as it is, folded away."""

    title: str
    text: str
    kind: ClassVar[str] = "preformatted"


@dataclass(frozen=True, slots=True)
class Example:
    """One user at one anchor.

    Attributes:
        title: who and when.
        liked, disliked: titles of the last ones in the history, latest first.
        predicted: titles of the predict set with whether the user did dislike them in the window.
        came_disliked, came_liked: titles of what the user then disliked and liked.
        candidates: table of the 20 candidates.
    """

    title: str
    liked: tuple[str, ...]
    disliked: tuple[str, ...]
    predicted: tuple[tuple[str, bool], ...]
    came_disliked: tuple[tuple[str, bool], ...]
    came_liked: tuple[str, ...]
    candidates: Table
    kind: ClassVar[str] = "example"


Block: TypeAlias = Table | FigureBlock | Note | ListBlock | Preformatted | Example


@dataclass(frozen=True, slots=True)
class Section:
    """A chapter of the page.

    Attributes:
        anchor: its id.
        title: its heading.
        lead: a sentence or two on what is to be seen.
        blocks: the rest.
    """

    anchor: str
    title: str
    lead: str
    blocks: tuple[Block, ...]


def absent(what: str, file: str) -> Note:
    """The note that stands where an optional artefact is not there."""
    return Note(f"{what} is not there: this run has no {file}.", "quiet")


def cell(value: Any, detail: str = "") -> Cell:
    """A cell of a text or a whole number."""
    return Cell(integer(value) if isinstance(value, int) and not isinstance(value, bool) else str(value), detail)


def figure_cell(figure: Any, *, strong: bool = False, count: str = "") -> Cell:
    """A cell of a {"value", "low", "high"} with its interval; a dash where there is none.

    Args:
        figure: the figure, or None.
        strong: whether it is the best of its column.
        count: a line below the interval, "242 anchors" for instance.
    """
    if not isinstance(figure, dict) or figure.get("value") is None:
        return Cell("–", tone="quiet")
    low, high = figure.get("low"), figure.get("high")
    interval = f"{number(low)} to {number(high)}" if low is not None and high is not None else ""
    return Cell(number(figure["value"]), "\n".join(one for one in (interval, count) if one), strong)


def number(value: Any, digits: int = 4) -> str:
    """A measured number; a dash for None."""
    return "–" if value is None else f"{float(value):.{digits}f}".replace("-", "−")


def integer(value: int) -> str:
    """A count, thousands separated."""
    return f"{value:,}"


def date(seconds: int) -> str:
    """Seconds UTC as a date; the seconds themselves where no calendar has them."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
    except (OverflowError, OSError, ValueError):
        return f"{seconds} s"


def titles(items: Array, names: Sequence[str]) -> tuple[str, ...]:
    """Titles of some items, int [n]."""
    return tuple(names[int(item)] for item in items)
