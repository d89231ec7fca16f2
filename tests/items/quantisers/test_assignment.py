"""Best paths against all combinations of codes, balanced assignment against its definition."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.items.quantisers.assignment import best_path, nearest, sinkhorn


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def error(latents: torch.Tensor, codebooks: torch.Tensor, codes: torch.Tensor) -> np.ndarray:
    total = sum(book[own] for book, own in zip(codebooks, codes.T, strict=True))
    return (latents - total).square().sum(1).numpy()


@given(st.integers(0, 1000), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_a_wide_beam_finds_the_best_of_all_combinations(seed: int, size: int) -> None:
    latents, codebooks = drawn(seed, 7, 3), drawn(seed + 1, 3, size, 3)
    every = torch.tensor(list(product(range(size), repeat=3)))
    best = np.min([error(latents, codebooks, combination.expand(7, 3)) for combination in every], axis=0)
    found = best_path(latents, codebooks, size * size)
    assert np.allclose(error(latents, codebooks, found), best, atol=1e-5)


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_a_beam_of_one_is_the_greedy_walk(seed: int) -> None:
    latents, codebooks = drawn(seed, 20, 4), drawn(seed + 1, 3, 6, 4)
    residual, greedy = latents, []
    for book in codebooks:
        greedy.append(torch.cdist(residual, book).argmin(1))
        residual = residual - book[greedy[-1]]
    assert torch.equal(best_path(latents, codebooks, 1), torch.stack(greedy, dim=1))


def test_a_wider_beam_loses_less_and_blocks_change_nothing() -> None:
    latents, codebooks = drawn(0, 500, 16), drawn(1, 3, 640, 16) * torch.tensor([1.0, 0.5, 0.25]).view(3, 1, 1)
    errors = [error(latents, codebooks, best_path(latents, codebooks, width)).mean() for width in (1, 2, 5, 20)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1.02 * errors[2]
    # 640 codes are reduced in blocks of 64; 637 of them are not.
    plain = torch.cdist(latents.double(), codebooks[0].double()).argmin(1)
    assert torch.equal(nearest(latents, codebooks[0]), plain)
    odd = codebooks[:, :637].contiguous()
    padded = torch.cat([odd, torch.full((3, 3, 16), 1e3)], dim=1)
    for width in (1, 5):
        assert torch.equal(best_path(latents, odd, width), best_path(latents, padded, width))


def test_equal_rows_and_no_rows() -> None:
    codebooks = drawn(1, 3, 4, 2)
    assert best_path(torch.zeros(0, 2), codebooks, 5).shape == (0, 3)
    assert len(torch.unique(best_path(torch.ones(9, 2), codebooks, 5), dim=0)) == 1


def test_balanced_assignment_gives_every_codeword_its_share() -> None:
    points, codewords = drawn(0, 100, 2), drawn(1, 4, 2) * 0.3 + torch.tensor([1.0, 0.0])
    counts = torch.bincount(sinkhorn(points, codewords, 0.003), minlength=4)
    assert counts.max() <= 30
    assert counts.min() >= 20
    assert torch.bincount(nearest(points, codewords), minlength=4).max() >= 60
    assert sinkhorn(torch.ones(5, 2), torch.ones(3, 2), 0.003).shape == (5,)


@pytest.mark.parametrize("epsilon", [0.003, 0.05])
def test_sinkhorn_is_the_transport_of_its_definition(epsilon: float) -> None:
    points, codewords = drawn(2, 12, 3), drawn(3, 4, 3)
    cost = torch.cdist(points.double(), codewords.double()).square().numpy()
    kernel = np.exp(-cost / cost.max() / epsilon)
    row, column = np.ones(12), np.ones(4)
    for _ in range(2000):
        column = (12 / 4) / (kernel.T @ row)
        row = 1 / (kernel @ column)
    plan = row[:, None] * kernel * column
    assert np.allclose(plan.sum(0), 3, atol=1e-2)
    assert np.array_equal(sinkhorn(points, codewords, epsilon, 2000).numpy(), plan.argmax(1))
