"""A small run folder with everything that the filter reads, whose right answers are obvious."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conrec.artefacts import write_tensors
from conrec.filtering.calibrating.threshold import Threshold, write_threshold
from conrec.filtering.catalogue import FilterCatalogue
from conrec.filtering.predict_sets import write_predict_sets
from conrec.items.semantic_ids import SemanticIds, write_semantic_ids
from conrec.recommender import Ranking

ANGLES = np.deg2rad([0.0, 10.0, 30.0, 60.0, 90.0, 180.0])
"""Items 0 to 5 lie on a circle: the similarity of two is the cosine of the angle between them."""
ITEMS = ("i0", "i1", "i2", "i3", "i4", "7")
USERS = ("ann", "bob", "42", "x" * 600, "empty")


def threshold_of(model: str, value: float | None, sid_hash: str) -> Threshold:
    """A calibration that says ``value`` and nothing else of interest."""
    return Threshold(model, value, 0.05, "as given", 3, 2, 10, 0, 10, 5, sid_hash, ())


def build_circle_run(run: Path, threshold: float | None) -> Path:
    """A run with the model "conrec": ann -> i0, bob -> i4 and 7, "42" -> i2, x… -> i3, empty -> nothing."""
    codes = np.asarray([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [1, 1, 0], [1, 1, 0]], dtype=np.int32)
    resolved = codes.copy()
    resolved[5] = [1, 1, 3]
    write_semantic_ids(run / "items" / "semantic_ids.parquet", ITEMS, SemanticIds(codes, resolved, 4))
    rebuilt = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1).astype(np.float32)
    write_tensors(run / "items" / "rebuilt.safetensors", {"rebuilt": rebuilt})
    catalogue = FilterCatalogue.load(run)
    items = np.asarray([[0, -1], [4, 5], [2, -1], [3, -1], [-1, -1]], dtype=np.int32)
    scores = np.where(items >= 0, np.float32(1), np.float32(-np.inf))
    write_predict_sets(run, "conrec", USERS, Ranking(items, scores), catalogue, written_at=1)
    write_threshold(run, threshold_of("conrec", threshold, catalogue.sid_hash))
    return run


@pytest.fixture
def circle_run(tmp_path: Path) -> Callable[[float | None], Path]:
    """Builds the run of `build_circle_run` with a threshold."""
    return lambda threshold: build_circle_run(tmp_path / "run", threshold)
