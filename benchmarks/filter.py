"""The filter online and in bulk: a thousand candidates of a user against his predict set of 20, on one core.

A request is: the user's set looked up in a store of ten million users, its semantic IDs turned into items, and for each
of 1,000 candidates (catalogue indices) out of a million items of 384 features whether it is nearer than the threshold,
which drops a twentieth, as filters do that are calibrated for a bound of 5 % (3.7 to 6.7 % of the candidates of
MovieTweetings and board games). Users and candidates are drawn anew for each request, so nothing is warm but what the
tables' size allows. Peers do the same with the same store: FAISS (the fastest of three ways) and plain NumPy (the
faster of float32 and float16 rows).

Claims: `median_microseconds` and `p99_microseconds` of a request, `bytes_per_user` of the store's file,
`speedup_over_faiss` and `speedup_over_numpy`. Variants: items of 64 features, item IDs as text, similarities of all
candidates, other shares dropped. Figures: bulk rate in pairs per second and the share of the memory bandwidth used.
"""

from __future__ import annotations

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import torch

from common import filter_world
from common.harness import Report, Spread, arguments
from common.machine import machine
from conrec.filtering.calibrating.threshold import Threshold
from conrec.filtering.filter import NegativeFilter
from conrec.filtering.vectors.compiled import SCALE
from conrec.filtering.vectors.table import ItemTable

PARTS = ("online", "bulk", "narrow")
CANDIDATES = 1000
DIM, NARROW = 384, 64
OURS = "conrec"


class Requests:
    """Users and candidates, drawn before the clock runs."""

    def __init__(self, count: int, users: int, items: int, seed: int) -> None:
        chance = np.random.default_rng(seed)
        self.users = [filter_world.user_id(one) for one in chance.integers(0, users, count)]
        self.items = chance.integers(0, items, (count, CANDIDATES)).astype(np.int32)


class Peers:
    """The same question answered by FAISS and by NumPy, over float32 or float16 rows."""

    def __init__(self, negative_filter: NegativeFilter, rows: np.ndarray) -> None:
        self.filter, self.threshold = negative_filter, np.float32(negative_filter.threshold)
        self.rows, self.half = rows, rows.astype(np.float16)
        self.flat = faiss.IndexFlatIP(rows.shape[1])
        self.flat.add(rows)

    def members(self, user: str) -> np.ndarray:
        """Items of the predict set; the lookup that everybody uses."""
        known = self.filter.store.get(user)
        assert known is not None
        return self.filter.catalogue.items_of(known.codes)

    def faiss_knn(self, user: str, items: np.ndarray) -> np.ndarray:
        """The nearest of 20 for each of the gathered candidates."""
        distance, _ = faiss.knn(self.rows[items], self.rows[self.members(user)], 1, metric=faiss.METRIC_INNER_PRODUCT)
        return distance[:, 0] > self.threshold

    def faiss_pairwise(self, user: str, items: np.ndarray) -> np.ndarray:
        """All products of the gathered candidates and the 20, and the largest."""
        members = self.rows[self.members(user)]
        products = faiss.pairwise_distances(self.rows[items], members, metric=faiss.METRIC_INNER_PRODUCT)
        return products.max(axis=1) > self.threshold

    def faiss_subset(self, user: str, items: np.ndarray) -> np.ndarray:
        """All distances to a subset of an index, without gathering."""
        queries = self.rows[self.members(user)]
        labels = np.broadcast_to(items.astype(np.int64), (len(queries), len(items))).copy()
        distances = np.empty(labels.shape, dtype=np.float32)
        self.flat.compute_distance_subset(
            len(queries), faiss.swig_ptr(queries), len(items), faiss.swig_ptr(distances), faiss.swig_ptr(labels)
        )
        return distances.max(axis=0) > self.threshold

    def numpy_float32(self, user: str, items: np.ndarray) -> np.ndarray:
        """Gather, multiply, maximum."""
        return (self.rows[self.members(user)] @ self.rows[items].T).max(axis=0) > self.threshold

    def numpy_float16(self, user: str, items: np.ndarray) -> np.ndarray:
        """The same from rows of half the size."""
        members = self.half[self.members(user)].astype(np.float32)
        return (members @ self.half[items].astype(np.float32).T).max(axis=0) > self.threshold


def in_turns(
    ways: dict[str, Callable[[str, np.ndarray], object]], asked: Requests, turns: int
) -> dict[str, list[np.ndarray]]:
    """Microseconds of every request: for each way one array a turn; ways follow one another within a turn."""
    per_turn = len(asked.users) // turns
    found: dict[str, list[np.ndarray]] = {name: [] for name in ways}
    for turn in range(turns):
        for name in list(ways) if turn % 2 == 0 else list(reversed(ways)):
            seconds = np.empty(per_turn)
            for at in range(per_turn):
                user, items = asked.users[turn * per_turn + at], asked.items[turn * per_turn + at]
                begin = time.perf_counter()
                ways[name](user, items)
                seconds[at] = time.perf_counter() - begin
            found[name].append(seconds * 1e6)
    return found


def online(report: Report, negative_filter: NegativeFilter, users: int, items: int, quick: bool) -> None:
    """One request at a time."""
    rows = filter_world.rebuilt_rows(items, DIM, 0)
    peers = Peers(negative_filter, rows)
    turns, per_turn = (3, 100) if quick else (10, 200)
    report.runs = turns
    asked = Requests(turns * per_turn, users, items, 1)
    check(negative_filter, peers, asked)
    names = np.asarray([filter_world.item_id(one) for one in range(items)], dtype=object)

    def with_ids(user: str, chosen: np.ndarray) -> object:
        return negative_filter.mask(user, negative_filter.indices(names[chosen].tolist()))

    ways = {
        OURS: negative_filter.mask,
        "faiss knn": peers.faiss_knn,
        "faiss pairwise_distances": peers.faiss_pairwise,
        "faiss compute_distance_subset": peers.faiss_subset,
        "numpy float32": peers.numpy_float32,
        "numpy float16": peers.numpy_float16,
    }
    report.heading(f"{users:,} users, {items:,} items of {DIM} features, {CANDIDATES} candidates, one core")
    for way in ways.values():
        for at in range(20):
            way(asked.users[at], asked.items[at])
    found = in_turns(ways, asked, turns)
    ours = np.concatenate(found[OURS])
    report.claim("median_microseconds", float(np.median(ours)), runs=len(ours), at_most=100)
    report.claim("p99_microseconds", float(np.quantile(ours, 0.99)), runs=len(ours), at_most=250)
    for name, spent in found.items():
        report.figure(f"microseconds/{name}", Spread.of([float(np.median(one)) for one in spent]))
    for peer in ("faiss", "numpy"):
        ratios = [
            min(float(np.median(spent[turn])) for name, spent in found.items() if name.startswith(peer))
            / float(np.median(found[OURS][turn]))
            for turn in range(turns)
        ]
        report.claim(f"speedup_over_{peer}", statistics.median(ratios), runs=turns, at_least=1)

    def as_ids(user: str, chosen: np.ndarray) -> list[str]:
        return names[chosen].tolist()

    extra = {
        "item IDs as text": with_ids,
        "making that list of IDs": as_ids,  # taken off: a request comes with its list
        "store lookup alone": lambda user, _: peers.members(user),
        "similarities of all": lambda user, chosen: negative_filter.decide_rows(
            [user], np.zeros(len(chosen), dtype=np.int64), chosen
        ),
    }
    spent = {name: [float(np.median(one)) for one in turn] for name, turn in in_turns(extra, asked, turns).items()}
    texts, making = spent.pop("item IDs as text"), spent.pop("making that list of IDs")
    spent["item IDs as text"] = [one - other for one, other in zip(texts, making, strict=True)]
    for name, values in spent.items():
        report.figure(f"microseconds/{OURS}, {name}", Spread.of(values))
    chance = np.random.default_rng(7)
    best = np.concatenate(
        [
            negative_filter.catalogue.table.similarities(chance.integers(0, items, 500), peers.members(user)).max(
                axis=1
            )
            for user in asked.users[:40]
        ]
    )
    for share in (0.01, 0.1, 0.3, 0.6):
        limit = float(np.float32(np.quantile(best, 1 - share)))
        other = NegativeFilter(negative_filter.catalogue, negative_filter.store, limit)
        times = in_turns({"": other.mask}, asked, turns)[""]
        report.figure(f"microseconds/{OURS}, {share:.0%} dropped", Spread.of([float(np.median(one)) for one in times]))


def check(negative_filter: NegativeFilter, peers: Peers, asked: Requests) -> None:
    """All ways say the same but for similarities within rounding of the threshold."""
    for at in range(20):
        user, items = asked.users[at], asked.items[at]
        ours = negative_filter.mask(user, items)
        exact = (peers.rows[peers.members(user)].astype(np.float64) @ peers.rows[items].astype(np.float64).T).max(
            axis=0
        )
        unsure = np.abs(exact - peers.threshold) < 1e-3
        for name in ("faiss_knn", "faiss_pairwise", "faiss_subset", "numpy_float32", "numpy_float16"):
            other = getattr(peers, name)(user, items)
            assert (other == ours)[~unsure].all(), name
        assert unsure.mean() < 0.05
        assert (negative_filter.decide_rows([user], np.zeros(len(items), dtype=np.int64), items).dropped == ours).all()


def bulk(report: Report, negative_filter: NegativeFilter, users: int, items: int, quick: bool) -> None:
    """Many users one after the other: pairs per second, and how near that is to what memory gives."""
    report.heading("in bulk, one core")
    turns = 3 if quick else 7
    asked = Requests(200 if quick else 2000, users, items, 2)
    pairs = len(asked.users) * CANDIDATES
    sets = np.repeat(np.arange(len(asked.users)), CANDIDATES)
    names = list(dict.fromkeys(asked.users))
    row = {name: at for at, name in enumerate(names)}
    sets = np.repeat(np.asarray([row[one] for one in asked.users]), CANDIDATES)
    flat = asked.items.ravel()
    few = min(len(flat), 200 * CANDIDATES)
    compiled, exact = [], []
    for _ in range(turns):
        begin = time.perf_counter()
        for user, chosen in zip(asked.users, asked.items, strict=True):
            negative_filter.mask(user, chosen)
        compiled.append(pairs / (time.perf_counter() - begin))
        begin = time.perf_counter()
        negative_filter.decide_rows(names, sets[:few], flat[:few])
        exact.append(few / (time.perf_counter() - begin))
    rate = Spread.of(compiled)
    report.figure("bulk_pairs_per_second/dropped or not", rate)
    report.figure("bulk_pairs_per_second/with similarities", Spread.of(exact))
    bandwidth = memory_bandwidth(quick)
    read = bytes_of_a_pair(negative_filter, asked)
    report.figure("bytes_read_for_a_pair", read)
    report.figure("memory_bandwidth_bytes_per_second", bandwidth)
    report.figure("share_of_memory_bandwidth", rate.median * read / bandwidth.median)


def narrow(report: Report, users: int, items: int, quick: bool) -> None:
    """The same request where items have 64 features, as latent spaces of quantisers and small encoders have."""
    report.heading(f"items of {NARROW} features")
    turns, per_turn = (3, 100) if quick else (10, 200)
    with tempfile.TemporaryDirectory(prefix="conrec-filter-") as name:
        negative_filter = NegativeFilter.load(filter_world.make_run(Path(name), users, items, NARROW))
        peers = Peers(negative_filter, filter_world.rebuilt_rows(items, NARROW, 0))
        asked = Requests(turns * per_turn, users, items, 1)
        check(negative_filter, peers, asked)
        ways = {OURS: negative_filter.mask, "faiss": peers.faiss_pairwise, "numpy": peers.numpy_float32}
        found = in_turns(ways, asked, turns)
        ours = np.concatenate(found[OURS])
        variant = f"{NARROW} features"
        report.claim(f"median_microseconds/{variant}", float(np.median(ours)), runs=len(ours), at_most=100)
        report.claim(f"p99_microseconds/{variant}", float(np.quantile(ours, 0.99)), runs=len(ours), at_most=250)
        for peer in ("faiss", "numpy"):
            ratios = [
                float(np.median(other) / np.median(own)) for other, own in zip(found[peer], found[OURS], strict=True)
            ]
            report.claim(f"speedup_over_{peer}/{variant}", statistics.median(ratios), runs=turns, at_least=1)


def bytes_of_a_pair(negative_filter: NegativeFilter, asked: Requests) -> float:
    """Bytes of the item table that the screen has to read for a candidate, on average."""
    table, total, count = negative_filter.catalogue.table, 0.0, 0
    for user, chosen in list(zip(asked.users, asked.items, strict=True))[:20]:
        known = negative_filter.store.get(user)
        assert known is not None
        assert negative_filter.threshold is not None
        members = negative_filter.catalogue.items_of(known.codes)
        room, limit = table.slack, negative_filter.threshold
        looks = [
            (one[chosen].astype(np.float64) / SCALE, one[members].astype(np.float64) / SCALE)
            for one in (table.first, table.second, table.third)
        ]
        left = looks[0][0] @ looks[0][1].T + room > limit
        total += table.first.itemsize * table.first.shape[1] * len(chosen)
        head, sure = np.zeros(left.shape), np.zeros(len(chosen), dtype=np.bool_)
        for (own, other), read in zip(looks[1:], (table.second, table.third), strict=True):
            total += read.itemsize * read.shape[1] * (left.any(axis=1) & ~sure).sum()
            head += own[:, :-1] @ other[:, :-1].T
            rest = np.outer(own[:, -1], other[:, -1])
            sure |= (left & (head - rest - room > limit)).any(axis=1)
            left &= head + rest + room > limit
        total += table.rows.itemsize * table.rows.shape[1] * (left.any(axis=1) & ~sure).sum()
        count += len(chosen)
    return total / count


def memory_bandwidth(quick: bool) -> Spread:
    """Bytes a second that one core reads from memory one after the other: the sum of a large array."""
    rows = np.ones((1 << 26) if quick else (1 << 28), dtype=np.float32)
    rates = []
    for _ in range(5):
        begin = time.perf_counter()
        rows.sum()
        rates.append(rows.nbytes / (time.perf_counter() - begin))
    return Spread.of(rates)


def main() -> None:
    """Measure, print, write."""
    chosen = arguments(__doc__, PARTS)
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    report = Report("filter", chosen.quick)
    described = {**machine("cpu"), "cores_used": 1}
    users, items = (100_000, 50_000) if chosen.quick else (10_000_000, 1_000_000)
    with tempfile.TemporaryDirectory(prefix="conrec-filter-") as name:
        run = Path(name)
        begin = time.perf_counter()
        filter_world.make_run(run, users, items, DIM)
        report.figure("seconds_to_make_everything", time.perf_counter() - begin)
        gc.collect()
        size = next((run / "filter" / filter_world.MODEL).glob("*.mdb")).stat().st_size
        report.claim("bytes_per_user", size / users, runs=1, at_most=150)
        begin = time.perf_counter()
        negative_filter = NegativeFilter.load(run)
        report.figure("seconds_to_open", time.perf_counter() - begin)
        begin = time.perf_counter()
        negative_filter.catalogue.table.warm()
        report.figure("seconds_to_compile_or_load", time.perf_counter() - begin)
        table: ItemTable = negative_filter.catalogue.table
        held = sum(one.nbytes for one in (table.rows, table.lengths, table.first, table.second, table.third))
        report.figure("bytes_per_item", held / items)
        assert isinstance(negative_filter.calibration, Threshold)
        if chosen.wants("online"):
            online(report, negative_filter, users, items, chosen.quick)
        if chosen.wants("bulk"):
            bulk(report, negative_filter, users, items, chosen.quick)
    if chosen.wants("narrow"):
        narrow(report, users // 10, items, chosen.quick)
    report.finish(described, chosen.json)


if __name__ == "__main__":
    main()
