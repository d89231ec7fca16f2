"""The rewards that the settings name, against loops; the set reward and its laws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from conrec.config import GrpoConfig, GrpoStageConfig
from conrec.items.trie import Trie
from conrec.llm.curriculum import clean
from conrec.llm.grpo_stage import train_stage
from conrec.llm.rewards import CoverageReward, FutureReward, PrefixReward, Similarity, hub_means, reward_of
from conrec.llm.rewards.coverage import coverage_gain
from tests.llm import world

ITEMS, ROWS, GROUP = 14, 3, 6
KINDS = ("negatives", "negatives_cut", "penalised", "penalised_cut", "prefix")


class Case:
    """Embeddings, semantic IDs, trained items, rollouts (some not drawn), GTS and FPS of one draw of chance."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        rebuilt = rng.normal((0.7, 0, 0), size=(ITEMS, 3))  # so that there are hubs
        self.rebuilt = (rebuilt / np.linalg.norm(rebuilt, axis=1, keepdims=True)).astype(np.float32)
        number = rng.permutation(27)[:ITEMS]
        self.codes = np.stack([number // 9, number // 3 % 3, number % 3], axis=1)
        self.trained = rng.random(ITEMS) < 0.7
        self.trained[0] = True
        self.items = rng.integers(ITEMS, size=(ROWS, GROUP))
        self.missing = rng.random((ROWS, GROUP)) < 0.3
        self.gts = [rng.choice(ITEMS, rng.integers(1, 5), replace=False).astype(np.int32) for _ in range(ROWS)]
        self.fps = [rng.choice(ITEMS, rng.integers(0, 4), replace=False).astype(np.int32) for _ in range(ROWS)]

    @property
    def logs(self) -> torch.Tensor:
        """-1, and -inf where nothing was drawn."""
        return torch.full((ROWS, GROUP), -1.0).masked_fill(torch.from_numpy(self.missing), -torch.inf)

    def reward(self, config: GrpoConfig) -> torch.Tensor:
        """What is tested."""
        trie = Trie.from_codes(torch.from_numpy(self.codes), 3)
        reward = reward_of(config, torch.from_numpy(self.rebuilt), trie, self.trained)
        return reward(torch.from_numpy(self.items), self.gts, self.fps, self.logs)

    def sim(self, config: GrpoConfig, o: int, i: int) -> float:
        """By its definition, a mean over all trained items one by one."""
        found = float(self.rebuilt[o] @ self.rebuilt[i])
        if config.hub_corrected:
            found -= float(np.mean([self.rebuilt[o] @ self.rebuilt[j] for j in np.flatnonzero(self.trained)]))
        return found

    def single(self, config: GrpoConfig, row: int, o: int) -> float:
        """Reward of an item by itself."""
        if config.reward == "prefix":
            worth = 0.0
            for i in self.gts[row]:
                own, wanted = self.codes[o].tolist(), self.codes[i].tolist()
                if own == wanted:
                    worth = max(worth, 1.0)
                elif own[:2] == wanted[:2]:
                    worth = max(worth, 0.1)
                elif own[0] == wanted[0]:
                    worth = max(worth, 0.01)
            return worth

        def counted(targets):
            best = max(self.sim(config, o, int(i)) for i in targets)
            return best if not config.reward.endswith("_cut") or best > config.reward_cutoff else 0.0

        value = counted(self.gts[row])
        if config.reward.startswith("penalised") and len(self.fps[row]):
            value -= config.penalty * counted(self.fps[row])
        return value

    def coverage(self, config: GrpoConfig, row: int, chosen: list[int]) -> float:
        """F of some rollouts."""
        return float(
            np.mean([max([0.0, *(self.sim(config, o, int(i)) for o in chosen)]) for i in self.gts[row].tolist()])
        )

    def gain(self, config: GrpoConfig, row: int, column: int) -> float:
        """F(S) - F(S without o)."""
        if self.missing[row, column]:
            return 0.0
        drawn = [place for place in range(GROUP) if not self.missing[row, place]]
        whole = [int(self.items[row, place]) for place in drawn]
        rest = [int(self.items[row, place]) for place in drawn if place != column]
        return self.coverage(config, row, whole) - self.coverage(config, row, rest)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    penalty=st.floats(0, 2),
    cutoff=st.floats(0, 0.9),
    hubs=st.booleans(),
    coverage=st.sampled_from([0.0, 0.5, 3.0]),
)
def test_each_kind_is_its_formula(kind, seed, penalty, cutoff, hubs, coverage):
    hubs = hubs and (kind != "prefix" or coverage > 0)
    config = GrpoConfig(reward=kind, penalty=penalty, reward_cutoff=cutoff, hub_corrected=hubs, coverage=coverage)
    case = Case(seed)
    # At the cut-off itself rounding decides.
    everything = range(ITEMS)
    if min(abs(case.sim(config, o, i) - cutoff) for o in everything for i in everything) < 1e-5:
        return
    found = case.reward(config)
    assert found.isfinite().all()
    for row in range(ROWS):
        for column in range(GROUP):
            wanted = case.single(config, row, int(case.items[row, column]))
            wanted += coverage * case.gain(config, row, column)
            assert float(found[row, column]) == pytest.approx(wanted, abs=2e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_default_is_what_it_was_to_the_bit(seed):
    case = Case(seed)
    rebuilt, items = torch.from_numpy(case.rebuilt), torch.from_numpy(case.items)

    def nearest(targets):
        width = max([len(row) for row in targets] + [1])
        padded = torch.full((len(targets), width), -1, dtype=torch.long)
        for row, target in enumerate(targets):
            padded[row, : len(target)] = torch.as_tensor(target, dtype=torch.long)
        similarity = rebuilt[items] @ rebuilt[padded.clamp(min=0)].transpose(1, 2)
        return similarity.masked_fill((padded < 0)[:, None], -torch.inf).amax(-1)

    liked = nearest(case.fps)
    wanted = nearest(case.gts) - 0.5 * liked.masked_fill(liked.isinf(), 0.0)
    assert case.reward(GrpoConfig()).equal(wanted)


def test_the_default_reward_is_the_papers(rebuilt, trie):
    reward = reward_of(GrpoConfig(), rebuilt, trie, np.ones(world.ITEMS, dtype=bool))
    assert isinstance(reward, FutureReward)
    assert (reward.penalty, reward.cutoff, reward.similarity.hubs) == (0.5, None, None)


def gains(case: Case, items: np.ndarray, logs: torch.Tensor | None = None) -> torch.Tensor:
    return coverage_gain(Similarity(torch.from_numpy(case.rebuilt)), torch.from_numpy(items), case.gts, logs)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_laws_of_the_gain(seed):
    case = Case(seed)
    found = gains(case, case.items, case.logs)
    assert (found >= 0).all()
    assert (found <= 1 + 1e-5).all()
    assert (found[torch.from_numpy(case.missing)] == 0).all()
    # The gains together are at most the coverage: F is submodular.
    for row in range(ROWS):
        drawn = case.items[row][~case.missing[row]].tolist()
        assert float(found[row].sum()) <= case.coverage(GrpoConfig(), row, drawn) + 1e-5
    # Nor does the order matter, or which items stand where nothing was drawn.
    order = np.random.default_rng(seed).permutation(GROUP)
    torch.testing.assert_close(gains(case, case.items[:, order], case.logs[:, order]), found[:, order])
    other = np.where(case.missing, (case.items + 1) % ITEMS, case.items)
    torch.testing.assert_close(gains(case, other, case.logs), found)
    # What is drawn again gains nothing, to the last bit, and neither does its first copy; nobody else gains more.
    twice = np.concatenate([case.items, case.items[:, :1]], axis=1)
    again, once = gains(case, twice), gains(case, case.items)
    assert (again[:, [0, -1]] == 0).all()
    assert (again[:, 1:-1] <= once[:, 1:] + 1e-6).all()


def test_whoever_covers_what_nobody_covers_gains():
    similarity = Similarity(torch.eye(4))
    items = torch.tensor([[0, 0, 1, 3], [2, 2, 2, 2]])
    found = coverage_gain(similarity, items, [np.array([0, 1]), np.array([2])])
    assert found.tolist() == [[0.0, 0.0, 0.5, 0.0], [0.0] * 4]
    nothing = torch.full((2, 4), -torch.inf)
    assert coverage_gain(similarity, items, [np.array([0, 1]), np.array([2])], nothing).tolist() == [[0.0] * 4] * 2
    alone = coverage_gain(similarity, torch.tensor([[2]]), [np.array([2, 3])])
    assert alone.tolist() == [[0.5]]


def test_expected_gains_are_the_gradient_of_the_expected_coverage():
    """Three independent draws from a policy over four items, all 64 groups enumerated."""
    case = Case(5)
    targets = [np.array([4, 9, 11])]
    similarity = Similarity(torch.from_numpy(case.rebuilt))
    logits = torch.tensor([0.3, -0.2, 0.9, 0.1], dtype=torch.float64, requires_grad=True)
    logs = logits.log_softmax(0)
    groups = torch.cartesian_prod(*[torch.arange(4)] * 3)
    probability = logs[groups].sum(1).exp()
    gain = coverage_gain(similarity, groups, targets * 64).double()
    paid = (probability.detach()[:, None] * gain * logs[groups]).sum()
    case.gts = targets
    worth = [case.coverage(GrpoConfig(), 0, group) for group in groups.tolist()]
    expected = (probability * torch.tensor(worth, dtype=torch.float64)).sum()
    (found,) = torch.autograd.grad(paid, logits, retain_graph=True)
    (wanted,) = torch.autograd.grad(expected, logits)
    assert wanted.abs().max() > 1e-3
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


def test_a_hub_is_near_to_everything_and_gains_nothing_by_it():
    """Item 0 is as near to all six others as it can be, and beats whoever guessed the wrong corner."""
    corners = torch.cat([torch.eye(3), -torch.eye(3)])[:, :3]
    lifted = torch.nn.functional.normalize(torch.cat([corners, torch.full((6, 1), 1.0)], dim=1), dim=1)
    rebuilt = torch.cat([torch.tensor([[0.0, 0.0, 0.0, 1.0]]), lifted])
    counted = np.ones(7, dtype=bool)
    hubs = hub_means(rebuilt, counted)
    torch.testing.assert_close(hubs, (rebuilt @ rebuilt.T).mean(1))
    assert hubs.argmax() == 0
    items, gts = torch.tensor([[0, 2]]), [np.array([1])]
    plain = FutureReward(Similarity(rebuilt), 0.0)(items, gts, [np.array([])])
    corrected = FutureReward(Similarity(rebuilt, hubs), 0.0)(items, gts, [np.array([])])
    torch.testing.assert_close(corrected, plain - hubs[items])
    assert plain[0, 0] - plain[0, 1] > corrected[0, 0] - corrected[0, 1]
    # With gamma = 1 the correction cancels, as documented.
    whole = [FutureReward(Similarity(rebuilt, one), 1.0)(items, gts, [np.array([3])]) for one in (None, hubs)]
    torch.testing.assert_close(*whole)
    with pytest.raises(ValueError, match="no item"):
        hub_means(rebuilt, np.zeros(7, dtype=bool))


def test_a_fourth_level_is_not_asked():
    trie = Trie.from_codes(
        torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0]]), (2,) * 4
    )
    found = PrefixReward(trie)(torch.arange(5)[None], [np.array([1])], [np.array([1])])
    assert found[0].tolist() == pytest.approx([1.0, 1.0, 0.1, 0.01, 0.0])


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"reward": "hits"}, "reward"),
        ({"reward_cutoff": -0.1}, "reward_cutoff"),
        ({"reward_cutoff": 1.0}, "reward_cutoff"),
        ({"coverage": -1.0}, "coverage"),
        ({"coverage": float("inf")}, "coverage"),
        ({"coverage": float("nan")}, "coverage"),
        ({"penalty": float("inf")}, "penalty"),
        ({"reward": "prefix", "hub_corrected": True}, "hub_corrected corrects similarities.*coverage above 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(bad, said):
    with pytest.raises(ValidationError, match=said):
        GrpoConfig(**bad)


def test_a_correction_of_the_coverage_alone_is_meant():
    case = Case(3)
    found, plain = (case.reward(GrpoConfig(reward="prefix", coverage=2.0, hub_corrected=one)) for one in (True, False))
    assert not found.equal(plain)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stage_trains_with_each(kind, backbone, stage, samples, trie, rebuilt):
    config = GrpoConfig(
        reward=kind,
        reward_cutoff=0.3,
        coverage=0.5,
        hub_corrected=True,
        group_size=6,
        batch_size=4,
        learning_rate=3e-3,
        evaluations=2,
    )
    stage.reward = reward_of(config, rebuilt, trie, np.ones(world.ITEMS, dtype=bool))
    assert isinstance(stage.reward, CoverageReward)
    few = samples.select(np.arange(8))
    few, _ = clean(backbone, stage, few, Similarity(rebuilt), 0.5, 8)
    stage_config = GrpoStageConfig(context="both", kl_weight=0.1)
    before = [one.clone() for one in backbone.model.parameters()]
    curve = train_stage(backbone, backbone.clone(), stage, few, few, config, stage_config, 0, "")
    assert all(np.isfinite(value) for points in curve.series.values() for _, value in points)
    assert any(not one.equal(old) for one, old in zip(backbone.model.parameters(), before, strict=True))


def test_coverage_keeps_a_group_wide(stage, samples):
    """By similarity alone eight rollouts become two items in 25 steps; paid by the gain as well they stay several."""
    several = np.flatnonzero([len(row) > 1 for row in samples.gts])[:6]
    again = samples.select(np.tile(several, 25))
    wide = []
    for weight in (0.0, 8.0):
        policy = world.backbone()
        config = GrpoConfig(
            reward="negatives", coverage=weight, group_size=8, batch_size=6, learning_rate=5e-3, evaluations=2
        )
        one = replace(stage, reward=reward_of(config, world.rebuilt(), stage.trie, np.ones(world.ITEMS, dtype=bool)))
        stage_config = GrpoStageConfig(context="both", kl_weight=0.0)
        none = again.select(np.arange(0))
        curve = train_stage(policy, policy.clone(), one, again, none, config, stage_config, 0, "")
        wide.append(float(np.mean([value for _, value in curve.series["distinct_items"][-5:]])))
    assert wide[0] < 2.5
    assert wide[1] > wide[0] + 1
