"""Settings of logs: sources, protocol, Swing, candidates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from conrec.settings.base import Positive, Settings, Share

__all__ = [
    "PAPER_REASONS",
    "CandidatesConfig",
    "CleaningConfig",
    "DataConfig",
    "EventColumns",
    "FeedbackRule",
    "ItemColumns",
    "ProtocolConfig",
    "SwingConfig",
    "reason_key",
]


MOST_HOURS = 1_000_000


class EventColumns(Settings):
    """Names of the columns in the events file of a `table` source."""

    user_id: str = "user_id"
    item_id: str = "item_id"
    timestamp: str = "timestamp"
    rating: str | None = None
    """Column of a number that `FeedbackRule` turns into feedback."""
    event: str | None = None
    """Column of an event name that `FeedbackRule.events` turns into feedback."""
    feedback: str | None = None
    """Column that already holds -1, 0 or 1. Exactly one of rating, event and feedback is given;
    where none is, the file's own column of one of these names is taken."""
    reason: str | None = None
    """Column of the reason that a user gave; see `FeedbackRule.reasons`."""


class ItemColumns(Settings):
    """Names of the columns in the items file of a `table` source; None where there is none."""

    item_id: str = "item_id"
    title: str = "title"
    text: str | None = None
    """Column of the text that encoders read; None: title, categories and description as sentences."""
    category: str | None = None
    description: str | None = None
    image: str | None = None


PAPER_REASONS: Mapping[str, Literal["keep", "drop"]] = {
    "don't want this item": "keep",
    "don't want this category": "keep",
    "don't want this shop": "keep",
    "image is unpleasant": "keep",
    "already bought": "drop",
    "clickbait": "drop",
    "clickbait price": "drop",
    "counterfeit": "drop",
    "fake": "drop",
    "AI image": "drop",
}
"""What the paper does by reason: interest reasons stay, complaints about the offer go."""


def reason_key(reason: str) -> str:
    """The form in which reasons are compared: without case, with single spaces in the place of ``_`` and ``-``.

    >>> reason_key(" Already_Bought"), reason_key("AI-image"), reason_key("don’t  want")
    ('already bought', 'ai image', "don't want")
    """
    return " ".join(reason.casefold().replace("_", " ").replace("-", " ").replace("\u2019", "'").split())


class FeedbackRule(Settings):
    """From a rating, an event name or a reason to feedback -1, 0 or +1."""

    negative_at_most: float | None = None
    """Ratings up to this one are negative."""
    positive_at_least: float | None = None
    """Ratings from this one on are positive; what lies between is neutral."""
    events: dict[str, Literal[-1, 0, 1, "undo dislike", "undo like"]] = Field(default_factory=dict)
    """Feedback of each event name, or which earlier feedback it takes back; a name that is not listed is refused and
    counted."""
    reasons: dict[str, Literal["keep", "drop"]] = Field(default_factory=lambda: dict(PAPER_REASONS))
    """What becomes of a negative that was given for a reason (default: the paper's table). A reason is matched without
    case, and `_` and `-` are spaces. Dropped ones are counted; a reason that is not in the table keeps its negative and
    is noted with a count. What is written here takes the place of the whole default."""

    @model_validator(mode="after")
    def _one_action_a_reason(self) -> FeedbackRule:
        found: dict[str, str] = {}
        for reason, action in self.reasons.items():
            if found.setdefault(reason_key(reason), action) != action:
                raise ValueError(f"the reason {reason!r} stands in data.feedback.reasons twice, to keep and to drop")
        return self


class CleaningConfig(Settings):
    """Rules that look at several events of a user, in their order; what they refuse is counted."""

    undo_within_hours: float | Literal["always"] = 24.0
    """How old an event may be for an undo to take it back, in hours; what is undone later was meant when it was pressed
    and stays. "always": any age, which lets later events change histories and training data of earlier times."""
    repeat_seconds: int = Field(default=0, ge=0)
    """An event at most this many seconds after one of the same user, item and feedback is a repeated press and counts
    once with it; 0 turns the rule off."""
    bot_events_per_minute: Positive | None = None
    """All events of a user who has more than this many in one minute of the clock (UTC) are refused; None: the rule is
    off."""
    bot_events_per_day: Positive | None = None
    """The same for one day (UTC)."""

    @field_validator("undo_within_hours", mode="before")
    @classmethod
    def _hours_or_always(cls, value: object) -> object:
        number = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= MOST_HOURS
        if not number and value != "always":
            raise ValueError(f'{value!r} is neither "always" nor a number of hours above 0, at most {MOST_HOURS:,}')
        return value


class DataConfig(Settings):
    """Where the log comes from."""

    source: str = "ml-100k"
    """Name of a source: `ml-100k`, `board-games`, `kuairand`, `table`, …; `conrec data list` shows them all."""
    folder: Path | None = None
    """Folder with the source's own files, where they are already on this machine."""
    events: Path | None = None
    """Events file of a `table` source: .parquet, .csv, .tsv, .jsonl, or any text file with `separator`."""
    items: Path | None = None
    """Items file of a `table` source, same formats."""
    separator: str | None = None
    """Field separator of text files, one or more characters; None: a comma, or a tab in .tsv files."""
    items_separator: str | None = None
    """Field separator of the items file, where it is not that of the events file."""
    header: list[str] | None = None
    """Column names of an events text file without a header line."""
    items_header: list[str] | None = None
    """Column names of an items text file without a header line."""
    encoding: str = "utf-8"
    """Encoding of text files."""
    quoting: bool = True
    """Whether fields of text files may stand in double quotes; never where the separator is longer than one."""
    timestamp_unit: Literal["s", "ms", "us", "ns", "iso", "auto"] = "s"
    """Unit of a `table` source's timestamps since 1970 UTC, or `iso` for ISO 8601 text; typed columns need none.
    `auto` reads each value in the only unit in which it lies in the years of a log, and text that is no number as
    ISO 8601."""
    timezone: str = "UTC"
    """IANA name of the zone, such as `Europe/Berlin`, of ISO 8601 text without an offset and of typed timestamps
    without a zone. A local time that a clock change shows twice is read as the first, one that it skips with the offset
    before the change; both are noted."""
    category_separator: str = "|"
    """Splits the category column into several categories, where it is a string."""
    columns: EventColumns = EventColumns()
    item_columns: ItemColumns = ItemColumns()
    feedback: FeedbackRule = FeedbackRule()
    cleaning: CleaningConfig = CleaningConfig()
    duplicates: Literal["last", "all"] = "last"
    """Events of the same user, item and timestamp: keep the last in the file and count the others, as "duplicate
    event" or, where their feedback differs, as "contradicting event"; or keep all."""
    max_refused: float = Field(default=0.5, ge=0, le=1)
    """Share of a file's rows that may be refused before it is an error."""
    sample_users: Positive | None = None
    """Keep this many users, drawn by `sample_seed`, with all their events, and the items that these touched;
    None: everybody."""
    sample_seed: int = 0
    """Seed of that draw. A user's lot depends on the seed and his ID alone: a larger sample holds the smaller one."""
    cache: Path | None = None
    """Folder for fetched files; None: $CONREC_CACHE, else ~/.cache/conrec."""


class ProtocolConfig(Settings):
    """Periods, windows and eligibility; see `conrec.protocol`."""

    validation_cut: Share = 0.7
    """Share of events before T_val."""
    test_cut: Share = 0.8
    """Share of events before T_test."""
    horizon_days: Positive = 7
    """H, the length of a window in days (paper: 7)."""
    history_eligible: bool = False
    """Whether items of the user's history may be predicted again; for platforms where items return."""

    @model_validator(mode="after")
    def _in_order(self) -> ProtocolConfig:
        if self.validation_cut >= self.test_cut:
            raise ValueError(f"validation_cut {self.validation_cut} must be below test_cut {self.test_cut}")
        return self


class SwingConfig(Settings):
    """Swing similarity of items by common negative feedback; the paper gives the formula, not its constants."""

    alpha1: float = Field(default=5.0, ge=0)
    """Smooths the weight of a user, (|I(u)| + alpha1) ** -theta."""
    alpha2: float = Field(default=1.0, gt=0)
    """Smooths the overlap of two users."""
    theta: float = Field(default=0.3, ge=0)
    """How much users with many negatives count less."""
    more_than: int = Field(default=5, ge=0)
    """Pairs of items need more common users than this (paper: 5)."""
    neighbours: Positive = 10
    """How many neighbours of each future negative join GTS."""
    users_per_item: Positive = 200
    """Cap on the users of an item, drawn by a seeded sample."""


class CandidatesConfig(Settings):
    """The 20 candidates of each validation and test anchor."""

    seed: int = 0
    """Seed of the draw; separate from the run's seed so that all runs rank the same candidates."""
