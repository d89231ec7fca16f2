"""The diagnostics of a finished items stage, computed anew from its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32

from conrec.arrays import Array
from conrec.artefacts import read_tensors
from conrec.errors import ArtefactError
from conrec.items.diagnostics import describe_items
from conrec.items.purity import TITLES
from conrec.items.quantisers.rqvae import RqVae
from conrec.items.semantic_ids import LEVELS
from conrec.items.space import read_items

__all__ = ["diagnose", "read_embeddings"]


def diagnose(
    folder: Path, items: pa.Table, train_items: Bool[Array, " items"], seed: int, shown_titles: int = TITLES
) -> dict[str, Any]:
    """What `conrec.items.diagnostics.describe_items` says of ``RUN/items`` as it is now.

    Args:
        folder: ``RUN/items``.
        items: the catalogue of the run.
        train_items: the items that the codebooks were trained on.
        seed: see `describe_items`.
        shown_titles: see `describe_items`.

    Raises:
        ArtefactError: a file is missing, damaged or of another catalogue.
    """
    space = read_items(folder)
    embeddings = read_embeddings(folder, len(space))
    if space.item_ids != tuple(items["item_id"].to_pylist()):
        raise ArtefactError(
            f"{len(space)} items, which are not those of the run's catalogue",
            where=str(folder),
            expected=f"the {items.num_rows} of data/items.parquet in their order",
            mend="Run the items stage again.",
        )
    model = RqVae.load(folder / "rqvae.safetensors")
    from_resolved = model.rebuild(space.semantic_ids.resolved[:, :LEVELS])
    centred = embeddings - model.mean.cpu().numpy()
    return describe_items(
        space.semantic_ids, centred, space.rebuilt, from_resolved, train_items, items, seed, shown_titles
    )


def read_embeddings(folder: Path, items: int) -> Float32[Array, "items d"]:
    """What was quantised: ``RUN/items/embeddings.safetensors``.

    Raises:
        ArtefactError: missing, damaged or of another number of items.
    """
    path = folder / "embeddings.safetensors"
    tensors = read_tensors(path)
    found = tensors.get("embedding")
    if found is None or found.ndim != 2 or found.dtype != np.float32 or len(found) != items:
        raise ArtefactError(
            f"holds { {name: one.shape for name, one in tensors.items()} }",
            where=str(path),
            expected=f"'embedding', float32 [{items}, d]",
        )
    return found
