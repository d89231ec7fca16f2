"""A run of drawn items and predict sets, large enough that blocks, parts and requests cut through it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from conrec.artefacts import write_tensors
from conrec.filtering.calibrating.threshold import write_threshold
from conrec.filtering.catalogue import FilterCatalogue
from conrec.filtering.predict_sets import write_predict_sets
from conrec.items.semantic_ids import SemanticIds, write_semantic_ids
from conrec.recommender import Ranking
from tests.filtering.conftest import threshold_of

ITEMS, USERS, DAY = 300, 40, 86_400


def write_random_run(run: Path, threshold: float = 0.4) -> Path:
    """Items ``1`` to ``300``, users ``u0`` to ``u39`` with up to eight predictions each."""
    draw = np.random.default_rng(7)
    codes = np.stack([np.arange(ITEMS) // 64, np.arange(ITEMS) // 8 % 8, np.arange(ITEMS) % 8], axis=1).astype(np.int32)
    item_ids = tuple(str(number + 1) for number in range(ITEMS))
    write_semantic_ids(run / "items" / "semantic_ids.parquet", item_ids, SemanticIds(codes, codes.copy(), 8))
    rows = draw.normal(size=(ITEMS, 12))
    rebuilt = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    write_tensors(run / "items" / "rebuilt.safetensors", {"rebuilt": rebuilt})
    catalogue = FilterCatalogue.load(run)
    items = np.stack([draw.choice(ITEMS, 8, replace=False) for _ in range(USERS)]).astype(np.int32)
    items[np.arange(8) >= draw.integers(0, 9, USERS)[:, None]] = -1
    scores = np.where(items >= 0, -np.arange(8, dtype=np.float32), np.float32(-np.inf))
    users = [f"u{number}" for number in range(USERS)]
    write_predict_sets(
        run, "conrec", users, Ranking(items, scores), catalogue, predicted_at=100 * DAY, written_at=100 * DAY
    )
    write_threshold(run, threshold_of("conrec", threshold, catalogue.sid_hash))
    return run


def drawn_pairs(rows: int, seed: int = 0) -> pa.Table:
    """Pairs in no order: known and unknown IDs, null and empty ones, repeats, a request and a column of its own."""
    draw = np.random.default_rng(seed)
    users = [f"u{number}" if number < USERS + 3 else ("", None)[number % 2] for number in draw.integers(0, 45, rows)]
    items = [int(number) if number <= ITEMS + 20 else None for number in draw.integers(1, 330, rows)]
    requests = [f"r{number}" if number else None for number in draw.integers(0, 4, rows)]
    return pa.table(
        {
            "request": requests,
            "user_id": users,
            "item_id": pa.array(items, pa.int32()),
            "position": pa.array(range(rows), pa.int64()),
        }
    )
