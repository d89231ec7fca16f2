"""A run's results from its files: recomputed by other code, ordered, paired, and refused where files do not fit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from conrec.artefacts import write_json, write_parquet, write_parquet_parts
from conrec.baselines.simple.popularity import LivePopularity, MostDisliked
from conrec.config import Config
from conrec.errors import ArtefactError
from conrec.evaluation.evaluate import evaluate
from conrec.evaluation.predictions import write_candidate_scores, write_predictions
from conrec.evaluation.significance import Bootstrap
from conrec.logs.anchor_table import anchor_tables
from conrec.logs.schema import ANCHORS, EVENTS, ITEMS
from conrec.recommender import Ranking, Recommender
from conrec.settings.baselines.simple import PopularityConfig
from conrec.tables import metrics_table
from tests.evaluation.evaluation_world import PERIODS, World, world

CONFIG = Config.model_validate({"evaluation": {"bootstraps": 100, "top_k": 5}})


def _write_data(folder: Path, given: World) -> None:
    log = given.log
    users, items = np.asarray(log.user_ids, dtype=object), np.asarray(log.item_ids, dtype=object)
    events = {
        "user_id": users[log.user],
        "item_id": items[log.item],
        "timestamp": log.timestamp,
        "feedback": log.feedback,
    }
    write_parquet(folder / "data/events.parquet", pa.table(events, schema=EVENTS))
    rows = [{"item_id": one, "title": one, "text": one, "category": [], "image": None} for one in log.item_ids]
    write_parquet(folder / "data/items.parquet", pa.Table.from_pylist(rows, schema=ITEMS))
    tables = anchor_tables(given.anchors, log.user_ids, log.item_ids)
    write_parquet_parts(folder / "data/anchors.parquet", ANCHORS, tables)
    write_json(folder / "data/periods.json", asdict(PERIODS))


def _write_model(folder: Path, name: str, given: World, model: Recommender) -> None:
    log, anchors = given.log, given.anchors
    ranking = model.predict(log, anchors.queries, 8)
    write_predictions(folder / f"predictions/{name}.parquet", anchors, ranking, log.item_ids)
    scores = model.score(log, anchors.queries, anchors.candidates)
    write_candidate_scores(folder / f"candidate_scores/{name}.parquet", anchors, scores, log.item_ids)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, World]:
    folder, given = tmp_path_factory.mktemp("run"), world(5, users=25, items=90, events=900)
    _write_data(folder, given)
    for name, model in {
        "zebra": LivePopularity(PopularityConfig(days=3)),
        "conrec": LivePopularity(PopularityConfig()),
        "most-disliked": MostDisliked.count(given.log.before(PERIODS.validation)),
        "live-popularity": LivePopularity(PopularityConfig(half_life_days=1)),
        "another": LivePopularity(PopularityConfig(days=300)),
    }.items():
        _write_model(folder, name, given, model)
    return folder, given


@pytest.fixture
def run(made: tuple[Path, World], tmp_path: Path) -> Path:
    shutil.copytree(made[0], tmp_path / "run")
    return tmp_path / "run"


def test_models_come_in_the_order_of_the_table(run: Path) -> None:
    found = evaluate(run, CONFIG)
    assert list(found) == ["most-disliked", "live-popularity", "conrec", "another", "zebra"]
    assert list(json.loads((run / "results/metrics.json").read_text())) == list(found)


def test_a_row_that_ranks_nothing_has_empty_cells_and_no_zeros(run: Path, made: tuple[Path, World]) -> None:
    given = made[1]
    shape = (len(given.anchors), 8)
    nothing = Ranking(np.full(shape, -1, dtype=np.int32), np.full(shape, -np.inf, dtype=np.float32))
    write_predictions(run / "predictions/zebra.parquet", given.anchors, nothing, given.log.item_ids, "too many titles")
    found = evaluate(run, CONFIG)
    assert {name.split("/")[0] for name in found["zebra"]} == {"candidate_accuracy"}
    assert "fhr@5" in found["another"]
    comparisons = json.loads((run / "results/comparisons.json").read_text())
    assert {name.split("/")[0] for name in comparisons["conrec"]["zebra"]} == {"candidate_accuracy"}
    cells = [list(column.cells) for column in metrics_table(found, 5).columns]
    assert [column[-1] for column in cells[:-1]] == ["zebra", "–", "–", "–", "–"]
    assert "–" not in cells[-1]


def test_rows_of_an_earlier_configuration_are_left_out(run: Path) -> None:
    for folder in ("predictions", "candidate_scores"):
        for name in ("conrec-grpo-1", "conrec-grpo-2"):
            shutil.copy(run / folder / "conrec.parquet", run / folder / f"{name}.parquet")
    stages = [{"context": "recent"}, {"context": "both"}]
    found = evaluate(run, Config.model_validate({**CONFIG.model_dump(), "grpo": {"stages": stages}}))
    assert list(found) == ["most-disliked", "live-popularity", "conrec-grpo-1", "conrec", "another", "zebra"]
    assert "conrec-grpo-2" not in json.loads((run / "results/comparisons.json").read_text())["best_baseline"]


def test_only_left_over_rows_are_nothing_to_evaluate(run: Path) -> None:
    for folder in ("predictions", "candidate_scores"):
        (run / folder / "conrec.parquet").rename(run / folder / "conrec-grpo-9.parquet")
        for path in (run / folder).glob("*.parquet"):
            if path.stem != "conrec-grpo-9":
                path.unlink()
    with pytest.raises(ArtefactError, match="holds no predictions"):
        evaluate(run, CONFIG)


def test_values_are_those_of_other_code_on_the_same_files(run: Path) -> None:
    """No line of the package: Parquet files into Python lists, the protocol's words into loops."""
    evaluate(run, CONFIG)
    metrics = json.loads((run / "results/metrics.json").read_text())
    cuts = json.loads((run / "data/periods.json").read_text())
    anchors = [row for row in pq.read_table(run / "data/anchors.parquet").to_pylist() if row["split"] == "test"]
    disliked: dict[str, int] = {}
    for event in pq.read_table(run / "data/events.parquet").to_pylist():
        if event["feedback"] == -1 and event["timestamp"] < cuts["validation"]:
            disliked[event["item_id"]] = disliked.get(event["item_id"], 0) + 1
    for model, found in metrics.items():
        top: dict[int, list[str]] = {}
        for row in pq.read_table(run / f"predictions/{model}.parquet").to_pylist():
            if row["rank"] <= 5:
                top.setdefault(row["anchor_id"], []).append(row["item_id"])
        scores: dict[int, dict[str, float]] = {}
        for row in pq.read_table(run / f"candidate_scores/{model}.parquet").to_pylist():
            scores.setdefault(row["anchor_id"], {})[row["item_id"]] = row["score"]
        cells: dict[str, list[float]] = {}
        for anchor in anchors:
            best, future = set(top[anchor["anchor_id"]]), anchor["future_negatives"]
            tail = [item for item in future if disliked.get(item, 0) < 5]
            values = {"hr@5": anchor["next_item"] in best, "fhr@5": bool(best & set(future))}
            if anchor["long_tail_user"]:
                values["luf@5"] = values["fhr@5"]
            if tail:
                values["lif@5"] = bool(best & set(tail))
            own = scores[anchor["anchor_id"]]
            winners = [item for item, score in own.items() if score == max(own.values())]
            right = anchor["candidate_answer"] in winners
            for name, value in [*values.items(), ("candidate_accuracy", right / len(winners))]:
                cells.setdefault(name, []).append(float(value))
                if anchor["negative_history"] == 0:
                    cells.setdefault(f"{name}/no_negative_history", []).append(float(value))
        distinct = {item for anchor in anchors for item in top[anchor["anchor_id"]]}
        assert set(found) == {*cells, "distinct_items@5"}
        for name, values_ in cells.items():
            assert found[name]["value"] == pytest.approx(sum(values_) / len(values_), abs=1e-9), (model, name)
            assert found[name]["anchors"] == len(values_)
            assert found[name]["low"] <= found[name]["value"] <= found[name]["high"]
        assert found["distinct_items@5"]["value"] == len(distinct)
        assert found["distinct_items@5"]["low"] <= len(distinct) <= found["distinct_items@5"]["high"]


def test_comparisons_are_paired_with_conrec_and_the_best_baseline(run: Path) -> None:
    metrics = evaluate(run, CONFIG)
    found = json.loads((run / "results/comparisons.json").read_text())
    assert list(found) == ["conrec", "best_baseline"]
    assert list(found["conrec"]) == ["most-disliked", "live-popularity", "another", "zebra"]
    for name in ("hr@5", "fhr@5", "candidate_accuracy"):
        best = max(("most-disliked", "live-popularity"), key=lambda one: metrics[one][name]["value"])
        for model in metrics:
            if model != "conrec":
                pair = found["conrec"][model][name]
                assert pair["reference"] == "conrec"
                gap = metrics[model][name]["value"] - metrics["conrec"][name]["value"]
                assert pair["difference"] == pytest.approx(gap, abs=1e-12)
                assert pair["low"] <= pair["difference"] <= pair["high"]
                assert 0 <= pair["share_above"] <= 1
            if model != best:
                pair = found["best_baseline"][model][name]
                assert pair["reference"] == best
                gap = metrics[model][name]["value"] - metrics[best][name]["value"]
                assert pair["difference"] == pytest.approx(gap, abs=1e-12)
            else:
                assert name not in found["best_baseline"].get(model, {})


def test_the_same_files_give_the_same_bytes(run: Path) -> None:
    evaluate(run, CONFIG)
    first = [(run / "results" / name).read_bytes() for name in ("metrics.json", "comparisons.json")]
    evaluate(run, CONFIG)
    assert first == [(run / "results" / name).read_bytes() for name in ("metrics.json", "comparisons.json")]


def test_a_model_may_lack_one_of_its_two_files(run: Path) -> None:
    (run / "candidate_scores/zebra.parquet").unlink()
    (run / "predictions/another.parquet").unlink()
    found = evaluate(run, CONFIG)
    assert not any(name.startswith("candidate_accuracy") for name in found["zebra"])
    assert set(found["another"]) <= {"candidate_accuracy", "candidate_accuracy/no_negative_history"}


def test_no_model_and_no_torch_is_loaded(run: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom conrec.config import Config\n"
        "from conrec.evaluation.evaluate import evaluate\n"
        f"evaluate(Path({str(run)!r}), Config.model_validate({{'evaluation': {{'bootstraps': 9, 'top_k': 5}}}}))\n"
        "loaded = [one for one in sys.modules if one.startswith(('torch', 'transformers', 'conrec.baselines'))]\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def _edit(path: Path, **columns: list[object]) -> None:
    table = pq.read_table(path)
    for name, values in columns.items():
        at = table.column_names.index(name)
        table = table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))
    pq.write_table(table, path)


def test_an_item_of_the_history_is_refused_unless_it_may_return(run: Path, made: tuple[Path, World]) -> None:
    path, (_, given) = run / "predictions/zebra.parquet", made
    test = given.anchors.of_split("test")
    anchor = int(test.anchor_id[0])
    seen = given.log.item_ids[given.log.item[given.log.history(int(test.user[0]), int(test.timestamp[0]))[0]]]
    table = pq.read_table(path).to_pydict()
    row = next(at for at in range(len(table["rank"])) if table["anchor_id"][at] == anchor and table["rank"][at] == 2)
    table["item_id"][row] = seen
    _edit(path, item_id=table["item_id"])
    with pytest.raises(ArtefactError, match=f"rank 2 of anchor {anchor} is item '{seen}'; expected items outside"):
        evaluate(run, CONFIG)
    returning = CONFIG.model_copy(update={"protocol": CONFIG.protocol.model_copy(update={"history_eligible": True})})
    assert "zebra" in evaluate(run, returning)


def test_too_few_ranks_are_refused(run: Path) -> None:
    path = run / "predictions/zebra.parquet"
    table = pq.read_table(path)
    last = int(table["anchor_id"].to_numpy().max())
    keep = [row for row, (a, r) in enumerate(zip(*(table[c].to_pylist() for c in ("anchor_id", "rank")), strict=True))
            if a != last or r < 3]  # fmt: skip
    pq.write_table(table.take(keep), path)
    with pytest.raises(ArtefactError, match=rf"zebra.parquet: anchor {last} has 2 ranks; expected at least 5"):
        evaluate(run, CONFIG)


@pytest.mark.parametrize(
    ("file", "column", "value", "message"),
    [
        ("anchors", "user_id", "nobody", "anchors.parquet, row 4, column 'user_id': is 'nobody'; expected a user"),
        ("anchors", "split", "later", "row 4, column 'split': is 'later'; expected one of train, validation, test"),
        ("events", "item_id", "nothing", "events.parquet: names item 'nothing'; expected one of items.parquet"),
    ],
)
def test_files_that_disagree_are_refused(run: Path, file: str, column: str, value: str, message: str) -> None:
    path = run / f"data/{file}.parquet"
    values = pq.read_table(path)[column].to_pylist()
    values[3] = value
    _edit(path, **{column: values})
    with pytest.raises(ArtefactError, match=message):
        evaluate(run, CONFIG)


@pytest.mark.parametrize("text", ['{"validation": 1}', "[1, 2, 3]", '{"validation": "x", "test": 2, "end": 3}'])
def test_periods_that_are_none_are_refused(run: Path, text: str) -> None:
    (run / "data/periods.json").write_text(text)
    with pytest.raises(ArtefactError, match=r"periods\.json: cannot be read as periods"):
        evaluate(run, CONFIG)


def test_nothing_to_evaluate_is_an_error(run: Path) -> None:
    shutil.rmtree(run / "predictions")
    shutil.rmtree(run / "candidate_scores")
    with pytest.raises(ArtefactError, match="holds no predictions"):
        evaluate(run, CONFIG)
    table = pq.read_table(run / "data/anchors.parquet")
    pq.write_table(table.filter(pc.field("split") != "test"), run / "data/anchors.parquet")
    with pytest.raises(ArtefactError, match="no test anchors"):
        evaluate(run, CONFIG)


def test_intervals_are_those_of_the_bootstrap_over_test_users(run: Path, made: tuple[Path, World]) -> None:
    found = evaluate(run, CONFIG)["conrec"]["fhr@5"]
    given = made[1]
    test = given.anchors.of_split("test")
    top = LivePopularity(PopularityConfig()).predict(given.log, test.queries, 5).item
    hits = [float(np.isin(top[row], future).any()) for row, future in enumerate(test.future_negatives)]
    (figure,) = Bootstrap.over(test.user, 100, 0).figures(np.asarray(hits)[:, None])
    assert figure is not None
    assert figure.to_json() == pytest.approx(found)
