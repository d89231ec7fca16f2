"""What a log holds and whether a run can use it, before anything is trained: ``conrec data check``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conrec.config import Config, DataConfig, FeedbackRule, ProtocolConfig
from conrec.errors import DataError
from conrec.logs.anchors import build_anchors
from conrec.logs.columns import ids_of, numbers_of, strings_of
from conrec.logs.counts import FileCounts
from conrec.logs.files import Raw, TextFormat, column_names, read_raw, require_columns
from conrec.logs.log import Log
from conrec.logs.schema import ITEMS, SPLITS
from conrec.logs.sources import load
from conrec.logs.sources.table import read_item_file
from conrec.logs.validation import clean_events, feedback_column, feedback_names, needed_columns
from conrec.protocol import DAY, NEGATIVE, NEUTRAL, POSITIVE, periods_of

__all__ = ["Report", "check", "check_files"]


@dataclass(frozen=True, slots=True)
class Report:
    """What was found.

    Attributes:
        files: counts of each file.
        facts: name and value, in the order in which people want them.
        advice: what is still to be decided or looked at, full sentences.
    """

    files: tuple[FileCounts, ...]
    facts: Mapping[str, int | str]
    advice: tuple[str, ...] = field(default=())

    def lines(self) -> list[str]:
        """For people."""
        counted = [line for one in self.files for line in one.lines()]
        facts = [
            f"{name}: {value:,}" if isinstance(value, int) else f"{name}: {value}" for name, value in self.facts.items()
        ]
        return [*counted, *facts, *self.advice]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "files": [one.to_json() for one in self.files],
            "facts": dict(self.facts),
            "advice": list(self.advice),
        }


def check(config: Config) -> Report:
    """Load and clean the log of a configuration and count what it would give a run.

    Raises:
        ConfigError: the data section does not fit.
        DataError: the log cannot be used as it is.
    """
    loaded = load(config.data)
    facts = _facts(loaded.events)
    facts["items"] = loaded.items.num_rows
    found, advice = _anchor_facts(Log.from_tables(loaded.events, loaded.items), config.protocol)
    return Report((loaded.counts.events, loaded.counts.items), facts | found, advice)


def check_files(
    paths: Sequence[Path], config: DataConfig | None = None, protocol: ProtocolConfig | None = None
) -> Report:
    """Check plain files, guessing from their columns which holds events and which items.

    An events file has the columns of `EventColumns` (by default user_id, item_id and timestamp), an items
    file those of `ItemColumns` (item_id and title); a file is taken for that of which it has more. Where no rule to
    feedback is configured, the report says what there is to write one for; else it also counts anchors.

    Args:
        paths: one or two files.
        config: column mapping, separators, rule; None: the defaults of a `table` source.
        protocol: cuts and horizon of the anchors that are counted; None: the defaults.

    Raises:
        DataError: a file's role cannot be told, two files have the same role, or a file cannot be used as it is.
    """
    config = config or DataConfig(source="table")
    events_path, items_path = _roles(paths, config)
    files: list[FileCounts] = []
    advice: list[str] = []
    items: pa.Table | None = None
    if items_path is not None:
        items, counts = read_item_file(items_path, config)
        files.append(counts)
    facts: dict[str, int | str] = {} if items is None else {"items": items.num_rows}
    if events_path is None:
        return Report(tuple(files), facts, ("No events file was given.",))

    mapped = config.columns
    require_columns(events_path, _text(config), [mapped.user_id, mapped.item_id, mapped.timestamp])
    columns = feedback_column(mapped, column_names(events_path, _text(config), feedback_names(mapped)))
    raw = read_raw(events_path, _text(config), needed_columns(columns))
    if items is None:
        advice.append("No items file was given: whether each event's item is known was not checked.")
        ids, there = ids_of(raw, columns.item_id)
        known = ids.filter(pa.array(there)).unique()
        items = pa.table({name: known if name == "item_id" else pa.nulls(len(known)) for name in ITEMS.names})
    rule, missing = _rule(raw, columns.rating, columns.event, config.feedback)
    advice += missing
    events, counts = clean_events(raw, columns, config.model_copy(update={"feedback": rule}), items)
    found = _facts(events)
    if missing:
        signs = ("negative", "neutral", "positive")
        found = {name: value for name, value in found.items() if name not in signs}
        return Report((counts, *files), {**found, **facts}, tuple(advice))
    anchors, more = _anchor_facts(Log.from_tables(events, items), protocol or ProtocolConfig())
    return Report((counts, *files), {**found, **facts, **anchors}, (*advice, *more))


def _roles(paths: Sequence[Path], config: DataConfig) -> tuple[Path | None, Path | None]:
    """The events file and the items file among ``paths``: each has the role of which it has more columns."""
    events = [config.columns.user_id, config.columns.item_id, config.columns.timestamp]
    items = [config.item_columns.item_id, config.item_columns.title]
    roles: dict[str, Path] = {}
    for path in paths:
        of_events = set(events) & set(column_names(path, _text(config), events))
        present = column_names(path, _text(config, items=True), items)
        of_items = set(items) & set(present)
        # Where both have as many, as with user_id, item_id and title, only events name users.
        is_events = (len(of_events), events[0] in of_events) > (len(of_items), False)
        if not is_events and not of_items:
            raise DataError(
                f"its columns are {', '.join(map(repr, present))}",
                where=str(path),
                expected=f"{', '.join(sorted(events))} (events) or {', '.join(sorted(items))} (items)",
                mend="Write a configuration that maps your names in [data.columns] and [data.item_columns].",
            )
        role = "events" if is_events else "items"
        if role in roles:
            raise DataError(f"holds {role}, and so does {roles[role]}", where=str(path), expected="one file of each")
        roles[role] = path
    return roles.get("events"), roles.get("items")


def _text(config: DataConfig, *, items: bool = False) -> TextFormat:
    header = config.items_header if items else config.header
    separator = (config.items_separator or config.separator) if items else config.separator
    return TextFormat(separator, tuple(header) if header else None, config.encoding, config.quoting)


def _rule(raw: Raw, rating: str | None, event: str | None, rule: FeedbackRule) -> tuple[FeedbackRule, list[str]]:
    """The configured rule; where it is missing, one that calls everything neutral, and what to decide."""
    if rating is not None and rule.negative_at_most is None:
        number, there = numbers_of(raw, rating, "a number in each row")
        low, high = number[there].min(), number[there].max()
        return FeedbackRule(negative_at_most=float("-inf")), [
            f"Ratings run from {low:g} to {high:g}: say which are negative and which positive with "
            "data.feedback.negative_at_most and data.feedback.positive_at_least."
        ]
    if event is not None and not rule.events:
        names = pc.drop_null(strings_of(raw, event))
        counted = sorted(
            ((one["counts"].as_py(), one["values"].as_py()) for one in pc.value_counts(names)), reverse=True
        )
        listed = ", ".join(f"{name!r} ({count:,})" for count, name in counted[:20])
        return FeedbackRule(events={name: 0 for _, name in counted}), [
            f"Event names: {listed}. Say in data.feedback.events which are -1, 0 and 1."
        ]
    return rule, []


def _anchor_facts(log: Log, protocol: ProtocolConfig) -> tuple[dict[str, int | str], tuple[str, ...]]:
    """What the protocol makes of a log: counts, and what would stop a run or leave it without a meaning."""
    first = log.timestamp[log.user_events[log.user_offsets[:-1]]]  # of each user
    negative, positive = log.feedback == NEGATIVE, log.feedback == POSITIVE
    facts: dict[str, int | str] = {
        "users with one event": int((np.diff(log.user_offsets) == 1).sum()),
        "negatives without history": int((negative & (log.timestamp == first[log.user])).sum()),
    }
    advice: list[str] = []
    rule = "Check the rule from rating or event to feedback in [data.feedback], and the column that it reads."
    if not negative.any():
        advice.append(f"Not one event is negative: there is nothing to learn, and a run will stop here. {rule}")
    if not positive.any():
        advice.append(
            "Not one event is positive: nothing says what a prediction should keep away from, and the filter has no "
            f"liked candidates to set its threshold on. {rule}"
        )
    try:
        periods = periods_of(log.timestamp, protocol.validation_cut, protocol.test_cut)
    except DataError as error:
        return facts, (*advice, f"A run will stop here: {error}")
    anchors = build_anchors(log, periods, protocol.horizon_days * DAY)
    for index, split in enumerate(SPLITS):
        facts[f"{split} anchors"] = count = int((anchors.split == index).sum())
        if not count and negative.any():
            advice.append(
                f"The {split} period gives no anchors: a run will stop here. Bring more time, or move the cuts."
            )
    return facts, tuple(advice)


def _facts(events: pa.Table) -> dict[str, int | str]:
    """Counts of users, items and feedback, and the span of time."""
    feedback = events["feedback"].to_numpy()
    span = pc.min_max(events["timestamp"])
    first, last = (datetime.fromtimestamp(span[one].as_py(), UTC) for one in ("min", "max"))
    return {
        "events": events.num_rows,
        "users": pc.count_distinct(events["user_id"]).as_py(),
        "items with events": pc.count_distinct(events["item_id"]).as_py(),
        "negative": int(np.sum(feedback == NEGATIVE)),
        "neutral": int(np.sum(feedback == NEUTRAL)),
        "positive": int(np.sum(feedback == POSITIVE)),
        "first event": f"{first:%Y-%m-%d %H:%M:%S} UTC",
        "last event": f"{last:%Y-%m-%d %H:%M:%S} UTC",
    }
