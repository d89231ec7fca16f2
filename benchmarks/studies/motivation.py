"""Why multi-day futures and neighbours: how far a target covers what a user dislikes most.

    python -m benchmarks.studies.motivation run simulator [--seed 0]
    python -m benchmarks.studies.motivation run movietweetings --data FOLDER
    python -m benchmarks.studies.motivation run board-games --data FOLDER [--users 8000]
    python -m benchmarks.studies.motivation_plots benchmarks/results/motivation-*.json [--images docs/images]

For each anchor of the validation and test periods three targets are taken as the protocol has them: the next negative
item, the future negatives of the window, and GTS. A target covers a user's top-k negative interest where one of its
items has one of the k categories that he dislikes most. Beside each stand other sets of the same size: random items,
the items most disliked in training, the last that the user himself disliked. Interests are the truth of the simulator,
or what `Proxy` says. Intervals are 95 %, by a bootstrap over users.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from benchmarks.common.machine import machine
from benchmarks.common.rounding import rounded

from conrec.arrays import Array, Ragged
from conrec.artefacts import write_json
from conrec.config import DataConfig, SwingConfig, load_config
from conrec.evaluation.significance import Bootstrap
from conrec.logs.anchors import Anchors, build_anchors
from conrec.logs.log import Log
from conrec.logs.simulation import read_world, simulate, true_interests
from conrec.logs.simulation.names import category_names
from conrec.logs.sources import Loaded, load
from conrec.logs.swing import SwingTable, gts, swing_neighbours
from conrec.protocol import DAY, NEGATIVE, NEUTRAL, POSITIVE, periods_of
from conrec.seeds import generator
from conrec.settings.simulation import SimulationConfig

SIMULATED = SimulationConfig(users=5_000, items=5_000, events=2_000_000)
"""400 exposures and 12 negatives of the mean user in 90 days."""
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "simulator": {},
    "simulator-unsuppressed": {"suppression": 0.0},
    "simulator-dense": {"items": 1_500},
}
"""Platforms, and the settings in which they differ from `SIMULATED`."""
SETS: Mapping[str, tuple[float, float, int]] = {
    "simulator": (0.7, 0.8, 7),
    "simulator-unsuppressed": (0.7, 0.8, 7),
    "simulator-dense": (0.7, 0.8, 7),
    "movietweetings": (0.7, 0.8, 7),
    "board-games": (0.75, 0.85, 31),
}
"""Cuts and horizon in days."""
TARGETS = ("next item", "future", "GTS")
AT_LEAST = 5
"""Negatives outside the window that a proxy needs."""
OWN = "own last"
PAIRS = (
    *((one, f"{one}, {other}") for one in TARGETS for other in ("most disliked", "random", OWN)),
    ("future", "next item"),
    ("GTS", "future"),
    ("GTS", "future and most disliked"),
    ("GTS", "future and random"),
    ("added: neighbours", "added: most disliked"),
    ("added: neighbours", "added: random"),
)
"""What is compared, paired over users."""
CIRCULAR = ("count", "excess")
"""Proxies that read the history."""
DRAWS = 5
"""Of each random set; their mean counts."""
RESAMPLES = 1000
TOP = 4


@dataclass(frozen=True, slots=True)
class World:
    """A log with what its items are about.

    Attributes:
        log: the events.
        category: float32 sparse [items, categories], 1 where an item has a category.
        names: of the categories.
        truth: from users and times to the ranked categories, int [n, k], where it is known.
    """

    log: Log
    category: sp.csr_matrix
    names: list[str]
    truth: Callable[[Array, Array], Array] | None


def read(name: str, folder: Path | None, users: int | None, seed: int) -> World:
    """The log of that name; simulated ones are made.

    Raises:
        SystemExit: a real one without ``folder``.
    """
    if name in VARIANTS:
        return _simulated(SIMULATED.model_copy(update={"seed": seed, **VARIANTS[name]}))
    if folder is None:
        raise SystemExit(f"{name} is read from a folder: give --data")
    return _world(load(DataConfig(source=name, folder=folder, sample_users=users, sample_seed=seed)))


def _simulated(config: SimulationConfig) -> World:
    with tempfile.TemporaryDirectory() as made:
        print("\n".join(simulate(config, Path(made)).lines()), flush=True)
        world = _world(load(load_config(file=Path(made) / "config.toml").data))
        truth = read_world(Path(made))
    index = np.asarray([int(one[1:]) for one in world.log.user_ids])
    place = {name: number for number, name in enumerate(world.names)}
    of = np.asarray([place.get(one, -1) for one in category_names(config.categories)])

    def interests(users: Array, times: Array) -> Array:
        return of[true_interests(truth, index[users], times, config.disliked).ranked]

    return World(world.log, world.category, world.names, interests)


def _world(loaded: Loaded) -> World:
    items = loaded.items.sort_by("item_id")
    category = items["category"].to_pylist()
    names = sorted({one for row in category for one in row})
    place = {name: number for number, name in enumerate(names)}
    rows = np.repeat(np.arange(len(category)), [len(row) for row in category])
    columns = [place[one] for row in category for one in row]
    ones = np.ones(len(rows), dtype=np.float32)
    matrix = sp.csr_matrix((ones, (rows, columns)), shape=(len(category), len(names)))
    return World(Log.from_tables(loaded.events, items), matrix, names, None)


class Proxy:
    """Interests of users whose truth nobody knows: categories of what they disliked outside the window.

    A user's categories are ranked by how many of his negatives have them (``count``), or by how many more than
    expected if he disliked as everybody does (``excess``); equal counts by excess. Only the negatives outside of the
    anchor's window count, or only those after it (``later``), so that a target cannot cover an interest that it made
    itself; anchors with fewer than `AT_LEAST` of them are left out.
    """

    def __init__(self, world: World, horizon: int) -> None:
        self.world, self.horizon = world, horizon
        self.negative = np.flatnonzero(world.log.feedback == NEGATIVE)
        everybody = np.asarray(world.category[world.log.item[self.negative]].sum(axis=0)).ravel()
        self.expected = everybody / len(self.negative)

    def rank(self, users: Array, times: Array, rule: str, *, later: bool) -> Array:
        """The `TOP` categories of each anchor, int64 [n, TOP]; -1 where they are not known."""
        log = self.world.log
        found = np.full((len(users), TOP), -1, dtype=np.int64)
        for row, (user, time) in enumerate(zip(users.tolist(), times.tolist(), strict=True)):
            events = log.events_of(user)
            events = events[log.feedback[events] == NEGATIVE]
            at = log.timestamp[events]
            outside = at >= time + self.horizon
            if not later:
                outside |= at < time
            if outside.sum() < AT_LEAST:
                continue
            counts = np.asarray(self.world.category[log.item[events[outside]]].sum(axis=0)).ravel()
            excess = counts - outside.sum() * self.expected
            order = np.lexsort((-excess, -counts)) if rule == "count" else np.argsort(-excess, kind="stable")
            order = order[counts[order] > 0][:TOP]
            found[row, : len(order)] = order
        return found


def targets(world: World, anchors: Anchors, swing: SwingTable, train: Log, seed: int) -> dict[str, list[Ragged]]:
    """The three targets and the sets that they are compared with; random ones `DRAWS` times.

    "added" are the neighbours alone that GTS adds to the future negatives, and as many others; none where it adds none.
    """
    future, whole = anchors.future_negatives, gts(anchors, swing)
    ours = {"next item": Ragged.from_rows(anchors.next_item[:, None]), "future": future, "GTS": whole}
    _, disliked = train.negative_counts()
    order = np.argsort(-disliked, kind="stable")
    pool = np.unique(train.item)
    met = [np.unique(world.log.item[world.log.history(*one)]) for one in _places(anchors)]
    found: dict[str, list[Ragged]] = {name: [rows] for name, rows in ours.items()}
    for name, rows in ours.items():
        sizes = rows.lengths.tolist()
        found[f"{name}, most disliked"] = [
            Ragged.from_rows(_first(order, own, n) for own, n in zip(met, sizes, strict=True))
        ]
        found[f"{name}, random"] = [
            Ragged.from_rows(
                _drawn(pool, own, n, seed, anchors, row, draw)
                for row, (own, n) in enumerate(zip(met, sizes, strict=True))
            )
            for draw in range(DRAWS)
        ]
        found[f"{name}, {OWN}"] = [_last_disliked(world.log, anchors, sizes)]
    extra = (whole.lengths - future.lengths).tolist()
    barred = [np.union1d(own, future[row]) for row, own in enumerate(met)]
    more = [_first(order, own, n) for own, n in zip(barred, extra, strict=True)]
    whole_less = [whole[row][len(future[row]) :] for row in range(len(whole))]
    drawn = [
        [_drawn(pool, own, n, seed, anchors, row, draw) for row, (own, n) in enumerate(zip(barred, extra, strict=True))]
        for draw in range(DRAWS)
    ]
    added = {"neighbours": [whole_less], "most disliked": [more], "random": drawn}
    for name, draws in added.items():
        found[f"added: {name}"] = [Ragged.from_rows(rows) for rows in draws]
        if name != "neighbours":
            found[f"future and {name}"] = [
                Ragged.from_rows(np.concatenate([own, one]) for own, one in zip(future, rows, strict=True))
                for rows in draws
            ]
    return found


def _places(anchors: Anchors) -> list[tuple[int, int]]:
    return list(zip(anchors.user.tolist(), anchors.timestamp.tolist(), strict=True))


def _first(order: Array, barred: Array, n: int) -> Array:
    """The first ``n`` of ``order`` that are not barred."""
    head = order[: n + len(barred)]
    return head[~np.isin(head, barred)][:n]


def _drawn(pool: Array, barred: Array, n: int, seed: int, anchors: Anchors, row: int, draw: int) -> Array:
    """``n`` items of ``pool`` that are not barred, seeded by the anchor."""
    random = generator(seed, "motivation", int(anchors.user[row]), int(anchors.timestamp[row]), draw)
    free = pool[~np.isin(pool, barred)]
    return random.choice(free, min(n, len(free)), replace=False)


def _last_disliked(log: Log, anchors: Anchors, sizes: Sequence[int]) -> Ragged:
    """The last distinct negatives before each anchor; fewer where there are no more."""
    rows = []
    for (user, time), n in zip(_places(anchors), sizes, strict=True):
        events = log.history(user, time)
        items = log.item[events[log.feedback[events] == NEGATIVE]][::-1]
        _, first = np.unique(items, return_index=True)
        rows.append(items[np.sort(first)][:n])
    return Ragged.from_rows(rows)


MEASURES = ("top 1", "top 4", "of the four", "pure")
"""Any of the items has the first category; any one of the first four; share of the four that are had; share of the
items that have one of the four."""


def coverage(rows: Ragged, interests: Array, category: sp.csr_matrix) -> Array:
    """The `MEASURES` of each anchor, float64 [n, 4]; NaN where its interests are not known.

    Args:
        rows: the items of each anchor's set.
        interests: int [n, TOP], ranked categories; -1 where there are fewer.
        category: [items, categories].
    """
    n = len(rows)
    row = np.repeat(np.arange(n), rows.lengths)
    ranked = interests[:, :TOP]
    wanted = np.zeros((n, category.shape[1] + 1), dtype=bool)
    np.put_along_axis(wanted, ranked, True, axis=1)  # -1 is the last column, which no item has
    pairs = category[rows.values].tocoo()
    held = np.zeros_like(wanted)
    held[row[pairs.row], pairs.col] = True
    had = np.take_along_axis(held, ranked, axis=1) & (ranked >= 0)
    item_hits = np.zeros(len(rows.values), dtype=bool)
    item_hits[pairs.row[wanted[row[pairs.row], pairs.col]]] = True
    hits = np.bincount(row, weights=item_hits, minlength=n)
    pure = np.divide(hits, rows.lengths, out=np.full(n, np.nan), where=rows.lengths > 0)
    of_four = had.sum(axis=1) / np.maximum((ranked >= 0).sum(axis=1), 1)
    found = np.stack([had[:, 0], had.any(axis=1), of_four, pure], axis=1).astype(np.float64)
    found[ranked[:, 0] < 0] = np.nan
    return found


def figures_of(values: Array, bootstrap: Bootstrap, names: Sequence[str]) -> dict[str, Any]:
    """Mean and interval of each column."""
    found = bootstrap.figures(values)
    return {name: None if one is None else asdict(one) for name, one in zip(names, found, strict=True)}


def reverse_of_likes(world: World, anchors: Anchors, horizon: int) -> Array:
    """Whether a window's negatives are what is least like the user's likes, float64 [n, 3].

    The probability that a negative of the window stands above a neutral event of it when ranked by: how little of
    the user's likes has the item's categories; how much of his earlier dislikes has; how much of everybody's dislikes
    has. 0.5: no better than chance. NaN where the window or the history lacks one of the two kinds.
    """
    log, category = world.log, world.category
    size = np.maximum(np.asarray(category.sum(axis=1)).ravel(), 1)
    proxy = Proxy(world, horizon).expected
    found = np.full((len(anchors), 3), np.nan)
    for row, (user, time) in enumerate(_places(anchors)):
        past, window = log.history(user, time), log.events_of(user, time, time + horizon)
        neutral = np.unique(log.item[window[log.feedback[window] == NEUTRAL]])
        negative = anchors.future_negatives[row]
        liked, disliked = (log.item[past[log.feedback[past] == sign]] for sign in (POSITIVE, NEGATIVE))
        if not (len(neutral) and len(liked) and len(disliked)):
            continue
        both = np.concatenate([negative, neutral])
        for column, (sign, profile) in enumerate(
            ((-1, _profile(category, liked)), (1, _profile(category, disliked)), (1, proxy))
        ):
            score = sign * (category[both] @ profile) / size[both]
            above, below = score[: len(negative), None], score[None, len(negative) :]
            found[row, column] = (above > below).mean() + 0.5 * (above == below).mean()
    return found


def _profile(category: sp.csr_matrix, items: Array) -> Array:
    return np.asarray(category[items].mean(axis=0)).ravel()


def around(world: World, sign: int, horizon: int, most: int, seed: int) -> tuple[Array, Array]:
    """How often a category is met before and after a reaction to it.

    For reactions with something met in the ``horizon`` on either side: the share of the user's events in the horizon
    before, and in the horizon after, that have a category of the item. Events of the same second, and the item
    itself, do not count.

    Returns:
        user of each, int64 [n], and float64 [n, 2].
    """
    log = world.log
    chosen = np.flatnonzero(log.feedback == sign)
    if len(chosen) > most:
        chosen = np.sort(generator(seed, "motivation", "around", sign).permutation(chosen)[:most])
    users, shares = [], []
    binary = world.category.astype(bool)
    for event in chosen.tolist():
        user, time, item = int(log.user[event]), int(log.timestamp[event]), int(log.item[event])
        own = np.zeros(binary.shape[1], dtype=np.float32)
        own[binary[item].indices] = 1
        pair = []
        for begin, end in ((time - horizon, time), (time + 1, time + 1 + horizon)):
            near = log.item[log.events_of(user, begin, end)]
            near = near[near != item]
            pair.append((world.category[near] @ own > 0).mean() if len(near) else np.nan)
        if not np.isnan(pair).any():
            users.append(user)
            shares.append(pair)
    return np.asarray(users, dtype=np.int64), np.asarray(shares, dtype=np.float64).reshape(-1, 2)


def sparsity(log: Log) -> dict[str, Any]:
    """How few negatives there are beside positives."""
    negative, positive = (
        np.bincount(log.user[log.feedback == sign], minlength=log.n_users) for sign in (NEGATIVE, POSITIVE)
    )
    both = (negative > 0) & (positive > 0)
    return {
        "events": len(log),
        "users": log.n_users,
        "items": log.n_items,
        "negatives": int(negative.sum()),
        "positives": int(positive.sum()),
        "positives_per_negative": float(positive.sum() / negative.sum()),
        "users_without_negatives": float((negative == 0).mean()),
        "users_with_fewer_than_3": float((negative < 3).mean()),
        "median_ratio_of_users_with_both": float(np.median(positive[both] / negative[both])),
    }


def study(name: str, world: World, seed: int, resamples: int = RESAMPLES) -> dict[str, Any]:
    """All figures of one log."""
    validation, test, days = SETS[name]
    log, horizon = world.log, days * DAY
    periods = periods_of(log.timestamp, validation, test)
    anchors = build_anchors(log, periods, horizon)
    anchors = anchors.select(anchors.split > 0)  # windows that tile the validation and the test period
    train = log.before(periods.validation)
    sets = targets(world, anchors, swing_neighbours(train, SwingConfig(), seed), train, seed)
    proxy = Proxy(world, horizon)
    users, times = anchors.user, anchors.timestamp
    interests = {
        "count": proxy.rank(users, times, "count", later=False),
        "excess": proxy.rank(users, times, "excess", later=False),
        "excess, later alone": proxy.rank(users, times, "excess", later=True),
    }
    agreement = None
    if world.truth is not None:
        interests = {"truth": world.truth(users, times), **interests}
        agreement = {one: _agreement(interests["truth"], interests[one]) for one in interests if one != "truth"}
    bootstrap = Bootstrap.over(users, resamples, seed)
    covered: dict[str, Any] = {}
    for kind, ranked in interests.items():
        # What a user disliked last made the interests of a proxy that counts it: no fair comparison.
        fair = {one: draws for one, draws in sets.items() if kind not in CIRCULAR or not one.endswith(OWN)}
        values = {
            one: np.mean([coverage(rows, ranked, world.category) for rows in draws], axis=0)
            for one, draws in fair.items()
        }
        covered[kind] = {
            one: {
                "mean_size": float(sets[one][0].lengths.mean()),
                "anchors_with_any": int((sets[one][0].lengths > 0).sum()),
                **figures_of(own, bootstrap, MEASURES),
            }
            for one, own in values.items()
        }
        covered[kind]["differences"] = {
            f"{one} less {other}": figures_of(values[one] - values[other], bootstrap, MEASURES)
            for one, other in PAIRS
            if other in values
        }
    met = {}
    for what, sign in (("dislike", NEGATIVE), ("like", POSITIVE)):
        who, shares = around(world, sign, horizon, 20_000, seed)
        with_change = np.column_stack([shares, shares[:, 1] - shares[:, 0]])
        met[what] = figures_of(
            with_change, Bootstrap.over(who, resamples, seed), ("before", "after", "after less before")
        )
    reverse = figures_of(
        reverse_of_likes(world, anchors, horizon), bootstrap, ("least liked", "own dislikes", "everybody's dislikes")
    )
    return {
        "study": f"motivation/{name}",
        "horizon_days": days,
        "log": sparsity(log),
        "categories": len(world.names),
        "categories_per_item": float(world.category.sum() / world.category.shape[0]),
        "anchors": len(anchors),
        "anchors_of": len(np.unique(users)),
        "proxy_is_truth": agreement,
        "coverage": covered,
        "met_again": met,
        "reverse_of_likes": reverse,
        "machine": machine("cpu"),
    }


def _agreement(truth: Array, proxy: Array) -> dict[str, float]:
    """How often the proxy's first category is the true first, and the share of its four among the true four."""
    known = proxy[:, 0] >= 0
    same = truth[known, 0] == proxy[known, 0]
    four = [len(set(one[:TOP]) & set(other[:TOP])) / TOP for one, other in zip(truth[known], proxy[known], strict=True)]
    return {"anchors": int(known.sum()), "first": float(same.mean()), "of_four": float(np.mean(four))}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("set", choices=SETS)
    run.add_argument("--data", type=Path, help="folder of a real log")
    run.add_argument("--users", type=int, help="a seeded sample of so many users")
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--json", type=Path, help="where the result goes; benchmarks/results/motivation-SET.json")
    given = parser.parse_args()
    world = read(given.set, given.data, given.users, given.seed)
    file = given.json or Path(__file__).parents[1] / "results" / f"motivation-{given.set}.json"
    write_json(file, rounded(study(given.set, world, given.seed)))


if __name__ == "__main__":
    main()
