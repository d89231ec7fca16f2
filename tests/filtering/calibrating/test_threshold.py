"""The file of a threshold: what was written is read, what is damaged or of an earlier version is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from conrec.arrays import Array
from conrec.artefacts import read_json, write_json
from conrec.errors import ArtefactError
from conrec.filtering.calibrating.control import Liked
from conrec.filtering.calibrating.segments import item_thresholds
from conrec.filtering.calibrating.threshold import (
    Choice,
    Threshold,
    TradeOff,
    above,
    best_within,
    in_words,
    read_threshold,
    trade_off,
    write_threshold,
)

SIMILARITIES = hnp.arrays(np.float32, st.integers(0, 40), elements=st.sampled_from([-1, -0.5, 0, 0.25, 0.5, 0.9, 1]))


def given_threshold(**changed: Any) -> Threshold:
    values: dict[str, Any] = {
        "model": "conrec",
        "threshold": 0.75,
        "bound": 0.05,
        "statement": "as given",
        "anchors": 3,
        "users": 2,
        "positives": 10,
        "false_filters": 0,
        "negatives": 10,
        "caught": 5,
        "sid_hash": "of a table",
        "curve": (TradeOff(-1.0, 1.0, 1.0, 1.0), TradeOff(0.75, 0.0, 0.5, 0.0)),
        "choices": (Choice(0.05, False, 0.75, 0.0, 0.5, 0.0),),
    }
    return Threshold(**{**values, **changed})


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"threshold": None, "curve": (), "choices": ()},
        {"by_category": {"": None, "Drama": 0.5, "Komödie": 0.25}, "pooled": ("", "Komödie")},
        {"guarantee": "probability", "confidence": 0.9, "rate": "pair", "pairs_per_user": 20},
    ],
)
def test_what_was_written_is_read(tmp_path: Path, changed: dict[str, Any]) -> None:
    threshold = given_threshold(**changed)
    write_threshold(tmp_path, threshold)
    assert read_threshold(tmp_path, "conrec", "of a table") == threshold
    assert read_threshold(tmp_path, "conrec", "a later one", {"of a table"}) == threshold


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"threshold": "0.5"}, "threshold = '0.5'"),
        ({"threshold": True}, "threshold = True"),
        ({"by_category": {"Drama": "high"}}, r"by_category\['Drama'\] = 'high'"),
        ({"by_category": [0.5]}, r"by_category = \[0.5\]"),
        ({"curve": [{"at": 1}]}, "cannot be read"),
        ({"choices": [3]}, "cannot be read"),
        ({"unknown": 1}, "another version of conrec"),
        ({"sid_hash": "another"}, "another SID table"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    write_threshold(tmp_path, given_threshold())
    path = tmp_path / "filter" / "conrec.json"
    write_json(path, {**read_json(path), **change})
    with pytest.raises(ArtefactError, match=says):
        read_threshold(tmp_path, "conrec", "of a table")


def test_nothing_is_compared_with_what_is_no_number(tmp_path: Path) -> None:
    write_threshold(tmp_path, given_threshold())
    path = tmp_path / "filter" / "conrec.json"
    for value in ("NaN", "Infinity", "-Infinity"):
        path.write_text(json.dumps({**read_json(path), "threshold": 0.5}).replace("0.5", value), encoding="utf-8")
        with pytest.raises(ArtefactError):
            read_threshold(tmp_path, "conrec", "of a table")
        write_threshold(tmp_path, given_threshold())


def test_a_file_of_an_earlier_version_says_how_to_make_it_anew(tmp_path: Path) -> None:
    earlier = ["model", "threshold", "bound", "statement", "anchors", "users", "positives", "false_filters"]
    earlier += ["negatives", "caught", "sid_hash", "curve"]
    write_threshold(tmp_path, given_threshold())
    path = tmp_path / "filter" / "conrec.json"
    content = read_json(path)
    write_json(path, {name: content[name] for name in earlier})
    with pytest.raises(ArtefactError, match=r"another version .* only the filter stages are repeated"):
        read_threshold(tmp_path, "conrec")
    write_json(path, {"something": "else"})
    with pytest.raises(ArtefactError, match="is not the calibration of a filter"):
        read_threshold(tmp_path, "conrec")


CATEGORIES = st.lists(st.lists(st.sampled_from(["a", "b", "c", "new"]), max_size=3), max_size=8)
BY_CATEGORY = st.dictionaries(st.sampled_from(["", "a", "b", "c"]), st.none() | st.sampled_from([-0.5, 0.25, 0.5, 1.0]))


@settings(deadline=None)
@given(BY_CATEGORY, CATEGORIES)
def test_an_item_takes_the_highest_threshold_of_its_categories(
    by_category: dict[str, float | None], categories: list[list[str]]
) -> None:
    def highest(names: list[str]) -> float:
        found = [by_category.get(name) for name in names or [""]]
        return float("inf") if None in found else max(one for one in found if one is not None)

    assert item_thresholds(by_category, categories).tolist() == [highest(one) for one in categories]


def test_one_threshold_is_that_of_all_items() -> None:
    assert given_threshold().thresholds_of_items([["a"], [], ["b", "c"]]).tolist() == [0.75] * 3
    assert given_threshold(threshold=None).thresholds_of_items([["a"], []]).tolist() == [np.inf] * 2
    assert given_threshold().thresholds_of_items([]).tolist() == []


@pytest.mark.parametrize(
    ("threshold", "by_category", "keeps"),
    [
        (0.5, {}, False),
        (1.0, {}, True),
        (None, {}, True),
        (0.5, {"a": None, "b": 1.0}, True),
        (None, {"a": None, "b": 0.9}, False),
    ],
)
def test_whether_anything_can_be_dropped(
    threshold: float | None, by_category: dict[str, float | None], keeps: bool
) -> None:
    one = given_threshold(threshold=threshold, by_category=by_category)
    assert one.keeps_everything is keeps
    assert bool(in_words(one)) is keeps


@settings(deadline=None)
@given(SIMILARITIES, SIMILARITIES)
def test_the_curve_falls_from_everything_to_nothing(positives: Array, negatives: Array) -> None:
    liked = Liked.of(positives, np.arange(len(positives)) // 3)
    curve = trade_off(liked, negatives, [0.123])
    assert [one.threshold for one in curve] == sorted({one.threshold for one in curve})
    if len(positives) + len(negatives):
        assert 0.123 in [one.threshold for one in curve]
    for values, name in ((positives, "false_filter_rate"), (negatives, "caught"), (positives, "user_rate")):
        rates = [getattr(point, name) for point in curve]
        if not len(values):
            assert set(rates) <= {None}
            continue
        assert rates == sorted(rates, reverse=True)
        assert rates[-1] == 0.0
        if name != "user_rate":
            assert rates == [float((values > np.float32(point.threshold)).mean()) for point in curve]
            continue
        for point in curve:
            own = [
                (values[begin : begin + 3] > np.float32(point.threshold)).mean() for begin in range(0, len(values), 3)
            ]
            assert point.user_rate == pytest.approx(np.mean(own))


def test_nothing_is_above_none_and_nan_above_nothing() -> None:
    values = np.asarray([0.5, np.nan, 1.0], dtype=np.float32)
    assert above(values, None).tolist() == [False] * 3
    assert above(values, 0.5).tolist() == [False, False, True]


def test_choices_by_category_are_told_in_words() -> None:
    choices = (Choice(0.02, True, None, 0.0, 0.0, 0.0), Choice(0.07, False, None, 0.125, None, 0.25))
    lines = in_words(given_threshold(by_category={"a": None}, choices=choices))
    assert lines[-2:] == [
        "  2%: keeps everything",
        "  0.07: a threshold a category, drops 12.5% of what was liked (25.0% of a user's on average) and – of what "
        "was disliked",
    ]
    assert best_within(choices, 0.05) is None
    assert best_within(choices, 0.07) == choices[1]
