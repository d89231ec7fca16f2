"""A run that goes on under other settings: what it makes anew, what it takes away first, and what it leaves alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from conrec import __version__
from conrec import run as chain
from conrec.artefacts import read_json, write_json
from conrec.baselines.registry import REGISTRY
from conrec.config import Config, load_config
from conrec.errors import NotApplicableError
from conrec.evaluation.evaluate import evaluate
from conrec.pipeline import Pipeline, Stage
from conrec.predicting.job import PredictJob
from conrec.predicting.predictor import Predictor
from conrec.rows import BASELINES
from conrec.run import Chain, execute
from conrec.training import Trainer
from conrec.workspace import EMBEDDINGS, ITEM_INPUTS, Workspace
from tests.comparing.small import write_small

ROWS = ("most-disliked", "category-rule", "nearest-item")
OVERRIDES = {
    "baselines": {"rows": ROWS, "category_rule": {"order": "live"}},
    "filter": {"models": ["most-disliked", "category-rule"]},
}


@pytest.fixture(scope="module", autouse=True)
def _no_reports():
    """They take longer than all else here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chain, "build_report", lambda folder: folder / "report.html")
        torch.set_num_threads(1)
        yield


@pytest.fixture(scope="module")
def file(ml100k, tmp_path_factory):
    return write_small(ml100k, tmp_path_factory.mktemp("rerun"), users=40)


@pytest.fixture(scope="module")
def finished(file):
    """A finished run of three rows, two of them with a filter; tests work on a copy."""
    execute(load_config(file=file, overrides=OVERRIDES), file.parent / "run")
    return file.parent / "run"


@pytest.fixture
def run(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


def changed(file: Path, **sections: object) -> Config:
    """The configuration of the run with some sections of its baselines changed."""
    return load_config(file=file, overrides={**OVERRIDES, "baselines": {**OVERRIDES["baselines"], **sections}})


def content(run: Path, *names: str) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in names}


def outdated(run: Path, config: Config) -> list[str]:
    return [stage.name for stage in Pipeline(run).outdated(Chain(Workspace(run, config)).stages())]


def test_a_setting_that_acts_at_prediction_alone_is_followed(run, file):
    """The rule's counts do not depend on how live popularity ages, and its answers do."""
    trained = "models/category-rule/model/model.safetensors"
    answers = "predictions/category-rule.parquet"
    other = [f"predictions/{row}.manifest.json" for row in ROWS if row != "category-rule"]
    before = content(run, trained, answers, *other, "filter/most-disliked.manifest.json")
    store = read_json(run / "filter/category-rule.manifest.json")["key"]
    execute(changed(file, popularity={"half_life_days": 0.5}), run)
    after = content(run, *before)
    assert after[answers] != before[answers]
    assert {**after, answers: b""} == {**before, answers: b""}
    assert read_json(run / "filter/category-rule.manifest.json")["key"] != store


def test_a_finished_run_is_not_outdated_and_an_unfinished_stage_says_nothing_of_the_next(run, file):
    config = load_config(file=file, overrides=OVERRIDES)
    assert outdated(run, config) == []
    (run / "models" / "nearest-item.train.json").unlink()
    assert outdated(run, config) == ["train nearest-item"]


def test_old_figures_do_not_stand_under_new_settings(run, file, monkeypatch):
    """Killed in the first training that has to be done again, the run holds no answer of the later one either."""
    config = changed(file, nearest_item={"neighbours": 3}, popularity={"days": 9})
    kept = content(run, "predictions/most-disliked.parquet", "predictions/most-disliked.manifest.json")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "baseline", killed)
        with pytest.raises(KeyboardInterrupt):
            execute(config, run)
    assert load_config(file=run / "config.toml") == config
    assert content(run, *kept) == kept
    for name in ("predictions", "candidate_scores"):
        assert [path.name for path in (run / name).glob("*.parquet")] == ["most-disliked.parquet"]
    assert not (run / "results" / "metrics.json").exists()
    assert (run / "results" / "motivation.json").exists()
    assert (run / "filter" / "category-rule.json").exists()  # it may be serving
    assert list(evaluate(run, config)) == ["most-disliked"]
    execute(config, run)
    assert set(read_json(run / "results" / "metrics.json")) == set(ROWS)
    assert outdated(run, config) == []


def test_results_of_stages_that_are_no_longer_listed_go(run, file):
    kept = content(run, "results/metrics.json", "results/metrics.manifest.json", "results/motivation.json")
    assert (run / "results" / "filter_analysis.json").exists()
    execute(load_config(file=file, overrides={**OVERRIDES, "filter": {"models": []}}), run)
    assert not list((run / "results").glob("filter*"))
    assert content(run, *kept) == kept


@pytest.fixture(scope="module")
def bare(file):
    """A run whose items have no categories, so that one of its rows cannot be."""
    overrides = {**OVERRIDES, "data": {"item_columns": {"category": None}}}
    execute(load_config(file=file, overrides=overrides), file.parent / "bare")
    return file.parent / "bare", overrides


def test_a_row_that_was_left_out_has_no_filter_and_stops_no_other(bare, file, tmp_path):
    run = Path(shutil.copytree(bare[0], tmp_path / "run"))
    assert set(read_json(run / "results" / "filter.json")) == {"most-disliked"}
    methods = read_json(run / "results" / "filter_analysis.json")["methods"]
    assert [name for name, one in methods.items() if one["kind"] == "model"] == ["most-disliked"]
    execute(load_config(file=file, overrides={**bare[1], "filter": {"models": ["category-rule"]}}), run)
    for name in ("filter", "filter_analysis"):
        assert not (run / "results" / f"{name}.json").exists()
        why = read_json(run / "results" / f"{name}.manifest.json")["skipped"]
        assert why.startswith("no row has a filter: category-rule: items: no item has a category")


def test_a_row_that_was_left_out_is_not_predicted_with(bare):
    with pytest.raises(NotApplicableError, match=r"'category-rule' was left out of this run .*no item has a category"):
        Predictor(PredictJob(bare[0], "category-rule"))


@pytest.fixture
def listed(tmp_path):
    """The stages of all rows by name, with some settings of the evaluation."""
    for name in ("events", "items"):
        (tmp_path / name).write_text("x")

    def of(**evaluation: int) -> dict[str, Stage]:
        data = {"source": "table", "events": str(tmp_path / "events"), "items": str(tmp_path / "items")}
        overrides = {"data": data, "baselines": {"rows": BASELINES}, "evaluation": evaluation}
        stages = Chain(Workspace(tmp_path, load_config(overrides=overrides))).stages()
        return {stage.name: stage for stage in stages}

    return of


def test_intervals_train_nothing_again(listed):
    before, bootstraps, top = listed(), listed(bootstraps=7), listed(top_k=10)
    for name, stage in before.items():
        if name.startswith(("train ", "predict ")):
            assert bootstraps[name].settings == stage.settings
            assert (top[name].settings == stage.settings) == name.startswith("predict ")
    assert bootstraps["metrics with intervals"].settings != before["metrics with intervals"].settings


def test_a_row_depends_on_what_it_reads_of_the_items(listed):
    stages = listed()

    def items(name: str) -> set[str]:
        return {one for one in stages[name].inputs if one.startswith("items/")}

    for name, entry in REGISTRY.items():
        assert entry.counted or items(f"train {name}") == items(f"predict {name}")
        if "embeddings" in entry.needs:
            assert items(f"predict {name}") == {EMBEDDINGS}, name
    for name in ("most-disliked", "item-knn-negatives", "sasrec", "p5-cid", "category-rule"):
        assert items(f"predict {name}") == set()
    for name in ("tiger", "tallrec", "instructrec", "lc-rec-both", "mini-one-rec", "conrec-translation", "conrec"):
        assert items(f"train {name}") == set(ITEM_INPUTS), name


def test_a_row_that_starts_from_another_is_outdated_with_it(listed, tmp_path):
    """Seen by the settings of the first alone, before anything runs."""
    pipeline = Pipeline(tmp_path)
    names = ["train conrec-translation", "train tallrec", "predict tallrec", "train sasrec", "predict sasrec"]
    stages = [listed()[name] for name in names]
    for stage in stages:
        written = {"stage": stage.name, "version": __version__, "settings": stage.settings}
        hashes = {"inputs": dict.fromkeys(stage.inputs, "1"), "outputs": dict.fromkeys(stage.outputs, "1")}
        write_json(tmp_path / stage.manifest, {**written, **hashes})
    assert pipeline.outdated(stages) == []
    first = read_json(tmp_path / stages[0].manifest)
    first["settings"]["translation"]["epochs"] += 1
    write_json(tmp_path / stages[0].manifest, first)
    assert [stage.name for stage in pipeline.outdated(stages)] == names[:3]
