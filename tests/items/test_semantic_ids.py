"""Collisions, text form, lookups and the file of semantic IDs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.artefacts import read_parquet, write_parquet
from conrec.errors import ArtefactError, DataError
from conrec.items.semantic_ids import (
    SemanticIds,
    code_name,
    most_of_a_first_code,
    read_semantic_ids,
    resolve_collisions,
    sid_text,
    write_semantic_ids,
)
from conrec.logs.schema import SEMANTIC_IDS


def quantise(latents: np.ndarray, codebooks: np.ndarray) -> np.ndarray:
    """Residual quantisation, spelt out."""
    codes = np.zeros((len(latents), 3), dtype=np.int32)
    for item, latent in enumerate(latents):
        residual = latent.copy()
        for level in range(3):
            codes[item, level] = np.argmin(((codebooks[level] - residual) ** 2).sum(axis=1))
            residual = residual - codebooks[level][codes[item, level]]
    return codes


def resolve_all(codes: np.ndarray, latents: np.ndarray, codebooks: np.ndarray) -> np.ndarray:
    """Resolution of items that are all of the training period."""
    return resolve_collisions(codes, latents, codebooks, np.ones(len(codes), dtype=np.bool_))


@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(1, 80), st.booleans())
@settings(max_examples=120, deadline=None)
def test_every_item_ends_with_a_semantic_id_of_its_own(seed: int, size: int, n: int, identical: bool) -> None:
    draw = np.random.default_rng(seed)
    codebooks = draw.normal(size=(3, size, 2)) / np.asarray([1, 2, 4]).reshape(3, 1, 1)
    latents = np.repeat(draw.normal(size=(1, 2)), n, axis=0) if identical else draw.normal(size=(n, 2))
    codes = quantise(latents, codebooks)
    if np.bincount(codes[:, 0]).max() > size * size:
        with pytest.raises(DataError, match="share the first code"):
            resolve_all(codes, latents, codebooks)
        return
    resolved = resolve_all(codes, latents, codebooks)
    assert resolved.dtype == np.int32
    assert len({tuple(row) for row in resolved.tolist()}) == n
    assert resolved.min() >= 0
    assert resolved.max() < size
    # The first code never moves; the second only where its bucket was overfull.
    assert (resolved[:, 0] == codes[:, 0]).all()
    for item in np.flatnonzero(resolved[:, 1] != codes[:, 1]):
        assert (codes[:, :2] == codes[item, :2]).all(axis=1).sum() > size
    # Every raw code that somebody wanted is kept by one who wanted it.
    wanted = {tuple(row) for row in codes.tolist()}
    kept = {tuple(raw) for raw, now in zip(codes.tolist(), resolved.tolist(), strict=True) if raw == now}
    assert kept == wanted
    assert np.array_equal(resolved, resolve_all(codes, latents, codebooks))


@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(2, 60), st.floats(0.05, 1), st.booleans())
@settings(max_examples=150, deadline=None)
def test_later_items_change_no_name_of_a_training_item(
    seed: int, size: int, n: int, share: float, identical: bool
) -> None:
    draw = np.random.default_rng(seed)
    codebooks = draw.normal(size=(3, size, 2)) / np.asarray([1, 2, 4]).reshape(3, 1, 1)
    latents = np.repeat(draw.normal(size=(1, 2)), n, axis=0) if identical else draw.normal(size=(n, 2))
    # No more than can be named, so that no case is thrown away.
    latents = latents[: size * size]
    train = draw.random(len(latents)) < share
    codes = quantise(latents, codebooks)
    resolved = resolve_collisions(codes, latents, codebooks, train)
    assert len({tuple(row) for row in resolved.tolist()}) == len(latents)
    assert (resolved[:, 0] == codes[:, 0]).all()
    assert resolved.min() >= 0
    assert resolved.max() < size
    assert np.array_equal(resolved[train], resolve_all(codes[train], latents[train], codebooks))
    # A later item is moved only where another item has its raw code.
    names = {tuple(row) for row in resolved.tolist()}
    assert {tuple(row) for row in codes.tolist()} <= names
    training_names = {tuple(row) for row in resolved[train].tolist()}
    for item in np.flatnonzero(~train & (resolved[:, 1] != codes[:, 1])):
        bucket = tuple(codes[item, :2])
        wanting = (codes[~train, :2] == bucket).all(axis=1).sum()
        assert wanting + sum(name[:2] == bucket for name in training_names) > size


def test_a_later_item_that_is_nearer_yields_to_a_training_item() -> None:
    codebooks = one_dimensional([0.0, 1.0, 3.0])
    latents = np.asarray([[0.0], [0.4]])
    codes = quantise(latents, codebooks)
    assert codes[:, 2].tolist() == [0, 0]
    assert resolve_collisions(codes, latents, codebooks, np.asarray([True, True]))[:, 2].tolist() == [0, 1]
    assert resolve_collisions(codes, latents, codebooks, np.asarray([False, True]))[:, 2].tolist() == [1, 0]


def test_later_items_leave_a_bucket_that_training_items_fill() -> None:
    codebooks = np.zeros((3, 2, 1))
    codebooks[1, :, 0] = [0.0, 10.0]
    codebooks[2, :, 0] = [0.0, 1.0]
    codebooks[0, 1, 0] = 100.0
    latents = np.asarray([[0.0], [0.3], [0.1], [0.2]])
    codes = quantise(latents, codebooks)
    train = np.asarray([False, True, True, False])
    assert resolve_collisions(codes, latents, codebooks, train).tolist() == [[0, 1, 1], [0, 0, 1], [0, 0, 0], [0, 1, 0]]


def one_dimensional(last: list[float]) -> np.ndarray:
    """Codebooks of one dimension whose first two levels are all zero but for far-away codes."""
    codebooks = np.full((3, len(last), 1), 1000.0)
    codebooks[:2, 0] = 0.0
    codebooks[2, :, 0] = last
    return codebooks


def test_the_nearest_keeps_its_code_and_the_others_take_the_nearest_free_one() -> None:
    codebooks = one_dimensional([0.0, 1.0, 3.0, 9.0])
    latents = np.asarray([[0.3], [-0.1], [0.2], [1.1]])
    codes = quantise(latents, codebooks)
    assert codes[:, 2].tolist() == [0, 0, 0, 1]
    # Item 1 is nearest to 0.0 and keeps it; 1.0 is kept by item 3; item 2 comes next and takes 3.0, item 0 9.0.
    assert resolve_all(codes, latents, codebooks)[:, 2].tolist() == [3, 0, 2, 1]


def test_an_overfull_bucket_gives_its_farthest_item_to_the_nearest_second_code() -> None:
    codebooks = np.zeros((3, 2, 1))
    codebooks[0, :, 0] = [0.0, 100.0]
    codebooks[1, :, 0] = [0.0, 10.0]
    codebooks[2, :, 0] = [0.0, 1.0]
    latents = np.asarray([[0.0], [0.1], [0.4]])
    codes = quantise(latents, codebooks)
    assert codes.tolist() == [[0, 0, 0]] * 3
    # Under second code 1 the residual of item 2 is -9.6, nearest to last code 0.
    assert resolve_all(codes, latents, codebooks).tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0]]


def test_ties_go_to_the_lower_item_and_code() -> None:
    codebooks = one_dimensional([0.0, 1.0, -1.0])
    latents = np.zeros((3, 1))
    assert resolve_all(quantise(latents, codebooks), latents, codebooks)[:, 2].tolist() == [0, 1, 2]


def test_more_items_than_names_is_an_error_that_says_what_to_raise() -> None:
    latents = np.zeros((5, 1))
    with pytest.raises(DataError, match=r"5 items share the first code 0.*at most 2 × 2 = 4.*rqvae\.codebook_size"):
        resolve_all(np.zeros((5, 3), dtype=np.int32), latents, np.zeros((3, 2, 1)))


def test_text_form() -> None:
    assert sid_text([5, 2, 9]) == "a_5 b_2 c_9"
    assert code_name(1, 7) == "b_7"


@pytest.fixture
def ids() -> SemanticIds:
    codes = np.asarray([[1, 2, 0], [1, 2, 0], [0, 3, 3]], dtype=np.int32)
    resolved = np.asarray([[1, 2, 0], [1, 2, 1], [0, 3, 3]], dtype=np.int32)
    return SemanticIds(codes, resolved, 4)


def test_lookups(ids: SemanticIds) -> None:
    assert len(ids) == 3
    assert ids.moved.tolist() == [False, True, False]
    assert [ids.text(item) for item in range(3)] == ["a_1 b_2 c_0", "a_1 b_2 c_1", "a_0 b_3 c_3"]
    assert most_of_a_first_code(ids.codes) == 2
    assert most_of_a_first_code(ids.codes[:0]) == 0


def test_file_round_trip_is_the_contract_of_a_run(ids: SemanticIds, tmp_path: Path) -> None:
    path = tmp_path / "semantic_ids.parquet"
    write_semantic_ids(path, ["x", "y", "z"], ids)
    names, again = read_semantic_ids(path)
    assert names == ("x", "y", "z")
    assert again.codes.tolist() == ids.codes.tolist()
    assert again.resolved.tolist() == ids.resolved.tolist()
    assert again.codes.dtype == again.resolved.dtype == np.int32
    assert again.codebook_size == 4
    assert read_parquet(path, SEMANTIC_IDS)["codes"].to_pylist() == ids.codes.tolist()


@pytest.mark.parametrize(
    ("codes", "resolved", "message"),
    [
        ([[0, 0, 0], [0, 0]], [[0, 0, 0], [0, 0, 1]], "three codes"),
        ([[0, 0, 0], None], [[0, 0, 0], [0, 0, 1]], "three codes"),
        ([[0, 0, 0], [0, 0, 9]], [[0, 0, 0], [0, 0, 1]], "codes from 0 to 9"),
        ([[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]], "share their resolved codes"),
    ],
)
def test_damaged_tables_are_refused(
    codes: list[list[int] | None], resolved: list[list[int]], message: str, tmp_path: Path
) -> None:
    table = pa.table({"item_id": ["x", "y"], "codes": codes, "resolved_codes": resolved}, schema=SEMANTIC_IDS)
    path = tmp_path / "semantic_ids.parquet"
    write_parquet(path, table)
    with pytest.raises(ArtefactError, match="codebook_size"):
        read_semantic_ids(path)
    write_parquet(path, table.replace_schema_metadata({"conrec.codebook_size": "4"}))
    with pytest.raises(ArtefactError, match=message):
        read_semantic_ids(path)


def test_reading_semantic_ids_needs_no_torch() -> None:
    code = "import sys, conrec.items.semantic_ids; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
