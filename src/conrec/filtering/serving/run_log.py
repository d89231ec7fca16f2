"""The log of a run as its page asks for it: some users, what one liked and disliked, what he might be shown."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from conrec.filtering.serving.lookups import Lookups

__all__ = ["CandidateList", "Event", "History", "LoggedUser", "Rated", "RunLog"]

DAY = 86_400
POPULAR_DAYS = 30
POPULAR = 200
"""Most frequent items of the last days of the log that are kept at hand."""
_EVENTS = "read_parquet($file, file_row_number = true)"


@dataclass(frozen=True, slots=True)
class LoggedUser:
    """A user with the number of his events of either sign; None where there is no log."""

    user_id: str
    disliked: int | None
    liked: int | None


@dataclass(frozen=True, slots=True)
class Event:
    """An item that a user liked or disliked, and when (unix seconds)."""

    item_id: str
    timestamp: int


@dataclass(frozen=True, slots=True)
class Rated:
    """Feedback, -1 or 1, and when it was given (unix seconds)."""

    feedback: Literal[-1, 1]
    timestamp: int


@dataclass(frozen=True, slots=True)
class History:
    """What a user liked and disliked.

    Attributes:
        known: whether the log has any event of him.
        liked: newest first, some of them.
        disliked: newest first, some of them.
        liked_count: how many there are.
        disliked_count: how many there are.
    """

    known: bool
    liked: tuple[Event, ...]
    disliked: tuple[Event, ...]
    liked_count: int
    disliked_count: int


@dataclass(frozen=True, slots=True)
class CandidateList:
    """Items that a user might be shown.

    Attributes:
        source: "anchor": the stored candidates of his latest anchor; "popular": what most events of the log's last
            days are about, without the items of his history; "catalogue": some items, where there is no log.
        item_ids: distinct.
        timestamp: the anchor's time; None for popular items.
        future_negatives: items of the anchor's window that he disliked in it.
        future_positives: items that he liked in it.
    """

    source: Literal["anchor", "popular", "catalogue"]
    item_ids: tuple[str, ...]
    timestamp: int | None = None
    future_negatives: tuple[str, ...] = ()
    future_positives: tuple[str, ...] = ()


class RunLog:
    """``events.parquet`` and ``anchors.parquet`` of a run, opened anew for each question.

    Args:
        data_folder: ``RUN/data``.
        lookups: who reads.
    """

    def __init__(self, data_folder: Path, lookups: Lookups) -> None:
        self.events, self.anchors = data_folder / "events.parquet", data_folder / "anchors.parquet"
        self._lookups = lookups
        self._popular: tuple[tuple[int, int], tuple[str, ...]] | None = None
        self._popular_turn = threading.Lock()

    @property
    def has_events(self) -> bool:
        """Whether there is a log to look into."""
        return self.events.is_file()

    @property
    def has_anchors(self) -> bool:
        """Whether there are anchors with candidates."""
        return self.anchors.is_file()

    def users(self, query: str, limit: int) -> list[LoggedUser]:
        """Users with ``query`` in their ID, whatever its case; the one with just this ID first.

        Without a query, users of test anchors (those on whom the run was judged), latest first.

        Raises:
            ArtefactError: the log is missing or damaged.
            LookupTimeoutError: it is too large.
        """
        found = self._matching(query, limit) if query or not self.has_anchors else self._judged(limit)
        return self._counted(found)

    def random_user(self, number: float) -> LoggedUser | None:
        """A user drawn by his events, for a number in [0, 1); None where the log is empty. Errors as for `users`."""
        count = self._lookups.rows(self.events, "SELECT count(*) FROM read_parquet($file)")[0][0]
        if not count:
            return None
        place = min(int(number * count), count - 1)
        drawn = self._lookups.rows(
            self.events, f"SELECT user_id FROM {_EVENTS} WHERE file_row_number = $place", place=place
        )
        return self._counted([drawn[0][0]])[0]

    def history(self, user_id: str, limit: int) -> History:
        """The latest ``limit`` likes and dislikes of a user. Errors as for `users`."""
        rows = self._lookups.rows(
            self.events,
            "SELECT item_id, timestamp, sign(feedback), count(*) OVER (PARTITION BY sign(feedback))"
            f" FROM {_EVENTS} WHERE user_id = $user"
            " QUALIFY row_number() OVER (PARTITION BY sign(feedback)"
            " ORDER BY timestamp DESC, file_row_number DESC) <= $limit"
            " ORDER BY timestamp DESC, file_row_number DESC",
            user=user_id,
            limit=max(limit, 1),
        )
        sides = {sign: [row for row in rows if row[2] == sign] for sign in (1, -1)}
        events = {sign: tuple(Event(row[0], row[1]) for row in side[:limit]) for sign, side in sides.items()}
        counts = {sign: side[0][3] if side else 0 for sign, side in sides.items()}
        return History(bool(rows), events[1], events[-1], counts[1], counts[-1])

    def rated(self, user_id: str, item_ids: list[str]) -> dict[str, Rated]:
        """What a user said last of those among some items that he liked or disliked. Errors as for `users`."""
        rows = self._lookups.rows(
            self.events,
            f"SELECT item_id, sign(feedback), timestamp FROM {_EVENTS}"
            " WHERE user_id = $user AND feedback <> 0 AND item_id IN (SELECT unnest($items))"
            " ORDER BY timestamp, file_row_number",
            user=user_id,
            items=item_ids,
        )
        return {item_id: Rated(1 if feedback > 0 else -1, timestamp) for item_id, feedback, timestamp in rows}

    def anchor_candidates(self, user_id: str) -> CandidateList | None:
        """The stored candidates of a user's latest anchor that has some; None without one. Errors as for `users`."""
        rows = self._lookups.rows(
            self.anchors,
            "SELECT candidates, timestamp, future_negatives, future_positives FROM read_parquet($file)"
            " WHERE user_id = $user AND len(candidates) > 0 ORDER BY timestamp DESC, anchor_id DESC LIMIT 1",
            user=user_id,
        )
        if not rows:
            return None
        candidates, timestamp, negatives, positives = rows[0]
        items = tuple(dict.fromkeys(one for one in candidates if one is not None))
        return CandidateList("anchor", items, timestamp, tuple(negatives or ()), tuple(positives or ()))

    def popular_candidates(self, user_id: str, limit: int) -> CandidateList:
        """What the log's last 30 days are about most, without what the user knows. Errors as for `users`."""
        popular = self._most_frequent()
        rows = self._lookups.rows(
            self.events,
            "SELECT DISTINCT item_id FROM read_parquet($file)"
            " WHERE user_id = $user AND item_id IN (SELECT unnest($items))",
            user=user_id,
            items=list(popular),
        )
        seen = {row[0] for row in rows}
        return CandidateList("popular", tuple(one for one in popular if one not in seen)[:limit])

    def _most_frequent(self) -> tuple[str, ...]:
        """Counted once for a state of the file."""
        with self._popular_turn:
            try:
                found = self.events.stat()
                state = (found.st_mtime_ns, found.st_size)
            except OSError:
                state = (0, 0)  # the query says what is wrong
            if self._popular is None or self._popular[0] != state:
                rows = self._lookups.rows(
                    self.events,
                    "SELECT item_id FROM read_parquet($file) WHERE timestamp >"
                    " (SELECT max(timestamp) FROM read_parquet($file)) - $seconds"
                    " GROUP BY item_id ORDER BY count(*) DESC, item_id LIMIT $limit",
                    seconds=POPULAR_DAYS * DAY,
                    limit=POPULAR,
                )
                self._popular = (state, tuple(row[0] for row in rows))
            return self._popular[1]

    def _matching(self, query: str, limit: int) -> list[str]:
        exact = "SELECT user_id FROM read_parquet($file) WHERE user_id = $query LIMIT 1"
        found = dict.fromkeys(row[0] for row in self._lookups.rows(self.events, exact, query=query))
        with self._lookups.stream(
            self.events,
            "SELECT user_id FROM read_parquet($file) WHERE contains(lower(user_id), lower($query))",
            query=query,
        ) as batches:
            for batch in batches:
                found.update(dict.fromkeys(row[0] for row in batch))
                if len(found) >= limit:
                    break
        return list(found)[:limit]

    def _judged(self, limit: int) -> list[str]:
        rows = self._lookups.rows(
            self.anchors,
            "SELECT user_id FROM read_parquet($file) WHERE split = 'test'"
            " GROUP BY user_id ORDER BY max(anchor_id) DESC LIMIT $limit",
            limit=limit,
        )
        return [row[0] for row in rows] or self._matching("", limit)

    def _counted(self, user_ids: list[str]) -> list[LoggedUser]:
        """With the numbers of their events, in the order given."""
        rows = self._lookups.rows(
            self.events,
            "SELECT user_id, count(*) FILTER (feedback < 0), count(*) FILTER (feedback > 0)"
            " FROM read_parquet($file) WHERE user_id IN (SELECT unnest($users)) GROUP BY user_id",
            users=user_ids,
        )
        counts = {user_id: (disliked, liked) for user_id, disliked, liked in rows}
        return [LoggedUser(one, *counts.get(one, (0, 0))) for one in user_ids]
