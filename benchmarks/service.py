"""The service under load from a second process: requests a second at p99 <= 10 ms, and switches of the store.

1,000 candidates a request of a user with a predict set of 20, answered with the similarity of each one that is dropped
(about a tenth). Claims: `requests_per_second`, the highest rate of an open loop (Poisson, latency from the moment at
which a request was due) whose 99th percentile stays within 10 ms, against the better of two applications that do the
same: plain FastAPI with pydantic models and NumPy, and one that is tuned (async, msgspec, NumPy masks);
`p99_milliseconds` at that rate, of half a minute; `failed_requests` over ten switches to another store under half that
load. Beside it: an endpoint that answers as many bytes and does nothing, two workers.

Server and load share the cores of the machine, as the issue says (two): so what the load costs is paid too.
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import psutil

from common import service_peers
from common.filter_world import item_id, make_run, user_id, write_users
from common.harness import Report, Spread, arguments
from common.load import Load, Measured, ask, begin, finish, write_bodies
from common.machine import machine
from conrec.filtering.catalogue import FilterCatalogue
from conrec.filtering.stores.opening import open_store

PARTS = ("rate", "switches", "workers")
CANDIDATES, BODIES = 1_000, 400
ALLOWED = 10.0
"""Milliseconds that the 99th percentile may take."""
PEERS = ("plain", "tuned")
LOWER = 0.95
"""Where the 99th percentile of half a minute is over the limit, the rate is lowered by this factor."""
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Best:
    """The highest rate that keeps the limit, what was measured at it, and what a closed loop reaches and costs.

    Attributes:
        rate: requests a second; 0 where none keeps the limit.
        at_it: of the open loop at that rate.
        most: requests a second of a closed loop.
        processor: milliseconds of the server's processor time for each request of it.
    """

    rate: float
    at_it: Measured | None
    most: float
    processor: float


def questions(folder: Path, users: int, items: int) -> Path:
    """Bodies of random users and candidates."""
    chance = np.random.default_rng(7)
    bodies = [
        msgspec.json.encode(
            {
                "user_id": user_id(int(chance.integers(users))),
                "item_ids": [item_id(int(one)) for one in chance.integers(0, items, CANDIDATES)],
            }
        )
        for _ in range(BODIES)
    ]
    path = folder / "bodies"
    write_bodies(path, bodies)
    return path


@contextmanager
def running(command: list[str], port: int) -> Iterator[int]:
    """A server in a process of its own, from when it listens; yields its process ID."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, *command],
            stdout=log,
            stderr=log,
            env={**dict.fromkeys(ONE_THREAD, "1"), **os.environ},
        )
        try:
            deadline = time.monotonic() + 120
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(f"{command} does not serve: {log.read().decode()}")
                time.sleep(0.05)
            yield process.pid
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """One that nothing listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def ours(run: Path, port: int, workers: int = 1) -> list[str]:
    """The command of the service, with its settings as they are."""
    return ["-m", "conrec", "serve", "--run", str(run), "--port", str(port), "--workers", str(workers)]


def peer(name: str, run: Path, port: int) -> list[str]:
    """The command of another application."""
    return [service_peers.__file__, name, str(run), str(port)]


def processor_seconds(process: int) -> float:
    """Processor time of a process and its children so far."""
    root = psutil.Process(process)
    return sum(sum(one.cpu_times()[:2]) for one in (root, *root.children(recursive=True)))


def best_rate(load: Load, process: int, steps: int) -> Best:
    """The highest rate that keeps the limit, by halving the interval up to what a closed loop reaches."""
    ask(replace(load, rate=0.0, seconds=0.5))
    before = processor_seconds(process)
    closed = ask(replace(load, rate=0.0, warm=0.0))
    processor = (processor_seconds(process) - before) / max(1, closed.answered) * 1e3
    if closed.failures:
        raise RuntimeError(f"requests failed: {closed.failed}")
    low, high = 0.0, closed.rate
    found: Measured | None = None
    for step in range(steps):
        rate = high * 0.6 if step == 0 else (low + high) / 2
        measured = ask(replace(load, rate=rate, seed=step))
        if measured.failures == 0 and measured.p99 <= ALLOWED:
            low, found = rate, measured
        else:
            high = rate
    return Best(low, found, closed.rate, processor)


def rates(
    report: Report, commands: dict[str, Callable[[int], list[str]]], load: Load, turns: int, steps: int
) -> dict[str, float]:
    """Each server in turns, alone on the machine but for the load; the median of its best rates."""
    found: dict[str, list[Best]] = {name: [] for name in commands}
    for turn in range(turns):
        for name in list(commands) if turn % 2 == 0 else list(reversed(commands)):
            port = free_port()
            with running(commands[name](port), port) as process:
                found[name].append(best_rate(replace(load, port=port), process, steps))
    for name, all_of_it in found.items():
        report.figure(f"requests_per_second_within_10_ms/{name}", Spread.of([one.rate for one in all_of_it]))
        report.figure(f"requests_per_second_closed_loop/{name}", Spread.of([one.most for one in all_of_it]))
        report.figure(f"processor_milliseconds_a_request/{name}", Spread.of([one.processor for one in all_of_it]))
        at_it = [one.at_it for one in all_of_it if one.at_it is not None]
        if at_it:
            report.figure(f"p50_milliseconds_at_that_rate/{name}", Spread.of([one.p50 for one in at_it]))
            report.figure(f"p99_milliseconds_at_that_rate/{name}", Spread.of([one.p99 for one in at_it]))
    for name in PEERS if "ours" in found else ():
        if name not in found:
            continue
        pairs = list(zip(found["ours"], found[name], strict=True))
        ratio = [one.rate / other.rate for one, other in pairs if other.rate]
        if ratio:
            report.figure(f"rate_over_{name}", Spread.of(ratio))
        report.figure(
            f"{name}_processor_time_over_ours", Spread.of([other.processor / one.processor for one, other in pairs])
        )
    return {name: statistics.median(one.rate for one in all_of_it) for name, all_of_it in found.items()}


def held(report: Report, run: Path, load: Load, rate: float, peers: float, turns: int) -> float:
    """The rate at which a long measurement keeps the limit, which is claimed; it is at most ``rate``."""
    port = free_port()
    with running(ours(run, port), port):
        ask(replace(load, port=port, seconds=0.5))
        while True:
            measured = ask(replace(load, port=port, rate=rate, seed=100))
            kept = measured.failures == 0 and measured.p99 <= ALLOWED
            report.note(
                f"{rate:.0f} requests a second for {measured.seconds:.0f} s: p50 {measured.p50:.2f}, "
                f"p99 {measured.p99:.2f}, worst {measured.worst:.1f} ms of n = {measured.answered:,}"
            )
            if kept or rate < peers / 2 or rate < 1:
                break
            rate *= LOWER
    report.figure("requests_behind_that_p99", measured.answered)
    report.claim("p99_milliseconds", measured.p99, runs=measured.answered, at_most=ALLOWED)
    report.claim("requests_per_second", rate if kept else float("nan"), runs=turns, at_least=peers)
    return rate


def switches(report: Report, run: Path, load: Load, users: int, rate: float, times: int) -> None:
    """New stores under load; every request must be answered, by one of the stores that there were."""
    catalogue = FilterCatalogue.load(run)
    with open_store(run / "filter" / "conrec") as store:
        versions = [store.version[:16]]
    port = free_port()
    with running(ours(run, port), port):
        asking = begin(replace(load, port=port, rate=rate, seconds=0.0))
        took = []
        for turn in range(times):
            write_users(run, users, 100 + turn, catalogue, 1_700_000_000 + turn + 1)
            with open_store(run / "filter" / "conrec") as store:
                versions.append(store.version[:16])
            begin_at = time.perf_counter()
            while _served_version(port) != versions[-1]:
                if time.perf_counter() - begin_at > 60:
                    raise RuntimeError("the new store was not taken")
                time.sleep(0.02)
            took.append(time.perf_counter() - begin_at)
        measured = finish(asking)
    strange = set(measured.versions) - set(versions)
    report.figure(f"requests_over_{times}_switches", measured.answered)
    report.figure("seconds_from_written_to_served", Spread.of(took))
    report.figure("p99_milliseconds_while_switching", measured.p99)
    report.figure("worst_milliseconds_while_switching", measured.worst)
    report.figure("stores_that_answered", len(measured.versions))
    if measured.failures:
        report.note(f"failed: {measured.failed}")
    report.claim("failed_requests", measured.failures + len(strange), runs=measured.answered, at_most=0)


def _served_version(port: int) -> str:
    from http.client import HTTPConnection  # noqa: PLC0415

    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/version")
        return str(msgspec.json.decode(connection.getresponse().read())["store"]["version"])
    finally:
        connection.close()


def main() -> None:
    """Measure what the command line asks for."""
    given = arguments(__doc__, PARTS)
    report = Report("service", given.quick)
    described = machine("cpu")
    users, items, turns, steps, seconds, long, times = 100_000, 100_000, 2, 6, 2.5, 20.0, 10
    names = [*PEERS, "bound"]
    if given.quick:
        users, items, turns, steps, seconds, long, times, names = 5_000, 5_000, 1, 3, 0.6, 2.0, 2, ["tuned"]
        report.note("quick: 5,000 users and items, the tuned peer alone, one turn, short")
    report.runs = turns
    report.figure("cores", len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = make_run(folder / "run", users, items)
        load = Load(0, str(questions(folder, users, items)), seconds=seconds)
        rate = 50.0
        if given.wants("rate"):
            report.heading(f"{CANDIDATES:,} candidates a request, {users:,} users, {items:,} items of 384 features")
            commands: dict[str, Callable[[int], list[str]]] = {"ours": lambda port: ours(run, port)}
            commands |= {name: partial(peer, name, run) for name in names}
            found = rates(report, commands, load, turns, steps)
            best = max(found[name] for name in PEERS if name in found)
            rate = held(report, run, replace(load, seconds=long), max(1.0, found["ours"]), best, turns)
        if given.wants("workers") and not given.quick:
            report.heading("two workers")
            rates(report, {"ours, two workers": lambda port: ours(run, port, 2)}, load, turns, steps)
        if given.wants("switches"):
            report.heading(f"{times} switches to another store under half that load")
            switches(report, run, load, users, max(20.0, rate / 2), times)
    report.finish(described, given.json)


if __name__ == "__main__":
    main()
