"""The strongest entries of sparse rows against sorting everything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from conrec.baselines.simple.rows import csr_tensors, read_csr, stacked, strongest
from conrec.errors import ArtefactError


@pytest.mark.parametrize("n", [1, 3, 8, 30])
def test_the_strongest_of_each_row_stay_and_ties_go_to_the_lower_column(n: int) -> None:
    random = np.random.default_rng(n)
    dense = random.integers(-1, 4, (40, 12)) / 2
    dense[3] = 0
    columns = random.permutation(12)  # a product of sparse matrices does not sort its columns either
    matrix = csr_array(dense[:, columns])
    shuffled = csr_array((matrix.data, columns[matrix.indices], matrix.indptr), shape=dense.shape)
    found = strongest(shuffled, n)
    for row in range(len(dense)):
        positive = [column for column in range(12) if dense[row, column] > 0]
        kept = sorted(positive, key=lambda column: (-dense[row, column], column))[:n]
        expected = np.where(np.isin(np.arange(12), kept), dense[row], 0)
        np.testing.assert_array_equal(found[[row]].toarray()[0], expected)
    assert found.nnz == (found.toarray() > 0).sum()


def test_blocks_stand_one_below_another() -> None:
    first, second = csr_array(np.eye(3)), csr_array(2 * np.ones((2, 3)))
    np.testing.assert_array_equal(stacked([first, second], 3).toarray(), np.r_[np.eye(3), 2 * np.ones((2, 3))])
    assert stacked([], 3).shape == (0, 3)


def test_a_matrix_comes_back_from_its_tensors() -> None:
    matrix = csr_array(np.random.default_rng(0).integers(0, 2, (6, 9)).astype(np.float32))
    tensors = csr_tensors("near", matrix)
    np.testing.assert_array_equal(read_csr(tensors, "near", (6, 9), Path("m")).toarray(), matrix.toarray())


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("values", None),
        ("values", np.array([np.nan, 1], dtype=np.float32)),
        ("values", np.ones(3, dtype=np.float32)),
        ("columns", np.array([0, 3], dtype=np.int32)),
        ("columns", np.array([-1, 0], dtype=np.int32)),
        ("offsets", np.array([0, 2], dtype=np.int64)),
        ("offsets", np.array([0, 2, 1, 2], dtype=np.int64)),
        ("offsets", np.array([1, 1, 1, 2], dtype=np.int64)),
        ("offsets", np.array([0, 1, 1, 2], dtype=np.int32)),
    ],
)
def test_tensors_that_are_no_such_matrix_are_refused(part: str, value: np.ndarray | None) -> None:
    tensors = csr_tensors("near", csr_array(np.array([[1.0, 0, 0], [0, 0, 0], [0, 0, 1]])))
    assert read_csr(tensors, "near", (3, 3), Path("m")).nnz == 2
    tensors[f"near.{part}"] = value
    with pytest.raises(ArtefactError, match="does not hold the table 'near'; expected a sparse matrix of 3 rows"):
        read_csr({name: one for name, one in tensors.items() if one is not None}, "near", (3, 3), Path("m"))
