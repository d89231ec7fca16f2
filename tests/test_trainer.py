"""What the trainer asks of the rooms: the settings that reach them."""

from __future__ import annotations

from itertools import pairwise
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from conrec import training
from conrec.config import PromptConfig, load_config
from conrec.llm.prompts import PromptBuilder
from conrec.llm.recommender import GenerativeRecommender
from conrec.llm.rewards import CoverageReward, PrefixReward, hub_means
from conrec.logs.anchors import build_anchors
from conrec.processes import Processes
from conrec.protocol import DAY
from conrec.training import Trainer
from conrec.watched import Watched
from conrec.workspace import Workspace
from tests.llm import world


@pytest.mark.parametrize(("micro", "read"), [(None, 12), (5, 5)])
def test_cleaning_reads_no_more_at_a_time_than_a_step_does(monkeypatch, tmp_path, micro, read):
    """`grpo.micro_batch_size` bounds the memory of a stage, its cleaning included."""
    policy = world.backbone()
    samples = world.samples(world.stage(policy))
    asked = []

    def noted(_, __, drawn, ___, ____, batch_size, processes):
        asked.append((batch_size, processes.world))
        return drawn, 0

    monkeypatch.setattr(training, "clean", noted)
    monkeypatch.setattr(training, "draw_samples", lambda *_: samples)
    monkeypatch.setattr(training, "train_stage", lambda *_, **__: None)
    grpo = {"batch_size": 12} if micro is None else {"batch_size": 12, "micro_batch_size": micro}
    space = Mock(spec=Workspace)
    space.folder = tmp_path
    space.config = load_config("tiny", overrides={"grpo": grpo})
    space.prepared = Mock(log=world.log())
    space.trie, space.rebuilt = world.trie(), world.rebuilt()
    space.trained_items = np.ones(world.ITEMS, dtype=bool)
    space.backbone.return_value = policy
    space.prompts.return_value = PromptBuilder(policy, world.codes(), PromptConfig(max_events=12))
    Trainer(space, Processes(rank=1, world=2)).grpo("conrec-grpo-2", "conrec-grpo-1", 1)
    assert asked == [(read, 2)]


def test_the_settings_name_the_reward_and_cleaning_asks_plain_cosines(monkeypatch, tmp_path):
    """A stage of hits with coverage, of mean similarities to the items of the training period."""
    policy = world.backbone()
    stages, cosines = [], []
    monkeypatch.setattr(training, "draw_samples", lambda *_: world.samples(world.stage(policy)))
    monkeypatch.setattr(training, "train_stage", lambda *given, **_: stages.append(given[2]))

    def cleaned(backbone, stage, samples, cosine, *_):
        cosines.append(cosine)
        return samples, 0

    monkeypatch.setattr(training, "clean", cleaned)
    space = Mock(spec=Workspace)
    space.folder = tmp_path
    grpo = {"reward": "prefix", "coverage": 2.0, "hub_corrected": True}
    space.config = load_config("tiny", overrides={"grpo": grpo})
    space.prepared = Mock(log=world.log())
    space.trie, space.rebuilt = world.trie(), world.rebuilt()
    space.trained_items = np.arange(world.ITEMS) < 30
    space.backbone.return_value = policy
    space.prompts.return_value = PromptBuilder(policy, world.codes(), PromptConfig(max_events=12))
    Trainer(space, Processes(rank=1, world=2)).grpo("conrec-grpo-2", "conrec-grpo-1", 1)
    reward = stages[0].reward
    assert isinstance(reward, CoverageReward)
    assert isinstance(reward.reward, PrefixReward)
    assert reward.weight == 2.0
    assert reward.similarity.hubs.equal(hub_means(world.rebuilt(), space.trained_items))
    assert cosines[0].hubs is None
    assert cosines[0].rebuilt is space.rebuilt


def test_watched_lists_are_those_of_the_model_anchor_by_anchor():
    """Each figure against the lists of one anchor at a time, and the same anchors for every model."""
    policy, other = world.backbone(), world.backbone()
    with torch.no_grad():
        other.model.lm_head.weight.add_(0.3)
    anchors = build_anchors(world.log(), world.periods(world.log()), 7 * DAY).of_split("train")
    space = Mock(spec=Workspace)
    space.config = load_config("tiny", overrides={"evaluation": {"top_k": 4}})
    space.prepared = Mock(log=world.log())
    space.dislikes.return_value = anchors
    space.prompts.side_effect = lambda own: PromptBuilder(own, world.codes(), PromptConfig(max_events=12))

    def generative(own, context):
        return GenerativeRecommender(own, space.prompts(own), world.trie(), context, batch_size=8)

    space.generative.side_effect = generative
    watched = Watched(space, ["negative", "both"], 10)
    found = [watched(one) for one in (policy, other)]
    assert found[0] != found[1]
    for own, values in zip((policy, other), found, strict=True):
        for context in ("negative", "both"):
            drawn = watched._drawn[context]
            assert len(drawn) == 10
            hits, future, listed = [], [], set()
            for row in range(10):
                one = drawn.select(np.asarray([row]))
                assert len(space.prompts(own).select(world.log(), int(one.user[0]), int(one.timestamp[0]), context))
                top = generative(own, context).predict(world.log(), one.queries, 50).item[0]
                hits.append([int(one.next_item[0]) in top[:4], int(one.next_item[0]) in top])
                future.append(bool(set(top[:4].tolist()) & set(one.future_negatives[0].tolist())))
                listed |= set(top[:4].tolist()) - {-1}
            assert values[f"validation_hr@4 {context}"] == np.mean([short for short, _ in hits])
            assert values[f"validation_hr@50 {context}"] == np.mean([long for _, long in hits])
            assert values[f"validation_fhr@4 {context}"] == np.mean(future)
            assert values[f"items_in_lists {context}"] == len(listed)


def test_a_stage_watches_its_own_context_and_that_of_the_stage_before():
    space = Mock(spec=Workspace)
    grpo = {"keep": "best", "kl_rule": "hold", "kl_tolerance": 0.02, "narrowest": 0.3}
    space.config = load_config("tiny", overrides={"grpo": grpo})
    trainer = Trainer(space)
    watches = [trainer._watch(world.backbone(), number) for number in range(3)]
    kept = [tuple(name.rpartition(" ")[2] for name in one.kept) for one in watches]
    assert kept == [("recent", "both"), ("negative", "recent"), ("both", "negative")]
    assert all(one.held == one.kept and one.tolerance == 0.02 and one.narrowest == 0.3 for one in watches)
    assert [len(one.widths) for one in watches] == [2, 2, 2]
    space.config = load_config("tiny")
    plain = trainer.__class__(space)._watch(world.backbone(), 0)
    assert (plain.kept, plain.held, plain.narrowest) == ((), (), 0.0)
    space.config = load_config("tiny", overrides={"grpo": {"watched": 0}})
    assert Trainer(space)._watch(world.backbone(), 0) is None


@pytest.fixture
def space(prepared_folder, tmp_path):
    """The workspace of a prepared log, with settings of GRPO."""

    def of(**grpo: object) -> Workspace:
        return Workspace(prepared_folder, load_config("tiny", overrides={"grpo": grpo}))

    return of


def test_each_kind_of_target_holds_the_one_before(space):
    """The next negative, those of the window, and these with their neighbours: GTS, which is the default."""
    anchors = space().prepared.anchors.of_split("train")
    one, window, swing = (list(space(targets=kind).targets(anchors)) for kind in ("next", "future", "swing"))
    assert [row.tolist() for row in one] == [[item] for item in anchors.next_item.tolist()]
    assert all(row.tolist() == future.tolist() for row, future in zip(window, anchors.future_negatives, strict=True))
    assert all(set(a) <= set(b) <= set(c) for a, b, c in zip(one, window, swing, strict=True))
    assert [row.tolist() for row in space().targets(anchors)] == [row.tolist() for row in swing]


def test_windows_of_another_length_belong_to_the_same_dislikes(space):
    """A window of a day is the part of a longer one that lies within a day; no window leaves its period."""
    own = space()
    week = own.dislikes("train", own.config.protocol.horizon_days)
    assert week.anchor_id.tolist() == own.prepared.anchors.of_split("train").anchor_id.tolist()
    log, periods = own.prepared.log, own.prepared.periods
    for split, begin, end in (("train", 0, periods.validation), ("validation", periods.validation, periods.test)):
        lengths = []
        for days in (1, 7, 31):
            anchors = own.dislikes(split, days)
            lengths.append(anchors.future_negatives.lengths)
            for user, at, window in zip(anchors.user, anchors.timestamp, anchors.future_negatives, strict=True):
                until = min(int(at) + days * DAY, end)
                rows = np.flatnonzero((log.user == user) & (log.timestamp >= at) & (log.timestamp < until))
                assert begin <= at < end
                assert set(window) <= set(log.item[rows][log.feedback[rows] < 0])
        assert all((short <= long).all() for short, long in pairwise(lengths))
        assert len(lengths[0]) > 0
