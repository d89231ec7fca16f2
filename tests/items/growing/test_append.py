"""Items that come after the training: no old one moves, and nothing is lost on the way."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conrec.artefacts import hash_file, read_json, read_parquet, read_tensors, write_parquet
from conrec.config import Config, load_config
from conrec.errors import ArtefactError, ConrecError, DataError, RunLockedError
from conrec.folders import held
from conrec.items.growing import append, growth
from conrec.items.growing.append import APPENDED, append_items
from conrec.items.growing.growth import current_catalogue, own_catalogue, what_does_not_fit
from conrec.items.quantisers.quantiser import load_quantiser
from conrec.items.space import hash_semantic_ids, read_items
from conrec.items.trie_file import load_trie
from conrec.logs.prepare import Prepared
from conrec.logs.schema import ITEMS
from tests.items.appending import write_item_file, write_items_stage

TRAIN, OTHER, NEW = 300, 60, 60
ROWS = TRAIN + OTHER


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """One cache of vectors for all runs: each title is encoded once."""
    small = {"epochs": 20, "batch_size": 64, "codebook_size": 16, "hidden_dims": [64], "latent_dim": 16}
    cache = str(tmp_path_factory.mktemp("vectors"))
    return load_config(overrides={"rqvae": small, "run": {"threads": 1}, "encoder": {"cache": cache}})


@pytest.fixture(scope="module")
def films(prepared_ml100k: Prepared) -> pa.Table:
    """Films in an order drawn anew: training items, others that the run knows, and new ones."""
    drawn = np.random.default_rng(0).permutation(prepared_ml100k.items.num_rows)
    return prepared_ml100k.items.take(drawn[: ROWS + NEW]).combine_chunks()


@pytest.fixture(scope="module")
def train() -> np.ndarray:
    return np.arange(ROWS) < TRAIN


@pytest.fixture(scope="module")
def built(films: pa.Table, config: Config, train: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the first `ROWS` films; treat it as read-only."""
    return write_items_stage(tmp_path_factory.mktemp("append") / "run", films.slice(0, ROWS), train, config)


@pytest.fixture
def run(built: Path, tmp_path: Path) -> Path:
    return shutil.copytree(built, tmp_path / "run")


@pytest.fixture
def new(films: pa.Table, tmp_path: Path) -> Path:
    return write_item_file(tmp_path / "new.csv", films.slice(ROWS))


def test_old_rows_stay_bit_for_bit_and_the_run_is_untouched(
    run: Path, new: Path, films: pa.Table, train: np.ndarray, config: Config
) -> None:
    before = {name: hash_file(run / name) for name in ("data", "items")}
    done = append_items(run, new, config, lambda: train)
    assert {name: hash_file(run / name) for name in ("data", "items")} == before
    place, old = current_catalogue(run), read_items(run / "items")
    grown = read_items(place.folder)
    assert place.folder == done.folder
    assert place.appended == NEW
    assert grown.item_ids == tuple(films["item_id"].to_pylist())
    for name in ("codes", "resolved"):
        one, two = getattr(grown.semantic_ids, name), getattr(old.semantic_ids, name)
        assert one[:ROWS].tobytes() == two.tobytes()
    assert grown.rebuilt[:ROWS].tobytes() == old.rebuilt.tobytes()
    assert len({tuple(row) for row in grown.semantic_ids.resolved.tolist()}) == ROWS + NEW
    np.testing.assert_allclose(np.linalg.norm(grown.rebuilt, axis=1), 1, atol=1e-5)
    assert read_parquet(place.items, ITEMS).to_pylist() == films.to_pylist()
    assert load_trie(place.folder / "trie.safetensors", grown.semantic_ids.resolved).n_items == ROWS + NEW
    assert place.sid_tables == tuple(hash_semantic_ids(one.item_ids, one.semantic_ids) for one in (old, grown))
    rows = read_parquet(place.folder / "appended.parquet", APPENDED)
    assert rows["item_id"].to_pylist() == films["item_id"].to_pylist()[ROWS:]
    assert set(rows["append"].to_pylist()) == {1}
    lines = done.lines()
    assert lines[0] == "new.csv: 60 rows = 60 kept + 0 refused"
    assert lines[1] == f"new items: 60; beside {OTHER} items not trained on of the run"
    assert lines[-1].startswith("fits (60 new items): reconstruction error ")
    said = done.to_json()
    assert (said["state"], said["new"], said["counts"]["kept"]) == ("fits", NEW, NEW)
    assert said["growth"] == read_json(run / "catalogue" / "growth.json")


@pytest.mark.parametrize("collisions", ["nearest", "shared"])
def test_appended_items_are_named_as_if_the_run_had_known_them(
    collisions: str, films: pa.Table, train: np.ndarray, config: Config, tmp_path: Path
) -> None:
    """One run knows all that was not trained on, the other gets it afterwards: the same table, to the bit."""
    config = config.model_copy(
        update={"semantic_ids": config.semantic_ids.model_copy(update={"collisions": collisions})}
    )
    whole = read_items(write_items_stage(tmp_path / "whole", films.slice(0, ROWS), train, config) / "items")
    part = write_items_stage(tmp_path / "part", films.slice(0, TRAIN), train[:TRAIN], config)
    append_items(part, write_item_file(tmp_path / "rest.csv", films.slice(TRAIN, OTHER)), config, lambda: train[:TRAIN])
    grown = read_items(current_catalogue(part).folder)
    assert grown.item_ids == whole.item_ids
    assert grown.semantic_ids.codes.tobytes() == whole.semantic_ids.codes.tobytes()
    assert grown.semantic_ids.resolved.tobytes() == whole.semantic_ids.resolved.tobytes()
    assert grown.rebuilt.tobytes() == whole.rebuilt.tobytes()


def test_a_second_append_grows_the_first_and_knows_what_is_there(
    run: Path, films: pa.Table, train: np.ndarray, config: Config, tmp_path: Path
) -> None:
    first = append_items(run, write_item_file(tmp_path / "a.csv", films.slice(ROWS, 20)), config, lambda: train)
    between = read_items(first.folder)
    done = append_items(run, write_item_file(tmp_path / "b.csv", films.slice(ROWS - 5)), config, lambda: train)
    assert done.counts.refused == {"known already": 25}
    assert done.counts.kept == NEW - 20
    grown = read_items(done.folder)
    assert grown.item_ids == tuple(films["item_id"].to_pylist())
    assert grown.semantic_ids.resolved[: len(between)].tobytes() == between.semantic_ids.resolved.tobytes()
    assert grown.rebuilt[: len(between)].tobytes() == between.rebuilt.tobytes()
    said = read_json(run / "catalogue" / "growth.json")
    assert [one["drift"]["items"] for one in said["appends"]] == [20, 40]
    assert (said["drift"]["items"], said["items"], said["appended"]) == (60, ROWS + NEW, 60)
    assert len(set(said["sid_tables"])) == 3
    assert said["files"] == {one.name: hash_file(one) for one in done.folder.iterdir()}
    assert read_parquet(done.folder / "appended.parquet", APPENDED)["append"].to_pylist() == [1] * 20 + [2] * 40
    assert any(line.startswith("all appended items: 60") for line in done.lines())
    # The state before stays for those who read it; the one before that goes with the next append.
    assert first.folder.is_dir()
    again = films.slice(0, 1).set_column(0, "item_id", pa.array(["another"]))
    append_items(run, write_item_file(tmp_path / "c.csv", again), config, lambda: train)
    assert not first.folder.exists()
    assert done.folder.is_dir()


@pytest.mark.parametrize("broken", ["save_trie", "write_json", "rmtree"])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new(
    broken: str, run: Path, films: pa.Table, train: np.ndarray, config: Config, tmp_path: Path, monkeypatch
) -> None:
    """While the files are written, before the switch, and after it: and the next append goes on from there."""
    for number in (0, 1):
        part = films.slice(ROWS + 10 * number, 10)
        append_items(run, write_item_file(tmp_path / "a.csv", part), config, lambda: train)
    old = current_catalogue(run)
    third = write_item_file(tmp_path / "third.csv", films.slice(ROWS + 20, 10))

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if broken == "save_trie":
            patch.setattr("conrec.items.trie_file.save_trie", killed)
        elif broken == "write_json":
            patch.setattr(growth, "write_json", killed)
        else:
            patch.setattr(growth.shutil, "rmtree", lambda path, **_: killed() if path.name.startswith("0001") else None)
        with pytest.raises(KeyboardInterrupt):
            append_items(run, third, config, lambda: train)
    now = current_catalogue(run)
    if broken == "rmtree":
        assert now.appended == 30
    else:
        assert now == old
        append_items(run, third, config, lambda: train)
        assert current_catalogue(run).appended == 30
    assert len(read_items(current_catalogue(run).folder)) == ROWS + 30
    fourth = write_item_file(tmp_path / "fourth.csv", films.slice(ROWS + 30, 10))
    append_items(run, fourth, config, lambda: train)
    left = [one.name for one in (run / "catalogue").iterdir() if one.is_dir()]
    assert sorted(name[:4] for name in left) == ["0003", "0004"]


def test_two_at_once_are_refused(run: Path, new: Path, train: np.ndarray, config: Config) -> None:
    with held(run), pytest.raises(RunLockedError, match="another process is working in this run"):
        append_items(run, new, config, lambda: train)
    assert not (run / "catalogue").exists()


def test_items_of_another_domain_call_for_retraining(
    run: Path, new: Path, train: np.ndarray, config: Config, tmp_path: Path
) -> None:
    """And films that were held out do not, see above."""
    what = ("stainless steel hex bolt", "ball bearing", "copper pipe elbow", "cordless drill battery", "hose clamp")
    sizes = [
        f"{one}, {size} mm, zinc plated, pack of {pack}" for one in what for size in (6, 8, 12) for pack in (5, 50)
    ]
    path = tmp_path / "hardware.csv"
    path.write_text("item_id,title\n" + "".join(f'h{number},"{one}"\n' for number, one in enumerate(sizes)))
    done = append_items(run, path, config, lambda: train)
    assert done.growth["verdict"]["state"] == "retrain"
    assert done.lines()[-1].startswith("retrain (30 new items): reconstruction error ")
    # Films afterwards fit by themselves; with the bolts among what was appended, the verdict stays.
    done = append_items(run, new, config, lambda: train)
    assert done.growth["appends"][-1]["verdict"]["state"] == "fits"
    assert done.growth["verdict_of_all"]["state"] == "retrain"
    assert done.growth["verdict"] == done.growth["verdict_of_all"]
    assert done.lines()[-1].startswith("retrain (all 90 appended items): reconstruction error ")


def test_single_items_decide_nothing_until_they_add_up(
    run: Path, films: pa.Table, train: np.ndarray, config: Config, tmp_path: Path
) -> None:
    for number, (first, n) in enumerate(((0, 1), (1, 2), (3, 18))):
        file = write_item_file(tmp_path / f"{number}.csv", films.slice(ROWS + first, n))
        done = append_items(run, file, config, lambda: train)
        assert done.growth["appends"][-1]["verdict"]["state"] == "too few to tell"
        expected = "too few to tell (all " if number < 2 else "fits (all 21 appended items): "
        assert done.lines()[-1].startswith(expected)
    assert [one["verdict"]["items"] for one in done.growth["appends"]] == [1, 2, 18]


def test_a_retrained_run_is_refused_and_its_items_can_be_appended_anew(
    run: Path, new: Path, films: pa.Table, train: np.ndarray, config: Config, tmp_path: Path
) -> None:
    append_items(run, new, config, lambda: train)
    path = run / "items" / "quantiser.safetensors"
    quantiser = load_quantiser(path)
    quantiser.codebooks += 0.01
    quantiser.save(path)
    for refused in (lambda: current_catalogue(run), lambda: append_items(run, new, config, lambda: train)):
        with pytest.raises(ArtefactError, match=r"60 appended items .* from other codebooks.*trained again") as caught:
            refused()
        assert "conrec items append" in str(caught.value)
    assert own_catalogue(run).appended == 0
    moved = (run / "catalogue").rename(tmp_path / "moved")
    # A file of a run has our columns, whatever the run's own file of items looks like.
    data = config.data.model_copy(
        update={"source": "table", "item_columns": config.data.item_columns.model_copy(update={"title": "name"})}
    )
    own = config.model_copy(update={"data": data})
    done = append_items(run, next(moved.glob("*/items.parquet")), own, lambda: train)
    assert done.counts.refused == {"known already": ROWS}
    assert read_parquet(current_catalogue(run).items, ITEMS).to_pylist() == films.to_pylist()


def test_rows_that_cannot_be_used_are_counted(run: Path, train: np.ndarray, config: Config, films: pa.Table) -> None:
    known = films["item_id"][0].as_py()
    path = run / "mixed.csv"
    path.write_text(
        f"item_id,title,description\n{known},Another title,\nn1,One,\nn1,Otherwise,\nn2,,\nn3,!!!,\nn4,,Two men go to "
        "sea\n,Nobody,\nn5,Three,\nn6,Four,\n"
    )
    done = append_items(run, path, config, lambda: train)
    assert done.counts.refused == {
        "empty item id": 1,
        "known already": 1,
        "nothing said of the item": 2,
        "item listed before in the file": 1,
    }
    table = read_parquet(current_catalogue(run).items, ITEMS).slice(ROWS)
    assert table["item_id"].to_pylist() == ["n1", "n4", "n5", "n6"]
    assert table["title"].to_pylist()[0] == "One"
    assert table["text"].to_pylist()[1] == "Two men go to sea."


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "", "this file is empty"),
        ("a.csv", "item_id,title\n", "has no rows"),
        ("a.csv", "item_id,name\n1,x\n", "has no column 'title'"),
        (
            "a.csv",
            "item_id,title\nx1,\nx2,\n",
            "no item of the file is new: 2 of 2 rows cannot be used (2 not",
        ),
        ("a.csv", "item_id,title\nx1,\nx2,\nx3,\nx4,good\n", "3 of 4 rows cannot be used (3 nothing said of the item)"),
        ("a.parquet", "item_id,title\n", "is not a Parquet file"),
        ("a.jpg", "\x89PNG", "does not say how the file is written"),
        ("b.csv", None, "this file does not exist"),
        ("", None, "this is a folder"),
    ],
)
def test_files_that_cannot_be_used_are_one_clear_line(
    run: Path, name: str, content: str | None, said: str, train: np.ndarray, config: Config, tmp_path: Path
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(DataError) as caught:
        append_items(run, folder / name, config, lambda: train)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (run / "catalogue").exists()


def test_a_whole_export_with_nothing_new_is_no_mistake(
    run: Path, new: Path, train: np.ndarray, config: Config, films: pa.Table, tmp_path: Path
) -> None:
    """Before anything was appended, and after: nothing is written, and the last verdict is said again."""
    path = write_item_file(tmp_path / "old.csv", films.slice(0, 40))
    done = append_items(run, path, config, lambda: train)
    assert done.lines()[-2:] == [f"nothing new: {run / 'items'} stays as it is", "nothing was appended before either"]
    assert (done.new, done.to_json()["state"], done.counts.refused) == (0, None, {"known already": 40})
    assert not (run / "catalogue").exists()
    last = append_items(run, new, config, lambda: train)
    before = hash_file(run / "catalogue")
    done = append_items(run, write_item_file(tmp_path / "all.csv", films), config, lambda: train)
    assert hash_file(run / "catalogue") == before
    assert done.lines()[-1] == last.lines()[-1]
    assert (done.new, done.to_json()["state"]) == (0, "fits")


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("items", "this run has no items yet"),
        ("items/manifest.json", "'manifest.json' is missing"),
        ("items/fusion.safetensors", "made by an earlier version"),
        ("items/rebuilt.safetensors", "rebuilt.safetensors: this file is missing"),
    ],
)
def test_runs_without_finished_items_are_one_clear_line(
    lost: str, said: str, run: Path, new: Path, train: np.ndarray, config: Config
) -> None:
    path = run / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ArtefactError) as caught:
        append_items(run, new, config, lambda: train)
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["{}", '{"format": "conrec-catalogue", "version": 9}', "[1]", "{"])
def test_damaged_manifests_are_refused(text: str, run: Path) -> None:
    (run / "catalogue").mkdir()
    (run / "catalogue" / "growth.json").write_text(text)
    with pytest.raises(ConrecError, match=r"growth\.json"):
        current_catalogue(run)


def test_what_finds_no_name_is_refused_and_counted(
    films: pa.Table, train: np.ndarray, config: Config, tmp_path: Path
) -> None:
    """A fourth code that the language model was trained with has no room for more; the others go on."""
    config = config.model_copy(
        update={"semantic_ids": config.semantic_ids.model_copy(update={"collisions": "extra_level"})}
    )
    run = write_items_stage(tmp_path / "run", films.slice(0, ROWS), train, config)
    size = read_items(run / "items").semantic_ids.extra_size
    assert size is not None
    same = [{"item_id": f"copy{number}", "title": "Alien (1979)"} for number in range(size + 40)]
    copies = write_item_file(tmp_path / "copies.csv", pa.Table.from_pylist([{**one, "category": []} for one in same]))
    done = append_items(run, copies, config, lambda: train)
    lost = done.counts.refused[append.NO_NAME]
    assert 40 <= lost < size + 40
    assert done.counts.kept == size + 40 - lost
    grown = read_items(done.folder).semantic_ids
    assert grown.extra_size == size
    assert len({tuple(row) for row in grown.resolved.tolist()}) == ROWS + done.counts.kept
    assert done.lines()[-1].startswith(
        f"retrain ({size + 40 - lost} new items): {lost} items found no semantic ID left"
    )
    unnamed = read_json(run / "catalogue" / "growth.json")["unnamed"]
    assert unnamed == sorted({one["item_id"] for one in same} - set(read_items(done.folder).item_ids))
    # The same file again, and once more with films that can be named: who has no name is counted once.
    again = append_items(run, copies, config, lambda: train)
    assert (again.new, again.counts.refused[append.NO_NAME]) == (0, lost)
    assert again.lines()[-1] == done.lines()[-1]
    whole = write_item_file(
        tmp_path / "whole.csv",
        pa.concat_tables(
            [
                pa.Table.from_pylist([{**one, "category": []} for one in same]),
                films.slice(ROWS, 25).select(["item_id", "title", "category"]),
            ],
            promote_options="permissive",
        ),
    )
    more = append_items(run, whole, config, lambda: train)
    assert (more.new, more.growth["drift"]["unnamed"], more.growth["unnamed"]) == (25, lost, unnamed)
    more = pa.Table.from_pylist([{"item_id": "more", "title": "Alien (1979)", "category": []}])
    one = write_item_file(tmp_path / "one.csv", more)
    with pytest.raises(DataError, match=r"no semantic ID left for it: all 1 new items"):
        append_items(run, one, config, lambda: train)
    assert not list((run / "catalogue").glob(".*"))


def test_the_trie_and_table_of_a_catalogue_are_whole(run: Path, new: Path, train: np.ndarray, config: Config) -> None:
    """Every file of it says the same number of items, and the embeddings of old items are not asked for again."""
    done = append_items(run, new, config, lambda: train)
    arrays = read_tensors(done.folder / "trie.safetensors")
    assert len(arrays["codes"]) == ROWS + NEW
    (run / "catalogue" / "growth.json").unlink()
    assert current_catalogue(run) == own_catalogue(run)
    table = read_parquet(done.folder / "items.parquet", ITEMS)
    write_parquet(run / "again.parquet", table)
    assert append_items(run, run / "again.parquet", config, lambda: train).growth["items"] == ROWS + NEW


@pytest.mark.parametrize("name", ["items.parquet", "semantic_ids.parquet", "appended.parquet"])
def test_tables_that_are_not_those_that_were_written_are_refused(
    name: str, run: Path, new: Path, train: np.ndarray, config: Config
) -> None:
    """With the rows of one of them in another order, every prediction would be of another item."""
    path = append_items(run, new, config, lambda: train).folder / name
    table = pq.read_table(path)
    pq.write_table(table.take(np.arange(table.num_rows)[::-1]), path)
    with pytest.raises(ArtefactError, match=rf"{name}: is not the file that was written.*that of growth\.json"):
        current_catalogue(run)
    assert name in str(what_does_not_fit(run))
    path.unlink()
    with pytest.raises(ArtefactError, match=rf"{name}: this file is missing"):
        current_catalogue(run)
    shutil.rmtree(run / "catalogue")
    assert what_does_not_fit(run) is None
