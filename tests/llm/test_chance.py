"""Numbers by counter: uniform, independent of who else draws, and stable over time."""

from __future__ import annotations

import torch
from scipy import stats

from conrec.llm.chance import gumbel, uniform


def test_numbers_are_uniform_and_streams_and_seeds_do_not_resemble_each_other():
    seeds = torch.arange(200)
    columns = torch.arange(500).expand(200, -1)
    drawn = uniform(seeds, 0, columns)
    assert 0 < float(drawn.min()) < float(drawn.max()) < 1
    assert stats.kstest(drawn.flatten().numpy(), "uniform").pvalue > 1e-3
    assert stats.kstest(drawn[:, 0].numpy(), "uniform").pvalue > 1e-3
    others = (uniform(seeds, 1, columns), uniform(seeds + 1, 0, columns), drawn.roll(1, 1))
    for other in others:
        # Four standard errors of a correlation of 100,000 pairs.
        assert abs(float(torch.corrcoef(torch.stack([drawn.flatten(), other.flatten()]))[0, 1])) < 4 / 100_000**0.5


def test_a_rows_numbers_depend_on_its_seed_alone():
    together = uniform(torch.tensor([7, -3, 1 << 62]), 5, torch.arange(20).expand(3, -1))
    assert torch.equal(uniform(torch.tensor([-3]), 5, torch.arange(20)[None])[0], together[1])
    some = torch.tensor([[[3, 4], [0, 19]], [[1, 1], [2, 0]]])
    found = uniform(torch.tensor([1 << 62, 7]), 5, some)
    assert torch.equal(found[0], together[2][some[0]])
    assert torch.equal(found[1], together[0][some[1]])


def test_gumbel_noise():
    drawn = gumbel(torch.arange(100), 2, torch.arange(300).expand(100, -1)).flatten()
    assert stats.kstest(drawn.numpy(), "gumbel_r").pvalue > 1e-3


def test_splitmix64_against_its_literal_form():
    """One number by unsigned arithmetic in plain Python."""
    every = (1 << 64) - 1

    def mix(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & every
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & every
        return z ^ (z >> 31)

    step = 0x9E3779B97F4A7C15
    for seed, stream, column in ((0, 0, 0), (12345, 2, 7), (-9, 1, 3)):
        start = mix(mix(seed & every) + step * (stream + 1) & every)
        bits = mix(start + step * (column + 1) & every) >> 12
        assert float(uniform(torch.tensor([seed]), stream, torch.tensor([column]))[0]) == (bits + 0.5) / (1 << 52)
