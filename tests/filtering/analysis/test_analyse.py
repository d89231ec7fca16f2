"""``conrec filter analyse``: its figures against plain recomputation, its command, and runs that lack something."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from conrec.artefacts import read_json, read_parquet, write_parquet, write_tensors
from conrec.cli import app
from conrec.config import load_config
from conrec.errors import ArtefactError
from conrec.evaluation.evaluate import read_run_data
from conrec.evaluation.predictions import read_predictions
from conrec.evaluation.significance import Bootstrap
from conrec.filtering.analysis.analyse import ANALYSIS, RATES, analyse_filter
from conrec.filtering.analysis.calibrated import calibrated_at
from conrec.filtering.analysis.intervals import compared, figure, resampled_shares
from conrec.filtering.analysis.listings import SEGMENTS, analysis_listings
from conrec.filtering.analysis.methods import Judged, Method
from conrec.filtering.analysis.pairs import POSITIVES, Pairs
from conrec.filtering.calibrating.calibration import calibrate
from conrec.filtering.calibrating.control import Liked, Rule, smallest_threshold
from conrec.filtering.calibrating.testing import report_on_test
from conrec.filtering.calibrating.threshold import read_threshold
from conrec.filtering.catalogue import FilterCatalogue
from conrec.logs.schema import ANCHORS
from conrec.report.filter_analysis import filter_analysis
from conrec.report.source import RunSource
from tests.filtering.analysis.small_world import anchors_of, plain_caught


@pytest.fixture(scope="module")
def found(finished_run: Path) -> dict[str, Any]:
    result: dict[str, Any] = read_json(finished_run / ANALYSIS)
    return result


@pytest.fixture
def run_copy(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def similarities(run: Path, model: str, kind: str) -> list[float]:
    """Highest cosine of each future item to the anchor's predict set, pair after pair."""
    data, catalogue = read_run_data(run), FilterCatalogue.load(run)
    anchors = data.anchors.of_split("test")
    ranking = read_predictions(
        run / "predictions" / f"{model}.parquet", anchors, data.log.item_ids, data.anchors.anchor_id
    )
    found = []
    for row in range(len(anchors)):
        predicted = ranking.item[row, :20]
        for item in getattr(anchors, f"future_{kind}")[row]:
            cosines = catalogue.table.similarities(np.asarray([item]), predicted[predicted >= 0])
            cosines = cosines * 0.99 ** np.flatnonzero(predicted >= 0)  # filter.rank_weight
            found.append(float(np.float32(cosines.max())))
    return found


def test_equal_rates_are_what_a_plain_recomputation_gives(finished_run: Path, found: dict[str, Any]) -> None:
    positives, negatives = (similarities(finished_run, "conrec", kind) for kind in ("positives", "negatives"))
    assert len(positives) == found["segments"]["all"]["positives"]
    assert len(negatives) == found["segments"]["all"]["negatives"]
    for rate, one in zip(RATES, found["methods"]["conrec"]["equal"], strict=True):
        assert one["caught"]["value"] == pytest.approx(plain_caught(positives, negatives, rate), abs=1e-6)
        assert one["caught"]["low"] <= one["caught"]["value"] <= one["caught"]["high"]
        assert one["below"]["false_filter_rate"] <= rate
        lost = one["test"]["segments"]["all"]["false_filter_rate"]["value"]
        assert lost == pytest.approx(rate, abs=0.03)  # the lots were drawn


def test_the_threshold_of_the_run_is_among_those_calibrated(finished_run: Path, found: dict[str, Any]) -> None:
    """The same rule on the same validation pairs: the analysis says of a bound what the filter would do."""
    chosen = {one.bound: one for one in read_threshold(finished_run, "conrec").choices}
    report = read_json(finished_run / "results" / "filter.json")["conrec"]
    for one in found["methods"]["conrec"]["calibrated"]:
        choice = chosen[one["bound"]]
        assert one["threshold"] == choice.threshold
        assert one["validation"]["false_filter_rate"] == pytest.approx(choice.false_filter_rate, abs=1e-6)
        assert one["validation"]["user_false_filter_rate"] == pytest.approx(choice.user_rate, abs=1e-6)
        if choice.threshold == report["threshold"]:
            figures = one["test"]["segments"]["all"]
            for name in ("filtering_rate", "false_filter_rate", "user_false_filter_rate", "caught"):
                for part in ("value", "low", "high"):
                    assert figures[name][part] == pytest.approx(
                        report[name][part], abs=0.02 if part != "value" else 1e-6
                    )


def test_scores_weigh_as_they_do_in_the_filter(run_copy: Path) -> None:
    config = load_config(file=run_copy / "config.toml", overrides={"filter": {"score_weight": 0.5}})
    data, catalogue = read_run_data(run_copy), FilterCatalogue.load(run_copy)
    calibrate(run_copy, "conrec", data, catalogue, config)
    chosen = {one.bound: one.threshold for one in read_threshold(run_copy, "conrec").choices}
    weighed = analyse_filter(run_copy, config, ["conrec"])["methods"]["conrec"]["calibrated"]
    assert [one["threshold"] for one in weighed] == [chosen[one["bound"]] for one in weighed]


def test_thresholds_of_categories_are_those_of_the_filter(run_copy: Path, found: dict[str, Any]) -> None:
    config = load_config(
        file=run_copy / "config.toml", overrides={"filter": {"segments": "category", "segment_users": 5}}
    )
    data, catalogue = read_run_data(run_copy), FilterCatalogue.load(run_copy)
    calibrate(run_copy, "conrec", data, catalogue, config)
    threshold = read_threshold(run_copy, "conrec")
    chosen = {one.bound: one for one in threshold.choices}
    report = report_on_test(run_copy, "conrec", data, catalogue, config)
    result = analyse_filter(run_copy, config, ["conrec"])
    for one in result["methods"]["conrec"]["calibrated"]:
        assert one["threshold"] is None
        assert one["validation"]["false_filter_rate"] == pytest.approx(chosen[one["bound"]].false_filter_rate, abs=1e-6)
        if one["bound"] == threshold.bound:
            assert one["by_category"] == threshold.by_category
            figures = one["test"]["segments"]["all"]
            for name in ("filtering_rate", "false_filter_rate", "caught"):
                assert figures[name]["value"] == pytest.approx(report[name]["value"], abs=1e-6)
    rules = [one for one in result["methods"].values() if one["kind"] == "rule"]
    assert all(one["by_category"] == {} for rule in rules for one in rule["calibrated"])
    assert any("by category" in row for listing in analysis_listings(result) for row in listing.rows)
    assert any("by category" in str(one) for one in filter_analysis(RunSource.load(run_copy)))


def test_pairs_without_a_predict_set_are_left_out_of_a_threshold() -> None:
    """As calibration leaves them out; a rule counts what it knows nothing of."""
    anchors = anchors_of([(user, 10 * user, [], [0, 1], [2]) for user in range(10)])
    judged = Judged(anchors, Pairs.of(anchors))
    liked = judged.pairs.of_kind(POSITIVES)
    scores = np.full(len(judged.pairs), 0.95, dtype=np.float32)
    scores[liked] = np.linspace(0.0, 0.9, 20, dtype=np.float32)
    unknown = judged.pairs.anchor >= 6
    scores[unknown] = -1.0
    known = liked & ~unknown
    rule = Rule(0.3)
    found, dropped = calibrated_at(Method("m", "model", "", -1.0, scores, scores), rule, judged, judged)
    alone = Liked.of(scores[known], anchors.user[judged.pairs.anchor[known]])
    assert found["threshold"] == smallest_threshold(alone, rule)
    np.testing.assert_array_equal(dropped, scores > np.float32(found["threshold"]))
    assert found["validation"]["user_false_filter_rate"] == alone.rate(alone.similarity > found["threshold"])
    assert found["validation"]["caught"] == 1
    of_rule, _ = calibrated_at(Method("m", "rule", "", -1.0, scores, scores), rule, judged, judged)
    everybody = Liked.of(scores[liked], anchors.user[judged.pairs.anchor[liked]])
    assert of_rule["threshold"] == smallest_threshold(everybody, rule)
    assert of_rule["threshold"] < found["threshold"]
    assert of_rule["validation"]["caught"] == pytest.approx(0.6)
    low = replace(rule, bound=0.9, least=0.5)
    assert calibrated_at(Method("m", "model", "", -1.0, scores, scores), low, judged, judged)[0]["threshold"] == 0.5


def test_segments_add_up(found: dict[str, Any]) -> None:
    counts = found["segments"]
    assert list(counts) == list(SEGMENTS)
    for kind in ("anchors", "candidates", "positives", "negatives"):
        assert counts["long_tail_users"][kind] + counts["other_users"][kind] == counts["all"][kind]
    for method in found["methods"].values():
        for one in (*method["calibrated"], *method["equal"]):
            parts = one["test"]["segments"]
            for name, kind in (("caught", "negatives"), ("false_filter_rate", "positives")):
                both = sum(
                    parts[segment][name]["value"] * counts[segment][kind]
                    for segment in ("long_tail_users", "other_users")
                    if parts[segment][name] is not None
                )
                assert both == pytest.approx(parts["all"][name]["value"] * counts["all"][kind], abs=1e-2)


def test_dropping_nothing_leaves_everything(found: dict[str, Any]) -> None:
    assert found["before"]["none_kept"] == 0
    assert found["before"]["over_half_lost"]["value"] == 0
    for method in found["methods"].values():
        for one in (*method["calibrated"], *method["equal"]):
            remains = one["test"]["remains"]
            assert remains["items_shown"] <= found["before"]["items_shown"]
            if one["test"]["segments"]["all"]["filtering_rate"]["value"] == 0:
                assert {**remains, "entropy": 0} == {**found["before"], "entropy": 0}


def test_curves_rise(found: dict[str, Any]) -> None:
    for method in found["methods"].values():
        lost, caught = ([one[key] for one in method["curve"]] for key in ("false_filter_rate", "caught"))
        assert lost == sorted(lost)
        assert caught == sorted(caught)
        thresholds = [one["threshold"] for one in method["curve"]]
        assert thresholds == sorted(thresholds, reverse=True)
        assert thresholds[-1] >= method["floor"]


def test_rules_that_cannot_be_had_say_why(found: dict[str, Any]) -> None:
    assert list(found["missing"]) == ["block the shop", "near past dislikes, original"]
    assert "no column 'shop'" in found["missing"]["block the shop"]
    assert "no items/embeddings.safetensors" in found["missing"]["near past dislikes, original"]


def test_the_command_prints_tables_or_json(run_copy: Path) -> None:
    (run_copy / ANALYSIS).unlink()
    done = CliRunner().invoke(app, ["filter", "analyse", str(run_copy), "--models", "sasrec", "--models", "conrec-sft"])
    assert done.exit_code == 0, done.output
    written = read_json(run_copy / ANALYSIS)
    assert [name for name, one in written["methods"].items() if one["kind"] == "model"] == ["sasrec", "conrec-sft"]
    assert written["reference"] == "conrec-sft"
    for listing in analysis_listings(written):
        assert all(len(row) == len(listing.columns) for row in listing.rows)
        assert listing.title in done.output
    assert "block the shop" in done.output
    before = (run_copy / ANALYSIS).read_bytes()
    again = CliRunner().invoke(
        app, ["filter", "analyse", str(run_copy), "--models", "sasrec", "--models", "conrec-sft", "--json"]
    )
    assert json.loads(again.output) == written
    assert (run_copy / ANALYSIS).read_bytes() == before


def test_an_attribute_of_ones_own(run_copy: Path) -> None:
    path = run_copy / "data" / "items.parquet"
    items = read_parquet(path)
    shops = [f"shop {row % 4}" if row % 5 else None for row in range(items.num_rows)]
    write_tensors(
        run_copy / "items" / "embeddings.safetensors", {"embedding": np.eye(items.num_rows, 9, dtype=np.float32)}
    )
    write_parquet(path, items.append_column("shop", pa.array(shops)).append_column("empty", pa.nulls(items.num_rows)))
    result = analyse_filter(run_copy, load_config(file=run_copy / "config.toml"), ["conrec"], ["shop", "empty"])
    assert {"block the shop", "block the shop, by rate"} <= set(result["methods"])
    assert result["missing"]["block the empty"] == "no item has a value in the column 'empty'"
    assert "near past dislikes, original" in result["methods"]


def test_models_without_predictions_are_named(run_copy: Path) -> None:
    config = load_config(file=run_copy / "config.toml")
    with pytest.raises(ArtefactError, match=r"no predictions of a model 'conrek'.*Did you mean 'conrec'"):
        analyse_filter(run_copy, config, ["conrek"])
    (run_copy / "items" / "embeddings.safetensors").write_bytes(b"x")
    with pytest.raises(ArtefactError, match="cannot be read as safetensors"):
        analyse_filter(run_copy, config, ["conrec"])


def without(run: Path, column: str) -> None:
    """Empty a list column of the test anchors."""
    path = run / "data" / "anchors.parquet"
    anchors = read_parquet(path, ANCHORS)
    rows = [
        (None if column == "candidates" else []) if split == "test" else row
        for row, split in zip(anchors[column].to_pylist(), anchors["split"].to_pylist(), strict=True)
    ]
    place = anchors.column_names.index(column)
    anchors = anchors.set_column(place, column, pa.array(rows, ANCHORS.field(column).type))
    if column == "candidates":
        answers = [
            None if row is None else one for row, one in zip(rows, anchors["candidate_answer"].to_pylist(), strict=True)
        ]
        anchors = anchors.set_column(
            anchors.column_names.index("candidate_answer"), "candidate_answer", pa.array(answers, pa.string())
        )
    write_parquet(path, anchors)


def test_without_liked_items_nothing_is_compared(run_copy: Path) -> None:
    without(run_copy, "future_positives")
    result = analyse_filter(run_copy, load_config(file=run_copy / "config.toml"), ["conrec"])
    one = result["methods"]["conrec"]
    assert one["equal"] == []
    assert one["within"] is None
    assert one["curve"] == []
    assert one["calibrated"][0]["test"]["segments"]["all"]["false_filter_rate"] is None
    assert one["calibrated"][0]["test"]["segments"]["all"]["caught"] is not None
    assert all(len(row) == len(listing.columns) for listing in analysis_listings(result) for row in listing.rows)


def test_without_candidates_nothing_remains(run_copy: Path) -> None:
    without(run_copy, "candidates")
    result = analyse_filter(run_copy, load_config(file=run_copy / "config.toml"), ["conrec"])
    assert result["before"]["diversity"] is None
    assert result["before"]["items_shown"] == 0
    main = result["methods"]["conrec"]["equal"][2]
    assert main["caught"] is not None
    assert main["test"]["segments"]["all"]["filtering_rate"] is None
    assert all(len(row) == len(listing.columns) for listing in analysis_listings(result) for row in listing.rows)


def test_without_test_anchors(run_copy: Path) -> None:
    path = run_copy / "data" / "anchors.parquet"
    anchors = read_parquet(path, ANCHORS)
    write_parquet(path, anchors.filter(pa.array([one != "test" for one in anchors["split"].to_pylist()])))
    with pytest.raises(ArtefactError, match="no test anchors"):
        analyse_filter(run_copy, load_config(file=run_copy / "config.toml"), ["conrec"])


def test_shares_on_resamples_are_those_of_bootstrap_means() -> None:
    """Two ways to the same: sums by user here, one row an anchor there."""
    rng = np.random.default_rng(0)
    users, values = rng.integers(0, 7, 40), rng.integers(0, 2, (40, 2)).astype(np.float64)
    values[rng.random((40, 2)) < 0.3] = np.nan
    bootstrap = Bootstrap.over(users, 50, 1)
    counted = ~np.isnan(values)
    sums = [
        np.stack(
            [np.bincount(bootstrap.user, weights=column, minlength=bootstrap.n_users) for column in table.T], axis=1
        )
        for table in (np.nan_to_num(values), counted.astype(np.float64))
    ]
    found = resampled_shares(sums[0], sums[1], np.asarray([0, 1]), bootstrap)
    assert found == pytest.approx(bootstrap.means(values))
    first, second = bootstrap.figures(values)
    assert first is not None
    assert second is not None
    assert figure(first.value, found[:, 0]) == {
        "value": round(first.value, 6),
        "low": round(first.low, 6),
        "high": round(first.high, 6),
    }


def test_differences_are_paired() -> None:
    own, other = np.asarray([0.3, 0.5, np.nan, 0.4]), np.asarray([0.1, 0.5, 0.2, 0.1])
    one = compared(0.4, 0.2, own, other)
    assert one is not None
    assert one["difference"] == 0.2
    assert one["share_above"] == pytest.approx(2.5 / 3, abs=1e-6)
    assert compared(None, 0.2, own, other) is None
    assert figure(0.5, np.asarray([np.nan])) == {"value": 0.5, "low": None, "high": None}
    assert figure(None, own) is None


def test_within_an_anchor_disliked_items_stand_above_liked_ones_or_not(
    finished_run: Path, found: dict[str, Any]
) -> None:
    """A loop over all pairs of items; who looks at the user alone gets a half."""
    anchors = read_run_data(finished_run).anchors.of_split("test")
    lengths = {kind: getattr(anchors, f"future_{kind}").lengths.tolist() for kind in ("positives", "negatives")}
    scores = {kind: iter(similarities(finished_run, "conrec", kind)) for kind in lengths}
    shares = []
    for row in range(len(anchors)):
        up, down = ([next(scores[kind]) for _ in range(lengths[kind][row])] for kind in ("positives", "negatives"))
        wins = [1.0 if one > other else 0.5 if one == other else 0.0 for one in down for other in up]
        shares += [sum(wins) / len(wins)] if wins else []
    within = found["methods"]["conrec"]["within"]
    assert within["value"] == pytest.approx(np.mean(shares), abs=1e-6)
    assert within["anchors"] == len(shares)
    assert within["less_reference"] is None
    grumblers = found["methods"]["who dislikes much"]["within"]
    assert (grumblers["value"], grumblers["low"], grumblers["high"]) == (0.5, 0.5, 0.5)
    assert grumblers["less_reference"]["difference"] == pytest.approx(0.5 - within["value"], abs=1e-5)
