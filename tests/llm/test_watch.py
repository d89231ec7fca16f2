"""What a stage of GRPO is held to: the rules on curves, and a stage that keeps, holds back and ends by them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conrec.config import GrpoConfig, GrpoStageConfig
from conrec.llm import grpo_stage
from conrec.llm.checkpoints import Checkpoints
from conrec.llm.course import Curve
from conrec.llm.grpo_stage import train_stage
from conrec.llm.watch import KL_WEIGHT, LEAST, MOST, Watch
from tests.llm import world
from tests.llm.test_checkpoints import KEPT, KILLED


def curve(**series):
    """Curves of values at steps 0, 5, 10, …"""
    return Curve(
        {name: [(5 * at, value) for at, value in enumerate(map(float, values))] for name, values in series.items()}
    )


def nothing():
    return {}


def betas(fhr, first, tolerance=0.0):
    """Beta after each evaluation."""
    watch, grown = Watch(nothing, held=("fhr",), tolerance=tolerance), Curve()
    for step, value in enumerate(fhr):
        grown.add("fhr", step, value)
        grown.add(KL_WEIGHT, step, watch.kl_weight(grown, first))
    return [value for _, value in grown.series[KL_WEIGHT]]


def test_beta_doubles_while_something_is_lost_and_comes_back():
    assert betas([0.4, 0.3, 0.2, 0.39, 0.4, 0.5, 0.6], 0.5) == [0.5, 1.0, 2.0, 4.0, 2.0, 1.0, 0.5]
    assert betas([0.4, 0.39, 0.3], 0.5, tolerance=0.02) == [0.5, 0.5, 1.0]
    assert betas([0.4, 0.3, 0.3, 0.4, 0.4], 0.0) == [0.0, LEAST, 2 * LEAST, LEAST, LEAST / 2]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(0, 4))
def test_beta_stays_between_what_the_stage_began_with_and_a_bound(fhr, first):
    found = betas(fhr, first)
    assert found[0] == first
    assert all(first <= one <= MOST * max(first, LEAST) for one in found)
    if min(fhr) >= fhr[0]:
        assert set(found) == {first}


def test_of_two_contexts_either_makes_beta_grow():
    watch = Watch(nothing, held=("one", "two"))
    assert watch.kl_weight(curve(one=[0.4, 0.5], two=[0.4, 0.3]), 1.0) == 2.0
    assert watch.kl_weight(curve(one=[0.4, 0.4], two=[0.4, 0.4]), 1.0) == 1.0


def test_lists_are_narrow_where_any_context_has_too_few_items():
    watch = Watch(nothing, kept=("one",), widths=("a", "b"), narrowest=0.5)
    values = {"one": [0.1, 0.7], "a": [100, 90]}
    assert not watch.narrowed(curve(**values, b=[100, 50]))
    assert watch.narrowed(curve(**values, b=[100, 49]))
    assert watch.worth(curve(**values, b=[100, 50])) == 0.7
    assert watch.worth(curve(**values, b=[100, 49])) is None
    assert not Watch(nothing, widths=("a",)).narrowed(curve(a=[100, 0]))
    assert not watch.narrowed(Curve())


def test_what_a_state_is_worth():
    found = curve(one=[0.1, 0.7], two=[0.2, 0.1], a=[10, 9])
    assert Watch(nothing, kept=("one", "two")).worth(found) == pytest.approx(0.8)
    assert Watch(nothing, widths=("a",)).worth(found) is None, "the last state is kept without being copied"
    assert Watch(nothing, widths=("a",), narrowest=0.5).worth(found) == 5.0, "the later the better"


@pytest.mark.parametrize("rule", [{"keep": "best"}, {"kl_rule": "hold"}, {"narrowest": 0.5}])
def test_rules_need_something_to_watch(rule):
    with pytest.raises(ValueError, match="set watched above 0"):
        GrpoConfig(watched=0, **rule)
    assert GrpoConfig(**rule).watched


def a_stage(watch, checkpoints=None, kl_weight=0.05, evaluations=3):
    """Twelve steps; weights, curves, and the weights at each evaluation."""
    backbone = world.backbone()
    stage = world.stage(backbone)
    few = world.samples(stage)
    states = []

    def measure():
        states.append({name: one.clone() for name, one in backbone.model.state_dict().items()})
        return watch.measure()

    held = Watch(measure, watch.kept, watch.held, watch.tolerance, watch.widths, watch.narrowest)
    config = GrpoConfig(group_size=4, batch_size=2, learning_rate=1e-2, evaluations=evaluations)
    stage_config = GrpoStageConfig(context="both", kl_weight=kl_weight)
    found = train_stage(
        backbone, None, stage, few, few, config, stage_config, 3, "test", watch=held, checkpoints=checkpoints
    )
    return backbone.model.state_dict(), found.series, states


def given_values(name, values):
    """A measure that gives these in turn."""
    left = iter(values)
    return lambda: {name: next(left)}


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_stage_ends_where_its_lists_are_narrow_and_keeps_what_was_before(capsys):
    watch = Watch(given_values("items", [100.0, 80.0, 30.0]), widths=("items",), narrowest=0.5)
    weights, curves, states = a_stage(watch, evaluations=4)
    assert len(states) == 3
    assert same(weights, states[1])
    assert not same(weights, states[2])
    assert [step for step, _ in curves["items"]] == [0, 4, 8]
    assert [step for step, _ in curves["loss"]] == list(range(1, 9))
    assert "test ends after step 8 of 12" in capsys.readouterr().err


def test_a_stage_that_only_watches_is_the_stage_that_does_not():
    plain, _, _ = a_stage(Watch(lambda: {"fhr": 0.0}))
    weights, curves, states = a_stage(Watch(given_values("fhr", [0.3, 0.2, 0.1]), widths=("fhr",)))
    assert same(weights, plain)
    assert same(weights, states[-1])
    assert KL_WEIGHT not in curves


def test_beta_of_the_rule_is_that_of_the_loss(monkeypatch):
    used = []
    step = grpo_stage.train_step

    def noted(*given, **named):
        used.append(given[6])
        return step(*given, **named)

    monkeypatch.setattr(grpo_stage, "train_step", noted)
    _, curves, _ = a_stage(Watch(given_values("fhr", [0.3, 0.2, 0.3]), held=("fhr",)))
    assert used == [0.05] * 6 + [0.1] * 6
    assert curves[KL_WEIGHT] == [(0, 0.05), (6, 0.1), (12, 0.05)]


class Stopping(Checkpoints):
    """Writes after one step, and stops the stage at once after a later one (SIGKILL: `tests.llm.test_checkpoints`)."""

    def keep(self, running, step):
        self.every = 0.0 if step == KEPT else math.inf
        super().keep(running, step)
        if step == KILLED:
            raise KeyboardInterrupt


def test_a_stopped_stage_goes_on_under_the_same_rules(tmp_path):
    """Stopped behind the evaluation that doubled beta, and before the one that ends the stage."""
    values = {"fhr": [0.3, 0.2, 0.4, 0.5], "items": [100.0, 90.0, 80.0, 10.0]}

    def work(checkpoints=None, skip=0):
        left = {name: iter(one[skip:]) for name, one in values.items()}
        watch = Watch(
            lambda: {name: next(one) for name, one in left.items()},
            held=("fhr",),
            widths=("items",),
            narrowest=0.5,
        )
        return a_stage(watch, checkpoints, evaluations=5)[:2]

    weights, curves = work()
    with pytest.raises(KeyboardInterrupt):
        work(Stopping(tmp_path))
    again, curves_again = work(Checkpoints(tmp_path, math.inf), skip=2)
    assert curves_again == curves
    assert [step for step, _ in curves["items"]] == [0, 3, 6, 9]
    assert same(weights, again)
