"""The filter against the angles of a circle and a literal transcription of the paper's rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.artefacts import read_tensors, write_json, write_tensors
from conrec.errors import ArtefactError
from conrec.filtering.catalogue import FilterCatalogue
from conrec.filtering.filter import NegativeFilter
from conrec.filtering.vectors.table import ItemTable, max_similarity

Build = Callable[[float | None], Path]


def cos(degrees: float) -> float:
    return float(np.cos(np.deg2rad(degrees)))


def test_similarities_are_cosines_to_the_nearest_prediction(circle_run: Build) -> None:
    negative_filter = NegativeFilter.load(circle_run(0.9), "conrec")
    np.testing.assert_allclose(
        negative_filter.similarities("ann", ["i0", "i1", "i2", "7"]), [1, cos(10), cos(30), -1], atol=2e-5
    )
    np.testing.assert_allclose(negative_filter.similarities("bob", ["i3", "7", "i0"]), [cos(30), 1, 0], atol=2e-5)


def test_dropped_with_the_nearest_prediction(circle_run: Build) -> None:
    result = NegativeFilter.load(circle_run(0.9), "conrec").filter("bob", ["i3", "i4", "i0", "7"])
    assert [one.item_id for one in result.dropped] == ["i4", "7"]
    assert [one.item_id for one in result.kept] == ["i3", "i0"]
    assert [(one.nearest_item, one.nearest_sid, one.similarity, one.reason) for one in result.dropped] == [
        ("i4", "a_1 b_1 c_0", 1.0, "above the threshold"),
        ("7", "a_1 b_1 c_3", 1.0, "above the threshold"),
    ]
    assert result.kept[0].nearest_item == "i4"
    assert result.kept[0].reason == "not above the threshold"


def test_a_similarity_at_the_threshold_is_kept(circle_run: Build) -> None:
    at = float(np.float32(round(cos(10), 6)))
    assert NegativeFilter.load(circle_run(at), "conrec").filter("ann", ["i1"]).dropped == ()


def test_just_below_the_similarity_is_dropped(circle_run: Build) -> None:
    assert len(NegativeFilter.load(circle_run(cos(10) - 1e-5), "conrec").filter("ann", ["i1"]).dropped) == 1


def test_what_is_unknown_is_kept_and_said(circle_run: Build) -> None:
    negative_filter = NegativeFilter.load(circle_run(-1.0), "conrec")
    result = negative_filter.filter("stranger", ["i0", "no such item"])
    assert [(one.reason, one.similarity) for one in result.kept] == [("unknown user", None)] * 2
    assert negative_filter.filter("ann", ["no such item"]).kept[0].reason == "unknown item"
    assert negative_filter.filter("empty", ["i0"]).kept[0].reason == "empty predict set"
    assert np.isnan(negative_filter.similarities("stranger", ["i0"])).all()
    decisions = negative_filter.decide([None, "ann", "ann"], ["i0", None, "i0"])
    assert decisions.reason.tolist() == [2, 3, 1]


def test_no_threshold_keeps_everything(circle_run: Build) -> None:
    result = NegativeFilter.load(circle_run(None), "conrec").filter("ann", ["i0", "i1"])
    assert result.dropped == ()
    assert result.kept[0].similarity == 1.0


def test_no_candidates(circle_run: Build) -> None:
    assert NegativeFilter.load(circle_run(0.5), "conrec").filter("ann", []).kept == ()


def test_long_and_numeric_user_ids(circle_run: Build) -> None:
    negative_filter = NegativeFilter.load(circle_run(0.5), "conrec")
    assert negative_filter.similarities("42", ["i2"]).tolist() == [1.0]
    assert negative_filter.similarities("x" * 600, ["i3"]).tolist() == [1.0]
    assert np.isnan(negative_filter.similarities("x" * 601, ["i3"])).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 12))
def test_max_similarity_is_the_literal_rule(seed: int, dimension: int, pairs: int) -> None:
    rng = np.random.default_rng(seed)
    rebuilt = rng.normal(size=(9, dimension)).astype(np.float32) + 1e-3
    rebuilt /= np.linalg.norm(rebuilt, axis=1, keepdims=True)
    predicted = rng.integers(-1, 9, (4, 5)).astype(np.int32)
    sets, items = rng.integers(-1, 4, pairs), rng.integers(-1, 9, pairs).astype(np.int32)
    similarity, nearest = max_similarity(ItemTable.build(rebuilt), predicted, sets, items)
    for pair in range(pairs):
        members = [] if sets[pair] < 0 else [one for one in predicted[sets[pair]] if one >= 0]
        if items[pair] < 0 or not members:
            assert np.isnan(similarity[pair])
            assert nearest[pair] == -1
            continue
        literal = [
            sum(float(x) * float(y) for x, y in zip(rebuilt[items[pair]], rebuilt[one], strict=True)) for one in members
        ]
        assert similarity[pair] == pytest.approx(max(literal), abs=2e-4)
        assert literal[members.index(nearest[pair])] == pytest.approx(max(literal), abs=2e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_pair_has_one_similarity_in_whatever_company(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rebuilt = rng.normal(size=(60, 37)).astype(np.float32)
    rebuilt /= np.linalg.norm(rebuilt, axis=1, keepdims=True)
    predicted = rng.integers(0, 60, (3, 20)).astype(np.int32)
    sets, items = rng.integers(0, 3, 100), rng.integers(0, 60, 100).astype(np.int32)
    together, _ = max_similarity(ItemTable.build(rebuilt), predicted, sets, items)
    alone = [
        max_similarity(ItemTable.build(rebuilt), predicted, sets[one : one + 1], items[one : one + 1])[0][0]
        for one in range(100)
    ]
    np.testing.assert_array_equal(together, alone)


def test_resolved_ids_lead_to_items_and_nothing_else(circle_run: Build) -> None:
    catalogue = FilterCatalogue.load(circle_run(0.5))
    codes = np.asarray([[1, 1, 3], [1, 1, 0], [1, 1, 1], [-1, -1, -1], [0, 0, 4], [0, 1, -4]])
    assert catalogue.items_of(codes).tolist() == [5, 4, -1, -1, -1, -1]
    assert catalogue.items_of(codes.reshape(2, 3, 3)).shape == (2, 3)


def test_what_is_missing_or_does_not_fit_is_named(circle_run: Build, tmp_path: Path) -> None:
    run = circle_run(0.5)
    with pytest.raises(ArtefactError, match="there is no run here"):
        NegativeFilter.load(tmp_path / "elsewhere", "conrec")
    with pytest.raises(ArtefactError, match="Did you mean 'conrec'"):
        NegativeFilter.load(run, "conrex")
    (tmp_path / "young").mkdir()
    with pytest.raises(ArtefactError, match="has not finished"):
        NegativeFilter.load(tmp_path / "young", "conrec")
    path = run / "items" / "rebuilt.safetensors"
    rebuilt = read_tensors(path)["rebuilt"]
    for wrong, says in (
        ({"other": rebuilt}, "the tensor 'rebuilt'"),
        ({"rebuilt": rebuilt[:-1]}, "float32 of 6 rows"),
        ({"rebuilt": rebuilt.astype(np.float64)}, "float32"),
        ({"rebuilt": rebuilt * 2}, "row 0 has length 2.0000"),
        ({"rebuilt": rebuilt * np.float32(np.nan)}, "rows of length 1"),
    ):
        write_tensors(path, wrong)
        with pytest.raises(ArtefactError, match=says):
            NegativeFilter.load(run, "conrec")
    write_tensors(path, {"rebuilt": rebuilt})
    calibration = run / "filter" / "conrec.json"
    for text, says in (
        ({"threshold": 0.5}, "calibration"),
        ({**_read(calibration), "threshold": "high"}, "null to keep everything"),
        ({**_read(calibration), "sid_hash": "x"}, "another SID table"),
    ):
        before = calibration.read_text()
        write_json(calibration, text)
        with pytest.raises(ArtefactError, match=says):
            NegativeFilter.load(run, "conrec")
        calibration.write_text(before)
    calibration.unlink()
    with pytest.raises(ArtefactError, match="missing"):
        NegativeFilter.load(run, "conrec")


def _read(path: Path) -> dict[str, object]:
    value: dict[str, object] = json.loads(path.read_text())
    return value
