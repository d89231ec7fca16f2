"""The data stage on simulated logs: time and memory of ten million events, growth, plain polars beside it, Swing.

Claims: `ten_million_seconds` and `ten_million_peak_gb`, from the events file to the files of the data stage (cleaning
by reason, anchors, candidates, Swing with up to 200 users an item) in a process of its own; `growth_exponent`, the
slope of log seconds over log events between 1, 3 and 10 million; `speedup_over_plain`, the same steps plainly written
in polars, NumPy and SciPy in turns with ours, on ten million events. Both must find the same anchors, targets and pairs
of items. Swing alone is measured against the paper's triple sum over Python sets and against the formula as one Spark
query.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from common.harness import Report, Spread, arguments
from common.log_runs import Run, run_alone
from common.machine import machine
from common.swing_peers import spark_seconds, triple_sum
from conrec.config import SwingConfig
from conrec.logs.log import Log
from conrec.logs.simulation import simulate
from conrec.logs.swing import SwingTable, swing_neighbours
from conrec.settings.simulation import SimulationConfig

PARTS = ("growth", "dense", "plain", "swing")
MILLION = 1_000_000


def log_of_size(folder: Path, events: int, items: int = 20_000) -> Path:
    """A simulated log in which a user has 250 exposures on average; made once."""
    out = folder / f"{events}"
    if not out.exists():
        simulate(SimulationConfig(users=events // 250, items=items, events=events, truth_items=0), out)
    return out


def dense_log(folder: Path, events: int) -> Path:
    """A log that loads every step: few items, so that many have more than 200 who dislike them, presses that are
    undone, and all rules of cleaning on."""
    out = folder / f"dense-{events}"
    simulate(SimulationConfig(users=events // 250, items=2_000, events=events, undone=0.2, truth_items=0), out)
    config = out / "config.toml"
    rules = "[data.cleaning]\nrepeat_seconds = 60\nbot_events_per_minute = 600\nbot_events_per_day = 20_000\n"
    config.write_text(f"{config.read_text(encoding='utf-8')}\n{rules}", encoding="utf-8")
    return out


def dense(report: Report, folder: Path, events: int, threads: int) -> None:
    """Time and memory of the log that loads every step, once."""
    report.heading(f"{events:,} events over 2,000 items, presses undone, every rule of cleaning on")
    found = run_alone("ours", dense_log(folder, events), threads)
    for step, took in found.seconds.items():
        report.figure(f"dense_events_per_second/{step}", events / took)
    report.figure("dense_swing_pairs", found.pairs)
    report.claim("ten_million_seconds/dense", found.whole, runs=1, at_most=300)
    report.claim("ten_million_peak_gb/dense", found.gigabytes, runs=1, at_most=8)


def growth(report: Report, folder: Path, sizes: tuple[int, ...], turns: int, threads: int) -> None:
    """Time and memory of each size, and how the time grows."""
    report.heading("the data stage, each in a process of its own")
    runs = {size: [run_alone("ours", log_of_size(folder, size), threads) for _ in range(turns)] for size in sizes}
    for size, found in runs.items():
        report.figure(f"seconds_of_{size}_events", Spread.of([one.whole for one in found]))
        report.figure(f"peak_gb_of_{size}_events", Spread.of([one.gigabytes for one in found]))
    largest = runs[sizes[-1]]
    for step in largest[0].seconds:
        took = statistics.median(one.seconds[step] for one in largest)
        report.figure(f"events_per_second/{step}", sizes[-1] / took)
    medians = [statistics.median(one.whole for one in found) for found in runs.values()]
    slope = float(np.polyfit(np.log(sizes), np.log(medians), 1)[0])
    report.claim("ten_million_seconds", medians[-1], runs=turns, at_most=300)
    peak = statistics.median(one.gigabytes for one in largest)
    report.claim("ten_million_peak_gb", peak, runs=turns, at_most=8)
    report.figure("swing_pairs_of_the_largest", largest[0].pairs)
    report.claim("growth_exponent", slope, runs=turns, at_most=1.0)


def against_plain(report: Report, folder: Path, sizes: tuple[int, ...], turns: int, threads: int) -> None:
    """Ours and the plain steps in turns."""
    for size in sizes:
        report.heading(f"against the same steps in polars, NumPy and SciPy, {size:,} events")
        log = log_of_size(folder, size)
        pairs: list[tuple[Run, Run]] = []
        for turn in range(turns):
            order = ("ours", "plain") if turn % 2 == 0 else ("plain", "ours")
            done = {kind: run_alone(kind, log, threads) for kind in order}
            pairs.append((done["ours"], done["plain"]))
        if pairs[0][0].found != pairs[0][1].found:
            raise RuntimeError(f"ours found {pairs[0][0].found}, the plain steps {pairs[0][1].found}")
        for step in pairs[0][0].seconds:
            ratio = Spread.of([plain.seconds[step] / ours.seconds[step] for ours, plain in pairs])
            report.figure(f"plain_over_ours/{size}/{step}", ratio)
        report.figure(f"plain_peak_gb/{size}", Spread.of([plain.gigabytes for _, plain in pairs]))
        ratio = Spread.of([plain.whole / ours.whole for ours, plain in pairs])
        name = "speedup_over_plain" if size == sizes[0] else f"speedup_over_plain/{size:,} events"
        report.claim(name, ratio.median, runs=turns, at_least=1.0)


def swing_alone(report: Report, folder: Path, events: int, turns: int) -> None:
    """Swing on the negatives of a dense log, by all of its users: ours, the triple sum, Spark's query."""
    report.heading(f"Swing alone, {events:,} events over 2,000 items, all negatives, no sample, pairs of 3 users")
    dense = folder / "dense"
    simulate(SimulationConfig(users=events // 250, items=2_000, events=events, truth_items=0), dense)
    rows = pq.read_table(dense / "events.parquet")
    items = pq.read_table(dense / "items.parquet").sort_by("item_id")
    rows = rows.filter(pc.and_(pc.equal(rows["feedback"], -1), pc.is_in(rows["item_id"], items["item_id"])))
    log = Log.from_tables(rows, items)
    config = SwingConfig(users_per_item=max(1, log.n_users), more_than=2)
    report.figure("swing_dislikes", len(log))
    ours_seconds, sum_seconds = [], []
    for _ in range(turns):
        begin = time.perf_counter()
        ours = swing_neighbours(log, config, 0)
        ours_seconds.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        plain = triple_sum(log.user, log.item, config)
        sum_seconds.append(time.perf_counter() - begin)
    _check_same(ours, plain)
    report.figure("swing_pairs", len(plain))
    report.figure("swing_seconds", Spread.of(ours_seconds))
    report.figure("triple_sum_over_ours", Spread.of([a / b for a, b in zip(sum_seconds, ours_seconds, strict=True)]))
    given = {"user_code": log.user, "item_code": log.item}
    try:
        seconds, found = spark_seconds(pa.table(given), config, turns)
    except ImportError as error:
        report.note(f"Spark is left out: {error}")
        return
    if found != len(plain):
        raise RuntimeError(f"Spark found {found} pairs, the triple sum {len(plain)}")
    report.figure("spark_query_over_ours", Spread.of([a / b for a, b in zip(seconds, ours_seconds, strict=True)]))


def _check_same(ours: SwingTable, plain: list[tuple[int, int, float]]) -> None:
    rows = np.repeat(np.arange(len(ours.neighbours)), ours.neighbours.lengths)
    mine = {(int(i), int(j)): float(s) for i, j, s in zip(rows, ours.neighbours.values, ours.similarity, strict=True)}
    theirs = {(i, j): s for i, j, s in plain}
    # The last neighbour of an item may be another one of the same similarity.
    common = mine.keys() & theirs.keys()
    worst = max((abs(mine[pair] / theirs[pair] - 1) for pair in common), default=0.0)
    if len(mine) != len(theirs) or len(common) < 0.999 * len(mine) or worst > 1e-5:
        raise RuntimeError(f"{len(mine)} and {len(theirs)} pairs, {len(common)} the same, up to {worst:.1e} apart")


def main() -> None:
    """Measure what the command line asks for."""
    given = arguments(__doc__, PARTS)
    report = Report("logs", given.quick)
    described = machine("cpu")
    threads = torch.get_num_threads()
    sizes, turns = (MILLION, 3 * MILLION, 10 * MILLION), 3
    if given.quick:
        sizes, turns = (30_000, 100_000, 300_000), 1
        report.note("quick: 30,000, 100,000 and 300,000 events stand for 1, 3 and 10 million; one turn")
    report.runs = turns
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.wants("growth"):
            growth(report, folder, sizes, turns, threads)
        if given.wants("dense"):
            dense(report, folder, sizes[-1], threads)
        if given.wants("plain"):
            against_plain(report, folder, (sizes[-1], sizes[0]), turns, threads)
        if given.wants("swing"):
            swing_alone(report, folder, 100_000 if given.quick else MILLION, turns)
    report.finish(described, given.json)


if __name__ == "__main__":
    main()
