"""A run that is killed in each of its stages and started again ends as one that was not, and so does a shared one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from conrec.config import load_config
from conrec.logs.schema import ANCHORS, CANDIDATE_SCORES, EVENTS, ITEMS, PREDICTIONS, SEMANTIC_IDS
from conrec.run import rows_of
from tests.small_run import write_small_log


@pytest.fixture(scope="module")
def runs(ml100k, tmp_path_factory):
    """Folders of the undisturbed run and of the killed one, and the stages in which it was killed."""
    folder = tmp_path_factory.mktemp("runs")
    config = write_small_log(ml100k, folder)
    script = Path(__file__).with_name("killed_run.py")
    arguments = [config, folder / "plain", folder / "killed"]
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=800
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "plain", folder / "killed", json.loads(done.stdout.splitlines()[-1])


def test_it_was_killed_in_the_middle_of_stages(runs):
    hit = runs[2]
    assert sum(name.startswith("train") for name in hit) >= 6  # of 9; the machine may have been faster this time
    assert sum(name.startswith(("data", "items", "predict", "filter store")) for name in hit) >= 5


def test_predictions_and_everything_else_are_the_same_to_the_byte(runs):
    plain, killed, _ = runs
    files = sorted(path.relative_to(plain) for path in plain.rglob("*.parquet"))
    assert len(files) == 4 + 1 + 2 * 11 + 1
    assert files == sorted(path.relative_to(killed) for path in killed.rglob("*.parquet"))
    models = [path.relative_to(plain) for path in plain.rglob("*.safetensors")]
    results = [Path("results/metrics.json"), Path("results/filter.json"), Path("results/alignment.json")]
    for name in [*files, *models, *results]:
        assert (plain / name).read_bytes() == (killed / name).read_bytes(), name


def test_nothing_is_left_under_a_temporary_name(runs):
    assert not [path for path in runs[1].rglob(".*") if path.name != ".lock"]


def test_the_run_holds_every_file_of_the_contract(runs):
    plain = runs[0]
    for name in ("config.toml", "environment.json", "results/metrics.json", "report.html"):
        assert (plain / name).stat().st_size > 0
    schemas = {"data/events": EVENTS, "data/items": ITEMS, "data/anchors": ANCHORS, "items/semantic_ids": SEMANTIC_IDS}
    for model in rows_of(load_config()):
        schemas[f"predictions/{model}"] = PREDICTIONS
        schemas[f"candidate_scores/{model}"] = CANDIDATE_SCORES
    for name, schema in schemas.items():
        found = pq.read_schema(plain / f"{name}.parquet")
        for field in schema:
            assert found.field(field.name).type == field.type, (name, field.name)


def test_metrics_recomputed_by_other_code_agree_to_six_digits(runs):
    """Plain Python over the files of the contract, nothing of the project's own."""
    plain = runs[0]
    metrics = json.loads((plain / "results" / "metrics.json").read_text())
    anchors = [row for row in pq.read_table(plain / "data" / "anchors.parquet").to_pylist() if row["split"] == "test"]
    cut = json.loads((plain / "data" / "periods.json").read_text())["validation"]
    dislikes = Counter(
        row["item_id"]
        for row in pq.read_table(plain / "data" / "events.parquet").to_pylist()
        if row["feedback"] == -1 and row["timestamp"] < cut
    )
    for model, found in metrics.items():
        top, scores = defaultdict(set), defaultdict(dict)
        for row in pq.read_table(plain / "predictions" / f"{model}.parquet").to_pylist():
            if row["rank"] <= 20:
                top[row["anchor_id"]].add(row["item_id"])
        for row in pq.read_table(plain / "candidate_scores" / f"{model}.parquet").to_pylist():
            scores[row["anchor_id"]][row["item_id"]] = row["score"]
        values = defaultdict(list)
        for row in anchors:
            predicted, future = top[row["anchor_id"]], row["future_negatives"]
            hit = not predicted.isdisjoint(future)
            values["hr@20"].append(row["next_item"] in predicted)
            values["fhr@20"].append(hit)
            if row["long_tail_user"]:
                values["luf@20"].append(hit)
            rare = [item for item in future if dislikes[item] < 5]
            if rare:
                values["lif@20"].append(not predicted.isdisjoint(rare))
            given = scores[row["anchor_id"]]
            assert set(given) == set(row["candidates"])
            best = max(given.values())
            tied = [item for item, score in given.items() if score == best]
            values["candidate_accuracy"].append((row["candidate_answer"] in tied) / len(tied))
        for name, row in values.items():
            assert found[name]["anchors"] == len(row)
            assert abs(found[name]["value"] - sum(row) / len(row)) < 5e-7, (model, name)
            assert found[name]["low"] <= found[name]["value"] <= found[name]["high"]


def test_two_processes_share_the_grpo_stages_and_end_as_one(runs, tmp_path):
    """The stages before are found finished; the three of GRPO are learned together, and written once."""
    plain = runs[0]
    shared = tmp_path / "shared"
    shutil.copytree(plain, shared)
    names = ("conrec-grpo-1", "conrec-grpo-2", "conrec")
    for name in names:
        (shared / "models" / f"{name}.train.json").unlink()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "conrec", "run"]
    done = subprocess.run(
        [*command, str(plain.parent / "run.toml"), "--out", str(shared)],
        capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("train conrec-sft") == 1  # only the first process speaks
    assert "finished before" in next(line for line in done.stderr.splitlines() if "train conrec-sft" in line)
    assert done.stdout.count("report: ") == 1
    assert not [path for path in shared.rglob(".*") if path.name != ".lock"]
    assert json.loads((shared / "environment.json").read_text())["processes"] == 2
    before = weights(plain / "models" / "conrec-sft")
    for name in names:
        one, two = weights(plain / "models" / name), weights(shared / "models" / name)
        moved = sum(float(((one[key] - before[key]) ** 2).sum()) for key in one)
        apart = sum(float(((one[key] - two[key]) ** 2).sum()) for key in one)
        assert apart < 1e-6 * moved  # squares: 0.1 % of the way, rounding of float32 through AdamW
        curves = [json.loads((run / "models" / name / "curve.json").read_text()) for run in (plain, shared)]
        assert curves[0].keys() == curves[1].keys()
        for series, points in curves[0].items():
            for (step, value), (same, other) in zip(points, curves[1][series], strict=True):
                assert step == same
                assert other == pytest.approx(value, rel=1e-3, abs=1e-5), (name, series)
    for path in sorted((plain / "predictions").glob("*.parquet")):
        one, two = (pq.read_table(run / "predictions" / path.name) for run in (plain, shared))
        same = np.asarray(one["item_id"]) == np.asarray(two["item_id"])
        assert same.mean() > 0.999, path.name
        np.testing.assert_allclose(one["score"], two["score"], atol=1e-4)


def weights(model: Path) -> dict[str, np.ndarray]:
    """The tensors of a trained model."""
    return load_file(model / "model" / "model.safetensors")
