"""From a configuration to the files of a run's data folder: load, cut, find anchors, draw candidates, Swing."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Bool

from conrec.arrays import Array
from conrec.artefacts import read_json, read_parquet, write_json, write_parquet, write_parquet_parts
from conrec.config import Config
from conrec.errors import ArtefactError, DataError
from conrec.logs.anchor_table import anchor_tables, anchors_from_table
from conrec.logs.anchors import Anchors, read_anchors
from conrec.logs.costs import Costs
from conrec.logs.counts import Counts
from conrec.logs.engines import Engine, open_engine
from conrec.logs.log import Log
from conrec.logs.opening import open_log
from conrec.logs.relations.anchors import find_anchors
from conrec.logs.relations.candidates import find_candidates
from conrec.logs.relations.events import number_events
from conrec.logs.relations.periods import cut_log
from conrec.logs.relations.swing import swing_pairs
from conrec.logs.schema import ANCHORS, EVENTS, ITEMS, SPLITS
from conrec.logs.sources import Loaded
from conrec.logs.swing import SwingTable, read_swing, swing_table, write_swing
from conrec.protocol import DAY, Periods

__all__ = ["STEPS", "Prepared", "prepare", "read_prepared"]

STEPS = 6
"""Of `prepare`, as `conrec.logs.costs.Costs` counts them."""


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


def prepare(config: Config, folder: Path, loaded: Loaded | None = None, costs: Costs | None = None) -> Counts:
    """Write events, items, anchors, periods, counts and Swing neighbours into ``folder``/data.

    The relational steps run on the engine of ``config.engine``; every engine gives the same files.

    Args:
        config: data, engine, protocol, swing, candidates and the run's seed.
        folder: of the run.
        loaded: the log, where it is in memory already.
        costs: gets the seconds of each step.

    Returns:
        Rows read, kept and refused by reason.

    Raises:
        ConfigError: the data section does not fit.
        DataError: the log cannot be used, or gives no anchors in one of the periods.
    """
    data = folder / "data"
    costs = costs or Costs(STEPS)
    with costs.running(), open_engine(config.engine, config.run.threads or os.cpu_count() or 1) as engine:
        with costs.step("reading and cleaning"):
            opened = open_log(engine, config.data, loaded)
            costs.events = opened.counts.events.kept
        with costs.step("ordering"):
            item_ids = opened.items["item_id"].combine_chunks()
            number_events(engine, item_ids)
            periods = cut_log(engine, config.protocol.validation_cut, config.protocol.test_cut)
        with costs.step("anchors"):
            find_anchors(engine, periods, config.protocol.horizon_days * DAY)
            _check_anchors(engine, periods)
        with costs.step("candidates"):
            find_candidates(engine, config.candidates.seed)
        with costs.step("Swing"):
            swing = swing_table(swing_pairs(engine, periods.validation, config.swing, config.run.seed), len(item_ids))
        with costs.step("files"):
            user_ids = engine.read("SELECT user_id FROM users ORDER BY user_code")["user_id"].to_pylist()
            anchors = anchor_tables(read_anchors(engine), user_ids, item_ids.to_pylist())
            write_parquet_parts(data / "events.parquet", EVENTS, engine.batches(_IN_ORDER))
            write_parquet(data / "items.parquet", opened.items)
            write_parquet_parts(data / "anchors.parquet", ANCHORS, anchors)
            write_json(data / "periods.json", asdict(periods))
            write_json(
                data / "counts.json", {"source": opened.name, "hashes": opened.hashes, **opened.counts.to_json()}
            )
            write_swing(data / "swing.parquet", swing, item_ids.to_pylist())
    return opened.counts


def read_prepared(folder: Path) -> Prepared:
    """Read what `prepare` wrote.

    Raises:
        ArtefactError: a file is missing or damaged, or the anchors contradict the log.
    """
    data = folder / "data"
    items = read_parquet(data / "items.parquet", ITEMS)
    log = Log.from_tables(read_parquet(data / "events.parquet", EVENTS), items)
    path = data / "anchors.parquet"
    anchors = anchors_from_table(read_parquet(path, ANCHORS), log, str(path))
    try:
        periods = Periods(**read_json(data / "periods.json"))
    except TypeError:
        raise ArtefactError("has other keys than validation, test and end", where=str(data / "periods.json")) from None
    return Prepared(log, items, anchors, periods, read_swing(data / "swing.parquet", log))


_IN_ORDER = "SELECT user_id, item_id, timestamp, feedback FROM clean_events ORDER BY timestamp, position"


def _check_anchors(engine: Engine, periods: Periods) -> None:
    """Raise where a split has no anchor, saying what its period holds."""
    there = set(engine.read("SELECT DISTINCT split FROM starts")["split"].to_pylist())
    for index, split in enumerate(SPLITS):
        if index in there:
            continue
        begin, end = periods.span(split)
        row = engine.read(_PERIOD, begin=begin, end=end).to_pylist()[0]
        first, last = (datetime.fromtimestamp(int(row[one]), UTC) for one in ("first_ts", "last_ts"))
        raise DataError(
            f"the {split} period ({first:%Y-%m-%d} to {last:%Y-%m-%d}) has {row['events']} events of "
            f"{row['users']} users, {row['negatives']} of them negative, and no anchor",
            where="data",
            expected="negatives by users who have earlier events, on items that are not among these",
            mend="Bring a longer log, check the rule from rating or event to feedback (data.feedback), or move "
            "protocol.validation_cut and protocol.test_cut.",
        )


_PERIOD = """
    SELECT count(*) AS events, count(DISTINCT user_code) AS users, min(ts) AS first_ts, max(ts) AS last_ts,
        count(*) FILTER (WHERE feedback = -1) AS negatives
    FROM events WHERE ts >= :begin AND ts < :end"""
