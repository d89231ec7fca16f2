"""A run whose items stage is done, to append to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc

from conrec.artefacts import write_json, write_parquet
from conrec.config import Config
from conrec.items.build import build_items


def write_items_stage(run: Path, items: pa.Table, train_items: np.ndarray, config: Config) -> Path:
    """``data/items.parquet`` and all of ``items``; the run."""
    write_parquet(run / "data" / "items.parquet", items)
    build_items(items, train_items, config, run / "items", seed=0)
    write_json(run / "items" / "manifest.json", {})
    return run


def write_item_file(path: Path, items: pa.Table) -> Path:
    """Items as a plain CSV file with our names, texts left out: they follow from title and category."""
    genres = ["|".join(row or ()) for row in items["category"].to_pylist()]
    pc.write_csv(pa.table({"item_id": items["item_id"], "title": items["title"], "category": genres}), path)
    return path
