"""Grids and proposals: no point twice, small grids whole, the configured settings first, the same after a stop."""

from __future__ import annotations

import tomllib
from itertools import product

import numpy as np
import pytest

from conrec.baselines.registry import REGISTRY
from conrec.comparing.grids import Grid, grid_of, identity, with_settings
from conrec.comparing.journal import Trial
from conrec.comparing.origin import section_of, settings_of
from conrec.comparing.proposals import STARTUP, propose
from conrec.config import Config, dump_config, load_config
from conrec.errors import ConfigError

WORDS = Grid(
    "baselines.x",
    {"kind": ("a", "b", "c"), "size": (1, 2, 4), "on": (True, False)},
    {"kind": "b", "size": 2, "on": True},
)
OFF = Grid("baselines.x", {"rate": (0.1, 0.2)}, {"rate": 0.15})


def searched(grid, budget, judge=lambda point: 0.5, seed=0, trials=()):
    """The trials of a search that judges points by a function."""
    trials = list(trials)
    while len(trials) < budget:
        point = propose(grid, trials, "row", seed)
        if point is None:
            break
        trials.append(Trial(point, judge(point)))
    return trials


def test_the_configured_settings_come_first_and_no_point_twice():
    trials = searched(WORDS, 18)
    assert trials[0].settings == WORDS.first
    assert len({identity(one.settings) for one in trials}) == 18
    assert propose(WORDS, trials, "row", 0) is None


def test_a_grid_smaller_than_the_budget_is_searched_whole():
    trials = searched(WORDS, 1000)
    every = {identity(dict(zip(WORDS.fields, one, strict=True))) for one in product(*WORDS.fields.values())}
    assert {identity(one.settings) for one in trials} == every
    assert WORDS.size == 18


def test_configured_settings_off_the_grid_are_one_more_point():
    assert OFF.size == 3
    assert sorted(one.settings["rate"] for one in searched(OFF, 9)) == [0.1, 0.15, 0.2]


def test_whole_numbers_are_the_same_point_as_floats():
    assert identity({"rate": 1}) == identity({"rate": 1.0})
    assert identity({"on": True}) != identity({"on": 1})
    assert Grid("s", {"rate": (1, 2)}, {"rate": 1.0}).size == 2


def test_a_proposal_follows_from_the_trials_before_it():
    def judge(point):
        return point["size"] / 10 + (point["kind"] == "c")

    whole = searched(WORDS, 12, judge)
    for stop in (1, STARTUP, STARTUP + 3):
        assert searched(WORDS, 12, judge, trials=whole[:stop]) == whole
    assert searched(WORDS, 12, judge, seed=1) != whole


def test_failed_trials_are_not_tried_again():
    trials = searched(WORDS, 18, lambda point: None if point["kind"] == "a" else 0.3)
    assert sum(one.value is None for one in trials) == 6


def test_it_finds_good_settings_sooner_than_chance():
    grid = Grid("s", {name: tuple(range(5)) for name in "abc"}, {"a": 0, "b": 0, "c": 0})

    def judge(point):
        return -float(sum((value - 3) ** 2 for value in point.values()))

    best = [max(one.value for one in searched(grid, 20, judge, seed)) for seed in range(3)]
    rng = np.random.default_rng(0)
    every = [judge(dict(zip("abc", one, strict=True))) for one in product(range(5), repeat=3)]
    chance = [max(rng.choice(every, 20, replace=False)) for _ in range(200)]
    assert np.mean(best) > np.mean(chance) + 0.5


@pytest.mark.parametrize("row", list(REGISTRY))
def test_every_row_has_a_section_and_a_grid_of_its_own(row):
    section = section_of(row)
    if not section:
        assert row == "most-disliked"
        return
    assert [other for other in REGISTRY if section_of(other) == section] == [row]
    config = Config()
    grid = grid_of(config, row)
    assert 4 <= grid.size <= 100
    assert set(grid.fields) <= set(settings_of(config, row))
    last = {name: values[-1] for name, values in grid.fields.items()}
    changed = with_settings(config, section, last)
    assert {name: settings_of(changed, row)[name] for name in last} == last
    written = Config.model_validate(tomllib.loads(dump_config(changed)))
    assert settings_of(written, row) == settings_of(changed, row) != settings_of(config, row)


def test_settings_that_do_not_fit_are_named():
    with pytest.raises(ConfigError, match=r"baselines\.sasrec: heads = 3 does not fit"):
        with_settings(load_config(), "baselines.sasrec", {"heads": 3})
