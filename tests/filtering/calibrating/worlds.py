"""A run of items on a half circle, whose similarities are cosines of whole angles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from conrec.arrays import Ragged
from conrec.artefacts import write_parquet
from conrec.config import Config, load_config
from conrec.evaluation.evaluate import RunData
from conrec.evaluation.predictions import write_predictions
from conrec.filtering.catalogue import FilterCatalogue
from conrec.items.semantic_ids import SemanticIds
from conrec.logs.anchors import Anchors
from conrec.logs.log import Log
from conrec.logs.schema import ITEMS
from conrec.protocol import Periods
from conrec.recommender import Ranking

__all__ = ["ANGLE", "config_of", "cosine", "world"]

ANGLE = np.deg2rad(np.arange(0, 180, 10.0))
"""Items 0 to 17, ten degrees apart."""


def cosine(degrees: float) -> float:
    """The similarity of two items so far apart."""
    return float(np.cos(np.deg2rad(degrees)))


def world(
    run: Path,
    validation_positives: list[list[int]],
    predicted: list[int],
    categories: list[list[str]] | None = None,
    liked_before: list[tuple[int, int]] | None = None,
    scores: list[float] | None = None,
) -> tuple[RunData, FilterCatalogue]:
    """One anchor a user: as many validation anchors as lists of positives, then three test anchors.

    Args:
        run: where the predictions and the items are written.
        validation_positives: of each validation anchor.
        predicted: predict set of all anchors.
        categories: of each item.
        liked_before: (user, item) of each like in the training period.
        scores: of the predictions; None: 0.
    """
    n, count = len(ANGLE), len(validation_positives)
    codes = np.stack([np.arange(n) // 9, np.arange(n) % 9, np.zeros(n)], axis=1).astype(np.int32)
    item_ids = tuple(f"item {one}" for one in range(n))
    columns = {"item_id": item_ids, "title": item_ids, "text": item_ids, "category": categories or [[]] * n}
    items = run / "data" / "items.parquet"
    write_parquet(items, pa.table({**columns, "image": [None] * n}, schema=ITEMS))
    rebuilt = np.stack([np.cos(ANGLE), np.sin(ANGLE)], axis=1).astype(np.float32)
    catalogue = FilterCatalogue.build(item_ids, SemanticIds(codes, codes, 9), rebuilt, items_file=items)
    anchors = Anchors(
        np.arange(count + 3),
        np.arange(count + 3, dtype=np.int32),
        np.arange(count + 3, dtype=np.int64),
        np.asarray([1] * count + [2] * 3, dtype=np.int8),
        Ragged.from_rows([[1]] * count + [[0, 17], [1], [16]]),
        Ragged.from_rows([*validation_positives, [1], [9, 10], []]),
        np.asarray([[-1, -1]] * count + [[0, 9], [1, 9], [16, -1]], dtype=np.int32),
        np.zeros(count + 3, dtype=np.bool_),
        np.zeros(count + 3, dtype=np.int32),
    )
    likes = np.asarray(liked_before or np.empty((0, 2)), dtype=np.int32).reshape(-1, 2)
    log = Log.from_columns(
        tuple(f"u{one:03}" for one in range(count + 3)),
        item_ids,
        likes[:, 0],
        likes[:, 1],
        np.zeros(len(likes), dtype=np.int64),
        np.ones(len(likes), dtype=np.int32),
    )
    ranking = Ranking(
        np.tile(np.asarray(predicted, dtype=np.int32), (count + 3, 1)),
        np.tile(np.asarray(scores or [0.0] * len(predicted), dtype=np.float32), (count + 3, 1)),
    )
    write_predictions(run / "predictions" / "conrec.parquet", anchors, ranking, item_ids)
    return RunData(log, anchors, Periods(1, 2, 3)), catalogue


def config_of(bound: float = 0.25, predict_set: int = 20, **settings: object) -> Config:
    """A configuration with these settings of the filter; predictions count alike unless it says otherwise."""
    return load_config(
        overrides={
            "filter": {"false_filter_rate": bound, "rank_weight": 1.0, **settings},
            "evaluation": {"bootstraps": 200},
            "prediction": {"predict_set": predict_set},
        }
    )
