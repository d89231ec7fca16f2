"""The strongest entries of each row of a sparse matrix, such a matrix in memory, and in a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array, vstack

from conrec.arrays import Array
from conrec.baselines.simple.saved import damaged

__all__ = ["csr_tensors", "in_memory", "read_csr", "stacked", "strongest"]


def strongest(matrix: csr_array, n: int) -> csr_array:
    """The ``n`` greatest entries above 0 of each row; ties by the lower column. The rest is dropped.

    >>> strongest(csr_array([[0.5, 0.0, 2.0, 0.5], [-1.0, 0.0, 0.0, 3.0]]), 2).toarray()
    array([[0.5, 0. , 2. , 0. ],
           [0. , 0. , 0. , 3. ]])
    """
    kept = matrix.data > 0
    starts = matrix.indptr[:-1]
    for row in np.flatnonzero(np.diff(matrix.indptr) > n):
        begin, end = starts[row], matrix.indptr[row + 1]
        falling = -matrix.data[begin:end]
        near = np.flatnonzero(falling <= np.partition(falling, n - 1)[n - 1])
        if len(near) > n:
            near = near[np.lexsort((matrix.indices[begin:end][near], falling[near]))[:n]]
        inside = np.zeros(end - begin, dtype=np.bool_)
        inside[near] = True
        kept[begin:end] &= inside
    before = np.zeros(len(kept) + 1, dtype=np.int64)
    np.cumsum(kept, out=before[1:])
    return csr_array((matrix.data[kept], matrix.indices[kept], before[matrix.indptr]), shape=matrix.shape)


def stacked(blocks: Iterable[csr_array], columns: int) -> csr_array:
    """Blocks of rows one below another, as float32."""
    parts = list(blocks)
    if not parts:
        return csr_array(np.empty((0, columns), dtype=np.float32))
    whole = csr_array(vstack(parts, format="csr", dtype=np.float32))
    whole.sort_indices()
    return whole


def in_memory(matrix: csr_array) -> csr_array:
    """A matrix as a model holds it: float64, of the values of float32 that its file keeps, with 32-bit indices.

    Profiles (`conrec.baselines.simple.profiles`) are of these types too. A product of two sparse matrices brings both
    to the same ones first: of any others, the whole table would be copied for every batch of queries.
    """
    small = max(matrix.nnz, *matrix.shape) <= np.iinfo(np.int32).max
    index = np.int32 if small else np.int64
    values = matrix.data.astype(np.float32).astype(np.float64)
    parts = values, matrix.indices.astype(index), matrix.indptr.astype(index)
    return csr_array(parts, shape=matrix.shape)


def csr_tensors(name: str, matrix: csr_array) -> dict[str, Array]:
    """A matrix as tensors for a safetensors file: values float32, columns int32, offsets int64 [rows + 1]."""
    return {
        f"{name}.values": matrix.data.astype(np.float32),
        f"{name}.columns": matrix.indices.astype(np.int32),
        f"{name}.offsets": matrix.indptr.astype(np.int64),
    }


def read_csr(tensors: Mapping[str, Array], name: str, shape: tuple[int, int], folder: Path) -> csr_array:
    """What `csr_tensors` gave.

    Args:
        tensors: of the file.
        name: of the matrix.
        shape: its rows and columns.
        folder: that the file lies in, for the error.

    Raises:
        ArtefactError: a tensor is missing, or the three do not fit each other.
    """
    values, column, offsets = (tensors.get(f"{name}.{part}") for part in ("values", "columns", "offsets"))
    if (
        values is None or column is None or offsets is None
        or any(one.ndim != 1 for one in (values, column, offsets))
        or values.dtype != np.float32 or column.dtype != np.int32 or offsets.dtype != np.int64
        or len(offsets) != shape[0] + 1 or offsets[0] != 0 or (np.diff(offsets) < 0).any()
        or not len(values) == len(column) == offsets[-1]
        or ((column < 0) | (column >= shape[1])).any()
        or not np.isfinite(values).all()
    ):  # fmt: skip
        raise damaged(folder, name, f"a sparse matrix of {shape[0]} rows and {shape[1]} columns")
    return csr_array((values, column, offsets), shape=shape)
