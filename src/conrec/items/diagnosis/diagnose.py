"""The diagnostics of a finished items stage, computed anew from its files; its stability, and the file of that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32

from conrec.arrays import Array
from conrec.artefacts import hash_file, read_tensors, write_json
from conrec.config import Config
from conrec.errors import ArtefactError
from conrec.items.diagnosis.diagnostics import describe_items
from conrec.items.diagnosis.purity import TITLES
from conrec.items.semantic_ids import rebuilt_from
from conrec.items.space import QUANTISER, SEMANTIC_IDS_FILE, ItemSpace, read_items

__all__ = ["STABILITY", "diagnose", "quantiser_hash", "read_embeddings", "stability"]

STABILITY = "stability.json"
"""Below ``RUN/items``."""


def diagnose(
    folder: Path, items: pa.Table, train_items: Bool[Array, " items"], seed: int, shown_titles: int = TITLES
) -> dict[str, Any]:
    """What `conrec.items.diagnosis.diagnostics.describe_items` says of ``RUN/items`` as it is now.

    Args:
        folder: ``RUN/items``.
        items: the catalogue of the run.
        train_items: the items that the codebooks were trained on.
        seed: of the items stage.
        shown_titles: see `describe_items`.

    Raises:
        ArtefactError: a file is missing, damaged or of another catalogue.
    """
    from conrec.items.quantisers.quantiser import load_quantiser  # noqa: PLC0415  (torch comes with an extra)

    space, embeddings = _read(folder, items)
    model = load_quantiser(folder / QUANTISER)
    from_resolved = rebuilt_from(model, space.semantic_ids, "resolved")
    centred = embeddings - model.mean.cpu().numpy()
    return describe_items(
        space.semantic_ids, centred, space.rebuilt, from_resolved, train_items, items, seed, shown_titles
    )


def stability(
    folder: Path, items: pa.Table, train_items: Bool[Array, " items"], config: Config, seed: int, device: str
) -> dict[str, Any]:
    """What `stability.describe_stability` says of ``RUN/items``; written to its ``stability.json``.

    Args:
        folder: ``RUN/items``.
        items: the catalogue of the run.
        train_items: the items that the codebooks were trained on.
        config: of the run.
        seed: of the items stage.
        device: to encode and to train on.

    Raises:
        ArtefactError: a file is missing, damaged or of another catalogue.
        ConfigError: an encoder cannot be had.
        MissingExtraError: sentence-transformers is not installed.
    """
    from conrec.items.diagnosis.stability import describe_stability  # noqa: PLC0415
    from conrec.items.encoders.embed import CACHE, FUSION, embed_new  # noqa: PLC0415  (torch comes with an extra)
    from conrec.items.encoders.fusion import Fusion  # noqa: PLC0415
    from conrec.items.quantisers.quantiser import load_quantiser  # noqa: PLC0415

    _, embeddings = _read(folder, items)
    model = load_quantiser(folder / QUANTISER)
    fusion = Fusion.load(folder / FUSION)

    def embed(some: pa.Table) -> Array:
        return embed_new(some, fusion, config.encoder, device, folder.parent / CACHE).embeddings

    reads = {"text", "image"}.intersection(fusion.names)
    found = describe_stability(
        model, embeddings, train_items, items, config.rqvae, seed, embed if reads else None, device
    )
    found["quantiser"] = quantiser_hash(folder)
    write_json(folder / STABILITY, found)
    return found


def read_embeddings(folder: Path, items: int) -> Float32[Array, "items d"]:
    """What was quantised: ``RUN/items/embeddings.safetensors``, rows in the order of the catalogue.

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


def quantiser_hash(folder: Path) -> str:
    """Hash of the quantiser of ``RUN/items``: what ``stability.json`` says holds for this one alone; empty for none."""
    path = folder / QUANTISER
    return hash_file(path) if path.is_file() else ""


def _read(folder: Path, items: pa.Table) -> tuple[ItemSpace, Array]:
    """Semantic IDs and embeddings of this very catalogue."""
    space = read_items(folder)
    item_ids = space.item_ids
    if item_ids != tuple(items["item_id"].to_pylist()):
        raise ArtefactError(
            f"{len(item_ids)} items, which are not those of the run's catalogue",
            where=str(folder / SEMANTIC_IDS_FILE),
            expected=f"the {items.num_rows} of data/items.parquet in their order",
            mend="Run the items stage again.",
        )
    return space, read_embeddings(folder, len(space))
