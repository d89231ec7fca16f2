"""Nearest codewords, k-means start, moving averages and dead-code restart, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.items.quantisers.assignment import nearest, sums_by_code
from conrec.items.quantisers.codebooks import MovingCodebook
from conrec.items.quantisers.kmeans import kmeans


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.integers(0, 1000), st.integers(1, 50), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_nearest_and_sums_are_those_of_numpy(seed: int, n: int, size: int) -> None:
    points, codewords = torch.randn(n, 3, generator=seeded(seed)), torch.randn(size, 3, generator=seeded(seed + 1))
    codes = nearest(points, codewords)
    distance = ((points.numpy()[:, None] - codewords.numpy()[None]) ** 2).sum(2)
    assert np.allclose(distance[np.arange(n), codes.numpy()], distance.min(1), atol=1e-5)
    counts, sums = sums_by_code(points, codes, size)
    for code in range(size):
        chosen = points.numpy()[codes.numpy() == code]
        assert counts[code] == len(chosen)
        assert np.allclose(sums[code].numpy(), chosen.sum(0), atol=1e-5)


def test_ties_go_to_the_lower_code() -> None:
    assert nearest(torch.zeros(2, 1), torch.tensor([[1.0], [-1.0]])).tolist() == [0, 0]
    assert nearest(torch.zeros(0, 1), torch.ones(2, 1)).shape == (0,)


def test_kmeans_finds_separate_clusters() -> None:
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    points = centres.repeat_interleave(25, 0) + torch.randn(100, 2, generator=seeded(0)) * 0.1
    found, counts = kmeans(points, 4, seeded(1))
    assert sorted(counts.tolist()) == [25.0] * 4
    assert torch.cdist(centres, found).min(1).values.max() < 0.1


def test_kmeans_with_a_row_a_centre_returns_the_rows() -> None:
    points = torch.randn(6, 2, generator=seeded(0))
    found, counts = kmeans(points, 6, seeded(1))
    assert counts.tolist() == [1.0] * 6
    assert torch.cdist(points, found).min(1).values.max() < 1e-5


def test_kmeans_of_identical_rows_is_finite() -> None:
    found, counts = kmeans(torch.ones(5, 2), 4, seeded(0))
    assert torch.equal(found, torch.ones(4, 2))
    assert counts.sum() == 5


def test_kmeans_needs_a_row_a_centre() -> None:
    with pytest.raises(ValueError, match="3 rows, 4 centres"):
        kmeans(torch.ones(3, 2), 4, seeded(0))


def test_moving_averages_against_numpy() -> None:
    decay, size = 0.9, 5
    codewords = torch.randn(size, 3, generator=seeded(0))
    count = np.asarray([3.0, 1.0, 0.5, 2.0, 4.0])
    total = codewords.numpy().astype(np.float64) * count[:, None]
    book = MovingCodebook.start(codewords.clone(), torch.from_numpy(count).float())
    for step in range(4):
        residuals = torch.randn(12, 3, generator=seeded(step + 1))
        codes = torch.randint(0, size - 1, (12,), generator=seeded(step + 50))
        book.update(residuals, codes, decay)
        for code in range(size):
            chosen = residuals.numpy()[codes.numpy() == code].astype(np.float64)
            count[code] = decay * count[code] + (1 - decay) * len(chosen)
            total[code] = decay * total[code] + (1 - decay) * chosen.sum(0)
        smooth = (count + 1e-5) / (count.sum() + size * 1e-5) * count.sum()
        assert np.allclose(book.codewords.numpy(), total / smooth[:, None], atol=1e-5)
    # Code 4 was never chosen: its averages shrink together and its codeword stays.
    assert torch.allclose(book.codewords[4], codewords[4], atol=1e-4)


def test_a_code_that_nobody_chooses_stays_and_small_batches_forget_by_rows() -> None:
    start = torch.randn(64, 3, generator=seeded(0)) + 5
    book = MovingCodebook.start(start.clone(), torch.full((64,), 0.25))
    for step in range(2000):
        book.update(
            torch.randn(16, 3, generator=seeded(step)), torch.randint(0, 63, (16,), generator=seeded(step)), 0.9
        )
    assert torch.allclose(book.codewords[63], start[63], atol=0.05)
    assert torch.isfinite(book.codewords).all()
    # A quarter of a row a code and batch: the average reaches over about ten rows, not over two.
    assert book.codewords[:63].norm(dim=1).mean() < 0.8


def test_a_code_is_dead_after_its_idle_epochs_and_restarts_on_a_residual() -> None:
    book = MovingCodebook.start(torch.tensor([[0.0], [100.0], [200.0]]), torch.ones(3))
    for epoch in range(1, 4):
        book.update(torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64), 0.9)
        if epoch == 2:
            book.update(torch.full((1, 1), 200.0), torch.tensor([2]), 0.9)
        used, dead = book.end_epoch(3)
        assert used.tolist() == [4.0, 0.0, 1.0 if epoch == 2 else 0.0]
        assert dead.tolist() == ([1] if epoch == 3 else [])
    book.restart(dead, torch.tensor([[7.0]]))
    assert book.codewords[1].tolist() == [7.0]
    assert (book.count[1], book.total[1].tolist(), book.idle[1]) == (1.0, [7.0], 0)
    # The reset averages hold: one more batch without this code leaves it where it was put.
    book.update(torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64), 0.9)
    assert torch.allclose(book.codewords[1], torch.tensor([7.0]), atol=1e-3)
    _, dead = book.end_epoch(3)
    assert dead.tolist() == []
