"""The run's own items as the reference: which they are, and that not all of a large catalogue is read for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from conrec.artefacts import read_tensors, write_tensors
from conrec.errors import ArtefactError
from conrec.items.growing import reference
from conrec.items.growing.drift import fit_of
from conrec.items.growing.reference import FEWEST_REFERENCE, embeddings_of, reference_of, reference_rows
from conrec.items.semantic_ids import SemanticIds, read_semantic_ids, write_semantic_ids

ITEMS, SIZE = 120, 8


@dataclass
class Sums:
    """Rebuilds an item from its codes as their sum in every feature."""

    mean: torch.Tensor

    def rebuild(self, codes: np.ndarray) -> np.ndarray:
        return np.repeat(codes.sum(axis=1, keepdims=True), len(self.mean), axis=1).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    codes = np.unravel_index(rng.permutation(SIZE**3)[:ITEMS], (SIZE,) * 3)
    raw = np.stack(codes, axis=1).astype(np.int32)
    resolved = raw.copy()
    resolved[100:110] = raw[100:110][::-1]
    write_semantic_ids(
        tmp_path / "semantic_ids.parquet", [str(one) for one in range(ITEMS)], SemanticIds(raw, resolved, SIZE)
    )
    write_tensors(tmp_path / "embeddings.safetensors", {"embedding": rng.normal(size=(ITEMS, 4)).astype(np.float32)})
    return tmp_path


def test_items_that_were_not_trained_on_are_the_reference_where_they_are_enough():
    train = np.ones(ITEMS, dtype=np.bool_)
    train[:FEWEST_REFERENCE] = False
    trained, rows = reference_rows(train)
    assert not trained
    np.testing.assert_array_equal(rows, np.arange(FEWEST_REFERENCE))
    train[0] = True
    trained, rows = reference_rows(train)
    assert trained
    np.testing.assert_array_equal(rows, np.flatnonzero(train))


def test_the_reference_is_what_the_whole_arrays_say_and_large_ones_are_sampled(folder: Path, monkeypatch) -> None:
    train = np.arange(ITEMS) < 80
    quantiser = Sums(torch.full((4,), 0.25))
    found = reference_of(folder, quantiser, train, 0)
    embeddings, (_, ids) = (
        read_tensors(folder / "embeddings.safetensors")["embedding"],
        read_semantic_ids(folder / "semantic_ids.parquet"),
    )
    expected = fit_of(embeddings[80:] - np.float32(0.25), quantiser.rebuild(ids.codes[80:]))
    np.testing.assert_array_equal(found.fit.error, expected.error)
    other = int((ids.codes[:, 1] != ids.resolved[:, 1]).sum())
    assert other > 0
    assert (found.trained, found.items, found.second_codes, found.first_codes.sum()) == (False, 40, other, ITEMS)
    monkeypatch.setattr(reference, "MOST", 15)
    monkeypatch.setattr(reference, "PIECE", 32)
    some = reference_of(folder, quantiser, train, 0)
    assert (some.items, len(some.fit)) == (40, 15)
    assert set(some.fit.error) <= set(expected.error)
    np.testing.assert_array_equal(reference_of(folder, quantiser, train, 0).fit.error, some.fit.error)
    assert set(reference_of(folder, quantiser, train, 1).fit.error) != set(some.fit.error)


def test_rows_are_read_without_the_others_and_damage_is_said(folder: Path, monkeypatch) -> None:
    path = folder / "embeddings.safetensors"
    whole = read_tensors(path)["embedding"]
    monkeypatch.setattr(reference, "PIECE", 50)
    rows = np.asarray([0, 3, 49, 50, 119])
    np.testing.assert_array_equal(embeddings_of(path, rows, ITEMS), whole[rows])
    with pytest.raises(ArtefactError, match=r"expected 'embedding', float32 \[7, d\]"):
        embeddings_of(path, rows, 7)
    write_tensors(path, {"other": whole})
    with pytest.raises(ArtefactError, match="cannot be read as safetensors"):
        embeddings_of(path, rows, ITEMS)
    path.unlink()
    with pytest.raises(ArtefactError, match="this file is missing"):
        embeddings_of(path, rows, ITEMS)
