"""The motivation study against its definition in loops, and on cases whose answer is plain."""

from __future__ import annotations

import json

import numpy as np
import pytest

from conrec.arrays import Ragged
from conrec.errors import DataError
from conrec.evaluation.studies import category_groups, code_groups, interests, motivation_study
from conrec.logs.log import Log
from conrec.logs.prepare import Prepared
from conrec.logs.swing import gts
from conrec.protocol import DAY
from tests.evaluation.evaluation_world import anchors_of, world


def test_interests_go_by_count_then_by_the_later_event() -> None:
    groups = Ragged.from_rows([[0], [1], [2], [3, 0], []])
    assert interests(np.array([1, 2, 1, 2]), groups).tolist() == [2, 1]
    assert interests(np.array([2, 1, 1, 2, 0]), groups).tolist() == [2, 1, 0]
    assert interests(np.array([0, 3]), groups).tolist() == [0, 3]
    assert interests(np.array([3]), groups).tolist() == [0, 3]
    assert interests(np.array([4]), groups).tolist() == []


def test_groups() -> None:
    assert [row.tolist() for row in code_groups(np.array([[5, 1, 1], [2, 0, 0]]))] == [[5], [2]]
    groups = category_groups([["b", "a", "b"], [], None, ["c"]])
    assert groups is not None
    assert [row.tolist() for row in groups] == [[0, 1], [], [], [2]]
    assert category_groups([[], None]) is None


def test_shares_are_the_definition_in_loops() -> None:
    given = world(11, users=20, items=30, events=700)
    log, anchors = given.log, given.anchors
    codes = np.random.default_rng(0).integers(0, 9, (log.n_items, 3))
    sets = Ragged.from_rows(np.r_[row, (row + 1) % log.n_items] for row in anchors.future_negatives)
    found = motivation_study(log, anchors, sets, {"semantic_id": code_groups(codes)}, bootstraps=50, seed=0)
    cells: dict[tuple[str, str], list[float]] = {}
    skipped = 0
    for a in np.flatnonzero(anchors.split == 2):
        past = [
            codes[log.item[e], 0]
            for e in range(len(log))
            if log.user[e] == anchors.user[a] and log.timestamp[e] < anchors.timestamp[a] and log.feedback[e] == -1
        ]
        if not past:
            skipped += 1
            continue
        last = {group: position for position, group in enumerate(past)}
        ranked = sorted(set(past), key=lambda group: (past.count(group), last[group]), reverse=True)
        for name, target in {
            "next_item": anchors.future_negatives[int(a)][:1],
            "future": anchors.future_negatives[int(a)],
            "future_and_swing": sets[int(a)],
        }.items():
            held = {codes[item, 0] for item in target}
            cells.setdefault((name, "top_1"), []).append(float(ranked[0] in held))
            cells.setdefault((name, "top_4"), []).append(float(any(one in held for one in ranked[:4])))
            share = sum(one in held for one in ranked[:4]) / len(ranked[:4])
            cells.setdefault((name, "top_4_share"), []).append(share)
    assert found["anchors_without_interest"] == skipped
    for (name, measure), values in cells.items():
        figure = found["groupings"]["semantic_id"]["targets"][name][measure]
        assert figure["value"] == pytest.approx(np.mean(values))
        assert figure["anchors"] == len(values) == found["anchors"]
        assert figure["low"] <= figure["value"] <= figure["high"]
    json.dumps(found, allow_nan=False)


def _one_user(groups: list[int], future: list[int]) -> tuple[Log, Ragged]:
    n = len(groups)
    log = Log.from_columns(
        ("u",), tuple(f"i{one}" for one in range(n)), np.zeros(3, int), np.arange(3), np.arange(3) * DAY, np.full(3, -1)
    )
    return log, Ragged.from_rows([future])


def test_a_plain_case() -> None:
    # Past negatives are items 0, 1, 2 in groups 0, 0, 1; the future holds group 1 alone, GTS group 0 as well.
    log, future = _one_user([0, 0, 1, 1, 0], [3])
    anchors = anchors_of([[3]], users=[0])
    groups = Ragged.from_rows([[0], [0], [1], [1], [0]])
    targets = motivation_study(log, anchors, Ragged.from_rows([[3, 4]]), {"g": groups}, bootstraps=10, seed=0)
    cells = targets["groupings"]["g"]["targets"]
    assert cells["future"]["top_1"]["value"] == 0
    assert cells["future"]["top_4"]["value"] == 1
    assert cells["future"]["top_4_share"]["value"] == 0.5
    assert cells["future_and_swing"]["top_1"]["value"] == 1
    assert cells["future_and_swing"]["top_4_share"]["value"] == 1
    assert cells["future_and_swing"]["size"] == 2
    assert len(future) == 1


def test_anchors_without_negatives_or_groups_are_counted_not_guessed() -> None:
    log, _ = _one_user([0] * 5, [3])
    early = anchors_of([[3]], users=[0])
    early.timestamp[:] = 0
    groups = Ragged.from_rows([[0]] * 5)
    found = motivation_study(log, early, Ragged.from_rows([[3]]), {"g": groups}, bootstraps=10, seed=0)
    assert (found["anchors"], found["anchors_without_interest"], found["groupings"]) == (0, 1, {})
    ungrouped = Ragged.from_rows([[], [], [], [0], [0]])
    late = anchors_of([[3]], users=[0])
    found = motivation_study(log, late, Ragged.from_rows([[3]]), {"g": ungrouped}, bootstraps=10, seed=0)
    assert "top_1" not in found["groupings"]["g"]["targets"]["future"]
    json.dumps(found, allow_nan=False)


def test_rows_that_do_not_fit_are_refused() -> None:
    log, sets = _one_user([0] * 5, [3])
    anchors = anchors_of([[3]], users=[0])
    with pytest.raises(DataError, match="GTS has 0 rows; expected 1"):
        motivation_study(log, anchors, Ragged.from_rows([]), {}, bootstraps=10, seed=0)
    with pytest.raises(DataError, match="grouping 'g': 2 items have groups; expected all 5"):
        motivation_study(log, anchors, sets, {"g": Ragged.from_rows([[0], [0]])}, bootstraps=10, seed=0)


def test_wider_targets_cover_more_on_real_data(prepared_ml100k: Prepared) -> None:
    ready = prepared_ml100k
    test = ready.anchors.of_split("test")
    groups = category_groups(ready.items["category"].to_pylist())
    assert groups is not None
    found = motivation_study(ready.log, test, gts(test, ready.swing), {"category": groups}, bootstraps=50, seed=0)
    assert found["anchors"] + found["anchors_without_interest"] == 242
    targets = found["groupings"]["category"]["targets"]
    for measure in ("top_1", "top_4", "top_4_share"):
        values = [targets[name][measure]["value"] for name in ("next_item", "future", "future_and_swing")]
        assert values == sorted(values)
        assert values[0] < values[-1]
