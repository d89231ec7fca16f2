"""A run in memory around a made-up log, so that a baseline can be fitted without the stages before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from conrec.arrays import Array, Ragged
from conrec.config import load_config
from conrec.items.semantic_ids import SemanticIds
from conrec.items.space import ItemSpace
from conrec.items.trie import Trie
from conrec.logs.anchors import build_anchors
from conrec.logs.log import Log
from conrec.logs.prepare import Prepared
from conrec.logs.schema import ITEMS
from conrec.logs.swing import SwingTable
from conrec.protocol import DAY, Periods
from conrec.recommender import Queries
from conrec.workspace import Workspace


def space_of(
    log: Log,
    cut: int,
    overrides: Mapping[str, Any] | None = None,
    *,
    categories: Sequence[Sequence[str]] | None = None,
    titles: Sequence[str] | None = None,
    embeddings: Array | None = None,
    folder: Path = Path("no-such-run"),
    seed: int = 0,
) -> Workspace:
    """A workspace whose training period ends at ``cut`` and whose validation period is the 15 days behind it.

    Args:
        log: the whole log.
        cut: T_val, seconds.
        overrides: of the default configuration, nested.
        categories: of each item; two made-up ones where they are left out.
        titles: of each item; its number where they are left out.
        embeddings: float32 [items, d]; noise around the first category where they are left out.
        folder: of the run; nothing need be there.
        seed: of the run.
    """
    n = log.n_items
    config = load_config(overrides={**(overrides or {}), "run": {"seed": seed, "threads": 1}})
    kinds = [[f"kind {item % 2}", f"shape {item % 3}"] for item in range(n)] if categories is None else categories
    names = [f"Item number {item}" for item in range(n)] if titles is None else list(titles)
    items = pa.table(
        {"item_id": list(log.item_ids), "title": names, "text": names, "category": kinds, "image": [None] * n},
        schema=ITEMS,
    )
    periods = Periods(cut, cut + 15 * DAY, int(log.timestamp[-1]) + 1)
    anchors = build_anchors(log, periods, 7 * DAY)
    nobody = SwingTable(Ragged.from_rows([[] for _ in range(n)]), np.empty(0, dtype=np.float32))
    space = Workspace(folder, config)
    space.prepared = Prepared(log, items, anchors, periods, nobody)
    space.embeddings = _around_kinds(kinds) if embeddings is None else embeddings
    codes = np.stack([np.arange(n) % 4, np.arange(n) // 4 % 4, np.arange(n) // 16], axis=1).astype(np.int32)
    ids = SemanticIds(codes, codes, max(4, int(codes.max()) + 1))
    rebuilt = space.embeddings / np.maximum(np.linalg.norm(space.embeddings, axis=1, keepdims=True), 1e-9)
    space.items = ItemSpace(log.item_ids, ids, rebuilt.astype(np.float32))
    space.trie = Trie.of(ids)
    return space


def chains(users: int = 60, items: int = 20, length: int = 12) -> Log:
    """Everybody dislikes items in one cyclic order, from a start of his own: i, i + 1, i + 2, …, one a week."""
    user = np.repeat(np.arange(users), length)
    step = np.tile(np.arange(length), users)
    item = (user * 7 + step) % items
    width = len(str(users))
    names = tuple(f"u{one:0{width}d}" for one in range(users))
    catalogue = tuple(f"i{one}" for one in range(items))
    return Log.from_columns(names, catalogue, user, item, step * 7 * DAY + user, np.full(len(user), -1))


CHAIN_CUT = 56 * DAY
"""T_val for `chains`: eight of twelve dislikes teach."""
CHAINS_END = 84 * DAY
"""Behind the last event of `chains`: nothing is left to select a state on, and the last one is kept."""


def follows_chains(model: Any, log: Log) -> float:
    """Share of the users of `chains` for whom a model's first answer is the item that comes next."""
    users = np.arange(log.n_users, dtype=np.int32)
    at = 60 * DAY
    top = model.predict(log, Queries(users, np.full(log.n_users, at)), 1).item[:, 0]
    last = np.array([log.item[log.history(int(user), at)[-1]] for user in users])
    return float((top == (last + 1) % log.n_items).mean())


def _around_kinds(kinds: Sequence[Sequence[str]]) -> Array:
    random = np.random.default_rng(0)
    names = sorted({one[0] for one in kinds if one})
    centre = random.normal(size=(len(names) + 1, 8))
    rows = [centre[names.index(one[0])] if one else centre[-1] for one in kinds]
    return (np.stack(rows) + random.normal(size=(len(kinds), 8)) * 0.3).astype(np.float32)
