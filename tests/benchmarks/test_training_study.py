"""The training study: what is there is not run again, copies share what is finished, tables say what the files hold."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.studies import training
from benchmarks.studies.training_arms import ARMS, FORGETTING, GROUPS, OURS, Line
from benchmarks.studies.training_plots import draw_all
from benchmarks.studies.training_tables import CHOICES, METRICS, cell, decoded, encoded, lines_of, table

from conrec.artefacts import read_json, write_json
from conrec.config import load_config
from conrec.rows import conrec_rows
from tests.small_run import write_small_log


def values(chance: np.random.Generator, share: float, n: int) -> str:
    return encoded((chance.random(n) < share).astype(np.float64))


@pytest.fixture
def found():
    """A result of three arms and two seeds, one of an arm missing."""
    chance = np.random.default_rng(0)
    result = {
        "study": "training/ml-100k",
        "users": [0, 0, 1, 2, 2, 2, 3, 4],
        "choice_users": {"0": [0, 1, 1, 2, 3], "1": [4, 4, 0, 1, 2]},
        "arms": {},
    }
    for arm, seeds in ((OURS, "01"), ("reward-a", "01"), ("plain-grpo", "0")):
        own = {"settings": ARMS[arm].settings, "seeds": {}}
        for seed in seeds:
            rows = {}
            for row in conrec_rows(load_config("tiny")):
                rows[row] = {metric: values(chance, 0.5, 8) for metric in METRICS}
                rows[row] |= {CHOICES: values(chance, 0.6, 5), "items_in_lists": 7}
            own["seeds"][seed] = {"rows": rows, "seconds": {}, "curves": {}}
        result["arms"][arm] = own
    return result


def test_every_arm_is_a_valid_configuration_and_every_line_has_a_row():
    for arm, own in ARMS.items():
        rows = conrec_rows(training._config("ml-100k", None, arm, 0))
        assert own.upto in rows
        for line in (*FORGETTING, *(line for group in GROUPS for line in group.lines)):
            assert line.arm != arm or line.row in rows
    schedules = [ARMS[arm].settings["grpo"]["stages"] for arm in ("one-stage", "two-stages", "reversed", "beta-2")]
    assert {sum(stage["samples"] for stage in stages) for stages in schedules} == {3840}
    assert all(group.reference in group.lines for group in GROUPS)


def test_schedules_have_as_many_contexts_as_the_unchanged_chain_whatever_the_file_says(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text('grpo.stages = [{ context = "recent", samples = 100 }, { context = "both", samples = 140 }]\n')
    for config, whole in ((file, 240), (None, 3840)):
        for arm in ("conrec", "one-stage", "two-stages", "reversed", "beta-2"):
            stages = training._config("ml-100k", config, arm, 0).grpo.stages
            assert sum(stage.samples for stage in stages) == whole
            assert arm != "beta-2" or {stage.kl_weight for stage in stages} == {2.0}


def test_values_come_back():
    given = np.array([0, 1, 1 / 2, 1 / 3, 1 / 9, np.nan])
    assert encoded(given) == "01239-"
    np.testing.assert_array_equal(decoded(encoded(given)), given)
    with pytest.raises(ValueError, match="neither"):
        encoded(np.array([0.4]))
    with pytest.raises(ValueError, match="neither"):
        encoded(np.array([0.05]))


def test_a_figure_is_the_mean_over_anchors_and_seeds_and_pairs_share_seeds(found):
    ours, other, single = Line("", OURS), Line("", "reward-a"), Line("", "plain-grpo")
    rows = {arm: found["arms"][arm]["seeds"] for arm in (OURS, "reward-a", "plain-grpo")}
    mine, theirs = (
        np.stack([decoded(rows[arm][seed]["rows"]["conrec"]["fhr@20"]) for seed in "01"]) for arm in (OURS, "reward-a")
    )
    figure = cell(found, other, "fhr@20", ours)
    assert figure.value == pytest.approx(theirs.mean())
    assert figure.by_seed == pytest.approx(theirs.mean(axis=1))
    assert figure.less[0] == pytest.approx(theirs.mean() - mine.mean())
    assert figure.low <= figure.value <= figure.high
    assert cell(found, ours, "fhr@20", ours).less is None
    alone = decoded(rows["plain-grpo"]["0"]["rows"]["conrec"]["fhr@20"])
    assert cell(found, single, "fhr@20", ours).less[0] == pytest.approx((alone - mine[0]).mean())
    assert cell(found, Line("", "beta-2"), "fhr@20", ours) is None


def test_tables_hold_what_was_measured_and_nothing_else(found, tmp_path):
    shown = table([found])
    assert "Ablation" in shown
    assert "+ item-level alignment" in shown
    assert "next-negative SFT, " not in shown  # its arm was not run
    assert "bidirectional translation, next" not in shown
    assert "| (a) negatives |" in shown
    assert "(b)" not in shown
    assert "Days of a window" not in shown
    start, after = (
        np.concatenate([decoded(one["rows"][row][CHOICES]) for one in found["arms"][OURS]["seeds"].values()]).mean()
        for row in ("conrec-alignment", "conrec-sft")
    )
    assert f"{1 - after / start:.1%}" in shown
    drawn = {path.name for path in draw_all(found, tmp_path)}
    assert "training-ablation-ml-100k-light.svg" in drawn
    assert not [name for name in drawn if "horizon" in name]


def test_the_reference_stands_beside_lines_of_fewer_seeds_on_these_alone(found):
    """plain-grpo has seed 0 alone; so the reference of its group comes twice."""
    group = next(one for one in GROUPS if one.name == "stages")
    shown = lines_of(found, group)
    again = [line for line in shown if line.seeds]
    assert [line.label for line in again] == [f"{group.reference.label}, seed 0 alone"]
    assert shown.index(again[0]) == shown.index(group.reference) + 1
    own = decoded(found["arms"][OURS]["seeds"]["0"]["rows"]["conrec"]["fhr@20"])
    assert cell(found, again[0], "fhr@20", group.reference).value == pytest.approx(own.mean())
    assert table([found]).count("seed 0 alone") == 1
    ablation = next(one for one in GROUPS if one.name == "ablation")
    assert not [line for line in lines_of(found, ablation) if line.seeds]


def test_what_is_there_is_not_run_again(ml100k, tmp_path, monkeypatch):
    """The chain is run for real on a small cut; the second arm begins with the stages of the first."""
    file = write_small_log(ml100k, tmp_path, users=100)
    results, asked = tmp_path / "found.json", []
    train = training._train
    monkeypatch.setattr(training, "_train", lambda *given: asked.append(given[1].name) or train(*given))
    arms = ("conrec", "no-alignment", "reward-a")
    small = {arm: dict(ARMS[arm].settings) for arm in arms}
    assert small["conrec"] == {}

    training.run("movietweetings", tmp_path / "runs", file, [0], arms, results)
    assert asked == ["conrec-0", "no-alignment-0", "reward-a-0"]
    found = read_json(results)
    assert sorted(found["arms"]) == sorted(arms)
    rows = found["arms"]["reward-a"]["seeds"]["0"]["rows"]
    first = found["arms"]["conrec"]["seeds"]["0"]["rows"]
    assert {row for row in first if rows[row] == first[row]} >= {"conrec-translation", "conrec-alignment", "conrec-sft"}
    early = found["arms"]["no-alignment"]["seeds"]["0"]["rows"]
    assert list(early) == ["conrec-translation", "conrec-sft"]
    assert not [row for row, own in early.items() if CHOICES in own]  # those of the copied run are not its own
    assert len(found["users"]) == len(first["conrec"]["fhr@20"])
    assert len(found["choice_users"]["0"]) == len(first["conrec"][CHOICES])
    assert not (tmp_path / "runs" / "reward-a-0").exists()

    asked.clear()
    training.run("movietweetings", tmp_path / "runs", file, [0], arms, results)
    assert asked == []
    del found["arms"]["reward-a"]["seeds"]["0"]
    write_json(results, found)
    training.run("movietweetings", tmp_path / "runs", file, [0], arms, results)
    assert asked == ["conrec-0", "reward-a-0"]
    assert read_json(results)["arms"]["conrec"] == found["arms"]["conrec"]

    found["arms"]["reward-a"]["settings"] = {}
    write_json(results, found)
    with pytest.raises(SystemExit, match="other settings"):
        training.run("movietweetings", tmp_path / "runs", file, [0], arms, results)
    with pytest.raises(SystemExit, match="training/movietweetings"):
        training.run("ml-100k", tmp_path / "runs", None, [0], arms, results)
