"""The rewritten log is leave-one-out: each user's last interaction, the one before, and all others."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from conrec.logs.schema import EVENTS, ITEMS

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.common.leave_one_out import figures_of, leave_one_out, ranks_of, write_for_recbole


def split_by_hand(events):
    """User to (training items, validation item, test item), with Python's sort by time, which keeps ties in order."""
    rows = sorted(zip(events["user_id"].to_pylist(), events["timestamp"].to_pylist(), events["item_id"].to_pylist(),
                      strict=True), key=lambda row: row[:2])  # fmt: skip
    found = {}
    for user, own in groupby(rows, key=lambda row: row[0]):
        *training, validation, test = [item for _, _, item in own]
        found[user] = (training, validation, test)
    return found


def split_of(prepared):
    """The same, as the models see it: the training log, and what each anchor asks for."""
    log, training = prepared.log, prepared.log.before(prepared.periods.validation)
    name = np.asarray(log.item_ids)
    asked = {split: prepared.anchors.of_split(split) for split in ("validation", "test")}
    return {
        user: (
            name[training.item[training.events_of(row)]].tolist(),
            *(name[asked[split].next_item[asked[split].user == row]].item() for split in asked),
        )
        for row, user in enumerate(log.user_ids)
    }


def test_of_movielens_it_is_the_literal_split(ml100k):
    prepared = leave_one_out(ml100k.events, ml100k.items)
    by_hand = split_by_hand(ml100k.events)
    assert len(by_hand) == 943
    assert split_of(prepared) == by_hand
    log, anchors = prepared.log, prepared.anchors
    assert (len(log), log.n_items, len(anchors)) == (100_000, 1682, 2 * 943)
    assert set(log.feedback.tolist()) == {-1}
    # What a question may read: training for validation, training and validation for the test.
    for split, back in (("validation", 2), ("test", 1)):
        asked = anchors.of_split(split)
        assert (anchors.split >= 0).all()
        assert asked.future_negatives.lengths.tolist() == [1] * 943
        for user, moment, negatives in zip(asked.user, asked.timestamp, asked.negative_history, strict=True):
            past, own = log.history(int(user), int(moment)), log.events_of(int(user))
            assert past.tolist() == own[: len(own) - back].tolist()
            assert len(past) == negatives
    # Candidate items that no training event holds are not learned of; the last interactions stay unseen.
    assert prepared.trained_items().sum() < 1682


def made_up(rows):
    users, items, times = zip(*rows, strict=True)
    events = pa.table({"user_id": users, "item_id": items, "timestamp": times, "feedback": [1] * len(rows)})
    names = sorted(set(items), reverse=True)
    categories = [["Film Noir", "Drama"] if name == "a" else [] for name in names]
    given = {"item_id": names, "title": names, "text": names, "category": categories, "image": [None] * len(names)}
    return events.cast(EVENTS), pa.table(given).cast(ITEMS)


def test_ties_keep_their_order_and_recbole_gets_the_same_times(tmp_path):
    events, items = made_up([("u", "c", 9), ("v", "a", 4), ("u", "a", 5), ("v", "b", 4), ("u", "b", 5), ("v", "c", 4),
                             ("u", "d", 2)])  # fmt: skip
    prepared = leave_one_out(events, items)
    assert split_of(prepared) == {"u": (["d", "a"], "b", "c"), "v": (["a"], "b", "c")}
    write_for_recbole(prepared, tmp_path / "x")
    header, *rows = (tmp_path / "x" / "x.inter").read_text().splitlines()
    assert header == "user_id:token\titem_id:token\ttimestamp:float"
    found = sorted((user, int(time), item) for user, item, time in (row.split("\t") for row in rows))
    assert [(user, item) for user, _, item in found] == [
        ("u", "d"), ("u", "a"), ("u", "b"), ("u", "c"), ("v", "a"), ("v", "b"), ("v", "c"),
    ]  # fmt: skip
    assert len({(user, time) for user, time, _ in found}) == 7  # no ties that 32-bit floats or a sort could break
    assert (tmp_path / "x" / "x.item").read_text().splitlines() == [
        "item_id:token\tclass:token_seq", "a\tFilm_Noir Drama", "b\t", "c\t", "d\t",
    ]  # fmt: skip


def test_a_user_without_all_three_parts_is_refused():
    events, items = made_up([("u", "a", 1), ("u", "b", 2), ("u", "c", 3), ("v", "a", 1), ("v", "b", 2)])
    with pytest.raises(ValueError, match="user 'v' has fewer than 3"):
        leave_one_out(events, items)


def test_ranks_and_figures_are_those_of_a_sorted_list():
    random = np.random.default_rng(0)
    scores = random.integers(0, 6, size=(40, 30)).astype(np.float32)  # many ties
    target = random.integers(0, 30, size=40)
    history = [np.setdiff1d(random.integers(0, 30, size=8), target[row]) for row in range(40)]
    for gone in (None, history):
        expected = []
        for row in range(40):
            order = sorted(range(30), key=lambda item: (-scores[row, item], item))
            left = [item for item in order if gone is None or item not in gone[row]]
            expected.append(left.index(target[row]) + 1)
        assert ranks_of(scores, target, gone) == expected
    assert figures_of([1, 10, 11, 21]) == pytest.approx(
        {"hit@10": 0.5, "hit@20": 0.75, "ndcg@10": (1 + 1 / np.log2(11)) / 4}
    )
