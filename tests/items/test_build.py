"""The items stage on real titles, and what reading it back needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from conrec.artefacts import hash_file, read_json, read_tensors, write_tensors
from conrec.config import Config, load_config
from conrec.errors import ArtefactError, ConfigError, DataError
from conrec.items.build import build_items, item_texts, read_items
from conrec.items.encoders import text as encoders
from conrec.items.quantisers.quantiser import load_quantiser
from conrec.logs.prepare import Prepared
from conrec.logs.schema import ITEMS

ROWS, TRAIN = 300, 270


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(overrides={"rqvae": {"epochs": 15, "batch_size": 64}})


@pytest.fixture(scope="module")
def titles(prepared_ml100k: Prepared) -> pa.Table:
    """A small cut of the catalogue, with all of one series of films in front."""
    items = prepared_ml100k.items
    series = np.asarray([name.startswith("Star Trek") for name in items["title"].to_pylist()])
    return items.take(np.argsort(~series, kind="stable")[:ROWS])


@pytest.fixture(scope="module")
def built(titles: pa.Table, config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "items"
    build_items(titles, np.arange(ROWS) < TRAIN, config, folder, seed=0)
    return folder


def table(texts: list[str]) -> pa.Table:
    n = len(texts)
    columns = {"item_id": [str(i) for i in range(n)], "title": texts, "text": texts, "category": [[]] * n}
    return pa.table({**columns, "image": [None] * n}, schema=ITEMS)


def test_all_files_agree_with_each_other(built: Path, titles: pa.Table) -> None:
    space = read_items(built)
    assert space.item_ids == tuple(titles["item_id"].to_pylist())
    assert (len(space), space.codebook_size) == (ROWS, 32)
    assert len(np.unique(space.semantic_ids.resolved, axis=0)) == ROWS
    embeddings = read_tensors(built / "embeddings.safetensors")["embedding"]
    model = load_quantiser(built / "quantiser.safetensors")
    assert np.array_equal(model.encode(embeddings), space.semantic_ids.codes)
    assert np.allclose(model.mean.numpy(), embeddings[:TRAIN].mean(0), atol=1e-6)
    # Rebuilt from the raw codes: items that share them are alike, moved or not.
    assert np.allclose(np.linalg.norm(space.rebuilt, axis=1), 1, atol=1e-5)
    decoded = model.rebuild(space.semantic_ids.codes)
    assert np.allclose(space.rebuilt * np.linalg.norm(decoded, axis=1, keepdims=True), decoded, atol=1e-4)


def test_diagnostics_say_what_the_codes_are_worth(built: Path) -> None:
    found = read_json(built / "diagnostics.json")
    assert (found["items"], found["training_items"], found["codebook_size"]) == (ROWS, TRAIN, 32)
    assert found["codebook_size_by_training_items"] == 32
    assert 0 < found["collisions"]["moved_of_training"] < found["collisions"]["moved"]
    assert found["collisions"]["after"]["rate"] == 0
    assert found["reconstruction_cosine"]["training"] > 0.5
    assert [sum(level["counts"]) for level in found["levels"]] == [ROWS] * 3
    # In standardised units the variance is the number of features, 384: what is lost under noise is less.
    assert 0 < found["curve"]["reconstruction"][-1][1] < 0.8 * 384


def test_films_of_a_series_are_nearer_to_each_other_than_to_the_rest(built: Path, titles: pa.Table) -> None:
    rebuilt = read_items(built).rebuilt
    series = np.asarray([name.startswith("Star Trek") for name in titles["title"].to_pylist()])
    assert series.sum() >= 5
    similarity = rebuilt[series] @ rebuilt.T
    assert similarity[:, series].mean() > similarity[:, ~series].mean() + 0.3


def test_built_again_to_the_same_bytes(built: Path, titles: pa.Table, config: Config, tmp_path: Path) -> None:
    build_items(titles, np.arange(ROWS) < TRAIN, config, tmp_path / "items", seed=0)
    assert hash_file(tmp_path / "items") == hash_file(built)


def test_items_outside_the_training_period_change_nothing_for_those_inside(
    titles: pa.Table, config: Config, tmp_path: Path
) -> None:
    """Later items with the titles of training items, so that they want their names, stand first in the catalogue."""
    train = titles.slice(0, TRAIN)
    again = train.slice(0, 60)
    again = again.set_column(0, ITEMS.field("item_id"), pa.array([f"later {one}" for one in range(60)]))
    later = np.arange(TRAIN + 60) < 60
    alone = build_items(train, np.ones(TRAIN, dtype=np.bool_), config, tmp_path / "alone", seed=0)
    both = build_items(pa.concat_tables([again, train]), ~later, config, tmp_path / "both", seed=0)
    raw, resolved = both.semantic_ids.codes, both.semantic_ids.resolved
    wanted_twice = {tuple(row) for row in raw[later].tolist()} & {tuple(row) for row in raw[~later].tolist()}
    assert len(wanted_twice) > 30
    assert np.array_equal(raw[~later], alone.semantic_ids.codes)
    assert np.array_equal(resolved[~later], alone.semantic_ids.resolved)
    assert len(np.unique(resolved, axis=0)) == TRAIN + 60
    assert np.array_equal(both.rebuilt[~later], alone.rebuilt)
    assert (tmp_path / "both/quantiser.safetensors").read_bytes() == (
        tmp_path / "alone/quantiser.safetensors"
    ).read_bytes()
    embedded = [read_tensors(tmp_path / name / "embeddings.safetensors")["embedding"] for name in ("both", "alone")]
    assert np.array_equal(embedded[0][~later], embedded[1])


@pytest.fixture
def drawn_by_title(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of the encoder: title "7" is row 7 of a drawn table."""
    rows = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    monkeypatch.setattr(encoders, "encode_texts", lambda texts, *_: rows[[int(text) for text in texts]])


@pytest.mark.usefixtures("drawn_by_title")
def test_codebooks_grow_where_the_whole_catalogue_would_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_config(overrides={"rqvae": {"epochs": 2}})
    items, train = table([str(one) for one in range(40)] + ["7"] * 300), np.arange(340) < 40
    space = build_items(items, train, config, tmp_path, seed=0)
    # 16 codes suffice for 40 items; 16 × 16 names do not suffice for the 300 that share a first code.
    assert space.codebook_size == 32
    assert len(np.unique(space.semantic_ids.resolved, axis=0)) == 340
    found = read_json(tmp_path / "diagnostics.json")
    assert (found["codebook_size_by_training_items"], found["codebook_size"]) == (16, 32)
    assert load_quantiser(tmp_path / "quantiser.safetensors").config.codebook_size == 32
    assert "items share a first code of 16: trained again with 32 a level" in " ".join(capsys.readouterr().err.split())


@pytest.mark.usefixtures("drawn_by_title")
@pytest.mark.parametrize(("n_train", "size"), [(20, None), (40, 16)])
def test_codebooks_that_cannot_grow_or_must_not_are_an_error(n_train: int, size: int | None, tmp_path: Path) -> None:
    config = load_config(overrides={"rqvae": {"epochs": 2, "codebook_size": size}})
    items = table([str(one) for one in range(n_train)] + ["7"] * 300)
    with pytest.raises(DataError, match=r"share the first code .*at most 16 × 16 = 256.*rqvae\.codebook_size"):
        build_items(items, np.arange(len(items)) < n_train, config, tmp_path, seed=0)


def test_one_item(config: Config, tmp_path: Path) -> None:
    space = build_items(table(["Alien (1979)"]), np.asarray([True]), config, tmp_path, seed=0)
    assert space.semantic_ids.text(0) == "a_0 b_0 c_0"
    assert len(read_items(tmp_path)) == 1


def test_items_that_are_all_alike_still_get_names_of_their_own(config: Config, tmp_path: Path) -> None:
    space = build_items(table(["🎬"] * 40), np.ones(40, dtype=np.bool_), config, tmp_path, seed=0)
    assert len(np.unique(space.semantic_ids.codes, axis=0)) == 1
    assert len(np.unique(space.semantic_ids.resolved, axis=0)) == 40
    assert np.isfinite(space.rebuilt).all()


def test_bad_inputs(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = table(["Alien", "Heat", "Fargo"])
    with pytest.raises(DataError, match="none of the 3 items has an event in the training period"):
        build_items(items, np.zeros(3, dtype=np.bool_), config, tmp_path, seed=0)
    many = load_config(overrides={"rqvae": {"codebook_size": 64}})
    with pytest.raises(ConfigError, match="64 codes a level for 3 items of the training period"):
        build_items(items, np.ones(3, dtype=np.bool_), many, tmp_path, seed=0)
    with pytest.raises(ValueError, match="2 training marks for 3 items"):
        build_items(items, np.ones(2, dtype=np.bool_), config, tmp_path, seed=0)
    broken = np.full((3, 4), np.nan, dtype=np.float32)
    monkeypatch.setattr(encoders, "encode_texts", lambda *_: broken)
    with pytest.raises(DataError, match=r"row 0 is not finite \(3 such rows\)"):
        build_items(items, np.ones(3, dtype=np.bool_), config, tmp_path, seed=0)


def test_titles_stand_in_for_empty_texts() -> None:
    items = table(["Alien", "Heat", ""])
    texts = items.set_column(2, "text", pa.array(["a ship", "", None], pa.string()))
    assert item_texts(texts) == ["a ship", "Heat", ""]


def test_damaged_files_are_named(built: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"semantic_ids\.parquet: this file is missing"):
        read_items(tmp_path)
    (tmp_path / "semantic_ids.parquet").write_bytes((built / "semantic_ids.parquet").read_bytes())
    write_tensors(tmp_path / "rebuilt.safetensors", {"rebuilt": np.zeros((2, 3), dtype=np.float32)})
    with pytest.raises(ArtefactError, match=r"rebuilt\.safetensors: holds .*expected 'rebuilt', float32 \[300, d\]"):
        read_items(tmp_path)


def test_reading_needs_no_torch(built: Path) -> None:
    code = (
        "import sys, pathlib; from conrec.items.build import read_items; "
        "space = read_items(pathlib.Path(sys.argv[1])); sys.exit('torch' in sys.modules or len(space) != 300)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(built)], check=False).returncode == 0
