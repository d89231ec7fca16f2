"""A simulated log on disk: events, items, the truth beside them, and a configuration that reads it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w
from pydantic import ValidationError

from conrec.arrays import Array
from conrec.artefacts import replacing, write_json, write_parquet, write_text
from conrec.errors import ConfigError, did_you_mean
from conrec.logs.simulation.days import Day, calibrate, days_of
from conrec.logs.simulation.names import category_names, item_ids, item_table, user_ids
from conrec.logs.simulation.reactions import OFF_TOPIC, REASONS
from conrec.logs.simulation.truth import SETTINGS, averse_items, true_interests
from conrec.logs.simulation.world import World, blocks, draw_world
from conrec.progress import Meter, meter
from conrec.protocol import DAY, NEGATIVE, POSITIVE
from conrec.settings.simulation import SimulationConfig

__all__ = ["Simulated", "simulate", "simulation_config"]

PART = 1 << 20
"""Events of a row group: what is turned into strings at once."""
TRUTH_CATEGORIES = 8
EVENT_NAMES = {"exposed": 0, "like": 1, "dislike": -1, "undo dislike": "undo dislike"}
"""Names of events where presses are undone, and what they mean in a configuration."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """What was written.

    Attributes:
        asked: exposures that the settings ask for.
        events: rows of the log.
        exposures: of which exposures; fewer than asked for where users have seen nearly all that is there.
        users: with an event.
        positives: positive reactions.
        negatives: negative reactions that stay.
        off_topic: of these, how many say nothing about taste.
        undone: presses that were taken back, each with an event that does so.
        threshold_negative: utility plus noise below which a user is annoyed.
        threshold_positive: above which he likes what he sees.
        seconds: it took, the pilot and the truth included.
    """

    asked: int
    events: int
    exposures: int
    users: int
    positives: int
    negatives: int
    off_topic: int
    undone: int
    threshold_negative: float
    threshold_positive: float
    seconds: float

    @property
    def ratio(self) -> float:
        """Positives for each negative that stays; infinite where there is none."""
        return self.positives / self.negatives if self.negatives else float("inf")

    def lines(self) -> list[str]:
        """For people."""
        shares = f"{self.positives:,} positive, {self.negatives:,} negative ({self.ratio:.2f} positives for each)"
        missing = [
            f"exposures: {self.asked:,} asked for, {self.exposures:,} made: the others were for users who have seen "
            "nearly every item that is there for them; more items, or fewer events for each user, leave room"
        ]
        return [
            f"events: {self.events:,} of {self.users:,} users, {self.exposures:,} of them exposures",
            f"reactions: {shares}",
            f"negatives that say nothing about taste: {self.off_topic:,}; presses undone: {self.undone:,}",
            f"thresholds: negative below {self.threshold_negative:.3f}, positive above {self.threshold_positive:.3f}",
            f"{self.seconds:.1f} s, {self.events / max(self.seconds, 1e-9):,.0f} events a second",
            *(missing if self.exposures < self.asked else []),
        ]


def simulate(config: SimulationConfig, folder: Path, part: int = PART) -> Simulated:
    """Simulate a platform and write its log.

    Into ``folder`` go ``events.parquet`` (user_id, item_id, timestamp, feedback, reason; by time; where presses are
    undone, ``event`` with a name in place of feedback), ``items.parquet`` (item_id, title, category, text),
    ``truth.parquet`` (user_id, timestamp, categories, category_aversion, items, item_aversion: the true negative
    interests, the strongest first), ``config.toml``, which reads the log as a `table`, and ``simulation.json``, with
    the settings and counts. What the log holds depends on ``config`` alone.

    In memory are the state of the recommender (a row of categories for each user, two bytes for each exposure), one
    day of events and one part.

    Args:
        config: the platform.
        folder: made where it is missing; files of these names in it are replaced.
        part: events of a row group; changes nothing but the layout of the file.

    Raises:
        ConfigError: the folder cannot be made or written to; said before anything is simulated.
    """
    begin = time.perf_counter()
    _make(folder)
    thresholds = calibrate(config)
    world = draw_world(config)
    snapshots = list(range(0, config.days, config.truth_days))
    counts = dict.fromkeys(("events", "exposures", "positives", "negatives", "off_topic", "undone"), 0)
    there = np.zeros(config.users, dtype=np.bool_)
    with meter("simulating", config.days + len(snapshots)) as step:
        with _writer(folder / "events.parquet", config, part) as write:
            for day in days_of(world, thresholds):
                _count(day, counts)
                there[day.user] = True
                write.add(day)
                step(note=f"{counts['events']:,} events")
        write_parquet(folder / "items.parquet", item_table(world))
        _write_truth(folder / "truth.parquet", world, np.flatnonzero(there), snapshots, step)
    seconds = time.perf_counter() - begin
    done = Simulated(
        asked=config.events,
        users=int(there.sum()),
        threshold_negative=thresholds.negative,
        threshold_positive=thresholds.positive,
        seconds=seconds,
        **counts,
    )
    write_text(folder / "config.toml", _configuration(config))
    write_json(folder / SETTINGS, {"settings": config.model_dump(mode="json"), "counts": asdict(done)})
    return done


def simulation_config(values: Mapping[str, Any]) -> SimulationConfig:
    """Settings from plain values.

    Raises:
        ConfigError: a key that does not exist or a value that does not fit.
    """
    try:
        return SimulationConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            mend = did_you_mean(key, SimulationConfig.model_fields)
            raise ConfigError(f"there is no key {key!r}", where="simulation", mend=mend) from None
        if not key:
            raise ConfigError(first["msg"].removeprefix("Value error, "), where="simulation") from None
        found = f"{key} = {first['input']!r} does not fit"
        raise ConfigError(found, where="simulation", expected=first["msg"]) from None


def _make(folder: Path) -> None:
    """Make the folder where it is missing, and see that a file can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        found = "is a file" if folder.is_file() else f"cannot be written to ({error.strerror or error})"
        raise ConfigError(found, where=str(folder), expected="a folder for the log") from None


class _Writer:
    """Turns days into row groups of ``part`` events."""

    def __init__(self, writer: pq.ParquetWriter, config: SimulationConfig, part: int) -> None:
        self.writer, self.part, self.undoing = writer, part, config.undone > 0
        self.users, self.items = user_ids(config.users), item_ids(config.items)
        self.reasons = pa.array(REASONS, pa.string())
        self.names = pa.array(EVENT_NAMES, pa.string())
        self.waiting: list[pa.Table] = []
        self.rows = 0

    def add(self, day: Day) -> None:
        """Take a day; write what fills a part."""
        for begin in range(0, len(day), self.part):
            table = self._table(day, slice(begin, begin + self.part))
            self.waiting.append(table)
            self.rows += table.num_rows
            while self.rows >= self.part:
                self._write(self.part)

    def close(self) -> None:
        """Write what is left."""
        if self.rows:
            self._write(self.rows)

    def _write(self, rows: int) -> None:
        joined = pa.concat_tables(self.waiting)
        self.writer.write_table(joined.slice(0, rows), row_group_size=rows)
        self.waiting = [joined.slice(rows)] if joined.num_rows > rows else []
        self.rows = joined.num_rows - rows

    def _table(self, day: Day, rows: slice) -> pa.Table:
        feedback, reason = day.reactions.feedback[rows], day.reactions.reason[rows].astype(np.int32)
        undoing = day.undoing[rows]
        reason[undoing] = -1
        columns = {
            "user_id": self.users.take(pa.array(day.user[rows])),
            "item_id": self.items.take(pa.array(day.item[rows])),
            "timestamp": pa.array(day.timestamp[rows], pa.int64()),
            "reason": self.reasons.take(pa.array(reason, mask=reason < 0)),
        }
        if self.undoing:
            columns["event"] = self.names.take(pa.array(np.where(undoing, 3, feedback % 3)))
        else:
            columns["feedback"] = pa.array(feedback, pa.int8())
        return pa.table(columns, schema=_schema(undoing=self.undoing))


def _schema(*, undoing: bool) -> pa.Schema:
    third = ("event", pa.string()) if undoing else ("feedback", pa.int8())
    return pa.schema(
        [("user_id", pa.string()), ("item_id", pa.string()), ("timestamp", pa.int64()), third, ("reason", pa.string())]
    )


@contextmanager
def _writer(path: Path, config: SimulationConfig, part: int) -> Iterator[_Writer]:
    """Writes a file of events; it is renamed to its name when all of it is there."""
    schema = _schema(undoing=config.undone > 0)
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        own = _Writer(writer, config, part)
        yield own
        own.close()


def _count(day: Day, counts: dict[str, int]) -> None:
    reactions, shown = day.reactions, ~day.undoing
    stays = shown & ~reactions.undone & (reactions.feedback == NEGATIVE)
    counts["events"] += len(day)
    counts["exposures"] += int(shown.sum())
    counts["positives"] += int((shown & (reactions.feedback == POSITIVE)).sum())
    counts["negatives"] += int(stays.sum())
    counts["off_topic"] += int((stays & reactions.off_topic).sum())
    counts["undone"] += int(day.undoing.sum())


def _write_truth(path: Path, world: World, users: Array, snapshots: list[int], step: Meter) -> None:
    """The true negative interests of these users on the given days, block by block of users."""
    config = world.config
    names, items = pa.array(category_names(config.categories), pa.string()), item_ids(config.items)
    ids = user_ids(config.users)
    schema = pa.schema(
        [
            ("user_id", pa.string()),
            ("timestamp", pa.int64()),
            ("categories", pa.list_(pa.string())),
            ("category_aversion", pa.list_(pa.float32())),
            ("items", pa.list_(pa.string())),
            ("item_aversion", pa.list_(pa.float32())),
        ]
    )
    k = min(TRUTH_CATEGORIES, config.disliked)
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for day in snapshots:
            for begin, end in blocks(len(users)):
                own = users[begin:end]
                at = np.full(len(own), config.start + day * DAY)
                categories = true_interests(world, own, at, k)
                averse = averse_items(world, own, at, config.truth_items)
                columns = [ids.take(pa.array(own)), pa.array(at, pa.int64())]
                for found, words in ((categories, names), (averse, items)):
                    columns += _lists(found.ranked, found.aversion, words)
                writer.write_table(pa.table(columns, schema=schema))
            step(note="truth")


def _lists(ranked: Array, aversion: Array, names: pa.Array) -> list[pa.Array]:
    """Names and aversions as lists, without what is not there."""
    there = ranked >= 0
    offsets = pa.array(np.concatenate([[0], np.cumsum(there.sum(axis=1))]), pa.int32())
    return [
        pa.ListArray.from_arrays(offsets, names.take(pa.array(ranked[there]))),
        pa.ListArray.from_arrays(offsets, pa.array(aversion[there], pa.float32())),
    ]


def _configuration(config: SimulationConfig) -> str:
    """TOML that reads the log, beside its files, and leaves out what says nothing about taste."""
    column = "event" if config.undone else "feedback"
    reasons = {reason: "drop" if reason in OFF_TOPIC else "keep" for reason in REASONS}
    data: dict[str, object] = {
        "source": "table",
        "events": "events.parquet",
        "items": "items.parquet",
        "columns": {column: column, "reason": "reason"},
        "item_columns": {"category": "category", "text": "text"},
        "feedback": {"reasons": reasons, **({"events": EVENT_NAMES} if config.undone else {})},
    }
    return tomli_w.dumps({"data": data})
