"""From a configuration to the files of a run's data folder: load, cut, find anchors, draw candidates, Swing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Bool

from conrec.arrays import Array
from conrec.artefacts import read_json, read_parquet, write_json, write_parquet
from conrec.config import Config
from conrec.errors import ArtefactError, DataError
from conrec.logs.anchors import Anchors, build_anchors
from conrec.logs.candidates import draw_candidates
from conrec.logs.log import Log
from conrec.logs.schema import ANCHORS, EVENTS, ITEMS, SPLITS
from conrec.logs.sources import Loaded, load
from conrec.logs.swing import SwingTable, read_swing, swing_neighbours, write_swing
from conrec.protocol import DAY, NEGATIVE, Periods, periods_of

__all__ = ["Prepared", "prepare", "read_prepared"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A log that is ready for models.

    Attributes:
        log: all events; items in the order of ``items``.
        items: schema ITEMS, by item id.
        anchors: of all splits, with candidates.
        periods: the cuts.
        swing: neighbours of each item, from the training period.
    """

    log: Log
    items: pa.Table
    anchors: Anchors
    periods: Periods
    swing: SwingTable

    def trained_items(self) -> Bool[Array, " items"]:
        """Items with an event in the training period; what is learned of items is learned of these."""
        seen = np.zeros(self.log.n_items, dtype=np.bool_)
        seen[self.log.before(self.periods.validation).item] = True
        return seen


def prepare(config: Config, folder: Path, loaded: Loaded | None = None) -> Loaded:
    """Write events, items, anchors, periods, counts and Swing neighbours into ``folder``/data.

    Args:
        config: data, protocol, swing, candidates and the run's seed.
        folder: of the run.
        loaded: the log, where it is in memory already.

    Returns:
        What was loaded, with its counts and hashes.

    Raises:
        ConfigError: the data section does not fit.
        DataError: the log cannot be used, or gives no anchors in one of the periods.
    """
    loaded = load(config.data) if loaded is None else loaded
    items = loaded.items.sort_by("item_id")
    log = Log.from_tables(loaded.events, items)
    periods = periods_of(log.timestamp, config.protocol.validation_cut, config.protocol.test_cut)
    horizon = config.protocol.horizon_days * DAY
    anchors = build_anchors(log, periods, horizon)
    _check_anchors(log, anchors, periods)
    anchors = anchors.with_candidates(draw_candidates(log, anchors, periods, horizon, config.candidates.seed))
    swing = swing_neighbours(log.before(periods.validation), config.swing, config.run.seed)

    data = folder / "data"
    write_parquet(data / "events.parquet", _events(log))
    write_parquet(data / "items.parquet", items)
    write_parquet(data / "anchors.parquet", anchors.to_table(log))
    write_json(data / "periods.json", asdict(periods))
    write_json(data / "counts.json", {"source": loaded.name, "hashes": loaded.hashes, **loaded.counts.to_json()})
    write_swing(data / "swing.parquet", swing, log)
    return loaded


def read_prepared(folder: Path) -> Prepared:
    """Read what `prepare` wrote.

    Raises:
        ArtefactError: a file is missing or damaged, or the anchors contradict the log.
    """
    data = folder / "data"
    items = read_parquet(data / "items.parquet", ITEMS)
    log = Log.from_tables(read_parquet(data / "events.parquet", EVENTS), items)
    path = data / "anchors.parquet"
    anchors = Anchors.from_table(read_parquet(path, ANCHORS), log, str(path))
    try:
        periods = Periods(**read_json(data / "periods.json"))
    except TypeError:
        raise ArtefactError("has other keys than validation, test and end", where=str(data / "periods.json")) from None
    return Prepared(log, items, anchors, periods, read_swing(data / "swing.parquet", log))


def _events(log: Log) -> pa.Table:
    """Events of schema EVENTS in time order."""

    def names(values: tuple[str, ...], codes: Array) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(values, pa.string())).cast(pa.string())

    return pa.table(
        {
            "user_id": names(log.user_ids, log.user),
            "item_id": names(log.item_ids, log.item),
            "timestamp": log.timestamp,
            "feedback": log.feedback,
        },
        schema=EVENTS,
    )


def _check_anchors(log: Log, anchors: Anchors, periods: Periods) -> None:
    """Raise where a split has no anchor, saying what its period holds."""
    for index, split in enumerate(SPLITS):
        if (anchors.split == index).any():
            continue
        begin, end = periods.span(split)
        inside = (log.timestamp >= begin) & (log.timestamp < end)
        negative = inside & (log.feedback == NEGATIVE)
        first, last = (datetime.fromtimestamp(int(one), UTC) for one in log.timestamp[inside][[0, -1]])
        raise DataError(
            f"the {split} period ({first:%Y-%m-%d} to {last:%Y-%m-%d}) has {int(inside.sum())} events of "
            f"{len(np.unique(log.user[inside]))} users, {int(negative.sum())} of them negative, and no anchor",
            where="data",
            expected="negatives by users who have earlier events, on items that are not among these",
            mend="Bring a longer log, check the rule from rating or event to feedback (data.feedback), or move "
            "protocol.validation_cut and protocol.test_cut.",
        )
