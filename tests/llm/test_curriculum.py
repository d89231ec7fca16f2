"""The contexts that GRPO learns from: what is blocked, what is drawn, what is cleaned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conrec.errors import ConrecError
from conrec.llm.curriculum import RewardSamples, blocked_items, clean, draw_samples
from conrec.llm.rewards import PrefixReward, Similarity
from conrec.logs.anchors import build_anchors
from conrec.protocol import DAY


def test_history_is_blocked_unless_it_may_return(log):
    time = int(log.timestamp[100])
    users, times = np.arange(6), np.full(6, time)
    blocked = blocked_items(log, users, times, history_eligible=False)
    for user in range(6):
        assert set(blocked[user].tolist()) - {-1} == set(log.item[log.history(user, time)].tolist())
    assert (blocked_items(log, users, times, history_eligible=True) == -1).all()


def negatives(anchors):
    """Future negatives without neighbours."""
    return anchors.future_negatives


def test_samples_have_something_to_show(log, periods, prompts):
    anchors = build_anchors(log, periods, 7 * DAY).of_split("train")
    for context in ("recent", "negative", "both"):
        drawn = draw_samples(anchors, negatives, prompts, log, context, 15, seed=0)
        assert len(drawn) == 15
        for user, time in zip(drawn.user.tolist(), drawn.timestamp.tolist(), strict=True):
            assert len(prompts.select(log, user, time, context))
        again = draw_samples(anchors, negatives, prompts, log, context, 15, seed=0)
        assert again.timestamp.tolist() == drawn.timestamp.tolist()


def test_cleaning_augments_what_the_model_takes_for_a_dislike(backbone, stage, samples, rebuilt):
    cosine = Similarity(rebuilt)
    untouched, none = clean(backbone, stage, samples, cosine, similarity=1.1, batch_size=8)
    assert none == 0
    assert len(untouched) == len(samples)
    cleaned, augmented = clean(backbone, stage, samples, cosine, similarity=0.5, batch_size=8)
    assert 0 < augmented <= len(samples)
    assert len(cleaned) == len(samples) + augmented
    for row in range(len(samples)):
        added = np.setdiff1d(cleaned.fps[row], samples.fps[row])
        assert not np.isin(added, samples.gts[row]).any()
        for item in added.tolist():
            near = (rebuilt[item] @ rebuilt[torch.from_numpy(samples.fps[row].astype(np.int64))].T).max()
            assert float(near) > 0.5
    twice = [(int(u), int(t)) for u, t in zip(cleaned.user, cleaned.timestamp, strict=True)][len(samples) :]
    assert all(
        any((int(u), int(t)) == one for u, t in zip(samples.user, samples.timestamp, strict=True)) for one in twice
    )


def test_cleaning_does_not_hang_on_the_reward(backbone, stage, samples, rebuilt):
    cosine = Similarity(rebuilt)
    one, augmented = clean(backbone, stage, samples, cosine, similarity=0.5, batch_size=8)
    stage.reward = PrefixReward(stage.trie)
    other, again = clean(backbone, stage, samples, cosine, similarity=0.5, batch_size=8)
    assert 0 < augmented == again
    assert [row.tolist() for row in one.fps] == [row.tolist() for row in other.fps]
    assert one.timestamp.tolist() == other.timestamp.tolist()


def test_samples_can_be_selected(samples):
    part = samples.select(np.asarray([3, 1]))
    assert isinstance(part, RewardSamples)
    assert part.timestamp.tolist() == [int(samples.timestamp[3]), int(samples.timestamp[1])]
    assert part.gts[0].tolist() == samples.gts[3].tolist()


def test_neighbours_are_looked_up_for_the_drawn_alone(log, periods, prompts):
    anchors = build_anchors(log, periods, 7 * DAY).of_split("train")
    asked = []

    def gts(drawn):
        asked.append(len(drawn))
        return drawn.future_negatives

    drawn = draw_samples(anchors, gts, prompts, log, "both", 5, seed=0)
    assert asked == [5]
    assert len(drawn) == 5 < len(anchors)
    for row in range(5):
        same = (anchors.user == drawn.user[row]) & (anchors.timestamp == drawn.timestamp[row])
        known = [anchors.future_negatives[int(one)].tolist() for one in np.flatnonzero(same)]
        assert drawn.gts[row].tolist() in known


def test_no_anchor_with_anything_to_show_is_said(log, periods, prompts):
    anchors = build_anchors(log, periods, 7 * DAY).of_split("train")
    with pytest.raises(ConrecError, match=r"grpo\.stages: no training anchor.*'recent'"):
        draw_samples(anchors.select(np.empty(0, dtype=np.int64)), negatives, prompts, log, "recent", 5, seed=0)
