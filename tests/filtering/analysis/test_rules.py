"""The rules of platforms: small logs with obvious answers, plain transcriptions, and no look into the future."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.arrays import Ragged
from conrec.baselines.simple.popularity import LivePopularity, MostDisliked
from conrec.filtering.analysis.pairs import KINDS, Pairs, past_items
from conrec.filtering.analysis.rules import BlockGroup, Counted, NearDislikes, Rule, Shuffled, uniform
from conrec.filtering.vectors.table import ItemTable
from conrec.logs.anchors import Anchors
from conrec.logs.log import Log
from conrec.settings.baselines.simple import PopularityConfig
from tests.filtering.analysis.small_world import Event, anchors_of, log_of, unit

DRAMA, COMEDY, CRIME = range(3)
GROUPS = Ragged.from_rows([[DRAMA], [DRAMA, COMEDY], [COMEDY], [CRIME], [DRAMA, CRIME], []])
TABLE = ItemTable.build(unit(np.asarray([[1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0], [1, -1]], dtype=np.float64)))
EVENTS: list[Event] = [
    (0, 0, 10, -1),
    (0, 1, 20, -1),
    (0, 2, 30, 1),
    (0, 3, 100, -1),  # at the anchor's time: not yet known
    (1, 2, 40, 1),
    (1, 4, 90, -1),
]
ANCHORS = anchors_of(
    [
        (0, 100, [3, 4], [2, 5], [3]),
        (1, 100, [0, 1], [], [5]),
        (2, 100, [0, 2], [4], [1]),  # never seen before
    ]
)


def scores(rule: Rule, events: list[Event] = EVENTS, anchors: Anchors = ANCHORS) -> dict[tuple[int, int], float]:
    pairs = Pairs.of(anchors)
    found = rule.scores(log_of(events), anchors, pairs)
    assert found.dtype == np.float32
    assert (found >= rule.floor).all()
    return dict(zip(zip(pairs.anchor.tolist(), pairs.item.tolist(), strict=True), found.tolist(), strict=True))


def test_pairs_are_candidates_then_positives_then_negatives() -> None:
    pairs = Pairs.of(ANCHORS)
    listed = [
        (KINDS[kind], int(anchor), int(item))
        for kind, anchor, item in zip(pairs.kind, pairs.anchor, pairs.item, strict=True)
    ]
    assert listed[:3] == [("candidates", 0, 3), ("candidates", 0, 4), ("candidates", 1, 0)]
    assert [one for one in listed if one[0] == "positives"] == [
        ("positives", 0, 2),
        ("positives", 0, 5),
        ("positives", 2, 4),
    ]
    assert [one for one in listed if one[0] == "negatives"] == [
        ("negatives", 0, 3),
        ("negatives", 1, 5),
        ("negatives", 2, 1),
    ]
    assert pairs.table()[pairs.anchor, pairs.places].tolist() == pairs.item.tolist()
    assert np.sort(pairs.table()[0]).tolist() == [2, 3, 3, 4, 5]


def test_the_past_ends_before_the_anchor() -> None:
    assert [row.tolist() for row in past_items(log_of(EVENTS), ANCHORS, (-1,))] == [[0, 1], [4], []]
    assert [row.tolist() for row in past_items(log_of(EVENTS), ANCHORS, (-1, 1))] == [[0, 1, 2], [2, 4], []]


def test_blocking_a_category_counts_its_dislikes() -> None:
    found = scores(BlockGroup("block the category", "", GROUPS, "count"))
    assert found[0, 3] == 0  # Crime: nothing known before t = 100
    assert found[0, 4] == 2  # Drama twice, Crime never: the highest counts
    assert found[0, 2] == 1  # Comedy once
    assert found[0, 5] == 0  # no category
    assert (found[1, 0], found[1, 1]) == (1, 1)
    assert [value for (anchor, _), value in found.items() if anchor == 2] == [0, 0, 0, 0]


def test_shares_and_rates_of_a_category() -> None:
    share = scores(BlockGroup("", "", GROUPS, "share"))
    assert share[0, 4] == 1.0  # Drama: both of two dislikes
    assert share[0, 2] == 0.5
    rate = scores(BlockGroup("", "", GROUPS, "rate"))
    assert rate[0, 4] == pytest.approx(3 / 4)  # Drama: 2 dislikes of 2, (2 + 1) / (2 + 2)
    assert rate[0, 2] == pytest.approx(2 / 4)  # Comedy: 1 dislike and 1 like
    assert rate[1, 1] == pytest.approx(2 / 3)  # Drama by item 4
    assert rate[0, 3] == rate[2, 0] == 0.0


def test_neighbours_of_what_was_disliked() -> None:
    found = scores(NearDislikes("near past dislikes", "", TABLE))
    assert found[0, 3] == pytest.approx(0, abs=1e-4)  # at 90 degrees from item 1, at 135 from item 0
    assert found[0, 2] == pytest.approx(np.cos(np.pi / 4), abs=1e-4)
    assert found[1, 0] == pytest.approx(-1, abs=1e-4)
    assert found[2, 0] == -1.0  # nothing disliked before: the floor


def test_what_everybody_dislikes() -> None:
    training = log_of(EVENTS).before(50)
    found = scores(Counted("", "", MostDisliked.count(training)))
    assert (found[0, 4], found[1, 0], found[2, 1], found[2, 2]) == (0, 1, 1, 0)
    lately = scores(Counted("", "", LivePopularity(PopularityConfig(days=30, half_life_days=7))))
    assert lately[0, 4] == pytest.approx(1, abs=1e-3)
    assert lately[0, 3] == 0


def test_chance_gives_the_same_pair_the_same_number() -> None:
    rule = Shuffled("random", "", 3)
    found = scores(rule)
    fewer = anchors_of([(0, 100, [4, 3], [5], [3])])
    again = scores(rule, anchors=fewer)
    assert again == {pair: found[pair] for pair in again}
    many = uniform(0, "x", np.repeat(np.arange(200), 50), np.tile(np.arange(50), 200))
    assert 0 < many.min() < 0.001
    assert 0.999 < many.max() <= 1
    assert many.mean() == pytest.approx(0.5, abs=0.01)
    assert len(np.unique(many)) > 9_990
    assert not np.array_equal(many, uniform(1, "x", np.repeat(np.arange(200), 50), np.tile(np.arange(50), 200)))


def test_no_pairs_and_no_groups() -> None:
    nobody = anchors_of([])
    for rule in _rules(log_of(EVENTS)):
        assert len(rule.scores(log_of(EVENTS), nobody, Pairs.of(nobody))) == 0
    nothing = BlockGroup("", "", Ragged.from_rows([[]] * 6), "count")
    assert set(scores(nothing).values()) == {0.0}


def _rules(log: Log) -> list[Rule]:
    return [
        *(BlockGroup(one, "", GROUPS, one) for one in ("count", "share", "rate")),
        NearDislikes("", "", TABLE),
        Counted("", "", MostDisliked.count(log.before(30))),
        Counted("", "", LivePopularity(PopularityConfig(days=1, half_life_days=1))),
        Shuffled("", "", 0),
    ]


events = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(0, 120), st.sampled_from([-1, 0, 1])), max_size=25
)


@given(events, events)
@settings(deadline=None, max_examples=60)
def test_no_rule_reads_what_comes_at_the_anchor_or_after(past: list[Event], later: list[Event]) -> None:
    anchors = anchors_of([(0, 60, [0, 1, 2], [3], [4]), (1, 60, [3, 4, 5], [0, 1], [2]), (2, 60, [5], [], [0])])
    past = [(user, item, time % 60, sign) for user, item, time, sign in past]
    after = [(user, item, 60 + time, sign) for user, item, time, sign in later]
    for one, other in zip(_rules(log_of(past)), _rules(log_of(past + after)), strict=True):
        assert scores(one, past, anchors) == scores(other, past + after, anchors)


@given(events)
@settings(deadline=None, max_examples=60)
def test_blocking_is_what_it_says(given_events: list[Event]) -> None:
    """A transcription in plain Python, one anchor and item after another."""
    anchors = anchors_of([(user, 60, [0, 1, 2, 3, 4, 5], [], [0]) for user in range(3)])
    counts = scores(BlockGroup("", "", GROUPS, "count"), given_events, anchors)
    shares = scores(BlockGroup("", "", GROUPS, "share"), given_events, anchors)
    rates = scores(BlockGroup("", "", GROUPS, "rate"), given_events, anchors)
    for anchor in range(3):
        past = [one for one in given_events if one[0] == anchor and one[2] < 60]
        disliked = [item for _, item, _, sign in past if sign == -1]
        count = Counter(int(group) for item in disliked for group in GROUPS[item])
        met = Counter(int(group) for _, item, _, sign in past if sign for group in GROUPS[item])
        for item in range(6):
            there = [group for group in GROUPS[item].tolist() if count[group]]
            assert counts[anchor, item] == max((count[group] for group in there), default=0)
            assert shares[anchor, item] == pytest.approx(max((count[one] / len(disliked) for one in there), default=0))
            expected = max(((count[one] + 1) / (met[one] + 2) for one in there), default=0)
            assert rates[anchor, item] == pytest.approx(expected)
