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
from conrec.items import encoders
from conrec.items.build import build_items, item_texts, read_items
from conrec.items.rqvae import RqVae
from conrec.logs.prepare import Prepared
from conrec.logs.schema import ITEMS

ROWS = 300


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
    build_items(titles, np.arange(ROWS) < 250, config, folder, seed=0)
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
    assert space.trie.n_items == ROWS
    embeddings = read_tensors(built / "embeddings.safetensors")["embedding"]
    model = RqVae.load(built / "rqvae.safetensors")
    assert np.array_equal(model.encode(embeddings), space.semantic_ids.codes)
    assert np.allclose(model.mean.numpy(), embeddings[:250].mean(0), atol=1e-6)
    # Rebuilt from the raw codes: items that share them are alike, moved or not.
    assert np.allclose(np.linalg.norm(space.rebuilt, axis=1), 1, atol=1e-5)
    decoded = model.rebuild(space.semantic_ids.codes)
    assert np.allclose(space.rebuilt * np.linalg.norm(decoded, axis=1, keepdims=True), decoded, atol=1e-4)


def test_diagnostics_say_what_the_codes_are_worth(built: Path) -> None:
    found = read_json(built / "diagnostics.json")
    assert (found["items"], found["training_items"], found["codebook_size"]) == (ROWS, 250, 32)
    assert found["collisions"]["after"]["rate"] == 0
    assert found["reconstruction_cosine"]["training"] > 0.5
    assert [sum(level["counts"]) for level in found["levels"]] == [ROWS] * 3
    assert found["curve"]["reconstruction"][-1][1] < found["curve"]["reconstruction"][0][1]


def test_films_of_a_series_are_nearer_to_each_other_than_to_the_rest(built: Path, titles: pa.Table) -> None:
    rebuilt = read_items(built).rebuilt
    series = np.asarray([name.startswith("Star Trek") for name in titles["title"].to_pylist()])
    assert series.sum() >= 5
    similarity = rebuilt[series] @ rebuilt.T
    assert similarity[:, series].mean() > similarity[:, ~series].mean() + 0.3


def test_built_again_to_the_same_bytes(built: Path, titles: pa.Table, config: Config, tmp_path: Path) -> None:
    build_items(titles, np.arange(ROWS) < 250, config, tmp_path / "items", seed=0)
    assert hash_file(tmp_path / "items") == hash_file(built)


def test_items_outside_the_training_period_leave_the_codebooks_alone(
    built: Path, titles: pa.Table, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embeddings = read_tensors(built / "embeddings.safetensors")["embedding"].copy()
    embeddings[250:] = embeddings[250:][::-1] * 3
    monkeypatch.setattr(encoders, "encode_texts", lambda *_: embeddings)
    space = build_items(titles, np.arange(ROWS) < 250, config, tmp_path, seed=0)
    assert (tmp_path / "rqvae.safetensors").read_bytes() == (built / "rqvae.safetensors").read_bytes()
    assert np.array_equal(space.semantic_ids.codes[:250], read_items(built).semantic_ids.codes[:250])
    assert not np.array_equal(space.semantic_ids.codes[250:], read_items(built).semantic_ids.codes[250:])


def test_one_item(config: Config, tmp_path: Path) -> None:
    space = build_items(table(["Alien (1979)"]), np.asarray([True]), config, tmp_path, seed=0)
    assert space.semantic_ids.texts() == ["a_0 b_0 c_0"]
    assert read_items(tmp_path).trie.n_items == 1


def test_items_that_are_all_alike_still_get_names_of_their_own(config: Config, tmp_path: Path) -> None:
    space = build_items(table(["🎬"] * 40), np.ones(40, dtype=np.bool_), config, tmp_path, seed=0)
    assert len(np.unique(space.semantic_ids.codes, axis=0)) == 1
    assert len(set(space.semantic_ids.texts())) == 40
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
