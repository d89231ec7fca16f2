"""A made-up run as large as wanted for the benchmarks of the filter, written by the public writers.

Items have embeddings whose spectrum is that of the rebuilt items of a MovieTweetings run (12,611 films, 384 features of
all-MiniLM-L6-v2 behind an RQ-VAE): the screen of `conrec.filtering.vectors` has as hard a time with them as there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from conrec.artefacts import write_tensors
from conrec.filtering.calibrating.threshold import Threshold, write_threshold
from conrec.filtering.catalogue import FilterCatalogue
from conrec.filtering.stores.base import Origin, StoreMeta
from conrec.filtering.stores.writer import SetBlock, write_blocks
from conrec.items.semantic_ids import SemanticIds, write_semantic_ids

__all__ = ["MODEL", "PREDICT_SET", "item_id", "make_run", "user_id", "write_users"]

MODEL = "conrec"
PREDICT_SET = 20
GROUPS = 128
BLOCK = 1 << 17
WRITTEN_AT = 1_700_000_000
SPECTRUM = ((0, 0.0), (8, 0.475), (15, 0.637), (31, 0.80), (63, 0.915), (127, 0.983), (384, 1.0))
"""Share of the variance in the first so many main axes, as measured on that run."""


def item_id(item: int) -> str:
    """ID of an item."""
    return f"item{item:07d}"


def user_id(user: int) -> str:
    """ID of a user: eight digits."""
    return str(10_000_000 + user)


def rebuilt_rows(items: int, dim: int, seed: int) -> np.ndarray:
    """Unit rows, float32 [items, dim]: 128 groups, sizes falling with rank, and as much again of their own.

    Variances go after `SPECTRUM`. Of candidates a tenth of which is nearer than a threshold, a look at 32 features
    leaves 52 % open (of that run's films: 42 %), and 128 features leave 11 % (11 %).
    """
    chance = np.random.default_rng(seed)
    axes, shares = np.asarray(SPECTRUM).T
    axes = axes * min(dim / axes[-1], 1)
    deviation = np.sqrt(np.diff(np.interp(np.arange(dim + 1), axes, shares)))
    turn, _ = np.linalg.qr(chance.normal(size=(dim, dim)))
    mixed = (deviation[:, None] * turn).astype(np.float32)
    centres = chance.standard_normal((GROUPS, dim), dtype=np.float32) @ mixed
    share = np.arange(1, GROUPS + 1) ** -0.5
    group = chance.choice(GROUPS, items, p=share / share.sum())
    rows = np.empty((items, dim), dtype=np.float32)
    for begin in range(0, items, BLOCK):
        part = chance.standard_normal((min(BLOCK, items - begin), dim), dtype=np.float32) @ mixed
        part += centres[group[begin : begin + BLOCK]]
        rows[begin : begin + BLOCK] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return rows


def make_run(folder: Path, users: int, items: int, dim: int = 384, seed: int = 0, dropped: float = 0.05) -> Path:
    """Write a run that `NegativeFilter.load` reads: items, a store of all users, a threshold.

    Args:
        folder: of the run.
        users: predict sets of 20 random items each.
        items: with semantic IDs of 3 x 8192 codes.
        dim: features of an item.
        seed: of everything.
        dropped: share of random candidates that the threshold drops.

    Returns:
        The folder.
    """
    chance = np.random.default_rng(seed + 1)
    size = 8192
    keys = np.unique(chance.integers(0, size**3, int(items * 1.01) + 16))
    chance.shuffle(keys)
    codes = np.stack(np.unravel_index(keys[:items], (size, size, size)), axis=1).astype(np.int32)
    sids = SemanticIds(codes, codes, size)
    names = tuple(item_id(one) for one in range(items))
    write_semantic_ids(folder / "items" / "semantic_ids.parquet", names, sids)
    write_tensors(folder / "items" / "rebuilt.safetensors", {"rebuilt": rebuilt_rows(items, dim, seed)})
    catalogue = FilterCatalogue.load(folder)
    catalogue.save_table(folder)
    some = chance.integers(0, items, (64, PREDICT_SET))
    others = chance.integers(0, items, 2000)
    best = np.concatenate([catalogue.table.similarities(others, members).max(axis=1) for members in some])
    value = float(np.float32(np.quantile(best, 1 - dropped)))
    write_users(folder, users, seed, catalogue)
    said = f"made up: {dropped:.0%} of random candidates are above it"
    write_threshold(folder, Threshold(MODEL, value, dropped, said, 0, 0, 0, 0, 0, 0, catalogue.sid_hash, ()))
    return folder


def write_users(
    folder: Path, users: int, seed: int, catalogue: FilterCatalogue, written_at: int = WRITTEN_AT
) -> StoreMeta:
    """Write the store of a made-up run, or another version of it: another seed, other predict sets."""

    def blocks() -> Iterator[SetBlock]:
        for begin in range(0, users, BLOCK):
            chance = np.random.default_rng((seed, begin))
            count = min(BLOCK, users - begin)
            chosen = chance.integers(0, len(catalogue), (count, PREDICT_SET))
            yield SetBlock(
                pa.array([user_id(one) for one in range(begin, begin + count)], pa.string()),
                catalogue.sids.resolved[chosen],
                -np.sort(chance.exponential(3, (count, PREDICT_SET)).astype(np.float32), axis=1),
                np.full(count, written_at, dtype=np.int64),
            )

    origin = Origin(MODEL, f"{seed:064x}", catalogue.sid_hash, "", catalogue.sids.sizes)
    return write_blocks(folder / "filter" / MODEL, blocks(), origin, slots=PREDICT_SET, written_at=written_at)
