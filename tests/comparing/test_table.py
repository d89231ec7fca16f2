"""The table against literal sums over the files of its runs, and what stands in it for rows without figures."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from dataclasses import asdict, replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from conrec.arrays import Ragged
from conrec.artefacts import write_json
from conrec.comparing import figures as comparing
from conrec.comparing.answers import has_answers
from conrec.comparing.listing import cost_listing, difference_listing, markdown, metrics_of
from conrec.comparing.seeds import configs_of, parse_seeds, seed_config, seeds_in
from conrec.comparing.table import make_table
from conrec.config import Config, dump_config, load_config
from conrec.costs import RowCosts
from conrec.errors import ArtefactError, ConfigError
from conrec.evaluation.significance import Bootstrap
from conrec.rows import rows_of
from tests.comparing.small import write_manifests

SKIPPED, UNFINISHED = "lc-rec-negatives", "lc-rec-both"


def with_seed(run, seed):
    config = load_config(file=run / "config.toml", overrides={"run": {"seed": seed}})
    (run / "config.toml").write_text(dump_config(config))


@pytest.fixture(scope="module")
def out(finished_run, tmp_path_factory):
    """Two seeds of one log; in the second one rows have each other's answers, one row was skipped, one is to come."""
    out = tmp_path_factory.mktemp("table")
    for seed in (0, 1):
        run = out / f"seed-{seed}"
        for part in ("data", "predictions", "candidate_scores"):
            shutil.copytree(finished_run / part, run / part)
        shutil.copy(finished_run / "config.toml", run / "config.toml")
        with_seed(run, seed)
        for row, seconds in (("sasrec", 10.0), ("most-disliked", 0.0)):
            write_json(run / "costs" / f"{row}.json", asdict(RowCosts(seconds + seed, 2.0, 400, 7, 1)))
        write_manifests(run)
        write_json(run / "models" / f"{SKIPPED}.train.json", {"skipped": "no item has a title | at all"})
        for kind in ("predictions", "candidate_scores"):
            (run / kind / f"{SKIPPED}.parquet").unlink()
    for kind in ("predictions", "candidate_scores"):
        folder = out / "seed-1" / kind
        shutil.copy(folder / "conrec-sft.parquet", folder / "sasrec.parquet")
        (folder / f"{UNFINISHED}.parquet").unlink()
    return out


@pytest.fixture(scope="module")
def table(out):
    return make_table(out, reference="sasrec")


def hits(run, row):
    """FHR@20 and candidate accuracy of each test anchor, by plain loops over the files; and the anchors' users."""
    anchors = [one for one in pq.read_table(run / "data" / "anchors.parquet").to_pylist() if one["split"] == "test"]
    top, scores = defaultdict(set), defaultdict(dict)
    for one in pq.read_table(run / "predictions" / f"{row}.parquet").to_pylist():
        if one["rank"] <= 20:
            top[one["anchor_id"]].add(one["item_id"])
    for one in pq.read_table(run / "candidate_scores" / f"{row}.parquet").to_pylist():
        scores[one["anchor_id"]][one["item_id"]] = one["score"]
    fhr, accuracy = [], []
    for one in anchors:
        fhr.append(float(not top[one["anchor_id"]].isdisjoint(one["future_negatives"])))
        given = scores[one["anchor_id"]]
        tied = [item for item, score in given.items() if score == max(given.values())]
        accuracy.append((one["candidate_answer"] in tied) / len(tied))
    return fhr, accuracy, [one["user_id"] for one in anchors]


def percentiles(values, users, n, resamples):
    """Percentiles of the mean on each resample, summed user by user and anchor by anchor."""
    names = sorted(set(users))
    means = []
    for draws in Bootstrap(np.arange(n), n, resamples, 0).draws():
        for drawn in draws:
            total = weight = 0.0
            for value, user in zip(values, users, strict=True):
                times = int(drawn[names.index(user)])
                total += times * value
                weight += times
            means.append(total / weight)
    return np.quantile(means, [0.025, 0.975])


def test_figures_are_means_over_seeds_with_users_drawn(out, table):
    seeds = [hits(out / f"seed-{seed}", "sasrec") for seed in (0, 1)]
    users = seeds[0][2]
    for place, name in ((0, "fhr@20"), (1, "candidate_accuracy")):
        each = [float(np.mean(seed[place])) for seed in seeds]
        both = [(one + two) / 2 for one, two in zip(seeds[0][place], seeds[1][place], strict=True)]
        found = table["rows"]["sasrec"]["metrics"][name]
        assert found["seeds"] == pytest.approx(each)
        assert each[0] != each[1]
        assert found["value"] == pytest.approx(sum(each) / 2)
        assert found["spread"] == pytest.approx(abs(each[0] - each[1]) / 2**0.5)
        assert found["anchors"] == len(users)
        low, high = percentiles(both, users, len(set(users)), 200)
        assert (found["low"], found["high"]) == pytest.approx((low, high))


def test_differences_are_paired_over_users(out, table):
    one, two = ([hits(out / f"seed-{seed}", row) for seed in (0, 1)] for row in ("most-disliked", "sasrec"))
    users = one[0][2]
    apart = [
        (a + b - c - d) / 2 for a, b, c, d in zip(one[0][0], one[1][0], two[0][0], two[1][0], strict=True)
    ]  # fmt: skip
    found = table["rows"]["most-disliked"]["difference"]["fhr@20"]
    assert found["difference"] == pytest.approx(float(np.mean(apart)))
    low, high = percentiles(apart, users, len(set(users)), 200)
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    assert table["rows"]["sasrec"]["difference"] == {}


def test_costs_are_means_over_seeds(table):
    costs = table["rows"]["sasrec"]["costs"]
    assert costs == {"train_seconds": 10.5, "seconds_per_1000": 5.0, "parameters": 7.0, "threads": 1, "questions": 400}
    assert table["rows"]["conrec"]["costs"] is None


def test_a_row_without_figures_stands_there_with_the_reason(table):
    rows = table["rows"]
    assert list(rows) == [
        "most-disliked", "live-popularity", "sasrec", SKIPPED, UNFINISHED, "conrec-translation", "conrec-alignment",
        "conrec-sft", "conrec-grpo-1", "conrec-grpo-2", "conrec",
    ]  # fmt: skip
    assert rows[SKIPPED] == {"reason": "no item has a title | at all"}
    assert rows[UNFINISHED] == {"reason": "has no answers yet in seed-1"}
    text = markdown(table)
    assert f"| {SKIPPED} | – | – | – | – | – |" in text
    assert "no figures: no item has a title \\| at all" in text
    assert "has no answers yet in seed-1" in {row[2].removeprefix("no figures: ") for row in cost_listing(table).rows}
    assert metrics_of(table)[SKIPPED] == {}
    assert [row[0] for row in difference_listing(table).rows] == [
        row for row in rows if row not in (SKIPPED, UNFINISHED, "sasrec")
    ]


def test_answers_of_other_settings_are_no_figures(out, tmp_path):
    """A run that was stopped before a row was trained with its new settings still has the answers of before."""
    run = tmp_path / "seed-0"
    shutil.copytree(out / "seed-0", run)
    config = load_config(file=run / "config.toml")
    answered = [row for row in rows_of(config) if row != SKIPPED]
    assert all(has_answers(run, config, row) for row in answered)
    changed = load_config(file=run / "config.toml", overrides={"baselines": {"sasrec": {"epochs": 3}}})
    (run / "config.toml").write_text(dump_config(changed))
    (run / "predictions" / "conrec-sft.manifest.json").unlink()
    (run / "models" / f"{UNFINISHED}.train.json").write_text("{")
    rows = make_table(tmp_path)["rows"]
    without = {row for row, found in rows.items() if found.get("reason") == "has no answers yet in seed-0"}
    assert without == {"sasrec", "conrec-sft", UNFINISHED}
    (run / "config.toml").write_text(dump_config(config))
    assert "metrics" in make_table(tmp_path)["rows"]["sasrec"]
    later = load_config(file=run / "config.toml", overrides={"run": {"seed": 1}, "prediction": {"top_k": 60}})
    assert not any(has_answers(run, later, row) for row in answered)


def test_a_row_that_ranks_nothing_says_so():
    row = {"metrics": {}, "settings": "defaults", "unranked": "too many titles", "costs": None}
    listing = cost_listing({"top_k": 20, "seeds": [0], "rows": {"tallrec": row}})
    assert listing.rows[0][2] == "defaults; candidates alone are scored: too many titles"


def test_the_best_of_each_column_is_bold(table):
    best = max(row["metrics"]["fhr@20"]["value"] for row in table["rows"].values() if "metrics" in row)
    for line in markdown(table).splitlines():
        row = line.split(" | ")[0].removeprefix("| ")
        if line.count("|") == 7 and "(" in line and "metrics" in table["rows"].get(row, {}) and "±" in line:
            bold = line.split(" | ")[2].startswith("**")
            assert bold == (table["rows"][row]["metrics"]["fhr@20"]["value"] == best)


def test_the_files_hold_the_table(out, table):
    assert json.loads((out / "table.json").read_text()) == table
    assert (out / "table.md").read_text() == markdown(table)
    assert table["seeds"] == [0, 1]


def test_one_seed_is_the_run_itself(out, finished_run):
    found = make_table(out, (0,))
    metrics = json.loads((finished_run / "results" / "metrics.json").read_text())
    compared = json.loads((finished_run / "results" / "comparisons.json").read_text())["conrec"]
    for row in ("sasrec", "conrec"):
        for name, figure in found["rows"][row]["metrics"].items():
            assert figure.pop("spread") is None
            assert figure.pop("seeds") == [figure["value"]]
            assert figure == metrics[row][name]
    assert found["reference"] == "conrec"
    for name, pair in found["rows"]["sasrec"]["difference"].items():
        assert pair == {key: value for key, value in compared["sasrec"][name].items() if key != "reference"}


def test_runs_of_other_data_or_settings_make_no_table(out, tmp_path):
    for seed in (0, 1):
        shutil.copytree(out / f"seed-{seed}", tmp_path / f"seed-{seed}")
    path = tmp_path / "seed-1" / "data" / "anchors.parquet"
    anchors = pq.read_table(path)
    pq.write_table(anchors.slice(0, len(anchors) - 3), path)
    for kind in ("predictions", "candidate_scores"):
        for answers in (tmp_path / "seed-1" / kind).glob("*.parquet"):
            rows = pq.read_table(answers)
            known = set(anchors["anchor_id"].to_pylist()[:-3])
            pq.write_table(rows.filter([one in known for one in rows["anchor_id"].to_pylist()]), answers)
    with pytest.raises(ArtefactError, match=r"test anchors are not the \d+ of seed-0"):
        make_table(tmp_path)
    other = load_config(file=tmp_path / "seed-1" / "config.toml", overrides={"baselines": {"sasrec": {"epochs": 3}}})
    (tmp_path / "seed-1" / "config.toml").write_text(dump_config(other))
    with pytest.raises(ArtefactError, match=r"baselines\.sasrec\.epochs is 3 here and 60 in seed-0"):
        make_table(tmp_path)


def longer(anchors):
    """A dislike moved from the end of one window to the beginning of the next: the values in a row are the same."""
    offsets = anchors.future_negatives.offsets.copy()
    one = next(one for one in range(1, len(offsets) - 1) if offsets[one] - offsets[one - 1] > 1)
    offsets[one] -= 1
    return replace(anchors, future_negatives=Ragged(offsets, anchors.future_negatives.values))


@pytest.mark.parametrize("other", [longer, lambda one: one.with_candidates(one.candidates[:, ::-1])])
def test_runs_with_other_questions_make_no_table(out, monkeypatch, other):
    """The same users, times and future dislikes in a row; windows cut elsewhere, or candidates in another order."""
    ask = comparing.answers_on_test

    def asked(folder, config, rows):
        found = ask(folder, config, rows)
        return replace(found, anchors=other(found.anchors)) if folder.name == "seed-1" else found

    folders, configs = [out / f"seed-{seed}" for seed in (0, 1)], configs_of(out, (0, 1))
    assert comparing.read_seeds(folders, configs, ["sasrec"]).values
    monkeypatch.setattr(comparing, "answers_on_test", asked)
    with pytest.raises(ArtefactError, match=r"test anchors are not the \d+ of seed-0"):
        comparing.read_seeds(folders, configs, ["sasrec"])


def test_bad_input(out, tmp_path):
    with pytest.raises(ArtefactError, match="holds no run of a seed"):
        make_table(tmp_path)
    with pytest.raises(ArtefactError, match=r"seed-5: this run has not begun"):
        make_table(out, (0, 5))
    with pytest.raises(ConfigError, match="Did you mean 'sasrec'"):
        make_table(out, reference="sasrek")
    with pytest.raises(ConfigError, match=r"no row 'lc-rec-both' with answers"):
        make_table(out, reference=UNFINISHED)


def test_damaged_costs_are_named(out, tmp_path):
    shutil.copytree(out / "seed-0", tmp_path / "seed-0")
    write_json(tmp_path / "seed-0" / "costs" / "sasrec.json", {"seconds": 3})
    with pytest.raises(ArtefactError, match=r"costs/sasrec\.json: does not hold the costs of a row"):
        make_table(tmp_path)


def test_seeds_are_parsed_and_found(out):
    assert parse_seeds("0, 1,-7") == (0, 1, -7)
    assert seeds_in(out) == (0, 1)
    for text, said in (("0,x", "'x' is no seed"), ("", "'' is no seed"), ("1,2,1", "seed 1 is there twice")):
        with pytest.raises(ConfigError, match=said):
            parse_seeds(text)


def test_runs_differ_in_seed_and_share_embeddings(out, tmp_path):
    configs = [seed_config(Config(), tmp_path, seed) for seed in (0, 3)]
    assert [config.run.seed for config in configs] == [0, 3]
    assert {config.encoder.cache for config in configs} == {tmp_path / "cache"}
    assert [config.run.seed for config in configs_of(out, (1, 0))] == [1, 0]
