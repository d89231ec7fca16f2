"""Text form, lookups and the file of semantic IDs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conrec.artefacts import read_parquet, write_parquet
from conrec.errors import ArtefactError, DataError
from conrec.items.naming.collisions import most_of_a_first_code
from conrec.items.semantic_ids import (
    SemanticIds,
    code_name,
    level_sizes,
    read_semantic_ids,
    rebuilt_from,
    sid_keys,
    sid_text,
    write_semantic_ids,
)
from conrec.logs.schema import SEMANTIC_IDS


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


RAW = np.asarray([[1, 2, 0], [1, 2, 0], [0, 3, 3]], dtype=np.int32)
FOURTH = np.column_stack([RAW, [1, 0, 0]]).astype(np.int32)


@pytest.mark.parametrize(
    "table",
    [SemanticIds(RAW, FOURTH, 4, "extra_level", 2), SemanticIds(RAW, RAW, 4, "shared")],
    ids=["extra", "shared"],
)
def test_tables_of_the_other_ways_come_back_as_they_were(table: SemanticIds, tmp_path: Path) -> None:
    path = tmp_path / "semantic_ids.parquet"
    write_semantic_ids(path, ["x", "y", "z"], table)
    _, again = read_semantic_ids(path)
    assert (again.collisions, again.extra_size, again.sizes) == (table.collisions, table.extra_size, table.sizes)
    assert np.array_equal(again.codes, RAW)
    assert np.array_equal(again.resolved, table.resolved)
    assert again.resolved.dtype == np.int32
    assert not again.moved.any()


def test_the_fourth_level_has_a_letter_and_a_size_of_its_own() -> None:
    table = SemanticIds(RAW, FOURTH, 4, "extra_level", 2)
    assert (table.levels, table.sizes, table.shared) == (4, (4, 4, 4, 2), False)
    assert table.text(0) == "a_1 b_2 c_0 d_1"
    plain = SemanticIds(RAW, RAW, 4, "shared")
    assert (plain.levels, plain.sizes, plain.shared) == (3, (4, 4, 4), True)
    assert level_sizes(4) == (4, 4, 4)
    assert level_sizes([4, 4, 4, 2]) == (4, 4, 4, 2)


@pytest.mark.parametrize(
    ("resolved", "metadata", "message"),
    [
        (RAW, {"conrec.collisions": "extra_level"}, "'extra_level', without a fourth level"),
        (RAW, {"conrec.collisions": "shared", "conrec.extra_size": "2"}, "'shared', with a fourth level"),
        (RAW, {"conrec.collisions": "random"}, "'random'.*one of nearest, extra_level, shared"),
        (RAW, {"conrec.collisions": "extra_level", "conrec.extra_size": "2"}, "four codes"),
        (FOURTH, {"conrec.collisions": "shared"}, "three codes"),
        (FOURTH, {"conrec.collisions": "extra_level", "conrec.extra_size": "1"}, "level 4: codes from 0 to 1.*to 0"),
        (FOURTH * [[1], [1], [0]], {"conrec.collisions": "extra_level", "conrec.extra_size": "2"}, "row 2.*raw codes"),
        (FOURTH * [1, 1, 1, 0], {"conrec.collisions": "extra_level", "conrec.extra_size": "2"}, "share their resolved"),
        (RAW * [[1], [1], [0]], {"conrec.collisions": "shared"}, r"row 2.*\[0, 3, 3\], resolved to \[0, 0, 0\]"),
    ],
)
def test_tables_that_are_not_what_they_say_are_refused(
    resolved: np.ndarray, metadata: dict[str, str], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "semantic_ids.parquet"
    columns = {"item_id": ["x", "y", "z"], "codes": RAW.tolist(), "resolved_codes": resolved.tolist()}
    table = pa.table(columns, schema=SEMANTIC_IDS)
    write_parquet(path, table.replace_schema_metadata({"conrec.codebook_size": "4", **metadata}))
    with pytest.raises(ArtefactError, match=message):
        read_semantic_ids(path)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2), st.integers(0, 6)), min_size=1))
def test_keys_are_in_the_order_of_the_codes_and_tell_them_apart(rows: list[tuple[int, int, int, int]]) -> None:
    keys = sid_keys(np.asarray(rows), (3, 3, 3, 7)).tolist()
    assert [row for _, row in sorted(zip(keys, rows, strict=True))] == sorted(rows)
    assert len(set(keys)) == len(set(rows))


def test_more_combinations_than_a_number_can_hold_are_refused() -> None:
    with pytest.raises(DataError, match=r"65535, 65535, 65535, 65535 codes.*2\^63"):
        sid_keys(np.zeros((1, 4), dtype=np.int32), (65535,) * 4)


def test_embeddings_are_rebuilt_from_either_codes(ids: SemanticIds) -> None:
    class Sums:
        def rebuild(self, codes: np.ndarray) -> np.ndarray:
            assert codes.shape[1] == 3
            return codes.sum(axis=1, keepdims=True).astype(np.float32)

    assert rebuilt_from(Sums(), ids)[:, 0].tolist() == [3, 3, 6]
    assert rebuilt_from(Sums(), ids, "resolved")[:, 0].tolist() == [3, 4, 6]
    fourth = SemanticIds(RAW, FOURTH, 4, "extra_level", 2)
    assert np.array_equal(rebuilt_from(Sums(), fourth, "resolved"), rebuilt_from(Sums(), fourth))
