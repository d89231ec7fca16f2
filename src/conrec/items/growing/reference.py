"""What new items are compared with: how well the run's own items are rebuilt, and how they use their codes.

A large catalogue is never in memory as a whole for it: reference items beyond `drift.MOST` are a seeded sample, and
embeddings are read some at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float32, Int, Int64
from safetensors import SafetensorError, safe_open

from conrec.arrays import Array
from conrec.errors import ArtefactError
from conrec.items.growing.drift import MOST, Reference, fit_of
from conrec.items.semantic_ids import read_semantic_ids
from conrec.items.space import SEMANTIC_IDS_FILE
from conrec.seeds import generator

if TYPE_CHECKING:
    from conrec.items.quantisers.quantiser import Quantiser

__all__ = ["FEWEST_REFERENCE", "reference_of", "reference_rows"]

FEWEST_REFERENCE = 30
"""With fewer items that were not trained on, all training items are the reference."""
PIECE = 16_384
"""Rows of the file of embeddings that are read at a time."""


def reference_rows(train_items: Bool[Array, " items"]) -> tuple[bool, Int64[Array, " rows"]]:
    """Whether training items are the reference, and all rows of the reference, ascending."""
    trained = int((~train_items).sum()) < FEWEST_REFERENCE
    return trained, np.flatnonzero(train_items if trained else ~train_items).astype(np.int64)


def reference_of(folder: Path, quantiser: Quantiser, train_items: Bool[Array, " items"], seed: int) -> Reference:
    """The reference of a run.

    Args:
        folder: ``RUN/items``.
        quantiser: its own.
        train_items: the items that it was trained on.
        seed: of the sample.

    Raises:
        ArtefactError: a file is missing, damaged or of another number of items.
    """
    _, ids = read_semantic_ids(folder / SEMANTIC_IDS_FILE)
    trained, rows = reference_rows(train_items)
    other = int((ids.codes[rows, 1] != ids.resolved[rows, 1]).sum())
    some = rows
    if len(rows) > MOST:
        some = np.sort(generator(seed, "drift reference").choice(rows, MOST, replace=False))
    embeddings = embeddings_of(folder / "embeddings.safetensors", some, len(ids.codes))
    fit = fit_of(embeddings - quantiser.mean.cpu().numpy(), quantiser.rebuild(ids.codes[some]))
    return Reference(fit, trained, len(rows), other, np.bincount(ids.codes[:, 0], minlength=ids.codebook_size))


def embeddings_of(path: Path, rows: Int[Array, " rows"], items: int) -> Float32[Array, "rows d"]:
    """Some rows of ``embeddings.safetensors``, ascending, without reading the file as a whole.

    Raises:
        ArtefactError: missing, damaged or of another number of items.
    """
    try:
        with safe_open(path, framework="numpy") as handle:
            part = handle.get_slice("embedding")
            shape, kind = part.get_shape(), part.get_dtype()
            if len(shape) != 2 or shape[0] != items or kind != "F32":
                raise ArtefactError(
                    f"holds 'embedding', {kind} {shape}", where=str(path), expected=f"'embedding', float32 [{items}, d]"
                )
            found = np.empty((len(rows), shape[1]), dtype=np.float32)
            for begin in range(0, items, PIECE):
                first, last = np.searchsorted(rows, (begin, begin + PIECE))
                if last > first:
                    found[first:last] = part[begin : min(begin + PIECE, items)][rows[first:last] - begin]
    except FileNotFoundError:
        raise ArtefactError("this file is missing", where=str(path)) from None
    except (SafetensorError, OSError) as error:
        raise ArtefactError(f"cannot be read as safetensors ({error})", where=str(path)) from None
    return found
