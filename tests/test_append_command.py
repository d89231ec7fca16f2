"""`conrec items append`, and what reads a catalogue that has grown: predictions, histories, stores and the filter."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pytest
import torch
from typer.testing import CliRunner

from conrec.artefacts import read_json, read_parquet, write_json, write_text
from conrec.baselines.sequential.sasrec import Sasrec, SasrecNetwork
from conrec.cli import app
from conrec.config import dump_config, load_config
from conrec.errors import ArtefactError, ConrecError
from conrec.filtering.calibrating.threshold import Threshold, write_threshold
from conrec.filtering.catalogue import FilterCatalogue
from conrec.filtering.filter import NegativeFilter
from conrec.filtering.stores.lmdb import PredictSetStore
from conrec.items.growing.growth import current_catalogue
from conrec.items.space import read_items
from conrec.llm.backbone import build_backbone
from conrec.llm.prompts import INSTRUCTIONS
from conrec.logs.prepare import prepare, read_prepared
from conrec.logs.sources import Loaded
from conrec.logs.titles import titles_of
from conrec.predicting.job import PredictJob
from conrec.predicting.plan import PREDICT_SETS
from conrec.predicting.predictor import Predictor
from conrec.predicting.run import predict_users
from conrec.predicting.store import store_of_shards
from conrec.workspace import Workspace
from tests.items.appending import write_items_stage
from tests.predicting.conftest import disturbed
from tests.small_run import write_small_log

FILMS, NEW = 270, 34
"""How many there are, and how many of them the run does not know."""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def held_out(ml100k: Loaded) -> list[str]:
    """Every eighth of the films with the most events."""
    return _most(ml100k)[::8]


def _most(loaded: Loaded) -> list[str]:
    counts = loaded.events["item_id"].value_counts()
    order = np.argsort(-counts.field("counts").to_numpy(), kind="stable")[:FILMS]
    return counts.field("values").take(pa.array(order)).to_pylist()


@pytest.fixture(scope="module")
def trained(ml100k: Loaded, held_out: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of some films with models that were never trained; treat it as read-only."""
    kept = [name for name in _most(ml100k) if name not in held_out]
    own = [table.filter(pc.is_in(table["item_id"], pa.array(kept))) for table in (ml100k.events, ml100k.items)]
    source = tmp_path_factory.mktemp("source")
    run = tmp_path_factory.mktemp("append") / "run"
    file = write_small_log(replace(ml100k, events=own[0], items=own[1]), source, users=60)
    encoder = {"encoder": {"cache": str(tmp_path_factory.mktemp("vectors"))}}
    config = load_config(file=file, overrides={**encoder, "rqvae": {"codebook_size": 16}})
    prepare(config, run)
    write_text(run / "config.toml", dump_config(config))
    data, space = read_prepared(run), Workspace(run, config)
    write_items_stage(run, data.items, space.trained_items, config)
    sizes = read_items(run / "items").semantic_ids.sizes
    backbone = build_backbone(config.backbone, sizes, titles_of(data.items), INSTRUCTIONS, seed=1)
    disturbed(backbone.model, 2)
    backbone.save(run / "models" / "conrec" / "model")
    network = disturbed(SasrecNetwork(data.log.n_items, config.baselines.sasrec), 3)
    Sasrec(network.eval(), config.baselines.sasrec).save(run / "models" / "sasrec" / "model")
    catalogue = FilterCatalogue.load(run)
    for model in ("conrec", "sasrec"):
        write_threshold(run, Threshold(model, 0.9, 0.05, "as given", 3, 2, 10, 0, 10, 5, catalogue.sid_hash, ()))
    return run


@pytest.fixture(scope="module")
def new_items(ml100k: Loaded, held_out: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The films that the run does not know, with the columns of the run's own items file."""
    table = ml100k.items.filter(pc.is_in(ml100k.items["item_id"], pa.array(held_out)))
    path = tmp_path_factory.mktemp("new") / "new.csv"
    genres = ["|".join(row or ()) for row in table["category"].to_pylist()]
    pacsv.write_csv(pa.table({"item_id": table["item_id"], "title": table["title"], "genres": genres}), path)
    return path


@pytest.fixture(scope="module")
def sets_before(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Predict sets from before the append."""
    folder = tmp_path_factory.mktemp("sets") / "before"
    predict_users(PredictJob(trained, k=25), folder)
    return folder


@pytest.fixture(scope="module")
def grown(trained: Path, new_items: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with its catalogue grown by the command; treat it as read-only."""
    run = shutil.copytree(trained, tmp_path_factory.mktemp("grown") / "run")
    done = CliRunner().invoke(app, ["items", "append", str(run), str(new_items)])
    assert done.exit_code == 0, done.output
    assert f"new.csv: {NEW} rows = {NEW} kept + 0 refused" in done.output
    assert done.output.splitlines()[-1].startswith(f"fits ({NEW} new items): reconstruction error")
    return run


def answers(job: PredictJob, users: list[str]) -> list[dict]:
    """Rows of the answers to some users' questions at the end of the run's log."""
    predictor = Predictor(job)
    batch = predictor.ask(pa.RecordBatch.from_pydict({"user_id": pa.array(users)}))
    return pa.Table.from_batches([batch], PREDICT_SETS).to_pylist()


def test_old_prompts_and_scores_among_old_items_stay(trained: Path, grown: Path, tmp_path: Path) -> None:
    """The same tokens; and where only old items may be predicted, the same lists."""
    spaces = [Predictor(PredictJob(run)).space for run in (trained, grown)]
    logs = [Predictor(PredictJob(run)).log for run in (trained, grown)]
    builders = [space.prompts(space.backbone("conrec")) for space in spaces]
    assert len(spaces[1].items) == len(spaces[0].items) + NEW
    end = int(logs[0].timestamp[-1]) + 1
    for user in range(logs[0].n_users):
        one, two = (prompts.next_negative(log, user, end, "both") for prompts, log in zip(builders, logs, strict=True))
        assert one == two
    old = tmp_path / "old.csv"
    old.write_text("item_id\n" + "\n".join(spaces[0].items.item_ids) + "\n")
    users = list(logs[0].user_ids[:20])
    before = answers(PredictJob(trained, k=30), users)
    after = answers(PredictJob(grown, k=30, items=old), users)
    for one, two in zip(before, after, strict=True):
        assert {**one, "score": 0} == {**two, "score": 0}
        assert one["score"] == pytest.approx(two["score"], abs=1e-5)


@pytest.mark.parametrize("normalise", ["allowed", "vocabulary"])
def test_a_new_item_takes_its_share_from_its_prefixes_alone(
    normalise: str, trained: Path, grown: Path, held_out: list[str], tmp_path: Path
) -> None:
    """Over allowed codes old scores can only fall; over the whole vocabulary they stay."""
    lists = []
    for name, run in (("trained", trained), ("grown", grown)):
        copy = shutil.copytree(run, tmp_path / name)
        config = load_config(file=copy / "config.toml", overrides={"prediction": {"normalise": normalise}})
        write_text(copy / "config.toml", dump_config(config))
        rows = answers(PredictJob(copy, k=FILMS), list(read_prepared(copy).log.user_ids[:8]))
        lists.append({(row["user_id"], row["item_id"]): row["score"] for row in rows})
    before, after = lists
    assert before.keys() == {key for key in after if key[1] not in held_out}
    fallen = np.asarray([before[key] - after[key] for key in before])
    if normalise == "vocabulary":
        np.testing.assert_allclose(fallen, 0, atol=1e-5)
    else:
        assert fallen.min() > -1e-5
        assert fallen.max() > 0.01


def test_new_items_are_predicted_at_once(trained: Path, grown: Path, held_out: list[str], tmp_path: Path) -> None:
    users = list(Predictor(PredictJob(grown)).log.user_ids[:20])
    rows = answers(PredictJob(grown, k=60), users)
    ids = read_items(current_catalogue(grown).folder)
    found = [row for row in rows if row["item_id"] in held_out]
    assert found
    for row in found:
        assert row["codes"] == ids.semantic_ids.resolved[ids.item_ids.index(row["item_id"])].tolist()
    live = tmp_path / "live.csv"
    live.write_text("item_id\n" + "\n".join(held_out) + "\n")
    rows = answers(PredictJob(grown, k=10, items=live), users)
    assert {row["item_id"] for row in rows} <= set(held_out)
    assert len(rows) == 10 * len(users)
    with pytest.raises(ConrecError, match="the run does not know"):
        Predictor(PredictJob(trained, items=live)).pool  # noqa: B018


def test_histories_may_hold_new_items(grown: Path, trained: Path, held_out: list[str], tmp_path: Path) -> None:
    """What a user says of a new item is read, and the item is not predicted for him again."""
    end = int(Predictor(PredictJob(grown)).log.timestamp[-1]) + 10
    path = tmp_path / "events.csv"
    path.write_text(f"user_id,item_id,timestamp,feedback\nfresh,{held_out[0]},{end},-1\nfresh,{held_out[1]},{end},1\n")
    predictor = Predictor(PredictJob(grown, events=path, k=len(held_out), at=end + 1))
    prompts = predictor.space.prompts(predictor.space.backbone("conrec"))
    log = predictor.log
    tokens = prompts.next_negative(log, log.user_ids.index("fresh"), end + 1, "both")
    assert sum(token in tokens for token in prompts.sid(log.item_ids.index(held_out[0]))) == 3
    rows = answers(PredictJob(grown, events=path, k=FILMS, at=end + 1), ["fresh"])
    assert rows
    assert not {row["item_id"] for row in rows} & set(held_out[:2])
    with pytest.raises(ConrecError, match="unknown item"):
        Predictor(PredictJob(trained, events=path)).log  # noqa: B018


def test_rows_that_learned_items_one_by_one_know_those_of_the_run_alone(grown: Path, trained: Path) -> None:
    users = list(Predictor(PredictJob(grown)).log.user_ids[:5])
    for model in ("sasrec", "most-disliked"):
        predictor = Predictor(PredictJob(grown, model))
        assert any(f"none of the {NEW} that were appended" in line for line in predictor.histories.lines)
        one, two = (answers(PredictJob(run, model, k=9), users) for run in (grown, trained))
        assert one == two
    popular = Predictor(PredictJob(grown, "live-popularity"))
    assert popular.log.n_items == len(read_items(current_catalogue(grown).folder))
    assert popular.histories.lines == ()
    assert answers(PredictJob(grown, "live-popularity", k=9), users)


def test_a_catalogue_that_does_not_fit_the_run_stops_only_who_reads_it(
    grown: Path, tmp_path: Path, monkeypatch
) -> None:
    """The run was trained again since: `conrec predict` with a row of its own items goes on, and both say so."""
    run = shutil.copytree(grown, tmp_path / "run")
    growth = read_json(run / "catalogue" / "growth.json")
    growth["grown_from"]["quantiser.safetensors"] = "another"
    write_json(run / "catalogue" / "growth.json", growth)
    users = list(read_prepared(run).log.user_ids[:3])
    assert answers(PredictJob(run, "sasrec", k=9), users) == answers(PredictJob(grown, "sasrec", k=9), users)
    (line,) = Predictor(PredictJob(run, "sasrec")).histories.lines
    assert "those that were appended cannot be read" in line
    assert "conrec items append" in line
    with pytest.raises(ArtefactError, match="from other codebooks than those of this run"):
        Predictor(PredictJob(run)).log  # noqa: B018
    monkeypatch.setattr("conrec.run.execute", lambda _, folder: folder / "report.html")
    for name in ("read_json", "stage_table", "metrics_table"):
        monkeypatch.setattr(f"conrec.cli.{name}", lambda *_: "")
    for folder, notes in ((run, 1), (grown, 0)):
        done = CliRunner().invoke(app, ["run", "--out", str(folder)])
        lines = [line for line in done.output.splitlines() if line]
        assert lines[-1] == f"report: {folder / 'report.html'}"
        assert (
            sum(line.startswith("note: items that were appended to this run cannot be read") for line in lines) == notes
        )


def test_a_store_from_before_is_still_right(
    trained: Path, new_items: Path, sets_before: Path, held_out: list[str], tmp_path: Path
) -> None:
    """Codes never move and none is given twice: what was stored names the same items. New candidates are judged."""
    run = shutil.copytree(trained, tmp_path / "run")
    prediction = load_config(file=run / "config.toml").prediction
    store_of_shards(run, sets_before, prediction)
    log = read_prepared(run).log
    users, items = list(log.user_ids[:10]), list(log.item_ids)
    pairs = [(user, item) for user in users for item in items]
    before = NegativeFilter.load(run, "conrec").decide(*zip(*pairs, strict=True))
    unknown = NegativeFilter.load(run, "conrec").filter(users[0], held_out)
    assert {one.reason for one in unknown.kept} == {"unknown item"}
    assert CliRunner().invoke(app, ["items", "append", str(run), str(new_items)]).exit_code == 0
    judge = NegativeFilter.load(run, "conrec")
    after = judge.decide(*zip(*pairs, strict=True))
    np.testing.assert_array_equal(before.similarity, after.similarity)
    np.testing.assert_array_equal(before.nearest, after.nearest)
    np.testing.assert_array_equal(before.reason, after.reason)
    judged = judge.filter(users[0], held_out)
    assert all(one.similarity is not None for one in (*judged.kept, *judged.dropped))
    # Sets that were predicted before fit too, beside those that are predicted now.
    store_of_shards(run, sets_before, prediction)
    assert PredictSetStore.open(run / "filter" / "conrec").meta.sid_hash == judge.catalogue.sid_hash
    predict_users(PredictJob(run, k=25), tmp_path / "now")
    stored = store_of_shards(run, tmp_path / "now", prediction)
    assert (stored.new, stored.renewed) == (0, 60)
    predict_users(PredictJob(run, "sasrec", k=25), tmp_path / "sasrec")
    store_of_shards(run, tmp_path / "sasrec", prediction)
    assert NegativeFilter.load(run, "sasrec").decide(users[:1], items[:1]).similarity[0] <= 1


def test_the_filter_drops_a_new_item_and_predict_sets_name_them(
    grown: Path, held_out: list[str], tmp_path: Path
) -> None:
    run = shutil.copytree(grown, tmp_path / "run")
    live = tmp_path / "live.csv"
    live.write_text("item_id\n" + "\n".join(held_out) + "\n")
    predict_users(PredictJob(run, k=20, items=live), tmp_path / "sets")
    store_of_shards(run, tmp_path / "sets", load_config(file=run / "config.toml").prediction)
    user = read_prepared(run).log.user_ids[0]
    judged = NegativeFilter.load(run, "conrec").filter(user, held_out)
    # Twenty of the 34 are predicted, and an item is as near to itself as can be.
    assert sum(one.nearest_item == one.item_id for one in judged.dropped) >= 10
    shutil.rmtree(run / "catalogue")
    with pytest.raises(ArtefactError, match="was written with the SID table"):
        NegativeFilter.load(run, "conrec")


def test_shards_from_before_are_not_gone_on_with(trained: Path, new_items: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    predict_users(PredictJob(run, k=5), tmp_path / "sets")
    assert CliRunner().invoke(app, ["items", "append", str(run), str(new_items)]).exit_code == 0
    with pytest.raises(ArtefactError, match="was made from other inputs: semantic IDs"):
        predict_users(PredictJob(run, k=5), tmp_path / "sets")


def test_the_run_itself_knows_its_own_items_alone(grown: Path, trained: Path) -> None:
    config = load_config(file=grown / "config.toml")
    assert len(Workspace(grown, config).items) == len(Workspace(trained, config).items)
    assert FilterCatalogue.load(grown).sid_hash == FilterCatalogue.load(trained).sid_hash
    assert FilterCatalogue.load(grown, grown=True).earlier == (FilterCatalogue.load(trained).sid_hash,)


def test_a_table_that_is_not_that_of_its_manifest_is_refused(grown: Path, tmp_path: Path) -> None:
    run = shutil.copytree(grown, tmp_path / "run")
    folder = current_catalogue(run).folder
    shutil.copy(run / "items" / "semantic_ids.parquet", folder)
    shutil.copy(run / "items" / "rebuilt.safetensors", folder)
    with pytest.raises(ArtefactError, match=r"expected that of growth\.json"):
        FilterCatalogue.load(run, grown=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere", "new.csv"], "there is no run here"),
        (["RUN", "nowhere.csv"], "this file does not exist"),
        (["RUN", "NEW", "--set", "rqvae.epochs=3"], "belongs to the trained run"),
        (["RUN", "NEW", "--set", "data.item_columns.title=name"], "has no column 'name'"),
    ],
)
def test_mistakes_are_of_our_family(arguments: list[str], said: str, trained: Path, new_items: Path) -> None:
    names = {"RUN": str(trained), "NEW": str(new_items)}
    done = CliRunner().invoke(app, ["items", "append", *(names.get(one, one) for one in arguments)])
    assert isinstance(done.exception, ConrecError)
    assert said in str(done.exception)
    assert not (trained / "catalogue").exists()


def test_a_program_reads_the_state_from_json(grown: Path, new_items: Path, tmp_path: Path) -> None:
    run = shutil.copytree(grown, tmp_path / "run")
    done = CliRunner().invoke(app, ["items", "append", str(run), str(new_items), "--json"])
    said = json.loads(done.stdout)
    assert (done.exit_code, said["state"], said["new"]) == (0, "fits", 0)
    assert said["counts"]["refused"] == {"known already": NEW}
    assert said["growth"] == read_json(run / "catalogue" / "growth.json")


def test_diagnose_says_that_appended_items_are_not_in_it(grown: Path, trained: Path) -> None:
    for run, said in ((grown, True), (trained, False)):
        done = CliRunner().invoke(app, ["items", "diagnose", str(run), "--titles", "0"])
        assert done.exit_code == 0, done.output
        assert ("were appended since" in done.output) is said


def test_rows_keep_the_order_of_appending(grown: Path, new_items: Path) -> None:
    own = read_parquet(grown / "data" / "items.parquet")["item_id"].to_pylist()
    file = pacsv.read_csv(new_items)["item_id"].cast(pa.string()).to_pylist()
    assert list(read_items(current_catalogue(grown).folder).item_ids) == [*own, *file]
